//! One end of an snet session (`docs/PROTOCOL.md`, "Session").

use std::time::{Duration, Instant};

use super::{CipherChoice, Counts, Direction, Opened, StreamCipher};
use crate::{
    error::{CloseReason, ResumeError},
    protocol::{
        session::{Arrived, Life, LinkId, Phase, Role, Session, Stats, is_due},
        streams::{Streams, UNSENT},
    },
};

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

/// One end of an snet session.
pub struct SnetSession {
    settings: Settings,
    opened: Opened,
    life: Life,
    streams: Streams,
    encrypt: Option<Box<dyn StreamCipher>>,
    decrypt: Option<Box<dyn StreamCipher>>,
    /// The link in use.
    link: Option<LinkId>,
    /// The greatest received count the peer has stated, and proved itself.
    stated: u64,
    /// The offset up to which the link, or while detached the last one, was handed the stream.
    next: u64,
    /// The offset of the next byte from the link. Below what was received, it arrives again.
    arriving: u64,
    /// When the peer was last heard, or the clock of its silence last stood still.
    heard: Instant,
    /// The sent count of a resume request whose counts make a gap certain, unless it was a copy: then more may arrive.
    gap_suspected: Option<u64>,
}

impl SnetSession {
    /// A session that a handshake has just opened, detached since `now`: attach the link with counts of 0.
    pub fn new(role: Role, opened: Opened, settings: Settings, now: Instant) -> Self {
        let (sending, receiving) = match role {
            Role::Client => (Direction::ClientToServer, Direction::ServerToClient),
            Role::Server => (Direction::ServerToClient, Direction::ClientToServer),
        };
        Self {
            life: Life::new(role, now),
            streams: Streams::new(settings.history),
            encrypt: settings.cipher.start(&opened.key, sending),
            decrypt: settings.cipher.start(&opened.key, receiving),
            link: None,
            stated: 0,
            next: 0,
            arriving: 0,
            heard: now,
            gap_suspected: None,
            opened,
            settings,
        }
    }

    /// The connection id and the key.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// What this end says of its streams.
    pub fn counts(&self) -> Counts {
        Counts {
            sent: self.streams.replay.end(),
            received: self.streams.receive.received(),
        }
    }

    /// The link is about to be replaced: its counts are taken, and nothing moves on it any more.
    pub fn detach(&mut self, now: Instant) {
        self.link = None;
        self.life.detach(now);
    }

    /// Whether the session can go on with a peer that counts like this. Changes nothing: a request may be a copy.
    ///
    /// # Errors
    ///
    /// Why not. To ends that count right only the gap can happen, and it is final: counts only grow.
    pub fn check(&self, peer: Counts) -> Result<(), ResumeError> {
        if self.life.closed().is_some() {
            return Err(ResumeError::Closed);
        }
        let own = self.counts();
        if peer.received > own.sent {
            Err(ResumeError::ReceivedTooMuch)
        } else if peer.sent < own.received {
            Err(ResumeError::SentTooLittle)
        } else if peer.received < self.streams.replay.start() {
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
        let lacks = peer.sent.saturating_sub(self.counts().received);
        if verdict == Err(ResumeError::Gap) || lacks > self.settings.history as u64 {
            self.gap_suspected = self.gap_suspected.max(Some(peer.sent));
        }
        verdict?;
        if self.life.is_dropped() && peer.received == self.counts().sent {
            return Err(ResumeError::Ended);
        }
        Ok(self.counts())
    }

    /// Gives the session a link whose peer has proved itself, in place of the one it has. `link` numbers the resume requests in the
    /// order of their arrival, 0 being the open; `peer` is what the peer stated in it, and `stated` what this end had stated to have
    /// received.
    ///
    /// # Errors
    ///
    /// The session has moved on since the counts were exchanged; the link is to be closed, and the session is as it was.
    pub fn attach(
        &mut self,
        link: LinkId,
        peer: Counts,
        stated: u64,
        now: Instant,
    ) -> Result<(), ResumeError> {
        self.life.check_number(link)?;
        self.check(peer)?;
        self.life.number(link);
        self.life.attach(link);
        self.link = Some(link);
        self.stated = self.stated.max(peer.received);
        self.next = peer.received;
        self.arriving = stated;
        self.heard = now;
        self.gap_suspected = None;
        Ok(())
    }

    /// How many bytes the link, or while detached the last one, was not handed.
    fn backlog(&self) -> u64 {
        self.streams.replay.end() - self.next
    }

    /// How many sent bytes the peer may still lack, for all this end knows.
    fn unacknowledged(&self) -> u64 {
        self.streams.replay.end() - self.floor()
    }

    /// The offset up to which the peer must have received the stream. Never above `next`, not even if a peer's count has gone back, so
    /// that what is still to be handed to the link is never forgotten.
    ///
    /// snet has no acknowledgements. What holds instead is that at most half the history is on its way, in the socket buffers of both
    /// ends: so all that was handed to the link but for that half has arrived.
    fn floor(&self) -> u64 {
        let in_flight = (self.settings.history / 2) as u64;
        let certain = self.stated.max(self.next.saturating_sub(in_flight));
        certain.min(self.next)
    }

    /// When a peer that stays silent is to be doubted. The clock stands while nothing more is read from the link.
    fn silent_at(&self) -> Option<Instant> {
        let silence = self.settings.silence?;
        let listening = self.life.role == Role::Client && self.link.is_some() && self.wanted() > 0;
        self.heard.checked_add(silence).filter(|_| listening)
    }
}

impl Session for SnetSession {
    fn role(&self) -> Role {
        self.life.role
    }

