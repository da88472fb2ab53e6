//! How sessions end.

use unbroken::{
    CloseReason, Refusal, RejectCode,
    protocol::{
        Phase, Role, Session,
        native::{Ended, Frame, Reject},
    },
    reset,
};

use crate::core_scripted::{
    ACK_DELAY, BOTH, Confirm, Data, LINGER, MS, RESUME_WINDOW, Scripted, WINDOW, ack, attach,
    but_pings, bytes, said, wire,
};

const LIMIT: u64 = WINDOW as u64;

const fn reset_with(code: u32) -> Frame {
    Frame::Reset { code }
}

/// Both streams have ended, and each end knows so of its own: all that is left is the server's last word.
fn done(role: Role) -> Scripted {
    let mut script = Scripted::attached(role);
    script.session.write(b"abc");
    script.session.shut_write();
    script.hear();
    script.say_data(b"xyz");
    script.say(Frame::Fin);
    script.say(ack(4, LIMIT));
    script
}

/// Reading returned `expected`, and then the end of the stream.
fn reads_to_the_end(script: &mut Scripted, expected: &[u8]) {
    assert_eq!(script.read(), expected);
    assert!(script.session.is_read_ended());
}

#[test]
fn each_direction_ends_by_itself() {
    for role in BOTH {
        let mut script = Scripted::attached(role);
        script.session.write(b"abc");
        script.session.shut_write();
        assert!(script.session.is_write_shut());
        assert_eq!(script.hear(), [Data(b"abc".to_vec()), said(Frame::Fin)]);
        // The data alone is not enough.
        assert!(!script.session.is_shut_down(true));
        script.say(ack(3, LIMIT));
        assert!(!script.session.is_shut_down(true));
        assert!(script.say(ack(4, LIMIT)).moved);
        assert!(script.session.is_shut_down(true));
        assert_eq!(script.session.verdict(), None);
        // The other direction goes on, over another link too.
        script.say_data(&bytes(0, 40));
        assert_eq!(script.hear(), [said(ack(40, LIMIT))]);
        script.lose_link();
        let heard = script.resume_attached(40, 4, LIMIT);
        assert!(heard.contains(&said(attach(4, 40, LIMIT))), "{heard:?}");
        assert!(!heard.contains(&said(Frame::Fin)));
        script.say_data(&bytes(40, 4));
        assert!(!script.session.is_read_ended());
        assert!(script.say(Frame::Fin).moved);
        reads_to_the_end(&mut script, &bytes(0, 44));
        match role {
            Role::Server => {
                assert_eq!(
                    script.hear(),
                    [said(ack(45, LIMIT + 44)), said(reset_with(reset::CLEAN))]
                );
                assert!(script.session.wants_close());
            }
            Role::Client => {
                assert_eq!(script.hear(), [said(ack(45, LIMIT + 44))]);
                assert_eq!(script.session.phase(), Phase::Attached);
                assert_eq!(script.session.verdict(), None);
                assert!(script.say(reset_with(reset::CLEAN)).moved);
                assert!(!script.session.holds(1));
            }
        }
        assert_eq!(script.session.verdict(), Some(CloseReason::Finished));
        assert_eq!(script.session.phase(), Phase::Closed(CloseReason::Finished));
    }
}

#[test]
fn an_end_that_was_lost_is_sent_again() {
    for role in BOTH {
        for received in [0, 2, 3, 4] {
            let mut script = Scripted::attached(role);
            script.session.write(b"abc");
            script.session.shut_write();
            script.hear();
            script.lose_link();
            let mut heard = but_pings(script.resume_attached(0, received, LIMIT));
            if role == Role::Client {
                heard.remove(0);
            }
            let mut expected = vec![said(attach(received, 0, LIMIT))];
            if received < 3 {
                expected.push(Data(b"abc"[received as usize..].to_vec()));
            }
            if received < 4 {
                expected.push(said(Frame::Fin));
            }
            assert_eq!(heard, expected);
            assert_eq!(script.session.is_shut_down(true), received == 4);
        }
    }
}

