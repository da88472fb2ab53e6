//! The end of native that accepts: the handshakes and the tables of a server, as one with sockets keeps them.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use unbroken::{
    CloseReason, HandshakeError, RejectCode, ResumeError,
    protocol::{
        Handshake, Role, Session, Stats,
        native::{
            Binding, Ended, Hello, Id, Identity, NativeSession, Opened, ServerHandshake,
            SessionSecret, Settings, Tombstone,
        },
    },
};

use crate::{
    core_carried::Carried,
    core_native::{Numbers, say},
    core_pair::{End, ServerEnd},
    core_shield::{Sealed, Shield, records},
};

/// What the server has told a client that has not proved itself.
#[derive(Clone)]
pub(crate) struct Named {
    secret: SessionSecret,
    binding: Binding,
    peer_window: u64,
}

/// A session the server has started.
pub(crate) struct Entry {
    pub(crate) carried: Carried,
    /// Whether it stands in the table of those that run.
    runs: bool,
}

/// A handshake under way, and what its proof will attach.
struct Shaking {
    machine: ServerHandshake,
    pending: Option<(Id, u32)>,
    /// The client has been told the last word; until then its end is waited for.
    discards_until: Option<Instant>,
}

/// What becomes of an attempt.
enum Verdict {
    Granted(SessionSecret, u64),
    Rejected(RejectCode),
}

/// A server: those sessions that run, those it has named, those that are over, and the handshakes under way.
pub(crate) struct NativeServer {
    settings: Settings,
    numbers: Numbers,
    direct: bool,
    shield: Shield,
    sealed: Sealed,
    pub(crate) sessions: BTreeMap<Id, Entry>,
    pub(crate) unproved: BTreeMap<Id, Named>,
    pub(crate) ended: BTreeMap<Id, Tombstone>,
    handshakes: BTreeMap<usize, Shaking>,
    /// The ids of the sessions given to the application.
    pub(crate) accepted: Vec<Id>,
    /// Why links that had proved themselves were not attached.
    pub(crate) attach_errors: Vec<ResumeError>,
    /// Why clients, and those who pretended to be some, were turned away.
    pub(crate) rejections: Vec<RejectCode>,
    /// How many were told the end of their session from what is remembered of it.
    pub(crate) told: usize,
}

impl NativeServer {
    pub(crate) fn new(settings: Settings, direct: bool, shield: Shield) -> Self {
        Self {
            settings,
            numbers: Numbers(1 << 33),
            direct,
            shield,
            sealed: Sealed::new(shield),
            sessions: BTreeMap::new(),
            unproved: BTreeMap::new(),
            ended: BTreeMap::new(),
            handshakes: BTreeMap::new(),
            accepted: Vec::new(),
            attach_errors: Vec::new(),
            rejections: Vec::new(),
            told: 0,
        }
    }

    /// The session of the application.
    pub(crate) fn session(&mut self) -> Option<&mut NativeSession> {
        let entry = self.sessions.get_mut(self.accepted.first()?)?;
        Some(&mut entry.carried.session)
    }

    pub(crate) fn stats(&self) -> Stats {
        let stats = self.carried().map(|carried| carried.session.stats());
        stats.unwrap_or_default()
    }

    fn carried(&self) -> Option<&Carried> {
        Some(&self.sessions.get(self.accepted.first()?)?.carried)
    }

    fn carried_mut(&mut self) -> Option<&mut Carried> {
        Some(&mut self.sessions.get_mut(self.accepted.first()?)?.carried)
    }

    fn on(&self, link: usize) -> Option<&Entry> {
        self.sessions
            .values()
            .find(|entry| entry.carried.holds(link))
    }

    fn on_mut(&mut self, link: usize) -> Option<&mut Entry> {
        self.sessions
            .values_mut()
            .find(|entry| entry.carried.holds(link))
    }

    /// Of sessions that are over and need no link any more only the memory is kept, besides what the application has not read.
    fn bury(&mut self) {
        for (id, entry) in &mut self.sessions {
            if entry.runs && entry.carried.is_over() {
                entry.runs = false;
                let tombstone = entry.carried.session.tombstone().expect("it is over");
                self.ended.insert(*id, tombstone);
            }
        }
    }

