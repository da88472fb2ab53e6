//! What sessions and Noise cost on loopback, beside TCP, TLS and QUIC: throughput in writes of 64 KiB and of 1 KiB, one way and both ways
//! at once, and the round trip of an echo of 64 bytes; both ends on one thread, and each on a thread of its own.
//!
//! `cargo bench --bench links -- --runs N --secs S --only NAME --load LOAD --out DIR --pin`: how often everything is measured, in turns, and
//! how long each time; only kinds whose name contains that, and what they are compared with; only loads whose name begins like that
//! (`bulk64k`, `bulk1k`, `both64k`, `both1k`, `echo`); where `links.csv` and `links.svg` go, by default `bench` in cargo's target directory;
//! and each of two threads kept on a core of its own, where otherwise the scheduler may have them share one for long.
//!
//! Every stream is written to and read from by the same code, without buffers of the bench's own. The clock runs from the first byte after
//! the handshake until each end has read everything, so it sees windows and congestion control open.

use std::{
    fs,
    hint::black_box,
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use chart::{Family, chart};
use cores::Cores;
use ends::{Kind, Port};
use figures::{ratio, spread};
use loads::{CHUNK, Figures, LOADS, Load, far, mebibytes, near};
use options::Options;
use rc4::{KeyInit, Rc4, StreamCipher};
use table::{Row, Table};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
    time::timeout,
};
use unbroken::{BoxError, Config, Security, Snet, Suite};

#[path = "support/chart.rs"]
mod chart;
#[path = "support/cores.rs"]
mod cores;
#[path = "support/ends.rs"]
mod ends;
#[path = "support/figures.rs"]
mod figures;
#[path = "support/loads.rs"]
mod loads;
#[path = "support/options.rs"]
mod options;
#[path = "support/table.rs"]
mod table;
#[path = "support/tls.rs"]
mod tls;

/// Of snet's sessions.
const HISTORY: usize = 4 << 20;
/// What that leaves for each socket buffer at most.
const SOCKET_BUFFER: u32 = (HISTORY / 4 - (32 << 10)) as u32;
/// Beyond its time a measurement that has not ended by then has failed.
const HUNG: Duration = Duration::from_secs(60);

const TCP: &str = "TCP";
const TLS: &str = "tokio-rustls";
const SNET_RC4: &str = "snet, RC4";
const RC4_ALONE: &str = "RC4 alone";
/// What all kinds are compared with.
const PEERS: [&str; 2] = [TCP, TLS];

/// What the bars of kinds whose names begin so are drawn in.
const FAMILIES: [Family; 5] = [
    Family::new("native", "#2f6fde", "#5b9bff"),
    Family::new("Noise", "#8fb4ef", "#34527f"),
    Family::new("snet", "#1f8a5b", "#3fbf85"),
    Family::new("RC4", "#93c9b0", "#2b5f48"),
    Family::new("", "#8a8f98", "#7d838d"),
];

#[derive(Clone)]
enum Subject {
    Stream(Kind),
    /// The rc4 crate's keystream, and no stream.
    Rc4,
}

/// All that is measured, the peers first.
fn subjects() -> Vec<(&'static str, Subject)> {
    let native = |security| Kind::session(Config::new().security(security));
    let noise = |suite| native(Security::anonymous().suite(suite));
    let snet = |snet: Snet| Kind::session(Config::new().snet(snet.history(HISTORY)));
    let mut subjects: Vec<_> = [
        (TCP, Kind::Tcp),
        (TLS, Kind::Tls),
        ("TCP beside a timer", Kind::TcpBesideTimer),
        ("TCP, snet's buffers", Kind::TcpBounded(SOCKET_BUFFER)),
        ("quinn", Kind::Quic),
        ("native, none", native(Security::none())),
        ("native, AES-GCM", noise(Suite::AesGcm)),
        ("native, ChaCha20", noise(Suite::ChaChaPoly)),
        ("Noise alone, AES-GCM", Kind::Noise(Suite::AesGcm)),
        ("Noise alone, ChaCha20", Kind::Noise(Suite::ChaChaPoly)),
        ("snet, plain", snet(Snet::plain())),
        (SNET_RC4, snet(Snet::rc4())),
    ]
    .map(|(name, kind)| (name, Subject::Stream(kind)))
    .into();
    subjects.push((RC4_ALONE, Subject::Rc4));
    subjects
}

