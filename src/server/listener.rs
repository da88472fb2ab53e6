//! Sessions from a TCP port.

use std::{
    fmt,
    future::{Future, ready},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream, ToSocketAddrs, lookup_host},
    sync::mpsc,
    task::{JoinHandle, JoinSet, yield_now},
    time::{sleep, timeout},
};

use super::{Accepted, Acceptor, Sessions};
use crate::{
    config::{Config, Valid},
    error::{Error, reset},
    transport::{BoxLink, ResumableTransport, socket, unless},
};

/// How many connections the system keeps until they are accepted; it has a bound of its own (`somaxconn` on Linux, 4,096). Beyond, a
/// client's SYN is dropped, and the next comes a second later.
const BACKLOG: u32 = 16_384;
/// How many links are accepted before those that have been are looked at again. tokio polls 61 tasks, and asks the system what is
/// ready, before it comes back to one that yields. So however far this end is behind, fewer links come in between a peer's sending and
/// its being heard than tasks are ready, and who has been silent longest is a slow peer. With half of it, more SYNs were dropped.
const BURST: u32 = 60;
/// After how long without traffic TCP probes a client, so that one which has vanished is noticed though snet has no pings.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How long to wait when the system can give no connection.
const RETRY: Duration = Duration::from_millis(100);
/// For how long a peer has to have been silent before its handshake makes room because the system has no more file descriptors. A
/// thousand honest ones at once are not to push each other out.
const GRACE: Duration = Duration::from_secs(1);
/// How many new sessions wait for [`Listener::accept`] before their handshakes do.
const WAITING: usize = 64;

/// Accepts sessions on a TCP port.
///
/// New sessions come out of [`accept`](Self::accept), or of the listener as a `Stream` of transports; links that resume a session go
/// to it inside, whether or not anybody accepts. Failed handshakes are traced, not returned.
///
/// Dropping it refuses new sessions. Those that were accepted go on and can be resumed: the port closes when the last of them is over.
/// [`Sessions::shutdown`] bounds how long that may take. Those that nobody has accepted are reset. A client that is without a link when its
/// session ends can be told of it for as long as the port is open, and asks in vain afterwards, for its own resume window.
///
/// ```no_run
/// use unbroken::{Config, Listener};
///
/// # async fn example() -> std::io::Result<()> {
/// let mut listener = Listener::bind("0.0.0.0:7000", Config::new()).await?;
/// loop {
///     let (transport, peer) = listener.accept().await?;
///     println!("{peer} opened {:?}", transport.handle().id());
/// }
/// # }
/// ```
pub struct Listener {
    incoming: mpsc::Receiver<Incoming>,
    local_addr: SocketAddr,
    sessions: Sessions,
    accepting: JoinHandle<()>,
}

type Incoming = io::Result<(ResumableTransport, SocketAddr)>;

impl Listener {
    /// Listens on the first of the addresses that can be bound. Call it within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] inside if the configuration cannot be used, otherwise the last address's error; `InvalidInput` also if
    /// the system cannot keep its socket buffers within what the [history](crate::Snet::history) allows.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves no port open.
    pub async fn bind<A: ToSocketAddrs>(addr: A, config: Config) -> io::Result<Self> {
        Self::bind_with(addr, config, |stream| ready(Ok(stream))).await
    }

