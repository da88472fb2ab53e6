//! Noise, as it protects native's links (`docs/PROTOCOL.md`, native: "Security"): its handshakes and its records.
//!
//! The handshakes are those of two messages, [`Pattern`] lists them: an [`Initiator`] sends the first, a [`Responder`] answers it, and
//! then both have [`Records`]. What goes before a message or a record on the wire, its length, is the caller's to write and to read.
//!
//! ```
//! use unbroken::protocol::noise::{ClientKeys, Initiator, Pattern, Responder, ServerKeys, Suite};
//!
//! # fn main() -> Result<(), unbroken::HandshakeError> {
//! // The ephemeral keys have to be random, and new for each handshake.
//! let mut client = Initiator::new(ClientKeys::Anonymous, Suite::fastest(), b"prologue", [1; 32].into());
//! let mut server =
//!     Responder::new(ServerKeys::Anonymous, Suite::fastest(), b"prologue", [2; 32].into());
//!
//! let first = client.first(b"may I?")?;
//! assert_eq!(server.first(&first)?, b"may I?");
//! let (second, mut records) = server.second(b"you may")?;
//! let (answer, mut client) = client.second(&second)?;
//! assert_eq!(answer, b"you may");
//!
//! let mut record = [0; 64];
//! let len = client.seal(b"hello", &mut record)?;
//! let mut plaintext = [0; 64];
//! let len = records.open(&record[..len], &mut plaintext)?;
//! assert_eq!(plaintext[..len], *b"hello");
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "aws-lc-rs")]
mod aws_lc;

use std::fmt;

use snow::{
    Builder, HandshakeState, TransportState,
    params::{CipherChoice, DHChoice, HashChoice, NoiseParams},
    resolvers::{CryptoResolver, DefaultResolver, RingResolver},
    types::{Cipher, Dh, Hash, Random},
};
use zeroize::Zeroizing;

use super::native::{security, suite};
use crate::error::HandshakeError;

/// Length of every key, in bytes.
pub const KEY_LEN: usize = 32;
/// Length of what a record or an encrypted payload is longer by than its plaintext, in bytes.
pub const TAG_LEN: usize = 16;
/// The most plaintext in one record, in bytes.
pub const MAX_PLAINTEXT: usize = 65_535 - TAG_LEN;
/// Either direction changes its key after this many records.
const REKEY_AFTER: u64 = 1 << 20;

/// A key, in bytes.
pub type Key = [u8; KEY_LEN];

/// A key that nobody else may know, in bytes. It is wiped when it is dropped.
pub type SecretKey = Zeroizing<Key>;

/// What a proof is bound to: the hash of all that a handshake has said so far.
pub type HandshakeHash = [u8; 32];

/// A handshake of two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// Nobody shows a key.
    Nn,
    /// Both hold the same key.
    NnPsk0,
    /// The server holds the private key to a public one that the client knows.
    Nk,
    /// As [`Nk`](Self::Nk), and so does the client: the server is shown its public key.
    Ik,
}

impl Pattern {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Nn, Self::NnPsk0, Self::Nk, Self::Ik];

    /// Its place in a prelude, one of native's [`security`].
    pub fn code(self) -> u8 {
        match self {
            Self::Nn => security::NN,
            Self::NnPsk0 => security::NN_PSK0,
            Self::Nk => security::NK,
            Self::Ik => security::IK,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Nn => "NN",
            Self::NnPsk0 => "NNpsk0",
            Self::Nk => "NK",
            Self::Ik => "IK",
        }
    }

    /// How long the first message is, with so many bytes of payload.
    pub fn first_len(self, payload: usize) -> usize {
        payload
            + match self {
                Self::Nn => KEY_LEN,
                Self::NnPsk0 | Self::Nk => KEY_LEN + TAG_LEN,
                Self::Ik => 2 * KEY_LEN + 2 * TAG_LEN,
            }
    }

    /// How long the second message is, with so many bytes of payload.
    pub fn second_len(self, payload: usize) -> usize {
        KEY_LEN + payload + TAG_LEN
    }
}