/// A server's last word is handed over whole, and then the link is closed in order.
#[test]
fn a_server_closes_the_link_behind_its_last_word() {
    let mut script = done(Role::Server);
    assert_eq!(script.session.verdict(), Some(CloseReason::Finished));
    assert_eq!(script.due(), None, "it is the driver's now");
    for left in (1..=20 + 8).rev() {
        assert!(!script.session.wants_close(), "{left} bytes are left");
        assert_eq!(script.hand(1).len(), 1);
    }
    assert!(script.session.wants_close() && script.session.holds(0));
    assert!(script.hand(100).is_empty());
    // Whatever still comes says nothing.
    script.say(Frame::Ping(1));
    script.say(reset_with(5));
    script.say_data(b"more");
    assert_eq!((script.hand(100), script.session.received()), (vec![], 4));
    script.session.link_closed(script.now);
    assert!(!script.session.holds(0) && !script.session.wants_close());
    reads_to_the_end(&mut script, b"xyz");

    let tombstone = script.session.tombstone().expect("it is over");
    assert_eq!((tombstone.last, tombstone.received), (Some(0), 4));
    assert_eq!(tombstone.end, Ended::Reset(reset::CLEAN));
}

/// A client that has missed the last word comes for it: the word, or a server that has forgotten the session, or time, ends it as well.
#[test]
fn a_client_waits_for_the_last_word_and_is_finished_without() {
    let finished = Some(CloseReason::Finished);
    let mut script = done(Role::Client);
    assert_eq!(script.session.verdict(), None);
    script.lose_link();
    let heard = script.resume_attached(4, 4, LIMIT);
    assert_eq!(
        but_pings(heard),
        [Confirm(Some(4)), said(attach(4, 4, LIMIT))]
    );
    script.say(reset_with(reset::CLEAN));
    assert_eq!(script.session.verdict(), finished);

    for code in [1, 2, 3, 8, 9].map(RejectCode::from) {
        let mut script = done(Role::Client);
        script.lose_link();
        let reject = Reject {
            code,
            retry_after: MS,
        };
        script.session.rejected(reject, script.now);
        assert_eq!(script.session.verdict(), finished, "{code}");
        reads_to_the_end(&mut script, b"xyz");
    }
    // Whatever code it says, since a server may have been shut down meanwhile.
    let mut script = done(Role::Client);
    script.say(reset_with(reset::SHUTTING_DOWN));
    assert_eq!(script.session.verdict(), finished);

    let mut script = done(Role::Client);
    script.lose_link();
    script.pass(RESUME_WINDOW);
    assert_eq!(script.session.verdict(), finished);

    // However the application leaves its transport, and whether or not there is a link.
    for drops in [false, true] {
        for loses in [false, true] {
            let mut script = done(Role::Client);
            script.hear();
            script.read();
            if drops {
                script.session.drop_transport(script.now);
            }
            if loses {
                script.lose_link();
            }
            let mut passed = MS - MS;
            while passed + MS < LINGER {
                let step = (10_000 * MS).min(LINGER - MS - passed);
                script.pass(step);
                passed += step;
                // The link is as it should be.
                script.say(Frame::Ping(1));
                script.hear();
            }
            assert_eq!((script.session.verdict(), script.due()), (None, Some(MS)));
            script.pass(MS);
            assert_eq!(script.session.verdict(), finished);
            assert_eq!(script.session.phase(), Phase::Closed(CloseReason::Finished));
        }
    }
}

/// A client that does not know whether everything has arrived is not told by a server that knows nothing either.
#[test]
fn a_final_reject_is_an_error_while_the_end_is_not_acknowledged() {
    let mut script = Scripted::attached(Role::Client);
    script.session.write(b"abc");
    script.session.shut_write();
    script.hear();
    script.say(Frame::Fin);
    script.say(ack(3, LIMIT));
    script.lose_link();
    let reject = Reject {
        code: RejectCode::Unknown,
        retry_after: MS,
    };
    script.session.rejected(reject, script.now);
    let refused = CloseReason::Refused(Refusal::Unknown);
    assert_eq!(script.session.verdict(), Some(refused));
    assert!(!script.session.is_shut_down(true));
}

