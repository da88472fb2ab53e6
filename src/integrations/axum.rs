//! axum: serving from a [`Listener`], and what a handler may know of the session.

use std::{fmt, future::pending, io, net::SocketAddr, ops::Deref};

use axum::{
    extract::connect_info::Connected,
    serve::{self, IncomingStream, TapIo},
};

use crate::{Handle, Listener, ResumableTransport};

#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl serve::Listener for Listener {
    type Io = ResumableTransport;
    type Addr = SocketAddr;

    /// Waits for the next new session: for ever, once the listener is shut down or its socket has failed.
    async fn accept(&mut self) -> (ResumableTransport, SocketAddr) {
        match Self::accept(self).await {
            Ok(accepted) => accepted,
            // Said where it happened; axum has no way to be told.
            Err(_) => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }
}

/// Where the session that a request came on was opened from, as axum's `ConnectInfo`.
///
/// The client may have roamed since: with [`Handle`] as the `ConnectInfo`, [`peer_addr`](Handle::peer_addr) tells where it is now.
///
/// ```no_run
/// use axum::{Router, extract::ConnectInfo, routing::get};
/// use unbroken::{Config, Listener, PeerAddr};
///
/// # async fn example() -> std::io::Result<()> {
/// async fn whoami(ConnectInfo(peer): ConnectInfo<PeerAddr>) -> String {
///     format!("you came from {peer}")
/// }
///
/// let app = Router::new().route("/", get(whoami));
/// let listener = Listener::bind("0.0.0.0:7000", Config::new()).await?;
/// axum::serve(listener, app.into_make_service_with_connect_info::<PeerAddr>()).await
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddr(pub SocketAddr);

impl Connected<IncomingStream<'_, Listener>> for PeerAddr {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        Self(*stream.remote_addr())
    }
}

#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl Connected<IncomingStream<'_, Listener>> for Handle {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.io().handle()
    }
}

impl<F> Connected<IncomingStream<'_, TapIo<Listener, F>>> for PeerAddr
where
    F: FnMut(&mut ResumableTransport) + Send + 'static,
{
    fn connect_info(stream: IncomingStream<'_, TapIo<Listener, F>>) -> Self {
        Self(*stream.remote_addr())
    }
}

#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl<F> Connected<IncomingStream<'_, TapIo<Listener, F>>> for Handle
where
    F: FnMut(&mut ResumableTransport) + Send + 'static,
{
    fn connect_info(stream: IncomingStream<'_, TapIo<Listener, F>>) -> Self {
        stream.io().handle()
    }
}

impl Deref for PeerAddr {
    type Target = SocketAddr;

    fn deref(&self) -> &SocketAddr {
        &self.0
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
