//! Whatever the order of writes, reads, deliveries, cuts and resumes, and whatever strangers replay: every byte arrives once, in
//! order, or the session ends in a gap where one is possible.

#[path = "support/core_carried.rs"]
mod core_carried;
#[path = "support/core_native.rs"]
mod core_native;
#[path = "support/core_native_server.rs"]
mod core_native_server;
#[path = "support/core_pair.rs"]
mod core_pair;
#[path = "support/core_snet.rs"]
mod core_snet;
#[path = "support/core_steps.rs"]
mod core_steps;

use std::time::Duration;

use core_native::Native;
use core_pair::{End, Limits, Pair, Protocol, ServerEnd, Side};
use core_snet::Snet;
use core_steps::{Mix, Step, history, steps, take};
use proptest::prelude::*;
use unbroken::{CloseReason, Refusal, protocol::Session, reset};

const RESUME_WINDOW: Duration = Duration::from_secs(300);
const SNET: Mix = Mix {
    strangers: 3,
    migrations: 0,
    ends: 0,
    windows: 0,
    // Far below the resume window, so that only links are lost and never the session.
    longest: Duration::from_millis(200),
};
/// What zeros say.
const REFUSED: CloseReason = CloseReason::Refused(Refusal::Unexplained);

/// What is lost with a link is at most half a history: everything arrives.
fn delivers<P: Protocol>(protocol: &P, history: usize, capacity: usize, steps: Vec<Step>) {
    let limits = Limits {
        history,
        resume_window: RESUME_WINDOW,
    };
    let mut pair = Pair::new(protocol, limits, capacity);
    for step in steps {
        take(&mut pair, step);
        assert_eq!(pair.client.closed(), None);
        assert_eq!(pair.server.closed(), None);
    }
    pair.heal();
    assert!(pair.is_even());
    assert_eq!(pair.client.closed(), None);
    assert_eq!(
        pair.server.accepted(),
        1,
        "sessions the application was given"
    );
    assert_eq!(pair.client.failed_attaches(), 0);
    assert_eq!(pair.server.failed_attaches(), 0);
    // The session is as good as new.
    for side in Side::BOTH {
        assert!(pair.write(side, 10) > 0, "{side:?} can write");
    }
    pair.pump(true);
    assert!(pair.is_even());
}

/// More can be lost with a link than the history holds: everything arrives, or both ends say that there is a gap.
fn delivers_or_tells<P: Protocol>(
    protocol: &P,
    history: usize,
    capacity: usize,
    steps: Vec<Step>,
) -> bool {
    let limits = Limits {
        history,
        resume_window: RESUME_WINDOW,
    };
    let mut pair = Pair::new(protocol, limits, capacity);
    for step in steps {
        take(&mut pair, step);
    }
    pair.heal();
    match pair.client.closed() {
        None => {
            assert!(pair.is_even());
            false
        }
        Some(reason) => {
            pair.pump(true);
            pair.pass(RESUME_WINDOW);
            match (reason, pair.server.closed()) {
                // A server that finds the gap has only zeros to say it with.
                (CloseReason::Gap | REFUSED, Some(CloseReason::Gap)) => {}
                // What the client wrote after its request made the gap: the server cannot know.
                (CloseReason::Gap, Some(CloseReason::Expired)) => {}
                // No message 3 ever arrived, so there is nobody to tell.
                (CloseReason::Gap | REFUSED, None) if pair.server.accepted() == 0 => {}
                other => panic!("the client and the server say {other:?}"),
            }
            true
        }
    }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn snet_delivers_exactly_once_in_order(
        which in 0usize..3,
        history in history(),
        part in 1usize..=64,
        steps in steps(SNET),
    ) {
        let capacity = (history / 2 * part / 64).max(1);
        delivers(&Snet::all()[which], history, capacity, steps);
    }

    #[test]
    fn snet_delivers_with_links_that_hold_all_the_bound_allows(
        which in 0usize..3,
        history in history(),
        steps in steps(SNET),
    ) {
        delivers(&Snet::all()[which], history, history / 2, steps);
    }

    #[test]
    fn snet_delivers_or_tells_of_the_gap(
        which in 0usize..3,
        history in history(),
        beyond in 1usize..=160,
        steps in steps(Mix { strangers: 0, ..SNET }),
    ) {
        let capacity = history / 2 + (history * beyond / 64).max(1);
        delivers_or_tells(&Snet::all()[which], history, capacity, steps);
    }
}

