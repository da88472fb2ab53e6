//! Steps of a run of a [`Pair`](crate::core_pair::Pair), as property tests draw them.

use std::time::Duration;

use proptest::{prelude::*, strategy::Union};

use crate::{
    core_pair::{InFlight, Side},
    core_steps::Step,
};

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
        // Under Noise, NN and IK.
        prop_oneof![Just(62), Just(98), Just(126), Just(162)],
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
