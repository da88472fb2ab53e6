//! HTTP/2 as anyone would write it: nothing here knows that links break.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use futures_util::TryStreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use crate::BoxError;
use crate::link::Io;
use crate::progress::Progress;
use crate::source::{Source, hex};

/// Flow control windows, in bytes. Small, so that window updates keep both directions busy even when one transfer is over, and
/// silence means a dead link.
const STREAM_WINDOW: u32 = 256 << 10;

/// Both transfers' windows.
const CONNECTION_WINDOW: u32 = 2 * STREAM_WINDOW;

/// Bytes read from the file at once.
const CHUNK: usize = 64 << 10;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// SHA-256 of what arrived, in hex.
pub(crate) struct Received {
    /// What the server got, as it answered the upload.
    pub(crate) by_server: String,
    /// What the client got.
    pub(crate) by_client: String,
}

/// Serves one connection to its end. Its errors are the client's to notice.
pub(crate) async fn serve(io: Box<dyn Io>, source: Arc<Source>, progress: Arc<Progress>) {
    let service = service_fn(move |request| answer(request, source.clone(), progress.clone()));
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .serve_connection(TokioIo::new(io), service)
        .await;
}

async fn answer(
    request: Request<Incoming>,
    source: Arc<Source>,
    progress: Arc<Progress>,
) -> Result<Response<Body>, BoxError> {
    let mut response = Response::default();
    *response.body_mut() = match (request.method(), request.uri().path()) {
        (&Method::POST, "/file") => {
            let digest = receive(request.into_body(), progress.up_counter()).await?;
            text(digest)
        }
        (&Method::GET, "/file") => file(&source).await?,
        _ => {
            *response.status_mut() = StatusCode::NOT_FOUND;
            text(String::new())
        }
    };
    Ok(response)
}

/// Uploads and downloads at once, over one connection.
pub(crate) async fn exchange(
    io: Box<dyn Io>,
    source: &Source,
    progress: &Progress,
) -> Result<Received, BoxError> {
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(TokioIo::new(io))
        .await?;
    let transfers = async {
        let upload = upload(sender.clone(), source);
        let download = download(sender, progress);
        let (by_server, by_client) = tokio::try_join!(upload, download)?;
        Ok(Received {
            by_server,
            by_client,
        })
    };
    let broken = async {
        match connection.await {
            Err(error) => BoxError::from(error),
            // Ended by the server without an error; the transfers tell what they lack.
            Ok(()) => std::future::pending().await,
        }
    };
    tokio::select! {
        received = transfers => received,
        error = broken => Err(error),
    }
}

async fn upload(mut sender: SendRequest<Body>, source: &Source) -> Result<String, BoxError> {
    let request = Request::post("http://demo/file").body(file(source).await?)?;
    let response = accepted(sender.send_request(request).await?)?;
    let digest = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(digest.into())?)
}

async fn download(mut sender: SendRequest<Body>, progress: &Progress) -> Result<String, BoxError> {
    let nothing = Empty::new().map_err(|never| match never {});
    let request = Request::get("http://demo/file").body(nothing.boxed_unsync())?;
    let response = accepted(sender.send_request(request).await?)?;
    receive(response.into_body(), progress.down_counter()).await
}

fn accepted(response: Response<Incoming>) -> Result<Response<Incoming>, BoxError> {
    match response.status() {
        StatusCode::OK => Ok(response),
        status => Err(format!("the server answered {status}").into()),
    }
}

/// Counts as bytes come, gives the digest of all of them.
async fn receive(mut body: Incoming, counter: &AtomicU64) -> Result<String, BoxError> {
    let mut digest = Sha256::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            digest.update(&data);
            counter.fetch_add(data.len() as u64, Relaxed);
        }
    }
    Ok(hex(&digest.finalize()))
}

async fn file(source: &Source) -> io::Result<Body> {
    let file = File::open(source.path()).await?;
    let chunks = ReaderStream::with_capacity(file, CHUNK).map_ok(Frame::data);
    Ok(StreamBody::new(chunks).boxed_unsync())
}

fn text(text: String) -> Body {
    let full = Full::from(text).map_err(|never| match never {});
    full.boxed_unsync()
}