/// The property above would hold of a session that never overflows its history; this one does.
#[test]
fn snet_overflows_with_links_that_hold_more_than_the_bound() {
    for protocol in Snet::all() {
        for (side, reason) in [(Side::Client, CloseReason::Gap), (Side::Server, REFUSED)] {
            let mut steps = vec![Step::Dial, Step::Settle];
            for _ in 0..4 {
                steps.push(Step::Write(side, 64));
                steps.push(Step::Send(side, 0, 1 << 20));
            }
            let limits = Limits {
                history: 64,
                resume_window: RESUME_WINDOW,
            };
            let mut pair = Pair::new(&protocol, limits, 256);
            for step in steps.clone() {
                take(&mut pair, step);
            }
            pair.heal();
            assert_eq!(pair.client.closed(), Some(reason));
            assert!(delivers_or_tells(&protocol, 64, 256, steps.clone()));
            assert!(!delivers_or_tells(&protocol, 64, 32, steps));
        }
    }
}

const NATIVE: Mix = Mix {
    strangers: 3,
    migrations: 8,
    ends: 0,
    windows: 0,
    // Long enough for a link to be dead.
    longest: Duration::from_secs(40),
};

/// Longer than a run takes: whatever time passes, links are lost, and neither the session nor the patience of an end.
const AGES: Duration = Duration::from_secs(1 << 24);

/// How a run of native goes on after its steps.
#[derive(Clone, Copy, Debug)]
struct Rest {
    /// Whether all links are given up first; otherwise each end notices what became of them when it does.
    healed: bool,
    /// Who has not read, and does not until everything else is done.
    withheld: Option<Side>,
}

fn rest() -> impl Strategy<Value = Rest> {
    let withheld = prop_oneof![
        Just(None),
        Just(Some(Side::Client)),
        Just(Some(Side::Server))
    ];
    (any::<bool>(), withheld).prop_map(|(healed, withheld)| Rest { healed, withheld })
}

/// Small ones too, in which credit is short.
fn window() -> impl Strategy<Value = usize> {
    prop_oneof![1 => 1usize..64, 6 => history()]
}

fn capacity() -> impl Strategy<Value = usize> {
    prop_oneof![1 => 1usize..10, 4 => 10usize..300, 4 => 300usize..20_000]
}

/// Whatever happens short of an end, both applications get what the other one wrote; and whatever one of them leaves unread, as much of
/// it as there is credit for comes in, and is acknowledged.
fn native_delivers(native: Native, capacity: usize, steps: Vec<Step>, rest: Rest) {
    let limits = Limits {
        history: 0,
        resume_window: AGES,
    };
    let native = Native {
        linger: AGES,
        ..native
    };
    let mut pair = Pair::new(&native, limits, capacity);
    for step in steps {
        match (&step, rest.withheld) {
            (Step::Read(side, _), Some(withheld)) if *side == withheld => {}
            _ => take(&mut pair, step),
        }
        pair.check();
        for closed in [pair.client.closed(), pair.server.closed()] {
            assert!(matches!(closed, None | Some(CloseReason::Finished)));
        }
    }
    if rest.healed {
        pair.lose_links();
    }
    if let Some(withheld) = rest.withheld {
        pair.readers = vec![withheld.other()];
        pair.recover(|pair| {
            let window = native.windows[withheld as usize] as u64;
            let (read, written) = pair.progress(withheld);
            let due = written.min(read + window);
            let (other_read, other_written) = pair.progress(withheld.other());
            let mut stats = [pair.client.stats(), pair.server.stats()];
            if withheld == Side::Server {
                stats.reverse();
            }
            let [reader, writer] = stats;
            other_read == other_written
                && reader.received == due
                && writer.sent - writer.unacknowledged == due
                && reader.unacknowledged == 0
        });
        pair.readers = Side::BOTH.to_vec();
    }
    pair.recover(|pair| pair.is_even() && pair.server.accepted() == 1);
    for side in Side::BOTH {
        pair.shut_write(side);
    }
    pair.recover(|pair| {
        let closed = [pair.client.closed(), pair.server.closed()];
        closed == [Some(CloseReason::Finished); 2]
    });
    assert!(pair.is_even());
    assert_eq!(pair.server.accepted(), 1);
    assert_eq!(pair.client.failed_attaches(), 0);
    assert_eq!(pair.server.failed_attaches(), 0);
}

/// What an application does in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Nothing,
    Shut,
    Drop,
    Reset(u32),
}

