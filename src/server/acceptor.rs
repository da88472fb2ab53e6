//! Handshakes on links of any kind.

use std::{
    fmt,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};

use super::{
    handshakes::{Handshakes, Place},
    registry::{Known, Proved, Registry},
};
use crate::{
    config::{Config, Valid},
    error::{ConfigError, Error, HandshakeError, ResumeError},
    protocol::snet::{Counts, Hello, ResumeRequest, ServerHandshake, SessionKey},
    transport::{
        BoxLink, ResumableTransport, SessionId, Shared, close_in_order, exchange, keep, random,
    },
};

/// Gives links, of any kind, to the sessions they are for.
///
/// Clones share their sessions, so a session may move from a link that one clone accepted to a link that another does: from TCP to
/// TLS, say, or from one address to another.
///
/// It runs in tokio: each session has a small task that goes on when the acceptor is gone.
///
/// ```no_run
/// use unbroken::{Accepted, Acceptor, Config, Snet};
///
/// # async fn handle(transport: unbroken::ResumableTransport) {}
/// # async fn example(links: tokio::net::UnixListener) -> Result<(), Box<dyn std::error::Error>> {
/// let acceptor = Acceptor::new(Config::new().snet(Snet::plain()));
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

struct Inner {
    config: Valid,
    registry: Registry,
    handshakes: Arc<Handshakes>,
}

/// What a link was for.
#[derive(Debug)]
pub enum Accepted {
    /// A new session.
    New(ResumableTransport),
    /// A session accepted before, which goes on.
    Resumed(SessionId),
}

impl Acceptor {
    /// An acceptor without sessions, whose sessions will behave as `config` says.
    ///
    /// A configuration that cannot be used shows in [`accept`](Self::accept).
    pub fn new(config: Config) -> Self {
        Self {
            inner: config.validate().map(|config| {
                Arc::new(Inner {
                    handshakes: Handshakes::new(config.max_handshakes),
                    registry: Registry::new(config.clone()),
                    config,
                })
            }),
        }
    }

    /// Finds out what a new link is for, and gives it to that. A peer that is refused is told before this returns.
    ///
    /// # Errors
    ///
    /// - [`Error::Config`] if the configuration cannot be used;
    /// - [`Error::Link`], [`Error::Handshake`], [`Error::HandshakeTimeout`] if the link fails, the peer does wrong or stalls;
    /// - [`Error::Overloaded`] if there are too many handshakes or sessions;
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
        self.accept_from(Box::new(link), None).await
    }

    pub(super) async fn accept_from(
        &self,
        link: BoxLink,
        peer_addr: Option<SocketAddr>,
    ) -> Result<Accepted, Error> {
        let inner = self.inner.as_ref().map_err(Clone::clone)?;
        let (place, mut evicted) = inner.handshakes.enter();
        let mut accepting = pin!(inner.accept(link, &place, peer_addr));
        poll_fn(|cx| {
            if let Poll::Ready(result) = accepting.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            Pin::new(&mut evicted).poll(cx).map(|_| {
                Err(Error::Overloaded(
                    "this handshake was the slowest of too many",
                ))
            })
        })
        .await
    }

    pub(super) fn config(&self) -> Result<&Valid, ConfigError> {
        self.inner
            .as_ref()
            .map(|inner| &inner.config)
            .map_err(Clone::clone)
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

/// A handshake that came to nothing.
struct Failed {
    error: Error,
    /// The link, if its peer has been told something that must reach it.
    told: Option<BoxLink>,
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self {
            error: error.into(),
            told: None,
        }
    }
}

