//! What a server meets.

use std::{io, time::Duration};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use unbroken::protocol::{
    Handshake,
    snet::{ClientResume, Counts, Opened, ResumeReply, SessionKey},
};

use super::{Echo, HUNG, alone, closes_silently, config, echoes, open_files, raw_peer};

/// The prime of the key agreement.
const P: u64 = 0xffff_ffff_ffff_ffc5;

#[test]
fn a_wrong_first_byte_closes_the_link() {
    alone(async {
        let echo = Echo::start(config()).await;
        // Each but native's, behind which more has to come.
        for first in (1..=0xfe).filter(|first| *first != b'U') {
            let mut link = echo.link().await;
            link.write_all(&[first]).await.expect("writing");
            closes_silently(&mut link, "a wrong first byte").await;
        }
        // With much behind it.
        for first in [1, 0x16, 0x55, b'G'] {
            let mut link = echo.link().await;
            // The link may be reset under it.
            let _ = link.write_all(&vec![first; 100_000]).await;
            closes_silently(&mut link, "a flood").await;
        }
        echo.still_serves().await;
    });
}

#[test]
fn garbage_is_survived() {
    alone(async {
        let seed = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let echo = Echo::start(config()).await;
        for turn in 0..400 {
            let mut bytes = vec![0; rng.random_range(1..3000)];
            rng.fill_bytes(&mut bytes);
            // Most get past the first byte.
            match turn % 4 {
                0 | 1 => bytes[0] = 0,
                2 => bytes[0] = 0xff,
                _ => {}
            }
            let mut link = echo.link().await;
            let _ = link.write_all(&bytes).await;
            if rng.random() {
                let _ = link.shutdown().await;
                let _ = timeout(Duration::from_secs(3), link.read_to_end(&mut Vec::new()))
                    .await
                    .expect("the server closes its end");
            }
        }
        echo.still_serves().await;
    });
}

#[test]
fn handshakes_cut_short_anywhere_are_survived() {
    alone(async {
        let echo = Echo::start(config()).await;
        let (mut live, opened) = echo.session().await;
        for count in 0..57 {
            for in_order in [true, false] {
                // Of an open, 9 bytes and 16.
                let mut link = echo.link().await;
                let mut machine = raw_peer::client_open();
                if count <= 9 {
                    let part = &machine.transmit()[..count];
                    link.write_all(part).await.expect("writing");
                } else if count < 25 {
                    machine = raw_peer::begin_open(&mut link).await.expect("message 2");
                    let part = &machine.transmit()[..count - 9];
                    link.write_all(part).await.expect("writing");
                }
                if in_order {
                    link.shutdown().await.expect("writing");
                    let answers = if count < 9 { 0 } else { 24 };
                    let mut read = Vec::new();
                    let end = link.read_to_end(&mut read);
                    let _ = timeout(Duration::from_secs(3), end)
                        .await
                        .expect("the server closes its end");
                    assert!(read.len() <= answers, "{count}");
                }
                drop(link);
                // Of a resume, 41 and 16.
                let mut link = echo.link().await;
                let (mut machine, _) = raw_peer::request(&mut link, &opened, 0, 0)
                    .await
                    .expect("granted");
                machine.confirm();
                let proof = machine.transmit()[..count % 16].to_vec();
                link.write_all(&proof).await.expect("writing");
                let mut link = echo.link().await;
                let part = &[0xff; 41][..count.min(40)];
                link.write_all(part).await.expect("writing");
            }
        }
        echoes(&mut live, 100).await;
        drop(live);
        echo.still_serves().await;
    });
}

