//! One link of a native session: what is on its way out, and where each direction has come to.

use std::time::Instant;

use super::{
    frame::{Decoder, Head},
    message::CONFIRM_LEN,
    session::RoundTrips,
};
use crate::protocol::session::LinkId;

/// What an end says of what it has received: up to where, and up to where it allows more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Receipt {
    pub(super) received: u64,
    pub(super) limit: u64,
}

/// A link in use.
///
/// What goes out is a head, which is whole frames and perhaps the header of a DATA frame, and then that frame's payload, from the replay
/// buffer. A new head is composed only when both have been handed over. So what a link has begun it can always finish, and nothing
/// is queued that can grow with what the peer sends.
pub(super) struct Link {
    pub(super) id: LinkId,
    head: Head,
    /// How much of the payload that follows the head has not.
    payload: usize,
    /// The offset of what the link is to be handed next: a byte of the stream, or its FIN.
    pub(super) next: u64,
    pub(super) decoder: Decoder,
    /// The offset of the next byte the link will give; `None` until the peer's ATTACH.
    pub(super) arriving: Option<u64>,
    /// A CONFIRM that is to go before everything else.
    pub(super) confirm: Option<Box<[u8; CONFIRM_LEN]>>,
    /// What was last said on this link of what was received; `None` until the ATTACH.
    pub(super) stated: Option<Receipt>,
    /// When the peer was last heard on it.
    pub(super) heard: Instant,
    /// When something last came that the link still held back then.
    pub(super) stirred: Instant,
    /// When the peer has to have taken it into use.
    pub(super) attach_by: Option<Instant>,
    /// Whether a PING is to go out.
    pub(super) ping_due: bool,
    /// The number of the last PING, and when it went out.
    pub(super) pinged: Option<(u64, Instant)>,
    /// Whether that was answered.
    pub(super) ponged: bool,
    pub(super) round_trips: RoundTrips,
    /// The PING of the peer's that is to be answered: the last.
    pub(super) pong: Option<u64>,
    /// Whether the RESET, after which nothing follows, has been composed.
    pub(super) ended: bool,
}

impl Link {
    /// A link that is to be handed the stream from `next` on, and from which frames of so many bytes at most are skipped.
    pub(super) fn new(id: LinkId, next: u64, max_frame: usize, now: Instant) -> Self {
        Self {
            id,
            head: Head::default(),
            payload: 0,
            next,
            decoder: Decoder::with_max_frame(max_frame),
            arriving: None,
            confirm: None,
            stated: None,
            heard: now,
            stirred: now,
            attach_by: None,
            // The first answer tells that the link works both ways, and how long its round trip is.
            ping_due: true,
            pinged: None,
            ponged: true,
            round_trips: RoundTrips::default(),
            pong: None,
            ended: false,
        }
    }

    /// Whether what was composed last has been handed over.
    pub(super) fn is_idle(&self) -> bool {
        self.head.is_empty() && self.payload == 0
    }

    /// Sends `head`, then `payload` bytes of the stream. Only when it is [idle](Self::is_idle).
    pub(super) fn send(&mut self, head: Head, payload: usize) {
        self.head = head;
        self.payload = payload;
    }

    /// When the last PING went out, if that has not been answered.
    pub(super) fn unanswered(&self) -> Option<Instant> {
        let (_, at) = self.pinged.filter(|_| !self.ponged)?;
        Some(at)
    }

    /// What is left of the head.
    pub(super) fn head(&self) -> &[u8] {
        self.head.as_bytes()
    }

    /// How many bytes of the stream, from `next` on, are to follow the head.
    pub(super) fn payload(&self) -> usize {
        self.payload
    }

    /// `count` bytes were handed over; returns how many of them were bytes of the stream.
    pub(super) fn sent(&mut self, count: usize) -> usize {
        let of_head = count.min(self.head.as_bytes().len());
        self.head.advance(of_head);
        let of_payload = (count - of_head).min(self.payload);
        self.payload -= of_payload;
        of_payload
    }
}
