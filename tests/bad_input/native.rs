//! What a server meets of clients that speak native, up to the end of the handshake.

use std::time::Duration;

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use unbroken::{
    RejectCode,
    protocol::{
        Handshake,
        native::{Answer, Frame, Opened, SessionSecret},
    },
};

use super::{
    Echo, HUNG, alone, closes_silently, config, open_files,
    raw_native::{self, Frames},
};

/// Bytes of an open's first message, and of a resume's.
const OPEN: usize = 28;
const RESUME: usize = 64;
/// Of CONFIRM.
const CONFIRM: usize = 44;

/// A raw client's session on a link of its own, both echoing.
pub(super) async fn session(echo: &Echo) -> (Frames<TcpStream>, Opened) {
    let link = echo.link().await;
    let (mut frames, opened) = Frames::open(link).await.expect("a session");
    echoes(&mut frames, b"hello").await;
    (frames, opened)
}

/// Sees that the session echoes.
pub(super) async fn echoes(frames: &mut Frames<TcpStream>, bytes: &[u8]) {
    frames.send_data(bytes).await.expect("writing");
    let echo = timeout(Duration::from_secs(3), frames.take(bytes.len())).await;
    assert_eq!(echo.expect("an echo"), bytes);
}

/// The code of the REJECT that comes next, and nothing behind it.
async fn rejected(link: TcpStream) -> RejectCode {
    let mut frames = Frames::new(link);
    let frame = timeout(Duration::from_secs(3), frames.next()).await;
    let frame = frame.expect("an answer");
    let Some(Frame::Reject(reject)) = frame else {
        panic!("{frame:?} is no REJECT");
    };
    let end = timeout(Duration::from_secs(3), frames.next()).await;
    assert_eq!(end.expect("the link ends"), None);
    reject.code
}

/// A first message: OPEN, of 28 bytes, or RESUME, of 64.
fn first(opened: &Opened, resume: bool) -> Vec<u8> {
    if resume {
        let machine = raw_native::resume_machine(opened, 1, 0);
        machine.transmit().to_vec()
    } else {
        let machine = raw_native::open_machine(5);
        machine.transmit().to_vec()
    }
}

#[test]
fn garbage_in_place_of_a_handshake_is_survived() {
    alone(async {
        let seed = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let echo = Echo::start_native(config()).await;
        let (mut live, opened) = session(&echo).await;
        for turn in 0..400 {
            let mut bytes = vec![0; rng.random_range(1..3000)];
            rng.fill_bytes(&mut bytes);
            // Most get past the first byte, the magic, the prelude, the first frame's header.
            let right = first(&opened, rng.random());
            let prefix = [1, 4, 16, 20, right.len()][turn % 5].min(bytes.len());
            bytes[..prefix].copy_from_slice(&right[..prefix]);
            let mut link = echo.link().await;
            let _ = link.write_all(&bytes).await;
            if rng.random() {
                let _ = link.shutdown().await;
                let _ = timeout(Duration::from_secs(3), link.read_to_end(&mut Vec::new()))
                    .await
                    .expect("the server closes its end");
            }
        }
        echoes(&mut live, b"unharmed").await;
        drop(live);
        echo.still_serves().await;
    });
}

#[test]
fn any_byte_of_a_first_message_may_be_wrong() {
    alone(async {
        let echo = Echo::start_native(config()).await;
        let (mut live, opened) = session(&echo).await;
        for resume in [false, true] {
            let right = first(&opened, resume);
            assert_eq!(right.len(), if resume { RESUME } else { OPEN });
            for at in 0..right.len() {
                for bit in [0x01, 0x80] {
                    let mut bytes = right.clone();
                    bytes[at] ^= bit;
                    let mut link = echo.link().await;
                    link.write_all(&bytes).await.expect("writing");
                    link.shutdown().await.expect("writing");
                    let mut answer = Vec::new();
                    // Whatever it says, it says it and closes its end. A reset will do, where something was left unread.
                    let end = timeout(Duration::from_secs(3), link.read_to_end(&mut answer));
                    let _ = end.await.expect("the server closes its end");
                    assert!(answer.len() <= 68, "{at}: {} bytes", answer.len());
                }
            }
        }
        echoes(&mut live, b"unharmed").await;
        drop(live);
        echo.still_serves().await;
    });
}

