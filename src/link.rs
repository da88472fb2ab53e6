//! The underlying connection, whatever it is, and how it is used without trusting it.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Up to how many bytes are handed to a link in one piece: copying them costs less than a system call with several.
const FEW: usize = 512;

/// Anything a session can run over.
pub(crate) trait Link: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Link for T {}

/// A link whose kind is forgotten: a session may move from one kind to another.
pub(crate) type BoxLink = Box<dyn Link>;

/// Reads from `link`, and returns how many bytes it appended to `buf`; 0 is its end. Unless it does, `buf` is filled as far as before:
/// bytes that are not counted must not reach the application.
pub(crate) fn poll_read<L: AsyncRead + Unpin + ?Sized>(
    link: &mut L,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<usize>> {
    let before = buf.filled().len();
    let result = Pin::new(link).poll_read(cx, buf);
    let after = buf.filled().len();
    match result {
        Poll::Ready(Ok(())) if after >= before => Poll::Ready(Ok(after - before)),
        Poll::Ready(Err(error)) if after == before => Poll::Ready(Err(error)),
        Poll::Pending if after == before => Poll::Pending,
        _ => {
            buf.set_filled(before);
            Poll::Ready(Err(io::Error::other(
                "the link filled the read buffer without saying so, or took bytes of it back",
            )))
        }
    }
}

/// Writes to `link` from pieces, not all of which are empty, and returns how many bytes it took: at least one.
pub(crate) fn poll_write<L: AsyncWrite + Unpin + ?Sized, const N: usize>(
    link: &mut L,
    cx: &mut Context<'_>,
    pieces: [&[u8]; N],
) -> Poll<io::Result<usize>> {
    let mut filled = pieces.iter().filter(|piece| !piece.is_empty());
    let first = filled.next().copied().unwrap_or_default();
    let total: usize = pieces.iter().map(|piece| piece.len()).sum();
    let vectored = link.is_write_vectored();
    let (offered, result) = if first.len() == total || first.len() >= FEW && !vectored {
        (first.len(), Pin::new(link).poll_write(cx, first))
    } else if total > FEW && vectored {
        let slices = pieces.map(io::IoSlice::new);
        (total, Pin::new(link).poll_write_vectored(cx, &slices))
    } else {
        // As much as there is room for: some links want to be offered again what they were offered before, and no less.
        let mut scratch = [const { MaybeUninit::uninit() }; FEW];
        let mut together = ReadBuf::uninit(&mut scratch);
        for piece in pieces {
            together.put_slice(&piece[..piece.len().min(together.remaining())]);
        }
        let together = together.filled();
        (together.len(), Pin::new(link).poll_write(cx, together))
    };
    result.map(|result| match result? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        taken if taken > offered => Err(io::Error::other(
            "the link claims to have taken more than it was given",
        )),
        taken => Ok(taken),
    })
}

/// Ends the write side of `link` and discards what comes in until its end: closing over unread input can destroy what is under way to
/// the peer. Bounded by nothing but the caller's timeout.
pub(crate) async fn close_in_order(
    mut link: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<()> {
    poll_fn(|cx| Pin::new(&mut link).poll_shutdown(cx)).await?;
    let mut scratch = [0; 256];
    while poll_fn(|cx| poll_read(&mut link, cx, &mut ReadBuf::new(&mut scratch))).await? > 0 {}
    Ok(())
}
