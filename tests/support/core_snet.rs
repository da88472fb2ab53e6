//! snet, as a [`Pair`](super::core_pair::Pair) drives it.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use unbroken::{
    CloseReason, Refusal, ResumeError,
    protocol::{
        Handshake, LinkId, Phase, Role, Session,
        snet::{
            Challenge, CipherChoice, ClientOpen, ClientResume, Counts, Direction, Hello,
            KeyAgreement, Opened, PrivateKey, ResumeReply, ServerHandshake, Settings, SnetSession,
            StreamCipher,
        },
    },
};

use crate::core_pair::{ClientEnd, End, Limits, Protocol, ServerEnd};

/// snet with a cipher.
#[derive(Clone, Debug)]
pub(crate) struct Snet(pub(crate) CipherChoice);

impl Snet {
    /// Nothing over the stream, RC4, and a cipher of the user's own.
    pub(crate) fn all() -> [Self; 3] {
        [
            CipherChoice::Plain,
            CipherChoice::Rc4,
            CipherChoice::custom(Counter::new),
        ]
        .map(Self)
    }
}

impl Protocol for Snet {
    type Client = SnetClient;
    type Server = SnetServer;
    const ENDS: bool = false;

    fn named_after(&self) -> usize {
        24
    }

    fn answered_after(&self) -> usize {
        24
    }

    fn ends(&self, limits: Limits, _now: Instant) -> (SnetClient, SnetServer) {
        let settings = settings(limits, self.0.clone());
        (SnetClient::new(settings.clone()), SnetServer::new(settings))
    }
}

/// What a session of these limits is configured with.
pub(crate) fn settings(limits: Limits, cipher: CipherChoice) -> Settings {
    Settings {
        history: limits.history,
        resume_window: limits.resume_window,
        linger: Duration::from_secs(60),
        silence: None,
        fin_is_close: false,
        cipher,
    }
}

/// A stream cipher of a user's own: the key's bytes in turn, a counter, and another start for each direction.
pub(crate) struct Counter {
    key: [u8; 8],
    at: u64,
}

impl Counter {
    pub(crate) fn new(key: &[u8; 8], direction: Direction) -> Self {
        let at = match direction {
            Direction::ClientToServer => 0,
            Direction::ServerToClient => 1 << 20,
        };
        Self { key: *key, at }
    }
}

impl StreamCipher for Counter {
    fn apply(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            let mixed = self.at.wrapping_mul(0xd134_2543_de82_ef95) >> 40;
            *byte ^= self.key[(self.at % 8) as usize] ^ mixed as u8;
            self.at += 1;
        }
    }
}

/// Numbers that repeat from run to run and never within one.
struct Numbers(u64);

impl Numbers {
    fn draw(&mut self) -> u64 {
        self.0 += 1;
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) | 1
    }

    fn key(&mut self) -> KeyAgreement {
        KeyAgreement::Private(PrivateKey::new(self.draw()).expect("drawn odd"))
    }

    fn challenge(&mut self) -> Challenge {
        Challenge::new(self.draw()).expect("drawn odd")
    }
}

/// Writes what a handshake has to say into `out`, which is to have at most `most` bytes.
fn say(handshake: &mut impl Handshake, most: usize, out: &mut Vec<u8>) {
    let said = handshake.transmit();
    let count = said.len().min(most - out.len());
    out.extend(&said[..count]);
    handshake.transmitted(count);
}

/// Writes what a session has to send into `out`, which is to have at most `most` bytes.
fn send(session: &mut SnetSession, most: usize, now: Instant, out: &mut Vec<u8>) {
    let pieces = session.transmit(now);
    let before = out.len();
    out.extend(pieces.into_iter().flatten().take(most - before));
    let count = out.len() - before;
    session.transmitted(count);
}

fn take(session: &mut SnetSession, id: LinkId, bytes: &mut [u8], now: Instant) {
    assert!(
        bytes.len() <= session.wanted(),
        "more was read than there is room for"
    );
    let arrived = session.receive(id, bytes, now);
    assert_eq!(arrived.broken, None);
    session.store(&bytes[arrived.fresh]);
    assert!(
        session.phase() != Phase::Closed(CloseReason::Exhausted),
        "no test sends 2^64 bytes"
    );
}

fn over(session: &SnetSession) -> Option<CloseReason> {
    match session.phase() {
        Phase::Closed(reason) => Some(reason),
        Phase::Attached | Phase::Detached(_) => None,
    }
}

enum Attempt {
    Open(ClientOpen),
    /// With what this end stated to have received, and what the server then said.
    Resume(ClientResume, u64, Option<Counts>),
}

