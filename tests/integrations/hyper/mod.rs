//! hyper, at both ends, and hyper-util's pooled client: HTTP/1 and HTTP/2.

mod bodies;
mod deaths;
mod early;
mod graceful;
mod pool;
mod settings;
mod site;
mod trailers;
mod upgrades;

use std::{
    convert::Infallible,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, Version};
use http_body_util::{
    BodyExt, Full,
    channel::{Channel, Sender},
    combinators::UnsyncBoxBody,
};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connect, Connection},
    },
    rt::TokioExecutor,
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};
use tokio::{sync::Mutex, time::sleep};
use tower::{ServiceExt, util::BoxCloneSyncService};
use unbroken::{
    CloseReason, Config, Connector, Handle, LinkState, ResumableTransport, TcpConnector,
};

use crate::{
    bed::{Bed, POLL, Patient},
    cutting_proxy::Close,
};

/// Bytes of a long body.
const LONG: usize = 4 << 20;

/// Most bytes of such a body in a frame.
const CHUNK: usize = 16 << 10;

/// Bytes of a SHA-256 digest.
const DIGEST: usize = 32;

/// Seeds of the long bodies to the server and to the client.
const UP: u64 = 1;
const DOWN: u64 = 2;

/// What bodies are cut out of.
static NOISE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut noise = vec![0; 16 * CHUNK];
    StdRng::seed_from_u64(0).fill_bytes(&mut noise);
    noise.into()
});

type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

/// A client whose sessions the bed remembers.
type Pooled = Client<Patient<Connector<TcpConnector>>, AnyBody>;

/// Such a client that opens no session while it has one.
type Single = Client<BoxCloneSyncService<Uri, ResumableTransport, Infallible>, AnyBody>;

/// Works with either version, both at once.
async fn with_both(work: impl AsyncFn(Version) -> ()) {
    tokio::join!(work(Version::HTTP_11), work(Version::HTTP_2));
}

#[test]
fn a_transport_is_what_hyper_and_its_pooled_client_run_on() {
    fn io<T: hyper::rt::Read + hyper::rt::Write + Connection + Unpin + Send + 'static>() {}
    io::<ResumableTransport>();
    fn connect<T: Connect + Clone + Send + Sync + 'static>() {}
    connect::<Connector<TcpConnector>>();
}

fn client<C: Connect + Clone>(version: Version, connector: C) -> Client<C, AnyBody> {
    Client::builder(TokioExecutor::new())
        .http2_only(version == Version::HTTP_2)
        .build(connector)
}

/// hyper's pool opens a second connection when the first is not back in the pool at the very moment of a request. Here that one is
/// made when the first is over, so that all requests go over the first until then.
fn single(version: Version, bed: &Bed, config: Config) -> Single {
    let connector = bed.patient(Connector::new(TcpConnector::new(), config));
    let newest = Arc::new(Mutex::new(None::<Handle>));
    let connector = tower::service_fn(move |uri: Uri| {
        let (connector, newest) = (connector.clone(), newest.clone());
        async move {
            let mut newest = newest.lock().await;
            if let Some(session) = newest.take() {
                until_over(&session).await;
            }
            let transport = connector.oneshot(uri).await?;
            *newest = Some(transport.handle());
            Ok(transport)
        }
    });
    client(version, BoxCloneSyncService::new(connector))
}

async fn until_over(session: &Handle) -> CloseReason {
    let mut states = session.subscribe();
    loop {
        if let LinkState::Closed(reason) = *states.borrow_and_update() {
            return reason;
        }
        states.changed().await.expect("it says why");
    }
}

fn full(bytes: impl Into<Bytes>) -> AnyBody {
    Full::new(bytes.into()).boxed_unsync()
}

fn post(uri: Uri, body: AnyBody) -> Request<AnyBody> {
    Request::post(uri).body(body).expect("a request")
}

/// A body that [`feed`] fills.
fn fed() -> (Sender<Bytes>, AnyBody) {
    let (sender, body) = Channel::<Bytes, Infallible>::new(4);
    (sender, body.boxed_unsync())
}

/// Sends a long body in pieces and returns its digest.
async fn feed(sender: &mut Sender<Bytes>, seed: u64) -> Bytes {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut digest = Sha256::new();
    let mut left = LONG;
    while left > 0 {
        let length = rng.random_range(1..=CHUNK).min(left);
        let from = rng.random_range(0..=NOISE.len() - length);
        let chunk = NOISE.slice(from..from + length);
        digest.update(&chunk);
        let sent = sender.send_data(chunk).await;
        sent.expect("somebody takes the body");
        left -= length;
    }
    Bytes::copy_from_slice(&digest.finalize())
}

/// The digest of the long body of that seed.
async fn digest_of(seed: u64) -> Bytes {
    let (mut sender, body) = fed();
    let drained = body.collect();
    let (digest, _) = tokio::join!(async move { feed(&mut sender, seed).await }, drained);
    digest
}

/// Takes `length` bytes of a body in, and returns their digest and what comes after them.
async fn digest(body: Incoming, length: usize) -> (Bytes, Bytes) {
    let mut digest = Sha256::new();
    let mut rest = Vec::new();
    let mut left = length;
    let mut body = std::pin::pin!(body);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.expect("a whole body").into_data() {
            let (first, second) = data.split_at(left.min(data.len()));
            digest.update(first);
            left -= first.len();
            rest.extend(second);
        }
    }
    assert_eq!(left, 0, "the body ends too early");
    (Bytes::copy_from_slice(&digest.finalize()), rest.into())
}

/// Sends `body` and compares what comes back.
async fn echo<C>(client: &Client<C, AnyBody>, uri: Uri, body: impl Into<Bytes>) -> Response<()>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let body = body.into();
    let response = client.request(post(uri, full(body.clone()))).await;
    let (head, echoed) = response.expect("a response").into_parts();
    assert_eq!(head.status, StatusCode::OK);
    let echoed = echoed.collect().await.expect("a whole body");
    assert!(echoed.to_bytes() == body, "another body came back");
    Response::from_parts(head, ())
}

/// So many requests that links are cut between and below them.
async fn warm_up<C>(client: &Client<C, AnyBody>, bed: &Bed)
where
    C: Connect + Clone + Send + Sync + 'static,
{
    for number in 0..200 {
        echo(client, bed.uri("/echo"), number.to_string().repeat(20)).await;
    }
}

/// The same on a bed without faults but cuts, for clients and servers that are too impatient for the others.
async fn warm_up_with_cuts<C>(client: &Client<C, AnyBody>, bed: &Bed)
where
    C: Connect + Clone + Send + Sync + 'static,
{
    bed.proxy.stop_faults();
    for number in 0..10 {
        echo(client, bed.uri("/echo"), number.to_string()).await;
        bed.proxy.cut_now(Close::Reset);
    }
    echo(client, bed.uri("/echo"), "attached").await;
}

/// Cuts all links, and waits until the session has another.
async fn cut(bed: &Bed, session: &Handle) {
    let before = session.stats().resumes;
    bed.proxy.cut_now(Close::Reset);
    while session.stats().resumes == before {
        sleep(POLL).await;
    }
}
