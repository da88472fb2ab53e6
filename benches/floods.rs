//! What floods cost the sessions beside them: paced honest sessions over loopback TCP, measured alone and then under each flood. Fails
//! if their throughput under one is less than four fifths of what it was before.
//!
//! Server, honest clients and attacker have a thread each. The attacker comes from an address of his own and does as much as his thread
//! can, so on a machine with fewer cores than that he takes processor time from the others as well.
//!
//! `cargo bench --bench floods`; a number sets other seconds than 3 for each measurement.

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use raw_native::Frames;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use unbroken::{
    Config, Listener, ResumableTransport, Security,
    protocol::{
        Handshake,
        native::{ClientOpen, ClientProtection, Frame, Id, Opened, SessionSecret},
    },
};

#[path = "../tests/support/raw_native.rs"]
mod raw_native;
#[path = "../tests/support/setup_clear.rs"]
mod setup;

/// Of each kind of honest session.
const HONEST: usize = 8;
/// Bytes a second of one that is bulk.
const RATE: usize = 20_000_000;
/// How often one that is bulk writes.
const TICK: Duration = Duration::from_millis(10);
/// How often one that is echoed says something.
const ECHO_EVERY: Duration = Duration::from_millis(5);
/// What it says.
const ECHO: usize = 64;
/// Sessions that the server lets an address open.
const MOST: usize = 1000;
/// Links of a slow loris.
const LORIS: usize = 1000;
/// Links that an attacker without patience works on at once.
const WORKERS: usize = 32;
/// How many links an attacker who does not confirm leaves open.
const HELD: usize = 1500;
/// How long a flood may rage before it is measured.
const RISE: Duration = Duration::from_secs(1);
/// The least part of the throughput that is to be left.
const AIM: f64 = 0.8;

/// What happens to honest sessions.
#[derive(Default)]
struct Honest {
    /// Bytes the server has read from those that are bulk.
    read: AtomicU64,
    /// How long echoes have taken.
    echoes: Mutex<Vec<Duration>>,
}

struct Measured {
    /// Bytes a second.
    throughput: f64,
    median: Duration,
    p99: Duration,
}

impl Honest {
    fn echoes(&self) -> MutexGuard<'_, Vec<Duration>> {
        self.echoes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn measure(&self, time: Duration) -> Measured {
        self.echoes().clear();
        let (began, before) = (Instant::now(), self.read.load(Relaxed));
        thread::sleep(time);
        let read = self.read.load(Relaxed) - before;
        let throughput = read as f64 / began.elapsed().as_secs_f64();
        let mut echoes = std::mem::take(&mut *self.echoes());
        echoes.sort_unstable();
        let at = |part: f64| {
            let place = (echoes.len() as f64 * part) as usize;
            echoes.get(place).copied().unwrap_or(time)
        };
        Measured {
            throughput,
            median: at(0.5),
            p99: at(0.99),
        }
    }
}

/// Runs a thread's part in a runtime of its own.
fn on_thread<F: Future<Output = ()>>(part: impl FnOnce() -> F + Send + 'static) {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(part());
    });
}

async fn serve(honest: Arc<Honest>, bound: mpsc::Sender<SocketAddr>) {
    let config = config().max_sessions_per_address(MOST);
    let mut listener = Listener::bind("127.0.0.1:0", config).await.expect("a port");
    let addr = listener.local_addr().expect("it is bound");
    bound.send(addr).expect("the main thread waits");
    loop {
        let (transport, _) = listener.accept().await.expect("the listener works");
        tokio::spawn(serve_one(transport, honest.clone()));
    }
}

async fn serve_one(mut transport: ResumableTransport, honest: Arc<Honest>) -> io::Result<()> {
    let kind = transport.read_u8().await?;
    let mut bytes = vec![0; 64 << 10];
    loop {
        let count = transport.read(&mut bytes).await?;
        match kind {
            _ if count == 0 => return Ok(()),
            b'B' => {
                honest.read.fetch_add(count as u64, Relaxed);
            }
            b'E' => {
                transport.write_all(&bytes[..count]).await?;
                transport.flush().await?;
            }
            // An attacker's.
            _ => {}
        }
    }
}

async fn be_honest(addr: SocketAddr, honest: Arc<Honest>, live: mpsc::Sender<Id>) {
    let mut sessions = JoinSet::new();
    for _ in 0..HONEST {
        let bulk = unbroken::connect(addr, config()).await.expect("room");
        let id = bulk.handle().id().to_string();
        let id = u128::from_str_radix(&id, 16).expect("hexadecimal digits");
        // Nobody may wait for it any more.
        let _ = live.send(id.to_be_bytes());
        sessions.spawn(be_bulk(bulk));
        let echoed = unbroken::connect(addr, config()).await.expect("room");
        sessions.spawn(be_echoed(echoed, honest.clone()));
    }
    while let Some(ended) = sessions.join_next().await {
        ended.expect("no panic").expect("an honest session lives");
    }
}

