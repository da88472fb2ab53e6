//! What idle sessions take, at either end: memory, wake-ups and processor time. Each end is a process of its own with one thread, started
//! anew for each kind, so that nothing is left of the one before.
//!
//! A message of 64 bytes goes each way on every connection when it has been opened, and nothing afterwards. Memory is what a process has
//! more of than before it opened them (and after it had opened a few, for what is needed once), for each of them, and how much more that is than
//! with TCP connections that are held in the same way:
//!
//! - merely: each in its place in a `Vec`, and nobody reads;
//! - read: each in a task of its own, which waits for a byte.
//!
//! The heap is counted as it was asked for, without what the allocator adds. What is resident also holds what the allocator has not
//! given back, after the handshakes above all. Native sessions give buffers back at the next ping, so for memory the pings come every 2
//! seconds in place of 15. Wake-ups and processor time are with the defaults, and of connections that are merely held.

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::{runtime::Handle, sync::mpsc};
use unbroken::{BoxError, Config};

use crate::{
    HEAP, Role,
    child::{Child, answer, orders},
    csv,
    ends::{Client, Server, Stream},
    held::Held,
    kinds::Kind,
    usage::Usage,
};

/// Opened before anything is measured.
const FIRST: u32 = 16;
/// Opened at a time.
const OPENING: usize = 64;
const MESSAGE: usize = 64;
/// For memory, in milliseconds.
const PING: u64 = 2000;
/// Until what is measured has come to rest: for memory, twice the pings and more.
const REST: Duration = Duration::from_secs(7);
/// By default.
const DEFAULT_PING: u64 = 15_000;

fn config(kind: Kind, ping: u64) -> Config {
    let ping = Duration::from_millis(ping);
    kind.config().keepalive(ping, ping * 2)
}

/// One of the other processes.
pub(crate) fn be(role: Role, kind: Kind, held: Held, ping: u64) -> Result<(), BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match role {
            Role::IdleClient => be_client(kind, held, ping).await,
            _ => be_server(kind, held, ping).await,
        }
    })
}

fn usage() -> Result<String, BoxError> {
    let parks = Handle::current().metrics().worker_park_count(0);
    Ok(Usage::now(HEAP.allocated(), parks)?.to_string())
}

async fn be_server(kind: Kind, held: Held, ping: u64) -> Result<(), BoxError> {
    let mut orders = orders();
    let mut server = Server::bind(kind, config(kind, ping)).await?;
    answer(&server.port()?.to_string())?;
    let (outgoing, mut incoming) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok(stream) = server.accept().await {
            tokio::spawn(greet(stream, outgoing.clone()));
        }
    });
    let mut kept = Vec::new();
    loop {
        tokio::select! {
            Some(stream) = incoming.recv() => held.hold(stream, &mut kept),
            order = orders.recv() => match order.as_deref().and_then(|order| order.split_once(' ')) {
                None => return Ok(()),
                Some(("room", count)) => {
                    kept.reserve_exact(count.parse()?);
                    answer("ready")?;
                }
                Some(_) => answer(&usage()?)?,
            },
        }
    }
}

async fn greet(mut stream: Stream, greeted: mpsc::UnboundedSender<Stream>) {
    let mut message = [0; MESSAGE];
    if let Ok(true) = stream.hear(&mut message).await
        && stream.say(&message).await.is_ok()
    {
        // The process is about to end if nobody takes it.
        let _ = greeted.send(stream);
    }
}

async fn be_client(kind: Kind, held: Held, ping: u64) -> Result<(), BoxError> {
    let mut orders = orders();
    let client = Client::new(kind, config(kind, ping));
    let mut kept = Vec::new();
    while let Some(order) = orders.recv().await {
        let words: Vec<&str> = order.split(' ').collect();
        match words[..] {
            ["room", count] => {
                kept.reserve_exact(count.parse()?);
                answer("ready")?;
            }
            ["open", count, port] => {
                let (count, port): (u32, u16) = (count.parse()?, port.parse()?);
                let opening = stream::iter(0..count)
                    .map(|_| open(&client, port))
                    .buffer_unordered(OPENING);
                let opening = opening.try_for_each(|stream| {
                    held.hold(stream, &mut kept);
                    std::future::ready(Ok(()))
                });
                opening.await?;
                answer("open")?;
            }
            _ => answer(&usage()?)?,
        }
    }
    Ok(())
}

async fn open(client: &Client, port: u16) -> Result<Stream, BoxError> {
    let addr = (Ipv4Addr::LOCALHOST, port).into();
    let mut stream = client.connect(addr).await?;
    let mut message = [7; MESSAGE];
    stream.say(&message).await?;
    match stream.hear(&mut message).await? {
        true if message == [7; MESSAGE] => Ok(stream),
        _ => Err("the message has not come back".into()),
    }
}

/// Both ends of idle connections.
struct Pair {
    client: Child,
    server: Child,
    port: String,
}

