//! What is left of a session that is over, for a client that has not heard of its end.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use unbroken::{
    CloseReason, Error, LinkState, Refusal, RejectCode, ResumableTransport, ResumeError,
    protocol::native::{Answer, Frame, Opened},
    reset,
};

use super::{
    memory_link::{Client, Fault, MemoryLink, Server},
    memory_net::{
        Dial, NATIVE_OPENED, Net, ROOMY, closed, expect, native, read_error, reason, send, until,
        within,
    },
    raw_native::{self, Frames},
    shutdown::expect_end,
};

/// Both ends say all they have to say, and end their streams.
async fn finish(client: &mut ResumableTransport, server: &mut ResumableTransport) {
    tokio::join!(
        async {
            send(client, b"up").await;
            client.shutdown().await.expect("all arrives");
            expect_end(client, b"down").await;
        },
        async {
            send(server, b"down").await;
            server.shutdown().await.expect("all arrives");
            expect_end(server, b"up").await;
        }
    );
}

/// The link breaks anywhere in the server's last words, the RESET included.
#[tokio::test(start_paused = true)]
async fn a_client_whose_last_reset_was_lost_has_finished_all_the_same() {
    let mut resumed = 0;
    for at in NATIVE_OPENED..NATIVE_OPENED + 192 {
        let mut net = Net::new(&native(), ROOMY);
        net.plan([Dial::CutAt(Server, at)]);
        let (mut client, mut server) = net.open(&native()).await;
        within("the end", finish(&mut client, &mut server)).await;
        assert_eq!(
            closed(&client.handle()).await,
            CloseReason::Finished,
            "{at}"
        );
        assert_eq!(
            closed(&server.handle()).await,
            CloseReason::Finished,
            "{at}"
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
        let dials = net.dials().len();
        resumed += u32::from(dials > 1);
        tokio::time::sleep(Duration::from_secs(1000)).await;
        assert_eq!(net.dials().len(), dials, "{at}: it dials on");
        let tasks = tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks();
        assert_eq!(tasks, 0, "{at}: keepers go on");
    }
    assert!(resumed > 50, "{resumed} of them lost anything");
}

/// The RESET itself is lost, and the client is away for so long.
async fn lost_reset(net: &mut Net, away: Duration) -> (ResumableTransport, ResumableTransport) {
    let (mut client, mut server) = net.open(&native()).await;
    // All but the last frame of the server's.
    send(&mut server, b"down").await;
    server.shutdown().await.expect("all arrives");
    expect_end(&mut client, b"down").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let end = net.newest().delivered(Server);
    net.newest().cut_end(Client, Fault::Deaf);
    client.write_all(b"up").await.expect("room");
    let shutting = tokio::spawn(async move { (client.shutdown().await, client) });
    expect_end(&mut server, b"up").await;
    assert_eq!(closed(&server.handle()).await, CloseReason::Finished);
    net.set(Dial::Refuse);
    net.newest().cut(Fault::Reset);
    assert_eq!(net.newest().delivered(Server), end);
    tokio::time::sleep(away).await;
    assert!(!shutting.is_finished(), "it cannot know yet");
    net.set(Dial::Serve);
    let (shut, client) = within("the shutdown", shutting).await.expect("no panic");
    shut.expect("all has arrived");
    (client, server)
}

#[tokio::test(start_paused = true)]
async fn the_end_is_told_for_as_long_as_the_resume_window() {
    for away in [0, 10, 200].map(Duration::from_secs) {
        let mut net = Net::new(&native(), ROOMY);
        let (mut client, server) = lost_reset(&mut net, away).await;
        assert_eq!(closed(&client.handle()).await, CloseReason::Finished);
        assert_eq!(client.read(&mut [0]).await.expect("the end"), 0);
        drop(server);
    }
}

/// Behind that nothing is known: it cannot tell whether what it wrote has arrived.
#[tokio::test(start_paused = true)]
async fn a_client_that_comes_when_the_end_is_forgotten_does_not_know_how_it_ended() {
    let config = native().resume_window(Duration::from_secs(20));
    let mut net = Net::new(&config, ROOMY);
    let (mut client, mut server) = net.open(&native()).await;
    net.newest().cut(Fault::Deaf);
    send(&mut client, b"lost").await;
    let shutting = tokio::spawn(async move { (client.shutdown().await, client) });
    server.handle().close(9);
    net.isolate();
    tokio::time::sleep(Duration::from_secs(25)).await;
    net.set(Dial::Serve);
    let (shut, client) = within("the shutdown", shutting).await.expect("no panic");
    let why = CloseReason::Refused(Refusal::Unknown);
    assert_eq!(reason(&shut.expect_err("it has not arrived")), why);
    assert_eq!(closed(&client.handle()).await, why);
    assert_eq!(
        reason(&read_error(&mut server).await),
        CloseReason::LocalReset(9)
    );
}

/// Who knows everything to be delivered both ways needs to be told no more, by whomever.
#[tokio::test(start_paused = true)]
async fn a_client_that_knows_both_ends_delivered_has_finished_whatever_it_is_told() {
    for code in [RejectCode::Unknown, RejectCode::Expired, RejectCode::Closed] {
        let (net, mut client, mut server, _) = super::ends::against_raw_server(1000).await;
        client.write_all(b"up").await.expect("room");
        let shutting = tokio::spawn(async move { (client.shutdown().await, client) });
        server
            .until(|frame| (frame == Frame::Fin).then_some(()))
            .await;
        let ack = Frame::Ack {
            received: 3,
            limit: 1003,
        };
        server.send(ack).await.expect("room");
        server.send(Frame::Fin).await.expect("room");
        let (shut, client) = within("the shutdown", shutting).await.expect("no panic");
        shut.expect("it is acknowledged");
        until("the end", || {
            (client.handle().stats().unacknowledged == 0).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(client.handle().state(), LinkState::Connected);
        net.newest().cut(Fault::Reset);
        raw_native::reject(&mut net.ignored().await, code, Duration::ZERO).await;
        assert_eq!(
            closed(&client.handle()).await,
            CloseReason::Finished,
            "{code}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_closed_while_the_client_was_away_ends_with_its_code() {
    for (away, dropped) in [(0, false), (10, false), (250, false), (10, true)] {
        let mut net = Net::new(&native(), ROOMY);
        let (mut client, mut server) = net.open(&native()).await;
        send(&mut server, b"received").await;
        send(&mut client, b"unread").await;
        until("the bytes", || {
            let received = [&client, &server].map(|end| end.handle().stats().received);
            (received == [8, 6]).then_some(())
        })
        .await;
        net.lose(&client, &server).await;
        let code = if dropped {
            drop(server);
            reset::DROPPED_UNREAD
        } else {
            server.handle().close(1234);
            1234
        };
        tokio::time::sleep(Duration::from_secs(away)).await;
        net.set(Dial::Serve);
        client.handle().network_changed();
        let began = Instant::now();
        assert_eq!(closed(&client.handle()).await, CloseReason::Reset(code));
        assert!(
            began.elapsed() < Duration::from_millis(5),
            "{:?}",
            began.elapsed()
        );
        expect(&mut client, b"received").await;
        assert_eq!(
            reason(&read_error(&mut client).await),
            CloseReason::Reset(code)
        );
    }
}

/// A raw client's session, which the server closes: its identity, and what the client had received.
async fn closed_session(net: &mut Net, code: u32) -> Opened {
    let (link, _) = net.raw_link();
    let (mut peer, opened) = Frames::open(link).await.expect("a session");
    let server = net.opened().await;
    peer.send_data(b"12345").await.expect("room");
    until("the bytes", || {
        (server.handle().stats().received == 5).then_some(())
    })
    .await;
    server.handle().close(code);
    let found = peer.until(|frame| match frame {
        Frame::Reset { code } => Some(code),
        _ => None,
    });
    assert_eq!(within("the RESET", found).await, code);
    // Nothing comes behind it, and the server waits for the client's end.
    assert_eq!(within("its end", peer.next()).await, None);
    drop(peer);
    tokio::time::sleep(Duration::from_millis(50)).await;
    opened
}

/// What a client hears that resumes: ATTACH and RESET, then the end.
async fn is_told(link: MemoryLink, opened: &Opened, attempt: u32) -> (Frame, Frame) {
    let mut frames = Frames::resume(link, opened, attempt, 0)
        .await
        .expect("it agrees");
    let attach = within("ATTACH", frames.next()).await.expect("a frame");
    let reset = within("RESET", frames.next()).await.expect("a frame");
    assert_eq!(within("its end", frames.next()).await, None);
    (attach, reset)
}

#[tokio::test(start_paused = true)]
async fn it_restates_the_counts_and_the_reason() {
    let mut net = Net::new(&native(), ROOMY);
    let opened = closed_session(&mut net, 42).await;
    for attempt in [1, 2, 10] {
        let (link, _) = net.raw_link();
        let (attach, reset) = is_told(link, &opened, attempt).await;
        let Frame::Attach { from, received, .. } = attach else {
            panic!("{attach:?}");
        };
        assert_eq!((from, received, reset), (0, 5, Frame::Reset { code: 42 }));
        let failure = net.failure().await;
        assert!(
            matches!(failure, Error::Resume(ResumeError::Ended)),
            "{failure:?}"
        );
    }
    // One that is older than what was told is stale, and the proof is asked for as ever.
    let (mut link, _) = net.raw_link();
    let (_, answer) = raw_native::request(&mut link, &opened, 10, 0)
        .await
        .expect("an answer");
    assert!(
        matches!(answer, Answer::Rejected(reject) if reject.code == RejectCode::Stale),
        "{answer:?}"
    );
    let (mut link, _) = net.raw_link();
    raw_native::request(&mut link, &opened, 11, 0)
        .await
        .expect("it agrees");
    let confirm = [&[0x14, 0, 0, 40][..], &[1; 40]].concat();
    link.write_all(&confirm).await.expect("room");
    let mut refused = Frames::new(link);
    let reject = within("an answer", refused.next()).await;
    assert!(
        matches!(reject, Some(Frame::Reject(reject)) if reject.code == RejectCode::BadProof),
        "{reject:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn they_are_bounded_and_the_oldest_goes_first() {
    // As many as the bound on handshakes allows four times over.
    let mut net = Net::new(&native().max_handshakes(2), ROOMY);
    let mut over = Vec::new();
    for code in 1..=9 {
        over.push(closed_session(&mut net, code).await);
    }
    for (number, opened) in over.iter().enumerate() {
        let (mut link, _) = net.raw_link();
        let (_, answer) = raw_native::request(&mut link, opened, 1, 0)
            .await
            .expect("an answer");
        let forgotten =
            matches!(answer, Answer::Rejected(reject) if reject.code == RejectCode::Unknown);
        assert_eq!(forgotten, number == 0, "{number}: {answer:?}");
        drop(link);
        net.failure().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_a_session_that_expired_says_so_from_the_start() {
    let config = native().resume_window(Duration::from_secs(30));
    let mut net = Net::new(&config, ROOMY);
    let (link, _) = net.raw_link();
    let (peer, opened) = Frames::open(link).await.expect("a session");
    let server = net.opened().await;
    drop(peer);
    assert_eq!(closed(&server.handle()).await, CloseReason::Expired);
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (after, code) in [(0, RejectCode::Expired), (31, RejectCode::Unknown)] {
        tokio::time::sleep(Duration::from_secs(after)).await;
        let (mut link, _) = net.raw_link();
        let (_, answer) = raw_native::request(&mut link, &opened, 1, 0)
            .await
            .expect("an answer");
        assert!(
            matches!(answer, Answer::Rejected(reject) if reject.code == code),
            "{answer:?}"
        );
    }
}

/// A resume that was agreed to while the session ran, and is confirmed when it is over.
#[tokio::test(start_paused = true)]
async fn a_session_that_ends_during_a_resume_tells_that_link() {
    for expires in [false, true] {
        let mut net = Net::new(&native().resume_window(Duration::from_secs(8)), ROOMY);
        let (link, _) = net.raw_link();
        let (peer, opened) = Frames::open(link).await.expect("a session");
        let server = net.opened().await;
        drop(peer);
        tokio::time::sleep(Duration::from_secs(7)).await;
        let (mut link, _) = net.raw_link();
        let (machine, answer) = raw_native::request(&mut link, &opened, 1, 0)
            .await
            .expect("an answer");
        assert_eq!(answer, Answer::Resumed { received: 0 });
        if expires {
            tokio::time::sleep(Duration::from_secs(2)).await;
        } else {
            server.handle().close(6);
        }
        let confirm = machine.confirm(0).expect("it agreed");
        link.write_all(&confirm).await.expect("room");
        let mut frames = Frames::new(link);
        let first = within("an answer", frames.next()).await.expect("a frame");
        if expires {
            assert!(
                matches!(first, Frame::Reject(reject) if reject.code == RejectCode::Expired),
                "{first:?}"
            );
        } else {
            assert!(matches!(first, Frame::Attach { .. }), "{first:?}");
            let last = within("an answer", frames.next()).await;
            assert_eq!(last, Some(Frame::Reset { code: 6 }));
        }
        assert_eq!(within("its end", frames.next()).await, None);
    }
}

/// A server that never says its last word: behind that nothing is missing, so it is no more than a wait.
#[tokio::test(start_paused = true)]
async fn a_client_that_knows_both_ends_delivered_waits_for_no_last_word_longer_than_linger() {
    for dropped in [false, true] {
        let (net, mut client, mut server, _) = super::ends::against_raw_server(1000).await;
        client.write_all(b"up").await.expect("room");
        let handle = client.handle();
        let shutting = tokio::spawn(async move { (client.shutdown().await, client) });
        server
            .until(|frame| (frame == Frame::Fin).then_some(()))
            .await;
        let ack = Frame::Ack {
            received: 3,
            limit: 1003,
        };
        server.send(ack).await.expect("room");
        server.send(Frame::Fin).await.expect("room");
        let (shut, client) = within("the shutdown", shutting).await.expect("no panic");
        shut.expect("it is acknowledged");
        let client = if dropped {
            drop(client);
            None
        } else {
            Some(client)
        };
        let began = Instant::now();
        // It is alive, and answers whatever it is asked.
        server.send(Frame::Pong(1)).await.expect("room");
        let answering = tokio::spawn(async move {
            while let Some(frame) = server.next().await {
                if let Frame::Ping(number) = frame {
                    let _ = server.send(Frame::Pong(number)).await;
                }
            }
        });
        assert_eq!(closed(&handle).await, CloseReason::Finished);
        let took = began.elapsed();
        assert!(took.as_secs() <= 61, "{took:?}");
        if let Some(mut client) = client {
            assert_eq!(client.read(&mut [0]).await.expect("the end"), 0);
        }
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(net.dials().len(), 1);
        answering.abort();
    }
}

/// A client's RESET is no clean one, whatever its code says: what the server has written need not have arrived.
#[tokio::test(start_paused = true)]
async fn a_clients_clean_reset_is_not_believed() {
    let mut net = Net::new(&native(), ROOMY);
    let (link, _) = net.raw_link();
    let (mut peer, _) = Frames::open(link).await.expect("a session");
    let mut server = net.opened().await;
    server.write_all(b"unheard").await.expect("room");
    let shutting = tokio::spawn(async move { (server.shutdown().await, server) });
    peer.until(|frame| (frame == Frame::Fin).then_some(()))
        .await;
    peer.send(Frame::Fin).await.expect("room");
    peer.send(Frame::Reset { code: 0 }).await.expect("room");
    let (shut, server) = within("the shutdown", shutting).await.expect("no panic");
    let error = shut.expect_err("nothing says that it has arrived");
    assert_eq!(reason(&error), CloseReason::Reset(0));
    assert_eq!(closed(&server.handle()).await, CloseReason::Reset(0));
}