/// A clean reset says that the end has arrived, and so can only be believed when it was sent.
#[test]
fn a_clean_reset_acknowledges_the_end_that_was_sent() {
    let mut script = Scripted::attached(Role::Client);
    script.session.write(b"abc");
    script.session.shut_write();
    script.hear();
    script.say(Frame::Fin);
    script.say(reset_with(reset::CLEAN));
    assert_eq!(script.session.verdict(), Some(CloseReason::Finished));
    assert!(script.session.is_shut_down(true));

    // With the credit there is the end cannot even have been sent.
    let mut script = Scripted::attached_with(Role::Client, crate::core_scripted::settings(64), 2);
    script.session.write(b"abc");
    script.session.shut_write();
    script.hear();
    script.say(Frame::Fin);
    script.say(reset_with(reset::CLEAN));
    assert_eq!(script.session.verdict(), Some(CloseReason::Reset(0)));
    assert!(!script.session.is_shut_down(true));

    // Nor is it the end of what the peer had to say.
    let mut script = Scripted::attached(Role::Client);
    script.say_data(b"xyz");
    script.session.shut_write();
    script.hear();
    script.say(reset_with(reset::CLEAN));
    assert_eq!(script.session.verdict(), Some(CloseReason::Reset(0)));
    assert!(!script.session.is_read_ended());
    assert_eq!(script.read(), b"xyz");

    // A client has no such word: a server waits for the acknowledgement.
    let mut script = Scripted::attached(Role::Server);
    script.session.write(b"abc");
    script.session.shut_write();
    script.hear();
    script.say(Frame::Fin);
    script.say(reset_with(reset::CLEAN));
    assert_eq!(script.session.verdict(), Some(CloseReason::Reset(0)));
    assert!(!script.session.is_shut_down(true));
}

/// Nothing is taken from the application that came in the same piece as what ends the session.
#[test]
fn bytes_that_come_with_the_end_of_the_session_are_read() {
    for role in BOTH {
        // The last acknowledgement, or the server's last word.
        let mut script = Scripted::attached(role);
        script.session.shut_write();
        script.hear();
        let data = |bytes: &[u8]| [wire(&[Frame::Data { len: bytes.len() }]), bytes.to_vec()];
        let end = wire(&[Frame::Fin, ack(1, LIMIT), reset_with(reset::CLEAN)]);
        let piece = [&data(b"last ").concat()[..], &data(b"words").concat(), &end].concat();
        script.give(0, &piece);
        assert_eq!(script.session.verdict(), Some(CloseReason::Finished));
        reads_to_the_end(&mut script, b"last words");

        // An error.
        let mut script = Scripted::attached(role);
        script.say_data(b"the ");
        script.give(
            0,
            &[&data(b"rest").concat()[..], &wire(&[reset_with(9)])].concat(),
        );
        assert_eq!(script.session.verdict(), Some(CloseReason::Reset(9)));
        assert_eq!(script.read(), b"the rest");
        assert!(
            !script.session.is_read_ended(),
            "it is no end of the stream"
        );
    }
}

#[test]
fn a_reset_of_the_peer_ends_the_session_with_its_code() {
    for code in [
        1,
        77,
        reset::APPLICATION_MAX,
        reset::SHUTTING_DOWN,
        u32::MAX,
    ] {
        let mut script = Scripted::attached(Role::Client);
        script.session.write(b"abc");
        assert!(script.say(reset_with(code)).moved);
        assert_eq!(
            script.session.phase(),
            Phase::Closed(CloseReason::Reset(code))
        );
        assert!(!script.session.holds(0), "nothing answers it");
        assert!(script.hand(100).is_empty());

        // A server says it in turn: its reset is the last word.
        let mut script = Scripted::attached(Role::Server);
        script.session.write(b"abc");
        script.say_data(b"x");
        script.say(reset_with(code));
        assert_eq!(
            script.session.phase(),
            Phase::Closed(CloseReason::Reset(code))
        );
        assert_eq!(script.hear(), [said(ack(1, LIMIT)), said(reset_with(code))]);
        assert!(script.session.wants_close());
        assert_eq!(script.read(), b"x");
        let tombstone = script.session.tombstone().expect("it is over");
        assert_eq!(tombstone.end, Ended::Reset(code));
    }
}

