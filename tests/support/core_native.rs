//! native, as a [`Pair`](super::core_pair::Pair) drives it, and the end that dials.

#![allow(dead_code, reason = "each test file uses its part")]

use std::time::{Duration, Instant};

use unbroken::{
    CloseReason, RejectCode, ResumeError,
    protocol::{
        Handshake, Role, Session, Stats,
        native::{
            Answer, ClientOpen, ClientResume, Identity, MAX_DATA, NativeSession, Nonce, Settings,
        },
    },
};

use crate::{
    core_carried::Carried,
    core_native_server::NativeServer,
    core_pair::{ClientEnd, End, Limits, Protocol},
    core_shield::{Sealed, Shield, records},
};

/// native, with the client's window and the server's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Native {
    pub(crate) windows: [usize; 2],
    /// Whether what comes in goes straight to the application as long as nothing waits for it, as to one that is reading.
    pub(crate) direct: bool,
    /// How long the last word is waited for, among other things.
    pub(crate) linger: Duration,
    /// What protects the links.
    pub(crate) shield: Shield,
}

impl Native {
    /// With windows of so many bytes, and the default linger time.
    pub(crate) const fn new(windows: [usize; 2]) -> Self {
        Self {
            windows,
            direct: false,
            linger: Duration::from_secs(60),
            shield: Shield::None,
        }
    }
}

impl Protocol for Native {
    type Client = NativeClient;
    type Server = NativeServer;
    const ENDS: bool = true;

    fn named_after(&self) -> usize {
        self.shield.answer_len(68)
    }

    fn answered_after(&self) -> usize {
        self.shield.answer_len(60)
    }

    fn ends(&self, limits: Limits, _now: Instant) -> (NativeClient, NativeServer) {
        let [client, server] = self.windows.map(|window| Settings {
            linger: self.linger,
            ..settings(window, limits.resume_window)
        });
        (
            NativeClient::new(client, self.direct, self.shield),
            NativeServer::new(server, self.direct, self.shield),
        )
    }
}

/// What a session of this window is configured with: beyond that the defaults.
pub(crate) fn settings(window: usize, resume_window: Duration) -> Settings {
    Settings {
        window,
        max_window: 4 * window,
        resume_window,
        linger: Duration::from_secs(60),
        ping_after: Duration::from_secs(15),
        dead_after: Duration::from_secs(30),
        handshake_timeout: Duration::from_secs(10),
        max_frame: MAX_DATA,
    }
}

/// Numbers that repeat from run to run and never within one.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn draw<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|at| {
            if at % 8 == 0 {
                self.0 += 1;
            }
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed >> (at % 8 * 8)) as u8
        })
    }
}

/// Takes at most `most` bytes of what a handshake has to say.
pub(crate) fn say(handshake: &mut impl Handshake, most: usize) -> Vec<u8> {
    let said = handshake.transmit();
    let said = said[..said.len().min(most)].to_vec();
    handshake.transmitted(said.len());
    said
}

enum Machine {
    Open(ClientOpen),
    Resume(ClientResume),
}

/// A client's handshake under way.
struct Attempt {
    link: usize,
    machine: Machine,
    /// When it is given up.
    until: Instant,
}

/// A client: it has one attempt at a time, and a session that keeps its link meanwhile.
pub(crate) struct NativeClient {
    settings: Settings,
    numbers: Numbers,
    direct: bool,
    shield: Shield,
    sealed: Sealed,
    pub(crate) carried: Option<Carried>,
    attempt: Option<Attempt>,
    /// Why the server would not go on.
    pub(crate) rejections: Vec<RejectCode>,
    /// Why this end would not, though the server would have.
    pub(crate) attach_errors: Vec<ResumeError>,
}

impl NativeClient {
    fn new(settings: Settings, direct: bool, shield: Shield) -> Self {
        Self {
            settings,
            numbers: Numbers(1 << 32),
            direct,
            shield,
            sealed: Sealed::new(shield),
            carried: None,
            attempt: None,
            rejections: Vec::new(),
            attach_errors: Vec::new(),
        }
    }

