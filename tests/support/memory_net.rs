//! A client that dials in-memory links, and the acceptor at their other ends.

// Each of its users takes a part of it.
#![allow(dead_code)]

use std::{
    collections::VecDeque,
    future::{Future, pending},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{Notify, mpsc},
    time::{Instant, timeout},
};
use tower::{Service, ServiceExt};
use unbroken::{
    Accepted, Acceptor, CloseReason, Config, Connector, Error, Handle, LinkState, Refusal,
    ResumableTransport, Snet,
};

use super::{
    memory_link::{Client, Fault, MemoryLink, Server, Side, Wire, slow_link},
    setup,
};

/// After how long a test counts as hung; virtual time, or real time where sockets are.
pub(crate) const HUNG: Duration = Duration::from_secs(60);

/// Bytes a link holds in each direction, where the test does not care.
pub(crate) const ROOMY: usize = 64 << 10;

/// How a dial goes.
#[derive(Clone, Debug)]
pub(crate) enum Dial {
    /// The acceptor takes the other end.
    Serve,
    /// The same, and the link is reset once so many bytes were delivered from a side.
    CutAt(Side, usize),
    /// It fails.
    Refuse,
    /// It never ends.
    Hang,
    /// It waits for the test, then goes like [`Dial::Serve`].
    Wait(Arc<Notify>),
    /// Nobody does anything at the other end, which the test can [take](Net::ignored).
    Ignore,
}

/// Both ends of a network.
pub(crate) struct Net {
    shared: Arc<Shared>,
    accepted: mpsc::UnboundedReceiver<Result<Accepted, Error>>,
}

struct Shared {
    capacity: usize,
    /// How long bytes are on their way.
    delay: Duration,
    accepted: mpsc::UnboundedSender<Result<Accepted, Error>>,
    state: Mutex<State>,
}

struct State {
    acceptor: Acceptor,
    usual: Dial,
    planned: VecDeque<Dial>,
    dials: Vec<Instant>,
    /// The links that dials gave.
    dialled: Vec<Wire>,
    wires: Vec<Wire>,
    ignored: VecDeque<MemoryLink>,
}

impl Net {
    /// A server configured like this, with links that hold `capacity` bytes in each direction.
    pub(crate) fn new(server: &Config, capacity: usize) -> Self {
        Self::slow(server, capacity, Duration::ZERO)
    }

    /// The same, with links whose bytes take `delay` to arrive.
    pub(crate) fn slow(server: &Config, capacity: usize, delay: Duration) -> Self {
        let (sender, accepted) = mpsc::unbounded_channel();
        let state = State {
            acceptor: Acceptor::new(server.clone()),
            usual: Dial::Serve,
            planned: VecDeque::new(),
            dials: Vec::new(),
            dialled: Vec::new(),
            wires: Vec::new(),
            ignored: VecDeque::new(),
        };
        Self {
            shared: Arc::new(Shared {
                capacity,
                delay,
                accepted: sender,
                state: Mutex::new(state),
            }),
            accepted,
        }
    }

    /// What dials, for a [`Connector`].
    pub(crate) fn dialer(&self) -> Dialer {
        Dialer(self.shared.clone(), None)
    }

    /// The same, from an address that the acceptor is told.
    pub(crate) fn dialer_from(&self, addr: SocketAddr) -> Dialer {
        Dialer(self.shared.clone(), Some(addr))
    }

    /// How dials go from now on.
    pub(crate) fn set(&self, dial: Dial) {
        self.shared.lock().usual = dial;
    }

    /// How the next dials go, before the usual again.
    pub(crate) fn plan(&self, dials: impl IntoIterator<Item = Dial>) {
        self.shared.lock().planned.extend(dials);
    }

    /// All links are reset, and no dial gives another, planned or not.
    pub(crate) fn isolate(&self) {
        let wires = {
            let mut state = self.shared.lock();
            state.usual = Dial::Refuse;
            state.planned.clear();
            state.wires.clone()
        };
        wires.iter().for_each(|wire| wire.cut(Fault::Reset));
    }

    /// The server has forgotten all its sessions.
    pub(crate) fn restart_server(&self, server: &Config) {
        self.shared.lock().acceptor = Acceptor::new(server.clone());
    }

    pub(crate) fn acceptor(&self) -> Acceptor {
        self.shared.lock().acceptor.clone()
    }

    /// When dials began.
    pub(crate) fn dials(&self) -> Vec<Instant> {
        self.shared.lock().dials.clone()
    }

