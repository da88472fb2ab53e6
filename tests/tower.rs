//! Sessions over whatever Tower services dial, under whatever layers, and what other libraries make of both ends.

#![cfg(all(feature = "client", feature = "server"))]

use std::{
    future::{Future, pending, ready},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use cutting_proxy::{Close, CuttingProxy, Faults};
use futures_util::{SinkExt, StreamExt};
use http::Uri;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional, duplex},
    net::TcpStream,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use tower::{
    Service, ServiceBuilder, ServiceExt,
    retry::{Policy, RetryLayer},
    service_fn,
    timeout::error::Elapsed,
};
use unbroken::{
    Accepted, Acceptor, Config, Connector, Error, Listener, ResumableLayer, ResumableTransport,
    Snet, TcpConnector, connect,
};

#[path = "support/cutting_proxy.rs"]
mod cutting_proxy;

/// After which time a test counts as hung.
const HUNG: Duration = Duration::from_secs(30);

/// How often a counter that nothing announces is looked at.
const POLL: Duration = Duration::from_millis(1);

/// What the default history of 1 MiB allows each socket buffer: a quarter of it less 32 KiB.
const SOCKET_BUFFER: usize = (1 << 20) / 4 - (32 << 10);

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Snet,
    Native,
}

fn config(protocol: Protocol) -> Config {
    let config = match protocol {
        Protocol::Snet => Config::new().snet(Snet::rc4()),
        Protocol::Native => Config::new(),
    };
    config.retry(Duration::from_millis(2), Duration::from_millis(50))
}

/// A proxy that cuts when it is told to, and behind it a server that echoes.
struct Bed {
    proxy: CuttingProxy,
    _serving: JoinSet<()>,
}

impl Bed {
    fn addr(&self) -> SocketAddr {
        self.proxy.addr()
    }
}

/// Runs `test` with a server. A hang fails.
async fn with_server(protocol: Protocol, test: impl AsyncFnOnce(&Bed)) {
    let mut listener = bind(protocol).await;
    let addr = listener.local_addr().expect("its address");
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut sessions = JoinSet::new();
        while let Ok((transport, _)) = listener.accept().await {
            sessions.spawn(echo(transport));
        }
    });
    let bed = Bed {
        proxy: CuttingProxy::start(addr, Faults::none())
            .await
            .expect("a proxy"),
        _serving: serving,
    };
    within(test(&bed)).await;
}

async fn bind(protocol: Protocol) -> Listener {
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0), config(protocol)).await;
    listener.expect("a free port")
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    let done = timeout(HUNG, work).await;
    done.unwrap_or_else(|_| panic!("not done after {HUNG:?}"))
}

async fn echo(transport: ResumableTransport) {
    let (mut reading, mut writing) = tokio::io::split(transport);
    // It ends with the session.
    let _ = tokio::io::copy(&mut reading, &mut writing).await;
}

async fn round_trip(transport: &mut ResumableTransport, message: &[u8]) {
    transport.write_all(message).await.expect("writes");
    transport.flush().await.expect("flushes");
    let mut echoed = vec![0; message.len()];
    transport.read_exact(&mut echoed).await.expect("reads");
    assert_eq!(echoed, message);
}

/// The session is carried over a cut. Its bytes come from the same peer as before, for the keystream goes on.
async fn survives(mut transport: ResumableTransport, cut: impl FnOnce()) {
    round_trip(&mut transport, b"before").await;
    cut();
    until_resumed(&transport, 1).await;
    round_trip(&mut transport, b"after").await;
    assert_eq!(transport.handle().stats().resumes, 1);
}

async fn until_resumed(transport: &ResumableTransport, times: u64) {
    let handle = transport.handle();
    while handle.stats().resumes < times {
        sleep(POLL).await;
    }
}

/// Makes tests of functions that take the [`Protocol`], over either.
macro_rules! over_both {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            use super::Protocol;

            #[tokio::test]
            async fn over_snet() {
                super::$name(Protocol::Snet).await;
            }

            #[tokio::test]
            async fn over_native() {
                super::$name(Protocol::Native).await;
            }
        }
    )*};
}

over_both!(
    a_session_resumes_through_a_retry_a_concurrency_limit_and_a_timeout,
    a_session_resumes_through_a_buffer_and_a_rate_limit,
    the_first_dial_and_each_redial_wait_until_the_service_is_ready,
    a_session_runs_over_links_in_memory,
    a_session_runs_over_what_hypers_connector_dials,
    connect_takes_every_kind_of_target,
    a_listener_is_a_stream_of_transports,
    a_codec_gets_its_frames_whole_though_each_is_cut_in_the_middle,
);
#[cfg(unix)]
over_both!(a_session_runs_over_a_unix_socket);

