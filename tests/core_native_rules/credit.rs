//! Credit and acknowledgements.

use unbroken::protocol::{
    Role, Session,
    native::{Frame, MAX_DATA},
};

use crate::core_scripted::{
    ACK_DELAY, BOTH, Data, MS, PING_AFTER, Said, Scripted, WINDOW, ack, attach, but_pings, bytes,
    said, settings, wire,
};

const LIMIT: u64 = WINDOW as u64;

#[test]
fn data_goes_up_to_the_limit_and_no_further() {
    for role in BOTH {
        let mut script = Scripted::attached_with(role, settings(WINDOW), 10);
        assert_eq!(script.session.write(&bytes(0, 30)), 30);
        assert_eq!(script.hear(), [Data(bytes(0, 10))]);
        assert!(script.session.is_flushed(), "all that may be sent");
        assert_eq!(script.session.stats().credit, 0);
        assert!(script.say(ack(0, 14)).moved);
        assert!(!script.session.is_flushed());
        assert_eq!(script.hear(), [Data(bytes(10, 4))]);
        // Each number holds if it is the greatest so far.
        script.say(ack(9, 20));
        script.say(ack(4, 26));
        script.say(ack(5, 13));
        assert_eq!(script.hear(), [Data(bytes(14, 12))]);
        assert_eq!(script.session.stats().unacknowledged, 30 - 9);
        // A new link restates them.
        script.lose_link();
        let heard = script.resume_attached(0, 9, 28);
        assert_eq!(heard.last(), Some(&Data(bytes(9, 19))));
        script.say(ack(9, u64::MAX));
        assert_eq!(script.hear(), [Data(bytes(28, 2))]);
        assert_eq!(script.session.stats().credit, u64::MAX - 30);
    }
}

#[test]
fn a_peer_without_a_window_is_sent_nothing_but_the_end() {
    for role in BOTH {
        let mut script = Scripted::attached_with(role, settings(WINDOW), 0);
        assert_eq!(script.session.stats().credit, 0);
        script.session.shut_write();
        assert_eq!(script.hear(), [said(Frame::Fin)]);

        let mut script = Scripted::attached_with(role, settings(WINDOW), 0);
        script.session.write(b"abc");
        script.session.shut_write();
        assert_eq!(script.hear(), []);
        assert!(script.session.is_flushed());
        script.say(ack(0, 2));
        assert_eq!(script.hear(), [Data(b"ab".to_vec())]);
        script.say(ack(2, 3));
        assert_eq!(script.hear(), [Data(b"c".to_vec()), said(Frame::Fin)]);
        // What such a peer sends is acknowledged byte by byte.
        script.say_data(b"x");
        assert_eq!(script.hear(), [said(ack(1, LIMIT))]);
    }
}

#[test]
fn a_frame_carries_as_much_as_a_frame_may() {
    let window = 3 * MAX_DATA;
    let mut script = Scripted::attached_with(Role::Client, settings(window), window as u64);
    assert_eq!(script.session.write(&bytes(0, 200_000)), window);
    for _ in 0..3 {
        let len = MAX_DATA;
        let frame = [wire(&[Frame::Data { len }]), vec![0; len]].concat();
        let handed = script.hand(usize::MAX);
        assert_eq!((handed.len(), &handed[..4]), (frame.len(), &frame[..4]));
    }
    assert!(script.session.is_flushed());
}

/// An ACK goes out when a quarter of the smaller window has moved, and after the delay at the latest.
#[test]
fn acknowledgements_go_out_by_the_quarter_and_by_the_clock() {
    for (own, peer, quarter) in [
        (64, 64, 16),
        (64, 8, 2),
        (64, 4000, 16),
        (4000, 64, 16),
        (40, 43, 10),
        (64, 3, 1),
        (3, 64, 1),
    ] {
        for role in BOTH {
            let limit = own as u64;
            let mut script = Scripted::attached_with(role, settings(own), peer);
            let mut come = 0;
            if quarter > 1 {
                script.say_data(&bytes(0, quarter - 1));
                come = quarter - 1;
                assert!(!script.session.owes(script.now), "it can wait");
                assert_eq!(script.hear(), []);
                assert_eq!(script.due(), Some(ACK_DELAY));
                // More news puts nothing off.
                script.pass(ACK_DELAY - MS);
                if quarter > 2 {
                    script.read_some(1);
                }
                assert_eq!((script.hear(), script.due()), (vec![], Some(MS)));
                script.pass(MS);
                let consumed = u64::from(quarter > 2);
                assert_eq!(script.hear(), [said(ack(come as u64, limit + consumed))]);
                assert_eq!(
                    script.due(),
                    Some(PING_AFTER - ACK_DELAY),
                    "nothing but a ping"
                );
                script.read();
                script.pass(ACK_DELAY);
                assert_eq!(script.hear().len(), 1);
            }
            let limit = limit + come as u64;
            script.say_data(&bytes(come, quarter));
            come += quarter;
            assert!(script.session.owes(script.now));
            assert_eq!(script.hear(), [said(ack(come as u64, limit))]);
            // What the application takes moves the limit alike.
            script.read_some(quarter);
            assert_eq!(
                script.hear(),
                [said(ack(come as u64, limit + quarter as u64))]
            );
        }
    }
}

