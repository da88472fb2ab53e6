//! A TCP proxy on loopback that breaks links on purpose.
//!
//! Each link it accepts gets a fate drawn from the seed: when it ends (after a time, or after a number of bytes in one direction),
//! how (reset, orderly end, or silence), and whether new links are refused for a while afterwards. The nth accepted link of a seed
//! has the same fate in every run; what the fate cuts through depends on the scheduler.
//!
//! A silent link is not read either. Bytes read and dropped would leave the sender believing them delivered, and no history of
//! fixed size could make up for that; what a stopped link holds is at most [`BUFFERING`]. [`Traffic::Swallow`] does read and drop,
//! for tests that want just that.
//!
//! Runs inside a tokio runtime with I/O and time enabled.

// Each of its users takes a part of it.
#![allow(dead_code)]

use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

pub(crate) use faults::{Close, Faults};
use faults::{Direction, Fate};

#[path = "cutting_faults.rs"]
mod faults;

/// Bytes asked for as SO_SNDBUF and SO_RCVBUF of every socket of the proxy; Linux grants twice that.
const SOCKET_BUFFER: u32 = 16 * 1024;

/// Bytes read at once, per link and direction.
const COPY_BUFFER: usize = 16 * 1024;

/// Bytes a Linux TCP socket may queue beyond its SO_SNDBUF: the limit is looked at only before a new segment is begun, and a
/// segment on loopback grows to 64 KiB. A sender at the end of a path has the same overshoot.
pub(crate) const SEND_OVERSHOOT: usize = 64 * 1024;

/// The most bytes the proxy and its sockets hold per link and direction: receive buffer, copy buffer, send buffer with overshoot.
/// Add it to what both ends' sockets can hold to know what a cut can lose.
pub(crate) const BUFFERING: usize = 4 * SOCKET_BUFFER as usize + COPY_BUFFER + SEND_OVERSHOOT;

/// How long the sockets of an orderly end stay open, unread: closing at once over unread input would turn the FIN into a reset.
const FIN_GRACE: Duration = Duration::from_millis(20);

/// How often a silent link looks whether its peers are gone; readiness says so only when asked.
const GONE_POLL: Duration = Duration::from_millis(10);

/// Unspent time a paced direction may make up for, so that late timers do not lower the rate.
const BURST: Duration = Duration::from_millis(10);

/// What the proxy does with the bytes of all its links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Forwards them.
    Forward,
    /// Leaves them unread. Nothing is lost when forwarding goes on.
    Hold,
    /// Reads and drops them, ends of streams included. [`BUFFERING`] does not hold then.
    Swallow,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    /// Links taken and carried to the upstream.
    pub(crate) accepted: u64,
    /// Links reset at once: in an outage, on request, or because the upstream was not there.
    pub(crate) refused: u64,
    /// Links cut, by fate or by [`CuttingProxy::cut_now`].
    pub(crate) cut: u64,
    /// Links gone silent.
    pub(crate) silenced: u64,
    /// Links open now, silent ones included.
    pub(crate) live: u64,
    /// Bytes forwarded to the upstream.
    pub(crate) up: u64,
    /// Bytes forwarded from the upstream.
    pub(crate) down: u64,
    /// Bytes dropped by [`Traffic::Swallow`].
    pub(crate) swallowed: u64,
}

