//! HTTP through hyper, with a pooled client, while every link is cut after 20 ms: many requests, and a long body both ways.
//!
//! ```text
//! cargo run --example hyper
//! ```

use std::{convert::Infallible, error::Error, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    client::legacy::Client,
    rt::TokioExecutor,
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{sync::oneshot, task::JoinSet};
use unbroken::{Config, Connector, Handle, Listener, TcpConnector};

#[path = "support/cuts.rs"]
mod cuts;

const CLIENTS: u32 = 20;
const REQUESTS: u32 = 200;
const CHUNK: usize = 16 << 10;
const CHUNKS: u32 = 4_000;

type Body = UnsyncBoxBody<Bytes, Infallible>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let listener = Listener::bind("127.0.0.1:0", Config::new()).await?;
    let (addr, cuts) = cuts::before(listener.local_addr()?, Duration::from_millis(20)).await?;
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(serve(listener, stopped));

    // One session carries everything: HTTP/2 needs no more.
    let connector = Connector::new(TcpConnector::new(), Config::new());
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build::<_, Body>(connector);

    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let client = client.clone();
        clients.spawn(async move {
            for request in 0..REQUESTS {
                let text = format!("request {request} of client {number}");
                let body = Full::from(text.clone()).boxed_unsync();
                let request = Request::post(format!("http://{addr}/")).body(body)?;
                let echoed = client.request(request).await?.into_body().collect().await?;
                assert_eq!(echoed.to_bytes(), text);
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(())
        });
    }

    let chunks = (0..CHUNKS).map(|number| Ok(Frame::data(chunk(number))));
    let body = StreamBody::new(futures_util::stream::iter(chunks)).boxed_unsync();
    let request = Request::post(format!("http://{addr}/")).body(body)?;
    let response = client.request(request).await?;
    let session: Handle = response.extensions().get().cloned().expect("the session's");
    let (mut echoed, mut body) = (0, response.into_body());
    while let Some(frame) = body.frame().await {
        for byte in frame?.into_data().unwrap_or_default() {
            assert_eq!(byte, (echoed / CHUNK) as u8, "at byte {echoed}");
            echoed += 1;
        }
    }
    assert_eq!(echoed, CHUNK * CHUNKS as usize);

    while let Some(done) = clients.join_next().await {
        done??;
    }
    let _ = stop.send(());
    let reset = server.await??;
    println!(
        "{} answers and {} MiB came back over one session: {} cuts, {} resumes; {reset} sessions had to be reset at the end",
        CLIENTS * REQUESTS,
        echoed >> 20,
        cuts.count(),
        session.stats().resumes,
    );
    Ok(())
}

fn chunk(number: u32) -> Bytes {
    vec![number as u8; CHUNK].into()
}

/// Sends each body back until it is told to stop, and then lets everything end in order.
async fn serve(
    mut listener: Listener,
    mut stopped: oneshot::Receiver<()>,
) -> Result<usize, std::io::Error> {
    let http = auto::Builder::new(TokioExecutor::new());
    let graceful = GracefulShutdown::new();
    loop {
        let (transport, _peer) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = &mut stopped => break,
        };
        let echo = service_fn(async |request: Request<Incoming>| {
            Ok::<_, Infallible>(Response::new(request.into_body()))
        });
        let connection = http.serve_connection(transport, echo).into_owned();
        tokio::spawn(graceful.watch(connection));
    }
    // hyper ends the connections, and the listener waits for their sessions.
    let patience = Duration::from_secs(10);
    let ((), reset) = tokio::join!(graceful.shutdown(), listener.shutdown(patience));
    Ok(reset)
}
