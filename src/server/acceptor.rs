//! Handshakes on links of any kind.

use std::{
    fmt,
    future::{Future, ready},
    io,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};
use tracing::Instrument;

use super::{
    Sessions,
    handshakes::{Handshakes, Place},
    host::{Accepted, Arriving, Failed, Host},
    native,
    owners::Source,
    registry::Registry,
    snet,
};
use crate::{
    config::{Config, Valid},
    error::{ConfigError, Error, HandshakeError, Limit},
    protocol::{Role, handshake::ServerHandshake},
    transport::{BoxLink, Chain, close_in_order, exchange, handshake_refused, unless},
};

/// Gives links, of any kind, to the sessions they are for.
///
/// Clones share their sessions, so a session may move from a link that one clone accepted to a link that another does: from TCP to
/// TLS, say, or from one address to another.
///
/// It runs in tokio: each session has a small task that goes on when the acceptor is gone.
///
/// ```no_run
/// use unbroken::{Accepted, Acceptor, Config};
///
/// # async fn handle(transport: unbroken::ResumableTransport) {}
/// # async fn example(links: tokio::net::UnixListener) -> Result<(), Box<dyn std::error::Error>> {
/// let acceptor = Acceptor::new(Config::new());
/// loop {
///     let (link, _) = links.accept().await?;
///     let acceptor = acceptor.clone();
///     // A task for each: a link that dawdles must not keep the next one waiting.
///     tokio::spawn(async move {
///         match acceptor.accept(link).await {
///             Ok(Accepted::New(transport)) => handle(transport).await,
///             Ok(Accepted::Resumed(_)) => {} // a session of before goes on
///             Err(error) => eprintln!("{error}"),
///         }
///     });
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct Acceptor {
    /// Or what is wrong with the configuration.
    inner: Result<Arc<Inner>, ConfigError>,
}

/// What the clones of an acceptor share.
struct Inner {
    host: Host,
    handshakes: Arc<Handshakes>,
}

impl Acceptor {
    /// An acceptor without sessions, whose sessions will behave as `config` says.
    ///
    /// A configuration that cannot be used shows in [`accept`](Self::accept).
    pub fn new(config: Config) -> Self {
        Self {
            inner: config.validate(Role::Server).map(|config| {
                Arc::new(Inner {
                    handshakes: Handshakes::new(
                        config.max_handshakes,
                        config.max_handshakes_per_address,
                    ),
                    host: Host {
                        registry: Arc::new(Registry::new(config.clone())),
                        config,
                    },
                })
            }),
        }
    }

