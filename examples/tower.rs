//! A stack of Tower's layers that dials one server over several paths, while every link is cut after 20 ms and one of the paths dies.
//!
//! ```text
//! cargo run --example tower
//! ```

use std::{
    error::Error,
    future::{Ready, ready},
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, split},
    net::TcpStream,
    runtime::Runtime,
    time::timeout,
};
use tower::{ServiceBuilder, ServiceExt, retry::Policy, service_fn};
use unbroken::{Config, Listener, ResumableLayer, ResumableTransport, TcpConnector};

#[path = "support/cuts.rs"]
mod cuts;

/// Every message waits for its echo.
const MESSAGES: u32 = 6_000;

/// The ways to the server, by name, and how many links each has carried.
type Paths = Arc<[(&'static str, SocketAddr, AtomicU32); 3]>;

/// Dials the first path that answers within half a second.
async fn first_to_answer(paths: Paths) -> io::Result<TcpStream> {
    let mut failed = io::ErrorKind::NetworkUnreachable.into();
    for (_, addr, links) in paths.iter() {
        let dial = TcpConnector::new().oneshot(*addr);
        match timeout(Duration::from_millis(500), dial).await {
            Ok(Ok(link)) => {
                links.fetch_add(1, Relaxed);
                return Ok(link);
            }
            Ok(Err(error)) => failed = error,
            Err(late) => failed = late.into(),
        }
    }
    Err(failed)
}

/// Dials again at once, so many times.
#[derive(Clone)]
struct Again(u32);

impl<Target: Clone, Link, E> Policy<Target, Link, E> for Again {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Target, result: &mut Result<Link, E>) -> Option<Ready<()>> {
        let left = self.0.checked_sub(1).filter(|_| result.is_err())?;
        self.0 = left;
        Some(ready(()))
    }

    fn clone_request(&mut self, target: &Target) -> Option<Target> {
        Some(target.clone())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut listener = Listener::bind("127.0.0.1:0", Config::new()).await?;
    let server = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((transport, _peer)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reading, mut writing) = split(transport);
                copy(&mut reading, &mut writing).await
            });
        }
    });

    // Nobody is at the end of the cable. The Wi-Fi has a runtime of its own, so that it can be switched off.
    let wifi_router = Runtime::new()?;
    let life = Duration::from_millis(20);
    let (wifi, cuts_of_wifi) = wifi_router.spawn(cuts::before(server, life)).await??;
    let (lte, cuts_of_lte) = cuts::before(server, life).await?;
    let cable = SocketAddr::from(([127, 0, 0, 1], 1));
    let paths = Paths::new([
        ("cable", cable, AtomicU32::new(0)),
        ("Wi-Fi", wifi, AtomicU32::new(0)),
        ("LTE", lte, AtomicU32::new(0)),
    ]);

    let connect = ServiceBuilder::new()
        // Above the session: for its opening, the first dial and the handshake.
        .timeout(Duration::from_secs(10))
        .layer(ResumableLayer::new(Config::new()))
        // Below it: for the dial of each link.
        .retry(Again(2))
        .concurrency_limit(8)
        .buffer(8)
        .rate_limit(500, Duration::from_secs(1))
        .timeout(Duration::from_secs(5))
        .service(service_fn(first_to_answer));
    let mut transport: ResumableTransport = connect.oneshot(Arc::clone(&paths)).await?;

    echo(&mut transport, 0..MESSAGES / 2).await?;
    wifi_router.shutdown_background();
    echo(&mut transport, MESSAGES / 2..MESSAGES).await?;
    transport.shutdown().await?;

    let cuts = cuts_of_wifi.count() + cuts_of_lte.count();
    println!("{MESSAGES} messages came back in order, and {cuts} links were cut");
    for (name, _, links) in paths.iter() {
        println!("{name} carried {} links", links.load(Relaxed));
    }
    Ok(())
}

async fn echo(transport: &mut ResumableTransport, numbers: std::ops::Range<u32>) -> io::Result<()> {
    for number in numbers {
        let message = number.to_be_bytes().repeat(64);
        transport.write_all(&message).await?;
        transport.flush().await?;
        let mut echoed = vec![0; message.len()];
        transport.read_exact(&mut echoed).await?;
        assert_eq!(echoed, message);
    }
    Ok(())
}