    /// The session, once there is one.
    pub(crate) fn session(&mut self) -> &mut NativeSession {
        &mut self.carried.as_mut().expect("it is open").session
    }

    fn given(&self) -> Option<&NativeSession> {
        Some(&self.carried.as_ref()?.session)
    }

    pub(crate) fn stats(&self) -> Stats {
        self.given().map(Session::stats).unwrap_or_default()
    }

    fn attempt_on(&mut self, link: usize) -> Option<&mut Attempt> {
        self.attempt.as_mut().filter(|attempt| attempt.link == link)
    }

    /// An answered attempt's link is the session's.
    fn attach(&mut self, now: Instant) {
        let (Some(attempt), Some(carried)) = (&self.attempt, &mut self.carried) else {
            return;
        };
        let link = attempt.link;
        match &attempt.machine {
            Machine::Open(open) => {
                let Some(confirm) = open.confirm() else {
                    return;
                };
                carried.session.attach_opened(confirm, now);
                carried.put(link, 0, now);
            }
            Machine::Resume(resume) => {
                let Some(Answer::Resumed { .. }) = resume.answer() else {
                    return;
                };
                match carried.session.attach_resumed(resume, now) {
                    Ok(id) => carried.put(link, id, now),
                    // On the link it had the session has come to its end meanwhile.
                    Err(ResumeError::Closed) => {}
                    Err(error) => {
                        self.attach_errors.push(error);
                        carried.look(now);
                    }
                }
            }
        }
        self.attempt = None;
    }

    fn resume(&mut self, link: usize, now: Instant) {
        let nonce: Nonce = self.numbers.draw();
        let protection = self.shield.for_client(self.numbers.draw());
        let Some(carried) = &mut self.carried else {
            let window = self.settings.window as u64;
            self.attempt = Some(Attempt {
                link,
                machine: Machine::Open(ClientOpen::new(window, protection)),
                until: now + self.settings.handshake_timeout,
            });
            return;
        };
        self.attempt = carried
            .session
            .resume(nonce, protection)
            .map(|resume| Attempt {
                link,
                machine: Machine::Resume(resume),
                until: now + self.settings.handshake_timeout,
            });
    }
}

impl End for NativeClient {
    fn transmit(&mut self, link: usize, most: usize, now: Instant) -> Vec<u8> {
        let mut said = Vec::new();
        if let Some(attempt) = self.attempt_on(link) {
            said = match &mut attempt.machine {
                Machine::Open(open) => say(open, most),
                Machine::Resume(resume) => say(resume, most),
            };
            self.attach(now);
        }
        let Some(carried) = &mut self.carried else {
            return said;
        };
        if !self.sealed.holds(link) {
            said.extend(carried.transmit(link, most - said.len(), now));
            return said;
        }
        assert!(said.is_empty(), "the handshake has said all there is");
        self.sealed.transmit(link, most, |most| {
            let said = carried.transmit(link, most, now);
            (said, carried.has_ended(link))
        })
    }

    fn wanted(&self, link: usize) -> usize {
        match (&self.attempt, &self.carried) {
            (Some(attempt), _) if attempt.link == link => match &attempt.machine {
                Machine::Open(open) => open.wanted(),
                Machine::Resume(resume) => resume.wanted(),
            },
            (_, Some(carried)) if carried.holds(link) => carried.session.wanted(),
            _ => 0,
        }
    }

