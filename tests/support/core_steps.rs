//! Steps of a run of a [`Pair`], as property tests draw them.

use std::time::Duration;

use proptest::{prelude::*, strategy::Union};

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

/// What the steps of a protocol are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    /// How often strangers replay what they overheard.
    pub(crate) strangers: u32,
    pub(crate) migrations: u32,
    pub(crate) ends: u32,
    /// How often memory becomes short, or no longer is.
    pub(crate) windows: u32,
    /// The longest time that passes at a time.
    pub(crate) longest: Duration,
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
    prop_oneof![
        0usize..130,
        // Those of snet, and of native.
        prop_oneof![Just(9), Just(41), Just(41 + 16)],
        prop_oneof![Just(28), Just(28 + 44), Just(64), Just(64 + 44)],
        Just(1 << 20)
    ]
}

fn unaware() -> impl Strategy<Value = Vec<Side>> {
    prop_oneof![2 => Just(vec![]), 2 => Just(vec![Side::Server]), 1 => Just(Side::BOTH.to_vec())]
}

fn migration() -> impl Strategy<Value = Step> {
    let cut = proptest::option::of((in_flight(), unaware()));
    (prop_oneof![3 => Just(1), 2 => 0usize..6], cut)
        .prop_map(|(turns, cut)| Step::Migrate { turns, cut })
}

fn step(mix: Mix) -> impl Strategy<Value = Step> {
    let inject = (
        link(),
        replayed(),
        proptest::collection::vec(any::<u8>(), 0..40),
    )
        .prop_map(|(link, count, tail)| Step::Inject { link, count, tail });
    let cut = (link(), in_flight(), unaware()).prop_map(|(link, in_flight, unaware)| Step::Cut {
        link,
        in_flight,
        unaware,
    });
    let pass = (0..=100_u32).prop_map(move |part| Step::Pass(mix.longest * part / 100));
    let kinds = vec![
        (
            5,
            (side(), size())
                .prop_map(|(side, size)| Step::Write(side, size))
                .boxed(),
        ),
        (
            4,
            (side(), size())
                .prop_map(|(side, size)| Step::Read(side, size))
                .boxed(),
        ),
        (
            8,
            (side(), link(), size())
                .prop_map(|(side, link, size)| Step::Send(side, link, size))
                .boxed(),
        ),
        (
            8,
            (side(), link(), size())
                .prop_map(|(side, link, size)| Step::Deliver(side, link, size))
                .boxed(),
        ),
        (3, cut.boxed()),
        (3, Just(Step::Dial).boxed()),
        (3, Just(Step::Settle).boxed()),
        (
            2,
            (size(), size())
                .prop_map(|(written, late)| Step::Race(written, late))
                .boxed(),
        ),
        (mix.migrations, migration().boxed()),
        (mix.strangers, inject.boxed()),
        (1, pass.boxed()),
        (mix.ends, side().prop_map(Step::Shut).boxed()),
        (
            mix.windows,
            (side(), size())
                .prop_map(|(side, size)| Step::Window(side, size))
                .boxed(),
        ),
    ];
    // No kind may have a weight of 0.
    Union::new_weighted(
        kinds
            .into_iter()
            .filter(|(weight, _)| *weight > 0)
            .collect(),
    )
}

pub(crate) fn steps(mix: Mix) -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(mix), 1..150)
}

/// How much is kept to be sent again, in bytes.
pub(crate) fn history() -> impl Strategy<Value = usize> {
    prop_oneof![Just(64usize), 64usize..200, 200usize..4097]
}

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