async fn be_bulk(mut transport: ResumableTransport) -> io::Result<()> {
    transport.write_all(b"B").await?;
    let bytes = vec![0x5a; RATE / 1000 * TICK.as_millis() as usize];
    let mut ticks = interval(TICK);
    // What was missed is made up for, unless it is much.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        let due = ticks.tick().await;
        if due.elapsed() > Duration::from_millis(200) {
            ticks.reset();
        }
        transport.write_all(&bytes).await?;
        transport.flush().await?;
    }
}

async fn be_echoed(mut transport: ResumableTransport, honest: Arc<Honest>) -> io::Result<()> {
    transport.write_all(b"E").await?;
    let mut bytes = [0x5a; ECHO];
    loop {
        let began = Instant::now();
        transport.write_all(&bytes).await?;
        transport.flush().await?;
        transport.read_exact(&mut bytes).await?;
        honest.echoes().push(began.elapsed());
        sleep(ECHO_EVERY).await;
    }
}

#[derive(Clone, Copy, Debug)]
enum Flood {
    SlowLoris,
    OpensNeverConfirmed,
    OpensThatStay,
    ResumesOfUnknownSessions,
    CopiedResumes,
    OversizedFrames,
    AckBeyondSent,
    OffsetsNearTheEnd,
    CreditThatShrinks,
}

const FLOODS: [(Flood, &str); 9] = [
    (Flood::SlowLoris, "1,000 slow lorises"),
    (Flood::OpensNeverConfirmed, "opens never confirmed"),
    (Flood::OpensThatStay, "opens that stay"),
    (
        Flood::ResumesOfUnknownSessions,
        "resumes of unknown sessions",
    ),
    (Flood::CopiedResumes, "copied resumes of a live session"),
    (Flood::OversizedFrames, "oversized frames"),
    (
        Flood::AckBeyondSent,
        "acknowledgements of what was not sent",
    ),
    (Flood::OffsetsNearTheEnd, "offsets near 2^64"),
    (Flood::CreditThatShrinks, "credit that shrinks"),
];

/// What an attacker knows.
#[derive(Clone)]
struct Attacker {
    server: SocketAddr,
    /// Where he comes from: nobody else does.
    from: Ipv4Addr,
    /// A live session's.
    id: Id,
    /// Blows struck.
    blows: Arc<AtomicU64>,
}

/// A flood that goes on until it is dropped.
struct Raging {
    blows: Arc<AtomicU64>,
    _stop: oneshot::Sender<()>,
}

impl Flood {
    fn rage(self, server: SocketAddr, id: Id) -> Raging {
        let (stop, stopped) = oneshot::channel::<()>();
        let blows = Arc::new(AtomicU64::new(0));
        let attacker = Attacker {
            server,
            from: Ipv4Addr::new(127, 0, 1, self as u8),
            id,
            blows: blows.clone(),
        };
        on_thread(move || async move {
            let mut workers = JoinSet::new();
            let count = match self {
                Self::SlowLoris => LORIS,
                Self::OpensNeverConfirmed => 1,
                _ => WORKERS,
            };
            for number in 0..count {
                workers.spawn(attacker.clone().work(self, number));
            }
            // The sender is dropped.
            let _ = stopped.await;
        });
        Raging { blows, _stop: stop }
    }
}

impl Attacker {
    async fn work(self, flood: Flood, number: usize) {
        let mut held = VecDeque::new();
        loop {
            // Whatever the server does about it, there is always a next time.
            let came_to = timeout(
                Duration::from_secs(30),
                self.strike(flood, number, &mut held),
            );
            if !matches!(came_to.await, Ok(Ok(()))) {
                sleep(Duration::from_millis(1)).await;
            }
        }
    }

    fn struck(&self) {
        self.blows.fetch_add(1, Relaxed);
    }

    /// From another address than the honest, and without leaving ports behind that wait.
    async fn dial(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.set_zero_linger()?;
        socket.bind(SocketAddr::from((self.from, 0)))?;
        socket.connect(self.server).await
    }

    async fn strike(
        &self,
        flood: Flood,
        number: usize,
        held: &mut VecDeque<TcpStream>,
    ) -> io::Result<()> {
        let mut link = self.dial().await?;
        link.set_nodelay(true)?;
        match flood {
            Flood::SlowLoris => {
                let message = ClientOpen::new(1, ClientProtection::None)
                    .transmit()
                    .to_vec();
                sleep(Duration::from_millis(number as u64)).await;
                for byte in message {
                    link.write_u8(byte).await?;
                    self.struck();
                    sleep(Duration::from_secs(1)).await;
                }
            }
            Flood::OpensNeverConfirmed => {
                raw_native::begin_open(&mut link).await?;
                self.struck();
                held.push_back(link);
                if held.len() > HELD {
                    held.pop_front();
                }
            }
            Flood::OpensThatStay => {
                let opened = Frames::open(link).await;
                self.struck();
                held.push_back(opened?.0.link);
            }
            Flood::ResumesOfUnknownSessions => {
                let mut opened = unproved(self.id);
                opened.id = rand::random();
                raw_native::request(&mut link, &opened, 1, 0).await?;
                self.struck();
            }
            Flood::CopiedResumes => {
                let opened = unproved(self.id);
                let mut machine = raw_native::resume_machine(&opened, u32::MAX, 0);
                let first = machine.transmit().to_vec();
                machine.transmitted(first.len());
                link.write_all(&first).await?;
                // As long as RESUMED is.
                link.read_exact(&mut [0; 60]).await?;
                // A CONFIRM of another secret's.
                let mut confirm = vec![0; 44];
                confirm[..4].copy_from_slice(&[0x14, 0, 0, 40]);
                link.write_all(&confirm).await?;
                self.struck();
                link.read_to_end(&mut Vec::new()).await?;
            }
            Flood::OversizedFrames
            | Flood::AckBeyondSent
            | Flood::OffsetsNearTheEnd
            | Flood::CreditThatShrinks => self.misbehave(flood, link).await?,
        }
        Ok(())
    }

