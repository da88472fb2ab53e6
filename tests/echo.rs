//! Echoes over real sockets, through a proxy that breaks their links: every message comes back whole, once and in order.
//!
//! The faults and the messages are drawn from a seed, which is printed; `UNBROKEN_SEED` sets it.

#![cfg(all(feature = "client", feature = "server"))]

use std::{
    io,
    net::Ipv4Addr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use cutting_proxy::{BUFFERING, Close, CuttingProxy, Faults, SEND_OVERSHOOT, Stats};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    task::JoinSet,
    time::{sleep, timeout},
};
use unbroken::{
    Config, Error, Handle, LinkState, Listener, ResumableTransport, Security, Snet, connect,
};

#[path = "support/cutting_proxy.rs"]
mod cutting_proxy;

/// N: sent bytes that each end keeps.
const HISTORY: usize = 1 << 20;

/// Most bytes in each of SO_SNDBUF and SO_RCVBUF of both ends.
const SOCKET_BUFFER: usize = 64 << 10;

// What a cut can lose in one direction: the sender's send buffer with its overshoot, the proxy, the receiver's receive buffer.
const _: () = assert!(2 * SOCKET_BUFFER + SEND_OVERSHOOT + BUFFERING <= HISTORY / 2);

/// The longest message, in bytes.
const LONGEST: usize = 64 << 10;

/// Most messages are at most this long.
const USUAL: usize = 256;

/// Of a message: its length and its number, 4 bytes each.
const HEADER: usize = 8;

/// Until there is a session, a link that is cut is the caller's to dial again, after this time.
const FIRST_REDIAL: Duration = Duration::from_millis(5);

/// How often a condition that nothing announces is looked at.
const POLL: Duration = Duration::from_millis(1);

/// After which time a test counts as hung.
const HUNG: Duration = Duration::from_secs(120);

/// What messages are cut out of.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut noise = vec![0; 2 * LONGEST];
    StdRng::seed_from_u64(1).fill_bytes(&mut noise);
    noise
});

fn seed() -> u64 {
    let seed = match std::env::var("UNBROKEN_SEED") {
        Ok(seed) => seed.parse().expect("UNBROKEN_SEED is a u64"),
        Err(_) => rand::random(),
    };
    println!("UNBROKEN_SEED={seed}");
    seed
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Rc4,
    Plain,
    /// In the clear.
    Native,
    #[cfg(feature = "noise")]
    Noise,
}

impl Protocol {
    /// native as it is by default.
    #[cfg(feature = "noise")]
    const DEFAULT: Self = Self::Noise;
    #[cfg(not(feature = "noise"))]
    const DEFAULT: Self = Self::Native;

    fn snet(self) -> Option<Snet> {
        match self {
            Self::Rc4 => Some(Snet::rc4()),
            Self::Plain => Some(Snet::plain()),
            _ => None,
        }
    }

    fn security(self) -> Security {
        match self {
            #[cfg(feature = "noise")]
            Self::Noise => Security::anonymous(),
            _ => Security::none(),
        }
    }

    /// How many bytes the handshake of a resume has in a direction at most; native's with the first frames.
    fn early_bytes(self) -> u64 {
        match self {
            Self::Rc4 | Self::Plain => 64,
            Self::Native => 160,
            #[cfg(feature = "noise")]
            Self::Noise => 256,
        }
    }
}

/// A link that is silent for longer is doubted or given up, if that is asked for.
fn config(protocol: Protocol, silence: impl Into<Option<Duration>>) -> Config {
    let config = Config::new().security(protocol.security());
    let config = match (protocol.snet(), silence.into()) {
        (Some(snet), silence) => {
            let snet = snet.history(HISTORY).socket_buffer(SOCKET_BUFFER);
            config.snet(match silence {
                Some(silence) => snet.silence(silence),
                None => snet,
            })
        }
        (None, Some(silence)) => config.window(HISTORY).keepalive(silence / 2, silence),
        (None, None) => config.window(HISTORY),
    };
    config
        .retry(Duration::from_millis(2), Duration::from_millis(50))
        .handshake_timeout(Duration::from_secs(2))
}

