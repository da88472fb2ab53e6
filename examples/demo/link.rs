//! What HTTP runs on: one resumable session, or plain TCP for comparison.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use unbroken::{Config, Handle, KeyPair, PresharedKey, Security, Snet};

use crate::BoxError;
use crate::cutting_proxy::{BUFFERING, SEND_OVERSHOOT};

/// Over snet, the sent bytes that each end keeps, N.
const HISTORY: usize = 1 << 20;

/// Over snet, the most bytes in each of SO_SNDBUF and SO_RCVBUF of both ends.
const SOCKET_BUFFER: usize = 64 << 10;

// A cut loses at most what one direction has in flight: the sender's send buffer and its overshoot, the proxy, the receiver's
// receive buffer. Of the N bytes kept, up to N/2 may not have been handed to the link yet; the other N/2 must cover the loss.
// Here 64 + 64 + 144 + 64 = 336 KiB against 512 KiB.
const _: () = assert!(2 * SOCKET_BUFFER + SEND_OVERSHOOT + BUFFERING <= HISTORY / 2);

/// After how long without a byte an end pings its peer, over native. Data flows all the time here, so this is long.
const PING_AFTER: Duration = Duration::from_millis(500);

/// After how long without a byte a link is replaced. snet has no pings, and goes by this alone.
const SILENCE: Duration = Duration::from_secs(1);

/// What the sessions speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// The native protocol, protected as `--security` says
    Native,
    /// snet with RC4, which is no protection anyway
    Snet,
    /// snet, unencrypted
    SnetPlain,
}

/// What protects the links of sessions that speak native.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protection {
    /// Nothing
    None,
    /// Noise, and nobody shows who they are
    Anonymous,
    /// Noise, with a key that both ends hold
    Psk,
    /// Noise, with a key by which the client knows the server
    Key,
    /// Noise, with keys by which both ends know each other
    Mutual,
}

impl Protection {
    /// The client's and the server's part in it, with new keys.
    fn ends(self) -> Result<[Security; 2], BoxError> {
        let server = KeyPair::generate()?;
        Ok(match self {
            Self::None => [Security::none(), Security::none()],
            Self::Anonymous => [Security::anonymous(), Security::anonymous()],
            Self::Psk => {
                let psk = Security::psk(PresharedKey::generate()?);
                [psk.clone(), psk]
            }
            Self::Key => [
                Security::server_key(server.public()),
                Security::key_pair(server),
            ],
            Self::Mutual => {
                let client = KeyPair::generate()?;
                let known = client.public();
                [
                    Security::mutual(client, server.public()),
                    Security::key_pair(server).authorize(move |key| *key == known),
                ]
            }
        })
    }
}

/// Until there is a session there is nothing to resume, and a link cut in its first handshake is the caller's to dial again.
const FIRST_DIALS: u32 = 20;

/// Time between first dials; longer than most outages of the proxy, all together.
const REDIAL: Duration = Duration::from_millis(50);

/// Either kind of connection.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection, and the handle on its session if it has one.
type Connection = (Box<dyn Io>, Option<Handle>);

/// Makes both ends of a connection, of the same kind.
pub(crate) struct Carrier {
    configs: Option<Configs>,
}

struct Configs {
    client: Config,
    server: Config,
}

impl Carrier {
    /// Connections that end with their link.
    pub(crate) fn plain_tcp() -> Self {
        Self { configs: None }
    }

    /// Sessions that outlive their links.
    pub(crate) fn resumable(protocol: Protocol, protection: Protection) -> Result<Self, BoxError> {
        let snet = |snet: Snet| {
            let snet = snet.history(HISTORY).socket_buffer(SOCKET_BUFFER);
            Config::new().snet(snet.silence(SILENCE))
        };
        let configs = match protocol {
            Protocol::Native => {
                let native = Config::new().keepalive(PING_AFTER, SILENCE);
                protection.ends()?.map(|end| native.clone().security(end))
            }
            Protocol::Snet => [snet(Snet::rc4()), snet(Snet::rc4())],
            Protocol::SnetPlain => [snet(Snet::plain()), snet(Snet::plain())],
        };
        let [client, server] = configs;
        Ok(Self {
            configs: Some(Configs { client, server }),
        })
    }

    /// Listens on a free loopback port.
    pub(crate) async fn bind(&self) -> Result<Listener, BoxError> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Ok(match &self.configs {
            Some(Configs { server, .. }) => {
                Listener::Resumable(unbroken::Listener::bind(addr, server.clone()).await?)
            }
            None => Listener::Plain(TcpListener::bind(addr).await?),
        })
    }

    /// The client's end.
    pub(crate) async fn connect(&self, addr: SocketAddr) -> Result<Connection, BoxError> {
        let Some(Configs { client, .. }) = &self.configs else {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            return Ok((Box::new(stream), None));
        };
        let mut dials = 1;
        let transport = loop {
            match unbroken::connect(addr, client.clone()).await {
                Ok(transport) => break transport,
                Err(error) if dials == FIRST_DIALS => return Err(error.into()),
                Err(_) => dials += 1,
            }
            tokio::time::sleep(REDIAL).await;
        };
        let handle = transport.handle();
        Ok((Box::new(transport), Some(handle)))
    }
}

/// The server's end.
pub(crate) enum Listener {
    /// Accepts sessions; resumes of theirs happen inside.
    Resumable(unbroken::Listener),
    /// Accepts links.
    Plain(TcpListener),
}

impl Listener {
    /// Where the proxy connects to.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Resumable(listener) => listener.local_addr(),
            Self::Plain(listener) => listener.local_addr(),
        }
    }

    /// The next connection.
    pub(crate) async fn accept(&mut self) -> io::Result<Connection> {
        match self {
            Self::Resumable(listener) => {
                let (transport, _) = listener.accept().await?;
                let handle = transport.handle();
                Ok((Box::new(transport), Some(handle)))
            }
            Self::Plain(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Box::new(stream), None))
            }
        }
    }
}

/// Handles on the session, which itself moves into hyper.
#[derive(Default)]
pub(crate) struct Sessions {
    client: Mutex<Option<Handle>>,
    /// More than one when a first handshake was cut after the server had opened its session.
    server: Mutex<Vec<Handle>>,
}

/// What the session did so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct SessionStats {
    /// New links attached, as the client counts them.
    pub(crate) resumes: u64,
    /// Bytes the client sent again.
    pub(crate) replayed_up: u64,
    /// Bytes the server sent again.
    pub(crate) replayed_down: u64,
}

impl Sessions {
    /// The client's end is up.
    pub(crate) fn add_client(&self, handle: Option<Handle>) {
        *lock(&self.client) = handle;
    }

    /// A server's end is up.
    pub(crate) fn add_server(&self, handle: Option<Handle>) {
        lock(&self.server).extend(handle);
    }

    /// Without a session, none.
    pub(crate) fn stats(&self) -> Option<SessionStats> {
        let client = lock(&self.client).as_ref()?.stats();
        let replayed = |handle: &Handle| handle.stats().replayed;
        Some(SessionStats {
            resumes: client.resumes,
            replayed_up: client.replayed,
            replayed_down: lock(&self.server).iter().map(replayed).sum(),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
