//! Sent bytes that the peer may still lack, by absolute offset.

use super::ring::Ring;

/// The tail of one direction's stream as it went out, kept so that it can go out again.
///
/// All positions are absolute offsets in the stream. Invariants: `start <= end`, `end - start <= capacity`, and the ring holds
/// exactly the bytes `start..end`.
///
/// Memory is allocated as bytes arrive, by doubling, up to the capacity.
pub struct ReplayBuffer {
    ring: Ring,
    start: u64,
    capacity: usize,
}

impl ReplayBuffer {
    /// An empty buffer for at most `capacity` bytes, whose stream starts at offset 0.
    pub fn new(capacity: usize) -> Self {
        Self::starting_at(0, capacity)
    }

    /// An empty buffer for at most `capacity` bytes, whose stream goes on at `offset`.
    pub fn starting_at(offset: u64, capacity: usize) -> Self {
        Self {
            ring: Ring::default(),
            start: offset,
            capacity,
        }
    }

    /// The offset of the oldest byte still held.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The offset after the newest byte: how many bytes the stream has had in all.
    pub fn end(&self) -> u64 {
        self.start + self.ring.len() as u64
    }

    /// How many bytes it holds now.
    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    /// The most bytes it holds.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of memory allocated now.
    pub fn allocated(&self) -> usize {
        self.ring.allocated()
    }

    /// How many bytes [`push`](Self::push) would take now: what the capacity and the 64 bits of an offset leave.
    pub fn room(&self) -> usize {
        let offsets = usize::try_from(u64::MAX - self.end()).unwrap_or(usize::MAX);
        (self.capacity - self.ring.len()).min(offsets)
    }

    /// Appends as much of `bytes` as there is [room](Self::room) for, and returns how much that was.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        self.ring.push(&bytes[..count], self.capacity);
        count
    }

    /// Forgets what lies before `offset`. An offset before the start or after the end counts as that bound.
    pub fn trim(&mut self, offset: u64) {
        let count = offset.min(self.end()).saturating_sub(self.start);
        // At most the ring's length, so it fits a usize.
        self.ring.pop(count as usize);
        self.start += count;
    }

    /// The bytes from `offset` to the end, in the one or two pieces in which they lie; `None` if `offset` is not in
    /// `start..=end`.
    pub fn from(&self, offset: u64) -> Option<(&[u8], &[u8])> {
        Some(self.ring.slices(self.position(offset)?))
    }

    /// [`from`](Self::from) to write to, so that a cipher can work in place.
    pub fn from_mut(&mut self, offset: u64) -> Option<(&mut [u8], &mut [u8])> {
        let position = self.position(offset)?;
        Some(self.ring.slices_mut(position))
    }

    /// Gives the memory back if no byte is held.
    pub fn release(&mut self) {
        self.ring.release();
    }

    /// Gives memory back that holds few bytes or none.
    pub(crate) fn shrink(&mut self) {
        self.ring.shrink();
    }

    fn position(&self, offset: u64) -> Option<usize> {
        // An offset up to `end` is at most the ring's length from the start, so it fits a usize.
        (self.start..=self.end())
            .contains(&offset)
            .then(|| (offset - self.start) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::ReplayBuffer;

    /// Seen in goscon: counts of 32 bits, after which every resume was refused.
    #[test]
    fn goscon_13_counts_cross_32_bits_and_stop_at_64() {
        let start = u64::from(u32::MAX) - 2;
        let mut replay = ReplayBuffer::starting_at(start, 8);
        assert_eq!(replay.push(b"abcdefgh"), 8);
        assert_eq!(replay.end(), start + 8);
        replay.trim(start + 5);
        assert_eq!(
            replay.from(start + 6),
            Some((b"gh".as_slice(), b"".as_slice()))
        );

        let mut replay = ReplayBuffer::starting_at(u64::MAX - 3, 8);
        assert_eq!(replay.push(b"abcdefgh"), 3);
        assert_eq!(replay.end(), u64::MAX);
        assert_eq!(replay.push(b"d"), 0);
        replay.trim(u64::MAX);
        assert_eq!(replay.start(), u64::MAX);
    }

    #[test]
    fn offsets_outside_are_told_from_the_ends() {
        let mut replay = ReplayBuffer::new(4);
        replay.push(b"abcd");
        replay.trim(2);
        assert_eq!(replay.from(1), None);
        assert_eq!(replay.from(5), None);
        assert_eq!(replay.from(4), Some((b"".as_slice(), b"".as_slice())));
        replay.trim(1);
        assert_eq!(replay.start(), 2);
        replay.trim(9);
        assert_eq!((replay.start(), replay.end()), (4, 4));
        replay.release();
        assert_eq!(replay.allocated(), 0);
    }
}
