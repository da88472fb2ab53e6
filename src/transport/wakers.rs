//! Who is woken when a link can move: the application's tasks, else the keeper.
//!
//! A link is polled with the session's own two wakers, one a direction, whoever polls it. So it never holds the waker of a task that
//! has long gone, and a wake-up always finds the one it is for, even if that changed since the link was polled.
//!
//! No lock here is held while anything else is called, and no session's lock is ever taken. A link may wake from within its own poll, and so
//! under the session's lock; and it may be a transport itself.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

/// How often the keeper looks for turns that were not taken. A woken task has at least this long to poll, and at most twice as long.
pub(super) const GRACE: Duration = Duration::from_millis(10);

/// Locks even if a thread panicked meanwhile: whatever these locks guard is whole between any two statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The keeper, seen from those that wake it.
#[derive(Default)]
pub(super) struct KeeperWaker {
    waker: Mutex<Option<Waker>>,
    /// Whether the keeper looks after every [`GRACE`] for turns that were not taken.
    watching: AtomicBool,
}

impl KeeperWaker {
    /// The keeper's task is about to sleep. Call it before looking at what there is to do: what comes later wakes it.
    pub(super) fn register(&self, waker: &Waker) {
        let old = {
            let mut slot = lock(&self.waker);
            match &*slot {
                Some(current) if current.will_wake(waker) => None,
                _ => slot.replace(waker.clone()),
            }
        };
        drop(old);
    }

    pub(super) fn wake(&self) {
        let waker = lock(&self.waker).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Has the keeper look after a while whether the application took its turn.
    fn watch(&self) {
        if !self.is_watching() && !self.watching.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    pub(super) fn is_watching(&self) -> bool {
        self.watching.load(Ordering::Acquire)
    }

    /// Nothing is to be watched. The caller looks at the turns once more after this, for one that began meanwhile.
    pub(super) fn stop_watching(&self) {
        self.watching.store(false, Ordering::Release);
    }
}

/// One direction of a session's link.
pub(super) struct Direction {
    slot: Mutex<Slot>,
    keeper: Arc<KeeperWaker>,
}

#[derive(Default)]
struct Slot {
    /// The application's task that polls, or waits for the direction to move.
    application: Option<Waker>,
    /// Whether a poll of the application has ended waiting, and has not been woken since.
    waiting: bool,
    /// Whether the application is to poll next: it was woken, or it was served and more may be there.
    applications_turn: bool,
    /// Whether the turn has begun, or the application has polled, since the keeper last looked.
    fresh: bool,
    /// A task of the application that waits on the other side for what this direction brings.
    listener: Option<Waker>,
}

impl Slot {
    /// Takes the waker of the application's task, which is to poll next.
    fn call(&mut self) -> Option<Waker> {
        let waker = self.application.take()?;
        self.waiting = false;
        self.applications_turn = true;
        self.fresh = true;
        Some(waker)
    }
}

/// How a poll of the application left a direction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// It waits.
    Waiting,
    /// It was served, and is expected to come again soon.
    Served,
    /// It was served, and what is left to do waits for the link.
    Unfinished,
    /// It was served, and nothing is left to do.
    Finished,
}

impl Direction {
    pub(super) fn new(keeper: Arc<KeeperWaker>) -> Arc<Self> {
        Arc::new(Self {
            // Until it has polled once, the application is expected to.
            slot: Mutex::new(Slot {
                applications_turn: true,
                fresh: true,
                ..Slot::default()
            }),
            keeper,
        })
    }

    /// The application's task polls. Its waker is registered before the link is polled, so that a wake-up in between is not lost.
    pub(super) fn enter(&self, waker: &Waker) {
        let old = {
            let mut slot = lock(&self.slot);
            slot.applications_turn = true;
            slot.fresh = true;
            match &slot.application {
                Some(current) if current.will_wake(waker) => None,
                _ => slot.application.replace(waker.clone()),
            }
        };
        drop(old);
    }

    /// The application's poll is over.
    ///
    /// An earlier poll may wait still: of a task that flushes in one place and writes in another, one returns ready and the other does
    /// not. Its waker stays as long as the link owes a wake-up, and is called when nothing is left to wait for.
    pub(super) fn leave(&self, left: Left) {
        let mut slot = lock(&self.slot);
        // Woken in the middle of the poll: whoever woke it has counted on the application.
        let woken = slot.application.is_none();
        match left {
            Left::Waiting => {
                if !woken {
                    slot.waiting = true;
                    slot.applications_turn = false;
                }
            }
            Left::Served => {
                slot.waiting = false;
                let old = slot.application.take();
                drop(slot);
                drop(old);
                self.keeper.watch();
            }
            Left::Finished if slot.waiting => {
                let waker = slot.call();
                drop(slot);
                self.wake(waker);
            }
            Left::Unfinished | Left::Finished => {
                slot.applications_turn = false;
                let old = if slot.waiting {
                    None
                } else {
                    slot.application.take()
                };
                drop(slot);
                drop(old);
                if woken {
                    self.keeper.wake();
                }
            }
        }
    }

    /// The application has gone: the direction is the keeper's from now on.
    pub(super) fn abandon(&self) {
        let old = std::mem::take(&mut *lock(&self.slot));
        drop(old);
        self.keeper.wake();
    }

    /// Wakes the application's task if one waits; returns whether it did.
    pub(super) fn wake_application(&self) -> bool {
        let waker = lock(&self.slot).call();
        self.wake(waker)
    }

    /// Wakes a task that was [called](Slot::call), and has the keeper look whether it comes.
    fn wake(&self, waker: Option<Waker>) -> bool {
        let Some(waker) = waker else { return false };
        self.keeper.watch();
        waker.wake();
        true
    }

    /// A task that waits on the other side is to be woken as well when the direction moves. It then polls the link in this direction
    /// itself; if it has gone, others do, after the grace at the latest.
    pub(super) fn listen(&self, waker: &Waker) {
        let old = {
            let mut slot = lock(&self.slot);
            match &slot.listener {
                Some(current) if current.will_wake(waker) => None,
                _ => slot.listener.replace(waker.clone()),
            }
        };
        drop(old);
    }

    /// Whether it is for the keeper to poll the link: no task of the application waits or is about to poll.
    pub(super) fn is_keepers_turn(&self) -> bool {
        let slot = lock(&self.slot);
        slot.application.is_none() && !slot.applications_turn
    }

    /// [`GRACE`] has passed since the last call: a turn that is older, and that the application has not taken, goes to the keeper.
    /// Returns whether one did.
    pub(super) fn pass_grace(&self) -> bool {
        let mut slot = lock(&self.slot);
        let passes = slot.applications_turn && !slot.fresh;
        if passes {
            slot.applications_turn = false;
        }
        slot.fresh = false;
        passes
    }

    /// Whether the application is expected to poll.
    pub(super) fn is_applications_turn(&self) -> bool {
        lock(&self.slot).applications_turn
    }
}

impl Wake for Direction {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let listener = lock(&self.slot).listener.take();
        if let Some(listener) = listener {
            listener.wake();
        }
        if !self.wake_application() {
            self.keeper.wake();
        }
    }
}
