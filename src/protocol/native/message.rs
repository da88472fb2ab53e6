//! The messages of native's handshakes, each one frame (`docs/PROTOCOL.md`, native: "Open", "Resume"). Their `decode` takes the payload.

use std::time::Duration;

use super::{
    Id, Nonce, Opened, SessionSecret,
    bytes::{HEADER_LEN, Reader, Writer},
    frame::{CONFIRM, OPEN, OPENED, RESUME, RESUMED, millis},
    proof::{PROOF_LEN, Proof},
};

/// Length of OPEN's payload.
pub(super) const OPEN_PAYLOAD: usize = 8;
/// Length of OPENED's.
pub(super) const OPENED_PAYLOAD: usize = 64;
/// Length of RESUME's.
pub(super) const RESUME_PAYLOAD: usize = 44;
/// Length of RESUMED's.
pub(super) const RESUMED_PAYLOAD: usize = 56;
/// Length of CONFIRM's.
pub(super) const CONFIRM_PAYLOAD: usize = 8 + PROOF_LEN;
/// Length of a CONFIRM frame, header included.
pub const CONFIRM_LEN: usize = HEADER_LEN + CONFIRM_PAYLOAD;

/// A client wants a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub(super) window: u64,
}

impl Open {
    pub(super) fn encode(self) -> [u8; HEADER_LEN + OPEN_PAYLOAD] {
        Writer::new(OPEN, OPEN_PAYLOAD).u64(self.window).finish()
    }

    pub(super) fn decode(payload: &[u8; OPEN_PAYLOAD]) -> Self {
        Self {
            window: Reader(payload).u64(),
        }
    }
}

impl Opened {
    pub(super) fn encode(&self) -> [u8; HEADER_LEN + OPENED_PAYLOAD] {
        Writer::new(OPENED, OPENED_PAYLOAD)
            .put(&self.id)
            .put(self.secret.as_bytes())
            .u32(self.route)
            .u64(self.window)
            .u32(millis(self.resume_window))
            .finish()
    }

    pub(super) fn decode(payload: &[u8; OPENED_PAYLOAD]) -> Self {
        let mut fields = Reader(payload);
        Self {
            id: fields.array(),
            secret: SessionSecret::new(fields.array()),
            route: fields.u32(),
            window: fields.u64(),
            resume_window: Duration::from_millis(fields.u32().into()),
        }
    }
}

/// A client wants a session it had.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resume {
    pub(super) id: Id,
    pub(super) attempt: u32,
    pub(super) nonce: Nonce,
    pub(super) received: u64,
}

impl Resume {
    pub(super) fn encode(self) -> [u8; HEADER_LEN + RESUME_PAYLOAD] {
        Writer::new(RESUME, RESUME_PAYLOAD)
            .put(&self.id)
            .u32(self.attempt)
            .put(&self.nonce)
            .u64(self.received)
            .finish()
    }

    pub(super) fn decode(payload: &[u8; RESUME_PAYLOAD]) -> Self {
        let mut fields = Reader(payload);
        Self {
            id: fields.array(),
            attempt: fields.u32(),
            nonce: fields.array(),
            received: fields.u64(),
        }
    }
}

/// The server has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resumed {
    pub(super) nonce: Nonce,
    pub(super) received: u64,
    pub(super) proof: Proof,
}

impl Resumed {
    pub(super) fn encode(&self) -> [u8; HEADER_LEN + RESUMED_PAYLOAD] {
        Writer::new(RESUMED, RESUMED_PAYLOAD)
            .put(&self.nonce)
            .u64(self.received)
            .put(&self.proof)
            .finish()
    }

    pub(super) fn decode(payload: &[u8; RESUMED_PAYLOAD]) -> Self {
        let mut fields = Reader(payload);
        Self {
            nonce: fields.array(),
            received: fields.u64(),
            proof: fields.array(),
        }
    }
}

/// The client proves that it was no copy that spoke.
#[derive(Clone, Copy, Debug)]
pub(super) struct Confirm {
    pub(super) received: u64,
    pub(super) proof: Proof,
}

impl Confirm {
    pub(super) fn encode(&self) -> [u8; CONFIRM_LEN] {
        Writer::new(CONFIRM, CONFIRM_PAYLOAD)
            .u64(self.received)
            .put(&self.proof)
            .finish()
    }

    pub(super) fn decode(payload: &[u8; CONFIRM_PAYLOAD]) -> Self {
        let mut fields = Reader(payload);
        Self {
            received: fields.u64(),
            proof: fields.array(),
        }
    }
}
