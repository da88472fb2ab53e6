//! The same under Noise, where strangers' copies are of handshakes and records.

use proptest::prelude::*;
use unbroken::protocol::noise::{Pattern, Suite};

use crate::{
    NATIVE, capacity, config,
    core_native::Native,
    core_runs::{native_delivers, native_ends},
    core_shield::Shield,
    core_strategies::{Mix, steps},
    endings, rest, window,
};

/// NN, with either suite, and IK.
fn shield() -> impl Strategy<Value = Shield> {
    let kind = prop_oneof![
        Just((Pattern::Nn, Suite::AesGcm)),
        Just((Pattern::Nn, Suite::ChaChaPoly)),
        Just((Pattern::Ik, Suite::AesGcm)),
    ];
    let record = prop_oneof![1usize..20, 20usize..300, Just(16 * 1024)];
    (kind, record).prop_map(|((pattern, suite), record)| Shield::Noise {
        pattern,
        suite,
        record,
    })
}

proptest! {
    #![proptest_config(config(600))]

    #[test]
    fn noise_delivers_exactly_once_in_order(
        shield in shield(),
        windows in [window(), window()],
        capacity in capacity(),
        rest in rest(),
        steps in steps(Mix { ends: 1, ..NATIVE }),
    ) {
        let native = Native {
            shield,
            ..Native::new(windows)
        };
        native_delivers(native, capacity, steps, rest);
    }

    #[test]
    fn noise_ends_as_the_applications_did(
        shield in shield(),
        windows in [window(), window()],
        capacity in capacity(),
        steps in steps(NATIVE),
        endings in endings(),
        healed in any::<bool>(),
    ) {
        let native = Native {
            shield,
            ..Native::new(windows)
        };
        native_ends(native, capacity, steps, endings, healed);
    }
}
