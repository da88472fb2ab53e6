//! From one link to the next: what is checked, what is stated, and when the old one goes.

use unbroken::{
    CloseReason, RejectCode, ResumeError,
    protocol::{
        Arrived, Phase, Role, Session,
        native::{ClientProtection, ClientResume, Ended, Frame, Reject},
    },
};

use crate::core_scripted::{
    BOTH, Confirm, Data, HANDSHAKE_TIMEOUT, MS, Scripted, WINDOW, ack, attach, but_pings, bytes,
    said,
};

const LIMIT: u64 = WINDOW as u64;

fn first_resume(script: &mut Scripted) -> ClientResume {
    let resume = script.session.resume([1; 16], ClientProtection::None);
    resume.expect("it is the first")
}

#[test]
fn an_attempt_not_above_the_last_one_attached_is_stale() {
    let mut script = Scripted::attached(Role::Server);
    script.session.write(b"old");
    assert_eq!(
        script.session.answer(0),
        Err(ResumeError::Stale),
        "the open's"
    );
    assert_eq!(script.session.answer(1), Ok(0));
    script
        .session
        .attach(4, 0, script.now)
        .expect("it is newer");
    script.link = 4;
    for attempt in 0..=4 {
        assert_eq!(script.session.answer(attempt), Err(ResumeError::Stale));
        let attached = script.session.attach(attempt, 0, script.now);
        assert_eq!(attached, Err(ResumeError::Stale));
    }
    assert_eq!(script.session.stats().resumes, 1);
    assert!(script.session.holds(4));
    // Also when the link is gone meanwhile.
    script.lose_link();
    assert_eq!(
        script.session.attach(3, 0, script.now),
        Err(ResumeError::Stale)
    );
    assert_eq!(script.session.phase(), Phase::Detached(script.now));
    script
        .session
        .attach(5, 0, script.now)
        .expect("it is newer");
    assert_eq!(script.session.stats().resumes, 2);
}

/// Nothing a client says before its proof is believed; so asking for it changes nothing.
#[test]
fn an_answer_changes_nothing() {
    let mut script = Scripted::attached(Role::Server);
    script.say_data(&bytes(0, 5));
    script.session.write(&bytes(0, 40));
    script.hear_some(20);
    let before = (script.session.stats(), script.due());
    for attempt in [1, 7, u32::MAX] {
        assert_eq!(script.session.answer(attempt), Ok(5));
    }
    assert_eq!((script.session.stats(), script.due()), before);
    assert_eq!(script.session.attach(1, 0, script.now), Ok(()));
}

#[test]
fn a_server_drops_its_old_link_for_the_new_one() {
    let mut script = Scripted::attached(Role::Server);
    script.session.write(&bytes(0, 30));
    // The old link is in the middle of a frame.
    script.hand(4 + 11);
    script.resume(5).expect("it can go on");
    assert!(!script.session.holds(0) && script.session.holds(1));
    assert_eq!(script.session.phase(), Phase::Attached);
    assert_eq!(
        but_pings(script.hear()),
        [said(attach(5, 0, LIMIT)), Data(bytes(5, 25))]
    );
    // What still comes over it comes from nowhere.
    assert_eq!(script.say_data_on(0, b"late"), Arrived::default());
    script.session.link_failed(0, script.now);
    assert_eq!(script.session.phase(), Phase::Attached);
    assert_eq!(script.session.received(), 0);
    assert_eq!(script.session.stats().replayed, 6);
}

#[test]
fn a_server_checks_the_count_of_the_proof_and_changes_nothing_if_it_cannot_be() {
    let mut script = Scripted::attached(Role::Server);
    script.session.write(&bytes(0, 30));
    script.hear();
    script.say(ack(20, LIMIT));
    for (received, error) in [
        (19, ResumeError::Gap),
        (0, ResumeError::Gap),
        (40, ResumeError::ReceivedTooMuch),
        (u64::MAX, ResumeError::ReceivedTooMuch),
    ] {
        assert_eq!(script.session.attach(1, received, script.now), Err(error));
        assert!(script.session.holds(0), "the old link goes on");
        assert_eq!(script.session.write(b"x"), 1);
        assert_eq!(script.hear().len(), 1);
    }
    assert_eq!(script.session.stats().resumes, 0);
    // The number is free as before.
    script
        .session
        .attach(1, 20, script.now)
        .expect("that much is held");
}

