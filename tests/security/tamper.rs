//! Whatever is changed on the way: what is read is what was written, or the link is replaced.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::io::AsyncReadExt;
use tower::ServiceExt;
use unbroken::{Connector, ResumableTransport};

use super::{
    choices::Fitting,
    memory_link::{Client, Server, Side},
    memory_net::{Net, ROOMY, expect, pattern, send, until, within},
    path::{Attack, Path, What},
};

/// Bytes of each direction.
const STREAM: usize = 6000;

/// The first bytes of a link from each side, which are its handshake in all securities: on open, and on resume. The client's up to
/// CONFIRM's end, the server's up to where the records begin.
struct Lengths {
    handshake: [[usize; 2]; 2],
    /// Of the whole links.
    whole: Vec<[usize; 2]>,
}

/// How a run went.
struct Ran {
    hit: bool,
    links: usize,
    passed: Vec<[usize; 2]>,
    /// The session did not open at first.
    reopened: bool,
}

/// Half of either stream, in pieces.
async fn half(from: &mut ResumableTransport, to: &mut ResumableTransport, bytes: &[u8]) {
    let sending = async {
        for piece in bytes.chunks(bytes.len() / 3) {
            send(from, piece).await;
        }
    };
    tokio::join!(sending, expect(to, bytes));
}

/// A session that moves both streams over two links at least, the first of which is cut half-way.
async fn run(fitting: Fitting, attack: Option<Attack>) -> Ran {
    let quick = |config: unbroken::Config| {
        config
            .keepalive(Duration::from_secs(1), Duration::from_secs(2))
            .handshake_timeout(Duration::from_secs(2))
            .retry(Duration::from_millis(10), Duration::from_millis(100))
    };
    let mut net = Net::new(&quick(fitting.server()), ROOMY);
    let path = Path::new(net.dialer(), attack);
    let connector = Connector::new(path.clone(), quick(fitting.client()));
    let mut reopened = false;
    let mut client = match within("opening", connector.clone().oneshot(())).await {
        Ok(client) => client,
        Err(_) => {
            assert!(path.hit(), "nothing else lets it fail");
            reopened = true;
            let again = within("opening again", connector.oneshot(())).await;
            again.expect("the attack is over")
        }
    };
    let mut server = within("the session", net.session()).await;
    let (up, down) = (pattern(1, STREAM), pattern(2, STREAM));
    let middle = STREAM / 2;
    half(&mut client, &mut server, &up[..middle]).await;
    half(&mut server, &mut client, &down[..middle]).await;
    let links = path.links();
    path.cut();
    until("another link", || (path.links() > links).then_some(())).await;
    half(&mut client, &mut server, &up[middle..]).await;
    half(&mut server, &mut client, &down[middle..]).await;
    let ended = async {
        let (a, b) = tokio::join!(end(&mut client), end(&mut server));
        a && b
    };
    assert!(within("the ends", ended).await, "more than was written");
    Ran {
        hit: path.hit(),
        links: path.links(),
        passed: path.passed(),
        reopened,
    }
}

/// Says that nothing more comes, and sees that nothing does from the other end.
async fn end(transport: &mut ResumableTransport) -> bool {
    use tokio::io::AsyncWriteExt;
    transport.shutdown().await.expect("all has arrived");
    transport.read(&mut [0]).await.expect("an end in order") == 0
}

/// How long handshakes are, by the tables of docs/PROTOCOL.md.
fn handshakes(fitting: Fitting) -> [[usize; 2]; 2] {
    let in_front = match fitting {
        Fitting::Anonymous => 32,
        Fitting::Psk | Fitting::ServerKey => 48,
        Fitting::Mutual => 96,
    };
    // Prelude, length, key and tags, frame; then CONFIRM as a record.
    let client = |frame: usize| 16 + 2 + in_front + frame + 2 + 44 + 16;
    let server = |frame: usize| 2 + 32 + frame + 16;
    [
        [client(4 + 8), server(4 + 64)],
        [client(4 + 44), server(4 + 56)],
    ]
}