    /// Finds out what a new link is for, and gives it to that. A peer that is refused is told before this returns.
    ///
    /// Nothing is known of where the link comes from, so it counts for no address; see [`accept_from`](Self::accept_from).
    ///
    /// # Errors
    ///
    /// - [`Error::Config`] if the configuration cannot be used;
    /// - [`Error::Link`], [`Error::Handshake`], [`Error::HandshakeTimeout`] if the link fails, the peer does wrong or stalls;
    /// - [`Error::Overloaded`] if there are too many handshakes, sessions or attempts to resume, or the
    ///   [memory budget](Config::memory_budget) is used up;
    /// - [`Error::ShutDown`] if the peer wants a new session, and the sessions are being [shut down](Sessions::shutdown);
    /// - [`Error::Resume`] if the peer's session cannot be resumed.
    ///
    /// All of them concern this link alone.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the link. No session notices.
    pub async fn accept<S>(&self, link: S) -> Result<Accepted, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let link: BoxLink = Box::new(link);
        self.accept_link(ready(Ok(link)), None).await
    }

    /// [`accept`](Self::accept) for a link whose peer's address is known: what the limits per address of the [`Config`] count by, and
    /// what [`SessionInfo::peer_addr`](crate::SessionInfo::peer_addr) says.
    ///
    /// For links that are accepted here and then wrapped, in TLS for one. Behind a proxy, give the address of the client if the proxy tells
    /// it and can be trusted to, not the proxy's own. What came before, such as a TLS handshake, no limit of this acceptor bounds, nor does
    /// its [handshake timeout](Config::handshake_timeout): [`Listener::bind_with`](crate::Listener::bind_with) bounds both.
    ///
    /// ```no_run
    /// use unbroken::{Accepted, Acceptor, Config};
    ///
    /// # async fn handshake(link: tokio::net::TcpStream) -> std::io::Result<tokio::net::TcpStream> { Ok(link) }
    /// # async fn handle(transport: unbroken::ResumableTransport) {}
    /// # async fn example(links: tokio::net::TcpListener) -> Result<(), Box<dyn std::error::Error>> {
    /// let acceptor = Acceptor::new(Config::new());
    /// loop {
    ///     let (link, peer) = links.accept().await?;
    ///     let acceptor = acceptor.clone();
    ///     tokio::spawn(async move {
    ///         // Such as that of tokio-rustls.
    ///         let link = handshake(link).await?;
    ///         if let Accepted::New(transport) = acceptor.accept_from(link, peer).await? {
    ///             handle(transport).await;
    ///         }
    ///         Ok::<(), std::io::Error>(())
    ///     });
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As with [`accept`](Self::accept).
    ///
    /// # Cancel safety
    ///
    /// As with [`accept`](Self::accept).
    pub async fn accept_from<S>(&self, link: S, peer_addr: SocketAddr) -> Result<Accepted, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let link: BoxLink = Box::new(link);
        self.accept_link(ready(Ok(link)), Some(peer_addr)).await
    }

    /// [`accept_from`](Self::accept_from) for a link that is still being made: its making is part of the handshake, which limits and
    /// deadline bound.
    pub(super) async fn accept_link(
        &self,
        link: impl Future<Output = io::Result<BoxLink>> + Send,
        peer_addr: Option<SocketAddr>,
    ) -> Result<Accepted, Error> {
        let inner = self.inner.as_ref().map_err(Clone::clone)?;
        let (place, evicted) = inner.handshakes.enter(peer_addr.map(Source::from));
        let span = tracing::debug_span!("accept", peer = peer_addr.map(tracing::field::display));
        async {
            let mut limit = Limit::Handshakes;
            let evicted = async {
                // The sender is there for as long as the place is.
                limit = evicted.await.unwrap_or(Limit::Handshakes);
            };
            // Pinned here: an argument of an async function takes its room twice, and this is most of what a handshake costs.
            let accepting = pin!(inner.accept(link, &place, peer_addr));
            unless(evicted, accepting)
                .await
                .unwrap_or_else(|| Err(Error::Overloaded(limit)))
                .inspect_err(|error| refused(error, peer_addr))
        }
        .instrument(span)
        .await
    }

    /// The sessions accepted here: to list them, to close any, to shut them all down.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the configuration cannot be used.
    pub fn sessions(&self) -> Result<Sessions, Error> {
        let inner = self.inner.as_ref().map_err(Clone::clone)?;
        Ok(Sessions::new(
            inner.host.registry.clone(),
            inner.host.config.handshake_timeout,
        ))
    }

    /// Has the handshake make room whose peer has been silent longest, and for longer than `grace`, since the system has no more file
    /// descriptors. Returns whether there was one.
    pub(super) fn make_room(&self, grace: Duration) -> bool {
        self.inner.as_ref().is_ok_and(|inner| {
            let limit = Limit::FileDescriptors;
            inner.handshakes.make_room(grace, limit)
        })
    }

    pub(super) fn config(&self) -> Result<&Valid, ConfigError> {
        self.inner
            .as_ref()
            .map(|inner| &inner.host.config)
            .map_err(Clone::clone)
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

/// A link's handshake has come to nothing.
fn refused(error: &Error, peer: Option<SocketAddr>) {
    tracing::debug!(peer = peer.map(tracing::field::display), error = %Chain(error), "a handshake came to nothing");
    handshake_refused(error);
}

impl Inner {
    /// The handshake, by its deadline.
    async fn accept(
        &self,
        link: impl Future<Output = io::Result<BoxLink>> + Send,
        place: &Place,
        peer_addr: Option<SocketAddr>,
    ) -> Result<Accepted, Error> {
        let deadline = Instant::now() + self.host.config.handshake_timeout;
        let handshake = async {
            let link = link.await.map_err(Error::Link)?.into();
            // If anything was to be done for it, the peer has had its part in that.
            place.heard();
            let arriving = Arriving {
                link,
                place,
                peer_addr,
            };
            self.handshake(arriving).await
        };
        let failed = match timeout_at(deadline, handshake).await {
            Ok(Ok(accepted)) => return Ok(accepted),
            Ok(Err(failed)) => failed,
            Err(_) => return Err(Error::HandshakeTimeout),
        };
        if let Some(link) = failed.told {
            // Its failing changes nothing: the peer has been told, or it is gone.
            let _ = timeout_at(deadline, close_in_order(link)).await;
        }
        Err(failed.error)
    }

    async fn handshake(&self, mut arriving: Arriving<'_>) -> Result<Accepted, Failed> {
        let mut machine = ServerHandshake::new(self.host.config.snet.is_some());
        let place = arriving.place;
        exchange(&mut arriving.link, &mut machine, || place.heard()).await?;
        match machine {
            // Boxed, so that a link costs little whose peer says nothing.
            ServerHandshake::Native(machine) => {
                Box::pin(native::accept(&self.host, arriving, machine)).await
            }
            ServerHandshake::Snet(machine) => {
                Box::pin(snet::accept(&self.host, arriving, machine)).await
            }
            ServerHandshake::Silent { .. } => Err(HandshakeError::OutOfPlace.into()),
        }
    }
}
