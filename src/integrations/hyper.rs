//! hyper: its I/O traits, and hyper-util's `Connection` for pooled clients.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tokio::io::AsyncWrite;

use crate::ResumableTransport;

#[cfg_attr(docsrs, doc(cfg(feature = "hyper")))]
impl Read for ResumableTransport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Read::poll_read(Pin::new(&mut TokioIo::new(&mut *self)), cx, buf)
    }
}

#[cfg_attr(docsrs, doc(cfg(feature = "hyper")))]
impl Write for ResumableTransport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(self, cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(self, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(self, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write_vectored(self, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg_attr(docsrs, doc(cfg(feature = "hyper")))]
impl Connection for ResumableTransport {
    /// A direct connection to the origin. hyper opens another session when this one is over. The session's [`Handle`](crate::Handle) is among the
    /// extensions of each response.
    fn connected(&self) -> Connected {
        Connected::new().extra(self.handle())
    }
}
