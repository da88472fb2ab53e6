//! Received bytes that the application has not read.

use super::ring::Ring;

/// The tail of the other direction's stream, between the link and the application.
///
/// Bytes may also go straight from a link into the application's buffer, but only while nothing waits here, so that the order
/// holds. Invariants: `waiting <= capacity`; the ring holds exactly the bytes `received - waiting..received`.
pub(crate) struct ReceiveBuffer {
    ring: Ring,
    received: u64,
    capacity: usize,
}

impl ReceiveBuffer {
    /// Of a stream that has had `received` bytes.
    pub(crate) fn starting_at(received: u64, capacity: usize) -> Self {
        Self {
            ring: Ring::default(),
            received,
            capacity,
        }
    }

    /// How many bytes of the stream are in memory or were: the offset after the newest.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Bytes the application has not read.
    pub(crate) fn waiting(&self) -> usize {
        self.ring.len()
    }

    /// How many more bytes may wait.
    pub(crate) fn room(&self) -> usize {
        self.capacity - self.ring.len()
    }

    /// How many bytes of the stream the application has taken.
    pub(crate) fn consumed(&self) -> u64 {
        self.received - self.ring.len() as u64
    }

    /// Counts `count` bytes that are in memory but do not wait here.
    pub(crate) fn count(&mut self, count: usize) {
        self.received += count as u64;
    }

    /// Lets `bytes`, already counted, wait. The caller has asked for [`room`](Self::room).
    pub(crate) fn store(&mut self, bytes: &[u8]) {
        self.ring.push(bytes, self.capacity);
    }

    /// Moves the oldest waiting bytes to `out` and returns how many; gives the memory back with the last one.
    pub(crate) fn read(&mut self, out: &mut [u8]) -> usize {
        let (first, second) = self.ring.slices(0);
        let from_first = first.len().min(out.len());
        let from_second = second.len().min(out.len() - from_first);
        out[..from_first].copy_from_slice(&first[..from_first]);
        out[from_first..from_first + from_second].copy_from_slice(&second[..from_second]);
        self.ring.pop(from_first + from_second);
        self.ring.release();
        from_first + from_second
    }

    /// Bytes of memory allocated now.
    pub(crate) fn allocated(&self) -> usize {
        self.ring.allocated()
    }

    /// Gives back memory that little waits in.
    pub(crate) fn shrink(&mut self) {
        self.ring.shrink();
    }

    /// Drops what waits.
    pub(crate) fn discard(&mut self) {
        self.ring.pop(self.ring.len());
        self.ring.release();
    }
}
