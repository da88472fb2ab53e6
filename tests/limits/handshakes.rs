//! Handshakes in progress, in all and from each address.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::{Instant, sleep},
};
use unbroken::{
    Config, Connector, Error, Limit, ResumableTransport,
    protocol::{
        Handshake,
        native::{ClientOpen, ClientProtection},
    },
};

use super::{
    addr,
    memory_link::{Fault, MemoryLink, Server, Wire},
    memory_net::{Dialer, Net, Protocol, ROOMY, exchange, over_both, resumed, within},
    open_from, raw_native, raw_peer,
};

over_both!(
    a_thousand_stuck_handshakes_cost_none_of_ten_thousand_resumes,
    ten_thousand_sessions_behind_one_address_are_back_with_a_dial_each,
    an_address_that_floods_takes_places_from_itself_alone,
    a_flood_from_everywhere_takes_the_places_of_those_silent_longest,
);

const DEADLINE: Duration = Duration::from_secs(5);

/// The first message of an open.
fn first_message(protocol: Protocol) -> Vec<u8> {
    match protocol {
        Protocol::Snet => raw_peer::client_open().transmit().to_vec(),
        Protocol::Native => ClientOpen::new(1, ClientProtection::None)
            .transmit()
            .to_vec(),
    }
}

/// Ways of getting nowhere.
#[derive(Clone, Copy)]
enum Stuck {
    Silent,
    Half,
    /// A byte each second, a slow loris.
    Drips,
}

