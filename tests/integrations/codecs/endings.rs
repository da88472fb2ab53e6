//! How a stream of frames ends: in order, within a frame, or with its session.

use std::{fmt::Debug, io};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::{io::AsyncWriteExt, time::sleep};
use tokio_util::codec::{Decoder, Framed, LengthDelimitedCodec, LinesCodec, LinesCodecError};
use unbroken::{CloseReason, Error, Listener, Refusal, ResumableTransport};

use super::own::{Decoded, Differences};
use crate::{
    bed::{Bed, POLL, Spoken, over_each, over_native},
    cutting_proxy::Close,
};

over_each!(
    a_closed_sink_has_been_delivered_and_is_read_to_its_end,
    a_session_that_dies_within_a_frame_is_an_error_of_the_codec,
);
over_native!(a_stream_that_is_shut_down_within_a_frame_is_for_the_codec_to_judge);

async fn pair(bed: &Bed, listener: &mut Listener) -> (ResumableTransport, ResumableTransport) {
    let client = bed.connect().await;
    let (server, _) = listener.accept().await.expect("a session");
    (client, server)
}

fn frame(number: u32) -> Bytes {
    number.to_be_bytes().repeat(number as usize % 100).into()
}

async fn a_closed_sink_has_been_delivered_and_is_read_to_its_end(spoken: Spoken) {
    // Less than a window of them, so that nobody has to read.
    const FRAMES: u32 = 3_000;

    let (bed, mut listener) = Bed::paced(spoken).await;
    let (client, server) = pair(&bed, &mut listener).await;
    let mut to_client = Framed::new(server, LengthDelimitedCodec::new());
    let mut from_server = Framed::new(client, LengthDelimitedCodec::new());
    for number in 0..FRAMES {
        let frame = frame(number);
        to_client.feed(frame).await.expect("takes a frame");
    }
    SinkExt::<Bytes>::close(&mut to_client)
        .await
        .expect("delivers them");
    if spoken.tells_the_end() {
        // No link from now on: what was delivered is all there is.
        bed.proxy.set_refusing(true);
        bed.proxy.cut_now(Close::Reset);
    }
    for number in 0..FRAMES {
        let received = from_server.next().await.expect("a frame");
        assert_eq!(received.expect("a whole one"), frame(number));
    }
    if spoken.tells_the_end() {
        let end = from_server.next().await;
        assert!(end.is_none(), "{end:?}");
    } else {
        drop(to_client);
        let error = from_server.next().await.expect("no clean end");
        assert_died(spoken, error.expect_err("no frame"));
    }
    bed.assert_cut(3);
}

/// Bytes of a frame: many times what a link carries, and with a half behind less than a window.
const LENGTH: usize = 400_000;

/// The bytes of whole frames and half of one.
struct AndAHalf(Vec<u8>);

impl AndAHalf {
    fn length_delimited() -> Self {
        let mut frame = (LENGTH as u32).to_be_bytes().to_vec();
        frame.resize(4 + LENGTH, b'x');
        let half = frame[..LENGTH / 2].to_vec();
        Self([frame, half].concat())
    }

    fn lines() -> Self {
        Self(
            ["x".repeat(LENGTH), "y".repeat(LENGTH / 2)]
                .join("\n")
                .into(),
        )
    }

    /// The top bit of a value's last byte is what the second lacks.
    fn differences() -> Self {
        Self([[0x81; LENGTH].as_slice(), &[0x7f; 5]].concat())
    }

    /// The frames, and what a codec makes of the half behind them, when the sender has done `end`.
    async fn decoded_by<D>(
        self,
        frames: usize,
        codec: D,
        spoken: Spoken,
        end: impl AsyncFnOnce(&mut ResumableTransport),
    ) -> (Vec<D::Item>, Option<Result<D::Item, D::Error>>)
    where
        D: Decoder<Item: Debug, Error: Debug>,
    {
        let (bed, mut listener) = Bed::paced(spoken).await;
        let (client, mut server) = pair(&bed, &mut listener).await;
        server.write_all(&self.0).await.expect("writes");
        server.flush().await.expect("flushes");
        let handle = client.handle();
        while handle.stats().received < self.0.len() as u64 {
            sleep(POLL).await;
        }
        end(&mut server).await;
        let mut framed = Framed::new(client, codec);
        let mut whole = Vec::new();
        while whole.len() < frames {
            let frame = framed.next().await.expect("a frame");
            whole.push(frame.expect("a whole one"));
        }
        let half = framed.next().await;
        assert!(!framed.read_buffer().is_empty() || matches!(half, Some(Ok(_))));
        let behind = framed.next().await;
        assert!(behind.is_none(), "{behind:?}");
        bed.assert_cut(1);
        (whole, half)
    }
}

async fn shut_down(transport: &mut ResumableTransport) {
    transport.shutdown().await.expect("delivers all");
}

async fn a_stream_that_is_shut_down_within_a_frame_is_for_the_codec_to_judge(spoken: Spoken) {
    let (whole, half) = AndAHalf::length_delimited()
        .decoded_by(1, LengthDelimitedCodec::new(), spoken, shut_down)
        .await;
    assert_eq!(whole, [vec![b'x'; LENGTH]]);
    let error = half.expect("no clean end").expect_err("no frame");
    assert!(Error::find(&error).is_none(), "{error:?}");

    let (whole, half) = AndAHalf::differences()
        .decoded_by(LENGTH, Differences::default(), spoken, shut_down)
        .await;
    assert_eq!(whole.last(), Some(&Decoded::Value(LENGTH as u64)));
    let error = half.expect("no clean end").expect_err("no value");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(Error::find(&error).is_none(), "{error:?}");

    // Here what is left is a line like any other.
    let (whole, half) = AndAHalf::lines()
        .decoded_by(1, LinesCodec::new(), spoken, shut_down)
        .await;
    assert_eq!(whole, ["x".repeat(LENGTH)]);
    let rest = half.expect("what is left").expect("a line");
    assert_eq!(rest, "y".repeat(LENGTH / 2));
}

async fn a_session_that_dies_within_a_frame_is_an_error_of_the_codec(spoken: Spoken) {
    let die = async |transport: &mut ResumableTransport| transport.handle().close(7);

    let (whole, half) = AndAHalf::length_delimited()
        .decoded_by(1, LengthDelimitedCodec::new(), spoken, die)
        .await;
    assert_eq!(whole, [vec![b'x'; LENGTH]]);
    assert_died(spoken, half.expect("no clean end").expect_err("no frame"));

    let (whole, half) = AndAHalf::differences()
        .decoded_by(LENGTH, Differences::default(), spoken, die)
        .await;
    assert_eq!(whole.last(), Some(&Decoded::Value(LENGTH as u64)));
    assert_died(spoken, half.expect("no clean end").expect_err("no value"));

    let (whole, half) = AndAHalf::lines()
        .decoded_by(1, LinesCodec::new(), spoken, die)
        .await;
    assert_eq!(whole, ["x".repeat(LENGTH)]);
    match half {
        Some(Err(LinesCodecError::Io(error))) => assert_died(spoken, error),
        other => panic!("{other:?}"),
    }
}

fn assert_died(spoken: Spoken, error: io::Error) {
    let why = match Error::find(&error) {
        Some(Error::Closed(why)) => *why,
        _ => panic!("{error:?}"),
    };
    match spoken {
        Spoken::Snet => assert_eq!(why, CloseReason::Refused(Refusal::Unexplained)),
        _ => assert_eq!(why, CloseReason::Reset(7)),
    }
}
