//! The sessions of a server.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

use super::{
    aging::Aging,
    owners::{Owner, Owners},
    resume_rate::ResumeRate,
};
use crate::{
    config::Valid,
    error::{Error, Limit, ResumeError, reset},
    protocol::{
        Role,
        native::{self, Binding, Ended, Identity, NativeSession, SessionSecret, Tombstone},
        snet::{self, Opened, SessionKey, SnetSession},
    },
    transport::{Peer, SessionId, Shared, now, random},
};

/// How many sessions may stand named but unproved, and how many that are over may be remembered, for each handshake that may be in
/// progress.
const REMEMBERED_PER_HANDSHAKE: usize = 4;

/// The sessions by id: those that run, those that were named to a client that has not proved itself yet, and what is left of those
/// that are over.
///
/// The lock is held for looking up and changing the tables alone. Nothing waits under it.
pub(super) struct Registry {
    tables: Mutex<Tables>,
    /// The number of the last snet resume request that arrived.
    requests: AtomicU64,
    resume_rate: ResumeRate,
    population: watch::Sender<Population>,
    config: Valid,
}

/// What those wait for who shut the server down.
#[derive(Clone, Copy, Default)]
struct Population {
    /// How many sessions run.
    count: usize,
    /// How many handshakes are under way whose peer has been answered: it may take its session for open, or ask for the end of one.
    proving: usize,
    /// Whether new ones are refused because the server is shutting down.
    draining: bool,
}

struct Tables {
    sessions: HashMap<SessionId, Arc<Shared>>,
    /// Whom those count for.
    owners: Owners,
    unproved: Aging<SessionId, Named>,
    ended: Aging<SessionId, Tombstone>,
}

/// A session whose client has been told its id, and has not proved itself.
#[derive(Clone)]
pub(super) enum Named {
    Native {
        secret: SessionSecret,
        binding: Binding,
        peer_window: u64,
    },
    Snet(SessionKey),
}

/// What an id stands for.
pub(super) enum Known {
    /// A session that runs.
    Session(Arc<Shared>),
    /// A session that the first proof opens.
    Unproved(Named),
    /// A session that is over.
    Ended(Tombstone),
}

/// What a proof has reached.
pub(super) enum Proved {
    /// It has opened the session.
    Opened(Entry),
    /// The session had been opened before.
    Running(Arc<Shared>),
    /// The session is over.
    Ended(Tombstone),
}

/// Why a link is given no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// There is none of this id, or no longer.
    Unknown,
    /// As much is asked of the server as it takes on.
    Full(Limit),
    /// The server is shutting down.
    Draining,
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Unknown => ResumeError::Unknown.into(),
            Denied::Full(limit) => Self::Overloaded(limit),
            Denied::Draining => Self::ShutDown,
        }
    }
}

impl Registry {
    pub(super) fn new(config: Valid) -> Self {
        let most = config
            .max_handshakes
            .saturating_mul(REMEMBERED_PER_HANDSHAKE);
        Self {
            tables: Mutex::new(Tables {
                sessions: HashMap::new(),
                owners: Owners::new(&config),
                unproved: Aging::new(most, config.resume_window),
                ended: Aging::new(most, config.resume_window),
            }),
            requests: AtomicU64::new(0),
            resume_rate: ResumeRate::new(config.max_resumes_per_second, now()),
            population: watch::Sender::default(),
            config,
        }
    }

    /// Numbers an snet resume request, on its arrival. The open is number 0.
    pub(super) fn number_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether a new session may be opened from there, by the client with this key.
    ///
    /// Before anything was spent on it; the proof finds out again, since others may have been faster.
    pub(super) fn check_open(&self, peer: Peer) -> Result<(), Denied> {
        self.check_room(&self.lock(), &Owner::new(peer))
    }

    fn check_room(&self, tables: &Tables, owner: &Owner) -> Result<(), Denied> {
        if self.is_draining() {
            Err(Denied::Draining)
        } else if tables.sessions.len() >= self.config.max_sessions {
            Err(Denied::Full(Limit::Sessions))
        } else if self.config.memory.is_used_up() {
            Err(Denied::Full(Limit::Memory))
        } else {
            tables.owners.check(owner).map_err(Denied::Full)
        }
    }

