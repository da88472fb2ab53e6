//! Handshakes that get stuck: in the way of nobody, and not for ever.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::{Instant, timeout},
};
use tower::{Service, ServiceExt};
use unbroken::{Accepted, Config, Connector, Error, LinkState, ResumeError};

use super::{
    memory_link::{Client, Fault, MemoryLink, Server, link},
    memory_net::{
        Dial, NATIVE_CONFIRM, NATIVE_OPEN, Net, Protocol, ROOMY, connected, exchange, over_both,
        resumed, send, state, within,
    },
    raw_session::{RawOpen, RawSession, raw_session},
};

over_both!(
    eternal_terminal_18_a_thousand_stuck_handshakes_delay_nobody,
    eternal_terminal_18_when_handshakes_are_full_the_one_silent_longest_makes_room,
    eternal_terminal_18_a_peer_that_goes_on_keeps_its_place,
    teleport_21_every_step_of_a_servers_handshake_has_a_deadline,
    teleport_21_a_peer_that_dawdles_has_no_longer_than_one_that_stops,
    teleport_21_a_client_waits_for_no_answer_for_ever,
    teleport_21_a_link_that_dies_between_the_steps_leaves_nothing_behind,
    a_cancelled_accept_closes_its_link_and_no_more,
);

const DEADLINE: Duration = Duration::from_secs(7);

fn config(protocol: Protocol) -> Config {
    protocol.config().handshake_timeout(DEADLINE)
}

/// Brings handshakes to every point at which a peer can stop, `count` in all, and leaves them there.
async fn stuck(net: &Net, count: usize, session: &RawSession) -> Vec<MemoryLink> {
    let mut links = Vec::new();
    for number in 0..count {
        let (mut link, _) = net.raw_link();
        session.stop_at(number, &mut link).await;
        links.push(link);
    }
    links
}

async fn eternal_terminal_18_a_thousand_stuck_handshakes_delay_nobody(protocol: Protocol) {
    let mut net = Net::new(&config(protocol), ROOMY);
    let (mut client, mut server) = net.open(&config(protocol)).await;
    let (session, _server) = raw_session(protocol, &mut net).await;
    let live = net.wire(0);
    let links = stuck(&net, 1000, &session).await;

    let began = Instant::now();
    exchange(&mut client, &mut server).await;
    let (mut another, mut its_server) = net.open(&config(protocol)).await;
    exchange(&mut another, &mut its_server).await;
    live.cut(Fault::Reset);
    // Cut while it was idle, and heard of at once.
    connected(&client.handle()).await;
    connected(&server.handle()).await;
    exchange(&mut client, &mut server).await;
    assert!(
        began.elapsed() < Duration::from_millis(20),
        "{:?} beside stuck handshakes",
        began.elapsed()
    );
    drop(links);
}

async fn eternal_terminal_18_when_handshakes_are_full_the_one_silent_longest_makes_room(
    protocol: Protocol,
) {
    let config = config(protocol).max_handshakes(1000);
    let mut net = Net::new(&config, ROOMY);
    let mut sessions = Vec::new();
    for _ in 0..100 {
        sessions.push(net.open(&config).await);
    }
    let (session, _server) = raw_session(protocol, &mut net).await;
    let links = stuck(&net, 1000, &session).await;
    let began = Instant::now();

    // A storm of resumes and opens, all at once, each of which needs a place.
    for number in 0..100 {
        net.wire(number).cut(Fault::Reset);
    }
    let mut opening = JoinSet::new();
    for _ in 0..400 {
        let connector = Connector::new(net.dialer(), config.clone());
        opening.spawn(connector.oneshot(()));
    }
    while let Some(opened) = within("an open", opening.join_next()).await {
        let opened = opened.expect("no panic").expect("an honest open succeeds");
        // It has sent its proof; the server may yet be about to read it.
        let accepted = net.session().await;
        sessions.push((opened, accepted));
    }
    for (client, server) in &sessions[..100] {
        resumed(&client.handle(), 1).await;
        resumed(&server.handle(), 1).await;
    }
    assert!(
        began.elapsed() < Duration::from_millis(500),
        "{:?} is more than no delay",
        began.elapsed()
    );
    assert_eq!(net.dials().len(), 100 + 500, "some had to dial twice");
    let made_room = (101..1101)
        .filter(|link| net.wire(*link).dropped(Server).is_some())
        .count();
    assert!(
        (1..=500).contains(&made_room),
        "{made_room} of those that were stuck made room"
    );
    // The oldest of them first.
    assert!((101..101 + made_room).all(|link| net.wire(link).dropped(Server).is_some()));
    // To a Go client zeros would be final, and to one of ours some of the rejects.
    for link in 101..1101 {
        let replies = net.wire(link).written(Server);
        assert!(session.is_nothing_final(&replies), "{replies:?}");
    }
    drop(links);
}

