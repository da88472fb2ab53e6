//! A session that has to make do with less than its window.

use unbroken::protocol::{Role, Session, native::Frame};

use crate::core_scripted::{
    ACK_DELAY, BOTH, Data, MS, PING_AFTER, Scripted, WINDOW, ack, attach, bytes, said, settings,
    wire,
};

const LIMIT: u64 = WINDOW as u64;

/// A session in use, of which the window shrinks to `bytes`.
fn confined(role: Role, bytes: usize) -> Scripted {
    let mut script = Scripted::attached(role);
    assert!(
        !script.session.set_window(bytes, script.now),
        "nobody waits"
    );
    script
}

#[test]
fn what_the_peer_was_allowed_it_may_send_and_no_more() {
    for role in BOTH {
        let mut script = confined(role, 8);
        assert_eq!((script.hear(), script.due()), (vec![], Some(PING_AFTER)));
        assert!(!script.session.is_confined());
        for come in 0..WINDOW {
            let arrived = script.say_data(&bytes(come, 1));
            assert_eq!(arrived.broken, None);
        }
        assert_eq!(script.hear(), [said(ack(LIMIT, LIMIT))]);
        assert!(script.session.is_confined(), "the peer waits");
        // The limit stands until as much was taken as the smaller window lies below the greater.
        assert_eq!(script.read_some(WINDOW - 8), bytes(0, WINDOW - 8));
        script.pass(ACK_DELAY * 2);
        assert_eq!(script.hear(), []);
        // From here on it moves by a quarter of the window there is.
        script.read_some(1);
        assert!(!script.session.owes(script.now));
        script.read_some(1);
        assert!(script.session.owes(script.now));
        assert_eq!(script.hear(), [said(ack(LIMIT, LIMIT + 2))]);
        assert!(!script.session.is_confined());
        script.read_some(6);
        assert_eq!(script.hear(), [said(ack(LIMIT, LIMIT + 8))]);
        assert!(script.say_data(&bytes(0, 9)).broken.is_some(), "beyond it");
    }
}

#[test]
fn a_new_link_takes_nothing_back() {
    for role in BOTH {
        let mut script = Scripted::attached(role);
        script.say_data(&bytes(0, 40));
        script.hear();
        script.read_some(30);
        assert_eq!(script.hear(), [said(ack(40, LIMIT + 30))]);
        for window in [8, 1, 30] {
            script.session.set_window(window, script.now);
            script.lose_link();
            let heard = script.resume_attached(40, 0, LIMIT);
            let stands = attach(0, 40, LIMIT + 30);
            assert!(heard.contains(&said(stands)), "{heard:?}");
        }
        assert_eq!(script.say_data(&bytes(40, WINDOW - 10)).broken, None);
        assert!(script.say_data(b"x").broken.is_some());
    }
}

/// Nothing comes from the peer, which waits.
#[test]
fn credit_is_given_when_the_window_grows_again() {
    for role in BOTH {
        let mut script = confined(role, 8);
        script.say_data(&bytes(0, WINDOW));
        script.read_some(30);
        script.hear();
        assert!(script.session.is_confined());
        // Up to 34 it is as much as was allowed before.
        assert!(!script.session.set_window(34, script.now));
        assert!(script.session.is_confined());
        // A little waits for more to go along with, and no longer than usual.
        assert!(script.session.set_window(35, script.now));
        assert!(!script.session.is_confined());
        assert!(!script.session.owes(script.now));
        assert_eq!(script.due(), Some(ACK_DELAY));
        script.pass(ACK_DELAY);
        assert_eq!(script.hear(), [said(ack(LIMIT, LIMIT + 1))]);
        // Much does not.
        assert!(script.session.set_window(usize::MAX, script.now));
        assert!(script.session.owes(script.now));
        assert_eq!(script.hear(), [said(ack(LIMIT, LIMIT + 30))]);
        assert!(!script.session.set_window(WINDOW, script.now), "as before");
    }
}

