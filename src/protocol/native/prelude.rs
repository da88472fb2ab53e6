//! The first 16 bytes of a link, in the clear (`docs/PROTOCOL.md`, native: "Prelude").

use crate::error::HandshakeError;

/// Length of a prelude.
pub const PRELUDE_LEN: usize = 16;
/// How every prelude starts.
pub(super) const MAGIC: [u8; 4] = *b"UNBR";
/// What tells it from the first byte of another protocol.
pub(in crate::protocol) const FIRST_BYTE: u8 = MAGIC[0];
/// The version spoken here.
pub(super) const VERSION: u8 = 1;
/// Where a prelude of any version says which security it asks for.
const SECURITY_AT: usize = 6;

/// The kinds of [`Prelude::security`].
pub mod security {
    /// None: the frames follow the prelude in the clear.
    pub const NONE: u8 = 0;
    /// Noise NN: encrypted, and nobody authenticated.
    pub const NN: u8 = 1;
    /// Noise NNpsk0: both ends hold a key.
    pub const NN_PSK0: u8 = 2;
    /// Noise NK: the client knows the server's public key.
    pub const NK: u8 = 3;
    /// Noise IK: as NK, and the client shows a key of its own.
    pub const IK: u8 = 4;
}

/// The values of [`Prelude::suite`].
pub mod suite {
    /// None, with security none.
    pub const NONE: u8 = 0;
    /// `25519_AESGCM_SHA256`.
    pub const AES_GCM_SHA256: u8 = 1;
    /// `25519_ChaChaPoly_BLAKE2s`.
    pub const CHACHA_POLY_BLAKE2S: u8 = 2;
}

/// What a client says of a link before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prelude {
    /// What the link is for.
    pub kind: Kind,
    /// What is to protect the link, one of [`security`].
    pub security: u8,
    /// The primitives it does so with, one of [`suite`].
    pub suite: u8,
    /// Which server holds the session, as it said in OPENED; 0 on open.
    pub route: u32,
}

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A new session.
    Open,
    /// A session there was before.
    Resume,
}

impl Prelude {
    /// The prelude as it stands on the wire.
    pub fn encode(&self) -> [u8; PRELUDE_LEN] {
        let mut bytes = [0; PRELUDE_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = match self.kind {
            Kind::Open => 0,
            Kind::Resume => 1,
        };
        bytes[SECURITY_AT] = self.security;
        bytes[7] = self.suite;
        bytes[8..12].copy_from_slice(&self.route.to_be_bytes());
        bytes
    }

    /// Reads a prelude. Any security, suite and route will do.
    ///
    /// # Errors
    ///
    /// - [`HandshakeError::Magic`] if it is none;
    /// - [`HandshakeError::Version`] if it is of another version, which a kind that is not known, and reserved bytes that are not 0,
    ///   count as.
    pub fn decode(bytes: &[u8; PRELUDE_LEN]) -> Result<Self, HandshakeError> {
        let [m0, m1, m2, m3, version, kind, security, suite, route @ ..] = *bytes;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(HandshakeError::Magic);
        }
        let [r0, r1, r2, r3, 0, 0, 0, 0] = route else {
            return Err(HandshakeError::Version);
        };
        let kind = match (version, kind) {
            (VERSION, 0) => Kind::Open,
            (VERSION, 1) => Kind::Resume,
            _ => return Err(HandshakeError::Version),
        };
        Ok(Self {
            kind,
            security,
            suite,
            route: u32::from_be_bytes([r0, r1, r2, r3]),
        })
    }
}

/// Whether the peer expects frames right behind its prelude, rather than messages of a security. It can be told of every version.
pub(super) fn is_clear(prelude: &[u8; PRELUDE_LEN]) -> bool {
    prelude[SECURITY_AT] == security::NONE
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESUME: Prelude = Prelude {
        kind: Kind::Resume,
        security: security::NK,
        suite: suite::AES_GCM_SHA256,
        route: 0x0102_0304,
    };

    #[test]
    fn a_prelude_is_these_bytes() {
        assert_eq!(
            RESUME.encode(),
            *b"UNBR\x01\x01\x03\x01\x01\x02\x03\x04\0\0\0\0"
        );
    }

    #[test]
    fn every_prelude_reads_as_it_was_written() {
        for kind in [Kind::Open, Kind::Resume] {
            for security in 0..=u8::MAX {
                for suite in [0, 1, 2, u8::MAX] {
                    for route in [0, 1, u32::MAX] {
                        let prelude = Prelude {
                            kind,
                            security,
                            suite,
                            route,
                        };
                        assert_eq!(Prelude::decode(&prelude.encode()), Ok(prelude));
                        assert_eq!(is_clear(&prelude.encode()), security == 0);
                    }
                }
            }
        }
    }

    #[test]
    fn a_changed_byte_is_another_magic_another_version_or_another_wish() {
        for at in 0..PRELUDE_LEN {
            for change in 1..=u8::MAX {
                let mut bytes = RESUME.encode();
                bytes[at] ^= change;
                let expected = match at {
                    0..4 => Err(HandshakeError::Magic),
                    4 | 12.. => Err(HandshakeError::Version),
                    5 if bytes[at] == 0 => Ok(Prelude {
                        kind: Kind::Open,
                        ..RESUME
                    }),
                    5 => Err(HandshakeError::Version),
                    6 => Ok(Prelude {
                        security: bytes[at],
                        ..RESUME
                    }),
                    7 => Ok(Prelude {
                        suite: bytes[at],
                        ..RESUME
                    }),
                    _ => Ok(Prelude {
                        route: u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]),
                        ..RESUME
                    }),
                };
                assert_eq!(Prelude::decode(&bytes), expected, "byte {at}");
            }
        }
    }
}
