//! From a link that works to another: the new one is made before the old one is broken, and nobody notices.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    sync::Notify,
    task::JoinHandle,
    time::{Instant, timeout},
};
use unbroken::{
    CloseReason, Error, HandshakeError, LinkState, RejectCode, ResumableTransport,
    protocol::native::Frame,
};

use super::{
    ends::against_raw_server,
    memory_link::{Client, Fault, Server},
    memory_net::{
        Dial, NATIVE_CONFIRM, NATIVE_RESUME, NATIVE_RESUMED, Net, ROOMY, closed, connected,
        exchange, expect, native, native_window, pattern, resumed, send, until, within,
    },
    raw_native::{self, Frames},
};

/// One way. A round trip is twice as long.
const DELAY: Duration = Duration::from_millis(50);

/// A write of one application each so often, or as fast as it goes.
#[derive(Clone, Copy)]
struct Pace {
    bytes: usize,
    every: Option<Duration>,
}

/// Writes at this pace for so long, and then ends the stream.
async fn write_at(end: impl tokio::io::AsyncWrite + Unpin, pace: Pace, lasts: Duration) -> usize {
    let mut end = end;
    let began = Instant::now();
    let mut written = 0;
    while began.elapsed() < lasts {
        end.write_all(&stream(written, pace.bytes))
            .await
            .expect("writing");
        end.flush().await.expect("writing");
        written += pace.bytes;
        if let Some(every) = pace.every {
            tokio::time::sleep(every).await;
        }
    }
    end.shutdown().await.expect("all arrives");
    written
}

/// The bytes of a stream that tell each position from its neighbours.
fn stream(from: usize, len: usize) -> Vec<u8> {
    (from..from + len)
        .map(|at| (at ^ at >> 8 ^ at >> 16) as u8)
        .collect()
}

/// Reads the stream to its end. Returns how many bytes it had, and the longest time between two that arrived, but for the first.
async fn read_all(mut end: impl tokio::io::AsyncRead + Unpin) -> (usize, Duration) {
    let (mut read, mut longest, mut last) = (0, Duration::ZERO, None::<Instant>);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = end.read(&mut buffer).await.expect("reading");
        if count == 0 {
            return (read, longest);
        }
        assert!(
            buffer[..count] == stream(read, count),
            "bytes were lost, doubled, changed or reordered at {read}"
        );
        read += count;
        let now = Instant::now();
        longest = longest.max(last.map_or(Duration::ZERO, |last| now - last));
        last = Some(now);
    }
}

/// Streams both ways, moving `migrations` times meanwhile. Returns the longest gap at the server and at the client.
async fn gaps(pace: Pace, window: usize, migrations: u64) -> [Duration; 2] {
    const LASTS: Duration = Duration::from_secs(3);
    let config = native_window(window);
    let mut net = Net::slow(&config, 1 << 20, DELAY);
    let (client, server) = net.open(&config).await;
    let handles = [client.handle(), server.handle()];
    let mut ends = Vec::new();
    for end in [client, server] {
        let (reading, writing) = split(end);
        let writing = tokio::spawn(write_at(writing, pace, LASTS));
        ends.push((tokio::spawn(read_all(reading)), writing));
    }
    for _ in 0..migrations {
        tokio::time::sleep(LASTS / (migrations as u32 + 1) - 4 * DELAY).await;
        let dialled = Arc::new(Notify::new());
        net.plan([Dial::Wait(dialled.clone())]);
        let handle = handles[0].clone();
        let migrating = tokio::spawn(async move { handle.migrate().await });
        // A dial takes a round trip itself.
        tokio::time::sleep(2 * DELAY).await;
        dialled.notify_one();
        within("the migration", migrating)
            .await
            .expect("no panic")
            .expect("it moves");
    }
    let mut ends = ends.into_iter();
    let (mut read, mut written, mut longest) = ([0; 2], [0; 2], [Duration::ZERO; 2]);
    // At the client, then at the server.
    for number in [1, 0] {
        let (reading, writing) = ends.next().expect("two ends");
        (read[number], longest[number]) = within("a reader", reading).await.expect("no panic");
        written[1 - number] = within("a writer", writing).await.expect("no panic");
    }
    assert_eq!(read, written);
    for handle in handles {
        assert_eq!(handle.stats().resumes, migrations);
    }
    longest
}