#[test]
fn a_client_that_its_server_forgot_bytes_of_is_over_with_a_gap() {
    let mut script = Scripted::attached(Role::Client);
    script.session.write(&bytes(0, 30));
    script.hear();
    script.say(ack(20, LIMIT));
    script.lose_link();
    // More than ever was sent is only wrong: perhaps the next answer is right.
    assert_eq!(script.resume(31), Err(ResumeError::ReceivedTooMuch));
    assert_eq!(script.session.verdict(), None);
    assert_eq!(script.session.phase(), Phase::Detached(script.now));
    assert_eq!(script.resume(19), Err(ResumeError::Gap));
    assert_eq!(script.session.verdict(), Some(CloseReason::Gap));
    assert_eq!(script.session.phase(), Phase::Closed(CloseReason::Gap));
    assert_eq!(script.due(), None);
}

/// The server's count was true when it said it: the old link has brought more since.
#[test]
fn a_client_starts_where_it_holds_bytes_and_not_below() {
    let mut script = Scripted::attached(Role::Client);
    script.session.write(&bytes(0, 30));
    script.hear();
    let resume = first_resume(&mut script);
    script.say(ack(20, LIMIT));
    assert_eq!(script.session.room(), WINDOW - 10);
    script.answer(resume, 12).expect("it can go on");
    assert_eq!(
        but_pings(script.hear()),
        [
            Confirm(Some(0)),
            said(attach(20, 0, LIMIT)),
            Data(bytes(20, 10))
        ]
    );
}

/// What a client has received when it turns to the new link is what counts, and CONFIRM says it.
#[test]
fn a_confirm_states_the_count_of_its_moment() {
    let mut script = Scripted::attached(Role::Client);
    script.say_data(&bytes(0, 5));
    let resume = first_resume(&mut script);
    script.say_data(&bytes(5, 4));
    script.answer(resume, 0).expect("it can go on");
    assert_eq!(script.asked, Some((1, 5)));
    assert_eq!(
        but_pings(script.hear()),
        [Confirm(Some(9)), said(attach(0, 9, LIMIT))]
    );
}

#[test]
fn a_client_reads_both_links_and_writes_one_until_the_server_takes_the_new_one() {
    let mut script = Scripted::attached(Role::Client);
    script.session.write(&bytes(0, 10));
    script.hear();
    script.say_data(&bytes(0, 6));
    script.resume(4).expect("it can go on");
    assert!(script.session.is_switching());
    assert_eq!(
        script.session.phase(),
        Phase::Attached,
        "it never was without"
    );
    assert_eq!(
        but_pings(script.hear()),
        [
            Confirm(Some(6)),
            said(attach(4, 6, LIMIT)),
            Data(bytes(4, 6))
        ]
    );
    // What comes over the old one counts, and is acknowledged on the new one alone.
    script.say_data_on(0, &bytes(6, 30));
    script.say_on(0, ack(10, LIMIT));
    assert_eq!(script.session.received(), 36);
    assert_eq!(script.session.stats().unacknowledged, 0);
    assert_eq!(script.hear(), [said(ack(36, LIMIT))]);
    assert!(script.session.holds(0) && script.session.holds(1));

    // The server goes on from what CONFIRM said: the first 30 bytes come again.
    let arrived = script.say(attach(6, 10, LIMIT));
    assert!(arrived.attached);
    assert!(!script.session.holds(0) && !script.session.is_switching());
    assert_eq!(script.say_data_on(0, &bytes(36, 1)), Arrived::default());
    let arrived = script.say_data(&bytes(6, 35));
    assert_eq!(arrived.fresh.len(), 5);
    assert_eq!(script.read(), bytes(0, 41));
    assert_eq!(script.session.stats().resumes, 1);
}

