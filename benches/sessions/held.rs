//! Connections that are kept, and nothing else.

use clap::ValueEnum;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::ends::Stream;

/// What the application does with them.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Held {
    /// It holds them.
    Merely,
    /// Each is read in a task of its own.
    Read,
}

impl Held {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Merely => "merely",
            Self::Read => "read",
        }
    }

    pub(crate) fn hold(self, stream: Stream, kept: &mut Vec<Stream>) {
        match (self, stream) {
            (Self::Merely, stream) => kept.push(stream),
            (Self::Read, Stream::Tcp(tcp)) => read(tcp),
            (Self::Read, Stream::Session(transport)) => read(transport),
        }
    }
}

fn read(mut stream: impl AsyncRead + Send + Unpin + 'static) {
    tokio::spawn(async move {
        // Nothing comes until the process at the other end is ended.
        let _ = stream.read_u8().await;
    });
}
