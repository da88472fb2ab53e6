//! A resume touches nothing until its CONFIRM has proved itself: whatever is stolen, copied, cut short or made up.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    task::JoinSet,
    time::Instant,
};
use unbroken::{
    Accepted, Error, HandshakeError, LinkState, RejectCode, ResumableTransport, ResumeError,
    SessionId,
    protocol::native::{Answer, Frame, Opened, SessionSecret},
};

use super::{
    memory_link::{Client, MemoryLink, Server},
    memory_net::{
        Dial, NATIVE_CONFIRM, NATIVE_OPEN, NATIVE_OPENED, NATIVE_RESUME, NATIVE_RESUMED, Net,
        ROOMY, exchange, expect, native, native_window, pattern, resumed, send, until, within,
    },
    raw_native::{self, Frames},
};

/// How long bytes are on their way.
const DELAY: Duration = Duration::from_millis(5);
const WINDOW: usize = 8 << 10;
/// How long the streams are watched, and how often.
const WATCHED: Duration = Duration::from_secs(3);
const SAMPLE: Duration = Duration::from_millis(7);

fn id_bytes(id: SessionId) -> [u8; 16] {
    let number = u128::from_str_radix(&id.to_string(), 16).expect("hex digits");
    number.to_be_bytes()
}

/// What has been seen of a session on the wire, by somebody who does not hold its secret.
#[derive(Clone)]
struct Stolen {
    id: [u8; 16],
    /// Everything the client wrote on a link with which it resumed.
    resume: Vec<u8>,
    /// The RESUME of an attempt that nobody answered: the server has not seen it.
    fresh: Vec<u8>,
}

impl Stolen {
    /// The session as it would be with a secret that is made up.
    fn guessed(&self) -> Opened {
        Opened {
            id: self.id,
            secret: SessionSecret::new([7; 32]),
            route: 0,
            window: 0,
            resume_window: Duration::ZERO,
        }
    }

    fn recorded_confirm(&self) -> &[u8] {
        &self.resume[NATIVE_RESUME..NATIVE_RESUME + NATIVE_CONFIRM]
    }
}

/// Reads what the server says, up to its end or for as long as it is silent.
async fn answers(mut link: MemoryLink) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), link.read_to_end(&mut all)).await;
    all
}

/// One of many ways to disturb a session without its secret, by number.
async fn disturb(mut link: MemoryLink, number: usize, stolen: Stolen) {
    let attempt = [1, 2, 3, 1000, u32::MAX][number / 7 % 5];
    match number % 7 {
        // A recording: as it was, cut short anywhere, a byte changed, or from anywhere on.
        0 => {
            let _ = link.write_all(&stolen.resume).await;
        }
        1 => {
            let _ = link
                .write_all(&stolen.resume[..number % stolen.resume.len()])
                .await;
        }
        2 => {
            let mut changed = stolen.resume.clone();
            let at = number * 13 % changed.len();
            changed[at] ^= 1 << (number % 8);
            let _ = link.write_all(&changed).await;
        }
        3 => {
            // CONFIRM before RESUME, ATTACH before CONFIRM.
            let order = if number.is_multiple_of(2) {
                [stolen.recorded_confirm(), &stolen.resume[..NATIVE_RESUME]].concat()
            } else {
                let attach = &stolen.resume[NATIVE_RESUME + NATIVE_CONFIRM..];
                [&stolen.fresh, attach, stolen.recorded_confirm()].concat()
            };
            let _ = link.write_all(&order).await;
        }
        // Made up: the server agrees, and the proof is wrong, or old, or never comes.
        4 => {
            let mut asked = stolen.guessed();
            asked.id[15] ^= u8::from(number.is_multiple_of(3));
            let machine = raw_native::resume_machine(&asked, attempt, number as u64);
            let _ = link
                .write_all(unbroken::protocol::Handshake::transmit(&machine))
                .await;
            let mut confirm = stolen.recorded_confirm().to_vec();
            confirm[4 + number % 40] ^= 1;
            let _ = link.write_all(&confirm).await;
        }
        5 => {
            let _ = link.write_all(&stolen.fresh).await;
            let mut resumed = [0; NATIVE_RESUMED];
            if number.is_multiple_of(2) && link.read_exact(&mut resumed).await.is_ok() {
                let _ = link.write_all(stolen.recorded_confirm()).await;
            }
        }
        // What a server says is no proof for it either.
        _ => {
            let _ = link.write_all(&stolen.fresh).await;
            let mut resumed = [0; NATIVE_RESUMED];
            if link.read_exact(&mut resumed).await.is_ok() {
                let mut confirm = vec![0x14, 0, 0, 40];
                confirm.extend([0; 8]);
                confirm.extend(&resumed[NATIVE_RESUMED - 32..]);
                let _ = link.write_all(&confirm).await;
            }
        }
    }
    answers(link).await;
}