    /// The links that dials gave, in the order in which they did.
    pub(crate) fn dialled(&self) -> Vec<Wire> {
        self.shared.lock().dialled.clone()
    }

    /// How many links there have been.
    pub(crate) fn links(&self) -> usize {
        self.shared.lock().wires.len()
    }

    /// The link made as number `number`, from 0.
    pub(crate) fn wire(&self, number: usize) -> Wire {
        self.shared.lock().wires[number].clone()
    }

    /// The newest link.
    pub(crate) fn newest(&self) -> Wire {
        self.wire(self.links() - 1)
    }

    /// The server's end of the oldest link that was ignored and has not been taken yet.
    pub(crate) async fn ignored(&self) -> MemoryLink {
        until("a link to an ignoring server", || {
            self.shared.lock().ignored.pop_front()
        })
        .await
    }

    /// A new link for a raw client, whose other end the acceptor takes.
    pub(crate) fn raw_link(&self) -> (MemoryLink, Wire) {
        self.dialer().raw_link()
    }

    /// The same, from an address that the acceptor is told.
    pub(crate) fn raw_link_from(&self, addr: SocketAddr) -> (MemoryLink, Wire) {
        self.dialer_from(addr).raw_link()
    }

    /// What came of the next link that the acceptor is done with.
    pub(crate) async fn outcome(&mut self) -> Result<Accepted, Error> {
        within("the acceptor's next outcome", self.accepted.recv())
            .await
            .expect("the sender is never dropped")
    }

    /// From now on, what comes of the links is for whoever has this.
    pub(crate) fn take_outcomes(&mut self) -> mpsc::UnboundedReceiver<Result<Accepted, Error>> {
        std::mem::replace(&mut self.accepted, mpsc::unbounded_channel().1)
    }

    /// The next error of the acceptor, which is done with a link.
    pub(crate) async fn failure(&mut self) -> Error {
        match self.outcome().await {
            Ok(accepted) => panic!("{accepted:?} instead of an error"),
            Err(error) => error,
        }
    }

    /// The next new session, whatever else the acceptor is done with meanwhile.
    pub(crate) async fn session(&mut self) -> ResumableTransport {
        loop {
            if let Ok(Accepted::New(transport)) = self.outcome().await {
                return transport;
            }
        }
    }

    /// The session that a raw client has just opened.
    pub(crate) async fn opened(&mut self) -> ResumableTransport {
        match self.outcome().await {
            Ok(Accepted::New(transport)) => transport,
            other => panic!("{other:?} instead of a new session"),
        }
    }

    /// A client's and a server's end of a new session.
    pub(crate) async fn open(
        &mut self,
        client: &Config,
    ) -> (ResumableTransport, ResumableTransport) {
        let connector = Connector::new(self.dialer(), client.clone());
        let client = within("opening", connector.oneshot(()))
            .await
            .expect("the session opens");
        (client, self.session().await)
    }

    /// Resets the newest link, and waits until both ends have noticed. Dials fail from now on.
    pub(crate) async fn lose(&self, client: &ResumableTransport, server: &ResumableTransport) {
        self.set(Dial::Refuse);
        self.newest().cut(Fault::Reset);
        for end in [client, server] {
            state(&end.handle(), |state| {
                matches!(state, LinkState::Reconnecting { .. })
            })
            .await;
        }
    }