    fn phase(&self) -> Phase {
        self.life.phase()
    }

    fn verdict(&self) -> Option<CloseReason> {
        self.life.closed()
    }

    fn stats(&self) -> Stats {
        let counts = self.counts();
        Stats {
            sent: counts.sent,
            received: counts.received,
            replayed: self.streams.replayed(),
            resumes: self.life.resumes(),
            unacknowledged: self.unacknowledged(),
            credit: self.room() as u64,
            round_trip: None,
        }
    }

    /// A writer waits when what may not have arrived would exceed the history.
    fn room(&self) -> usize {
        let held = usize::try_from(self.unacknowledged()).unwrap_or(usize::MAX);
        let offsets = u64::MAX - self.streams.replay.end();
        let offsets = usize::try_from(offsets).unwrap_or(usize::MAX);
        let room = self.settings.history.saturating_sub(held).min(offsets);
        match self.phase() {
            Phase::Attached => {
                let backlog = usize::try_from(self.backlog()).unwrap_or(usize::MAX);
                room.min(UNSENT.saturating_sub(backlog))
            }
            _ => room,
        }
    }

    fn is_exhausted(&self) -> bool {
        self.counts().sent == u64::MAX
    }

    /// Encrypted, as it goes out each time.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let bytes = &bytes[..bytes.len().min(self.room())];
        let replay = &mut self.streams.replay;
        let end = replay.end();
        let evicted = bytes.len().saturating_sub(replay.room());
        replay.trim(replay.start() + evicted as u64);
        let written = replay.push(bytes);
        debug_assert_eq!(written, bytes.len());
        if let Some(cipher) = &mut self.encrypt
            && let Some((first, second)) = replay.from_mut(end)
        {
            // If the user's cipher panics, what is in the clear in the history goes nowhere.
            self.life.guarded(|| {
                cipher.apply(first);
                cipher.apply(second);
            });
        }
        written
    }

    fn shut_write(&mut self) {
        self.life.shut_write();
    }

    fn is_write_shut(&self) -> bool {
        self.life.is_write_shut()
    }

    /// snet has no end to send, and no answer to wait for: a link has taken all that was written.
    fn is_shut_down(&self, flushed: bool) -> bool {
        match self.life.phase() {
            Phase::Attached => self.backlog() == 0 && flushed,
            Phase::Detached(_) => false,
            Phase::Closed(reason) => reason == CloseReason::Peer && self.backlog() == 0,
        }
    }

    fn waiting(&self) -> usize {
        self.streams.receive.waiting()
    }

    fn read(&mut self, out: &mut [u8], now: Instant) -> usize {
        if self.streams.receive.room() == 0 {
            // The peer could not be heard while nothing was read.
            self.heard = now;
        }
        self.streams.receive.read(out)
    }

    fn is_read_ended(&self) -> bool {
        self.life.closed() == Some(CloseReason::Peer)
    }

    /// The peer learns of it when it is refused its next resume.
    fn reset(&mut self, code: u32, _: Instant) {
        self.close(CloseReason::LocalReset(code));
    }

    fn drop_transport(&mut self, now: Instant) {
        if !self.life.is_dropped() {
            self.life.drop_transport(now);
            self.streams.receive.discard();
        }
    }

    fn allocated(&self) -> usize {
        self.streams.allocated()
    }

    fn window(&self) -> usize {
        self.settings.history
    }

    fn max_window(&self) -> usize {
        self.settings.history
    }

    fn promised(&self) -> usize {
        0
    }

    fn is_stream_next(&self, _: LinkId) -> bool {
        true
    }

    /// The history is what the peer is promised.
    fn set_window(&mut self, _: usize, _: Instant) -> bool {
        false
    }

    fn is_confined(&self) -> bool {
        false
    }

    fn holds(&self, link: LinkId) -> bool {
        self.link == Some(link)
    }

    fn transmit(&mut self, _: Instant) -> [&[u8]; 3] {
        if self.link.is_none() || self.life.closed().is_some() {
            return [&[]; 3];
        }
        // An attach checks that the history reaches back to the cursor, and room is only made below it.
        let (first, second) = self.streams.replay.from(self.next).unwrap_or_default();
        [first, second, &[]]
    }

    fn transmitted(&mut self, count: usize) {
        self.streams.hand(&mut self.next, count);
    }

    fn is_flushed(&self) -> bool {
        self.backlog() == 0
    }

    fn owes(&self, _: Instant) -> bool {
        false
    }

    fn wanted(&self) -> usize {
        if self.life.is_dropped() {
            self.settings.history
        } else {
            self.streams.receive.room()
        }
    }