/// Gets nowhere on one link after another, for ever; says how long each of them lasted.
async fn stuck(
    protocol: Protocol,
    how: Stuck,
    dialer: Dialer,
    lasted: tokio::sync::mpsc::UnboundedSender<Duration>,
) {
    loop {
        let (mut link, _) = dialer.raw_link();
        let began = Instant::now();
        let message = first_message(protocol);
        match how {
            Stuck::Silent => {}
            Stuck::Half => {
                let _ = link.write_all(&message[..message.len() / 2]).await;
            }
            Stuck::Drips => {
                for byte in &message[..message.len() - 1] {
                    if link.write_u8(*byte).await.is_err() {
                        break;
                    }
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
        // Until the server has closed it.
        let _ = link.read_to_end(&mut Vec::new()).await;
        let _ = lasted.send(began.elapsed());
        sleep(Duration::from_millis(1)).await;
    }
}

const STUCK: u16 = 1000;
const SESSIONS: u16 = 500;
const ROUNDS: u64 = 20;

async fn a_thousand_stuck_handshakes_cost_none_of_ten_thousand_resumes(protocol: Protocol) {
    let config = protocol.config().handshake_timeout(DEADLINE);
    let trip = Duration::from_millis(20);
    let mut net = Net::slow(&config, ROOMY, trip);
    let mut sessions: Vec<(ResumableTransport, ResumableTransport)> = Vec::new();
    for number in 0..SESSIONS {
        // Fives share an address.
        sessions.push(
            open_from(&mut net, &config, addr(number / 5))
                .await
                .expect("room"),
        );
    }
    let mut outcomes = net.take_outcomes();
    let (lasted, mut lasting) = tokio::sync::mpsc::unbounded_channel();
    let mut flood = JoinSet::new();
    // All from one address.
    let flooder = net.dialer_from(addr(10_000));
    for number in 0..STUCK {
        let how = [Stuck::Silent, Stuck::Half, Stuck::Drips][usize::from(number % 3)];
        flood.spawn(stuck(protocol, how, flooder.clone(), lasted.clone()));
    }
    sleep(Duration::from_secs(1)).await;

    for round in 1..=ROUNDS {
        let began = Instant::now();
        let dials = net.dials().len();
        for wire in &net.dialled()[dials - usize::from(SESSIONS)..] {
            wire.cut(Fault::Reset);
        }
        for (client, server) in &sessions {
            resumed(&client.handle(), round).await;
            resumed(&server.handle(), round).await;
        }
        let took = began.elapsed();
        // Noticed at once, or within the keeper's grace; then a handshake and the first acknowledgements.
        assert!(took < 6 * trip + Duration::from_millis(50), "{took:?}");
        assert_eq!(
            net.dials().len() - dials,
            usize::from(SESSIONS),
            "dialled twice"
        );
        sleep(Duration::from_millis(600)).await;
    }
    for (client, server) in &mut sessions {
        exchange(client, server).await;
    }
    flood.shutdown().await;
    let mut resumes = 0;
    while let Ok(outcome) = outcomes.try_recv() {
        match outcome {
            Ok(unbroken::Accepted::Resumed(_)) => resumes += 1,
            Err(Error::HandshakeTimeout | Error::Link(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(resumes, u64::from(SESSIONS) * ROUNDS);
    let mut cut = 0;
    while let Ok(lasted) = lasting.try_recv() {
        // The loris goes on for the rest of its second.
        let most = DEADLINE + 2 * trip + Duration::from_millis(1005);
        assert!((DEADLINE..most).contains(&lasted), "{lasted:?}");
        cut += 1;
    }
    assert!(cut >= 2 * usize::from(STUCK), "{cut} were cut");
}

const CROWD: usize = 10_000;

/// With the limits as they are by default. No client is heard for a round trip, in which the others all come.
async fn ten_thousand_sessions_behind_one_address_are_back_with_a_dial_each(protocol: Protocol) {
    let trip = Duration::from_millis(500);
    let mut net = Net::slow(&protocol.config(), ROOMY, trip);
    let mut sessions = Vec::new();
    while sessions.len() < CROWD {
        let mut opening = JoinSet::new();
        for _ in 0..CROWD / 10 {
            let connector = Connector::new(net.dialer_from(addr(1)), protocol.config());
            opening.spawn(tower::ServiceExt::oneshot(connector, ()));
        }
        while let Some(client) = opening.join_next().await {
            let client = client.expect("no panic").expect("room");
            sessions.push((client, net.session().await));
        }
    }
    let mut outcomes = net.take_outcomes();
    let began = Instant::now();
    for wire in net.dialled() {
        wire.cut(Fault::Reset);
    }
    for (client, server) in &sessions {
        resumed(&client.handle(), 1).await;
        resumed(&server.handle(), 1).await;
    }
    let took = began.elapsed();
    assert!(took < 6 * trip + Duration::from_millis(50), "{took:?}");
    assert_eq!(net.dials().len(), 2 * CROWD, "dialled twice");
    while let Ok(outcome) = outcomes.try_recv() {
        assert!(
            matches!(outcome, Ok(unbroken::Accepted::Resumed(_))),
            "{outcome:?}"
        );
    }
}

/// Floods from an address, a link each millisecond; gives the links.
async fn flood(
    net: &Net,
    count: usize,
    from: impl Fn(usize) -> SocketAddr,
) -> Vec<(MemoryLink, Wire)> {
    let mut links = Vec::new();
    for number in 0..count {
        links.push(net.raw_link_from(from(number)));
        sleep(Duration::from_millis(1)).await;
    }
    links
}

async fn an_address_that_floods_takes_places_from_itself_alone(protocol: Protocol) {
    let config = protocol
        .config()
        .max_handshakes(12)
        .max_handshakes_per_address(4);
    let mut net = Net::new(&config, ROOMY);
    // Silent for longer than any of the flood: of another address, and of none.
    let honest = [net.raw_link_from(addr(2)), net.raw_link()];
    let flooding = flood(&net, 1000, |_| addr(1)).await;
    for (_, wire) in &flooding[..1000 - 4] {
        assert!(wire.dropped(Server).is_some());
        let error = net.failure().await;
        assert!(
            matches!(error, Error::Overloaded(Limit::HandshakesPerAddress)),
            "{error:?}"
        );
    }
    for (_, wire) in &flooding[1000 - 4..] {
        assert_eq!(wire.dropped(Server), None);
    }
    for (mut link, wire) in honest {
        assert_eq!(wire.dropped(Server), None, "an honest one made room");
        finish(protocol, &mut link).await;
        let mut server = net.opened().await;
        server.write_all(b"hello").await.expect("room");
    }
    // And with a whole client, while the flood goes on.
    let more = flood(&net, 8, |_| addr(1)).await;
    let connector = Connector::new(net.dialer_from(addr(3)), config.clone());
    within("opening", tower::ServiceExt::oneshot(connector, ()))
        .await
        .expect("there is room");
    // One of the address's leaves, and the next costs no other its place.
    drop(more);
    sleep(Duration::from_millis(1)).await;
    let four = flood(&net, 4, |_| addr(1)).await;
    assert!(four.iter().all(|(_, wire)| wire.dropped(Server).is_none()));
}

/// Opens a session.
async fn finish(protocol: Protocol, link: &mut MemoryLink) {
    match protocol {
        Protocol::Snet => {
            raw_peer::open(link).await.expect("a session");
        }
        Protocol::Native => {
            raw_native::open(link).await.expect("a session");
        }
    }
}

async fn a_flood_from_everywhere_takes_the_places_of_those_silent_longest(protocol: Protocol) {
    let config: Config = protocol
        .config()
        .max_handshakes(10)
        .max_handshakes_per_address(4);
    let mut net = Net::new(&config, ROOMY);
    let message = first_message(protocol);
    let (mut slow, wire) = net.raw_link_from(addr(1));
    for byte in &message[..8] {
        slow.write_u8(*byte).await.expect("room");
        sleep(Duration::from_millis(1)).await;
        // As many as there are other places.
        let links = flood(&net, 9, |number| addr(100 + number as u16)).await;
        assert_eq!(wire.dropped(Server), None, "it was heard after them");
        drop(links);
        sleep(Duration::from_millis(1)).await;
    }
    let links = flood(&net, 10, |number| addr(200 + number as u16)).await;
    assert!(wire.dropped(Server).is_some(), "it was silent longest");
    loop {
        match net.failure().await {
            Error::Overloaded(limit) => {
                assert_eq!(limit, Limit::Handshakes);
                break;
            }
            // Links of the flood that were dropped.
            Error::Link(_) => {}
            other => panic!("{other:?}"),
        }
    }
    drop(links);
}
