//! A client and a server core joined by in-memory links under a virtual clock.
//!
//! [`Pair`] owns both ends, the links and the clock, and knows nothing of what a protocol puts on the wire: that is behind
//! [`Protocol`], so every test of a pair runs over each protocol alike. Each end drives its core by the contract of
//! `unbroken::protocol`, as a driver with sockets does.
//!
//! The streams are made up by offset, so that whatever is read can be held against what was written wherever it lies: a byte
//! lost, doubled or out of place is found by the read that meets it.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    collections::VecDeque,
    fmt::Debug,
    time::{Duration, Instant},
};

use unbroken::CloseReason;

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Client, Self::Server];

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// What both ends of a pair are configured with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes each end keeps of what it sent.
    pub(crate) history: usize,
    /// How long a session waits for a link.
    pub(crate) resume_window: Duration,
}

/// One end and its driver. Links are named by their number.
pub(crate) trait End {
    /// Takes at most `most` bytes for the link.
    fn transmit(&mut self, link: usize, most: usize, now: Instant) -> Vec<u8>;
    /// How many bytes it would read from the link now.
    fn wanted(&self, link: usize) -> usize;
    /// Bytes from the link, not more than it [wanted](Self::wanted).
    fn receive(&mut self, link: usize, bytes: &mut [u8], now: Instant);
    /// The link is gone.
    fn link_failed(&mut self, link: usize, now: Instant);
    /// Whether it has the link open.
    fn holds(&self, link: usize) -> bool;
    /// The application writes; returns how many bytes were taken.
    fn write(&mut self, bytes: &[u8]) -> usize;
    /// The application reads.
    fn read(&mut self, out: &mut [u8], now: Instant) -> usize;
    /// Bytes that wait for the application.
    fn waiting(&self) -> usize;
    /// The application ends what it writes.
    fn shut_write(&mut self);
    /// Whether all that was written has reached the peer, its end included, as far as this end knows.
    fn is_shut_down(&self) -> bool;
    /// Whether all that the peer will ever write has come in.
    fn is_read_ended(&self) -> bool;
    /// Whether it has ended its side of the link, and discards what still comes until the other does too.
    fn has_ended(&self, link: usize) -> bool;
    /// It is to make do with a window of so many bytes, if the protocol lets it.
    fn set_window(&mut self, _bytes: usize, _now: Instant) {}
    /// When something is due.
    fn poll_timeout(&self) -> Option<Instant>;
    /// Does what is due.
    fn handle_timeout(&mut self, now: Instant);
    /// Why the session is over, if it is.
    fn closed(&self) -> Option<CloseReason>;
    /// How many links it gave up because the session had moved on during the handshake; stale ones do not count.
    fn failed_attaches(&self) -> usize;
}

/// The end that dials.
pub(crate) trait ClientEnd: End {
    /// Opens the session on a new link, or resumes it there; whatever link or attempt it had is given up.
    fn dial(&mut self, link: usize, now: Instant);
    /// Resumes on a new link, while the one it has goes on if the protocol knows how to; only if it
    /// [can](Self::can_migrate).
    fn migrate(&mut self, link: usize, now: Instant) {
        self.dial(link, now);
    }
    /// Whether a resume may begin though there is a link.
    fn can_migrate(&self) -> bool {
        self.closed().is_none()
    }
    /// Whether there is a session to resume.
    fn is_open(&self) -> bool;
}

/// The end that accepts.
pub(crate) trait ServerEnd: End {
    /// A new link.
    fn accept(&mut self, link: usize, now: Instant);
    /// How many sessions the application was given.
    fn accepted(&self) -> usize;
}

/// A protocol, with whatever can be chosen about it.
pub(crate) trait Protocol: Clone + Debug {
    type Client: ClientEnd;
    type Server: ServerEnd;
    /// How many bytes of the server's a client must have read in an open until it has a session.
    fn named_after(&self) -> usize;
    /// How many bytes of the server's a client must have read in a resume until it has the server's counts.
    fn answered_after(&self) -> usize;
    /// Whether the end of a stream is sent and acknowledged.
    const ENDS: bool;
    fn ends(&self, limits: Limits, now: Instant) -> (Self::Client, Self::Server);
}

/// What becomes of the bytes in flight when a link is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InFlight {
    Lost,
    /// The first half arrives.
    Half,
    /// All of it arrives, if the receiver still listens.
    Late,
}

/// One direction of a link. `bytes` is what is on its way, at most `capacity`.
struct Pipe {
    bytes: VecDeque<u8>,
    capacity: usize,
    delivered: usize,
    /// Bytes that the cut lost, or that a writer who has not noticed it put there since: they take room and never arrive.
    lost: usize,
}