impl Pair {
    fn start(kind: Kind, held: Held, ping: u64, sessions: u32) -> Result<Self, BoxError> {
        let spawn = |role| {
            let (kind, held, ping) = (kind.word(), held.word(), ping.to_string());
            Child::spawn(&[
                "--role", role, "--kind", kind, "--held", held, "--ping", &ping,
            ])
        };
        let (client, mut server) = (spawn("idle-client")?, spawn("idle-server")?);
        let port = server.hear()?;
        let mut pair = Self {
            client,
            server,
            port,
        };
        for process in [&mut pair.client, &mut pair.server] {
            process.ask(&format!("room {}", sessions + FIRST))?;
        }
        pair.open(FIRST)?;
        Ok(pair)
    }

    fn open(&mut self, count: u32) -> Result<(), BoxError> {
        self.client.ask(&format!("open {count} {}", self.port))?;
        Ok(())
    }

    /// Of the client, and of the server.
    fn usage(&mut self) -> Result<[Usage; 2], BoxError> {
        let client = self.client.ask("usage")?.parse()?;
        // Two words, as all orders to a server.
        let server = self.server.ask("usage now")?.parse()?;
        Ok([client, server])
    }
}

const ENDS: [&str; 2] = ["client", "server"];

pub(crate) fn memory(kinds: &[Kind], sessions: u32) -> Result<(), BoxError> {
    println!(
        "bytes of memory for each idle session, and beyond a TCP connection's; sessions: {sessions}; pings every {PING} ms; a process of one thread for each end"
    );
    println!(
        "  {:14} {:7} {:7} {:>9} {:>9} {:>9} {:>9}",
        "", "held", "end", "heap", "beyond", "resident", "beyond"
    );
    let mut lines = Vec::new();
    for held in [Held::Merely, Held::Read] {
        let mut tcp = None;
        for kind in kinds {
            let mut pair = Pair::start(*kind, held, PING, sessions)?;
            thread::sleep(REST);
            let before = pair.usage()?;
            pair.open(sessions)?;
            thread::sleep(REST);
            let after = pair.usage()?;
            let each = [0, 1].map(|end| {
                let more = after[end].since(before[end]);
                [more.heap, more.resident].map(|bytes| bytes / f64::from(sessions))
            });
            let tcp = *tcp.get_or_insert(each);
            for (end, name) in ENDS.iter().enumerate() {
                let [heap, resident] = each[end];
                let [tcp_heap, tcp_resident] = tcp[end];
                let (heap_beyond, resident_beyond) = (heap - tcp_heap, resident - tcp_resident);
                println!(
                    "  {:14} {:7} {name:7} {heap:9.0} {heap_beyond:9.0} {resident:9.0} {resident_beyond:9.0}",
                    kind.name(),
                    held.word(),
                );
                lines.push(format!(
                    "{},{},{name},{sessions},{heap:.1},{heap_beyond:.1},{resident:.1},{resident_beyond:.1}",
                    kind.word(),
                    held.word(),
                ));
            }
        }
    }
    let path = csv::write(
        "sessions_memory",
        "kind,held,end,sessions,heap,heap_beyond_tcp,resident,resident_beyond_tcp",
        &lines,
    )?;
    println!("  {}", path.display());
    Ok(())
}

pub(crate) fn watch(kinds: &[Kind], sessions: u32, secs: u64) -> Result<(), BoxError> {
    println!(
        "what idle sessions do in {secs} s; sessions: {sessions}; default keepalive; a process of one thread for each end"
    );
    println!(
        "  {:14} {:7} {:>9} {:>9} {:>9} {:>9} {:>11} {:>9}",
        "", "end", "CPU, ms", "of it sys", "ms/s", "voluntary", "involuntary", "parks"
    );
    let mut lines = Vec::new();
    for kind in kinds {
        let mut pair = Pair::start(*kind, Held::Merely, DEFAULT_PING, sessions)?;
        pair.open(sessions)?;
        thread::sleep(REST);
        let (before, began) = (pair.usage()?, Instant::now());
        thread::sleep(Duration::from_secs(secs));
        let (after, took) = (pair.usage()?, began.elapsed().as_secs_f64());
        for (end, name) in ENDS.iter().enumerate() {
            let used = after[end].since(before[end]);
            let (cpu, system) = (used.cpu() * 1e3, used.system * 1e3);
            let a_second = cpu / took;
            let Usage {
                voluntary,
                involuntary,
                parks,
                ..
            } = used;
            println!(
                "  {:14} {name:7} {cpu:9.0} {system:9.0} {a_second:9.2} {voluntary:9.0} {involuntary:11.0} {parks:9.0}",
                kind.name(),
            );
            lines.push(format!(
                "{},{name},{sessions},{took:.1},{cpu:.0},{system:.0},{voluntary:.0},{involuntary:.0},{parks:.0}",
                kind.word(),
            ));
        }
    }
    let path = csv::write(
        "sessions_idle",
        "kind,end,sessions,secs,cpu_ms,system_ms,voluntary,involuntary,parks",
        &lines,
    )?;
    println!("  {}", path.display());
    Ok(())
}
