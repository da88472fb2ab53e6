//! Whatever the order of writes, reads, deliveries, cuts and resumes, and whatever strangers replay: every byte arrives once, in
//! order, or the session ends in a gap where one is possible.

#[path = "../support/core_carried.rs"]
mod core_carried;
#[path = "../support/core_native.rs"]
mod core_native;
#[path = "../support/core_native_server.rs"]
mod core_native_server;
#[path = "../support/core_pair.rs"]
mod core_pair;
#[path = "../support/core_runs.rs"]
mod core_runs;
#[path = "../support/core_shield.rs"]
mod core_shield;
#[path = "../support/core_snet.rs"]
mod core_snet;
#[path = "../support/core_steps.rs"]
mod core_steps;
#[path = "../support/core_strategies.rs"]
mod core_strategies;
#[cfg(feature = "noise")]
mod noise;

use std::time::Duration;

use core_native::Native;
use core_pair::{End, Limits, Pair, Side};
use core_runs::{
    Ending, REFUSED, RESUME_WINDOW, Rest, delivers, delivers_or_tells, native_delivers, native_ends,
};
use core_snet::Snet;
use core_steps::{Step, take};
use core_strategies::{Mix, history, steps};
use proptest::prelude::*;
use unbroken::CloseReason;

const SNET: Mix = Mix {
    strangers: 3,
    migrations: 0,
    ends: 0,
    windows: 0,
    // Far below the resume window, so that only links are lost and never the session.
    longest: Duration::from_millis(200),
};

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
