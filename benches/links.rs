//! What Noise and sessions cost on loopback TCP, beside TCP itself and TLS: bulk one way in writes of 64 KiB, and the round trip of an
//! echo of 64 bytes; both ends on one thread, and each on its own.
//!
//! `cargo bench --bench links -- --runs N --secs S --only NAME --load LOAD`: how often everything is measured, in turns, how long each
//! time; only kinds whose name contains that, and what they are compared with; only bulk, or only echo.

use std::{
    io,
    process::ExitCode,
    sync::{Arc, LazyLock},
    thread,
    time::{Duration, Instant},
};

use rcgen::CertifiedKey;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    runtime::{Builder, Runtime},
    sync::oneshot,
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        pki_types::{PrivateKeyDer, ServerName},
    },
};
use tower::{ServiceExt, service_fn};
use unbroken::{Accepted, Acceptor, BoxError, Config, Connector, NoiseLink, Security, Suite};

/// Bytes that are written, or read, at a time.
const BULK: usize = 64 * 1024;
const ECHO: usize = 64;
const KEY: [u8; 32] = [7; 32];

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type BoxStream = Box<dyn Stream>;

/// What goes over TCP.
#[derive(Clone)]
enum Kind {
    Tcp,
    Tls,
    Noise(Suite),
    Session(Box<Config>),
}

/// All that is measured. The first two are what the others are compared with.
fn kinds() -> Vec<(&'static str, Kind)> {
    vec![
        ("TCP", Kind::Tcp),
        ("tokio-rustls", Kind::Tls),
        ("Noise AES-GCM", Kind::Noise(Suite::AesGcm)),
        ("Noise ChaCha20", Kind::Noise(Suite::ChaChaPoly)),
        ("session, none", session(Security::none())),
        (
            "session, AES-GCM",
            session(Security::anonymous().suite(Suite::AesGcm)),
        ),
        (
            "session, ChaCha20",
            session(Security::anonymous().suite(Suite::ChaChaPoly)),
        ),
    ]
}

fn session(security: Security) -> Kind {
    Kind::Session(Box::new(Config::new().security(security)))
}

static TLS: LazyLock<(TlsConnector, TlsAcceptor)> = LazyLock::new(|| {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("the name is one");
    let mut roots = RootCertStore::empty();
    roots
        .add(cert.der().clone())
        .expect("it was generated just now");
    let client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("it is PKCS #8");
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("the key is the certificate's");
    (Arc::new(client).into(), Arc::new(server).into())
});

async fn client(kind: Kind, tcp: TcpStream) -> Result<BoxStream, BoxError> {
    Ok(match kind {
        Kind::Tcp => Box::new(tcp),
        Kind::Tls => {
            let name = ServerName::try_from("localhost")?;
            Box::new(TLS.0.connect(name, tcp).await?)
        }
        Kind::Noise(suite) => {
            Box::new(NoiseLink::connect(tcp, &Security::psk(KEY).suite(suite)).await?)
        }
        Kind::Session(config) => {
            let tcp = Arc::new(std::sync::Mutex::new(Some(tcp)));
            let dial = service_fn(move |()| {
                let tcp = tcp.lock().expect("nothing panics under it").take();
                async move { tcp.ok_or(io::Error::from(io::ErrorKind::NotConnected)) }
            });
            Box::new(Connector::new(dial, *config).oneshot(()).await?)
        }
    })
}

async fn server(kind: Kind, tcp: TcpStream) -> Result<BoxStream, BoxError> {
    Ok(match kind {
        Kind::Tcp => Box::new(tcp),
        Kind::Tls => Box::new(TLS.1.accept(tcp).await?),
        Kind::Noise(_) => {
            let security = Security::psk(KEY);
            let accepting = NoiseLink::accept(tcp, &security);
            Box::new(accepting.await?.0)
        }
        Kind::Session(config) => match Acceptor::new(*config).accept(tcp).await? {
            Accepted::New(transport) => Box::new(transport),
            Accepted::Resumed(_) => return Err("no session was opened before".into()),
        },
    })
}

/// What is measured.
#[derive(Clone, Copy, PartialEq)]
enum Load {
    Bulk,
    Echo,
}

/// In MiB/s; and in microseconds, the median and the 99th percentile.
type Figures = Vec<f64>;

async fn near(
    kind: Kind,
    load: Load,
    tcp: TcpStream,
    lasts: Duration,
) -> Result<Figures, BoxError> {
    let mut stream = client(kind, tcp).await?;
    let begun = Instant::now();
    match load {
        Load::Bulk => {
            let bytes = vec![7; BULK];
            let mut sent = 0;
            while begun.elapsed() < lasts {
                stream.write_all(&bytes).await?;
                sent += bytes.len();
            }
            stream.shutdown().await?;
            // The peer has read everything when it ends its direction.
            stream.read_u8().await?;
            let rate = sent as f64 / begun.elapsed().as_secs_f64();
            Ok(vec![rate / f64::from(1 << 20)])
        }
        Load::Echo => {
            let mut bytes = [7; ECHO];
            let mut trips = Vec::new();
            while begun.elapsed() < lasts {
                let sent = Instant::now();
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                stream.read_exact(&mut bytes).await?;
                trips.push(sent.elapsed().as_secs_f64() * 1e6);
            }
            stream.shutdown().await?;
            trips.sort_by(f64::total_cmp);
            Ok(vec![trips[trips.len() / 2], trips[trips.len() * 99 / 100]])
        }
    }
}

