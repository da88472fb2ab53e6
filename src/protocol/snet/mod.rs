//! The snet protocol (`docs/PROTOCOL.md`, "snet"): its messages, its handshakes and its ciphers.

mod cipher;
mod dh64;
mod handshake;
mod message;
mod session;

use std::fmt;

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use cipher::{CipherChoice, Direction, StreamCipher};
pub use dh64::{KeyAgreement, PrivateKey, PublicKey};
pub use handshake::{ClientOpen, ClientResume, Hello, Opened, ServerHandshake};
pub use session::{Settings, SnetSession};

pub use message::{Challenge, Counts, Proof, ResumeReply, ResumeRequest};
pub(super) use message::{OPEN, RESUME};

/// The 8 bytes of the Diffie-Hellman secret, which every later proof and keystream hangs on.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SessionKey([u8; 8]);

impl SessionKey {
    /// The key with these bytes.
    pub fn new(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }

    /// The proof over `message`: MD5(message ‖ key).
    fn prove(&self, message: &[u8]) -> Proof {
        let mut hash = Md5::new();
        hash.update(message);
        hash.update(self.0);
        Proof(hash.finalize().into())
    }

    /// Whether `proof` is the one over `message`, in constant time.
    fn verify(&self, message: &[u8], proof: &Proof) -> bool {
        self.prove(message).0.ct_eq(&proof.0).into()
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(..)")
    }
}
