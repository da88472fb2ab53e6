//! A session together with its links: the bytes' way between them.

mod ending;
mod keeping;
mod memory;
mod resuming;

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use tokio::io::{AsyncWrite, ReadBuf};

use self::{memory::Memory, resuming::Queue};
use super::{
    any_session::AnySession, effects::Effects, link::AnyLink, log, memory::MemoryBudget,
    metrics::Recorder, state::LinkState,
};
use crate::{
    error::{CloseReason, Error},
    link,
    protocol::{LinkId, Phase, Role},
};

/// How much of a link the keeper reads at a time, on its stack.
const TAKE_IN: usize = 16 * 1024;
/// How much of a link is read at a time for an application that has less room than that: what stands around a few bytes of the stream, and
/// the next few, cost no call of their own.
const AHEAD: usize = 2 * 1024;
/// How many times a link is read in one go, if it always has more, before other tasks may run.
const ROUNDS: usize = 64;

/// How far the newest link, which has had all it will be handed, is on its way to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closing {
    /// It still carries the session.
    No,
    /// Its write side is being shut down.
    Shutting,
    /// Input is discarded until its end: closing over unread input can destroy what is under way to the peer.
    Discarding,
}

/// A link in use.
struct Attached {
    id: LinkId,
    link: AnyLink,
}

/// Both links, the older one first.
fn links<'a>(
    previous: &'a mut Option<Box<Attached>>,
    newest: &'a mut Option<Attached>,
) -> impl Iterator<Item = &'a mut Attached> {
    previous.as_deref_mut().into_iter().chain(newest)
}

/// The wakers every link is polled with, one a direction.
pub(super) struct Wakers {
    pub(super) read: Waker,
    pub(super) write: Waker,
}

impl Wakers {
    fn read(&self) -> Context<'_> {
        Context::from_waker(&self.read)
    }

    fn write(&self) -> Context<'_> {
        Context::from_waker(&self.write)
    }
}

/// What is behind a session's lock.
pub(super) struct SessionIo {
    pub(super) session: AnySession,
    recorder: Recorder,
    wakers: Wakers,
    /// The link that is written to.
    link: Option<Attached>,
    /// Whether that is the session's first link, or both ends use it: until they do, the attempt to resume on it can come to nothing.
    used: bool,
    /// The one before it, for as long as the session holds it.
    previous: Option<Box<Attached>>,
    /// Whether the link was written to since it was last flushed.
    unflushed: bool,
    closing: Closing,
    /// When a link that is closing, or whose session is over, is dropped at the latest.
    close_by: Option<Instant>,
    /// How long that may take, in milliseconds.
    patience: u32,
    /// A client wants a new link though it has one: the peer has been silent, or the network has changed. A byte from the peer settles
    /// the matter.
    doubt: bool,
    /// Users who want a new link, whether there is one or not.
    migrations: Queue,
    /// Those of them that wait for the newest link to be taken into use.
    moving: Queue,
    /// How many attempts were made to resume since the link was lost.
    attempt: u32,
    /// The state when it was last looked at.
    seen: LinkState,
    /// When the keeper comes again by itself.
    keeper_comes: Option<Instant>,
    /// Whether it was called since it last came.
    keeper_called: bool,
    /// How many bytes had been sent and received when something was last due.
    carried: u64,
    memory: Memory,
    /// Whether that was as many as the time before.
    idle: bool,
}

/// What the keeper is to do about a session's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing.
    Nothing,
    /// A new link.
    Link,
    /// To end: the session is over.
    End,
}

