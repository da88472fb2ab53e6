//! HTTP over hyper, both versions, whose links are cut all the time: it does not know, and neither do its peers.
//!
//! The faults are drawn from a seed, which is printed; `UNBROKEN_SEED` sets it.

#![cfg(all(feature = "client", feature = "server", feature = "hyper"))]

use std::{
    convert::Infallible,
    future::pending,
    net::Ipv4Addr,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use cutting_proxy::{BUFFERING, CuttingProxy, Faults, SEND_OVERSHOOT};
use http_body_util::{
    BodyExt, Full,
    channel::{Channel, Sender},
    combinators::UnsyncBoxBody,
};
use hyper::{Request, Response, StatusCode, Uri, body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connect, Connection},
    },
    rt::TokioExecutor,
    server::conn::auto,
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::ServiceExt;
use unbroken::{
    Config, Connector, Handle, Listener, ResumableTransport, Security, Snet, TcpConnector,
};

#[path = "support/cutting_proxy.rs"]
mod cutting_proxy;

/// N: sent bytes that each end keeps.
const HISTORY: usize = 1 << 20;

/// Most bytes in each of SO_SNDBUF and SO_RCVBUF of both ends.
const SOCKET_BUFFER: usize = 64 << 10;

// What a cut can lose in one direction: the sender's send buffer with its overshoot, the proxy, the receiver's receive buffer.
const _: () = assert!(2 * SOCKET_BUFFER + SEND_OVERSHOOT + BUFFERING <= HISTORY / 2);

/// After which time a test counts as hung.
const HUNG: Duration = Duration::from_secs(60);

/// Until there is a session, a link that is cut is the caller's to dial again, after this time.
const FIRST_REDIAL: Duration = Duration::from_millis(5);

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

fn full(bytes: impl Into<Bytes>) -> AnyBody {
    Full::new(bytes.into()).boxed_unsync()
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
        sender
            .send_data(chunk)
            .await
            .expect("somebody takes the body");
        left -= length;
    }
    Bytes::copy_from_slice(&digest.finalize())
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

async fn answer(request: Request<Incoming>) -> Result<Response<AnyBody>, hyper::Error> {
    let body = match request.uri().path() {
        "/echo" => full(request.into_body().collect().await?.to_bytes()),
        // A long body each way at once; behind that to the client, the digest of that to the server.
        "/exchange" => {
            let (mut sender, body) = Channel::<Bytes, Infallible>::new(4);
            tokio::spawn(async move {
                let upload = digest(request.into_body(), LONG);
                let (_, (digest, _)) = tokio::join!(feed(&mut sender, DOWN), upload);
                sender.send_data(digest).await.expect("the client is there");
            });
            body.boxed_unsync()
        }
        _ => {
            let mut response = Response::new(full(""));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Ok(response);
        }
    };
    Ok(Response::new(body))
}

/// A server behind a proxy, and how to reach it.
struct Bed {
    proxy: CuttingProxy,
    config: Config,
    /// Whether the end of a session is told to its peer: of a client's that has had everything.
    told: bool,
    /// Of the server's sessions.
    sessions: Mutex<Vec<Handle>>,
}

impl Bed {
    fn uri(&self, path: &str) -> Uri {
        let uri = format!("http://{}{path}", self.proxy.addr());
        uri.parse().expect("a URI")
    }

    fn connector(&self) -> Connector<TcpConnector> {
        Connector::new(TcpConnector::new(), self.config.clone())
    }

    fn sessions(&self) -> Vec<Handle> {
        self.sessions.lock().expect("no panic").clone()
    }

    /// Serves HTTP of either version, for ever. What is served needs no adapter.
    async fn serve(&self, mut listener: Listener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (transport, _) = accepted.expect("the listener works");
                    self.sessions.lock().expect("no panic").push(transport.handle());
                    connections.spawn(async move {
                        auto::Builder::new(TokioExecutor::new())
                            .serve_connection(transport, service_fn(answer))
                            .await
                    });
                }
                Some(ended) = connections.join_next() => match ended {
                    Ok(Ok(())) if self.told => {}
                    ended => panic!("a connection ended: {ended:?}"),
                },
            }
        }
    }
}

/// What the sessions speak.
enum Spoken {
    Snet(Snet),
    /// native in the clear.
    Native,
    #[cfg(feature = "noise")]
    Noise,
}

