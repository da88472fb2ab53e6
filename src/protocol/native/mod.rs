//! The native protocol (`docs/PROTOCOL.md`, "native"): its prelude, its handshakes and its frames.
//!
//! A link starts with a handshake: [`ClientOpen`] or [`ClientResume`] against [`ServerHandshake`]. Neither of the client's transmits
//! the last message, CONFIRM: its bytes go in front of the client's first frames, into the [`Head`] with its ATTACH, so that opening
//! and resuming take one round trip. From then on each direction of the link is [`Frame`]s, which a [`Decoder`] takes apart.

mod bytes;
mod frame;
mod handshake;
mod link;
mod message;
mod prelude;
mod proof;
mod protection;
mod session;

use std::{fmt, time::Duration};

use zeroize::{Zeroize, ZeroizeOnDrop};

pub use frame::{Decoder, Frame, HEAD_LEN, Head, Item, MAX_DATA, MAX_FRAME, Reject};
pub use handshake::{Answer, ClientOpen, ClientResume, Hello, ServerHandshake};
pub use message::CONFIRM_LEN;
pub(super) use prelude::FIRST_BYTE;
pub use prelude::{Kind, PRELUDE_LEN, Prelude, security, suite};
pub use protection::{ClientProtection, ServerProtection};
pub use session::{Ended, Identity, NativeSession, Settings, Tombstone};

pub use crate::error::{RejectCode, reset};

/// The random name of a session.
pub type Id = [u8; 16];

/// Random bytes, drawn anew by each end for each resume.
pub type Nonce = [u8; 16];

/// What both ends of a session know and nobody else: every proof hangs on it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SessionSecret([u8; 32]);

impl SessionSecret {
    /// The secret with these bytes, which are to be random.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSecret(..)")
    }
}

/// What a session is bound to besides its secret: every link has to be protected as that of the open was, and for the same client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// How, one of [`security`].
    pub security: u8,
    /// The client's public key, if links so protected have it show one.
    pub client_key: Option<[u8; 32]>,
}

impl Binding {
    /// Of a session whose links are not protected.
    pub const NONE: Self = Self {
        security: security::NONE,
        client_key: None,
    };
}

/// A session as the server names it.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its name.
    pub id: Id,
    /// What its resumes are proved with.
    pub secret: SessionSecret,
    /// Says to a load balancer which server holds it; each resume repeats it.
    pub route: u32,
    /// The server's window, in bytes: the first limit of what the client may send.
    pub window: u64,
    /// How long the server keeps it without a link. On the wire it is in whole milliseconds, 2^32 − 1 of them at most.
    pub resume_window: Duration,
}
