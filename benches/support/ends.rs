//! Streams of several kinds between two ends over loopback, all of them set up as their users are told to.

use std::{
    any::Any,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::LazyLock,
    time::Duration,
};

use quinn::Endpoint;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};
use unbroken::{BoxError, Config, Listener, NoiseLink, Security, Suite};

use super::tls::{self, Identity};

const LOCALHOST: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
const KEY: [u8; 32] = [7; 32];

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One end of a stream.
pub(crate) struct End {
    pub(crate) stream: Box<dyn Stream>,
    /// What the stream needs to go on.
    _kept: Box<dyn Any + Send>,
}

impl End {
    fn new(stream: impl Stream + 'static, kept: impl Any + Send) -> Self {
        Self {
            stream: Box::new(stream),
            _kept: Box::new(kept),
        }
    }
}

#[derive(Clone)]
pub(crate) enum Kind {
    Tcp,
    /// TCP in a program that also waits for a time, as a session does for its keepalive: a runtime that does has the kernel set a timer
    /// each time it waits.
    TcpBesideTimer,
    /// TCP whose socket buffers are bounded to so many bytes, as read back: a set size keeps the kernel from making them larger.
    TcpBounded(u32),
    /// tokio-rustls over TCP.
    Tls,
    /// One bidirectional stream of a quinn connection over UDP.
    Quic,
    /// Noise alone, over TCP.
    Noise(Suite),
    /// A session over TCP.
    Session(Box<Config>),
}

impl Kind {
    pub(crate) fn session(config: Config) -> Self {
        Self::Session(Box::new(config))
    }

    pub(crate) async fn connect(&self, to: SocketAddr) -> Result<End, BoxError> {
        Ok(match self {
            Self::Tcp => End::new(dial(to).await?, ()),
            Self::TcpBesideTimer => End::new(dial(to).await?, timer()),
            Self::TcpBounded(bytes) => {
                let tcp = bounded(*bytes)?.connect(to).await?;
                tcp.set_nodelay(true)?;
                End::new(tcp, ())
            }
            Self::Tls => {
                let tls = SETUP.tls.0.connect(tls::server_name(), dial(to).await?);
                End::new(tls.await?, ())
            }
            Self::Quic => {
                let endpoint = Endpoint::client(LOCALHOST.into())?;
                let connecting = endpoint.connect_with(SETUP.quic.0.clone(), to, "localhost")?;
                let connection = connecting.await?;
                let (send, receive) = connection.open_bi().await?;
                End::new(tokio::io::join(receive, send), (connection, endpoint))
            }
            Self::Noise(suite) => {
                let security = Security::psk(KEY).suite(*suite);
                End::new(NoiseLink::connect(dial(to).await?, &security).await?, ())
            }
            Self::Session(config) => End::new(unbroken::connect(to, (**config).clone()).await?, ()),
        })
    }
}

/// A timer that is far from due.
fn timer() -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(tokio::time::sleep(Duration::from_secs(15)));
    tasks
}

/// A socket with such buffers. Linux reads back twice what is set.
fn bounded(bytes: u32) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_send_buffer_size(bytes / 2)?;
    socket.set_recv_buffer_size(bytes / 2)?;
    Ok(socket)
}

async fn dial(to: SocketAddr) -> Result<TcpStream, BoxError> {
    let tcp = TcpStream::connect(to).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// Where the far end waits for the other.
pub(crate) enum Port {
    /// For all but sessions.
    Tcp(TcpListener, Kind),
    Quic(Endpoint),
    Session(Listener),
}

impl Port {
    pub(crate) async fn bind(kind: &Kind) -> Result<Self, BoxError> {
        Ok(match kind {
            Kind::Quic => Self::Quic(Endpoint::server(SETUP.quic.1.clone(), LOCALHOST.into())?),
            Kind::Session(config) => {
                Self::Session(Listener::bind(LOCALHOST, (**config).clone()).await?)
            }
            Kind::TcpBounded(bytes) => {
                let socket = bounded(*bytes)?;
                socket.bind(LOCALHOST.into())?;
                Self::Tcp(socket.listen(1)?, kind.clone())
            }
            other => Self::Tcp(TcpListener::bind(LOCALHOST).await?, other.clone()),
        })
    }

    pub(crate) fn addr(&self) -> Result<SocketAddr, BoxError> {
        Ok(match self {
            Self::Tcp(listener, _) => listener.local_addr()?,
            Self::Quic(endpoint) => endpoint.local_addr()?,
            Self::Session(listener) => listener.local_addr()?,
        })
    }

    /// Accepts one stream. Of QUIC there is none before the other end has written to it.
    pub(crate) async fn accept(self) -> Result<End, BoxError> {
        let (listener, kind) = match self {
            Self::Tcp(listener, kind) => (listener, kind),
            Self::Quic(endpoint) => {
                let incoming = endpoint.accept().await.ok_or("the endpoint is closed")?;
                let connection = incoming.await?;
                let (send, receive) = connection.accept_bi().await?;
                let stream = tokio::io::join(receive, send);
                return Ok(End::new(stream, (connection, endpoint)));
            }
            Self::Session(mut listener) => {
                let (transport, _) = listener.accept().await?;
                return Ok(End::new(transport, listener));
            }
        };
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        Ok(match kind {
            Kind::Tls => End::new(SETUP.tls.1.accept(tcp).await?, ()),
            Kind::Noise(_) => End::new(NoiseLink::accept(tcp, &Security::psk(KEY)).await?.0, ()),
            Kind::TcpBesideTimer => End::new(tcp, timer()),
            _ => End::new(tcp, ()),
        })
    }
}

/// What TLS and QUIC are set up with: the same certificate, signed by itself, and each the provider of ciphers that it takes by default.
struct Setup {
    tls: tls::Ends,
    quic: (quinn::ClientConfig, quinn::ServerConfig),
}

static SETUP: LazyLock<Setup> = LazyLock::new(|| set_up().expect("a certificate and its key"));

fn set_up() -> Result<Setup, BoxError> {
    let identity = Identity::generate()?;
    let tls = tls::ends(&identity)?;
    let Identity { chain, key, roots } = identity;
    Ok(Setup {
        tls,
        quic: (
            quinn::ClientConfig::with_root_certificates(roots)?,
            quinn::ServerConfig::with_single_cert(chain, key)?,
        ),
    })
}