    /// [`bind`](Self::bind), where `wrap` makes a link of each TCP connection that is accepted: by a TLS handshake, for one.
    ///
    /// That runs beside the others', within the [handshake timeout](Config::handshake_timeout) and the limits on handshakes, where all of it
    /// counts as the peer's silence until it is done. When it fails, its error is traced as that of the link.
    ///
    /// ```no_run
    /// use unbroken::{Config, Listener, Security};
    ///
    /// # async fn example(tls: tokio_rustls::TlsAcceptor) -> std::io::Result<()> {
    /// let config = Config::new().security(Security::none()); // for TLS is below
    /// let listener = Listener::bind_with("0.0.0.0:7000", config, move |stream| tls.accept(stream)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As with [`bind`](Self::bind).
    ///
    /// # Cancel safety
    ///
    /// As with [`bind`](Self::bind). What `wrap` returns is dropped when its time is up or its place is taken, and the connection with it.
    pub async fn bind_with<A, W, F, L>(addr: A, config: Config, wrap: W) -> io::Result<Self>
    where
        A: ToSocketAddrs,
        W: Fn(TcpStream) -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<L>> + Send + 'static,
        L: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let acceptor = Acceptor::new(config);
        let config = acceptor.config().map_err(Error::Config)?;
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "there is no address to bind");
        for addr in lookup_host(addr).await? {
            match listen(addr, config) {
                Ok(listener) => return Ok(Self::start(listener, acceptor, wrap)?),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn start<W, F, L>(listener: TcpListener, acceptor: Acceptor, wrap: W) -> Result<Self, Error>
    where
        W: Fn(TcpStream) -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<L>> + Send + 'static,
        L: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let local_addr = listener.local_addr().map_err(Error::Link)?;
        let (outgoing, incoming) = mpsc::channel(WAITING);
        let sessions = acceptor.sessions()?;
        let shutting_down = sessions.clone();
        let shut_down = async move { shutting_down.shut_down().await };
        Ok(Self {
            incoming,
            local_addr,
            sessions,
            accepting: tokio::spawn(async move {
                let accepting = accept_links(listener, acceptor, Arc::new(wrap), outgoing);
                unless(shut_down, accepting).await;
            }),
        })
    }

    /// Waits for the next new session, and gives it with the address of the link that opened it.
    ///
    /// # Errors
    ///
    /// The listening socket's own, which none comes back from; or [`Error::ShutDown`] inside.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no session.
    pub async fn accept(&mut self) -> io::Result<(ResumableTransport, SocketAddr)> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// [`accept`](Self::accept), polled.
    ///
    /// # Errors
    ///
    /// As with [`accept`](Self::accept).
    pub fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(ResumableTransport, SocketAddr)>> {
        self.incoming.poll_recv(cx).map(|incoming| {
            incoming.unwrap_or_else(|| {
                Err(if self.sessions.is_shutting_down() {
                    Error::ShutDown.into()
                } else {
                    io::Error::other("the listening socket has failed")
                })
            })
        })
    }

    /// Its sessions: to list them, to close any, to shut them all down while the listener is elsewhere.
    pub fn sessions(&self) -> Sessions {
        self.sessions.clone()
    }

    /// Takes no new sessions from the call on, and lets the others go on until they have ended or `deadline` has passed; see
    /// [`Sessions::shutdown`]. Then it closes the port, and the future is done, with how many sessions had to be reset.
    ///
    /// Sessions that nobody has accepted are reset at once.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting and the resets, and is otherwise as dropping the listener.
    pub fn shutdown(mut self, deadline: Duration) -> impl Future<Output = usize> + Send {
        self.close_waiting();
        let shut_down = self.sessions.shutdown(deadline);
        async move {
            let late = shut_down.await;
            self.accepting.abort();
            // With the task goes the socket.
            let _ = (&mut self.accepting).await;
            late
        }
    }

    /// Resets the sessions that nobody has accepted, and lets no more come.
    fn close_waiting(&mut self) {
        self.incoming.close();
        while let Ok(incoming) = self.incoming.try_recv() {
            if let Ok((transport, _)) = incoming {
                transport.handle().close(reset::SHUTTING_DOWN);
            }
        }
    }

    /// The address it listens on.
    ///
    /// # Errors
    ///
    /// None at present: a `Result` as with the listeners of others.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local_addr)
    }
}

