//! Opening sessions over links of any kind.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tower_service::Service;

use super::{
    dial::{dial, dial_again},
    redial::Redialer,
};
use crate::{
    config::{Config, Valid},
    error::{BoxError, ConfigError, Error, HandshakeError, Limit},
    protocol::{
        Handshake, Role,
        native::{self, NativeSession},
        snet::{self, Counts, SnetSession},
    },
    transport::{
        AnyLink, BoxFuture, Chain, Peer, ResumableTransport, Shared, exchange, keep, now, random,
    },
};

/// A Tower service that opens sessions: what its inner service dials becomes the first of their links.
///
/// Whenever a link is lost, a clone of the inner service dials again with the same target, so timeouts, limits, proxies, TLS and load
/// balancing below it are other people's layers. The inner service is asked for its readiness each time.
///
/// # Errors
///
/// - [`Error::Config`] if the configuration cannot be used;
/// - [`Error::Overloaded`] if the [memory budget](Config::memory_budget) is used up;
/// - [`Error::Dial`] if the inner service fails;
/// - [`Error::Link`], [`Error::Handshake`], [`Error::HandshakeTimeout`] if the first link fails before the session is named;
/// - [`Error::Rejected`] if the server gives no session.
///
/// # Cancel safety
///
/// Dropping the [`Connecting`] future drops the link.
///
/// ```
/// use tower::ServiceExt;
/// use unbroken::{Config, Connector};
///
/// # async fn example() -> Result<(), unbroken::Error> {
/// // Anything that gives an AsyncRead + AsyncWrite will do.
/// let dial = tower::service_fn(|path: &'static str| tokio::net::UnixStream::connect(path));
/// let connector = Connector::new(dial, Config::new());
/// let transport = connector.oneshot("/run/game.sock").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Connector<C> {
    inner: C,
    /// One for all sessions.
    config: Result<Arc<Valid>, ConfigError>,
}

impl<C> Connector<C> {
    /// A connector that dials with `inner`, whose sessions behave as `config` says.
    pub fn new(inner: C, config: Config) -> Self {
        let config = config.validate(Role::Client).map(Arc::new);
        Self { inner, config }
    }
}

impl<C: fmt::Debug> fmt::Debug for Connector<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<C, T> Service<T> for Connector<C>
where
    C: Service<T> + Clone + Send + 'static,
    C::Response: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
    T: Clone + Send + 'static,
{
    type Response = ResumableTransport;
    type Error = Error;
    type Future = Connecting;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner
            .poll_ready(cx)
            .map_err(|error| Error::Dial(error.into()))
    }

    fn call(&mut self, target: T) -> Connecting {
        let config = match self.config.clone() {
            Ok(config) => config,
            Err(error) => return Connecting(Box::pin(std::future::ready(Err(error.into())))),
        };
        if config.memory.is_used_up() {
            let error = Error::Overloaded(Limit::Memory);
            return Connecting(Box::pin(std::future::ready(Err(error))));
        }
        let again = dial_again(self.inner.clone(), target.clone(), config.socket_buffer);
        let redialer = Redialer::new(again, config.clone());
        let link = dial(&mut self.inner, target, config.socket_buffer);
        Connecting(Box::pin(async move {
            let link = link.await.map_err(Error::Dial)?;
            let shared = open(link.into(), &config).await?;
            tokio::spawn(keep(shared.clone(), Some(Box::new(redialer)), ()));
            Ok(ResumableTransport::new(shared))
        }))
    }
}

/// A session being opened: what [`Connector`] and [`ResumableLayer`](crate::ResumableLayer) return.
pub struct Connecting(BoxFuture<Result<ResumableTransport, Error>>);

impl Future for Connecting {
    type Output = Result<ResumableTransport, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connecting")
    }
}

/// Opens a session on its first link.
async fn open(link: AnyLink, config: &Valid) -> Result<Arc<Shared>, Error> {
    match &config.snet {
        Some(settings) => open_snet(link, config, settings).await,
        None => open_native(link, config).await,
    }
}

async fn open_native(mut link: AnyLink, config: &Valid) -> Result<Arc<Shared>, Error> {
    let protection = config.security.for_client(random::bytes()?);
    let binding = protection.binding();
    let mut machine = native::ClientOpen::new(config.native.window as u64, protection);
    exchange_in_time(&mut link, &mut machine, config).await?;
    if let Some(native::Reject { code, retry_after }) = machine.rejected() {
        return Err(Error::Rejected {
            reason: code,
            retry_after,
        });
    }
    let (Some(opened), Some(confirm)) = (machine.opened(), machine.confirm()) else {
        return Err(HandshakeError::OutOfPlace.into());
    };
    let identity = native::Identity {
        id: opened.id,
        secret: opened.secret.clone(),
        binding,
        route: opened.route,
        peer_window: opened.window,
    };
    let mut settings = config.native.clone();
    // The server forgets the session when its own window has passed, which it counts from when it noticed.
    let forgotten = opened.resume_window.saturating_add(settings.dead_after);
    if forgotten < settings.resume_window {
        Arc::make_mut(&mut settings).resume_window = forgotten;
    }
    #[cfg(feature = "noise")]
    let link = link.protect(machine.take_records());
    let session = NativeSession::new(Role::Client, identity, settings, now());
    let server = Peer {
        addr: None,
        key: config.security.known_server(),
    };
    let shared = Shared::new(session, config.handshake_timeout, &config.memory, server);
    shared.begin();
    shared.attach_opened(link, confirm)?;
    Ok(shared)
}

async fn open_snet(
    mut link: AnyLink,
    config: &Valid,
    settings: &snet::Settings,
) -> Result<Arc<Shared>, Error> {
    let mut machine = snet::ClientOpen::new(random::key_agreement()?);
    let result = exchange_in_time(&mut link, &mut machine, config).await;
    let Some(opened) = machine.opened() else {
        return Err(result.err().unwrap_or(Error::HandshakeTimeout));
    };
    let session = SnetSession::new(Role::Client, opened.clone(), settings.clone(), now());
    let shared = Shared::new(
        session,
        config.handshake_timeout,
        &config.memory,
        Peer::default(),
    );
    shared.begin();
    match result {
        Ok(()) => shared.attach_snet(link, 0, Counts::default(), 0)?,
        // The server has named the session, so it can be resumed, whether or not the proof has reached it.
        Err(error) => {
            tracing::debug!(session = %shared.id().short(), error = %Chain(&error), "the first link failed")
        }
    }
    Ok(shared)
}

async fn exchange_in_time(
    link: &mut AnyLink,
    machine: &mut (impl Handshake + Send),
    config: &Valid,
) -> Result<(), Error> {
    timeout(config.handshake_timeout, exchange(link, machine, || {}))
        .await
        .unwrap_or(Err(Error::HandshakeTimeout))
}
