//! What protects links: keys.

mod keys;

pub use keys::{KeyError, KeyKind, KeyPair, PresharedKey, PublicKey};
