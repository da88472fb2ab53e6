//! What can be wrong with a key, or with the file that it is kept in.

use std::{fmt, io, path::PathBuf};

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyKind {
    /// A [`PublicKey`](crate::PublicKey).
    Public,
    /// The private key of a [`KeyPair`](crate::KeyPair).
    Private,
    /// A [`PresharedKey`](crate::PresharedKey).
    Preshared,
}

impl KeyKind {
    pub(super) const ALL: [Self; 3] = [Self::Public, Self::Private, Self::Preshared];

    /// What the text of such a key begins with.
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Public => "unbroken-public-",
            Self::Private => "unbroken-private-",
            Self::Preshared => "unbroken-psk-",
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "a public key",
            Self::Private => "a private key",
            Self::Preshared => "a preshared key",
        })
    }
}

/// A key that cannot be used, or not be kept or found in a file. No part of it is in the error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It is the text of a key of another kind.
    #[error("this is {found}, where {needed} is needed (`{prefix}…`)", prefix = .needed.prefix())]
    WrongKind {
        /// What it is.
        found: KeyKind,
        /// What is needed.
        needed: KeyKind,
    },
    /// It is the text of no key.
    #[error("this is no key: the text of {needed} begins with `{prefix}`", prefix = .needed.prefix())]
    NotAKey {
        /// What is needed.
        needed: KeyKind,
    },
    /// Its text is too long or too short.
    #[error("a key's text has 43 characters behind its prefix, not {found}")]
    Length {
        /// How many it has, in bytes.
        found: usize,
    },
    /// Its text has characters in it that no key has, or an end that none has.
    #[error("a key's text is base64url behind its prefix, and this is not")]
    Encoding,
    /// The public key is a point of low order: whoever uses it agrees on the same secret with everybody.
    #[error("nobody can have the private key to this public key")]
    LowOrder,
    /// The file cannot be created, written, opened or read.
    #[error("the key file {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner can read or change the file.
    #[error(
        "the key file {} is open to others than its owner (mode {mode:04o}): `chmod 600` it, \
        and make a new key if anybody may have read this one",
        .path.display()
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its mode, of Unix.
        mode: u32,
    },
    /// A directory, a pipe, a device or the like in place of the file.
    #[error("the key file {} is no regular file", .path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// More in the file than a key's text.
    #[error("the key file {} holds more than one key's text", .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// What the file holds is not the key that is needed.
    #[error("the key file {}: {source}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KeyError>,
    },
}

impl From<KeyError> for io::Error {
    fn from(error: KeyError) -> Self {
        let kind = match &error {
            KeyError::File { source, .. } => source.kind(),
            KeyError::Permissions { .. } => io::ErrorKind::PermissionDenied,
            KeyError::WrongKind { .. }
            | KeyError::NotAKey { .. }
            | KeyError::Length { .. }
            | KeyError::Encoding
            | KeyError::LowOrder
            | KeyError::NotRegular { .. }
            | KeyError::TooLong { .. }
            | KeyError::Content { .. } => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}