    /// Opens a session and breaks the protocol on one link of it after another.
    async fn misbehave(&self, flood: Flood, link: TcpStream) -> io::Result<()> {
        let (mut frames, opened) = Frames::open(link).await?;
        frames.send_data(b"A").await?;
        for attempt in 1.. {
            let max = u64::MAX;
            match flood {
                Flood::OversizedFrames => {
                    let header = [0x80, 0xff, 0xff, 0xff];
                    frames.link.write_all(&header).await?;
                    let _ = frames.link.write_all(&[0; 60_000]).await;
                }
                Flood::AckBeyondSent => {
                    let ack = Frame::Ack {
                        received: 1 << 40,
                        limit: 0,
                    };
                    frames.send(ack).await?;
                }
                Flood::OffsetsNearTheEnd => {
                    let ack = Frame::Ack {
                        received: max - u64::from(attempt % 3),
                        limit: max,
                    };
                    frames.send(ack).await?;
                }
                _ => return self.shrink_credit(frames).await,
            }
            self.struck();
            // The server has closed it, or is about to.
            let _ = frames.link.read_to_end(&mut Vec::new()).await;
            let mut link = self.dial().await?;
            let from = raw_native::resume(&mut link, &opened, attempt, 0).await?;
            frames = Frames::new(link);
            match flood {
                Flood::OffsetsNearTheEnd if attempt % 2 == 0 => {
                    frames.attach(max - 1, 0, max).await?;
                }
                _ => frames.attach(from, 0, max).await?,
            }
        }
        Ok(())
    }

    /// Says so many times on one link that it takes less than it said before, as fast as the server reads.
    async fn shrink_credit(&self, frames: Frames<TcpStream>) -> io::Result<()> {
        let (mut read, mut write) = frames.link.into_split();
        let reading =
            tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
        for limit in (0..raw_native::WINDOW).rev().step_by(100) {
            let acks: Vec<u8> = (0..100_u64)
                .flat_map(|less| {
                    raw_native::frame(Frame::Ack {
                        received: 0,
                        limit: limit.saturating_sub(less),
                    })
                })
                .collect();
            write.write_all(&acks).await?;
            self.blows.fetch_add(100, Relaxed);
        }
        reading.abort();
        Ok(())
    }
}

/// A session as a stranger knows it.
fn unproved(id: Id) -> Opened {
    Opened {
        id,
        secret: SessionSecret::new([0; 32]),
        route: 0,
        window: 1,
        resume_window: Duration::from_secs(1),
    }
}

/// In the clear, so that an attacker need not spend on cryptography what it costs the server.
fn config() -> Config {
    Config::new().security(Security::none())
}

fn main() -> ExitCode {
    // cargo passes `--bench` too.
    let seconds = std::env::args().find_map(|argument| argument.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(3));
    let honest = Arc::new(Honest::default());
    let (bound, server) = mpsc::channel();
    let beside = honest.clone();
    on_thread(move || serve(beside, bound));
    let server = server.recv().expect("the server starts");
    let (live, id) = mpsc::channel();
    let beside = honest.clone();
    on_thread(move || be_honest(server, beside, live));
    let id = id.recv().expect("the clients start");

    println!(
        "{:38} {:>9} {:>15} {:>6} {:>19} {:>19}",
        "", "blows/s", "MB/s", "", "echo median, ms", "echo p99, ms"
    );
    let mut code = ExitCode::SUCCESS;
    for (flood, name) in FLOODS {
        thread::sleep(RISE);
        let alone = honest.measure(time);
        let raging = flood.rage(server, id);
        thread::sleep(RISE);
        let before = raging.blows.load(Relaxed);
        let beside = honest.measure(time);
        let blows = (raging.blows.load(Relaxed) - before) as f64 / time.as_secs_f64();
        drop(raging);
        let left = beside.throughput / alone.throughput;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{name:38} {blows:9.0} {:6.1} → {:6.1} {left:6.2} {:8.2} → {:8.2} {:8.2} → {:8.2}",
            alone.throughput / 1e6,
            beside.throughput / 1e6,
            ms(alone.median),
            ms(beside.median),
            ms(alone.p99),
            ms(beside.p99),
        );
        if left < AIM {
            println!("{:38} less than {AIM} of the throughput is left", "");
            code = ExitCode::FAILURE;
        }
    }
    code
}
