//! The frames of an attached link (`docs/PROTOCOL.md`, native: "Frames").

use std::{fmt, time::Duration};

use super::bytes::{HEADER_LEN, Reader, Writer, header};
use crate::error::{ProtocolError, RejectCode};

/// The most bytes one DATA frame carries.
pub const MAX_DATA: usize = 65_536;
/// The longest payload that a frame's header can announce.
pub const MAX_FRAME: usize = (1 << 24) - 1;
/// The most bytes a [`Head`] holds: a CONFIRM, an ATTACH, a PING, a PONG and the header of a DATA frame; or one of each frame that a
/// session sends later.
pub const HEAD_LEN: usize = 100;

pub(super) const DATA: u8 = 0x00;
const ACK: u8 = 0x01;
const FIN: u8 = 0x02;
const RESET: u8 = 0x03;
const PING: u8 = 0x04;
const PONG: u8 = 0x05;
pub(super) const ATTACH: u8 = 0x06;
pub(super) const OPEN: u8 = 0x10;
pub(super) const OPENED: u8 = 0x11;
pub(super) const RESUME: u8 = 0x12;
pub(super) const RESUMED: u8 = 0x13;
pub(super) const CONFIRM: u8 = 0x14;
pub(super) const REJECT: u8 = 0x15;
/// Set in the types that a peer skips if it does not know them.
const SKIPPED: u8 = 0x80;

/// Length of an ACK's payload.
const ACK_LEN: usize = 16;
/// Length of an ATTACH's payload, the longest of those below.
const ATTACH_LEN: usize = 24;
/// Length of a REJECT's payload.
pub(super) const REJECT_LEN: usize = 6;
/// The longest frame with its header, DATA's payload apart.
const LONGEST: usize = HEADER_LEN + ATTACH_LEN;

/// A frame of an attached link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The header of a DATA frame; the payload follows.
    Data {
        /// The bytes of the payload: 1 to [`MAX_DATA`].
        len: usize,
    },
    /// How far the stream has come, and how far it may go on. Each is absolute, and holds if it is the greatest so far.
    Ack {
        /// The offset up to which the sender of this frame has received, FIN counted.
        received: u64,
        /// The offset up to which it takes bytes.
        limit: u64,
    },
    /// The end of this direction.
    Fin,
    /// The session is over.
    Reset {
        /// Why, see [`reset`](super::reset).
        code: u32,
    },
    /// To be answered by a PONG with the same number.
    Ping(u64),
    /// Answers a PING.
    Pong(u64),
    /// The first frame of either side.
    Attach {
        /// The offset of this link's first DATA byte.
        from: u64,
        /// As in [`Ack`](Self::Ack).
        received: u64,
        /// As in [`Ack`](Self::Ack).
        limit: u64,
    },
    /// A server could not go on with the CONFIRM.
    Reject(Reject),
}

impl Frame {
    /// Its type, as it stands on the wire.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Data { .. } => DATA,
            Self::Ack { .. } => ACK,
            Self::Fin => FIN,
            Self::Reset { .. } => RESET,
            Self::Ping(_) => PING,
            Self::Pong(_) => PONG,
            Self::Attach { .. } => ATTACH,
            Self::Reject(_) => REJECT,
        }
    }

    /// As it stands on the wire; of DATA the header.
    pub(super) fn encode(&self) -> Writer<LONGEST> {
        let kind = self.kind();
        match *self {
            Self::Data { len } => {
                debug_assert!((1..=MAX_DATA).contains(&len), "DATA of {len} bytes");
                Writer::new(kind, len)
            }
            Self::Ack { received, limit } => Writer::new(kind, ACK_LEN).u64(received).u64(limit),
            Self::Fin => Writer::new(kind, 0),
            Self::Reset { code } => Writer::new(kind, 4).u32(code),
            Self::Ping(number) | Self::Pong(number) => Writer::new(kind, 8).u64(number),
            Self::Attach {
                from,
                received,
                limit,
            } => Writer::new(kind, ATTACH_LEN)
                .u64(from)
                .u64(received)
                .u64(limit),
            Self::Reject(reject) => Writer::new(kind, REJECT_LEN)
                .u16(reject.code.code())
                .u32(millis(reject.retry_after)),
        }
    }
}