impl Stream for Listener {
    type Item = io::Result<ResumableTransport>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.incoming
            .poll_recv(cx)
            .map_ok(|(transport, _)| transport)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close_waiting();
        // Frameworks drop it when they begin to stop, while what is in flight still needs its session: accepting ends by itself once there
        // is none.
        self.sessions.refuse_new();
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

fn listen(addr: SocketAddr, config: &Valid) -> io::Result<TcpListener> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Accepted sockets inherit the bound from the listening one, in time for the TCP handshake.
    if let Some(limit) = config.socket_buffer {
        socket::bound_buffers(&SockRef::from(&socket), limit)?;
    }
    // A server that restarts takes its port again while old connections of it still wind down.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Accepts links for as long as the socket lives; each has its handshake in a task of its own.
async fn accept_links<W, F, L>(
    listener: TcpListener,
    acceptor: Acceptor,
    wrap: Arc<W>,
    outgoing: mpsc::Sender<Incoming>,
) where
    W: Fn(TcpStream) -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<L>> + Send + 'static,
    L: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    // Dropped with this task, and with it every handshake in progress.
    let mut handshakes = JoinSet::new();
    let mut burst = 0;
    // Whether there were no more file descriptors for the last.
    let mut short = false;
    loop {
        match listener.accept().await {
            Ok((link, peer)) => {
                let (wrap, acceptor) = (wrap.clone(), acceptor.clone());
                handshakes.spawn(accept_link(link, peer, wrap, acceptor, outgoing.clone()));
                short = false;
                burst += 1;
                if burst == BURST {
                    burst = 0;
                    yield_now().await;
                }
            }
            Err(error) if concerns_one_connection(&error) => {
                tracing::debug!(%error, "a connection was lost before it was accepted");
            }
            Err(error) if is_fatal(&error) => {
                tracing::error!(%error, "the listening socket has failed");
                // Nobody may be left to be told.
                let _ = outgoing.send(Err(error)).await;
                return;
            }
            Err(error) if is_shortage_of_files(&error) && acceptor.make_room(GRACE) => {
                if !short {
                    tracing::warn!(%error, "handshakes that are silent make room for connections");
                }
                short = true;
                // As soon as it has: it is one of them.
                let _ = timeout(RETRY, handshakes.join_next()).await;
            }
            Err(error) => {
                // A shortage of file descriptors or memory as a rule, which passes.
                tracing::warn!(%error, "no connection can be accepted for now");
                sleep(RETRY).await;
            }
        }
        while handshakes.try_join_next().is_some() {}
    }
}

async fn accept_link<W, F, L>(
    stream: TcpStream,
    peer: SocketAddr,
    wrap: Arc<W>,
    acceptor: Acceptor,
    outgoing: mpsc::Sender<Incoming>,
) where
    W: Fn(TcpStream) -> F + Send + Sync,
    F: Future<Output = io::Result<L>> + Send,
    L: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let link = async {
        prepare(&stream)?;
        let link: BoxLink = Box::new(wrap(stream).await?);
        Ok(link)
    };
    // Pinned here, for what is moved into another future takes its room twice.
    let link = pin!(link);
    let accepted = acceptor.accept_link(link, Some(peer)).await;
    // Whatever else came of it has been said.
    if let Ok(Accepted::New(transport)) = accepted {
        let handle = transport.handle();
        if outgoing.send(Ok((transport, peer))).await.is_err() {
            // The listener was dropped or shut down meanwhile.
            handle.close(reset::SHUTTING_DOWN);
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    let options = SockRef::from(stream);
    socket::set_nodelay(&options, true)?;
    socket::set_keepalive(&options, Some(KEEPALIVE))
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// Whether the process, or the system, has as many files open as it may.
fn is_shortage_of_files(error: &io::Error) -> bool {
    // ENFILE, EMFILE, and Windows's number for the latter.
    matches!(error.raw_os_error(), Some(23 | 24 | 10024))
}

/// Whether the listening socket itself is of no use any more. Whatever else `accept` says concerns a connection that is gone, or passes.
fn is_fatal(error: &io::Error) -> bool {
    // EBADF, EINVAL and ENOTSOCK, as Linux, others and Windows number them.
    matches!(
        error.raw_os_error(),
        Some(9 | 22 | 38 | 88 | 10009 | 10022 | 10038)
    )
}
