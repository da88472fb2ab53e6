//! New sessions a second, between two processes of one thread each.
//!
//! As many tasks as are asked for do this over and over: dial, open a session, send a byte, receive one, end both directions, close. The server
//! accepts, which for a session is when its listener yields it, and answers in a task for each. All that a task has done to the end
//! counts, and the ratio is to the same with TCP alone, measured right before it.
//!
//! - TCP is dialled with the sessions' own connector, so with the same socket options, and closed in order.
//! - A native session ends when both ends have said so and heard it. snet has no such end: there the client closes the link, and
//!   the server takes its end for the session's ([`Snet::fin_is_close`]), or each session would stay for the resume window.
//! - A closed connection keeps its port for a while; so the server is dialled at many of its loopback addresses, all kinds alike.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{runtime::Builder, task::JoinSet};
use unbroken::{BoxError, Config, Snet};

use crate::{
    child::{Child, answer, orders},
    csv,
    ends::{Client, Server, Stream},
    figures::{ratio, spread},
    kinds::Kind,
};

/// Addresses at which the server is dialled.
const ADDRESSES: u32 = 200;

fn config(kind: Kind) -> Config {
    match kind {
        Kind::Plain => Config::new().snet(Snet::plain().fin_is_close(true)),
        Kind::Rc4 => Config::new().snet(Snet::rc4().fin_is_close(true)),
        kind => kind.config(),
    }
}

/// The other process.
pub(crate) fn serve(kinds: &[Kind]) -> Result<(), BoxError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut orders = orders();
        let mut ports = Vec::new();
        for kind in kinds {
            let mut server = Server::bind(*kind, config(*kind)).await?;
            ports.push(server.port()?.to_string());
            tokio::spawn(async move {
                while let Ok(stream) = server.accept().await {
                    tokio::spawn(echo(stream));
                }
            });
        }
        answer(&ports.join(" "))?;
        while orders.recv().await.is_some() {}
        Ok(())
    })
}

/// A client that misses anything of it says so.
async fn echo(mut stream: Stream) -> Result<(), BoxError> {
    let mut byte = [0];
    while stream.hear(&mut byte).await? {
        stream.say(&byte).await?;
    }
    stream.shutdown().await?;
    Ok(())
}

async fn cycle(kind: Kind, client: &Client, address: u32, port: u16) -> Result<(), BoxError> {
    let [_, _, _, last] = (address % ADDRESSES).to_be_bytes();
    let addr = (Ipv4Addr::new(127, 0, 0, last + 1), port).into();
    let mut stream = client.connect(addr).await?;
    let mut byte = [7];
    stream.say(&byte).await?;
    if !stream.hear(&mut byte).await? || byte != [7] {
        return Err("the byte has not come back".into());
    }
    stream.shutdown().await?;
    if !kind.is_snet() && stream.hear(&mut byte).await? {
        return Err("a byte has come that nobody sent".into());
    }
    Ok(())
}

/// Of one kind, a second.
async fn measure(kind: Kind, port: u16, lasts: Duration, tasks: u32) -> Result<f64, BoxError> {
    let next = Arc::new(AtomicU32::new(0));
    let client = Client::new(kind, config(kind));
    let began = Instant::now();
    let mut all = JoinSet::new();
    for _ in 0..tasks {
        let (next, client) = (next.clone(), client.clone());
        all.spawn(async move {
            let mut done = 0_u32;
            while began.elapsed() < lasts {
                let address = next.fetch_add(1, Relaxed);
                cycle(kind, &client, address, port).await?;
                done += 1;
            }
            Ok::<_, BoxError>(done)
        });
    }
    let mut done = 0;
    while let Some(task) = all.join_next().await {
        done += task??;
    }
    Ok(f64::from(done) / began.elapsed().as_secs_f64())
}

pub(crate) fn run(kinds: &[Kind], runs: u32, secs: u64, tasks: u32) -> Result<(), BoxError> {
    let words: Vec<&str> = kinds.iter().map(|kind| kind.word()).collect();
    let mut server = Child::spawn(&["--role", "rate-server", "--kind", &words.join(",")])?;
    let ports = server.hear()?;
    let ports: Vec<u16> = ports.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let mut rates = vec![Vec::new(); kinds.len()];
    let runtime = Builder::new_current_thread().enable_all().build()?;
    for _ in 0..runs {
        for ((kind, port), rates) in kinds.iter().zip(&ports).zip(&mut rates) {
            let measured = measure(*kind, *port, Duration::from_secs(secs), tasks);
            rates.push(runtime.block_on(measured)?);
        }
    }
    println!(
        "opened, used and ended, a second; {tasks} at a time; a process of one thread for each end; runs: {runs} of {secs} s"
    );
    println!("  {:14} {:>9} {:19} to TCP", "", "median", "(spread)");
    let mut lines = Vec::new();
    for (kind, of) in kinds.iter().zip(&rates) {
        let (rate, to_tcp) = (spread(of.clone()), ratio(of, &rates[0]));
        println!(
            "  {:14} {:9.0} {:19} {:.2} ({:.2} to {:.2})",
            kind.name(),
            rate.median,
            format!("({:.0} to {:.0})", rate.least, rate.most),
            to_tcp.median,
            to_tcp.least,
            to_tcp.most
        );
        for (run, rate) in of.iter().enumerate() {
            lines.push(format!("{},{run},{tasks},{rate:.1}", kind.word()));
        }
    }
    let path = csv::write("sessions_rate", "kind,run,tasks,a_second", &lines)?;
    println!("  {}", path.display());
    Ok(())
}
