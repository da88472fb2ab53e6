//! Both directions of a session, counted: what survives its links.

use super::{receive::ReceiveBuffer, replay::ReplayBuffer};

/// How many bytes wait for a link that takes no more, at most: enough for it to be handed many at a time, and few enough to be in the
/// processor's cache still. More would make nothing faster, and hide from a writer how far its bytes have come.
pub(super) const UNSENT: usize = 256 * 1024;

/// The bytes this end may have to send again, and those its application has not read, with how far the links have come.
///
/// A link has two cursors: the offset of the next byte it is to be handed, and of the next that it will give. Either may lie below what
/// another link has done already: what is handed there is a replay, what arrives there arrives again and is dropped.
pub(super) struct Streams {
    pub(super) replay: ReplayBuffer,
    pub(super) receive: ReceiveBuffer,
    /// The offset up to which any link was handed the stream.
    handed: u64,
    replayed: u64,
}

impl Streams {
    /// Streams at their start; either buffer holds at most `capacity` bytes.
    pub(super) fn new(capacity: usize) -> Self {
        Self::starting_at(0, capacity)
    }

    /// Streams of which both have had `offset` bytes.
    pub(super) fn starting_at(offset: u64, capacity: usize) -> Self {
        Self {
            replay: ReplayBuffer::starting_at(offset, capacity),
            receive: ReceiveBuffer::starting_at(offset, capacity),
            handed: offset,
            replayed: 0,
        }
    }

    /// A link whose cursor is `next` has taken `count` bytes.
    pub(super) fn hand(&mut self, next: &mut u64, count: usize) {
        let before = *next;
        *next += count as u64;
        self.replayed += self.handed.min(*next).saturating_sub(before);
        self.handed = self.handed.max(*next);
    }

    /// A link whose cursor is `arriving` gives `count` bytes: returns how many of the first of them arrive again, and counts the rest.
    /// The caller has seen to it that there are offsets for them.
    pub(super) fn arrive(&mut self, arriving: &mut u64, count: usize) -> usize {
        let again = self.receive.received().saturating_sub(*arriving);
        let again = usize::try_from(again).map_or(count, |again| again.min(count));
        *arriving += count as u64;
        self.receive.count(count - again);
        again
    }

    /// Bytes of memory allocated now.
    pub(super) fn allocated(&self) -> usize {
        self.replay.allocated() + self.receive.allocated()
    }

    /// The offset up to which any link was handed the stream.
    pub(super) fn handed(&self) -> u64 {
        self.handed
    }

    /// How many bytes were handed to a link that an earlier link had been handed already.
    pub(super) fn replayed(&self) -> u64 {
        self.replayed
    }
}
