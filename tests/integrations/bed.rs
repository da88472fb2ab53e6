//! A listener behind a proxy that cuts its links, and clients that reach it.

use std::{
    cell::Cell,
    convert::Infallible,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{sleep, timeout};
use tower::{Service, ServiceExt};
use unbroken::{
    Config, Connector, Handle, Listener, ResumableTransport, Security, Snet, TcpConnector,
};

use crate::cutting_proxy::{BUFFERING, CuttingProxy, Faults, SEND_OVERSHOOT};

/// N: bytes of what was sent that each end keeps, over snet.
const HISTORY: usize = 1 << 20;

/// Most bytes in each of SO_SNDBUF and SO_RCVBUF of both ends, over snet.
pub(crate) const SOCKET_BUFFER: usize = 64 << 10;

// What a cut can lose in one direction: the sender's send buffer with its overshoot, the proxy, the receiver's receive buffer.
const _: () = assert!(2 * SOCKET_BUFFER + SEND_OVERSHOOT + BUFFERING <= HISTORY / 2);

/// After which time a test counts as hung.
const HUNG: Duration = Duration::from_secs(60);

/// Until there is a session, a link that is cut is the caller's to dial again, after this time.
const FIRST_REDIAL: Duration = Duration::from_millis(5);

/// How often a test is run until its links were cut often enough.
const ATTEMPTS: u32 = 4;

/// After how long without a byte a link is replaced.
const SILENCE: Duration = Duration::from_millis(500);

/// How often a counter that nothing announces is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(1);

/// What the sessions speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// snet with RC4.
    Snet,
    /// native in the clear.
    Native,
    /// native under Noise.
    #[cfg(feature = "noise")]
    Noise,
}

impl Spoken {
    /// Whether a shutdown reaches the peer as the end of the stream.
    pub(crate) fn tells_the_end(self) -> bool {
        self != Self::Snet
    }

    /// Both ends' part in it, impatient as tests are.
    pub(crate) fn config(self) -> Config {
        let config = match self {
            Self::Snet => Config::new().snet(
                Snet::rc4()
                    .history(HISTORY)
                    .socket_buffer(SOCKET_BUFFER)
                    .silence(SILENCE),
            ),
            Self::Native => Config::new()
                .security(Security::none())
                .keepalive(SILENCE / 2, SILENCE),
            #[cfg(feature = "noise")]
            Self::Noise => Config::new().keepalive(SILENCE / 2, SILENCE),
        };
        config
            .retry(Duration::from_millis(2), Duration::from_millis(50))
            .handshake_timeout(Duration::from_secs(2))
    }
}

/// A test of a function that takes what is [`Spoken`].
macro_rules! test_over {
    ($test:ident, $name:ident, $spoken:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            crate::bed::under_cuts(|| super::$name(crate::bed::Spoken::$spoken)).await;
        }
    };
}
pub(crate) use test_over;

/// Makes tests of such functions, over each.
macro_rules! over_each {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            crate::bed::test_over!(over_snet, $name, Snet);
            crate::bed::test_over!(over_native, $name, Native);
            #[cfg(feature = "noise")]
            crate::bed::test_over!(over_noise, $name, Noise);
        }
    )*};
}
pub(crate) use over_each;

/// The same without snet, which has no end of a stream.
macro_rules! over_native {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            crate::bed::test_over!(over_native, $name, Native);
            #[cfg(feature = "noise")]
            crate::bed::test_over!(over_noise, $name, Noise);
        }
    )*};
}
pub(crate) use over_native;

tokio::task_local! {
    /// Whether fewer links were cut than the test wants.
    static TOO_FEW: Cell<bool>;
}

/// Runs a test, and again with other faults if it turns out to have met with too few cuts: how many come, and when, is a matter of
/// chance. A hang fails.
pub(crate) async fn under_cuts<F: Future<Output = ()>>(test: impl Fn() -> F) {
    for _ in 0..ATTEMPTS {
        let attempt = async {
            within(test()).await;
            TOO_FEW.with(Cell::get)
        };
        if !TOO_FEW.scope(Cell::new(false), attempt).await {
            return;
        }
    }
    panic!("too few cuts in each of {ATTEMPTS} attempts");
}

/// A hang fails.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    let done = timeout(HUNG, work).await;
    done.unwrap_or_else(|_| panic!("not done after {HUNG:?}"))
}

/// Whether this is an error of hyper's for a body over HTTP/1 that does not say why: it may come upon the end of the session by writing,
/// at the same moment, and then the body is told without the cause.
#[cfg(feature = "hyper")]
pub(crate) fn is_without_cause(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut sources = std::iter::successors(Some(error), |error| error.source());
    sources.any(|error| error.to_string() == "connection error")
}

/// The seed of the faults, which is printed; `UNBROKEN_SEED` sets it.
fn seed() -> u64 {
    let seed = match std::env::var("UNBROKEN_SEED") {
        Ok(seed) => seed.parse().expect("UNBROKEN_SEED is a u64"),
        Err(_) => rand::random(),
    };
    println!("UNBROKEN_SEED={seed}");
    seed
}

