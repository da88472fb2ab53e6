//! The server of the storm, in a process of its own: one thread, one listener with the port's limits.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Notify, watch},
};
use unbroken::{BoxError, Listener, ResumableTransport};

use crate::{
    child::{answer, orders},
    kinds::Kind,
    pattern::{BLOCK, From, When, block, check},
    storm::Limits,
    usage::processor_time,
};

/// What has come of its sessions.
#[derive(Default)]
struct Tally {
    /// How many have written what is under way when the links are cut.
    written: AtomicU64,
    grown: Notify,
    lost: AtomicU64,
    /// Why the first was.
    why: Mutex<Option<String>>,
}

/// Serves until the process that started this one ends, or is content.
pub(crate) fn serve(kind: Kind, limits: Limits) -> Result<(), BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut orders = orders();
        let config = limits.raise(kind.config());
        let mut listener = Listener::bind("0.0.0.0:0", config).await?;
        answer(&listener.local_addr()?.port().to_string())?;
        let sessions = listener.sessions();
        let tally = Arc::new(Tally::default());
        let (begin, round) = watch::channel(0_u32);
        let accepting = tally.clone();
        tokio::spawn(async move {
            while let Ok((transport, _)) = listener.accept().await {
                tokio::spawn(serve_one(transport, round.clone(), accepting.clone()));
            }
        });
        while let Some(order) = orders.recv().await {
            match order.split_once(' ') {
                Some(("write", round)) => {
                    let expected = tally.written.load(Relaxed) + sessions.count() as u64;
                    begin.send_replace(round.parse()?);
                    while tally.written.load(Relaxed) < expected {
                        tally.grown.notified().await;
                    }
                    answer("written")?;
                }
                _ if order == "cpu" => {
                    let (user, system) = processor_time()?;
                    answer(&(user + system).to_string())?;
                }
                _ => {
                    let replayed: u64 = sessions.list().iter().map(|s| s.stats.replayed).sum();
                    let why = tally.why.lock().unwrap_or_else(PoisonError::into_inner);
                    let why = why.as_deref().unwrap_or("");
                    answer(&format!("{} {replayed} {why}", tally.lost.load(Relaxed)))?;
                }
            }
        }
        Ok(())
    })
}

async fn serve_one(transport: ResumableTransport, round: watch::Receiver<u32>, tally: Arc<Tally>) {
    if let Err(error) = converse(transport, round, &tally).await {
        tally.lost.fetch_add(1, Relaxed);
        let mut why = tally.why.lock().unwrap_or_else(PoisonError::into_inner);
        why.get_or_insert(error.to_string());
    }
}

async fn converse(
    mut transport: ResumableTransport,
    mut round: watch::Receiver<u32>,
    tally: &Tally,
) -> io::Result<()> {
    let session = transport.read_u32().await?;
    transport.write_u32(session).await?;
    transport.flush().await?;
    let mut read = [0; BLOCK];
    while round.changed().await.is_ok() {
        let now = *round.borrow_and_update();
        let say = |when| block(session, now, From::Server, when);
        transport.write_all(&say(When::Before)).await?;
        transport.flush().await?;
        tally.written.fetch_add(1, Relaxed);
        tally.grown.notify_one();
        for when in [When::Before, When::After] {
            transport.read_exact(&mut read).await?;
            check(&read, &block(session, now, From::Client, when))?;
        }
        transport.write_all(&say(When::After)).await?;
        transport.flush().await?;
    }
    Ok(())
}
