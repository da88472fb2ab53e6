//! All links of thousands of sessions lost at once, between two processes of one thread each.
//!
//! In each round:
//!
//! 1. Every session's server writes a block, which lies unread in the client's socket, since the client's thread stands still until all
//!    have written.
//! 2. Every session's client writes a block. It cannot have read any acknowledgement.
//! 3. The clock starts. The client resets all connections, in a loop, which destroys what lies in them; or it has all sessions migrate.
//! 4. Every session's client writes another block. When the server has read both, it writes another one too.
//! 5. A session is back when its client has read both of the server's blocks, and so has delivered a block each way that was written
//!    after the cut; and, where it was to migrate, when that is done.
//!
//! The content of all blocks is checked at both ends. All connections come from one address.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    sync::mpsc,
    time::{sleep, timeout_at},
};
use tower::{ServiceExt, service_fn};
use unbroken::{BoxError, Config, Connector, Error, Handle, ResumableTransport};

use crate::{
    child::Child,
    csv,
    cuttable::Cutter,
    figures::{quantile, spread},
    kinds::Kind,
    pattern::{BLOCK, From, When, block, check},
    usage::processor_time,
};

/// Sessions that are opened at a time.
const OPENING: usize = 64;
/// After which a session that is not back counts for lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between rounds, for what is left to do after them.
const PAUSE: Duration = Duration::from_secs(1);

/// How sessions come by their next link.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Cut,
    Migrate,
}

/// What the server lets one address do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Limits {
    Default,
    Raised,
}

impl Limits {
    /// Beyond what any storm here comes to.
    pub(crate) fn raise(self, config: Config) -> Config {
        match self {
            Self::Default => config,
            Self::Raised => config
                .max_handshakes(100_000)
                .max_handshakes_per_address(100_000)
                .max_resumes_per_second(1_000_000)
                .max_sessions_per_address(100_000),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Raised => "raised",
        }
    }
}

struct Client {
    sessions: Vec<Session>,
    news: mpsc::UnboundedReceiver<News>,
    tell: mpsc::UnboundedSender<News>,
    server: Child,
}

struct Session {
    cutter: Arc<Cutter>,
    handle: Handle,
    writing: WriteHalf<ResumableTransport>,
}

/// What has become of a session in a round, and when.
struct News {
    session: u32,
    what: What,
    at: Instant,
}

enum What {
    /// It has read everything.
    Read,
    /// It has migrated.
    Migrated,
    /// It has stayed on the link it had, and goes on there.
    Stayed(String),
    Lost(String),
}

/// What a round came to.
#[derive(Default)]
struct Round {
    /// When each that is back was, in milliseconds, in ascending order.
    back: Vec<f64>,
    /// Those that have not migrated.
    stayed: usize,
    lost: usize,
    /// Why the first was lost, or stayed.
    why: Option<String>,
    /// Processor time that both ends took, in milliseconds.
    client_cpu: f64,
    server_cpu: f64,
    /// How long the resets themselves took, in milliseconds.
    cutting: f64,
    dials: u64,
    /// In milliseconds.
    slowest_dial: f64,
}

/// Returns whether no session was lost. One that could not migrate, and so stayed where it was, is not.
pub(crate) fn run(
    way: Way,
    kinds: &[Kind],
    limits: &[Limits],
    sessions: u32,
    rounds: u32,
) -> Result<bool, BoxError> {
    let (title, file) = match way {
        Way::Cut => ("all links cut at once", "resume_storm"),
        Way::Migrate => ("all sessions migrated at once", "resume_migrate"),
    };
    println!(
        "{title}, ms until they are back; sessions: {sessions}; a process of one thread for each end"
    );
    println!(
        "  {:14} {:8} {:>5} {:>6} {:>6} {:>5} {:>7} {:>7} {:>7} {:>7} {:>7} {:>12} {:>17}",
        "",
        "limits",
        "round",
        "back",
        "stayed",
        "lost",
        "all",
        "median",
        "p99",
        "cutting",
        "dials",
        "slowest dial",
        "client/server CPU"
    );
    let mut lines = Vec::new();
    let mut whole = true;
    for (kind, limits) in kinds
        .iter()
        .flat_map(|kind| limits.iter().map(|limits| (*kind, *limits)))
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let all = runtime.block_on(storms(way, kind, limits, sessions, rounds, &mut lines))?;
        whole &= all;
    }
    let path = csv::write(
        file,
        "kind,limits,round,sessions,back,stayed,lost,all_ms,median_ms,p90_ms,p99_ms,cutting_ms,dials,slowest_dial_ms,client_cpu_ms,server_cpu_ms",
        &lines,
    )?;
    println!("  {}", path.display());
    Ok(whole)
}