/// Both ends write and read as fast as they can, for ever.
fn stream_for_ever(end: ResumableTransport) -> JoinSet<()> {
    let (mut reading, mut writing) = split(end);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let bytes = pattern(1, WINDOW);
        loop {
            writing.write_all(&bytes).await.expect("writing");
        }
    });
    tasks.spawn(async move {
        let bytes = pattern(1, WINDOW);
        loop {
            expect(&mut reading, &bytes).await;
        }
    });
    tasks
}

/// What arrives at both ends of a session, over time, while it is disturbed so many times.
async fn throughput(disturbances: usize) -> Vec<[u64; 2]> {
    let config = native_window(WINDOW).handshake_timeout(Duration::from_secs(2));
    let mut net = Net::slow(&config, ROOMY, DELAY);
    let (client, server) = net.open(&config).await;
    within("moving", client.handle().migrate())
        .await
        .expect("it moves");
    let resume = {
        until("ATTACH", || {
            (net.newest().written(Client).len() >= NATIVE_RESUME + NATIVE_CONFIRM + 28)
                .then_some(())
        })
        .await;
        net.newest().written(Client)
    };
    // An attempt that goes astray.
    net.plan([Dial::Ignore]);
    assert!(client.handle().migrate().await.is_err());
    let stolen = Stolen {
        id: id_bytes(client.handle().id()),
        resume,
        fresh: net.newest().written(Client),
    };
    assert_eq!(stolen.fresh.len(), NATIVE_RESUME);
    let live = net.wire(1);
    let handles = [client.handle(), server.handle()];
    let _streams = [stream_for_ever(client), stream_for_ever(server)];
    let began = Instant::now();
    let mut disturbing = JoinSet::new();
    let mut samples = Vec::new();
    let rounds = (WATCHED.as_millis() / SAMPLE.as_millis()) as usize;
    for round in 0..rounds {
        for number in round * disturbances / rounds..(round + 1) * disturbances / rounds {
            let (link, _) = net.raw_link();
            disturbing.spawn(disturb(link, number, stolen.clone()));
        }
        tokio::time::sleep_until(began + SAMPLE * (round as u32 + 1)).await;
        samples.push(handles.each_ref().map(|handle| handle.stats().received));
    }
    while let Some(done) = within("those who disturb", disturbing.join_next()).await {
        done.expect("no panic");
    }
    for handle in &handles {
        assert_eq!(handle.state(), LinkState::Connected);
        assert_eq!((handle.stats().resumes, handle.stats().replayed), (1, 0));
    }
    assert_eq!((live.dropped(Client), live.dropped(Server)), (None, None));
    // Whoever holds the secret still resumes, whatever numbers others have named.
    within("moving", handles[0].migrate())
        .await
        .expect("it moves");
    resumed(&handles[1], 2).await;
    samples
}

#[tokio::test(start_paused = true)]
async fn eternal_terminal_15_hundreds_of_resumes_without_the_secret_leave_the_live_link_at_full_speed()
 {
    let alone = throughput(0).await;
    let disturbed = throughput(700).await;
    let last = alone.last().expect("samples");
    // A window each round trip at least.
    let rounds = (WATCHED.as_millis() / (2 * DELAY).as_millis()) as u64;
    assert!(
        last.iter()
            .all(|bytes| *bytes >= (rounds - 2) * WINDOW as u64),
        "{last:?}"
    );
    for (number, (alone, disturbed)) in alone.iter().zip(&disturbed).enumerate() {
        for (alone, disturbed) in alone.iter().zip(disturbed) {
            // At no time is more missing than what one sample may catch or not.
            assert!(
                disturbed + (WINDOW / 4) as u64 >= *alone,
                "{disturbed} bytes instead of {alone} in sample {number}"
            );
        }
    }
}

/// A raw client's session: its link, and the server's end.
async fn raw_session(net: &mut Net) -> (Frames<MemoryLink>, Opened, ResumableTransport) {
    let (link, _) = net.raw_link();
    let (frames, opened) = Frames::open(link).await.expect("a session");
    (frames, opened, net.opened().await)
}

/// What the server says to a client whose handshake comes to nothing.
async fn rejected(mut frames: Frames<MemoryLink>) -> RejectCode {
    let frame = within("an answer", frames.next()).await;
    let Some(Frame::Reject(reject)) = frame else {
        panic!("{frame:?} is no REJECT");
    };
    assert_eq!(within("its end", frames.next()).await, None);
    reject.code
}