/// A stream of messages, the same for its writer and for its reader.
struct Messages {
    rng: StdRng,
    number: u32,
}

impl Messages {
    fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            number: 0,
        }
    }

    /// Header and content.
    fn next(&mut self) -> Vec<u8> {
        let length = match self.number {
            0 => 1,
            1 => LONGEST,
            _ if self.rng.random_ratio(1, 100) => self.rng.random_range(1..=LONGEST),
            _ => self.rng.random_range(1..=USUAL),
        };
        let from = self.rng.random_range(0..LONGEST);
        let mut message = Vec::with_capacity(HEADER + length);
        message.extend((length as u32).to_le_bytes());
        message.extend(self.number.to_le_bytes());
        message.extend(&NOISE[from..from + length]);
        self.number += 1;
        message
    }
}

/// A client's transport with the messages on their way through it.
struct Client {
    handle: Handle,
    reading: ReadHalf<ResumableTransport>,
    writing: WriteHalf<ResumableTransport>,
    sent: Messages,
    expected: Messages,
}

impl Client {
    /// Opens a session, however many links that takes.
    async fn open(proxy: &CuttingProxy, config: &Config, seed: u64) -> Self {
        let transport = loop {
            match connect(proxy.addr(), config.clone()).await {
                Ok(transport) => break transport,
                Err(Error::Dial(_) | Error::Link(_) | Error::HandshakeTimeout) => {
                    sleep(FIRST_REDIAL).await;
                }
                Err(error) => panic!("cannot open a session: {error}"),
            }
        };
        let handle = transport.handle();
        let (reading, writing) = split(transport);
        Self {
            handle,
            reading,
            writing,
            sent: Messages::new(seed),
            expected: Messages::new(seed),
        }
    }

    async fn send(&mut self) -> io::Result<()> {
        self.writing.write_all(&self.sent.next()).await?;
        self.writing.flush().await
    }

    async fn receive(&mut self) -> io::Result<()> {
        receive(&mut self.reading, &mut self.expected).await
    }

    async fn ping_pong(&mut self) {
        // The history takes the longest message whole, so sending does not wait for the echo to be read.
        self.send().await.expect("sends");
        self.receive().await.expect("receives");
    }

    /// Sends `count` messages as fast as the session takes them, and reads their echoes at the same time.
    async fn pipeline(self, count: u32) -> Handle {
        let Self {
            handle,
            mut reading,
            mut writing,
            mut sent,
            mut expected,
        } = self;
        let writer = tokio::spawn(async move {
            for _ in 0..count {
                writing.write_all(&sent.next()).await?;
            }
            writing.flush().await.map(|()| writing)
        });
        let reader = tokio::spawn(async move {
            for _ in 0..count {
                receive(&mut reading, &mut expected).await?;
            }
            io::Result::Ok(reading)
        });
        let (writer, reader) = tokio::join!(writer, reader);
        writer.expect("the writer's task").expect("writes");
        reader.expect("the reader's task").expect("reads");
        handle
    }
}

/// Reads a message and compares it with the one expected.
async fn receive(
    reading: &mut ReadHalf<ResumableTransport>,
    expected: &mut Messages,
) -> io::Result<()> {
    let number = expected.number;
    let expected = expected.next();
    let mut message = vec![0; expected.len()];
    reading.read_exact(&mut message).await?;
    // The header first: it says what came instead.
    assert_eq!(message[..HEADER], expected[..HEADER], "message {number}");
    assert!(message == expected, "the content of message {number}");
    Ok(())
}

/// Echoes everything on every session, for ever. A session that ends is a failure, but for the end that native tells of: that of a
/// client which has had everything.
async fn serve(mut listener: Listener, told: bool) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (transport, _) = accepted.expect("the listener works");
                sessions.spawn(async move {
                    let (mut reading, mut writing) = split(transport);
                    tokio::io::copy(&mut reading, &mut writing).await
                });
            }
            Some(ended) = sessions.join_next() => match ended {
                Ok(Ok(_)) if told => {}
                ended => panic!("an echo ended: {ended:?}"),
            },
        }
    }
}

