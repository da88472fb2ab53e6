//! What is laid over the bytes of an snet stream.

use std::{fmt, sync::Arc};

use rc4::{KeyInit, Rc4};

use super::SessionKey;

/// One direction of a session, for a cipher that tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// What the client sends.
    ClientToServer,
    /// What the server sends.
    ServerToClient,
}

/// A keystream, laid over one direction's bytes in the order of the stream, each byte once.
///
/// A replay sends the bytes as they first went out: the keystream does not run again.
pub trait StreamCipher: Send {
    /// Encrypts or decrypts the next `bytes` of the stream in place.
    fn apply(&mut self, bytes: &mut [u8]);
}

impl<C: StreamCipher + ?Sized> StreamCipher for Box<C> {
    fn apply(&mut self, bytes: &mut [u8]) {
        (**self).apply(bytes);
    }
}

type Factory = dyn Fn(&[u8; 8], Direction) -> Box<dyn StreamCipher> + Send + Sync;

/// The choice of cipher, which both ends make alike: nothing on the wire tells.
#[derive(Clone, Default)]
pub enum CipherChoice {
    /// The bytes as they are.
    #[default]
    Plain,
    /// RC4 keyed with the session's key.
    Rc4,
    /// A cipher of the user's own, made from the session's key for each direction.
    Custom(Arc<Factory>),
}

impl CipherChoice {
    /// The choice of a cipher of the user's own.
    pub fn custom<F, C>(factory: F) -> Self
    where
        F: Fn(&[u8; 8], Direction) -> C + Send + Sync + 'static,
        C: StreamCipher + 'static,
    {
        Self::Custom(Arc::new(move |key, direction| {
            Box::new(factory(key, direction))
        }))
    }

    /// The cipher of one direction at the start of its stream.
    pub(crate) fn start(
        &self,
        key: &SessionKey,
        direction: Direction,
    ) -> Option<Box<dyn StreamCipher>> {
        match self {
            Self::Plain => None,
            Self::Rc4 => {
                let mut rc4 = keystream(key);
                if direction == Direction::ServerToClient {
                    // The connection id has used the first 8 bytes, encrypted data or not.
                    rc4.apply(&mut [0; 8]);
                }
                Some(Box::new(rc4))
            }
            Self::Custom(factory) => Some(factory(key.as_bytes(), direction)),
        }
    }
}

impl fmt::Debug for CipherChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "Plain",
            Self::Rc4 => "Rc4",
            Self::Custom(_) => "Custom(..)",
        })
    }
}

/// The RC4 keystream of a session, at its start.
fn keystream(key: &SessionKey) -> Rc4Stream {
    // RC4 takes keys of 1 to 256 bytes; this one has 8.
    Rc4Stream(Rc4::new_from_slice(key.as_bytes()).expect("8 bytes are a valid RC4 key"))
}

/// Masks or unmasks a connection id, the first thing the server-to-client keystream is laid over.
pub(crate) fn mask_connection_id(key: &SessionKey, id: u64) -> u64 {
    let mut bytes = id.to_le_bytes();
    keystream(key).apply(&mut bytes);
    u64::from_le_bytes(bytes)
}

struct Rc4Stream(Rc4);

impl StreamCipher for Rc4Stream {
    fn apply(&mut self, bytes: &mut [u8]) {
        rc4::StreamCipher::apply_keystream(&mut self.0, bytes);
    }
}