/// A running proxy. Dropping it closes the port and every link, as soon as the runtime gets to it.
#[derive(Debug)]
pub(crate) struct CuttingProxy {
    addr: SocketAddr,
    buffering: usize,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl CuttingProxy {
    /// Listens on a free loopback port for links to `upstream`. Fails where the system grants larger socket buffers than
    /// [`BUFFERING`] counts with.
    pub(crate) async fn start(upstream: SocketAddr, faults: Faults) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        bound_buffers(&socket)?;
        let granted = socket.recv_buffer_size()? + socket.send_buffer_size()?;
        let buffering = granted as usize + COPY_BUFFER + SEND_OVERSHOOT;
        if buffering > BUFFERING {
            let why = format!("the proxy may hold {buffering} bytes, not {BUFFERING} at most");
            return Err(io::Error::other(why));
        }
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listener = socket.listen(1024)?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            rate: faults.rate.map(|rate| rate.max(1)),
            silent_for: faults.silent_for,
            control: watch::Sender::new(Control {
                upstream,
                traffic: Traffic::Forward,
                faulty: true,
                refusing: false,
                outage_until: None,
                cuts: 0,
                close: Close::Reset,
            }),
            counters: Counters::default(),
        });
        let accepting = tokio::spawn(accept(listener, faults, shared.clone()));
        Ok(Self {
            addr,
            buffering,
            shared,
            accepting,
        })
    }

    /// Where clients connect to.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The most bytes that one link's one direction can have inside the proxy and its sockets; at most [`BUFFERING`].
    pub(crate) fn buffering(&self) -> usize {
        self.buffering
    }

    /// The counters now.
    pub(crate) fn stats(&self) -> Stats {
        let c = &self.shared.counters;
        Stats {
            accepted: c.accepted.load(Relaxed),
            refused: c.refused.load(Relaxed),
            cut: c.cut.load(Relaxed),
            silenced: c.silenced.load(Relaxed),
            live: c.live.load(Relaxed),
            up: c.up.load(Relaxed),
            down: c.down.load(Relaxed),
            swallowed: c.swallowed.load(Relaxed),
        }
    }

    /// From now on no fate is executed: live and new links last, an outage ends, silent links are reset. The rate stays.
    pub(crate) fn stop_faults(&self) {
        self.shared.control.send_modify(|control| {
            control.faulty = false;
            control.outage_until = None;
        });
    }

    /// Cuts all live links at once, the silent ones too.
    pub(crate) fn cut_now(&self, close: Close) {
        self.shared.control.send_modify(|control| {
            control.cuts += 1;
            control.close = close;
        });
    }

    /// What happens to the bytes of all links, now and later. New links are still accepted.
    pub(crate) fn set_traffic(&self, traffic: Traffic) {
        self.shared
            .control
            .send_modify(|control| control.traffic = traffic);
    }

    /// Whether new links are accepted and reset; live ones go on.
    pub(crate) fn set_refusing(&self, refusing: bool) {
        self.shared
            .control
            .send_modify(|control| control.refusing = refusing);
    }

    /// Where new links go from now on: a server that came back on another port.
    pub(crate) fn set_upstream(&self, upstream: SocketAddr) {
        self.shared
            .control
            .send_modify(|control| control.upstream = upstream);
    }
}

/// Between the handle and all tasks.
#[derive(Debug)]
struct Shared {
    rate: Option<u64>,
    silent_for: Duration,
    control: watch::Sender<Control>,
    counters: Counters,
}

/// What the handle steers, watched by every link.
#[derive(Debug)]
struct Control {
    upstream: SocketAddr,
    traffic: Traffic,
    faulty: bool,
    refusing: bool,
    outage_until: Option<Instant>,
    /// Requests to cut so far; a link is cut by those made after its accept.
    cuts: u64,
    close: Close,
}

/// Behind [`Stats`].
#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    refused: AtomicU64,
    cut: AtomicU64,
    silenced: AtomicU64,
    live: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    swallowed: AtomicU64,
}

/// Counts a link as live for as long as it exists, an aborted task included.
struct Live<'a>(&'a AtomicU64);

impl<'a> Live<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Accepted sockets inherit both sizes from the listener. Windows are agreed on connect, so this comes before it.
fn bound_buffers(socket: &TcpSocket) -> io::Result<()> {
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)
}

