//! A peer that holds the secret and says anything at all.

use std::time::Duration;

use proptest::prelude::*;
use unbroken::protocol::{
    Role,
    native::{Frame, Reject},
};

use crate::{
    core_noise::{Noise, makes_noise},
    core_scripted::{Scripted, WINDOW, ack, attach, bytes, settings, wire},
};

/// Offsets and limits about those that can be.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..200, any::<u64>(), (u64::MAX - 100)..=u64::MAX]
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let data = prop_oneof![8 => 1usize..100, 1 => Just(65_536)];
    prop_oneof![
        4 => (number(), number()).prop_map(|(received, limit)| wire(&[ack(received, limit)])),
        4 => (number(), number(), number())
            .prop_map(|(from, received, limit)| wire(&[attach(from, received, limit)])),
        4 => (0u64..40, 0u64..40).prop_map(|(from, received)| wire(&[attach(from, received, 200)])),
        6 => Just(wire(&[attach(0, 0, 200)])),
        6 => (0u64..60).prop_map(|received| wire(&[ack(received, received + 100)])),
        6 => data.prop_map(|len| [wire(&[Frame::Data { len }]), bytes(0, len)].concat()),
        2 => Just(wire(&[Frame::Fin])),
        1 => any::<u32>().prop_map(|code| wire(&[Frame::Reset { code }])),
        2 => any::<u64>().prop_map(|ping| wire(&[Frame::Ping(ping), Frame::Pong(1)])),
        1 => (0u16..14, any::<u32>()).prop_map(|(code, millis)| wire(&[Frame::Reject(Reject {
            code: code.into(),
            retry_after: Duration::from_millis(millis.into()),
        })])),
        1 => proptest::collection::vec(any::<u8>(), 1..60),
        1 => (0x80..=0xff_u8, 0u8..60)
            .prop_map(|(kind, len)| [vec![kind, 0, 0, len], vec![0; len.into()]].concat()),
    ]
}

fn noise() -> impl Strategy<Value = Noise> {
    let frames = proptest::collection::vec(frame(), 1..5).prop_map(|frames| frames.concat());
    let says = (frames, prop_oneof![Just(usize::MAX), 1usize..40], 0u64..2);
    prop_oneof![
        10 => says.prop_map(|(bytes, piece, back)| Noise::Says(bytes, piece, back)),
        4 => (0usize..100).prop_map(Noise::Writes),
        4 => (0usize..100).prop_map(Noise::Reads),
        6 => prop_oneof![0usize..50, Just(usize::MAX)].prop_map(Noise::Hands),
        4 => prop_oneof![2 => Just(0), 2 => 0u64..60, 1 => number()].prop_map(Noise::Resumes),
        1 => (0u64..2).prop_map(Noise::LosesLink),
        2 => (0u64..40_000).prop_map(|ms| Noise::Passes(Duration::from_millis(ms))),
        1 => Just(Noise::Shuts),
        1 => any::<u32>().prop_map(Noise::Resets),
        1 => Just(Noise::Drops),
        1 => Just(Noise::Probes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 3000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn eternal_terminal_15_no_input_reaches_a_panic(
        server in any::<bool>(),
        attached in any::<bool>(),
        window in prop_oneof![Just(WINDOW), 1usize..300],
        peer_window in prop_oneof![0u64..300, any::<u64>()],
        noise in proptest::collection::vec(noise(), 1..60),
    ) {
        let role = if server { Role::Server } else { Role::Client };
        let settings = settings(window);
        let script = if attached {
            Scripted::attached_with(role, settings, peer_window)
        } else {
            Scripted::new(role, settings, peer_window)
        };
        makes_noise(script, window, noise);
    }
}