async fn lengths(fitting: Fitting) -> Lengths {
    let ran = run(fitting, None).await;
    assert!(!ran.reopened);
    assert_eq!(ran.links, 2, "nothing else replaces a link");
    let handshake = handshakes(fitting);
    for (handshake, whole) in handshake.iter().zip(&ran.passed) {
        assert!(
            handshake
                .iter()
                .zip(whole)
                .all(|(part, whole)| part < whole)
        );
    }
    Lengths {
        handshake,
        whole: ran.passed,
    }
}

/// In its handshake, every attack has the link replaced.
async fn in_the_handshakes(fitting: Fitting, step: usize, what: impl Fn(usize) -> What) {
    let lengths = lengths(fitting).await;
    for (link, handshake) in lengths.handshake.into_iter().enumerate() {
        for (from, len) in [Client, Server].into_iter().zip(handshake) {
            for offset in (0..len).step_by(step) {
                let attack = Attack {
                    link,
                    from,
                    offset,
                    what: what(offset),
                };
                let ran = run(fitting, Some(attack)).await;
                assert!(ran.hit, "{attack:?}");
                assert!(ran.links > 2, "{attack:?} went unnoticed");
            }
        }
    }
}

/// Anywhere on the links, at places that are drawn.
async fn anywhere(fitting: Fitting, times: usize) {
    let seed = match std::env::var("UNBROKEN_SEED") {
        Ok(seed) => seed.parse().expect("UNBROKEN_SEED is a u64"),
        Err(_) => rand::random(),
    };
    println!("UNBROKEN_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let lengths = lengths(fitting).await;
    let mut hits = 0;
    for _ in 0..times {
        let link = rng.random_range(0..2);
        let from: Side = if rng.random() { Client } else { Server };
        let count = rng.random_range(1..200);
        let attack = Attack {
            link,
            from,
            offset: rng.random_range(0..lengths.whole[link][from as usize]),
            what: match rng.random_range(0..6) {
                0 => What::Flip(1 << rng.random_range(0..8)),
                1 => What::Drop(count),
                2 => What::Repeat(count),
                3 => What::Swap(count),
                4 => What::End,
                _ => What::EndHere,
            },
        };
        hits += usize::from(run(fitting, Some(attack)).await.hit);
    }
    assert!(hits > times / 2, "{hits} of {times} attacks came about");
}

/// Makes tests of each security, so that they run beside each other.
macro_rules! under_each {
    ($($name:ident: $security:expr;)*) => {$(
        mod $name {
            use super::{What, super::choices::Fitting};

            #[tokio::test(start_paused = true)]
            async fn a_changed_byte_of_a_handshake_costs_the_link_wherever_it_is() {
                super::in_the_handshakes($security, 1, |offset| What::Flip(1 << (offset % 8))).await;
            }

            #[tokio::test(start_paused = true)]
            async fn a_handshake_that_is_cut_short_costs_the_link_wherever_it_is() {
                super::in_the_handshakes($security, 2, |_| What::End).await;
                super::in_the_handshakes($security, 5, |_| What::EndHere).await;
            }

            #[tokio::test(start_paused = true)]
            async fn bytes_of_a_handshake_that_are_lost_or_come_twice_cost_the_link() {
                super::in_the_handshakes($security, 7, |offset| What::Drop(1 + offset % 3)).await;
                super::in_the_handshakes($security, 7, |offset| What::Repeat(1 + offset % 3)).await;
            }

            #[tokio::test(start_paused = true)]
            async fn whatever_happens_on_the_way_the_streams_are_what_was_written() {
                super::anywhere($security, 150).await;
            }
        }
    )*};
}

under_each!(
    anonymous: Fitting::Anonymous;
    psk: Fitting::Psk;
    server_key: Fitting::ServerKey;
    mutual: Fitting::Mutual;
);
