//! What shows only where no application gets in a lifetime, or from within.

use super::*;
use crate::{
    error::ProtocolError,
    protocol::{
        Handshake, Session,
        native::{
            CONFIRM_LEN, ClientProtection, Frame, Head, MAX_DATA, ServerHandshake, ServerProtection,
        },
    },
};

const WINDOW: usize = 64;

fn session(role: Role, now: Instant) -> NativeSession {
    let identity = Identity {
        binding: Binding::NONE,
        id: [7; 16],
        secret: SessionSecret::new([9; 32]),
        route: 0,
        peer_window: WINDOW as u64,
    };
    let settings = Settings {
        window: WINDOW,
        max_window: WINDOW,
        resume_window: Duration::from_secs(300),
        linger: Duration::from_secs(60),
        ping_after: Duration::from_secs(15),
        dead_after: Duration::from_secs(30),
        handshake_timeout: Duration::from_secs(10),
        max_frame: MAX_DATA,
    };
    NativeSession::new(role, identity, settings, now)
}

/// Both ends of a session, `offset` bytes into both streams, on a link that both use.
fn ends_at(offset: u64, now: Instant) -> [NativeSession; 2] {
    let [mut client, mut server] = [Role::Client, Role::Server].map(|role| {
        let mut session = session(role, now);
        session.streams = Streams::starting_at(offset, WINDOW);
        session.acknowledged = offset;
        session.limit = offset.saturating_add(WINDOW as u64);
        session
    });
    client.attach_opened([0; CONFIRM_LEN], now);
    let link = client.link.as_mut().expect("it has just been attached");
    link.next = offset;
    link.confirm = None;
    server.attach(0, offset, now).expect("it counts the same");
    exchange(&mut client, &mut server, 0, now);
    [client, server]
}

/// Hands over what one end has to say; returns what of the stream was new at the other.
fn carry(from: &mut NativeSession, to: &mut NativeSession, link: LinkId, now: Instant) -> Vec<u8> {
    let mut fresh = Vec::new();
    loop {
        let mut bytes = from.transmit(now).concat();
        if bytes.is_empty() {
            return fresh;
        }
        from.transmitted(bytes.len());
        let arrived = to.receive(link, &mut bytes, now);
        assert_eq!(arrived.broken, None);
        fresh.extend(&bytes[arrived.fresh]);
    }
}

/// Each end says what it has to; the applications take what comes. Returns that.
fn exchange(
    client: &mut NativeSession,
    server: &mut NativeSession,
    link: LinkId,
    now: Instant,
) -> [Vec<u8>; 2] {
    let mut fresh = [Vec::new(), Vec::new()];
    for _ in 0..4 {
        fresh[1].extend(carry(client, server, link, now));
        fresh[0].extend(carry(server, client, link, now));
    }
    fresh
}

/// The client resumes on another link.
fn resume(client: &mut NativeSession, server: &mut NativeSession, now: Instant) -> LinkId {
    let mut resume = client
        .resume([1; 16], ClientProtection::None)
        .expect("few were made");
    let attempt = client.attempt;
    let mut machine = ServerHandshake::new();
    for byte in resume.transmit().to_vec() {
        machine.receive(&[byte]).expect("the request is right");
        let protection = ServerProtection::None;
        machine.proceed(protection).expect("it is offered");
    }
    resume.transmitted(resume.transmit().len());
    let received = server.answer(attempt).expect("it is newer");
    machine.resume(&server.identity.secret, [2; 16], received);
    resume
        .receive(machine.transmit())
        .expect("the answer is right");
    machine.transmitted(machine.transmit().len());
    let link = client.attach_resumed(&resume, now).expect("it can go on");
    let confirm = client.link.as_mut().and_then(|link| link.confirm.take());
    machine
        .receive(confirm.expect("it is to go out first").as_slice())
        .expect("the proof is right");
    let confirmed = machine.proved().expect("it is");
    server
        .attach(attempt, confirmed, now)
        .expect("it can go on");
    link
}

fn wire(frames: &[Frame]) -> Vec<u8> {
    let mut wire = Vec::new();
    for frame in frames {
        let mut head = Head::new();
        assert!(head.push(frame));
        wire.extend(head.as_bytes());
    }
    wire
}

