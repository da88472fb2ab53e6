//! What the transport, its handles, its keeper and whoever attaches links have in common.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot, watch};

use super::{
    any_session::{AnySession, role_name},
    effects::Effects,
    link::BoxLink,
    log,
    session_io::{Need, SessionIo, Wakers, now},
    state::{LinkState, SessionId},
    wakers::{Direction, KeeperWaker, Left, lock},
};
use crate::{
    error::{CloseReason, Error, ResumeError},
    protocol::{
        LinkId, Role, Stats,
        native::{self, ClientResume, Reject, SessionSecret, Tombstone},
        snet::{self, Counts, SessionKey},
    },
};

/// A session with its link behind one short lock, and those it wakes.
///
/// Of what runs code of others only polling the link, tracing and recording numbers happen under the lock; what follows from a change is
/// collected in [`Effects`] and done after it.
pub(crate) struct Shared {
    id: SessionId,
    role: Role,
    protocol: &'static str,
    opened: Instant,
    /// Where the newest link comes from, if that is known.
    peer_addr: Mutex<Option<SocketAddr>>,
    io: Mutex<SessionIo>,
    read: Arc<Direction>,
    write: Arc<Direction>,
    keeper: Arc<KeeperWaker>,
    state: watch::Sender<LinkState>,
    /// Set off when the network has changed.
    nudge: Notify,
}

impl Shared {
    /// `patience` is how long the closing of a link may take.
    pub(crate) fn new(
        session: impl Into<AnySession>,
        patience: Duration,
        peer_addr: Option<SocketAddr>,
    ) -> Arc<Self> {
        let session = session.into();
        let keeper = Arc::new(KeeperWaker::default());
        let read = Direction::new(keeper.clone());
        let write = Direction::new(keeper.clone());
        let wakers = Wakers {
            read: read.clone().into(),
            write: write.clone().into(),
        };
        let (id, role, protocol) = (session.id(), session.role(), session.protocol());
        let io = SessionIo::new(session, wakers, patience);
        Arc::new(Self {
            id,
            role,
            protocol,
            opened: now(),
            peer_addr: Mutex::new(peer_addr),
            state: watch::Sender::new(io.state()),
            io: Mutex::new(io),
            read,
            write,
            keeper,
            nudge: Notify::new(),
        })
    }

    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    /// The session begins: says so, and counts it, which runs code of the user's. Call it once, under no lock that other sessions need.
    pub(crate) fn begin(&self) {
        log::opened(
            self.id,
            role_name(self.role),
            self.protocol,
            self.peer_addr(),
        );
        lock(&self.io).begin();
    }

    /// What its own task runs in.
    pub(super) fn span(&self) -> tracing::Span {
        log::span(self.id, role_name(self.role), self.protocol)
    }

