//! What a peer may not do: each ends the link, and not the session.

use unbroken::{
    ProtocolError, RejectCode,
    protocol::{
        Phase, Role, Session,
        native::{Frame, MAX_DATA, Reject},
    },
};

use crate::core_scripted::{
    BOTH, Confirm, Data, Said, Scripted, WINDOW, ack, attach, but_pings, bytes, said, wire,
};

const REJECT: Frame = Frame::Reject(Reject {
    code: RejectCode::Unknown,
    retry_after: std::time::Duration::ZERO,
});
const LIMIT: u64 = WINDOW as u64;

/// A session that has received 10 bytes, and sent 5 of which 2 are acknowledged.
fn engaged(role: Role) -> Scripted {
    let mut script = Scripted::attached(role);
    script.say_data(&bytes(0, 10));
    assert_eq!(script.session.write(&bytes(0, 5)), 5);
    assert_eq!(script.hear(), [said(ack(10, LIMIT)), Data(bytes(0, 5))]);
    script.say(ack(2, LIMIT));
    script
}

/// The session has given up its link, and goes on with the next as if the wrong frame had never been.
fn goes_on(script: &mut Scripted) {
    assert_eq!(script.session.phase(), Phase::Detached(script.now));
    assert!(!script.session.holds(script.link));
    assert_eq!(script.session.verdict(), None);
    assert!(!script.session.is_read_ended());
    assert_eq!(script.session.received(), 10);

    let mut said = script.resume_attached(10, 2, LIMIT);
    if script.session.role() == Role::Client {
        assert_eq!(said.remove(0), Confirm(Some(10)));
    }
    let replay = [Said::Frame(attach(2, 10, LIMIT)), Data(bytes(2, 3))];
    assert_eq!(but_pings(said), replay);
    assert_eq!(script.session.phase(), Phase::Attached);
    assert_eq!(script.say_data(&bytes(10, 4)).broken, None);
    script.say(Frame::Fin);
    assert_eq!(script.read(), bytes(0, 14));
    assert!(script.session.is_read_ended());
}

#[test]
fn wrong_frames_end_the_link_and_not_the_session() {
    use ProtocolError::*;
    let data = |len| wire(&[Frame::Data { len }]);
    let mut cases = vec![
        (vec![0x07, 0, 0, 0], UnknownFrame(0x07)),
        (vec![0x0f, 0, 0, 9], UnknownFrame(0x0f)),
        (vec![0x7f, 0, 0, 0], UnknownFrame(0x7f)),
        (vec![0x00, 0, 0, 0], Length { frame: 0, len: 0 }),
        (
            vec![0x00, 1, 0, 1],
            Length {
                frame: 0,
                len: MAX_DATA as u32 + 1,
            },
        ),
        (
            vec![0x80, 1, 0, 1],
            TooLong {
                frame: 0x80,
                len: MAX_DATA as u32 + 1,
            },
        ),
        (vec![0x01, 0, 0, 15], Length { frame: 1, len: 15 }),
        (vec![0x02, 0, 0, 1], Length { frame: 2, len: 1 }),
        (vec![0x03, 0, 0, 8], Length { frame: 3, len: 8 }),
        (vec![0x04, 0, 0, 0], Length { frame: 4, len: 0 }),
        (vec![0x05, 0, 0, 9], Length { frame: 5, len: 9 }),
        (vec![0x06, 0, 0, 23], Length { frame: 6, len: 23 }),
        (vec![0x15, 0, 0, 5], Length { frame: 21, len: 5 }),
        (wire(&[attach(10, 2, LIMIT)]), OutOfPlace(0x06)),
        (wire(&[REJECT]), OutOfPlace(0x15)),
        (wire(&[ack(6, LIMIT)]), AckBeyondSent),
        (wire(&[ack(u64::MAX, LIMIT)]), AckBeyondSent),
        // 10 bytes wait, so 54 more may come.
        (data(55), DataBeyondLimit),
        (data(MAX_DATA), DataBeyondLimit),
        ([data(54), bytes(10, 54), data(1)].concat(), DataBeyondLimit),
    ];
    cases.extend((0x10..=0x14).map(|kind| (vec![kind, 0, 0, 0], OutOfPlace(kind))));
    for role in BOTH {
        for (wrong, error) in &cases {
            for at_once in [false, true] {
                let mut script = engaged(role);
                let broken = if at_once {
                    script.give_wrong(wrong)
                } else {
                    let mut each = wrong.iter().map(|byte| script.give_wrong(&[*byte]));
                    each.find_map(|broken| broken)
                };
                assert_eq!(broken, Some(*error), "{role:?}: {wrong:?}");
                if script.session.received() == 10 {
                    goes_on(&mut script);
                } else {
                    assert_eq!(script.session.phase(), Phase::Detached(script.now));
                    assert_eq!(script.read(), bytes(0, 64), "what came before it");
                }
            }
        }
    }
}