/// A client: it has one attempt at a time, and no link besides.
pub(crate) struct SnetClient {
    settings: Settings,
    numbers: Numbers,
    pub(crate) session: Option<SnetSession>,
    attempt: Option<(usize, Attempt)>,
    /// With the session's number for it.
    link: Option<(usize, LinkId)>,
    requests: u64,
    /// How many links were given up because the session had moved on during the handshake.
    failed_attaches: usize,
}

impl SnetClient {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            numbers: Numbers(1 << 32),
            session: None,
            attempt: None,
            link: None,
            requests: 0,
            failed_attaches: 0,
        }
    }

    fn is_on(&self, link: usize) -> bool {
        self.link.is_some_and(|(on, _)| on == link)
    }

    /// The handshake is over once the last message is on the link: then the link is the session's.
    fn attach(&mut self, now: Instant) {
        let (peer, stated) = match &self.attempt {
            Some((_, Attempt::Open(open))) if open.opened().is_some() => (Counts::default(), 0),
            Some((_, Attempt::Resume(_, stated, Some(peer)))) => (*peer, *stated),
            _ => return,
        };
        let session = self.session.as_mut().expect("opened with message 2");
        if let Some((link, _)) = self.attempt.take() {
            match session.attach(self.requests, peer, stated, now) {
                Ok(()) => self.link = Some((link, self.requests)),
                // What was written since the counts were checked has pushed out what the server lacks; the next resume says so.
                Err(ResumeError::Gap) => self.failed_attaches += 1,
                Err(other) => panic!("checked, and nothing arrived since: {other}"),
            }
        }
    }
}

impl End for SnetClient {
    fn transmit(&mut self, link: usize, most: usize, now: Instant) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some((_, attempt)) = self.attempt.as_mut().filter(|(on, _)| *on == link) {
            let said_all = match attempt {
                Attempt::Open(open) => {
                    say(open, most, &mut out);
                    open.transmit().is_empty()
                }
                Attempt::Resume(resume, ..) => {
                    say(resume, most, &mut out);
                    resume.transmit().is_empty()
                }
            };
            if said_all {
                self.attach(now);
            }
        }
        if let (Some(session), Some((on, _))) = (&mut self.session, self.link)
            && on == link
        {
            send(session, most, now, &mut out);
        }
        out
    }

    fn wanted(&self, link: usize) -> usize {
        match (&self.attempt, &self.session) {
            (Some((on, Attempt::Open(open))), _) if *on == link => open.wanted(),
            (Some((on, Attempt::Resume(resume, ..))), _) if *on == link => resume.wanted(),
            (_, Some(session)) if self.is_on(link) => session.wanted(),
            _ => 0,
        }
    }

    fn receive(&mut self, link: usize, bytes: &mut [u8], now: Instant) {
        match (&mut self.attempt, &mut self.session) {
            (Some((on, Attempt::Open(open))), session) if *on == link => {
                open.receive(bytes).expect("the server's message is right");
                if let Some(opened) = open.opened() {
                    let settings = self.settings.clone();
                    let opened = opened.clone();
                    *session = Some(SnetSession::new(Role::Client, opened, settings, now));
                }
            }
            (Some((on, Attempt::Resume(resume, _, peer))), Some(session)) if *on == link => {
                resume
                    .receive(bytes)
                    .expect("the server's message is right");
                match resume.reply() {
                    None => {}
                    Some(ResumeReply::Refused) => {
                        session.close(CloseReason::Refused(Refusal::Unexplained));
                        self.attempt = None;
                    }
                    Some(ResumeReply::Granted { counts, .. }) => match session.check(counts) {
                        Ok(()) => {
                            *peer = Some(counts);
                            resume.confirm();
                        }
                        Err(ResumeError::Gap) => {
                            session.close(CloseReason::Gap);
                            self.attempt = None;
                        }
                        Err(other) => panic!("the server's counts cannot be: {other}"),
                    },
                }
            }
            (_, Some(session)) => match self.link {
                Some((on, id)) if on == link => take(session, id, bytes, now),
                _ => panic!("nothing is wanted of this link"),
            },
            _ => panic!("nothing is wanted of this link"),
        }
    }

    fn link_failed(&mut self, link: usize, now: Instant) {
        if self.attempt.as_ref().is_some_and(|(on, _)| *on == link) {
            self.attempt = None;
        }
        if let Some((_, id)) = self.link.take_if(|(on, _)| *on == link) {
            let session = self.session.as_mut().expect("it has a link");
            session.link_failed(id, now);
        }
    }

    fn holds(&self, link: usize) -> bool {
        self.is_on(link) || self.attempt.as_ref().is_some_and(|(on, _)| *on == link)
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        self.session
            .as_mut()
            .map_or(0, |session| session.write(bytes))
    }

    fn read(&mut self, out: &mut [u8], now: Instant) -> usize {
        self.session
            .as_mut()
            .map_or(0, |session| session.read(out, now))
    }

    fn waiting(&self) -> usize {
        self.session.as_ref().map_or(0, SnetSession::waiting)
    }

    fn shut_write(&mut self) {
        if let Some(session) = &mut self.session {
            session.shut_write();
        }
    }

    fn is_shut_down(&self) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| session.is_shut_down(true))
    }

    fn is_read_ended(&self) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(SnetSession::is_read_ended)
    }

    fn has_ended(&self, _link: usize) -> bool {
        false
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.session.as_ref()?.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(session) = &mut self.session {
            session.handle_timeout(now);
        }
    }

    fn closed(&self) -> Option<CloseReason> {
        self.session.as_ref().and_then(over)
    }

    fn failed_attaches(&self) -> usize {
        self.failed_attaches
    }
}

