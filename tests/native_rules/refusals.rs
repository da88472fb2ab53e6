//! A server that turns a client away: for now, or for good.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{io::duplex, sync::mpsc, time::Instant};
use tower::{ServiceExt, service_fn};
use unbroken::{
    Accepted, Acceptor, CloseReason, Connector, Error, LinkState, Refusal, RejectCode,
    ResumableTransport, ResumeError, protocol::native::Hello,
};

use super::{
    ends::against_raw_server,
    memory_link::{Client, Fault},
    memory_net::{
        Dial, Net, ROOMY, closed, connected, exchange, expect, native, read_error, reason, resumed,
        send, until, within,
    },
    raw_native::{self, Frames},
};

/// The clock of tokio's timers has steps of this length.
const STEP: Duration = Duration::from_millis(2);
/// The longest delay between two attempts.
const CAP: Duration = Duration::from_secs(10);

/// All that a server says to an open ends it, and is told.
#[tokio::test(start_paused = true)]
async fn an_open_that_is_turned_away_says_why() {
    for number in (0..20).chain([999, u16::MAX]) {
        let code = RejectCode::from(number);
        let net = Net::new(&native(), ROOMY);
        net.set(Dial::Ignore);
        let after = Duration::from_millis(u64::from(number) * 77);
        let connector = Connector::new(net.dialer(), native());
        let (opened, hello) = tokio::join!(connector.oneshot(()), async {
            raw_native::reject(&mut net.ignored().await, code, after).await
        });
        assert_eq!(hello, Hello::Open { window: 1 << 20 });
        let error = opened.expect_err("turned away");
        assert!(
            matches!(error, Error::Rejected { reason, retry_after } if (reason, retry_after) == (code, after)),
            "{error:?}"
        );
        assert!(error.to_string().contains(&code.to_string()), "{error}");
        let kind = std::io::Error::from(error).kind();
        assert_eq!(kind, std::io::ErrorKind::ConnectionRefused);
        assert!(net.newest().dropped(Client).is_some());
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(net.dials().len(), 1, "that is for the caller to try again");
    }
}