    /// Resets the newest link and waits until both ends are on another.
    pub(crate) async fn cut_and_resume(
        &self,
        client: &ResumableTransport,
        server: &ResumableTransport,
    ) {
        let resumes = [client, server].map(|end| end.handle().stats().resumes);
        self.newest().cut(Fault::Reset);
        for (end, resumes) in [client, server].into_iter().zip(resumes) {
            resumed(&end.handle(), resumes + 1).await;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics under this lock")
    }

    fn serve(self: &Arc<Self>, end: MemoryLink, addr: Option<SocketAddr>) {
        let acceptor = self.lock().acceptor.clone();
        let accepted = self.accepted.clone();
        tokio::spawn(async move {
            let outcome = match addr {
                Some(addr) => acceptor.accept_from(end, addr).await,
                None => acceptor.accept(end).await,
            };
            // The test may be over.
            let _ = accepted.send(outcome);
        });
    }

    fn make_link(self: &Arc<Self>) -> (MemoryLink, MemoryLink, Wire) {
        let (client, server, wire) = slow_link(self.capacity, self.delay);
        self.lock().wires.push(wire.clone());
        (client, server, wire)
    }
}

/// Dials the net's server.
#[derive(Clone)]
pub(crate) struct Dialer(Arc<Shared>, Option<SocketAddr>);

impl Dialer {
    /// A new link for a raw client, as [`Net::raw_link`] gives it.
    pub(crate) fn raw_link(&self) -> (MemoryLink, Wire) {
        let Self(net, addr) = self;
        let (client, server, wire) = net.make_link();
        net.serve(server, *addr);
        (client, wire)
    }
}

impl Service<()> for Dialer {
    type Response = MemoryLink;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<MemoryLink>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let Self(net, addr) = self.clone();
        Box::pin(async move {
            let dial = {
                let mut state = net.lock();
                state.dials.push(Instant::now());
                let planned = state.planned.pop_front();
                planned.unwrap_or_else(|| state.usual.clone())
            };
            match &dial {
                Dial::Refuse => return Err(io::ErrorKind::ConnectionRefused.into()),
                Dial::Hang => pending::<()>().await,
                Dial::Wait(go_on) => go_on.notified().await,
                Dial::Serve | Dial::CutAt(..) | Dial::Ignore => {}
            }
            let (client, server, wire) = net.make_link();
            net.lock().dialled.push(wire.clone());
            match dial {
                Dial::Ignore => net.lock().ignored.push_back(server),
                Dial::CutAt(side, count) => {
                    wire.cut_at(side, count);
                    net.serve(server, addr);
                }
                _ => net.serve(server, addr),
            }
            Ok(client)
        })
    }
}

/// snet without a cipher, and without a clock that doubts silent links.
pub(crate) fn plain() -> Config {
    native().snet(Snet::plain().silence(None))
}

/// The same with another history.
pub(crate) fn plain_history(bytes: usize) -> Config {
    native().snet(Snet::plain().silence(None).history(bytes))
}

/// native, protected as the tests of this binary are.
pub(crate) fn native() -> Config {
    Config::new().security(setup::security())
}

/// The same with this window.
pub(crate) fn native_window(bytes: usize) -> Config {
    native().window(bytes)
}

/// What a test speaks whose body is the same for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Snet,
    Native,
}

impl Protocol {
    pub(crate) fn config(self) -> Config {
        match self {
            Self::Snet => plain(),
            Self::Native => native(),
        }
    }

    /// The same, keeping so much of what was sent.
    pub(crate) fn keeping(self, bytes: usize) -> Config {
        match self {
            Self::Snet => plain_history(bytes),
            Self::Native => native_window(bytes),
        }
    }

    /// How many bytes of handshake a client sends on resume, before it goes on.
    pub(crate) fn resume_sent(self) -> usize {
        match self {
            Self::Snet => RESUME_SENT,
            Self::Native => NATIVE_RESUME + NATIVE_CONFIRM,
        }
    }

    /// The same of a server, on resume.
    pub(crate) fn resume_reply(self) -> usize {
        match self {
            Self::Snet => REPLY,
            Self::Native => NATIVE_RESUMED,
        }
    }

    /// Why a session is over for a client whose server knows nothing of it.
    pub(crate) fn unknown(self) -> CloseReason {
        CloseReason::Refused(match self {
            Self::Snet => Refusal::Unexplained,
            Self::Native => Refusal::Unknown,
        })
    }
}