/// Runs `client` against an HTTP server, over snet or else over native, behind a proxy that cuts each link after about so many bytes, or 100 ms. A hang fails.
/// The links have to have been cut, and the sessions resumed, so many times.
async fn http(
    spoken: Spoken,
    cut_bytes: u64,
    cuts: u64,
    client: impl AsyncFnOnce(&Bed) -> (),
) -> Vec<Handle> {
    let seed = match std::env::var("UNBROKEN_SEED") {
        Ok(seed) => seed.parse().expect("UNBROKEN_SEED is a u64"),
        Err(_) => rand::random(),
    };
    println!("UNBROKEN_SEED={seed}");
    let silence = Duration::from_millis(500);
    let told = !matches!(spoken, Spoken::Snet(_));
    let config = match spoken {
        Spoken::Snet(snet) => {
            let snet = snet.history(HISTORY).socket_buffer(SOCKET_BUFFER);
            Config::new().snet(snet.silence(silence))
        }
        Spoken::Native => Config::new()
            .security(Security::none())
            .keepalive(silence / 2, silence),
        #[cfg(feature = "noise")]
        Spoken::Noise => Config::new().keepalive(silence / 2, silence),
    };
    let config = config
        .retry(Duration::from_millis(2), Duration::from_millis(50))
        .handshake_timeout(Duration::from_secs(2));
    let faults = Faults {
        cut_bytes: Some(cut_bytes),
        outage: 0.03,
        outage_for: Duration::from_millis(100),
        ..Faults::harsh(seed, Duration::from_millis(100))
    };
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0), config.clone()).await;
    let listener = listener.expect("a free port");
    let addr = listener.local_addr().expect("its address");
    let bed = Bed {
        proxy: CuttingProxy::start(addr, faults).await.expect("a proxy"),
        config,
        told,
        sessions: Mutex::default(),
    };
    tokio::select! {
        () = bed.serve(listener) => unreachable!("it serves for ever"),
        done = timeout(HUNG, client(&bed)) => if done.is_err() {
            panic!("not done after {HUNG:?}: {:?}", bed.proxy.stats());
        }
    }
    let sessions = bed.sessions();
    let resumes: u64 = sessions.iter().map(|end| end.stats().resumes).sum();
    let stats = bed.proxy.stats();
    println!("{} sessions, {resumes} resumes, {stats:?}", sessions.len());
    assert!(stats.cut >= cuts, "{} cuts", stats.cut);
    assert!(resumes >= cuts, "{resumes} resumes");
    sessions
}