/// How long after `from` each dial began that came after.
fn dials_after(net: &Net, from: Instant) -> Vec<Duration> {
    let dials = net.dials().into_iter();
    dials
        .filter_map(|at| at.checked_duration_since(from))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_put_off_comes_again_when_it_was_told_to() {
    let (net, mut client, _server, opened) = against_raw_server(10_000).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    net.newest().cut(Fault::Reset);
    let mut last = Instant::now();
    for (code, after) in [
        (RejectCode::Busy, 7_000),
        (RejectCode::ShuttingDown, 40_000),
        (RejectCode::Busy, 60_000),
        // However short a time it is told, it keeps to its own delays.
        (RejectCode::Busy, 1),
        // Another reason may come with a delay too.
        (RejectCode::Stale, 20_000),
        (RejectCode::Other(321), 13_000),
    ] {
        let after = Duration::from_millis(after);
        let mut link = net.ignored().await;
        let hello = raw_native::reject(&mut link, code, after).await;
        assert!(matches!(hello, Hello::Resume { .. }));
        last = *net.dials().last().expect("a dial");
        let dials = net.dials().len();
        // Whatever it is told of the network.
        tokio::time::sleep(after / 2).await;
        client.handle().network_changed();
        let next = until("the next dial", || net.dials().get(dials).copied());
        let next = tokio::time::timeout(Duration::from_secs(100), next).await;
        let waited = next.expect("it comes again") - last;
        assert!(
            (after..after + CAP + STEP).contains(&waited),
            "{waited:?} instead of {after:?}"
        );
        assert!(matches!(
            client.handle().state(),
            LinkState::Reconnecting { .. }
        ));
    }
    let (mut server, _) = raw_native::serve_resume(net.ignored().await, &opened, 0).await;
    server.attach(0, 0, 10_000).await.expect("room");
    connected(&client.handle()).await;
    assert_eq!(client.handle().stats().resumes, 1);
    send(&mut client, b"here again").await;
    assert_eq!(within("the bytes", server.take(10)).await, b"here again");
    server.send_data(b"so it is").await.expect("room");
    expect(&mut client, b"so it is").await;
    // What it was told then is of no account any more.
    net.newest().cut(Fault::Reset);
    let cut = Instant::now();
    until("the next dial", || dials_after(&net, cut).first().copied()).await;
    // An application that has just read has 20 ms to come again before its keeper looks at the link.
    let first = dials_after(&net, cut)[0];
    assert!(first <= Duration::from_millis(20) + STEP, "{first:?}");
    assert!(last < cut);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_put_off_for_too_long_expires() {
    let window = Duration::from_secs(100);
    let net = Net::new(&native(), ROOMY);
    net.set(Dial::Ignore);
    let connector = Connector::new(net.dialer(), native().resume_window(window));
    let (client, _server) = tokio::join!(connector.oneshot(()), async {
        raw_native::serve_open(net.ignored().await, 1000).await
    });
    let client = client.expect("a session");
    tokio::time::sleep(Duration::from_secs(1)).await;
    net.newest().cut(Fault::Reset);
    let lost = Instant::now();
    let mut link = net.ignored().await;
    raw_native::reject(
        &mut link,
        RejectCode::Busy,
        Duration::from_millis(u32::MAX.into()),
    )
    .await;
    assert_eq!(closed(&client.handle()).await, CloseReason::Expired);
    assert!(
        (window..window + STEP).contains(&lost.elapsed()),
        "{:?}",
        lost.elapsed()
    );
    assert_eq!(net.dials().len(), 2);
}

/// A server of ours that is full says so, and lets in whoever comes when there is room.
#[tokio::test(start_paused = true)]
async fn a_full_server_is_busy_for_a_second() {
    let config = native().max_sessions(1);
    let mut net = Net::new(&config, ROOMY);
    // Named while there is room, which is taken by the time it proves itself.
    let (mut first, _) = net.raw_link();
    let open = raw_native::begin_open(&mut first).await.expect("OPENED");
    let opened = raw_native::named(&open);
    let (client, server) = net.open(&config).await;
    let connector = Connector::new(net.dialer(), native());
    let error = connector.clone().oneshot(()).await.expect_err("it is full");
    assert!(
        matches!(error, Error::Rejected { reason: RejectCode::Busy, retry_after } if retry_after.as_secs() == 1),
        "{error:?}"
    );
    assert!(matches!(net.failure().await, Error::Overloaded(_)));
    let mut refused = Frames::new(first);
    let confirm = open.confirm().expect("a session");
    tokio::io::AsyncWriteExt::write_all(&mut refused.link, &confirm)
        .await
        .expect("room");
    let reject = refused
        .until(|frame| match frame {
            unbroken::protocol::native::Frame::Reject(reject) => Some(reject),
            _ => None,
        })
        .await;
    assert_eq!(
        (reject.code, reject.retry_after.as_secs()),
        (RejectCode::Busy, 1)
    );
    drop(refused);
    assert!(matches!(net.failure().await, Error::Overloaded(_)));
    // A resume of what runs is no new session.
    net.wire(1).cut(Fault::Reset);
    resumed(&client.handle(), 1).await;
    let handle = server.handle();
    drop((client, server));
    assert_eq!(closed(&handle).await, CloseReason::Finished);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The one that was named is opened by a resume, now that there is room.
    let (link, _) = net.raw_link();
    let mut peer = Frames::resume(link, &opened, 1, 0)
        .await
        .expect("it agrees");
    let mut server = net.session().await;
    send(&mut server, b"alive").await;
    assert_eq!(within("the bytes", peer.take(5)).await, b"alive");
}

/// Who has closed the session by himself, or has nothing left to say, is not told that it was refused.
#[tokio::test(start_paused = true)]
async fn a_refusal_does_not_change_how_a_session_has_ended() {
    let mut net = Net::new(&native(), ROOMY);
    let (client, server) = net.open(&native()).await;
    net.lose(&client, &server).await;
    client.handle().close(3);
    net.restart_server(&native());
    net.set(Dial::Serve);
    tokio::time::sleep(Duration::from_secs(100)).await;
    let ended = LinkState::Closed(CloseReason::LocalReset(3));
    assert_eq!(client.handle().state(), ended);
    let dials = net.dials().len();
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert_eq!(net.dials().len(), dials);
    drop((client, server));
}

/// It is told at once where a wait for the backoff would have been long.
#[tokio::test(start_paused = true)]
async fn a_restarted_server_is_found_out_by_the_first_link_that_reaches_it() {
    let mut net = Net::new(&native(), ROOMY);
    let (mut client, mut server): (ResumableTransport, _) = net.open(&native()).await;
    exchange(&mut client, &mut server).await;
    send(&mut server, b"last words").await;
    until("the last words", || {
        (client.handle().stats().received == 310).then_some(())
    })
    .await;
    net.lose(&client, &server).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    net.restart_server(&native());
    net.set(Dial::Serve);
    client.handle().network_changed();
    let began = Instant::now();
    let why = CloseReason::Refused(Refusal::Unknown);
    assert_eq!(closed(&client.handle()).await, why);
    assert!(began.elapsed() <= STEP);
    expect(&mut client, b"last words").await;
    assert_eq!(reason(&read_error(&mut client).await), why);
    // A new session is what helps.
    let (mut client, mut server) = net.open(&native()).await;
    exchange(&mut client, &mut server).await;
    net.cut_and_resume(&client, &server).await;
    resumed(&client.handle(), 1).await;
}

/// Whoever is in between, or a load balancer that errs, can lead a resume to a server that does not have the session.
#[tokio::test(start_paused = true)]
async fn a_resume_that_is_led_to_another_server_is_put_off_and_the_session_goes_on() {
    let servers = [1, 2].map(|route| Acceptor::new(native().route(route)));
    let led = Arc::new(AtomicUsize::new(0));
    let (sender, mut outcomes) = mpsc::unbounded_channel();
    let leads = led.clone();
    let dial = service_fn(move |()| {
        let server = servers[leads.load(Ordering::Relaxed)].clone();
        let sender = sender.clone();
        async move {
            let (near, far) = duplex(ROOMY);
            tokio::spawn(async move { sender.send(server.accept(far).await) });
            Ok::<_, std::io::Error>(near)
        }
    });
    let connector = Connector::new(dial, native());
    let mut client = within("opening", connector.oneshot(()))
        .await
        .expect("it opens");
    let Some(Ok(Accepted::New(mut server))) = outcomes.recv().await else {
        panic!("it is a new session");
    };
    exchange(&mut client, &mut server).await;

    led.store(1, Ordering::Relaxed);
    let astray = within("the migration", client.handle().migrate()).await;
    let told = astray.expect_err("the session is not there");
    assert!(
        matches!(told, Error::Rejected { reason, .. } if reason == RejectCode::Elsewhere),
        "{told:?}"
    );
    let refused = outcomes.recv().await.expect("it has answered");
    let refused = refused.expect_err("the session is not there");
    assert!(
        matches!(refused, Error::Resume(ResumeError::Elsewhere)),
        "{refused:?}"
    );
    exchange(&mut client, &mut server).await;

    led.store(0, Ordering::Relaxed);
    let back = within("the migration", client.handle().migrate()).await;
    back.expect("the session is there");
    exchange(&mut client, &mut server).await;
}