/// Makes two tests of each function that takes the [`Protocol`]: `over_snet` and `over_native` in a module of its name. In virtual time,
/// but for those behind `real_time`.
// Each of its users takes a part of it.
#[allow(unused_macros)]
macro_rules! over_both {
    (real_time: $($name:ident),* $(,)?) => {
        over_both!(@ [#[tokio::test]] $($name),*);
    };
    ($($name:ident),* $(,)?) => {
        over_both!(@ [#[tokio::test(start_paused = true)]] $($name),*);
    };
    (@ $test:tt $($name:ident),*) => {$(
        over_both!(@@ $test $name);
    )*};
    (@@ [$($test:tt)*] $name:ident) => {
        mod $name {
            use super::super::memory_net::Protocol;

            $crate::setup::with_snet! {
                $($test)*
                async fn over_snet() {
                    super::$name(Protocol::Snet).await;
                }
            }

            $($test)*
            async fn over_native() {
                super::$name(Protocol::Native).await;
            }
        }
    };
}
#[allow(unused_imports)]
pub(crate) use over_both;

/// Bounds a wait.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    timeout(HUNG, future)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Waits until `look` finds something that nothing announces.
pub(crate) async fn until<R>(what: &str, mut look: impl FnMut() -> Option<R>) -> R {
    within(what, async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
}

/// Waits until a session's state is like this, for longer than any session of these tests lasts.
pub(crate) async fn state(handle: &Handle, is_like: impl FnMut(&LinkState) -> bool) -> LinkState {
    let mut states = handle.subscribe();
    let state = timeout(Duration::from_secs(60 * 60), states.wait_for(is_like))
        .await
        .expect("the session's state changes in time")
        .expect("the handle holds the sender");
    state.clone()
}

/// Waits until a session is over.
pub(crate) async fn closed(handle: &Handle) -> CloseReason {
    match state(handle, |state| matches!(state, LinkState::Closed(_))).await {
        LinkState::Closed(reason) => reason,
        state => panic!("{state:?} is not closed"),
    }
}

/// Waits until a link is attached.
pub(crate) async fn connected(handle: &Handle) {
    within(
        "a link",
        state(handle, |state| *state == LinkState::Connected),
    )
    .await;
}

/// Waits until so many links have been attached after the first.
pub(crate) async fn resumed(handle: &Handle, times: u64) {
    until("a resume", || {
        (handle.stats().resumes >= times && handle.state() == LinkState::Connected).then_some(())
    })
    .await;
}

/// Bytes among which any that is lost, doubled or moved shows.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        // xorshift64
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Writes all and flushes.
pub(crate) async fn send(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    within("writing", async {
        to.write_all(bytes).await?;
        to.flush().await
    })
    .await
    .expect("writing");
}

/// Reads what must come next.
pub(crate) async fn expect(from: &mut (impl AsyncRead + Unpin), bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    within("reading", from.read_exact(&mut read))
        .await
        .expect("reading");
    assert!(
        read == bytes,
        "bytes were lost, doubled, changed or reordered"
    );
}

/// Sees that nothing more comes. It takes a while.
pub(crate) async fn expect_nothing(from: &mut (impl AsyncRead + Unpin)) {
    let mut byte = [0];
    let more = timeout(Duration::from_millis(300), from.read(&mut byte)).await;
    assert!(more.is_err(), "{more:?} though nothing is to come");
}

/// Reads the end of the peer's stream.
pub(crate) async fn expect_end(from: &mut (impl AsyncRead + Unpin)) {
    let more = within("the end", from.read(&mut [0])).await;
    assert_eq!(more.expect("the end"), 0);
}

/// Reads the error that the session ends with.
pub(crate) async fn read_error(from: &mut (impl AsyncRead + Unpin)) -> io::Error {
    within("the session's end", from.read(&mut [0]))
        .await
        .expect_err("the session has ended with an error")
}

/// Why the session is over, found in an error that reading or writing returned.
pub(crate) fn reason(error: &io::Error) -> CloseReason {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::Closed(reason)) => *reason,
        _ => panic!("{error:?} is not the end of a session"),
    }
}

/// Sends one way and the other.
pub(crate) async fn exchange(client: &mut ResumableTransport, server: &mut ResumableTransport) {
    for seed in 0..3 {
        let bytes = pattern(seed, 100);
        send(client, &bytes).await;
        expect(server, &bytes).await;
        send(server, &bytes).await;
        expect(client, &bytes).await;
    }
}

/// How many bytes of handshake a client sends over snet.
pub(crate) const OPEN_SENT: usize = 9 + 16;
/// The same on resume.
pub(crate) const RESUME_SENT: usize = 41 + 16;
/// How many a server sends, on either.
pub(crate) const REPLY: usize = 24;

/// The handshake's messages over native, the client's first ones with the prelude.
pub(crate) const NATIVE_OPEN: usize = 16 + setup::FIRST + 4 + 8;
pub(crate) const NATIVE_OPENED: usize = setup::SECOND + 4 + 64;
pub(crate) const NATIVE_RESUME: usize = 16 + setup::FIRST + 4 + 44;
pub(crate) const NATIVE_RESUMED: usize = setup::SECOND + 4 + 56;
pub(crate) const NATIVE_CONFIRM: usize = setup::RECORD + 4 + 40;

/// What `side` wrote on an snet link after the handshake.
pub(crate) fn stream(wire: &Wire, side: Side) -> Vec<u8> {
    let written = wire.written(side);
    let handshake = match (side, wire.written(Client)[0]) {
        (Server, _) => REPLY,
        (Client, 0) => OPEN_SENT,
        (Client, _) => RESUME_SENT,
    };
    written[handshake..].to_vec()
}
