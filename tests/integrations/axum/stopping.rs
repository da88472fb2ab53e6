//! Servers that stop while requests are in flight.

use std::{pin::pin, time::Duration};

use axum::extract::ws::WebSocketUpgrade;
use futures_util::{Stream, StreamExt, stream};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{sleep, timeout},
};
use tokio_tungstenite::client_async;
use unbroken::reset;

use super::*;
use crate::{
    cutting_proxy::Close,
    websocket::{close, is_reset, message, talk},
};

over_each!(
    what_is_in_flight_is_answered_when_axum_stops,
    what_is_in_flight_is_answered_when_the_sessions_are_shut_down,
    a_web_socket_outlives_axum_and_the_sessions_wait_for_it,
    a_deadline_ends_what_would_not_end,
);

/// Parts of a body.
const PARTS: u32 = 15;

/// Bytes of a part.
const PART: usize = 4 << 10;

/// How often it is looked whether a port is closed, which nothing announces.
const POLL: Duration = Duration::from_millis(1);

fn part(number: u32) -> Bytes {
    number.to_be_bytes().repeat(PART / 4).into()
}

/// A body in parts, of which each goes out when it is allowed to.
fn slow(allowed: watch::Receiver<u32>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::iter(0..PARTS).then(move |number| {
        let mut allowed = allowed.clone();
        async move {
            let told = allowed.wait_for(|allowed| number < *allowed).await;
            told.map_err(io::Error::other)?;
            Ok(part(number))
        }
    })
}

fn app(allowed: watch::Receiver<u32>) -> Router {
    let send = async |State(allowed): State<_>| Body::from_stream(slow(allowed)).into_response();
    Router::new().route("/slow", get(send)).with_state(allowed)
}

/// Takes a slow body in, and reports each part of it.
async fn take(response: http::Response<Incoming>, report: mpsc::UnboundedSender<()>) {
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    let mut taken = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.expect("a whole body");
        for byte in frame.into_data().expect("data") {
            let number = (taken / PART) as u32;
            assert_eq!(byte, number.to_be_bytes()[taken % 4], "byte {taken}");
            taken += 1;
            if taken % PART == 0 {
                report.send(()).expect("the test goes on");
            }
        }
    }
    assert_eq!(taken, PARTS as usize * PART);
}

/// Waits for the next part of so many bodies.
async fn reported(reports: &mut mpsc::UnboundedReceiver<()>, bodies: usize) {
    for _ in 0..bodies {
        reports.recv().await.expect("a part");
    }
}

/// Lets the parts after the first go out, each while its link is cut.
async fn cut_each(
    bed: &Bed,
    allow: &watch::Sender<u32>,
    reports: &mut mpsc::UnboundedReceiver<()>,
    bodies: usize,
) {
    for allowed in 2..=PARTS {
        bed.proxy.cut_now(Close::Reset);
        allow.send_replace(allowed);
        reported(reports, bodies).await;
    }
}

/// Waits until a server at this address opens no new sessions.
async fn refuses(server: SocketAddr, spoken: Spoken) {
    while unbroken::connect(server, spoken.config()).await.is_ok() {
        sleep(POLL).await;
    }
}

/// Waits until nobody listens there.
async fn closes(server: SocketAddr) {
    while TcpStream::connect(server).await.is_ok() {
        sleep(POLL).await;
    }
}

fn resumes(bed: &Bed) -> u64 {
    let sessions = bed.sessions();
    sessions.iter().map(|session| session.stats().resumes).sum()
}

/// Serves until told to stop.
fn serve_until_stopped(
    listener: Listener,
    app: Router,
) -> (oneshot::Sender<()>, JoinHandle<io::Result<()>>) {
    let (stop, stopped) = oneshot::channel();
    let serving = axum::serve(listener, app).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    (stop, tokio::spawn(async move { serving.await }))
}

async fn what_is_in_flight_is_answered_when_axum_stops(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 16 << 10).await;
    let server = listener.local_addr().expect("its address");
    let (allow, allowed) = watch::channel(1);
    let (stop, serving) = serve_until_stopped(listener, app(allowed));

    let (report, mut reports) = mpsc::unbounded_channel();
    let clients = [Http::One, Http::Two].map(|http| Browser::new(&bed, http));
    let answers = clients.iter().flat_map(|client| {
        // Over HTTP/1 these are as many sessions.
        (0..3).map(|_| async { take(client.get("/slow").await, report.clone()).await })
    });
    let answers = join_all(answers.collect::<Vec<_>>());
    let stopping = async {
        reported(&mut reports, 2 * 3).await;
        assert_eq!(bed.sessions().len(), 4);
        stop.send(()).expect("it is served");
        refuses(server, spoken).await;
        let before = resumes(&bed);
        cut_each(&bed, &allow, &mut reports, 2 * 3).await;
        let after = resumes(&bed) - before;
        assert!(
            after >= 10,
            "{after} resumes after the listener was dropped"
        );
        serving.await.expect("no panic").expect("no error");
    };
    tokio::join!(answers, stopping);
    if spoken.tells_the_end() {
        closes(server).await;
    }
    bed.assert_cut(10);
}

