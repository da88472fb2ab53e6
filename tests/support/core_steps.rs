//! Steps of a run of a [`Pair`].

#![allow(dead_code, reason = "each test file uses its part")]

use std::time::Duration;

use crate::core_pair::{End, InFlight, Pair, Protocol, Side};

/// One step of a run. Sizes are in bytes; a `link` counts back from the newest.
#[derive(Clone, Debug)]
pub(crate) enum Step {
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
    /// The client resumes while it has a link, if it can; the new link alone runs for some turns, and may then be cut with what was
    /// just put on it.
    Migrate {
        turns: usize,
        cut: Option<(InFlight, Vec<Side>)>,
    },
    /// Runs the newest link as far as it goes, without any application reading.
    Settle,
    /// Somebody replays the first bytes of what the client put on a link, and then something else.
    Inject {
        link: usize,
        count: usize,
        tail: Vec<u8>,
    },
    Pass(Duration),
    /// The application of one end will write no more.
    Shut(Side),
    /// An end is to make do with another window.
    Window(Side, usize),
}

/// Takes one step.
pub(crate) fn take<P: Protocol>(pair: &mut Pair<P>, step: Step) {
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
                    if pair.delivered(link, Side::Client) == pair.answered_after {
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
        Step::Migrate { turns, cut } => {
            if let Some(link) = pair.migrate() {
                for _ in 0..turns {
                    for side in Side::BOTH {
                        pair.send(side, link, usize::MAX);
                        pair.deliver(side.other(), link, usize::MAX);
                    }
                }
                if let Some((in_flight, unaware)) = cut {
                    for side in Side::BOTH {
                        pair.send(side, link, usize::MAX);
                    }
                    pair.cut(link, in_flight, &unaware);
                }
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
                // As far as its first message, or as far as it goes with the answer taken.
                for _ in 0..1 + count % 3 {
                    while pair.deliver(Side::Server, injected, usize::MAX) {}
                    pair.send(Side::Server, injected, usize::MAX);
                }
            }
        }
        Step::Pass(time) => pair.pass(time),
        Step::Shut(side) => pair.shut_write(side),
        Step::Window(side, size) => pair.set_window(side, size),
    }
}
