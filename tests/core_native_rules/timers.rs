//! What time does.

use std::time::Duration;

use unbroken::{
    CloseReason, RejectCode,
    protocol::{
        Phase, Role, Session,
        native::{Ended, Frame, Settings},
    },
};

use crate::core_scripted::{
    BOTH, DEAD_AFTER, Data, HANDSHAKE_TIMEOUT, MS, PING_AFTER, RESUME_WINDOW, Scripted, WINDOW,
    ack, attach, said, settings,
};

const LIMIT: u64 = WINDOW as u64;

#[test]
fn a_silent_peer_is_pinged_and_then_its_link_is_dead() {
    for role in BOTH {
        let mut script = Scripted::attached(role);
        assert_eq!(script.due(), Some(PING_AFTER));
        script.pass(PING_AFTER - MS);
        assert_eq!(script.hear(), []);
        script.pass(MS);
        assert!(script.session.owes(script.now));
        assert_eq!(script.hear(), [said(Frame::Ping(2))]);
        assert_eq!(script.due(), Some(DEAD_AFTER - PING_AFTER));
        // An answer settles it for a while.
        script.pass(MS);
        script.say(Frame::Pong(2));
        assert_eq!(script.due(), Some(PING_AFTER));
        script.pass(PING_AFTER);
        assert_eq!(script.hear(), [said(Frame::Ping(3))]);

        script.pass(DEAD_AFTER - PING_AFTER - MS);
        assert_eq!(script.session.phase(), Phase::Attached);
        script.pass(MS);
        assert_eq!(script.session.phase(), Phase::Detached(script.now));
        assert!(!script.session.holds(0));
        assert_eq!(script.due(), Some(RESUME_WINDOW));
    }
}

/// Whatever comes is a sign of life, a part of a frame too; the answer to a PING need not be among it.
#[test]
fn any_byte_is_a_sign_of_life() {
    for role in BOTH {
        let mut script = Scripted::attached(role);
        for byte in [0x00, 0x00, 0x00, 0x02, b'a', b'b', 0x01, 0, 0, 16, 0] {
            script.pass(DEAD_AFTER - MS);
            assert_eq!(script.session.phase(), Phase::Attached);
            script.hear();
            script.give(0, &[byte]);
        }
        assert_eq!(script.session.received(), 2);
        script.pass(DEAD_AFTER);
        assert_eq!(script.session.phase(), Phase::Detached(script.now));
    }
}

#[test]
fn a_ping_is_answered_at_once_and_only_the_latest() {
    for role in BOTH {
        let mut script = Scripted::attached(role);
        script.say(Frame::Ping(u64::MAX));
        assert!(script.session.owes(script.now));
        assert_eq!(script.hear(), [said(Frame::Pong(u64::MAX))]);
        for ping in [7, 3, 5] {
            script.say(Frame::Ping(ping));
        }
        assert_eq!(script.hear(), [said(Frame::Pong(5))]);
        // Not on another link.
        script.say(Frame::Ping(9));
        script.lose_link();
        let heard = script.resume_attached(0, 0, LIMIT);
        assert!(!heard.contains(&said(Frame::Pong(9))));
    }
}

#[test]
fn round_trips_are_measured_and_smoothed() {
    for role in BOTH {
        let mut script = Scripted::new(role, settings(WINDOW), LIMIT);
        assert!(
            script.hear().contains(&said(Frame::Ping(1))),
            "on each new link"
        );
        script.say(attach(0, 0, LIMIT));
        script.pass(80 * MS);
        assert_eq!(script.session.stats().round_trip, None);
        script.say(Frame::Pong(2));
        assert_eq!(
            script.session.stats().round_trip,
            None,
            "it answers nothing"
        );
        script.say(Frame::Pong(1));
        assert_eq!(script.session.stats().round_trip, Some(80 * MS));
        script.say(Frame::Pong(1));

        script.session.probe();
        assert_eq!(script.hear(), [said(Frame::Ping(2))]);
        // Asked again before the answer: one is under way.
        script.session.probe();
        assert_eq!(script.hear(), []);
        script.pass(160 * MS);
        script.say(Frame::Pong(2));
        assert_eq!(script.session.stats().round_trip, Some(90 * MS));
        // But then it is asked again.
        assert_eq!(script.hear(), [said(Frame::Ping(3))]);
        // Links come and go.
        script.lose_link();
        script.resume_attached(0, 0, LIMIT);
        assert_eq!(script.session.stats().round_trip, Some(90 * MS * 7 / 8));
    }
}

/// A link that always has something to give is pinged too, along with something else, so that its round trip is known.
#[test]
fn a_busy_link_is_pinged_along_with_something_else() {
    for role in BOTH {
        let mut script = Scripted::attached(role);
        let second = Duration::from_secs(1);
        let step = |script: &mut Scripted| {
            script.pass(second);
            let sent = script.session.stats().sent;
            script.say(ack(sent, LIMIT + sent));
            assert_eq!(script.hear(), [], "nothing is due");
            script.session.write(b"x");
            script.hear()
        };
        for _ in 1..PING_AFTER.as_secs() {
            assert_eq!(step(&mut script), [Data(b"x".to_vec())]);
        }
        let pinged = [said(Frame::Ping(2)), Data(b"x".to_vec())];
        assert_eq!(step(&mut script), pinged);
        // Not before it is answered.
        for _ in 0..2 * PING_AFTER.as_secs() {
            assert_eq!(step(&mut script), [Data(b"x".to_vec())]);
        }
        script.say(Frame::Pong(2));
        assert_eq!(
            step(&mut script),
            [said(Frame::Ping(3)), Data(b"x".to_vec())]
        );
    }
}

