//! What the keeper does, and what time does.

use std::time::Instant;

use super::{Need, SessionIo, links};
use crate::{protocol::Phase, transport::effects::Effects};

impl SessionIo {
    /// Does for the session what the application does not, in the directions that are the `keeper`'s, and says what else there is to do
    /// and when to come again at the latest.
    pub(in crate::transport) fn keep(
        &mut self,
        keeps_read: bool,
        keeps_write: bool,
        fx: &mut Effects,
    ) -> (Need, Option<Instant>) {
        self.keeper_called = false;
        let is_due = self.poll_timeout().is_some_and(|at| at <= fx.now());
        // Before time is up for anything, what has come in by now counts.
        if keeps_read || is_due || self.is_closing() {
            self.take_in(fx);
        }
        self.handle_timeout(fx);
        self.account(fx);
        if keeps_write || self.session.owes(fx.now()) || self.is_closing() {
            let before = self.unsent();
            let _ = self.hand_over_and_flush(fx);
            fx.wake_writer |= self.unsent() != before;
        }
        self.finish(fx);
        if is_due {
            let stats = self.session.stats();
            let carried = stats.sent.wrapping_add(stats.received);
            self.idle = std::mem::replace(&mut self.carried, carried) == carried;
            self.release_idle();
        }
        self.record();
        // What it was asked to come for may be done by now. It comes all the same, or the next message would have to ask again.
        let asked = self.keeper_comes.filter(|at| *at > fx.now());
        self.keeper_comes = [asked, self.poll_timeout()].into_iter().flatten().min();
        (self.need(), self.keeper_comes)
    }

    /// Has the links give memory back if they are pinged at most.
    pub(super) fn release_idle(&mut self) {
        if self.idle {
            for attached in links(&mut self.previous, &mut self.link) {
                attached.link.release();
            }
        }
    }

    /// The application has read or written. Returns whether something is due before the keeper comes again by itself: then it is to come
    /// by then.
    pub(in crate::transport) fn is_due_before_keeper(&mut self) -> bool {
        self.recorder.application_came();
        let due = self.due_before_keeper();
        self.keeper_comes = due.or(self.keeper_comes);
        due.is_some()
    }

    /// What is due before the keeper comes, if that was not called.
    pub(in crate::transport) fn due_before_keeper(&self) -> Option<Instant> {
        if self.keeper_called {
            return None;
        }
        let comes = self.keeper_comes;
        self.poll_timeout()
            .filter(|due| comes.is_none_or(|comes| *due < comes))
    }

    /// The keeper is called.
    pub(in crate::transport) fn call_keeper(&mut self) {
        self.keeper_called = true;
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let times = [
            self.session.poll_timeout(),
            self.close_by,
            self.recorder.due(),
            self.memory.look_at(),
        ];
        times.into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, fx: &mut Effects) {
        if self.close_by.is_some_and(|at| at <= fx.now()) {
            self.close_by = None;
            self.session.link_closed(fx.now());
        }
        let held = [self.previous.as_deref(), self.link.as_ref()]
            .map(|attached| attached.map(|attached| attached.id));
        if self.session.handle_timeout(fx.now()) && !self.doubt {
            tracing::debug!(session = %self.session.id().short(), "the peer is silent");
            self.doubt = true;
        }
        let over = matches!(self.session.phase(), Phase::Closed(_));
        for id in held.into_iter().flatten().filter(|_| !over) {
            if !self.session.holds(id) {
                tracing::debug!(session = %self.session.id().short(), link = id, "the link is given up: its peer was silent for too long");
                self.lost(id);
            }
        }
        self.look(fx);
    }
}
