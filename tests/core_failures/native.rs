//! What shows of them in native.

use unbroken::{
    CloseReason, RejectCode, ResumeError,
    protocol::{
        Arrived, Phase, Role, Session,
        native::{Frame, MAX_FRAME, Reject, Settings},
    },
};

use crate::{
    core_ends::limits,
    core_native::Native,
    core_pair::{ClientEnd, End, InFlight, Pair, ServerEnd, Side},
    core_scripted::{
        BOTH, Confirm, Data, MS, Scripted, WINDOW, ack, attach, but_pings, bytes, said,
    },
};

const LIMIT: u64 = WINDOW as u64;

/// Both ends with windows of so many bytes, on a link that is in use.
fn attached(window: usize, capacity: usize) -> (Pair<Native>, usize) {
    let mut pair = Pair::new(&Native::new([window; 2]), limits(0), capacity);
    let link = pair.dial();
    pair.pump(true);
    (pair, link)
}

#[test]
fn snet_go_02_resume_that_fails_halfway_leaves_both_counts_true() {
    let (mut pair, link) = attached(256, 300);
    for side in Side::BOTH {
        pair.write(side, 90);
        pair.send(side, link, usize::MAX);
    }
    pair.cut(link, InFlight::Lost, &[]);

    let mut received = [0; 2];
    for step in 0..100 {
        let link = pair.dial();
        // The handshake, and what is said before the data; then a little of the replay, in one direction or both.
        let stop: [usize; 2] = [
            60 + 28 + 12 + 4 + step % 5,
            64 + 44 + 28 + 12 + 4 + step % 3,
        ];
        for _ in 0..10 {
            for side in Side::BOTH {
                pair.send(side, link, usize::MAX);
                let left = stop[side as usize].saturating_sub(pair.delivered(link, side));
                pair.deliver(side, link, left);
            }
        }
        pair.cut(link, InFlight::Lost, &[]);
        pair.pump(false);
        let counts = [pair.client.stats().received, pair.server.stats().received];
        for (side, more) in [(0, step % 5), (1, step % 3)] {
            let expected = (received[side] + more as u64).min(90);
            assert_eq!(counts[side], expected, "counted once, and not forgotten");
        }
        received = counts;
    }
    assert_eq!(received, [90; 2]);
    pair.recover(Pair::is_even);
    assert_eq!(pair.progress(Side::Client), (90, 90));
    assert_eq!(pair.progress(Side::Server), (90, 90));
}

#[test]
fn snet_go_04_replayed_resume_request_freezes_nothing() {
    let (mut pair, opened) = attached(256, 300);
    let resumed = pair.dial();
    pair.pump(true);
    let before = pair.server.stats();
    let overheard = 64 + 44 + 40;
    for (link, counts) in [(opened, 0..120), (resumed, 0..overheard)] {
        for count in counts {
            let copy = pair.inject(link, count, &[]);
            while pair.deliver(Side::Server, copy, usize::MAX) {}
            // Whether or not the copy is answered: what there is goes on at once.
            let now = pair.now;
            for side in Side::BOTH {
                assert_eq!(pair.write(side, 1), 1);
                pair.send(side, resumed, usize::MAX);
                pair.deliver(side.other(), resumed, usize::MAX);
                assert_eq!(pair.read(side.other(), 10), 1);
            }
            assert_eq!(pair.now, now);
            assert!(pair.client.holds(resumed) && pair.server.holds(resumed));
        }
    }
    let after = pair.server.stats();
    assert_eq!(after.resumes, before.resumes);
    assert_eq!((after.replayed, pair.server.accepted()), (0, 1));
    // Its number is taken, so that it is turned away before it says more.
    let turned_away = &pair.server.rejections;
    assert!(turned_away.len() > 80);
    assert!(turned_away.iter().all(|code| *code == RejectCode::Stale));
}

