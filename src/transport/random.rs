//! Numbers from the system's random generator.

use crate::{
    error::Error,
    protocol::snet::{Challenge, KeyAgreement, PrivateKey},
};

/// A random number.
pub(crate) fn number() -> Result<u64, Error> {
    getrandom::u64().map_err(|error| Error::Random(error.into()))
}

/// Random bytes.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Error::Random(error.into()))?;
    Ok(bytes)
}

/// A random number other than 0.
pub(crate) fn challenge() -> Result<Challenge, Error> {
    loop {
        if let Some(challenge) = Challenge::new(number()?) {
            return Ok(challenge);
        }
    }
}

/// A fresh private key.
pub(crate) fn key_agreement() -> Result<KeyAgreement, Error> {
    loop {
        if let Some(private) = PrivateKey::new(number()?) {
            return Ok(KeyAgreement::Private(private));
        }
    }
}