    /// Decrypts in place.
    fn receive(&mut self, link: LinkId, bytes: &mut [u8], now: Instant) -> Arrived {
        if !self.holds(link) {
            return Arrived::default();
        }
        self.heard = now;
        if bytes.len() as u64 > u64::MAX - self.arriving {
            self.close(CloseReason::Exhausted);
            return Arrived::default();
        }
        let again = self.streams.arrive(&mut self.arriving, bytes.len());
        if self.gap_suspected.is_some_and(|sent| sent < self.arriving) {
            // A peer that asked for another link sends no more on this one.
            self.gap_suspected = None;
        }
        if let Some(cipher) = &mut self.decrypt {
            // If the user's cipher panics, what was counted and never came out of it is lost.
            self.life.guarded(|| cipher.apply(&mut bytes[again..]));
        }
        Arrived {
            fresh: again..bytes.len(),
            ..Arrived::default()
        }
    }

    /// Its links hold nothing back.
    fn stirred(&mut self, _: LinkId, _: Instant) {}

    fn store(&mut self, bytes: &[u8]) {
        if !self.life.is_dropped() {
            self.streams.receive.store(bytes);
        }
    }

    fn link_ended(&mut self, link: LinkId, now: Instant) {
        if self.settings.fin_is_close && self.holds(link) {
            self.close(CloseReason::Peer);
        } else {
            self.link_failed(link, now);
        }
    }

    fn link_failed(&mut self, link: LinkId, now: Instant) {
        if self.holds(link) {
            self.detach(now);
        }
    }

    fn wants_close(&self) -> bool {
        self.life.is_dropped() && self.link.is_some() && self.backlog() == 0
    }

    fn link_closed(&mut self, now: Instant) {
        match self.life.role {
            Role::Client => self.close(CloseReason::Local),
            // The session stays a while for a peer that has not had everything after all.
            Role::Server => self.detach(now),
        }
    }

    fn is_switching(&self) -> bool {
        false
    }

    fn probe(&mut self) {}

    fn close(&mut self, reason: CloseReason) {
        if self.life.close(reason) {
            self.link = None;
            // Handles outlive sessions, and must not keep their history.
            let replay = &mut self.streams.replay;
            replay.trim(replay.end());
            replay.release();
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.life.closed().is_some() {
            return None;
        }
        [
            self.silent_at(),
            self.life.expires_at(self.settings.resume_window),
            self.life.lingers_until(self.settings.linger),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn handle_timeout(&mut self, now: Instant) -> bool {
        if is_due(self.life.lingers_until(self.settings.linger), now) {
            self.close(if self.backlog() == 0 {
                CloseReason::Local
            } else {
                CloseReason::Expired
            });
        }
        if is_due(self.life.expires_at(self.settings.resume_window), now) {
            self.close(if self.gap_suspected.is_some() {
                CloseReason::Gap
            } else {
                CloseReason::Expired
            });
        }
        let silent = is_due(self.silent_at(), now);
        if silent {
            self.heard = now;
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::snet::SessionKey;

    const HISTORY: usize = 16;

    /// Both ends of a session, `offset` bytes into both streams.
    fn ends_at(offset: u64, now: Instant) -> [SnetSession; 2] {
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
            let mut session = SnetSession::new(role, Opened { id: 7, key }, settings, now);
            session.streams = Streams::starting_at(offset, HISTORY);
            let both = Counts {
                sent: offset,
                received: offset,
            };
            session.attach(0, both, offset, now).unwrap();
            session
        })
    }

    fn carry(from: &mut SnetSession, to: &mut SnetSession, now: Instant) -> Vec<u8> {
        let mut bytes = from.transmit(now).concat();
        from.transmitted(bytes.len());
        let link = to.life.last().unwrap();
        let arrived = to.receive(link, &mut bytes, now);
        bytes[arrived.fresh].to_vec()
    }

    /// Seen in goscon: counts of 32 bits, after which every resume was refused.
    #[test]
    fn goscon_13_session_resumes_across_32_bits_and_near_64() {
        let now = Instant::now();
        for offset in [(1 << 32) - 5, (1 << 63) - 5, u64::MAX - 10] {
            let [mut client, mut server] = ends_at(offset, now);
            assert_eq!(client.write(b"lost"), 4);
            client.transmitted(4);
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
            assert_eq!(client.stats().replayed, 4);
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
        assert_eq!(server.receive(0, &mut [0], now), Arrived::default());
        assert_eq!(server.phase(), Phase::Closed(CloseReason::Exhausted));
        assert_eq!(server.counts().received, u64::MAX);
    }

    /// Handles outlive sessions, and must not keep their history.
    #[test]
    fn a_session_that_is_over_gives_its_history_back() {
        let now = Instant::now();
        let [mut client, _] = ends_at(0, now);
        client.write(b"abcd");
        client.transmitted(3);
        client.close(CloseReason::Expired);
        assert_eq!(client.streams.replay.allocated(), 0);
        assert_eq!((client.counts().sent, client.backlog()), (4, 1));
        assert_eq!(client.transmit(now), [&[]; 3]);
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
        assert_eq!(client.transmit(now), [&[]; 3]);
    }
}