/// All rounds with the same sessions. Returns whether none was lost.
async fn storms(
    way: Way,
    kind: Kind,
    limits: Limits,
    sessions: u32,
    rounds: u32,
    lines: &mut Vec<String>,
) -> Result<bool, BoxError> {
    let (name, word) = (kind.name(), limits.word());
    let mut client = Client::open(kind, limits, sessions, rounds).await?;
    let mut all_times = Vec::new();
    let mut whole = true;
    for number in 1..=rounds {
        sleep(PAUSE).await;
        let round = client.round(way, number).await?;
        let back = round.back.len();
        let at = |part| match back {
            0 => f64::NAN,
            _ => quantile(&round.back, part),
        };
        let [all, median, p90, p99] = [1.0, 0.5, 0.9, 0.99].map(at);
        let Round {
            stayed,
            lost,
            client_cpu,
            server_cpu,
            cutting,
            dials,
            slowest_dial,
            ..
        } = round;
        let cpu = format!("{client_cpu:.0}/{server_cpu:.0}");
        println!(
            "  {name:14} {word:8} {number:5} {back:6} {stayed:6} {lost:5} {all:7.0} {median:7.0} {p99:7.0} {cutting:7.0} {dials:7} {slowest_dial:12.0} {cpu:>17}"
        );
        lines.push(format!(
            "{},{word},{number},{sessions},{back},{stayed},{lost},{all:.1},{median:.1},{p90:.1},{p99:.1},{cutting:.1},{dials},{slowest_dial:.1},{client_cpu:.0},{server_cpu:.0}",
            kind.word()
        ));
        if let Some(why) = round.why {
            println!("    of the first that stayed or was lost: {why}");
        }
        if lost > 0 {
            whole = false;
            break;
        }
        if stayed == 0 {
            all_times.push(all);
        }
    }
    if !all_times.is_empty() {
        let all = spread(all_times);
        println!(
            "  {name:14} {word:8} until all were back: {:.0} ms ({:.0} to {:.0})",
            all.median, all.least, all.most
        );
    }
    let report = client.server.ask("report")?;
    let mut report = report.splitn(3, ' ');
    let (lost, replayed) = (report.next().unwrap_or(""), report.next().unwrap_or(""));
    println!(
        "    the server has lost {lost} {}and replayed {replayed} bytes in all",
        report
            .next()
            .filter(|why| !why.is_empty())
            .map_or(String::new(), |why| format!("({why}) "))
    );
    Ok(whole && lost == "0")
}

impl Client {
    async fn open(
        kind: Kind,
        limits: Limits,
        sessions: u32,
        rounds: u32,
    ) -> Result<Self, BoxError> {
        let server = Child::spawn(&["--serve", kind.word(), "--limits", limits.word()]);
        let mut server = server?;
        let port: u16 = server.hear()?.parse()?;
        let (tell, news) = mpsc::unbounded_channel();
        let opening = stream::iter(0..sessions).map(|number| {
            let tell = tell.clone();
            async move {
                // Several addresses of the server, since each has some 28,000 ports to be dialled from, and those of cut
                // connections are not all free again at once.
                let addr = Ipv4Addr::new(127, 0, 0, (number % 8 + 1) as u8);
                let cutter = Arc::new(Cutter::default());
                let transport = connect(kind, (addr, port).into(), number, &cutter).await?;
                let handle = transport.handle();
                let (reading, writing) = split(transport);
                tokio::spawn(read_rounds(reading, number, rounds, tell));
                Ok::<_, BoxError>((
                    number,
                    Session {
                        cutter,
                        handle,
                        writing,
                    },
                ))
            }
        });
        let opened: Vec<_> = opening.buffer_unordered(OPENING).collect().await;
        let mut opened = opened.into_iter().collect::<Result<Vec<_>, _>>()?;
        opened.sort_by_key(|(number, _)| *number);
        let sessions: Vec<Session> = opened.into_iter().map(|(_, session)| session).collect();
        for session in &sessions {
            session.cutter.take_dials();
        }
        Ok(Self {
            sessions,
            news,
            tell,
            server,
        })
    }

