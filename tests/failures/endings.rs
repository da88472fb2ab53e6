//! How sessions end: each way with an error of its own, never as the end of the stream.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use unbroken::{CloseReason, Error, LinkState, Refusal, protocol::snet::ResumeReply};

use super::{
    memory_link::{Client, Fault, Server},
    memory_net::{
        Dial, Net, Protocol, ROOMY, closed, expect, over_both, pattern, plain, plain_history,
        read_error, reason, send, state, until, within,
    },
    raw_peer,
};

over_both!(
    snet_go_09_an_expired_session_is_an_error_at_both_ends,
    snet_go_09_a_refused_session_is_an_error,
    snet_go_11_a_client_learns_of_the_servers_close_at_once,
    an_orderly_end_of_a_link_is_no_end_of_the_session,
);

async fn snet_go_09_an_expired_session_is_an_error_at_both_ends(protocol: Protocol) {
    let window = Duration::from_secs(40);
    let config = protocol.config().resume_window(window);
    let mut net = Net::new(&config, ROOMY);
    let (mut client, mut server) = net.open(&config).await;
    send(&mut server, b"last words").await;
    send(&mut client, b"last words").await;
    until("the last words to have arrived", || {
        (client.handle().stats().received == 10 && server.handle().stats().received == 10)
            .then_some(())
    })
    .await;
    net.set(Dial::Refuse);
    net.newest().cut(Fault::Reset);
    let lost_at = Instant::now();
    for end in [&mut client, &mut server] {
        assert_eq!(closed(&end.handle()).await, CloseReason::Expired);
        assert_eq!(lost_at.elapsed().as_secs(), window.as_secs());
        // What had arrived is still there.
        expect(end, b"last words").await;
        for _ in 0..3 {
            let error = read_error(end).await;
            assert_eq!(reason(&error), CloseReason::Expired);
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        }
        let error = end.write(b"more").await.expect_err("the session is over");
        assert_eq!(reason(&error), CloseReason::Expired);
        let error = end.flush().await.expect_err("the session is over");
        assert_eq!(reason(&error), CloseReason::Expired);
        let error = end.shutdown().await.expect_err("the session is over");
        assert_eq!(reason(&error), CloseReason::Expired);
    }
}

async fn snet_go_09_a_refused_session_is_an_error(protocol: Protocol) {
    let mut net = Net::new(&protocol.config(), ROOMY);
    let (mut client, mut server) = net.open(&protocol.config()).await;
    send(&mut server, b"last words").await;
    until("the last words to have arrived", || {
        (client.handle().stats().received == 10).then_some(())
    })
    .await;
    net.restart_server(&protocol.config());
    net.newest().cut(Fault::Reset);
    assert_eq!(closed(&client.handle()).await, protocol.unknown());
    expect(&mut client, b"last words").await;
    let error = read_error(&mut client).await;
    assert_eq!(reason(&error), protocol.unknown());
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn snet_go_09_a_session_whose_runtime_is_gone_is_an_error() {
    let (mut client, server) = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut net = Net::new(&plain(), ROOMY);
            net.open(&plain()).await
        })
    })
    .join()
    .expect("no panic");
    let error = read_error(&mut client).await;
    assert_eq!(reason(&error), CloseReason::Abandoned);
    assert_eq!(
        server.handle().state(),
        LinkState::Closed(CloseReason::Abandoned)
    );
}

/// Fills links far beyond what the history can make up for, in one direction, and cuts them.
async fn overflow(net: &mut Net, from_client: bool) -> [unbroken::ResumableTransport; 2] {
    let config = plain_history(1000);
    let (mut client, mut server) = net.open(&config).await;
    let (from, to) = if from_client {
        (&mut client, Server)
    } else {
        (&mut server, Client)
    };
    // A link that swallows more than the ends' socket buffers may hold, as one through a proxy can.
    net.newest().cut_end(to, Fault::Deaf);
    send(from, &pattern(0, 20_000)).await;
    net.newest().cut(Fault::Reset);
    [client, server]
}

#[tokio::test(start_paused = true)]
async fn eternal_terminal_16_a_gap_towards_the_server_is_terminal_with_an_error_of_its_own() {
    let mut net = Net::new(&plain_history(1000), ROOMY);
    let [mut client, mut server] = overflow(&mut net, true).await;
    let began = Instant::now();
    let error = read_error(&mut client).await;
    assert_eq!(reason(&error), CloseReason::Gap);
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert!(began.elapsed() < Duration::from_millis(50), "not at once");
    let dials = net.dials().len();
    // The server has no way to be told. It learns from the request's counts, and says so when nothing better has come.
    assert_eq!(closed(&server.handle()).await, CloseReason::Gap);
    assert_eq!(reason(&read_error(&mut server).await), CloseReason::Gap);
    assert_eq!(net.dials().len(), dials, "it is tried again");
}