    /// Whether a session may be resumed, and what is said of it if so. Nothing the client said is believed yet.
    fn consider(&self, id: Id, attempt: u32, binding: Binding) -> Verdict {
        if attempt == 0 {
            return Verdict::Rejected(RejectCode::Stale);
        }
        const DENIED: Verdict = Verdict::Rejected(RejectCode::NotAuthorised);
        let remembered = |tombstone: &Tombstone| match tombstone.end {
            _ if tombstone.binding != binding => DENIED,
            Ended::Rejected(code) => Verdict::Rejected(code),
            Ended::Reset(_) if Some(attempt) <= tombstone.last => {
                Verdict::Rejected(RejectCode::Stale)
            }
            Ended::Reset(_) => Verdict::Granted(tombstone.secret.clone(), tombstone.received),
        };
        if let Some(entry) = self.sessions.get(&id).filter(|entry| entry.runs) {
            let session = &entry.carried.session;
            return match session.tombstone() {
                Some(tombstone) => remembered(&tombstone),
                None if session.identity().binding != binding => DENIED,
                None => match session.answer(attempt) {
                    Ok(received) => Verdict::Granted(session.identity().secret.clone(), received),
                    Err(ResumeError::Stale) => Verdict::Rejected(RejectCode::Stale),
                    Err(other) => panic!("it is not over, and says {other}"),
                },
            };
        }
        if let Some(named) = self.unproved.get(&id) {
            if named.binding != binding {
                return DENIED;
            }
            return Verdict::Granted(named.secret.clone(), 0);
        }
        match self.ended.get(&id) {
            Some(tombstone) => remembered(tombstone),
            None => Verdict::Rejected(RejectCode::Unknown),
        }
    }

    /// A client has said what it wants.
    fn answer(&mut self, link: usize, now: Instant) {
        let machine = &self.handshakes[&link].machine;
        let (hello, binding) = (machine.hello(), machine.binding());
        match hello {
            None => {}
            Some(Hello::Open { window }) => {
                let opened = Opened {
                    id: self.numbers.draw(),
                    secret: SessionSecret::new(self.numbers.draw()),
                    route: 7,
                    window: self.settings.window as u64,
                    resume_window: self.settings.resume_window,
                };
                let named = Named {
                    secret: opened.secret.clone(),
                    binding,
                    peer_window: window,
                };
                self.unproved.insert(opened.id, named);
                let shaking = self.shaking(link);
                shaking.machine.open(&opened);
                shaking.pending = Some((opened.id, 0));
            }
            Some(Hello::Resume { id, attempt, .. }) => match self.consider(id, attempt, binding) {
                Verdict::Granted(secret, received) => {
                    let nonce = self.numbers.draw();
                    let shaking = self.shaking(link);
                    shaking.machine.resume(&secret, nonce, received);
                    shaking.pending = Some((id, attempt));
                }
                Verdict::Rejected(code) => self.reject(link, code, now),
            },
            Some(Hello::Unacceptable(code)) => self.reject(link, code, now),
        }
    }

    fn shaking(&mut self, link: usize) -> &mut Shaking {
        self.handshakes.get_mut(&link).expect("it shakes hands")
    }

    fn reject(&mut self, link: usize, code: RejectCode, now: Instant) {
        self.rejections.push(code);
        let until = now + self.settings.handshake_timeout;
        let shaking = self.shaking(link);
        shaking.machine.reject(code, Duration::ZERO);
        shaking.discards_until = Some(until);
    }

    fn tell_end(&mut self, link: usize, tombstone: &Tombstone, confirmed: u64, now: Instant) {
        let code = match tombstone.end {
            Ended::Reset(code) => code,
            Ended::Rejected(code) => return self.reject(link, code, now),
        };
        self.told += 1;
        let until = now + self.settings.handshake_timeout;
        let received = tombstone.received;
        let shaking = self.shaking(link);
        shaking
            .machine
            .end(confirmed, received, tombstone.limit, code);
        shaking.discards_until = Some(until);
    }