/// A copy of an attempt that was never attached is answered, and proves nothing.
#[test]
fn snet_go_04_replayed_resume_request_of_a_lost_attempt_freezes_nothing() {
    let (mut pair, link) = attached(256, 300);
    // Its CONFIRM is lost.
    let lost = pair.migrate().expect("there is a link");
    for side in Side::BOTH {
        pair.send(side, lost, usize::MAX);
        while pair.deliver(side.other(), lost, usize::MAX) {}
    }
    pair.send(Side::Client, lost, usize::MAX);
    pair.cut(lost, InFlight::Lost, &[]);
    pair.pump(true);
    assert!(
        pair.client.holds(link) && pair.server.holds(link),
        "they go on"
    );
    for count in 64..64 + 44 + 28 {
        let copy = pair.inject(lost, count, &[]);
        while pair.deliver(Side::Server, copy, usize::MAX) {}
        for side in Side::BOTH {
            assert_eq!(pair.write(side, 1), 1);
        }
        pair.pump(true);
        assert!(pair.is_even());
        assert!(pair.server.holds(link), "after {count} bytes");
    }
    // RESUMED has another nonce each time, so that the CONFIRM of before is wrong.
    assert_eq!(pair.server.rejections, [RejectCode::BadProof; 28]);
    assert_eq!(pair.server.stats().resumes, 0);
    pair.migrate().expect("there is a link");
    pair.pump(true);
    assert_eq!(pair.server.stats().resumes, 1);
    assert_eq!(pair.client.failed_attaches(), 0);
}

#[test]
fn snet_go_05_counts_of_the_peer_size_nothing() {
    for role in BOTH {
        let settings = Settings {
            max_frame: MAX_FRAME,
            ..crate::core_scripted::settings(WINDOW)
        };
        let mut script = Scripted::attached_with(role, settings, u64::MAX);
        assert_eq!(script.session.room(), WINDOW);
        script.say(ack(0, u64::MAX));
        assert_eq!(
            (script.session.room(), script.session.waiting()),
            (WINDOW, 0)
        );
        // A frame of the longest is announced, and a longer one that may be skipped.
        script.give(0, &[0xff, 0xff, 0xff, 0xff]);
        script.give(0, &vec![0; 0xff_ffff]);
        assert_eq!(
            (script.session.received(), script.session.waiting()),
            (0, 0)
        );
        for impossible in [u64::MAX, u64::MAX - 1, 1 << 40, 1] {
            let mut script = Scripted::attached(role);
            if role == Role::Client {
                script.lose_link();
            }
            assert_eq!(script.resume(impossible), Err(ResumeError::ReceivedTooMuch));
            assert_eq!(script.session.verdict(), None);
            assert_eq!(script.session.room(), WINDOW);
            script.resume(0).expect("it can go on");
            let beyond = attach(0, impossible, u64::MAX);
            assert!(script.say(beyond).broken.is_some());
            assert_eq!(script.session.room(), WINDOW);
        }
    }
}

/// Where others lose the session once more is in flight than they keep, writing waits.
#[test]
fn snet_go_06_more_than_a_window_is_never_in_flight() {
    for window in [64, 1024] {
        let (mut pair, link) = attached(window, 1 << 20);
        for side in Side::BOTH {
            let mut taken = 0;
            for _ in 0..4 {
                taken += pair.write(side, window);
                pair.send(side, link, usize::MAX);
            }
            assert_eq!(
                taken, window,
                "a link that takes everything changes nothing"
            );
        }
        pair.cut(link, InFlight::Lost, &[]);
        pair.recover(Pair::is_even);
        assert_eq!(pair.progress(Side::Client).0, window as u64);
        // Four windows get through one after the other.
        for round in 2..=5 {
            for side in Side::BOTH {
                assert_eq!(pair.write(side, 2 * window), window);
            }
            if round % 2 == 0 {
                pair.lose_links();
            }
            pair.recover(Pair::is_even);
            assert_eq!(pair.progress(Side::Server).0, (round * window) as u64);
        }
    }
}

#[test]
fn snet_go_09_only_the_peers_own_end_is_an_end() {
    for role in BOTH {
        let reject = Frame::Reject(Reject {
            code: RejectCode::Closed,
            retry_after: MS,
        });
        type Death = fn(&mut Scripted);
        let mut deaths: Vec<Death> = vec![
            |script| script.lose_link(),
            |script| script.session.link_ended(0, script.now),
            |script| script.pass(crate::core_scripted::DEAD_AFTER),
            |script| assert!(script.say(attach(0, 0, 0)).broken.is_some()),
            |script| assert!(script.say(Frame::Reset { code: 0 }).moved),
            |script| script.session.reset(3, script.now),
            |script| script.session.close(CloseReason::Abandoned),
        ];
        deaths.push(|script| {
            script.lose_link();
            script.pass(crate::core_scripted::RESUME_WINDOW);
        });
        for death in deaths {
            let mut script = Scripted::attached(role);
            script.say_data(b"abc");
            death(&mut script);
            assert_eq!(script.read(), b"abc");
            assert!(!script.session.is_read_ended() && !script.session.is_shut_down(true));
        }
        if role == Role::Client {
            let mut script = Scripted::attached(role);
            script.lose_link();
            script.resume(0).expect("it can go on");
            script.say(reject);
            assert!(matches!(
                script.session.phase(),
                Phase::Closed(CloseReason::Refused(_))
            ));
            assert!(!script.session.is_read_ended());
        }
    }
}

