//! What protects a link, as its handshake sees it: how the messages are covered, and what ties proofs to them (`docs/PROTOCOL.md`, native:
//! "Security").

use std::fmt;

use super::{
    Binding,
    prelude::{Prelude, security, suite},
    proof::{HandshakeHash, NO_HANDSHAKE_HASH},
};
use crate::error::HandshakeError;
#[cfg(feature = "noise")]
use crate::protocol::noise::{
    ClientKeys, Initiator, Pattern, Records, Responder, SecretKey, ServerKeys, Suite,
};

/// Length of what stands in front of a message: its own.
#[cfg(feature = "noise")]
pub(super) const LENGTH_LEN: usize = 2;

/// What protects a client's link.
#[non_exhaustive]
pub enum ClientProtection {
    /// Nothing: something below does, or nothing needs to.
    None,
    /// Noise.
    #[cfg(feature = "noise")]
    #[cfg_attr(docsrs, doc(cfg(feature = "noise")))]
    Noise {
        /// What the client holds.
        keys: ClientKeys,
        /// The primitives, which are the client's choice.
        suite: Suite,
        /// Random bytes, new for each link.
        ephemeral: SecretKey,
    },
}

/// What protects a server's link.
#[non_exhaustive]
pub enum ServerProtection {
    /// Nothing: something below does, or nothing needs to.
    None,
    /// Noise.
    #[cfg(feature = "noise")]
    #[cfg_attr(docsrs, doc(cfg(feature = "noise")))]
    Noise {
        /// What the server holds.
        keys: ServerKeys,
        /// Random bytes, new for each link.
        ephemeral: SecretKey,
    },
}

impl ClientProtection {
    /// What a session is bound to that is opened under it, as far as a client keeps account of that.
    pub fn binding(&self) -> Binding {
        let (security, _) = self.codes();
        Binding {
            security,
            client_key: None,
        }
    }

    /// How the prelude says it: the security and the suite.
    pub(super) fn codes(&self) -> (u8, u8) {
        match self {
            Self::None => (security::NONE, suite::NONE),
            #[cfg(feature = "noise")]
            Self::Noise { keys, suite, .. } => (keys.pattern().code(), suite.code()),
        }
    }
}

/// Without the keys.
impl fmt::Debug for ClientProtection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            #[cfg(feature = "noise")]
            Self::Noise { keys, suite, .. } => f
                .debug_struct("Noise")
                .field("keys", keys)
                .field("suite", suite)
                .finish_non_exhaustive(),
        }
    }
}

/// Without the keys.
impl fmt::Debug for ServerProtection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            #[cfg(feature = "noise")]
            Self::Noise { keys, .. } => f
                .debug_struct("Noise")
                .field("keys", keys)
                .finish_non_exhaustive(),
        }
    }
}

/// A client's messages under its protection.
#[derive(Debug)]
pub(super) enum ClientCover {
    Clear,
    #[cfg(feature = "noise")]
    Noise {
        pattern: Pattern,
        /// Until the second message is in.
        initiator: Option<Initiator>,
        /// After the first message, then after the second.
        hashes: [HandshakeHash; 2],
        records: Option<Box<Records>>,
    },
}

impl ClientCover {
    /// The protection of a link that starts with this prelude, and the message that carries `frame`, as it goes on the wire.
    pub(super) fn first(
        protection: ClientProtection,
        prelude: &Prelude,
        frame: &[u8],
    ) -> (Self, Vec<u8>) {
        match protection {
            ClientProtection::None => {
                let _ = prelude;
                (Self::Clear, frame.to_vec())
            }
            #[cfg(feature = "noise")]
            ClientProtection::Noise {
                keys,
                suite,
                ephemeral,
            } => {
                let pattern = keys.pattern();
                let mut initiator = Initiator::new(keys, suite, &prelude.encode(), ephemeral);
                let message = initiator.first(frame).expect("it is the first to speak");
                let hash = initiator.hash();
                let cover = Self::Noise {
                    pattern,
                    initiator: Some(initiator),
                    hashes: [hash, NO_HANDSHAKE_HASH],
                    records: None,
                };
                (cover, with_length(&message))
            }
        }
    }

    /// What a RESUMED is tied to.
    pub(super) fn hash_after_first(&self) -> &HandshakeHash {
        match self {
            Self::Clear => &NO_HANDSHAKE_HASH,
            #[cfg(feature = "noise")]
            Self::Noise { hashes, .. } => &hashes[0],
        }
    }