/// What a server says in place of going on with a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Why.
    pub code: RejectCode,
    /// How long the client should wait before it tries again, if that can help; 0 leaves it to the client. On the wire it is in whole
    /// milliseconds, 2^32 − 1 of them at most.
    pub retry_after: Duration,
}

/// Whole milliseconds, as many as 32 bits hold at most.
pub(super) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

impl Reject {
    pub(super) fn decode(payload: &[u8; REJECT_LEN]) -> Self {
        let mut fields = Reader(payload);
        Self {
            code: RejectCode::from(fields.u16()),
            retry_after: Duration::from_millis(fields.u32().into()),
        }
    }
}

/// Frames to be handed to a link: control frames, and at the end perhaps the header of a DATA frame. It takes no memory elsewhere.
#[derive(Clone)]
pub struct Head {
    bytes: [u8; HEAD_LEN],
    /// What the link has taken ends here, at most at `end`.
    start: u8,
    end: u8,
}

impl Head {
    /// Without a frame.
    pub const fn new() -> Self {
        Self {
            bytes: [0; HEAD_LEN],
            start: 0,
            end: 0,
        }
    }

    /// Appends a frame, of DATA the header. False, and nothing appended, if there is no room for it.
    #[must_use]
    pub fn push(&mut self, frame: &Frame) -> bool {
        self.push_bytes(frame.encode().as_bytes())
    }

    /// Appends bytes that are a frame, such as a CONFIRM. False, and nothing appended, if there is no room for them.
    #[must_use]
    pub fn push_bytes(&mut self, frame: &[u8]) -> bool {
        let len = self.as_bytes().len();
        if frame.len() > HEAD_LEN - len {
            return false;
        }
        self.bytes
            .copy_within(usize::from(self.start)..self.end.into(), 0);
        self.bytes[len..len + frame.len()].copy_from_slice(frame);
        self.start = 0;
        // At most HEAD_LEN.
        self.end = (len + frame.len()) as u8;
        true
    }

    /// What the link has not taken yet.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start.into()..self.end.into()]
    }

    /// Whether the link has taken everything.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The link has taken `count` bytes of [`as_bytes`](Self::as_bytes).
    pub fn advance(&mut self, count: usize) {
        let left = self.as_bytes().len();
        if count >= left {
            self.clear();
        } else {
            // Less than `left`, which is at most HEAD_LEN.
            self.start += count as u8;
        }
    }

    /// Forgets what the link has not taken.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }
}

impl Default for Head {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Head").field(&self.as_bytes()).finish()
    }
}

/// Takes a link's bytes apart, however they were cut. It holds a header and a control frame's payload at most, and takes no memory elsewhere.
///
/// A link's decoder starts behind the last byte of its handshake.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// The frame that is coming in, as far as `have`: its header, and the payload of one that is no DATA and not skipped.
    frame: [u8; LONGEST],
    have: u8,
    /// Whether what is `left` is skipped. Otherwise it is DATA's.
    skipping: bool,
    /// What is still to come of a DATA frame's payload, or of a skipped one's.
    left: u32,
    /// The longest payload that is skipped.
    most: u32,
}

/// What a [`Decoder`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A frame. Of DATA it is the header: before any of the payload.
    Frame(Frame),
    /// That many bytes of a DATA frame's payload: exactly the bytes consumed, and never 0.
    Payload(usize),
}

/// What is to be done with a frame, its header says.
enum Class {
    Data,
    Control,
    Skip,
}

impl Decoder {
    /// At the start of a frame. Those of unknown types are skipped up to [`MAX_DATA`].
    pub const fn new() -> Self {
        Self::with_max_frame(MAX_DATA)
    }

    /// The same, but those of unknown types are skipped up to `bytes` bytes of payload. Of DATA it takes [`MAX_DATA`] whatever that is.
    pub const fn with_max_frame(bytes: usize) -> Self {
        let most = if bytes < MAX_FRAME { bytes } else { MAX_FRAME };
        Self {
            frame: [0; LONGEST],
            have: 0,
            skipping: false,
            left: 0,
            most: most as u32,
        }
    }

    /// How many bytes of the DATA frame under way are still to come.
    pub fn data_left(&self) -> usize {
        if self.skipping { 0 } else { self.left as usize }
    }

