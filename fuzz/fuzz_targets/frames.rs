//! native's frames: whatever comes in, and however it is cut up, the decoder says what a simple one says that sees all of it at once.

#![no_main]

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use unbroken::{
    ProtocolError,
    protocol::native::{Decoder, Frame, HEAD_LEN, Head, Item, MAX_DATA},
};
use unbroken_fuzz::input::{Pieces, rest, size};

/// What a link says, however it was cut up.
#[derive(Debug, PartialEq, Eq)]
enum Said<'a> {
    Frame(Frame),
    /// What has come of a DATA frame's payload.
    Payload(&'a [u8]),
    Wrong(ProtocolError),
}

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let pieces = Pieces::draw(&mut input);
    let most = size(&mut input);
    let wire = rest(&mut input);

    let expected = reference(wire, most);
    for pieces in [Pieces::WHOLE, pieces, Pieces::new([1; 4])] {
        assert_eq!(decode(wire, pieces, most), expected);
    }
    encode(&expected);
});

/// What the decoder says, pieces of one payload put together.
fn decode(wire: &[u8], mut pieces: Pieces, most: usize) -> Vec<Said<'_>> {
    let mut decoder = Decoder::with_max_frame(most);
    let mut said = Vec::new();
    let mut at = 0;
    // Where the payload that comes in started, and how long it is in all.
    let mut payload: Option<(usize, usize)> = None;
    while at < wire.len() {
        let end = at + pieces.next(wire.len() - at);
        while at < end {
            let (used, item) = match decoder.decode(&wire[at..end]) {
                Ok(decoded) => decoded,
                Err(error) => {
                    said.push(Said::Wrong(error));
                    let again = decoder.decode(&wire[end..]);
                    assert_eq!(again, Err(error), "wrong once, and not wrong for ever");
                    return said;
                }
            };
            assert!(used <= end - at, "more consumed than there was");
            match item {
                Some(Item::Frame(frame)) => {
                    assert_eq!(payload, None, "a frame within a payload");
                    if let Frame::Data { len } = frame {
                        assert!((1..=MAX_DATA).contains(&len));
                        payload = Some((at + used, len));
                    }
                    said.push(Said::Frame(frame));
                }
                Some(Item::Payload(count)) => {
                    assert_eq!(count, used);
                    assert!(count > 0);
                    let (start, len) = payload.expect("a payload without a frame");
                    let whole = start + len;
                    assert!(at + used <= whole, "more payload than its frame has");
                    if !matches!(said.last(), Some(Said::Payload(_))) {
                        said.push(Said::Payload(&[]));
                    }
                    if let Some(Said::Payload(bytes)) = said.last_mut() {
                        *bytes = &wire[start..at + used];
                    }
                    assert_eq!(decoder.data_left(), whole - at - used);
                    if at + used == whole {
                        payload = None;
                    }
                }
                None => assert_eq!(used, end - at, "something is left, and nothing found"),
            }
            at += used;
        }
    }
    said
}

/// What the table of frames says, if what is not known is skipped up to `most` bytes (`docs/PROTOCOL.md`, native: "Frames").
fn reference(wire: &[u8], most: usize) -> Vec<Said<'_>> {
    let mut said = Vec::new();
    let mut rest = wire;
    while let [kind, a, b, c, behind @ ..] = rest {
        let (kind, len) = (*kind, u32::from_be_bytes([0, *a, *b, *c]));
        let payload = &behind[..behind.len().min(len as usize)];
        let whole = payload.len() == len as usize;
        let fixed = match kind {
            0x01 => Some(16),
            0x02 => Some(0),
            0x03 => Some(4),
            0x04 | 0x05 => Some(8),
            0x06 => Some(24),
            0x15 => Some(6),
            _ => None,
        };
        match (kind, fixed) {
            (0x00, _) if (1..=65_536).contains(&len) => {
                said.push(Said::Frame(Frame::Data { len: len as usize }));
                if !payload.is_empty() {
                    said.push(Said::Payload(payload));
                }
            }
            (_, Some(fixed)) if fixed == len && whole => {
                said.push(Said::Frame(control(kind, payload)))
            }
            (_, Some(fixed)) if fixed == len => {}
            (0x00, _) | (_, Some(_)) => {
                let wrong = ProtocolError::Length { frame: kind, len };
                said.push(Said::Wrong(wrong));
                return said;
            }
            (0x10..=0x14, _) => {
                said.push(Said::Wrong(ProtocolError::OutOfPlace(kind)));
                return said;
            }
            (0x80.., _) if len as usize <= most => {}
            (0x80.., _) => {
                said.push(Said::Wrong(ProtocolError::TooLong { frame: kind, len }));
                return said;
            }
            _ => {
                said.push(Said::Wrong(ProtocolError::UnknownFrame(kind)));
                return said;
            }
        }
        rest = &behind[payload.len()..];
    }
    said
}

fn control(kind: u8, payload: &[u8]) -> Frame {
    let u64_at = |at: usize| u64::from_be_bytes(payload[at..at + 8].try_into().unwrap());
    let u32_at = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
    match kind {
        0x01 => Frame::Ack {
            received: u64_at(0),
            limit: u64_at(8),
        },
        0x02 => Frame::Fin,
        0x03 => Frame::Reset { code: u32_at(0) },
        0x04 => Frame::Ping(u64_at(0)),
        0x05 => Frame::Pong(u64_at(0)),
        0x06 => Frame::Attach {
            from: u64_at(0),
            received: u64_at(8),
            limit: u64_at(16),
        },
        _ => Frame::Reject(unbroken::protocol::native::Reject {
            code: u16::from_be_bytes([payload[0], payload[1]]).into(),
            retry_after: std::time::Duration::from_millis(u32_at(2).into()),
        }),
    }
}

/// What was read, written again, reads the same; and a head holds as much as it says.
fn encode(said: &[Said<'_>]) {
    let mut wire = Vec::new();
    let mut head = Head::new();
    let mut kept = Vec::new();
    for said in said {
        match said {
            Said::Frame(frame) => {
                let mut alone = Head::new();
                assert!(alone.push(frame), "a head holds any frame");
                let fits = kept.len() + alone.as_bytes().len() <= HEAD_LEN;
                assert_eq!(head.push(frame), fits);
                if fits {
                    kept.extend(alone.as_bytes());
                } else {
                    let taken = kept.len() / 2;
                    head.advance(taken);
                    kept.drain(..taken);
                }
                assert_eq!(head.as_bytes(), kept);
                wire.extend(alone.as_bytes());
            }
            Said::Payload(bytes) => wire.extend(*bytes),
            Said::Wrong(_) => {}
        }
    }
    let again = decode(&wire, Pieces::WHOLE, 0);
    let right = said.iter().filter(|said| !matches!(said, Said::Wrong(_)));
    assert!(
        again.iter().eq(right),
        "{again:?} was written, and {said:?} read"
    );
}
