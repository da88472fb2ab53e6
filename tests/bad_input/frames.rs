//! What either end meets on an attached native link: each error ends the link, and not the session.

use std::{net::Ipv4Addr, time::Duration};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use unbroken::{
    Error, HandshakeError, LinkState, RejectCode, connect,
    protocol::native::{Frame, Opened, Reject},
};

use super::{
    Echo, alone, config,
    native::{echoes, session},
    native_config, open_files,
    raw_native::{self, Frames},
    settles,
};

/// What the peers of these tests have sent and received when they do wrong: a greeting, and its echo.
const DONE: u64 = 5;

/// Sees that the server closes the link, after whatever it had to say.
async fn is_closed(mut link: TcpStream, what: &str) {
    let mut rest = Vec::new();
    let end = timeout(Duration::from_secs(3), link.read_to_end(&mut rest)).await;
    // Input that was left unread makes it a reset.
    let _ = end.unwrap_or_else(|_| panic!("{what}: the link is kept"));
}

/// Sees that the session goes on, on a new link.
async fn goes_on(echo: &Echo, opened: &Opened, attempt: u32, what: &str) {
    let link = echo.link().await;
    let resumed = Frames::resume(link, opened, attempt, DONE).await;
    let mut frames = resumed.unwrap_or_else(|error| panic!("{what}: {error}"));
    let attach = timeout(Duration::from_secs(3), frames.next()).await;
    assert!(
        matches!(attach, Ok(Some(Frame::Attach { received: DONE, .. }))),
        "{what}: {attach:?}"
    );
}

/// A frame's header and this many bytes.
fn bytes(kind: u8, len: u32, payload: usize) -> Vec<u8> {
    let mut bytes = len.to_be_bytes().to_vec();
    bytes[0] = kind;
    bytes.extend(vec![0; payload]);
    bytes
}

/// Everything that a peer must not say, by what is wrong with it.
fn errors() -> Vec<(String, Vec<u8>)> {
    let mut errors = Vec::new();
    // Lengths that a type does not have, the greatest included.
    for (kind, right) in [
        (0x01, 16_i64),
        (0x02, 0),
        (0x03, 4),
        (0x04, 8),
        (0x05, 8),
        (0x06, 24),
        (0x15, 6),
    ] {
        for len in [0, 1, right - 1, right + 1, 255, 0x00ff_ffff] {
            if (0..1 << 24).contains(&len) && len != right {
                let wrong = bytes(kind, len as u32, 40);
                errors.push((format!("type {kind} of length {len}"), wrong));
            }
        }
    }
    for len in [0, 65_537, 0x00ff_ffff] {
        errors.push((format!("DATA of length {len}"), bytes(0, len, 40)));
    }
    for len in [65_537, 0x00ff_ffff] {
        let wrong = bytes(0x80, len, 40);
        errors.push((format!("a frame to be skipped of length {len}"), wrong));
    }
    // Types that are not known, and those of handshakes.
    for kind in (0x07..0x80).filter(|kind| *kind != 0x15) {
        errors.push((format!("type {kind}"), bytes(kind, 0, 40)));
    }
    let mut frame = |what: &str, frame| errors.push((what.to_owned(), raw_native::frame(frame)));
    frame(
        "a second ATTACH",
        Frame::Attach {
            from: DONE,
            received: DONE,
            limit: 1 << 20,
        },
    );
    frame(
        "a REJECT",
        Frame::Reject(Reject {
            code: RejectCode::Unknown,
            retry_after: Duration::ZERO,
        }),
    );
    for received in [DONE + 1, 1 << 32, u64::MAX] {
        frame("what was never sent", Frame::Ack { received, limit: 0 });
    }
    let fin = raw_native::frame(Frame::Fin);
    errors.push(("a second FIN".to_owned(), fin.repeat(2)));
    errors
}