/// The ciphers and hashes of a handshake and its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// AES-256-GCM and SHA-256: the fastest where the processor has instructions for AES.
    AesGcm,
    /// ChaCha20-Poly1305 and BLAKE2s: fast everywhere.
    ChaChaPoly,
}

impl Suite {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::AesGcm, Self::ChaChaPoly];

    /// The one that this processor is fast at.
    pub fn fastest() -> Self {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        let has_aes = std::arch::is_x86_feature_detected!("aes")
            && std::arch::is_x86_feature_detected!("pclmulqdq");
        #[cfg(target_arch = "aarch64")]
        let has_aes = std::arch::is_aarch64_feature_detected!("aes")
            && std::arch::is_aarch64_feature_detected!("pmull");
        #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
        let has_aes = false;
        if has_aes {
            Self::AesGcm
        } else {
            Self::ChaChaPoly
        }
    }

    /// Its place in a prelude, one of native's [`suite`].
    pub fn code(self) -> u8 {
        match self {
            Self::AesGcm => suite::AES_GCM_SHA256,
            Self::ChaChaPoly => suite::CHACHA_POLY_BLAKE2S,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::AesGcm => "AESGCM_SHA256",
            Self::ChaChaPoly => "ChaChaPoly_BLAKE2s",
        }
    }
}

/// What a client runs its handshake with, and so which [`Pattern`].
#[derive(Clone)]
pub enum ClientKeys {
    /// No key.
    Anonymous,
    /// The key that the server holds too.
    Preshared(SecretKey),
    /// The server's public key.
    Server(Key),
    /// The server's public key and a private one of its own.
    Mutual {
        /// The client's.
        private: SecretKey,
        /// The server's.
        server: Key,
    },
}

impl ClientKeys {
    /// The handshake they are for.
    pub fn pattern(&self) -> Pattern {
        match self {
            Self::Anonymous => Pattern::Nn,
            Self::Preshared(_) => Pattern::NnPsk0,
            Self::Server(_) => Pattern::Nk,
            Self::Mutual { .. } => Pattern::Ik,
        }
    }
}

/// What a server answers a handshake with, and so of which [`Pattern`] alone.
#[derive(Clone)]
pub enum ServerKeys {
    /// No key.
    Anonymous,
    /// The key that the client holds too.
    Preshared(SecretKey),
    /// Its private key.
    Private(SecretKey),
    /// Its private key, for clients that show one of their own.
    Mutual(SecretKey),
}

impl ServerKeys {
    /// The handshake they are for.
    pub fn pattern(&self) -> Pattern {
        match self {
            Self::Anonymous => Pattern::Nn,
            Self::Preshared(_) => Pattern::NnPsk0,
            Self::Private(_) => Pattern::Nk,
            Self::Mutual(_) => Pattern::Ik,
        }
    }
}

/// Without the keys.
impl fmt::Debug for ClientKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientKeys({:?})", self.pattern())
    }
}

/// Without the keys.
impl fmt::Debug for ServerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerKeys({:?})", self.pattern())
    }
}

/// The public key that belongs to a private one.
pub fn public_key(private: &Key) -> Key {
    let mut dh = curve25519();
    dh.set(private);
    let mut public = [0; KEY_LEN];
    public.copy_from_slice(dh.pubkey());
    public
}

/// Whether whoever uses this public key would agree on the same secret with everybody.
pub fn is_low_order(public: &Key) -> bool {
    let mut dh = curve25519();
    // Any private key will do: all of them are multiples of the cofactor.
    dh.set(&[1; KEY_LEN]);
    let mut secret = Zeroizing::new([0; KEY_LEN]);
    dh.dh(public, &mut secret[..]).is_err() || *secret == [0; KEY_LEN]
}

fn curve25519() -> Box<dyn Dh> {
    DefaultResolver
        .resolve_dh(&DHChoice::Curve25519)
        .expect("snow is built with Curve25519")
}