    /// A client has proved itself: its link is attached, if the session still takes it.
    fn prove(&mut self, link: usize, confirmed: u64, now: Instant) {
        let pending = self.shaking(link).pending;
        let (id, attempt) = pending.expect("only what was answered can be proved");
        if let Some(entry) = self.sessions.get_mut(&id).filter(|entry| entry.runs) {
            if attempt == 0 {
                return self.reject(link, RejectCode::Stale, now);
            }
            let carried = &mut entry.carried;
            match carried.session.attach(attempt, confirmed, now) {
                Ok(()) => {
                    carried.put(link, attempt.into(), now);
                    self.handshakes.remove(&link);
                }
                Err(error) => match carried.session.tombstone() {
                    Some(tombstone) => self.tell_end(link, &tombstone, confirmed, now),
                    None => {
                        self.attach_errors.push(error);
                        match error {
                            ResumeError::Stale => self.reject(link, RejectCode::Stale, now),
                            ResumeError::Gap => self.reject(link, RejectCode::Gap, now),
                            // What cannot be is the client's error.
                            _ => {
                                self.handshakes.remove(&link);
                            }
                        }
                    }
                },
            }
        } else if let Some(tombstone) = self.ended.get_mut(&id) {
            if attempt == 0 {
                return self.reject(link, RejectCode::Stale, now);
            }
            tombstone.last = tombstone.last.max(Some(attempt));
            let tombstone = tombstone.clone();
            self.tell_end(link, &tombstone, confirmed, now);
        } else if let Some(named) = self.unproved.remove(&id) {
            let identity = Identity {
                id,
                secret: named.secret,
                binding: named.binding,
                route: 7,
                peer_window: named.peer_window,
            };
            let mut session =
                NativeSession::new(Role::Server, identity, self.settings.clone(), now);
            session
                .attach(attempt, confirmed, now)
                .expect("nothing was sent or attached before");
            let mut carried = Carried::new(session, self.direct);
            carried.put(link, attempt.into(), now);
            let runs = true;
            self.sessions.insert(id, Entry { carried, runs });
            self.accepted.push(id);
            self.handshakes.remove(&link);
        } else {
            self.reject(link, RejectCode::Unknown, now);
        }
    }
}

impl NativeServer {
    /// Takes in what a client has said, not more than is wanted.
    fn take_in(&mut self, link: usize, bytes: &mut [u8], now: Instant) {
        let Some(shaking) = self.handshakes.get_mut(&link) else {
            let entry = self.on_mut(link).expect("something is wanted of this link");
            return entry.carried.receive(link, bytes, now);
        };
        if shaking.discards_until.is_some() {
            return;
        }
        let machine = &mut shaking.machine;
        let mut taken = machine.receive(bytes);
        if machine.prelude().is_some() {
            let protection = self.shield.for_server(self.numbers.draw());
            taken = taken.and_then(|()| machine.proceed(protection));
        }
        match taken {
            Ok(()) => match machine.proved() {
                Some(confirmed) => self.prove(link, confirmed, now),
                None => self.answer(link, now),
            },
            Err(HandshakeError::Proof) => self.reject(link, RejectCode::BadProof, now),
            Err(HandshakeError::Security) => {
                self.reject(link, RejectCode::SecurityNotOffered, now);
            }
            Err(HandshakeError::Decrypt) => self.reject(link, RejectCode::NotAuthorised, now),
            Err(_) => {
                self.handshakes.remove(&link);
            }
        }
    }
}

impl End for NativeServer {
    fn transmit(&mut self, link: usize, most: usize, now: Instant) -> Vec<u8> {
        if let Some(shaking) = self.handshakes.get_mut(&link) {
            let machine = &mut shaking.machine;
            let last = shaking.discards_until.is_some();
            if self.sealed.holds(link) {
                return self.sealed.transmit(link, most, |most| {
                    let said = say(machine, most);
                    (said, last && machine.transmit().is_empty())
                });
            }
            let said = say(machine, most);
            if machine.transmit().is_empty() && !last {
                self.sealed.put(link, records!(machine));
            }
            return said;
        }
        let mut entries = self.sessions.values_mut();
        let said = match entries.find(|entry| entry.carried.holds(link)) {
            Some(Entry { carried, .. }) if self.sealed.holds(link) => {
                self.sealed.transmit(link, most, |most| {
                    let said = carried.transmit(link, most, now);
                    (said, carried.has_ended(link))
                })
            }
            Some(entry) => entry.carried.transmit(link, most, now),
            None => Vec::new(),
        };
        self.bury();
        said
    }