#[test]
fn each_error_of_a_peer_ends_its_link_and_not_its_session() {
    alone(async {
        let echo = Echo::start_native(config()).await;
        let (mut live, _) = session(&echo).await;
        for (what, wrong) in errors() {
            let ends_stream = what == "a second FIN";
            let (mut frames, opened) = session(&echo).await;
            let ack = Frame::Ack {
                received: DONE,
                limit: 1 << 30,
            };
            frames.send(ack).await.expect("writing");
            let _ = frames.link.write_all(&wrong).await;
            is_closed(frames.link, &what).await;
            if !ends_stream {
                goes_on(&echo, &opened, 1, &what).await;
            }
        }
        echoes(&mut live, b"unharmed").await;
        drop(live);
        settles(echo.base).await;
        echo.still_serves().await;
    });
}

#[test]
fn a_first_frame_other_than_attach_ends_the_link() {
    alone(async {
        let echo = Echo::start_native(config()).await;
        let mut firsts: Vec<Vec<u8>> = [
            Frame::Ack {
                received: 0,
                limit: 0,
            },
            Frame::Fin,
            Frame::Reset { code: 1 },
            Frame::Ping(1),
            Frame::Pong(1),
        ]
        .map(raw_native::frame)
        .into();
        firsts.push(raw_native::data(b"hello"));
        // A hole: beyond what was received, which is nothing; or an acknowledgement of what was never sent.
        for (from, received) in [(1, 0), (u64::MAX, 0), (0, 1)] {
            firsts.push(raw_native::frame(Frame::Attach {
                from,
                received,
                limit: 1 << 20,
            }));
        }
        for first in firsts {
            let mut link = echo.link().await;
            let opened = raw_native::open(&mut link).await.expect("a session");
            let _ = link.write_all(&first).await;
            is_closed(link, &format!("{first:?}")).await;
            let link = echo.link().await;
            let mut frames = Frames::resume(link, &opened, 1, 0)
                .await
                .expect("it goes on");
            echoes(&mut frames, b"hello").await;
        }
        echo.still_serves().await;
    });
}

/// Frames of unknown types with the top bit set are skipped, up to what is configured; what they cost is nothing.
#[test]
fn frames_to_be_skipped_are_skipped() {
    alone(async {
        let echo = Echo::start_native(config().max_frame(0xff_ffff)).await;
        let (mut frames, _) = session(&echo).await;
        let before = resident();
        for kind in 0x80..=0xff {
            for len in [0, 1, 70_000] {
                let skipped = bytes(kind, len, len as usize);
                frames.link.write_all(&skipped).await.expect("writing");
            }
        }
        let longest = bytes(0xff, 0x00ff_ffff, 0x00ff_ffff);
        for part in longest.chunks(100_000) {
            frames.link.write_all(part).await.expect("writing");
        }
        drop(longest);
        echoes(&mut frames, b"as if they were not there").await;
        assert!(
            resident() < before + (8 << 20),
            "{} bytes more",
            resident() - before
        );
        drop(frames);
        echo.still_serves().await;
    });
}

/// Bytes of memory that this process has.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages = statm.split(' ').nth(1).expect("the second number");
    pages.parse::<usize>().expect("a number") * 4096
}

#[test]
fn floods_that_nobody_reads_the_answers_to_cost_no_memory() {
    alone(async {
        const FLOOD: usize = 32 << 20;
        let echo = Echo::start_native(config()).await;
        let (mut live, _) = session(&echo).await;
        for (what, flood) in [
            ("PING", Frame::Ping(7)),
            ("PONG", Frame::Pong(7)),
            (
                "ACK",
                Frame::Ack {
                    received: DONE,
                    limit: 1 << 20,
                },
            ),
        ] {
            let (mut frames, _) = session(&echo).await;
            let part = raw_native::frame(flood).repeat(5000);
            let before = resident();
            // Not one answer is read.
            let flooding = async {
                for _ in 0..FLOOD / part.len() {
                    frames
                        .link
                        .write_all(&part)
                        .await
                        .expect("the link is kept");
                }
            };
            let flooded = timeout(Duration::from_secs(30), flooding).await;
            flooded.expect("the server goes on reading");
            let more = resident().saturating_sub(before);
            assert!(more < 8 << 20, "{what}: {more} bytes more");
            echoes(&mut live, b"unharmed").await;
            // It answers what comes next, for all that.
            echoes(&mut frames, b"still here").await;
        }
        drop(live);
        echo.still_serves().await;
    });
}