    fn receive(&mut self, link: usize, bytes: &mut [u8], now: Instant) {
        let (settings, direct) = (self.settings.clone(), self.direct);
        let attempt = self.attempt.as_mut();
        let Some(attempt) = attempt.filter(|attempt| attempt.link == link) else {
            let carried = self.carried.as_mut().expect("it is open");
            if !self.sealed.holds(link) {
                carried.receive(link, bytes, now);
                return;
            }
            let opened = self.sealed.open(link, bytes);
            let mut opened = opened.expect("the server seals right");
            if !opened.is_empty() {
                carried.receive(link, &mut opened, now);
            }
            return;
        };
        let rejected = match &mut attempt.machine {
            Machine::Open(open) => {
                open.receive(bytes).expect("the server is right");
                if let Some(opened) = open.opened() {
                    let binding = self.shield.for_client([0; 32]).binding();
                    let identity = Identity {
                        id: opened.id,
                        secret: opened.secret.clone(),
                        binding,
                        route: opened.route,
                        peer_window: opened.window,
                    };
                    let session = NativeSession::new(Role::Client, identity, settings, now);
                    self.sealed.put(link, records!(open));
                    self.carried = Some(Carried::new(session, direct));
                    return;
                }
                open.rejected()
            }
            Machine::Resume(resume) => {
                resume.receive(bytes).expect("the server is right");
                match resume.answer() {
                    Some(Answer::Rejected(reject)) => Some(reject),
                    Some(Answer::Resumed { .. }) => {
                        self.sealed.put(link, records!(resume));
                        None
                    }
                    None => None,
                    Some(Answer::RejectedInTheClear(reject)) => panic!("nobody says {reject:?}"),
                }
            }
        };
        if let Some(reject) = rejected {
            self.rejections.push(reject.code);
            self.attempt = None;
            if let Some(carried) = &mut self.carried {
                carried.session.rejected(reject, now);
                carried.look(now);
            }
        }
    }

    fn link_failed(&mut self, link: usize, now: Instant) {
        self.attempt.take_if(|attempt| attempt.link == link);
        if let Some(carried) = &mut self.carried {
            carried.link_failed(link, now);
        }
    }

    fn holds(&self, link: usize) -> bool {
        let attempt = self.attempt.as_ref();
        attempt.is_some_and(|attempt| attempt.link == link)
            || self
                .carried
                .as_ref()
                .is_some_and(|carried| carried.holds(link))
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        self.carried
            .as_mut()
            .map_or(0, |carried| carried.write(bytes))
    }

    fn read(&mut self, out: &mut [u8], now: Instant) -> usize {
        self.carried
            .as_mut()
            .map_or(0, |carried| carried.read(out, now))
    }

    fn waiting(&self) -> usize {
        self.carried.as_ref().map_or(0, Carried::waiting)
    }

    fn shut_write(&mut self) {
        if let Some(carried) = &mut self.carried {
            carried.session.shut_write();
        }
    }

    fn is_shut_down(&self) -> bool {
        self.given()
            .is_some_and(|session| session.is_shut_down(true))
    }

    fn is_read_ended(&self) -> bool {
        self.given().is_some_and(NativeSession::is_read_ended)
    }

    fn has_ended(&self, link: usize) -> bool {
        let carried = self.carried.as_ref();
        carried.is_some_and(|carried| carried.has_ended(link)) && self.sealed.has_ended(link)
    }

    fn set_window(&mut self, bytes: usize, now: Instant) {
        if let Some(carried) = &mut self.carried {
            carried.set_window(bytes, now);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let attempt = self.attempt.as_ref().map(|attempt| attempt.until);
        let session = self.carried.as_ref().and_then(Carried::poll_timeout);
        attempt.into_iter().chain(session).min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.attempt.take_if(|attempt| attempt.until <= now);
        if let Some(carried) = &mut self.carried {
            carried.handle_timeout(now);
            if carried.is_over() {
                self.attempt = None;
            }
        }
    }

    fn closed(&self) -> Option<CloseReason> {
        self.carried.as_ref()?.closed()
    }

    fn failed_attaches(&self) -> usize {
        let carried = self.carried.as_ref();
        let rejected = carried.map_or(0, |carried| carried.rejections.len());
        rejected + self.rejections.len() + self.attach_errors.len()
    }
}

impl ClientEnd for NativeClient {
    fn dial(&mut self, link: usize, now: Instant) {
        self.attempt = None;
        if let Some(carried) = &mut self.carried {
            carried.lose_links(now);
        }
        if self.closed().is_none() {
            self.resume(link, now);
        }
    }

    fn migrate(&mut self, link: usize, now: Instant) {
        self.resume(link, now);
    }

    fn can_migrate(&self) -> bool {
        let session = self.given();
        session.is_some_and(|session| !session.is_switching()) && self.closed().is_none()
    }

    fn is_open(&self) -> bool {
        self.carried.is_some()
    }
}
