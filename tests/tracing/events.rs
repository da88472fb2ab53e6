use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};
use tower::{ServiceExt, service_fn};
use tracing::Level;
use unbroken::{
    CloseReason, Connector, Listener, ResumableTransport,
    protocol::native::{ClientOpen, ClientProtection},
};

use super::{
    capture::{Capture, Told},
    memory_link::Fault,
    memory_net::{Dial, Net, ROOMY, closed, exchange, expect, native, plain, resumed, send, until},
    raw_peer::drive,
};

/// The events of one session.
fn of<'a>(events: &'a [Told], session: &str) -> Vec<&'a Told> {
    let is_of = |event: &&Told| event.field("session") == Some(session);
    events.iter().filter(is_of).collect()
}

/// The shortened id.
fn short(transport: &ResumableTransport) -> String {
    transport.handle().id().to_string()[..8].to_owned()
}

/// Sees that the events are among those of the session, in this order; others may stand between.
fn check_order(events: &[&Told], expected: &[(Level, &str)]) {
    let mut events = events.iter();
    for (level, what) in expected {
        assert!(
            events.any(|event| event.level == *level && event.what == *what),
            "no {level} {what:?} in its place"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_sessions_life_is_told_in_order() {
    for (protocol, config) in [("native", native()), ("snet", plain())] {
        let (capture, _guard) = Capture::here();
        let mut net = Net::new(&config, ROOMY);
        let (mut client, mut server) = net.open(&config).await;
        let session = short(&client);
        exchange(&mut client, &mut server).await;
        net.lose(&client, &server).await;
        sleep(Duration::from_secs(3)).await;
        // Of ten bytes none has reached the server.
        client.write_all(&[7; 10]).await.expect("there is room");
        net.set(Dial::Serve);
        resumed(&client.handle(), 1).await;
        resumed(&server.handle(), 1).await;
        expect(&mut server, &[7; 10]).await;
        client.handle().network_changed();
        client.handle().migrate().await.expect("it migrates");
        resumed(&server.handle(), 2).await;
        client.handle().close(7);
        closed(&client.handle()).await;
        server.handle().close(7);
        closed(&server.handle()).await;

        let ours = capture.ours();
        let told = of(&ours, &session);
        let ends = |what: &str| -> Vec<&Told> {
            let is_it = |event: &&&Told| event.what == what;
            told.iter().filter(is_it).copied().collect()
        };
        check_order(
            &told,
            &[
                (Level::INFO, "a session is opened"),
                (Level::DEBUG, "a link is attached"),
                (Level::DEBUG, "the link failed"),
                (Level::DEBUG, "an attempt to resume failed"),
                (Level::DEBUG, "an attempt to resume failed"),
                (Level::DEBUG, "a link is attached"),
                (Level::DEBUG, "the session is resumed"),
                (Level::DEBUG, "the network has changed"),
                (Level::DEBUG, "a link is attached"),
                (Level::DEBUG, "the session is resumed"),
                (Level::INFO, "the session is over"),
            ],
        );

        let opened = ends("a session is opened");
        let mut roles = opened.iter().filter_map(|event| event.field("role"));
        assert_eq!(
            [roles.next(), roles.next()].into_iter().flatten().count(),
            2
        );
        assert!(
            opened
                .iter()
                .all(|event| event.field("protocol") == Some(protocol))
        );

        let failed = ends("an attempt to resume failed");
        for (at, event) in failed.iter().enumerate() {
            assert_eq!(event.field("attempt"), Some(&*(at + 1).to_string()));
            assert_eq!(
                event.field("error"),
                Some("no link to the peer could be opened: connection refused")
            );
            let span = event.span("session").expect("the redials' span");
            assert_eq!(span.level, Level::INFO);
            assert_eq!(span.field("id"), Some(&*session));
            assert_eq!(span.field("role"), Some("client"));
            assert_eq!(span.field("protocol"), Some(protocol));
        }

        let resumes = ends("the session is resumed");
        assert_eq!(resumes.len(), 4, "twice at each end");
        let first = |event: &&&Told| event.field("resumes") == Some("1");
        for event in resumes.iter().filter(first) {
            let detached = event.field("detached").expect("how long it was detached");
            assert!(
                detached.ends_with('s') && !detached.ends_with("ms"),
                "{detached}"
            );
        }
        let attached = ends("a link is attached");
        let outstanding = attached
            .iter()
            .filter_map(|event| event.field("outstanding"));
        assert!(outstanding.clone().any(|bytes| bytes == "10"));

        let over = ends("the session is over");
        assert_eq!(over.len(), 2, "once at each end");
        assert_eq!(
            over[0].field("reason"),
            Some("this end reset it, with the code 7")
        );
        assert_eq!(over[0].field("sent"), Some("310"));
        assert_eq!(over[0].field("resumes"), Some("2"));

        // Whoever reads one end's log sees what it is about.
        for event in &ours {
            assert!(
                event.field("session").is_some() || event.span("accept").is_some(),
                "{event:?}"
            );
        }
    }
}

/// What the user's own services trace while they redial stands in the session's span, and in nothing the session was opened in.
#[tokio::test(start_paused = true)]
async fn redials_run_in_the_sessions_span() {
    let (capture, _guard) = Capture::here();
    let net = Net::new(&native(), ROOMY);
    let dialer = net.dialer();
    let dial = service_fn(move |()| {
        tracing::info!("dialling");
        dialer.clone().oneshot(())
    });
    let request = tracing::info_span!("request");
    let opening = {
        let _entered = request.enter();
        Connector::new(dial, native()).oneshot(())
    };
    let client = tracing::Instrument::instrument(opening, request)
        .await
        .expect("the session opens");
    net.newest().cut(Fault::Reset);
    resumed(&client.handle(), 1).await;
    let mut dials = capture.events();
    dials.retain(|event| event.what == "dialling");
    let [first, second] = &dials[..] else {
        panic!("{dials:?}");
    };
    assert!(first.span("request").is_some() && first.span("session").is_none());
    let span = second.span("session").expect("the session's span");
    assert!(span.spans.is_empty() && second.span("request").is_none());
    assert_eq!(span.field("id"), Some(&*short(&client)));
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_told() {
    let (capture, _guard) = Capture::here();
    let mut net = Net::new(&native(), ROOMY);
    let (client, server) = net.open(&native()).await;
    net.newest().cut(Fault::Stall);
    resumed(&client.handle(), 1).await;
    let ours = capture.ours();
    check_order(
        &of(&ours, &short(&server)),
        &[
            (
                Level::DEBUG,
                "the link is given up: its peer was silent for too long",
            ),
            (Level::DEBUG, "the session is resumed"),
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_breaks_the_protocol_is_told() {
    let (capture, _guard) = Capture::here();
    let mut net = Net::new(&native(), ROOMY);
    let (mut link, _) = net.raw_link();
    let mut machine = ClientOpen::new(1 << 16, ClientProtection::None);
    drive(&mut link, &mut machine).await.expect("the handshake");
    let confirm = machine.confirm().expect("the session is opened");
    send(&mut link, &confirm).await;
    let server = net.opened().await;
    // A frame of an unknown type, which may not be skipped.
    send(&mut link, &[0x7e, 0, 0, 0]).await;
    until("the end of the link", || {
        net.newest().dropped(super::memory_link::Server)
    })
    .await;
    let ours = capture.ours();
    let told = of(&ours, &short(&server));
    check_order(&told, &[(Level::DEBUG, "the peer broke the protocol")]);
    let broken = told
        .iter()
        .find(|event| event.what == "the peer broke the protocol");
    assert!(broken.is_some_and(|event| event.field("error").is_some()));
}

#[tokio::test]
async fn a_servers_handshakes_and_its_shutdown_are_told() {
    let (capture, _guard) = Capture::here();
    let listener = Listener::bind("127.0.0.1:0", native())
        .await
        .expect("a port");
    let addr = listener.local_addr().expect("it has one");
    let mut stranger = TcpStream::connect(addr).await.expect("it listens");
    let peer = stranger.local_addr().expect("it has one").to_string();
    stranger.write_all(b"GET /").await.expect("it is taken");
    let closed_by_server = stranger.read(&mut [0]).await;
    assert!(matches!(closed_by_server, Ok(0) | Err(_)));

    let client = unbroken::connect(addr, native())
        .await
        .expect("the session opens");
    until("the session", || {
        (listener.sessions().count() == 1).then_some(())
    })
    .await;
    let (sessions, session) = (listener.sessions(), short(&client));
    assert_eq!(sessions.shutdown(Duration::from_millis(10)).await, 1);
    assert!(matches!(
        closed(&client.handle()).await,
        CloseReason::Reset(_)
    ));

    let ours = capture.ours();
    let refused = ours
        .iter()
        .find(|event| event.what == "a handshake came to nothing")
        .expect("the stranger's");
    assert_eq!(refused.level, Level::DEBUG);
    assert_eq!(refused.field("peer"), Some(&*peer));
    let span = refused.span("accept").expect("the handshake's span");
    assert_eq!(
        (span.level, span.field("peer")),
        (Level::DEBUG, Some(&*peer))
    );

    let opened = of(&ours, &session)
        .into_iter()
        .find(|event| event.field("role") == Some("server"))
        .expect("the server's end");
    let peer = opened.field("peer").expect("it came from somewhere");
    let span = opened.span("accept").expect("the handshake's span");
    assert_eq!(span.field("peer"), Some(peer));

    let of_server: Vec<&Told> = ours
        .iter()
        .filter(|event| event.level == Level::INFO && event.field("session").is_none())
        .collect();
    check_order(
        &of_server,
        &[(Level::INFO, "shutting down"), (Level::INFO, "shut down")],
    );
    assert_eq!(of_server[0].field("sessions"), Some("1"));
    assert_eq!(of_server[1].field("reset"), Some("1"));
}

/// The runtime is gone, which no peer and no network can bring about.
#[test]
fn what_is_to_be_mended_is_a_warning() {
    let (capture, _guard) = Capture::here();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let ends = runtime.block_on(async {
        let config = native();
        Net::new(&config, ROOMY).open(&config).await
    });
    drop(runtime);
    let ours = capture.ours();
    let mut over = ours
        .iter()
        .filter(|event| event.what == "the session is over");
    assert!(over.clone().count() == 2 && over.all(|event| event.level == Level::WARN));
    drop(ends);
}