/// Owns the links: when it is aborted they are too.
async fn accept(listener: TcpListener, faults: Faults, shared: Arc<Shared>) {
    let mut rng = StdRng::seed_from_u64(faults.seed);
    let mut links = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = links.join_next() => continue,
        };
        let Ok((client, _)) = accepted else {
            // Out of descriptors, most likely: there is nothing to do but wait for some.
            sleep(GONE_POLL).await;
            continue;
        };
        let (refused, upstream, cuts) = {
            let control = shared.control.borrow();
            let outage = control
                .outage_until
                .is_some_and(|until| Instant::now() < until);
            (control.refusing || outage, control.upstream, control.cuts)
        };
        if refused {
            shared.counters.refused.fetch_add(1, Relaxed);
            reset(&client);
            continue;
        }
        let fate = faults.draw(&mut rng);
        links.spawn(carry(client, upstream, fate, cuts, shared.clone()));
    }
}

/// The proxy's own side of a link.
async fn dial(upstream: SocketAddr) -> io::Result<TcpStream> {
    let socket = match upstream {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    bound_buffers(&socket)?;
    let stream = socket.connect(upstream).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Makes the drop of the stream that follows a reset.
fn reset(stream: &TcpStream) {
    // It fails only on a socket that is gone already.
    let _ = stream.set_zero_linger();
}

/// Why a link stopped.
enum Stop {
    /// A peer reset it.
    Lost,
    /// Its fate is due.
    Due,
    /// The handle asked for it.
    Asked(Close),
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Stop::Lost
    }
}

/// One link, from accept to close.
async fn carry(
    mut client: TcpStream,
    upstream: SocketAddr,
    fate: Fate,
    cuts: u64,
    shared: Arc<Shared>,
) {
    let counters = &shared.counters;
    let mut control = shared.control.subscribe();
    // Ahead of the dial, which is part of the link's time.
    let due = fate.life.map(|life| Instant::now() + life);
    let mut server = match dial(upstream).await {
        Ok(server) if client.set_nodelay(true).is_ok() => server,
        _ => {
            counters.refused.fetch_add(1, Relaxed);
            return reset(&client);
        }
    };
    counters.accepted.fetch_add(1, Relaxed);
    let _live = Live::new(&counters.live);

    let stopped = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = Pump::new(Direction::Up, &fate, &shared).run(from_client, to_server);
        let down = Pump::new(Direction::Down, &fate, &shared).run(from_server, to_client);
        tokio::select! {
            both = async { tokio::try_join!(up, down) } => both.map(|_| ()),
            close = asked(&mut control, cuts) => Err(Stop::Asked(close)),
            () = time_out(due, &shared) => Err(Stop::Due),
        }
    };
    let close = match stopped {
        Ok(()) => return,
        Err(Stop::Lost) => {
            reset(&client);
            return reset(&server);
        }
        Err(Stop::Due) if fate.silent => {
            counters.silenced.fetch_add(1, Relaxed);
            let mut mended = shared.control.subscribe();
            tokio::select! {
                () = sleep(shared.silent_for) => {}
                _ = async { tokio::join!(gone(&client), gone(&server)) } => {}
                _ = asked(&mut control, cuts) => {}
                _ = mended.wait_for(|control| !control.faulty) => {}
            }
            reset(&client);
            return reset(&server);
        }
        Err(Stop::Due) => {
            if let Some(outage) = fate.outage {
                let until = Instant::now() + outage;
                shared
                    .control
                    .send_modify(|control| control.outage_until = Some(until));
            }
            fate.close
        }
        Err(Stop::Asked(close)) => close,
    };
    counters.cut.fetch_add(1, Relaxed);
    match close {
        Close::Reset => {
            reset(&client);
            reset(&server);
        }
        Close::Fin => {
            // Either may be gone already.
            let _ = tokio::join!(client.shutdown(), server.shutdown());
            sleep(FIN_GRACE).await;
        }
    }
}

/// Done when the handle asks for a cut after the link's accept.
async fn asked(control: &mut watch::Receiver<Control>, cuts: u64) -> Close {
    let newer = |control: &Control| control.cuts > cuts;
    let close = control.wait_for(newer).await.map(|control| control.close);
    match close {
        Ok(close) => close,
        Err(_) => pending().await,
    }
}

