//! Every byte once and in order, both ways, however many links are lost and wherever they break.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    time::timeout,
};
use unbroken::{CloseReason, LinkState, ResumableTransport, protocol::native::Frame};

use super::{
    memory_link::{Client, Fault, Server},
    memory_net::{
        Dial, HUNG, Net, ROOMY, closed, connected, expect, expect_nothing, native_window, pattern,
        read_error, reason, send, within,
    },
    raw_native::{Frames, data, frame},
};

pub(super) fn seed() -> u64 {
    let seed = match std::env::var("UNBROKEN_SEED") {
        Ok(seed) => seed.parse().expect("UNBROKEN_SEED is a u64"),
        Err(_) => rand::random(),
    };
    println!("UNBROKEN_SEED={seed}");
    seed
}

/// Links that break after a random number of bytes from either side, at most so many.
pub(super) fn cuts(rng: &mut StdRng, count: usize, most: usize) -> Vec<Dial> {
    let mut cut = || {
        let side = if rng.random() { Client } else { Server };
        // Half of them in the handshake or in the first frames.
        let most = if rng.random() { 250 } else { most };
        Dial::CutAt(side, rng.random_range(0..most))
    };
    (0..count).map(|_| cut()).collect()
}

/// Both ends write and read at the same time, as fast as they can, until the streams end.
async fn stream_both_ways(seed: u64, capacity: usize, window: usize, len: usize, losses: usize) {
    let mut rng = StdRng::seed_from_u64(seed);
    let config = native_window(window);
    let mut net = Net::new(&config, capacity);
    let (client, server) = net.open(&config).await;
    net.newest().cut_at(Client, 200);
    net.plan(cuts(&mut rng, losses, (len / losses).max(300)));
    let handles = [client.handle(), server.handle()];
    let run = |end: ResumableTransport, out: Vec<u8>, inbound: Vec<u8>, mut rng: StdRng| async move {
        let (mut reading, mut writing) = split(end);
        let most = (2 * inbound.len() / 50).max(2);
        let writer = tokio::spawn(async move {
            let mut rest = &out[..];
            while !rest.is_empty() {
                let (part, more) = rest.split_at(rng.random_range(1..=most).min(rest.len()));
                writing.write_all(part).await.expect("writing");
                if rng.random_ratio(1, 10) {
                    writing.flush().await.expect("flushing");
                }
                rest = more;
            }
            writing.shutdown().await.expect("all has arrived");
            writing
        });
        let mut read = Vec::new();
        reading.read_to_end(&mut read).await.expect("reading");
        assert!(read == inbound, "{} bytes of {}", read.len(), inbound.len());
        reading.unsplit(writer.await.expect("no panic"))
    };
    let (up, down) = (pattern(seed, len), pattern(!seed, len));
    let streams = [(client, &up, &down), (server, &down, &up)].map(|(end, out, inbound)| {
        let rng = StdRng::seed_from_u64(rng.random());
        tokio::spawn(run(end, out.clone(), inbound.clone(), rng))
    });
    for stream in streams {
        // A hundred losses, each of which may cost a delay of the backoff's.
        let done = timeout(60 * HUNG, stream).await.expect("it does not hang");
        drop(done.expect("no panic"));
    }
    for handle in &handles {
        assert_eq!(closed(handle).await, CloseReason::Finished);
        let stats = handle.stats();
        assert_eq!((stats.sent, stats.received), (len as u64, len as u64));
        assert_eq!(stats.unacknowledged, 0);
    }
    let lost = net.links() - 1;
    println!("{lost} links lost of {losses}");
    assert!(lost >= losses / 2);
}

#[tokio::test(start_paused = true)]
async fn signalr_24_both_directions_arrive_whole_through_hundreds_of_lost_links() {
    let seed = seed();
    stream_both_ways(seed, 64 << 10, 64 << 10, 1 << 20, 50).await;
    stream_both_ways(seed, 4000, 64 << 10, 1 << 20, 150).await;
    stream_both_ways(seed ^ 1, 3000, 8 << 10, 300_000, 150).await;
    stream_both_ways(seed ^ 2, 16, 1000, 50_000, 150).await;
    stream_both_ways(seed ^ 3, 1, 64, 4000, 50).await;
    stream_both_ways(seed ^ 4, 16, 1 << 20, 30_000, 100).await;
}

