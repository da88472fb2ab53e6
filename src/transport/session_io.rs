//! A session together with its link: the bytes' way between them.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::io::{AsyncWrite, ReadBuf};

use super::{
    effects::{Effects, Migration},
    link::{self, BoxLink},
    state::{LinkState, SessionId},
};
use crate::{
    error::{BoxError, CloseReason, Error, ResumeError},
    protocol::{
        Arrived, Phase, Role, Session,
        snet::{Counts, Opened},
    },
};

/// How much of a link the keeper reads at a time, on its stack.
const TAKE_IN: usize = 16 * 1024;
/// How many times the keeper reads before it lets other tasks run.
const TAKE_IN_ROUNDS: usize = 64;

/// Why a client wants a new link while it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// The peer has been silent, or the network has changed. A byte from the peer settles the matter.
    Doubt,
    /// The user asked for it.
    Asked,
}

/// How far the link of a session whose transport was dropped is on its way to its end.
#[derive(Clone, Copy)]
enum Closing {
    /// The link still carries the session.
    No,
    /// Its write side is being shut down.
    Shutting,
    /// Input is discarded until its end, or until then: closing over unread input can destroy what is under way to the peer.
    Discarding(Instant),
}

/// What is behind a session's lock.
pub(super) struct SessionIo {
    pub(super) session: Session,
    id: SessionId,
    link: Option<BoxLink>,
    /// Whether the link was written to since it was last flushed.
    unflushed: bool,
    closing: Closing,
    /// How long a closing link may take.
    patience: Duration,
    probe: Option<Probe>,
    migrations: Vec<Migration>,
    /// How many attempts were made to resume since the link was lost.
    pub(super) attempt: u32,
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
    pub(super) fn new(session: Session, id: SessionId, patience: Duration) -> Self {
        Self {
            session,
            id,
            link: None,
            unflushed: false,
            closing: Closing::No,
            patience,
            probe: None,
            migrations: Vec::new(),
            attempt: 0,
        }
    }

    /// What a user is told of the session's state.
    pub(super) fn state(&self) -> LinkState {
        match self.session.phase() {
            Phase::Attached => LinkState::Connected,
            Phase::Detached(since) => LinkState::Reconnecting {
                attempt: self.attempt,
                since,
            },
            Phase::Closed(reason) => LinkState::Closed(reason),
        }
    }

    // What the application does.

