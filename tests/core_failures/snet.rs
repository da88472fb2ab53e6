//! What shows of them in snet.

use crate::core_ends::{Ends, WINDOW, bytes, expire, hand, limits, lose, read_all};
use crate::core_pair::{End, InFlight, Pair, Side};
use crate::core_snet::{Snet, settings};
use unbroken::{
    CloseReason, Refusal, ResumeError,
    protocol::{
        Arrived, Phase, Session,
        snet::{CipherChoice, Counts},
    },
};

#[test]
fn snet_go_01_resume_before_drain_does_not_duplicate() {
    let mut ends = Ends::plain(4096);
    ends.server.write(&bytes(1000));
    assert_eq!(ends.carry(Side::Client, 100), 100);
    ends.resume().unwrap();
    assert_eq!(ends.carry(Side::Client, usize::MAX), 900);
    // The application has read nothing, and all of it counts.
    for _ in 0..3 {
        assert_eq!(ends.client.counts().received, 1000);
        ends.resume().unwrap();
        assert_eq!(ends.carry(Side::Client, usize::MAX), 0);
    }
    assert_eq!(read_all(&mut ends.client, ends.now), bytes(1000));
}

#[test]
fn snet_go_02_resume_that_fails_halfway_leaves_both_counts_true() {
    for protocol in Snet::all() {
        let mut pair = Pair::new(&protocol, limits(256), 128);
        let link = pair.dial();
        pair.pump(true);
        for side in Side::BOTH {
            pair.write(side, 90);
            pair.send(side, link, 90);
        }
        pair.cut(link, InFlight::Lost, &[]);

        let mut received = [0; 2];
        for step in 0..40 {
            let link = pair.dial();
            // The handshake, and a little of the replay in one direction.
            for _ in 0..3 {
                for side in Side::BOTH {
                    pair.send(side, link, 41);
                    while pair.deliver(side.other(), link, 41) {
                        let at_server = pair.delivered(link, Side::Server);
                        let at_client = pair.delivered(link, Side::Client);
                        if at_server >= 57 + step % 3 || at_client >= 24 + step % 5 {
                            break;
                        }
                    }
                }
            }
            let delivered = Side::BOTH.map(|side| pair.delivered(link, side));
            pair.cut(link, InFlight::Lost, &[]);
            let over = [
                delivered[0].saturating_sub(24),
                delivered[1].saturating_sub(57),
            ];
            let counts = [
                pair.client.session.as_ref().unwrap().counts().received,
                pair.server.session().unwrap().counts().received,
            ];
            for side in [0, 1] {
                assert!(
                    counts[side] <= received[side] + over[side] as u64,
                    "counted once"
                );
                assert!(counts[side] >= received[side], "never forgotten");
            }
            received = counts;
        }
        pair.heal();
        assert_eq!(pair.progress(Side::Client), (90, 90));
        assert_eq!(pair.progress(Side::Server), (90, 90));
    }
}

#[test]
fn snet_go_05_counts_of_the_peer_size_nothing() {
    const MAX: u64 = u64::MAX;
    let mut ends = Ends::plain(256);
    ends.client.write(b"abc");
    ends.carry(Side::Server, 3);
    ends.server.write(b"defg");
    let before = (
        ends.server.counts(),
        ends.server.room(),
        ends.server.wanted(),
    );
    for (sent, received, expected) in [
        (MAX, MAX, ResumeError::ReceivedTooMuch),
        (3, MAX, ResumeError::ReceivedTooMuch),
        (3, 5, ResumeError::ReceivedTooMuch),
        (0, 0, ResumeError::SentTooLittle),
        (0, MAX, ResumeError::ReceivedTooMuch),
    ] {
        let peer = Counts { sent, received };
        assert_eq!(ends.server.answer(peer), Err(expected), "{peer:?}");
        assert_eq!(
            ends.server.attach(1, peer, 3, ends.now),
            Err(expected),
            "{peer:?}"
        );
        let after = (
            ends.server.counts(),
            ends.server.room(),
            ends.server.wanted(),
        );
        assert_eq!(after, before);
    }
    // Nothing speaks against a peer that has sent more than could ever be kept; it is just a number.
    let peer = Counts {
        sent: MAX,
        received: 4,
    };
    ends.server.attach(1, peer, 3, ends.now).unwrap();
    assert_eq!((ends.server.wanted(), ends.server.room()), (253, 256));
    let mut wire = b"hi".to_vec();
    assert_eq!(
        ends.server.receive(1, &mut wire, ends.now),
        Arrived {
            fresh: 0..2,
            ..Arrived::default()
        }
    );
}