/// The end that sends the first message: a link's client.
pub struct Initiator(Box<HandshakeState>);

impl Initiator {
    /// Starts a handshake. `ephemeral` has to be random, and new for each.
    pub fn new(keys: ClientKeys, suite: Suite, prologue: &[u8], ephemeral: SecretKey) -> Self {
        let builder = builder(keys.pattern(), suite, ephemeral);
        let builder = builder.prologue(prologue);
        let builder = match &keys {
            ClientKeys::Anonymous => builder,
            ClientKeys::Preshared(key) => builder.and_then(|builder| builder.psk(0, key)),
            ClientKeys::Server(key) => {
                builder.and_then(|builder| builder.remote_public_key(&key[..]))
            }
            ClientKeys::Mutual { private, server } => builder.and_then(|builder| {
                builder
                    .remote_public_key(&server[..])?
                    .local_private_key(&private[..])
            }),
        };
        let state = builder.and_then(Builder::build_initiator);
        Self(Box::new(state.expect("every pattern has its keys")))
    }

    /// The first message, which carries `payload`. It is in the clear with [`Pattern::Nn`].
    ///
    /// # Errors
    ///
    /// [`HandshakeError::OutOfPlace`] if it was asked for before.
    pub fn first(&mut self, payload: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        write(&mut self.0, payload)
    }

    /// The hash of what was said so far, or of the whole once the handshake is over.
    pub fn hash(&self) -> HandshakeHash {
        hash(&self.0)
    }

    /// Takes the second message in: gives its payload, and what the records are sealed and opened with.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Decrypt`] if the server has other keys, or the messages were changed on their way.
    pub fn second(mut self, message: &[u8]) -> Result<(Vec<u8>, Records), HandshakeError> {
        let payload = read(&mut self.0, message)?;
        Ok((payload, Records::new(*self.0)?))
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Initiator(..)")
    }
}

/// The end that waits for the first message: a link's server.
pub struct Responder(Box<HandshakeState>);

impl Responder {
    /// Waits for a handshake. `ephemeral` has to be random, and new for each.
    pub fn new(keys: ServerKeys, suite: Suite, prologue: &[u8], ephemeral: SecretKey) -> Self {
        let builder = builder(keys.pattern(), suite, ephemeral);
        let builder = builder.prologue(prologue);
        let builder = match &keys {
            ServerKeys::Anonymous => builder,
            ServerKeys::Preshared(key) => builder.and_then(|builder| builder.psk(0, key)),
            ServerKeys::Private(key) | ServerKeys::Mutual(key) => {
                builder.and_then(|builder| builder.local_private_key(&key[..]))
            }
        };
        let state = builder.and_then(Builder::build_responder);
        Self(Box::new(state.expect("every pattern has its keys")))
    }

    /// Takes the first message in, and gives its payload.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Decrypt`] if the client has other keys, or the message was changed on its way.
    pub fn first(&mut self, message: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        read(&mut self.0, message)
    }

    /// The client's public key with [`Pattern::Ik`], once the first message is in. The client has proved to hold the private one when
    /// its first record opens, and not before: the first message can be a copy.
    pub fn client_key(&self) -> Option<Key> {
        self.0.get_remote_static()?.try_into().ok()
    }

    /// The hash of what was said so far.
    pub fn hash(&self) -> HandshakeHash {
        hash(&self.0)
    }

    /// The second message, which carries `payload`, encrypted; and what the records are sealed and opened with.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::OutOfPlace`] if the first is not in.
    pub fn second(mut self, payload: &[u8]) -> Result<(Vec<u8>, Records), HandshakeError> {
        let message = write(&mut self.0, payload)?;
        Ok((message, Records::new(*self.0)?))
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Responder(..)")
    }
}

/// Seals what is sent and opens what is received, record by record, once the handshake is over.
pub struct Records {
    state: TransportState,
    hash: HandshakeHash,
    /// A record did not open, so none behind it is the next one.
    broken: bool,
}