// What is below.

/// Tries again after each of so many failures.
#[derive(Clone)]
struct Again(u32);

impl<Request: Clone, Response, E> Policy<Request, Response, E> for Again {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut Request, result: &mut Result<Response, E>) -> Option<Self::Future> {
        if result.is_ok() || self.0 == 0 {
            return None;
        }
        self.0 -= 1;
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        Some(request.clone())
    }
}

async fn a_session_resumes_through_a_retry_a_concurrency_limit_and_a_timeout(protocol: Protocol) {
    with_server(protocol, async |bed| {
        let dials = Arc::new(AtomicU32::new(0));
        let counted = dials.clone();
        // Of three dials, two fail.
        let flaky = service_fn(move |addr: SocketAddr| {
            let fails = counted.fetch_add(1, Relaxed) % 3 != 2;
            async move {
                if fails {
                    return Err(io::Error::from(io::ErrorKind::NetworkUnreachable));
                }
                TcpStream::connect(addr).await
            }
        });
        let connect = ServiceBuilder::new()
            .layer(ResumableLayer::new(config(protocol)))
            .layer(RetryLayer::new(Again(2)))
            .concurrency_limit(1)
            .timeout(Duration::from_secs(5))
            .service(flaky);
        let transport = connect.oneshot(bed.addr()).await.expect("a session");
        survives(transport, || bed.proxy.cut_now(Close::Reset)).await;
        assert_eq!(dials.load(Relaxed), 6);
    })
    .await;
}

#[tokio::test]
async fn a_timeout_below_bounds_the_dial_of_a_link() {
    let never = service_fn(|_: SocketAddr| pending::<io::Result<TcpStream>>());
    let connect = ServiceBuilder::new()
        .layer(ResumableLayer::new(config(Protocol::Native)))
        .timeout(Duration::from_millis(20))
        .service(never);
    let failed = within(connect.oneshot(([127, 0, 0, 1], 1).into())).await;
    match failed {
        Err(Error::Dial(error)) => assert!(error.is::<Elapsed>(), "{error:?}"),
        other => panic!("{other:?}"),
    }
}

async fn a_session_resumes_through_a_buffer_and_a_rate_limit(protocol: Protocol) {
    with_server(protocol, async |bed| {
        // The dial happens in the buffer's own task, so its sockets are bounded here.
        let dial = TcpConnector::new().socket_buffer_limit(SOCKET_BUFFER);
        let (measure, sizes) = measuring();
        let connect = ServiceBuilder::new()
            .layer(ResumableLayer::new(config(protocol)))
            .buffer(4)
            .rate_limit(1, Duration::from_millis(50))
            .map_response(measure)
            .service(dial);
        let transport = connect.oneshot(bed.addr()).await.expect("a session");
        survives(transport, || bed.proxy.cut_now(Close::Fin)).await;
        // native bounds nothing.
        if protocol == Protocol::Snet {
            assert_bounded(&sizes, 2);
        }
    })
    .await;
}

/// SO_SNDBUF and SO_RCVBUF of each link.
type Sizes = Arc<Mutex<Vec<[usize; 2]>>>;

/// Takes down the socket buffers of what is dialled.
fn measuring() -> (impl Fn(TcpStream) -> TcpStream + Clone, Sizes) {
    let sizes = Sizes::default();
    let measured = sizes.clone();
    let measure = move |stream: TcpStream| {
        let socket = SockRef::from(&stream);
        let of_this = [socket.send_buffer_size(), socket.recv_buffer_size()];
        let of_this = of_this.map(|size| size.expect("a size"));
        measured.lock().expect("no panic").push(of_this);
        stream
    };
    (measure, sizes)
}

fn assert_bounded(sizes: &Sizes, links: usize) {
    let sizes = sizes.lock().expect("no panic");
    assert_eq!(sizes.len(), links);
    for size in sizes.iter().flatten() {
        // Bounded, and not needlessly low.
        assert!(
            (SOCKET_BUFFER / 2..=SOCKET_BUFFER).contains(size),
            "{size} of {SOCKET_BUFFER}"
        );
    }
}

