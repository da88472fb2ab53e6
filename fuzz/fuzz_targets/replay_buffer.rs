//! The replay buffer against a queue and two offsets.

#![no_main]

use std::collections::VecDeque;

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use unbroken::protocol::ReplayBuffer;
use unbroken_fuzz::input::{byte, offset, pick, size};

/// The most bytes a buffer holds here, lest the model be what takes the time.
const MOST: usize = 1 << 16;

struct Model {
    bytes: VecDeque<u8>,
    start: u64,
    capacity: usize,
}

impl Model {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn room(&self) -> usize {
        let left = self.capacity - self.bytes.len();
        left.min(usize::try_from(u64::MAX - self.end()).unwrap())
    }

    fn from(&self, offset: u64) -> Option<Vec<u8>> {
        if offset < self.start || offset > self.end() {
            return None;
        }
        let skipped = (offset - self.start) as usize;
        Some(self.bytes.iter().skip(skipped).copied().collect())
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let capacity = size(&mut input).min(MOST);
    let start = offset(&mut input);
    let mut replay = ReplayBuffer::starting_at(start, capacity);
    let mut model = Model {
        bytes: VecDeque::new(),
        start,
        capacity,
    };
    let mut next = 0_u8;
    while !input.is_empty() {
        match pick(&mut input, 6) {
            0 | 1 => {
                let count = size(&mut input).min(2 * MOST);
                let bytes: Vec<u8> = (0..count)
                    .map(|_| {
                        next = next.wrapping_mul(5).wrapping_add(17);
                        next
                    })
                    .collect();
                let taken = replay.push(&bytes);
                assert_eq!(taken, count.min(model.room()));
                model.bytes.extend(&bytes[..taken]);
            }
            2 => {
                // Mostly where there is something to forget.
                let at = near(&model, &mut input);
                replay.trim(at);
                let count = at.min(model.end()).saturating_sub(model.start);
                model.bytes.drain(..count as usize);
                model.start += count;
            }
            3 => {
                let at = near(&model, &mut input);
                let pieces = replay.from(at).map(|(a, b)| [a, b].concat());
                assert_eq!(pieces, model.from(at));
            }
            4 => {
                let at = near(&model, &mut input);
                let mask = byte(&mut input);
                let expected = model.from(at);
                if let Some((first, second)) = replay.from_mut(at) {
                    assert_eq!(Some([&*first, &*second].concat()), expected);
                    first.iter_mut().for_each(|byte| *byte ^= mask);
                    second.iter_mut().for_each(|byte| *byte ^= mask);
                    let skipped = (at - model.start) as usize;
                    let bytes = model.bytes.iter_mut().skip(skipped);
                    bytes.for_each(|byte| *byte ^= mask);
                } else {
                    assert_eq!(expected, None);
                }
            }
            _ => {
                replay.release();
                assert!(!model.bytes.is_empty() || replay.allocated() == 0);
            }
        }
        assert_eq!(replay.start(), model.start);
        assert_eq!(replay.end(), model.end());
        assert_eq!(replay.capacity(), capacity);
        assert_eq!(replay.room(), model.room());
        assert!(replay.allocated() >= model.bytes.len());
        assert!(replay.allocated() <= capacity);
    }
    let all = replay.from(replay.start()).map(|(a, b)| [a, b].concat());
    assert_eq!(all, model.from(model.start));
});

/// An offset that is held, or the bounds and what lies right outside them, or any.
fn near(model: &Model, input: &mut Unstructured<'_>) -> u64 {
    match pick(input, 5) {
        0 => model.start.saturating_add(size(input) as u64),
        1 => model.end().saturating_sub(size(input) as u64),
        2 => model.end().saturating_add(byte(input).into()),
        3 => model.start.saturating_sub(byte(input).into()),
        _ => offset(input),
    }
}
