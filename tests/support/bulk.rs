//! Bulk both ways at once between two ends of ours, directly over loopback TCP, whose link is severed over and over.
//!
//! What arrives is compared on the fly with a pattern that tells every position. The client's links can be severed at any time: by
//! a reset, which destroys what both socket queues hold, or by a close; and before it they can be left unread, or the server can stop
//! reading, until all that can fill between the ends is full.

// Each of its users takes a part of it.
#![allow(dead_code)]

use std::{
    fmt,
    io::{self, IoSlice},
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, split},
    net::TcpStream,
    sync::{Barrier, Notify, watch},
    task::{JoinSet, yield_now},
    time::{sleep, timeout},
};
use tower::{Service, ServiceExt, service_fn};
use unbroken::{Config, Connector, Handle, Listener, ResumableTransport, TcpConnector};

/// Bytes that are written or read at once.
const CHUNK: usize = 16 << 10;

/// How often counters that nothing announces are looked at.
const POLL: Duration = Duration::from_millis(1);

/// After which time a run counts as hung.
const HUNG: Duration = Duration::from_secs(120);

/// The first byte of a client that resumes.
const RESUME: u8 = 0xff;

/// Bytes of a server's answer: its sent count, its received count, a challenge.
const REPLY: usize = 24;

/// After how many bytes the pattern repeats: a prime above the largest shift that lost or doubled bytes of a history of 1 MiB can
/// make, so that no shift goes unnoticed.
const PERIOD: usize = 2_097_169;

static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut pattern = vec![0; PERIOD + CHUNK];
    StdRng::seed_from_u64(1).fill_bytes(&mut pattern[..PERIOD]);
    pattern.copy_within(..CHUNK, PERIOD);
    pattern
});

/// The stream's bytes from `offset` on, at most [`CHUNK`]. The two directions differ.
fn pattern(way: Way, offset: u64, len: u64) -> &'static [u8] {
    let shift = match way {
        Way::Up => 0,
        Way::Down => PERIOD as u64 / 2,
    };
    let from = ((offset + shift) % PERIOD as u64) as usize;
    &PATTERN[from..from + len.min(CHUNK as u64) as usize]
}

/// Of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the server.
    Up,
    /// To the client.
    Down,
}

/// How a link ends, or stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fault {
    #[default]
    None,
    /// Nothing is read from it.
    Unread,
    Reset,
    Close,
}

/// The outside of the client's links, one after the other.
#[derive(Default)]
struct Links {
    newest: Mutex<Arc<Control>>,
    /// The offset up to which the newest link was handed the stream to the server.
    handed: AtomicU64,
    /// The most bytes of that stream that were destroyed with a link.
    largest_loss: AtomicU64,
}

impl Links {
    fn wrap(self: &Arc<Self>, stream: TcpStream) -> Link {
        let control = Arc::<Control>::default();
        *lock(&self.newest) = control.clone();
        Link {
            stream,
            control,
            links: self.clone(),
            greeting: None,
            written: 0,
            reply: Vec::new(),
        }
    }

    fn newest(&self) -> Arc<Control> {
        lock(&self.newest).clone()
    }

    /// The server has said up to which offset it has received the stream.
    fn received(&self, offset: u64) {
        let loss = self.handed.swap(offset, Relaxed).saturating_sub(offset);
        self.largest_loss.fetch_max(loss, Relaxed);
    }
}

/// The outside of one link.
#[derive(Default)]
struct Control {
    guarded: Mutex<Guarded>,
    spent: Notify,
}

#[derive(Default)]
struct Guarded {
    fault: Fault,
    wakers: [Option<Waker>; 2],
    /// After how many more written bytes `spent` is notified.
    budget: Option<u64>,
}