impl Inner {
    /// The handshake, by its deadline.
    async fn accept(
        self: &Arc<Self>,
        link: BoxLink,
        place: &Place,
        peer_addr: Option<SocketAddr>,
    ) -> Result<Accepted, Error> {
        let deadline = Instant::now() + self.config.handshake_timeout;
        let failed = match timeout_at(deadline, self.handshake(link, place, peer_addr)).await {
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

    async fn handshake(
        self: &Arc<Self>,
        mut link: BoxLink,
        place: &Place,
        peer_addr: Option<SocketAddr>,
    ) -> Result<Accepted, Failed> {
        let mut machine = ServerHandshake::new();
        exchange(&mut link, &mut machine, || place.heard()).await?;
        match machine.hello() {
            Some(Hello::Open(_)) => Ok(self.open(link, machine, place, peer_addr).await?),
            Some(Hello::Resume(request)) => {
                self.resume(link, machine, request, place, peer_addr).await
            }
            None => Err(HandshakeError::OutOfPlace.into()),
        }
    }

    async fn open(
        self: &Arc<Self>,
        mut link: BoxLink,
        mut machine: ServerHandshake,
        place: &Place,
        peer_addr: Option<SocketAddr>,
    ) -> Result<Accepted, Error> {
        if self.registry.is_full() {
            return Err(Error::Overloaded("it has as many sessions as it may"));
        }
        let agreement = random::key_agreement()?;
        let id = self.registry.draw_id()?;
        let key = machine
            .open(&agreement, id, random::challenge()?.get())
            .ok_or(HandshakeError::OutOfPlace)?;
        self.registry.name(id, key);
        prove(&mut link, &mut machine, place).await?;
        match self.registry.prove(id, peer_addr)? {
            Proved::Opened(session) => {
                // A resume may have been attached since, which is newer. The session is new all the same, and nobody else hands it out.
                let _ = session.attach(link, 0, Counts::default(), 0);
                Ok(self.keep(id, session))
            }
            // A resume was faster, and so is newer.
            Proved::Running(_) => Err(ResumeError::Stale.into()),
        }
    }

    async fn resume(
        self: &Arc<Self>,
        mut link: BoxLink,
        mut machine: ServerHandshake,
        request: ResumeRequest,
        place: &Place,
        peer_addr: Option<SocketAddr>,
    ) -> Result<Accepted, Failed> {
        let number = self.registry.number_request();
        let (key, counts) = match self.consider(&request) {
            Ok(granted) => granted,
            Err(error) => {
                machine.refuse();
                exchange(&mut link, &mut machine, || {}).await?;
                return Err(Failed {
                    error: error.into(),
                    told: Some(link),
                });
            }
        };
        machine.resume(&key, counts, random::challenge()?);
        prove(&mut link, &mut machine, place).await?;
        let attach =
            |session: &Shared| session.attach(link, number, request.counts, counts.received);
        match self.registry.prove(request.id, peer_addr)? {
            Proved::Opened(session) => {
                // As with an open.
                let _ = attach(&session);
                Ok(self.keep(request.id, session))
            }
            Proved::Running(session) => {
                attach(&session)?;
                Ok(Accepted::Resumed(session.id()))
            }
        }
    }

    /// Whether a session can be resumed like this, with what key, and what its own counts are.
    fn consider(&self, request: &ResumeRequest) -> Result<(SessionKey, Counts), ResumeError> {
        match self.registry.find(request.id) {
            Some(Known::Session(session)) => {
                let key = session.key();
                if !request.verify(&key) {
                    return Err(ResumeError::Proof);
                }
                Ok((key, session.answer(request.counts)?))
            }
            Some(Known::Unproved(key)) => {
                if !request.verify(&key) {
                    return Err(ResumeError::Proof);
                }
                if request.counts.received > 0 {
                    return Err(ResumeError::ReceivedTooMuch);
                }
                Ok((key, Counts::default()))
            }
            None => Err(ResumeError::Unknown),
        }
    }

    /// Starts a new session's keeper, and hands the session to the application.
    fn keep(self: &Arc<Self>, id: u64, session: Arc<Shared>) -> Accepted {
        let kept = session.clone();
        let entry = Entry {
            inner: self.clone(),
            id,
        };
        tokio::spawn(async move {
            keep(kept, None).await;
            drop(entry);
        });
        Accepted::New(ResumableTransport::new(session))
    }
}

/// A session's place in the registry, given back when its keeper ends, however it does.
struct Entry {
    inner: Arc<Inner>,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.inner.registry.remove(self.id);
    }
}

/// Carries a handshake on that waits for the peer's proof.
async fn prove(
    link: &mut BoxLink,
    machine: &mut ServerHandshake,
    place: &Place,
) -> Result<(), Error> {
    exchange(link, machine, || place.heard()).await?;
    if machine.is_proved() {
        Ok(())
    } else {
        Err(HandshakeError::Proof.into())
    }
}