#[tokio::test(start_paused = true)]
async fn a_stream_does_not_stall_while_it_moves() {
    // A little all the time, and as much as the window lets through: a burst each round trip.
    let little = Pace {
        bytes: 100,
        every: Some(Duration::from_millis(1)),
    };
    let bulk = Pace {
        bytes: 32 << 10,
        every: None,
    };
    for (pace, window) in [(little, 1 << 20), (bulk, 64 << 10), (bulk, 512 << 10)] {
        let without = gaps(pace, window, 0).await;
        let with = gaps(pace, window, 4).await;
        for (without, with) in without.into_iter().zip(with) {
            // A round trip more would be fair. But what is on its way over the old link goes on arriving until the new one brings more.
            assert!(
                with <= without + Duration::from_millis(3),
                "{with:?} between two deliveries, {without:?} without a migration"
            );
        }
    }
}

fn migrating(end: &ResumableTransport) -> JoinHandle<Result<(), Error>> {
    let handle = end.handle();
    tokio::spawn(async move { handle.migrate().await })
}

#[tokio::test(start_paused = true)]
async fn the_old_link_carries_the_session_until_the_server_has_changed_over() {
    let mut net = Net::new(&native(), ROOMY);
    let (mut client, mut server) = net.open(&native()).await;
    let old = net.newest();
    let dialled = Arc::new(Notify::new());
    net.plan([Dial::Wait(dialled.clone())]);
    let moves = migrating(&client);
    until("the dial", || (net.dials().len() == 2).then_some(())).await;
    let began = Instant::now();
    for _ in 0..10 {
        exchange(&mut client, &mut server).await;
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(!moves.is_finished());
    dialled.notify_one();
    within("the migration", moves)
        .await
        .expect("no panic")
        .expect("it moves");
    assert_eq!(client.handle().state(), LinkState::Connected);
    assert!(
        old.dropped(Server).is_some(),
        "the server keeps the old link"
    );
    assert!(
        old.dropped(Client).is_some(),
        "the client keeps the old link"
    );
    assert!(
        old.dropped(Client) > net.newest().first_written(Server),
        "broken before made"
    );
    exchange(&mut client, &mut server).await;
    assert_eq!(net.links(), 2);
    for end in [&client, &server] {
        let stats = end.handle().stats();
        assert_eq!((stats.resumes, stats.replayed), (1, 0));
    }
}

/// The old link takes nothing when the new one is lost: it is taken up in the midst of a frame.
#[tokio::test(start_paused = true)]
async fn a_new_link_that_fails_leaves_the_old_one_where_it_was() {
    for (at, stalls) in [
        (0, false),
        (30, true),
        (NATIVE_RESUMED, false),
        (NATIVE_RESUMED, true),
    ] {
        let mut net = Net::new(&native(), 100);
        let (mut client, mut server) = net.open(&native()).await;
        exchange(&mut client, &mut server).await;
        let old = net.newest();
        let (up, down) = (pattern(1, 5000), pattern(2, 5000));
        if stalls {
            old.cut(Fault::Stall);
        }
        client.write_all(&up).await.expect("room");
        server.write_all(&down).await.expect("room");
        tokio::time::sleep(Duration::from_millis(100)).await;
        net.plan([Dial::CutAt(Server, at)]);
        let moved = within("the migration", client.handle().migrate()).await;
        assert!(matches!(moved, Err(Error::Link(_))), "{moved:?}");
        assert_eq!(client.handle().state(), LinkState::Connected);
        client.write_all(&up).await.expect("room");
        old.go_on();
        tokio::join!(expect(&mut server, &up), expect(&mut client, &down));
        expect(&mut server, &up).await;
        assert_eq!((net.links(), server.handle().stats().resumes), (2, 0));
        assert_eq!(old.dropped(Client).or(old.dropped(Server)), None);
        assert_eq!(client.handle().stats().replayed, 0, "{at}");
        // And the next one moves.
        within("the migration", client.handle().migrate())
            .await
            .expect("it moves");
        exchange(&mut client, &mut server).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_migration_that_comes_to_nothing_says_why() {
    let patience = Duration::from_secs(3);
    let config = native().handshake_timeout(patience);
    let mut net = Net::new(&config, ROOMY);
    let (mut client, mut server) = net.open(&config).await;
    for (dial, took) in [
        (Dial::Refuse, Duration::ZERO),
        (Dial::Hang, patience),
        (Dial::Ignore, patience),
        (Dial::CutAt(Client, 0), Duration::ZERO),
        (Dial::CutAt(Client, NATIVE_RESUME), Duration::ZERO),
        (Dial::CutAt(Server, 59), Duration::ZERO),
    ] {
        let dials = net.dials().len();
        net.plan([dial.clone()]);
        // A failure of before makes the next wait a moment: the backoff starts over when the network has been reported to change.
        let began = Instant::now();
        let both = [migrating(&client), migrating(&client)];
        for moving in both {
            let moved = within("the migration", moving).await.expect("no panic");
            let expected = match &dial {
                Dial::Refuse | Dial::Hang => matches!(moved, Err(Error::Dial(_))),
                Dial::Ignore => matches!(moved, Err(Error::HandshakeTimeout | Error::Dial(_))),
                _ => matches!(moved, Err(Error::Link(_) | Error::Dial(_))),
            };
            assert!(expected, "{dial:?}: {moved:?}");
        }
        let elapsed = began.elapsed();
        assert!(
            elapsed >= took && elapsed < took + Duration::from_secs(1),
            "{dial:?} {elapsed:?}"
        );
        assert_eq!(client.handle().state(), LinkState::Connected);
        let began = Instant::now();
        exchange(&mut client, &mut server).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(net.dials().len(), dials + 1, "{dial:?}: it goes on trying");
    }
    assert_eq!(
        net.wire(0).dropped(Client).or(net.wire(0).dropped(Server)),
        None
    );
    assert_eq!(client.handle().stats().resumes, 0);
    within("the migration", client.handle().migrate())
        .await
        .expect("it moves");
    exchange(&mut client, &mut server).await;
}

/// The server lets the client confirm, and never attaches.
#[tokio::test(start_paused = true)]
async fn a_migration_whose_new_link_is_never_used_ends_with_the_deadline() {
    let (net, mut client, mut server, opened) = against_raw_server(10_000).await;
    // The first link is in use at both ends.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    let moves = migrating(&client);
    let (mut silent, _) = raw_native::serve_resume(net.ignored().await, &opened, 0).await;
    // It goes to the new link, and is read from both.
    send(&mut client, b"to the new link").await;
    assert_eq!(
        within("the bytes", silent.take(15)).await,
        b"to the new link"
    );
    server.send_data(b"over the old one").await.expect("room");
    expect(&mut client, b"over the old one").await;
    assert!(!moves.is_finished());
    let moved = within("the migration", moves).await.expect("no panic");
    assert!(matches!(moved, Err(Error::Link(_))), "{moved:?}");
    let took = began.elapsed();
    assert!(took.as_millis().abs_diff(10_000) < 5, "{took:?}");
    // On the old one it was not sent yet.
    send(&mut client, b"!").await;
    assert_eq!(
        within("the bytes", server.take(16)).await,
        b"to the new link!"
    );
    assert!(within("its end", silent.next()).await.is_some());
    assert_eq!(client.handle().state(), LinkState::Connected);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!((net.links(), client.handle().stats().resumes), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_migration_that_the_server_turns_away_says_why() {
    let (net, mut client, mut server, opened) = against_raw_server(10_000).await;
    for (code, retry_after) in [
        (RejectCode::Busy, Duration::from_secs(7)),
        (RejectCode::ShuttingDown, Duration::ZERO),
        (RejectCode::Stale, Duration::ZERO),
        (RejectCode::BadProof, Duration::ZERO),
        (RejectCode::Other(999), Duration::ZERO),
    ] {
        let links = net.links();
        let moves = migrating(&client);
        let mut link = net.ignored().await;
        raw_native::reject(&mut link, code, retry_after).await;
        let moved = within("the migration", moves).await.expect("no panic");
        assert!(
            matches!(moved, Err(Error::Rejected { reason, retry_after: after }) if (reason, after) == (code, retry_after)),
            "{moved:?}"
        );
        server.send_data(b"old").await.expect("room");
        expect(&mut client, b"old").await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        server.send(Frame::Ping(1)).await.expect("room");
        assert_eq!(net.links(), links + 1, "{code}: it goes on trying");
    }
    // One that is no server of the session's.
    let moves = migrating(&client);
    let mut link = net.ignored().await;
    let mut machine = raw_native::hear(&mut link).await.expect("a RESUME");
    let other = unbroken::protocol::native::SessionSecret::new([3; 32]);
    machine.resume(&other, [1; 16], 0);
    let _ = raw_native::drive(&mut link, &mut machine).await;
    let moved = within("the migration", moves).await.expect("no panic");
    assert!(
        matches!(moved, Err(Error::Handshake(HandshakeError::Proof))),
        "{moved:?}"
    );
    // One that claims to have what was never sent.
    let moves = migrating(&client);
    let mut link = net.ignored().await;
    let mut machine = raw_native::hear(&mut link).await.expect("a RESUME");
    machine.resume(&opened.secret, [2; 16], 1);
    let _ = raw_native::drive(&mut link, &mut machine).await;
    let moved = within("the migration", moves).await.expect("no panic");
    assert!(matches!(moved, Err(Error::Resume(_))), "{moved:?}");
    server.send_data(b"old").await.expect("room");
    expect(&mut client, b"old").await;
    assert_eq!(client.handle().state(), LinkState::Connected);
    assert_eq!(client.handle().stats().resumes, 0);
}

#[tokio::test(start_paused = true)]
async fn many_migrations_in_a_row_lose_nothing() {
    for capacity in [1, 16, ROOMY] {
        let config = native_window(1000);
        let mut net = Net::new(&config, capacity);
        let (client, server) = net.open(&config).await;
        let handle = client.handle();
        let bytes = pattern(1, 100_000);
        let mut ends = Vec::new();
        for end in [client, server] {
            let (mut reading, mut writing) = split(end);
            let (out, inbound) = (bytes.clone(), bytes.clone());
            let writing = tokio::spawn(async move {
                for part in out.chunks(500) {
                    writing.write_all(part).await.expect("writing");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                writing
            });
            let reading = tokio::spawn(async move {
                expect(&mut reading, &inbound).await;
                reading
            });
            ends.push((reading, writing));
        }
        let mut moved = 0;
        while !ends.iter().all(|(reading, _)| reading.is_finished()) {
            within("the migration", handle.migrate())
                .await
                .expect("it moves");
            moved += 1;
            assert_eq!(handle.stats().resumes, moved);
            // A link that has brought nothing yet is left with a delay.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(moved >= 50, "{moved} migrations");
        let mut both = Vec::new();
        for (reading, writing) in ends {
            let writing = writing.await.expect("no panic");
            both.push(reading.await.expect("no panic").unsplit(writing));
        }
        let [mut client, mut server] = <[_; 2]>::try_from(both).expect("two ends");
        exchange(&mut client, &mut server).await;
        // Each of them has closed the one before.
        let open = (0..net.links()).filter(|number| {
            let wire = net.wire(*number);
            wire.dropped(Client).is_none() || wire.dropped(Server).is_none()
        });
        assert_eq!(open.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn migrations_at_other_ends_and_times() {
    let mut net = Net::slow(&native(), ROOMY, DELAY);
    let (mut client, mut server) = net.open(&native()).await;
    // The first link is not in use at the server yet, and is none that was asked for.
    within("moving", client.handle().migrate())
        .await
        .expect("it moves");
    assert_eq!((net.links(), client.handle().stats().resumes), (2, 1));
    let refused = server.handle().migrate().await;
    assert!(matches!(refused, Err(Error::CannotDial)), "{refused:?}");
    // While there is no link: the next is as good as any.
    net.lose(&client, &server).await;
    let moves = migrating(&client);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!moves.is_finished());
    net.set(Dial::Serve);
    within("the migration", moves)
        .await
        .expect("no panic")
        .expect("it moves");
    exchange(&mut client, &mut server).await;
    // While another one is under way: one more, since that may have been dialled too early.
    let (resumes, links) = (client.handle().stats().resumes, net.links());
    let first = migrating(&client);
    until("the new link's CONFIRM", || {
        let sent = NATIVE_RESUME + NATIVE_CONFIRM;
        (net.links() > links && net.newest().written(Client).len() >= sent).then_some(())
    })
    .await;
    let second = migrating(&client);
    for moves in [first, second] {
        within("the migration", moves)
            .await
            .expect("no panic")
            .expect("it moves");
    }
    assert_eq!(client.handle().stats().resumes, resumes + 2);
    // Whoever stops waiting does not stop it.
    let early = timeout(Duration::ZERO, client.handle().migrate()).await;
    assert!(early.is_err());
    resumed(&client.handle(), resumes + 3).await;
    exchange(&mut client, &mut server).await;
    // The old link is lost meanwhile.
    let dialled = Arc::new(Notify::new());
    net.plan([Dial::Wait(dialled.clone())]);
    let moves = migrating(&client);
    tokio::time::sleep(Duration::from_millis(1)).await;
    net.newest().cut(Fault::Reset);
    tokio::time::sleep(Duration::from_secs(1)).await;
    dialled.notify_one();
    within("the migration", moves)
        .await
        .expect("no panic")
        .expect("it moves");
    exchange(&mut client, &mut server).await;
    // The session ends meanwhile, or has ended.
    net.plan([Dial::Hang]);
    let moves = migrating(&client);
    tokio::time::sleep(Duration::from_millis(1)).await;
    server.handle().close(5);
    assert_eq!(closed(&client.handle()).await, CloseReason::Reset(5));
    for moved in [
        within("the end", moves).await.expect("no panic"),
        client.handle().migrate().await,
    ] {
        assert!(
            matches!(moved, Err(Error::Closed(CloseReason::Reset(5)))),
            "{moved:?}"
        );
    }
}

/// The link that is left is black already.
#[tokio::test(start_paused = true)]
async fn a_migration_saves_a_session_from_a_link_that_goes_black() {
    let mut net = Net::new(&native(), ROOMY);
    let (mut client, mut server) = net.open(&native()).await;
    exchange(&mut client, &mut server).await;
    net.newest().cut(Fault::Deaf);
    let (up, down) = (pattern(1, 3000), pattern(2, 3000));
    send(&mut client, &up).await;
    send(&mut server, &down).await;
    let began = Instant::now();
    within("the migration", client.handle().migrate())
        .await
        .expect("it moves");
    tokio::join!(expect(&mut server, &up), expect(&mut client, &down));
    assert!(
        began.elapsed() < Duration::from_millis(50),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(client.handle().stats().replayed, 3000);
    assert_eq!(server.handle().stats().replayed, 3000);
}

/// A changed network casts doubt on the link: the new one is tried beside it.
#[tokio::test(start_paused = true)]
async fn a_changed_network_moves_a_session_unless_the_old_link_answers() {
    let mut net = Net::new(&native(), ROOMY);
    let (mut client, mut server) = net.open(&native()).await;
    exchange(&mut client, &mut server).await;
    let dialled = Arc::new(Notify::new());
    net.plan([Dial::Wait(dialled.clone())]);
    client.handle().network_changed();
    until("the dial", || (net.dials().len() == 2).then_some(())).await;
    // The server answers the client's PING, without its application's doing.
    tokio::time::sleep(Duration::from_millis(100)).await;
    dialled.notify_one();
    until("the new link", || (net.links() == 2).then_some(())).await;
    until("its end", || net.newest().dropped(Client)).await;
    assert!(net.newest().written(Client).is_empty());
    assert_eq!(client.handle().stats().resumes, 0);

    net.newest().cut(Fault::Stall);
    net.wire(0).cut(Fault::Stall);
    let changed = Instant::now();
    client.handle().network_changed();
    resumed(&client.handle(), 1).await;
    assert!(
        changed.elapsed() < Duration::from_millis(50),
        "{:?}",
        changed.elapsed()
    );
    exchange(&mut client, &mut server).await;
    connected(&server.handle()).await;
}

/// Raw: a client that has confirmed a new link and then says more on the old one.
#[tokio::test(start_paused = true)]
async fn what_comes_on_the_old_link_after_the_switch_is_not_counted() {
    let mut net = Net::new(&native(), ROOMY);
    let (link, _) = net.raw_link();
    let (mut old, opened) = Frames::open(link).await.expect("a session");
    let mut server = net.opened().await;
    old.send_data(b"first").await.expect("room");
    expect(&mut server, b"first").await;
    let (link, _) = net.raw_link();
    let mut new = Frames::resume(link, &opened, 1, 0)
        .await
        .expect("it agrees");
    until("the switch", || {
        (server.handle().stats().resumes == 1).then_some(())
    })
    .await;
    // The old one is closed; what is written to it goes nowhere.
    let _ = old.send_data(b" lost").await;
    new.send_data(b" second").await.expect("room");
    expect(&mut server, b" second").await;
    assert_eq!(server.handle().stats().received, 12);
}
