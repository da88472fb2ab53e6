//! What protects links.

#[cfg(all(feature = "noise", feature = "transport"))]
mod alone;
#[cfg(all(feature = "noise", feature = "transport"))]
mod buffer;
#[cfg(feature = "transport")]
#[cfg_attr(
    not(all(feature = "client", feature = "server")),
    allow(dead_code, reason = "each end uses its part")
)]
mod choice;
#[cfg(feature = "noise")]
#[cfg_attr(
    not(feature = "transport"),
    allow(dead_code, reason = "handshakes are run with them there")
)]
mod keys;
#[cfg(all(feature = "noise", feature = "transport"))]
mod link;

#[cfg(feature = "transport")]
pub use choice::Security;
#[cfg(feature = "noise")]
pub use keys::{KeyError, KeyKind, KeyPair, PresharedKey, PublicKey};
#[cfg(all(feature = "noise", feature = "transport"))]
pub use link::NoiseLink;
