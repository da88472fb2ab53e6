//! The rules of a session that no recording shows (`docs/PROTOCOL.md`, "What unbroken does beyond").

#[path = "support/core_ends.rs"]
mod core_ends;
#[path = "support/core_pair.rs"]
mod core_pair;
#[path = "support/core_snet.rs"]
mod core_snet;

use std::time::Duration;

use core_ends::{Ends, LINGER, WINDOW, bytes, expire, hand, limits, lose, read_all};
use core_pair::{ClientEnd, End, InFlight, Pair, ServerEnd, Side};
use core_snet::{Snet, settings};
use unbroken::{
    CloseReason, HandshakeError, Refusal, ResumeError,
    protocol::{
        Handshake, Phase, Session,
        snet::{
            CipherChoice, ClientOpen, ClientResume, Counts, KeyAgreement, Opened, PrivateKey,
            ServerHandshake, SessionKey, Settings,
        },
    },
};

/// Asks the server on a link of its own; returns its answer.
fn ask(pair: &mut Pair<Snet>, opened: &Opened, counts: Counts) -> Vec<u8> {
    const LINK: usize = 1 << 20;
    let request = ClientResume::new(opened, counts);
    pair.server.accept(LINK, pair.now);
    let mut rest = request.transmit().to_vec();
    while !rest.is_empty() {
        let most = pair.server.wanted(LINK).min(rest.len());
        let mut piece: Vec<u8> = rest.drain(..most).collect();
        pair.server.receive(LINK, &mut piece, pair.now);
    }
    let answer = pair.server.transmit(LINK, usize::MAX, pair.now);
    pair.server.link_failed(LINK, pair.now);
    answer
}

#[test]
fn refusals_are_zeros_and_disturb_nobody() {
    let mut pair = Pair::new(&Snet(CipherChoice::Rc4), limits(64), 32);
    let link = pair.dial();
    pair.pump(true);
    for _ in 0..4 {
        for side in Side::BOTH {
            pair.write(side, 20);
        }
        pair.pump(true);
    }
    let opened = pair.client.session.as_ref().unwrap().opened().clone();
    let Counts { sent, received } = pair.client.session.as_ref().unwrap().counts();
    assert_eq!((sent, received), (80, 80));
    let unknown = Opened {
        id: opened.id ^ 1,
        ..opened.clone()
    };
    let thief = Opened {
        key: SessionKey::new(*b"a guess."),
        ..opened.clone()
    };
    let cases = [
        (&unknown, 0, 0, ResumeError::Unknown),
        (&thief, 0, 0, ResumeError::Proof),
        (&opened, 0, 1, ResumeError::ReceivedTooMuch),
        (&opened, -1, 0, ResumeError::SentTooLittle),
        (&opened, 0, -65, ResumeError::Gap),
    ];
    for (opened, sent, received, reason) in cases {
        let true_counts = pair.client.session.as_ref().unwrap().counts();
        let claimed = Counts {
            sent: true_counts.sent.wrapping_add_signed(sent),
            received: true_counts.received.wrapping_add_signed(received),
        };
        let answer = ask(&mut pair, opened, claimed);
        assert_eq!(answer, [0; 24], "{reason}");
        assert_eq!(pair.server.refusals.last(), Some(&reason));
        for side in Side::BOTH {
            assert_eq!(pair.write(side, 1), 1);
        }
        pair.pump(true);
        assert!(
            pair.is_even() && pair.client.holds(link),
            "{reason}: the link goes on"
        );
        assert_eq!(pair.server.session().unwrap().stats().resumes, 0);
    }
    // One byte less of a gap is none.
    let sent = pair.client.session.as_ref().unwrap().counts().sent;
    let last = Counts {
        sent,
        received: sent - 64,
    };
    let answer = ask(&mut pair, &opened, last);
    assert_eq!(
        answer[..16],
        [sent.to_le_bytes(), sent.to_le_bytes()].concat()
    );
    assert_ne!(answer[16..], [0; 8]);
}

#[test]
fn a_lingering_server_replays_and_then_says_that_it_has_ended() {
    let mut pair = Pair::new(&Snet(CipherChoice::Rc4), limits(64), 32);
    let link = pair.dial();
    pair.pump(true);
    pair.write(Side::Server, 30);
    pair.write(Side::Client, 5);
    pair.send(Side::Server, link, 30);
    pair.cut(link, InFlight::Half, &[]);
    pair.pump(true);
    let now = pair.now;
    pair.server.session().unwrap().drop_transport(now);
    assert_eq!(pair.progress(Side::Client), (15, 30));

    // Something is lacking: the resume brings it, and what the client had to say is taken and thrown away.
    pair.dial();
    pair.pump(true);
    assert_eq!(pair.progress(Side::Client), (30, 30));
    assert_eq!(pair.server.session().unwrap().counts().received, 5);
    assert_eq!(pair.server.session().unwrap().waiting(), 0);

    // Nothing is.
    pair.dial();
    pair.pump(true);
    assert_eq!(pair.server.refusals, [ResumeError::Ended]);
    assert_eq!(
        pair.client.closed(),
        Some(CloseReason::Refused(Refusal::Unexplained))
    );

    pair.pass(LINGER - Duration::from_millis(1));
    assert_eq!(pair.server.closed(), None);
    pair.pass(Duration::from_millis(1));
    assert_eq!(pair.server.closed(), Some(CloseReason::Local));
}

