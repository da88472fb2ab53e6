//! A client's session and a server's, their handshakes and their links, with any order of writes, reads, deliveries, cuts, resumes,
//! copied messages and ends: what is read is what was written, once and in order, and a clean end comes with all of it.
//!
//! The ends, their links and what is asserted are those of the property tests, `tests/core_property.rs`.

#![no_main]

use std::time::Duration;

use arbitrary::Unstructured;
use core_native::Native;
use core_pair::{InFlight, Side};
use core_runs::{Ending, Rest, delivers, delivers_or_tells, native_delivers, native_ends};
use core_shield::Shield;
use core_snet::Snet;
use core_steps::Step;
use libfuzzer_sys::fuzz_target;
use unbroken::protocol::noise::{Pattern, Suite};
use unbroken_fuzz::input::{byte, pick, size};

#[path = "../../tests/support/core_carried.rs"]
mod core_carried;
#[path = "../../tests/support/core_native.rs"]
mod core_native;
#[path = "../../tests/support/core_native_server.rs"]
mod core_native_server;
#[path = "../../tests/support/core_pair.rs"]
mod core_pair;
#[path = "../../tests/support/core_runs.rs"]
mod core_runs;
#[path = "../../tests/support/core_shield.rs"]
mod core_shield;
#[path = "../../tests/support/core_snet.rs"]
mod core_snet;
#[path = "../../tests/support/core_steps.rs"]
mod core_steps;

/// As in the property tests: far below what ends a session of snet's, whatever the steps.
const STEPS: usize = 200;

/// What steps may be drawn.
#[derive(Clone, Copy)]
struct Mix {
    strangers: bool,
    migrations: bool,
    shuts: bool,
    /// The longest time that passes at a time.
    longest: Duration,
}

const SNET: Mix = Mix {
    strangers: true,
    migrations: false,
    shuts: false,
    longest: Duration::from_millis(200),
};

const NATIVE: Mix = Mix {
    strangers: true,
    migrations: true,
    shuts: false,
    longest: Duration::from_secs(40),
};

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let input = &mut input;
    match pick(input, 6) {
        0 => {
            let native = native(input);
            let capacity = capacity(input);
            let rest = rest(input);
            let direct = rest.withheld.is_none() && native.direct;
            native_delivers(
                Native { direct, ..native },
                capacity,
                steps(input, NATIVE),
                rest,
            );
        }
        1 => {
            let native = Native {
                direct: false,
                ..native(input)
            };
            let capacity = capacity(input);
            let rest = rest(input);
            let mix = Mix {
                shuts: true,
                ..NATIVE
            };
            native_delivers(native, capacity, steps(input, mix), rest);
        }
        2 => {
            let native = Native {
                direct: false,
                ..native(input)
            };
            let capacity = capacity(input);
            let healed = pick(input, 2) == 1;
            let endings = [ending(input), ending(input)];
            let ends = |ending: &Ending| matches!(ending, Ending::Drop | Ending::Reset(_));
            if endings.iter().any(ends) || endings == [Ending::Shut; 2] {
                native_ends(native, capacity, steps(input, NATIVE), endings, healed);
            }
        }
        3 | 4 => {
            let (snet, history) = (snet(input), history(input));
            let part = usize::from(pick(input, 64)) + 1;
            let capacity = (history / 2 * part / 64).max(1);
            delivers(&snet, history, capacity, steps(input, SNET));
        }
        _ => {
            let (snet, history) = (snet(input), history(input));
            let beyond = usize::from(pick(input, 160)) + 1;
            let capacity = history / 2 + (history * beyond / 64).max(1);
            let mix = Mix {
                strangers: false,
                ..SNET
            };
            delivers_or_tells(&snet, history, capacity, steps(input, mix));
        }
    }
});

fn snet(input: &mut Unstructured<'_>) -> Snet {
    let [plain, rc4, custom] = Snet::all();
    match pick(input, 3) {
        0 => plain,
        1 => rc4,
        _ => custom,
    }
}

