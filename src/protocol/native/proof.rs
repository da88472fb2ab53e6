//! Proofs of holding a session's secret (`docs/PROTOCOL.md`, "Proofs").

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{Id, Nonce, SessionSecret};

/// Length of a proof.
pub(super) const PROOF_LEN: usize = 32;

/// A proof, right or wrong.
pub(super) type Proof = [u8; PROOF_LEN];

/// What ties a proof to the security of its link.
pub(super) type HandshakeHash = [u8; 32];

/// Of a link without a security.
pub(super) const NO_HANDSHAKE_HASH: HandshakeHash = [0; 32];

/// What a proof shows. Each has a label of its own, so that none passes for another.
#[derive(Clone, Copy, Debug)]
pub(super) enum Claim {
    /// The client has been given the session: CONFIRM of the open.
    Opening,
    /// The server holds the session: RESUMED.
    Resumed {
        /// RESUME's count.
        client: u64,
        /// RESUMED's.
        server: u64,
    },
    /// The client holds the session, and has made this attempt itself: CONFIRM of a resume.
    Confirm {
        /// RESUME's count.
        client: u64,
        /// RESUMED's.
        server: u64,
        /// CONFIRM's.
        switching: u64,
    },
}

/// One attempt to attach a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) id: Id,
    /// 0 is the open, the first resume 1.
    pub(super) number: u32,
    pub(super) client_nonce: Nonce,
    pub(super) server_nonce: Nonce,
}

impl Attempt {
    /// The open of the session, which has no nonces: its secret is as new as they would be.
    pub(super) fn opening(id: Id) -> Self {
        Self {
            id,
            number: 0,
            client_nonce: [0; 16],
            server_nonce: [0; 16],
        }
    }

    /// The proof of `claim`.
    pub(super) fn prove(&self, claim: Claim, h: &HandshakeHash, secret: &SessionSecret) -> Proof {
        self.mac(claim, h, secret).finalize().into_bytes().into()
    }

    /// Whether `proof` is the one of `claim`, in constant time.
    pub(super) fn verify(
        &self,
        claim: Claim,
        h: &HandshakeHash,
        secret: &SessionSecret,
        proof: &Proof,
    ) -> bool {
        self.mac(claim, h, secret).verify_slice(proof).is_ok()
    }

    fn mac(&self, claim: Claim, h: &HandshakeHash, secret: &SessionSecret) -> Hmac<Sha256> {
        let (label, counts): (&[u8; 16], &[u64]) = match claim {
            Claim::Opening => (b"unbroken opening", &[0; 3]),
            Claim::Resumed { client, server } => (b"unbroken resumed", &[client, server]),
            Claim::Confirm {
                client,
                server,
                switching,
            } => (b"unbroken confirm", &[client, server, switching]),
        };
        let mut mac = Hmac::new_from_slice(secret.as_bytes()).expect("a key of any length will do");
        mac.update(label);
        mac.update(&self.id);
        mac.update(&self.number.to_be_bytes());
        mac.update(&self.client_nonce);
        mac.update(&self.server_nonce);
        for count in counts {
            mac.update(&count.to_be_bytes());
        }
        mac.update(h);
        mac
    }
}
