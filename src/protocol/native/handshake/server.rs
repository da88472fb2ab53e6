//! The end that answers.

use std::time::Duration;

#[cfg(feature = "noise")]
use zeroize::Zeroizing;

use super::{payload, with_prelude};
#[cfg(feature = "noise")]
use crate::protocol::{
    native::{bytes::HEADER_LEN, protection::LENGTH_LEN},
    noise::Records,
};
use crate::{
    error::{HandshakeError, RejectCode},
    protocol::{
        handshake::{Handshake, Wire},
        native::{
            Binding, Id, Nonce, Opened, SessionSecret,
            frame::{CONFIRM, Frame, OPEN, RESUME, Reject},
            message::{CONFIRM_LEN, Confirm, OPEN_PAYLOAD, Open, RESUME_PAYLOAD, Resume, Resumed},
            prelude::{Kind, MAGIC, PRELUDE_LEN, Prelude, is_clear, security},
            proof::{Attempt, Claim},
            protection::{ServerCover, ServerProtection},
        },
    },
};

/// A server on a new link.
///
/// When the [`prelude`](Self::prelude) is in, the driver goes on with [`proceed`](Self::proceed). When [`hello`](Self::hello) gives
/// what the client wants, it answers with [`open`](Self::open), [`resume`](Self::resume) or [`reject`](Self::reject). If the link is
/// protected it then puts it under its records, `take_records`, so that whatever follows passes through them. After the first two
/// answers the client has the word, and [`proved`](Self::proved) tells when it has proved itself; before that nothing it said may have
/// an effect on a session. Then the link is attached; or, if the session cannot go on after all, the driver says so with
/// [`reject`](Self::reject), and if only the memory of its end is left, with [`end`](Self::end).
///
/// It is ready for [`reject`](Self::reject) from the prelude on, even when [`proceed`](Self::proceed) found a security that is not
/// offered, or [`receive`](Handshake::receive) a message that cannot be decrypted or a proof that is wrong.
#[derive(Debug)]
pub struct ServerHandshake {
    wire: Wire,
    stage: Stage,
    /// The prelude's.
    security: u8,
    cover: ServerCover,
}

/// What a client wants of a new link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    /// A session.
    Open {
        /// The client's window, in bytes: the first limit of what this end may send.
        window: u64,
    },
    /// A session it had before.
    Resume {
        /// Its name.
        id: Id,
        /// The number of the attempt. One not above that of the last link attached is stale.
        attempt: u32,
        /// The client's nonce.
        nonce: Nonce,
        /// The offset up to which the client had received when it asked; CONFIRM says it anew.
        received: u64,
    },
    /// Something this end does not speak: all there is to do is to [`reject`](ServerHandshake::reject) it with this code.
    Unacceptable(RejectCode),
}

#[derive(Debug)]
enum Stage {
    Prelude,
    /// The prelude is in, and what to do about it is to be decided.
    Announced(Prelude),
    First(Kind),
    Hello(Hello),
    Confirm {
        secret: SessionSecret,
        attempt: Attempt,
        /// RESUME's count and RESUMED's; none on open.
        counts: Option<(u64, u64)>,
    },
    Proved(u64),
    /// The client did wrong.
    Failed,
    Ended,
}

impl Default for ServerHandshake {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerHandshake {
    /// The shortest of all first messages, so that nothing beyond any is read.
    pub(in crate::protocol) const SHORTEST: usize = with_prelude(OPEN_PAYLOAD);

    /// Waits for a client's prelude.
    pub fn new() -> Self {
        Self {
            wire: Wire::new(&[], Self::SHORTEST),
            stage: Stage::Prelude,
            security: security::NONE,
            cover: ServerCover::Undecided,
        }
    }

    /// What the client has announced, once it has and until the driver lets it go on.
    pub fn prelude(&self) -> Option<Prelude> {
        match self.stage {
            Stage::Announced(prelude) => Some(prelude),
            _ => None,
        }
    }

    /// Lets a client go on that has announced what it wants, on a link with this protection. Does nothing for another.
    ///
    /// # Errors
    ///
    /// - [`HandshakeError::Security`] if the client asks for another protection;
    /// - those of [`receive`](Handshake::receive), for what has come in already.
    pub fn proceed(&mut self, protection: ServerProtection) -> Result<(), HandshakeError> {
        let Some(prelude) = self.prelude() else {
            return Ok(());
        };
        match ServerCover::new(protection, &prelude) {
            Ok(cover) => self.cover = cover,
            Err(error) => return self.fail_with(Err(error)),
        }
        self.wire.expect(match (prelude.kind, &self.cover) {
            #[cfg(feature = "noise")]
            (kind, ServerCover::Waiting(pattern, _)) => {
                let frame = HEADER_LEN + payload_len(kind);
                PRELUDE_LEN + LENGTH_LEN + pattern.first_len(frame)
            }
            (kind, _) => with_prelude(payload_len(kind)),
        });
        self.stage = Stage::First(prelude.kind);
        let taken = self.step();
        self.fail_with(taken)
    }

