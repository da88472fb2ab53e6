//! `shutdown`, half-close and the clean end: done when the peer has everything, and not before.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    task::JoinHandle,
    time::{Instant, timeout},
};
use unbroken::{CloseReason, Config, Error, LinkState, ResumableTransport};

use super::{
    delivery::{cuts, seed},
    memory_link::{Client, Fault, Server, Side},
    memory_net::{
        Dial, Net, ROOMY, closed, connected, exchange, expect, expect_nothing, native,
        native_window, pattern, resumed, send, within,
    },
};

/// Both ends, the one on this side first.
pub(super) fn sides<T>(side: Side, client: T, server: T) -> (T, T) {
    match side {
        Client => (client, server),
        Server => (server, client),
    }
}

fn shutting_down(mut end: ResumableTransport) -> JoinHandle<ResumableTransport> {
    tokio::spawn(async move {
        end.shutdown().await.expect("all arrives");
        end
    })
}

/// Reads to the end of the stream.
pub(super) async fn expect_end(from: &mut ResumableTransport, bytes: &[u8]) {
    let mut read = Vec::new();
    within("the end", from.read_to_end(&mut read))
        .await
        .expect("a clean end");
    assert!(read == bytes, "{} bytes of {}", read.len(), bytes.len());
}

/// Writes, shuts down, and takes the network away the moment that is done: then the peer must have everything.
async fn shut_through(net: &mut Net, config: &Config, side: Side, losses: Vec<Dial>) {
    let (client, server) = net.open(config).await;
    let (mut client, mut server) = (client, server);
    exchange(&mut client, &mut server).await;
    net.plan(losses);
    net.newest().cut(Fault::Deaf);
    let (mut end, mut peer) = sides(side, client, server);
    let bytes = pattern(1, 60);
    send(&mut end, &bytes).await;
    let shutting = shutting_down(end);
    tokio::task::yield_now().await;
    net.newest().cut(Fault::Reset);
    let end = within("the shutdown", shutting).await.expect("no panic");
    net.isolate();
    expect_end(&mut peer, &bytes).await;
    drop(end);
}

