//! WebSockets.

use axum::{
    extract::ws::{self, WebSocket, WebSocketUpgrade},
    routing::any,
};
use futures_util::StreamExt;
use http::{Method, Version};
use hyper::{client::conn::http2, ext::Protocol};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::protocol::Role};
use unbroken::{CloseReason, Error};

use super::*;
use crate::websocket::{self, PINGS, content, end, exchange_farewells, ping, talk};

over_each!(
    numbered_messages_go_both_ways_and_a_close_ends_them,
    numbered_messages_go_both_ways_over_http_2,
    a_session_that_dies_is_an_error_at_both_ends,
);

const MESSAGES: u32 = 100;

fn message(number: u32) -> ws::Message {
    match content(number) {
        (bytes, true) => ws::Message::Text(bytes.try_into().expect("digits and spaces")),
        (bytes, false) => ws::Message::Binary(bytes),
    }
}

/// A conversation that is over: how often its session had been resumed by then, and the socket, which can be dropped.
type Report = (u64, WebSocket);

/// Talks, takes pings and a close.
async fn converse(mut socket: WebSocket, session: Handle) -> Report {
    talk(&mut socket, MESSAGES, message).await;
    for number in 0..PINGS {
        let ping = socket.recv().await.expect("a ping").expect("a whole one");
        let payload = Bytes::copy_from_slice(&number.to_be_bytes());
        assert_eq!(ping, ws::Message::Ping(payload));
    }
    let closed = socket.recv().await.expect("a close").expect("a whole one");
    let farewell = websocket::farewell();
    let expected = ws::CloseFrame {
        code: farewell.code.into(),
        reason: farewell.reason.as_str().into(),
    };
    assert_eq!(closed, ws::Message::Close(Some(expected)));
    let end = socket.recv().await;
    assert!(end.is_none(), "{end:?}");
    (session.stats().resumes, socket)
}

/// Serves conversations and reports each as it ends.
fn converse_with_all(listener: Listener) -> mpsc::UnboundedReceiver<Report> {
    let (report, reports) = mpsc::unbounded_channel();
    let upgrade = async |upgrade: WebSocketUpgrade,
                         ConnectInfo(session): ConnectInfo<Handle>,
                         State(report): State<mpsc::UnboundedSender<Report>>| {
        upgrade.on_upgrade(async move |socket| {
            let done = converse(socket, session).await;
            assert!(report.send(done).is_ok(), "the test goes on");
        })
    };
    let app = Router::new()
        .route("/", get(async || "there is a WebSocket"))
        .route("/talk", any(upgrade))
        .with_state(report);
    serve(listener, app);
    reports
}

async fn numbered_messages_go_both_ways_and_a_close_ends_them(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 4 << 10).await;
    let mut reports = converse_with_all(listener);
    let connecting = client_async("ws://localhost/talk", bed.connect().await).await;
    let (mut socket, _) = connecting.expect("an upgrade");
    talk(&mut socket, MESSAGES, websocket::message).await;
    ping(&mut socket).await;
    exchange_farewells(&mut socket).await;
    let (resumes, served) = reports.recv().await.expect("a report");
    drop(served);
    end(socket, spoken.tells_the_end()).await;
    assert!(resumes >= 5, "{resumes} resumes at the server");
    bed.assert_cut(5);
}

async fn numbered_messages_go_both_ways_over_http_2(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 4 << 10).await;
    let mut reports = converse_with_all(listener);
    let http = http2::handshake(TokioExecutor::new(), bed.connect().await).await;
    let (mut sender, connection) = http.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let root = format!("http://{}/", bed.addr());
    let request = |method: Method, path: &str| {
        let request = Request::builder().method(method);
        request
            .uri(format!("{root}{path}"))
            .version(Version::HTTP_2)
    };
    // After the first answer the server's settings are known, extended CONNECT among them.
    let hello = request(Method::GET, "").body(Full::<Bytes>::default());
    let hello = sender.send_request(hello.expect("a request")).await;
    assert_eq!(
        whole(hello.expect("an answer")).await,
        "there is a WebSocket"
    );

    let mut sockets = Vec::new();
    for _ in 0..2 {
        let upgrade = request(Method::CONNECT, "talk")
            .header("sec-websocket-version", "13")
            .extension(Protocol::from_static("websocket"))
            .body(Full::default());
        let answer = sender.send_request(upgrade.expect("a request")).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        let stream = TokioIo::new(hyper::upgrade::on(answer).await.expect("an upgrade"));
        sockets.push(WebSocketStream::from_raw_socket(stream, Role::Client, None).await);
    }
    // Both over the one session.
    let talks = sockets.iter_mut().map(async |socket| {
        talk(socket, MESSAGES, websocket::message).await;
        ping(socket).await;
        exchange_farewells(socket).await;
    });
    join_all(talks).await;
    // Not earlier: hyper resets the stream with it, and a client still in `send` of its close would be told.
    for _ in 0..2 {
        drop(reports.recv().await.expect("a report"));
    }
    for socket in sockets {
        end(socket, true).await;
    }
    drop(sender);
    if spoken.tells_the_end() {
        connection.await.expect("no panic").expect("a clean end");
    }
    bed.assert_cut(8);
}

async fn a_session_that_dies_is_an_error_at_both_ends(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 2 << 10).await;
    let sessions = listener.sessions();
    let (report, mut reports) = mpsc::unbounded_channel();
    type Reports = mpsc::UnboundedSender<Option<axum::Error>>;
    let upgrade = async |upgrade: WebSocketUpgrade, State(report): State<Reports>| {
        upgrade.on_upgrade(async move |mut socket| {
            talk(&mut socket, MESSAGES, message).await;
            report.send(None).expect("the test goes on");
            let error = socket
                .recv()
                .await
                .expect("no end")
                .expect_err("no message");
            report.send(Some(error)).expect("the test goes on");
            let error = socket.send(message(0)).await.expect_err("nowhere to go");
            report.send(Some(error)).expect("the test goes on");
        })
    };
    let app = Router::new().route("/talk", any(upgrade));
    let _serving = serve(listener, app.with_state(report));
    let transport = bed.connect().await;
    let session = transport.handle();
    let connecting = client_async("ws://localhost/talk", transport).await;
    let (mut socket, _) = connecting.expect("an upgrade");
    talk(&mut socket, MESSAGES, websocket::message).await;
    let done = reports.recv().await.expect("a report");
    assert!(done.is_none(), "{done:?}");
    assert!(sessions.close(session.id(), 7));
    let error = socket
        .next()
        .await
        .expect("no end")
        .expect_err("no message");
    assert!(websocket::is_reset(&error, 7, spoken), "{error:?}");
    for _ in 0..2 {
        let error = reports.recv().await.flatten().expect("an error");
        let own = unbroken::Error::find(&error).expect("the session's own");
        let ended = matches!(own, Error::Closed(CloseReason::LocalReset(7)));
        assert!(ended, "{error:?}");
    }
    bed.assert_cut(5);
}