impl ClientEnd for SnetClient {
    fn dial(&mut self, link: usize, now: Instant) {
        self.link = None;
        let attempt = match &mut self.session {
            None => Attempt::Open(ClientOpen::new(self.numbers.key())),
            Some(session) => {
                session.detach(now);
                self.requests += 1;
                let counts = session.counts();
                let resume = ClientResume::new(session.opened(), counts);
                Attempt::Resume(resume, counts.received, None)
            }
        };
        self.attempt = Some((link, attempt));
    }

    fn is_open(&self) -> bool {
        self.session.is_some()
    }
}

/// What message 3 will attach: the session, the request's number, and what both ends stated.
struct Pending {
    id: u64,
    request: u64,
    peer: Counts,
    stated: u64,
}

/// A session of the server's; unproved until some message 3 has come in.
pub(crate) struct Entry {
    pub(crate) session: SnetSession,
    link: Option<(usize, LinkId)>,
}

/// A server: the sessions that can be resumed, and the handshakes under way.
pub(crate) struct SnetServer {
    settings: Settings,
    numbers: Numbers,
    pub(crate) registry: BTreeMap<u64, Entry>,
    handshakes: BTreeMap<usize, (ServerHandshake, Option<Pending>)>,
    requests: u64,
    /// The ids of the sessions given to the application.
    pub(crate) accepted: Vec<u64>,
    /// Why zeros were sent.
    pub(crate) refusals: Vec<ResumeError>,
    /// Why links that had proved themselves were closed.
    pub(crate) attach_errors: Vec<ResumeError>,
}

impl SnetServer {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            numbers: Numbers(1 << 33),
            registry: BTreeMap::new(),
            handshakes: BTreeMap::new(),
            requests: 0,
            accepted: Vec::new(),
            refusals: Vec::new(),
            attach_errors: Vec::new(),
        }
    }

    /// The session of the application.
    pub(crate) fn session(&mut self) -> Option<&mut SnetSession> {
        let entry = self.registry.get_mut(self.accepted.first()?)?;
        Some(&mut entry.session)
    }

    fn given(&self) -> Option<&SnetSession> {
        let entry = self.registry.get(self.accepted.first()?)?;
        Some(&entry.session)
    }

    fn answer(&mut self, link: usize, now: Instant) {
        let (handshake, pending) = self.handshakes.get_mut(&link).expect("it has said hello");
        match handshake.hello() {
            None => {}
            Some(Hello::Open(_)) => {
                let (key, id) = (self.numbers.key(), self.numbers.draw());
                let challenge = self.numbers.draw();
                let key = handshake
                    .open(&key, id, challenge)
                    .expect("it wants a session");
                let opened = Opened { id, key };
                let session = SnetSession::new(Role::Server, opened, self.settings.clone(), now);
                self.registry.insert(
                    id,
                    Entry {
                        session,
                        link: None,
                    },
                );
                *pending = Some(Pending {
                    id,
                    request: 0,
                    peer: Counts::default(),
                    stated: 0,
                });
            }
            Some(Hello::Resume(request)) => {
                self.requests += 1;
                let answer = match self.registry.get_mut(&request.id) {
                    None => Err(ResumeError::Unknown),
                    Some(entry) if !request.verify(&entry.session.opened().key) => {
                        Err(ResumeError::Proof)
                    }
                    Some(entry) => {
                        let key = entry.session.opened().key.clone();
                        entry.session.answer(request.counts).map(|own| (own, key))
                    }
                };
                match answer {
                    Ok((own, key)) => {
                        handshake.resume(&key, own, self.numbers.challenge());
                        *pending = Some(Pending {
                            id: request.id,
                            request: self.requests,
                            peer: request.counts,
                            stated: own.received,
                        });
                    }
                    Err(reason) => {
                        handshake.refuse();
                        self.refusals.push(reason);
                    }
                }
            }
        }
    }

    fn attach(&mut self, link: usize, now: Instant) {
        let Some((_, Some(pending))) = self.handshakes.remove(&link) else {
            panic!("only what was answered can be proved");
        };
        let Some(entry) = self.registry.get_mut(&pending.id) else {
            return;
        };
        let attached = entry
            .session
            .attach(pending.request, pending.peer, pending.stated, now);
        match attached {
            Ok(()) => {
                entry.link = Some((link, pending.request));
                if !self.accepted.contains(&pending.id) {
                    self.accepted.push(pending.id);
                }
            }
            Err(reason) => self.attach_errors.push(reason),
        }
    }

    fn on(&self, link: usize) -> Option<&Entry> {
        self.registry
            .values()
            .find(|entry| entry.link.is_some_and(|(on, _)| on == link))
    }

    fn on_mut(&mut self, link: usize) -> Option<&mut Entry> {
        self.registry
            .values_mut()
            .find(|entry| entry.link.is_some_and(|(on, _)| on == link))
    }
}