/// Seen in goscon: counts of 32 bits, after which every resume was refused.
#[test]
fn goscon_13_session_resumes_and_ends_across_32_bits_and_near_64() {
    let now = Instant::now();
    // The last has its end at the last offset there is.
    for offset in [(1 << 32) - 5, (1 << 63) - 5, u64::MAX - 20, u64::MAX - 9] {
        let [mut client, mut server] = ends_at(offset, now);
        for end in [&mut client, &mut server] {
            assert_eq!(end.write(b"lost"), 4);
            let handed = end.transmit(now).concat().len();
            end.transmitted(handed);
            assert_eq!(end.write(b"kept"), 4);
            end.shut_write();
        }
        client.link_failed(0, now);
        let link = resume(&mut client, &mut server, now);
        let [at_client, at_server] = exchange(&mut client, &mut server, link, now);
        assert_eq!(
            (at_client, at_server),
            (b"lostkept".to_vec(), b"lostkept".to_vec())
        );
        for end in [&client, &server] {
            assert_eq!(end.received(), offset + 9);
            assert_eq!(end.stats().replayed, 4);
            assert!(end.is_shut_down(true) && end.is_read_ended());
            assert_eq!(end.verdict(), Some(CloseReason::Finished));
        }
    }
}

#[test]
fn goscon_13_stream_ends_where_offsets_do() {
    let now = Instant::now();
    let [mut client, mut server] = ends_at(u64::MAX - 4, now);
    assert_eq!(client.room(), 3);
    assert!(!client.is_exhausted());
    assert_eq!(client.write(b"abcd"), 3);
    assert!(client.is_exhausted());
    assert_eq!((client.room(), client.write(b"d")), (0, 0));
    client.shut_write();
    let [_, at_server] = exchange(&mut client, &mut server, 0, now);
    assert_eq!(at_server, b"abc");
    assert_eq!(
        (server.received(), client.acknowledged),
        (u64::MAX, u64::MAX)
    );
    assert!(client.is_shut_down(true) && server.is_read_ended());
}

/// A peer that counts on where no offset is left.
#[test]
fn goscon_13_nothing_lies_behind_the_last_offset() {
    let now = Instant::now();
    let data = |len| [wire(&[Frame::Data { len }]), vec![0; len]].concat();
    for (wrong, error) in [
        (data(5), ProtocolError::DataBeyondLimit),
        (data(65_536), ProtocolError::DataBeyondLimit),
        // It may take the place of the end, and then there is none for that.
        (
            [data(4), wire(&[Frame::Fin])].concat(),
            ProtocolError::FinMoved,
        ),
        (
            [data(3), wire(&[Frame::Fin]), data(1)].concat(),
            ProtocolError::DataBeyondLimit,
        ),
        (
            [data(3), wire(&[Frame::Fin, Frame::Fin])].concat(),
            ProtocolError::FinMoved,
        ),
    ] {
        for end in &mut ends_at(u64::MAX - 4, now) {
            let arrived = end.receive(0, &mut wrong.clone(), now);
            assert_eq!(arrived.broken, Some(error));
            assert!(end.received() >= u64::MAX - 4);
            assert_eq!(end.verdict(), None);
        }
    }
}

#[test]
fn a_client_that_has_made_all_attempts_is_over() {
    let now = Instant::now();
    let mut client = session(Role::Client, now);
    client.attempt = u32::MAX - 1;
    assert!(client.resume([1; 16], ClientProtection::None).is_some());
    assert!(client.resume([2; 16], ClientProtection::None).is_none());
    assert_eq!(client.verdict(), Some(CloseReason::Exhausted));
}

/// An idle session holds no replay buffer; a handle that outlives its session neither.
#[test]
fn memory_is_given_back() {
    let mut now = Instant::now();
    let allocated = |end: &NativeSession| end.streams.replay.allocated();
    let mut ends = ends_at(0, now);
    assert_eq!(ends.each_ref().map(allocated), [0, 0]);
    for end in &mut ends {
        end.write(&[1; 40]);
    }
    let [client, server] = &mut ends;
    exchange(client, server, 0, now);
    assert_eq!((client.acknowledged, server.acknowledged), (40, 40));
    // Kept while the session is busy, so that they need not be had again and again.
    now += client.settings.ping_after;
    for end in &mut ends {
        assert!(allocated(end) > 0);
        end.handle_timeout(now);
        assert_eq!(allocated(end), 0);
    }

    // The one that is pinged first does not come to its own.
    let mut ends = ends_at(0, now);
    ends[0].write(&[1; 40]);
    let [client, server] = &mut ends;
    exchange(client, server, 0, now);
    assert!(allocated(client) > 0);
    client.receive(0, &mut wire(&[Frame::Ping(1)]), now);
    assert_eq!(allocated(client), 0);

    // With bytes in them.
    for end in &mut ends {
        end.write(&[1; 40]);
        end.close(CloseReason::Expired);
        assert_eq!(allocated(end), 0);
    }

    // With a frame that has been begun, which is to be ended.
    let [_, mut server] = ends_at(0, now);
    server.write(&[1; 40]);
    server.transmit(now);
    server.transmitted(10);
    server.reset(5, now);
    assert!(allocated(&server) > 0);
    let left = server.transmit(now).concat().len();
    server.transmitted(left);
    assert_eq!(allocated(&server), 0);
}
