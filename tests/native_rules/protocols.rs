//! Two protocols on one port, and ends that do not speak the same.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;
use unbroken::{
    CloseReason, Connector, Error, HandshakeError, LinkState, Refusal, RejectCode, Snet,
    protocol::{
        native::{self, Answer},
        snet::{self, ResumeReply},
    },
};

use super::{
    memory_link::{Client, Fault, Server},
    memory_net::{
        Net, ROOMY, closed, exchange, expect, native, plain, read_error, reason, resumed, send,
        within,
    },
    raw_native::{self, Frames},
    raw_peer,
};

/// A server that takes both serves both, and each is as it would be alone.
#[tokio::test(start_paused = true)]
async fn one_port_serves_both() {
    let server_config = native().snet(Snet::rc4().silence(None));
    let rc4 = server_config.clone();
    let mut net = Net::new(&server_config, ROOMY);
    let all = net
        .acceptor()
        .sessions()
        .expect("the configuration is good");
    let mut sessions = Vec::new();
    for number in 0..6 {
        let config = if number % 2 == 0 { &native() } else { &rc4 };
        let (client, server) = net.open(config).await;
        let first = net.newest().written(Client)[0];
        assert_eq!(first, if number % 2 == 0 { b'U' } else { 0 });
        assert_eq!(client.handle().id(), server.handle().id());
        // An id of snet's has 8 bytes.
        let id = client.handle().id().to_string();
        assert_eq!(id.ends_with("0000000000000000"), number % 2 == 1, "{id}");
        sessions.push((client, server));
    }
    assert_eq!(all.count(), 6);
    for turn in 1..5 {
        for (client, server) in &mut sessions {
            exchange(client, server).await;
        }
        for number in 0..net.links() {
            net.wire(number)
                .cut([Fault::Reset, Fault::End][turn as usize % 2]);
        }
        for (client, server) in &mut sessions {
            exchange(client, server).await;
            resumed(&client.handle(), turn).await;
            resumed(&server.handle(), turn).await;
        }
    }
    // The end of one protocol's is told, of the other's it is not.
    for (number, (mut client, server)) in sessions.into_iter().enumerate() {
        drop(server);
        if number % 2 == 0 {
            let end = within("the end", client.read(&mut [0])).await;
            assert_eq!(end.expect("a clean end"), 0);
        } else {
            let why = CloseReason::Refused(Refusal::Unexplained);
            assert_eq!(reason(&read_error(&mut client).await), why);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_snet_client_is_turned_away_by_a_server_without_snet() {
    let mut net = Net::new(&native(), ROOMY);
    let connector = Connector::new(net.dialer(), plain());
    let error = within("opening", connector.oneshot(())).await;
    let error = error.expect_err("it is not spoken there");
    assert!(matches!(error, Error::Link(_)), "{error:?}");
    assert!(
        net.newest().written(Server).is_empty(),
        "snet has no words for it"
    );
    let failure = net.failure().await;
    assert!(
        matches!(failure, Error::Handshake(HandshakeError::FirstByte(0))),
        "{failure:?}"
    );
    // A session of before, on a server that has stopped speaking it.
    let mut net = Net::new(&plain().resume_window(Duration::from_secs(20)), ROOMY);
    let config = plain().resume_window(Duration::from_secs(20));
    let (client, server) = net.open(&config).await;
    net.restart_server(&native());
    net.newest().cut(Fault::Reset);
    // A link that is closed without a word may be anything: it goes on trying.
    assert_eq!(closed(&client.handle()).await, CloseReason::Expired);
    assert!(net.dials().len() > 5);
    drop(server);
}

/// A prelude of this version, which asks for this security and suite.
fn prelude(version: u8, security: u8, suite: u8) -> Vec<u8> {
    let mut bytes = b"UNBR".to_vec();
    bytes.extend([version, 0, security, suite]);
    bytes.extend([0; 8]);
    bytes
}

#[tokio::test(start_paused = true)]
async fn a_client_of_another_version_or_security_is_told_so_from_its_prelude() {
    let mut net = Net::new(&native(), ROOMY);
    let not_offered = |error: &HandshakeError| *error == HandshakeError::Security;
    let other = |error: &HandshakeError| *error == HandshakeError::Version;
    let mut reserved = prelude(1, 0, 0);
    reserved[15] = 1;
    let mut kind = prelude(1, 0, 0);
    kind[5] = 2;
    type Says = fn(&HandshakeError) -> bool;
    let cases: [(Vec<u8>, RejectCode, Says); 9] = [
        (prelude(2, 0, 0), RejectCode::Version, other),
        (prelude(0, 0, 0), RejectCode::Version, other),
        (prelude(255, 0, 0), RejectCode::Version, other),
        (prelude(2, 1, 1), RejectCode::Version, other),
        (reserved, RejectCode::Version, other),
        (kind, RejectCode::Version, other),
        (
            prelude(1, 1, 1),
            RejectCode::SecurityNotOffered,
            not_offered,
        ),
        (
            prelude(1, 4, 2),
            RejectCode::SecurityNotOffered,
            not_offered,
        ),
        (
            prelude(1, 0, 1),
            RejectCode::SecurityNotOffered,
            not_offered,
        ),
    ];
    for (prelude, code, says) in cases {
        let (mut link, _) = net.raw_link();
        // Whatever follows, as it need not be a frame.
        link.write_all(&prelude).await.expect("room");
        link.write_all(&[0xee; 12]).await.expect("room");
        let mut answer = Vec::new();
        within("the answer", link.read_to_end(&mut answer))
            .await
            .expect("reading");
        // Where a message of the security is expected, one of no length says that the rest is in the clear.
        let announced: &[u8] = if prelude[6] == 0 { &[] } else { &[0, 0] };
        let reject = [
            announced,
            &[0x15, 0, 0, 6, 0, code.code() as u8, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(answer, reject, "{prelude:?}");
        drop(link);
        let failure = net.failure().await;
        assert!(
            matches!(&failure, Error::Handshake(error) if says(error)),
            "{failure:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_of_another_version_or_security_is_an_error_of_its_own() {
    for code in [RejectCode::Version, RejectCode::SecurityNotOffered] {
        let net = Net::new(&native(), ROOMY);
        net.set(super::memory_net::Dial::Ignore);
        let connector = Connector::new(net.dialer(), native());
        let (opened, _) = tokio::join!(connector.oneshot(()), async {
            raw_native::reject(&mut net.ignored().await, code, Duration::ZERO).await
        });
        let error = opened.expect_err("turned away");
        assert!(
            matches!(error, Error::Rejected { reason, .. } if reason == code),
            "{error:?}"
        );
        assert_eq!(net.dials().len(), 1);
    }
}

/// A server that speaks only snet closes the link at the first byte.
#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_know_native_is_a_link_that_fails() {
    let net = Net::new(&native(), ROOMY);
    net.set(super::memory_net::Dial::Ignore);
    let connector = Connector::new(net.dialer(), native());
    let (opened, ()) = tokio::join!(connector.oneshot(()), async {
        let mut link = net.ignored().await;
        assert_eq!(link.read_u8().await.expect("a byte"), b'U');
    });
    assert!(matches!(opened, Err(Error::Link(_))), "{opened:?}");
}

/// The ids of one mean nothing in the other.
#[tokio::test(start_paused = true)]
async fn a_session_is_resumed_by_its_own_protocol_alone() {
    let mut net = Net::new(&plain(), ROOMY);
    let (link, _) = net.raw_link();
    let (mut native, opened) = Frames::open(link).await.expect("a session");
    let mut native_server = net.opened().await;
    let (mut snet, _) = net.raw_link();
    let named = raw_peer::open(&mut snet).await.expect("a session");
    let mut snet_server = net.opened().await;

    // native asks for snet's.
    let mut id = [0; 16];
    id[..8].copy_from_slice(&named.id.to_be_bytes());
    let asked = native::Opened {
        id,
        secret: native::SessionSecret::new([0; 32]),
        ..opened.clone()
    };
    let (mut link, _) = net.raw_link();
    let (_, answer) = raw_native::request(&mut link, &asked, 1, 0)
        .await
        .expect("an answer");
    assert!(
        matches!(answer, Answer::Rejected(reject) if reject.code == RejectCode::Unknown),
        "{answer:?}"
    );
    // snet asks for native's.
    let [a, b, c, d, e, f, g, h, ..] = opened.id;
    let asked = snet::Opened {
        id: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        key: named.key.clone(),
    };
    let (mut link, _) = net.raw_link();
    let (_, reply) = raw_peer::request(&mut link, &asked, 0, 0)
        .await
        .expect("an answer");
    assert_eq!(reply, ResumeReply::Refused);

    send(&mut native_server, b"native").await;
    assert_eq!(within("the bytes", native.take(6)).await, b"native");
    send(&mut snet_server, b"snet").await;
    expect(&mut snet, b"snet").await;
    for server in [&native_server, &snet_server] {
        assert_eq!(server.handle().state(), LinkState::Connected);
        assert_eq!(server.handle().stats().resumes, 0);
    }
}

/// The server's route is in every resume, where a load balancer finds it.
#[tokio::test(start_paused = true)]
async fn resumes_carry_the_route() {
    for route in [0, 0xbeef, 0x1234_5678, u32::MAX] {
        let config = native().route(route);
        let mut net = Net::new(&config, ROOMY);
        let (mut client, mut server) = net.open(&native()).await;
        assert_eq!(net.newest().written(Client)[8..12], [0; 4]);
        exchange(&mut client, &mut server).await;
        net.newest().cut(Fault::Reset);
        resumed(&client.handle(), 1).await;
        assert_eq!(net.newest().written(Client)[8..12], route.to_be_bytes());
    }
}

/// What a load balancer must be able to rely on: an open says all of it in its first segment, and the answer takes one round trip.
#[tokio::test(start_paused = true)]
async fn opening_and_resuming_take_one_round_trip() {
    let delay = Duration::from_millis(40);
    let mut net = Net::slow(&native(), ROOMY, delay);
    let began = tokio::time::Instant::now();
    let connector = Connector::new(net.dialer(), native());
    let mut client = connector.oneshot(()).await.expect("a session");
    assert_eq!(began.elapsed(), 2 * delay);
    send(&mut client, b"early").await;
    let mut server = net.session().await;
    expect(&mut server, b"early").await;
    // CONFIRM and the first bytes are in one segment.
    assert!(
        began.elapsed() <= 3 * delay + Duration::from_millis(1),
        "{:?}",
        began.elapsed()
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = tokio::time::Instant::now();
    net.newest().cut(Fault::Reset);
    send(&mut client, b"replayed").await;
    expect(&mut server, b"replayed").await;
    let took = began.elapsed();
    assert!(took <= 3 * delay + Duration::from_millis(2), "{took:?}");
}