/// A client goes on where it stopped on the old link if the new one fails first, and ends the frame it had begun there.
#[test]
fn a_client_falls_back_to_the_middle_of_a_frame() {
    // Within the header, at its end, within the payload, and at the end of that.
    for begun in [1, 3, 4, 5, 20, 43, 44] {
        for failing in [Fails::Link, Fails::Late, Fails::Rejected, Fails::Wrong] {
            let mut script = Scripted::attached(Role::Client);
            assert_eq!(script.session.write(&bytes(0, 40)), 40);
            let mut said_on_old = script.hear_some(begun);
            script.resume(0).expect("it can go on");
            script.session.write(&bytes(40, 10));
            let said_on_new = script.hear();
            assert_eq!(
                but_pings(said_on_new),
                [
                    Confirm(Some(0)),
                    said(attach(0, 0, LIMIT)),
                    Data(bytes(0, 50))
                ]
            );
            assert_eq!(script.session.room(), WINDOW - 50);
            script.say_on(0, Frame::Ping(77));
            failing.strike(&mut script);
            assert!(script.session.holds(0) && !script.session.holds(1));
            assert_eq!(script.session.phase(), Phase::Attached);
            assert!(!script.session.is_switching());

            said_on_old.extend(script.hear());
            let data: Vec<u8> = said_on_old
                .iter()
                .filter_map(|said| match said {
                    Data(data) => Some(data.as_slice()),
                    _ => None,
                })
                .collect::<Vec<_>>()
                .concat();
            assert_eq!(data, bytes(0, 50));
            assert!(said_on_old.contains(&said(Frame::Pong(77))));
            script.say_on(0, ack(50, LIMIT));
            assert_eq!(script.session.room(), WINDOW);

            // Another attempt has another number.
            script.link = 1;
            script.resume(50).expect("it can go on");
            assert_eq!(script.link, 2);
        }
    }
}

/// How a link fails that the server has not taken into use.
#[derive(Clone, Copy, Debug)]
enum Fails {
    Link,
    Late,
    Rejected,
    Wrong,
}

impl Fails {
    fn strike(self, script: &mut Scripted) {
        match self {
            Self::Link => script.lose_link(),
            Self::Late => {
                script.pass(HANDSHAKE_TIMEOUT - MS);
                assert!(script.session.holds(1));
                assert_eq!(script.due(), Some(MS));
                script.pass(MS);
            }
            Self::Rejected => {
                let retry_after = 5 * MS;
                let code = RejectCode::Stale;
                let arrived = script.say(Frame::Reject(Reject { code, retry_after }));
                assert_eq!(arrived.rejected, Some((code, retry_after)));
                assert_eq!(script.session.retry_at(), Some(script.now + retry_after));
            }
            Self::Wrong => assert!(script.say(Frame::Fin).broken.is_some()),
        }
    }
}

/// What was acknowledged is still to be handed to a link that has not come so far, since DATA carries no offset.
#[test]
fn bytes_are_kept_for_the_link_that_is_behind() {
    // The new link is: it starts from a count that was old.
    let mut script = Scripted::attached(Role::Client);
    script.session.write(&bytes(0, 60));
    script.hear();
    script.resume(10).expect("it can go on");
    script.say_on(0, ack(60, 2 * LIMIT));
    assert_eq!(
        script.session.room(),
        WINDOW - 50,
        "nothing before the new link had it"
    );
    // CONFIRM, ATTACH, PING and the header come first.
    let head = 44 + 28 + 12 + 4;
    script.hear_some(head + 20);
    assert_eq!(script.session.room(), WINDOW - 30);
    script.say(attach(0, 60, 2 * LIMIT));
    assert_eq!(
        script.session.room(),
        WINDOW - 30,
        "nor because the old one is gone"
    );
    assert_eq!(script.hear(), [Data(bytes(30, 30))]);
    assert_eq!(script.session.room(), WINDOW);

    // The old link is: it was in the middle of a replay, of which the server had more than it had said.
    for fails in [false, true] {
        let mut script = Scripted::attached(Role::Client);
        script.session.write(&bytes(0, 60));
        script.hear();
        script.lose_link();
        script.resume(10).expect("it can go on");
        let mut said_on_old = script.hear_some(head + 5);
        script.say(attach(0, 10, 2 * LIMIT));
        script.say(ack(60, 2 * LIMIT));
        script.resume(60).expect("it can go on");
        assert_eq!(
            but_pings(script.hear()),
            [Confirm(Some(0)), said(attach(60, 0, LIMIT))]
        );
        let room = script.session.room();
        assert_eq!(room, WINDOW - 45, "it may have to go on");
        if fails {
            script.lose_link();
            said_on_old.extend(script.hear());
            assert_eq!(
                said_on_old[said_on_old.len() - 2..],
                [Data(bytes(10, 5)), Data(bytes(15, 45))]
            );
        } else {
            script.say(attach(0, 60, 2 * LIMIT));
        }
        assert_eq!(script.session.room(), WINDOW);
    }
}

