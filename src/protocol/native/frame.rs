//! The frames of an attached link (`docs/PROTOCOL.md`, native: "Frames").

use std::{fmt, time::Duration};

use super::bytes::{HEADER_LEN, Reader, Writer, header};
use crate::error::{ProtocolError, RejectCode};

/// The most bytes one DATA frame carries.
pub const MAX_DATA: usize = 65_536;
/// The most bytes a [`Head`] holds: a CONFIRM, an ATTACH, a PING and a PONG; or one of each frame that a session sends later.
pub const HEAD_LEN: usize = 96;

pub(super) const DATA: u8 = 0x00;
const ACK: u8 = 0x01;
const FIN: u8 = 0x02;
const RESET: u8 = 0x03;
const PING: u8 = 0x04;
const PONG: u8 = 0x05;
const ATTACH: u8 = 0x06;
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
    /// What is still to come of a DATA frame's payload.
    data: u32,
    /// What is still to come of a skipped frame's payload.
    skip: u32,
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
    /// At the start of a frame.
    pub const fn new() -> Self {
        Self {
            frame: [0; LONGEST],
            have: 0,
            data: 0,
            skip: 0,
        }
    }

    /// How many bytes of the DATA frame under way are still to come.
    pub fn data_left(&self) -> usize {
        self.data as usize
    }

    /// Takes bytes off the front of `input`: how many, and what they brought. Without an item all of `input` has been consumed; otherwise
    /// call it again with the rest.
    ///
    /// # Errors
    ///
    /// A frame that is unknown, has a wrong length, or belongs to a handshake. Every later call returns the same.
    pub fn decode(&mut self, input: &[u8]) -> Result<(usize, Option<Item>), ProtocolError> {
        if self.data > 0 && !input.is_empty() {
            let count = input.len().min(self.data as usize);
            // At most `data`.
            self.data -= count as u32;
            return Ok((count, Some(Item::Payload(count))));
        }
        let mut used = 0;
        loop {
            let skipped = (input.len() - used).min(self.skip as usize);
            // At most `skip`.
            self.skip -= skipped as u32;
            used += skipped;

            used += self.fill(&input[used..], HEADER_LEN);
            let Some(head) = self.complete(HEADER_LEN) else {
                return Ok((used, None));
            };
            let mut bytes = [0; HEADER_LEN];
            bytes.copy_from_slice(head);
            let (kind, len) = header(bytes);
            match classify(kind, len)? {
                Class::Data => {
                    self.have = 0;
                    self.data = len;
                    let len = len as usize;
                    return Ok((used, Some(Item::Frame(Frame::Data { len }))));
                }
                Class::Skip => {
                    self.have = 0;
                    self.skip = len;
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ACKED: Frame = Frame::Ack {
        received: 0x0102_0304_0506_0708,
        limit: 9,
    };
    const ATTACHED: Frame = Frame::Attach {
        from: 1,
        received: 2,
        limit: 3,
    };
    const REJECTED: Frame = Frame::Reject(Reject {
        code: RejectCode::Busy,
        retry_after: Duration::from_millis(0x0a0b_0c0d),
    });

    /// What a link carries.
    #[derive(Clone, Debug)]
    enum Sent {
        Frame(Frame),
        Data(Vec<u8>),
        Skipped(u8, usize),
    }

    impl Sent {
        fn put(&self, wire: &mut Vec<u8>) {
            match self {
                Self::Frame(frame) => wire.extend(bytes(frame)),
                Self::Data(payload) => {
                    wire.extend(bytes(&Frame::Data { len: payload.len() }));
                    wire.extend(payload);
                }
                Self::Skipped(kind, len) => {
                    let [_, a, b, c] = (*len as u32).to_be_bytes();
                    wire.extend([*kind, a, b, c]);
                    wire.resize(wire.len() + len, 0x5a);
                }
            }
        }

        /// The frames a decoder gives for it, and the payload.
        fn expect(&self, frames: &mut Vec<Frame>, payloads: &mut Vec<u8>) {
            match self {
                Self::Frame(frame) => frames.push(*frame),
                Self::Data(payload) => {
                    frames.push(Frame::Data { len: payload.len() });
                    payloads.extend(payload);
                }
                Self::Skipped(..) => {}
            }
        }
    }

    fn bytes(frame: &Frame) -> Vec<u8> {
        let mut head = Head::new();
        assert!(head.push(frame));
        head.as_bytes().to_vec()
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        prop_oneof![
            any::<(u64, u64)>().prop_map(|(received, limit)| Frame::Ack { received, limit }),
            Just(Frame::Fin),
            any::<u32>().prop_map(|code| Frame::Reset { code }),
            any::<u64>().prop_map(Frame::Ping),
            any::<u64>().prop_map(Frame::Pong),
            any::<(u64, u64, u64)>().prop_map(|(from, received, limit)| Frame::Attach {
                from,
                received,
                limit
            }),
            any::<(u16, u32)>().prop_map(|(code, millis)| Frame::Reject(Reject {
                code: code.into(),
                retry_after: Duration::from_millis(millis.into()),
            })),
        ]
    }

    fn any_sent() -> impl Strategy<Value = Sent> {
        prop_oneof![
            4 => any_frame().prop_map(Sent::Frame),
            3 => proptest::collection::vec(any::<u8>(), 1..200).prop_map(Sent::Data),
            1 => (SKIPPED..=u8::MAX, 0..300_usize).prop_map(|(kind, len)| Sent::Skipped(kind, len)),
        ]
    }

    /// The frames and the payload; or the frames up to what is wrong.
    type Decoded = Result<(Vec<Frame>, Vec<u8>), (Vec<Frame>, ProtocolError)>;

    /// Decodes the pieces of `wire` between `cuts`, holding the decoder to what it says of itself.
    fn decode(wire: &[u8], cuts: &[usize]) -> Decoded {
        let mut decoder = Decoder::new();
        let mut frames = Vec::new();
        let mut payloads = Vec::new();
        let mut at = 0;
        let ends = cuts.iter().map(|cut| cut % (wire.len() + 1));
        let mut ends: Vec<usize> = ends.chain([wire.len()]).collect();
        ends.sort_unstable();
        for end in ends {
            loop {
                let left = decoder.data_left();
                let decoded = decoder.decode(&wire[at..end]);
                if let Err(error) = decoded {
                    assert_eq!(decoder.decode(b"more"), Err(error), "an error stays");
                }
                let (used, item) = decoded.map_err(|error| (frames.clone(), error))?;
                let input = &wire[at..end];
                at += used;
                match item {
                    None => {
                        assert_eq!(used, input.len(), "all is consumed");
                        break;
                    }
                    Some(Item::Payload(count)) => {
                        assert!(count == used && (1..=left).contains(&count));
                        assert_eq!(decoder.data_left(), left - count);
                        payloads.extend(&input[..count]);
                    }
                    Some(Item::Frame(frame)) => {
                        assert_eq!(left, 0, "no frame within another");
                        if let Frame::Data { len } = frame {
                            assert_eq!(decoder.data_left(), len);
                        }
                        frames.push(frame);
                    }
                }
            }
        }
        Ok((frames, payloads))
    }

    #[test]
    fn each_frame_is_these_bytes() {
        let rows: [(Frame, &[u8]); 8] = [
            (Frame::Data { len: 65_536 }, b"\x00\x01\x00\x00"),
            (
                ACKED,
                b"\x01\0\0\x10\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\0\0\0\0\x09",
            ),
            (Frame::Fin, b"\x02\0\0\0"),
            (
                Frame::Reset { code: 0xffff_ff01 },
                b"\x03\0\0\x04\xff\xff\xff\x01",
            ),
            (Frame::Ping(1), b"\x04\0\0\x08\0\0\0\0\0\0\0\x01"),
            (Frame::Pong(2), b"\x05\0\0\x08\0\0\0\0\0\0\0\x02"),
            (
                ATTACHED,
                b"\x06\0\0\x18\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03",
            ),
            (REJECTED, b"\x15\0\0\x06\x00\x05\x0a\x0b\x0c\x0d"),
        ];
        for (frame, expected) in rows {
            assert_eq!(bytes(&frame), expected, "{frame:?}");
            assert_eq!(frame.kind(), expected[0]);
        }
    }

    #[test]
    fn a_retry_after_too_long_for_the_wire_is_the_longest() {
        let reject = |retry_after| Reject {
            code: RejectCode::Busy,
            retry_after,
        };
        let longest = reject(Duration::from_millis(u32::MAX.into()));
        assert_eq!(
            bytes(&Frame::Reject(reject(Duration::MAX))),
            bytes(&Frame::Reject(longest))
        );
    }

    #[test]
    fn only_the_lengths_of_a_type_are_taken() {
        for kind in 0..=u8::MAX {
            for len in (0..=300).chain([65_535, 65_536, 65_537, 0xff_ffff]) {
                let [_, a, b, c] = u32::to_be_bytes(len);
                let decoded = Decoder::new().decode(&[kind, a, b, c]);
                let wrong = Err(ProtocolError::Length { frame: kind, len });
                let expected = match kind {
                    0x00 if (1..=65_536).contains(&len) => {
                        let len = len as usize;
                        Ok((4, Some(Item::Frame(Frame::Data { len }))))
                    }
                    0x02 if len == 0 => Ok((4, Some(Item::Frame(Frame::Fin)))),
                    0x01 if len == 16 => Ok((4, None)),
                    0x03 if len == 4 => Ok((4, None)),
                    0x04 | 0x05 if len == 8 => Ok((4, None)),
                    0x06 if len == 24 => Ok((4, None)),
                    0x15 if len == 6 => Ok((4, None)),
                    0x00..=0x06 | 0x15 => wrong,
                    0x10..=0x14 => Err(ProtocolError::OutOfPlace(kind)),
                    0x80.. => Ok((4, None)),
                    _ => Err(ProtocolError::UnknownFrame(kind)),
                };
                assert_eq!(decoded, expected, "type {kind:#04x}, length {len}");
            }
        }
    }

    #[test]
    fn the_longest_frame_to_be_skipped_is_skipped_without_being_held() {
        let mut wire = Vec::new();
        Sent::Skipped(0x80, 0xff_ffff).put(&mut wire);
        Sent::Frame(Frame::Fin).put(&mut wire);
        assert_eq!(decode(&wire, &[70_000]), Ok((vec![Frame::Fin], vec![])));
        assert!(size_of::<Decoder>() <= 40);
    }

    #[test]
    fn a_head_has_room_for_the_first_frames_of_a_link_and_gives_it_back() {
        let mut head = Head::new();
        assert!(head.push_bytes(&[0x14; 44]));
        for frame in [ATTACHED, Frame::Ping(1), Frame::Pong(1)] {
            assert!(head.push(&frame));
        }
        assert_eq!(head.as_bytes().len(), HEAD_LEN);
        assert!(!head.push(&Frame::Fin), "there is no room for it");
        let before = head.as_bytes().to_vec();
        head.advance(4);
        assert!(head.push(&Frame::Fin));
        assert_eq!(
            head.as_bytes(),
            [&before[4..], &bytes(&Frame::Fin)].concat()
        );
        head.advance(HEAD_LEN);
        assert!(head.is_empty());
    }

    proptest! {
        #[test]
        fn frames_cut_anywhere_come_out_as_they_went_in(
            sent in proptest::collection::vec(any_sent(), 0..30),
            cuts in proptest::collection::vec(any::<usize>(), 0..40),
        ) {
            let (mut wire, mut frames, mut payloads) = (Vec::new(), Vec::new(), Vec::new());
            for sent in &sent {
                sent.put(&mut wire);
                sent.expect(&mut frames, &mut payloads);
            }
            let expected = Ok((frames, payloads));
            prop_assert_eq!(&decode(&wire, &cuts), &expected);
            let everywhere: Vec<usize> = (0..wire.len()).collect();
            prop_assert_eq!(&decode(&wire, &everywhere), &expected);
        }

        #[test]
        fn any_bytes_come_out_alike_however_they_are_cut(
            sent in proptest::collection::vec(any_sent(), 0..4),
            noise in proptest::collection::vec(prop_oneof![0..=0x15_u8, any::<u8>()], 0..200),
            cuts in proptest::collection::vec(any::<usize>(), 0..20),
        ) {
            let mut wire = Vec::new();
            for sent in &sent {
                sent.put(&mut wire);
            }
            wire.extend(noise);
            prop_assert_eq!(decode(&wire, &cuts), decode(&wire, &[]));
        }
    }
}
