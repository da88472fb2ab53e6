//! The sessions of a server, for those who run it: listed, closed one by one, shut down all together.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use futures_util::StreamExt;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tower::ServiceExt;
use unbroken::{
    CloseReason, Connector, Error, LinkState, Listener, RejectCode, ResumableTransport,
    ResumeError, Sessions, connect, protocol::native::Frame, reset,
};

use super::{
    memory_link::{Client, Fault, Server},
    memory_net::{
        Dial, Net, ROOMY, closed, exchange, expect, native, pattern, read_error, reason, resumed,
        send, within,
    },
    raw_native::{self, Frames},
};

fn sessions(net: &Net) -> Sessions {
    net.acceptor()
        .sessions()
        .expect("the configuration is good")
}

/// Shuts down in a task, which gives how many sessions were late.
fn shutting_down(sessions: &Sessions, deadline: Duration) -> JoinHandle<usize> {
    let sessions = sessions.clone();
    tokio::spawn(async move { sessions.shutdown(deadline).await })
}

/// Dials a server that is shutting down.
async fn refused(net: &mut Net) {
    let connector = Connector::new(net.dialer(), native());
    let error = connector.oneshot(()).await.expect_err("no new sessions");
    assert!(
        matches!(
            error,
            Error::Rejected { reason: RejectCode::ShuttingDown, retry_after } if !retry_after.is_zero()
        ),
        "{error:?}"
    );
    loop {
        match net.outcome().await {
            Err(error) => return assert!(matches!(error, Error::ShutDown), "{error:?}"),
            Ok(accepted) => drop(accepted),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_tells_of_each() {
    let mut net = Net::new(&native(), ROOMY);
    let all = sessions(&net);
    assert_eq!((all.count(), all.list().len()), (0, 0));
    let mut open = Vec::new();
    for age in 0..5 {
        let (mut client, mut server) = net.open(&native()).await;
        send(&mut client, &pattern(age, 100 * age as usize)).await;
        expect(&mut server, &pattern(age, 100 * age as usize)).await;
        send(&mut server, &pattern(age, 10)).await;
        open.push((client, server));
        tokio::time::sleep(Duration::from_secs(100)).await;
    }
    // One of them has lost its link, one has been resumed.
    net.wire(1).cut(Fault::Reset);
    resumed(&open[1].0.handle(), 1).await;
    net.set(Dial::Refuse);
    net.wire(2).cut(Fault::Reset);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let list = all.list();
    assert_eq!((all.count(), list.len()), (5, 5));
    for (number, (client, server)) in open.iter().enumerate() {
        let id = client.handle().id();
        assert_eq!(server.handle().id(), id);
        let info = list
            .iter()
            .find(|info| info.id == id)
            .expect("it is listed");
        assert_eq!(info.peer_addr, None);
        let age = 501 - 100 * number as u64;
        assert!(
            info.age.as_secs().abs_diff(age) <= 1,
            "{:?} of {age}",
            info.age
        );
        assert_eq!(info.state, server.handle().state());
        let reconnecting = matches!(info.state, LinkState::Reconnecting { attempt: 0, .. });
        assert_eq!(reconnecting, number == 2, "{:?}", info.state);
        assert_eq!(info.stats, server.handle().stats());
        assert_eq!(
            (info.stats.received, info.stats.sent),
            (100 * number as u64, 10)
        );
        assert_eq!(info.stats.resumes, u64::from(number == 1));
    }
    // What is over is gone.
    let (client, server) = open.remove(0);
    let handle = server.handle();
    drop((client, server));
    closed(&handle).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((all.count(), all.list().len()), (4, 4));
    assert!(all.list().iter().all(|info| info.id != handle.id()));
}

#[tokio::test(start_paused = true)]
async fn any_can_be_closed_by_its_id() {
    const CODE: u32 = 77;
    let mut net = Net::new(&native(), ROOMY);
    let all = sessions(&net);
    let (mut client, mut server) = net.open(&native()).await;
    let (mut other_client, mut other_server) = net.open(&native()).await;
    let (mut away, away_server) = net.open(&native()).await;
    net.lose(&away, &away_server).await;
    send(&mut server, b"received").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for end in [&client, &away] {
        assert!(all.close(end.handle().id(), CODE));
    }
    assert_eq!(closed(&client.handle()).await, CloseReason::Reset(CODE));
    expect(&mut client, b"received").await;
    assert_eq!(
        reason(&read_error(&mut client).await),
        CloseReason::Reset(CODE)
    );
    let error = read_error(&mut server).await;
    assert_eq!(reason(&error), CloseReason::LocalReset(CODE));
    // The one that was away learns when it comes back, though its session is gone.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(all.count(), 1);
    for id in [client.handle().id(), away.handle().id()] {
        assert!(!all.close(id, CODE), "there is none of it");
    }
    net.set(Dial::Serve);
    assert_eq!(
        reason(&read_error(&mut away).await),
        CloseReason::Reset(CODE)
    );
    exchange(&mut other_client, &mut other_server).await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_sessions_end_by_themselves() {
    let mut net = Net::new(&native(), ROOMY);
    let all = sessions(&net);
    // Named, and not yet opened.
    let (mut named, _) = net.raw_link();
    let open = raw_native::begin_open(&mut named).await.expect("OPENED");
    let mut open_sessions = Vec::new();
    for _ in 0..3 {
        open_sessions.push(net.open(&native()).await);
    }
    let began = Instant::now();
    let shutdown = shutting_down(&all, Duration::from_secs(1000));
    let another = shutting_down(&all, Duration::from_secs(2000));
    tokio::time::sleep(Duration::from_secs(1)).await;
    refused(&mut net).await;
    // What was named before is over, which its client hears, though it may take it for open.
    named
        .write_all(&open.confirm().expect("a session"))
        .await
        .expect("room");
    let mut named = Frames::new(named);
    let attach = within("an answer", named.next()).await;
    assert!(matches!(attach, Some(Frame::Attach { .. })), "{attach:?}");
    let told = within("the end", named.next()).await;
    assert!(
        matches!(
            told,
            Some(Frame::Reset {
                code: reset::SHUTTING_DOWN
            })
        ),
        "{told:?}"
    );
    drop(named);
    let failure = net.failure().await;
    assert!(
        matches!(failure, Error::Resume(ResumeError::Ended)),
        "{failure:?}"
    );
    // The others go on, and resume.
    for _ in 0..3 {
        for number in 1..4 {
            net.wire(number).cut(Fault::Reset);
        }
        for (client, server) in &mut open_sessions {
            exchange(client, server).await;
            within("moving", client.handle().migrate())
                .await
                .expect("it moves");
        }
        tokio::time::sleep(Duration::from_secs(100)).await;
    }
    // One after the other they end, each in its own way.
    assert!(!shutdown.is_finished());
    let (mut client, server) = open_sessions.pop().expect("three");
    let (handle, client_handle) = (server.handle(), client.handle());
    drop(server);
    client.shutdown().await.expect("it is open");
    assert_eq!(closed(&handle).await, CloseReason::Finished);
    assert_eq!(closed(&client_handle).await, CloseReason::Finished);
    let (client, server) = open_sessions.pop().expect("two");
    client.handle().close(1);
    assert_eq!(closed(&server.handle()).await, CloseReason::Reset(1));
    assert!(!shutdown.is_finished());
    assert_eq!(all.count(), 1);
    let (client, server) = open_sessions.pop().expect("one");
    drop((client, server));
    for shutdown in [shutdown, another] {
        assert_eq!(within("the shutdown", shutdown).await.expect("no panic"), 0);
    }
    assert!(
        began.elapsed() < Duration::from_secs(400),
        "{:?}",
        began.elapsed()
    );
    refused(&mut net).await;
    // There is nothing to wait for any more.
    assert_eq!(all.shutdown(Duration::ZERO).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_resets_those_that_are_late() {
    const DEADLINE: Duration = Duration::from_secs(50);
    let why = CloseReason::Reset(reset::SHUTTING_DOWN);
    let mut net = Net::new(&native(), ROOMY);
    let all = sessions(&net);
    let (mut client, mut server) = net.open(&native()).await;
    let (mut away, away_server) = net.open(&native()).await;
    let (ends, ends_server) = net.open(&native()).await;
    send(&mut server, b"received").await;
    net.set(Dial::Refuse);
    net.wire(1).cut(Fault::Reset);
    let began = Instant::now();
    let shutdown = shutting_down(&all, DEADLINE);
    tokio::time::sleep(DEADLINE / 2).await;
    drop((ends, ends_server));
    tokio::time::sleep(DEADLINE / 2 - Duration::from_secs(1)).await;
    assert_eq!(client.handle().state(), LinkState::Connected);
    assert!(!shutdown.is_finished());
    assert_eq!(within("the shutdown", shutdown).await.expect("no panic"), 2);
    let took = began.elapsed();
    assert!(
        (DEADLINE..DEADLINE + Duration::from_millis(50)).contains(&took),
        "{took:?}"
    );
    assert_eq!(closed(&client.handle()).await, why);
    expect(&mut client, b"received").await;
    assert_eq!(reason(&read_error(&mut client).await), why);
    for mut end in [server, away_server] {
        let ours = CloseReason::LocalReset(reset::SHUTTING_DOWN);
        assert_eq!(reason(&read_error(&mut end).await), ours);
    }
    assert_eq!(all.count(), 0);
    // Who was away is told when it comes back, as long as there is somebody to tell.
    net.set(Dial::Serve);
    assert_eq!(reason(&read_error(&mut away).await), why);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_no_peer_that_does_not_listen() {
    let patience = Duration::from_secs(4);
    let config = native().handshake_timeout(patience);
    let mut net = Net::new(&config, ROOMY);
    let all = sessions(&net);
    let (_client, _server) = net.open(&config).await;
    let (_another, _another_server) = net.open(&config).await;
    // One takes nothing more, the other does not close its end.
    net.wire(0).cut_end(Server, Fault::Stall);
    net.wire(1).cut_end(Client, Fault::Stall);
    let began = Instant::now();
    let deadline = Duration::from_secs(10);
    assert_eq!(all.shutdown(deadline).await, 2);
    let took = began.elapsed();
    let most = deadline + patience + Duration::from_millis(50);
    assert!((deadline..most).contains(&took), "{took:?}");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(all.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_shutdown_goes_on_refusing_and_resets_nobody() {
    let mut net = Net::new(&native(), ROOMY);
    let all = sessions(&net);
    let (mut client, mut server) = net.open(&native()).await;
    let early = timeout(Duration::from_secs(1), all.shutdown(Duration::from_secs(2))).await;
    assert!(early.is_err());
    tokio::time::sleep(Duration::from_secs(100)).await;
    refused(&mut net).await;
    exchange(&mut client, &mut server).await;
    net.wire(0).cut(Fault::Reset);
    exchange(&mut client, &mut server).await;
}

// Over real sockets: what becomes of the listener.

async fn bind() -> Listener {
    Listener::bind((Ipv4Addr::LOCALHOST, 0), native())
        .await
        .expect("a free port")
}

fn is_shut_down(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(Error::ShutDown))
}

/// A client's and the server's end of a session.
async fn session(listener: &mut Listener) -> (ResumableTransport, ResumableTransport) {
    let addr = listener.local_addr().expect("its address");
    let (client, accepted) = tokio::join!(connect(addr, native()), listener.accept());
    (client.expect("a session"), accepted.expect("a session").0)
}

#[tokio::test]
async fn a_listeners_sessions_are_listed_with_where_they_come_from() {
    let mut listener = bind().await;
    let all = listener.sessions();
    let (client, server) = session(&mut listener).await;
    let first = server.handle().peer_addr().expect("an address");
    assert_eq!(all.list()[0].peer_addr, Some(first));
    assert_eq!(client.handle().peer_addr(), None);
    within("moving", client.handle().migrate())
        .await
        .expect("it moves");
    resumed(&server.handle(), 1).await;
    let second = all.list()[0].peer_addr.expect("an address");
    assert_ne!(second, first);
    assert_eq!(server.handle().peer_addr(), Some(second));
    assert_eq!(all.list()[0].id, client.handle().id());
}

#[tokio::test]
async fn accept_and_the_stream_end_when_all_are_shut_down() {
    for deadline in [Duration::from_secs(60), Duration::ZERO] {
        let mut listener = bind().await;
        let addr = listener.local_addr().expect("its address");
        let all = listener.sessions();
        let (mut client, server) = session(&mut listener).await;
        let shutdown = shutting_down(&all, deadline);
        let late = deadline.is_zero();
        if late {
            let why = CloseReason::Reset(reset::SHUTTING_DOWN);
            assert_eq!(reason(&read_error(&mut client).await), why);
        } else {
            // Not before the last one is gone.
            let waited = timeout(Duration::from_millis(50), listener.accept()).await;
            assert!(waited.is_err(), "{waited:?}");
            assert_takes_no_new(addr).await;
            within("moving", client.handle().migrate())
                .await
                .expect("it moves");
        }
        drop((client, server));
        let count = within("the shutdown", shutdown).await.expect("no panic");
        assert_eq!(count, usize::from(late));
        for _ in 0..2 {
            let error = within("the end", listener.accept()).await;
            let error = error.expect_err("there are no more");
            assert!(is_shut_down(&error), "{error:?}");
        }
        assert!(within("the end", listener.next()).await.is_none());
        // The port is closed, though the listener is there.
        let link = TcpStream::connect(addr).await;
        assert!(link.is_err(), "{link:?}");
    }
}

#[tokio::test]
async fn a_listener_that_is_shut_down_closes_what_nobody_has_accepted() {
    let mut listener = bind().await;
    let addr = listener.local_addr().expect("its address");
    let all = listener.sessions();
    let (mut client, mut server) = session(&mut listener).await;
    let mut unaccepted = connect(addr, native()).await.expect("a session");
    while all.count() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let shutdown = tokio::spawn(listener.shutdown(Duration::from_secs(60)));
    let why = CloseReason::Reset(reset::SHUTTING_DOWN);
    assert_eq!(reason(&read_error(&mut unaccepted).await), why);
    exchange(&mut client, &mut server).await;
    within("moving", client.handle().migrate())
        .await
        .expect("it moves");
    exchange(&mut client, &mut server).await;
    assert!(!shutdown.is_finished());
    drop((client, server));
    assert_eq!(within("the shutdown", shutdown).await.expect("no panic"), 0);
    assert!(TcpStream::connect(addr).await.is_err(), "the port is open");
}

#[tokio::test]
async fn a_dropped_listener_lets_its_sessions_resume_until_the_last_is_over() {
    let mut listener = bind().await;
    let addr = listener.local_addr().expect("its address");
    let all = listener.sessions();
    let (mut client, mut server) = session(&mut listener).await;
    drop(listener);
    assert_takes_no_new(addr).await;
    within("moving", client.handle().migrate())
        .await
        .expect("it moves");
    exchange(&mut client, &mut server).await;
    assert_eq!(all.count(), 1);
    drop((client, server));
    closes(addr).await;
}

#[tokio::test]
async fn a_dropped_listener_without_sessions_closes_its_port() {
    let listener = bind().await;
    let addr = listener.local_addr().expect("its address");
    drop(listener);
    closes(addr).await;
}

/// A client may take its session for open before the server has heard so: it hears of the end all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opens_that_race_with_a_drop_fail_or_hear_why_they_are_over() {
    let mut opened = 0;
    for round in 0..8 {
        let listener = bind().await;
        let addr = listener.local_addr().expect("its address");
        let opens: Vec<_> = (0..50)
            .map(|_| tokio::spawn(async move { connect(addr, native()).await }))
            .collect();
        tokio::time::sleep(Duration::from_micros(600) * round).await;
        drop(listener);
        for open in opens {
            // The others have no session.
            if let Ok(mut client) = within("the open", open).await.expect("no panic") {
                let why = reason(&read_error(&mut client).await);
                assert_eq!(why, CloseReason::Reset(reset::SHUTTING_DOWN));
                opened += 1;
            }
        }
        closes(addr).await;
    }
    assert!(opened > 0, "no open was fast enough");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_is_free_again_when_a_listener_is_shut_down() {
    for _ in 0..50 {
        let mut listener = bind().await;
        let addr = listener.local_addr().expect("its address");
        drop(session(&mut listener).await);
        within("the shutdown", listener.shutdown(Duration::from_secs(60))).await;
        let again = Listener::bind(addr, native()).await;
        again.expect("the port is free");
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_shutdown_counts_from_the_call() {
    let mut net = Net::new(&native(), ROOMY);
    let _open = net.open(&native()).await;
    let shutdown = sessions(&net).shutdown(Duration::from_secs(50));
    tokio::time::sleep(Duration::from_secs(49)).await;
    let began = Instant::now();
    assert_eq!(shutdown.await, 1);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

/// Whoever asks for a new session hears that the server is shutting down.
async fn assert_takes_no_new(addr: SocketAddr) {
    let error = connect(addr, native()).await.expect_err("no new ones");
    assert!(
        matches!(
            error,
            Error::Rejected {
                reason: RejectCode::ShuttingDown,
                ..
            }
        ),
        "{error:?}"
    );
}

/// Waits until nobody listens there.
async fn closes(addr: SocketAddr) {
    within("the port's end", async {
        while let Ok(link) = TcpStream::connect(addr).await {
            drop(link);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
