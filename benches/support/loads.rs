//! What goes over streams to measure them, by the same code for all.

use std::{
    cell::Cell,
    io,
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{ends::Stream, figures::quantile};

/// Bytes that are read at a time, and between two looks at the clock.
pub(crate) const CHUNK: usize = 64 << 10;
const ECHO: usize = 64;
/// The last byte of what one end has to say; all others are zero.
const END: u8 = 1;

/// What goes over a stream. Bulk is in writes of so many bytes.
#[derive(Clone, Copy)]
pub(crate) enum Load {
    OneWay(usize),
    BothWays(usize),
    Echo,
}

pub(crate) const LOADS: [(&str, Load); 5] = [
    ("bulk64k", Load::OneWay(64 << 10)),
    ("bulk1k", Load::OneWay(1 << 10)),
    ("both64k", Load::BothWays(64 << 10)),
    ("both1k", Load::BothWays(1 << 10)),
    ("echo", Load::Echo),
];

impl Load {
    /// What its figures are.
    pub(crate) fn titles(self) -> Vec<String> {
        match self {
            Self::OneWay(size) => vec![format!("one way, writes of {} KiB", size >> 10)],
            Self::BothWays(size) => {
                vec![format!(
                    "both ways at once, their sum, writes of {} KiB",
                    size >> 10
                )]
            }
            Self::Echo => ["median", "99th percentile"]
                .map(|of| format!("echo of {ECHO} bytes, {of} of the round trip"))
                .into(),
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Echo => "µs",
            _ => "MiB/s",
        }
    }
}

/// One or several, by load, in the order of its titles.
pub(crate) type Figures = Vec<f64>;

/// Writes `size` bytes at a time until `done` says so, then the end. Returns how many bytes that were.
async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    size: usize,
    done: impl Fn() -> bool,
) -> io::Result<usize> {
    let bytes = vec![0; size];
    let mut sent = 1;
    while !done() {
        for _ in 0..CHUNK / size {
            stream.write_all(&bytes).await?;
            sent += size;
        }
    }
    stream.write_all(&[END]).await?;
    stream.flush().await?;
    Ok(sent)
}

/// Reads to the end. Returns how many bytes that were.
async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
    let mut bytes = vec![0; CHUNK];
    let mut received = 0;
    loop {
        let count = stream.read(&mut bytes).await?;
        received += count;
        match bytes[..count].last() {
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(&END) => return Ok(received),
            Some(_) => {}
        }
    }
}

/// Does the load's part of the end that measures.
pub(crate) async fn near(
    mut stream: &mut dyn Stream,
    load: Load,
    lasts: Duration,
) -> io::Result<Figures> {
    // Handshakes are over at both ends then.
    stream.write_u8(END).await?;
    stream.flush().await?;
    stream.read_u8().await?;
    let begun = Instant::now();
    let late = || begun.elapsed() >= lasts;
    let bytes = match load {
        Load::OneWay(size) => send(&mut stream, size, late).await? + receive(&mut stream).await?,
        Load::BothWays(size) => {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let (sent, received) =
                tokio::try_join!(send(&mut writer, size, late), receive(&mut reader))?;
            sent + received
        }
        Load::Echo => {
            let mut trips = Vec::new();
            let mut bytes = [0; ECHO];
            while bytes[ECHO - 1] != END {
                if late() {
                    bytes[ECHO - 1] = END;
                }
                let sent = Instant::now();
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                stream.read_exact(&mut bytes).await?;
                trips.push(sent.elapsed().as_secs_f64() * 1e6);
            }
            trips.sort_by(f64::total_cmp);
            return Ok(vec![quantile(&trips, 0.5), quantile(&trips, 0.99)]);
        }
    };
    Ok(vec![mebibytes(bytes) / begun.elapsed().as_secs_f64()])
}

/// Does the part of the other end.
pub(crate) async fn far(mut stream: &mut dyn Stream, load: Load) -> io::Result<()> {
    stream.read_u8().await?;
    stream.write_u8(END).await?;
    stream.flush().await?;
    match load {
        Load::OneWay(size) => {
            receive(&mut stream).await?;
            send(&mut stream, size, || true).await?;
        }
        Load::BothWays(size) => {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let done = Cell::new(false);
            let receiving = async {
                let received = receive(&mut reader).await;
                done.set(true);
                received
            };
            tokio::try_join!(send(&mut writer, size, || done.get()), receiving)?;
        }
        Load::Echo => {
            let mut bytes = [0; ECHO];
            while bytes[ECHO - 1] != END {
                stream.read_exact(&mut bytes).await?;
                stream.write_all(&bytes).await?;
                stream.flush().await?;
            }
        }
    }
    Ok(())
}

pub(crate) fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
