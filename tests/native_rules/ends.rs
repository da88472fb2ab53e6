//! A session that does not end in order: four ways, four errors, never the end of the stream, and what had been received is there.

use std::{
    io::{self, ErrorKind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, split},
    sync::mpsc,
    time::Instant,
};
use tower::ServiceExt;
use unbroken::{
    Accepted, Acceptor, CloseReason, Connector, Error, LinkState, MemoryBudget, Refusal,
    RejectCode, ResumableTransport, ResumeError,
    protocol::native::{Answer, Frame, Opened},
    reset,
};

use super::{
    memory_link::{Client, Fault, MemoryLink, Server, link},
    memory_net::{
        Dial, Net, ROOMY, closed, connected, exchange, expect, native, native_window, pattern,
        read_error, reason, send, state, until, within,
    },
    raw_native::{self, Frames},
    shutdown::sides,
};

/// How many bytes each end has received, and not read, when the session ends.
const UNREAD: usize = 700;

/// Both ends have unread bytes in their transports.
async fn leave_unread(client: &mut ResumableTransport, server: &mut ResumableTransport) {
    send(client, &pattern(1, UNREAD)).await;
    send(server, &pattern(2, UNREAD)).await;
    for end in [client, server] {
        until("the bytes", || {
            (end.handle().stats().received == UNREAD as u64).then_some(())
        })
        .await;
    }
    // And each knows what the other has.
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// What the application meets at an end of a session that is over: what was received, then always the same error.
async fn meets(end: &mut ResumableTransport, unread: &[u8], why: CloseReason, kind: ErrorKind) {
    assert_eq!(closed(&end.handle()).await, why);
    expect(end, unread).await;
    for _ in 0..2 {
        let read = read_error(end).await;
        let write = end.write(b"more").await.expect_err("it is over");
        let flush = end.flush().await.expect_err("it is over");
        let shutdown = end.shutdown().await.expect_err("it is over");
        for error in [read, write, flush, shutdown] {
            assert_eq!((reason(&error), error.kind()), (why, kind));
        }
    }
    let migrated = end.handle().migrate().await;
    assert!(
        matches!(migrated, Err(Error::CannotDial))
            || matches!(migrated, Err(Error::Closed(reason)) if reason == why),
        "{migrated:?}"
    );
    assert_eq!(end.handle().state(), LinkState::Closed(why));
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_an_error_at_both_ends() {
    const CODE: u32 = 4711;
    for side in [Client, Server] {
        for connected in [true, false] {
            let mut net = Net::new(&native(), ROOMY);
            let (mut client, mut server) = net.open(&native()).await;
            leave_unread(&mut client, &mut server).await;
            if !connected {
                net.lose(&client, &server).await;
            }
            let (mut end, mut peer) = sides(side, client, server);
            let (unread, peers_unread) = sides(side, pattern(2, UNREAD), pattern(1, UNREAD));
            end.handle().close(CODE);
            // The first counts.
            end.handle().close(CODE + 1);
            let ours = CloseReason::LocalReset(CODE);
            assert_eq!(end.handle().state(), LinkState::Closed(ours));
            meets(&mut end, &unread, ours, ErrorKind::ConnectionAborted).await;
            if !connected {
                tokio::time::sleep(Duration::from_secs(20)).await;
                let waits = matches!(peer.handle().state(), LinkState::Reconnecting { .. });
                assert!(waits, "{:?}", peer.handle().state());
                net.set(Dial::Serve);
            }
            let theirs = CloseReason::Reset(CODE);
            meets(&mut peer, &peers_unread, theirs, ErrorKind::ConnectionReset).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let tasks = tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks();
            assert_eq!(tasks, 0, "keepers go on");
        }
    }
}

/// Whatever the code is: a clean end it is not.
#[tokio::test(start_paused = true)]
async fn a_reset_is_no_clean_end_whatever_its_code() {
    for side in [Client, Server] {
        for code in [0, 1, u32::MAX] {
            let mut net = Net::new(&native(), ROOMY);
            let (client, server) = net.open(&native()).await;
            let (mut own, mut peer) = sides(side, client, server);
            within("the shutdown", own.shutdown()).await.expect("done");
            // Neither the bytes of the peer nor its end have arrived.
            net.newest().cut_end(side, Fault::Deaf);
            send(&mut peer, b"lost").await;
            let handle = peer.handle();
            let shutting = tokio::spawn(async move { (peer.shutdown().await, peer) });
            tokio::time::sleep(Duration::from_secs(1)).await;
            own.handle().close(code);
            let ended = closed(&handle).await;
            assert!(matches!(ended, CloseReason::Reset(_)), "{ended:?}");
            let (shut, mut peer) = within("the shutdown", shutting).await.expect("no panic");
            let error = shut.expect_err("it did not arrive");
            assert_eq!(reason(&error), ended);
            // The other direction did end in order.
            assert_eq!(peer.read(&mut [0]).await.expect("the end"), 0);
            let own = closed(&own.handle()).await;
            assert!(matches!(own, CloseReason::LocalReset(_)), "{own:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn those_that_wait_learn_of_a_reset() {
    for side in [Client, Server] {
        for closes_itself in [true, false] {
            let config = native_window(100);
            let mut net = Net::new(&config, 16);
            let (client, server) = net.open(&config).await;
            let (end, peer) = sides(side, client, server);
            let (closes, why) = if closes_itself {
                (end.handle(), CloseReason::LocalReset(9))
            } else {
                (peer.handle(), CloseReason::Reset(9))
            };
            let (mut reading, mut writing) = split(end);
            let reader = tokio::spawn(async move { reading.read(&mut [0]).await });
            let writer = tokio::spawn(async move { writing.write_all(&[0; 1000]).await });
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(!reader.is_finished() && !writer.is_finished());
            let began = Instant::now();
            closes.close(9);
            let read = within("the reader", reader).await.expect("no panic");
            let written = within("the writer", writer).await.expect("no panic");
            assert_eq!(reason(&read.expect_err("it is over")), why);
            assert_eq!(reason(&written.expect_err("it is over")), why);
            assert!(
                began.elapsed() < Duration::from_millis(50),
                "{:?}",
                began.elapsed()
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_expiry_is_an_error_at_both_ends() {
    let window = Duration::from_secs(40);
    let config = native().resume_window(window);
    let mut net = Net::new(&config, ROOMY);
    let (mut client, mut server) = net.open(&config).await;
    leave_unread(&mut client, &mut server).await;
    net.lose(&client, &server).await;
    let lost = Instant::now();
    for (end, unread) in [
        (&mut client, pattern(2, UNREAD)),
        (&mut server, pattern(1, UNREAD)),
    ] {
        meets(end, &unread, CloseReason::Expired, ErrorKind::TimedOut).await;
        let passed = lost.elapsed();
        assert!(
            (window..window + Duration::from_millis(5)).contains(&passed),
            "{passed:?}"
        );
    }
}

/// The server forgets the session first: the client, which waits for longer, is told what became of it.
#[tokio::test(start_paused = true)]
async fn a_client_that_comes_after_the_servers_resume_window_has_expired() {
    let mut net = Net::new(&native().resume_window(Duration::from_secs(40)), ROOMY);
    let (mut client, mut server) = net.open(&native()).await;
    leave_unread(&mut client, &mut server).await;
    net.lose(&client, &server).await;
    assert_eq!(closed(&server.handle()).await, CloseReason::Expired);
    assert!(matches!(
        client.handle().state(),
        LinkState::Reconnecting { .. }
    ));
    net.set(Dial::Serve);
    let unread = pattern(2, UNREAD);
    meets(
        &mut client,
        &unread,
        CloseReason::Expired,
        ErrorKind::TimedOut,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_error_of_its_own_and_comes_at_once() {
    let mut net = Net::new(&native(), ROOMY);
    let (mut client, mut server) = net.open(&native()).await;
    leave_unread(&mut client, &mut server).await;
    net.restart_server(&native());
    let began = Instant::now();
    net.newest().cut(Fault::Reset);
    let why = CloseReason::Refused(Refusal::Unknown);
    assert_eq!(closed(&client.handle()).await, why);
    assert!(
        began.elapsed() < Duration::from_millis(10),
        "{:?}",
        began.elapsed()
    );
    meets(
        &mut client,
        &pattern(2, UNREAD),
        why,
        ErrorKind::ConnectionRefused,
    )
    .await;
    let dials = net.dials().len();
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert_eq!(net.dials().len(), dials, "it tries again");
    assert_eq!(closed(&server.handle()).await, CloseReason::Expired);
}

/// Each final reason of a server's, given by one that is not ours.
#[tokio::test(start_paused = true)]
async fn each_final_reason_ends_a_client_at_once() {
    for (code, why, kind) in [
        (
            RejectCode::Unknown,
            CloseReason::Refused(Refusal::Unknown),
            ErrorKind::ConnectionRefused,
        ),
        (
            RejectCode::Expired,
            CloseReason::Expired,
            ErrorKind::TimedOut,
        ),
        (RejectCode::Gap, CloseReason::Gap, ErrorKind::InvalidData),
        (
            RejectCode::NotAuthorised,
            CloseReason::Refused(Refusal::NotAuthorised),
            ErrorKind::ConnectionRefused,
        ),
        (
            RejectCode::Closed,
            CloseReason::Refused(Refusal::Closed),
            ErrorKind::ConnectionRefused,
        ),
    ] {
        let (net, mut client, mut server, _) = against_raw_server(1000).await;
        server.send_data(b"received").await.expect("room");
        until("the bytes", || {
            (client.handle().stats().received == 8).then_some(())
        })
        .await;
        net.newest().cut(Fault::Reset);
        let mut link = net.ignored().await;
        raw_native::reject(&mut link, code, Duration::from_secs(77)).await;
        let began = Instant::now();
        meets(&mut client, b"received", why, kind).await;
        assert!(
            began.elapsed() < Duration::from_millis(10),
            "{code}: {:?}",
            began.elapsed()
        );
        tokio::time::sleep(Duration::from_secs(1000)).await;
        assert_eq!(net.dials().len(), 2, "{code}: it tries again");
    }
}

/// A client of ours whose server is the test.
pub(super) async fn against_raw_server(
    window: u64,
) -> (Net, ResumableTransport, Frames<MemoryLink>, Opened) {
    against_raw_server_over(ROOMY, window).await
}

/// The same over links that hold so much.
pub(super) async fn against_raw_server_over(
    capacity: usize,
    window: u64,
) -> (Net, ResumableTransport, Frames<MemoryLink>, Opened) {
    let net = Net::new(&native(), capacity);
    net.set(Dial::Ignore);
    let connector = Connector::new(net.dialer(), native_window(1000));
    let (client, (server, opened)) = tokio::join!(connector.oneshot(()), async {
        raw_native::serve_open(net.ignored().await, window).await
    });
    (net, client.expect("a session"), server, opened)
}

/// The server lacks what it had acknowledged.
#[tokio::test(start_paused = true)]
async fn eternal_terminal_16_a_gap_towards_the_server_is_terminal_with_an_error_of_its_own() {
    let (net, mut client, mut server, opened) = against_raw_server(10_000).await;
    server.send_data(b"received").await.expect("room");
    let bytes = pattern(1, 500);
    send(&mut client, &bytes).await;
    assert_eq!(server.take(500).await, bytes);
    let ack = Frame::Ack {
        received: 500,
        limit: 10_500,
    };
    server.send(ack).await.expect("room");
    until("the ACK", || {
        (client.handle().stats().unacknowledged == 0).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    net.newest().cut(Fault::Reset);
    let link = net.ignored().await;
    let serving = tokio::spawn(async move {
        let mut link = link;
        let mut machine = raw_native::hear(&mut link).await.expect("a RESUME");
        machine.resume(&opened.secret, [7; 16], 499);
        let _ = raw_native::drive(&mut link, &mut machine).await;
    });
    let began = Instant::now();
    meets(
        &mut client,
        b"received",
        CloseReason::Gap,
        ErrorKind::InvalidData,
    )
    .await;
    assert!(
        began.elapsed() < Duration::from_millis(10),
        "{:?}",
        began.elapsed()
    );
    within("the server", serving).await.expect("no panic");
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert_eq!(net.dials().len(), 2, "it tries again");
}

/// The client lacks what it had acknowledged. It is told; the server's end waits for a better one, which cannot come.
#[tokio::test(start_paused = true)]
async fn eternal_terminal_16_a_gap_towards_the_client_is_terminal_with_an_error_of_its_own() {
    let mut net = Net::new(&native_window(1000), ROOMY);
    let (link, _) = net.raw_link();
    let (mut peer, opened) = Frames::open(link).await.expect("a session");
    let mut server = net.opened().await;
    peer.send_data(b"received").await.expect("room");
    let bytes = pattern(1, 500);
    send(&mut server, &bytes).await;
    assert_eq!(within("the bytes", peer.take(500)).await, bytes);
    let ack = Frame::Ack {
        received: 500,
        limit: 10_500,
    };
    peer.send(ack).await.expect("room");
    until("the ACK", || {
        (server.handle().stats().unacknowledged == 0).then_some(())
    })
    .await;
    let (mut link, _) = net.raw_link();
    let (machine, answer) = raw_native::request(&mut link, &opened, 1, 499)
        .await
        .expect("an answer");
    // RESUME's count is out of date by the time of CONFIRM.
    assert_eq!(answer, Answer::Resumed { received: 8 });
    let confirm = machine.confirm(499).expect("it agreed");
    link.write_all(&confirm).await.expect("room");
    let mut refused = Frames::new(link);
    let reject = within("the answer", refused.next()).await;
    assert!(
        matches!(reject, Some(Frame::Reject(reject)) if reject.code == RejectCode::Gap),
        "{reject:?}"
    );
    assert!(within("its end", refused.next()).await.is_none());
    drop(refused);
    assert!(matches!(
        net.failure().await,
        Error::Resume(ResumeError::Gap)
    ));
    // The link that works goes on.
    send(&mut server, b"goes on").await;
    assert_eq!(within("the bytes", peer.take(7)).await, b"goes on");
    assert_eq!(server.handle().state(), LinkState::Connected);
    drop(peer);
    meets(
        &mut server,
        b"received",
        CloseReason::Gap,
        ErrorKind::InvalidData,
    )
    .await;
}

/// A link that panics when it is read, if it is armed.
struct Panics {
    link: MemoryLink,
    armed: Arc<AtomicBool>,
}

impl AsyncRead for Panics {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        assert!(!self.armed.swap(false, Relaxed), "on purpose");
        Pin::new(&mut self.link).poll_read(cx, buf)
    }
}

impl AsyncWrite for Panics {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.link).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_shutdown(cx)
    }
}

/// An end whose keeper dies of a link can go on no more, and says so.
#[tokio::test(start_paused = true)]
async fn a_server_that_was_abandoned_says_so() {
    let memory = MemoryBudget::new(2 << 20);
    let armed = Arc::new(AtomicBool::new(false));
    let config = native().memory_budget(memory.clone());
    let acceptor = Acceptor::new(config.clone());
    let (accepted, mut transports) = mpsc::unbounded_channel();
    let dial = {
        let armed = armed.clone();
        tower::service_fn(move |(): ()| {
            let (near, link, _) = link(ROOMY);
            let link = Panics {
                link,
                armed: armed.clone(),
            };
            let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
            tokio::spawn(async move {
                if let Ok(Accepted::New(transport)) = acceptor.accept(link).await {
                    accepted.send(transport).expect("the test goes on");
                }
            });
            std::future::ready(io::Result::Ok(near))
        })
    };
    let connector = Connector::new(dial, config);
    let mut client = connector.oneshot(()).await.expect("a session");
    let mut server = transports.recv().await.expect("a session");
    leave_unread(&mut client, &mut server).await;
    armed.store(true, Relaxed);
    client.write_all(b"the last straw").await.expect("room");
    let theirs = CloseReason::Reset(reset::ABANDONED);
    let (ours, kind) = (CloseReason::Abandoned, ErrorKind::ConnectionAborted);
    meets(&mut server, &pattern(1, UNREAD), ours, kind).await;
    meets(
        &mut client,
        &pattern(2, UNREAD),
        theirs,
        ErrorKind::ConnectionReset,
    )
    .await;
    drop((client, server));
    assert_eq!(memory.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn snet_go_09_a_session_whose_runtime_is_gone_is_an_error() {
    let (mut client, server) = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut net = Net::new(&native(), ROOMY);
            let (client, mut server) = net.open(&native()).await;
            send(&mut server, b"received").await;
            until("the bytes", || {
                (client.handle().stats().received == 8).then_some(())
            })
            .await;
            (client, server)
        })
    })
    .join()
    .expect("no panic");
    expect(&mut client, b"received").await;
    let error = read_error(&mut client).await;
    assert_eq!(reason(&error), CloseReason::Abandoned);
    assert_eq!(
        server.handle().state(),
        LinkState::Closed(CloseReason::Abandoned)
    );
}

/// The end of a link is not that of the stream, however orderly.
#[tokio::test(start_paused = true)]
async fn an_orderly_end_of_a_link_is_no_end_of_anything() {
    let mut net = Net::new(&native(), ROOMY);
    let (mut client, mut server) = net.open(&native()).await;
    for _ in 0..3 {
        net.newest().cut(Fault::End);
        exchange(&mut client, &mut server).await;
    }
    net.set(Dial::Refuse);
    net.newest().cut(Fault::End);
    state(&server.handle(), |state| {
        matches!(state, LinkState::Reconnecting { attempt: 0, .. })
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    net.set(Dial::Serve);
    connected(&client.handle()).await;
    exchange(&mut client, &mut server).await;
}
