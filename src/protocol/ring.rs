//! A byte queue in one circular allocation that grows on demand.

/// The smallest allocation, in bytes: some messages. A page for each of many sessions that send a few now and then would be most of what
/// they take.
const SMALLEST: usize = 512;

/// Bytes in, bytes out, in order.
///
/// Invariants: `len <= bytes.len()`, and `head < bytes.len()` unless nothing is allocated. The queued bytes are the `len` bytes
/// from `head` on, going round at the end of the allocation.
#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Ring {
    bytes: Box<[u8]>,
    head: usize,
    len: usize,
}

impl Ring {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes allocated now.
    pub(crate) fn allocated(&self) -> usize {
        self.bytes.len()
    }

    /// Appends `input`. The allocation grows by doubling and never beyond `most`, which the caller keeps `>= len + input.len()`.
    pub(crate) fn push(&mut self, input: &[u8], most: usize) {
        let needed = self.len + input.len();
        debug_assert!(needed <= most);
        if needed > self.bytes.len() {
            self.resize(needed.next_power_of_two().max(SMALLEST).min(most));
        }
        let tail = self.index(self.len);
        let before_end = input.len().min(self.bytes.len() - tail);
        let (first, second) = input.split_at(before_end);
        self.bytes[tail..tail + first.len()].copy_from_slice(first);
        self.bytes[..second.len()].copy_from_slice(second);
        self.len = needed;
    }

    /// Drops the first `count` bytes, all of them if there are fewer.
    pub(crate) fn pop(&mut self, count: usize) {
        let count = count.min(self.len);
        if count > 0 {
            self.head = self.index(count);
            self.len -= count;
        }
    }

    /// The bytes from position `from` on, in the one or two pieces in which they lie.
    pub(crate) fn slices(&self, from: usize) -> (&[u8], &[u8]) {
        let from = from.min(self.len);
        if from == self.len {
            return (&[], &[]);
        }
        let start = self.index(from);
        let count = self.len - from;
        let before_end = count.min(self.bytes.len() - start);
        (
            &self.bytes[start..start + before_end],
            &self.bytes[..count - before_end],
        )
    }

    /// [`slices`](Self::slices) to write to.
    pub(crate) fn slices_mut(&mut self, from: usize) -> (&mut [u8], &mut [u8]) {
        let from = from.min(self.len);
        if from == self.len {
            return (&mut [], &mut []);
        }
        let start = self.index(from);
        let count = self.len - from;
        let (front, back) = self.bytes.split_at_mut(start);
        let before_end = count.min(back.len());
        (&mut back[..before_end], &mut front[..count - before_end])
    }

    /// Gives the allocation back if nothing is queued.
    pub(crate) fn release(&mut self) {
        if self.len == 0 {
            *self = Self::default();
        }
    }

    /// Gives back the allocation if nothing is queued, or part of it if little is. It keeps twice what is queued and gives back no less
    /// than it keeps, so that copying costs at most a constant for each byte that has gone through the queue.
    pub(crate) fn shrink(&mut self) {
        self.release();
        let kept = self.len.saturating_mul(2).next_power_of_two();
        let kept = kept.max(SMALLEST);
        if kept <= self.bytes.len() / 2 {
            self.resize(kept);
        }
    }

    /// Where the byte at `position` lies. Only with an allocation.
    fn index(&self, position: usize) -> usize {
        let index = self.head + position;
        if index >= self.bytes.len() {
            index - self.bytes.len()
        } else {
            index
        }
    }

    /// Moves to an allocation of `capacity`, which is at least the length.
    fn resize(&mut self, capacity: usize) {
        let mut bytes = vec![0; capacity].into_boxed_slice();
        let (first, second) = self.slices(0);
        bytes[..first.len()].copy_from_slice(first);
        bytes[first.len()..first.len() + second.len()].copy_from_slice(second);
        self.bytes = bytes;
        self.head = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::{Ring, SMALLEST};

    proptest! {
        #[test]
        fn behaves_like_a_queue(steps in proptest::collection::vec((any::<bool>(), 0usize..9000), 1..60)) {
            const MOST: usize = 20_000;
            let mut ring = Ring::default();
            let mut model = VecDeque::new();
            let mut next = 0u8;
            for (push, count) in steps {
                if push {
                    let count = count.min(MOST - ring.len());
                    let input: Vec<u8> = (0..count).map(|_| { next = next.wrapping_add(1); next }).collect();
                    ring.push(&input, MOST);
                    model.extend(input);
                } else {
                    ring.pop(count);
                    model.drain(..count.min(model.len()));
                    match count % 7 {
                        0 => ring.release(),
                        1 => ring.shrink(),
                        _ => {}
                    }
                }
                prop_assert!(ring.allocated() <= MOST);
                let mut shrunk = ring.clone();
                shrunk.shrink();
                prop_assert!(shrunk.allocated() <= ring.allocated());
                let most = (8 * ring.len()).max(2 * SMALLEST);
                prop_assert!(shrunk.allocated() < most);
                prop_assert!(ring.len() > 0 || shrunk.allocated() == 0);
                if count % 2 == 0 {
                    ring = shrunk;
                }
                let from = count.min(model.len());
                let expected: Vec<u8> = model.iter().skip(from).copied().collect();
                let (first, second) = ring.slices(from);
                prop_assert_eq!([first, second].concat(), expected.clone());
                let (first, second) = ring.slices_mut(from);
                prop_assert_eq!([&*first, &*second].concat(), expected);
            }
        }
    }
}