#[test]
fn a_server_that_does_not_take_the_link_loses_it() {
    let mut script = Scripted::new(Role::Client, settings(WINDOW), LIMIT);
    script.hear();
    assert_eq!(script.due(), Some(HANDSHAKE_TIMEOUT));
    script.pass(HANDSHAKE_TIMEOUT - MS);
    // Half of an ATTACH is none.
    script.give(0, &[0x06, 0, 0, 24, 0]);
    script.pass(MS);
    assert_eq!(script.session.phase(), Phase::Detached(script.now));
    assert!(!script.session.holds(0));

    // With the ATTACH nothing is left of that deadline.
    script.resume_attached(0, 0, LIMIT);
    assert_eq!(script.due(), Some(PING_AFTER));
    // A server has none: it waits for the client's frames as for any.
    let script = Scripted::new(Role::Server, settings(WINDOW), LIMIT);
    assert_eq!(script.due(), Some(DEAD_AFTER));
}

#[test]
fn either_of_two_links_can_be_dead() {
    let mut script = Scripted::attached(Role::Client);
    script.pass(PING_AFTER);
    script.hear();
    let later = DEAD_AFTER - PING_AFTER - MS;
    script.pass(later);
    // The old link is as good as dead when the client turns from it.
    script.resume(0).expect("it can go on");
    assert_eq!(script.due(), Some(MS));
    script.pass(MS);
    assert!(!script.session.holds(0) && script.session.holds(1));
    assert_eq!(script.session.phase(), Phase::Attached);
    assert_eq!(script.due(), Some(HANDSHAKE_TIMEOUT - MS));
    // And the new one is never used.
    script.pass(HANDSHAKE_TIMEOUT - MS);
    assert!(!script.session.holds(1));
    assert_eq!(script.session.phase(), Phase::Detached(script.now));

    // Long after everything both are, and the session has only been detached.
    let mut script = Scripted::attached(Role::Client);
    script.resume(0).expect("it can go on");
    script.pass(2 * RESUME_WINDOW);
    assert!(!script.session.holds(0) && !script.session.holds(1));
    assert_eq!(script.session.phase(), Phase::Detached(script.now));
    assert_eq!(script.due(), Some(RESUME_WINDOW));
}

/// Bytes that the link holds back, for a record that takes long or never becomes whole.
#[test]
fn what_is_held_back_is_a_sign_of_life_for_a_while() {
    for role in BOTH {
        let mut script = Scripted::attached(role);
        script.say_data(b"a");
        for _ in 0..8 {
            script.pass(DEAD_AFTER - MS);
            script.session.stirred(0, script.now);
        }
        script.pass(7 * MS);
        assert_eq!(script.session.phase(), Phase::Attached);
        script.pass(MS);
        assert_eq!(script.session.phase(), Phase::Detached(script.now));

        // A record that does become whole is heard.
        let mut script = Scripted::attached(role);
        for _ in 0..3 {
            for _ in 1..8 {
                script.pass(DEAD_AFTER - MS);
                script.session.stirred(0, script.now);
            }
            script.say_data(b"a");
        }
        assert_eq!(script.session.phase(), Phase::Attached);
    }
}

#[test]
fn a_session_expires_when_the_resume_window_has_passed() {
    for role in BOTH {
        let mut script = Scripted::attached(role);
        script.say_data(b"abc");
        script.session.write(b"never arrives");
        script.lose_link();
        // What was owed waits for a link.
        script.pass(RESUME_WINDOW - MS);
        assert_eq!(script.session.verdict(), None);
        assert_eq!(script.due(), Some(MS));
        script.pass(MS);
        assert_eq!(script.session.verdict(), Some(CloseReason::Expired));
        assert_eq!(script.session.phase(), Phase::Closed(CloseReason::Expired));
        assert_eq!(script.due(), None);
        assert!(script.resume(0).is_err());
        assert!(!script.session.is_shut_down(true) && !script.session.is_read_ended());
        assert_eq!(script.read(), b"abc");
        let tombstone = script.session.tombstone().expect("it is over");
        let end = Ended::Rejected(RejectCode::Expired);
        assert_eq!((tombstone.end, tombstone.received), (end, 3));
    }
}

/// A driver that wants no pings, say, or no end of waiting.
#[test]
fn times_beyond_all_time_never_come() {
    for role in BOTH {
        let never = Settings {
            window: WINDOW,
            resume_window: Duration::MAX,
            linger: Duration::MAX,
            ping_after: Duration::MAX,
            dead_after: Duration::MAX,
            handshake_timeout: Duration::MAX,
            ..settings(WINDOW)
        };
        let mut script = Scripted::attached_with(role, never, LIMIT);
        assert_eq!(script.due(), None);
        script.session.write(b"abc");
        assert_eq!(script.hear(), [Data(b"abc".to_vec())]);
        script.pass(RESUME_WINDOW);
        script.say_data(b"d");
        script.session.write(b"e");
        assert_eq!(script.hear(), [said(ack(1, LIMIT)), Data(b"e".to_vec())]);
        script.lose_link();
        script.read();
        script.session.drop_transport(script.now);
        script.pass(1000 * RESUME_WINDOW);
        assert_eq!((script.session.verdict(), script.due()), (None, None));
    }
}