#[tokio::test(start_paused = true)]
async fn it_completes_only_when_the_peer_has_everything_wherever_links_break() {
    let config = native();
    for side in [Client, Server] {
        // Into the handshake, the replay, the FIN, its acknowledgement, and beyond them.
        for from in [Client, Server] {
            for at in 0..320 {
                let mut net = Net::new(&config, ROOMY);
                shut_through(&mut net, &config, side, vec![Dial::CutAt(from, at)]).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_completes_only_when_the_peer_has_everything_though_many_links_break_in_a_row() {
    let mut rng = StdRng::seed_from_u64(seed());
    for turn in 0..200 {
        let config = native_window([64, 1000][turn % 2]);
        let mut net = Net::new(&config, [1, 16, ROOMY][turn % 3]);
        let losses = cuts(&mut rng, 6, 320);
        println!("{losses:?}");
        shut_through(&mut net, &config, [Client, Server][turn / 2 % 2], losses).await;
    }
}

#[tokio::test(start_paused = true)]
async fn it_does_not_complete_while_the_peer_lacks_anything() {
    const WINDOW: usize = 1000;
    let config = native_window(WINDOW);
    for side in [Client, Server] {
        // The peer's transport has room for all: whether its application reads is its own affair.
        let mut net = Net::new(&config, ROOMY);
        let (client, server) = net.open(&config).await;
        let (mut end, mut peer) = sides(side, client, server);
        let bytes = pattern(1, 2 * WINDOW);
        send(&mut end, &bytes[..WINDOW]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let began = Instant::now();
        within("the shutdown", end.shutdown()).await.expect("done");
        assert!(
            began.elapsed() < Duration::from_millis(2),
            "FIN is acknowledged at once"
        );
        expect_end(&mut peer, &bytes[..WINDOW]).await;

        // It has not: the rest waits here until it reads.
        let (client, server) = net.open(&config).await;
        let (mut end, mut peer) = sides(side, client, server);
        send(&mut end, &bytes).await;
        let early = timeout(Duration::from_secs(30 * 60), end.shutdown()).await;
        assert!(early.is_err(), "{early:?}");
        let shutting = shutting_down(end);
        expect(&mut peer, &bytes[..WINDOW - 1]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!shutting.is_finished());
        expect_end(&mut peer, &bytes[WINDOW - 1..]).await;
        within("the shutdown", shutting).await.expect("no panic");

        // There is no link.
        let (client, server) = net.open(&config).await;
        net.lose(&client, &server).await;
        let (end, mut peer) = sides(side, client, server);
        let shutting = shutting_down(end);
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(!shutting.is_finished(), "done without a link");
        net.set(Dial::Serve);
        expect_end(&mut peer, b"").await;
        within("the shutdown", shutting).await.expect("no panic");
    }
}

#[tokio::test(start_paused = true)]
async fn fin_needs_no_credit() {
    const WINDOW: usize = 64;
    let config = native_window(WINDOW);
    for side in [Client, Server] {
        let mut net = Net::new(&config, ROOMY);
        let (client, server) = net.open(&config).await;
        let (mut end, mut peer) = sides(side, client, server);
        let bytes = pattern(1, WINDOW);
        send(&mut end, &bytes).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(end.handle().stats().credit, 0);
        within("the shutdown", end.shutdown()).await.expect("done");
        expect_end(&mut peer, &bytes).await;
    }
}

#[tokio::test(start_paused = true)]
async fn either_direction_goes_on_after_the_end_of_the_other() {
    const WINDOW: usize = 1000;
    let config = native_window(WINDOW);
    for side in [Client, Server] {
        let mut net = Net::new(&config, 100);
        let (client, server) = net.open(&config).await;
        let (client_handle, server_handle) = (client.handle(), server.handle());
        let (mut end, mut peer) = sides(side, client, server);
        send(&mut end, b"all there is").await;
        within("the shutdown", end.shutdown()).await.expect("done");
        within("the shutdown", end.shutdown()).await.expect("twice");
        let error = end.write(b"more").await.expect_err("it is shut");
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        assert!(
            matches!(inner, Some(Error::WriteAfterShutdown)),
            "{error:?}"
        );
        end.flush().await.expect("a flush is no write");
        // The other one, at length, through lost links and a move.
        let bytes = pattern(1, 30 * WINDOW);
        for (turn, part) in (1..).zip(bytes.chunks(2 * WINDOW)) {
            tokio::join!(send(&mut peer, part), expect(&mut end, part));
            match turn % 3 {
                0 => net.newest().cut(Fault::Reset),
                1 => within("moving", client_handle.migrate())
                    .await
                    .expect("it moves"),
                _ => tokio::time::sleep(Duration::from_secs(200)).await,
            }
            resumed(&client_handle, turn - (turn + 1) / 3).await;
            connected(&server_handle).await;
        }
        // The end is where it was, and can be read at leisure, more than once.
        expect_end(&mut peer, b"all there is").await;
        assert_eq!(peer.read(&mut [0]).await.expect("still the end"), 0);
        assert_eq!(end.handle().state(), LinkState::Connected);
        within("the shutdown", peer.shutdown()).await.expect("done");
        expect_end(&mut end, b"").await;
        for end in [&end, &peer] {
            assert_eq!(closed(&end.handle()).await, CloseReason::Finished);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_clean_end_is_finished_at_both_ends_and_stays_so() {
    for first in [Client, Server] {
        let mut net = Net::new(&native(), ROOMY);
        let (client, server) = net.open(&native()).await;
        let (mut end, mut peer) = sides(first, client, server);
        send(&mut end, b"one").await;
        send(&mut peer, b"other").await;
        within("the shutdown", end.shutdown()).await.expect("done");
        within("the shutdown", peer.shutdown()).await.expect("done");
        // Not read yet: it stays.
        for (end, bytes) in [(&mut end, &b"other"[..]), (&mut peer, b"one")] {
            assert_eq!(closed(&end.handle()).await, CloseReason::Finished);
            expect_end(end, bytes).await;
            for _ in 0..3 {
                assert_eq!(end.read(&mut [0; 9]).await.expect("the end"), 0);
                end.shutdown().await.expect("done long ago");
                end.flush().await.expect("nothing to flush");
            }
            let error = end.write(b"more").await.expect_err("it is over");
            assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Both ends have closed the link, and nobody dials.
        assert!(net.newest().dropped(Client).is_some());
        assert!(net.newest().dropped(Server).is_some());
        tokio::time::sleep(Duration::from_secs(1000)).await;
        assert_eq!((net.links(), net.dials().len()), (1, 1));
        let tasks = tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks();
        assert_eq!(tasks, 0, "keepers go on");
    }
}

/// Both at once, and both at the same moment as the link breaks.
#[tokio::test(start_paused = true)]
async fn both_ends_may_shut_down_at_once() {
    let mut rng = StdRng::seed_from_u64(seed());
    for turn in 0..200 {
        let mut net = Net::new(&native(), ROOMY);
        let (client, server) = net.open(&native()).await;
        if turn > 0 {
            net.newest().cut_at(Client, rng.random_range(76..400));
            net.plan(cuts(&mut rng, 3, 300));
        }
        let (up, down) = (pattern(turn, 100), pattern(!turn, 100));
        let end = |end: ResumableTransport, out: Vec<u8>, inbound: Vec<u8>| async move {
            let (mut reading, mut writing) = split(end);
            let mut read = Vec::new();
            writing.write_all(&out).await.expect("room");
            let (shut, ended) = tokio::join!(writing.shutdown(), reading.read_to_end(&mut read));
            shut.expect("all arrives");
            ended.expect("a clean end");
            assert!(read == inbound);
            reading.unsplit(writing)
        };
        let ends = within("the end", async {
            tokio::join!(end(client, up.clone(), down.clone()), end(server, down, up))
        });
        let (client, server) = ends.await;
        assert_eq!(closed(&client.handle()).await, CloseReason::Finished);
        assert_eq!(closed(&server.handle()).await, CloseReason::Finished);
    }
}

/// Shutting down that was given up half-way is as if it had not been tried, but for the end of the write side.
#[tokio::test(start_paused = true)]
async fn a_cancelled_shutdown_can_be_tried_again() {
    let config = native_window(1000);
    let mut net = Net::new(&config, 16);
    let (mut client, mut server) = net.open(&config).await;
    let bytes = pattern(1, 3000);
    let sending = async {
        client.write_all(&bytes).await.expect("writing");
        let mut tries = 0;
        while timeout(Duration::from_millis(3), client.shutdown())
            .await
            .is_err()
        {
            tries += 1;
        }
        tries
    };
    let receiving = async {
        for byte in &bytes {
            expect(&mut server, &[*byte]).await;
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        expect_end(&mut server, b"").await;
    };
    let (tries, ()) = within("both", async { tokio::join!(sending, receiving) }).await;
    assert!(tries > 3, "{tries}");
    send(&mut server, b"still").await;
    expect(&mut client, b"still").await;
    expect_nothing(&mut client).await;
}
