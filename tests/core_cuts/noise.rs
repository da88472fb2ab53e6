//! The same under Noise: a link is cut within preludes, handshakes, records and their lengths, and records split frames wherever they
//! like. A case takes key agreements, so the places are samples, each with another of the ways in which a link is cut.

use unbroken::protocol::noise::{Pattern, Suite};

use crate::{
    Cut, Manner, NEVER, PACES, all_to, at, converse,
    core_native::Native,
    core_pair::{Protocol, Side},
    core_shield::Shield,
    manners, nth_burst, places,
};

const fn native(pattern: Pattern, suite: Suite, record: usize) -> Native {
    let shield = Shield::Noise {
        pattern,
        suite,
        record,
    };
    Native {
        shield,
        ..Native::new([64; 2])
    }
}

/// Records that split every frame, CONFIRM as well, and one that holds several.
const NN: Native = native(Pattern::Nn, Suite::AesGcm, 7);
const NN_CHACHA: Native = native(Pattern::Nn, Suite::ChaChaPoly, 50);
const IK: Native = native(Pattern::Ik, Suite::AesGcm, 23);
const ALL: [Native; 3] = [NN, NN_CHACHA, IK];

#[test]
fn cut_at_every_offset_of_the_open_the_data_and_the_end() {
    for protocol in ALL {
        let places = places(&protocol, &[], nth_burst(0));
        assert!(places.len() > 500, "the conversation is longer than that");
        let mut failed_opens = 0;
        for (nth, cut) in places.into_iter().enumerate() {
            // Neighbours are cut in other ways, and so is each place in the next protocol.
            let manner = nth_burst(nth);
            let outcome = at(&[cut], manner, || converse(&protocol, &[cut], manner));
            let named = outcome.delivered[0][Side::Client as usize] >= protocol.named_after();
            assert_eq!(
                outcome.failed_opens,
                usize::from(!named),
                "{cut:?}, {manner:?}"
            );
            failed_opens += outcome.failed_opens;
        }
        assert!(
            failed_opens > 100,
            "{failed_opens} cuts before there is a name"
        );
    }
}

#[test]
fn cut_byte_by_byte_and_with_the_sender_ahead() {
    let manners = manners(&PACES[1..]);
    for protocol in ALL {
        let places = places(&protocol, &[], manners[0]);
        for (nth, cut) in places.into_iter().enumerate().step_by(5) {
            let manner = manners[nth / 5 % manners.len()];
            at(&[cut], manner, || converse(&protocol, &[cut], manner));
        }
    }
}

/// Within the data, and behind the first end of a stream.
fn first_cuts(protocol: &Native) -> Vec<Cut> {
    let whole = converse(protocol, &[], nth_burst(0)).delivered[0];
    let cuts = Side::BOTH.into_iter().flat_map(|side| {
        let length = whole[side as usize];
        [2, 3].map(|thirds| Cut {
            side,
            offset: length * thirds / 4,
        })
    });
    cuts.collect()
}

#[test]
fn cut_at_every_offset_of_the_resume_and_the_replay() {
    for protocol in ALL {
        for (which, first) in first_cuts(&protocol).into_iter().enumerate() {
            let places = places(&protocol, &[first], nth_burst(0));
            assert!(places.len() > 400, "{} places", places.len());
            // Each place for one of the first cuts.
            for (nth, second) in places.into_iter().enumerate().skip(which).step_by(4) {
                let manner = nth_burst(nth / 4);
                let cuts = [first, second];
                at(&cuts, manner, || converse(&protocol, &cuts, manner));
            }
        }
    }
}

#[test]
fn two_cuts_at_pairs_of_offsets() {
    let mut pairs = 0;
    for protocol in ALL {
        let named = |cut: &Cut| match cut.side {
            Side::Client => cut.offset >= protocol.named_after(),
            Side::Server => cut.offset >= 16 + protocol.shield.request_len(12),
        };
        let firsts = places(&protocol, &[], nth_burst(0));
        for first in firsts.into_iter().filter(named).step_by(17) {
            let places = places(&protocol, &[first], nth_burst(0));
            for second in places.into_iter().skip(first.offset % 23).step_by(23) {
                pairs += 1;
                let manner = nth_burst(pairs);
                let cuts = [first, second];
                at(&cuts, manner, || converse(&protocol, &cuts, manner));
            }
        }
    }
    assert!(pairs > 3000, "{pairs} pairs of offsets");
}

/// The client resumes while it has a link, and either link is cut.
#[test]
fn migration_cut_at_offsets_of_either_link() {
    let mut migrations = 0;
    for protocol in ALL {
        let whole = converse(&protocol, &[], nth_burst(0)).delivered[0];
        for (nth, place) in all_to(whole).enumerate().step_by(31) {
            let manner = Manner {
                send: 16,
                deliver: 8 + nth % 9,
                migrates: Some(place),
                ..nth_burst(nth)
            };
            let delivered = at(&[], manner, || converse(&protocol, &[], manner).delivered);
            let [old, new] = delivered[..] else {
                // The session was over by then, or had just been lost for good.
                continue;
            };
            migrations += 1;
            let old = all_to(old).map(|cut| vec![cut]);
            let new = all_to(new).map(|cut| vec![NEVER, cut]);
            for cuts in old.chain(new).skip(nth % 61).step_by(61) {
                at(&cuts, manner, || converse(&protocol, &cuts, manner));
            }
        }
    }
    assert!(migrations > 30, "{migrations} migrations");
}