/// What a [`Bed`] does to links, unless it is told.
pub(crate) fn faults(cut_bytes: u64) -> Faults {
    Faults {
        cut_bytes: Some(cut_bytes),
        outage: 0.03,
        outage_for: Duration::from_millis(100),
        ..Faults::harsh(seed(), Duration::from_millis(100))
    }
}

/// A proxy that cuts, in front of a server, and the sessions that were opened through it.
pub(crate) struct Bed {
    pub(crate) proxy: CuttingProxy,
    pub(crate) spoken: Spoken,
    opened: Arc<Mutex<Vec<Handle>>>,
}

impl Bed {
    /// A listener, behind a proxy that cuts each link after about so many bytes in a direction, or after 100 ms in the mean.
    pub(crate) async fn start(spoken: Spoken, cut_bytes: u64) -> (Self, Listener) {
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0), spoken.config()).await;
        let listener = listener.expect("a free port");
        let addr = listener.local_addr().expect("its address");
        (Self::before(addr, spoken, cut_bytes).await, listener)
    }

    /// Such a proxy before a server of another kind.
    pub(crate) async fn before(server: SocketAddr, spoken: Spoken, cut_bytes: u64) -> Self {
        Self::with(server, spoken, faults(cut_bytes)).await
    }

    /// A listener, behind a slow proxy that cuts each link after 10 ms in the mean, in which it carries 40 KiB each way: for streams
    /// that go one way for long, while a cut may be due after so many bytes in the other.
    pub(crate) async fn paced(spoken: Spoken) -> (Self, Listener) {
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0), spoken.config()).await;
        let listener = listener.expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let faults = Faults {
            rate: Some(4 << 20),
            silent: 0.01,
            outage: 0.0,
            ..Faults::harsh(seed(), Duration::from_millis(10))
        };
        (Self::with(addr, spoken, faults).await, listener)
    }

    /// One that does such to its links.
    pub(crate) async fn with(server: SocketAddr, spoken: Spoken, faults: Faults) -> Self {
        Self {
            proxy: CuttingProxy::start(server, faults).await.expect("a proxy"),
            spoken,
            opened: Arc::default(),
        }
    }

    /// Where clients connect to.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.proxy.addr()
    }

    #[cfg(feature = "hyper")]
    pub(crate) fn uri(&self, path: &str) -> http::Uri {
        let uri = format!("http://{}{path}", self.addr());
        uri.parse().expect("a URI")
    }

    /// Opens sessions over TCP, patiently.
    pub(crate) fn connector(&self) -> Patient<Connector<TcpConnector>> {
        self.patient(Connector::new(TcpConnector::new(), self.spoken.config()))
    }

    /// Tries until a session is open, and remembers it.
    pub(crate) fn patient<C>(&self, inner: C) -> Patient<C> {
        Patient {
            inner,
            opened: self.opened.clone(),
        }
    }

    /// A session.
    pub(crate) async fn connect(&self) -> ResumableTransport {
        let Ok(transport) = self.connector().oneshot(self.addr()).await;
        transport
    }

    /// The client's ends of those that were opened, in that order.
    pub(crate) fn sessions(&self) -> Vec<Handle> {
        self.opened.lock().expect("no panic").clone()
    }

    /// The links have been cut, and the sessions resumed, so many times or more; or the test is run [again](under_cuts).
    pub(crate) fn assert_cut(&self, times: u64) {
        let sessions = self.sessions();
        let resumes: u64 = sessions.iter().map(|end| end.stats().resumes).sum();
        let stats = self.proxy.stats();
        let breaks = stats.cut + stats.silenced;
        println!("{} sessions, {resumes} resumes, {stats:?}", sessions.len());
        let too_few = breaks < times || resumes < times;
        let again = too_few && TOO_FEW.try_with(|flag| flag.set(true)).is_ok();
        assert!(!too_few || again, "{breaks} cuts, {resumes} resumes");
    }
}

/// A connector that tries until a session is open, for a session that has not been opened cannot be resumed.
#[derive(Clone)]
pub(crate) struct Patient<C> {
    inner: C,
    opened: Arc<Mutex<Vec<Handle>>>,
}

impl<C, T> Service<T> for Patient<C>
where
    C: Service<T, Response = ResumableTransport> + Clone + Send + 'static,
    C::Future: Send,
    C::Error: Send,
    T: Clone + Send + 'static,
{
    type Response = ResumableTransport;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<ResumableTransport, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: T) -> Self::Future {
        let Self { inner, opened } = self.clone();
        Box::pin(async move {
            loop {
                if let Ok(transport) = inner.clone().oneshot(target.clone()).await {
                    opened.lock().expect("no panic").push(transport.handle());
                    return Ok(transport);
                }
                sleep(FIRST_REDIAL).await;
            }
        })
    }
}
