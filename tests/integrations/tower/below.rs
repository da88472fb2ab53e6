//! What applies to each link: layers below.

use std::{
    future::pending,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::net::TcpStream;
use tower::{
    Service, ServiceBuilder, ServiceExt, retry::RetryLayer, service_fn, timeout::error::Elapsed,
};
use unbroken::{Connector, Error, ResumableLayer, TcpConnector};

use super::{Again, echo_behind_a_proxy, quiet, round_trip, survives, until_resumed};
use crate::{
    bed::{Spoken, over_each, within},
    cutting_proxy::Close,
};

/// What the default history of 1 MiB allows each socket buffer: a quarter of it less 32 KiB.
const SOCKET_BUFFER: usize = (1 << 20) / 4 - (32 << 10);

over_each!(
    a_session_resumes_through_a_retry_a_concurrency_limit_and_a_timeout,
    a_session_resumes_through_a_buffer_and_a_rate_limit,
    the_first_dial_and_each_redial_wait_until_the_service_is_ready,
);

async fn a_session_resumes_through_a_retry_a_concurrency_limit_and_a_timeout(spoken: Spoken) {
    let (proxy, _echo) = echo_behind_a_proxy(spoken).await;
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
        .layer(ResumableLayer::new(quiet(spoken)))
        .layer(RetryLayer::new(Again(2)))
        .concurrency_limit(1)
        .timeout(Duration::from_secs(5))
        .service(flaky);
    let transport = connect.oneshot(proxy.addr()).await.expect("a session");
    survives(transport, || proxy.cut_now(Close::Reset)).await;
    assert_eq!(dials.load(Relaxed), 6);
}

#[tokio::test]
async fn a_timeout_below_bounds_the_dial_of_a_link() {
    let never = service_fn(|_: SocketAddr| pending::<io::Result<TcpStream>>());
    let connect = ServiceBuilder::new()
        .layer(ResumableLayer::new(quiet(Spoken::Native)))
        .timeout(Duration::from_millis(20))
        .service(never);
    let failed = within(connect.oneshot(([127, 0, 0, 1], 1).into())).await;
    match failed {
        Err(Error::Dial(error)) => assert!(error.is::<Elapsed>(), "{error:?}"),
        other => panic!("{other:?}"),
    }
}

async fn a_session_resumes_through_a_buffer_and_a_rate_limit(spoken: Spoken) {
    let (proxy, _echo) = echo_behind_a_proxy(spoken).await;
    // It is called in the buffer's own task, so its sockets are bounded here.
    let dial = TcpConnector::new().socket_buffer_limit(SOCKET_BUFFER);
    let (measure, sizes) = measuring();
    let connect = ServiceBuilder::new()
        .layer(ResumableLayer::new(quiet(spoken)))
        .buffer(4)
        .rate_limit(1, Duration::from_millis(50))
        .map_response(measure)
        .service(dial);
    let transport = connect.oneshot(proxy.addr()).await.expect("a session");
    survives(transport, || proxy.cut_now(Close::Fin)).await;
    // native bounds nothing.
    if spoken == Spoken::Snet {
        assert_bounded(&sizes, 2);
    }
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
    let (proxy, _echo) = echo_behind_a_proxy(Spoken::Snet).await;
    let (measure, sizes) = measuring();
    let connect = ServiceBuilder::new()
        .layer(ResumableLayer::new(quiet(Spoken::Snet)))
        .layer(RetryLayer::new(Again(2)))
        .concurrency_limit(4)
        .timeout(Duration::from_secs(5))
        .map_response(measure)
        .service(TcpConnector::new());
    let transport = connect.oneshot(proxy.addr()).await.expect("a session");
    survives(transport, || proxy.cut_now(Close::Reset)).await;
    assert_bounded(&sizes, 2);
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

async fn the_first_dial_and_each_redial_wait_until_the_service_is_ready(spoken: Spoken) {
    let (proxy, _echo) = echo_behind_a_proxy(spoken).await;
    let calls = Arc::new(AtomicU32::new(0));
    let service = Reluctant {
        asked: 0,
        calls: calls.clone(),
    };
    let mut transport = Connector::new(service, quiet(spoken))
        .oneshot(proxy.addr())
        .await
        .expect("a session");
    for links in 1..5 {
        round_trip(&mut transport, b"again").await;
        assert_eq!(calls.load(Relaxed), links);
        proxy.cut_now(Close::Reset);
        until_resumed(&transport, links.into()).await;
    }
}