#[test]
fn handshakes_cut_short_anywhere_are_survived() {
    alone(async {
        let echo = Echo::start_native(config()).await;
        let (mut live, opened) = session(&echo).await;
        for count in 0..RESUME + CONFIRM {
            for in_order in [true, false] {
                // An open, then a resume; of either the answer is waited for where there is one.
                for (resume, message) in [(false, OPEN), (true, RESUME)] {
                    let mut link = echo.link().await;
                    let mut confirm = Vec::new();
                    if count <= message {
                        let part = &first(&opened, resume)[..count];
                        link.write_all(part).await.expect("writing");
                    } else if resume {
                        let (machine, _) = raw_native::request(&mut link, &opened, 7, 0)
                            .await
                            .expect("an answer");
                        confirm.extend(machine.confirm(0).expect("it agrees"));
                    } else {
                        let machine = raw_native::begin_open(&mut link).await.expect("OPENED");
                        confirm.extend(machine.confirm().expect("a session"));
                    }
                    let part = count.saturating_sub(message).min(CONFIRM - 1);
                    let part = &confirm[..part.min(confirm.len())];
                    link.write_all(part).await.expect("writing");
                    if in_order {
                        link.shutdown().await.expect("writing");
                        let mut read = Vec::new();
                        let end = timeout(Duration::from_secs(3), link.read_to_end(&mut read));
                        let _ = end.await.expect("the server closes its end");
                    }
                }
            }
        }
        echoes(&mut live, b"unharmed").await;
        drop(live);
        echo.still_serves().await;
    });
}

#[test]
fn wrong_proofs_are_turned_away() {
    alone(async {
        let echo = Echo::start_native(config()).await;
        let (mut live, opened) = session(&echo).await;
        for wrong in 0..40 {
            // Count and proof, of an open and of a resume.
            let mut link = echo.link().await;
            let machine = raw_native::begin_open(&mut link).await.expect("OPENED");
            let mut confirm = machine.confirm().expect("a session");
            confirm[4 + wrong] ^= 1;
            link.write_all(&confirm).await.expect("writing");
            assert_eq!(rejected(link).await, RejectCode::BadProof, "{wrong}");

            let mut link = echo.link().await;
            let (machine, _) = raw_native::request(&mut link, &opened, 1, 0)
                .await
                .expect("an answer");
            let mut confirm = machine.confirm(0).expect("it agrees");
            confirm[4 + wrong] ^= 0x80;
            link.write_all(&confirm).await.expect("writing");
            assert_eq!(rejected(link).await, RejectCode::BadProof, "{wrong}");
        }
        // The secret of another session.
        let (_other, theirs) = session(&echo).await;
        let stolen = Opened {
            secret: theirs.secret.clone(),
            ..opened.clone()
        };
        let mut link = echo.link().await;
        assert!(raw_native::request(&mut link, &stolen, 1, 0).await.is_err());
        drop((link, _other));
        echoes(&mut live, b"unharmed").await;
        drop(live);
        echo.still_serves().await;
    });
}

#[test]
fn snet_go_05_impossible_counts_are_refused_and_size_nothing() {
    alone(async {
        let echo = Echo::start_native(config()).await;
        let (mut live, opened) = session(&echo).await;
        // Of what was sent: its echo, 5 bytes.
        for (attempt, received) in (1..).zip([u64::MAX, u64::MAX - 1, 1 << 63, 1 << 32, 6]) {
            let mut link = echo.link().await;
            let (machine, answer) = raw_native::request(&mut link, &opened, attempt, received)
                .await
                .expect("an answer");
            // RESUME's count is believed by nobody.
            assert_eq!(answer, Answer::Resumed { received: 5 });
            let confirm = machine.confirm(received).expect("it agrees");
            link.write_all(&confirm).await.expect("writing");
            closes_silently(&mut link, "more than was ever sent").await;
        }
        echoes(&mut live, b"unharmed").await;
        // Windows and limits are compared, and no more.
        let link = echo.link().await;
        let mut machine = raw_native::open_machine(u64::MAX);
        let mut link = link;
        raw_native::drive(&mut link, &mut machine)
            .await
            .expect("a session");
        let confirm = machine.confirm().expect("a session");
        link.write_all(&confirm).await.expect("writing");
        let mut frames = Frames::new(link);
        frames.attach(0, 0, u64::MAX).await.expect("writing");
        let most = Frame::Ack {
            received: 0,
            limit: u64::MAX,
        };
        frames.send(most).await.expect("writing");
        echoes(&mut frames, b"as much as it likes").await;
        drop((live, frames));
        echo.still_serves().await;
    });
}

