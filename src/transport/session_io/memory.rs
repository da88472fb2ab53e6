//! What a session holds of the memory budget, and what that leaves it.

use std::time::{Duration, Instant};

use super::SessionIo;
use crate::transport::{
    any_session::AnySession,
    effects::Effects,
    memory::{MemoryBudget, Share},
};

/// After how long a session in which somebody waits for memory looks whether there is some, at first; then the time doubles.
const LOOK_FIRST: Duration = Duration::from_millis(20);
/// After how long it does at the latest.
const LOOK_LAST: Duration = Duration::from_secs(1);

/// A session's dealings with its budget.
pub(super) struct Memory {
    share: Share,
    /// How far it may now.
    window: usize,
    /// When it looks again, and after how long, since somebody waits.
    look: Option<Box<(Instant, Duration)>>,
}

impl Memory {
    pub(super) fn new(budget: MemoryBudget, session: &AnySession) -> Self {
        Self {
            share: Share::new(budget),
            window: session.max_window(),
            look: None,
        }
    }

    /// When the session looks again by itself.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.look.as_ref().map(|look| look.0)
    }

    /// Puts the next look off, if somebody waits, or forgets it.
    fn look_again(&mut self, waits: bool, now: Instant) {
        let after = match self.look.as_deref() {
            _ if !waits => {
                self.look = None;
                return;
            }
            None => LOOK_FIRST,
            Some((at, after)) if *at <= now => (*after * 2).min(LOOK_LAST),
            Some(_) => return,
        };
        let next = now.checked_add(after).map(|at| (at, after));
        self.look = next.map(Box::new);
    }
}

impl SessionIo {
    /// Bytes that are allocated for the session, links included that the crate makes itself.
    pub(in crate::transport) fn buffered(&self) -> usize {
        let links = [self.link.as_ref(), self.previous.as_deref()];
        let links = links.into_iter().flatten();
        let links: usize = links.map(|attached| attached.link.allocated()).sum();
        self.session.allocated() + links
    }

    /// Accounts for what the session holds after something has happened to it, and has it make do with the window that is left.
    pub(in crate::transport) fn account(&mut self, fx: &mut Effects) {
        self.memory
            .share
            .set(self.buffered(), self.session.promised());
        self.heed_budget(fx);
    }

    /// Has the session make do with the window that the budget leaves it.
    pub(in crate::transport) fn heed_budget(&mut self, fx: &mut Effects) {
        let whole = self.session.window();
        let window = self.memory.share.window(whole, self.session.max_window());
        if window == self.memory.window && self.memory.look.is_none() && window >= whole {
            return;
        }
        self.make_do(window, fx);
    }

    /// There is not enough memory for everybody, or there was not until now.
    #[cold]
    fn make_do(&mut self, window: usize, fx: &mut Effects) {
        fx.touched = true;
        if window != self.memory.window {
            self.memory.window = window;
            if self.session.set_window(window, fx.now()) {
                fx.wake_writer = true;
                // The peer is to be told.
                fx.wake_keeper = true;
            }
            let promised = self.session.promised();
            self.memory.share.set(self.buffered(), promised);
        }
        self.memory.look_again(self.session.is_confined(), fx.now());
        if let Some(at) = self.memory.look_at()
            && self.keeper_comes.is_none_or(|comes| comes > at)
        {
            fx.wake_keeper = true;
        }
    }
}