/// What either end proves to have received counts at once, and the link's ATTACH only restates it.
#[test]
fn counts_of_a_handshake_acknowledge() {
    for role in BOTH {
        let mut script = Scripted::attached(role);
        script.session.write(&bytes(0, 30));
        script.hear();
        script.lose_link();
        script.resume(20).expect("it can go on");
        assert_eq!(script.session.stats().unacknowledged, 10);
        assert_eq!(script.session.room(), WINDOW - 10);
    }
}

/// An attempt that the client has given up: its CONFIRM comes late.
#[test]
fn a_late_confirm_attaches_unless_the_client_has_said_more_since() {
    let mut script = Scripted::attached(Role::Server);
    script.session.write(&bytes(0, 30));
    script.hear();
    // The client had 10 when it made its attempt, and has gone on on the old link.
    script.say(ack(25, LIMIT));
    assert_eq!(
        script.session.attach(1, 10, script.now),
        Err(ResumeError::Gap)
    );
    script.say_data(b"goes on");
    assert_eq!(script.session.received(), 7);
    assert!(script.session.holds(0));

    // Whatever it then dies of, no gap is to blame once it has come again.
    script.resume(25).expect("it can go on");
    script.lose_link();
    script.pass(crate::core_scripted::RESUME_WINDOW);
    assert_eq!(script.session.verdict(), Some(CloseReason::Expired));

    // Nor if it has shown to be on its old link still.
    let mut script = Scripted::attached(Role::Server);
    script.session.write(&bytes(0, 30));
    script.hear();
    script.say(ack(25, LIMIT));
    let attached = script.session.attach(1, 10, script.now);
    assert_eq!(attached, Err(ResumeError::Gap));
    script.give(0, &[0x04]);
    script.lose_link();
    script.pass(crate::core_scripted::RESUME_WINDOW);
    assert_eq!(script.session.verdict(), Some(CloseReason::Expired));

    // One that lacks nothing is attached, and superseded as usual.
    let mut script = Scripted::attached(Role::Server);
    script.session.write(&bytes(0, 30));
    script.hear();
    script
        .session
        .attach(1, 10, script.now)
        .expect("it is all held");
    script
        .session
        .attach(2, 25, script.now)
        .expect("it is newer");
    script.link = 2;
    assert!(!script.session.holds(1));
}

#[test]
fn a_session_that_never_came_over_its_gap_expires_with_it() {
    let mut script = Scripted::attached(Role::Server);
    script.session.write(&bytes(0, 30));
    script.hear();
    script.say(ack(25, LIMIT));
    script.lose_link();
    assert_eq!(
        script.session.attach(1, 10, script.now),
        Err(ResumeError::Gap)
    );
    // A link that is gone brings nothing.
    assert_eq!(script.say_data_on(0, b"late"), Arrived::default());
    script.pass(crate::core_scripted::RESUME_WINDOW);
    assert_eq!(script.session.verdict(), Some(CloseReason::Gap));
    let tombstone = script.session.tombstone().expect("it is over");
    assert_eq!(tombstone.end, Ended::Rejected(RejectCode::Gap));
}

/// The first link of a client is in use as soon as it is attached; a later one when the server has taken it.
#[test]
fn a_client_without_a_link_is_attached_when_the_server_says_so() {
    let mut script = Scripted::new(Role::Client, crate::core_scripted::settings(WINDOW), LIMIT);
    assert_eq!(script.session.phase(), Phase::Attached);
    assert!(script.session.is_switching());
    script.lose_link();
    let lost = script.now;
    assert_eq!(script.session.phase(), Phase::Detached(lost));
    script.pass(5 * MS);
    script.resume(0).expect("it can go on");
    script.hear();
    assert_eq!(script.session.phase(), Phase::Detached(lost));
    script.say(attach(0, 0, LIMIT));
    assert_eq!(script.session.phase(), Phase::Attached);
}