/// A frame that was begun is ended, and what was not is not sent any more.
#[test]
fn a_reset_goes_out_behind_the_frame_that_was_begun() {
    for role in BOTH {
        let mut script = Scripted::attached(role);
        script.say_data(b"x");
        script.session.write(&bytes(0, 30));
        let mut heard = script.hear_some(20 + 4 + 11);
        script.session.write(&bytes(30, 10));
        script.session.reset(42, script.now);
        assert_eq!(script.session.verdict(), Some(CloseReason::LocalReset(42)));
        assert!(!script.session.is_flushed() && !script.session.wants_close());
        heard.extend(script.hear());
        assert_eq!(
            heard,
            [
                said(ack(1, LIMIT)),
                Data(bytes(0, 11)),
                Data(bytes(11, 19)),
                said(reset_with(42))
            ]
        );
        assert!(script.session.is_flushed());
        // A second is none.
        script.session.reset(43, script.now);
        assert_eq!(script.hear(), []);
        assert_eq!(script.read(), b"x");
        if role == Role::Server {
            assert!(script.session.wants_close());
        } else {
            // It waits for the server's.
            assert_eq!(script.session.phase(), Phase::Attached);
            assert!(!script.session.wants_close());
            script.say(reset_with(42));
            assert!(!script.session.holds(0));
        }
        let over = Phase::Closed(CloseReason::LocalReset(42));
        assert_eq!(script.session.phase(), over);
    }
}

/// 0 would say that both streams have arrived with their ends.
#[test]
fn a_reset_is_never_clean() {
    for role in BOTH {
        let mut script = Scripted::attached(role);
        script.session.reset(reset::CLEAN, script.now);
        assert_eq!(script.session.verdict(), Some(CloseReason::LocalReset(1)));
        assert_eq!(script.hear(), [said(reset_with(1))]);
    }
}

#[test]
fn a_reset_without_a_link_is_told_on_the_next() {
    // A server's session is over at once; what is remembered of it tells the client.
    let mut script = Scripted::attached(Role::Server);
    script.lose_link();
    script.session.reset(5, script.now);
    assert_eq!(
        script.session.phase(),
        Phase::Closed(CloseReason::LocalReset(5))
    );
    assert_eq!(
        script.session.tombstone().expect("it is over").end,
        Ended::Reset(5)
    );

    // A client comes to tell, up to the linger time, and is told in turn.
    let mut script = Scripted::attached(Role::Client);
    script.session.write(b"lost");
    script.lose_link();
    script.session.reset(5, script.now);
    assert_eq!(script.due(), Some(LINGER));
    assert_eq!(script.session.phase(), Phase::Detached(script.now));
    script.resume(0).expect("it can go on");
    assert_eq!(
        but_pings(script.hear()),
        [
            Confirm(Some(0)),
            said(attach(0, 0, LIMIT)),
            said(reset_with(5))
        ]
    );
    // Lost again.
    script.lose_link();
    script.resume(0).expect("it can go on");
    assert_eq!(script.hear().last(), Some(&said(reset_with(5))));
    script.say(attach(0, 0, LIMIT));
    script.say(reset_with(5));
    assert_eq!(
        script.session.phase(),
        Phase::Closed(CloseReason::LocalReset(5))
    );

    let mut script = Scripted::attached(Role::Client);
    script.lose_link();
    script.session.reset(5, script.now);
    script.pass(LINGER - MS);
    assert_eq!(script.due(), Some(MS));
    script.pass(MS);
    assert_eq!(
        script.session.phase(),
        Phase::Closed(CloseReason::LocalReset(5))
    );
}

#[test]
fn dropping_with_bytes_unread_resets_unless_the_write_side_is_shut() {
    for role in BOTH {
        let mut script = Scripted::attached(role);
        script.say_data(b"unread");
        script.session.drop_transport(script.now);
        let code = reset::DROPPED_UNREAD;
        assert_eq!(
            script.session.verdict(),
            Some(CloseReason::LocalReset(code))
        );
        assert_eq!(script.session.waiting(), 0);
        let heard = script.hear();
        assert_eq!(heard.last(), Some(&said(reset_with(code))));
        assert!(!heard.contains(&said(Frame::Fin)));

        let mut script = Scripted::attached(role);
        script.say_data(b"unread");
        script.session.shut_write();
        script.session.drop_transport(script.now);
        assert_eq!(script.session.verdict(), None);
        assert_eq!(script.session.waiting(), 0);
        assert_eq!(script.hear(), [said(ack(6, LIMIT + 6)), said(Frame::Fin)]);

        // With nothing left to go along with.
        let mut script = Scripted::attached(role);
        script.session.shut_write();
        script.say_data(b"unread");
        assert_eq!(script.hear(), [said(ack(6, LIMIT)), said(Frame::Fin)]);
        script.say(ack(1, LIMIT));
        script.session.drop_transport(script.now);
        script.pass(ACK_DELAY);
        assert_eq!(script.hear(), [said(ack(6, LIMIT + 6))]);
    }
}