    /// Whether another attempt to resume may come from there now. It counts.
    pub(super) fn check_resume(&self, peer_addr: Option<SocketAddr>) -> Result<(), Denied> {
        if self.resume_rate.take(peer_addr, now()) {
            Ok(())
        } else {
            Err(Denied::Full(Limit::ResumesPerSecond))
        }
    }

    /// Draws an snet id that names no session: the route in the top 16 bits, then random ones. It is not 0.
    pub(super) fn draw_snet_id(&self) -> Result<u64, Error> {
        loop {
            let id = u64::from(self.config.route) << 48 | random::number()? >> 16;
            if id != 0 && self.lock().is_free(&SessionId::snet(id)) {
                return Ok(id);
            }
        }
    }

    /// Draws a native id that names no session.
    pub(super) fn draw_native_id(&self) -> Result<native::Id, Error> {
        loop {
            let id: native::Id = random::bytes()?;
            // Those of snet end in zeros.
            let is_native = id[8..] != [0; 8];
            if is_native && self.lock().is_free(&SessionId::native(id)) {
                return Ok(id);
            }
        }
    }

    /// A client has been told the id of its session: from now on, for the resume window, the first proof opens it.
    pub(super) fn name(&self, id: SessionId, named: Named) -> Result<(), Denied> {
        let mut tables = self.lock();
        if self.is_draining() {
            return Err(Denied::Draining);
        }
        tables.unproved.insert(id, named, now());
        Ok(())
    }

    /// A peer is about to be answered: until this is dropped, sessions that are shut down wait for it to hear the rest.
    pub(super) fn proving(self: &Arc<Self>) -> Proving {
        self.population.send_if_modified(|population| {
            population.proving += 1;
            // Nobody waits for more of them.
            false
        });
        Proving(self.clone())
    }

    pub(super) fn find(&self, id: SessionId) -> Option<Known> {
        let mut tables = self.lock();
        if let Some(session) = tables.sessions.get(&id) {
            return Some(Known::Session(session.clone()));
        }
        if let Some(named) = tables.unproved.get_mut(&id, now()) {
            return Some(Known::Unproved(named.clone()));
        }
        let tombstone = tables.ended.get_mut(&id, now())?;
        Some(Known::Ended(tombstone.clone()))
    }

    /// A peer has proved to hold the secret of the session. If that opens it, it counts for the address and the client's key from then
    /// on.
    pub(super) fn prove(self: &Arc<Self>, id: SessionId, peer: Peer) -> Result<Proved, Denied> {
        let proved = self.find_or_open(id, peer)?;
        if let Proved::Opened(entry) = &proved {
            entry.session.begin();
        }
        Ok(proved)
    }

    fn find_or_open(self: &Arc<Self>, id: SessionId, peer: Peer) -> Result<Proved, Denied> {
        let mut tables = self.lock();
        if let Some(session) = tables.sessions.get(&id) {
            return Ok(Proved::Running(session.clone()));
        }
        if let Some(tombstone) = tables.ended.get_mut(&id, now()) {
            return Ok(Proved::Ended(tombstone.clone()));
        }
        if !tables.unproved.contains(&id) {
            return Err(Denied::Unknown);
        }
        // Otherwise it stays unproved, so that a resume may open it when there is room.
        let owner = Owner::new(peer);
        self.check_room(&tables, &owner)?;
        let named = tables.unproved.remove(&id).ok_or(Denied::Unknown)?;
        let session = self.start(id, named, peer).ok_or(Denied::Unknown)?;
        tables.sessions.insert(id, session.clone());
        tables.owners.add(&owner);
        self.counted(&tables);
        Ok(Proved::Opened(Entry {
            registry: self.clone(),
            session,
            owner,
        }))
    }

