//! Links that go silent are noticed, and applications that do are not mistaken for them.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use unbroken::{Config, LinkState, ResumableTransport, Security, protocol::native::Frame};

use super::{
    memory_link::{Client, Fault, Server, Side},
    memory_net::{
        Dial, Net, ROOMY, exchange, expect, native, native_window, pattern, resumed, send, state,
        until, within,
    },
    raw_native::Frames,
    setup,
};

/// The clock of tokio's timers has steps of this length.
const STEP: Duration = Duration::from_millis(2);
/// The defaults.
const PING_AFTER: Duration = Duration::from_secs(15);
const DEAD_AFTER: Duration = Duration::from_secs(30);

/// When an end noticed that it had lost its link.
async fn lost(end: &ResumableTransport) -> Instant {
    let lost = state(&end.handle(), |state| {
        matches!(state, LinkState::Reconnecting { .. })
    })
    .await;
    match lost {
        LinkState::Reconnecting { since, .. } => Instant::from_std(since),
        state => panic!("{state:?}"),
    }
}

/// A link on which `deaf` hear nothing from some time on. Both ends are to be on another before long.
async fn goes_silent(config: &Config, deaf: &[Side], dead_after: Duration, writes: bool) {
    let mut net = Net::new(config, ROOMY);
    let (mut client, mut server) = net.open(config).await;
    exchange(&mut client, &mut server).await;
    tokio::time::sleep(3 * dead_after + Duration::from_millis(777)).await;
    assert_eq!(net.links(), 1, "a link that worked was replaced");
    exchange(&mut client, &mut server).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let dark = Instant::now();
    for side in deaf {
        net.newest().cut_end(*side, Fault::Deaf);
    }
    let (up, down) = (pattern(1, 5000), pattern(2, 5000));
    if writes {
        // What is written is no sign of the other's life.
        for (up, down) in up.chunks(500).zip(down.chunks(500)) {
            send(&mut client, up).await;
            send(&mut server, down).await;
            tokio::time::sleep(dead_after / 20).await;
        }
    }
    resumed(&client.handle(), 1).await;
    resumed(&server.handle(), 1).await;
    let took = dark.elapsed();
    // Something may have been heard just before, an acknowledgement later than the bytes.
    let (least, most) = (
        dead_after - Duration::from_millis(200),
        dead_after + 5 * STEP,
    );
    assert!(
        (least..most).contains(&took),
        "{deaf:?}: {took:?} in the dark"
    );
    if writes {
        expect(&mut server, &up).await;
        expect(&mut client, &down).await;
    }
    exchange(&mut client, &mut server).await;
    assert_eq!(net.links(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_goes_silent_is_replaced_in_time() {
    for writes in [false, true] {
        for deaf in [&[Client, Server][..], &[Client], &[Server]] {
            goes_silent(&native(), deaf, DEAD_AFTER, writes).await;
            let (ping, dead) = (Duration::from_secs(2), Duration::from_secs(3));
            let config = native().keepalive(ping, dead);
            goes_silent(&config, deaf, dead, writes).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn either_end_notices_by_itself() {
    let mut net = Net::new(&native(), ROOMY);
    let (mut client, mut server) = net.open(&native()).await;
    exchange(&mut client, &mut server).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let dark = Instant::now();
    net.set(Dial::Refuse);
    // Neither reading nor writing does anything any more, and nothing is closed.
    net.newest().cut(Fault::Stall);
    for end in [&client, &server] {
        let noticed = lost(end).await - dark;
        let range = DEAD_AFTER - Duration::from_millis(200)..DEAD_AFTER + STEP;
        assert!(range.contains(&noticed), "{noticed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_closes_the_link_of_a_silent_client() {
    let mut net = Net::new(&native(), ROOMY);
    let (link, wire) = net.raw_link();
    let (mut peer, _) = Frames::open(link).await.expect("a session");
    let server = net.opened().await;
    let began = Instant::now();
    // One question at the start and one when it has been quiet for a while.
    for (number, asked) in [(1, Duration::ZERO), (2, PING_AFTER)] {
        peer.until(|frame| (frame == Frame::Ping(number)).then_some(()))
            .await;
        let elapsed = began.elapsed();
        assert!((asked..asked + 25 * STEP).contains(&elapsed), "{elapsed:?}");
        if number == 1 {
            peer.send(Frame::Pong(1)).await.expect("room");
        }
    }
    assert_eq!(peer.next().await, None);
    assert_eq!(began.elapsed().as_secs(), DEAD_AFTER.as_secs());
    assert!(wire.dropped(Server).is_some());
    lost(&server).await;
}

/// Any bytes will do, those of a frame that is not whole yet too.
#[tokio::test(start_paused = true)]
async fn whatever_is_heard_is_a_sign_of_life() {
    let mut net = Net::new(&native(), ROOMY);
    let (link, wire) = net.raw_link();
    let (mut peer, _) = Frames::open(link).await.expect("a session");
    let mut server = net.opened().await;
    for byte in [&[0x80, 0, 0, 40][..], &[0; 40]].concat() {
        tokio::time::sleep(DEAD_AFTER - Duration::from_secs(1)).await;
        peer.link.write_u8(byte).await.expect("the link is open");
    }
    assert_eq!(wire.dropped(Server), None);
    peer.send_data(b"alive").await.expect("room");
    expect(&mut server, b"alive").await;
}

#[tokio::test(start_paused = true)]
async fn an_application_that_does_not_poll_is_not_taken_for_dead() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    // With nothing to say.
    let mut net = Net::new(&native(), ROOMY);
    let (mut client, mut server) = net.open(&native()).await;
    tokio::time::sleep(DAY).await;
    exchange(&mut client, &mut server).await;
    assert_eq!(net.dials().len(), 1);
    // With as much to read and to write as there can be, at either end, over a link that holds next to nothing.
    let config = native_window(1000);
    let mut net = Net::new(&config, 16);
    let (client, server) = net.open(&config).await;
    let bytes = pattern(1, 5000);
    let mut writers = Vec::new();
    for mut end in [client, server] {
        let bytes = bytes.clone();
        writers.push(tokio::spawn(async move {
            end.write_all(&bytes).await.expect("writing");
            expect(&mut end, &bytes[2000..]).await;
            end
        }));
    }
    tokio::time::sleep(DAY).await;
    assert!(writers.iter().all(|writer| !writer.is_finished()));
    assert_eq!(net.dials().len(), 1);
    writers.iter().for_each(tokio::task::JoinHandle::abort);
}

/// The keeper answers for an application that hangs in the midst of a read or a write.
#[tokio::test(start_paused = true)]
async fn one_end_may_be_busy_with_something_else_for_hours() {
    let config = native_window(1000);
    for busy in [Client, Server] {
        let mut net = Net::new(&config, ROOMY);
        let (client, server) = net.open(&config).await;
        let (mut idle, mut other) = match busy {
            Client => (client, server),
            Server => (server, client),
        };
        send(&mut other, b"something to do").await;
        expect(&mut idle, b"some").await;
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_secs(100)).await;
            send(&mut other, b"more").await;
        }
        assert_eq!(net.dials().len(), 1);
        expect(&mut idle, b"thing to do").await;
        expect(&mut idle, &b"more".repeat(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_costs_nothing_but_a_ping_each_15_seconds() {
    const HOURS: u64 = 10;
    let mut net = Net::new(&native(), ROOMY);
    let (mut client, mut server) = net.open(&native()).await;
    exchange(&mut client, &mut server).await;
    let reading = tokio::spawn(async move {
        let mut byte = [0];
        server.read_exact(&mut byte).await.expect("reading");
        server
    });
    // One reader waits, at the other end nobody does; the graces pass, and the last acknowledgements.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let wire = net.newest();
    let polls = || wire.polls(Client) + wire.polls(Server);
    let written = || [Client, Server].map(|side| wire.written(side).len());
    let (parks, polls_before, written_before) = (metrics.worker_park_count(0), polls(), written());
    let pings = HOURS * 60 * 60 / PING_AFTER.as_secs();
    tokio::time::sleep(Duration::from_secs(HOURS * 60 * 60)).await;
    let parks = (metrics.worker_park_count(0) - parks) as f64 / pings as f64;
    // Both ends ask and answer; each of that is found, read, and looked for once more.
    let polls = (polls() - polls_before) as f64 / pings as f64;
    for (before, after) in written_before.into_iter().zip(written()) {
        // Each asks or answers, or both, in 12 bytes, each in a record of its own if there are records.
        let bytes = (after - before) as f64 / pings as f64;
        assert!(
            bytes <= (2 * (12 + setup::RECORD)) as f64,
            "{bytes} bytes a ping"
        );
    }
    assert!(polls <= 24.0, "{polls} polls of the link a ping");
    // What tokio's timer takes to go 15 seconds ahead is in this.
    assert!(parks <= 16.0, "{parks} times something happened a ping");
    client.write_all(&[7]).await.expect("writing");
    within("the reader", reading).await.expect("no panic");
}

/// Between two of them nothing happens at all.
#[tokio::test(start_paused = true)]
async fn between_pings_nothing_is_polled() {
    let config = native().keepalive(Duration::from_secs(1000), Duration::from_secs(2000));
    let config = config.linger(Duration::from_secs(3000));
    let mut net = Net::new(&config, ROOMY);
    let (mut client, mut server) = net.open(&config).await;
    exchange(&mut client, &mut server).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let wire = net.newest();
    let polls = [Client, Server].map(|side| wire.polls(side));
    tokio::time::sleep(Duration::from_secs(998)).await;
    assert_eq!([Client, Server].map(|side| wire.polls(side)), polls);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let later = [Client, Server].map(|side| wire.polls(side));
    assert!(later.iter().zip(polls).all(|(later, polls)| *later > polls));
}

#[tokio::test(start_paused = true)]
async fn the_round_trip_is_measured() {
    for delay in [0, 5, 50, 400].map(Duration::from_millis) {
        let mut net = Net::slow(&native(), ROOMY, delay);
        let (mut client, mut server) = net.open(&native()).await;
        assert_eq!(client.handle().stats().round_trip, None);
        exchange(&mut client, &mut server).await;
        tokio::time::sleep(40 * PING_AFTER).await;
        for end in [&client, &server] {
            let measured = end.handle().stats().round_trip.expect("measured");
            let range = 2 * delay..=2 * delay + 2 * STEP;
            assert!(
                range.contains(&measured),
                "{measured:?} for {delay:?} one way"
            );
        }
    }
}

/// A peer that answers a PING with another number, or one that nobody sent, has said something; the round trip it does not tell.
#[tokio::test(start_paused = true)]
async fn only_the_answer_to_a_ping_tells_the_round_trip() {
    let mut net = Net::new(&native(), ROOMY);
    let (link, _) = net.raw_link();
    let (mut peer, _) = Frames::open(link).await.expect("a session");
    let server = net.opened().await;
    let ping = peer
        .until(|frame| match frame {
            Frame::Ping(number) => Some(number),
            _ => None,
        })
        .await;
    for wrong in [ping + 1, 0, u64::MAX] {
        peer.send(Frame::Pong(wrong)).await.expect("room");
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(server.handle().stats().round_trip, None);
    peer.send(Frame::Pong(ping)).await.expect("room");
    let measured = until("the answer", || server.handle().stats().round_trip).await;
    assert_eq!(measured.as_secs(), 2);
    // The latest of several questions is answered.
    for number in 1..=1000 {
        peer.send(Frame::Ping(number)).await.expect("room");
    }
    peer.until(|frame| (frame == Frame::Pong(1000)).then_some(()))
        .await;
}

/// Any bytes are a sign of life, those of a frame or a record that is not complete for long as well.
#[tokio::test(start_paused = true)]
async fn a_link_is_not_given_up_for_being_slow() {
    // 256 bytes a second: a record of 16 KiB takes twice as long as a link may be silent.
    let (at_once, delay) = (256, Duration::from_secs(1));
    let securities = [
        Security::none(),
        #[cfg(feature = "noise")]
        Security::anonymous(),
    ];
    for security in securities {
        for (up, down) in [(70_000, 70_000), (70_000, 0), (0, 70_000)] {
            let case = format!("{security:?}, {up} up, {down} down");
            let config = Config::new().security(security.clone());
            let mut net = Net::slow(&config, at_once, delay);
            let (mut client, mut server) = net.open(&config).await;
            let (up, down) = (pattern(1, up), pattern(2, down));
            let (mut at_server, mut at_client) = (vec![0; up.len()], vec![0; down.len()]);
            let both = async {
                client.write_all(&up).await.expect("there is room");
                server.write_all(&down).await.expect("there is room");
                let (one, other) = tokio::join!(
                    server.read_exact(&mut at_server),
                    client.read_exact(&mut at_client),
                );
                one.and(other).expect("the session goes on");
            };
            let took = tokio::time::timeout(20 * DEAD_AFTER, both).await;
            assert_eq!((net.links(), took.is_ok()), (1, true), "{case}");
            assert!(at_server == up && at_client == down, "{case}");
        }
    }
}
