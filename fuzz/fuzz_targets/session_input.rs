//! A native session of either role whose peer holds the secret and says anything: nothing panics, nothing received is forgotten, and
//! nothing makes the session hold more than its window.
//!
//! What is asserted is that of the property test, `tests/core_failures/noise.rs`.

#![no_main]

use std::time::Duration;

use arbitrary::Unstructured;
use core_noise::{Noise, makes_noise};
use core_scripted::{Scripted, ack, attach, bytes, settings, wire};
use libfuzzer_sys::fuzz_target;
use unbroken::protocol::{
    Role,
    native::{Frame, Reject},
};
use unbroken_fuzz::input::{byte, offset, pick, size};

#[path = "../../tests/support/core_noise.rs"]
mod core_noise;
#[path = "../../tests/support/core_scripted.rs"]
mod core_scripted;

/// The most that happens in a run.
const STEPS: usize = 200;

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let input = &mut input;
    let how = byte(input);
    let role = if how & 1 == 0 {
        Role::Client
    } else {
        Role::Server
    };
    let window = size(input).clamp(1, 4096);
    let settings = settings(window);
    let peer_window = offset(input);
    let script = if how & 2 == 0 {
        Scripted::attached_with(role, settings, peer_window)
    } else {
        Scripted::new(role, settings, peer_window)
    };
    let mut noise = Vec::new();
    while !input.is_empty() && noise.len() < STEPS {
        noise.push(draw(input));
    }
    makes_noise(script, window, noise);
});

fn draw(input: &mut Unstructured<'_>) -> Noise {
    let kind = byte(input);
    let (kind, of) = (kind & 0x0f, kind >> 4);
    match kind {
        0..6 => {
            let mut said = Vec::new();
            for _ in 0..1 + (of >> 1) % 4 {
                say(input, &mut said);
            }
            let piece = match byte(input) {
                0..128 => usize::MAX,
                piece => usize::from(piece - 127),
            };
            Noise::Says(said, piece, u64::from(of & 1))
        }
        6 => Noise::Writes(size(input)),
        7 => Noise::Reads(size(input)),
        8 | 9 => Noise::Hands(match byte(input) {
            some @ 0..100 => some.into(),
            _ => usize::MAX,
        }),
        10 => Noise::Resumes(offset(input)),
        11 => Noise::LosesLink(u64::from(of & 1)),
        12 => Noise::Passes(Duration::from_millis(160 * u64::from(byte(input)))),
        13 => Noise::Probes,
        14 => Noise::Shuts,
        _ if of & 1 == 0 => Noise::Resets(byte(input).into()),
        _ => Noise::Drops,
    }
}

/// One frame, or something that is none.
fn say(input: &mut Unstructured<'_>, said: &mut Vec<u8>) {
    let frame = match pick(input, 12) {
        0 | 1 => ack(offset(input), offset(input)),
        2 => attach(offset(input), offset(input), offset(input)),
        3 => attach(0, 0, 200),
        4..7 => {
            let len = size(input).clamp(1, 65_536);
            said.extend(wire(&[Frame::Data { len }]));
            said.extend(bytes(0, len));
            return;
        }
        7 => Frame::Fin,
        8 => Frame::Reset {
            code: byte(input).into(),
        },
        9 => match pick(input, 3) {
            0 => Frame::Ping(offset(input)),
            1 => Frame::Pong(offset(input)),
            _ => Frame::Reject(Reject {
                code: u16::from(pick(input, 14)).into(),
                retry_after: Duration::from_millis(offset(input)),
            }),
        },
        10 => {
            let len = byte(input);
            said.extend([0x80 | byte(input), 0, 0, len]);
            said.extend(vec![0; len.into()]);
            return;
        }
        _ => {
            let count = usize::from(pick(input, 60)).min(input.len());
            said.extend(input.bytes(count).unwrap_or(&[]));
            return;
        }
    };
    said.extend(wire(&[frame]));
}
