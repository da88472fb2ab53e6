//! The end that speaks first.

#[cfg(feature = "noise")]
use zeroize::Zeroizing;

use super::payload;
#[cfg(feature = "noise")]
use crate::protocol::{
    native::{frame::misplaced, protection::LENGTH_LEN},
    noise::Records,
};
use crate::{
    error::HandshakeError,
    protocol::{
        handshake::{Handshake, Wire},
        native::{
            Id, Nonce, Opened, SessionSecret,
            bytes::HEADER_LEN,
            frame::{OPENED, REJECT, REJECT_LEN, RESUMED, Reject},
            message::{
                CONFIRM_LEN, Confirm, OPENED_PAYLOAD, Open, RESUMED_PAYLOAD, Resume, Resumed,
            },
            prelude::{Kind, Prelude},
            proof::{Attempt, Claim},
            protection::{ClientCover, ClientProtection},
        },
    },
};

/// A client that opens a session.
///
/// It ends with [`opened`](Self::opened) or [`rejected`](Self::rejected). From the former on the session can be resumed, though the
/// last message has yet to be written: [`confirm`](Self::confirm), which the driver puts in front of its ATTACH.
#[derive(Debug)]
pub struct ClientOpen {
    dialogue: Dialogue<OPENED_PAYLOAD>,
    outcome: Option<Result<Opened, Reject>>,
}

impl ClientOpen {
    /// Starts with this end's window, in bytes: the first limit of what the server may send.
    pub fn new(window: u64, protection: ClientProtection) -> Self {
        let frame = Open { window }.encode();
        Self {
            dialogue: Dialogue::new(Kind::Open, 0, &frame, protection),
            outcome: None,
        }
    }

    /// The session, once the server has named it.
    pub fn opened(&self) -> Option<&Opened> {
        self.outcome.as_ref()?.as_ref().ok()
    }

    /// Why the server gives no session, if it does not.
    pub fn rejected(&self) -> Option<Reject> {
        self.outcome.as_ref()?.as_ref().err().copied()
    }

    /// The CONFIRM frame, once the session is opened.
    pub fn confirm(&self) -> Option<[u8; CONFIRM_LEN]> {
        let opened = self.opened()?;
        let attempt = Attempt::opening(opened.id);
        let hash = self.dialogue.cover.final_hash();
        let confirm = Confirm {
            received: 0,
            proof: attempt.prove(Claim::Opening, hash, &opened.secret),
        };
        Some(confirm.encode())
    }

    /// What the link's bytes are sealed and opened with from the CONFIRM on, if it is protected and the session is opened. Once.
    #[cfg(feature = "noise")]
    #[cfg_attr(docsrs, doc(cfg(feature = "noise")))]
    pub fn take_records(&mut self) -> Option<Records> {
        self.dialogue.cover.take_records()
    }
}

impl Handshake for ClientOpen {
    fn transmit(&self) -> &[u8] {
        self.dialogue.wire.transmit()
    }

    fn transmitted(&mut self, count: usize) {
        self.dialogue.wire.transmitted(count);
    }

    fn wanted(&self) -> usize {
        self.dialogue.wire.wanted()
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        let Some(reply) = self.dialogue.receive(bytes, OPENED)? else {
            return Ok(());
        };
        self.outcome = Some(match reply {
            Reply::Answer(payload) => Ok(Opened::decode(&payload)),
            Reply::Rejected { reject, .. } => Err(reject),
        });
        Ok(())
    }
}

/// A client that resumes a session.
///
/// It ends with [`answer`](Self::answer). If that says the session goes on, the last message is [`confirm`](Self::confirm), which the
/// driver makes when it turns to this link, and puts in front of its ATTACH.
#[derive(Debug)]
pub struct ClientResume {
    dialogue: Dialogue<RESUMED_PAYLOAD>,
    secret: SessionSecret,
    /// Without the server's nonce until that has come.
    attempt: Attempt,
    received: u64,
    answer: Option<Answer>,
}