#[tokio::test(start_paused = true)]
async fn a_server_says_what_is_wrong_with_a_resume() {
    let mut net = Net::new(&native(), ROOMY);
    let (mut live, opened, mut server) = raw_session(&mut net).await;
    let unknown = Opened {
        id: [9; 16],
        ..opened.clone()
    };
    for (session, attempt, expected, why) in [
        (&unknown, 1, RejectCode::Unknown, ResumeError::Unknown),
        (&opened, 0, RejectCode::Stale, ResumeError::Stale),
    ] {
        let (mut link, _) = net.raw_link();
        let (_, answer) = raw_native::request(&mut link, session, attempt, 0)
            .await
            .expect("an answer");
        assert!(
            matches!(answer, Answer::Rejected(reject) if reject.code == expected),
            "{answer:?}"
        );
        drop(link);
        let error = net.failure().await;
        assert!(
            matches!(error, Error::Resume(reason) if reason == why),
            "{error:?}"
        );
    }
    // The proof of the server holds only for who holds the secret, and that of the client is wrong.
    let (mut link, _) = net.raw_link();
    let guessed = Opened {
        secret: SessionSecret::new([1; 32]),
        ..opened.clone()
    };
    let refused = raw_native::request(&mut link, &guessed, 1, 0).await;
    let error = refused.expect_err("the proof is another's").to_string();
    assert_eq!(error, HandshakeError::Proof.to_string());
    link.write_all(&[&[0x14, 0, 0, 40][..], &[0; 40]].concat())
        .await
        .expect("room");
    assert_eq!(rejected(Frames::new(link)).await, RejectCode::BadProof);
    let error = net.failure().await;
    assert!(
        matches!(error, Error::Handshake(HandshakeError::Proof)),
        "{error:?}"
    );
    // Acknowledges what was never sent: an error, not answered, and no more than that.
    let (mut link, _) = net.raw_link();
    let (machine, _) = raw_native::request(&mut link, &opened, 5, 0)
        .await
        .expect("it agrees");
    link.write_all(&machine.confirm(1).expect("it agrees"))
        .await
        .expect("room");
    let answer = within("its end", Frames::new(link).next()).await;
    assert_eq!(answer, None);
    let error = net.failure().await;
    assert!(
        matches!(error, Error::Resume(ResumeError::ReceivedTooMuch)),
        "{error:?}"
    );
    send(&mut server, b"alive").await;
    assert_eq!(within("the bytes", live.take(5)).await, b"alive");
    assert_eq!(server.handle().stats().resumes, 0);
}

#[tokio::test(start_paused = true)]
async fn an_older_attempt_does_not_push_out_a_newer_one() {
    let mut net = Net::new(&native(), ROOMY);
    let (_live, opened, mut server) = raw_session(&mut net).await;
    // All are agreed to, before any has confirmed.
    let mut asked = Vec::new();
    for attempt in 1..=4 {
        let (mut link, _) = net.raw_link();
        let (machine, answer) = raw_native::request(&mut link, &opened, attempt, 0)
            .await
            .expect("an answer");
        assert_eq!(answer, Answer::Resumed { received: 0 });
        asked.push(Some((link, machine.confirm(0).expect("it agreed"))));
    }
    let mut carrying = None;
    for (number, attaches) in [(2, true), (0, false), (3, true), (1, false)] {
        let (mut link, confirm) = asked[number].take().expect("each once");
        link.write_all(&confirm).await.expect("room");
        let mut frames = Frames::new(link);
        if attaches {
            frames.attach(0, 0, raw_native::WINDOW).await.expect("room");
            let frame = within("ATTACH", frames.next()).await;
            assert!(matches!(frame, Some(Frame::Attach { .. })), "{frame:?}");
            assert!(matches!(net.outcome().await, Ok(Accepted::Resumed(_))));
            carrying = Some(frames);
        } else {
            assert_eq!(rejected(frames).await, RejectCode::Stale);
            assert!(matches!(
                net.failure().await,
                Error::Resume(ResumeError::Stale)
            ));
        }
        send(&mut server, b"to the newest").await;
        let carrying = carrying.as_mut().expect("one attached");
        assert_eq!(
            within("the bytes", carrying.take(13)).await,
            b"to the newest"
        );
        let ack = Frame::Ack {
            received: 0,
            limit: 0,
        };
        carrying.send(ack).await.expect("room");
        // The next link starts at what the client says to have, nothing: all of it again.
        carrying.stream.clear();
        if number == 2 {
            continue;
        }
        break;
    }
    assert_eq!(server.handle().stats().resumes, 1);
}