    fn wanted(&self, link: usize) -> usize {
        match self.handshakes.get(&link) {
            Some(shaking) if shaking.discards_until.is_some() => usize::MAX,
            Some(shaking) if shaking.machine.wanted() > 0 && self.sealed.holds(link) => usize::MAX,
            Some(shaking) => shaking.machine.wanted(),
            None => self
                .on(link)
                .map_or(0, |entry| entry.carried.session.wanted()),
        }
    }

    fn receive(&mut self, link: usize, bytes: &mut [u8], now: Instant) {
        let discards = |shaking: &Shaking| shaking.discards_until.is_some();
        if self.handshakes.get(&link).is_some_and(discards) {
            return;
        }
        if !self.sealed.holds(link) {
            self.take_in(link, bytes, now);
        } else if let Ok(mut opened) = self.sealed.open(link, bytes) {
            let mut rest = &mut opened[..];
            while !rest.is_empty() && self.holds(link) {
                let wanted = match self.handshakes.get(&link) {
                    Some(shaking) if !discards(shaking) => shaking.machine.wanted(),
                    _ => usize::MAX,
                };
                assert!(wanted > 0, "the client speaks when it has the word");
                let (piece, more) = rest.split_at_mut(wanted.min(rest.len()));
                self.take_in(link, piece, now);
                rest = more;
            }
        } else {
            let shaking = self.handshakes.remove(&link);
            assert!(shaking.is_some(), "a client that is attached seals right");
        }
        self.bury();
    }

    fn link_failed(&mut self, link: usize, now: Instant) {
        self.handshakes.remove(&link);
        if let Some(entry) = self.on_mut(link) {
            entry.carried.link_failed(link, now);
        }
        self.bury();
    }

    fn holds(&self, link: usize) -> bool {
        self.handshakes.contains_key(&link) || self.on(link).is_some()
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        self.carried_mut().map_or(0, |carried| carried.write(bytes))
    }

    fn read(&mut self, out: &mut [u8], now: Instant) -> usize {
        self.carried_mut()
            .map_or(0, |carried| carried.read(out, now))
    }

    fn waiting(&self) -> usize {
        self.carried().map_or(0, Carried::waiting)
    }

    fn shut_write(&mut self) {
        if let Some(session) = self.session() {
            session.shut_write();
        }
    }

    fn is_shut_down(&self) -> bool {
        self.carried()
            .is_some_and(|carried| carried.session.is_shut_down(true))
    }

    fn is_read_ended(&self) -> bool {
        self.carried()
            .is_some_and(|carried| carried.session.is_read_ended())
    }

    fn has_ended(&self, link: usize) -> bool {
        let said = match self.handshakes.get(&link) {
            Some(shaking) => {
                shaking.discards_until.is_some() && shaking.machine.transmit().is_empty()
            }
            None => self
                .on(link)
                .is_some_and(|entry| entry.carried.has_ended(link)),
        };
        said && self.sealed.has_ended(link)
    }

    fn set_window(&mut self, bytes: usize, now: Instant) {
        if let Some(carried) = self.carried_mut() {
            carried.set_window(bytes, now);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let handshakes = self.handshakes.values();
        let discarded = handshakes.filter_map(|shaking| shaking.discards_until);
        let entries = self.sessions.values();
        let due = entries.filter_map(|entry| entry.carried.poll_timeout());
        discarded.chain(due).min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.handshakes
            .retain(|_, shaking| shaking.discards_until.is_none_or(|until| until > now));
        for entry in self.sessions.values_mut() {
            entry.carried.handle_timeout(now);
        }
        self.bury();
    }

    fn closed(&self) -> Option<CloseReason> {
        self.carried()?.closed()
    }

    /// Those whose client has given them up, and gone on meanwhile, do not count: whoever still waits is told, and ends its session.
    fn failed_attaches(&self) -> usize {
        let errors = self.attach_errors.iter();
        errors
            .filter(|error| !matches!(error, ResumeError::Stale | ResumeError::Gap))
            .count()
    }
}

impl ServerEnd for NativeServer {
    fn accept(&mut self, link: usize, _now: Instant) {
        let shaking = Shaking {
            machine: ServerHandshake::new(),
            pending: None,
            discards_until: None,
        };
        self.sealed.forget(link);
        self.handshakes.insert(link, shaking);
    }

    fn accepted(&self) -> usize {
        self.accepted.len()
    }
}