#[test]
fn an_orderly_end_of_the_link_is_a_close_only_where_configured() {
    for fin_is_close in [false, true] {
        let mut ends = Ends::new(Settings {
            fin_is_close,
            ..settings(limits(64), CipherChoice::Plain)
        });
        ends.server.write(b"last words");
        ends.carry(Side::Client, 10);
        ends.client.link_ended(0, ends.now);
        let expected = if fin_is_close {
            Phase::Closed(CloseReason::Peer)
        } else {
            Phase::Detached(ends.now)
        };
        assert_eq!(ends.client.phase(), expected);
        assert_eq!(read_all(&mut ends.client, ends.now), b"last words");
        let resumed = if fin_is_close {
            Err(ResumeError::Closed)
        } else {
            Ok(())
        };
        assert_eq!(ends.resume(), resumed);
    }
}

#[test]
fn silence_asks_for_a_new_link_and_stands_while_nobody_listens() {
    const SILENCE: Duration = Duration::from_secs(30);
    let mut ends = Ends::new(Settings {
        silence: Some(SILENCE),
        ..settings(limits(64), CipherChoice::Plain)
    });
    let start = ends.now;
    let second = Duration::from_secs(1);
    assert_eq!(ends.server.poll_timeout(), None, "only who dials can probe");
    assert_eq!(ends.client.poll_timeout(), Some(start + SILENCE));
    assert!(!ends.client.handle_timeout(start + SILENCE - second));
    assert!(ends.client.handle_timeout(start + SILENCE));
    assert!(!ends.client.handle_timeout(start + SILENCE), "once");
    assert_eq!(ends.client.poll_timeout(), Some(start + 2 * SILENCE));

    ends.now = start + 40 * second;
    ends.server.write(&bytes(64));
    ends.carry(Side::Client, 63);
    assert_eq!(ends.client.poll_timeout(), Some(ends.now + SILENCE));
    ends.carry(Side::Client, 1);
    assert_eq!(ends.client.wanted(), 0);
    assert_eq!(ends.client.poll_timeout(), None, "nothing can be heard");
    assert!(!ends.client.handle_timeout(ends.now + 100 * SILENCE));
    assert_eq!(ends.client.phase(), Phase::Attached);

    let read = ends.now + 200 * SILENCE;
    assert_eq!(ends.client.read(&mut [0; 1], read), 1);
    assert_eq!(ends.client.poll_timeout(), Some(read + SILENCE));
}

#[test]
fn a_session_expires_when_the_resume_window_has_passed() {
    let mut ends = Ends::plain(64);
    ends.server.write(b"hello");
    ends.carry(Side::Client, 5);
    let cut = ends.now + Duration::from_secs(5);
    ends.client.detach(cut);
    // Whoever has lost the link already loses it no later.
    ends.client.detach(cut + Duration::from_secs(5));
    assert_eq!(ends.client.poll_timeout(), Some(cut + WINDOW));
    ends.client
        .handle_timeout(cut + WINDOW - Duration::from_millis(1));
    assert_eq!(ends.client.phase(), Phase::Detached(cut));
    ends.client.handle_timeout(cut + WINDOW);
    assert_eq!(ends.client.phase(), Phase::Closed(CloseReason::Expired));
    assert_eq!(ends.client.poll_timeout(), None);
    let counts = ends.server.counts();
    assert_eq!(
        ends.client.attach(1, counts, 5, ends.now),
        Err(ResumeError::Closed)
    );
    assert_eq!(read_all(&mut ends.client, ends.now), b"hello");
}

#[test]
fn an_older_request_cannot_push_out_a_newer_link() {
    let mut ends = Ends::plain(64);
    let peer = ends.client.counts();
    ends.server.attach(2, peer, 0, ends.now).unwrap();
    ends.server.write(b"new");
    for request in [0, 1] {
        assert_eq!(
            ends.server.attach(request, peer, 0, ends.now),
            Err(ResumeError::Stale)
        );
        assert_eq!(ends.server.phase(), Phase::Attached);
        assert_eq!(ends.server.transmit(ends.now).concat(), b"new");
    }
    assert_eq!(ends.server.stats().resumes, 1);
    ends.server.detach(ends.now);
    assert_eq!(
        ends.server.attach(1, peer, 0, ends.now),
        Err(ResumeError::Stale)
    );
    ends.server.attach(3, peer, 0, ends.now).unwrap();
    assert_eq!(ends.server.stats().resumes, 2);
}

