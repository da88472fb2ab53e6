//! The end: shutdown, drop, and what each end does for the other after it.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};
use unbroken::{CloseReason, Config, Error, LinkState, Refusal, Snet, protocol::snet::ResumeReply};

use super::{
    memory_link::{Client, Fault, Server},
    memory_net::{
        Dial, Net, ROOMY, closed, exchange, expect, expect_nothing, pattern, plain, read_error,
        reason, send, stream, until, within,
    },
    raw_peer,
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
async fn shutdown_completes_when_a_link_has_all_and_sends_nothing() {
    let mut net = Net::new(&plain(), ROOMY);
    let (mut client, mut server) = net.open(&plain()).await;
    let bytes = pattern(1, 5000);
    net.newest().cut_end(Client, Fault::Stall);
    client.write_all(&bytes).await.expect("room");
    let early = timeout(Duration::from_secs(10), client.shutdown()).await;
    assert!(early.is_err(), "done before the link had anything");
    net.newest().go_on();
    within("the shutdown", client.shutdown())
        .await
        .expect("all is handed over");
    assert_eq!(stream(&net.newest(), Client), bytes);
    expect(&mut server, &bytes).await;
    expect_nothing(&mut server).await;
    assert_eq!(
        stream(&net.newest(), Client),
        bytes,
        "something was sent for it"
    );
    // Reading goes on, and the server's side is open.
    send(&mut server, b"still").await;
    expect(&mut client, b"still").await;
    assert_eq!(net.links(), 1);
}

#[tokio::test(start_paused = true)]
async fn shutdown_never_completes_while_detached() {
    for bytes in [&b"unsent"[..], b""] {
        let mut net = Net::new(&plain(), ROOMY);
        let (mut client, mut server) = net.open(&plain()).await;
        send(&mut client, b"sent").await;
        expect(&mut server, b"sent").await;
        net.lose(&client, &server).await;
        // Taken for granted by the session, but not by any link.
        send(&mut client, bytes).await;
        let shutdown = tokio::spawn(async move {
            client.shutdown().await.expect("all is handed over");
            client
        });
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(!shutdown.is_finished(), "done without a link");
        net.set(Dial::Serve);
        let client = within("the shutdown", shutdown).await.expect("no panic");
        assert_eq!(stream(&net.newest(), Client), bytes);
        expect(&mut server, bytes).await;
        drop(client);
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_of_a_session_that_ends_is_an_error() {
    let config = plain().resume_window(Duration::from_secs(30));
    let mut net = Net::new(&config, ROOMY);
    let (mut client, server) = net.open(&config).await;
    net.lose(&client, &server).await;
    let error = within("the end", client.shutdown())
        .await
        .expect_err("nothing was handed over");
    assert_eq!(reason(&error), CloseReason::Expired);
}

#[tokio::test(start_paused = true)]
async fn writing_after_shutdown_is_an_error_of_its_own() {
    let mut net = Net::new(&plain(), ROOMY);
    let (mut client, mut server) = net.open(&plain()).await;
    for end in [&mut client, &mut server] {
        end.shutdown().await.expect("nothing to hand over");
        let error = end
            .write(b"more")
            .await
            .expect_err("the write side is shut");
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>());
        assert!(matches!(inner, Some(Error::WriteAfterShutdown)));
        end.flush().await.expect("a flush is no write");
    }
    assert_eq!(client.handle().state(), LinkState::Connected);
    assert_eq!(client.handle().stats().sent, 0);
}

#[tokio::test(start_paused = true)]
async fn a_flush_while_detached_is_done_at_once() {
    let mut net = Net::new(&plain(), ROOMY);
    let (mut client, mut server) = net.open(&plain()).await;
    net.lose(&client, &server).await;
    let began = Instant::now();
    send(&mut client, b"kept").await;
    send(&mut server, b"kept").await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(matches!(
        client.handle().state(),
        LinkState::Reconnecting { .. }
    ));
    net.set(Dial::Serve);
    expect(&mut client, b"kept").await;
    expect(&mut server, b"kept").await;
}

#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_a_link_that_is_there() {
    let mut net = Net::new(&plain(), 100);
    let (mut client, mut server) = net.open(&plain()).await;
    net.newest().cut_end(Server, Fault::Stall);
    client.write_all(&[7; 101]).await.expect("room");
    assert!(
        timeout(Duration::from_secs(1), client.flush())
            .await
            .is_err()
    );
    net.newest().go_on();
    within("the flush", client.flush()).await.expect("flushed");
    assert_eq!(stream(&net.newest(), Client).len(), 101);
    expect(&mut server, &[7; 101]).await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_client_hands_everything_over_and_then_its_keeper_ends() {
    let mut net = Net::new(&plain(), 10);
    let (mut client, mut server) = net.open(&plain()).await;
    exchange(&mut client, &mut server).await;
    let handle = client.handle();
    let bytes = pattern(1, 50_000);
    client.write_all(&bytes).await.expect("room");
    let before = tasks();
    drop(client);
    // Nobody asks the transport for anything any more.
    expect(&mut server, &bytes).await;
    assert_eq!(closed(&handle).await, CloseReason::Local);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(tasks(), before - 1, "the keeper goes on");
    assert!(net.wire(0).dropped(Client).is_some());
    assert_eq!(net.links(), 1);
    // The other end sees a lost link.
    assert!(matches!(
        server.handle().state(),
        LinkState::Reconnecting { .. }
    ));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_client_redials_until_all_is_handed_over() {
    let mut net = Net::new(&plain(), 100);
    let (mut client, mut server) = net.open(&plain()).await;
    let handle = client.handle();
    let bytes = pattern(1, 50_000);
    net.lose(&client, &server).await;
    send(&mut client, &bytes).await;
    drop(client);
    tokio::time::sleep(Duration::from_secs(20)).await;
    // Three more links are lost on the way.
    net.plan([
        Dial::CutAt(Client, 20),
        Dial::CutAt(Client, 57 + 1000),
        Dial::CutAt(Client, 57 + 3000),
    ]);
    net.set(Dial::Serve);
    expect(&mut server, &bytes).await;
    assert_eq!(closed(&handle).await, CloseReason::Local);
    let dials = net.dials().len();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(net.dials().len(), dials, "it dials though all is done");
}

#[tokio::test(start_paused = true)]
async fn a_link_lost_after_the_hand_over_is_mended_for_a_dropped_client_too() {
    let mut net = Net::new(&plain(), ROOMY);
    let (mut client, mut server) = net.open(&plain()).await;
    let handle = client.handle();
    net.newest().cut_end(Server, Fault::Deaf);
    client.write_all(b"on its way").await.expect("room");
    drop(client);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stream(&net.newest(), Client), b"on its way");
    net.newest().cut(Fault::Reset);
    expect(&mut server, b"on its way").await;
    assert_eq!(closed(&handle).await, CloseReason::Local);
    assert_eq!(net.links(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_client_gives_up_after_linger() {
    let mut net = Net::new(&plain(), ROOMY);
    let (mut client, server) = net.open(&plain()).await;
    let handle = client.handle();
    net.lose(&client, &server).await;
    send(&mut client, b"in vain").await;
    let dropped = Instant::now();
    drop(client);
    // Not `Local`: what it had written has not gone.
    assert_eq!(closed(&handle).await, CloseReason::Expired);
    let lasted = dropped.elapsed();
    assert!((LINGER..LINGER + STEP).contains(&lasted), "{lasted:?}");
    let dials = net.dials().len();
    assert!(dials > 5);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(net.dials().len(), dials);
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_client_waits_no_longer_than_the_handshake_timeout_for_its_links_end() {
    let config = plain().handshake_timeout(Duration::from_secs(4));
    let mut net = Net::new(&config, ROOMY);
    let (client, _server) = net.open(&config).await;
    let handle = client.handle();
    // The peer's end hangs: neither end of the link ever shows.
    net.newest().cut_end(Server, Fault::Stall);
    let dropped = Instant::now();
    drop(client);
    assert_eq!(closed(&handle).await, CloseReason::Local);
    assert!((4..5).contains(&dropped.elapsed().as_secs()));
    assert!(net.newest().dropped(Client).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_server_gives_the_client_its_replay_and_then_zeros() {
    let mut net = Net::new(&plain(), 300);
    let (mut client, mut server) = net.open(&plain()).await;
    let bytes = pattern(1, 10_000);
    net.lose(&client, &server).await;
    send(&mut server, &bytes).await;
    let server_handle = server.handle();
    drop(server);
    tokio::time::sleep(LINGER / 2).await;
    assert!(matches!(
        server_handle.state(),
        LinkState::Reconnecting { .. }
    ));
    // Lost once more in the midst of it.
    net.plan([Dial::CutAt(Server, 24 + 4000)]);
    net.set(Dial::Serve);
    expect(&mut client, &bytes).await;
    assert_eq!(
        reason(&read_error(&mut client).await),
        CloseReason::Refused(Refusal::Unexplained)
    );
    assert!(server_handle.stats().replayed <= 10_000);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_server_keeps_the_session_for_linger() {
    for (after, kept) in [(59, true), (61, false)] {
        let mut net = Net::new(&plain(), ROOMY);
        let (mut link, _) = net.raw_link();
        let opened = raw_peer::open(&mut link).await.expect("a session");
        let mut server = net.opened().await;
        send(&mut server, b"unheard").await;
        let handle = server.handle();
        let dropped = Instant::now();
        drop((server, link));
        tokio::time::sleep(Duration::from_secs(after)).await;
        let (mut link, _) = net.raw_link();
        let (mut machine, reply) = raw_peer::request(&mut link, &opened, 0, 0)
            .await
            .expect("an answer");
        assert_eq!(
            matches!(reply, ResumeReply::Granted { .. }),
            kept,
            "{reply:?} after {after} s"
        );
        if kept {
            machine.confirm();
            raw_peer::drive(&mut link, &mut machine)
                .await
                .expect("room");
            expect(&mut link, b"unheard").await;
            assert_eq!(within("the end", link.read(&mut [0])).await.ok(), Some(0));
            // It has had everything now.
            let (mut link, _) = net.raw_link();
            let (_, reply) = raw_peer::request(&mut link, &opened, 0, 7)
                .await
                .expect("an answer");
            assert_eq!(reply, ResumeReply::Refused);
        }
        assert_eq!(closed(&handle).await, CloseReason::Local);
        // It does not outlive its linger by the links it is given.
        assert!(dropped.elapsed() < LINGER + Duration::from_secs(2));
    }
}

#[tokio::test(start_paused = true)]
async fn what_arrives_after_the_drop_is_counted_and_discarded() {
    let mut net = Net::new(&plain(), 100);
    let (mut client, server) = net.open(&plain()).await;
    let handle = server.handle();
    drop(server);
    // More than the history, to an end that nobody reads: it does not block, and dies of the refusal, not of a full link.
    let error = within("the end", async {
        loop {
            if let Err(error) = client.write_all(&[7; 1000]).await {
                return error;
            }
            // Time goes on only where all tasks wait.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(reason(&error), CloseReason::Refused(Refusal::Unexplained));
    assert!(handle.stats().received <= client.handle().stats().sent);
}

fn fin_is_close() -> Config {
    Config::new().snet(Snet::plain().silence(None).fin_is_close(true))
}

#[tokio::test(start_paused = true)]
async fn where_a_fin_is_the_close_it_is_the_end_of_the_stream_after_the_data() {
    for client_closes in [true, false] {
        let mut net = Net::new(&fin_is_close(), ROOMY);
        let (client, server) = net.open(&fin_is_close()).await;
        let (mut closing, mut other) = if client_closes {
            (client, server)
        } else {
            (server, client)
        };
        let bytes = pattern(1, 3000);
        send(&mut closing, &bytes).await;
        drop(closing);
        let handle = other.handle();
        assert_eq!(closed(&handle).await, CloseReason::Peer);
        expect(&mut other, &bytes).await;
        for _ in 0..2 {
            let end = within("the end", other.read(&mut [0])).await;
            assert_eq!(end.expect("no error"), 0);
        }
        let error = other.write(b"more").await.expect_err("the peer is gone");
        assert_eq!(reason(&error), CloseReason::Peer);
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(net.dials().len(), 1, "it dials a peer that has closed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_no_close_even_where_a_fin_is() {
    let mut net = Net::new(&fin_is_close(), ROOMY);
    let (mut client, mut server) = net.open(&fin_is_close()).await;
    net.cut_and_resume(&client, &server).await;
    exchange(&mut client, &mut server).await;
}

#[tokio::test(start_paused = true)]
async fn where_a_fin_is_no_close_a_client_resumes() {
    let mut net = Net::new(&plain(), ROOMY);
    let (mut client, mut server) = net.open(&plain()).await;
    net.newest().cut(Fault::End);
    until("a resume", || {
        (client.handle().stats().resumes == 1).then_some(())
    })
    .await;
    exchange(&mut client, &mut server).await;
}