/// Done when the link's time is up, unless faults were stopped before.
async fn time_out(due: Option<Instant>, shared: &Shared) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
    if !shared.control.borrow().faulty {
        pending().await
    }
}

/// Done when the peer has closed or reset its side, whether or not unread bytes are left.
async fn gone(stream: &TcpStream) {
    while let Ok(ready) = stream.ready(Interest::READABLE).await {
        if ready.is_read_closed() {
            return;
        }
        sleep(GONE_POLL).await;
    }
}

/// One direction of a link.
struct Pump<'a> {
    /// Bytes until the link's fate is due.
    limit: Option<u64>,
    rate: Option<u64>,
    /// When, at the set rate, the bytes forwarded so far have passed.
    passed: Instant,
    control: watch::Receiver<Control>,
    forwarded: &'a AtomicU64,
    swallowed: &'a AtomicU64,
}

impl<'a> Pump<'a> {
    fn new(direction: Direction, fate: &Fate, shared: &'a Shared) -> Self {
        let counters = &shared.counters;
        Self {
            limit: fate
                .bytes
                .and_then(|(cut, bytes)| (cut == direction).then_some(bytes)),
            rate: shared.rate,
            passed: Instant::now(),
            control: shared.control.subscribe(),
            forwarded: match direction {
                Direction::Up => &counters.up,
                Direction::Down => &counters.down,
            },
            swallowed: &counters.swallowed,
        }
    }

    /// Forwards until the end of the stream, and the end with it.
    async fn run(mut self, from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Result<(), Stop> {
        let mut buf = vec![0; COPY_BUFFER];
        loop {
            let room = self.room()?;
            from.readable().await?;
            self.wait_while(Traffic::Hold).await?;
            let read = match from.try_read(&mut buf[..room]) {
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                Err(e) => return Err(e.into()),
            };
            if read == 0 {
                self.wait_while(Traffic::Swallow).await?;
                self.wait_while(Traffic::Hold).await?;
                to.shutdown().await?;
                return Ok(());
            }
            if self.control.borrow().traffic == Traffic::Swallow {
                self.swallowed.fetch_add(read as u64, Relaxed);
                continue;
            }
            self.forward(&buf[..read], &mut to).await?;
            self.pace(read).await;
        }
    }

    /// How much to read at once: a hundredth of a second's worth, at most the buffer, and not past the limit.
    fn room(&mut self) -> Result<usize, Stop> {
        if self.limit == Some(0) {
            if self.control.borrow().faulty {
                return Err(Stop::Due);
            }
            self.limit = None;
        }
        let room = COPY_BUFFER as u64;
        let room = self.rate.map_or(room, |rate| room.min((rate / 100).max(1)));
        Ok(self.limit.map_or(room, |limit| room.min(limit)) as usize)
    }

    /// Returns at once unless the handle asks for `traffic` now.
    async fn wait_while(&mut self, traffic: Traffic) -> Result<(), Stop> {
        let other = |control: &Control| control.traffic != traffic;
        self.control
            .wait_for(other)
            .await
            .map(drop)
            .map_err(|_| Stop::Lost)
    }

    /// Writes all of `bytes`; while traffic is held, none.
    async fn forward(&mut self, mut bytes: &[u8], to: &mut WriteHalf<'_>) -> Result<(), Stop> {
        while !bytes.is_empty() {
            to.writable().await?;
            self.wait_while(Traffic::Hold).await?;
            match to.try_write(bytes) {
                Ok(written) => {
                    bytes = &bytes[written..];
                    self.forwarded.fetch_add(written as u64, Relaxed);
                    if let Some(limit) = &mut self.limit {
                        *limit -= written as u64;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Waits until `bytes` more have passed at the set rate.
    async fn pace(&mut self, bytes: usize) {
        let Some(rate) = self.rate else { return };
        let now = Instant::now();
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        self.passed =
            self.passed.max(earliest) + Duration::from_secs_f64(bytes as f64 / rate as f64);
        if self.passed > now {
            sleep_until(self.passed).await;
        }
    }
}