#[test]
fn snet_go_11_close_reaches_the_peer_at_once() {
    for side in Side::BOTH {
        let (mut pair, link) = attached(64, 300);
        pair.write(side, 10);
        let now = pair.now;
        let session: &mut dyn Session = match side {
            Side::Client => pair.client.session(),
            Side::Server => pair.server.session().expect("it was opened"),
        };
        session.drop_transport(now);
        while pair.send(side, link, usize::MAX) {}
        pair.deliver(side.other(), link, usize::MAX);
        assert_eq!(pair.now, now);
        assert_eq!(pair.read(side.other(), 100), 10);
        let ended = match side.other() {
            Side::Client => pair.client.is_read_ended(),
            Side::Server => pair.server.is_read_ended(),
        };
        assert!(ended);
    }
}

/// Nothing is touched before it is known that the session can go on.
#[test]
fn goscon_14_check_first_then_switch() {
    let mut script = Scripted::attached(Role::Server);
    script.session.write(&bytes(0, 40));
    let mut heard = script.hear_some(4 + 30);
    script.say(ack(20, LIMIT));
    script.say_data(&bytes(0, 5));
    let before = (script.session.stats(), script.due());
    for (attempt, received, error) in [
        (1, 19, ResumeError::Gap),
        (1, 31, ResumeError::ReceivedTooMuch),
        (0, 20, ResumeError::Stale),
    ] {
        assert_eq!(
            script.session.attach(attempt, received, script.now),
            Err(error)
        );
        assert_eq!((script.session.stats(), script.due()), before);
        assert_eq!(script.session.phase(), Phase::Attached);
    }
    // In the middle of a frame, both ways.
    heard.extend(script.hear());
    assert_eq!(heard, [Data(bytes(0, 30)), Data(bytes(30, 10))]);
    script.say_data(&bytes(5, 5));
    assert_eq!(script.read(), bytes(0, 10));
}

#[test]
fn eternal_terminal_16_gap_is_final_and_has_its_own_error() {
    let gap = Phase::Closed(CloseReason::Gap);
    // A client finds it.
    let mut script = Scripted::attached(Role::Client);
    script.session.write(&bytes(0, 30));
    script.hear();
    script.say(ack(20, LIMIT));
    script.lose_link();
    assert_eq!(script.resume(19), Err(ResumeError::Gap));
    assert_eq!(script.session.phase(), gap);
    assert_eq!(script.due(), None, "nothing is tried again");
    assert_eq!(script.resume(20), Err(ResumeError::Closed));

    // A client is told of it, in the handshake or behind it.
    let reject = Reject {
        code: RejectCode::Gap,
        retry_after: MS,
    };
    let mut script = Scripted::attached(Role::Client);
    script.lose_link();
    script.session.rejected(reject, script.now);
    assert_eq!(script.session.phase(), gap);
    let mut script = Scripted::attached(Role::Client);
    script.resume(0).expect("it can go on");
    script.say(Frame::Reject(reject));
    assert_eq!(script.session.phase(), gap);
    assert!(!script.session.holds(0), "nor does the old link go on");

    // A server that finds it has told the client, and says the same when nobody comes again.
    let mut script = Scripted::attached(Role::Server);
    script.session.write(&bytes(0, 30));
    script.hear();
    script.say(ack(20, LIMIT));
    assert_eq!(
        script.session.attach(1, 19, script.now),
        Err(ResumeError::Gap)
    );
    script.lose_link();
    script.pass(crate::core_scripted::RESUME_WINDOW);
    assert_eq!(script.session.phase(), gap);
}

