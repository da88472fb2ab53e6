//! Servers that stop while requests are in flight.

use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{sleep, timeout},
};

use super::*;
use crate::cutting_proxy::Close;

over_each!(
    what_is_in_flight_is_answered_when_axum_stops,
    what_is_in_flight_is_answered_when_the_sessions_are_shut_down,
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

async fn what_is_in_flight_is_answered_when_axum_stops(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 16 << 10).await;
    let server = listener.local_addr().expect("its address");
    let (allow, allowed) = watch::channel(1);
    let (stop, stopped) = oneshot::channel::<()>();
    let app = app(allowed).into_make_service_with_connect_info::<Handle>();
    let serving = axum::serve(listener, app).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let serving = tokio::spawn(async move { serving.await });

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