    async fn round(&mut self, way: Way, round: u32) -> Result<Round, BoxError> {
        let before = self.processor_times()?;
        // Blocks this thread, so that nothing is read.
        self.server.ask(&format!("write {round}"))?;
        self.write(round, When::Before)?;
        let began = Instant::now();
        match way {
            Way::Cut => {
                for session in &self.sessions {
                    session.cutter.cut()?;
                }
            }
            Way::Migrate => {
                for (session, number) in self.sessions.iter().zip(0..) {
                    let (handle, tell) = (session.handle.clone(), self.tell.clone());
                    tokio::spawn(async move {
                        let what = match handle.migrate().await {
                            Ok(()) => What::Migrated,
                            Err(Error::Closed(reason)) => What::Lost(format!("{reason:?}")),
                            Err(error) => What::Stayed(error.to_string()),
                        };
                        // Nobody waits any more if this was late.
                        let _ = tell.send(News {
                            session: number,
                            what,
                            at: Instant::now(),
                        });
                    });
                }
            }
        }
        let cutting = began.elapsed().as_secs_f64() * 1e3;
        self.write(round, When::After)?;
        let mut summary = self.wait(way, began).await;
        summary.cutting = cutting;
        let after = self.processor_times()?;
        (summary.client_cpu, summary.server_cpu) =
            (1e3 * (after.0 - before.0), 1e3 * (after.1 - before.1));
        for session in &self.sessions {
            let (dials, slowest) = session.cutter.take_dials();
            summary.dials += dials;
            summary.slowest_dial = summary.slowest_dial.max(slowest as f64 / 1e3);
        }
        Ok(summary)
    }

    /// Of this end and of the other, in seconds.
    fn processor_times(&mut self) -> Result<(f64, f64), BoxError> {
        let (user, system) = processor_time()?;
        Ok((user + system, self.server.ask("cpu")?.parse()?))
    }

    /// Without waiting: a session takes as much with a link and without one.
    fn write(&mut self, round: u32, when: When) -> Result<(), BoxError> {
        for (session, number) in self.sessions.iter_mut().zip(0..) {
            let said = block(number, round, From::Client, when);
            let written = session.writing.write_all(&said).now_or_never();
            written.ok_or("a session has no room for a block")??;
        }
        Ok(())
    }

    /// Waits until all are back.
    async fn wait(&mut self, way: Way, began: Instant) -> Round {
        let each = match way {
            Way::Cut => 1,
            Way::Migrate => 2,
        };
        let mut summary = Round::default();
        let mut back = vec![(0, began); self.sessions.len()];
        let until = (began + PATIENCE).into();
        for _ in 0..back.len() * each {
            let Ok(Some(news)) = timeout_at(until, self.news.recv()).await else {
                summary.why.get_or_insert("it was not back in time".into());
                break;
            };
            let (times, last) = &mut back[news.session as usize];
            match news.what {
                What::Read | What::Migrated => {
                    *times += 1;
                    *last = news.at.max(*last);
                }
                What::Stayed(why) => {
                    summary.stayed += 1;
                    summary.why.get_or_insert(why);
                }
                What::Lost(why) => {
                    summary.why.get_or_insert(why);
                }
            }
        }
        let back = back.into_iter().filter(|(times, _)| *times == each);
        summary.back = back
            .map(|(_, at)| (at - began).as_secs_f64() * 1e3)
            .collect();
        summary.back.sort_by(f64::total_cmp);
        summary.lost = self.sessions.len() - summary.back.len() - summary.stayed;
        summary
    }
}

async fn connect(
    kind: Kind,
    addr: SocketAddr,
    number: u32,
    cutter: &Arc<Cutter>,
) -> Result<ResumableTransport, BoxError> {
    let dialling = cutter.clone();
    let dial = service_fn(move |()| dialling.clone().dial(addr));
    let connector = Connector::new(dial, kind.config());
    let mut transport = connector.oneshot(()).await?;
    transport.write_u32(number).await?;
    transport.flush().await?;
    match transport.read_u32().await? {
        same if same == number => Ok(transport),
        other => Err(format!("session {number} has reached that of {other}").into()),
    }
}

/// Reads what the server says in every round, and tells when.
async fn read_rounds(
    mut reading: ReadHalf<ResumableTransport>,
    number: u32,
    rounds: u32,
    tell: mpsc::UnboundedSender<News>,
) {
    for round in 1..=rounds {
        let read = read_round(&mut reading, number, round).await;
        let over = read.is_err();
        let what = read.map_or_else(|error| What::Lost(error.to_string()), |()| What::Read);
        // Nobody waits for a session any more that was late.
        let _ = tell.send(News {
            session: number,
            what,
            at: Instant::now(),
        });
        if over {
            return;
        }
    }
}

async fn read_round(
    reading: &mut ReadHalf<ResumableTransport>,
    number: u32,
    round: u32,
) -> io::Result<()> {
    let mut read = [0; BLOCK];
    for when in [When::Before, When::After] {
        reading.read_exact(&mut read).await?;
        check(&read, &block(number, round, From::Server, when))?;
    }
    Ok(())
}
