//! Whatever the order of writes, reads, deliveries, cuts and resumes, and whatever strangers replay: every byte arrives once, in
//! order, or the session ends in a gap where one is possible.

#[path = "support/core_pair.rs"]
mod core_pair;
#[path = "support/core_snet.rs"]
mod core_snet;

use std::time::Duration;

use core_pair::{End, InFlight, Limits, Pair, Protocol, ServerEnd, Side};
use core_snet::Snet;
use proptest::prelude::*;
use unbroken::{CloseReason, Refusal};

const RESUME_WINDOW: Duration = Duration::from_secs(300);
/// What zeros say.
const REFUSED: CloseReason = CloseReason::Refused(Refusal::Unexplained);

/// One step of a run. Sizes are in bytes; a `link` counts back from the newest.
#[derive(Clone, Debug)]
enum Step {
    Write(Side, usize),
    Read(Side, usize),
    /// An end puts bytes on a link.
    Send(Side, usize, usize),
    /// An end reads bytes of a link.
    Deliver(Side, usize, usize),
    Cut {
        link: usize,
        in_flight: InFlight,
        unaware: Vec<Side>,
    },
    Dial,
    /// The client writes, loses its link and resumes; once the server has answered, what was written comes in late on the old
    /// link.
    Race(usize, usize),
    /// Runs the newest link as far as it goes, without any application reading.
    Settle,
    /// Somebody replays the first bytes of what the client put on a link, and then something else.
    Inject {
        link: usize,
        count: usize,
        tail: Vec<u8>,
    },
    Pass(Duration),
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Server)]
}

/// Sizes of all orders, and everything there is.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..4, 4usize..60, 60usize..5000, Just(1 << 20)]
}

fn in_flight() -> impl Strategy<Value = InFlight> {
    prop_oneof![
        Just(InFlight::Lost),
        Just(InFlight::Half),
        Just(InFlight::Late)
    ]
}

/// The newest link mostly, and older ones.
fn link() -> impl Strategy<Value = usize> {
    prop_oneof![4 => Just(0usize), 2 => 1usize..4]
}

/// How much of a client's link is replayed: parts of the first message, a request, a handshake, or data with it.
fn replayed() -> impl Strategy<Value = usize> {
    prop_oneof![0usize..100, Just(9), Just(41), Just(41 + 16), Just(1 << 20)]
}

fn unaware() -> impl Strategy<Value = Vec<Side>> {
    prop_oneof![2 => Just(vec![]), 2 => Just(vec![Side::Server]), 1 => Just(Side::BOTH.to_vec())]
}

fn step(strangers: bool) -> impl Strategy<Value = Step> {
    let inject = (
        link(),
        replayed(),
        proptest::collection::vec(any::<u8>(), 0..40),
    );
    prop_oneof![
        5 => (side(), size()).prop_map(|(side, size)| Step::Write(side, size)),
        4 => (side(), size()).prop_map(|(side, size)| Step::Read(side, size)),
        8 => (side(), link(), size()).prop_map(|(side, link, size)| Step::Send(side, link, size)),
        8 => (side(), link(), size()).prop_map(|(side, link, size)| Step::Deliver(side, link, size)),
        3 => (link(), in_flight(), unaware())
            .prop_map(|(link, in_flight, unaware)| Step::Cut { link, in_flight, unaware }),
        3 => Just(Step::Dial),
        3 => Just(Step::Settle),
        2 => (size(), size()).prop_map(|(written, late)| Step::Race(written, late)),
        (if strangers { 3 } else { 0 }) => inject
            .prop_map(|(link, count, tail)| Step::Inject { link, count, tail }),
        1 => (0u64..20).prop_map(|seconds| Step::Pass(Duration::from_secs(seconds))),
    ]
}

fn steps(strangers: bool) -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(strangers), 1..150)
}

fn history() -> impl Strategy<Value = usize> {
    prop_oneof![Just(64usize), 64usize..200, 200usize..4097]
}

fn take<P: Protocol>(pair: &mut Pair<P>, step: Step) {
    let nth = |pair: &Pair<P>, back: usize| pair.links().checked_sub(back + 1);
    match step {
        Step::Write(side, size) => {
            pair.write(side, size.min(1 << 14));
        }
        Step::Read(side, size) => {
            pair.read(side, size.min(1 << 14));
        }
        Step::Send(side, back, size) => {
            if let Some(link) = nth(pair, back) {
                pair.send(side, link, size);
            }
        }
        Step::Deliver(side, back, size) => {
            if let Some(link) = nth(pair, back) {
                pair.deliver(side, link, size);
            }
        }
        Step::Cut {
            link,
            in_flight,
            unaware,
        } => {
            if let Some(link) = nth(pair, link) {
                pair.cut(link, in_flight, &unaware);
            }
        }
        Step::Dial => {
            if pair.client.closed().is_none() {
                pair.dial();
            }
        }
        Step::Race(written, late) => {
            if let Some(old) = nth(pair, 0)
                && pair.client.closed().is_none()
            {
                take(pair, Step::Write(Side::Client, written));
                pair.send(Side::Client, old, written);
                pair.cut(old, InFlight::Late, &[Side::Server]);
                let link = pair.dial();
                for _ in 0..100 {
                    if pair.delivered(link, Side::Client) == P::ANSWERED_AFTER {
                        break;
                    }
                    for side in Side::BOTH {
                        pair.send(side, link, usize::MAX);
                        pair.deliver(side.other(), link, usize::MAX);
                    }
                }
                pair.deliver(Side::Server, old, late);
            }
        }
        Step::Settle => {
            if let Some(link) = nth(pair, 0) {
                for _ in 0..6 {
                    for side in Side::BOTH {
                        pair.send(side, link, usize::MAX);
                        pair.deliver(side, link, usize::MAX);
                    }
                }
            }
        }
        Step::Inject { link, count, tail } => {
            if let Some(link) = nth(pair, link) {
                let injected = pair.inject(link, count, &tail);
                pair.deliver(Side::Server, injected, usize::MAX);
                pair.deliver(Side::Server, injected, usize::MAX);
            }
        }
        // Far below the resume window, so that only links are lost and never the session.
        Step::Pass(time) => pair.pass(time / 100),
    }
}

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
        steps in steps(true),
    ) {
        let capacity = (history / 2 * part / 64).max(1);
        delivers(&Snet::all()[which], history, capacity, steps);
    }

    #[test]
    fn snet_delivers_with_links_that_hold_all_the_bound_allows(
        which in 0usize..3,
        history in history(),
        steps in steps(true),
    ) {
        delivers(&Snet::all()[which], history, history / 2, steps);
    }

    #[test]
    fn snet_delivers_or_tells_of_the_gap(
        which in 0usize..3,
        history in history(),
        beyond in 1usize..=160,
        steps in steps(false),
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
