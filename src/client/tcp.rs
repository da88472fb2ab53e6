//! Dialling TCP: all addresses of a target, staggered (Happy Eyeballs, RFC 8305), with the socket options set before connect.

use std::{
    error::Error as StdError,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tower_service::Service;

use self::happy_eyeballs::{MIN_ATTEMPT_DELAY, interleave, race};
use super::target::Target;
use crate::transport::socket;

mod happy_eyeballs;
#[cfg(test)]
mod tests;

tokio::task_local! {
    /// The bound in bytes on `SO_SNDBUF` and `SO_RCVBUF`, each as read back, that the session being dialled for asks for.
    ///
    /// The `Connector` sets it around `call` of its inner service and around each poll of the future that returns, since a
    /// layer may dial in either. So it reaches [`TcpConnector`], which reads it in `call`, through whatever layers lie
    /// between. It does not follow into another task, such as the worker of tower's `buffer`.
    pub(crate) static SOCKET_BUFFER_LIMIT: Option<usize>;
}

/// A tower `Service` that dials TCP.
///
/// It takes an `http::Uri`, a `SocketAddr`, a `(String, u16)`, a `String`, a `&'static str` or a [`Target`]. A name is
/// looked up at each call. If it has several addresses, they are tried in turn as RFC 8305 (Happy Eyeballs) says: families
/// alternate, beginning with that of the resolver's first address; the next attempt starts when the
/// [attempt delay](Self::attempt_delay) has passed or another attempt has failed; the first to connect wins and the others
/// are dropped.
///
/// There is no timeout but the system's, which may be minutes: a layer such as tower's `timeout` adds one.
///
/// # Errors
///
/// `InvalidInput` with an [`Error`](crate::Error) inside for what is no [`Target`]. Otherwise the error names the target,
/// its kind is that of the lookup's or the last attempt's error, and its `source()` is that error; `NotFound` if a name has
/// no addresses.
///
/// # Cancel safety
///
/// Dropping the future closes all sockets it has opened. A lookup in progress finishes on tokio's blocking threads, unused.
///
/// # Example
///
/// ```no_run
/// use tower::ServiceExt;
/// use unbroken::TcpConnector;
///
/// # async fn dial() -> std::io::Result<()> {
/// let stream = TcpConnector::new().oneshot("example.com:7000").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TcpConnector {
    nodelay: bool,
    keepalive: Option<Duration>,
    attempt_delay: Duration,
    socket_buffer_limit: Option<usize>,
}

impl Default for TcpConnector {
    fn default() -> Self {
        Self {
            nodelay: true,
            keepalive: Some(Duration::from_secs(15)),
            attempt_delay: Duration::from_millis(250),
            socket_buffer_limit: None,
        }
    }
}

impl TcpConnector {
    /// A connector with the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether small writes go out at once (`TCP_NODELAY`), not after the peer's delayed acknowledgement. Default: `true`.
    #[must_use]
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// After how long without traffic TCP probes the peer; `None` for never. Default: 15 seconds.
    ///
    /// The default is the session's own ping interval, for links that carry no pings (snet's): the system's, two hours as a
    /// rule, comes long after many a NAT or firewall has forgotten an idle connection. Whole seconds, rounded up, from 1 to
    /// 32,767; interval and number of further probes are the system's.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let connector = unbroken::TcpConnector::new().keepalive(Some(Duration::from_secs(60)));
    /// ```
    #[must_use]
    pub fn keepalive(mut self, idle: Option<Duration>) -> Self {
        self.keepalive = idle;
        self
    }

    /// How long an attempt at one address goes on alone before the next address is tried beside it (the "connection attempt
    /// delay" of RFC 8305). Default: 250 milliseconds, as recommended there.
    ///
    /// At least 10 milliseconds, again by RFC 8305. With [`Duration::MAX`] an address is tried only when all before it have
    /// failed.
    #[must_use]
    pub fn attempt_delay(mut self, delay: Duration) -> Self {
        self.attempt_delay = delay.max(MIN_ATTEMPT_DELAY);
        self
    }