#[test]
fn data_after_the_end_ends_the_link() {
    for role in BOTH {
        let mut script = engaged(role);
        script.say(Frame::Fin);
        let broken = script.say_data(b"more").broken;
        assert_eq!(broken, Some(ProtocolError::DataAfterFin));
        assert_eq!(script.session.phase(), Phase::Detached(script.now));
        // The end holds, also on the next link, and however far back that begins.
        script.resume_attached(8, 2, LIMIT);
        let broken = script.say_data(b"abc").broken;
        assert_eq!(broken, Some(ProtocolError::DataAfterFin));
        script.resume_attached(8, 2, LIMIT);
        assert_eq!(script.say_data(&bytes(8, 2)).broken, None);
        assert_eq!(script.say(Frame::Fin).broken, None, "it comes again");
        assert_eq!(script.read(), bytes(0, 10));
        assert!(script.session.is_read_ended());
    }
}

#[test]
fn an_end_that_moves_ends_the_link_and_is_none() {
    for role in BOTH {
        // Twice on one link.
        let mut script = engaged(role);
        assert_eq!(script.say(Frame::Fin).broken, None);
        assert_eq!(script.say(Frame::Fin).broken, Some(ProtocolError::FinMoved));
        assert!(script.session.is_read_ended());

        // On the next link at another offset.
        script.resume_attached(8, 2, LIMIT);
        assert_eq!(script.say(Frame::Fin).broken, Some(ProtocolError::FinMoved));
        assert_eq!(script.session.received(), 11);

        // Below what was received: what came behind it is no lie, so it is.
        let mut script = engaged(role);
        script.resume_attached(8, 2, LIMIT);
        script.say_data(&bytes(8, 1));
        assert_eq!(script.say(Frame::Fin).broken, Some(ProtocolError::FinMoved));
        goes_on(&mut script);
    }
}

#[test]
fn a_link_starts_with_a_right_attach() {
    use ProtocolError::*;
    let data = wire(&[Frame::Data { len: 1 }]);
    let mut cases = vec![
        (data, NotAttach(0x00)),
        (wire(&[ack(2, LIMIT)]), NotAttach(0x01)),
        (wire(&[Frame::Fin]), NotAttach(0x02)),
        (wire(&[Frame::Reset { code: 0 }]), NotAttach(0x03)),
        (wire(&[Frame::Ping(1)]), NotAttach(0x04)),
        (wire(&[Frame::Pong(1)]), NotAttach(0x05)),
        (wire(&[attach(11, 2, LIMIT)]), AttachBeyondReceived),
        (wire(&[attach(u64::MAX, 2, LIMIT)]), AttachBeyondReceived),
        (wire(&[attach(10, 6, LIMIT)]), AckBeyondSent),
        (vec![0x0e, 0, 0, 0], UnknownFrame(0x0e)),
        (vec![0x14, 0, 0, 40], OutOfPlace(0x14)),
    ];
    for role in BOTH {
        if role == Role::Server {
            cases.push((wire(&[REJECT]), NotAttach(0x15)));
        }
        for (wrong, error) in &cases {
            let mut script = engaged(role);
            script.lose_link();
            script.resume(2).expect("it can go on");
            // A client's CONFIRM among it.
            script.hear();
            assert_eq!(
                script.give_wrong(wrong),
                Some(*error),
                "{role:?}: {wrong:?}"
            );
            goes_on(&mut script);
        }
    }
}