impl Pipe {
    fn new(capacity: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            capacity,
            delivered: 0,
            lost: 0,
        }
    }

    fn room(&self) -> usize {
        self.capacity - self.bytes.len() - self.lost
    }

    fn keep(&mut self, in_flight: InFlight) {
        let before = self.bytes.len();
        match in_flight {
            InFlight::Lost => self.bytes.clear(),
            InFlight::Half => self.bytes.truncate(before / 2),
            InFlight::Late => {}
        }
        self.lost += before - self.bytes.len();
    }
}

/// A link between both ends, or between the server and somebody who replays what was overheard.
struct Link {
    up: Pipe,
    down: Pipe,
    /// Nothing that is written from now on arrives.
    cut: bool,
    /// The ends that do not notice that it is cut.
    unaware: Vec<Side>,
    /// All that the client ever put on it.
    overheard: Vec<u8>,
    injected: bool,
}

impl Link {
    fn towards(&mut self, side: Side) -> &mut Pipe {
        match side {
            Side::Client => &mut self.down,
            Side::Server => &mut self.up,
        }
    }
}

/// How far [`Pair::pump`] lets the clock go on of itself: further than anything is put off that the other end waits for, and not as
/// far as anything is given up.
const SOON: Duration = Duration::from_millis(100);

/// Both ends, their links and their clock.
pub(crate) struct Pair<P: Protocol> {
    pub(crate) client: P::Client,
    pub(crate) server: P::Server,
    pub(crate) now: Instant,
    /// [`Protocol::answered_after`].
    pub(crate) answered_after: usize,
    /// Bytes that a direction of the next link holds.
    pub(crate) capacity: usize,
    /// Whose application reads while things [move](Self::pump).
    pub(crate) readers: Vec<Side>,
    /// Whose application has dropped its transport or reset it: what comes in is acknowledged, and discarded.
    pub(crate) gone: Vec<Side>,
    links: Vec<Link>,
    written: [u64; 2],
    read: [u64; 2],
}

