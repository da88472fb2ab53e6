//! The application's handle on a session: [`ResumableTransport`].

mod any_session;
mod clock;
mod effects;
mod handle;
mod handshake;
mod keeper;
mod link;
mod log;
mod memory;
mod metrics;
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) mod random;
mod session_io;
mod shared;
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) mod socket;
mod state;
mod unless;
mod wakers;

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use handle::Handle;
pub use memory::MemoryBudget;
pub use state::{LinkState, SessionId};

pub(crate) use self::{
    clock::now,
    handshake::exchange,
    keeper::{BoxFuture, Redial, keep},
    link::AnyLink,
    log::Chain,
    metrics::handshake_refused,
    shared::{Peer, Shared},
    unless::unless,
};
use self::{session_io::SessionIo, shared::Way};
pub(crate) use crate::link::{BoxLink, close_in_order};
#[cfg(feature = "noise")]
use crate::security::PublicKey;

/// A byte stream that survives the loss of what carries it.
///
/// Under it links break and are replaced; what is written arrives exactly once and in order, or reading and writing return an
/// [`Error`](crate::Error) that says why the session is over. While there is no link, reading waits, and so does writing once as much is
/// under way as the configuration keeps.
///
/// # Reading and writing
///
/// Both go straight to the link, in the same poll. As with any buffered writer, call `flush` when you want everything to be on
/// its way: it is done when the link has all that the peer's credit allows. While there is no link it is done at once, because the session holds
/// the bytes and sends them on resume.
///
/// `shutdown` ends the write side. In native it is done when the peer's transport has everything, the end included, over as many
/// links as that takes; reading goes on until the peer ends its stream too. snet has no end of stream to send, so there it is done when
/// a link has taken all that was written, and the peer learns of the end when the transport has been dropped, by being refused its
/// next resume ([`CloseReason::Refused`](crate::CloseReason)), or at once if it takes the [end of a link](crate::Snet::fin_is_close)
/// for it.
///
/// # Dropping
///
/// What was written goes on its way after the drop as well, for the configured [`linger`](crate::Config::linger) at most. That needs
/// the runtime to go on running. In native, dropping it with bytes unread while the write side was not shut resets the session instead,
/// because the peer must not take for read what was not; what comes in after the drop is discarded.
///
/// # Cancel safety
///
/// Every method. A read or write that is dropped before it is ready has taken and sent nothing.
///
/// # hyper and tokio together
///
/// With the feature `hyper` it also has hyper's I/O traits, so with both traits in scope a call like `poll_flush` is ambiguous: name
/// the trait, as in `AsyncWrite::poll_flush(..)`.
pub struct ResumableTransport {
    shared: Arc<Shared>,
}

impl ResumableTransport {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Watches and steers the session, also after the transport was moved into something else.
    pub fn handle(&self) -> Handle {
        Handle::new(self.shared.clone())
    }

    /// The public key that the peer has proved to hold, on the link that opened the session and on every one since: at a server the
    /// client's, with [`Security::authorize`](crate::Security::authorize); at a client the server's, with
    /// [`server_key`](crate::Security::server_key) and [`mutual`](crate::Security::mutual). With any other security there is none.
    #[cfg(feature = "noise")]
    #[cfg_attr(docsrs, doc(cfg(feature = "noise")))]
    pub fn peer_identity(&self) -> Option<PublicKey> {
        self.shared.peer_identity()
    }
}

impl Drop for ResumableTransport {
    fn drop(&mut self) {
        self.shared.drop_transport();
    }
}

impl fmt::Debug for ResumableTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResumableTransport")
            .field("id", &self.shared.id())
            .finish_non_exhaustive()
    }
}

impl AsyncRead for ResumableTransport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            // Nothing to put anything into is no end of the stream.
            return Poll::Ready(Ok(()));
        }
        self.shared
            .poll(Way::In, cx, |io, fx| io.poll_read(buf, fx))
    }
}

impl AsyncWrite for ResumableTransport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.shared
            .poll(Way::Out, cx, |io, fx| io.poll_write(bufs, fx))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.poll(Way::Out, cx, SessionIo::poll_flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.poll(Way::Out, cx, SessionIo::poll_shutdown)
    }
}
