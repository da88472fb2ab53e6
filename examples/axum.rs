//! axum with server-sent events and a WebSocket, while every link is cut after 20 ms; then the server stops in order.
//!
//! ```text
//! cargo run --example axum
//! ```

use std::{convert::Infallible, error::Error, io, net::SocketAddr, time::Duration};

use axum::{
    Router,
    extract::{
        ConnectInfo,
        ws::{self, WebSocketUpgrade},
    },
    response::{
        Response,
        sse::{Event, Sse},
    },
    routing::get,
};
use bytes::Bytes;
use futures_util::{SinkExt, Stream, StreamExt, TryStreamExt, stream};
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{io::AsyncBufReadExt, sync::oneshot, time::sleep};
use tokio_tungstenite::{client_async, tungstenite::Message};
use tokio_util::io::StreamReader;
use unbroken::{Config, Connector, Handle, Listener, TcpConnector};

#[path = "support/cuts.rs"]
mod cuts;

const EVENTS: u32 = 1_000;
const MESSAGES: u32 = 2_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = Listener::bind("127.0.0.1:0", Config::new()).await?;
    let (addr, cuts) = cuts::before(listener.local_addr()?, Duration::from_millis(20)).await?;
    let sessions = listener.sessions();
    let (stop, stopped) = oneshot::channel::<()>();

    let app = Router::new()
        .route("/events", get(events))
        .route("/talk", get(talk))
        .into_make_service_with_connect_info::<Handle>();
    let serving = axum::serve(listener, app).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let serving = tokio::spawn(async move { serving.await });

    let (listening, talking) = tokio::try_join!(listen(addr), converse(addr))?;
    println!("{EVENTS} events came in order, over a session that was resumed {listening} times");
    println!(
        "{MESSAGES} messages were answered in order, over one that was resumed {talking} times"
    );
    println!("{} links were cut", cuts.count());

    let _ = stop.send(());
    serving.await??;
    assert_eq!(sessions.shutdown(Duration::from_secs(10)).await, 0);
    Ok(())
}

/// A number every millisecond or so.
async fn events() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(stream::iter(0..EVENTS).then(async |number| {
        sleep(Duration::from_millis(1)).await;
        Ok(Event::default().data(number.to_string()))
    }))
}

/// Answers each message, and says how often the session has been resumed by then.
async fn talk(upgrade: WebSocketUpgrade, ConnectInfo(session): ConnectInfo<Handle>) -> Response {
    upgrade.on_upgrade(async move |mut socket| {
        while let Some(Ok(message)) = socket.recv().await {
            if let ws::Message::Text(text) = message {
                let answer = format!("{text} {}", session.stats().resumes);
                if socket.send(answer.into()).await.is_err() {
                    // The session is over.
                    return;
                }
            }
        }
    })
}

/// Takes the events in, and gives the number of resumes.
async fn listen(addr: SocketAddr) -> Result<u64, Box<dyn Error>> {
    let connector = Connector::new(TcpConnector::new(), Config::new());
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let response = client.get(format!("http://{addr}/events").parse()?).await?;
    let session = response.extensions().get::<Handle>().cloned();
    let body = response.into_body().into_data_stream();
    let mut lines = StreamReader::new(body.map_err(io::Error::other)).lines();
    let mut expected = 0;
    while let Some(line) = lines.next_line().await? {
        if let Some(data) = line.strip_prefix("data: ") {
            assert_eq!(data.parse(), Ok(expected));
            expected += 1;
        }
    }
    assert_eq!(expected, EVENTS);
    Ok(session.map_or(0, |session| session.stats().resumes))
}

/// Sends messages and takes the answers, and gives the number of resumes that the server has told of.
async fn converse(addr: SocketAddr) -> Result<u64, Box<dyn Error>> {
    let transport = unbroken::connect(addr, Config::new()).await?;
    let (mut socket, _) = client_async(format!("ws://{addr}/talk"), transport).await?;
    let mut resumes = 0;
    for number in 0..MESSAGES {
        socket.send(Message::text(number.to_string())).await?;
        let answer = socket.next().await.ok_or("the server ended it")??;
        let answer = answer.into_text()?;
        let (echoed, told) = answer.split_once(' ').ok_or("no answer of this server")?;
        assert_eq!(echoed.parse(), Ok(number));
        resumes = told.parse()?;
    }
    socket.close(None).await?;
    // The server's answer to the close, and the end.
    while socket.next().await.transpose()?.is_some() {}
    Ok(resumes)
}
