//! native's handshakes, each role a machine that is fed bytes in pieces of any size (`docs/PROTOCOL.md`, native: "Open", "Resume").

use std::time::Duration;

use super::{
    Id, Nonce, Opened, SessionSecret,
    bytes::{HEADER_LEN, header},
    frame::{CONFIRM, Frame, OPEN, OPENED, REJECT, REJECT_LEN, RESUME, RESUMED, Reject, misplaced},
    message::{
        CONFIRM_LEN, Confirm, OPEN_PAYLOAD, OPENED_PAYLOAD, Open, RESUME_PAYLOAD, RESUMED_PAYLOAD,
        Resume, Resumed,
    },
    prelude::{Kind, MAGIC, PRELUDE_LEN, Prelude, is_clear, security, suite},
    proof::{Attempt, Claim, NO_HANDSHAKE_HASH},
};
use crate::{
    error::{HandshakeError, ProtocolError, RejectCode},
    protocol::handshake::{Handshake, Wire},
};

/// The prelude and a first frame of `first` bytes together.
const fn with_prelude(first: usize) -> usize {
    PRELUDE_LEN + HEADER_LEN + first
}

/// A client that opens a session.
///
/// It ends with [`opened`](Self::opened) or [`rejected`](Self::rejected). From the former on the session can be resumed, though the
/// last message has yet to be written: [`confirm`](Self::confirm), which the driver puts in front of its ATTACH.
#[derive(Debug)]
pub struct ClientOpen {
    wire: Wire,
    outcome: Option<Result<Opened, Reject>>,
}

impl ClientOpen {
    /// Starts with this end's window, in bytes: the first limit of what the server may send.
    pub fn new(window: u64) -> Self {
        let mut wire = Wire::new(&prelude(Kind::Open, 0), HEADER_LEN + OPENED_PAYLOAD);
        wire.append(&Open { window }.encode());
        Self {
            wire,
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
        let confirm = Confirm {
            received: 0,
            proof: Attempt::opening(opened.id).prove(
                Claim::Opening,
                &NO_HANDSHAKE_HASH,
                &opened.secret,
            ),
        };
        Some(confirm.encode())
    }
}

impl Handshake for ClientOpen {
    fn transmit(&self) -> &[u8] {
        self.wire.transmit()
    }

    fn transmitted(&mut self, count: usize) {
        self.wire.transmitted(count);
    }

    fn wanted(&self) -> usize {
        self.wire.wanted()
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        let reply = reply::<OPENED_PAYLOAD>(&mut self.wire, bytes, OPENED)?;
        self.outcome = reply.map(|reply| reply.map(|payload| Opened::decode(&payload)));
        Ok(())
    }
}

/// A client that resumes a session.
///
/// It ends with [`answer`](Self::answer). If that says the session goes on, the last message is [`confirm`](Self::confirm), which the
/// driver makes when it turns to this link, and puts in front of its ATTACH.
#[derive(Debug)]
pub struct ClientResume {
    wire: Wire,
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
    ) -> Self {
        let mut wire = Wire::new(&prelude(Kind::Resume, route), HEADER_LEN + RESUMED_PAYLOAD);
        let resume = Resume {
            id,
            attempt,
            nonce,
            received,
        };
        wire.append(&resume.encode());
        Self {
            wire,
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
        let proof = self.attempt.prove(claim, &NO_HANDSHAKE_HASH, &self.secret);
        Some(Confirm { received, proof }.encode())
    }
}

impl Handshake for ClientResume {
    fn transmit(&self) -> &[u8] {
        self.wire.transmit()
    }

    fn transmitted(&mut self, count: usize) {
        self.wire.transmitted(count);
    }

    fn wanted(&self) -> usize {
        self.wire.wanted()
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        let Some(reply) = reply::<RESUMED_PAYLOAD>(&mut self.wire, bytes, RESUMED)? else {
            return Ok(());
        };
        self.answer = Some(match reply {
            Ok(payload) => {
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
                if !(self.attempt).verify(claim, &NO_HANDSHAKE_HASH, &self.secret, &proof) {
                    return Err(HandshakeError::Proof);
                }
                Answer::Resumed { received }
            }
            Err(reject) => Answer::Rejected(reject),
        });
        Ok(())
    }
}

/// The prelude of a link without a security.
fn prelude(kind: Kind, route: u32) -> [u8; PRELUDE_LEN] {
    let prelude = Prelude {
        kind,
        security: security::NONE,
        suite: suite::NONE,
        route,
    };
    prelude.encode()
}

/// Takes bytes in, and gives the payload of the server's frame of type `kind`, or its REJECT, when either is whole.
///
/// What comes in behind a REJECT is discarded: nothing can follow it.
fn reply<const N: usize>(
    wire: &mut Wire,
    bytes: &[u8],
    kind: u8,
) -> Result<Option<Result<[u8; N], Reject>>, HandshakeError> {
    wire.take(bytes)?;
    let frame = wire.inbound();
    let reply = if frame.first() == Some(&REJECT) {
        let payload = payload(frame, REJECT)?;
        payload.map(|payload| Err(Reject::decode(payload)))
    } else {
        payload(frame, kind)?.map(|payload| Ok(*payload))
    };
    if reply.is_some() {
        wire.finish();
    } else if frame.first() == Some(&REJECT) {
        wire.expect(HEADER_LEN + REJECT_LEN);
    }
    Ok(reply)
}

/// The payload of a frame that must be of this type and length, when it is whole.
fn payload<const N: usize>(frame: &[u8], kind: u8) -> Result<Option<&[u8; N]>, ProtocolError> {
    let Some((head, rest)) = frame.split_first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    match header(*head) {
        (found, _) if found != kind => Err(misplaced(found)),
        (_, len) if len as usize != N => Err(ProtocolError::Length { frame: kind, len }),
        _ => Ok(rest.first_chunk()),
    }
}

/// A server on a new link.
///
/// When [`hello`](Self::hello) gives what the client wants, the driver answers with [`open`](Self::open), [`resume`](Self::resume) or
/// [`reject`](Self::reject). After the first two the client has the word, and [`proved`](Self::proved) tells when it has proved itself;
/// before that nothing it said may have an effect on a session. Then the link is attached; or, if the session cannot go on after all,
/// the driver says so with [`reject`](Self::reject), and if only the memory of its end is left, with [`end`](Self::end).
///
/// It is ready for [`reject`](Self::reject) even when [`receive`](Handshake::receive) found a proof wrong.
#[derive(Debug)]
pub struct ServerHandshake {
    wire: Wire,
    stage: Stage,
    /// Whether the client expects frames rather than messages of a security, once its prelude has said so.
    clear: Option<bool>,
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
    /// The prelude is in.
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
    /// The shorter of both first messages, so that nothing beyond either is read.
    pub(in crate::protocol) const SHORTEST: usize = with_prelude(OPEN_PAYLOAD);