#[test]
fn wrong_proofs_close_the_link() {
    alone(async {
        let echo = Echo::start(config()).await;
        let (mut live, opened) = echo.session().await;
        for wrong in 0..16 {
            // Of an open.
            let mut link = echo.link().await;
            let machine = raw_peer::begin_open(&mut link).await.expect("message 2");
            let mut proof = machine.transmit().to_vec();
            proof[wrong] ^= 1;
            link.write_all(&proof).await.expect("writing");
            closes_silently(&mut link, "a wrong proof of an open").await;
            // Of a resume.
            let mut link = echo.link().await;
            let (mut machine, _) = raw_peer::request(&mut link, &opened, 0, 0)
                .await
                .expect("granted");
            machine.confirm();
            let mut proof = machine.transmit().to_vec();
            proof[wrong] ^= 0x80;
            link.write_all(&proof).await.expect("writing");
            closes_silently(&mut link, "a wrong proof of a resume").await;
            // Of a request: zeros, since whoever holds the session would not send it.
            let mut key = [0; 8];
            key[wrong % 8] = 1;
            let stranger = Opened {
                id: opened.id,
                key: SessionKey::new(key),
            };
            let mut link = echo.link().await;
            let (_, reply) = raw_peer::request(&mut link, &stranger, 0, 0)
                .await
                .expect("an answer");
            assert_eq!(reply, ResumeReply::Refused);
            closes_silently(&mut link, "zeros").await;
        }
        echoes(&mut live, 100).await;
        drop(live);
        echo.still_serves().await;
    });
}

#[test]
fn a_public_key_of_zero_closes_the_link() {
    alone(async {
        let echo = Echo::start(config()).await;
        for key in [0, P] {
            let mut link = echo.link().await;
            let mut hello = vec![0];
            hello.extend(key.to_le_bytes());
            link.write_all(&hello).await.expect("writing");
            closes_silently(&mut link, "a public key of 0").await;
        }
        // Others are reduced.
        for key in [1, P - 1, P + 1, u64::MAX] {
            let mut link = echo.link().await;
            let mut hello = vec![0];
            hello.extend(key.to_le_bytes());
            link.write_all(&hello).await.expect("writing");
            let mut reply = [0; 24];
            timeout(Duration::from_secs(3), link.read_exact(&mut reply))
                .await
                .expect("an answer")
                .expect("an answer");
        }
        echo.still_serves().await;
    });
}

#[test]
fn snet_go_05_impossible_counts_are_refused_and_size_nothing() {
    alone(async {
        let echo = Echo::start(config()).await;
        let (mut live, opened) = echo.session().await;
        echoes(&mut live, 100).await;
        let most = [u64::MAX, u64::MAX - 1, 1 << 63, 1 << 32, 101];
        let too_much = most
            .iter()
            .flat_map(|received| most.map(|sent| (sent, *received)));
        let too_little = [(0, 0), (0, 100), (99, 100)];
        for (sent, received) in too_much.chain(too_little) {
            let mut link = echo.link().await;
            let (_, reply) = raw_peer::request(&mut link, &opened, sent, received)
                .await
                .expect("an answer");
            assert_eq!(reply, ResumeReply::Refused, "{sent} {received}");
            closes_silently(&mut link, "zeros").await;
        }
        echoes(&mut live, 100).await;
        // What was sent may be under way, however much it is said to be.
        let mut link = echo.link().await;
        let counts = raw_peer::resume(&mut link, &opened, u64::MAX, 200)
            .await
            .expect("granted");
        assert_eq!((counts.sent, counts.received), (200, 200));
        echoes(&mut link, 100).await;
        drop((live, link));
        echo.still_serves().await;
    });
}

/// Sends one byte at a time, each `gap` after the one before.
async fn dribble(link: &mut TcpStream, bytes: &[u8], gap: Duration) -> io::Result<()> {
    for byte in bytes {
        link.write_all(&[*byte]).await?;
        sleep(gap).await;
    }
    Ok(())
}

