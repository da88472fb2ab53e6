//! One end of a native session (`docs/PROTOCOL.md`, "native").

mod contract;
mod ending;
mod incoming;
mod outgoing;
mod resuming;
mod windows;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub(super) use self::windows::RoundTrips;
use self::windows::Windows;
use super::{
    Binding, Id, SessionSecret,
    link::{Link, Receipt},
};
use crate::{
    error::{CloseReason, RejectCode},
    protocol::{
        session::{Life, LinkId, Role},
        streams::Streams,
    },
};

/// What a session is configured with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many sent bytes are kept until they are acknowledged, and how many received ones may wait for the application.
    pub window: usize,
    /// How far that grows while it limits a transfer. Less than the window counts as the window.
    pub max_window: usize,
    /// How long a detached session waits for a link.
    pub resume_window: Duration,
    /// How long a session goes on after its transport was dropped, or after a reset of which the server is still to learn.
    pub linger: Duration,
    /// After how long without a byte from the peer it is pinged.
    pub ping_after: Duration,
    /// After how long without a byte from the peer a link is given up.
    pub dead_after: Duration,
    /// How long a server may take to use a link that a client has confirmed.
    pub handshake_timeout: Duration,
    /// The longest payload of a frame that is skipped because its type is not known. Longer ones end the link.
    pub max_frame: usize,
}

impl Settings {
    /// How far a window grows.
    fn largest_window(&self) -> usize {
        self.max_window.max(self.window)
    }
}

/// What both ends know of a session once it is open.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The session's id.
    pub id: Id,
    /// What proofs are made with.
    pub secret: SessionSecret,
    /// What its links have to be.
    pub binding: Binding,
    /// The server's route, for the prelude of a resume.
    pub route: u32,
    /// The window the peer has stated.
    pub peer_window: u64,
}

/// What is left of a session that a server has closed.
#[derive(Clone, Debug)]
pub struct Tombstone {
    /// What proofs are made with.
    pub secret: SessionSecret,
    /// What its links had to be.
    pub binding: Binding,
    /// The number of the last attempt that was attached.
    pub last: Option<u32>,
    /// How many positions of the peer's stream were received, FIN included.
    pub received: u64,
    /// Up to where the peer was allowed to send.
    pub limit: u64,
    /// How its client is told.
    pub end: Ended,
}

/// How a client is told that its session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With an ATTACH, then a RESET of this code.
    Reset(u32),
    /// With a REJECT of this code, before it has proved anything.
    Rejected(RejectCode),
}

/// What the peer is to hear of what was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acknowledgement {
    /// It knows.
    Nothing,
    /// It is to hear of it by then, or earlier along with something else.
    By(Instant),
    /// It is to hear of it now.
    Due,
}

/// One end of a native session.
///
/// Offsets count the bytes of a stream and then its FIN, which takes one position.
pub struct NativeSession {
    settings: Arc<Settings>,
    identity: Identity,
    life: Life,
    streams: Streams,
    windows: Windows,
    /// The greatest offset up to which the peer was told that it may send.
    granted: u64,
    /// The link that is written to.
    link: Option<Link>,
    /// A client's link before that, as long as the server may still be using it. It is read, and taken up again if the newer one fails.
    previous: Option<Box<Link>>,
    /// The greatest offset the peer has said to have received.
    acknowledged: u64,
    /// The greatest offset up to which the peer has allowed DATA.
    limit: u64,
    /// The offset of this end's FIN, once the application has shut its write side.
    fin: Option<u64>,
    /// Whether the FIN was handed to any link.
    fin_handed: bool,
    /// The offset of the peer's FIN, once it has arrived.
    peer_fin: Option<u64>,
    /// Whether the link is to say what was received.
    acknowledgement: Acknowledgement,
    /// The session is over for the application.
    verdict: Option<CloseReason>,
    /// The code of the RESET this end is to send, and is not done with.
    reset: Option<u32>,
    /// When a client that has reset the session, or has nothing else left, stops waiting for the server's last word.
    tell_until: Option<Instant>,
    /// The number of a client's last attempt to resume.
    attempt: u32,
    /// What was trimmed when that began, if no link could change it any more.
    trimmed: Option<u64>,
    /// When a server that put a client off wants to be asked again.
    retry_at: Option<Instant>,
    /// Whether a client has proved to lack what is no longer held, and nothing has come on the link in use since.
    gap_suspected: bool,
    pings: u64,
    round_trip: Option<Duration>,
}
impl NativeSession {
    /// A session that a handshake has just opened, detached since `now`.
    pub fn new(
        role: Role,
        identity: Identity,
        settings: impl Into<Arc<Settings>>,
        now: Instant,
    ) -> Self {
        let settings = settings.into();
        Self {
            life: Life::new(role, now),
            streams: Streams::new(settings.largest_window()),
            windows: Windows::new(settings.window, settings.largest_window(), now),
            granted: settings.window as u64,
            link: None,
            previous: None,
            acknowledged: 0,
            limit: identity.peer_window,
            fin: None,
            fin_handed: false,
            peer_fin: None,
            acknowledgement: Acknowledgement::Nothing,
            verdict: None,
            reset: None,
            tell_until: None,
            attempt: 0,
            trimmed: None,
            retry_at: None,
            gap_suspected: false,
            pings: 0,
            round_trip: None,
            identity,
            settings,
        }
    }

    /// The id, the secret and what else both ends know.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How many positions of the peer's stream have been received, its FIN included.
    pub fn received(&self) -> u64 {
        self.streams.receive.received() + u64::from(self.peer_fin.is_some())
    }

    /// When a server that put this client off wants to be asked again.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Up to where the peer may send: what the application has taken, and the window; and never less than it was told before.
    fn own_limit(&self) -> u64 {
        let consumed = self.streams.receive.consumed();
        self.granted
            .max(consumed.saturating_add(self.windows.receive as u64))
    }

    fn receipt(&self) -> Receipt {
        Receipt {
            received: self.received(),
            limit: self.own_limit(),
        }
    }

    /// How many positions of this end's stream any link was handed.
    fn handed(&self) -> u64 {
        self.streams.handed() + u64::from(self.fin_handed)
    }

    /// Whether the peer has received the stream with its FIN.
    fn is_delivered(&self) -> bool {
        self.fin.is_some_and(|fin| self.acknowledged > fin)
    }

    fn slot(&mut self, id: LinkId) -> Option<&mut Link> {
        let links = [self.link.as_mut(), self.previous.as_deref_mut()];
        links.into_iter().flatten().find(|link| link.id == id)
    }
}

#[cfg(test)]
mod tests;