impl Control {
    fn set(&self, fault: Fault) {
        let wakers = {
            let mut guarded = lock(&self.guarded);
            guarded.fault = fault;
            guarded.wakers.each_mut().map(Option::take)
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// The fault now; `waker` is woken when it changes.
    fn watch(&self, way: Way, waker: &Waker) -> Fault {
        let mut guarded = lock(&self.guarded);
        guarded.wakers[usize::from(way == Way::Up)] = Some(waker.clone());
        guarded.fault
    }

    /// Done when this many more bytes have been written to the link.
    async fn written(&self, bytes: u64) {
        lock(&self.guarded).budget = Some(bytes);
        self.spent.notified().await;
    }

    fn spend(&self, bytes: u64) {
        let mut guarded = lock(&self.guarded);
        if let Some(budget) = &mut guarded.budget {
            *budget = budget.saturating_sub(bytes);
            if *budget == 0 {
                guarded.budget = None;
                self.spent.notify_one();
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A TCP stream that can be severed from outside, and that follows the handshake far enough to know what a cut destroys.
struct Link {
    stream: TcpStream,
    control: Arc<Control>,
    links: Arc<Links>,
    /// The first byte written: whether the link opens or resumes.
    greeting: Option<u8>,
    /// Bytes, the handshake's included.
    written: u64,
    /// The first bytes read.
    reply: Vec<u8>,
}

impl Link {
    /// Ready while the link is whole, with an error once it is severed.
    fn poll_whole(&self, way: Way, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.control.watch(way, cx.waker()) {
            Fault::None => Poll::Ready(Ok(())),
            Fault::Unread if way == Way::Up => Poll::Ready(Ok(())),
            Fault::Unread => Poll::Pending,
            Fault::Reset => {
                // The drop that follows the error resets the connection, and what its queue held is gone.
                self.stream.set_zero_linger()?;
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            Fault::Close => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
        }
    }

    /// Bytes that the client writes in its handshake.
    fn handshake(&self) -> u64 {
        match self.greeting {
            Some(RESUME) => 1 + 40 + 16,
            _ => 1 + 8 + 16,
        }
    }

    fn wrote(&mut self, bytes: &[u8], count: usize) {
        self.greeting = self.greeting.or_else(|| bytes.first().copied());
        let handshake = self.handshake();
        let before = self.written.max(handshake);
        self.written += count as u64;
        let data = self.written.max(handshake) - before;
        self.links.handed.fetch_add(data, Relaxed);
        self.control.spend(data);
    }

    fn has_read(&mut self, bytes: &[u8]) {
        let missing = REPLY - self.reply.len();
        if missing > 0 {
            self.reply.extend(&bytes[..missing.min(bytes.len())]);
            // Zeros are a refusal.
            if self.greeting == Some(RESUME)
                && self.reply.len() == REPLY
                && self.reply != [0; REPLY]
            {
                let received = self.reply[8..16].try_into().expect("8 bytes");
                self.links.received(u64::from_le_bytes(received));
            }
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_whole(Way::Down, cx))?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.has_read(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_whole(Way::Up, cx))?;
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.wrote(buf, count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_whole(Way::Up, cx))?;
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.wrote(&bufs[0], count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// How much is moved, and how it is disturbed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Bytes in each direction.
    pub(crate) bytes: u64,
    /// What happens between a resume and the next cut.
    pub(crate) cut_after: CutAfter,
    /// How long one end or both read nothing before three cuts of four, so that the queues fill.
    pub(crate) unread_for: Duration,
    /// Of the draws.
    pub(crate) seed: u64,
}

/// Drawn uniformly from between two limits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CutAfter {
    /// Time passes.
    Time(Duration, Duration),
    /// Bytes are written to the client's link.
    Bytes(u64, u64),
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    pub(crate) took: Duration,
    pub(crate) cuts: u64,
    /// As the client counts them.
    pub(crate) resumes: u64,
    /// Bytes.
    pub(crate) replayed: u64,
    /// The most bytes on their way to the server that were destroyed by a cut.
    pub(crate) largest_loss: u64,
    /// The largest [`unacknowledged`](unbroken::Stats::unacknowledged) that was seen, at either end.
    pub(crate) largest_unacknowledged: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2?}; {} cuts, {} resumes; {} bytes replayed; a cut destroyed at most {} upwards; at most {} unacknowledged",
            self.took,
            self.cuts,
            self.resumes,
            self.replayed,
            self.largest_loss,
            self.largest_unacknowledged,
        )
    }
}

/// A stream that did not arrive as it should.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) way: Way,
    /// Whether it shows where it is written or where it is read.
    pub(crate) writing: bool,
    pub(crate) offset: u64,
    pub(crate) error: io::Error,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = if self.writing { "writing" } else { "reading" };
        write!(
            f,
            "{doing} {:?}, offset {}: {}",
            self.way, self.offset, self.error
        )
    }
}

/// Moves [`Plan::bytes`] each way at once between two ends of this configuration.
pub(crate) fn run(config: Config, plan: Plan) -> Result<Report, Broken> {
    // Streams that are always ready keep the workers from looking at sockets and timers. At the default of 61, and without the
    // yields between chunks, cuts and resumes would come late by up to a second.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .event_interval(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async {
            // Not in the thread that blocks, which would be a third beside two workers.
            let moving = tokio::spawn(move_with_cuts(config, plan));
            let done = timeout(HUNG, moving).await;
            done.unwrap_or_else(|_| panic!("not done after {HUNG:?}"))
        })
        .expect("it does not panic")
}

async fn move_with_cuts(config: Config, plan: Plan) -> Result<Report, Broken> {
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0), config.clone()).await;
    let mut listener = listener.expect("a free port");
    let addr = listener.local_addr().expect("its address");
    let links = Arc::new(Links::default());
    let (client, accepted) = tokio::join!(connect(links.clone(), config, addr), listener.accept());
    let (server, _) = accepted.expect("a session");
    let (reading, server_reads) = watch::channel(true);
    let ends = [client.handle(), server.handle()];
    let mut cuts = 0;
    let mut largest_unacknowledged = 0;
    LazyLock::force(&PATTERN);
    let started = Instant::now();
    tokio::select! {
        moved = move_both_ways(client, server, server_reads, plan.bytes) => moved?,
        () = cut(&links, &reading, &ends[0], plan, &mut cuts) => {}
        () = observe(&ends, &mut largest_unacknowledged) => {}
    }
    let [client, server] = ends.map(|end| end.stats());
    Ok(Report {
        took: started.elapsed(),
        cuts,
        resumes: client.resumes,
        replayed: client.replayed + server.replayed,
        largest_loss: links.largest_loss.load(Relaxed),
        largest_unacknowledged,
    })
}

