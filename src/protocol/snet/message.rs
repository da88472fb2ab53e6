//! The messages of snet's handshakes, byte for byte. Integers are little-endian.

use super::{PublicKey, SessionKey};

/// First byte of a new session.
pub(in crate::protocol) const OPEN: u8 = 0x00;
/// First byte of a resume.
pub(in crate::protocol) const RESUME: u8 = 0xff;
/// Length of the client's first message on a new session, its first byte included.
pub(super) const OPEN_LEN: usize = 9;
/// Length of the client's first message on a resume, its first byte included.
pub(super) const RESUME_LEN: usize = 41;
/// Length of the server's message, on a new session and on a resume.
pub(super) const REPLY_LEN: usize = 24;
/// Length of the client's last message.
pub(super) const PROOF_LEN: usize = 16;

/// The server's random number, never 0: with counts of 0 it would say "refused".
pub type Challenge = std::num::NonZeroU64;

/// MD5 over a message and the session's key.
#[derive(Clone, Copy, Debug)]
pub struct Proof(pub(super) [u8; PROOF_LEN]);

/// What one end says of its streams: bytes, handshakes excluded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes it has sent.
    pub sent: u64,
    /// Bytes it has received into memory, read by the application or not.
    pub received: u64,
}

/// A client's request to resume.
#[derive(Clone, Copy, Debug)]
pub struct ResumeRequest {
    /// The connection id.
    pub id: u64,
    /// What the client says of its streams.
    pub counts: Counts,
    proof: Proof,
}

impl ResumeRequest {
    /// The request of a client that holds `key`.
    pub fn new(id: u64, counts: Counts, key: &SessionKey) -> Self {
        Self {
            id,
            counts,
            proof: key.prove(&Self::body(id, counts)),
        }
    }

    /// Whether whoever made the request holds `key`. It may be a copy of an older one all the same.
    pub fn verify(&self, key: &SessionKey) -> bool {
        key.verify(&Self::body(self.id, self.counts), &self.proof)
    }

    pub(super) fn encode(&self) -> [u8; RESUME_LEN] {
        let mut bytes = [RESUME; RESUME_LEN];
        bytes[1..25].copy_from_slice(&Self::body(self.id, self.counts));
        bytes[25..].copy_from_slice(&self.proof.0);
        bytes
    }

    /// Reads what follows the first byte.
    pub(super) fn decode(bytes: &[u8; RESUME_LEN - 1]) -> Self {
        Self {
            id: number(bytes, 0),
            counts: Counts {
                sent: number(bytes, 8),
                received: number(bytes, 16),
            },
            proof: Proof(array(bytes, 24)),
        }
    }

    fn body(id: u64, counts: Counts) -> [u8; 24] {
        three(id, counts.sent, counts.received)
    }
}

/// A server's answer to a resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeReply {
    /// Go on: prove that the request was no copy.
    Granted {
        /// What the server says of its streams.
        counts: Counts,
        /// What the proof is made over.
        challenge: Challenge,
    },
    /// 24 zero bytes: the session cannot be resumed, now or later.
    Refused,
}

impl ResumeReply {
    pub(super) fn encode(&self) -> [u8; REPLY_LEN] {
        match self {
            Self::Granted { counts, challenge } => {
                three(counts.sent, counts.received, challenge.get())
            }
            Self::Refused => [0; REPLY_LEN],
        }
    }

    /// Reads an answer; `None` if its challenge is 0 though its counts are not, which no server sends.
    pub(super) fn decode(bytes: &[u8; REPLY_LEN]) -> Option<Self> {
        if *bytes == [0; REPLY_LEN] {
            return Some(Self::Refused);
        }
        Some(Self::Granted {
            counts: Counts {
                sent: number(bytes, 0),
                received: number(bytes, 8),
            },
            challenge: Challenge::new(number(bytes, 16))?,
        })
    }
}

/// A server's answer to a new session.
pub(super) struct OpenReply {
    pub(super) public: [u8; 8],
    /// The connection id under the first 8 bytes of the server's keystream.
    pub(super) masked_id: u64,
    pub(super) challenge: u64,
}

impl OpenReply {
    pub(super) fn encode(&self) -> [u8; REPLY_LEN] {
        three(
            u64::from_le_bytes(self.public),
            self.masked_id,
            self.challenge,
        )
    }

    pub(super) fn decode(bytes: &[u8; REPLY_LEN]) -> Self {
        Self {
            public: array(bytes, 0),
            masked_id: number(bytes, 8),
            challenge: number(bytes, 16),
        }
    }
}

/// The client's first message on a new session.
pub(super) fn encode_open(public: PublicKey) -> [u8; OPEN_LEN] {
    let mut bytes = [OPEN; OPEN_LEN];
    bytes[1..].copy_from_slice(&public.to_bytes());
    bytes
}

fn three(a: u64, b: u64, c: u64) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&a.to_le_bytes());
    bytes[8..16].copy_from_slice(&b.to_le_bytes());
    bytes[16..].copy_from_slice(&c.to_le_bytes());
    bytes
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}
