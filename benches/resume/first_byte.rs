//! From the cut to the first replayed byte at the application. Client and server have a thread each.
//!
//! The server writes 16 KiB, while the client's thread stands still, so that all of it lies unread in the client's socket. Then the client
//! resets the connection, which destroys it, and reads. So whatever it reads was replayed on the next link; the clock runs from before
//! the reset until the first read returns. The kinds take turns, cut by cut.
//!
//! Beside them stands what no session can do without: dialling TCP anew, to a server that writes at once.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, mpsc as blocking},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::mpsc,
    time::sleep,
};
use tower::{ServiceExt, service_fn};
use unbroken::{BoxError, Connector, Listener, ResumableTransport};

use crate::{csv, cuttable::Cutter, figures::quantile, kinds::Kind};

/// Bytes that are under way at a cut.
const UNDER_WAY: usize = 16 * 1024;
/// For what is left to do after a resume, between the measurements.
const PAUSE: Duration = Duration::from_millis(2);

/// A session, and the server's way to be told to write.
struct Cut {
    kind: Kind,
    transport: ResumableTransport,
    cutter: Arc<Cutter>,
    write: mpsc::UnboundedSender<()>,
    written: blocking::Receiver<()>,
    /// Bytes read so far.
    offset: u64,
    /// In microseconds.
    took: Vec<f64>,
}

pub(crate) fn run(kinds: &[Kind], cuts: u64) -> Result<(), BoxError> {
    let (bound, addr) = blocking::channel();
    thread::spawn(move || serve_tcp(&bound));
    let tcp = addr.recv()?;
    runtime()?.block_on(async {
        let mut sessions = Vec::new();
        for kind in kinds {
            sessions.push(open(*kind).await?);
        }
        let mut floor = Vec::new();
        for _ in 0..cuts {
            floor.push(dial(tcp).await?);
            sleep(PAUSE).await;
            for session in &mut sessions {
                session.cut().await?;
                sleep(PAUSE).await;
            }
        }
        report(sessions, floor, cuts)
    })
}

fn runtime() -> Result<Runtime, BoxError> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn serve_tcp(bound: &blocking::Sender<SocketAddr>) -> Result<(), BoxError> {
    runtime()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        bound.send(listener.local_addr()?)?;
        loop {
            let (mut tcp, _) = listener.accept().await?;
            tcp.set_nodelay(true)?;
            tcp.write_all(&[7]).await?;
        }
    })
}

async fn dial(addr: SocketAddr) -> Result<f64, BoxError> {
    let began = Instant::now();
    let mut tcp = TcpStream::connect(addr).await?;
    tcp.set_nodelay(true)?;
    tcp.read_u8().await?;
    Ok(began.elapsed().as_secs_f64() * 1e6)
}

/// Writes as often as it is told.
fn serve(
    kind: Kind,
    bound: &blocking::Sender<SocketAddr>,
    mut orders: mpsc::UnboundedReceiver<()>,
    done: &blocking::Sender<()>,
) -> Result<(), BoxError> {
    runtime()?.block_on(async {
        let mut listener = Listener::bind((Ipv4Addr::LOCALHOST, 0), kind.config()).await?;
        bound.send(listener.local_addr()?)?;
        let (mut transport, _) = listener.accept().await?;
        let mut offset = 0;
        while orders.recv().await.is_some() {
            transport.write_all(&numbered(offset)).await?;
            transport.flush().await?;
            offset += UNDER_WAY as u64;
            done.send(())?;
        }
        Ok(())
    })
}

/// The bytes of the stream from this offset on: each 8 of them are their own offset.
fn numbered(offset: u64) -> Vec<u8> {
    let words = (offset..offset + UNDER_WAY as u64).step_by(8);
    words.flat_map(u64::to_be_bytes).collect()
}

async fn open(kind: Kind) -> Result<Cut, BoxError> {
    let (bound, addr) = blocking::channel();
    let (write, orders) = mpsc::unbounded_channel();
    let (done, written) = blocking::channel();
    // The client hears of a failure as its channels close.
    thread::spawn(move || serve(kind, &bound, orders, &done));
    let addr = addr.recv()?;
    let cutter = Arc::new(Cutter::default());
    let dialling = cutter.clone();
    let dial = service_fn(move |()| dialling.clone().dial(addr));
    Ok(Cut {
        kind,
        transport: Connector::new(dial, kind.config()).oneshot(()).await?,
        cutter,
        write,
        written,
        offset: 0,
        took: Vec::new(),
    })
}

impl Cut {
    async fn cut(&mut self) -> Result<(), BoxError> {
        let before = self.transport.handle().stats();
        self.write.send(())?;
        // Without a poll of the runtime, so that nothing is taken from the link.
        self.written.recv()?;
        let began = Instant::now();
        let cut = self.cutter.cut()?;
        let mut read = vec![0; UNDER_WAY];
        let first = self.transport.read(&mut read).await?;
        let took = began.elapsed();
        self.transport.read_exact(&mut read[first..]).await?;
        let resumes = self.transport.handle().stats().resumes - before.resumes;
        if !cut || resumes != 1 || read != numbered(self.offset) {
            let name = self.kind.name();
            return Err(format!("{name}: cut: {cut}, resumes: {resumes}, or wrong bytes").into());
        }
        self.offset += UNDER_WAY as u64;
        self.took.push(took.as_secs_f64() * 1e6);
        Ok(())
    }
}

fn report(sessions: Vec<Cut>, floor: Vec<f64>, cuts: u64) -> Result<(), BoxError> {
    println!(
        "from the cut to the first replayed byte, µs; cuts of each: {cuts}; a thread for each end"
    );
    println!(
        "  {:16} {:>9} {:>9} {:>9} {:>9} {:>13} {:>13}",
        "", "median", "p90", "p99", "most", "dials", "median to TCP"
    );
    let rows = sessions.into_iter().map(|session| {
        let (dials, _) = session.cutter.take_dials();
        (session.kind, dials - 1, session.took)
    });
    let mut lines = Vec::new();
    let mut of_tcp = None;
    for (kind, dials, mut took) in [(Kind::Tcp, cuts, floor)].into_iter().chain(rows) {
        took.sort_by(f64::total_cmp);
        let [median, p90, p99, most] = [0.5, 0.9, 0.99, 1.0].map(|part| quantile(&took, part));
        let to_tcp = median / *of_tcp.get_or_insert(median);
        let name = match kind {
            Kind::Tcp => "TCP, dialled anew",
            kind => kind.name(),
        };
        println!(
            "  {name:17} {median:8.0} {p90:9.0} {p99:9.0} {most:9.0} {dials:13} {to_tcp:13.2}"
        );
        let word = kind.word();
        lines.push(format!(
            "{word},{cuts},{median:.1},{p90:.1},{p99:.1},{most:.1},{dials}"
        ));
    }
    let path = csv::write(
        "resume_first_byte",
        "kind,cuts,median_us,p90_us,p99_us,most_us,dials",
        &lines,
    )?;
    println!("  {}", path.display());
    Ok(())
}