#[test]
fn a_slow_sender_is_served_within_the_deadline() {
    alone(async {
        let echo = Echo::start(config()).await;
        let gap = Duration::from_millis(2);
        let mut link = echo.link().await;
        let mut machine = raw_peer::client_open();
        let hello = machine.transmit().to_vec();
        dribble(&mut link, &hello, gap).await.expect("writing");
        machine.transmitted(hello.len());
        let mut reply = [0; 24];
        link.read_exact(&mut reply).await.expect("an answer");
        machine.receive(&reply).expect("message 2");
        let mut rest = machine.transmit().to_vec();
        rest.extend([7; 20]);
        dribble(&mut link, &rest, gap).await.expect("writing");
        link.read_exact(&mut [0; 20]).await.expect("an echo");
        let opened = machine.opened().expect("named").clone();

        let mut resumed = echo.link().await;
        let counts = Counts {
            sent: 40,
            received: 20,
        };
        let mut machine = ClientResume::new(&opened, counts);
        let request = machine.transmit().to_vec();
        dribble(&mut resumed, &request, gap).await.expect("writing");
        machine.transmitted(request.len());
        resumed.read_exact(&mut reply).await.expect("an answer");
        machine.receive(&reply).expect("message 2");
        machine.confirm();
        let mut rest = machine.transmit().to_vec();
        rest.extend([7; 20]);
        dribble(&mut resumed, &rest, gap).await.expect("writing");
        resumed.read_exact(&mut [0; 20]).await.expect("an echo");
        drop((link, resumed));
        echo.still_serves().await;
    });
}

#[test]
fn a_sender_that_is_too_slow_is_closed_by_the_deadline() {
    alone(async {
        let deadline = Duration::from_millis(300);
        let echo = Echo::start(config().handshake_timeout(deadline)).await;
        let (mut live, opened) = echo.session().await;
        for slow in 0..4 {
            let mut link = echo.link().await;
            let began = Instant::now();
            let gap = Duration::from_millis(60);
            let bytes = match slow {
                0 => vec![0; 9],
                1 => vec![0xff; 41],
                2 => {
                    raw_peer::begin_open(&mut link).await.expect("message 2");
                    vec![7; 16]
                }
                _ => {
                    raw_peer::request(&mut link, &opened, 0, 0)
                        .await
                        .expect("granted");
                    vec![7; 16]
                }
            };
            // Fails once the link is closed.
            let dribbling = dribble(&mut link, &bytes, gap).await;
            assert!(dribbling.is_err(), "{slow}: taken to its end");
            let taken = began.elapsed();
            assert!(taken >= deadline, "{slow}: closed after {taken:?}");
            assert!(
                taken < deadline + HUNG / 20,
                "{slow}: closed after {taken:?}"
            );
        }
        echoes(&mut live, 100).await;
        drop(live);
        echo.still_serves().await;
    });
}

#[test]
fn data_in_the_segment_of_message_3_is_not_lost() {
    alone(async {
        let echo = Echo::start(config()).await;
        let mut link = echo.link().await;
        let mut machine = raw_peer::begin_open(&mut link).await.expect("message 2");
        let mut segment = machine.transmit().to_vec();
        segment.extend([7; 1000]);
        machine.transmitted(16);
        link.write_all(&segment).await.expect("writing");
        link.read_exact(&mut [0; 1000]).await.expect("an echo");
        let opened = machine.opened().expect("named").clone();

        let mut resumed = echo.link().await;
        let (mut machine, _) = raw_peer::request(&mut resumed, &opened, 2000, 1000)
            .await
            .expect("granted");
        machine.confirm();
        let mut segment = machine.transmit().to_vec();
        segment.extend([7; 1000]);
        resumed.write_all(&segment).await.expect("writing");
        resumed.read_exact(&mut [0; 1000]).await.expect("an echo");
        drop((link, resumed));
        echo.still_serves().await;
    });
}

#[test]
fn a_flood_of_opens_that_are_never_completed_is_bounded() {
    alone(async {
        const HANDSHAKES: usize = 20;
        // As many stand named but unproved.
        const NAMED: usize = 4 * HANDSHAKES;
        let echo = Echo::start(config().max_handshakes(HANDSHAKES)).await;
        let (mut live, _) = echo.session().await;
        let mut named = Vec::new();
        let mut links = Vec::new();
        for _ in 0..500 {
            let mut link = echo.link().await;
            let machine = raw_peer::begin_open(&mut link).await.expect("message 2");
            named.push(machine.opened().expect("named").clone());
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
        echoes(&mut live, 100).await;
        // The oldest are forgotten, the newest are not.
        for (number, opened) in named.iter().enumerate().rev() {
            if (500 - NAMED - 1..=500 - NAMED).contains(&number) || number % 50 == 49 {
                let mut link = echo.link().await;
                let resumed = raw_peer::resume(&mut link, opened, 0, 0).await;
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
