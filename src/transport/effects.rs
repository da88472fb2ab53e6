//! What follows from a change of a session, done once its lock is released.

use std::{cell::Cell, time::Instant};

use tokio::sync::oneshot;

use super::{clock::now, link::AnyLink};
use crate::error::Error;

/// Whoever asked for a migration, waiting to hear how it went.
pub(super) type Migration = oneshot::Sender<Result<(), Error>>;

/// Collected under the session's lock and carried out after it, because it runs code that is not ours.
pub(super) struct Effects {
    /// When the change was first asked for the time.
    now: Cell<Option<Instant>>,
    /// Whether anything about the session may have changed: otherwise there is nothing to account for, and nothing new is due.
    pub(super) touched: bool,
    /// Links to drop.
    pub(super) old_links: Vec<AnyLink>,
    /// The write side has listened to what the peer says, and waits for more of it.
    pub(super) heard: bool,
    /// Something a reading task may wait for has happened.
    pub(super) wake_reader: bool,
    /// Something a writing task may wait for has happened.
    pub(super) wake_writer: bool,
    /// The keeper has something to do.
    pub(super) wake_keeper: bool,
    /// The state that is watched has changed.
    pub(super) publish: bool,
    /// Migrations that have ended.
    pub(super) migrated: Vec<(Migration, Result<(), Error>)>,
}

impl Effects {
    /// Of a change that begins.
    pub(super) fn begin() -> Self {
        Self {
            now: Cell::new(None),
            touched: false,
            old_links: Vec::new(),
            heard: false,
            wake_reader: false,
            wake_writer: false,
            wake_keeper: false,
            publish: false,
            migrated: Vec::new(),
        }
    }

    /// What time it is. The clock is read once at most.
    pub(super) fn now(&self) -> Instant {
        let time = self.now.get().unwrap_or_else(now);
        self.now.set(Some(time));
        time
    }

    /// The session's phase has changed: everybody looks again.
    pub(super) fn phase_changed(&mut self) {
        self.wake_reader = true;
        self.wake_writer = true;
        self.wake_keeper = true;
        self.publish = true;
    }
}