/// Two of which at least one ends the session.
fn endings() -> impl Strategy<Value = [Ending; 2]> {
    let ending = || {
        prop_oneof![
            1 => Just(Ending::Nothing),
            2 => Just(Ending::Shut),
            4 => Just(Ending::Drop),
            2 => (1..=u32::MAX).prop_map(Ending::Reset),
        ]
    };
    [ending(), ending()].prop_filter("nothing ends", |endings| {
        let ends = |ending: &Ending| matches!(ending, Ending::Drop | Ending::Reset(_));
        endings.iter().any(ends) || *endings == [Ending::Shut; 2]
    })
}

/// However the applications end, and whatever links do then, both ends end, and each says what the applications did.
fn native_ends(
    native: Native,
    capacity: usize,
    steps: Vec<Step>,
    endings: [Ending; 2],
    healed: bool,
) {
    let limits = Limits {
        history: 0,
        resume_window: AGES,
    };
    let mut pair = Pair::new(&native, limits, capacity);
    pair.dial();
    pair.pump(false);
    for step in steps {
        take(&mut pair, step);
        pair.check();
    }
    let mut resets = [None; 2];
    for side in Side::BOTH {
        let now = pair.now;
        let session: &mut dyn Session = match side {
            Side::Client => pair.client.session(),
            Side::Server => pair.server.session().expect("it was opened"),
        };
        match endings[side as usize] {
            Ending::Nothing => {}
            Ending::Shut => session.shut_write(),
            Ending::Drop => {
                if session.waiting() > 0 {
                    resets[side as usize] = Some(reset::DROPPED_UNREAD);
                }
                session.drop_transport(now);
                pair.gone.push(side);
            }
            Ending::Reset(code) => {
                resets[side as usize] = Some(code);
                session.reset(code, now);
                pair.gone.push(side);
            }
        }
    }
    if healed {
        pair.lose_links();
    }
    let gone = pair.gone.clone();
    pair.readers.retain(|side| !gone.contains(side));
    pair.recover(|pair| pair.client.closed().is_some() && pair.server.closed().is_some());
    let expected = match (resets, endings) {
        ([Some(client), Some(server)], _) => [client, server].map(CloseReason::LocalReset),
        ([Some(code), None], _) => [CloseReason::LocalReset(code), CloseReason::Reset(code)],
        ([None, Some(code)], _) => [CloseReason::Reset(code), CloseReason::LocalReset(code)],
        // What the other one leaves open is broken off when the linger time has passed.
        (_, [Ending::Nothing, _]) => [CloseReason::Reset(reset::LINGER), CloseReason::Local],
        (_, [_, Ending::Nothing]) => [CloseReason::Local, CloseReason::Reset(reset::LINGER)],
        _ => [CloseReason::Finished; 2],
    };
    let closed = [pair.client.closed(), pair.server.closed()];
    assert_eq!(closed, expected.map(Some));
    for side in &pair.readers {
        if expected[*side as usize] == CloseReason::Finished {
            let (read, written) = pair.progress(*side);
            assert_eq!(read, written, "{side:?} has had everything");
        }
    }
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn native_delivers_exactly_once_in_order(
        windows in [window(), window()],
        direct in any::<bool>(),
        capacity in capacity(),
        rest in rest(),
        steps in steps(NATIVE),
    ) {
        let direct = direct && rest.withheld.is_none();
        let native = Native {
            direct,
            ..Native::new(windows)
        };
        native_delivers(native, capacity, steps, rest);
    }

    #[test]
    fn native_delivers_when_an_end_stops_writing_at_any_time(
        windows in [window(), window()],
        capacity in capacity(),
        rest in rest(),
        steps in steps(Mix { ends: 1, ..NATIVE }),
    ) {
        native_delivers(Native::new(windows), capacity, steps, rest);
    }

    /// Whatever window is left in the end: it is not needed to get everything across.
    #[test]
    fn native_delivers_with_whatever_memory_there_is_from_time_to_time(
        windows in [window(), window()],
        direct in any::<bool>(),
        capacity in capacity(),
        healed in any::<bool>(),
        steps in steps(Mix { ends: 1, windows: 8, ..NATIVE }),
    ) {
        let native = Native {
            direct,
            ..Native::new(windows)
        };
        let rest = Rest { healed, withheld: None };
        native_delivers(native, capacity, steps, rest);
    }

    #[test]
    fn native_ends_as_the_applications_did(
        windows in [window(), window()],
        capacity in capacity(),
        steps in steps(NATIVE),
        endings in endings(),
        healed in any::<bool>(),
    ) {
        native_ends(Native::new(windows), capacity, steps, endings, healed);
    }
}