/// The byte at `offset` of what `side` writes.
pub(crate) fn stream_byte(side: Side, offset: u64) -> u8 {
    let mixed = (offset + 1 + ((side as u64) << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8 ^ (mixed >> 29) as u8
}

impl<P: Protocol> Pair<P> {
    /// Both ends, and links that hold `capacity` bytes a direction.
    pub(crate) fn new(protocol: &P, limits: Limits, capacity: usize) -> Self {
        let now = Instant::now();
        let (client, server) = protocol.ends(limits, now);
        Self {
            client,
            server,
            now,
            answered_after: protocol.answered_after(),
            capacity,
            readers: Side::BOTH.to_vec(),
            gone: Vec::new(),
            links: Vec::new(),
            written: [0; 2],
            read: [0; 2],
        }
    }

    fn end(&mut self, side: Side) -> &mut dyn End {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// How many links there were.
    pub(crate) fn links(&self) -> usize {
        self.links.len()
    }

    /// Whether the link is cut, or closed by an end.
    pub(crate) fn is_cut(&self, link: usize) -> bool {
        self.links[link].cut
    }

    /// How many bytes of the link `side` has read.
    pub(crate) fn delivered(&self, link: usize, side: Side) -> usize {
        match side {
            Side::Client => self.links[link].down.delivered,
            Side::Server => self.links[link].up.delivered,
        }
    }

    /// How many bytes the application of `side` has read, and how many the other one's has written.
    pub(crate) fn progress(&self, side: Side) -> (u64, u64) {
        (
            self.read[side as usize],
            self.written[side.other() as usize],
        )
    }

    /// Whether both applications have read all that was written.
    pub(crate) fn is_even(&self) -> bool {
        Side::BOTH.iter().all(|side| {
            let (read, written) = self.progress(*side);
            read == written
        })
    }

    /// The client opens or resumes on a new link.
    pub(crate) fn dial(&mut self) -> usize {
        let link = self.add(false);
        self.server.accept(link, self.now);
        self.client.dial(link, self.now);
        self.settle();
        link
    }

    /// The client resumes on a new link while the one it has goes on, if it can.
    pub(crate) fn migrate(&mut self) -> Option<usize> {
        if !self.client.can_migrate() {
            return None;
        }
        let link = self.add(false);
        self.server.accept(link, self.now);
        self.client.migrate(link, self.now);
        self.settle();
        Some(link)
    }

    /// Whether the client is to dial, so that the session goes on.
    pub(crate) fn needs_link(&self) -> bool {
        let has_link = (0..self.links.len()).any(|link| self.client.holds(link));
        !has_link && self.client.closed().is_none()
    }

    /// Memory is short at `side`, or no longer is.
    pub(crate) fn set_window(&mut self, side: Side, bytes: usize) {
        let now = self.now;
        self.end(side).set_window(bytes, now);
    }

    /// The application of `side` ends what it writes.
    pub(crate) fn shut_write(&mut self, side: Side) {
        self.end(side).shut_write();
    }

    /// An end that knows its stream to be delivered is right, and one that has the other's end has all before it.
    pub(crate) fn check(&mut self) {
        if !P::ENDS {
            return;
        }
        for side in Side::BOTH {
            if self.end(side).is_shut_down() && !self.gone.contains(&side.other()) {
                assert!(
                    self.end(side.other()).is_read_ended(),
                    "{side:?} believes its end delivered, and it is not"
                );
            }
            let (read, written) = self.progress(side);
            if self.end(side).is_read_ended() && !self.gone.contains(&side) {
                let come = read + self.end(side).waiting() as u64;
                assert_eq!(
                    come, written,
                    "{side:?} has the end, and what comes before it"
                );
            }
        }
    }

    /// Somebody sends the server, on a link of his own, the first `count` bytes the client once put on `link`, and then `tail`.
    pub(crate) fn inject(&mut self, link: usize, count: usize, tail: &[u8]) -> usize {
        let copied = &self.links[link].overheard;
        let copy: Vec<u8> = copied.iter().take(count).chain(tail).copied().collect();
        let link = self.add(true);
        self.links[link].up.bytes.extend(copy);
        self.server.accept(link, self.now);
        link
    }

    fn add(&mut self, injected: bool) -> usize {
        self.links.push(Link {
            up: Pipe::new(self.capacity),
            down: Pipe::new(self.capacity),
            cut: false,
            unaware: Vec::new(),
            overheard: Vec::new(),
            injected,
        });
        self.links.len() - 1
    }

    /// The application of `side` writes `count` bytes, or as many as are taken.
    pub(crate) fn write(&mut self, side: Side, count: usize) -> usize {
        let from = self.written[side as usize];
        let bytes: Vec<u8> = (from..from + count as u64)
            .map(|at| stream_byte(side, at))
            .collect();
        let taken = self.end(side).write(&bytes);
        self.written[side as usize] += taken as u64;
        taken
    }

    /// The application of `side` reads at most `count` bytes; they are the ones the other wrote.
    pub(crate) fn read(&mut self, side: Side, count: usize) -> usize {
        let mut out = vec![0; count];
        let now = self.now;
        let got = self.end(side).read(&mut out, now);
        let from = self.read[side as usize];
        for (byte, at) in out[..got].iter().zip(from..) {
            assert!(
                at < self.written[side.other() as usize],
                "{side:?} reads past what was written"
            );
            assert_eq!(
                *byte,
                stream_byte(side.other(), at),
                "{side:?} reads a wrong byte at {at}"
            );
        }
        self.read[side as usize] += got as u64;
        got
    }

    /// `side` puts at most `most` bytes on the link; returns whether anything happened.
    pub(crate) fn send(&mut self, side: Side, link: usize, most: usize) -> bool {
        if !self.end(side).holds(link) {
            return false;
        }
        let now = self.now;
        let state = &mut self.links[link];
        let unaware = state.unaware.contains(&side);
        if state.cut && !unaware && state.towards(side).bytes.is_empty() {
            self.end(side).link_failed(link, now);
            self.settle();
            return true;
        }
        let (cut, injected) = (state.cut, state.injected);
        let room = if injected {
            most
        } else {
            state.towards(side.other()).room().min(most)
        };
        let bytes = self.end(side).transmit(link, room, now);
        assert!(
            bytes.len() <= room,
            "{side:?} puts more on a link than it holds"
        );
        let state = &mut self.links[link];
        if side == Side::Client {
            state.overheard.extend(&bytes);
        }
        let pipe = state.towards(side.other());
        if cut {
            pipe.lost += bytes.len();
        } else if !injected {
            pipe.bytes.extend(&bytes);
        }
        self.settle();
        !bytes.is_empty()
    }

    /// `side` reads at most `most` bytes from the link; returns whether anything happened.
    pub(crate) fn deliver(&mut self, side: Side, link: usize, most: usize) -> bool {
        if !self.end(side).holds(link) {
            return false;
        }
        let now = self.now;
        let count = most.min(self.end(side).wanted(link));
        let ended = self.end(side.other()).has_ended(link);
        let state = &mut self.links[link];
        let unaware = state.unaware.contains(&side);
        // What the other end has put on the link before its end comes first.
        let failed = if state.cut { !unaware } else { ended };
        let pipe = state.towards(side);
        let mut bytes: Vec<u8> = pipe.bytes.drain(..count.min(pipe.bytes.len())).collect();
        pipe.delivered += bytes.len();
        if !bytes.is_empty() {
            self.end(side).receive(link, &mut bytes, now);
        } else if failed && count > 0 {
            self.end(side).link_failed(link, now);
        } else {
            return false;
        }
        self.settle();
        true
    }

    /// The network drops the link. `unaware` are the ends that are not told.
    pub(crate) fn cut(&mut self, link: usize, in_flight: InFlight, unaware: &[Side]) {
        let link = &mut self.links[link];
        if !link.cut {
            link.cut = true;
            link.up.keep(in_flight);
            link.down.keep(in_flight);
            link.unaware = unaware.to_vec();
        }
    }

    /// What an end has closed is closed: what it had put on the link still arrives, what comes towards it does not.
    fn settle(&mut self) {
        for link in 0..self.links.len() {
            if self.links[link].cut {
                continue;
            }
            let injected = self.links[link].injected;
            let gone = [self.client.holds(link) || injected, self.server.holds(link)];
            if let [true, true] = gone {
                continue;
            }
            let state = &mut self.links[link];
            state.cut = true;
            for (side, holds) in Side::BOTH.into_iter().zip(gone) {
                if !holds {
                    state.towards(side).keep(InFlight::Lost);
                }
            }
        }
    }

    /// Everything moves as far as it goes: links, readers if they `read`, and what is put off for a moment. Returns whether anything
    /// moved.
    pub(crate) fn pump(&mut self, read: bool) -> bool {
        let mut moved = false;
        while self.rush(read) || self.wait(SOON) {
            moved = true;
        }
        moved
    }

    /// Everything moves as far as it goes without the clock.
    fn rush(&mut self, read: bool) -> bool {
        let mut moved = false;
        loop {
            let mut again = false;
            for link in 0..self.links.len() {
                for side in Side::BOTH {
                    again |= self.send(side, link, usize::MAX);
                    again |= self.deliver(side, link, usize::MAX);
                }
            }
            for side in Side::BOTH {
                if read && self.readers.contains(&side) {
                    again |= self.read(side, usize::MAX >> 48) > 0;
                }
            }
            if !again {
                return moved;
            }
            moved = true;
        }
    }

    /// All links fail, and both ends notice.
    pub(crate) fn lose_links(&mut self) {
        for link in 0..self.links.len() {
            self.cut(link, InFlight::Lost, &[]);
            self.links[link].unaware.clear();
        }
    }

    /// Gives up all links, and resumes on good ones until both applications have read everything, or the session is over.
    pub(crate) fn heal(&mut self) {
        self.lose_links();
        for _ in 0..3 {
            if self.client.closed().is_some() {
                return;
            }
            self.dial();
            self.pump(true);
            if self.client.is_open() && self.is_even() {
                return;
            }
        }
        let progress = Side::BOTH.map(|side| self.progress(side));
        panic!(
            "three resumes without a cut and still uneven: read of written, client and server: {progress:?}"
        );
    }

    /// Lets things take their course until `done`: the client dials when it has no link, what is due is done when it is due, and
    /// the readers read.
    pub(crate) fn recover(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..100 {
            self.pump(true);
            self.check();
            if done(self) {
                return;
            }
            if self.needs_link() {
                self.dial();
            } else if !self.wait(Duration::MAX) {
                break;
            }
        }
        let progress = Side::BOTH.map(|side| self.progress(side));
        let closed = [self.client.closed(), self.server.closed()];
        panic!(
            "stuck; read of written, client and server: {progress:?}; they are over with: {closed:?}"
        );
    }

    /// The clock goes on until something is due, if that is so within `most`.
    fn wait(&mut self, most: Duration) -> bool {
        let due = [self.client.poll_timeout(), self.server.poll_timeout()];
        let Some(due) = due.into_iter().flatten().min() else {
            return false;
        };
        let time = due.saturating_duration_since(self.now);
        if time > most {
            return false;
        }
        self.pass(time);
        true
    }

    /// The clock goes on; both ends do what is due.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        for side in Side::BOTH {
            let now = self.now;
            self.end(side).handle_timeout(now);
            let due = self.end(side).poll_timeout();
            assert!(
                due.is_none_or(|due| due > now),
                "{side:?} has left undone what was due"
            );
        }
        self.settle();
    }
}