/// Sends one small request, as often as its connection cannot be opened.
async fn warm_up<C>(client: &Client<C, AnyBody>, bed: &Bed)
where
    C: Connect + Clone + Send + Sync + 'static,
{
    loop {
        let request = Request::post(bed.uri("/echo")).body(full("hello"));
        match client.request(request.expect("a request")).await {
            Ok(response) => {
                let echoed = response.into_body().collect().await.expect("a body");
                return assert_eq!(echoed.to_bytes(), "hello");
            }
            Err(error) if error.is_connect() => sleep(FIRST_REDIAL).await,
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Sends `body` and compares what comes back.
async fn echo<C>(client: &Client<C, AnyBody>, uri: Uri, body: Bytes)
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let request = Request::post(uri).body(full(body.clone()));
    let response = client.request(request.expect("a request")).await;
    let response = response.expect("a response");
    assert_eq!(response.status(), StatusCode::OK);
    let echoed = response.into_body().collect().await.expect("a whole body");
    assert!(echoed.to_bytes() == body);
}

/// Streams long bodies both ways at once.
async fn exchange<C>(client: &Client<C, AnyBody>, bed: &Bed)
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(4);
    let upload = async move { feed(&mut sender, UP).await };
    let request = Request::post(bed.uri("/exchange")).body(body.boxed_unsync());
    let download = async {
        let response = client.request(request.expect("a request")).await;
        digest(response.expect("a response").into_body(), LONG).await
    };
    let (uploaded, (downloaded, received)) = tokio::join!(upload, download);
    assert_eq!(uploaded, received, "the server's digest of the upload");
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(4);
    let drained = body.collect();
    let (expected, _) = tokio::join!(async move { feed(&mut sender, DOWN).await }, drained);
    assert_eq!(downloaded, expected, "the digest of the download");
    assert_eq!(received.len(), DIGEST);
}

#[test]
fn a_transport_is_what_hyper_and_its_pooled_client_run_on() {
    fn io<T: hyper::rt::Read + hyper::rt::Write + Connection + Unpin + Send + 'static>() {}
    io::<ResumableTransport>();
    fn connect<T: Connect + Clone + Send + Sync + 'static>() {}
    connect::<Connector<TcpConnector>>();
}

/// Makes tests of functions that run over snet with a cipher, over native in the clear, or under Noise.
macro_rules! over_both {
    ($($name:ident: $snet:expr,)*) => {$(
        mod $name {
            use unbroken::Snet;

            use super::Spoken;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_snet() {
                super::$name(Spoken::Snet($snet)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_native() {
                super::$name(Spoken::Native).await;
            }

            #[cfg(feature = "noise")]
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_noise() {
                super::$name(Spoken::Noise).await;
            }
        }
    )*};
}

over_both!(
    http1_streams_bodies_both_ways_at_once_through_cuts: Snet::plain(),
    http2_streams_bodies_both_ways_at_once_through_cuts: Snet::rc4(),
    http1_sends_a_thousand_requests_over_one_pooled_session_through_cuts: Snet::rc4(),
    http2_sends_two_thousand_requests_over_one_pooled_session_through_cuts: Snet::plain(),
    http2_carries_a_hundred_streams_at_once_through_cuts: Snet::rc4(),
);

async fn http1_streams_bodies_both_ways_at_once_through_cuts(spoken: Spoken) {
    http(spoken, 64 << 10, 30, async |bed| {
        let client = Client::builder(TokioExecutor::new()).build(bed.connector());
        warm_up(&client, bed).await;
        for _ in 0..2 {
            exchange(&client, bed).await;
        }
    })
    .await;
}

async fn http2_streams_bodies_both_ways_at_once_through_cuts(spoken: Spoken) {
    let sessions = http(spoken, 32 << 10, 25, async |bed| {
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build(bed.connector());
        warm_up(&client, bed).await;
        for _ in 0..2 {
            exchange(&client, bed).await;
        }
    })
    .await;
    assert_eq!(sessions.len(), 1);
}

/// hyper's pool opens a second connection when the first is not back in the pool at the very moment of a request. Here that one is
/// never made, so all requests have to go over the first.
fn only_one_session(
    connector: Connector<TcpConnector>,
) -> impl Connect + Clone + Send + Sync + 'static {
    let taken = Arc::new(AtomicBool::new(false));
    tower::service_fn(move |uri: Uri| {
        let (connector, taken) = (connector.clone(), taken.clone());
        Box::pin(async move {
            if taken.swap(true, Relaxed) {
                return pending().await;
            }
            loop {
                match connector.clone().oneshot(uri.clone()).await {
                    Ok(transport) => return Ok::<_, Infallible>(transport),
                    Err(_) => sleep(FIRST_REDIAL).await,
                }
            }
        })
    })
}

async fn http1_sends_a_thousand_requests_over_one_pooled_session_through_cuts(spoken: Spoken) {
    let sessions = http(spoken, 1 << 10, 30, async |bed| {
        let client = Client::builder(TokioExecutor::new()).build(only_one_session(bed.connector()));
        for number in 0..1000 {
            echo(&client, bed.uri("/echo"), number.to_string().into()).await;
        }
    })
    .await;
    assert_eq!(sessions.len(), 1);
}

async fn http2_sends_two_thousand_requests_over_one_pooled_session_through_cuts(spoken: Spoken) {
    let sessions = http(spoken, 1 << 10, 25, async |bed| {
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build(bed.connector());
        warm_up(&client, bed).await;
        for number in 0..2000 {
            echo(&client, bed.uri("/echo"), number.to_string().into()).await;
        }
    })
    .await;
    assert_eq!(sessions.len(), 1);
}

async fn http2_carries_a_hundred_streams_at_once_through_cuts(spoken: Spoken) {
    let sessions = http(spoken, 64 << 10, 30, async |bed| {
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build(bed.connector());
        warm_up(&client, bed).await;
        let mut streams = JoinSet::new();
        for stream in 0..100 {
            let (client, uri) = (client.clone(), bed.uri("/echo"));
            let body = NOISE.slice(stream * 1024..stream * 1024 + 64 * 1024);
            streams.spawn(async move { echo(&client, uri, body).await });
        }
        streams.join_all().await;
    })
    .await;
    assert_eq!(sessions.len(), 1);
}
