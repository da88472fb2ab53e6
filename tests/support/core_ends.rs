//! Both ends of a session face to face, for what needs neither a handshake nor a wire.

#![allow(dead_code, reason = "each test file uses its part")]

use std::time::{Duration, Instant};

use unbroken::{
    ResumeError,
    protocol::{
        LinkId, Role, Session,
        snet::{CipherChoice, Counts, Opened, SessionKey, Settings, SnetSession},
    },
};

use crate::{
    core_pair::{Limits, Side},
    core_snet::settings,
};

pub(crate) const WINDOW: Duration = Duration::from_secs(300);
pub(crate) const LINGER: Duration = Duration::from_secs(60);

pub(crate) fn limits(history: usize) -> Limits {
    Limits {
        history,
        resume_window: WINDOW,
    }
}

/// Both ends of a session without anything between them.
pub(crate) struct Ends {
    pub(crate) client: SnetSession,
    pub(crate) server: SnetSession,
    pub(crate) now: Instant,
    pub(crate) request: u64,
}

impl Ends {
    pub(crate) fn new(settings: Settings) -> Self {
        let opened = Opened {
            id: 7,
            key: SessionKey::new(*b"8 bytes."),
        };
        let now = Instant::now();
        let mut client = SnetSession::new(Role::Client, opened.clone(), settings.clone(), now);
        let mut server = SnetSession::new(Role::Server, opened, settings, now);
        for end in [&mut client, &mut server] {
            end.attach(0, Counts::default(), 0, now)
                .expect("nothing has been counted");
        }
        Self {
            client,
            server,
            now,
            request: 0,
        }
    }

    pub(crate) fn plain(history: usize) -> Self {
        Self::new(settings(limits(history), CipherChoice::Plain))
    }

    /// A new link: the client asks, and each end is told what the other counts.
    pub(crate) fn resume(&mut self) -> Result<(), ResumeError> {
        self.client.detach(self.now);
        let client = self.client.counts();
        self.request += 1;
        let server = self.server.answer(client)?;
        self.client.check(server)?;
        self.client
            .attach(self.request, server, client.received, self.now)?;
        self.server
            .attach(self.request, client, server.received, self.now)
    }

    /// At most `most` bytes go over the link to `side`; returns how many.
    pub(crate) fn carry(&mut self, side: Side, most: usize) -> usize {
        let (from, to) = match side {
            Side::Client => (&mut self.server, &mut self.client),
            Side::Server => (&mut self.client, &mut self.server),
        };
        let mut bytes = hand(from, most);
        let arrived = to.receive(link(to), &mut bytes, self.now);
        to.store(&bytes[arrived.fresh]);
        bytes.len()
    }
}

/// The number of the link in use.
pub(crate) fn link(session: &SnetSession) -> LinkId {
    let mut numbers = (0..100).rev();
    numbers
        .find(|link| session.holds(*link))
        .expect("it has a link")
}

/// Takes at most `most` bytes off a session, for a link.
pub(crate) fn hand(session: &mut SnetSession, most: usize) -> Vec<u8> {
    // snet sends nothing because of the time.
    let pieces = session.transmit(Instant::now());
    let bytes: Vec<u8> = pieces.concat().into_iter().take(most).collect();
    session.transmitted(bytes.len());
    bytes
}

pub(crate) fn read_all(session: &mut SnetSession, now: Instant) -> Vec<u8> {
    let mut out = vec![0; session.waiting()];
    let count = session.read(&mut out, now);
    assert_eq!(count, out.len());
    out
}

pub(crate) fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at * 7 + at / 256) as u8).collect()
}

/// Writes and hands to a link that delivers none of it, until `count` bytes are gone.
pub(crate) fn lose(session: &mut SnetSession, count: usize) {
    let mut lost = 0;
    while lost < count {
        lost += session.write(&bytes(count - lost));
        hand(session, usize::MAX);
    }
}

/// The server loses its link and waits in vain for another.
pub(crate) fn expire(ends: &mut Ends) {
    ends.server.detach(ends.now);
    ends.server.handle_timeout(ends.now + WINDOW);
}
