//! Peers that do wrong, over real sockets: whatever comes, the server goes on serving, and no file descriptor stays behind.

#![cfg(all(feature = "client", feature = "server", target_os = "linux"))]

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, split},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use unbroken::{Config, Listener, Security, Snet, connect, protocol::snet::Opened};

#[path = "../support/raw_native.rs"]
mod raw_native;
#[path = "../support/raw_peer.rs"]
mod raw_peer;
#[path = "../support/setup_clear.rs"]
mod setup;

mod client;
mod frames;
mod native;
mod server;

/// After how long a test counts as hung.
const HUNG: Duration = Duration::from_secs(60);

/// File descriptors are the process's, so one test at a time has it to itself.
static ALONE: Mutex<()> = Mutex::new(());

fn alone<F: Future<Output = ()>>(test: F) {
    let _guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime
        .block_on(async { timeout(HUNG, test).await })
        .expect("the test does not hang");
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .expect("Linux has it")
        .count()
}

/// Waits until no more files are open than there were.
async fn settles(base: usize) {
    let began = Instant::now();
    while open_files() > base {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{} files are open, {base} were before",
            open_files()
        );
        sleep(Duration::from_millis(5)).await;
    }
}

fn config() -> Config {
    native_config().snet(Snet::rc4().silence(None))
}

/// The same for a client that speaks native.
fn native_config() -> Config {
    Config::new()
        .security(Security::none())
        .handshake_timeout(Duration::from_secs(5))
}

/// Echoes, each session in a task.
struct Echo {
    addr: SocketAddr,
    /// Of a client.
    config: Config,
    /// Files that are open when no link is.
    base: usize,
}

impl Echo {
    async fn start(config: Config) -> Self {
        let mut listener = Listener::bind((Ipv4Addr::LOCALHOST, 0), config.clone())
            .await
            .expect("a port");
        let addr = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            loop {
                let (transport, _) = listener.accept().await.expect("the listener goes on");
                tokio::spawn(async move {
                    let (mut reading, mut writing) = split(transport);
                    copy(&mut reading, &mut writing).await
                });
            }
        });
        Self {
            addr,
            config,
            base: open_files(),
        }
    }

    /// The same, for clients that speak native; the server takes snet as well.
    async fn start_native(config: Config) -> Self {
        let echo = Self::start(config).await;
        Self {
            config: native_config(),
            ..echo
        }
    }

    async fn link(&self) -> TcpStream {
        let link = TcpStream::connect(self.addr)
            .await
            .expect("the port is open");
        link.set_nodelay(true).expect("an option of TCP");
        link
    }

    /// A raw client's session, with its link. Nothing is encrypted that way: the echo is of what was sent.
    async fn session(&self) -> (TcpStream, Opened) {
        let mut link = self.link().await;
        let opened = raw_peer::open(&mut link).await.expect("a session");
        (link, opened)
    }

    /// Sees that a fresh client is served, and that nothing stays open.
    async fn still_serves(&self) {
        let mut client = connect(self.addr, self.config.clone())
            .await
            .expect("a fresh client is let in");
        for length in [1, 1000, 100_000] {
            let bytes: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            client.write_all(&bytes).await.expect("writing");
            client.flush().await.expect("writing");
            let mut echo = vec![0; length];
            client.read_exact(&mut echo).await.expect("reading");
            assert!(echo == bytes, "the echo is spoilt");
        }
        drop(client);
        settles(self.base).await;
    }
}

/// Sees that the server closes a link, without a byte.
async fn closes_silently(link: &mut TcpStream, what: &str) {
    let mut byte = [0];
    match timeout(Duration::from_secs(3), link.read(&mut byte)).await {
        Ok(Ok(0) | Err(_)) => {}
        Ok(Ok(_)) => panic!("{what}: an answer, {byte:?}"),
        Err(_) => panic!("{what}: the link is kept"),
    }
}

/// What an echo of raw bytes through a server with one key gives back: the server decrypts, and encrypts again further on.
async fn echoes(link: &mut TcpStream, count: usize) {
    let mut bytes = vec![7; count];
    link.write_all(&bytes).await.expect("writing");
    timeout(Duration::from_secs(3), link.read_exact(&mut bytes))
        .await
        .expect("an echo")
        .expect("reading");
}