    /// When the session was opened.
    pub(crate) fn opened(&self) -> Instant {
        self.opened
    }

    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        *lock(&self.peer_addr)
    }

    pub(super) fn watch(&self) -> &watch::Sender<LinkState> {
        &self.state
    }

    /// Does something under the lock, and after it what follows from that.
    fn with<R>(&self, change: impl FnOnce(&mut SessionIo, &mut Effects) -> R) -> R {
        let mut fx = Effects::default();
        let result = change(&mut lock(&self.io), &mut fx);
        self.carry_out(fx);
        result
    }

    fn carry_out(&self, fx: Effects) {
        // First: a client asks for its resume only when the old link is closed.
        drop(fx.old_links);
        if fx.publish {
            // The state is read anew under the watch's lock, so that whoever comes last publishes the newest.
            self.state.send_if_modified(|published| {
                let state = lock(&self.io).state();
                let changed = *published != state;
                *published = state;
                changed
            });
        }
        if fx.wake_reader {
            self.read.wake_application();
        }
        if fx.wake_writer {
            self.write.wake_application();
        }
        if fx.wake_keeper {
            self.keeper.wake();
        }
        for (waiting, result) in fx.migrated {
            // Whoever asked may have stopped waiting.
            let _ = waiting.send(result);
        }
    }

    // For the transport.

    /// Polls a direction for the application.
    pub(super) fn poll<R>(
        &self,
        direction: Way,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&mut SessionIo, &mut Effects) -> Poll<R>,
    ) -> Poll<R> {
        let slot = match direction {
            Way::In => &self.read,
            Way::Out => &self.write,
        };
        slot.enter(cx.waker());
        let (result, left) = self.with(|io, fx| {
            let mut result = poll(io, fx);
            if result.is_pending() && fx.heard {
                self.read.listen(cx.waker());
                // The other direction may have moved before it knew whom to wake.
                result = poll(io, fx);
            }
            let left = match (&result, direction) {
                (Poll::Pending, _) => Left::Waiting,
                (Poll::Ready(_), Way::In) => Left::Served,
                (Poll::Ready(_), Way::Out) if !io.is_settled() => Left::Unfinished,
                (Poll::Ready(_), Way::Out) => Left::Finished,
            };
            fx.wake_keeper |= io.is_due_before_keeper();
            (result, left)
        });
        slot.leave(left);
        result
    }

    pub(super) fn drop_transport(&self) {
        self.with(SessionIo::drop_transport);
        self.read.abandon();
        self.write.abandon();
    }

    // For the handle.

    pub(crate) fn stats(&self) -> Stats {
        lock(&self.io).session.stats()
    }

    /// Ends the session with an error at both ends.
    pub(crate) fn reset(&self, code: u32) {
        self.with(|io, fx| io.reset(code, fx));
    }

    pub(super) fn migrate(&self) -> Result<oneshot::Receiver<Result<(), Error>>, Error> {
        if self.role == Role::Server {
            return Err(Error::CannotDial);
        }
        let (done, receiver) = oneshot::channel();
        self.with(|io, fx| io.migrate(done, fx));
        Ok(receiver)
    }

    pub(super) fn network_changed(&self) {
        if self.role == Role::Client {
            self.with(|io, fx| io.doubt(fx));
            self.nudge.notify_one();
        }
    }

    // For the keeper.

    /// Does for the session what the application does not, and says what the keeper is to do and when to come again at the latest.
    pub(super) fn keep(&self, cx: &Context<'_>) -> (Need, Option<Instant>) {
        self.keeper.register(cx.waker());
        let (keeps_read, keeps_write) = (self.read.is_keepers_turn(), self.write.is_keepers_turn());
        self.with(|io, fx| io.keep(keeps_read, keeps_write, fx))
    }

    /// Whether a turn of the application is to be watched.
    pub(super) fn has_turns(&self) -> bool {
        self.read.is_applications_turn() || self.write.is_applications_turn()
    }

    pub(super) fn is_watching(&self) -> bool {
        self.keeper.is_watching()
    }

    pub(super) fn stop_watching(&self) {
        self.keeper.stop_watching();
    }

    /// A turn that the application has left goes to the keeper. Returns whether one did.
    pub(super) fn pass_grace(&self) -> bool {
        self.read.pass_grace() | self.write.pass_grace()
    }

    pub(crate) fn close(&self, reason: CloseReason) {
        self.with(|io, fx| io.close(reason, fx));
    }

    // For those that resume.

    /// Waits until the user says that the network has changed.
    pub(crate) async fn network_change(&self) {
        self.nudge.notified().await;
    }

    /// An attempt to resume begins. Returns its number since the link was lost.
    pub(crate) fn begin_attempt(&self) -> u32 {
        self.with(SessionIo::begin_attempt)
    }

    /// See [`SessionIo::attempt_failed`].
    pub(crate) fn attempt_failed(&self, error: Error) {
        self.with(|io, fx| io.attempt_failed(error, fx));
    }

    /// Whether a new link is wanted.
    pub(crate) fn wants_link(&self) -> bool {
        lock(&self.io).need() == Need::Link
    }

    /// How many bytes have been received.
    pub(crate) fn received(&self) -> u64 {
        self.stats().received
    }

    /// Runs `change` on a session that speaks snet.
    fn with_snet<R>(
        &self,
        change: impl FnOnce(&mut snet::SnetSession) -> R,
    ) -> Result<R, ResumeError> {
        self.with(|io, fx| match &mut io.session {
            AnySession::Snet(session) => {
                let result = change(session);
                io.look(fx);
                Ok(result)
            }
            AnySession::Native(_) => Err(ResumeError::Unknown),
        })
    }

    /// Runs `change` on a session that speaks native.
    fn with_native<R>(
        &self,
        change: impl FnOnce(&mut native::NativeSession) -> R,
    ) -> Result<R, ResumeError> {
        self.with(|io, fx| match &mut io.session {
            AnySession::Native(session) => {
                let result = change(session);
                io.look(fx);
                Ok(result)
            }
            AnySession::Snet(_) => Err(ResumeError::Unknown),
        })
    }

    /// Gives `link` to the session if it [attaches](snet::SnetSession::attach) it.
    fn put(
        &self,
        link: BoxLink,
        attach: impl FnOnce(&mut AnySession) -> Result<LinkId, ResumeError>,
    ) -> Result<(), (ResumeError, BoxLink)> {
        self.with(|io, fx| match attach(&mut io.session) {
            Ok(id) => {
                io.put(id, link, fx);
                Ok(())
            }
            Err(error) => {
                io.look(fx);
                Err((error, link))
            }
        })
    }

    /// Closes the old link, whose cursors are final from here on, and says what to ask for on the new one; `None` if none is wanted
    /// any more.
    pub(crate) fn begin_snet_resume(&self) -> Option<(snet::Opened, Counts)> {
        if !self.with(SessionIo::break_before_make) {
            return None;
        }
        self.with_snet(|session| (session.opened().clone(), session.counts()))
            .ok()
    }

    /// Whether the session can go on with a server that counts like this. Ends it if it never can.
    pub(crate) fn check_snet(&self, peer: Counts) -> Result<(), ResumeError> {
        let verdict = self.with_snet(|session| session.check(peer))?;
        if verdict == Err(ResumeError::Gap) {
            self.close(CloseReason::Gap);
        }
        verdict
    }

    /// The key that a peer proves to know.
    pub(crate) fn snet_key(&self) -> Result<SessionKey, ResumeError> {
        self.with_snet(|session| session.opened().key.clone())
    }

    /// See [`snet::SnetSession::answer`].
    pub(crate) fn answer_snet(&self, peer: Counts) -> Result<Counts, ResumeError> {
        self.with_snet(|session| session.answer(peer))?
    }

    /// See [`snet::SnetSession::attach`].
    pub(crate) fn attach_snet(
        &self,
        link: BoxLink,
        request: u64,
        peer: Counts,
        stated: u64,
    ) -> Result<(), ResumeError> {
        self.put(link, |session| match session {
            AnySession::Snet(session) => session
                .attach(request, peer, stated, now())
                .map(|()| request),
            AnySession::Native(_) => Err(ResumeError::Unknown),
        })
        .map_err(|(error, _)| error)
    }

    /// What a client asks for on a new link; `None` if none is wanted any more.
    pub(crate) fn begin_native_resume(
        &self,
        nonce: native::Nonce,
    ) -> Result<Option<ClientResume>, ResumeError> {
        if !self.wants_link() {
            return Ok(None);
        }
        self.with_native(|session| session.resume(nonce))
    }

    /// See [`native::NativeSession::attach_opened`].
    pub(crate) fn attach_opened(
        &self,
        link: BoxLink,
        confirm: [u8; native::CONFIRM_LEN],
    ) -> Result<(), ResumeError> {
        self.put(link, |session| match session {
            AnySession::Native(session) => {
                session.attach_opened(confirm, now());
                Ok(0)
            }
            AnySession::Snet(_) => Err(ResumeError::Unknown),
        })
        .map_err(|(error, _)| error)
    }

    /// See [`native::NativeSession::attach_resumed`].
    pub(crate) fn attach_resumed(
        &self,
        link: BoxLink,
        resume: &ClientResume,
    ) -> Result<(), ResumeError> {
        self.put(link, |session| match session {
            AnySession::Native(session) => session.attach_resumed(resume, now()),
            AnySession::Snet(_) => Err(ResumeError::Unknown),
        })
        .map_err(|(error, _)| error)
    }

    /// See [`native::NativeSession::rejected`].
    pub(crate) fn rejected(&self, reject: Reject) -> Result<(), ResumeError> {
        self.with_native(|session| session.rejected(reject, now()))
    }

    /// When a server that put this client off wants to be asked again.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.with_native(|session| session.retry_at()).ok()?
    }

    /// What a server answers to a client that asks to resume by such an attempt: how much it has received, and the secret that this is
    /// proved with; or what is left of the session.
    ///
    /// # Errors
    ///
    /// See [`native::NativeSession::answer`].
    pub(crate) fn answer_native(
        &self,
        attempt: u32,
    ) -> Result<Result<(SessionSecret, u64), Tombstone>, ResumeError> {
        self.with_native(|session| match session.tombstone() {
            Some(tombstone) => Ok(Err(tombstone)),
            None => Ok(Ok((
                session.identity().secret.clone(),
                session.answer(attempt)?,
            ))),
        })?
    }

    /// See [`native::NativeSession::attach`]. The link comes back if the session does not take it.
    pub(crate) fn attach_native(
        &self,
        link: BoxLink,
        attempt: u32,
        received: u64,
    ) -> Result<(), (ResumeError, BoxLink)> {
        self.put(link, |session| match session {
            AnySession::Native(session) => session
                .attach(attempt, received, now())
                .map(|()| LinkId::from(attempt)),
            AnySession::Snet(_) => Err(ResumeError::Unknown),
        })
    }

    /// See [`native::NativeSession::tombstone`].
    pub(crate) fn tombstone(&self) -> Option<Tombstone> {
        self.with_native(|session| session.tombstone()).ok()?
    }

    /// The peer's newest link comes from there.
    pub(crate) fn came_from(&self, peer_addr: Option<SocketAddr>) {
        *lock(&self.peer_addr) = peer_addr;
    }
}

/// A direction, seen from the application.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// What it reads.
    In,
    /// What it writes.
    Out,
}
