//! From one link to the next.

use super::{Attached, Closing, Need, SessionIo};
use crate::{
    error::Error,
    protocol::{LinkId, Phase, Role},
    transport::{
        any_session::AnySession,
        effects::{Effects, Migration},
        link::AnyLink,
    },
};

impl SessionIo {
    pub(in crate::transport) fn need(&self) -> Need {
        match (self.session.phase(), self.session.role()) {
            (Phase::Closed(_), _) if self.link.is_none() => Need::End,
            (Phase::Closed(_), _) | (_, Role::Server) => Need::Nothing,
            _ if self.session.is_switching() => Need::Nothing,
            (Phase::Detached(_), Role::Client) => Need::Link,
            (Phase::Attached, Role::Client) if self.doubt || !self.migrations.is_empty() => {
                Need::Link
            }
            (Phase::Attached, Role::Client) => Need::Nothing,
        }
    }

    /// An attempt to resume begins. Returns its number since the link was lost.
    pub(in crate::transport) fn begin_attempt(&mut self, fx: &mut Effects) -> u32 {
        self.attempt = self.attempt.saturating_add(1);
        self.seen = self.state();
        fx.publish = true;
        self.attempt
    }

    /// The user wants a new link though there may be one, and `done` to be told when it carries the session.
    pub(in crate::transport) fn migrate(&mut self, done: Migration, fx: &mut Effects) {
        if let Some(reason) = self.session.verdict() {
            fx.migrated.push((done, Err(Error::Closed(reason))));
            return;
        }
        self.migrations.extend(vec![done]);
        fx.wake_keeper = true;
    }

    /// The link may be dead, though it looks alive.
    pub(in crate::transport) fn doubt(&mut self, fx: &mut Effects) {
        tracing::debug!(session = %self.session.id().short(), "the network has changed");
        self.doubt = true;
        self.session.probe();
        if self.session.is_switching()
            && self.session.phase() != Phase::Attached
            && let Some(attached) = &self.link
        {
            // Whatever this link was dialled over may be gone, and nothing else carries the session.
            self.session.link_failed(attached.id, fx.now());
            self.look(fx);
        }
        fx.wake_keeper = true;
    }

    /// An attempt to get a new link has failed. Those who asked for one are told, if the old one still serves.
    pub(in crate::transport) fn attempt_failed(&mut self, error: Error, fx: &mut Effects) {
        self.recorder.attempt_failed();
        if self.session.phase() == Phase::Attached {
            tell(self.migrations.take(), error, fx);
        }
    }

    /// The newest link is lost before it was of any use, and the old one still serves.
    pub(super) fn move_failed(&mut self, error: Error, fx: &mut Effects) {
        tell(self.moving.take(), error, fx);
    }

    /// A link is about to be replaced by one that cannot be used beside it: drops it, unless no new one is wanted any more. Returns
    /// whether one is.
    pub(in crate::transport) fn break_before_make(&mut self, fx: &mut Effects) -> bool {
        if self.need() != Need::Link {
            return false;
        }
        let attempt = self.attempt;
        if let AnySession::Snet(session) = &mut self.session {
            session.detach(fx.now());
        }
        self.look(fx);
        self.attempt = attempt;
        self.seen = self.state();
        true
    }

    /// Puts the link to the session that has just attached it, as `id`.
    pub(in crate::transport) fn put(&mut self, id: LinkId, link: AnyLink, fx: &mut Effects) {
        let outstanding = self.session.stats().unacknowledged;
        tracing::debug!(session = %self.session.id().short(), link = id, outstanding, "a link is attached");
        fx.old_links
            .extend(self.previous.take().map(|attached| attached.link));
        self.previous = self.link.replace(Attached { id, link }).map(Box::new);
        self.used = id == 0 || !self.session.is_switching();
        self.unflushed = false;
        self.closing = Closing::No;
        self.close_by = None;
        self.moving.extend(self.migrations.take());
        if !self.session.is_switching() {
            self.attached(fx);
        }
        self.look(fx);
        fx.phase_changed();
    }
}

/// Those that wait for a migration.
#[derive(Default)]
#[expect(
    clippy::box_collection,
    reason = "of most sessions nobody does, and then it takes one word, not three"
)]
pub(super) struct Queue(Option<Box<Vec<Migration>>>);

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn extend(&mut self, waiting: Vec<Migration>) {
        if !waiting.is_empty() {
            self.0.get_or_insert_default().extend(waiting);
        }
    }

    pub(super) fn take(&mut self) -> Vec<Migration> {
        self.0.take().map(|waiting| *waiting).unwrap_or_default()
    }
}

/// The first is told the error itself, the others what it says.
fn tell(waiting: Vec<Migration>, error: Error, fx: &mut Effects) {
    let text = error.to_string();
    let mut error = Some(error);
    for waiting in waiting {
        let error = error
            .take()
            .unwrap_or_else(|| Error::Dial(text.as_str().into()));
        fx.migrated.push((waiting, Err(error)));
    }
}
