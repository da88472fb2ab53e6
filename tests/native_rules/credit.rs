//! Writers wait for as long as they must and no longer; acknowledgements get stuck behind nothing.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
    time::{Instant, timeout},
};
use unbroken::{LinkState, ResumableTransport, protocol::native::Frame};

use super::{
    ends::against_raw_server,
    memory_link::{Client, Fault, Server, Side},
    memory_net::{Dial, Net, ROOMY, expect, native_window, pattern, send, until, within},
    raw_native::{Frames, named},
    setup,
};

/// After how long there are no acknowledgements left to send.
const SETTLED: Duration = Duration::from_millis(100);

/// Writes all of `bytes` in a task, which gives the transport back.
fn writing(mut end: ResumableTransport, bytes: Vec<u8>) -> JoinHandle<ResumableTransport> {
    tokio::spawn(async move {
        end.write_all(&bytes).await.expect("writing");
        end
    })
}

/// A client and a server with windows of their own, in the order of the sides.
async fn open(net: &mut Net, client_window: usize) -> [ResumableTransport; 2] {
    let (client, server) = net.open(&native_window(client_window)).await;
    [client, server]
}

#[tokio::test(start_paused = true)]
async fn a_writer_waits_for_room_and_goes_on_as_the_peer_reads() {
    for from in [Client, Server] {
        for (own, peers) in [(1000, 1000), (300, 5000), (5000, 300), (64, 64)] {
            let windows = match from {
                Client => (own, peers),
                Server => (peers, own),
            };
            let mut net = Net::new(&native_window(windows.1), ROOMY);
            let [client, server] = open(&mut net, windows.0).await;
            let (writer, mut reader) = match from {
                Client => (client, server),
                Server => (server, client),
            };
            let (handle, peer) = (writer.handle(), reader.handle());
            let bytes = pattern(1, 20 * (own + peers));
            let writing = writing(writer, bytes.clone());
            // What the reader's transport may hold, and behind it what its own keeps: no more, however long it takes.
            let fits = own + peers;
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(20 * 60)).await;
                assert!(!writing.is_finished());
                assert_eq!(peer.stats().received, peers as u64);
                let stats = handle.stats();
                assert_eq!((stats.sent, stats.credit), (fits as u64, 0));
                assert_eq!(stats.unacknowledged, own as u64);
            }
            // Not a byte is read in vain.
            let mut read = 0;
            for part in [1, own / 2, peers, 7, fits] {
                expect(&mut reader, &bytes[read..read + part]).await;
                read += part;
                tokio::time::sleep(SETTLED).await;
                assert_eq!(handle.stats().sent, (fits + read) as u64);
                assert_eq!(peer.stats().received, (peers + read) as u64);
            }
            expect(&mut reader, &bytes[read..]).await;
            drop(within("the writer", writing).await.expect("no panic"));
            assert_eq!((net.links(), handle.stats().replayed), (1, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_link_a_writer_waits_once_its_window_is_full() {
    let mut net = Net::new(&native_window(1000), ROOMY);
    let [mut client, mut server] = open(&mut net, 1000).await;
    net.lose(&client, &server).await;
    let began = Instant::now();
    let bytes = pattern(1, 3000);
    send(&mut client, &bytes[..1000]).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    let more = timeout(Duration::from_secs(30), client.write(&bytes[1000..])).await;
    assert!(more.is_err(), "{more:?} beyond the window");
    assert!(matches!(
        client.handle().state(),
        LinkState::Reconnecting { .. }
    ));
    net.set(Dial::Serve);
    let writing = writing(client, bytes[1000..].to_vec());
    expect(&mut server, &bytes).await;
    drop(within("the writer", writing).await.expect("no panic"));
}

/// Sees that `side` has put so many bytes of DATA's payload on the newest link, if they can be read there.
fn check_payload_on(net: &Net, side: Side, expected: usize) {
    if !setup::READABLE {
        return;
    }
    let written = net.newest().written(side);
    let handshake = match side {
        Client => super::memory_net::NATIVE_OPEN + super::memory_net::NATIVE_CONFIRM,
        Server => super::memory_net::NATIVE_OPENED,
    };
    let payload = super::raw_native::payload(&written[handshake..]);
    assert_eq!(payload.len(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_flush_is_done_when_the_link_has_all_that_the_credit_allows() {
    const WINDOW: usize = 1000;
    for from in [Client, Server] {
        let mut net = Net::new(&native_window(WINDOW), ROOMY);
        let [client, server] = open(&mut net, WINDOW).await;
        let (mut writer, mut reader) = match from {
            Client => (client, server),
            Server => (server, client),
        };
        let bytes = pattern(1, 2 * WINDOW);
        within("room", writer.write_all(&bytes))
            .await
            .expect("room");
        let began = Instant::now();
        within("the flush", writer.flush()).await.expect("flushed");
        assert_eq!(began.elapsed(), Duration::ZERO);
        check_payload_on(&net, from, WINDOW);
        // There is credit again, and nobody flushes.
        expect(&mut reader, &bytes[..WINDOW]).await;
        tokio::time::sleep(SETTLED).await;
        check_payload_on(&net, from, 2 * WINDOW);
        expect(&mut reader, &bytes[WINDOW..]).await;

        // The link takes less than the credit allows.
        let mut net = Net::new(&native_window(WINDOW), 100);
        let [client, server] = open(&mut net, WINDOW).await;
        let (mut writer, mut reader, to) = match from {
            Client => (client, server, Server),
            Server => (server, client, Client),
        };
        tokio::time::sleep(SETTLED).await;
        net.newest().cut_end(to, Fault::Stall);
        writer.write_all(&bytes[..WINDOW]).await.expect("room");
        let early = timeout(Duration::from_secs(10), writer.flush()).await;
        assert!(early.is_err(), "flushed though the link is full");
        net.newest().go_on();
        within("the flush", writer.flush()).await.expect("flushed");
        check_payload_on(&net, from, WINDOW);
        expect(&mut reader, &bytes[..WINDOW]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_without_a_link_is_done_at_once() {
    let mut net = Net::new(&native_window(1000), ROOMY);
    let [mut client, mut server] = open(&mut net, 1000).await;
    net.lose(&client, &server).await;
    let began = Instant::now();
    let bytes = pattern(1, 1000);
    for end in [&mut client, &mut server] {
        send(end, &bytes).await;
        within("the flush", end.flush()).await.expect("flushed");
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    net.set(Dial::Serve);
    expect(&mut client, &bytes).await;
    expect(&mut server, &bytes).await;
}

/// One end writes for ever and never reads; the other reads, and writes a little that nobody reads.
async fn one_writes_and_never_reads(writes: Side, capacity: usize) {
    const WINDOW: usize = 1000;
    let mut net = Net::new(&native_window(WINDOW), capacity);
    let [client, server] = open(&mut net, WINDOW).await;
    let (writer, mut other) = match writes {
        Client => (client, server),
        Server => (server, client),
    };
    let windows = if capacity == 1 { 30 } else { 200 };
    let bytes = pattern(1, windows * WINDOW);
    let writing = writing(writer, bytes.clone());
    // As much as fits: more would have to wait for a reader.
    for (turn, part) in bytes.chunks(WINDOW / 10).enumerate() {
        if turn < 10 {
            send(&mut other, &[7; WINDOW / 10]).await;
        }
        expect(&mut other, part).await;
    }
    let writer = within("the writer", writing).await.expect("no panic");
    assert_eq!(writer.handle().stats().received, WINDOW as u64);
    assert_eq!(net.links(), 1);
}

#[tokio::test(start_paused = true)]
async fn teleport_19_an_end_that_never_reads_still_gets_its_acknowledgements() {
    for capacity in [16, 1, ROOMY] {
        for writes in [Client, Server] {
            one_writes_and_never_reads(writes, capacity).await;
        }
    }
}

/// Both write until they cannot, in one task each that does not read; then one of them reads.
#[tokio::test(start_paused = true)]
async fn teleport_19_two_writers_that_wait_go_on_when_either_reads() {
    const WINDOW: usize = 1000;
    for capacity in [16, ROOMY] {
        for reads in [Client, Server] {
            let mut net = Net::new(&native_window(WINDOW), capacity);
            let [mut client, mut server] = open(&mut net, WINDOW).await;
            let (up, down) = (pattern(1, 50 * WINDOW), pattern(2, 50 * WINDOW));
            // More than this fits nowhere.
            let fits = 2 * WINDOW;
            for (end, bytes) in [(&mut client, &up), (&mut server, &down)] {
                within("room", end.write_all(&bytes[..fits]))
                    .await
                    .expect("room");
                let more = timeout(SETTLED, end.write(&bytes[fits..])).await;
                assert!(more.is_err(), "{more:?} beyond the credit");
            }
            let (mut reader, waits, inbound, out) = match reads {
                Client => (client, server, down, up),
                Server => (server, client, up, down),
            };
            let writing = writing(waits, inbound[fits..].to_vec());
            expect(&mut reader, &inbound).await;
            // Nobody has read what it wrote itself.
            let more = timeout(SETTLED, reader.write(&[0])).await;
            assert!(more.is_err(), "{more:?} beyond the credit");
            let mut other = within("the writer", writing).await.expect("no panic");
            expect(&mut other, &out[..fits]).await;
            within("room", reader.write_all(&out[fits..fits + WINDOW]))
                .await
                .expect("room");
        }
    }
}

/// No task of either end polls for reading while it writes.
#[tokio::test(start_paused = true)]
async fn teleport_19_one_task_an_end_writes_and_then_reads() {
    const WINDOW: usize = 1000;
    for capacity in [1, 16, ROOMY] {
        let mut net = Net::new(&native_window(WINDOW), capacity);
        let [client, server] = open(&mut net, WINDOW).await;
        let (up, down) = (pattern(1, 60 * WINDOW), pattern(2, 60 * WINDOW));
        let run = |mut end: ResumableTransport, out: Vec<u8>, inbound: Vec<u8>, first: usize| async move {
            // One is always ahead by a part, so that both wait for each other most of the time.
            let mut sent = first.min(out.len());
            end.write_all(&out[..sent]).await.expect("writing");
            for part in inbound.chunks(WINDOW) {
                expect(&mut end, part).await;
                let next = (sent + WINDOW).min(out.len());
                end.write_all(&out[sent..next]).await.expect("writing");
                sent = next;
            }
            end
        };
        let client = tokio::spawn(run(client, up.clone(), down.clone(), 2 * WINDOW));
        let server = tokio::spawn(run(server, down, up, 2 * WINDOW));
        let (client, server) = within("both", async { tokio::join!(client, server) }).await;
        drop((client.expect("no panic"), server.expect("no panic")));
    }
}

/// A task that has just read is expected to read on, so its keeper leaves the link alone for a while. But it writes, and hears itself what
/// it waits for.
#[tokio::test(start_paused = true)]
async fn a_writer_that_waits_hears_at_once_that_there_is_room() {
    const WINDOW: usize = 1000;
    let (_net, mut client, mut peer, _) = against_raw_server(1 << 20).await;
    within("room", client.write_all(&[7; WINDOW]))
        .await
        .expect("room");
    for round in 1..10 {
        tokio::time::sleep(SETTLED).await;
        peer.send_data(b"x").await.expect("room");
        tokio::time::sleep(SETTLED).await;
        expect(&mut client, b"x").await;
        let waiting = writing(client, vec![7; WINDOW / 2]);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let began = Instant::now();
        let ack = Frame::Ack {
            received: round * WINDOW as u64 / 2,
            limit: 1 << 20,
        };
        peer.send(ack).await.expect("room");
        client = within("the writer", waiting).await.expect("no panic");
        let took = began.elapsed();
        assert!(took < Duration::from_millis(2), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn not_a_byte_is_sent_beyond_the_limit() {
    let mut net = Net::new(&native_window(1000), ROOMY);
    let (mut link, _) = net.raw_link();
    let mut open = super::raw_native::open_machine(10);
    super::raw_native::drive(&mut link, &mut open)
        .await
        .expect("a session");
    assert_eq!(named(&open).window, 1000);
    link.write_all(&open.confirm().expect("a session"))
        .await
        .expect("room");
    let mut peer = Frames::new(link);
    peer.attach(0, 0, 10).await.expect("room");
    let mut server = net.opened().await;
    let bytes = pattern(1, 500);
    within("room", server.write_all(&bytes))
        .await
        .expect("room");
    let mut got = 0;
    // Limits that grow, stand and go back; acknowledgements that lag behind.
    for (received, limit, allowed) in [
        (0, 10, 10),
        (10, 25, 25),
        (10, 5, 25),
        (3, 26, 26),
        (26, 26, 26),
        (26, 490, 490),
        (400, u64::MAX, 500),
    ] {
        peer.send(Frame::Ack { received, limit })
            .await
            .expect("room");
        let part = within("what is allowed", peer.take(allowed - got)).await;
        assert_eq!(part, bytes[got..allowed]);
        got = allowed;
        assert!(
            timeout(SETTLED, peer.take(1)).await.is_err(),
            "beyond {limit}"
        );
    }
    let stats = server.handle().stats();
    assert_eq!((stats.sent, stats.unacknowledged), (500, 100));
}

/// The application polls nothing at all here: its keeper sees to it.
#[tokio::test(start_paused = true)]
async fn an_acknowledgement_waits_25_ms_for_others_and_a_quarter_of_the_window_for_nothing() {
    const DELAY: Duration = Duration::from_millis(25);
    let mut net = Net::new(&native_window(1000), ROOMY);
    let (link, _) = net.raw_link();
    let (mut peer, _) = Frames::open(link).await.expect("a session");
    let mut server = net.opened().await;
    tokio::time::sleep(SETTLED).await;
    let acknowledged = async |peer: &mut Frames<_>| {
        let began = Instant::now();
        let ack = peer.until(|frame| match frame {
            Frame::Ack { received, limit } => Some((received, limit)),
            _ => None,
        });
        (within("an ACK", ack).await, began.elapsed())
    };
    let is_soon = |took: Duration| took <= Duration::from_millis(2);
    let is_delayed = |took: Duration| (DELAY..DELAY + Duration::from_millis(2)).contains(&took);

    peer.send_data(&[1]).await.expect("room");
    let (ack, took) = acknowledged(&mut peer).await;
    assert!(ack == (1, 1000) && is_delayed(took), "{ack:?} {took:?}");
    peer.send_data(&[2; 249]).await.expect("room");
    let (ack, took) = acknowledged(&mut peer).await;
    assert!(ack == (250, 1000) && is_delayed(took), "{ack:?} {took:?}");
    peer.send_data(&[3; 250]).await.expect("room");
    let (ack, took) = acknowledged(&mut peer).await;
    assert!(ack == (500, 1000) && is_soon(took), "{ack:?} {took:?}");
    // Reading moves the limit.
    server.read_exact(&mut [0; 10]).await.expect("reading");
    let (ack, took) = acknowledged(&mut peer).await;
    assert!(ack == (500, 1010) && is_delayed(took), "{ack:?} {took:?}");
    server.read_exact(&mut [0; 250]).await.expect("reading");
    let (ack, took) = acknowledged(&mut peer).await;
    assert!(ack == (500, 1260) && is_soon(took), "{ack:?} {took:?}");
    // Along with DATA.
    peer.send_data(&[4]).await.expect("room");
    until("the byte", || {
        (server.handle().stats().received == 501).then_some(())
    })
    .await;
    send(&mut server, b"along").await;
    let (ack, took) = acknowledged(&mut peer).await;
    assert!(ack == (501, 1260) && is_soon(took), "{ack:?} {took:?}");
    // And the end at once.
    peer.send(Frame::Fin).await.expect("room");
    let (ack, took) = acknowledged(&mut peer).await;
    assert!(ack == (502, 1260) && is_soon(took), "{ack:?} {took:?}");
}