    /// What the client wants, once it has said so and until it is answered.
    pub fn hello(&self) -> Option<Hello> {
        match self.stage {
            Stage::Hello(hello) => Some(hello),
            _ => None,
        }
    }

    /// How the link is protected and, once the client has said [`hello`](Self::hello), for whom. Whether the client holds the private
    /// part of the key it shows it has [proved](Self::proved) when it has proved the rest.
    pub fn binding(&self) -> Binding {
        Binding {
            security: self.security,
            client_key: self.cover.client_key(),
        }
    }

    /// Gives a client that wants a session this one. Does nothing for a client that wants something else.
    pub fn open(&mut self, opened: &Opened) {
        let Some(Hello::Open { .. }) = self.hello() else {
            return;
        };
        self.wire
            .send(&self.cover.cover(&opened.encode()), CONFIRM_LEN);
        self.stage = Stage::Confirm {
            secret: opened.secret.clone(),
            attempt: Attempt::opening(opened.id),
            counts: None,
        };
    }

    /// Lets a client go on that wants to resume the session with this secret. `nonce` was never used before; `received` is the offset up
    /// to which this end has received. Does nothing for a client that wants something else.
    pub fn resume(&mut self, secret: &SessionSecret, nonce: Nonce, received: u64) {
        let Some(Hello::Resume {
            id,
            attempt,
            nonce: client_nonce,
            received: client,
        }) = self.hello()
        else {
            return;
        };
        let attempt = Attempt {
            id,
            number: attempt,
            client_nonce,
            server_nonce: nonce,
        };
        let claim = Claim::Resumed {
            client,
            server: received,
        };
        let resumed = Resumed {
            nonce,
            received,
            proof: attempt.prove(claim, &self.cover.hash_after_first(), secret),
        };
        self.wire
            .send(&self.cover.cover(&resumed.encode()), CONFIRM_LEN);
        self.stage = Stage::Confirm {
            secret: secret.clone(),
            attempt,
            counts: Some((client, received)),
        };
    }

    /// What the link's bytes are sealed and opened with after the answer, if it is protected. Once; nothing comes in before it is taken.
    #[cfg(feature = "noise")]
    #[cfg_attr(docsrs, doc(cfg(feature = "noise")))]
    pub fn take_records(&mut self) -> Option<Records> {
        self.cover.take_records()
    }

    /// Turns the client away, at any time after its prelude; there is nothing more to read then. Does nothing before the prelude is in, while
    /// something else is being transmitted, and after [`end`](Self::end) or another [`reject`](Self::reject).
    pub fn reject(&mut self, code: RejectCode, retry_after: Duration) {
        let told = matches!(self.stage, Stage::Ended) || !self.wire.transmit().is_empty();
        if told || matches!(self.cover, ServerCover::Undecided) {
            return;
        }
        let reject = Reject { code, retry_after };
        let message = self.cover.cover(Frame::Reject(reject).encode().as_bytes());
        self.wire.send(&message, 0);
        self.stage = Stage::Ended;
    }

    /// CONFIRM's count, once its proof holds: the offset up to which the client has received, 0 on open. The client holds the session's
    /// secret and is on this link.
    pub fn proved(&self) -> Option<u64> {
        match self.stage {
            Stage::Proved(received) => Some(received),
            _ => None,
        }
    }

    /// Tells a client that has [proved](Self::proved) itself how its session ended: an ATTACH with these fields, then a RESET. Does
    /// nothing for another.
    pub fn end(&mut self, from: u64, received: u64, limit: u64, code: u32) {
        if self.proved().is_none() {
            return;
        }
        let attach = Frame::Attach {
            from,
            received,
            limit,
        };
        self.wire.send(attach.encode().as_bytes(), 0);
        self.wire.append(Frame::Reset { code }.encode().as_bytes());
        self.stage = Stage::Ended;
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        if bytes.len() > self.wanted() {
            return Err(HandshakeError::OutOfPlace);
        }
        self.wire.take(bytes)?;
        self.step()
    }

