//! snet's handshakes, each role a machine that is fed bytes in pieces of any size (`docs/PROTOCOL.md`, "New session", "Resume").

use super::{
    KeyAgreement, PublicKey, SessionKey,
    cipher::mask_connection_id,
    message::{
        Challenge, Counts, OPEN, OPEN_LEN, OpenReply, PROOF_LEN, Proof, REPLY_LEN, RESUME,
        RESUME_LEN, ResumeReply, ResumeRequest, encode_open,
    },
};
use crate::{
    error::HandshakeError,
    protocol::handshake::{Handshake, Wire},
};

/// A client that opens a session.
///
/// As soon as [`opened`](Self::opened) gives the session it can be resumed, though the last message has yet to be written.
#[derive(Debug)]
pub struct ClientOpen {
    agreement: KeyAgreement,
    wire: Wire,
    opened: Option<Opened>,
}

/// A session as its handshake leaves it.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The connection id.
    pub id: u64,
    /// The session's key.
    pub key: SessionKey,
}

impl ClientOpen {
    /// Starts with this end's key.
    pub fn new(agreement: KeyAgreement) -> Self {
        let wire = Wire::new(&encode_open(agreement.public()), REPLY_LEN);
        Self {
            agreement,
            wire,
            opened: None,
        }
    }

    /// The session, once the server has named it.
    pub fn opened(&self) -> Option<&Opened> {
        self.opened.as_ref()
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
        let Some(message) = self.wire.receive::<REPLY_LEN>(bytes)? else {
            return Ok(());
        };
        let reply = OpenReply::decode(&message);
        let peer = PublicKey::from_bytes(reply.public).ok_or(HandshakeError::ZeroPublicKey)?;
        let key = self.agreement.agree(peer);
        self.wire
            .send(&key.prove(&reply.challenge.to_le_bytes()).0, 0);
        self.opened = Some(Opened {
            id: mask_connection_id(&key, reply.masked_id),
            key,
        });
        Ok(())
    }
}

/// A client that resumes a session.
///
/// When [`reply`](Self::reply) gives the server's answer, the driver looks at the counts and, if the session can go on with them,
/// calls [`confirm`](Self::confirm).
#[derive(Debug)]
pub struct ClientResume {
    key: SessionKey,
    wire: Wire,
    reply: Option<ResumeReply>,
}

impl ClientResume {
    /// Starts with what is to be resumed, and this end's counts.
    pub fn new(session: &Opened, counts: Counts) -> Self {
        let request = ResumeRequest::new(session.id, counts, &session.key);
        Self {
            key: session.key.clone(),
            wire: Wire::new(&request.encode(), REPLY_LEN),
            reply: None,
        }
    }

    /// The server's answer, once it is there.
    pub fn reply(&self) -> Option<ResumeReply> {
        self.reply
    }

    /// Sends the proof that the request was no copy, if it was granted.
    pub fn confirm(&mut self) {
        if let Some(ResumeReply::Granted { challenge, .. }) = self.reply {
            self.wire
                .send(&self.key.prove(&challenge.get().to_le_bytes()).0, 0);
        }
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
        if let Some(message) = self.wire.receive::<REPLY_LEN>(bytes)? {
            self.reply = Some(ResumeReply::decode(&message).ok_or(HandshakeError::OutOfPlace)?);
        }
        Ok(())
    }
}

/// A server on a new link.
///
/// When [`hello`](Self::hello) gives what the client wants, the driver answers with [`open`](Self::open),
/// [`resume`](Self::resume) or [`refuse`](Self::refuse). After the first two the client has the word, and
/// [`is_proved`](Self::is_proved) tells when it has proved itself; before that nothing it said may have an effect on a session.
#[derive(Debug)]
pub struct ServerHandshake {
    wire: Wire,
    stage: Stage,
}

/// What a client wants of a new link.
#[derive(Clone, Copy, Debug)]
pub enum Hello {
    /// A session.
    Open(PublicKey),
    /// A session it had before.
    Resume(ResumeRequest),
}

