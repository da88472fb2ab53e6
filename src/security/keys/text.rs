//! Keys as text: a prefix that says the kind, and then the bytes in base64url without padding.

use base64ct::{Base64UrlUnpadded, Encoding};
use zeroize::Zeroizing;

use super::{KeyError, KeyKind};
use crate::protocol::noise::{KEY_LEN, Key};

/// How long a key is in base64url without padding.
const ENCODED_LEN: usize = (KEY_LEN * 8).div_ceil(6);

/// The text of `key`.
pub(super) fn write(kind: KeyKind, key: &Key) -> Zeroizing<String> {
    let mut encoded = Zeroizing::new([0; ENCODED_LEN]);
    let encoded = Base64UrlUnpadded::encode(key, &mut *encoded).expect("that is its length");
    // As long as it will be: a string that grows leaves a copy behind.
    let capacity = kind.prefix().len() + ENCODED_LEN;
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    text.push_str(kind.prefix());
    text.push_str(encoded);
    text
}

/// The key that `text` is of, which has to be of this kind.
pub(super) fn read(kind: KeyKind, text: &[u8]) -> Result<Zeroizing<Key>, KeyError> {
    let text = text.trim_ascii();
    let Some(encoded) = text.strip_prefix(kind.prefix().as_bytes()) else {
        let is_of = |other: &KeyKind| text.starts_with(other.prefix().as_bytes());
        return Err(match KeyKind::ALL.into_iter().find(is_of) {
            Some(found) => KeyError::WrongKind {
                found,
                needed: kind,
            },
            None => KeyError::NotAKey { needed: kind },
        });
    };
    if encoded.len() != ENCODED_LEN {
        return Err(KeyError::Length {
            found: encoded.len(),
        });
    }
    let mut key = Zeroizing::new([0; KEY_LEN]);
    Base64UrlUnpadded::decode(encoded, &mut *key).map_err(|_| KeyError::Encoding)?;
    Ok(key)
}
