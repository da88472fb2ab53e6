//! The sessions of a server, for those who run it.

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::timeout;

use super::registry::Registry;
#[cfg(feature = "noise")]
use crate::security::PublicKey;
use crate::{
    error::reset,
    protocol::Stats,
    transport::{Handle, LinkState, SessionId},
};

/// The sessions of a [`Listener`](crate::Listener) or an [`Acceptor`](crate::Acceptor): lists them, closes any, shuts all down.
///
/// Clones are for the same sessions. It keeps none of them alive.
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// use unbroken::{Config, Listener, LinkState};
///
/// let listener = Listener::bind("0.0.0.0:7000", Config::new()).await?;
/// let sessions = listener.sessions();
/// for session in sessions.list() {
///     println!("{} from {:?}: {:?} for {:?}", session.id, session.peer_addr, session.state, session.age);
///     if matches!(session.state, LinkState::Reconnecting { .. }) {
///         sessions.close(session.id, 1);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Sessions {
    registry: Arc<Registry>,
    /// How long the closing of a link may take.
    patience: Duration,
}

/// What can be said of a session without its application.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Its name.
    pub id: SessionId,
    /// Where its newest link comes from, if it came through a [`Listener`](crate::Listener) or
    /// [`Acceptor::accept_from`](crate::Acceptor::accept_from).
    pub peer_addr: Option<SocketAddr>,
    /// The public key that its client has proved to hold, if the [security](crate::Security) has it show one.
    #[cfg(feature = "noise")]
    #[cfg_attr(docsrs, doc(cfg(feature = "noise")))]
    pub peer_identity: Option<PublicKey>,
    /// What its link is doing.
    pub state: LinkState,
    /// How long ago it was opened.
    pub age: Duration,
    /// What it has done so far.
    pub stats: Stats,
}

impl Sessions {
    pub(super) fn new(registry: Arc<Registry>, patience: Duration) -> Self {
        Self { registry, patience }
    }

    /// Those that are open, attached or detached, in no order.
    pub fn list(&self) -> Vec<SessionInfo> {
        let now: Instant = tokio::time::Instant::now().into_std();
        let sessions = self.registry.sessions();
        sessions
            .into_iter()
            .map(|session| SessionInfo {
                id: session.id(),
                peer_addr: session.peer_addr(),
                #[cfg(feature = "noise")]
                peer_identity: session.peer_identity(),
                age: now.saturating_duration_since(session.opened()),
                stats: session.stats(),
                state: Handle::new(session).state(),
            })
            .collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.registry.count()
    }

    /// Resets one, as [`Handle::close`](crate::Handle::close) does. Returns whether there was one of this id.
    pub fn close(&self, id: SessionId, code: u32) -> bool {
        let session = self.registry.session(id);
        session.inspect(|session| session.reset(code)).is_some()
    }

    /// Refuses new sessions from the call on, and lets the others go on, resumes included, until all have ended; those that have not when
    /// `deadline` has passed are reset with [`SHUTTING_DOWN`](reset::SHUTTING_DOWN). The future is done then, with how many that were.
    ///
    /// The deadline counts from the call. After it, it may take another [handshake timeout](crate::Config::handshake_timeout) until the peers have been told, where they
    /// are slow to take it. Clients that ask for a new session meanwhile are told that the server is
    /// [shutting down](crate::RejectCode::ShuttingDown); to those that speak snet, the link is just closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting and the resets; new sessions are refused all the same.
    pub fn shutdown(&self, deadline: Duration) -> impl Future<Output = usize> + Send + use<> {
        self.refuse_new();
        tracing::info!(sessions = self.count(), ?deadline, "shutting down");
        self.clone()
            .reset_late(tokio::time::Instant::now(), deadline)
    }

    /// The deadline counts from the call.
    async fn reset_late(self, called: tokio::time::Instant, deadline: Duration) -> usize {
        let left = deadline.saturating_sub(called.elapsed());
        if timeout(left, self.registry.drained()).await.is_ok() {
            tracing::info!(reset = 0, "shut down");
            return 0;
        }
        let late = self.registry.sessions();
        for session in &late {
            session.reset(reset::SHUTTING_DOWN);
        }
        // A peer that does not take it keeps its session's place no longer than that.
        let _ = timeout(self.patience, self.registry.drained()).await;
        tracing::info!(reset = late.len(), "shut down");
        late.len()
    }

    /// Refuses new sessions from now on.
    pub(super) fn refuse_new(&self) {
        self.registry.drain();
    }

    /// Whether new sessions are refused.
    pub(super) fn is_shutting_down(&self) -> bool {
        self.registry.is_draining()
    }

    /// Waits until they have been shut down.
    pub(super) async fn shut_down(&self) {
        self.registry.drained().await;
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("count", &self.count())
            .finish_non_exhaustive()
    }
}