/// A session over links that can be severed. They are dialled within the connector's call, so that the bound on their socket
/// buffers reaches the dial.
async fn connect(links: Arc<Links>, config: Config, addr: SocketAddr) -> ResumableTransport {
    let dial = service_fn(move |addr: SocketAddr| {
        let links = links.clone();
        let dialling = TcpConnector::new().call(addr);
        async move { dialling.await.map(|stream| links.wrap(stream)) }
    });
    let connecting = Connector::new(dial, config).oneshot(addr);
    connecting.await.expect("a session, for nothing is cut yet")
}

/// Keeps both transports until all four ends of streams are done.
async fn move_both_ways(
    client: ResumableTransport,
    server: ResumableTransport,
    server_reads: watch::Receiver<bool>,
    bytes: u64,
) -> Result<(), Broken> {
    let (client_reading, client_writing) = split(client);
    let (server_reading, server_writing) = split(server);
    let (_always, client_reads) = watch::channel(true);
    let finish = Arc::new(Barrier::new(4));
    let mut ends = JoinSet::new();
    for (writing, way) in [(client_writing, Way::Up), (server_writing, Way::Down)] {
        let finish = finish.clone();
        ends.spawn(async move {
            let mut writing = writing;
            write_pattern(&mut writing, way, bytes).await?;
            finish.wait().await;
            Ok(())
        });
    }
    for (reading, way, gate) in [
        (server_reading, Way::Up, server_reads),
        (client_reading, Way::Down, client_reads),
    ] {
        let finish = finish.clone();
        ends.spawn(async move {
            let mut reading = reading;
            read_pattern(&mut reading, way, bytes, gate).await?;
            finish.wait().await;
            Ok(())
        });
    }
    while let Some(end) = ends.join_next().await {
        end.expect("no end panics")?;
    }
    Ok(())
}

/// Writes the first `bytes` of the pattern and flushes them.
pub(crate) async fn write_pattern(
    writing: &mut (impl AsyncWrite + Unpin),
    way: Way,
    bytes: u64,
) -> Result<(), Broken> {
    let mut offset = 0;
    let broken = |offset, error| Broken {
        way,
        writing: true,
        offset,
        error,
    };
    while offset < bytes {
        let chunk = pattern(way, offset, bytes - offset);
        let count = writing
            .write(chunk)
            .await
            .map_err(|error| broken(offset, error))?;
        offset += count as u64;
        yield_now().await;
    }
    writing.flush().await.map_err(|error| broken(offset, error))
}

/// Reads until `bytes` of the pattern have come, and only while `gate` is open.
pub(crate) async fn read_pattern(
    reading: &mut (impl AsyncRead + Unpin),
    way: Way,
    bytes: u64,
    mut gate: watch::Receiver<bool>,
) -> Result<(), Broken> {
    let mut offset = 0;
    let mut buf = vec![0; CHUNK];
    while offset < bytes {
        // Nobody shuts it for good.
        let _ = gate.wait_for(|open| *open).await;
        let result = match reading.read(&mut buf).await {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) if buf[..count] != *pattern(way, offset, count as u64) => Err(
                io::Error::other("these are not the bytes that were written"),
            ),
            other => other,
        };
        let count = result.map_err(|error| Broken {
            way,
            writing: false,
            offset,
            error,
        })?;
        offset += count as u64;
        yield_now().await;
    }
    Ok(())
}

/// Severs the client's links, one after the other, for ever.
async fn cut(
    links: &Links,
    server_reads: &watch::Sender<bool>,
    client: &Handle,
    plan: Plan,
    cuts: &mut u64,
) {
    let mut rng = StdRng::seed_from_u64(plan.seed);
    loop {
        let link = links.newest();
        match plan.cut_after {
            CutAfter::Time(least, most) => sleep(rng.random_range(least..=most)).await,
            CutAfter::Bytes(least, most) => link.written(rng.random_range(least..=most)).await,
        }
        let (client_pauses, server_pauses) = rng.random();
        if client_pauses {
            link.set(Fault::Unread);
        }
        if server_pauses {
            server_reads.send_replace(false);
        }
        if client_pauses || server_pauses {
            sleep(plan.unread_for).await;
        }
        let resumes = client.stats().resumes;
        link.set(if rng.random() {
            Fault::Reset
        } else {
            Fault::Close
        });
        *cuts += 1;
        server_reads.send_replace(true);
        while client.stats().resumes == resumes {
            sleep(POLL).await;
        }
    }
}

/// Takes down the largest [`unacknowledged`](unbroken::Stats::unacknowledged) of both ends, for ever.
async fn observe(ends: &[Handle; 2], largest: &mut u64) {
    loop {
        for end in ends {
            *largest = end.stats().unacknowledged.max(*largest);
        }
        sleep(POLL).await;
    }
}