/// One writes for ever and never reads; what the other one writes is not read either, and is acknowledged all the same.
#[test]
fn teleport_19_acknowledgements_are_never_stuck_behind_unread_data() {
    for writer in Side::BOTH {
        let (mut pair, _) = attached(256, 100);
        pair.readers = vec![writer.other()];
        for round in 0..200 {
            assert!(pair.write(writer, 256) > 0, "stuck in round {round}");
            // Until its credit is spent.
            pair.write(writer.other(), 3);
            pair.pump(true);
            let stats = match writer {
                Side::Client => pair.client.stats(),
                Side::Server => pair.server.stats(),
            };
            assert_eq!(stats.unacknowledged, 0);
        }
        let (read, written) = pair.progress(writer.other());
        assert!(read == written && written >= 200 * 256);
        assert_eq!(pair.progress(writer), (0, 512));
        let waiting = match writer {
            Side::Client => pair.client.waiting(),
            Side::Server => pair.server.waiting(),
        };
        assert_eq!(waiting, 256);
    }
}

/// Both write and neither reads until all credit is spent; then one does.
#[test]
fn teleport_19_credit_that_is_spent_both_ways_comes_back_to_who_is_read() {
    for reader in Side::BOTH {
        let (mut pair, _) = attached(256, 100);
        for _ in 0..10 {
            for side in Side::BOTH {
                pair.write(side, 256);
            }
            pair.pump(false);
        }
        for side in Side::BOTH {
            assert_eq!(pair.write(side, 1), 0, "all is spent");
            assert_eq!(pair.progress(side), (0, 512));
        }
        pair.readers = vec![reader];
        for _ in 0..20 {
            pair.pump(true);
            assert_eq!(pair.write(reader.other(), 256), 256);
            assert_eq!(pair.write(reader, 1), 0);
        }
        pair.readers = Side::BOTH.to_vec();
        pair.pump(true);
        assert!(pair.is_even());
    }
}

#[test]
fn teleport_20_closing_while_the_link_is_down_loses_nothing() {
    for side in Side::BOTH {
        for half_open in [false, true] {
            let (mut pair, link) = attached(256, 100);
            pair.write(side, 150);
            pair.send(side, link, 60);
            let unaware: &[Side] = if half_open { &[side.other()] } else { &[] };
            pair.cut(link, InFlight::Half, unaware);
            pair.pump(true);
            pair.write(side, 50);
            let now = pair.now;
            let session: &mut dyn Session = match side {
                Side::Client => pair.client.session(),
                Side::Server => pair.server.session().expect("it was opened"),
            };
            session.drop_transport(now);
            pair.gone = vec![side];
            pair.readers = vec![side.other()];
            pair.recover(|pair| pair.progress(side.other()) == (200, 200));
            pair.shut_write(side.other());
            pair.recover(|pair| {
                let closed = [pair.client.closed(), pair.server.closed()];
                closed == [Some(CloseReason::Finished); 2]
            });
        }
    }
}

#[test]
fn stubborn_io_23_empty_read_is_no_disconnect() {
    for role in BOTH {
        let mut script = Scripted::attached(role);
        let due = script.due();
        script.pass(MS);
        assert_eq!(script.give(0, &[]), Arrived::default());
        assert_eq!(script.session.phase(), Phase::Attached);
        assert!(script.session.holds(0));
        assert_eq!(script.due(), due.map(|due| due - MS), "nor a sign of life");
        assert_eq!(script.read_some(0), []);
        assert!(!script.session.is_read_ended());
    }
}

#[test]
fn stubborn_io_23_shutdown_starts_no_reconnect() {
    let (mut pair, link) = attached(64, 100);
    for side in Side::BOTH {
        pair.shut_write(side);
        assert!(!pair.needs_link() && pair.client.can_migrate());
    }
    pair.pump(true);
    assert_eq!(
        (pair.links(), pair.client.closed()),
        (link + 1, Some(CloseReason::Finished))
    );
    assert!(!pair.needs_link());
}

/// A frame that was cut off is begun anew on the next link, behind what stands there first.
#[test]
fn stubborn_io_23_tail_of_a_frame_stays_off_the_next_link() {
    for role in BOTH {
        for handed in 1..44 {
            let mut script = Scripted::attached(role);
            script.session.write(&bytes(0, 40));
            script.hand(handed);
            script.lose_link();
            let received = (handed as u64).saturating_sub(4) / 2;
            let mut heard = but_pings(script.resume_attached(0, received, LIMIT));
            if role == Role::Client {
                assert_eq!(heard.remove(0), Confirm(Some(0)));
            }
            let from = received as usize;
            let replay = Data(bytes(from, 40 - from));
            assert_eq!(heard, [said(attach(received, 0, LIMIT)), replay]);
        }
    }
}
