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
    decode_with(Decoder::new(), wire, cuts)
}

fn decode_with(mut decoder: Decoder, wire: &[u8], cuts: &[usize]) -> Decoded {
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
                0x80.. if len <= 65_536 => Ok((4, None)),
                0x80.. => Err(ProtocolError::TooLong { frame: kind, len }),
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
    let decoder = Decoder::with_max_frame(MAX_FRAME);
    let decoded = decode_with(decoder, &wire, &[70_000]);
    assert_eq!(decoded, Ok((vec![Frame::Fin], vec![])));
    assert!(size_of::<Decoder>() <= 40);
}

#[test]
fn a_frame_that_is_too_long_to_be_skipped_is_refused_by_its_header_and_no_other_frame_is() {
    for most in [MAX_DATA, 70_000, MAX_FRAME - 1, MAX_FRAME, usize::MAX] {
        for len in [MAX_DATA, MAX_DATA + 1, 70_000, 70_001, MAX_FRAME] {
            let mut wire = Vec::new();
            Sent::Data(vec![7; MAX_DATA]).put(&mut wire);
            Sent::Skipped(0xfe, len).put(&mut wire);
            let decoded = decode_with(Decoder::with_max_frame(most), &wire, &[9, MAX_DATA + 6]);
            let data = Frame::Data { len: MAX_DATA };
            if len <= most {
                assert_eq!(decoded, Ok((vec![data], vec![7; MAX_DATA])));
            } else {
                let len = len as u32;
                let error = ProtocolError::TooLong { frame: 0xfe, len };
                assert_eq!(decoded, Err((vec![data], error)));
            }
        }
    }
}

#[test]
fn a_head_has_room_for_the_first_frames_of_a_link_and_gives_it_back() {
    let mut head = Head::new();
    assert!(head.push_bytes(&[0x14; 44]));
    let data = Frame::Data { len: 1 };
    for frame in [ATTACHED, Frame::Ping(1), Frame::Pong(1), data] {
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