async fn far(kind: Kind, load: Load, tcp: TcpStream) -> Result<(), BoxError> {
    let mut stream = server(kind, tcp).await?;
    match load {
        Load::Bulk => {
            let mut bytes = vec![0; BULK];
            while stream.read(&mut bytes).await? > 0 {}
            stream.write_all(&[1]).await?;
        }
        Load::Echo => {
            let mut bytes = [0; ECHO];
            while stream.read_exact(&mut bytes).await.is_ok() {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
            }
        }
    }
    stream.shutdown().await?;
    Ok(())
}

fn runtime() -> Result<Runtime, BoxError> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn sockets() -> io::Result<(std::net::TcpStream, std::net::TcpStream)> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let near = std::net::TcpStream::connect(listener.local_addr()?)?;
    let far = listener.accept()?.0;
    for socket in [&near, &far] {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
    }
    Ok((near, far))
}

fn measure(kind: &Kind, load: Load, threads: usize, lasts: Duration) -> Result<Figures, BoxError> {
    let sockets = sockets()?;
    let this = runtime()?;
    let there = kind.clone();
    let far = move || async move { far(there, load, TcpStream::from_std(sockets.1)?).await };
    let near = async { near(kind.clone(), load, TcpStream::from_std(sockets.0)?, lasts).await };
    if threads == 1 {
        let (figures, result) = this.block_on(async { tokio::join!(near, far()) });
        result?;
        return figures;
    }
    let (ended, ending) = oneshot::channel();
    thread::scope(|scope| {
        let other = scope.spawn(move || {
            let result = runtime().and_then(|runtime| runtime.block_on(far()));
            // Nobody waits for it who has failed.
            let _ = ended.send(());
            result
        });
        let figures = this.block_on(async {
            let figures = near.await;
            // Sessions need somebody to answer until both ends are done.
            let _ = ending.await;
            figures
        });
        other.join().map_err(|_| "the other end panicked")??;
        figures
    })
}

fn median(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (
        values[values.len() / 2],
        values[0],
        values[values.len() - 1],
    )
}

/// What the figures of a kind are, over all runs, beside those of the first two kinds in the same run.
fn row(name: &str, figure: usize, of: &[Figures], tcp: &[Figures], tls: &[Figures]) {
    let column = |of: &[Figures]| -> Vec<f64> { of.iter().map(|run| run[figure]).collect() };
    let (middle, least, most) = median(column(of));
    let ratio = |to: &[Figures]| {
        let pairs = column(of).into_iter().zip(column(to));
        median(pairs.map(|(this, that)| this / that).collect())
    };
    let (tcp, tls) = (ratio(tcp), ratio(tls));
    println!(
        "  {name:16} {middle:9.1} {:19} {:5.2} {:13} {:5.2} {:13}",
        format!("({least:.1} to {most:.1})"),
        tcp.0,
        format!("({:.2} to {:.2})", tcp.1, tcp.2),
        tls.0,
        format!("({:.2} to {:.2})", tls.1, tls.2),
    );
}

fn run(runs: usize, lasts: Duration, only: &str, loads: &[Load]) -> Result<(), BoxError> {
    let mut kinds = kinds();
    let compared = kinds.split_off(2);
    kinds.extend(compared.into_iter().filter(|(name, _)| name.contains(only)));
    for (load, threads) in loads.iter().flat_map(|load| [(*load, 1), (*load, 2)]) {
        let mut figures = vec![Vec::new(); kinds.len()];
        for _ in 0..runs {
            for ((_, kind), figures) in kinds.iter().zip(&mut figures) {
                figures.push(measure(kind, load, threads, lasts)?);
            }
        }
        let titles: &[&str] = match load {
            Load::Bulk => &["bulk, MiB/s"],
            Load::Echo => &["echo, µs, median", "echo, µs, 99th percentile"],
        };
        for (figure, title) in titles.iter().enumerate() {
            println!("{title}; threads: {threads}");
            println!(
                "  {:16} {:>9} {:19} {:19} {:19}",
                "", "median", "(spread)", "to TCP", "to tokio-rustls"
            );
            for ((name, _), of) in kinds.iter().zip(&figures) {
                row(name, figure, of, &figures[0], &figures[1]);
            }
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)
    };
    let runs = option("--runs").map_or(Ok(5), |runs| runs.parse());
    let secs = option("--secs").map_or(Ok(0.4), |secs| secs.parse());
    let only = option("--only").map_or("", String::as_str);
    let loads = match option("--load").map(String::as_str) {
        None => Ok(&[Load::Bulk, Load::Echo][..]),
        Some("bulk") => Ok(&[Load::Bulk][..]),
        Some("echo") => Ok(&[Load::Echo][..]),
        Some(_) => Err(()),
    };
    let (Ok(runs), Ok(secs), Ok(loads)) = (runs, secs, loads) else {
        eprintln!("--runs takes a number, --secs one of seconds, --load bulk or echo");
        return ExitCode::FAILURE;
    };
    match run(1.max(runs), Duration::from_secs_f64(secs), only, loads) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