    /// What a CONFIRM is tied to, once the second message is in.
    pub(super) fn final_hash(&self) -> &HandshakeHash {
        match self {
            Self::Clear => &NO_HANDSHAKE_HASH,
            #[cfg(feature = "noise")]
            Self::Noise { hashes, .. } => &hashes[1],
        }
    }

    #[cfg(feature = "noise")]
    pub(super) fn take_records(&mut self) -> Option<Records> {
        match self {
            Self::Clear => None,
            Self::Noise { records, .. } => records.take().map(|records| *records),
        }
    }
}

/// A server's messages under the link's protection.
#[derive(Debug)]
pub(super) enum ServerCover {
    /// The client has not said what it wants.
    Undecided,
    /// The client wants a security, and gets none.
    Withheld,
    Clear,
    /// The first message is not in, or not to be understood.
    #[cfg(feature = "noise")]
    Waiting(Pattern, Responder),
    /// It is.
    #[cfg(feature = "noise")]
    Answering(Responder),
    /// The second is out; the records are to be taken before anything else comes in.
    #[cfg(feature = "noise")]
    Sealed {
        hash: HandshakeHash,
        records: Option<Box<Records>>,
    },
}

impl ServerCover {
    /// That of a link with this prelude.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Security`] if the client wants another.
    pub(super) fn new(
        protection: ServerProtection,
        prelude: &Prelude,
    ) -> Result<Self, HandshakeError> {
        match protection {
            ServerProtection::None => {
                let wanted = (prelude.security, prelude.suite);
                if wanted != (security::NONE, suite::NONE) {
                    return Err(HandshakeError::Security);
                }
                Ok(Self::Clear)
            }
            #[cfg(feature = "noise")]
            ServerProtection::Noise { keys, ephemeral } => {
                let pattern = keys.pattern();
                let mut suites = Suite::ALL.into_iter();
                let suite = suites.find(|suite| suite.code() == prelude.suite);
                match suite {
                    Some(suite) if pattern.code() == prelude.security => {
                        let prologue = prelude.encode();
                        let responder = Responder::new(keys, suite, &prologue, ephemeral);
                        Ok(Self::Waiting(pattern, responder))
                    }
                    _ => Err(HandshakeError::Security),
                }
            }
        }
    }

    /// What a RESUMED is tied to, once the first message is in.
    pub(super) fn hash_after_first(&self) -> HandshakeHash {
        match self {
            #[cfg(feature = "noise")]
            Self::Answering(responder) => responder.hash(),
            _ => NO_HANDSHAKE_HASH,
        }
    }

    /// What a CONFIRM is tied to, once the second message is out.
    pub(super) fn final_hash(&self) -> &HandshakeHash {
        match self {
            #[cfg(feature = "noise")]
            Self::Sealed { hash, .. } => hash,
            _ => &NO_HANDSHAKE_HASH,
        }
    }

    /// The key that the client has shown, if it has.
    pub(super) fn client_key(&self) -> Option<[u8; 32]> {
        match self {
            #[cfg(feature = "noise")]
            Self::Answering(responder) => responder.client_key(),
            _ => None,
        }
    }

    #[cfg(feature = "noise")]
    pub(super) fn take_records(&mut self) -> Option<Records> {
        match self {
            Self::Sealed { records, .. } => records.take().map(|records| *records),
            _ => None,
        }
    }

    /// Whether the driver has yet to put the link under its records.
    pub(super) fn holds_records(&self) -> bool {
        match self {
            #[cfg(feature = "noise")]
            Self::Sealed { records, .. } => records.is_some(),
            _ => false,
        }
    }

    /// `frame` as it goes on the wire: in the second message if that is due, in front of which stands what is needed to say so if
    /// there can be none.
    pub(super) fn cover(&mut self, frame: &[u8]) -> Vec<u8> {
        match std::mem::replace(self, Self::Clear) {
            #[cfg(feature = "noise")]
            Self::Answering(responder) => {
                let (message, records) = responder.second(frame).expect("the first is in");
                *self = Self::Sealed {
                    hash: *records.hash(),
                    records: Some(Box::new(records)),
                };
                with_length(&message)
            }
            #[cfg(feature = "noise")]
            Self::Waiting(..) => [&[0, 0], frame].concat(),
            Self::Withheld => [&[0, 0], frame].concat(),
            other => {
                *self = other;
                frame.to_vec()
            }
        }
    }
}

/// A message with its length in front.
#[cfg(feature = "noise")]
fn with_length(message: &[u8]) -> Vec<u8> {
    let len = u16::try_from(message.len()).expect("a handshake's message is short");
    [&len.to_be_bytes(), message].concat()
}
