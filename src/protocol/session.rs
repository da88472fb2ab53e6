//! The state of one end of a session, which outlives its links (`docs/PROTOCOL.md`, "Session").

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use super::{
    receive::ReceiveBuffer,
    replay::ReplayBuffer,
    snet::{CipherChoice, Counts, Direction, Opened, StreamCipher},
};
use crate::error::{CloseReason, ResumeError};

/// Which end of a session this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The end that dials, and dials again.
    Client,
    /// The end that accepts.
    Server,
}

/// What a session is configured with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// N: how many of the last sent bytes are kept, and how many received bytes may wait for the application.
    pub history: usize,
    /// How long a detached session waits for a link.
    pub resume_window: Duration,
    /// How long a session goes on after its transport was dropped.
    pub linger: Duration,
    /// After how long without a byte from the peer a client asks for a new link.
    pub silence: Option<Duration>,
    /// Whether the orderly end of a link is the peer's close.
    pub fin_is_close: bool,
    /// What is laid over the stream.
    pub cipher: CipherChoice,
}

/// Where a session stands towards its links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A link carries it.
    Attached,
    /// It waits for a link since then.
    Detached(Instant),
    /// It is over.
    Closed(CloseReason),
}

/// How far the application has taken this end towards its close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It may write.
    Open,
    /// It will write no more.
    WriteShut,
    /// It dropped the transport then; the session goes on for the linger time at most.
    Dropped(Instant),
}

/// What became of bytes a link gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived {
    /// The bytes in this range are new, and in the clear now.
    Fresh(Range<usize>),
    /// No offset is left to count them by; the session is closed.
    Exhausted,
}

/// One end of a session: what it has sent and received, and what it may do next.
///
/// It does no I/O and knows no time but what it is told; the [module](super) says what to call, in which order.
pub struct Session {
    role: Role,
    settings: Settings,
    opened: Opened,
    phase: Phase,
    ending: Ending,
    replay: ReplayBuffer,
    receive: ReceiveBuffer,
    encrypt: Option<Box<dyn StreamCipher>>,
    decrypt: Option<Box<dyn StreamCipher>>,
    /// The greatest received count the peer has stated, and proved itself.
    stated: u64,
    /// The offset up to which the link, or while detached the last one, was handed the stream.
    handed: u64,
    /// The offset up to which any link was handed the stream. What is handed below it is a replay.
    handed_ever: u64,
    /// The offset of the next byte from the link. Below `received`, it arrives again.
    arriving: u64,
    /// The number of the resume request that attached the link; 0 is the open.
    request: u64,
    /// When the peer was last heard, or the clock of its silence last stood still.
    heard: Instant,
    /// The sent count of a resume request whose counts make a gap certain, unless it was a copy: then more may arrive.
    gap_suspected: Option<u64>,
    resumes: u64,
    replayed: u64,
}

impl Session {
    /// A session that a handshake has just opened, detached since `now`: attach the link with counts of 0.
    pub fn new(role: Role, opened: Opened, settings: Settings, now: Instant) -> Self {
        let (sending, receiving) = match role {
            Role::Client => (Direction::ClientToServer, Direction::ServerToClient),
            Role::Server => (Direction::ServerToClient, Direction::ClientToServer),
        };
        Self {
            role,
            phase: Phase::Detached(now),
            ending: Ending::Open,
            replay: ReplayBuffer::new(settings.history),
            receive: ReceiveBuffer::new(settings.history),
            encrypt: settings.cipher.start(&opened.key, sending),
            decrypt: settings.cipher.start(&opened.key, receiving),
            stated: 0,
            handed: 0,
            handed_ever: 0,
            arriving: 0,
            request: 0,
            heard: now,
            gap_suspected: None,
            resumes: 0,
            replayed: 0,
            opened,
            settings,
        }
    }

    /// Which end this is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The connection id and the key.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Where the session stands towards its links.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What this end says of its streams.
    pub fn counts(&self) -> Counts {
        Counts {
            sent: self.replay.end(),
            received: self.receive.received(),
        }
    }

    /// How many links were attached after the first.
    pub fn resumes(&self) -> u64 {
        self.resumes
    }

    /// How many bytes were handed to a link that an earlier link had been handed already.
    pub fn replayed(&self) -> u64 {
        self.replayed
    }

    /// How many sent bytes the peer may still lack, for all this end knows.
    pub fn unacknowledged(&self) -> u64 {
        self.replay.end() - self.floor()
    }

    // What the application does.