impl SessionIo {
    pub(super) fn new(
        session: AnySession,
        wakers: Wakers,
        patience: Duration,
        budget: MemoryBudget,
    ) -> Self {
        let mut io = Self {
            memory: Memory::new(budget, &session),
            recorder: Recorder::default(),
            session,
            wakers,
            link: None,
            used: false,
            previous: None,
            unflushed: false,
            closing: Closing::No,
            close_by: None,
            patience: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
            doubt: false,
            migrations: Queue::default(),
            moving: Queue::default(),
            attempt: 0,
            seen: LinkState::Connected,
            keeper_comes: None,
            // It comes once by itself when it begins.
            keeper_called: true,
            carried: 0,
            idle: false,
        };
        io.seen = io.state();
        io
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.patience.into())
    }

    /// See [`Shared::begin`](super::shared::Shared::begin).
    pub(super) fn begin(&mut self) {
        self.recorder.begin(&self.session);
        self.record();
    }

    /// What a user is told of the session's state.
    pub(super) fn state(&self) -> LinkState {
        if let Some(reason) = self.session.verdict() {
            return LinkState::Closed(reason);
        }
        match self.session.phase() {
            Phase::Attached => LinkState::Connected,
            Phase::Detached(since) => LinkState::Reconnecting {
                attempt: self.attempt,
                since,
            },
            Phase::Closed(reason) => LinkState::Closed(reason),
        }
    }

    fn record(&mut self) {
        let (state, buffered) = (self.state(), self.buffered());
        self.recorder.observe(&self.session, &state, buffered);
    }

    // What the application does.

    /// Reads into `buf`, which has room: what waits, else straight from the links.
    pub(super) fn poll_read(
        &mut self,
        buf: &mut ReadBuf<'_>,
        fx: &mut Effects,
    ) -> Poll<io::Result<()>> {
        for _ in 0..ROUNDS {
            if self.session.waiting() > 0 {
                if self.session.wanted() == 0 {
                    // The keeper had stopped reading.
                    fx.wake_keeper = true;
                }
                fx.touched = true;
                let most = buf.remaining().min(self.session.waiting());
                let count = self
                    .session
                    .read(buf.initialize_unfilled_to(most), fx.now());
                buf.advance(count);
                self.answer(fx);
                return Poll::Ready(Ok(()));
            }
            if self.session.is_read_ended() {
                return Poll::Ready(Ok(()));
            }
            if let Some(reason) = self.session.verdict() {
                return Poll::Ready(Err(Error::Closed(reason).into()));
            }
            let before = buf.filled().len();
            if buf.remaining() < AHEAD {
                ready!(self.poll_ahead(buf, fx));
            } else if self.is_header_next() {
                // Behind a header the stream would have to be moved, all of it that the link gives.
                let is_all = ready!(self.poll_ahead(buf, fx)) < AHEAD;
                if !is_all && buf.remaining() >= AHEAD {
                    // Its coming to nothing, or to the link's end, shows the next time.
                    let _ = self.poll_straight(buf, fx);
                }
            } else {
                ready!(self.poll_straight(buf, fx));
            }
            self.answer(fx);
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
        // Nothing of the stream came, but more may be there.
        fx.wake_reader = true;
        Poll::Pending
    }

    /// Whether a header comes next on the only link, and the link gives what it has in pieces of any size: one of records opens them
    /// best where they are to go.
    fn is_header_next(&self) -> bool {
        match (&self.link, &self.previous) {
            (Some(Attached { id, link }), None) => {
                link.is_plain() && !self.session.is_stream_next(*id)
            }
            _ => false,
        }
    }

    /// Reads a link into `buf`, as much as it gives.
    fn poll_straight(&mut self, buf: &mut ReadBuf<'_>, fx: &mut Effects) -> Poll<()> {
        let before = buf.filled().len();
        let (id, result) = ready!(self.poll_links(buf, fx));
        if let Some(count) = self.gave(id, result, fx) {
            let bytes = &mut buf.filled_mut()[before..];
            debug_assert_eq!(bytes.len(), count);
            let fresh = self.take(id, bytes, fx);
            let count = fresh.len();
            bytes.copy_within(fresh, 0);
            buf.set_filled(before + count);
        }
        Poll::Ready(())
    }

    /// Reads a link through a buffer of its own, beyond the room in `buf` perhaps; what does not fit waits. Returns how much the link gave.
    fn poll_ahead(&mut self, buf: &mut ReadBuf<'_>, fx: &mut Effects) -> Poll<usize> {
        let mut scratch = [const { MaybeUninit::uninit() }; AHEAD];
        let room = self.session.wanted().saturating_add(buf.remaining());
        let mut ahead = ReadBuf::uninit(&mut scratch[..room.min(AHEAD)]);
        let (id, result) = ready!(self.poll_links(&mut ahead, fx));
        let gave = self.gave(id, result, fx);
        if gave.is_some() {
            let bytes = ahead.filled_mut();
            let fresh = self.take(id, bytes, fx);
            let count = fresh.len().min(buf.remaining());
            let (fitting, waiting) = bytes[fresh].split_at(count);
            buf.put_slice(fitting);
            if !waiting.is_empty() {
                self.session.store(waiting);
            }
        }
        Poll::Ready(gave.unwrap_or_default())
    }

    /// Accepts as much of `bufs` as there is room for, and hands it to the link as far as the link takes it.
    pub(super) fn poll_write(
        &mut self,
        bufs: &[IoSlice<'_>],
        fx: &mut Effects,
    ) -> Poll<io::Result<usize>> {
        self.check_writable()?;
        if self.session.room() == 0 {
            // What the link takes makes room, or what the peer says. A link that holds back what it has taken brings neither.
            let _ = self.hand_over_and_flush(fx);
            self.hear(fx);
            self.check_writable()?;
        }
        let mut written = 0;
        let mut wanted = false;
        for buf in bufs {
            wanted |= !buf.is_empty();
            let count = self.session.write(buf);
            written += count;
            if count < buf.len() {
                break;
            }
        }
        if written == 0 && wanted {
            return Poll::Pending;
        }
        fx.touched = true;
        self.hand_over(fx);
        Poll::Ready(Ok(written))
    }

    fn check_writable(&self) -> io::Result<()> {
        if let Some(reason) = self.session.verdict() {
            return Err(Error::Closed(reason).into());
        }
        if self.session.is_write_shut() {
            return Err(Error::WriteAfterShutdown.into());
        }
        if self.session.is_exhausted() {
            return Err(Error::Closed(CloseReason::Exhausted).into());
        }
        Ok(())
    }

    /// Done when the link has all that may be sent, or when there is none: then the session keeps it for the next.
    pub(super) fn poll_flush(&mut self, fx: &mut Effects) -> Poll<io::Result<()>> {
        let mut flushed = self.hand_over_and_flush(fx);
        if flushed.is_pending() {
            // The peer may be waiting likewise, until this end reads.
            self.hear(fx);
            flushed = self.hand_over_and_flush(fx);
        }
        match self.session.verdict() {
            Some(_) if self.session.is_shut_down(true) => Poll::Ready(Ok(())),
            Some(reason) => Poll::Ready(Err(Error::Closed(reason).into())),
            None => flushed.map(Ok),
        }
    }

    /// Ends the write side. Done when the peer has all that was written, as far as the protocol tells.
    pub(super) fn poll_shutdown(&mut self, fx: &mut Effects) -> Poll<io::Result<()>> {
        if self.session.verdict().is_none() {
            fx.touched = true;
            self.session.shut_write();
        }
        let mut flushed = self.hand_over_and_flush(fx).is_ready();
        if !self.session.is_shut_down(flushed) {
            self.hear(fx);
            flushed = self.hand_over_and_flush(fx).is_ready();
        }
        if self.session.is_shut_down(flushed) {
            return Poll::Ready(Ok(()));
        }
        match self.session.verdict() {
            Some(reason) => Poll::Ready(Err(Error::Closed(reason).into())),
            None => Poll::Pending,
        }
    }

    // What the links do.

    /// Reads from whichever link gives something, an older one first. Pending without any.
    fn poll_links(
        &mut self,
        buf: &mut ReadBuf<'_>,
        fx: &mut Effects,
    ) -> Poll<(LinkId, io::Result<usize>)> {
        for attached in links(&mut self.previous, &mut self.link) {
            let result = link::poll_read(&mut attached.link, &mut self.wakers.read(), buf);
            let stirred = attached.link.take_stirred();
            fx.touched |= stirred || result.is_ready();
            if stirred && result.is_pending() {
                self.session.stirred(attached.id, fx.now());
            }
            if let Poll::Ready(result) = result {
                return Poll::Ready((attached.id, result));
            }
        }
        if self.idle {
            fx.touched = true;
            self.release_idle();
        }
        Poll::Pending
    }

    /// Sees to a link that has ended or failed; returns how many bytes it gave otherwise.
    fn gave(&mut self, id: LinkId, result: io::Result<usize>, fx: &mut Effects) -> Option<usize> {
        match result {
            Ok(0) => self.link_ended(id, fx),
            Ok(count) => return Some(count),
            Err(error) => self.link_failed(id, &error, fx),
        }
        None
    }

    /// Counts what a link gave; what is in the returned range of it is new.
    fn take(&mut self, id: LinkId, bytes: &mut [u8], fx: &mut Effects) -> std::ops::Range<usize> {
        self.doubt = false;
        let arrived = self.session.receive(id, bytes, fx.now());
        if let Some(error) = arrived.broken {
            tracing::debug!(session = %self.session.id().short(), link = id, %error, "the peer broke the protocol");
            self.lost(id);
        }
        if let Some((reason, retry_after)) = arrived.rejected {
            tracing::debug!(session = %self.session.id().short(), link = id, %reason, "the server rejects the link");
            let error = Error::Rejected {
                reason,
                retry_after,
            };
            self.lost(id);
            if self.previous.is_some() {
                self.move_failed(error, fx);
            }
        }
        if arrived.attached && self.session.role() == Role::Client {
            self.attached(fx);
        }
        fx.wake_writer |= arrived.moved;
        fx.wake_reader |= arrived.moved && self.session.is_read_ended();
        self.look(fx);
        arrived.fresh
    }

    /// Takes from the links what they have, as far as there is room for it to wait.
    fn take_in(&mut self, fx: &mut Effects) {
        let mut scratch = [const { MaybeUninit::uninit() }; TAKE_IN];
        for _ in 0..ROUNDS {
            let room = self.session.wanted().min(TAKE_IN);
            if room == 0 {
                return;
            }
            let mut buf = ReadBuf::uninit(&mut scratch[..room]);
            let Poll::Ready((id, result)) = self.poll_links(&mut buf, fx) else {
                return;
            };
            if self.gave(id, result, fx).is_some() {
                let bytes = buf.filled_mut();
                let fresh = self.take(id, bytes, fx);
                if !fresh.is_empty() {
                    self.session.store(&bytes[fresh]);
                    fx.wake_reader = true;
                }
            }
        }
        fx.wake_keeper = true;
    }

    /// Takes in what the peer has to say, for somebody on the write side who waits for that.
    fn hear(&mut self, fx: &mut Effects) {
        self.take_in(fx);
        let _ = self.hand_over_and_flush(fx);
        fx.heard = true;
    }

    /// Hands to the link what it takes of what it has not had.
    fn hand_over(&mut self, fx: &mut Effects) {
        while let Some(attached) = &mut self.link {
            if self.session.is_flushed() && !self.session.owes(fx.now()) {
                return;
            }
            let pieces = self.session.transmit(fx.now());
            fx.touched = true;
            if pieces.iter().all(|piece| piece.is_empty()) {
                return;
            }
            let mut cx = self.wakers.write();
            match link::poll_write(&mut attached.link, &mut cx, pieces) {
                Poll::Pending => return,
                Poll::Ready(Ok(count)) => {
                    self.session.transmitted(count);
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => {
                    let id = attached.id;
                    self.link_failed(id, &error, fx);
                }
            }
        }
    }

    /// [`hand_over`](Self::hand_over), and has the link send on what it may hold back. Ready when there is nothing left to do.
    fn hand_over_and_flush(&mut self, fx: &mut Effects) -> Poll<()> {
        self.hand_over(fx);
        if !self.session.is_flushed() && self.link.is_some() {
            return Poll::Pending;
        }
        if let Some(attached) = self.link.as_mut().filter(|_| self.unflushed) {
            let mut cx = self.wakers.write();
            // A link of the crate's own may give memory back.
            fx.touched |= attached.link.allocated() > 0;
            match ready!(Pin::new(&mut attached.link).poll_flush(&mut cx)) {
                Ok(()) => self.unflushed = false,
                Err(error) => {
                    let id = attached.id;
                    self.link_failed(id, &error, fx);
                }
            }
        }
        Poll::Ready(())
    }

    /// Sends what the peer should not wait for.
    fn answer(&mut self, fx: &mut Effects) {
        if self.session.owes(fx.now()) {
            let _ = self.hand_over_and_flush(fx);
        }
    }

    /// Whether nothing is left that a task on the write side could be waiting for.
    pub(super) fn is_settled(&self) -> bool {
        let session = &self.session;
        if session.verdict().is_some() {
            return true;
        }
        let has_room = if session.is_write_shut() {
            session.is_shut_down(true)
        } else {
            session.room() > 0
        };
        has_room && session.is_flushed() && !self.unflushed
    }

    /// Whether the link has been handed less than it may be, or holds some back: what a writer may wait for changes with either.
    fn unsent(&self) -> (bool, bool) {
        (!self.session.is_flushed(), self.unflushed)
    }

    fn link_ended(&mut self, id: LinkId, fx: &mut Effects) {
        fx.touched = true;
        tracing::debug!(session = %self.session.id().short(), link = id, "the link ended");
        if self.closing == Closing::Discarding && self.is_newest(id) {
            self.session.link_closed(fx.now());
        } else {
            self.session.link_ended(id, fx.now());
            self.lost(id);
        }
        self.look(fx);
    }

    fn link_failed(&mut self, id: LinkId, error: &io::Error, fx: &mut Effects) {
        fx.touched = true;
        tracing::debug!(session = %self.session.id().short(), link = id, %error, "the link failed");
        self.session.link_failed(id, fx.now());
        self.lost(id);
        self.look(fx);
    }

    /// A link is gone. That of an older one is no loss: it is being replaced.
    fn lost(&mut self, id: LinkId) {
        if self.is_newest(id) && self.used {
            self.recorder.link_lost(&self.session);
        } else if self.is_newest(id) {
            self.recorder.attempt_failed();
        }
    }

    fn is_newest(&self, id: LinkId) -> bool {
        self.link.as_ref().is_some_and(|attached| attached.id == id)
    }

    /// The newest link is in use at both ends.
    fn attached(&mut self, fx: &mut Effects) {
        self.doubt = false;
        self.used = true;
        log::attached(self.session.id(), &self.seen, &self.session.stats());
        self.record();
        for waiting in self.moving.take() {
            fx.migrated.push((waiting, Ok(())));
        }
        // Another link may have been asked for meanwhile.
        fx.wake_keeper = true;
    }

    /// Acts on what has become of the session: drops the links it no longer holds, and tells those that wait.
    pub(super) fn look(&mut self, fx: &mut Effects) {
        let held = |attached: &Attached| self.session.holds(attached.id);
        if self
            .previous
            .as_deref()
            .is_some_and(|attached| !held(attached))
        {
            fx.old_links
                .extend(self.previous.take().map(|attached| attached.link));
        }
        if self.link.as_ref().is_some_and(|attached| !held(attached)) {
            let gone = std::mem::replace(
                &mut self.link,
                self.previous.take().map(|previous| *previous),
            );
            fx.old_links.extend(gone.map(|attached| attached.link));
            // Whatever a link held back went with it; one that is taken up again may hold some back as well.
            self.unflushed = self.link.is_some();
            self.closing = Closing::No;
            self.close_by = None;
            if self.session.phase() == Phase::Attached {
                // The old one is taken up again.
                self.used = true;
                let gone = io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    "the new link was lost before the server used it",
                );
                self.move_failed(Error::Link(gone), fx);
            } else {
                self.migrations.extend(self.moving.take());
            }
            fx.phase_changed();
        }
        let over = matches!(self.session.phase(), Phase::Closed(_));
        if over && self.link.is_some() && self.close_by.is_none() {
            self.close_by = Some(fx.now() + self.patience());
        }
        let state = self.state();
        if state == self.seen {
            return;
        }
        if let (LinkState::Connected, LinkState::Reconnecting { .. }) = (&self.seen, &state) {
            self.attempt = 0;
            self.doubt = false;
        }
        if let LinkState::Closed(reason) = state {
            log::over(self.session.id(), reason, &self.session.stats());
            for waiting in self.migrations.take().into_iter().chain(self.moving.take()) {
                fx.migrated.push((waiting, Err(Error::Closed(reason))));
            }
        }
        self.seen = self.state();
        self.record();
        fx.phase_changed();
    }
}