async fn eternal_terminal_18_a_peer_that_goes_on_keeps_its_place(protocol: Protocol) {
    let config = config(protocol).max_handshakes(10);
    let mut net = Net::new(&config, ROOMY);
    let (mut slow, wire) = net.raw_link();
    let mut open = RawOpen::new(protocol);
    let mut flood = Vec::new();
    for _ in 0..9 {
        // A byte, and then as many links as there are other places.
        open.send_byte(&mut slow).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        flood.extend((0..9).map(|_| net.raw_link()));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    open.finish(&mut slow).await;
    net.session().await;
    assert_eq!(wire.dropped(Server), None);
    let evicted = flood
        .iter()
        .filter(|(_, wire)| wire.dropped(Server).is_some());
    assert_eq!(evicted.count(), 8 * 9);
}

/// The accept of a link to which `peer` does something and then nothing.
async fn stops_after<F>(net: &mut Net, peer: impl FnOnce(MemoryLink) -> F)
where
    F: Future<Output = MemoryLink>,
{
    let (link, wire) = net.raw_link();
    let began = Instant::now();
    let link = peer(link).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(matches!(net.failure().await, Error::HandshakeTimeout));
    assert_eq!(began.elapsed().as_secs(), DEADLINE.as_secs());
    assert!(wire.dropped(Server).is_some(), "the link is still open");
    drop(link);
}

async fn teleport_21_every_step_of_a_servers_handshake_has_a_deadline(protocol: Protocol) {
    let mut net = Net::new(&config(protocol), ROOMY);
    let (session, _server) = raw_session(protocol, &mut net).await;
    let session = &session;
    stops_after(&mut net, |link| async { link }).await;
    for sent in session.partial_firsts() {
        stops_after(&mut net, |mut link| async move {
            send(&mut link, &sent).await;
            link
        })
        .await;
    }
    for sent in [0, 1, 15] {
        stops_after(&mut net, |mut link| async move {
            let proof = session.begin_open(&mut link).await;
            send(&mut link, &proof[..sent]).await;
            link
        })
        .await;
        stops_after(&mut net, |mut link| async move {
            let proof = session.request(&mut link).await.expect("it agrees");
            send(&mut link, &proof[..sent]).await;
            link
        })
        .await;
    }
    // Refused, and never closes its end.
    let (mut refused, wire) = net.raw_link();
    let began = Instant::now();
    assert!(session.unknown().request(&mut refused).await.is_none());
    assert!(matches!(
        net.failure().await,
        Error::Resume(ResumeError::Unknown)
    ));
    assert_eq!(began.elapsed(), DEADLINE);
    assert!(wire.dropped(Server).is_some(), "the link is still open");
    // Takes nothing of the answer.
    let (mut client, server, _) = link(10);
    let began = Instant::now();
    let acceptor = net.acceptor();
    let accepting = tokio::spawn(async move { acceptor.accept(server).await });
    send(&mut client, &session.open()).await;
    let accepted = within("the deadline", accepting).await.expect("no panic");
    assert!(matches!(accepted, Err(Error::HandshakeTimeout)));
    assert_eq!(began.elapsed(), DEADLINE);
}

async fn teleport_21_a_peer_that_dawdles_has_no_longer_than_one_that_stops(protocol: Protocol) {
    let mut net = Net::new(&config(protocol), ROOMY);
    let (session, _server) = raw_session(protocol, &mut net).await;
    let (mut link, _) = net.raw_link();
    let began = Instant::now();
    let dawdling = async {
        // A byte each second: all of them would be a whole message.
        for byte in session.open() {
            if link.write_u8(byte).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let (error, ()) = tokio::join!(net.failure(), dawdling);
    assert!(matches!(error, Error::HandshakeTimeout));
    assert!(began.elapsed() < DEADLINE + Duration::from_secs(2));
}

async fn teleport_21_a_client_waits_for_no_answer_for_ever(protocol: Protocol) {
    // To the open.
    let mut net = Net::new(&config(protocol), ROOMY);
    net.plan([Dial::Ignore]);
    let began = Instant::now();
    let connector = Connector::new(net.dialer(), config(protocol));
    let error = within("opening", connector.oneshot(()))
        .await
        .expect_err("nobody answers");
    assert!(matches!(error, Error::HandshakeTimeout), "{error:?}");
    assert_eq!(began.elapsed(), DEADLINE);
    assert!(net.newest().dropped(Client).is_some());

    // To a resume: another is tried.
    let (mut client, mut server) = net.open(&config(protocol)).await;
    let nearly = protocol.resume_reply() - 1;
    net.plan([Dial::Ignore, Dial::CutAt(Server, nearly), Dial::Hang]);
    let began = Instant::now();
    let first = net.dials().len();
    net.newest().cut(Fault::Reset);
    exchange(&mut client, &mut server).await;
    let after: Vec<_> = net.dials()[first..]
        .iter()
        .map(|at| at.duration_since(began).as_secs())
        .collect();
    // At once; when the silent one's time is up; after the one that was cut; after the one that hung.
    assert_eq!(after, [0, 7, 7, 14]);
}

#[tokio::test(start_paused = true)]
async fn teleport_21_a_session_that_was_named_is_resumed_when_its_proof_goes_nowhere() {
    // The answer to the hello is all that comes through.
    let (client_end, mut server_end, wire) = link(9);
    let first = Arc::new(Mutex::new(Some(client_end)));
    let mut net = Net::new(&config(Protocol::Snet), ROOMY);
    let dialer = net.dialer();
    let dial = tower::service_fn(move |()| {
        let first = first.lock().expect("no panic").take();
        let mut dialer = dialer.clone();
        async move {
            match first {
                Some(link) => Ok(link),
                None => dialer.call(()).await,
            }
        }
    });
    let acceptor = net.acceptor();
    let half_proxy = tokio::spawn(async move {
        // Hands messages 1 and 2 over by itself; message 3 finds no reader.
        let (mut inner, other, _) = link(ROOMY);
        let accepting = tokio::spawn(async move { acceptor.accept(other).await });
        let mut hello = [0; 9];
        server_end.read_exact(&mut hello).await.expect("the hello");
        inner.write_all(&hello).await.expect("room");
        let mut reply = [0; 24];
        inner.read_exact(&mut reply).await.expect("the answer");
        server_end.write_all(&reply).await.expect("room");
        (server_end, inner, accepting)
    });
    let began = Instant::now();
    let mut client = Connector::new(dial, config(Protocol::Snet))
        .oneshot(())
        .await
        .expect("the session was named");
    assert_eq!(began.elapsed(), DEADLINE, "it waited for its proof to go");
    assert!(matches!(
        client.handle().state(),
        LinkState::Reconnecting { .. }
    ));
    let mut server = net.session().await;
    exchange(&mut client, &mut server).await;
    assert_eq!(began.elapsed(), DEADLINE);
    assert!(wire.written(Client).len() < 25);
    drop(half_proxy);
}

async fn teleport_21_a_link_that_dies_between_the_steps_leaves_nothing_behind(protocol: Protocol) {
    let mut net = Net::new(&config(protocol), ROOMY);
    let (first, all) = match protocol {
        Protocol::Snet => (9, 25),
        Protocol::Native => (NATIVE_OPEN, NATIVE_OPEN + NATIVE_CONFIRM),
    };
    for count in 0..all {
        net.plan([Dial::CutAt(Client, count)]);
        let connector = Connector::new(net.dialer(), config(protocol));
        let opened = within("opening", connector.oneshot(())).await;
        if count <= first {
            // Before the session has a name there is nothing to resume.
            assert!(matches!(opened, Err(Error::Link(_))), "{count}: {opened:?}");
            continue;
        }
        // Named, then resumed by itself.
        let mut client = opened.expect("named");
        let mut server = net.session().await;
        exchange(&mut client, &mut server).await;
        state(&client.handle(), |state| *state == LinkState::Connected).await;
    }
    // A server keeps a session that it has closed for 60 seconds.
    tokio::time::sleep(Duration::from_secs(61)).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 0, "tasks that never end");
}

async fn a_cancelled_accept_closes_its_link_and_no_more(protocol: Protocol) {
    let mut net = Net::new(&config(protocol), ROOMY);
    let (session, mut server) = raw_session(protocol, &mut net).await;
    assert_eq!(session.protocol(), protocol);
    let (mut peer, end, wire) = link(ROOMY);
    let acceptor = net.acceptor();
    let accept = timeout(Duration::from_millis(5), acceptor.accept(end));
    let (accepted, proof) = tokio::join!(accept, session.request(&mut peer));
    assert!(accepted.is_err() && proof.is_some());
    assert!(wire.dropped(Server).is_some());
    let (link, _) = net.raw_link();
    send(&mut server, b"alive").await;
    let read = within("a resume", session.resume_and_read(link, 5)).await;
    assert_eq!(read.expect("the session is as it was"), b"alive");
    assert!(matches!(net.outcome().await, Ok(Accepted::Resumed(_))));
}