/// Inherent in snet, and the reason why it protects nothing: knowing what the server wrote is knowing what the client wrote.
#[test]
fn snet_go_07_both_directions_share_a_keystream() {
    let mut ends = Ends::new(settings(limits(4096), CipherChoice::Rc4));
    let known = bytes(500);
    let secret = b"eight by"
        .iter()
        .chain(b"the client's words, said in confidence")
        .copied();
    let secret: Vec<u8> = secret.collect();
    ends.server.write(&known);
    ends.client.write(&secret);
    let from_server = hand(&mut ends.server, usize::MAX);
    let from_client = hand(&mut ends.client, usize::MAX);
    assert_ne!(from_client, secret);

    let keystream_from_8 = from_server.iter().zip(&known).map(|(a, b)| a ^ b);
    let guessed: Vec<u8> = from_client[8..]
        .iter()
        .zip(keystream_from_8)
        .map(|(a, b)| a ^ b)
        .collect();
    assert_eq!(guessed, &secret[8..]);
}

#[test]
fn snet_go_08_write_leaves_the_callers_buffer_alone() {
    for Snet(cipher) in Snet::all() {
        let mut ends = Ends::new(settings(limits(64), cipher));
        let buffer = bytes(50);
        assert_eq!(ends.client.write(&buffer), 50);
        assert_eq!(buffer, bytes(50));
        ends.carry(Side::Server, 50);
        assert_eq!(read_all(&mut ends.server, ends.now), buffer);
    }
}

#[test]
fn goscon_14_check_first_then_switch() {
    let mut ends = Ends::plain(64);
    ends.client.write(&bytes(10));
    ends.carry(Side::Server, 10);
    lose(&mut ends.server, 100);
    let stale = Counts {
        sent: 10,
        received: 0,
    };
    // What the request asks for is gone: the old link goes on as if it had not been made.
    assert_eq!(ends.server.answer(stale), Err(ResumeError::Gap));
    assert_eq!(
        ends.server.attach(1, stale, 10, ends.now),
        Err(ResumeError::Gap)
    );
    assert_eq!(ends.server.phase(), Phase::Attached);
    ends.client.write(b"more");
    assert_eq!(ends.carry(Side::Server, 4), 4);
    // Nothing is told to an old link that goes on until the proof either.
    let request = Counts {
        sent: 14,
        received: 90,
    };
    ends.server.answer(request).unwrap();
    assert!(ends.server.write(b"old link") > 0);
    assert_eq!(hand(&mut ends.server, 100), b"old link");
    // The client checks before it proves itself, and is as it was.
    let server = Counts {
        sent: 0,
        received: 15,
    };
    assert_eq!(ends.client.check(server), Err(ResumeError::ReceivedTooMuch));
    assert_eq!(ends.client.phase(), Phase::Attached);
}

#[test]
fn eternal_terminal_16_gap_that_the_client_finds_is_final_at_both_ends() {
    for half_open in [false, true] {
        let mut ends = Ends::plain(64);
        lose(&mut ends.client, 65);
        if !half_open {
            ends.server.detach(ends.now);
        }
        assert_eq!(ends.resume(), Err(ResumeError::Gap));
        assert_eq!(
            ends.resume(),
            Err(ResumeError::Gap),
            "there is no getting over it"
        );
        ends.client.close(CloseReason::Gap);
        assert_eq!(ends.resume(), Err(ResumeError::Closed));
        assert_eq!(ends.client.phase(), Phase::Closed(CloseReason::Gap));
        expire(&mut ends);
        assert_eq!(ends.server.phase(), Phase::Closed(CloseReason::Gap));
    }
}

#[test]
fn eternal_terminal_16_gap_that_the_server_finds_is_final_at_both_ends() {
    for half_open in [false, true] {
        let mut pair = Pair::new(&Snet(CipherChoice::Rc4), limits(64), 128);
        let link = pair.dial();
        pair.pump(true);
        let unaware: &[Side] = if half_open { &[Side::Server] } else { &[] };
        pair.cut(link, InFlight::Lost, unaware);
        for _ in 0..3 {
            pair.write(Side::Server, 64);
            lose(pair.server.session().unwrap(), 40);
        }
        pair.heal();
        assert_eq!(pair.server.refusals, [ResumeError::Gap]);
        assert_eq!(
            pair.client.closed(),
            Some(CloseReason::Refused(Refusal::Unexplained))
        );
        pair.pass(WINDOW);
        assert_eq!(pair.server.closed(), Some(CloseReason::Gap));
    }
}