#[tokio::test]
async fn the_bound_on_socket_buffers_reaches_the_dial_through_layers_and_on_redial() {
    with_server(Protocol::Snet, async |bed| {
        let (measure, sizes) = measuring();
        let connect = ServiceBuilder::new()
            .layer(ResumableLayer::new(config(Protocol::Snet)))
            .layer(RetryLayer::new(Again(2)))
            .concurrency_limit(4)
            .timeout(Duration::from_secs(5))
            .map_response(measure)
            .service(TcpConnector::new());
        let transport = connect.oneshot(bed.addr()).await.expect("a session");
        survives(transport, || bed.proxy.cut_now(Close::Reset)).await;
        assert_bounded(&sizes, 2);
    })
    .await;
}

/// Is called only when it was asked whether it is ready, and is not when it is first asked; nor are its clones.
struct Reluctant {
    asked: u32,
    calls: Arc<AtomicU32>,
}

impl Clone for Reluctant {
    fn clone(&self) -> Self {
        Self {
            asked: 0,
            calls: self.calls.clone(),
        }
    }
}

impl Service<SocketAddr> for Reluctant {
    type Response = TcpStream;
    type Error = io::Error;
    type Future = <TcpConnector as Service<SocketAddr>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.asked += 1;
        if self.asked < 3 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, addr: SocketAddr) -> Self::Future {
        assert!(self.asked >= 3, "it was called before it was ready");
        self.asked = 0;
        self.calls.fetch_add(1, Relaxed);
        TcpConnector::new().call(addr)
    }
}

async fn the_first_dial_and_each_redial_wait_until_the_service_is_ready(protocol: Protocol) {
    with_server(protocol, async |bed| {
        let calls = Arc::new(AtomicU32::new(0));
        let service = Reluctant {
            asked: 0,
            calls: calls.clone(),
        };
        let mut transport = Connector::new(service, config(protocol))
            .oneshot(bed.addr())
            .await
            .expect("a session");
        for links in 1..5 {
            round_trip(&mut transport, b"again").await;
            assert_eq!(calls.load(Relaxed), links);
            bed.proxy.cut_now(Close::Reset);
            until_resumed(&transport, links.into()).await;
        }
    })
    .await;
}

// Links of other kinds.

async fn a_session_runs_over_links_in_memory(protocol: Protocol) {
    let acceptor = Acceptor::new(config(protocol));
    let tasks = Arc::new(Mutex::new(JoinSet::new()));
    let newest = Arc::new(Mutex::new(None::<AbortHandle>));
    let dial = {
        let (tasks, newest) = (tasks.clone(), newest.clone());
        service_fn(move |capacity: usize| {
            let (client, mut near) = duplex(capacity);
            let (mut far, server) = duplex(capacity);
            let acceptor = acceptor.clone();
            let mut tasks = tasks.lock().expect("no panic");
            tasks.spawn(async move {
                if let Ok(Accepted::New(transport)) = acceptor.accept(server).await {
                    echo(transport).await;
                }
            });
            let wire = tasks.spawn(async move {
                let _ = copy_bidirectional(&mut near, &mut far).await;
            });
            *newest.lock().expect("no panic") = Some(wire);
            ready(io::Result::Ok(client))
        })
    };
    within(async {
        let transport = Connector::new(dial, config(protocol)).oneshot(7).await;
        let cut = || {
            let wire = newest.lock().expect("no panic").take();
            wire.expect("a link").abort();
        };
        survives(transport.expect("a session"), cut).await;
    })
    .await;
}

#[cfg(unix)]
async fn a_session_runs_over_a_unix_socket(protocol: Protocol) {
    use std::net::Shutdown;
    use tokio::net::{UnixListener, UnixStream};

    let name = format!("unbroken-{:016x}", rand::random::<u64>());
    let path = std::env::temp_dir().join(name);
    let listener = UnixListener::bind(&path).expect("a free path");
    let acceptor = Acceptor::new(config(protocol));
    let newest = Mutex::new(None);
    let serving = async {
        let mut sessions = JoinSet::new();
        loop {
            let (link, _) = listener.accept().await.expect("a link");
            let link = link.into_std().expect("a socket");
            let cut = link.try_clone().expect("a descriptor");
            *newest.lock().expect("no panic") = Some(cut);
            let link = UnixStream::from_std(link).expect("a socket");
            let acceptor = acceptor.clone();
            sessions.spawn(async move {
                match acceptor.accept(link).await {
                    Ok(Accepted::New(transport)) => echo(transport).await,
                    Ok(_) => {}
                    Err(error) => panic!("{error}"),
                }
            });
        }
    };
    let client = async {
        let dial = service_fn(UnixStream::connect::<std::path::PathBuf>);
        let transport = Connector::new(dial, config(protocol))
            .oneshot(path.clone())
            .await;
        let cut = || {
            let link = newest.lock().expect("no panic").take();
            let link: std::os::unix::net::UnixStream = link.expect("a link");
            link.shutdown(Shutdown::Both).expect("a socket");
        };
        survives(transport.expect("a session"), cut).await;
    };
    within(async {
        tokio::select! {
            () = serving => {}
            () = client => {}
        }
    })
    .await;
    std::fs::remove_file(path).expect("the socket's file");
}

