//! What a session runs over: a link as it was dialled or accepted, or its protection.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::link::BoxLink;
#[cfg(feature = "noise")]
use crate::{protocol::noise::Records, security::NoiseLink};

/// A link in use by a session.
pub(crate) enum AnyLink {
    /// With nothing around it.
    Plain(BoxLink),
    /// Inside Noise.
    #[cfg(feature = "noise")]
    Noise(Box<NoiseLink<BoxLink>>),
}

impl AnyLink {
    /// The link under the records that its handshake came to, if it did.
    #[cfg(feature = "noise")]
    pub(crate) fn protect(self, records: Option<Records>) -> Self {
        match (self, records) {
            (Self::Plain(link), Some(records)) => {
                Self::Noise(Box::new(NoiseLink::new(link, records)))
            }
            (link, _) => link,
        }
    }

    /// Whether there is nothing around it.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Gives the memory back that it does not need while nothing is under way.
    pub(crate) fn release(&mut self) {
        match self {
            Self::Plain(_) => {}
            #[cfg(feature = "noise")]
            Self::Noise(link) => link.release(),
        }
    }

    /// Whether it has come by anything since this was last asked that it may hold back until it is whole.
    pub(crate) fn take_stirred(&mut self) -> bool {
        match self {
            Self::Plain(_) => false,
            #[cfg(feature = "noise")]
            Self::Noise(link) => link.take_stirred(),
        }
    }

    /// What its buffers take up, in bytes, apart from those of the link as it was dialled or accepted.
    pub(crate) fn allocated(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            #[cfg(feature = "noise")]
            Self::Noise(link) => link.allocated(),
        }
    }
}

impl From<BoxLink> for AnyLink {
    fn from(link: BoxLink) -> Self {
        Self::Plain(link)
    }
}

/// Calls the same on whichever it is.
macro_rules! forward {
    ($link:expr, $call:ident $(, $argument:expr)*) => {
        match $link {
            AnyLink::Plain(link) => Pin::new(link).$call($($argument),*),
            #[cfg(feature = "noise")]
            AnyLink::Noise(link) => Pin::new(link).$call($($argument),*),
        }
    };
}

impl AsyncRead for AnyLink {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        forward!(self.get_mut(), poll_read, cx, buf)
    }
}

impl AsyncWrite for AnyLink {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        forward!(self.get_mut(), poll_write, cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self.get_mut(), poll_write_vectored, cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        forward!(self, is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self.get_mut(), poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self.get_mut(), poll_shutdown, cx)
    }
}