    /// Waits for a client's prelude and first frame.
    pub fn new() -> Self {
        Self {
            wire: Wire::new(&[], Self::SHORTEST),
            stage: Stage::Prelude,
            clear: None,
        }
    }

    /// What the client wants, once it has said so and until it is answered.
    pub fn hello(&self) -> Option<Hello> {
        match self.stage {
            Stage::Hello(hello) => Some(hello),
            _ => None,
        }
    }

    /// Gives a client that wants a session this one. Does nothing for a client that wants something else.
    pub fn open(&mut self, opened: &Opened) {
        let Some(Hello::Open { .. }) = self.hello() else {
            return;
        };
        self.wire.send(&opened.encode(), CONFIRM_LEN);
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
            proof: attempt.prove(claim, &NO_HANDSHAKE_HASH, secret),
        };
        self.wire.send(&resumed.encode(), CONFIRM_LEN);
        self.stage = Stage::Confirm {
            secret: secret.clone(),
            attempt,
            counts: Some((client, received)),
        };
    }

    /// Turns the client away, at any time after its prelude; there is nothing more to read then. Does nothing before the prelude is in, while
    /// something else is being transmitted, and after [`end`](Self::end) or another [`reject`](Self::reject).
    pub fn reject(&mut self, code: RejectCode, retry_after: Duration) {
        let (Some(clear), true) = (self.clear, self.wire.transmit().is_empty()) else {
            return;
        };
        if matches!(self.stage, Stage::Ended) {
            return;
        }
        // In place of the security's second message: one of length 0, which says that the rest is in the clear.
        let announced: &[u8] = if clear { &[] } else { &[0, 0] };
        self.wire.send(announced, 0);
        let reject = Reject { code, retry_after };
        self.wire.append(Frame::Reject(reject).encode().as_bytes());
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
        self.wire.take(bytes)?;
        if let Stage::Prelude = self.stage {
            self.prelude()?;
        }
        match &self.stage {
            Stage::First(kind) => {
                let frame = &self.wire.inbound()[PRELUDE_LEN..];
                if let Some(hello) = first(*kind, frame)? {
                    self.stage = Stage::Hello(hello);
                }
            }
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
                    if !attempt.verify(claim, &NO_HANDSHAKE_HASH, secret, &proof) {
                        return Err(HandshakeError::Proof);
                    }
                    self.stage = Stage::Proved(received);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Looks at the prelude, as far as it is there.
    fn prelude(&mut self) -> Result<(), HandshakeError> {
        let read = self.wire.inbound();
        if !MAGIC.starts_with(&read[..read.len().min(MAGIC.len())]) {
            return Err(HandshakeError::Magic);
        }
        let Some(prelude) = read.first_chunk() else {
            return Ok(());
        };
        self.clear = Some(is_clear(prelude));
        self.stage = match Prelude::decode(prelude) {
            Ok(prelude) if (prelude.security, prelude.suite) == (security::NONE, suite::NONE) => {
                if prelude.kind == Kind::Resume {
                    self.wire.expect(with_prelude(RESUME_PAYLOAD));
                }
                Stage::First(prelude.kind)
            }
            Ok(_) => self.unacceptable(RejectCode::SecurityNotOffered),
            Err(HandshakeError::Version) => self.unacceptable(RejectCode::Version),
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// What has come in behind the prelude is not to be understood.
    fn unacceptable(&mut self, code: RejectCode) -> Stage {
        self.wire.finish();
        Stage::Hello(Hello::Unacceptable(code))
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
        self.wire.wanted()
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        let taken = self.take(bytes);
        if taken.is_err() && !matches!(self.stage, Stage::Ended) {
            self.wire.finish();
            self.stage = Stage::Failed;
        }
        taken
    }
}

#[cfg(test)]
mod tests;