/// The server closes the old link as soon as it has the CONFIRM of the new one, and its ATTACH may be later than that.
#[test]
fn a_client_stays_attached_while_it_switches_though_its_old_link_ends_first() {
    type Ends = fn(&mut Scripted);
    let ends: [Ends; 3] = [
        |script| script.session.link_ended(0, script.now),
        |script| script.session.link_failed(0, script.now),
        |script| assert!(script.say_on(0, attach(0, 0, LIMIT)).broken.is_some()),
    ];
    for end in ends {
        for heard in [false, true] {
            let switching = || {
                let mut script = Scripted::attached(Role::Client);
                script.resume(0).expect("it can go on");
                if heard {
                    script.hear();
                }
                end(&mut script);
                assert!(!script.session.holds(0) && script.session.holds(1));
                assert_eq!(script.session.phase(), Phase::Attached);
                assert!(script.session.is_switching());
                script
            };
            let mut script = switching();
            script.hear();
            script.say(attach(0, 0, LIMIT));
            assert_eq!(script.session.phase(), Phase::Attached);
            assert_eq!(script.session.stats().resumes, 1);

            // Nothing is left to fall back to.
            for failing in [Fails::Link, Fails::Late, Fails::Rejected, Fails::Wrong] {
                let mut script = switching();
                failing.strike(&mut script);
                assert!(!script.session.holds(1));
                assert_eq!(script.session.phase(), Phase::Detached(script.now));
                assert_eq!(script.session.stats().resumes, 0);
                let again = script.resume_attached(0, 0, LIMIT);
                assert_eq!(again.first(), Some(&Confirm(Some(0))));
                assert_eq!(script.session.phase(), Phase::Attached);
            }
        }
    }
}

#[test]
fn links_that_end_in_order_have_only_failed() {
    for role in BOTH {
        let mut script = Scripted::attached(role);
        script.say_data(b"so far");
        script.session.link_ended(0, script.now);
        assert_eq!(script.session.phase(), Phase::Detached(script.now));
        assert!(!script.session.is_read_ended());
        assert_eq!(script.read(), b"so far");
        let said = script.resume_attached(6, 0, LIMIT);
        assert!(said.contains(&said_attach(6)), "{said:?}");
    }
}

fn said_attach(received: u64) -> crate::core_scripted::Said {
    said(attach(0, received, LIMIT + 6))
}

/// Of those that are final each is its own reason, and of the others none is.
#[test]
fn rejects_that_are_final_end_a_client_and_others_do_not() {
    use unbroken::Refusal;
    for code in 0..20 {
        let code = RejectCode::from(code);
        let expected = match code {
            RejectCode::Unknown => Some(CloseReason::Refused(Refusal::Unknown)),
            RejectCode::Expired => Some(CloseReason::Expired),
            RejectCode::Gap => Some(CloseReason::Gap),
            RejectCode::NotAuthorised => Some(CloseReason::Refused(Refusal::NotAuthorised)),
            RejectCode::Closed => Some(CloseReason::Refused(Refusal::Closed)),
            _ => None,
        };
        assert_eq!(expected.is_some(), code.is_final());
        let reject = Reject {
            code,
            retry_after: 7 * MS,
        };
        // In the handshake.
        let mut script = Scripted::attached(Role::Client);
        script.say_data(b"before");
        script.lose_link();
        script.session.rejected(reject, script.now);
        assert_eq!(script.session.verdict(), expected, "{code}");
        let again = expected.is_none().then(|| script.now + 7 * MS);
        assert_eq!(script.session.retry_at(), again);
        assert_eq!(script.read(), b"before");

        // In place of the server's ATTACH.
        let mut script = Scripted::attached(Role::Client);
        script.lose_link();
        script.resume(0).expect("it can go on");
        script.hear();
        let arrived = script.say(Frame::Reject(reject));
        assert_eq!((arrived.broken, script.session.verdict()), (None, expected));
        assert!(!script.session.holds(1));
        if expected.is_none() {
            assert_eq!(script.session.phase(), Phase::Detached(script.now));
            assert_eq!(script.session.retry_at(), Some(script.now + 7 * MS));
            // Until the server takes a link.
            script.resume_attached(0, 0, LIMIT);
            assert_eq!(script.session.retry_at(), None);
        }
    }
}
