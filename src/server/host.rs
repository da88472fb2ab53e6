//! What the handshakes of either protocol are for: a server's settings and its sessions.

use std::{net::SocketAddr, sync::Arc};

use super::{
    handshakes::Place,
    registry::{Entry, Registry},
};
use crate::{
    config::Valid,
    error::Error,
    protocol::native::Binding,
    transport::{AnyLink, Peer, ResumableTransport, SessionId, keep},
};

/// Those whom handshakes give links and sessions to.
pub(super) struct Host {
    pub(super) config: Valid,
    pub(super) registry: Arc<Registry>,
}

impl Host {
    /// Starts a new session's keeper, and hands the session to the application.
    pub(super) fn keep(&self, entry: Entry) -> Accepted {
        let session = entry.session().clone();
        // Its place is free again however the keeper ends.
        tokio::spawn(keep(session.clone(), None, entry));
        Accepted::New(ResumableTransport::new(session))
    }
}

/// What a link was for.
#[derive(Debug)]
pub enum Accepted {
    /// A new session.
    New(ResumableTransport),
    /// A session accepted before, which goes on.
    Resumed(SessionId),
}

/// A link whose handshake is under way, and where it comes from.
pub(super) struct Arriving<'a> {
    pub(super) link: AnyLink,
    pub(super) place: &'a Place,
    pub(super) peer_addr: Option<SocketAddr>,
}

impl Arriving<'_> {
    /// Who is at the other end, before it has shown a key.
    pub(super) fn peer(&self) -> Peer {
        Peer {
            addr: self.peer_addr,
            key: None,
        }
    }

    /// Who is at the other end, when it has shown what it is to.
    pub(super) fn peer_with(&self, binding: &Binding) -> Peer {
        Peer {
            addr: self.peer_addr,
            key: binding.client_key,
        }
    }
}

/// A handshake that came to nothing.
pub(super) struct Failed {
    pub(super) error: Error,
    /// The link, if its peer has been told something that must reach it.
    pub(super) told: Option<AnyLink>,
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self {
            error: error.into(),
            told: None,
        }
    }
}
