//! One measurement: a path, a stream across it, and a load.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tappers::Tun;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Builder,
    time::{sleep, timeout},
};
use unbroken::BoxError;

use crate::{
    kinds::{Kind, Pair, open},
    path::{Conditions, Counts, Path},
};

/// Bytes that are written, or read, at a time.
const BULK: usize = 64 * 1024;
const ECHO: usize = 64;
/// How many echoes there are at least, and how long they go on where that takes less.
const ECHOES: usize = 10;
const ECHOING: Duration = Duration::from_secs(1);
/// How long a stream may take to open: several lost packets, each noticed after a second or more.
const OPENING: Duration = Duration::from_secs(30);

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// Bytes from the client to the server, in MiB/s.
    Bulk {
        /// How long it goes on.
        lasts: Duration,
        /// How much of that does not count, so that TCP has found its pace.
        ignored: Duration,
    },
    /// The time of an echo of 64 bytes, in milliseconds, the median.
    Echo,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) value: f64,
    pub(crate) counts: Counts,
}

pub(crate) fn measure(
    tun: &Arc<Tun>,
    conditions: Conditions,
    seed: u64,
    kind: &Kind,
    load: Load,
    congestion: Option<&str>,
) -> Result<Measured, BoxError> {
    let path = Path::start(tun, conditions, seed)?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let value = runtime.block_on(async {
        let opening = timeout(OPENING, open(kind, congestion));
        let pair = opening
            .await
            .map_err(|_| format!("{} is not open after {OPENING:?}", kind.name))??;
        Ok::<_, BoxError>(match load {
            Load::Bulk { lasts, ignored } => bulk(pair, lasts, ignored).await?,
            Load::Echo => echo(pair).await?,
        })
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    // For the sockets to reset each other: what one of them still holds is not to disturb the next measurement.
    std::thread::sleep(2 * conditions.round_trip + Duration::from_millis(50));
    let counts = path.stop()?;
    Ok(Measured {
        value: value?,
        counts,
    })
}

async fn bulk(pair: Pair, lasts: Duration, ignored: Duration) -> io::Result<f64> {
    let Pair {
        mut client,
        mut server,
        ..
    } = pair;
    let received = Arc::new(AtomicU64::new(0));
    let count = received.clone();
    let writing = tokio::spawn(async move {
        let bytes = vec![7; BULK];
        loop {
            client.write_all(&bytes).await?;
        }
    });
    let reading = tokio::spawn(async move {
        let mut bytes = vec![0; BULK];
        loop {
            match server.read(&mut bytes).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => count.fetch_add(read as u64, Ordering::Relaxed),
            };
        }
    });
    let measuring = async {
        let so_far = || (Instant::now(), received.load(Ordering::Relaxed));
        sleep(ignored).await;
        let (from, before) = so_far();
        sleep(lasts - ignored).await;
        let (until, after) = so_far();
        (after - before) as f64 / (until - from).as_secs_f64() / f64::from(1 << 20)
    };
    let failed =
        |ended: Result<io::Result<()>, _>| Err(ended.map_or_else(io::Error::from, failure));
    tokio::select! {
        rate = measuring => Ok(rate),
        ended = writing => failed(ended),
        ended = reading => failed(ended),
    }
}

fn failure(ended: io::Result<()>) -> io::Error {
    ended.expect_err("it goes on until it fails")
}

async fn echo(pair: Pair) -> io::Result<f64> {
    let Pair {
        mut client,
        mut server,
        ..
    } = pair;
    tokio::spawn(async move {
        let mut bytes = [0; ECHO];
        loop {
            server.read_exact(&mut bytes).await?;
            server.write_all(&bytes).await?;
            server.flush().await?;
        }
        #[expect(unreachable_code, reason = "it gives the type")]
        Ok::<_, io::Error>(())
    });
    let mut bytes = [7; ECHO];
    let mut trips = Vec::new();
    let begun = Instant::now();
    while trips.len() < ECHOES || begun.elapsed() < ECHOING {
        let sent = Instant::now();
        client.write_all(&bytes).await?;
        client.flush().await?;
        client.read_exact(&mut bytes).await?;
        trips.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    trips.sort_by(f64::total_cmp);
    Ok(trips[trips.len() / 2])
}