impl Records {
    fn new(state: HandshakeState) -> Result<Self, HandshakeError> {
        let hash = hash(&state);
        let state = state
            .into_transport_mode()
            .map_err(|_| HandshakeError::OutOfPlace)?;
        Ok(Self {
            state,
            hash,
            broken: false,
        })
    }

    /// The hash of the whole handshake.
    pub fn hash(&self) -> &HandshakeHash {
        &self.hash
    }

    /// Seals `plaintext`, of [`MAX_PLAINTEXT`] bytes at most, into the first bytes of `record`, and returns how many: the plaintext's
    /// and [`TAG_LEN`].
    ///
    /// # Errors
    ///
    /// [`HandshakeError::OutOfPlace`] if the plaintext is too long or `record` too short, or no number is left for a record.
    pub fn seal(&mut self, plaintext: &[u8], record: &mut [u8]) -> Result<usize, HandshakeError> {
        let len = self
            .state
            .write_message(plaintext, record)
            .map_err(|_| HandshakeError::OutOfPlace)?;
        if self.state.sending_nonce().is_multiple_of(REKEY_AFTER) {
            self.state.rekey_outgoing();
        }
        Ok(len)
    }

    /// Opens `record` into the first bytes of `plaintext`, and returns how many. `plaintext` may be [`TAG_LEN`] bytes shorter than the
    /// record; if it is as long, nothing is allocated. After an error it holds nothing of use.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Decrypt`] if it is not the peer's next record, unchanged. Nothing can be opened after that.
    pub fn open(&mut self, record: &[u8], plaintext: &mut [u8]) -> Result<usize, HandshakeError> {
        // Cleared only by a record that opens.
        if std::mem::replace(&mut self.broken, true) {
            return Err(HandshakeError::Decrypt);
        }
        let len = self
            .state
            .read_message(record, plaintext)
            .map_err(|_| HandshakeError::Decrypt)?;
        self.broken = false;
        if self.state.receiving_nonce().is_multiple_of(REKEY_AFTER) {
            self.state.rekey_incoming();
        }
        Ok(len)
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("sealed", &self.state.sending_nonce())
            .field("opened", &self.state.receiving_nonce())
            .finish_non_exhaustive()
    }
}

fn builder<'a>(pattern: Pattern, suite: Suite, ephemeral: SecretKey) -> Builder<'a> {
    let name = format!("Noise_{}_25519_{}", pattern.name(), suite.name());
    let params: NoiseParams = name
        .parse()
        .expect("snow is built with every pattern and suite");
    Builder::with_resolver(params, Box::new(Provider { ephemeral }))
}

fn write(state: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let mut message = vec![0; Pattern::Ik.first_len(payload.len())];
    let len = state
        .write_message(payload, &mut message)
        .map_err(|_| HandshakeError::OutOfPlace)?;
    message.truncate(len);
    Ok(message)
}

fn read(state: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let mut payload = vec![0; message.len()];
    let len = state
        .read_message(message, &mut payload)
        .map_err(|_| HandshakeError::Decrypt)?;
    payload.truncate(len);
    Ok(payload)
}

fn hash(state: &HandshakeState) -> HandshakeHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(state.get_handshake_hash());
    hash
}

/// ring's primitives, or AWS-LC's, the others where they have none; and random bytes that were drawn elsewhere.
struct Provider {
    ephemeral: SecretKey,
}

impl CryptoResolver for Provider {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Drawn(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        RingResolver
            .resolve_hash(choice)
            .or_else(|| DefaultResolver.resolve_hash(choice))
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        #[cfg(feature = "aws-lc-rs")]
        return Some(aws_lc::cipher(choice));
        #[cfg(not(feature = "aws-lc-rs"))]
        RingResolver.resolve_cipher(choice)
    }
}

/// The one key that a handshake draws.
struct Drawn(Option<SecretKey>);

impl Random for Drawn {
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), snow::Error> {
        let key = self.0.take().filter(|key| key.len() == bytes.len());
        bytes.copy_from_slice(&key.ok_or(snow::Error::Rng)?[..]);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