fn runtime() -> Result<Runtime, BoxError> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Tells the other end, by being dropped, that this one needs it no more.
type Done = oneshot::Sender<()>;
type OtherDone = oneshot::Receiver<()>;

async fn run_near(
    kind: Kind,
    load: Load,
    lasts: Duration,
    addr: oneshot::Receiver<SocketAddr>,
    (done, other_done): (Done, OtherDone),
) -> Result<Figures, BoxError> {
    let mut end = kind.connect(addr.await?).await?;
    let figures = timeout(
        lasts.saturating_add(HUNG),
        near(&mut *end.stream, load, lasts),
    )
    .await??;
    drop(done);
    let _ = other_done.await;
    Ok(figures)
}

async fn run_far(
    kind: Kind,
    load: Load,
    lasts: Duration,
    addr: oneshot::Sender<SocketAddr>,
    (done, other_done): (Done, OtherDone),
) -> Result<(), BoxError> {
    let port = Port::bind(&kind).await?;
    addr.send(port.addr()?).map_err(|_| "the near end failed")?;
    let mut end = timeout(HUNG, port.accept()).await??;
    timeout(lasts.saturating_add(HUNG), far(&mut *end.stream, load)).await??;
    drop(done);
    let _ = other_done.await;
    Ok(())
}

fn measure(
    kind: &Kind,
    load: Load,
    threads: usize,
    Settings { lasts, cores, .. }: &Settings,
) -> Result<Figures, BoxError> {
    let (lasts, cores) = (*lasts, *cores);
    let this = runtime()?;
    let (addr_out, addr_in) = oneshot::channel();
    let (near_done, far_sees) = oneshot::channel();
    let (far_done, near_sees) = oneshot::channel();
    let near = run_near(kind.clone(), load, lasts, addr_in, (near_done, near_sees));
    let kind = kind.clone();
    let far = move || run_far(kind, load, lasts, addr_out, (far_done, far_sees));
    if threads == 1 {
        let both = async { tokio::try_join!(near, far()) };
        return Ok(this.block_on(both)?.0);
    }
    thread::scope(|scope| {
        let other = scope.spawn(move || {
            cores.map_or(Ok(()), |cores| cores.pin(1))?;
            runtime()?.block_on(far())
        });
        let figures = this.block_on(near);
        other.join().map_err(|_| "the far end panicked")??;
        figures
    })
}

/// The rate of the rc4 crate's keystream laid over a buffer in place, by one thread.
fn keystream(lasts: Duration) -> f64 {
    let mut rc4 = Rc4::new_from_slice(&[7; 8]).expect("8 bytes are a valid RC4 key");
    let mut bytes = vec![0; CHUNK];
    let mut done = 0;
    let begun = Instant::now();
    while begun.elapsed() < lasts {
        rc4.apply_keystream(black_box(&mut bytes));
        done += CHUNK;
    }
    mebibytes(done) / begun.elapsed().as_secs_f64()
}

/// Every byte, in either direction, is encrypted by one end and decrypted by the other: two threads can carry as many as one can lay the
/// keystream over, one thread half of that.
fn rc4_bound(threads: usize, lasts: Duration) -> f64 {
    keystream(lasts) * threads as f64 / 2.0
}

/// What snet with RC4 leaves of what RC4 allows.
fn rc4_line(table: &Table) -> Option<String> {
    let (snet, alone) = (table.runs(SNET_RC4)?, table.runs(RC4_ALONE)?);
    let whole = spread(alone.to_vec()).median * 2.0 / table.threads as f64;
    let bound = match table.threads {
        1 => "the thread encrypts and decrypts, so the bound is half of that",
        _ => "one thread encrypts while the other decrypts, so the bound is that",
    };
    let part = ratio(snet, alone);
    Some(format!(
        "  the rc4 crate's keystream on one thread: {whole:.1} MiB/s; {bound}; snet reaches {:.2} ({:.2} to {:.2}) of it\n",
        part.median, part.least, part.most
    ))
}

