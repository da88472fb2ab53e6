//! A transport that is dropped: what it wrote still arrives, what it has not read is nobody's secret.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use unbroken::{CloseReason, LinkState, ResumableTransport, reset};

use super::{
    memory_link::{Client, Fault, Server},
    memory_net::{
        Dial, Net, ROOMY, closed, expect, native, native_window, pattern, read_error, reason,
        resumed, send, until, within,
    },
    shutdown::{expect_end, sides},
};

const LINGER: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(2);

/// Tasks that are alive, but for the test's.
fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn what_was_written_arrives_and_its_end_with_it() {
    for side in [Client, Server] {
        let mut net = Net::new(&native(), 10);
        let (client, server) = net.open(&native()).await;
        let (mut end, mut peer) = sides(side, client, server);
        let handle = end.handle();
        let bytes = pattern(1, 50_000);
        end.write_all(&bytes).await.expect("room");
        drop(end);
        expect_end(&mut peer, &bytes).await;
        // The peer has not ended its own stream.
        tokio::time::sleep(LINGER / 2).await;
        assert_eq!(handle.state(), LinkState::Connected);
        drop(peer);
        assert_eq!(closed(&handle).await, CloseReason::Finished);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((tasks(), net.links()), (0, 1));
        for side in [Client, Server] {
            assert!(net.newest().dropped(side).is_some());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn teleport_20_what_was_written_arrives_though_the_link_is_down() {
    for side in [Client, Server] {
        let mut net = Net::new(&native(), 100);
        let (client, server) = net.open(&native()).await;
        net.lose(&client, &server).await;
        let (mut end, mut peer) = sides(side, client, server);
        let handle = end.handle();
        let bytes = pattern(1, 50_000);
        send(&mut end, &bytes).await;
        drop(end);
        tokio::time::sleep(LINGER / 3).await;
        // More links are lost on the way: in the handshake, and in the replay.
        net.plan([
            Dial::CutAt(Client, 20),
            Dial::CutAt(Server, 30),
            Dial::CutAt(side, 2000),
            Dial::CutAt(side, 150),
            Dial::CutAt(side, 30_000),
            Dial::CutAt(side.other(), 250),
        ]);
        net.set(Dial::Serve);
        expect_end(&mut peer, &bytes).await;
        let peer_handle = peer.handle();
        drop(peer);
        assert_eq!(closed(&handle).await, CloseReason::Finished);
        assert_eq!(closed(&peer_handle).await, CloseReason::Finished);
        let dials = net.dials().len();
        tokio::time::sleep(Duration::from_secs(1000)).await;
        assert_eq!(net.dials().len(), dials, "it dials though all is done");
        assert_eq!(tasks(), 0, "keepers go on");
    }
}

#[tokio::test(start_paused = true)]
async fn both_may_drop_while_the_link_is_down() {
    for received in [false, true] {
        let mut net = Net::new(&native(), ROOMY);
        let (mut client, mut server) = net.open(&native()).await;
        if received {
            net.newest().cut(Fault::Deaf);
        } else {
            net.lose(&client, &server).await;
        }
        send(&mut client, b"up").await;
        send(&mut server, b"down").await;
        let (up, down) = (client.handle(), server.handle());
        drop((client, server));
        net.isolate();
        tokio::time::sleep(LINGER / 2).await;
        net.set(Dial::Serve);
        assert_eq!(closed(&up).await, CloseReason::Finished);
        assert_eq!(closed(&down).await, CloseReason::Finished);
        assert_eq!((down.stats().received, up.stats().received), (2, 4));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(tasks(), 0, "keepers go on");
    }
}

#[tokio::test(start_paused = true)]
async fn linger_is_how_long_it_is_tried() {
    for side in [Client, Server] {
        let mut net = Net::new(&native(), ROOMY);
        let (client, server) = net.open(&native()).await;
        net.lose(&client, &server).await;
        let (mut end, mut peer) = sides(side, client, server);
        let handle = end.handle();
        send(&mut end, b"in vain").await;
        let dropped = Instant::now();
        drop(end);
        // What it wrote has not arrived.
        assert_eq!(closed(&handle).await, CloseReason::Expired);
        let lasted = dropped.elapsed();
        assert!((LINGER..LINGER + STEP).contains(&lasted), "{lasted:?}");
        let dials = net.dials().len();
        assert!(dials > 5, "{dials}");
        tokio::time::sleep(Duration::from_secs(10)).await;
        if side == Client {
            assert_eq!(net.dials().len(), dials, "it goes on dialling");
            assert!(peer.handle().stats().received == 0);
            assert_eq!(closed(&peer.handle()).await, CloseReason::Expired);
        } else {
            // The client learns why from what is left of the session.
            net.set(Dial::Serve);
            let ended = CloseReason::Reset(reset::LINGER);
            assert_eq!(reason(&read_error(&mut peer).await), ended);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_end_its_stream_is_reset_after_linger() {
    for side in [Client, Server] {
        let mut net = Net::new(&native(), ROOMY);
        let (client, server) = net.open(&native()).await;
        let (mut end, mut peer) = sides(side, client, server);
        let handle = end.handle();
        send(&mut end, b"good bye").await;
        let dropped = Instant::now();
        drop(end);
        // What arrives meanwhile is taken, however much, and goes nowhere.
        let error = loop {
            if let Err(error) = peer.write_all(&[7; 100_000]).await {
                break error;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let lasted = dropped.elapsed();
        assert!(lasted >= LINGER && lasted < LINGER + Duration::from_secs(1));
        assert_eq!(reason(&error), CloseReason::Reset(reset::LINGER));
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(handle.stats().received > 50 << 20);
        // All that it had written has arrived: that is what its own end can say.
        assert_eq!(handle.state(), LinkState::Closed(CloseReason::Local));
        expect_end(&mut peer, b"good bye").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(tasks(), 0, "keepers go on");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_reset_after_linger() {
    const WINDOW: usize = 1000;
    let config = native_window(WINDOW);
    for side in [Client, Server] {
        let mut net = Net::new(&config, ROOMY);
        let (client, server) = net.open(&config).await;
        let (mut end, mut peer) = sides(side, client, server);
        let handle = end.handle();
        let bytes = pattern(1, 2 * WINDOW);
        send(&mut end, &bytes).await;
        drop(end);
        tokio::time::sleep(LINGER - Duration::from_secs(1)).await;
        assert_eq!(handle.state(), LinkState::Connected);
        assert_eq!(closed(&handle).await, CloseReason::Expired);
        // What it had received is there; the hole behind it is no end of the stream.
        let ended = CloseReason::Reset(reset::LINGER);
        assert_eq!(closed(&peer.handle()).await, ended);
        expect(&mut peer, &bytes[..WINDOW]).await;
        assert_eq!(reason(&read_error(&mut peer).await), ended);
    }
}

/// Leaves `bytes` in the transport of one end, unread.
async fn leave_unread(peer: &mut ResumableTransport, end: &ResumableTransport, bytes: &[u8]) {
    send(peer, bytes).await;
    until("the bytes", || {
        (end.handle().stats().received == bytes.len() as u64).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn bytes_left_unread_reset_the_session() {
    let (ours, theirs) = (
        CloseReason::LocalReset(reset::DROPPED_UNREAD),
        CloseReason::Reset(reset::DROPPED_UNREAD),
    );
    for side in [Client, Server] {
        for connected in [true, false] {
            let mut net = Net::new(&native(), ROOMY);
            let (client, server) = net.open(&native()).await;
            let (mut end, mut peer) = sides(side, client, server);
            leave_unread(&mut peer, &end, b"unread").await;
            leave_unread(&mut end, &peer, b"had been received").await;
            // Of several, one is left.
            expect(&mut end, b"unrea").await;
            if !connected {
                let (client, server) = sides(side, &end, &peer);
                net.lose(client, server).await;
            }
            let handle = end.handle();
            drop(end);
            assert_eq!(handle.state(), LinkState::Closed(ours));
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert_eq!(
                peer.handle().state() == LinkState::Closed(theirs),
                connected
            );
            net.set(Dial::Serve);
            assert_eq!(closed(&peer.handle()).await, theirs);
            expect(&mut peer, b"had been received").await;
            let error = read_error(&mut peer).await;
            assert_eq!(reason(&error), theirs);
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            let error = peer.write(b"more").await.expect_err("it is over");
            assert_eq!(reason(&error), theirs);
            let error = peer.shutdown().await.expect_err("it is over");
            assert_eq!(reason(&error), theirs);
            assert_eq!(handle.state(), LinkState::Closed(ours));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(tasks(), 0, "keepers go on");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_left_unread_by_an_end_that_was_shut_are_dropped_with_it() {
    for side in [Client, Server] {
        let mut net = Net::new(&native(), ROOMY);
        let (client, server) = net.open(&native()).await;
        let (mut end, mut peer) = sides(side, client, server);
        leave_unread(&mut peer, &end, b"unread").await;
        send(&mut end, b"good bye").await;
        within("the shutdown", end.shutdown()).await.expect("done");
        let handle = end.handle();
        drop(end);
        expect_end(&mut peer, b"good bye").await;
        send(&mut peer, b"to nobody").await;
        within("the shutdown", peer.shutdown()).await.expect("done");
        assert_eq!(closed(&handle).await, CloseReason::Finished);
        assert_eq!(closed(&peer.handle()).await, CloseReason::Finished);
        assert_eq!(handle.stats().received, 15);
    }
}

/// A client that has nothing else left resumes for the server's last word; one that was dropped too.
#[tokio::test(start_paused = true)]
async fn a_dropped_client_whose_link_goes_black_is_mended_within_linger() {
    let mut net = Net::new(&native(), ROOMY);
    let (mut client, mut server) = net.open(&native()).await;
    net.newest().cut(Fault::Deaf);
    client.write_all(b"into the dark").await.expect("room");
    let handle = client.handle();
    let dropped = Instant::now();
    drop(client);
    resumed(&handle, 1).await;
    assert!(
        dropped.elapsed() < LINGER / 2 + STEP,
        "{:?}",
        dropped.elapsed()
    );
    expect_end(&mut server, b"into the dark").await;
    drop(server);
    assert_eq!(closed(&handle).await, CloseReason::Finished);
}

/// Whoever drops a transport in the midst of reading has read what it was given, and no more is asked of it.
#[tokio::test(start_paused = true)]
async fn a_peer_that_had_everything_may_be_gone() {
    let mut net = Net::new(&native(), ROOMY);
    let (mut client, mut server) = net.open(&native()).await;
    send(&mut client, b"question").await;
    expect(&mut server, b"question").await;
    send(&mut server, b"answer").await;
    within("the shutdown", server.shutdown())
        .await
        .expect("done");
    let handle = server.handle();
    drop(server);
    expect_end(&mut client, b"answer").await;
    within("the shutdown", client.shutdown())
        .await
        .expect("done");
    assert_eq!(client.read(&mut [0]).await.expect("the end"), 0);
    assert_eq!(closed(&handle).await, CloseReason::Finished);
}