#[test]
fn news_goes_along_with_data_and_with_the_end() {
    for role in BOTH {
        let mut script = Scripted::attached(role);
        script.say_data(b"abc");
        script.session.write(b"d");
        assert_eq!(script.hear(), [said(ack(3, LIMIT)), Data(b"d".to_vec())]);
        script.session.write(b"e");
        assert_eq!(script.hear(), [Data(b"e".to_vec())], "there is no news");
        script.say_data(b"f");
        script.session.shut_write();
        assert_eq!(script.hear(), [said(ack(4, LIMIT)), said(Frame::Fin)]);
        // Nothing is left to be said later.
        assert_eq!(script.due(), Some(PING_AFTER));
    }
}

#[test]
fn the_end_is_acknowledged_at_once() {
    for role in BOTH {
        let mut script = Scripted::attached(role);
        script.say_data(b"abc");
        assert!(!script.session.owes(script.now));
        script.say(Frame::Fin);
        assert!(script.session.owes(script.now));
        assert_eq!(script.hear(), [said(ack(4, LIMIT))]);
    }
}

/// Seen in Teleport: acknowledgements that queue behind what the application does not read.
#[test]
fn what_is_not_read_is_acknowledged() {
    for role in BOTH {
        let mut script = Scripted::attached(role);
        for come in 1..=WINDOW {
            let arrived = script.say_data(&bytes(come - 1, 1));
            assert_eq!(arrived.broken, None);
            let heard = script.hear();
            if come % (WINDOW / 4) == 0 {
                assert_eq!(heard, [said(ack(come as u64, LIMIT))]);
            } else {
                assert_eq!(heard, []);
            }
        }
        assert_eq!(script.session.waiting(), WINDOW);
        // And behind it the peer's own acknowledgements get through.
        assert_eq!(script.session.write(&bytes(0, WINDOW)), WINDOW);
        script.hear();
        script.say(ack(LIMIT, 2 * LIMIT));
        assert_eq!(script.session.room(), WINDOW);
        assert_eq!(script.read(), bytes(0, WINDOW));
        assert_eq!(script.hear(), [said(ack(LIMIT, 2 * LIMIT))]);
    }
}

#[test]
fn a_new_link_restates_everything_and_nothing_twice() {
    for role in BOTH {
        let mut script = Scripted::attached(role);
        script.say_data(&bytes(0, 20));
        script.read_some(5);
        // Composed, and lost half-way.
        script.hand(7);
        script.say_data(&bytes(20, 1));
        script.say(Frame::Fin);
        script.lose_link();
        let heard = script.resume_attached(22, 0, LIMIT);
        assert!(heard.contains(&said(attach(0, 22, LIMIT + 5))), "{heard:?}");
        assert_eq!(script.hear(), []);
        assert_eq!(script.due(), Some(PING_AFTER));
        // What the application takes meanwhile is said on the next.
        script.lose_link();
        script.read_some(10);
        let heard = script.resume_attached(22, 0, LIMIT);
        assert!(
            heard.contains(&said(attach(0, 22, LIMIT + 15))),
            "{heard:?}"
        );
    }
}

/// What was stated on a link that failed may not have arrived, so the one that is taken up again says it.
#[test]
fn a_fallback_restates_what_the_new_link_said() {
    let mut script = Scripted::attached(Role::Client);
    script.resume(0).expect("it can go on");
    script.say_data_on(0, b"abc");
    assert!(but_pings(script.hear()).contains(&said(attach(0, 3, LIMIT))));
    script.lose_link();
    assert_eq!(script.due(), Some(ACK_DELAY));
    assert_eq!(script.hear(), []);
    script.pass(ACK_DELAY);
    assert_eq!(script.hear(), [said(ack(3, LIMIT))]);
}

/// Nothing that a peer says makes an end hold more than its window.
#[test]
fn a_peer_is_held_to_what_it_was_allowed() {
    for role in BOTH {
        let mut script = Scripted::attached_with(role, settings(WINDOW), u64::MAX);
        assert_eq!(script.session.room(), WINDOW);
        script.say(ack(0, u64::MAX));
        assert_eq!(script.session.write(&bytes(0, 1000)), WINDOW);
        assert_eq!(script.session.write(b"x"), 0);
        assert_eq!(script.hear(), [Data(bytes(0, WINDOW))]);
        assert_eq!(script.session.write(b"x"), 0, "it is not acknowledged");
        script.say(ack(1, u64::MAX));
        assert_eq!(script.session.write(b"xy"), 1);
        // Frame by frame, and within one piece.
        let mut piece = Vec::new();
        for at in 0..WINDOW {
            piece.extend(wire(&[Frame::Data { len: 1 }]));
            piece.extend(bytes(at, 1));
        }
        assert_eq!(script.give(0, &piece).broken, None);
        assert_eq!(script.session.waiting(), WINDOW);
        assert!(script.say_data(b"x").broken.is_some());
    }
}

/// A header says how much follows; each byte of that counts as it comes.
#[test]
fn bytes_count_as_they_come() {
    for role in BOTH {
        let mut script = Scripted::attached(role);
        script.give(0, &wire(&[Frame::Data { len: 30 }]));
        assert_eq!(script.session.received(), 0);
        for come in 1..=20 {
            let arrived = script.give(0, &bytes(come - 1, 1));
            assert_eq!(arrived.fresh, 0..1);
            assert_eq!(script.session.received(), come as u64);
        }
        assert_eq!(script.hear(), [said(ack(20, LIMIT))]);
        // The frame is never complete.
        script.lose_link();
        let heard: Vec<Said> = script.resume_attached(20, 0, LIMIT);
        assert!(heard.contains(&said(attach(0, 20, LIMIT))));
        script.say_data(&bytes(20, 10));
        assert_eq!(script.read(), bytes(0, 30));
    }
}
