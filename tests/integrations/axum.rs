//! axum: routes, event streams and WebSockets, served from a listener whose links are cut.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Path, State},
    response::IntoResponse,
    routing::{get, post},
    serve::ListenerExt,
};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, ResponseFuture},
    rt::TokioExecutor,
};
use tokio::{net::TcpStream, task::JoinHandle};
use tower::{ServiceExt, service_fn};
use unbroken::{Connector, Handle, Listener, PeerAddr, TcpConnector};

use crate::bed::{Bed, Patient, Spoken, over_each};

mod events;
mod sockets;
mod stopping;

over_each!(
    routes_answer_each_request_once,
    connect_info_is_the_peer_or_the_session,
);

/// Which HTTP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Http {
    One,
    Two,
}

/// A client that keeps its sessions in a pool.
struct Browser<'a> {
    client: Client<Patient<Connector<TcpConnector>>, Full<Bytes>>,
    bed: &'a Bed,
}

impl<'a> Browser<'a> {
    fn new(bed: &'a Bed, http: Http) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.http2_only(http == Http::Two);
        Self {
            client: builder.build(bed.connector()),
            bed,
        }
    }

    fn post(&self, path: &str, body: impl Into<Bytes>) -> ResponseFuture {
        let request = Request::post(self.bed.uri(path));
        let request = request.body(Full::new(body.into()));
        self.client.request(request.expect("a request"))
    }

    async fn get(&self, path: &str) -> http::Response<Incoming> {
        let response = self.client.get(self.bed.uri(path)).await;
        response.expect("an answer")
    }
}

async fn whole(response: http::Response<Incoming>) -> Bytes {
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await;
    body.expect("a whole body").to_bytes()
}

/// Serves for as long as the test runs.
fn serve(listener: Listener, app: Router) -> JoinHandle<io::Result<()>> {
    let app = app.into_make_service_with_connect_info::<Handle>();
    tokio::spawn(async move { axum::serve(listener, app).await })
}

/// What a request of this number carries.
fn payload(number: u32) -> Bytes {
    let times = number as usize * 101 % 2_000;
    number.to_be_bytes().repeat(times).into()
}

async fn routes_answer_each_request_once(spoken: Spoken) {
    const REQUESTS: u32 = 40;
    const AT_ONCE: u32 = 8;
    let (bed, listener) = Bed::start(spoken, 4 << 10).await;
    let served = Arc::new(AtomicU64::new(0));
    let echo =
        async |State(served): State<Arc<AtomicU64>>, Path(number): Path<u32>, body: Bytes| {
            assert!(body == payload(number), "request {number}");
            served.fetch_add(1, Relaxed);
            body
        };
    let app = Router::new()
        .route("/echo/{number}", post(echo))
        .with_state(served.clone());
    let _serving = serve(listener, app);
    for http in [Http::One, Http::Two] {
        let browser = Browser::new(&bed, http);
        for first in (0..REQUESTS).step_by(AT_ONCE as usize) {
            let answers = (first..first + AT_ONCE).map(async |number| {
                let answer = browser.post(&format!("/echo/{number}"), payload(number));
                let body = whole(answer.await.expect("an answer")).await;
                assert!(body == payload(number), "answer {number}");
            });
            join_all(answers).await;
        }
    }
    assert_eq!(served.load(Relaxed), 2 * u64::from(REQUESTS));
    bed.assert_cut(20);
}

/// What a server answers before and after its client has moved to another link, and where the two links come from.
async fn around_a_move(server: SocketAddr, spoken: Spoken) -> ([String; 2], [SocketAddr; 2]) {
    let links = Arc::new(Mutex::new(VecDeque::new()));
    let dialled = links.clone();
    let dial = service_fn(move |server: SocketAddr| {
        let dialled = dialled.clone();
        async move {
            let link = TcpStream::connect(server).await?;
            let from = link.local_addr()?;
            dialled.lock().expect("no panic").push_back(from);
            io::Result::Ok(link)
        }
    });
    let connector = Connector::new(dial, spoken.config());
    let transport = connector.oneshot(server).await.expect("a session");
    let session = transport.handle();
    let http = hyper::client::conn::http1::handshake(transport).await;
    let (mut sender, connection) = http.expect("HTTP");
    tokio::spawn(connection);
    let mut ask = async || {
        let request = Request::get("/").header("host", "localhost");
        let request = request.body(Full::<Bytes>::default()).expect("a request");
        sender.ready().await.expect("the connection lasts");
        let answer = whole(sender.send_request(request).await.expect("an answer")).await;
        String::from_utf8(answer.into()).expect("an address")
    };
    let before = ask().await;
    session.migrate().await.expect("it moves");
    let after = ask().await;
    let links = links.lock().expect("no panic");
    ([before, after], [links[0], links[1]])
}

async fn connect_info_is_the_peer_or_the_session(spoken: Spoken) {
    let bind = async || {
        let listener = Listener::bind("127.0.0.1:0", spoken.config()).await;
        let listener = listener.expect("a free port");
        let addr = listener.local_addr().expect("its address");
        (listener, addr)
    };

    let (listener, addr) = bind().await;
    let peer = async |ConnectInfo(peer): ConnectInfo<PeerAddr>| peer.to_string();
    let app = Router::new().route("/", get(peer));
    let app = app.into_make_service_with_connect_info::<PeerAddr>();
    let _serving = tokio::spawn(async move { axum::serve(listener, app).await });
    let (answers, [opened, _]) = around_a_move(addr, spoken).await;
    assert_eq!(answers, [opened.to_string(), opened.to_string()]);

    let (listener, addr) = bind().await;
    let session = async |ConnectInfo(session): ConnectInfo<Handle>| {
        let peer = session.peer_addr().expect("it came over TCP");
        format!("{peer} {}", session.stats().resumes)
    };
    let _serving = serve(listener, Router::new().route("/", get(session)));
    let (answers, [opened, moved]) = around_a_move(addr, spoken).await;
    assert_eq!(answers, [format!("{opened} 0"), format!("{moved} 1")]);

    // And of a listener that axum has wrapped.
    let (listener, addr) = bind().await;
    let (tap, mut tapped) = tokio::sync::mpsc::unbounded_channel();
    let listener = listener.tap_io(move |transport| {
        tap.send(transport.handle()).expect("the test goes on");
    });
    let peer = async |ConnectInfo(peer): ConnectInfo<PeerAddr>| peer.to_string();
    let app = Router::new().route("/", get(peer));
    let app = app.into_make_service_with_connect_info::<PeerAddr>();
    let _serving = tokio::spawn(async move { axum::serve(listener, app).await });
    let (answers, [opened, moved]) = around_a_move(addr, spoken).await;
    assert_eq!(answers, [opened.to_string(), opened.to_string()]);
    let session = tapped.recv().await.expect("a session");
    assert_eq!(session.peer_addr(), Some(moved));
}