struct Settings {
    runs: usize,
    lasts: Duration,
    /// Of the two ends, if pinned.
    cores: Option<Cores>,
    subjects: Vec<(&'static str, Subject)>,
    loads: Vec<(&'static str, Load)>,
    out: PathBuf,
}

impl Settings {
    fn of_this_program() -> Result<Self, BoxError> {
        let known = ["--runs", "--secs", "--only", "--load", "--out"];
        let options = Options::of_this_program(&known, &["--pin"])?;
        let secs = options.number("--secs", 0.01, 0.4)?;
        let lasts =
            Duration::try_from_secs_f64(secs).map_err(|error| format!("--secs: {error}"))?;
        let only = options.text("--only").unwrap_or_default();
        let load = options.text("--load").unwrap_or_default();
        let mut subjects = subjects();
        if !subjects.iter().any(|(name, _)| name.contains(only)) {
            let names: Vec<_> = subjects.iter().map(|(name, _)| *name).collect();
            let names = names.join("; ");
            return Err(format!("--only {only} is in none of {names}").into());
        }
        let rc4 = SNET_RC4.contains(only);
        subjects.retain(|(name, _)| {
            PEERS.contains(name) || name.contains(only) || (rc4 && *name == RC4_ALONE)
        });
        let mut loads = LOADS.to_vec();
        loads.retain(|(name, _)| name.starts_with(load));
        if loads.is_empty() {
            let names = LOADS.map(|(name, _)| name).join(", ");
            return Err(format!("--load {load} begins none of {names}").into());
        }
        let pinned = options.text("--pin").is_some();
        Ok(Self {
            runs: options.number("--runs", 1, 5)?,
            lasts,
            cores: pinned.then(Cores::of_this_process).transpose()?,
            subjects,
            loads,
            out: options.out(),
        })
    }
}

/// One load, for all subjects in turns.
fn tables(
    settings: &Settings,
    (name, load): (&'static str, Load),
    threads: usize,
) -> Result<Vec<Table>, BoxError> {
    let mut subjects = settings.subjects.clone();
    subjects.retain(|(_, subject)| {
        matches!((load, subject), (_, Subject::Stream(_))) || !matches!(load, Load::Echo)
    });
    let mut figures: Vec<Vec<Figures>> = vec![Vec::new(); subjects.len()];
    for run in 0..settings.runs {
        // Another one begins each time, so that none always comes after the same.
        for turn in 0..subjects.len() {
            let which = (run + turn) % subjects.len();
            let (name, subject) = &subjects[which];
            figures[which].push(match subject {
                Subject::Stream(kind) => measure(kind, load, threads, settings)
                    .map_err(|error| format!("{name}: {error}"))?,
                Subject::Rc4 => vec![rc4_bound(threads, settings.lasts)],
            });
        }
    }
    let titles = load.titles().into_iter().enumerate();
    Ok(titles
        .map(|(figure, title)| Table {
            load: name,
            title,
            threads,
            unit: load.unit(),
            rows: subjects
                .iter()
                .zip(&figures)
                .map(|((kind, _), runs)| Row {
                    kind,
                    runs: runs.iter().map(|run| run[figure]).collect(),
                })
                .collect(),
        })
        .collect())
}

fn run(settings: &Settings) -> Result<(), BoxError> {
    let provider = if cfg!(feature = "aws-lc-rs") {
        "AWS-LC"
    } else {
        "ring"
    };
    let mut cores = format!("{} cores", thread::available_parallelism()?);
    if let Some(of) = settings.cores {
        of.pin(0)?;
        cores.push_str(", each thread pinned to one");
    }
    let with = format!(
        "{cores}; runs: {}, in turns, of {} s each; Noise's ciphers by {provider}",
        settings.runs,
        settings.lasts.as_secs_f64(),
    );
    println!("{with}\n");
    let mut all = Vec::new();
    for load in &settings.loads {
        for threads in [1, 2] {
            for table in tables(settings, *load, threads)? {
                print!("{}", table.text(&PEERS));
                println!("{}", rc4_line(&table).unwrap_or_default());
                all.push(table);
            }
        }
    }
    fs::create_dir_all(&settings.out)?;
    let (figures, picture) = (
        settings.out.join("links.csv"),
        settings.out.join("links.svg"),
    );
    fs::write(&figures, table::csv(&all, &PEERS)?)?;
    let title = "Sessions beside TCP, TLS and QUIC, over loopback";
    let notes = [
        with.as_str(),
        "Bars: medians, with the least and the most; in brackets the ratio to TCP in the same run",
        "RC4 alone: what the rc4 crate's keystream lets the threads encrypt at one end and decrypt at the other",
    ];
    fs::write(&picture, chart(title, &notes, &all, TCP, &FAMILIES)?)?;
    println!("{}\n{}", figures.display(), picture.display());
    Ok(())
}

fn main() -> ExitCode {
    match Settings::of_this_program().and_then(|settings| run(&settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