    fn start(&self, id: SessionId, named: Named, peer: Peer) -> Option<Arc<Shared>> {
        let (patience, memory) = (self.config.handshake_timeout, &self.config.memory);
        Some(match named {
            Named::Native {
                secret,
                binding,
                peer_window,
            } => {
                let identity = Identity {
                    id: id.to_native(),
                    secret,
                    binding,
                    route: self.config.route,
                    peer_window,
                };
                let settings = self.config.native.clone();
                let session = NativeSession::new(Role::Server, identity, settings, now());
                Shared::new(session, patience, memory, peer)
            }
            Named::Snet(key) => {
                let opened = Opened {
                    id: id.to_snet(),
                    key,
                };
                let settings: snet::Settings = self.config.snet.clone()?;
                let session = SnetSession::new(Role::Server, opened, settings, now());
                Shared::new(session, patience, memory, peer)
            }
        })
    }

    /// A client has been told the end of its session on its attempt of this number: no older one is to be told any more.
    pub(super) fn told(&self, id: SessionId, attempt: u32) {
        if let Some(tombstone) = self.lock().ended.get_mut(&id, now()) {
            tombstone.last = tombstone.last.max(Some(attempt));
        }
    }

    /// Forgets a session that is over, all but what its client may still have to be told.
    fn remove(&self, session: &Shared, owner: &Owner) {
        // Outside the lock: it is the session's own.
        let tombstone = session.tombstone();
        let mut tables = self.lock();
        let removed = tables.sessions.remove(&session.id());
        if removed.is_some() {
            tables.owners.remove(owner);
        }
        if let Some(tombstone) = tombstone {
            tables.ended.insert(session.id(), tombstone, now());
        }
        self.counted(&tables);
        drop(tables);
        drop(removed);
    }

    /// The number of sessions has changed.
    fn counted(&self, tables: &Tables) {
        let count = tables.sessions.len();
        self.population
            .send_modify(|population| population.count = count);
    }

    /// Refuses new sessions from now on. Those that were named and not proved are over, which their clients hear when they do prove
    /// themselves; snet has no way to say so.
    pub(super) fn drain(&self) {
        let mut tables = self.lock();
        let limit = self.config.native.window as u64;
        for (id, named) in tables.unproved.take() {
            if let Named::Native {
                secret, binding, ..
            } = named
            {
                let tombstone = Tombstone {
                    secret,
                    binding,
                    last: None,
                    received: 0,
                    limit,
                    end: Ended::Reset(reset::SHUTTING_DOWN),
                };
                tables.ended.insert(id, tombstone, now());
            }
        }
        self.population
            .send_modify(|population| population.draining = true);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.population.borrow().draining
    }

    /// How many sessions run.
    pub(super) fn count(&self) -> usize {
        self.population.borrow().count
    }

    /// Waits until new sessions are refused, none runs, and whoever was answered before has heard the rest or had its time.
    pub(super) async fn drained(&self) {
        let mut population = self.population.subscribe();
        let drained = population.wait_for(|population| {
            population.draining && population.count == 0 && population.proving == 0
        });
        // The sender is there for as long as this is.
        let _ = drained.await;
    }

    /// Those that run.
    pub(super) fn sessions(&self) -> Vec<Arc<Shared>> {
        self.lock().sessions.values().cloned().collect()
    }

    /// The one of this id, if it runs.
    pub(super) fn session(&self, id: SessionId) -> Option<Arc<Shared>> {
        self.lock().sessions.get(&id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn is_free(&self, id: &SessionId) -> bool {
        !(self.sessions.contains_key(id) || self.unproved.contains(id) || self.ended.contains(id))
    }
}

/// A handshake whose peer has been answered.
pub(super) struct Proving(Arc<Registry>);

impl Drop for Proving {
    fn drop(&mut self) {
        self.0.population.send_if_modified(|population| {
            population.proving -= 1;
            population.draining
        });
    }
}

/// A session's place in the registry, given back when it is dropped.
pub(super) struct Entry {
    registry: Arc<Registry>,
    session: Arc<Shared>,
    owner: Owner,
}

impl Entry {
    pub(super) fn session(&self) -> &Arc<Shared> {
        &self.session
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.remove(&self.session, &self.owner);
    }
}

#[cfg(test)]
mod tests;