/// What a dropped transport has written goes out with its end, and what comes in is acknowledged and forgotten.
#[test]
fn a_dropped_session_drains() {
    for role in BOTH {
        let mut script = Scripted::attached(role);
        script.session.write(&bytes(0, 30));
        script.hand(10);
        script.lose_link();
        script.session.drop_transport(script.now);
        script.session.drop_transport(script.now + MS);
        assert_eq!(script.due(), Some(LINGER));
        let mut heard = but_pings(script.resume_attached(0, 0, LIMIT));
        if role == Role::Client {
            heard.remove(0);
        }
        assert_eq!(
            heard,
            [
                said(attach(0, 0, LIMIT)),
                Data(bytes(0, 30)),
                said(Frame::Fin)
            ]
        );
        // More than any window, since nothing of it is held.
        for round in 1..=5 {
            let (come, limit) = (60 * round, LIMIT + 60 * round);
            script.say_data(&bytes(0, 60));
            assert_eq!(script.session.waiting(), 0);
            assert_eq!(script.hear(), [said(ack(come, limit))]);
        }
        script.say(ack(31, LIMIT));
        assert_eq!(script.session.verdict(), None);
        script.say(Frame::Fin);
        if role == Role::Client {
            script.say(reset_with(reset::CLEAN));
        }
        assert_eq!(script.session.verdict(), Some(CloseReason::Finished));
    }
}

#[test]
fn lingering_ends() {
    for role in BOTH {
        // Nobody takes what is left.
        let mut script = Scripted::attached(role);
        script.session.write(b"lost");
        script.lose_link();
        script.session.drop_transport(script.now);
        script.pass(LINGER - MS);
        assert_eq!((script.session.verdict(), script.due()), (None, Some(MS)));
        script.pass(MS);
        let expired = Phase::Closed(CloseReason::Expired);
        assert_eq!(script.session.phase(), expired);
        // A client that comes yet is told that it was broken off.
        let end = script.session.tombstone().expect("it is over").end;
        assert_eq!(end, Ended::Reset(reset::LINGER));

        // The peer takes it, and has no end.
        for acknowledged in [3, 4] {
            let mut script = Scripted::attached(role);
            script.session.write(b"abc");
            script.session.drop_transport(script.now);
            script.hear();
            script.say(ack(acknowledged, LIMIT));
            let mut passed = MS - MS;
            while passed + MS < LINGER {
                let step = (10_000 * MS).min(LINGER - MS - passed);
                script.pass(step);
                passed += step;
                script.say_data(b"and on");
                script.hear();
            }
            assert_eq!(script.session.verdict(), None);
            script.pass(MS);
            let reason = match acknowledged {
                4 => CloseReason::Local,
                _ => CloseReason::Expired,
            };
            assert_eq!(script.session.phase(), Phase::Closed(reason));
            let heard = script.hear();
            assert_eq!(heard.last(), Some(&said(reset_with(reset::LINGER))));
            assert!(script.session.wants_close());
            script.session.link_closed(script.now);
            assert!(!script.session.holds(0));
        }
    }
}

/// Whatever ended a session at once tells the peer nothing.
#[test]
fn a_session_that_is_closed_says_nothing_more() {
    for role in BOTH {
        let mut script = Scripted::attached(role);
        script.say_data(b"abc");
        script.session.write(b"xyz");
        script.hand(5);
        script.session.close(CloseReason::Abandoned);
        script.session.close(CloseReason::Expired);
        script.session.reset(7, script.now);
        assert_eq!(script.session.verdict(), Some(CloseReason::Abandoned));
        assert_eq!((script.hand(100), script.due()), (vec![], None));
        assert!(!script.session.holds(0) && !script.session.wants_close());
        assert_eq!(script.read(), b"abc");
        let end = script.session.tombstone().expect("it is over").end;
        assert_eq!(end, Ended::Reset(reset::ABANDONED));
    }
}
