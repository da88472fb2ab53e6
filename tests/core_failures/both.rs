//! What shows of them in either protocol.

use crate::{
    core_ends::limits,
    core_native::Native,
    core_pair::{End, InFlight, Pair, Protocol, ServerEnd, Side},
    core_snet::Snet,
};

/// Checks it of snet with each cipher, with this history, and of native with this window.
macro_rules! check_both {
    ($check:ident, $size:expr) => {
        for protocol in Snet::all() {
            $check(&protocol, $size);
        }
        $check(&Native::new([$size; 2]), $size);
    };
}

#[test]
fn snet_go_01_resumes_in_a_row_drained_or_not_deliver_once() {
    fn check<P: Protocol>(protocol: &P, size: usize) {
        for drained in [false, true] {
            for in_flight in [InFlight::Lost, InFlight::Half, InFlight::Late] {
                let mut pair = Pair::new(protocol, limits(size), size / 2);
                for round in 0..12 {
                    let link = pair.dial();
                    for _ in 0..8 {
                        for side in Side::BOTH {
                            pair.send(side, link, 40);
                            pair.deliver(side.other(), link, 33);
                        }
                    }
                    for side in Side::BOTH {
                        pair.write(side, 11);
                        pair.send(side, link, 9);
                        if drained {
                            pair.read(side, 100);
                        }
                    }
                    if round % 3 > 0 {
                        pair.cut(link, in_flight, &[]);
                    }
                }
                pair.heal();
                assert!(Side::BOTH.iter().all(|side| pair.progress(*side).0 > 60));
            }
        }
    }
    check_both!(check, 256);
}

/// Whatever hangs on it, and whoever does not notice: nothing of it is waited for.
#[test]
fn snet_go_03_old_link_that_hangs_delays_no_resume() {
    fn check<P: Protocol>(protocol: &P, size: usize) {
        for migrates in [false, true] {
            for unaware in [&[Side::Server][..], &Side::BOTH] {
                let mut pair = Pair::new(protocol, limits(size), size / 2);
                let link = pair.dial();
                pair.pump(true);
                for side in Side::BOTH {
                    pair.write(side, size);
                    pair.send(side, link, usize::MAX);
                }
                // It is full both ways, and takes and gives nothing any more.
                pair.cut(link, InFlight::Lost, unaware);
                let before = pair.now;
                if migrates {
                    pair.migrate().expect("nothing is under way");
                } else {
                    pair.dial();
                }
                pair.pump(true);
                assert!(pair.is_even());
                assert!(pair.now - before < crate::core_scripted::DEAD_AFTER / 100);
                assert!(!pair.client.holds(link) && !pair.server.holds(link));
            }
        }
    }
    check_both!(check, 256);
}

#[test]
fn snet_go_08_write_leaves_the_callers_buffer_alone() {
    fn check<P: Protocol>(protocol: &P, size: usize) {
        let mut pair = Pair::new(protocol, limits(size), size);
        pair.dial();
        pair.pump(true);
        let buffer = crate::core_ends::bytes(size + 10);
        assert!(pair.client.write(&buffer) > 0);
        assert_eq!(buffer, crate::core_ends::bytes(size + 10));
    }
    check_both!(check, 64);
}

/// As far as a link can hang in the core: a thousand that ask to resume this very session and never say more.
#[test]
fn eternal_terminal_18_thousand_stuck_handshakes_delay_nobody() {
    fn check<P: Protocol>(protocol: &P, size: usize) {
        let mut pair = Pair::new(protocol, limits(size), size / 2);
        pair.dial();
        pair.pump(true);
        let resumed = pair.dial();
        pair.pump(true);
        for count in 0..1000 {
            let stuck = pair.inject(resumed, count % 130, &[]);
            while pair.deliver(Side::Server, stuck, 50) {}
        }
        let before = pair.now;
        for side in Side::BOTH {
            assert_eq!(pair.write(side, 9), 9);
        }
        let link = pair.dial();
        for _ in 0..6 {
            for side in Side::BOTH {
                pair.send(side, link, usize::MAX);
                pair.deliver(side.other(), link, usize::MAX);
                pair.deliver(side.other(), link, usize::MAX);
                pair.read(side, 100);
            }
        }
        assert!(pair.is_even());
        assert_eq!(pair.now, before);
        assert_eq!(pair.server.accepted(), 1);
        assert_eq!(pair.client.closed(), None);
    }
    check_both!(check, 256);
}

#[test]
fn eternal_terminal_17_window_sized_replay_both_ways_over_tiny_buffers() {
    fn check<P: Protocol>(protocol: &P, size: usize) {
        for capacity in [1, 8, 100] {
            let mut pair = Pair::new(protocol, limits(size), size / 2);
            let link = pair.dial();
            pair.pump(true);
            for side in Side::BOTH {
                pair.write(side, size);
                pair.send(side, link, size / 2);
            }
            pair.cut(link, InFlight::Lost, &[]);
            for side in Side::BOTH {
                pair.write(side, size);
            }
            pair.capacity = capacity;
            let link = pair.dial();
            // Neither application reads, so neither end may wait for that.
            pair.pump(false);
            for side in Side::BOTH {
                assert!(
                    pair.delivered(link, side) >= size,
                    "{side:?} has the whole window"
                );
                pair.read(side, 2 * size);
            }
            pair.pump(true);
            assert!(pair.is_even());
        }
    }
    check_both!(check, 4096);
}

/// Seen after a reconnect under load: all messages were dropped.
#[test]
fn signal_r_24_resume_under_full_load_in_both_directions() {
    fn check<P: Protocol>(protocol: &P, size: usize) {
        let mut pair = Pair::new(protocol, limits(size), size / 2);
        let mut link = pair.dial();
        let mut before = [0; 2];
        for round in 0..300 {
            for side in Side::BOTH {
                pair.write(side, size);
                pair.send(side, link, 1 + round % 97);
                pair.deliver(side, link, 1 + round % 89);
                pair.read(side, size);
            }
            match round % 30 {
                29 if round % 4 == 0 => {
                    pair.cut(link, InFlight::Half, &[]);
                    link = pair.dial();
                }
                29 if round % 4 == 1 => link = pair.dial(),
                29 => link = pair.migrate().unwrap_or(link),
                _ => continue,
            }
            // With both sides full the whole time it comes to an end, and goes on.
            pair.pump(true);
            let read = Side::BOTH.map(|side| pair.progress(side).0);
            assert!(
                read[0] >= before[0] + size as u64 && read[1] >= before[1] + size as u64,
                "a window of each came through in round {round}: {read:?} after {before:?}"
            );
            before = read;
        }
        pair.heal();
    }
    check_both!(check, 512);
}