/// Nobody answers to a CONFIRM that has not been sent, be the ATTACH as right as it may.
#[test]
fn an_attach_before_the_confirm_ends_the_link() {
    let out_of_place = Some(ProtocolError::OutOfPlace(0x06));
    let mut script = engaged(Role::Client);
    script.lose_link();
    script.resume(2).expect("it can go on");
    let arrived = script.say(attach(10, 5, LIMIT));
    assert_eq!((arrived.broken, arrived.attached), (out_of_place, false));
    assert_eq!(script.session.stats().unacknowledged, 3, "it says nothing");
    assert_eq!(script.session.stats().resumes, 0);
    goes_on(&mut script);

    // Nor does it end the link of before, which is taken up again.
    let mut script = engaged(Role::Client);
    script.resume(2).expect("it can go on");
    assert_eq!(script.say(attach(10, 2, LIMIT)).broken, out_of_place);
    assert!(script.session.holds(0) && !script.session.holds(1));
    assert_eq!(script.session.phase(), Phase::Attached);
    assert_eq!(script.say_data_on(0, &bytes(10, 4)).broken, None);

    // The first link of all.
    let settings = crate::core_scripted::settings(WINDOW);
    let mut script = Scripted::new(Role::Client, settings, LIMIT);
    assert_eq!(script.say(attach(0, 0, LIMIT)).broken, out_of_place);
    assert_eq!(script.session.phase(), Phase::Detached(script.now));

    // Once it is composed, who knows how much of it is on its way.
    let mut script = engaged(Role::Client);
    script.resume(2).expect("it can go on");
    script.hand(1);
    let arrived = script.say(attach(10, 2, LIMIT));
    assert_eq!((arrived.broken, arrived.attached), (None, true));
}

#[test]
fn unknown_frames_with_the_top_bit_are_as_if_they_were_not_there() {
    for role in BOTH {
        let mut script = Scripted::new(role, crate::core_scripted::settings(WINDOW), LIMIT);
        script.hear();
        let skipped = |kind: u8, len: u8| [vec![kind, 0, 0, len], vec![0x06; len.into()]].concat();
        let parts = [
            skipped(0x80, 0),
            wire(&[attach(0, 0, LIMIT)]),
            skipped(0x86, 40),
            wire(&[Frame::Data { len: 2 }]),
            b"ab".to_vec(),
            skipped(0xff, 3),
            wire(&[Frame::Fin]),
            skipped(0x80, 200),
        ];
        for byte in parts.concat() {
            assert_eq!(script.give(0, &[byte]).broken, None);
        }
        assert_eq!(script.read(), b"ab");
        assert!(script.session.is_read_ended());
    }
}

/// A client reads two links while it changes from one to the other.
#[test]
fn a_wrong_frame_on_the_old_link_leaves_the_new_one_alone() {
    let mut script = engaged(Role::Client);
    script.resume(2).expect("it can go on");
    let heard = but_pings(script.hear());
    let arrived = script.say_data_on(0, &bytes(10, 55));
    assert_eq!(arrived.broken, Some(ProtocolError::DataBeyondLimit));
    assert!(!script.session.holds(0) && script.session.holds(1));
    assert_eq!(
        heard,
        [
            Confirm(Some(10)),
            said(attach(2, 10, LIMIT)),
            Data(bytes(2, 3))
        ]
    );
    script.say(attach(10, 2, LIMIT));
    assert_eq!(script.session.phase(), Phase::Attached);
    script.say_data(&bytes(10, 5));
    assert_eq!(script.read(), bytes(0, 15));
}

/// Whatever came before it in the same piece is there.
#[test]
fn what_comes_before_a_wrong_frame_counts() {
    for role in BOTH {
        let mut script = engaged(role);
        let piece = [
            wire(&[Frame::Data { len: 3 }]),
            bytes(10, 3),
            wire(&[Frame::Data { len: 2 }]),
            bytes(13, 2),
            vec![0x0a],
            wire(&[Frame::Fin]),
        ];
        let mut piece = piece.concat();
        let arrived = script.session.receive(0, &mut piece, script.now);
        assert_eq!(arrived.broken, Some(ProtocolError::UnknownFrame(0x0a)));
        assert_eq!(piece[arrived.fresh], bytes(10, 5));
        assert_eq!(script.session.received(), 15);
        assert!(!script.session.is_read_ended());
    }
}

#[test]
fn an_end_at_the_last_offset_counts_and_nothing_lies_behind_it() {
    // Without credit a FIN is still in its place, and nothing else is.
    for role in BOTH {
        let mut script = Scripted::attached(role);
        script.say_data(&bytes(0, WINDOW));
        assert_eq!(script.say(Frame::Fin).broken, None);
        assert_eq!(script.session.received(), LIMIT + 1);
        let heard = script.hear();
        assert_eq!(heard, [said(ack(LIMIT + 1, LIMIT))]);
        assert_eq!(script.read(), bytes(0, WINDOW));
    }
}
