//! The keys of these tests, and what is made of them.

use unbroken::{Config, KeyPair, PublicKey, Security};

/// A server's, a client's that is let in, and a client's that is not.
pub(super) const SERVER: u8 = 1;
pub(super) const MEMBER: u8 = 2;
pub(super) const STRANGER: u8 = 3;
/// Another client's that is let in.
pub(super) const OTHER_MEMBER: u8 = 4;

pub(super) fn keys(of: u8) -> KeyPair {
    KeyPair::from_private_bytes([of; 32])
}

pub(super) fn public(of: u8) -> PublicKey {
    keys(of).public()
}

pub(super) fn psk() -> Security {
    Security::psk([9; 32])
}

/// A server that knows its members.
pub(super) fn for_members() -> Security {
    let members = [MEMBER, OTHER_MEMBER].map(public);
    Security::key_pair(keys(SERVER)).authorize(move |key| members.contains(key))
}

/// A client's and a server's part in one security.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fitting {
    Anonymous,
    Psk,
    ServerKey,
    Mutual,
}

impl Fitting {
    pub(super) const ALL: [Self; 4] = [Self::Anonymous, Self::Psk, Self::ServerKey, Self::Mutual];

    pub(super) fn client(self) -> Config {
        Config::new().security(match self {
            Self::Anonymous => Security::anonymous(),
            Self::Psk => psk(),
            Self::ServerKey => Security::server_key(public(SERVER)),
            Self::Mutual => Security::mutual(keys(MEMBER), public(SERVER)),
        })
    }

    pub(super) fn server(self) -> Config {
        Config::new().security(match self {
            Self::Anonymous => Security::anonymous(),
            Self::Psk => psk(),
            Self::ServerKey => Security::key_pair(keys(SERVER)),
            Self::Mutual => for_members(),
        })
    }
}