    /// Looks at what has come in.
    fn step(&mut self) -> Result<(), HandshakeError> {
        match &self.stage {
            Stage::Prelude => self.on_prelude(),
            Stage::First(kind) => self.on_first(*kind),
            Stage::Confirm {
                secret,
                attempt,
                counts,
            } => {
                if let Some(payload) = payload(self.wire.inbound(), CONFIRM)? {
                    let Confirm { received, proof } = Confirm::decode(payload);
                    let claim = match *counts {
                        Some((client, server)) => Claim::Confirm {
                            client,
                            server,
                            switching: received,
                        },
                        None if received == 0 => Claim::Opening,
                        None => return Err(HandshakeError::Proof),
                    };
                    if !attempt.verify(claim, self.cover.final_hash(), secret, &proof) {
                        return Err(HandshakeError::Proof);
                    }
                    self.stage = Stage::Proved(received);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Looks at the prelude, as far as it is there.
    fn on_prelude(&mut self) -> Result<(), HandshakeError> {
        let read = self.wire.inbound();
        if !MAGIC.starts_with(&read[..read.len().min(MAGIC.len())]) {
            return Err(HandshakeError::Magic);
        }
        let Some(prelude) = read.first_chunk() else {
            return Ok(());
        };
        self.cover = if is_clear(prelude) {
            ServerCover::Clear
        } else {
            ServerCover::Withheld
        };
        self.stage = match Prelude::decode(prelude) {
            Ok(prelude) => {
                self.security = prelude.security;
                Stage::Announced(prelude)
            }
            Err(HandshakeError::Version) => {
                // What has come in behind the prelude is not to be understood.
                self.wire.finish();
                Stage::Hello(Hello::Unacceptable(RejectCode::Version))
            }
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// Looks at what follows the prelude, as far as it is there.
    fn on_first(&mut self, kind: Kind) -> Result<(), HandshakeError> {
        let message = &self.wire.inbound()[PRELUDE_LEN..];
        let hello = match &mut self.cover {
            #[cfg(feature = "noise")]
            ServerCover::Waiting(pattern, responder) => {
                let Some((length, message)) = message.split_first_chunk::<LENGTH_LEN>() else {
                    return Ok(());
                };
                let length = u16::from_be_bytes(*length);
                let expected = pattern.first_len(HEADER_LEN + payload_len(kind));
                if usize::from(length) != expected {
                    return Err(HandshakeError::MessageLength(length));
                }
                if message.len() < expected {
                    return Ok(());
                }
                let frame = Zeroizing::new(responder.first(message)?);
                if let ServerCover::Waiting(_, responder) =
                    std::mem::replace(&mut self.cover, ServerCover::Clear)
                {
                    self.cover = ServerCover::Answering(responder);
                }
                let whole = HandshakeError::MessageLength(length);
                Some(first(kind, &frame)?.ok_or(whole)?)
            }
            _ => first(kind, message)?,
        };
        if let Some(hello) = hello {
            self.stage = Stage::Hello(hello);
        }
        Ok(())
    }

    /// After an error nothing more is wanted.
    fn fail_with(&mut self, taken: Result<(), HandshakeError>) -> Result<(), HandshakeError> {
        if taken.is_err() && !matches!(self.stage, Stage::Ended) {
            self.wire.finish();
            self.stage = Stage::Failed;
        }
        taken
    }
}

fn payload_len(kind: Kind) -> usize {
    match kind {
        Kind::Open => OPEN_PAYLOAD,
        Kind::Resume => RESUME_PAYLOAD,
    }
}

/// What the client's first frame says, when it is whole.
fn first(kind: Kind, frame: &[u8]) -> Result<Option<Hello>, HandshakeError> {
    let open = |payload| {
        let Open { window } = Open::decode(payload);
        Hello::Open { window }
    };
    let resume = |payload| {
        let Resume {
            id,
            attempt,
            nonce,
            received,
        } = Resume::decode(payload);
        Hello::Resume {
            id,
            attempt,
            nonce,
            received,
        }
    };
    Ok(match (kind, frame) {
        (Kind::Open, [RESUME, ..]) | (Kind::Resume, [OPEN, ..]) => {
            return Err(HandshakeError::Kind);
        }
        (Kind::Open, frame) => payload(frame, OPEN)?.map(open),
        (Kind::Resume, frame) => payload(frame, RESUME)?.map(resume),
    })
}

impl Handshake for ServerHandshake {
    fn transmit(&self) -> &[u8] {
        self.wire.transmit()
    }

    fn transmitted(&mut self, count: usize) {
        self.wire.transmitted(count);
    }

    fn wanted(&self) -> usize {
        if self.prelude().is_some() || self.cover.holds_records() {
            0
        } else {
            self.wire.wanted()
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        let taken = self.take(bytes);
        self.fail_with(taken)
    }
}