#[derive(Debug)]
enum Stage {
    FirstByte,
    Open,
    Resume,
    Hello(Hello),
    Proof(SessionKey, u64),
    Proved,
    Refused,
}

impl Default for ServerHandshake {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerHandshake {
    /// The shorter of both first messages, so that nothing beyond either is read.
    pub(in crate::protocol) const SHORTEST: usize = OPEN_LEN;

    /// Waits for a client's first message.
    pub fn new() -> Self {
        Self {
            wire: Wire::new(&[], Self::SHORTEST),
            stage: Stage::FirstByte,
        }
    }

    /// What the client wants, once it has said so and until it is answered.
    pub fn hello(&self) -> Option<Hello> {
        match self.stage {
            Stage::Hello(hello) => Some(hello),
            _ => None,
        }
    }

    /// Answers a client that wants a session, and returns the session's key; `None` if that is not what it wants.
    pub fn open(
        &mut self,
        agreement: &KeyAgreement,
        id: u64,
        challenge: u64,
    ) -> Option<SessionKey> {
        let Some(Hello::Open(peer)) = self.hello() else {
            return None;
        };
        let key = agreement.agree(peer);
        let reply = OpenReply {
            public: agreement.public().to_bytes(),
            masked_id: mask_connection_id(&key, id),
            challenge,
        };
        self.wire.send(&reply.encode(), PROOF_LEN);
        self.stage = Stage::Proof(key.clone(), challenge);
        Some(key)
    }

    /// Lets a client go on that wants to resume the session with this key; `counts` are this end's. Does nothing for a client that wants
    /// something else.
    pub fn resume(&mut self, key: &SessionKey, counts: Counts, challenge: Challenge) {
        let Some(Hello::Resume(_)) = self.hello() else {
            return;
        };
        let reply = ResumeReply::Granted { counts, challenge };
        self.wire.send(&reply.encode(), PROOF_LEN);
        self.stage = Stage::Proof(key.clone(), challenge.get());
    }

    /// Tells a client that wants to resume a session that it cannot, now or later. Does nothing for a client that wants something else.
    pub fn refuse(&mut self) {
        let Some(Hello::Resume(_)) = self.hello() else {
            return;
        };
        self.wire.send(&ResumeReply::Refused.encode(), 0);
        self.stage = Stage::Refused;
    }

    /// Whether the client has proved that it holds the session's key, on this link.
    pub fn is_proved(&self) -> bool {
        matches!(self.stage, Stage::Proved)
    }
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
        if let (Stage::FirstByte, [first, ..]) = (&self.stage, bytes) {
            self.stage = match *first {
                OPEN => Stage::Open,
                RESUME => Stage::Resume,
                other => return Err(HandshakeError::FirstByte(other)),
            };
            if *first == RESUME {
                self.wire.expect(RESUME_LEN);
            }
        }
        match &self.stage {
            Stage::FirstByte => {}
            Stage::Open => {
                if let Some([_, public @ ..]) = self.wire.receive::<OPEN_LEN>(bytes)? {
                    let peer =
                        PublicKey::from_bytes(public).ok_or(HandshakeError::ZeroPublicKey)?;
                    self.stage = Stage::Hello(Hello::Open(peer));
                }
            }
            Stage::Resume => {
                if let Some([_, request @ ..]) = self.wire.receive::<RESUME_LEN>(bytes)? {
                    self.stage = Stage::Hello(Hello::Resume(ResumeRequest::decode(&request)));
                }
            }
            Stage::Proof(key, challenge) => {
                if let Some(proof) = self.wire.receive::<PROOF_LEN>(bytes)? {
                    if !key.verify(&challenge.to_le_bytes(), &Proof(proof)) {
                        return Err(HandshakeError::Proof);
                    }
                    self.stage = Stage::Proved;
                }
            }
            Stage::Hello(_) | Stage::Proved | Stage::Refused => {
                return Err(HandshakeError::OutOfPlace);
            }
        }
        Ok(())
    }
}