impl End for SnetServer {
    fn transmit(&mut self, link: usize, most: usize, now: Instant) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some((handshake, pending)) = self.handshakes.get_mut(&link) {
            say(handshake, most, &mut out);
            let refused = pending.is_none() && handshake.wanted() == 0;
            if refused && handshake.transmit().is_empty() {
                self.handshakes.remove(&link);
            }
        } else if let Some(entry) = self.on_mut(link) {
            send(&mut entry.session, most, now, &mut out);
        }
        out
    }

    fn wanted(&self, link: usize) -> usize {
        match self.handshakes.get(&link) {
            Some((handshake, _)) => handshake.wanted(),
            None => self.on(link).map_or(0, |entry| entry.session.wanted()),
        }
    }

    fn receive(&mut self, link: usize, bytes: &mut [u8], now: Instant) {
        if let Some((handshake, _)) = self.handshakes.get_mut(&link) {
            if handshake.receive(bytes).is_err() {
                self.handshakes.remove(&link);
            } else if handshake.is_proved() {
                self.attach(link, now);
            } else {
                self.answer(link, now);
            }
        } else {
            let entry = self.on_mut(link).expect("something is wanted of this link");
            let (_, id) = entry.link.expect("it is on this one");
            take(&mut entry.session, id, bytes, now);
        }
    }

    fn link_failed(&mut self, link: usize, now: Instant) {
        self.handshakes.remove(&link);
        if let Some(entry) = self.on_mut(link)
            && let Some((_, id)) = entry.link.take()
        {
            entry.session.link_failed(id, now);
        }
    }

    fn holds(&self, link: usize) -> bool {
        self.handshakes.contains_key(&link) || self.on(link).is_some()
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        self.session().map_or(0, |session| session.write(bytes))
    }

    fn read(&mut self, out: &mut [u8], now: Instant) -> usize {
        self.session().map_or(0, |session| session.read(out, now))
    }

    fn waiting(&self) -> usize {
        self.given().map_or(0, SnetSession::waiting)
    }

    fn shut_write(&mut self) {
        if let Some(session) = self.session() {
            session.shut_write();
        }
    }

    fn is_shut_down(&self) -> bool {
        let session = self.given();
        session.is_some_and(|session| session.is_shut_down(true))
    }

    fn is_read_ended(&self) -> bool {
        self.given().is_some_and(SnetSession::is_read_ended)
    }

    fn has_ended(&self, _link: usize) -> bool {
        false
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let entries = self.registry.values();
        entries
            .filter_map(|entry| entry.session.poll_timeout())
            .min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        for entry in self.registry.values_mut() {
            entry.session.handle_timeout(now);
        }
    }

    fn closed(&self) -> Option<CloseReason> {
        over(self.given()?)
    }

    fn failed_attaches(&self) -> usize {
        self.attach_errors
            .iter()
            .filter(|error| **error != ResumeError::Stale)
            .count()
    }
}

impl ServerEnd for SnetServer {
    fn accept(&mut self, link: usize, _now: Instant) {
        self.handshakes.insert(link, (ServerHandshake::new(), None));
    }

    fn accepted(&self) -> usize {
        self.accepted.len()
    }
}
