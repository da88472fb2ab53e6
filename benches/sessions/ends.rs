//! Both ends of a connection, with a session on it or without.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tower::ServiceExt;
use unbroken::{BoxError, Config, Connector, Listener, ResumableTransport, TcpConnector};

use crate::kinds::Kind;

/// As sessions' listeners have it.
const BACKLOG: u32 = 16_384;

pub(crate) enum Stream {
    Tcp(TcpStream),
    Session(ResumableTransport),
}

/// Calls the same on whichever it is.
macro_rules! on {
    ($stream:expr, $call:ident $(, $argument:expr)*) => {
        match $stream {
            Stream::Tcp(stream) => stream.$call($($argument),*).await,
            Stream::Session(stream) => stream.$call($($argument),*).await,
        }
    };
}

impl Stream {
    pub(crate) async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        on!(self, write_all, bytes)?;
        on!(self, flush)
    }

    /// Returns whether it was not the end.
    pub(crate) async fn hear(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        match on!(self, read_exact, bytes) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        on!(self, shutdown)
    }
}

/// The client's end. One opens all sessions, as in a program with many.
#[derive(Clone)]
pub(crate) enum Client {
    Tcp(TcpConnector),
    Sessions(Connector<TcpConnector>),
}

impl Client {
    pub(crate) fn new(kind: Kind, config: Config) -> Self {
        let tcp = TcpConnector::new();
        match kind {
            Kind::Tcp => Self::Tcp(tcp),
            _ => Self::Sessions(Connector::new(tcp, config)),
        }
    }

    pub(crate) async fn connect(&self, addr: SocketAddr) -> Result<Stream, BoxError> {
        Ok(match self.clone() {
            Self::Tcp(tcp) => Stream::Tcp(tcp.oneshot(addr).await?),
            Self::Sessions(connector) => Stream::Session(connector.oneshot(addr).await?),
        })
    }
}

/// The server's end.
pub(crate) enum Server {
    Tcp(TcpListener),
    Sessions(Listener),
}

impl Server {
    pub(crate) async fn bind(kind: Kind, config: Config) -> io::Result<Self> {
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        Ok(match kind {
            Kind::Tcp => {
                let socket = TcpSocket::new_v4()?;
                socket.bind(any)?;
                Self::Tcp(socket.listen(BACKLOG)?)
            }
            _ => Self::Sessions(Listener::bind(any, config).await?),
        })
    }

    pub(crate) fn port(&self) -> io::Result<u16> {
        let addr = match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Sessions(listener) => listener.local_addr(),
        };
        Ok(addr?.port())
    }

    pub(crate) async fn accept(&mut self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (tcp, _) = listener.accept().await?;
                tcp.set_nodelay(true)?;
                Stream::Tcp(tcp)
            }
            Self::Sessions(listener) => Stream::Session(listener.accept().await?.0),
        })
    }
}