    /// Takes bytes off the front of `input`: how many, and what they brought. Without an item all of `input` has been consumed; otherwise
    /// call it again with the rest.
    ///
    /// # Errors
    ///
    /// A frame that is unknown, has a wrong length, is too long to be skipped, or belongs to a handshake. Every later call returns the same.
    pub fn decode(&mut self, input: &[u8]) -> Result<(usize, Option<Item>), ProtocolError> {
        let data = self.data_left();
        if data > 0 && !input.is_empty() {
            let count = input.len().min(data);
            // At most `left`.
            self.left -= count as u32;
            return Ok((count, Some(Item::Payload(count))));
        }
        let mut used = 0;
        loop {
            if self.skipping {
                let skipped = (input.len() - used).min(self.left as usize);
                // At most `left`.
                self.left -= skipped as u32;
                self.skipping = self.left > 0;
                used += skipped;
            }

            used += self.fill(&input[used..], HEADER_LEN);
            if self.complete(HEADER_LEN).is_none() {
                return Ok((used, None));
            }
            let [kind, a, b, c, ..] = self.frame;
            let (kind, len) = header([kind, a, b, c]);
            match classify(kind, len)? {
                Class::Data => {
                    self.have = 0;
                    self.left = len;
                    let len = len as usize;
                    return Ok((used, Some(Item::Frame(Frame::Data { len }))));
                }
                Class::Skip if len > self.most => {
                    return Err(ProtocolError::TooLong { frame: kind, len });
                }
                Class::Skip => {
                    self.have = 0;
                    self.skipping = true;
                    self.left = len;
                }
                Class::Control => {
                    let whole = HEADER_LEN + len as usize;
                    used += self.fill(&input[used..], whole);
                    let Some(frame) = self.complete(whole) else {
                        return Ok((used, None));
                    };
                    let frame = control(kind, &frame[HEADER_LEN..])?;
                    self.have = 0;
                    return Ok((used, Some(Item::Frame(frame))));
                }
            }
        }
    }

    /// Keeps what is missing of the frame's first `end` bytes, as far as `input` goes; says how many that were.
    fn fill(&mut self, input: &[u8], end: usize) -> usize {
        let have = usize::from(self.have);
        let count = input.len().min(end.saturating_sub(have));
        self.frame[have..have + count].copy_from_slice(&input[..count]);
        // At most LONGEST together.
        self.have += count as u8;
        count
    }

    /// The frame's first `end` bytes, if all of them are there.
    fn complete(&self, end: usize) -> Option<&[u8]> {
        (usize::from(self.have) >= end).then(|| &self.frame[..end])
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

/// What a header announces on an attached link.
fn classify(kind: u8, len: u32) -> Result<Class, ProtocolError> {
    let expected = match kind {
        DATA if (1..=MAX_DATA).contains(&(len as usize)) => return Ok(Class::Data),
        DATA => return Err(ProtocolError::Length { frame: kind, len }),
        FIN => 0,
        RESET => 4,
        REJECT => REJECT_LEN,
        PING | PONG => 8,
        ACK => ACK_LEN,
        ATTACH => ATTACH_LEN,
        _ if kind & SKIPPED != 0 => return Ok(Class::Skip),
        _ => return Err(misplaced(kind)),
    };
    if len as usize == expected {
        Ok(Class::Control)
    } else {
        Err(ProtocolError::Length { frame: kind, len })
    }
}

/// What is wrong with a frame of this type where another one is expected.
pub(super) fn misplaced(kind: u8) -> ProtocolError {
    match kind {
        DATA..=ATTACH | OPEN..=REJECT => ProtocolError::OutOfPlace(kind),
        _ => ProtocolError::UnknownFrame(kind),
    }
}

/// The control frame with this payload, whose length its class has vouched for.
fn control(kind: u8, payload: &[u8]) -> Result<Frame, ProtocolError> {
    let mut fields = Reader(payload);
    Ok(match kind {
        ACK => Frame::Ack {
            received: fields.u64(),
            limit: fields.u64(),
        },
        FIN => Frame::Fin,
        RESET => Frame::Reset { code: fields.u32() },
        PING => Frame::Ping(fields.u64()),
        PONG => Frame::Pong(fields.u64()),
        ATTACH => Frame::Attach {
            from: fields.u64(),
            received: fields.u64(),
            limit: fields.u64(),
        },
        REJECT => Frame::Reject(Reject::decode(&fields.array())),
        _ => return Err(misplaced(kind)),
    })
}

#[cfg(test)]
mod tests;