fn native(input: &mut Unstructured<'_>) -> Native {
    let which = pick(input, 8);
    let direct = !which.is_multiple_of(2);
    // What protects the links, and the most plaintext of a record.
    let shield = match which / 2 {
        0 => Shield::None,
        1 => noise(Pattern::Nn, Suite::AesGcm, 16 * 1024),
        2 => noise(Pattern::Ik, Suite::ChaChaPoly, 20),
        _ => noise(Pattern::NnPsk0, Suite::AesGcm, 300),
    };
    let window = |input: &mut _| size(input).clamp(1, 4096);
    let windows = [window(input), window(input)];
    Native {
        direct,
        shield,
        ..Native::new(windows)
    }
}

fn noise(pattern: Pattern, suite: Suite, record: usize) -> Shield {
    Shield::Noise {
        pattern,
        suite,
        record,
    }
}

fn history(input: &mut Unstructured<'_>) -> usize {
    size(input).clamp(64, 4096)
}

fn capacity(input: &mut Unstructured<'_>) -> usize {
    size(input).clamp(1, 20_000)
}

fn rest(input: &mut Unstructured<'_>) -> Rest {
    let choice = byte(input);
    Rest {
        healed: choice & 1 == 1,
        withheld: match choice >> 1 & 3 {
            0 => Some(Side::Client),
            1 => Some(Side::Server),
            _ => None,
        },
    }
}

fn ending(input: &mut Unstructured<'_>) -> Ending {
    match pick(input, 5) {
        0 => Ending::Nothing,
        1 => Ending::Shut,
        2 | 3 => Ending::Drop,
        _ => Ending::Reset(u32::from(byte(input)) + 1),
    }
}

fn side(of: u8) -> Side {
    Side::BOTH[usize::from(of & 1)]
}

fn in_flight(of: u8) -> InFlight {
    match of % 3 {
        0 => InFlight::Lost,
        1 => InFlight::Half,
        _ => InFlight::Late,
    }
}

fn unaware(of: u8) -> Vec<Side> {
    match of % 3 {
        0 => Vec::new(),
        1 => vec![Side::Server],
        _ => Side::BOTH.to_vec(),
    }
}

/// The newest link mostly, and older ones.
fn link(of: u8) -> usize {
    usize::from(of).saturating_sub(1) % 4
}

fn steps(input: &mut Unstructured<'_>, mix: Mix) -> Vec<Step> {
    let mut steps = Vec::new();
    while !input.is_empty() && steps.len() < STEPS {
        let kind = byte(input);
        // What the kind has left says which end and which link.
        let (kind, of) = (kind & 0x0f, kind >> 4);
        let step = match kind {
            0 | 1 => Step::Write(side(of), size(input)),
            2 => Step::Read(side(of), size(input)),
            3 | 4 => Step::Send(side(of), link(of >> 1), size(input)),
            5 | 6 => Step::Deliver(side(of), link(of >> 1), size(input)),
            7 => {
                let how = byte(input);
                Step::Cut {
                    link: link(of),
                    in_flight: in_flight(how),
                    unaware: unaware(how >> 4),
                }
            }
            8 => Step::Dial,
            9 => Step::Settle,
            10 => Step::Race(size(input), size(input)),
            11 if mix.migrations => {
                let how = byte(input);
                let cut = (how & 0x80 != 0).then(|| (in_flight(how), unaware(how >> 4)));
                Step::Migrate {
                    turns: usize::from(of % 6),
                    cut,
                }
            }
            12 if mix.strangers => {
                let count = match byte(input) {
                    count @ 0..250 => count.into(),
                    _ => 1 << 20,
                };
                let tail = usize::from(pick(input, 40)).min(input.len());
                let tail = input.bytes(tail).unwrap_or(&[]).to_vec();
                Step::Inject {
                    link: link(of),
                    count,
                    tail,
                }
            }
            13 => Step::Pass(mix.longest * u32::from(byte(input)) / 255),
            14 if mix.shuts => Step::Shut(side(of)),
            // Over and over, as in any run that comes to something.
            _ => Step::Settle,
        };
        steps.push(step);
    }
    steps
}