/// What a server says to a resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It holds the session, which it has proved.
    Resumed {
        /// The offset up to which it has received.
        received: u64,
    },
    /// It does not go on.
    Rejected(Reject),
    /// It does not go on, or so it says in the clear though the link was to be protected: anybody may have said it. It ends the
    /// attempt, and never the session.
    RejectedInTheClear(Reject),
}

impl ClientResume {
    /// Starts with the session's id, secret and route; the number of the attempt, 1 for the first and greater for each later one; a
    /// nonce never used before; and the offset up to which this end has received so far.
    pub fn new(
        id: Id,
        secret: &SessionSecret,
        route: u32,
        attempt: u32,
        nonce: Nonce,
        received: u64,
        protection: ClientProtection,
    ) -> Self {
        let resume = Resume {
            id,
            attempt,
            nonce,
            received,
        };
        Self {
            dialogue: Dialogue::new(Kind::Resume, route, &resume.encode(), protection),
            secret: secret.clone(),
            attempt: Attempt {
                id,
                number: attempt,
                client_nonce: nonce,
                server_nonce: [0; 16],
            },
            received,
            answer: None,
        }
    }

    /// The server's answer, once it is there.
    pub fn answer(&self) -> Option<Answer> {
        self.answer
    }

    /// The CONFIRM frame, if the server goes on. `received` is the offset up to which this end has received as it turns to this link.
    pub fn confirm(&self, received: u64) -> Option<[u8; CONFIRM_LEN]> {
        let Answer::Resumed { received: server } = self.answer? else {
            return None;
        };
        let claim = Claim::Confirm {
            client: self.received,
            server,
            switching: received,
        };
        let hash = self.dialogue.cover.final_hash();
        let proof = self.attempt.prove(claim, hash, &self.secret);
        Some(Confirm { received, proof }.encode())
    }

    /// What the link's bytes are sealed and opened with from the CONFIRM on, if it is protected and the server goes on. Once.
    #[cfg(feature = "noise")]
    #[cfg_attr(docsrs, doc(cfg(feature = "noise")))]
    pub fn take_records(&mut self) -> Option<Records> {
        self.dialogue.cover.take_records()
    }
}

impl Handshake for ClientResume {
    fn transmit(&self) -> &[u8] {
        self.dialogue.wire.transmit()
    }

    fn transmitted(&mut self, count: usize) {
        self.dialogue.wire.transmitted(count);
    }

    fn wanted(&self) -> usize {
        self.dialogue.wire.wanted()
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        let Some(reply) = self.dialogue.receive(bytes, RESUMED)? else {
            return Ok(());
        };
        self.answer = Some(match reply {
            Reply::Answer(payload) => {
                let Resumed {
                    nonce,
                    received,
                    proof,
                } = Resumed::decode(&payload);
                self.attempt.server_nonce = nonce;
                let claim = Claim::Resumed {
                    client: self.received,
                    server: received,
                };
                let hash = self.dialogue.cover.hash_after_first();
                if !self.attempt.verify(claim, hash, &self.secret, &proof) {
                    return Err(HandshakeError::Proof);
                }
                Answer::Resumed { received }
            }
            Reply::Rejected {
                reject,
                in_the_clear: false,
            } => Answer::Rejected(reject),
            Reply::Rejected { reject, .. } => Answer::RejectedInTheClear(reject),
        });
        Ok(())
    }
}

/// What both of a client's handshakes do: they say one frame, behind the prelude, and hear one, of `N` bytes of payload.
#[derive(Debug)]
struct Dialogue<const N: usize> {
    wire: Wire,
    cover: ClientCover,
}

/// What a server says.
enum Reply<const N: usize> {
    /// The payload of the frame that was asked for.
    Answer([u8; N]),
    Rejected {
        reject: Reject,
        /// As with [`Answer::RejectedInTheClear`].
        in_the_clear: bool,
    },
}

