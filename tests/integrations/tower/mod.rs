//! Sessions over whatever Tower services dial, under whatever layers.

mod above;
mod below;
mod ends;
mod links;
mod paths;
mod stack;

use std::{
    future::{Ready, ready},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::sleep,
};
use tower::retry::Policy;
use unbroken::{Config, Listener, ResumableTransport, Security, Snet};

use crate::{
    bed::{POLL, Spoken},
    cutting_proxy::{CuttingProxy, Faults},
};

/// Cuts, where there are many.
const CUTS: u64 = 20;

/// Bytes of a message that is cut.
const MESSAGE: usize = 100_000;

/// Says nothing of silence for long, so that no link is replaced but those that are cut, and they can be counted.
fn quiet(spoken: Spoken) -> Config {
    let config = match spoken {
        Spoken::Snet => Config::new().snet(Snet::rc4()),
        Spoken::Native => Config::new().security(Security::none()),
        #[cfg(feature = "noise")]
        Spoken::Noise => Config::new(),
    };
    config.retry(Duration::from_millis(2), Duration::from_millis(50))
}

/// A server that echoes, and ways to it that are cut when they are told to be.
struct Echo {
    addr: SocketAddr,
    _serving: JoinSet<()>,
}

impl Echo {
    async fn start(config: Config) -> Self {
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0), config).await;
        let mut listener = listener.expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((transport, _)) = listener.accept().await {
                sessions.spawn(echo(transport));
            }
        });
        Self {
            addr,
            _serving: serving,
        }
    }

    /// A way to it.
    async fn path(&self, faults: Faults) -> CuttingProxy {
        CuttingProxy::start(self.addr, faults)
            .await
            .expect("a proxy")
    }
}

async fn echo(transport: ResumableTransport) {
    let (mut reading, mut writing) = tokio::io::split(transport);
    // It ends with the session.
    let _ = tokio::io::copy(&mut reading, &mut writing).await;
}

/// Such a server, and one way to it.
async fn echo_behind_a_proxy(spoken: Spoken) -> (CuttingProxy, Echo) {
    let echo = Echo::start(quiet(spoken)).await;
    (echo.path(Faults::none()).await, echo)
}

async fn round_trip(transport: &mut ResumableTransport, message: &[u8]) {
    transport.write_all(message).await.expect("writes");
    transport.flush().await.expect("flushes");
    let mut echoed = vec![0; message.len()];
    transport.read_exact(&mut echoed).await.expect("reads");
    assert_eq!(echoed, message);
}

/// Numbered messages, of up to some kilobytes, come back whole and in order.
async fn round_trips(transport: &mut ResumableTransport, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let repeats = 1 + number as usize * 37 % 500;
        round_trip(transport, &number.to_be_bytes().repeat(repeats)).await;
    }
}

/// The session is carried over a cut. Its bytes come from the same peer as before, for the keystream goes on.
async fn survives(mut transport: ResumableTransport, cut: impl FnOnce()) {
    round_trip(&mut transport, b"before").await;
    cut();
    until_resumed(&transport, 1).await;
    round_trip(&mut transport, b"after").await;
    assert_eq!(transport.handle().stats().resumes, 1);
}

/// The session is carried over many cuts, each in the middle of what is under way both ways.
async fn survives_many(mut transport: ResumableTransport, cut: impl Fn()) {
    for resumes in 1..=CUTS {
        let message: Vec<u8> = (0..MESSAGE)
            .map(|at| (at / 3 + resumes as usize) as u8)
            .collect();
        let mut echoed = vec![0; MESSAGE];
        let (mut reading, mut writing) = tokio::io::split(&mut transport);
        let (sent, received) = tokio::join!(
            async {
                writing.write_all(&message).await?;
                writing.flush().await
            },
            async {
                let (first, rest) = echoed.split_at_mut(MESSAGE / 3);
                reading.read_exact(first).await?;
                cut();
                reading.read_exact(rest).await
            }
        );
        sent.expect("writes");
        received.expect("reads");
        assert!(echoed == message, "message {resumes}");
        until_resumed(&transport, resumes).await;
    }
    assert_eq!(transport.handle().stats().resumes, CUTS);
}

async fn until_resumed(transport: &ResumableTransport, times: u64) {
    let handle = transport.handle();
    while handle.stats().resumes < times {
        sleep(POLL).await;
    }
}

/// Tries again after each of so many failures.
#[derive(Clone)]
struct Again(u32);

impl<Request: Clone, Response, E> Policy<Request, Response, E> for Again {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Request, result: &mut Result<Response, E>) -> Option<Self::Future> {
        if result.is_ok() || self.0 == 0 {
            return None;
        }
        self.0 -= 1;
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        Some(request.clone())
    }
}