/// Only a peer that holds the key can do so, and it harms itself alone; what it asks for is still there.
#[test]
fn a_received_count_that_goes_back_gets_its_replay() {
    let mut ends = Ends::plain(64);
    ends.server.write(&bytes(40));
    ends.carry(Side::Client, 40);
    for (request, received) in [(1, 40), (2, 10)] {
        let peer = Counts { sent: 0, received };
        ends.server.attach(request, peer, 0, ends.now).unwrap();
    }
    assert_eq!(ends.server.write(&[1; 100]), 34);
    let replay = hand(&mut ends.server, usize::MAX);
    assert_eq!(replay, [&bytes(40)[10..], &[1; 34]].concat());
}

#[test]
fn wrong_handshakes_are_named() {
    let key = || KeyAgreement::Private(PrivateKey::new(5).unwrap());
    let mut server = ServerHandshake::new();
    assert_eq!(server.receive(b"G"), Err(HandshakeError::FirstByte(b'G')));
    for zero in [0u64, 0xffff_ffff_ffff_ffc5] {
        let mut server = ServerHandshake::new();
        server.receive(&[0]).unwrap();
        let received = server.receive(&zero.to_le_bytes());
        assert_eq!(received, Err(HandshakeError::ZeroPublicKey));

        let mut client = ClientOpen::new(key());
        client.transmitted(9);
        let reply = [zero.to_le_bytes(), [1; 8], [2; 8]].concat();
        assert_eq!(client.receive(&reply), Err(HandshakeError::ZeroPublicKey));
        assert!(client.opened().is_none());
    }

    let mut server = ServerHandshake::new();
    server.receive(ClientOpen::new(key()).transmit()).unwrap();
    assert!(server.open(&key(), 9, 10).is_some());
    assert_eq!(server.wanted(), 0, "the answer comes first");
    server.transmitted(24);
    assert_eq!(server.wanted(), 16);
    assert_eq!(server.receive(&[3; 17]), Err(HandshakeError::OutOfPlace));
    assert_eq!(server.receive(&[3; 16]), Err(HandshakeError::Proof));
    assert!(!server.is_proved());

    let ends = Ends::plain(64);
    let mut client = ClientResume::new(ends.client.opened(), Counts::default());
    client.transmitted(41);
    let reply = [5u64.to_le_bytes(), [0; 8], [0; 8]].concat();
    assert_eq!(
        client.receive(&reply),
        Err(HandshakeError::OutOfPlace),
        "a challenge of 0"
    );
}

#[test]
fn what_strangers_replay_proves_nothing() {
    let mut pair = Pair::new(&Snet(CipherChoice::Rc4), limits(256), 128);
    pair.dial();
    pair.pump(true);
    pair.dial();
    pair.write(Side::Client, 30);
    pair.pump(true);
    assert!(pair.client.is_open() && pair.is_even());
    let resumes = pair.server.session().unwrap().stats().resumes;
    for link in 0..2 {
        for (count, tail) in [(41, &[][..]), (41, &[7; 16][..]), (57, &[]), (1000, &[])] {
            pair.inject(link, count, tail);
            pair.write(Side::Server, 3);
            pair.pump(true);
            assert!(pair.is_even());
            assert_eq!(pair.server.accepted(), 1);
            assert_eq!(pair.server.session().unwrap().stats().resumes, resumes);
        }
    }
}

/// A copy of an old request is no reason to speak of a gap.
#[test]
fn a_copied_request_makes_no_gap_of_an_expiry() {
    let mut ends = Ends::plain(64);
    ends.client.write(b"abc");
    ends.carry(Side::Server, 3);
    let copied = ends.client.counts();
    lose(&mut ends.server, 100);
    assert_eq!(ends.server.answer(copied), Err(ResumeError::Gap));
    ends.client.write(b"d");
    ends.carry(Side::Server, 1);
    expire(&mut ends);
    assert_eq!(ends.server.phase(), Phase::Closed(CloseReason::Expired));
}

/// The server reads on from its old link after it has stated its count; the client starts from the count it was told.
#[test]
fn bytes_that_arrive_on_both_links_count_once() {
    for Snet(cipher) in Snet::all() {
        let mut ends = Ends::new(settings(limits(64), cipher));
        ends.client.write(&bytes(30));
        ends.carry(Side::Server, 10);
        let mut late = hand(&mut ends.client, 12);
        ends.client.detach(ends.now);
        let client = ends.client.counts();
        let server = ends.server.answer(client).unwrap();
        assert_eq!(server.received, 10);

        let arrived = ends.server.receive(0, &mut late, ends.now);
        ends.server.store(&late[arrived.fresh]);
        ends.client
            .attach(1, server, client.received, ends.now)
            .unwrap();
        ends.server
            .attach(1, client, server.received, ends.now)
            .unwrap();
        // In pieces that end before, at and after the last byte that arrives again.
        for piece in [5, 7, 1, 7] {
            assert_eq!(ends.carry(Side::Server, piece), piece);
        }
        assert_eq!(ends.server.counts().received, 30);
        assert_eq!(read_all(&mut ends.server, ends.now), bytes(30));
        assert_eq!(ends.client.stats().replayed, 12);
    }
}