/// Sends one byte at a time, each `gap` after the one before.
async fn dribble(link: &mut TcpStream, bytes: &[u8], gap: Duration) -> std::io::Result<()> {
    for byte in bytes {
        link.write_all(&[*byte]).await?;
        sleep(gap).await;
    }
    Ok(())
}

#[test]
fn a_slow_sender_is_served_within_the_deadline() {
    alone(async {
        let echo = Echo::start_native(config()).await;
        let gap = Duration::from_millis(2);
        let (_live, opened) = session(&echo).await;
        for resume in [false, true] {
            let mut link = echo.link().await;
            let rest = if resume {
                let mut machine = raw_native::resume_machine(&opened, 1, 5);
                let request = machine.transmit().to_vec();
                dribble(&mut link, &request, gap).await.expect("writing");
                machine.transmitted(request.len());
                raw_native::drive(&mut link, &mut machine)
                    .await
                    .expect("RESUMED");
                machine.confirm(5).expect("it agrees")
            } else {
                let mut machine = raw_native::open_machine(1000);
                let open = machine.transmit().to_vec();
                dribble(&mut link, &open, gap).await.expect("writing");
                machine.transmitted(open.len());
                raw_native::drive(&mut link, &mut machine)
                    .await
                    .expect("OPENED");
                machine.confirm().expect("a session")
            };
            let from = if resume { 5 } else { 0 };
            let attach = Frame::Attach {
                from,
                received: from,
                limit: 1000,
            };
            let segments = [
                &rest[..],
                &raw_native::frame(attach),
                &raw_native::data(b"one at a time"),
            ];
            dribble(&mut link, &segments.concat(), gap)
                .await
                .expect("writing");
            let mut frames = Frames::new(link);
            let echoed = timeout(Duration::from_secs(3), frames.take(13)).await;
            assert_eq!(echoed.expect("an echo"), b"one at a time");
        }
        drop(_live);
        echo.still_serves().await;
    });
}

#[test]
fn a_sender_that_is_too_slow_is_closed_by_the_deadline() {
    alone(async {
        let deadline = Duration::from_millis(300);
        let echo = Echo::start_native(config().handshake_timeout(deadline)).await;
        let (mut live, opened) = session(&echo).await;
        for slow in 0..4 {
            let mut link = echo.link().await;
            let began = Instant::now();
            let bytes = match slow {
                0 => first(&opened, false),
                1 => first(&opened, true),
                2 => {
                    raw_native::begin_open(&mut link).await.expect("OPENED");
                    vec![0x14, 0, 0, 40, 0, 0, 0, 0, 0, 0, 0, 0]
                }
                _ => {
                    raw_native::request(&mut link, &opened, 1, 0)
                        .await
                        .expect("an answer");
                    vec![0x14, 0, 0, 40, 0, 0, 0, 0, 0, 0, 0, 0]
                }
            };
            // Fails once the link is closed.
            let dribbling = dribble(&mut link, &bytes, Duration::from_millis(60)).await;
            assert!(dribbling.is_err(), "{slow}: taken to its end");
            let taken = began.elapsed();
            assert!(taken >= deadline, "{slow}: closed after {taken:?}");
            assert!(
                taken < deadline + HUNG / 20,
                "{slow}: closed after {taken:?}"
            );
        }
        echoes(&mut live, b"unharmed").await;
        drop(live);
        echo.still_serves().await;
    });
}