#[test]
fn a_writer_has_room_for_what_the_window_leaves() {
    for role in BOTH {
        let mut script = Scripted::attached_with(role, settings(WINDOW), 1 << 20);
        assert_eq!(script.session.write(&bytes(0, 40)), 40);
        assert_eq!(script.hear(), [Data(bytes(0, 40))]);
        script.session.set_window(50, script.now);
        assert_eq!(script.session.room(), 10);
        assert!(!script.session.is_confined());
        script.session.set_window(16, script.now);
        assert_eq!((script.session.room(), script.session.write(b"x")), (0, 0));
        assert!(script.session.is_confined());
        // It waits for the peer, or for the window.
        assert!(script.say(ack(24, 1 << 20)).moved);
        assert_eq!(script.session.room(), 0);
        script.say(ack(25, 1 << 20));
        assert_eq!(script.session.write(&bytes(40, 10)), 1);
        assert!(script.session.is_confined());
        assert!(script.session.set_window(17, script.now));
        assert_eq!(script.session.write(&bytes(41, 10)), 1);
        // What is kept is all there yet.
        script.lose_link();
        let heard = script.resume_attached(0, 25, 1 << 20);
        assert_eq!(heard.last(), Some(&Data(bytes(25, 17))));
        // None is no window.
        script.session.set_window(0, script.now);
        script.say(ack(42, 1 << 20));
        assert_eq!(script.session.room(), 1);
    }
}

#[test]
fn nobody_waits_for_memory_when_an_end_is_done() {
    for role in BOTH {
        let mut script = confined(role, 8);
        assert_eq!(script.session.write(&bytes(0, 8)), 8);
        assert!(script.session.is_confined());
        script.session.shut_write();
        assert!(!script.session.is_confined());
        script.say_data(&bytes(0, WINDOW));
        assert!(script.session.is_confined());
        script.say(Frame::Fin);
        assert!(!script.session.is_confined());
    }
}

/// Writes all of it, as the link takes it.
fn write_and_hand(script: &mut Scripted, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let written = script.session.write(bytes);
        bytes = &bytes[written..];
        while !script.hand(usize::MAX).is_empty() {}
    }
}

#[test]
fn a_session_that_makes_do_keeps_no_memory_it_does_not_need() {
    const LARGE: usize = 1 << 20;
    for role in BOTH {
        let mut script = Scripted::attached_with(role, settings(LARGE), LARGE as u64);
        write_and_hand(&mut script, &bytes(0, LARGE));
        for come in 0..16 {
            let data = bytes(come << 16, 1 << 16);
            let frame = [wire(&[Frame::Data { len: data.len() }]), data].concat();
            assert_eq!(script.give(0, &frame).broken, None);
        }
        assert_eq!(script.session.allocated(), 2 * LARGE);
        // What is full is needed.
        script.session.set_window(LARGE / 2, script.now);
        assert_eq!(script.session.allocated(), 2 * LARGE);
        // Of either direction, little is left.
        let left = 10_000;
        script.say(ack((LARGE - left) as u64, 2 * LARGE as u64));
        assert_eq!(script.session.allocated(), LARGE + (32 << 10));
        script.read_some(LARGE - left);
        assert_eq!(script.session.allocated(), 64 << 10);
        script.say(ack(LARGE as u64, 2 * LARGE as u64));
        assert_eq!(script.read(), bytes(LARGE - left, left));
        assert_eq!(script.session.allocated(), 0);
        // With the whole window again, what was used is kept for the next bytes until nothing happens for a while.
        script.session.set_window(LARGE, script.now);
        write_and_hand(&mut script, &bytes(LARGE, LARGE));
        script.say(ack(2 * LARGE as u64, 2 * LARGE as u64));
        assert_eq!(script.session.allocated(), LARGE);
        // Or memory becomes short.
        script.session.set_window(LARGE - 1, script.now);
        assert_eq!(script.session.allocated(), 0);
        script.pass(MS);
    }
}
