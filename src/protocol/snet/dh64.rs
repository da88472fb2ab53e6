//! Diffie-Hellman over a 64-bit prime (`docs/PROTOCOL.md`, "DH64").
//!
//! A group this small is broken by a laptop: it keeps sessions apart, not secrets.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::SessionKey;

/// The prime, 2^64 − 59.
const P: u64 = 0xffff_ffff_ffff_ffc5;
/// The generator.
const G: u64 = 5;

/// A private key: any number but 0.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey(u64);

impl PrivateKey {
    /// The key with this number, drawn at random by the caller; `None` for 0, so that the caller draws again.
    pub fn new(number: u64) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }

    /// The public key that belongs to it.
    pub fn public(&self) -> PublicKey {
        PublicKey(power(G, self.0))
    }

    /// The secret shared with the owner of `peer`.
    pub fn agree(&self, peer: PublicKey) -> SessionKey {
        SessionKey::new(power(peer.0, self.0).to_le_bytes())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// A public key: a number from 1 to p − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(u64);

impl PublicKey {
    /// Reads a public key as it stands on the wire. Numbers above p are reduced; `None` for 0 modulo p, which would make the secret
    /// known to everybody.
    pub fn from_bytes(bytes: [u8; 8]) -> Option<Self> {
        let number = u64::from_le_bytes(bytes) % P;
        (number != 0).then_some(Self(number))
    }

    /// The key as it stands on the wire.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }
}

/// Where a handshake takes its keys from.
#[derive(Debug)]
pub enum KeyAgreement {
    /// A private key of this end's own.
    Private(PrivateKey),
    /// A public key whose agreement with the peer's is already known: a recorded session, or a key kept elsewhere.
    Known(PublicKey, SessionKey),
}

impl KeyAgreement {
    /// This end's public key.
    pub fn public(&self) -> PublicKey {
        match self {
            Self::Private(private) => private.public(),
            Self::Known(public, _) => *public,
        }
    }

    /// The secret shared with the owner of `peer`.
    pub fn agree(&self, peer: PublicKey) -> SessionKey {
        match self {
            Self::Private(private) => private.agree(peer),
            Self::Known(_, secret) => secret.clone(),
        }
    }
}

/// `base^exponent mod P`.
fn power(base: u64, exponent: u64) -> u64 {
    let multiply = |a: u64, b: u64| (u128::from(a) * u128::from(b) % u128::from(P)) as u64;
    let mut result = 1;
    let mut square = base % P;
    let mut rest = exponent;
    while rest > 0 {
        if rest & 1 == 1 {
            result = multiply(result, square);
        }
        square = multiply(square, square);
        rest >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_keys_are_reduced_and_zero_is_refused() {
        assert_eq!(PublicKey::from_bytes(0u64.to_le_bytes()), None);
        assert_eq!(PublicKey::from_bytes(P.to_le_bytes()), None);
        assert_eq!(
            PublicKey::from_bytes((P + 7).to_le_bytes()),
            PublicKey::from_bytes(7u64.to_le_bytes())
        );
        assert!(PrivateKey::new(0).is_none());
    }

    #[test]
    fn keys_stay_out_of_debug() {
        let private = PrivateKey::new(0x1234_5678).unwrap();
        assert_eq!(format!("{private:?}"), "PrivateKey(..)");
    }
}