    /// How many bytes [`write`](Self::write) takes now.
    ///
    /// snet has no acknowledgements. What holds instead is that at most half the history is on its way, in the socket buffers of
    /// both ends: so all that was handed to the link but for that half has arrived, and a writer waits while what has not would
    /// exceed the history.
    pub fn room(&self) -> usize {
        let held = usize::try_from(self.unacknowledged()).unwrap_or(usize::MAX);
        let offsets = usize::try_from(u64::MAX - self.replay.end()).unwrap_or(usize::MAX);
        self.settings.history.saturating_sub(held).min(offsets)
    }

    /// Appends the first bytes of `bytes` to the stream, encrypted, and returns how many.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let bytes = &bytes[..bytes.len().min(self.room())];
        let end = self.replay.end();
        let evicted = bytes.len().saturating_sub(self.replay.room());
        self.replay.trim(self.replay.start() + evicted as u64);
        let written = self.replay.push(bytes);
        debug_assert_eq!(written, bytes.len());
        if let Some(cipher) = &mut self.encrypt
            && let Some((first, second)) = self.replay.from_mut(end)
        {
            // If the user's cipher panics, the session stays closed, and what is in the clear in the history goes nowhere.
            let phase = std::mem::replace(&mut self.phase, Phase::Closed(CloseReason::Abandoned));
            cipher.apply(first);
            cipher.apply(second);
            self.phase = phase;
        }
        written
    }

    /// The application will write no more.
    pub fn shut_write(&mut self) {
        if self.ending == Ending::Open {
            self.ending = Ending::WriteShut;
        }
    }

    /// Whether the application has said that it will write no more.
    pub fn is_write_shut(&self) -> bool {
        self.ending != Ending::Open
    }

    /// The application has dropped its transport: what it wrote goes on its way, what arrives is counted and discarded.
    pub fn drop_transport(&mut self, now: Instant) {
        if !self.is_dropped() {
            self.ending = Ending::Dropped(now);
            self.receive.discard();
        }
    }

    /// Whether the application has dropped its transport.
    pub fn is_dropped(&self) -> bool {
        matches!(self.ending, Ending::Dropped(_))
    }

    /// Bytes that wait for the application.
    pub fn waiting(&self) -> usize {
        self.receive.waiting()
    }

    /// Moves waiting bytes to `out` and returns how many.
    pub fn read(&mut self, out: &mut [u8], now: Instant) -> usize {
        if self.receive.room() == 0 {
            // The peer could not be heard while nothing was read.
            self.heard = now;
        }
        self.receive.read(out)
    }

    // What the link does.

    /// What is to be handed to the link, in the one or two pieces in which it lies; nothing while detached.
    pub fn unsent(&self) -> (&[u8], &[u8]) {
        match self.phase {
            // An attach checks that the history reaches back to the cursor, and room is only made below it.
            Phase::Attached => self.replay.from(self.handed).unwrap_or_default(),
            Phase::Detached(_) | Phase::Closed(_) => (&[], &[]),
        }
    }

    /// The link has taken `count` bytes of [`unsent`](Self::unsent).
    pub fn handed(&mut self, count: usize) {
        let before = self.handed;
        self.handed += count as u64;
        self.replayed += self.handed_ever.min(self.handed).saturating_sub(before);
        self.handed_ever = self.handed_ever.max(self.handed);
    }

    /// How many bytes the link, or while detached the last one, was not handed.
    pub fn backlog(&self) -> u64 {
        self.replay.end() - self.handed
    }

    /// Whether a link carries the session and was handed all there is.
    pub fn is_handed_over(&self) -> bool {
        self.phase == Phase::Attached && self.backlog() == 0
    }

    /// How many bytes may be taken from the link to [wait](Self::waiting) for the application.
    pub fn receive_room(&self) -> usize {
        if self.is_dropped() {
            self.settings.history
        } else {
            self.receive.room()
        }
    }

    /// The link gave `bytes`. Those that arrived before are recognised by their offset; the rest is counted and decrypted in place.
    pub fn arrived(&mut self, bytes: &mut [u8], now: Instant) -> Arrived {
        self.heard = now;
        let again = self.receive.received() - self.arriving;
        let again = usize::try_from(again).map_or(bytes.len(), |again| again.min(bytes.len()));
        self.arriving += again as u64;
        let fresh = &mut bytes[again..];
        if fresh.len() as u64 > u64::MAX - self.arriving {
            self.close(CloseReason::Exhausted);
            return Arrived::Exhausted;
        }
        self.arriving += fresh.len() as u64;
        self.receive.count(fresh.len());
        if self.gap_suspected.is_some_and(|sent| sent < self.arriving) {
            // A peer that asked for another link sends no more on this one.
            self.gap_suspected = None;
        }
        if let Some(cipher) = &mut self.decrypt {
            // As in `write`: what was counted and never came out of the cipher is lost.
            let phase = std::mem::replace(&mut self.phase, Phase::Closed(CloseReason::Abandoned));
            cipher.apply(fresh);
            self.phase = phase;
        }
        Arrived::Fresh(again..bytes.len())
    }

    /// Lets bytes that [arrived](Self::arrived) fresh wait for the application, unless it has gone. Not more than
    /// [`receive_room`](Self::receive_room).
    pub fn store(&mut self, bytes: &[u8]) {
        if !self.is_dropped() {
            self.receive.store(bytes);
        }
    }

    /// The link has ended in order.
    pub fn link_ended(&mut self, now: Instant) {
        if self.settings.fin_is_close {
            self.close(CloseReason::Peer);
        } else {
            self.detach(now);
        }
    }

    /// The link is gone, or is about to be replaced.
    pub fn detach(&mut self, now: Instant) {
        if self.phase == Phase::Attached {
            self.phase = Phase::Detached(now);
        }
    }

    // What a resume does.

    /// Whether the session can go on with a peer that counts like this. Changes nothing: a request may be a copy.
    ///
    /// # Errors
    ///
    /// Why not. To ends that count right only the gap can happen, and it is final: counts only grow.
    pub fn check(&self, peer: Counts) -> Result<(), ResumeError> {
        if let Phase::Closed(_) = self.phase {
            return Err(ResumeError::Closed);
        }
        let own = self.counts();
        if peer.received > own.sent {
            Err(ResumeError::ReceivedTooMuch)
        } else if peer.sent < own.received {
            Err(ResumeError::SentTooLittle)
        } else if peer.received < self.replay.start() {
            Err(ResumeError::Gap)
        } else {
            Ok(())
        }
    }

    /// What a server answers to a request: its own counts, if the session can go on.
    ///
    /// # Errors
    ///
    /// Why the answer is zeros.
    pub fn answer(&mut self, peer: Counts) -> Result<Counts, ResumeError> {
        let verdict = self.check(peer);
        let lacks = peer.sent.saturating_sub(self.receive.received());
        if verdict == Err(ResumeError::Gap) || lacks > self.settings.history as u64 {
            self.gap_suspected = self.gap_suspected.max(Some(peer.sent));
        }
        verdict?;
        if self.is_dropped() && peer.received == self.replay.end() {
            return Err(ResumeError::Ended);
        }
        Ok(self.counts())
    }

    /// Gives the session a link whose peer has proved itself. `request` numbers the resume requests in the order of their arrival, 0
    /// being the open; `peer` is what the peer stated in it, and `stated` what this end had stated to have received.
    ///
    /// # Errors
    ///
    /// The session has moved on since the counts were exchanged; the link is to be closed, and the session is as it was.
    pub fn attach(
        &mut self,
        request: u64,
        peer: Counts,
        stated: u64,
        now: Instant,
    ) -> Result<(), ResumeError> {
        if request < self.request {
            return Err(ResumeError::Stale);
        }
        self.check(peer)?;
        if request > 0 {
            self.resumes += 1;
        }
        self.request = request;
        self.stated = self.stated.max(peer.received);
        self.handed = peer.received;
        self.arriving = stated;
        self.phase = Phase::Attached;
        self.heard = now;
        self.gap_suspected = None;
        Ok(())
    }

    /// Ends the session, unless it is over already. What was received can still be read.
    pub fn close(&mut self, reason: CloseReason) {
        if !matches!(self.phase, Phase::Closed(_)) {
            self.phase = Phase::Closed(reason);
            self.replay.trim(self.replay.end());
            self.replay.release();
        }
    }

    // What time does.

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let link = match self.phase {
            Phase::Attached => self.silent_at(),
            Phase::Detached(since) => since.checked_add(self.settings.resume_window),
            Phase::Closed(_) => return None,
        };
        [link, self.lingers_until()].into_iter().flatten().min()
    }

    /// Does what is due by `now`, and returns whether the peer has been silent for so long that a new link should be tried.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.lingers_until()) {
            self.close(if self.backlog() == 0 {
                CloseReason::Local
            } else {
                CloseReason::Expired
            });
        }
        match self.phase {
            Phase::Attached => {
                let silent = is_due(self.silent_at());
                if silent {
                    self.heard = now;
                }
                silent
            }
            Phase::Detached(since) => {
                if is_due(since.checked_add(self.settings.resume_window)) {
                    self.close(if self.gap_suspected.is_some() {
                        CloseReason::Gap
                    } else {
                        CloseReason::Expired
                    });
                }
                false
            }
            Phase::Closed(_) => false,
        }
    }

    /// When a peer that stays silent is to be doubted. The clock stands while nothing more is read from the link.
    fn silent_at(&self) -> Option<Instant> {
        let silence = self.settings.silence?;
        let listening = self.role == Role::Client && self.receive_room() > 0;
        self.heard.checked_add(silence).filter(|_| listening)
    }

    /// When a session whose transport was dropped ends at the latest.
    fn lingers_until(&self) -> Option<Instant> {
        match self.ending {
            Ending::Dropped(at) => at.checked_add(self.settings.linger),
            Ending::Open | Ending::WriteShut => None,
        }
    }

    /// The offset up to which the peer must have received the stream. Never above `handed`, not even if a peer's count has gone
    /// back, so that what is still to be handed to the link is never forgotten.
    fn floor(&self) -> u64 {
        let in_flight = (self.settings.history / 2) as u64;
        let certain = self.stated.max(self.handed.saturating_sub(in_flight));
        certain.min(self.handed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::snet::SessionKey;

    const HISTORY: usize = 16;

    /// Both ends of a session, `offset` bytes into both streams.
    fn ends_at(offset: u64, now: Instant) -> [Session; 2] {
        [Role::Client, Role::Server].map(|role| {
            let settings = Settings {
                history: HISTORY,
                resume_window: Duration::from_secs(300),
                linger: Duration::from_secs(60),
                silence: None,
                fin_is_close: false,
                cipher: CipherChoice::Plain,
            };
            let key = SessionKey::new(*b"8 bytes.");
            let mut session = Session::new(role, Opened { id: 7, key }, settings, now);
            session.replay = ReplayBuffer::starting_at(offset, HISTORY);
            session.receive.count(offset as usize);
            let both = Counts {
                sent: offset,
                received: offset,
            };
            session.attach(0, both, offset, now).unwrap();
            session
        })
    }

    fn carry(from: &mut Session, to: &mut Session, now: Instant) -> Vec<u8> {
        let (first, second) = from.unsent();
        let mut bytes = [first, second].concat();
        from.handed(bytes.len());
        match to.arrived(&mut bytes, now) {
            Arrived::Fresh(fresh) => bytes[fresh].to_vec(),
            Arrived::Exhausted => panic!("offsets ran out"),
        }
    }

    /// Seen in goscon: counts of 32 bits, after which every resume was refused.
    #[test]
    fn goscon_13_session_resumes_across_32_bits_and_near_64() {
        let now = Instant::now();
        for offset in [(1 << 32) - 5, (1 << 63) - 5, u64::MAX - 10] {
            let [mut client, mut server] = ends_at(offset, now);
            assert_eq!(client.write(b"lost"), 4);
            client.handed(4);
            assert_eq!(client.write(b"kept"), 4);
            client.detach(now);
            let request = client.counts();
            assert_eq!(request.sent, offset + 8);
            let reply = server.answer(request).unwrap();
            client.check(reply).unwrap();
            client.attach(1, reply, request.received, now).unwrap();
            server.attach(1, request, reply.received, now).unwrap();
            assert_eq!(carry(&mut client, &mut server, now), b"lostkept");
            assert_eq!(server.counts().received, offset + 8);
            assert_eq!(client.replayed(), 4);
        }
    }

    #[test]
    fn goscon_13_stream_ends_where_offsets_do() {
        let now = Instant::now();
        let [mut client, mut server] = ends_at(u64::MAX - 3, now);
        assert_eq!(client.room(), 3);
        assert_eq!(client.write(b"abcd"), 3);
        assert_eq!((client.room(), client.write(b"d")), (0, 0));
        assert_eq!(carry(&mut client, &mut server, now), b"abc");
        assert_eq!(server.arrived(&mut [0], now), Arrived::Exhausted);
        assert_eq!(server.phase(), Phase::Closed(CloseReason::Exhausted));
        assert_eq!(server.counts().received, u64::MAX);
    }

    /// Handles outlive sessions, and must not keep their history.
    #[test]
    fn a_session_that_is_over_gives_its_history_back() {
        let now = Instant::now();
        let [mut client, _] = ends_at(0, now);
        client.write(b"abcd");
        client.handed(3);
        client.close(CloseReason::Expired);
        assert_eq!(client.replay.allocated(), 0);
        assert_eq!((client.counts().sent, client.backlog()), (4, 1));
        assert_eq!(client.unsent(), (&[][..], &[][..]));
    }

    #[test]
    fn a_cipher_that_panics_ends_the_session_and_sends_nothing_in_the_clear() {
        struct Panics;
        impl StreamCipher for Panics {
            fn apply(&mut self, _: &mut [u8]) {
                panic!("on purpose");
            }
        }
        let now = Instant::now();
        let [mut client, _] = ends_at(0, now);
        client.encrypt = Some(Box::new(Panics));
        let write = std::panic::AssertUnwindSafe(|| client.write(b"secret"));
        assert!(std::panic::catch_unwind(write).is_err());
        assert_eq!(client.phase(), Phase::Closed(CloseReason::Abandoned));
        assert_eq!(client.unsent(), (&[][..], &[][..]));
    }
}
