//! The path: whatever goes into a TUN device comes out of it again a while later, with its two addresses swapped. So a connection from
//! this machine to [`FAR`] ends at a listener of this machine's on [`NEAR`], and all its packets pass here. The checksums of IP and TCP,
//! being sums over both addresses, stay right.

use std::{
    fs, io,
    net::Ipv4Addr,
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    thread::set_current_timer_slack,
};
use tappers::{Interface, Tun};

pub(crate) const DEVICE: &str = "path0";
/// Where servers listen, and the address of every socket.
pub(crate) const NEAR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// Where clients connect to.
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
pub(crate) const MTU: usize = 1500;
/// Packets under way at most, in both directions together: 100 ms of 1 Gbit/s are 8,333 of full size.
pub(crate) const QUEUE: usize = 16_384;
/// Packets taken in before it is looked whether others are due.
const BATCH: usize = 64;
/// How soon an idle path notices that it is to stop.
const IDLE: Duration = Duration::from_millis(10);
/// Where an IPv4 header has its source and, behind it, its destination.
const ADDRESSES: std::ops::Range<usize> = 12..20;

/// What happens to packets on the path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    /// Every packet passes the device once, and is held for half of it.
    pub(crate) round_trip: Duration,
    /// The probability that a packet is lost, of either direction: acknowledgements too.
    pub(crate) loss: f64,
}

/// What has happened to them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) carried: u64,
    /// On purpose.
    pub(crate) lost: u64,
    /// Because the queue or the device's own was full.
    pub(crate) overflowed: u64,
    /// How much later than they were due they went, all together.
    late: Duration,
}

impl Counts {
    /// The mean time by which a packet was late, in microseconds.
    pub(crate) fn late_micros(&self) -> f64 {
        self.late.as_secs_f64() * 1e6 / self.carried.max(1) as f64
    }
}

/// The device, in the network namespace of this process.
pub(crate) fn device() -> io::Result<Tun> {
    let mut tun = Tun::new_named(Interface::new(DEVICE)?)?;
    tun.set_nonblocking(true)?;
    Ok(tun)
}

/// A thread that carries packets until it is told to stop.
pub(crate) struct Path {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Counts>>,
    /// Packets the device had dropped before.
    dropped: u64,
}

impl Path {
    /// With the same seed it is the same packets that are lost, by their number.
    pub(crate) fn start(tun: &Arc<Tun>, conditions: Conditions, seed: u64) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let carrier = Carrier {
            tun: tun.clone(),
            conditions,
            random: StdRng::seed_from_u64(seed),
            queue: Queue::new(),
            counts: Counts::default(),
        };
        let stopped = stop.clone();
        Ok(Self {
            stop,
            dropped: dropped()?,
            thread: thread::Builder::new()
                .name("path".to_owned())
                .spawn(move || carrier.run(&stopped))?,
        })
    }

    /// What is still under way is forgotten.
    pub(crate) fn stop(self) -> io::Result<Counts> {
        self.stop.store(true, Ordering::Relaxed);
        let counts = self.thread.join();
        let mut counts = counts.map_err(|_| io::Error::other("the path's thread panicked"))??;
        counts.overflowed += dropped()? - self.dropped;
        Ok(counts)
    }
}

/// How many packets the device has dropped because its queue was full.
fn dropped() -> io::Result<u64> {
    const TRANSMIT_DROP: usize = 11;
    let devices = fs::read_to_string("/proc/self/net/dev")?;
    let of = |line: &str| {
        let counters = line.trim_start().strip_prefix(DEVICE)?.strip_prefix(':')?;
        counters.split_whitespace().nth(TRANSMIT_DROP)?.parse().ok()
    };
    let dropped = devices.lines().find_map(of);
    dropped.ok_or_else(|| io::Error::other(format!("no {DEVICE} in /proc/self/net/dev")))
}

struct Carrier {
    tun: Arc<Tun>,
    conditions: Conditions,
    random: StdRng,
    queue: Queue,
    counts: Counts,
}

impl Carrier {
    fn run(mut self, stop: &AtomicBool) -> io::Result<Counts> {
        // By default a wait may last 50 µs longer than was asked for.
        set_current_timer_slack(NonZeroU64::new(1))?;
        while !stop.load(Ordering::Relaxed) {
            self.deliver()?;
            if !self.take_in()? {
                self.wait()?;
            }
        }
        Ok(self.counts)
    }

    /// Hands over what is due.
    fn deliver(&mut self) -> io::Result<()> {
        let now = Instant::now();
        while let Some(packet) = self.queue.first().filter(|packet| packet.due <= now) {
            self.tun.send(&packet.bytes[..packet.len])?;
            self.counts.late += now - packet.due;
            self.counts.carried += 1;
            self.queue.pop();
        }
        Ok(())
    }

    /// Takes packets in, and says whether there were any.
    fn take_in(&mut self) -> io::Result<bool> {
        let due = Instant::now() + self.conditions.round_trip / 2;
        for taken in 0..BATCH {
            let packet = self.queue.free();
            packet.len = match self.tun.recv(&mut packet.bytes) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(taken > 0),
                Err(error) => return Err(error),
            };
            packet.due = due;
            let is_v4 = packet.len >= ADDRESSES.end && packet.bytes[0] >> 4 == 4;
            if !is_v4 {
                continue;
            }
            let (source, destination) = packet.bytes[ADDRESSES].split_at_mut(4);
            source.swap_with_slice(destination);
            if self.random.random_bool(self.conditions.loss) {
                self.counts.lost += 1;
            } else if !self.queue.push() {
                self.counts.overflowed += 1;
            }
        }
        Ok(true)
    }

    /// Until something comes in or is due.
    fn wait(&self) -> io::Result<()> {
        let due = self.queue.first().map(|packet| packet.due);
        let left = due.map_or(IDLE, |due| due.saturating_duration_since(Instant::now()));
        let left = Timespec::try_from(left.min(IDLE)).expect("it is short");
        match poll(&mut [PollFd::new(&*self.tun, PollFlags::IN)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[derive(Clone)]
struct Packet {
    due: Instant,
    len: usize,
    bytes: [u8; MTU],
}

/// Packets in the order in which they are due, which is that in which they came: all are held equally long. The slot behind the last
/// is always free.
struct Queue {
    packets: Vec<Packet>,
    first: usize,
    len: usize,
}

impl Queue {
    fn new() -> Self {
        let packet = Packet {
            due: Instant::now(),
            len: 0,
            bytes: [0; MTU],
        };
        Self {
            packets: vec![packet; QUEUE + 1],
            first: 0,
            len: 0,
        }
    }

    fn first(&self) -> Option<&Packet> {
        (self.len > 0).then(|| &self.packets[self.first])
    }

    fn pop(&mut self) {
        self.first = (self.first + 1) % self.packets.len();
        self.len -= 1;
        if self.len == 0 {
            // Few slots in use stay in the processor's cache.
            self.first = 0;
        }
    }

    /// Where the next packet goes.
    fn free(&mut self) -> &mut Packet {
        let at = (self.first + self.len) % self.packets.len();
        &mut self.packets[at]
    }

    /// Takes what is in [`free`](Self::free), unless the queue is full.
    fn push(&mut self) -> bool {
        let has_room = self.len < QUEUE;
        self.len += usize::from(has_room);
        has_room
    }
}