/// A peer that sends as much as it is allowed, and reads nothing, holds a window at the server and no more.
#[test]
fn bytes_that_nobody_reads_are_held_up_to_the_window() {
    alone(async {
        const WINDOW: usize = 1 << 20;
        let echo = Echo::start_native(config().window(WINDOW)).await;
        let (mut live, _) = session(&echo).await;
        let before = resident();
        let mut greedy = Vec::new();
        for _ in 0..4 {
            let mut link = echo.link().await;
            // No credit for the echo: the server's application stops reading.
            let mut machine = raw_native::open_machine(0);
            raw_native::drive(&mut link, &mut machine)
                .await
                .expect("a session");
            let confirm = machine.confirm().expect("a session");
            link.write_all(&confirm).await.expect("writing");
            let mut frames = Frames::new(link);
            frames.attach(0, 0, 0).await.expect("writing");
            let data = raw_native::data(&[1; 1 << 16]);
            let mut sent = 0;
            let mut limit = WINDOW as u64;
            // As much as it is allowed, however often that grows; then beyond it.
            loop {
                while sent + (1 << 16) <= limit {
                    frames.link.write_all(&data).await.expect("writing");
                    sent += 1 << 16;
                }
                let more = frames.until(|frame| match frame {
                    Frame::Ack { limit, .. } => Some(limit),
                    _ => None,
                });
                match timeout(Duration::from_millis(300), more).await {
                    Ok(more) => limit = limit.max(more),
                    Err(_) => break,
                }
            }
            // What the server's application has taken, and what its transport keeps of the echo, and what waits unread.
            assert!(sent <= 3 * WINDOW as u64 + (1 << 16), "{sent} bytes");
            let most = resident().saturating_sub(before);
            assert!(most < 8 * WINDOW * (greedy.len() + 1), "{most} bytes more");
            let _ = frames.link.write_all(&data.repeat(17)).await;
            is_closed(frames.link, "DATA beyond the limit").await;
            greedy.push(raw_native::named(&machine));
        }
        echoes(&mut live, b"unharmed").await;
        // They are all there still.
        for opened in &greedy {
            let link = echo.link().await;
            Frames::resume(link, opened, 1, 0)
                .await
                .expect("it goes on");
        }
        drop(live);
        echo.still_serves().await;
    });
}

#[test]
fn garbage_on_an_attached_link_is_survived() {
    alone(async {
        let seed = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let echo = Echo::start_native(config()).await;
        let (mut live, _) = session(&echo).await;
        let mut right = Vec::new();
        for frame in [
            Frame::Ping(1),
            Frame::Ack {
                received: 0,
                limit: 1 << 20,
            },
            Frame::Pong(3),
        ] {
            right.extend(raw_native::frame(frame));
            right.extend(raw_native::data(b"some of the stream"));
        }
        for _ in 0..300 {
            let (mut frames, _) = session(&echo).await;
            let mut bytes = right.repeat(3);
            // Here and there a byte is another.
            for _ in 0..rng.random_range(1..20) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            let mut noise = vec![0; rng.random_range(0..2000)];
            rng.fill_bytes(&mut noise);
            bytes.extend(noise);
            let _ = frames.link.write_all(&bytes).await;
        }
        echoes(&mut live, b"unharmed").await;
        drop(live);
        echo.still_serves().await;
    });
}

