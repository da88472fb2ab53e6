//! The keys of the ends: what they are, how they are written down, and where they are kept.

mod error;
mod file;
mod text;

use std::{fmt, path::Path, str::FromStr, sync::Arc};

use zeroize::Zeroizing;

use crate::{
    error::Error,
    protocol::noise::{self, KEY_LEN, Key},
};

pub use error::{KeyError, KeyKind};

/// A key that may be shown to everybody: it says who somebody is.
///
/// Its text is `unbroken-public-` and 43 characters; [`FromStr`] takes white space around it. [`Debug`](fmt::Debug) prints the text.
///
/// ```
/// use unbroken::{KeyPair, PublicKey};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = KeyPair::generate()?.public();
/// // To be given to clients.
/// let text = server.to_string();
/// let known: PublicKey = text.parse()?;
/// assert_eq!(known, server);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(Key);

impl PublicKey {
    /// The key of these bytes, a point of Curve25519.
    ///
    /// # Errors
    ///
    /// [`KeyError::LowOrder`] if nobody can have the private key to it.
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Result<Self, KeyError> {
        if noise::is_low_order(&bytes) {
            return Err(KeyError::LowOrder);
        }
        Ok(Self(bytes))
    }

    /// A key that a handshake has shown, of any order.
    pub(crate) fn shown(bytes: Key) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&text::write(KeyKind::Public, &self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(*text::read(KeyKind::Public, text.as_bytes())?)
    }
}

/// A private key and the public key that belongs to it.
///
/// Clones share the one copy of the private key, which is wiped when the last of them is dropped. [`Debug`](fmt::Debug) prints the
/// public key; the private one is printed by [`to_text`](Self::to_text) alone.
///
/// ```
/// use unbroken::KeyPair;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("server.key");
/// // Once, when the server is set up. Clients need what is printed.
/// let keys = KeyPair::generate()?;
/// keys.save(&path)?;
/// println!("{}", keys.public());
///
/// // Whenever it starts.
/// let keys = KeyPair::load(&path)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct KeyPair {
    private: Secret,
    public: PublicKey,
}

impl KeyPair {
    /// A new one, from the system's random generator.
    ///
    /// # Errors
    ///
    /// [`Error::Random`] if that fails.
    pub fn generate() -> Result<Self, Error> {
        Ok(Self::new(&*random()?))
    }

    /// The one with this private key, which can be any 32 bytes that nobody can guess. The copy taken is wiped; the caller's is the
    /// caller's to wipe.
    pub fn from_private_bytes(private: [u8; KEY_LEN]) -> Self {
        Self::new(&Zeroizing::new(private))
    }

    fn new(private: &Key) -> Self {
        Self {
            private: Secret::new(private),
            public: PublicKey(noise::public_key(private)),
        }
    }

    /// The public key.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    pub(crate) fn private(&self) -> &Key {
        self.private.bytes()
    }

    /// The private key's text: `unbroken-private-` and 43 characters. Whoever reads it can pass for its owner. It is wiped when
    /// dropped, and [`FromStr`] makes the pair of it again.
    pub fn to_text(&self) -> Zeroizing<String> {
        text::write(KeyKind::Private, self.private.bytes())
    }

    /// Writes the private key's text to a new file, which on Unix its owner alone can read.
    ///
    /// It blocks while the disk does.
    ///
    /// # Errors
    ///
    /// [`KeyError::File`] if the file is there already, which is left as it is, or cannot be written, in which case none is left.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), KeyError> {
        file::save(path.as_ref(), &self.to_text())
    }

    /// Reads what [`save`](Self::save) has written, through symbolic links if need be.
    ///
    /// It blocks while the disk does.
    ///
    /// # Errors
    ///
    /// [`KeyError::Permissions`] if on Unix others than the file's owner have any access to it. [`KeyError::NotRegular`] if it is no
    /// regular file, [`KeyError::File`] if it cannot be read, [`KeyError::TooLong`] or [`KeyError::Content`] if it holds anything but a
    /// private key.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        Ok(Self::new(&*file::load(path.as_ref(), KeyKind::Private)?))
    }
}

/// Without the private key.
impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

impl FromStr for KeyPair {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Ok(Self::new(&*text::read(KeyKind::Private, text.as_bytes())?))
    }
}

/// A key that both ends hold and nobody else.
///
/// It has to be random: a password is not, and who has overheard one handshake could try them all. Clones share the one copy, which
/// is wiped when the last of them is dropped. [`Debug`](fmt::Debug) does not print it; [`to_text`](Self::to_text) does.
///
/// ```
/// use unbroken::PresharedKey;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("both.key");
/// PresharedKey::generate()?.save(&path)?;
/// let key = PresharedKey::load(&path)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PresharedKey(Secret);

impl PresharedKey {
    /// A new one, from the system's random generator.
    ///
    /// # Errors
    ///
    /// [`Error::Random`] if that fails.
    pub fn generate() -> Result<Self, Error> {
        Ok(Self(Secret::new(&*random()?)))
    }

    pub(crate) fn bytes(&self) -> &Key {
        self.0.bytes()
    }

    /// Its text: `unbroken-psk-` and 43 characters. Whoever reads it can pass for either end. It is wiped when dropped, and
    /// [`FromStr`] makes the key of it again.
    pub fn to_text(&self) -> Zeroizing<String> {
        text::write(KeyKind::Preshared, self.0.bytes())
    }

    /// Writes its text to a new file, which on Unix its owner alone can read.
    ///
    /// It blocks while the disk does.
    ///
    /// # Errors
    ///
    /// As those of [`KeyPair::save`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), KeyError> {
        file::save(path.as_ref(), &self.to_text())
    }

    /// Reads what [`save`](Self::save) has written, through symbolic links if need be.
    ///
    /// It blocks while the disk does.
    ///
    /// # Errors
    ///
    /// As those of [`KeyPair::load`], with a preshared key in place of a private one.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        Ok(Self(Secret::new(&*file::load(
            path.as_ref(),
            KeyKind::Preshared,
        )?)))
    }
}

/// The copy taken is wiped; the caller's is the caller's to wipe.
impl From<[u8; KEY_LEN]> for PresharedKey {
    fn from(bytes: [u8; KEY_LEN]) -> Self {
        Self(Secret::new(&Zeroizing::new(bytes)))
    }
}

/// Without the key.
impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(..)")
    }
}

impl FromStr for PresharedKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Ok(Self(Secret::new(&*text::read(
            KeyKind::Preshared,
            text.as_bytes(),
        )?)))
    }
}

/// 32 bytes that stay where they are until they are wiped.
#[derive(Clone)]
struct Secret(Arc<Zeroizing<Key>>);

impl Secret {
    fn new(bytes: &Key) -> Self {
        // Filled in place: a value that is moved into the Arc leaves a copy behind.
        let mut shared = Arc::new(Zeroizing::new([0; KEY_LEN]));
        Arc::get_mut(&mut shared)
            .expect("nobody shares it yet")
            .copy_from_slice(bytes);
        Self(shared)
    }

    fn bytes(&self) -> &Key {
        &self.0
    }
}

fn random() -> Result<Zeroizing<Key>, Error> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    getrandom::fill(&mut *key).map_err(|error| Error::Random(error.into()))?;
    Ok(key)
}

#[cfg(test)]
mod tests;
