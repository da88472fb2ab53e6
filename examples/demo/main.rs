//! A file uploaded and downloaded at once, over HTTP/2, while the link below breaks about every 100 ms.
//!
//! Client and server run on this machine and talk over one resumable session, through a proxy that cuts its links at random
//! offsets, refuses new ones for a while, or goes silent. `--no-resume` sends the same over plain TCP.
//!
//! ```text
//! cargo run --release --example demo
//! cargo run --release --example demo -- --security mutual
//! cargo run --release --example demo -- --protocol snet
//! cargo run --release --example demo -- --no-resume
//! ```

#[path = "../../tests/support/cutting_proxy.rs"]
mod cutting_proxy;
mod http;
mod link;
mod progress;
mod report;
mod source;

use std::error::Error;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::cutting_proxy::{CuttingProxy, Faults};
use crate::http::Received;
use crate::link::{Carrier, Listener, Protection, Protocol, Sessions};
use crate::progress::{Display, Progress, Snapshot};
use crate::report::Report;
use crate::source::Source;

type BoxError = Box<dyn Error + Send + Sync>;

/// A silent link is reset by the proxy after this time, should no end give it up before.
const SILENT_FOR: Duration = Duration::from_secs(2);

/// Uploads and downloads a file at once over a connection whose link keeps breaking, and compares what arrived.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Args {
    /// File to send both ways; without it, pseudo-random bytes are made
    #[arg(long, value_name = "PATH", conflicts_with = "size")]
    file: Option<PathBuf>,

    /// Size of the file made
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    size: u32,

    /// Mean time between cuts; 0: no faults
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    cut_every: u64,

    /// Speed of the link, each way; 0: unlimited
    #[arg(long, value_name = "MIB_PER_S", default_value_t = 10)]
    rate: u32,

    /// Seed of the faults and of the file made; without it, a new one
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Send over plain TCP, with the same faults
    #[arg(long)]
    no_resume: bool,

    /// What the session speaks
    #[arg(long, value_enum, default_value_t = Protocol::Native, conflicts_with = "no_resume")]
    protocol: Protocol,

    /// What protects the links of a session that speaks native
    #[arg(long, value_enum, default_value_t = Protection::Anonymous, conflicts_with = "no_resume")]
    security: Protection,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = tokio::select! {
        outcome = run(&args) => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}", report::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// True when everything arrived as it was.
async fn run(args: &Args) -> Result<bool, BoxError> {
    let seed = args.seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    let source = Arc::new(match &args.file {
        Some(path) => Source::open(path.clone()).await?,
        None => Source::make(u64::from(args.size) << 20, seed).await?,
    });

    let carrier = if args.no_resume {
        Carrier::plain_tcp()
    } else {
        Carrier::resumable(args.protocol, args.security)?
    };
    let listener = carrier.bind().await?;
    let proxy = CuttingProxy::start(listener.local_addr()?, faults(args, seed)).await?;

    let sessions = Sessions::default();
    let progress = Arc::new(Progress::default());
    let mut display = Display::new(source.bytes());
    let snapshot = || Snapshot {
        up: progress.up(),
        down: progress.down(),
        proxy: proxy.stats(),
        session: sessions.stats(),
    };

    let started = Instant::now();
    let mut outcome = {
        let mut server = pin!(serve(listener, source.clone(), &progress, &sessions));
        let mut client = pin!(exchange(&carrier, &proxy, &source, &progress, &sessions));
        let mut ticks = tokio::time::interval(display.period());
        loop {
            tokio::select! {
                outcome = &mut client => break outcome,
                Err(error) = &mut server => break Err(error.into()),
                _ = ticks.tick() => display.show(&snapshot()),
            }
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let last = snapshot();
    display.finish(&last);
    if let (Err(error), true) = (&mut outcome, args.no_resume) {
        let reason = report::chain(error.as_ref());
        *error = format!("plain TCP did not survive: {reason}").into();
    }
    let report = Report {
        source: &source,
        received: outcome.as_ref().ok(),
        snapshot: &last,
        seconds,
    };
    print!("{report}");
    let identical = report.identical();
    outcome.map(|_| identical)
}

fn faults(args: &Args, seed: u64) -> Faults {
    let faults = match args.cut_every {
        0 => Faults::none(),
        ms => Faults::harsh(seed, Duration::from_millis(ms)),
    };
    Faults {
        silent_for: SILENT_FOR,
        rate: (args.rate > 0).then(|| u64::from(args.rate) << 20),
        ..faults
    }
}

/// Ends only when the listener fails.
async fn serve(
    mut listener: Listener,
    source: Arc<Source>,
    progress: &Arc<Progress>,
    sessions: &Sessions,
) -> std::io::Result<()> {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (io, handle) = listener.accept().await?;
        sessions.add_server(handle);
        connections.spawn(http::serve(io, source.clone(), progress.clone()));
    }
}

async fn exchange(
    carrier: &Carrier,
    proxy: &CuttingProxy,
    source: &Source,
    progress: &Progress,
    sessions: &Sessions,
) -> Result<Received, BoxError> {
    let (io, handle) = carrier.connect(proxy.addr()).await?;
    sessions.add_client(handle);
    http::exchange(io, source, progress).await
}