async fn a_session_runs_over_what_hypers_connector_dials(protocol: Protocol) {
    with_server(protocol, async |bed| {
        let connect = ServiceBuilder::new()
            .layer(ResumableLayer::new(config(protocol)))
            .map_response(TokioIo::new)
            .service(HttpConnector::new());
        let uri: Uri = format!("http://{}/", bed.addr()).parse().expect("a URI");
        let transport = connect.oneshot(uri).await.expect("a session");
        survives(transport, || bed.proxy.cut_now(Close::Reset)).await;
    })
    .await;
}

// Both ends.

async fn connect_takes_every_kind_of_target(protocol: Protocol) {
    with_server(protocol, async |bed| {
        let addr = bed.addr();
        let text = addr.to_string();
        let uri: Uri = format!("http://{addr}/path").parse().expect("a URI");
        let host = (addr.ip().to_string(), addr.port());
        let transports = [
            connect(text.as_str(), config(protocol)).await,
            connect(text.clone(), config(protocol)).await,
            connect(addr, config(protocol)).await,
            connect(host, config(protocol)).await,
            connect(("localhost", addr.port()), config(protocol)).await,
            connect((addr.ip(), addr.port()), config(protocol)).await,
            connect(uri, config(protocol)).await,
        ];
        for transport in transports {
            round_trip(&mut transport.expect("a session"), b"hello").await;
        }
        for target in ["", "host", "host:port"] {
            let refused = connect(target, config(protocol)).await;
            assert!(
                matches!(&refused, Err(Error::Target { target: named, .. }) if named == target),
                "{refused:?}"
            );
        }
    })
    .await;
}

async fn a_listener_is_a_stream_of_transports(protocol: Protocol) {
    let listener = bind(protocol).await;
    let addr = listener.local_addr().expect("its address");
    within(async {
        let clients = async {
            for message in [b"one".as_slice(), b"two"] {
                let transport = connect(addr, config(protocol)).await;
                round_trip(&mut transport.expect("a session"), message).await;
            }
        };
        let server = listener.for_each_concurrent(None, |transport| async {
            echo(transport.expect("a session")).await;
        });
        tokio::select! {
            () = clients => {}
            () = server => panic!("the stream ended"),
        }
    })
    .await;
}

async fn a_codec_gets_its_frames_whole_though_each_is_cut_in_the_middle(protocol: Protocol) {
    const FRAMES: u8 = 20;
    /// Longer than any link lives.
    const FRAME: usize = 5 * CUT_BYTES as usize + 1;
    /// Bytes a link carries in the mean; the most is five times that.
    const CUT_BYTES: u64 = 8 << 10;

    let mut listener = bind(protocol).await;
    let addr = listener.local_addr().expect("its address");
    let faults = Faults {
        seed: 1,
        cut_bytes: Some(CUT_BYTES),
        ..Faults::none()
    };
    let proxy = CuttingProxy::start(addr, faults).await.expect("a proxy");
    let frame = |number: u8| {
        let bytes = (0..FRAME).map(|at| number.wrapping_add((at % 251) as u8));
        bytes.collect::<Bytes>()
    };
    within(async {
        let client = async {
            let transport = loop {
                match connect(proxy.addr(), config(protocol)).await {
                    Ok(transport) => break transport,
                    Err(Error::Dial(_) | Error::Link(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            };
            let mut framed = Framed::new(transport, LengthDelimitedCodec::new());
            for number in 0..FRAMES {
                framed.send(frame(number)).await.expect("sends");
                let echoed = framed.next().await.expect("a frame").expect("a whole one");
                assert!(echoed == frame(number), "frame {number}");
            }
            framed.get_ref().handle().stats().resumes
        };
        let server = async {
            let (transport, _) = listener.accept().await.expect("a session");
            let framed = Framed::new(transport, LengthDelimitedCodec::new());
            let (to_client, from_client) = framed.split::<Bytes>();
            from_client
                .map(|frame| frame.map(BytesMut::freeze))
                .forward(to_client)
                .await
        };
        tokio::select! {
            resumes = client => assert!(resumes >= FRAMES.into(), "{resumes} resumes"),
            ended = server => panic!("the server's end: {ended:?}"),
        }
    })
    .await;
}
