//! Memory for bytes that wait, taken when some do.

/// Bytes in, bytes out, in order, in one piece.
///
/// Invariants: `start <= end <= bytes.len()`, and `start == end` only as 0.
#[derive(Default)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// What waits.
    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first `count` bytes of what waits are dealt with.
    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Where more goes.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.end..]
    }

    /// The first `count` bytes of the room are filled.
    pub(super) fn fill(&mut self, count: usize) {
        debug_assert!(self.end + count <= self.bytes.len());
        self.end += count;
    }

    /// Appends bytes that there is room for.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.room()[..bytes.len()].copy_from_slice(bytes);
        self.fill(bytes.len());
    }

    /// Makes all that is allocated beside what waits into room, and `capacity` bytes be allocated at least.
    pub(super) fn reserve(&mut self, capacity: usize) {
        let waiting = self.start..self.end;
        let count = waiting.len();
        if self.bytes.len() < capacity {
            let mut bytes = vec![0; capacity].into_boxed_slice();
            bytes[..count].copy_from_slice(&self.bytes[waiting]);
            self.bytes = bytes;
        } else {
            self.bytes.copy_within(waiting, 0);
        }
        (self.start, self.end) = (0, count);
    }

    /// Bytes allocated now.
    pub(super) fn allocated(&self) -> usize {
        self.bytes.len()
    }

    /// Gives the allocation back if nothing waits.
    pub(super) fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}