    /// A bound in bytes on `SO_SNDBUF` and on `SO_RCVBUF`, each as read back (on Linux that is twice what an application
    /// sets). Default: none, except what the session dialled for needs.
    ///
    /// A session over snet needs one, so that what is on the way always fits the history. `Connector` passes it down by
    /// itself, and then the smaller of the two holds. It cannot do so through a layer that dials in another task, such as
    /// tower's `buffer`: set it here then. A bound below the system's minimum fails the dial with `InvalidInput`.
    ///
    /// ```
    /// let connector = unbroken::TcpConnector::new().socket_buffer_limit(224 * 1024);
    /// ```
    #[must_use]
    pub fn socket_buffer_limit(mut self, bytes: usize) -> Self {
        self.socket_buffer_limit = Some(bytes);
        self
    }

    fn dial<T>(&self, target: T) -> Dialling
    where
        T: TryInto<Target>,
        T::Error: StdError + Send + Sync + 'static,
    {
        let target = target
            .try_into()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error));
        let mut connector = self.clone();
        // Here and not in the future, which may be polled outside the scope.
        let asked_for = SOCKET_BUFFER_LIMIT.try_with(|limit| *limit).ok().flatten();
        connector.socket_buffer_limit = connector
            .socket_buffer_limit
            .into_iter()
            .chain(asked_for)
            .min();
        Box::pin(async move {
            let target = target?;
            let addresses = resolve(&target).await?;
            connector.connect(target, addresses).await
        })
    }

    async fn connect(&self, target: Target, addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
        let tried = addresses.len();
        let addresses = interleave(addresses);
        match race(addresses, self.attempt_delay, |address| {
            self.attempt(address)
        })
        .await
        {
            Ok(stream) => Ok(stream),
            Err(Some(source)) => Err(DialError::Connect {
                target,
                tried,
                source,
            }
            .into()),
            Err(None) => Err(DialError::NoAddress { target }.into()),
        }
    }

    async fn attempt(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        let options = SockRef::from(&socket);
        socket::set_nodelay(&options, self.nodelay)?;
        socket::set_keepalive(&options, self.keepalive)?;
        if let Some(limit) = self.socket_buffer_limit {
            socket::bound_buffers(&options, limit)?;
        }
        not_to_itself(socket.connect(address).await?, address)
    }
}

type Dialling = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

macro_rules! dials {
    ($($target:ty),+) => {$(
        impl Service<$target> for TcpConnector {
            type Response = TcpStream;
            type Error = io::Error;
            type Future = Dialling;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, target: $target) -> Self::Future {
                self.dial(target)
            }
        }
    )+};
}
dials!(Uri, SocketAddr, (String, u16), String, &'static str, Target);

/// A dial that reached nobody, kept inside an `io::Error` of its source's kind.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("cannot look up {target}")]
    Lookup { target: Target, source: io::Error },
    #[error("cannot dial {target}: the name has no addresses")]
    NoAddress { target: Target },
    #[error("cannot dial {target} (addresses tried: {tried})")]
    Connect {
        target: Target,
        tried: usize,
        source: io::Error,
    },
}

impl From<DialError> for io::Error {
    fn from(error: DialError) -> Self {
        let kind = match &error {
            DialError::Lookup { source, .. } | DialError::Connect { source, .. } => source.kind(),
            DialError::NoAddress { .. } => io::ErrorKind::NotFound,
        };
        io::Error::new(kind, error)
    }
}

async fn resolve(target: &Target) -> io::Result<Vec<SocketAddr>> {
    match target {
        Target::Address(address) => Ok(vec![*address]),
        Target::Name { host, port } => match lookup_host((host.as_str(), *port)).await {
            Ok(addresses) => Ok(addresses.collect()),
            Err(source) => Err(DialError::Lookup {
                target: target.clone(),
                source,
            }
            .into()),
        },
    }
}

/// Dialling a local port that nobody listens on can draw that very port as the local one and meet itself (a TCP simultaneous
/// open). Redialling a local server that is down would, sooner or later, do so and keep the server from its port.
fn not_to_itself(stream: TcpStream, address: SocketAddr) -> io::Result<TcpStream> {
    let local = stream.local_addr()?;
    if (local.ip(), local.port()) == (address.ip(), address.port()) {
        return Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            "nobody listens: the socket connected to itself",
        ));
    }
    Ok(stream)
}
