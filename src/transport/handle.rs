//! Watching and steering a session.

use std::{fmt, net::SocketAddr, sync::Arc};

use tokio::sync::watch;

use super::{
    shared::Shared,
    state::{LinkState, SessionId, Stats},
};
use crate::error::{CloseReason, Error};

/// Watches and steers one session; every clone is for the same one.
///
/// It does not keep the session alive: that is for the [`ResumableTransport`](crate::ResumableTransport) alone.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The session's name.
    pub fn id(&self) -> SessionId {
        self.shared.id()
    }

    /// The address of the link on which the session was opened, if it came through a [`Listener`](crate::Listener).
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.shared.peer_addr()
    }

    /// What the link is doing now.
    pub fn state(&self) -> LinkState {
        self.shared.watch().borrow().clone()
    }

    /// Follows [`state`](Self::state). Do not hold a borrow of the receiver while the transport is polled on the same thread.
    pub fn subscribe(&self) -> watch::Receiver<LinkState> {
        self.shared.watch().subscribe()
    }

    /// What the session has done so far.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Moves the session to a new link. Returns when that carries it.
    ///
    /// The new link is dialled while the old one goes on. snet must then close the old one before it resumes on the new one, which
    /// takes a round trip.
    ///
    /// # Errors
    ///
    /// - [`Error::CannotDial`] at the server's end;
    /// - [`Error::Dial`] if no link could be dialled; the old one goes on;
    /// - [`Error::Closed`] if the session is over, or ends meanwhile. A link that is lost meanwhile is no error: the session resumes
    ///   on the next.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting, not the migration.
    pub async fn migrate(&self) -> Result<(), Error> {
        let done = self.shared.migrate()?;
        done.await
            .unwrap_or(Err(Error::Closed(CloseReason::Abandoned)))
    }

    /// Tells the session that the network has changed, as a phone's system reports it.
    ///
    /// While reconnecting, it starts the backoff over and tries at once. While connected, it doubts the link: unless the peer is
    /// heard first, the session moves to a new one. It has no effect at the server's end, which cannot dial.
    pub fn network_changed(&self) {
        self.shared.network_changed();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("id", &self.id())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
