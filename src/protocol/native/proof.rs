//! Proofs of holding a session's secret (`docs/PROTOCOL.md`, native: "Proofs").

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

#[cfg(test)]
mod tests {
    use super::*;

    const H: HandshakeHash = [9; 32];

    fn secret() -> SessionSecret {
        SessionSecret::new(std::array::from_fn(|at| at as u8))
    }

    fn resume() -> Attempt {
        Attempt {
            id: std::array::from_fn(|at| 0x40 + at as u8),
            number: 3,
            client_nonce: [0xc1; 16],
            server_nonce: [0x5e; 16],
        }
    }

    const RESUMED: Claim = Claim::Resumed {
        client: 1000,
        server: 2000,
    };
    const CONFIRM: Claim = Claim::Confirm {
        client: 1000,
        server: 2000,
        switching: 1500,
    };

    /// By Python's `hmac`.
    #[test]
    fn proofs_are_those_of_another_implementation() {
        let opening = Attempt::opening(resume().id);
        let rows = [
            (
                opening.prove(Claim::Opening, &NO_HANDSHAKE_HASH, &secret()),
                "0d46faea39de57d2775e0e2f3c123acaff57f48b52726aff2fa54309d22965f7",
            ),
            (
                resume().prove(RESUMED, &NO_HANDSHAKE_HASH, &secret()),
                "cadd798973d2f5fad0a70930d0264960c626a5ac4b5a2a125a704ed0e183be32",
            ),
            (
                resume().prove(CONFIRM, &NO_HANDSHAKE_HASH, &secret()),
                "bd8a64189b7ff870c5e6e815e2d206c322f55b16a4a6a4b29ee753feb0750766",
            ),
            (
                resume().prove(CONFIRM, &H, &secret()),
                "1092967db89d74051e306e60f44f2e8faf555618082efa1097a9bd272042ccc3",
            ),
        ];
        for (proof, expected) in rows {
            let hex: String = proof.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected);
        }
    }

    #[test]
    fn a_proof_holds_for_what_it_was_made_of_and_for_nothing_else() {
        let attempt = resume();
        let proof = attempt.prove(CONFIRM, &H, &secret());
        assert!(attempt.verify(CONFIRM, &H, &secret(), &proof));

        let claims = [
            RESUMED,
            Claim::Opening,
            Claim::Confirm {
                client: 1001,
                server: 2000,
                switching: 1500,
            },
            Claim::Confirm {
                client: 1000,
                server: 2001,
                switching: 1500,
            },
            Claim::Confirm {
                client: 1000,
                server: 2000,
                switching: 1501,
            },
        ];
        for claim in claims {
            assert!(!attempt.verify(claim, &H, &secret(), &proof), "{claim:?}");
        }
        let mut others = [attempt; 4];
        others[0].id[15] ^= 1;
        others[1].number += 1;
        others[2].client_nonce[0] ^= 1;
        others[3].server_nonce[15] ^= 0x80;
        for other in others {
            assert!(!other.verify(CONFIRM, &H, &secret(), &proof), "{other:?}");
        }
        assert!(!attempt.verify(CONFIRM, &NO_HANDSHAKE_HASH, &secret(), &proof));
        assert!(!attempt.verify(CONFIRM, &H, &SessionSecret::new([0; 32]), &proof));
        for at in 0..PROOF_LEN {
            let mut wrong = proof;
            wrong[at] ^= 1;
            assert!(!attempt.verify(CONFIRM, &H, &secret(), &wrong), "byte {at}");
        }
    }
}