#[test]
fn data_in_the_segment_of_confirm_is_not_lost() {
    alone(async {
        let echo = Echo::start_native(config()).await;
        let mut link = echo.link().await;
        let machine = raw_native::begin_open(&mut link).await.expect("OPENED");
        let opened = raw_native::named(&machine);
        let bytes = [7; 1000];
        let attach = |from, received| {
            raw_native::frame(Frame::Attach {
                from,
                received,
                limit: raw_native::WINDOW,
            })
        };
        let confirm = machine.confirm().expect("a session");
        let segment = [&confirm[..], &attach(0, 0), &raw_native::data(&bytes)].concat();
        link.write_all(&segment).await.expect("writing");
        let mut frames = Frames::new(link);
        assert_eq!(frames.take(1000).await, bytes);

        let mut link = echo.link().await;
        let (machine, answer) = raw_native::request(&mut link, &opened, 1, 1000)
            .await
            .expect("an answer");
        assert_eq!(answer, Answer::Resumed { received: 1000 });
        let confirm = machine.confirm(1000).expect("it agrees");
        let segment = [&confirm[..], &attach(1000, 1000), &raw_native::data(&bytes)].concat();
        link.write_all(&segment).await.expect("writing");
        let mut resumed = Frames::new(link);
        assert_eq!(resumed.take(1000).await, bytes);
        drop((frames, resumed));
        echo.still_serves().await;
    });
}

#[test]
fn a_flood_of_opens_that_are_never_completed_is_bounded() {
    alone(async {
        const HANDSHAKES: usize = 20;
        // As many stand named but unproved.
        const NAMED: usize = 4 * HANDSHAKES;
        let echo = Echo::start_native(config().max_handshakes(HANDSHAKES)).await;
        let (mut live, _) = session(&echo).await;
        let (mut named, mut links) = (Vec::new(), Vec::new());
        for _ in 0..500 {
            let mut link = echo.link().await;
            let machine = raw_native::begin_open(&mut link).await.expect("OPENED");
            named.push(raw_native::named(&machine));
            // Half of them stay, and block the way for as long as they may.
            if named.len() % 2 == 0 {
                links.push(link);
            }
        }
        assert!(
            open_files() <= echo.base + 2 + links.len() + HANDSHAKES,
            "{} files open",
            open_files()
        );
        let began = Instant::now();
        echoes(&mut live, b"unharmed").await;
        // The oldest are forgotten, the newest are not.
        for (number, opened) in named.iter().enumerate().rev() {
            if (500 - NAMED - 1..=500 - NAMED).contains(&number) || number % 50 == 49 {
                let link = echo.link().await;
                let resumed = Frames::resume(link, opened, 1, 0).await;
                assert_eq!(resumed.is_ok(), number >= 500 - NAMED, "{number}");
            }
        }
        assert!(
            began.elapsed() < Duration::from_secs(4),
            "{:?}",
            began.elapsed()
        );
        drop((live, links));
        echo.still_serves().await;
    });
}

/// Ids that are asked for at random hit nothing, and the server has no more to do for it than to say so.
#[test]
fn a_flood_of_resumes_of_nothing_is_answered_each_time() {
    alone(async {
        let echo = Echo::start_native(config()).await;
        let (mut live, _) = session(&echo).await;
        for _ in 0..500 {
            let unknown = Opened {
                id: rand::random(),
                secret: SessionSecret::new(rand::random()),
                route: 0,
                window: 0,
                resume_window: Duration::ZERO,
            };
            let mut link = echo.link().await;
            let (_, answer) = raw_native::request(&mut link, &unknown, rand::random(), 0)
                .await
                .expect("an answer");
            let Answer::Rejected(reject) = answer else {
                panic!("{answer:?}");
            };
            assert!(
                matches!(reject.code, RejectCode::Unknown | RejectCode::Stale),
                "{reject:?}"
            );
        }
        echoes(&mut live, b"unharmed").await;
        drop(live);
        echo.still_serves().await;
    });
}
