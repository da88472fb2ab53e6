//! AWS-LC's ciphers for snow: where a processor has wide vector instructions for AES they are half as fast again as ring's, and a
//! record is opened without being copied first.

use aws_lc_rs::aead::{
    AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use snow::{params::CipherChoice, types::Cipher};

use super::{Key, TAG_LEN};

/// The cipher of this choice.
pub(super) fn cipher(choice: &CipherChoice) -> Box<dyn Cipher> {
    Box::new(match choice {
        CipherChoice::AESGCM => AwsLc {
            name: "AESGCM",
            algorithm: &AES_256_GCM,
            nonce: u64::to_be_bytes,
            key: None,
        },
        CipherChoice::ChaChaPoly => AwsLc {
            name: "ChaChaPoly",
            algorithm: &CHACHA20_POLY1305,
            nonce: u64::to_le_bytes,
            key: None,
        },
    })
}

struct AwsLc {
    name: &'static str,
    algorithm: &'static Algorithm,
    /// How a record's number stands in its nonce (the Noise specification, section 12).
    nonce: fn(u64) -> [u8; 8],
    key: Option<LessSafeKey>,
}

impl AwsLc {
    fn key(&self) -> &LessSafeKey {
        self.key
            .as_ref()
            .expect("snow sets a key before it uses it")
    }

    /// That of record `number`, which snow uses once under each key.
    fn nonce(&self, number: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&(self.nonce)(number));
        Nonce::assume_unique_for_key(nonce)
    }
}

impl Cipher for AwsLc {
    fn name(&self) -> &'static str {
        self.name
    }

    fn set(&mut self, key: &Key) {
        let key = UnboundKey::new(self.algorithm, key).expect("both ciphers have keys of 32 bytes");
        self.key = Some(LessSafeKey::new(key));
    }

    fn encrypt(&self, number: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let (sealed, rest) = out.split_at_mut(plaintext.len());
        sealed.copy_from_slice(plaintext);
        let tag = self
            .key()
            .seal_in_place_separate_tag(self.nonce(number), Aad::from(authtext), sealed)
            .expect("no message is as long as a cipher's limit");
        rest[..TAG_LEN].copy_from_slice(tag.as_ref());
        plaintext.len() + TAG_LEN
    }

    fn decrypt(
        &self,
        number: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, snow::Error> {
        let len = ciphertext.len().checked_sub(TAG_LEN);
        let (sealed, tag) = len
            .and_then(|len| ciphertext.split_at_checked(len))
            .ok_or(snow::Error::Decrypt)?;
        let opened = out.get_mut(..sealed.len()).ok_or(snow::Error::Decrypt)?;
        self.key()
            .open_separate_gather(self.nonce(number), Aad::from(authtext), sealed, tag, opened)
            .map_err(|_| snow::Error::Decrypt)?;
        Ok(sealed.len())
    }
}