/// Runs `client` against a server behind a proxy of these faults. A hang fails.
async fn behind_proxy<T>(
    protocol: Protocol,
    config: &Config,
    faults: Faults,
    client: impl AsyncFnOnce(&Arc<CuttingProxy>) -> T,
) -> (T, Stats) {
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0), config.clone())
        .await
        .expect("a free port");
    let addr = listener.local_addr().expect("its address");
    let proxy = CuttingProxy::start(addr, faults).await.expect("a proxy");
    let proxy = Arc::new(proxy);
    tokio::select! {
        () = serve(listener, protocol.snet().is_none()) => unreachable!("it serves for ever"),
        done = timeout(HUNG, client(&proxy)) => match done {
            Ok(done) => (done, proxy.stats()),
            Err(_) => panic!("not done after {HUNG:?}: {:?}", proxy.stats()),
        },
    }
}

/// Waits until `condition` holds.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        sleep(POLL).await;
    }
}

/// Waits until the session has been resumed `count` times.
async fn until_resumed(handle: &Handle, count: u64) {
    until(|| handle.stats().resumes >= count).await;
}

/// Makes tests of functions that take the [`Protocol`], over snet with RC4, over native in the clear and under Noise.
macro_rules! over_both {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            use super::Protocol;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_snet() {
                super::$name(Protocol::Rc4).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_native() {
                super::$name(Protocol::Native).await;
            }

            #[cfg(feature = "noise")]
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_noise() {
                super::$name(Protocol::Noise).await;
            }
        }
    )*};
}

