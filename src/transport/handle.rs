//! Watching and steering a session.

use std::{fmt, net::SocketAddr, sync::Arc};

use tokio::sync::watch;

use super::{
    shared::Shared,
    state::{LinkState, SessionId},
};
#[cfg(feature = "noise")]
use crate::security::PublicKey;
use crate::{
    error::{CloseReason, Error},
    protocol::Stats,
};

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

    /// Where the session's newest link comes from, if it came through a [`Listener`](crate::Listener).
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.shared.peer_addr()
    }

    /// The public key that the session's peer has proved to hold; see
    /// [`ResumableTransport::peer_identity`](crate::ResumableTransport::peer_identity).
    #[cfg(feature = "noise")]
    #[cfg_attr(docsrs, doc(cfg(feature = "noise")))]
    pub fn peer_identity(&self) -> Option<PublicKey> {
        self.shared.peer_identity()
    }

    /// What the link is doing now. Like [`stats`](Self::stats) not to be asked from within the link itself, or from what `tracing` or
    /// `metrics` call.
    pub fn state(&self) -> LinkState {
        self.shared.state()
    }

    /// Follows [`state`](Self::state). Do not hold a borrow of the receiver while the transport is polled on the same thread.
    pub fn subscribe(&self) -> watch::Receiver<LinkState> {
        self.shared.follow()
    }

    /// What the session has done so far.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Moves the session to a new link. Returns when that carries it.
    ///
    /// In native the new link is dialled and proved while the old one carries data, and both are read until the server has changed over:
    /// nothing stops meanwhile. snet must close the old one before it resumes on the new one, which takes a round trip.
    ///
    /// # Errors
    ///
    /// - [`Error::CannotDial`] at the server's end;
    /// - [`Error::Dial`] if no link could be dialled, and the other errors of an attempt to resume if it came to nothing; the old link
    ///   goes on, if it still can;
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

    /// Ends the session at once, with an error at both ends: [`CloseReason::LocalReset`] here, [`CloseReason::Reset`] at the peer, each with
    /// `code`. What has been received can still be read; what has not been delivered is lost.
    ///
    /// The codes from [`0xffff_ff00`](crate::reset) on are the transport's own, and 0, which means a clean end, is taken for 1. The
    /// peer learns of it on the next link if there is none now, for the linger time at most. snet has no resets: there the peer's next
    /// resume is refused, or it waits in vain for one.
    pub fn close(&self, code: u32) {
        self.shared.reset(code);
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