async fn what_is_in_flight_is_answered_when_the_sessions_are_shut_down(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 16 << 10).await;
    let server = listener.local_addr().expect("its address");
    let sessions = listener.sessions();
    let (allow, allowed) = watch::channel(1);
    let mut serving = serve(listener, app(allowed));

    let (report, mut reports) = mpsc::unbounded_channel();
    let answers = [Http::One, Http::Two].map(|http| {
        let (client, report) = (Browser::new(&bed, http), report.clone());
        // The sessions end with their clients.
        async move { take(client.get("/slow").await, report).await }
    });
    let stopping = async {
        reported(&mut reports, 2).await;
        let shutdown = async { sessions.shutdown(Duration::from_secs(50)).await };
        let answering = async {
            refuses(server, spoken).await;
            cut_each(&bed, &allow, &mut reports, 2).await;
        };
        tokio::join!(shutdown, answering).0
    };
    let answered = async {
        join_all(answers).await;
        if !spoken.tells_the_end() {
            // Nothing tells the server that they are over.
            for session in sessions.list() {
                sessions.close(session.id, 1);
            }
        }
    };
    let ((), late) = tokio::join!(answered, stopping);
    assert_eq!(late, 0);
    // axum waits for connections, of which none comes.
    let waited = timeout(Duration::from_millis(20), &mut serving).await;
    assert!(waited.is_err(), "{waited:?}");
    closes(server).await;
    bed.assert_cut(10);
}

async fn a_web_socket_outlives_axum_and_the_sessions_wait_for_it(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 4 << 10).await;
    let sessions = listener.sessions();
    let upgrade = async |upgrade: WebSocketUpgrade| {
        upgrade.on_upgrade(async |socket| {
            let (to_client, from_client) = socket.split();
            // It ends with an error of the answer that comes too late, to the close.
            let _ = from_client.forward(to_client).await;
        })
    };
    let app = Router::new().route("/echo", get(upgrade));
    let (stop, serving) = serve_until_stopped(listener, app);
    let connecting = client_async("ws://localhost/echo", bed.connect().await).await;
    let (mut socket, _) = connecting.expect("an upgrade");
    talk(&mut socket, 50, message).await;
    stop.send(()).expect("it is served");
    serving.await.expect("no panic").expect("no error");

    let shutdown = async { sessions.shutdown(Duration::from_secs(50)).await };
    let mut shutdown = pin!(shutdown);
    let waited = timeout(Duration::ZERO, &mut shutdown).await;
    assert!(waited.is_err(), "{waited:?}");
    talk(&mut socket, 50, message).await;
    close(socket, spoken.tells_the_end()).await;
    if spoken.tells_the_end() {
        assert_eq!(shutdown.await, 0);
    }
    bed.assert_cut(5);
}

async fn a_deadline_ends_what_would_not_end(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 16 << 10).await;
    // A client that lost its link in the last moment would ask a closed port for its session.
    bed.proxy.stop_faults();
    let sessions = listener.sessions();
    let (allow, allowed) = watch::channel(1);
    let (stop, mut serving) = serve_until_stopped(listener, app(allowed));
    let client = Browser::new(&bed, Http::One);
    let mut body = client.get("/slow").await.into_body();
    let mut taken = 0;
    let mut take = async |parts: usize| {
        while taken < parts * PART {
            let frame = body.frame().await.expect("a part");
            taken += frame.map(|frame| frame.data_ref().map_or(0, Bytes::len))?;
        }
        Ok::<_, hyper::Error>(())
    };
    take(1).await.expect("the first part");
    stop.send(()).expect("it is served");
    bed.proxy.cut_now(Close::Reset);
    allow.send_replace(2);
    take(2).await.expect("the second part");
    let waited = timeout(Duration::from_millis(20), &mut serving).await;
    assert!(waited.is_err(), "{waited:?}");

    assert_eq!(sessions.shutdown(Duration::ZERO).await, 1);
    serving.await.expect("no panic").expect("no error");
    if spoken.tells_the_end() {
        let error = take(3).await.expect_err("no third part");
        assert!(is_reset(&error, reset::SHUTTING_DOWN, spoken), "{error:?}");
    }
    bed.assert_cut(1);
}