over_both!(
    two_cuts_in_quick_succession_lose_nothing,
    cuts_during_the_resume_handshake_only_cost_another_attempt,
    what_is_written_in_an_outage_arrives_after_it,
    a_link_that_goes_silent_is_replaced,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundred_thousand_messages_survive_hundreds_of_cuts() {
    const MESSAGES: u32 = 100_000;
    /// With each of the two ciphers of snet, and over native.
    const SESSIONS: u32 = 4;
    let seed = seed();
    // A dead link is doubted after this; the echoes never pause for so long.
    let silence = Duration::from_millis(500);
    let run = async |protocol: Protocol, seed: u64| {
        let config = config(protocol, silence);
        let faults = Faults {
            cut_bytes: Some(96 << 10),
            outage: 0.03,
            outage_for: Duration::from_millis(100),
            early_bytes: protocol.early_bytes(),
            ..Faults::harsh(seed, Duration::from_millis(150))
        };
        let clients = async |proxy: &Arc<CuttingProxy>| {
            let mut sessions = JoinSet::new();
            for session in 0..SESSIONS {
                let (proxy, config) = (proxy.clone(), config.clone());
                sessions.spawn(async move {
                    let seed = seed.wrapping_add(u64::from(session));
                    let client = Client::open(&proxy, &config, seed).await;
                    client.pipeline(MESSAGES / SESSIONS / 2).await
                });
            }
            let handles = sessions.join_all().await;
            let stats = handles.iter().map(Handle::stats);
            stats.fold((0, 0), |(resumes, replayed), stats| {
                (resumes + stats.resumes, replayed + stats.replayed)
            })
        };
        behind_proxy(protocol, &config, faults, clients).await
    };
    let (rc4, plain, native) = tokio::join!(
        run(Protocol::Rc4, seed),
        run(Protocol::Plain, !seed),
        run(Protocol::DEFAULT, seed.rotate_left(32)),
    );
    for (cipher, ((resumes, replayed), stats)) in
        [("RC4", rc4), ("plain", plain), ("native", native)]
    {
        println!("{cipher}: {resumes} resumes, {replayed} bytes replayed upwards, {stats:?}");
        assert!(stats.cut >= 100, "{cipher}: {} cuts", stats.cut);
        assert!(resumes >= 100, "{cipher}: {resumes} resumes");
        assert!(replayed > 0, "{cipher}");
    }
}

async fn two_cuts_in_quick_succession_lose_nothing(protocol: Protocol) {
    const ROUNDS: u64 = 100;
    let seed = seed();
    let config = config(protocol, None);
    behind_proxy(protocol, &config, Faults::none(), async |proxy| {
        let mut client = Client::open(proxy, &config, seed).await;
        let close = |reset| if reset { Close::Reset } else { Close::Fin };
        for round in 0..ROUNDS {
            let resumes = client.handle.stats().resumes;
            client.send().await.expect("sends");
            proxy.cut_now(close(round % 2 == 0));
            until_resumed(&client.handle, resumes + 1).await;
            // The client has just sent its proof: neither it nor any of the replay need have reached the server.
            proxy.cut_now(close(round % 4 < 2));
            client.receive().await.expect("receives");
            until_resumed(&client.handle, resumes + 2).await;
        }
    })
    .await;
}

async fn cuts_during_the_resume_handshake_only_cost_another_attempt(protocol: Protocol) {
    const MESSAGES: u32 = 40;
    const RESUMES: u64 = 100;
    let seed = seed();
    // A link may go silent too, in its handshake or after it.
    let config =
        config(protocol, Duration::from_millis(300)).handshake_timeout(Duration::from_millis(500));
    // Four links of five are cut within the first bytes of a direction. snet's handshake of a resume has 57 bytes up and 24 down,
    // native's 108 and 60, and under Noise 160 and 110.
    let faults = Faults {
        early: 0.8,
        early_bytes: protocol.early_bytes(),
        cut_bytes: Some(4 << 10),
        outage_for: Duration::from_millis(50),
        ..Faults::harsh(seed, Duration::from_millis(50))
    };
    let (resumes, stats) = behind_proxy(protocol, &config, faults, async |proxy| {
        let mut client = Client::open(proxy, &config, seed).await;
        let mut messages = 0;
        while messages < MESSAGES || client.handle.stats().resumes < RESUMES {
            client.ping_pong().await;
            messages += 1;
        }
        client.handle.stats().resumes
    })
    .await;
    println!("{resumes} resumes, {stats:?}");
    let failed = stats.accepted - resumes;
    assert!(
        failed >= RESUMES / 4,
        "{failed} of {} handshakes were cut",
        stats.accepted
    );
}

async fn what_is_written_in_an_outage_arrives_after_it(protocol: Protocol) {
    const ROUNDS: u64 = 20;
    let seed = seed();
    let config = config(protocol, None);
    behind_proxy(protocol, &config, Faults::none(), async |proxy| {
        let mut client = Client::open(proxy, &config, seed).await;
        for round in 0..ROUNDS {
            let refused = proxy.stats().refused;
            proxy.set_refusing(true);
            proxy.cut_now(Close::Reset);
            // Twice refused: the backoff has begun.
            until(|| proxy.stats().refused >= refused + 2).await;
            let state = client.handle.state();
            assert!(
                matches!(state, LinkState::Reconnecting { attempt: 2.., .. }),
                "{state:?}"
            );
            // The flush is done at once, for the session has the bytes.
            client.send().await.expect("sends");
            client.send().await.expect("sends");
            proxy.set_refusing(false);
            client.receive().await.expect("receives");
            client.receive().await.expect("receives");
            assert_eq!(client.handle.stats().resumes, round + 1);
        }
    })
    .await;
}

async fn a_link_that_goes_silent_is_replaced(protocol: Protocol) {
    const SILENCES: u64 = 15;
    let seed = seed();
    let config = config(protocol, Duration::from_millis(100));
    // No link is closed: each just stops, for longer than the test may last.
    let faults = Faults {
        cut_every: Some(Duration::from_millis(50)),
        silent: 1.0,
        silent_for: 2 * HUNG,
        seed,
        ..Faults::none()
    };
    let (resumes, stats) = behind_proxy(protocol, &config, faults, async |proxy| {
        let mut client = Client::open(proxy, &config, seed).await;
        while client.handle.stats().resumes < SILENCES || proxy.stats().silenced < SILENCES {
            client.ping_pong().await;
        }
        client.handle.stats().resumes
    })
    .await;
    println!("{resumes} resumes, {stats:?}");
    assert_eq!(stats.cut, 0);
}
