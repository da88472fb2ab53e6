//! An in-memory link that gives and takes as much at a time as a seed says, or nothing for now.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One direction.
#[derive(Clone, Default)]
pub(crate) struct Pipe(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    waiting: VecDeque<u8>,
    ended: bool,
}

impl Pipe {
    /// A direction on which all that will come has come, and then its end.
    pub(crate) fn ended(bytes: &[u8]) -> Self {
        let pipe = Self::default();
        pipe.with(|inside| {
            inside.waiting.extend(bytes);
            inside.ended = true;
        });
        pipe
    }

    /// What was written and not read.
    pub(crate) fn waiting(&self) -> Vec<u8> {
        self.with(|inside| inside.waiting.iter().copied().collect())
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.with(|inside| inside.ended)
    }

    fn with<R>(&self, change: impl FnOnce(&mut Inside) -> R) -> R {
        change(&mut self.0.lock().expect("no test panics under this lock"))
    }
}

/// One end.
pub(crate) struct Pieces {
    input: Pipe,
    output: Pipe,
    /// Without one everything goes through at once.
    random: Option<StdRng>,
    is_vectored: bool,
}

impl Pieces {
    pub(crate) fn new(input: &Pipe, output: &Pipe, seed: Option<u64>) -> Self {
        Self {
            input: input.clone(),
            output: output.clone(),
            random: seed.map(StdRng::seed_from_u64),
            is_vectored: seed.is_some_and(|seed| seed % 2 == 0),
        }
    }

    /// How many bytes go through, of so many.
    fn piece(&mut self, most: usize) -> Option<usize> {
        let Some(random) = &mut self.random else {
            return Some(most);
        };
        match random.random_range(0..4) {
            0 => None,
            1 => Some(random.random_range(1..=most.min(20))),
            2 => Some(random.random_range(1..=most)),
            _ => Some(most),
        }
    }

    fn take(&mut self, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let bytes: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        assert!(!bytes.is_empty(), "a link is given nothing to write");
        let Some(count) = self.piece(bytes.len()) else {
            return Poll::Pending;
        };
        self.output.with(|inside| {
            assert!(!inside.ended, "a link is written to behind its end");
            inside.waiting.extend(&bytes[..count]);
        });
        Poll::Ready(Ok(count))
    }
}

/// Whoever uses it polls again and again: nobody is woken.
impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (waiting, ended) = self
            .input
            .with(|inside| (inside.waiting.len(), inside.ended));
        let most = waiting.min(buf.remaining());
        if most == 0 {
            return if ended {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            };
        }
        let Some(count) = self.piece(most) else {
            return Poll::Pending;
        };
        let bytes: Vec<u8> = self
            .input
            .with(|inside| inside.waiting.drain(..count).collect());
        buf.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.take(&[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.take(slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.is_vectored
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.output.with(|inside| inside.ended = true);
        Poll::Ready(Ok(()))
    }
}