    /// Reads into `buf`, which has room: what waits, else straight from the link.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        fx: &mut Effects,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.session.waiting() > 0 {
                if self.session.receive_room() == 0 {
                    // The keeper had stopped reading.
                    fx.wake_keeper = true;
                }
                let most = buf.remaining().min(self.session.waiting());
                let count = self.session.read(buf.initialize_unfilled_to(most), now());
                buf.advance(count);
                return Poll::Ready(Ok(()));
            }
            if let Phase::Closed(reason) = self.session.phase() {
                return Poll::Ready(match reason {
                    CloseReason::Peer => Ok(()),
                    reason => Err(Error::Closed(reason).into()),
                });
            }
            let Some(link) = &mut self.link else {
                return Poll::Pending;
            };
            let before = buf.filled().len();
            match ready!(link::poll_read(link, cx, buf)) {
                Ok(0) => self.link_ended(fx),
                Ok(_) => {
                    let fresh = self.arrived(&mut buf.filled_mut()[before..], fx);
                    let count = fresh.len();
                    buf.filled_mut()
                        .copy_within(before + fresh.start..before + fresh.end, before);
                    buf.set_filled(before + count);
                    if count > 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                Err(error) => self.link_failed(&error, fx),
            }
        }
    }

    /// Accepts as much of `bufs` as there is room for, and hands it to the link as far as the link takes it.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
        fx: &mut Effects,
    ) -> Poll<io::Result<usize>> {
        self.check_writable()?;
        if self.session.room() == 0 {
            // What the link takes makes room.
            self.hand_over(cx, fx);
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
        self.hand_over(cx, fx);
        Poll::Ready(Ok(written))
    }

    fn check_writable(&self) -> io::Result<()> {
        if let Phase::Closed(reason) = self.session.phase() {
            return Err(Error::Closed(reason).into());
        }
        if self.session.is_write_shut() {
            return Err(Error::WriteAfterShutdown.into());
        }
        if self.session.counts().sent == u64::MAX {
            return Err(Error::Closed(CloseReason::Exhausted).into());
        }
        Ok(())
    }

    /// Done when the link has all that was written, or when there is none: then the session keeps it for the next.
    pub(super) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        fx: &mut Effects,
    ) -> Poll<io::Result<()>> {
        let flushed = self.hand_over_and_flush(cx, fx);
        match self.session.phase() {
            Phase::Attached => flushed.map(Ok),
            Phase::Detached(_) => Poll::Ready(Ok(())),
            Phase::Closed(reason) => Poll::Ready(self.handed_over_before(reason)),
        }
    }

    /// Ends the write side. Done when a link has all that was written.
    pub(super) fn poll_shutdown(
        &mut self,
        cx: &mut Context<'_>,
        fx: &mut Effects,
    ) -> Poll<io::Result<()>> {
        self.session.shut_write();
        let flushed = self.hand_over_and_flush(cx, fx);
        match self.session.phase() {
            Phase::Attached => flushed.map(Ok),
            Phase::Detached(_) => Poll::Pending,
            Phase::Closed(reason) => Poll::Ready(self.handed_over_before(reason)),
        }
    }

    /// Whether all was handed over before the peer closed the session. Any other end is an error in any case.
    fn handed_over_before(&self, reason: CloseReason) -> io::Result<()> {
        if reason == CloseReason::Peer && self.session.backlog() == 0 {
            Ok(())
        } else {
            Err(Error::Closed(reason).into())
        }
    }

    // What the link does.

    /// Takes from the link what it has, as far as there is room for it to wait.
    pub(super) fn take_in(&mut self, cx: &mut Context<'_>, fx: &mut Effects) {
        let mut scratch = [0; TAKE_IN];
        for _ in 0..TAKE_IN_ROUNDS {
            let room = self.session.receive_room().min(TAKE_IN);
            let Some(link) = &mut self.link else { return };
            if room == 0 {
                return;
            }
            let mut buf = ReadBuf::new(&mut scratch[..room]);
            match link::poll_read(link, cx, &mut buf) {
                Poll::Pending => return,
                Poll::Ready(Ok(0)) => self.link_ended(fx),
                Poll::Ready(Ok(_)) => {
                    let bytes = buf.filled_mut();
                    let fresh = self.arrived(bytes, fx);
                    if !fresh.is_empty() {
                        self.session.store(&bytes[fresh]);
                        fx.wake_reader = true;
                    }
                }
                Poll::Ready(Err(error)) => self.link_failed(&error, fx),
            }
        }
        fx.wake_keeper = true;
    }

    /// Hands to the link what it takes of what it has not had.
    pub(super) fn hand_over(&mut self, cx: &mut Context<'_>, fx: &mut Effects) {
        while let Some(link) = &mut self.link {
            let unsent = self.session.unsent();
            if unsent.0.is_empty() {
                return;
            }
            match link::poll_write(link, cx, unsent) {
                Poll::Pending => return,
                Poll::Ready(Ok(count)) => {
                    self.session.handed(count);
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => self.link_failed(&error, fx),
            }
        }
    }

    /// [`hand_over`](Self::hand_over), and has the link send on what it may hold back. Ready when there is nothing left to do.
    pub(super) fn hand_over_and_flush(
        &mut self,
        cx: &mut Context<'_>,
        fx: &mut Effects,
    ) -> Poll<()> {
        self.hand_over(cx, fx);
        let Some(link) = &mut self.link else {
            return Poll::Ready(());
        };
        if self.session.backlog() > 0 {
            return Poll::Pending;
        }
        if self.unflushed {
            match ready!(Pin::new(link).poll_flush(cx)) {
                Ok(()) => self.unflushed = false,
                Err(error) => self.link_failed(&error, fx),
            }
        }
        Poll::Ready(())
    }

    /// How many bytes the link has not had, and whether it holds some back: what a writer may wait for changes with either.
    pub(super) fn unsent(&self) -> (u64, bool) {
        (self.session.backlog(), self.unflushed)
    }

    /// Counts and decrypts what the link gave; what is in the returned range of it is new.
    fn arrived(&mut self, bytes: &mut [u8], fx: &mut Effects) -> std::ops::Range<usize> {
        if self.probe == Some(Probe::Doubt) {
            self.probe = None;
        }
        match self.session.arrived(bytes, now()) {
            Arrived::Fresh(range) => range,
            Arrived::Exhausted => {
                self.drop_link(fx);
                0..0
            }
        }
    }

    fn link_ended(&mut self, fx: &mut Effects) {
        tracing::debug!(session = %self.id.short(), "the link ended");
        if matches!(self.closing, Closing::Discarding(_)) {
            self.link_closed(fx);
        } else {
            self.session.link_ended(now());
            self.drop_link(fx);
        }
    }

    fn link_failed(&mut self, error: &io::Error, fx: &mut Effects) {
        tracing::debug!(session = %self.id.short(), %error, "the link failed");
        self.session.detach(now());
        self.drop_link(fx);
    }

    /// Takes the link out of use. The session's phase has been changed accordingly.
    fn drop_link(&mut self, fx: &mut Effects) {
        if let Some(link) = self.link.take() {
            // Only one link is ever in use, so there is no earlier one here.
            fx.old_link = Some(link);
        }
        self.unflushed = false;
        self.closing = Closing::No;
        self.attempt = 0;
        self.probe = None;
        if let Phase::Closed(reason) = self.session.phase() {
            tracing::debug!(session = %self.id.short(), %reason, "the session is over");
            for waiting in self.migrations.drain(..) {
                fx.migrated.push((waiting, Err(Error::Closed(reason))));
            }
        }
        fx.phase_changed();
    }

    // The end.

    /// Ends the session, unless it is over already.
    pub(super) fn close(&mut self, reason: CloseReason, fx: &mut Effects) {
        if !matches!(self.session.phase(), Phase::Closed(_)) {
            self.session.close(reason);
            self.drop_link(fx);
        }
    }

    /// Carries a session whose transport was dropped towards its end.
    pub(super) fn finish(&mut self, cx: &mut Context<'_>, fx: &mut Effects) {
        if let Closing::No = self.closing
            && self.session.is_handed_over()
            && !self.unflushed
        {
            self.closing = Closing::Shutting;
        }
        if let (Closing::Shutting, Some(link)) = (self.closing, &mut self.link) {
            match Pin::new(link).poll_shutdown(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    self.closing = Closing::Discarding(now() + self.patience);
                }
                Poll::Ready(Err(error)) => self.link_failed(&error, fx),
            }
        }
    }

    /// The link of a session whose transport was dropped has had everything and has ended.
    fn link_closed(&mut self, fx: &mut Effects) {
        match self.session.role() {
            Role::Client => self.session.close(CloseReason::Local),
            // The session stays a while for a peer that has not had everything after all.
            Role::Server => self.session.detach(now()),
        }
        self.drop_link(fx);
    }

    // What time does.

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let session = self.session.poll_timeout();
        match self.closing {
            Closing::Discarding(until) => Some(session.map_or(until, |at| at.min(until))),
            Closing::No | Closing::Shutting => session,
        }
    }

    pub(super) fn handle_timeout(&mut self, fx: &mut Effects) {
        let now = now();
        if let Closing::Discarding(until) = self.closing
            && until <= now
        {
            self.link_closed(fx);
        }
        let was_over = self.is_over();
        if self.session.handle_timeout(now) && self.probe.is_none() {
            tracing::debug!(session = %self.id.short(), "the peer is silent");
            self.probe = Some(Probe::Doubt);
        }
        if self.is_over() && !was_over {
            self.drop_link(fx);
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.session.phase(), Phase::Closed(_))
    }

    // What a resume does.

    pub(super) fn need(&self) -> Need {
        match (self.session.phase(), self.session.role()) {
            (Phase::Closed(_), _) => Need::End,
            (Phase::Detached(_), Role::Client) => Need::Link,
            (Phase::Attached, Role::Client) if self.probe.is_some() => Need::Link,
            (Phase::Attached | Phase::Detached(_), _) => Need::Nothing,
        }
    }

    /// The user wants a new link though there may be one, and `done` to be told when it carries the session.
    pub(super) fn migrate(&mut self, done: Migration, fx: &mut Effects) {
        if let Phase::Closed(reason) = self.session.phase() {
            fx.migrated.push((done, Err(Error::Closed(reason))));
            return;
        }
        self.migrations.push(done);
        self.probe = Some(Probe::Asked);
        fx.wake_keeper = true;
    }

    /// The link may be dead, though it looks alive.
    pub(super) fn doubt(&mut self, fx: &mut Effects) {
        self.probe = self.probe.or(Some(Probe::Doubt));
        fx.wake_keeper = true;
    }

    /// A new link could not be dialled. A migration ends with that, if the old link still serves.
    pub(super) fn dial_failed(&mut self, error: BoxError, fx: &mut Effects) {
        if self.session.phase() != Phase::Attached || self.probe != Some(Probe::Asked) {
            return;
        }
        self.probe = None;
        let text = error.to_string();
        let mut error = Some(error);
        for waiting in self.migrations.drain(..) {
            let error = error.take().unwrap_or_else(|| text.as_str().into());
            fx.migrated.push((waiting, Err(Error::Dial(error))));
        }
    }

    /// Closes the old link, whose cursors are final from here on, and says what to ask for on the new one; `None` if none is wanted
    /// any more.
    pub(super) fn begin_resume(&mut self, fx: &mut Effects) -> Option<(Opened, Counts)> {
        if self.need() != Need::Link {
            return None;
        }
        if self.link.is_some() {
            let attempt = self.attempt;
            self.session.detach(now());
            self.drop_link(fx);
            self.attempt = attempt;
        }
        Some((self.session.opened().clone(), self.session.counts()))
    }

    /// [`Session::attach`], with the link.
    pub(super) fn attach(
        &mut self,
        link: BoxLink,
        request: u64,
        peer: Counts,
        stated: u64,
        fx: &mut Effects,
    ) -> Result<(), ResumeError> {
        if let Err(error) = self.session.attach(request, peer, stated, now()) {
            fx.old_link = Some(link);
            return Err(error);
        }
        tracing::debug!(session = %self.id.short(), request, "a link is attached");
        self.drop_link(fx);
        self.link = Some(link);
        for waiting in self.migrations.drain(..) {
            fx.migrated.push((waiting, Ok(())));
        }
        Ok(())
    }
}

/// The runtime's clock, which tests can stop.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
