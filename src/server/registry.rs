//! The sessions of a server.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use crate::{
    config::Valid,
    error::{Error, ResumeError},
    protocol::{
        Role, Session,
        snet::{Opened, SessionKey},
    },
    transport::{Shared, now, random},
};

/// How many sessions may stand named but unproved, for each handshake that may be in progress.
const UNPROVED_PER_HANDSHAKE: usize = 4;

/// The sessions by connection id: those that run, and those that were named to a client that has not proved itself yet.
///
/// The lock is held for looking up and changing the tables alone. Nothing waits under it.
pub(super) struct Registry {
    tables: Mutex<Tables>,
    /// The number of the last resume request that arrived.
    requests: AtomicU64,
    config: Valid,
}

#[derive(Default)]
struct Tables {
    sessions: HashMap<u64, Arc<Shared>>,
    unproved: HashMap<u64, Unproved>,
    /// The ids in `unproved` in the order in which they were named.
    named: BTreeMap<u64, u64>,
    /// The place in `named` of the next.
    next: u64,
}

/// A session whose client has been told its id, and has not proved itself.
struct Unproved {
    key: SessionKey,
    since: Instant,
    place: u64,
}

impl Tables {
    fn name(&mut self, id: u64, key: SessionKey, since: Instant) {
        let place = self.next;
        self.next += 1;
        self.named.insert(place, id);
        self.unproved.insert(id, Unproved { key, since, place });
    }

    fn take_unproved(&mut self, id: u64) -> Option<SessionKey> {
        let unproved = self.unproved.remove(&id)?;
        self.named.remove(&unproved.place);
        Some(unproved.key)
    }

    /// Forgets the sessions that were named longest ago, while `is_due` says so of when and of how many there are.
    fn forget_named(&mut self, is_due: impl Fn(Instant, usize) -> bool) {
        while let Some((_, &id)) = self.named.first_key_value()
            && self
                .unproved
                .get(&id)
                .is_none_or(|oldest| is_due(oldest.since, self.unproved.len()))
        {
            self.named.pop_first();
            self.unproved.remove(&id);
        }
    }
}

/// What an id stands for.
pub(super) enum Known {
    /// A session that runs.
    Session(Arc<Shared>),
    /// A session that the first proof opens.
    Unproved(SessionKey),
}

/// What a proof has reached.
pub(super) enum Proved {
    /// It has opened the session.
    Opened(Arc<Shared>),
    /// The session had been opened before.
    Running(Arc<Shared>),
}

impl Registry {
    pub(super) fn new(config: Valid) -> Self {
        Self {
            tables: Mutex::default(),
            requests: AtomicU64::new(0),
            config,
        }
    }

    /// Numbers a resume request, on its arrival. The open is number 0.
    pub(super) fn number_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether there are as many sessions as there may be.
    pub(super) fn is_full(&self) -> bool {
        self.lock().sessions.len() >= self.config.max_sessions
    }

    /// Draws an id that names no session: the route in the top 16 bits, then random ones. It is not 0.
    pub(super) fn draw_id(&self) -> Result<u64, Error> {
        loop {
            let id = u64::from(self.config.route) << 48 | random::number()? >> 16;
            let tables = self.lock();
            if id != 0 && !tables.sessions.contains_key(&id) && !tables.unproved.contains_key(&id) {
                return Ok(id);
            }
        }
    }

    /// A client has been told the id of its session: from now on, for the resume window, the first proof opens it.
    pub(super) fn name(&self, id: u64, key: SessionKey) {
        let most = self
            .config
            .max_handshakes
            .saturating_mul(UNPROVED_PER_HANDSHAKE);
        let now = now();
        let mut tables = self.lock();
        tables.forget_named(|at, count| {
            count >= most || at + self.config.session.resume_window <= now
        });
        tables.name(id, key, now);
    }

    pub(super) fn find(&self, id: u64) -> Option<Known> {
        let now = now();
        let mut tables = self.lock();
        tables.forget_named(|at, _| at + self.config.session.resume_window <= now);
        if let Some(session) = tables.sessions.get(&id) {
            return Some(Known::Session(session.clone()));
        }
        tables
            .unproved
            .get(&id)
            .map(|unproved| Known::Unproved(unproved.key.clone()))
    }

    /// A peer has proved to hold the session's key.
    pub(super) fn prove(&self, id: u64, peer_addr: Option<SocketAddr>) -> Result<Proved, Error> {
        let mut tables = self.lock();
        if let Some(session) = tables.sessions.get(&id) {
            return Ok(Proved::Running(session.clone()));
        }
        if tables.sessions.len() >= self.config.max_sessions {
            // It stays unproved, so that a resume may open it when there is room.
            return Err(Error::Overloaded("it has as many sessions as it may"));
        }
        let Some(key) = tables.take_unproved(id) else {
            return Err(ResumeError::Unknown.into());
        };
        let session = Session::new(
            Role::Server,
            Opened { id, key },
            self.config.session.clone(),
            now(),
        );
        let session = Shared::new(session, self.config.handshake_timeout, peer_addr);
        tables.sessions.insert(id, session.clone());
        Ok(Proved::Opened(session))
    }

    /// Forgets a session that is over.
    pub(super) fn remove(&self, id: u64) {
        let session = self.lock().sessions.remove(&id);
        drop(session);
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