#[tokio::test(start_paused = true)]
async fn goscon_14_nothing_switches_before_the_replay_is_known_to_be_possible() {
    let mut net = Net::new(&native_window(1000), ROOMY);
    let (mut old, opened, mut server) = raw_session(&mut net).await;
    // Agreed to, when nothing was sent...
    let (mut link, _) = net.raw_link();
    let (machine, answer) = raw_native::request(&mut link, &opened, 1, 0)
        .await
        .expect("an answer");
    assert_eq!(answer, Answer::Resumed { received: 0 });
    // ... but by the time of the proof what it asks for is acknowledged and gone, over the old link.
    let bytes = pattern(1, 5000);
    for (received, part) in (1..).map(|turn| turn * 500).zip(bytes.chunks(500)) {
        send(&mut server, part).await;
        assert_eq!(within("the bytes", old.take(500)).await, part);
        let limit = received + raw_native::WINDOW;
        old.send(Frame::Ack { received, limit })
            .await
            .expect("room");
    }
    until("the last ACK", || {
        (server.handle().stats().unacknowledged == 0).then_some(())
    })
    .await;
    link.write_all(&machine.confirm(0).expect("it agreed"))
        .await
        .expect("room");
    assert_eq!(rejected(Frames::new(link)).await, RejectCode::Gap);
    assert!(matches!(
        net.failure().await,
        Error::Resume(ResumeError::Gap)
    ));
    send(&mut server, b"goes on").await;
    assert_eq!(within("the bytes", old.take(7)).await, b"goes on");
    old.send_data(b"both ways").await.expect("room");
    expect(&mut server, b"both ways").await;
    assert_eq!(server.handle().stats().resumes, 0);
    // One that asks for what is there is welcome.
    let (link, _) = net.raw_link();
    let mut new = Frames::resume(link, &opened, 2, 5000)
        .await
        .expect("it agrees");
    assert_eq!(within("the bytes", new.take(7)).await, b"goes on");
    assert_eq!(server.handle().stats().resumes, 1);
}

/// CONFIRM of the open comes after a resume has opened the session.
#[tokio::test(start_paused = true)]
async fn the_first_proof_opens_a_session_once() {
    let mut net = Net::new(&native(), ROOMY);
    let (mut first, _) = net.raw_link();
    let open = raw_native::begin_open(&mut first).await.expect("OPENED");
    let opened = raw_native::named(&open);
    let (link, _) = net.raw_link();
    let mut second = Frames::resume(link, &opened, 1, 0)
        .await
        .expect("it agrees");
    let mut server = net.opened().await;
    first
        .write_all(&open.confirm().expect("a session"))
        .await
        .expect("room");
    assert_eq!(rejected(Frames::new(first)).await, RejectCode::Stale);
    assert!(matches!(
        net.failure().await,
        Error::Resume(ResumeError::Stale)
    ));
    send(&mut server, b"alive").await;
    assert_eq!(within("the bytes", second.take(5)).await, b"alive");
    second.send_data(b"both ways").await.expect("room");
    expect(&mut server, b"both ways").await;
}

/// A session that was named is opened by a resume for as long as the resume window lasts.
#[tokio::test(start_paused = true)]
async fn a_session_that_was_named_is_resumable_for_the_resume_window() {
    let config = native().resume_window(Duration::from_secs(100));
    for (after, resumable) in [(99, true), (100, false)] {
        let mut net = Net::new(&config, ROOMY);
        let (mut first, _) = net.raw_link();
        let open = raw_native::begin_open(&mut first).await.expect("OPENED");
        let opened = raw_native::named(&open);
        assert_eq!(opened.resume_window, Duration::from_secs(100));
        tokio::time::sleep(Duration::from_secs(after)).await;
        assert!(matches!(net.failure().await, Error::HandshakeTimeout));
        let (link, _) = net.raw_link();
        let resumed = Frames::resume(link, &opened, 1, 0).await;
        assert_eq!(resumed.is_ok(), resumable, "after {after} s");
        if resumable {
            net.opened().await;
        }
    }
}

/// An open whose CONFIRM is lost is mended by a resume without the application's noticing.
#[tokio::test(start_paused = true)]
async fn a_session_whose_open_was_cut_off_is_resumed() {
    for at in 0..400 {
        for side in [Client, Server] {
            let mut net = Net::new(&native(), ROOMY);
            net.plan([Dial::CutAt(side, at)]);
            let connector = unbroken::Connector::new(net.dialer(), native());
            let opened = tower::ServiceExt::oneshot(connector, ());
            let opened = within("opening", opened).await;
            let named = match side {
                Client => at > NATIVE_OPEN,
                Server => at >= NATIVE_OPENED,
            };
            if !named {
                assert!(
                    matches!(opened, Err(Error::Link(_))),
                    "{side:?} {at}: {opened:?}"
                );
                continue;
            }
            let mut client = opened.expect("the server has named it");
            let mut server = net.session().await;
            exchange(&mut client, &mut server).await;
        }
    }
}
