//! Handshakes on a link.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    error::Error,
    link,
    protocol::handshake::{self, Handshake},
};

/// Carries `machine` on over `link` until it waits for a decision or is at its end, without reading a byte beyond it.
///
/// `heard` is called whenever the peer has sent something. Cancelling it leaves the link in the middle of the handshake: close it.
pub(crate) async fn exchange(
    link: &mut (impl AsyncRead + AsyncWrite + Send + Unpin),
    machine: &mut (impl Handshake + Send),
    mut heard: impl FnMut() + Send,
) -> Result<(), Error> {
    poll_fn(|cx| {
        loop {
            ready!(poll_transmit(link, machine, cx)).map_err(failed)?;
            let mut bytes = [0; handshake::LONGEST];
            let wanted = machine.wanted().min(bytes.len());
            if wanted == 0 {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(&mut bytes[..wanted]);
            match ready!(link::poll_read(link, cx, &mut buf)).map_err(failed)? {
                0 => return Poll::Ready(Err(Error::Link(io::ErrorKind::UnexpectedEof.into()))),
                _ => {
                    heard();
                    machine.receive(buf.filled())?;
                }
            }
        }
    })
    .await
}

/// A link inside Noise says in its own error what is wrong, if its peer cannot have sealed what came.
fn failed(error: io::Error) -> Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(Error::Handshake(wrong)) => Error::Handshake(*wrong),
        _ => Error::Link(error),
    }
}

fn poll_transmit(
    link: &mut (impl AsyncWrite + Unpin),
    machine: &mut impl Handshake,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while !machine.transmit().is_empty() {
        let written = ready!(link::poll_write(link, cx, [machine.transmit()]))?;
        machine.transmitted(written);
    }
    Pin::new(link).poll_flush(cx)
}