#[test]
fn snet_go_12_a_handshake_of_a_clients_that_fails_leaks_nothing() {
    alone(async {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let addr = server.local_addr().expect("an address");
        let config = native_config().handshake_timeout(Duration::from_millis(30));
        let base = open_files();
        for turn in 0..60 {
            let (opened, ()) = tokio::join!(connect(addr, config.clone()), async {
                let (mut link, _) = server.accept().await.expect("a link");
                link.read_exact(&mut [0; 28]).await.expect("an OPEN");
                match turn % 6 {
                    // Closes, or says nothing for longer than the client waits.
                    0 => {}
                    1 => sleep(Duration::from_millis(60)).await,
                    // Something else than an answer; half an answer; one of another length; a REJECT.
                    2 => link.write_all(&[0; 68]).await.expect("writing"),
                    3 => link.write_all(&bytes(0x11, 64, 63)).await.expect("writing"),
                    4 => link.write_all(&bytes(0x11, 65, 65)).await.expect("writing"),
                    _ => link.write_all(&bytes(0x15, 6, 6)).await.expect("writing"),
                }
            });
            let error = opened.expect_err("no server answers");
            let expected = match turn % 6 {
                0 | 3 => matches!(error, Error::Link(_)),
                1 => matches!(error, Error::HandshakeTimeout),
                2 | 4 => matches!(error, Error::Handshake(HandshakeError::Frame(_))),
                _ => matches!(
                    error,
                    Error::Rejected {
                        reason: RejectCode::Other(0),
                        ..
                    }
                ),
            };
            assert!(expected, "{turn}: {error:?}");
        }
        settles(base).await;
    });
}

/// Whatever a server does, a client's session is over only by what says so.
#[test]
fn a_clients_session_survives_whatever_its_links_bring() {
    alone(async {
        let seed = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let addr = port.local_addr().expect("an address");
        let retry = Duration::from_millis(1);
        let config = native_config()
            .retry(retry, retry)
            .handshake_timeout(Duration::from_millis(100));
        let base = open_files();
        let accept = async || port.accept().await.expect("a link").0;
        let (client, (frames, opened)) = tokio::join!(connect(addr, config), async {
            raw_native::serve_open(accept().await, 1000).await
        });
        let mut client = client.expect("a session");
        drop(frames);
        let wrong = errors();
        for turn in 0..150 {
            let mut link = accept().await;
            match turn % 4 {
                0 => {}
                1 => {
                    // In place of the answer.
                    let mut noise = vec![0; rng.random_range(1..200)];
                    rng.fill_bytes(&mut noise);
                    // Not a REJECT, which may be final.
                    noise[0] |= 0x40;
                    let _ = link.write_all(&noise).await;
                    let _ = timeout(
                        Duration::from_millis(200),
                        link.read_to_end(&mut Vec::new()),
                    )
                    .await;
                }
                2 => {
                    // In place of ATTACH.
                    let (mut frames, _) = raw_native::serve_resume(link, &opened, 0).await;
                    let _ = frames.link.write_all(&bytes(0x42, 3, 30)).await;
                }
                _ => {
                    let (mut frames, received) = raw_native::serve_resume(link, &opened, 0).await;
                    assert_eq!(received, 0);
                    frames.attach(0, 0, 1000).await.expect("writing");
                    let (what, wrong) = &wrong[rng.random_range(0..wrong.len())];
                    if what != "a second FIN" {
                        let _ = frames.link.write_all(wrong).await;
                        is_closed(frames.link, what).await;
                    }
                }
            }
            assert!(
                !matches!(client.handle().state(), LinkState::Closed(_)),
                "{turn}"
            );
            assert!(open_files() <= base + 6, "{} files open", open_files());
        }
        let (mut frames, _) = raw_native::serve_resume(accept().await, &opened, 0).await;
        frames.attach(0, 0, 1000).await.expect("writing");
        frames.send_data(b"alive").await.expect("writing");
        client.read_exact(&mut [0; 5]).await.expect("reading");
        assert_eq!(client.handle().stats().received, 5);
        client.handle().close(1);
    });
}
