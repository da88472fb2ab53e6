//! What is told of a session: its name, its state, its figures.

use std::{fmt, time::Instant};

use crate::error::CloseReason;

/// A session's name, the same at both ends. It is no secret, and no proof of anything.
///
/// A native session's is the 16 random bytes its server drew; an snet session's is its 8-byte connection id, big-endian, and 8 zero
/// bytes. It displays as hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 16]);

impl SessionId {
    pub(crate) fn native(id: [u8; 16]) -> Self {
        Self(id)
    }

    pub(crate) fn snet(id: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&id.to_be_bytes());
        Self(bytes)
    }

    /// The id on the wire of a native session.
    pub(crate) fn to_native(self) -> [u8; 16] {
        self.0
    }

    /// The connection id of an snet session.
    pub(crate) fn to_snet(self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// Enough of it to tell sessions apart in a log.
    pub(crate) fn short(self) -> ShortId {
        ShortId(self)
    }
}

/// The first 8 hexadecimal digits of a [`SessionId`].
pub(crate) struct ShortId(SessionId);

impl fmt::Display for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.0[..4]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// What a session's link is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// A link carries the session.
    Connected,
    /// The link is lost, and the session waits for the next.
    Reconnecting {
        /// How many attempts the client has begun since; 0 at a server, which cannot dial.
        attempt: u32,
        /// When the link was lost.
        since: Instant,
    },
    /// The session is over.
    Closed(CloseReason),
}