/// Both write a window whole and flush it before either reads, in one task a side. Links are lost meanwhile.
async fn window_then_read(capacity: usize, window: usize, losses: &[Dial]) {
    let config = native_window(window);
    let mut net = Net::new(&config, capacity);
    let (client, server) = net.open(&config).await;
    let links = losses.len();
    net.plan(losses.iter().cloned());
    if links > 0 {
        net.newest().cut(Fault::Reset);
    }
    let (up, down) = (pattern(1, window), pattern(2, window));
    let both = |mut end: ResumableTransport, out: Vec<u8>, inbound: Vec<u8>| async move {
        for _ in 0..3 {
            send(&mut end, &out).await;
            expect(&mut end, &inbound).await;
        }
        end
    };
    let client = tokio::spawn(both(client, up.clone(), down.clone()));
    let server = tokio::spawn(both(server, down, up));
    let (client, server) = within("both", async { tokio::join!(client, server) }).await;
    let (mut client, mut server) = (client.expect("no panic"), server.expect("no panic"));
    expect_nothing(&mut client).await;
    expect_nothing(&mut server).await;
}

#[tokio::test(start_paused = true)]
async fn both_write_and_flush_a_window_before_they_read() {
    for (capacity, window) in [
        (16, 64),
        (16, 1000),
        (1, 2000),
        (16, 100_000),
        (64 << 10, 1 << 20),
    ] {
        window_then_read(capacity, window, &[]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_when_links_are_lost_in_the_midst_of_it() {
    let mut rng = StdRng::seed_from_u64(seed());
    for (capacity, window) in [(16, 64), (16, 1000), (1, 2000), (16, 20_000)] {
        for _ in 0..10 {
            let losses = cuts(&mut rng, 8, window);
            println!("{capacity} {window}");
            window_then_read(capacity, window, &losses).await;
        }
    }
}

/// What one of the two applications, or the network, does next.
async fn step(
    rng: &mut StdRng,
    net: &Net,
    ends: &mut [ResumableTransport; 2],
    streams: &mut [Stream; 2],
) {
    let number = rng.random_range(0..2);
    let end = &mut ends[number];
    let patience = Duration::from_millis(rng.random_range(0..40));
    match rng.random_range(0..12) {
        0..4 => {
            let part = pattern(rng.random(), rng.random_range(1..600));
            if let Ok(count) = timeout(patience, end.write(&part)).await {
                let count = count.expect("writing");
                streams[number].sent.extend(&part[..count]);
            }
        }
        4..8 => {
            let mut buffer = vec![0; rng.random_range(1..700)];
            if let Ok(count) = timeout(patience, end.read(&mut buffer)).await {
                let count = count.expect("reading");
                assert_ne!(count, 0, "nobody has ended the stream");
                streams[1 - number].read(&buffer[..count]);
            }
        }
        8 => {
            if let Ok(flushed) = timeout(patience, end.flush()).await {
                flushed.expect("flushing");
            }
        }
        9 => {
            let fault = [Fault::Reset, Fault::End][rng.random_range(0..2)];
            net.newest().cut(fault);
        }
        10 => {
            if rng.random() {
                net.plan(cuts(rng, 1, 2000));
            }
            // Whether it is waited for or not.
            let _ = timeout(patience, ends[0].handle().migrate()).await;
        }
        _ => tokio::time::sleep(patience).await,
    }
}

/// One direction, as both applications see it.
#[derive(Default)]
struct Stream {
    sent: Vec<u8>,
    received: usize,
}

impl Stream {
    fn read(&mut self, bytes: &[u8]) {
        let end = self.received + bytes.len();
        assert!(
            self.sent.get(self.received..end) == Some(bytes),
            "bytes were lost, doubled, changed or reordered"
        );
        self.received = end;
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_both_applications_and_the_network_do() {
    let seed = seed();
    for run in 0..100 {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(run));
        let capacity = [1, 16, 300, 64 << 10][rng.random_range(0..4)];
        let config = native_window(
            *[64, 500, 5000, 1 << 20]
                .get(rng.random_range(0..4))
                .expect("4"),
        );
        let mut net = Net::new(&config, capacity);
        let (client, server) = net.open(&config).await;
        let (mut ends, mut streams) = ([client, server], [Stream::default(), Stream::default()]);
        for _ in 0..rng.random_range(1..150) {
            step(&mut rng, &net, &mut ends, &mut streams).await;
        }
        let handles = ends.each_ref().map(ResumableTransport::handle);
        let [up, down] = streams;
        let [client, server] = ends;
        let finish = async |mut end: ResumableTransport, mut inbound: Stream| {
            let mut rest = Vec::new();
            let (mut reading, mut writing) = split(&mut end);
            let (shut, read) = tokio::join!(writing.shutdown(), reading.read_to_end(&mut rest));
            shut.and(read.map(drop)).expect("a clean end");
            inbound.read(&rest);
            assert_eq!(inbound.received, inbound.sent.len(), "run {run} of {seed}");
            end
        };
        let ends = within("the end", async {
            tokio::join!(finish(client, down), finish(server, up))
        });
        let _ends = ends.await;
        for handle in handles {
            assert_eq!(closed(&handle).await, CloseReason::Finished);
        }
    }
}

/// The bytes are in the transport, not in the application, when both streams turn out to be delivered.
#[tokio::test(start_paused = true)]
async fn bytes_that_come_along_with_the_end_of_the_session_can_be_read() {
    for reset in [false, true] {
        let mut net = Net::new(&native_window(1000), ROOMY);
        let (mut peer, opened) = {
            let (link, _) = net.raw_link();
            let (peer, opened) = Frames::open(link).await.expect("a session");
            (peer, opened.window)
        };
        assert_eq!(opened, 1000);
        let mut server = net.opened().await;
        let shutdown = tokio::spawn(async move {
            let result = server.shutdown().await;
            (server, result)
        });
        peer.until(|frame| (frame == Frame::Fin).then_some(()))
            .await;
        let bytes = pattern(1, 1000);
        let ack = Frame::Ack {
            received: 1,
            limit: 0,
        };
        let end = if reset {
            Frame::Reset { code: 7 }
        } else {
            Frame::Fin
        };
        let segment = [&frame(ack)[..], &data(&bytes), &frame(end)].concat();
        peer.link.write_all(&segment).await.expect("room");
        let (mut server, result) = within("the shutdown", shutdown).await.expect("no panic");
        result.expect("it is delivered");
        let expected = if reset {
            CloseReason::Reset(7)
        } else {
            CloseReason::Finished
        };
        assert_eq!(closed(&server.handle()).await, expected);
        expect(&mut server, &bytes).await;
        if reset {
            assert_eq!(reason(&read_error(&mut server).await), expected);
        } else {
            assert_eq!(server.read(&mut [0]).await.expect("a clean end"), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_written_without_a_link_arrives_with_the_next() {
    let config = native_window(1000);
    let mut net = Net::new(&config, 16);
    let (mut client, mut server) = net.open(&config).await;
    for round in 0..5 {
        // What was received is acknowledged by now.
        tokio::time::sleep(Duration::from_millis(100)).await;
        net.lose(&client, &server).await;
        let (up, down) = (pattern(round, 1000), pattern(!round, 1000));
        send(&mut client, &up).await;
        send(&mut server, &down).await;
        assert!(matches!(
            client.handle().state(),
            LinkState::Reconnecting { .. }
        ));
        net.set(Dial::Serve);
        connected(&client.handle()).await;
        connected(&server.handle()).await;
        tokio::join!(expect(&mut server, &up), expect(&mut client, &down));
    }
}
