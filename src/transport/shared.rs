//! What the transport, its handles, its keeper and whoever attaches links have in common.

mod resuming;
#[cfg(all(test, feature = "noise"))]
mod tests;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot, watch};

use super::{
    any_session::{AnySession, role_name},
    clock::now,
    effects::Effects,
    log,
    memory::MemoryBudget,
    session_io::{Need, SessionIo, Wakers},
    state::{LinkState, SessionId},
    wakers::{Direction, KeeperWaker, Left, lock},
};
#[cfg(feature = "noise")]
use crate::security::PublicKey;
use crate::{
    error::{CloseReason, Error},
    protocol::{Role, Stats},
};

/// Who is at the other end, as far as that is known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peer {
    /// Where its newest link comes from.
    pub(crate) addr: Option<SocketAddr>,
    /// The public key it has proved to hold.
    pub(crate) key: Option<[u8; 32]>,
}

/// A session with its link behind one short lock, and those it wakes.
///
/// Of what runs code of others only polling the link, tracing and recording numbers happen under the lock; what follows from a change is
/// collected in [`Effects`] and done after it.
pub(crate) struct Shared {
    id: SessionId,
    role: Role,
    opened: Instant,
    /// Where the newest link comes from, if that is known.
    peer_addr: Mutex<Option<SocketAddr>>,
    /// The public key the peer has proved to hold on every link, if there is one.
    #[cfg_attr(not(feature = "noise"), allow(dead_code, reason = "nobody has one"))]
    peer_key: Option<Box<[u8; 32]>>,
    io: Mutex<SessionIo>,
    read: Arc<Direction>,
    write: Arc<Direction>,
    keeper: Arc<KeeperWaker>,
    /// Where the state is followed, once anybody does.
    followed: OnceLock<watch::Sender<LinkState>>,
    /// Set off when the network has changed.
    nudge: Notify,
}

impl Shared {
    /// `patience` is how long the closing of a link may take; `memory` is what the session's buffers count against.
    pub(crate) fn new(
        session: impl Into<AnySession>,
        patience: Duration,
        memory: &MemoryBudget,
        peer: Peer,
    ) -> Arc<Self> {
        let session = session.into();
        let keeper = Arc::new(KeeperWaker::default());
        let read = Direction::new(keeper.clone());
        let write = Direction::new(keeper.clone());
        let wakers = Wakers {
            read: read.clone().into(),
            write: write.clone().into(),
        };
        let (id, role) = (session.id(), session.role());
        let io = SessionIo::new(session, wakers, patience, memory.clone());
        Arc::new(Self {
            id,
            role,
            opened: now(),
            peer_addr: Mutex::new(peer.addr),
            peer_key: peer.key.map(Box::new),
            followed: OnceLock::new(),
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
            self.protocol(),
            self.peer_addr(),
        );
        lock(&self.io).begin();
    }

    fn protocol(&self) -> &'static str {
        lock(&self.io).session.protocol()
    }

    /// What its own task runs in.
    pub(super) fn span(&self) -> tracing::Span {
        log::span(self.id, role_name(self.role), self.protocol())
    }

    /// When the session was opened.
    pub(crate) fn opened(&self) -> Instant {
        self.opened
    }

    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        *lock(&self.peer_addr)
    }

    /// The public key that the peer has proved to hold.
    #[cfg(feature = "noise")]
    pub(crate) fn peer_identity(&self) -> Option<PublicKey> {
        self.peer_key.as_deref().copied().map(PublicKey::shown)
    }

    pub(super) fn state(&self) -> LinkState {
        lock(&self.io).state()
    }

    pub(super) fn follow(&self) -> watch::Receiver<LinkState> {
        let sender = self
            .followed
            .get_or_init(|| watch::Sender::new(self.state()));
        let receiver = sender.subscribe();
        // It may have changed before anybody could be told.
        self.publish();
        receiver
    }

    /// Tells those that follow the state what it is now.
    fn publish(&self) {
        let Some(followed) = self.followed.get() else {
            return;
        };
        // The state is read anew under the watch's lock, so that whoever comes last publishes the newest.
        followed.send_if_modified(|published| {
            let state = self.state();
            let changed = *published != state;
            *published = state;
            changed
        });
    }

    /// Does something under the lock, and after it what follows from that.
    fn with<R>(&self, change: impl FnOnce(&mut SessionIo, &mut Effects) -> R) -> R {
        self.watching(|io, fx| {
            fx.touched = true;
            change(io, fx)
        })
    }

    /// [`with`](Self::with) for what says itself whether it [touches](Effects::touched) the session.
    fn watching<R>(&self, change: impl FnOnce(&mut SessionIo, &mut Effects) -> R) -> R {
        let mut fx = Effects::begin();
        let result = {
            let mut io = lock(&self.io);
            let result = change(&mut io, &mut fx);
            if fx.touched {
                io.account(&mut fx);
            }
            if fx.wake_keeper {
                io.call_keeper();
            }
            result
        };
        self.carry_out(fx);
        result
    }

    fn carry_out(&self, fx: Effects) {
        // Last, and even if code of others panics before: everybody else counts on its coming.
        let _keeper = fx.wake_keeper.then(|| KeeperCall(&self.keeper));
        // First: a client asks for its resume only when the old link is closed.
        drop(fx.old_links);
        if fx.publish {
            self.publish();
        }
        if fx.wake_reader {
            self.read.wake_application();
        }
        if fx.wake_writer {
            self.write.wake_application();
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
        let (result, left) = self.watching(|io, fx| {
            // Others may have used memory up, or given it back, since it last came.
            io.heed_budget(fx);
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
            if fx.touched {
                fx.wake_keeper |= io.is_due_before_keeper();
            } else {
                debug_assert_eq!(io.due_before_keeper(), None);
            }
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
}

/// Wakes the keeper when it is dropped.
struct KeeperCall<'a>(&'a KeeperWaker);

impl Drop for KeeperCall<'_> {
    fn drop(&mut self) {
        self.0.wake();
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