impl<const N: usize> Dialogue<N> {
    fn new(kind: Kind, route: u32, frame: &[u8], protection: ClientProtection) -> Self {
        let (security, suite) = protection.codes();
        let prelude = Prelude {
            kind,
            security,
            suite,
            route,
        };
        let (cover, message) = ClientCover::first(protection, &prelude, frame);
        let expected = match &cover {
            ClientCover::Clear => HEADER_LEN + N,
            #[cfg(feature = "noise")]
            ClientCover::Noise { .. } => LENGTH_LEN,
        };
        let mut wire = Wire::new(&prelude.encode(), expected);
        wire.append(&message);
        Self { wire, cover }
    }

    /// Takes bytes in, and gives the server's frame of type `kind`, or its REJECT, when either is whole.
    fn receive(&mut self, bytes: &[u8], kind: u8) -> Result<Option<Reply<N>>, HandshakeError> {
        self.wire.take(bytes)?;
        match &self.cover {
            ClientCover::Clear => self.clear(kind, 0),
            #[cfg(feature = "noise")]
            ClientCover::Noise { .. } => self.covered(kind),
        }
    }

    /// What stands in the clear behind the first `skipped` bytes.
    ///
    /// What comes in behind a REJECT is discarded: nothing can follow it.
    fn clear(&mut self, kind: u8, skipped: usize) -> Result<Option<Reply<N>>, HandshakeError> {
        let frame = &self.wire.inbound()[skipped..];
        let rejects = frame.first() == Some(&REJECT);
        let reply = if rejects {
            payload(frame, REJECT)?.map(|payload| rejected(payload, skipped > 0))
        } else {
            payload(frame, kind)?.map(|payload| Reply::Answer(*payload))
        };
        if reply.is_some() {
            self.wire.finish();
        } else if rejects {
            self.wire.expect(skipped + HEADER_LEN + REJECT_LEN);
        }
        Ok(reply)
    }

    /// What is in the security's second message, or the REJECT that comes in place of it.
    #[cfg(feature = "noise")]
    fn covered(&mut self, kind: u8) -> Result<Option<Reply<N>>, HandshakeError> {
        let ClientCover::Noise {
            pattern,
            initiator,
            hashes,
            records,
        } = &mut self.cover
        else {
            return Err(HandshakeError::OutOfPlace);
        };
        let Some((length, message)) = self.wire.inbound().split_first_chunk::<LENGTH_LEN>() else {
            return Ok(None);
        };
        let length = u16::from_be_bytes(*length);
        if length == 0 {
            if message.first().is_some_and(|kind| *kind != REJECT) {
                return Err(misplaced(message[0]).into());
            }
            self.wire.expect(LENGTH_LEN + HEADER_LEN + REJECT_LEN);
            return self.clear(kind, LENGTH_LEN);
        }
        let possible = [N, REJECT_LEN].map(|payload| pattern.second_len(HEADER_LEN + payload));
        if !possible.contains(&length.into()) {
            return Err(HandshakeError::MessageLength(length));
        }
        if message.len() < length.into() {
            self.wire.expect(LENGTH_LEN + usize::from(length));
            return Ok(None);
        }
        let initiator = initiator.take().ok_or(HandshakeError::OutOfPlace)?;
        let (frame, sealing) = initiator.second(message)?;
        let frame = Zeroizing::new(frame);
        hashes[1] = *sealing.hash();
        *records = Some(Box::new(sealing));
        self.wire.finish();
        let whole = HandshakeError::MessageLength(length);
        if frame.first() == Some(&REJECT) && frame.len() == HEADER_LEN + REJECT_LEN {
            let payload = payload(&frame, REJECT)?.ok_or(whole)?;
            Ok(Some(rejected(payload, false)))
        } else {
            let payload = payload(&frame, kind)?.ok_or(whole)?;
            Ok(Some(Reply::Answer(*payload)))
        }
    }
}

fn rejected<const N: usize>(payload: &[u8; REJECT_LEN], in_the_clear: bool) -> Reply<N> {
    Reply::Rejected {
        reject: Reject::decode(payload),
        in_the_clear,
    }
}
