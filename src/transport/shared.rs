//! What the transport, its handles, its keeper and whoever attaches links have in common.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot, watch};

use super::{
    effects::Effects,
    link::BoxLink,
    session_io::{Need, SessionIo, now},
    state::{LinkState, SessionId, Stats},
    wakers::{Direction, KeeperWaker, Left, lock},
};
use crate::{
    error::{BoxError, CloseReason, Error, ResumeError},
    protocol::{
        Role, Session,
        snet::{Counts, Opened, SessionKey},
    },
};

/// A session with its link behind one short lock, and those it wakes.
///
/// Of what runs code of others only polling the link and tracing happens under the lock; what follows from a change is collected in
/// [`Effects`] and done after it.
pub(crate) struct Shared {
    id: SessionId,
    role: Role,
    peer_addr: Option<SocketAddr>,
    io: Mutex<SessionIo>,
    read: Arc<Direction>,
    write: Arc<Direction>,
    /// The wakers the link is polled with: `read` and `write`.
    read_waker: Waker,
    write_waker: Waker,
    keeper: Arc<KeeperWaker>,
    state: watch::Sender<LinkState>,
    /// Set off when the network has changed.
    nudge: Notify,
}

impl Shared {
    /// `patience` is how long the closing of a link may take.
    pub(crate) fn new(
        session: Session,
        patience: Duration,
        peer_addr: Option<SocketAddr>,
    ) -> Arc<Self> {
        let keeper = Arc::new(KeeperWaker::default());
        let read = Direction::new(keeper.clone());
        let write = Direction::new(keeper.clone());
        let id = SessionId::snet(session.opened().id);
        let role = session.role();
        let io = SessionIo::new(session, id, patience);
        Arc::new(Self {
            id,
            role,
            peer_addr,
            state: watch::Sender::new(io.state()),
            io: Mutex::new(io),
            read_waker: read.clone().into(),
            write_waker: write.clone().into(),
            read,
            write,
            keeper,
            nudge: Notify::new(),
        })
    }

    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    pub(super) fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer_addr
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
        drop(fx.old_link);
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
        poll: impl FnOnce(&mut SessionIo, &mut Context<'_>, &mut Effects) -> Poll<R>,
    ) -> Poll<R> {
        let (slot, waker) = match direction {
            Way::In => (&self.read, &self.read_waker),
            Way::Out => (&self.write, &self.write_waker),
        };
        slot.enter(cx.waker());
        let (result, left) = self.with(|io, fx| {
            let result = poll(io, &mut Context::from_waker(waker), fx);
            let left = match (&result, direction) {
                (Poll::Pending, _) => Left::Waiting,
                (Poll::Ready(_), Way::In) => Left::Served,
                (Poll::Ready(_), Way::Out) if io.session.backlog() > 0 => Left::Unfinished,
                (Poll::Ready(_), Way::Out) => Left::Finished,
            };
            (result, left)
        });
        slot.leave(left);
        result
    }

    pub(super) fn drop_transport(&self) {
        self.with(|io, _| io.session.drop_transport(now()));
        self.read.abandon();
        self.write.abandon();
    }

    // For the handle.

    pub(super) fn stats(&self) -> Stats {
        let io = lock(&self.io);
        let counts = io.session.counts();
        Stats {
            sent: counts.sent,
            received: counts.received,
            replayed: io.session.replayed(),
            resumes: io.session.resumes(),
            unacknowledged: io.session.unacknowledged(),
        }
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
        self.with(|io, fx| {
            io.handle_timeout(fx);
            let read_cx = &mut Context::from_waker(&self.read_waker);
            let write_cx = &mut Context::from_waker(&self.write_waker);
            if keeps_write {
                let before = io.unsent();
                let _ = io.hand_over_and_flush(write_cx, fx);
                fx.wake_writer |= io.unsent() != before;
            }
            if keeps_read {
                io.take_in(read_cx, fx);
            }
            if io.session.is_dropped() {
                io.finish(write_cx, fx);
            }
            (io.need(), io.poll_timeout())
        })
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

    pub(super) fn close(&self, reason: CloseReason) {
        self.with(|io, fx| io.close(reason, fx));
    }

    // For those that resume.

    /// Waits until the user says that the network has changed.
    pub(crate) async fn network_change(&self) {
        self.nudge.notified().await;
    }

    /// An attempt to resume begins.
    pub(crate) fn begin_attempt(&self) {
        self.with(|io, fx| {
            io.attempt = io.attempt.saturating_add(1);
            fx.publish = true;
        });
    }

    /// See [`SessionIo::dial_failed`].
    pub(crate) fn dial_failed(&self, error: BoxError) {
        self.with(|io, fx| io.dial_failed(error, fx));
    }

    /// Whether a new link is wanted.
    pub(crate) fn wants_link(&self) -> bool {
        lock(&self.io).need() == Need::Link
    }

    /// See [`SessionIo::begin_resume`].
    pub(crate) fn begin_resume(&self) -> Option<(Opened, Counts)> {
        self.with(SessionIo::begin_resume)
    }

    /// Whether the session can go on with a server that counts like this. Ends it if it never can.
    pub(crate) fn check(&self, peer: Counts) -> Result<(), ResumeError> {
        self.with(|io, fx| {
            let verdict = io.session.check(peer);
            if verdict == Err(ResumeError::Gap) {
                io.close(CloseReason::Gap, fx);
            }
            verdict
        })
    }

    /// The server says that the session cannot be resumed.
    pub(crate) fn refused(&self) {
        self.close(CloseReason::Refused);
    }

    /// How many bytes have been received.
    pub(crate) fn received(&self) -> u64 {
        lock(&self.io).session.counts().received
    }

    /// The key that a peer proves to know.
    pub(crate) fn key(&self) -> SessionKey {
        lock(&self.io).session.opened().key.clone()
    }

    /// See [`Session::answer`].
    pub(crate) fn answer(&self, peer: Counts) -> Result<Counts, ResumeError> {
        lock(&self.io).session.answer(peer)
    }

    /// See [`Session::attach`].
    pub(crate) fn attach(
        &self,
        link: BoxLink,
        request: u64,
        peer: Counts,
        stated: u64,
    ) -> Result<(), ResumeError> {
        self.with(|io, fx| io.attach(link, request, peer, stated, fx))
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