#[tokio::test(start_paused = true)]
async fn eternal_terminal_16_a_gap_towards_the_client_is_terminal_with_an_error_of_its_own() {
    let mut net = Net::new(&plain_history(1000), ROOMY);
    let [mut client, mut server] = overflow(&mut net, false).await;
    let began = Instant::now();
    // All it gets is zeros.
    let error = read_error(&mut client).await;
    assert_eq!(reason(&error), CloseReason::Refused(Refusal::Unexplained));
    assert!(began.elapsed() < Duration::from_millis(50), "not at once");
    let dials = net.dials().len();
    assert_eq!(closed(&server.handle()).await, CloseReason::Gap);
    assert_eq!(reason(&read_error(&mut server).await), CloseReason::Gap);
    assert_eq!(net.dials().len(), dials, "it is tried again");
}

async fn snet_go_11_a_client_learns_of_the_servers_close_at_once(protocol: Protocol) {
    let mut net = Net::new(&protocol.config(), ROOMY);
    let (mut client, mut server) = net.open(&protocol.config()).await;
    send(&mut server, b"good bye").await;
    let dropped_at = Instant::now();
    drop(server);
    expect(&mut client, b"good bye").await;
    match protocol {
        Protocol::Snet => {
            let error = read_error(&mut client).await;
            assert_eq!(reason(&error), protocol.unknown());
            assert_eq!(net.dials().len(), 2);
        }
        Protocol::Native => {
            let end = within("the end", client.read(&mut [0])).await;
            assert_eq!(end.expect("a clean end"), 0);
            assert_eq!(net.dials().len(), 1);
        }
    }
    assert!(
        dropped_at.elapsed() < Duration::from_millis(50),
        "{:?} to learn of the end",
        dropped_at.elapsed()
    );
    // A writer that waits for room learns too.
    let mut net = Net::new(&protocol.keeping(500), 100);
    let (mut client, server) = net.open(&protocol.keeping(500)).await;
    let writer = tokio::spawn(async move { client.write_all(&[0; 5000]).await });
    net.newest().cut_end(Server, Fault::Stall);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!writer.is_finished());
    net.restart_server(&protocol.config());
    net.newest().cut(Fault::Reset);
    let result = within("the writer", writer).await.expect("no panic");
    let error = result.expect_err("the session is over");
    assert_eq!(reason(&error), protocol.unknown());
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn snet_go_11_a_raw_client_is_refused_once_it_has_had_everything() {
    let mut net = Net::new(&plain(), ROOMY);
    let (mut link, _) = net.raw_link();
    let opened = raw_peer::open(&mut link).await.expect("a session");
    let mut server = net.opened().await;
    send(&mut server, b"good bye").await;
    expect(&mut link, b"good bye").await;
    drop(server);
    assert_eq!(within("the end", link.read(&mut [0])).await.ok(), Some(0));
    drop(link);
    let (mut link, _) = net.raw_link();
    let (_, reply) = raw_peer::request(&mut link, &opened, 0, 8)
        .await
        .expect("an answer");
    assert_eq!(reply, ResumeReply::Refused);
    drop(link);
    assert!(matches!(
        net.failure().await,
        Error::Resume(unbroken::ResumeError::Ended)
    ));
}

async fn an_orderly_end_of_a_link_is_no_end_of_the_session(protocol: Protocol) {
    let mut net = Net::new(&protocol.config(), ROOMY);
    let (mut client, mut server) = net.open(&protocol.config()).await;
    let since = Instant::now();
    net.set(Dial::Refuse);
    net.newest().cut(Fault::End);
    let lost = state(&server.handle(), |state| {
        matches!(state, LinkState::Reconnecting { .. })
    })
    .await;
    let LinkState::Reconnecting { attempt: 0, .. } = lost else {
        panic!("{lost:?} at an end that cannot dial");
    };
    tokio::time::sleep(Duration::from_secs(2)).await;
    net.set(Dial::Serve);
    tokio::join!(send(&mut client, b"up"), send(&mut server, b"down"));
    tokio::join!(expect(&mut client, b"down"), expect(&mut server, b"up"));
    assert!(since.elapsed() >= Duration::from_secs(2));
}
