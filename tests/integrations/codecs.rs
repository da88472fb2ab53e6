//! tokio-util's codecs, and tokio's own tools for streams.

mod endings;
mod forwarder;
mod own;
mod tools;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, TryStreamExt, future::ok, stream};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio_util::codec::{Framed, FramedRead, FramedWrite, LengthDelimitedCodec, LinesCodec};

use self::own::{Decoded, Differences};
use crate::bed::{Bed, Spoken, over_each};

over_each!(
    frames_longer_than_any_link_lives_arrive_whole_and_in_order,
    lines_go_both_ways_at_once_between_split_halves_in_tasks_of_their_own,
    a_codec_with_a_state_of_its_own_keeps_it_over_cuts,
);

async fn frames_longer_than_any_link_lives_arrive_whole_and_in_order(spoken: Spoken) {
    const FRAMES: u8 = 8;
    /// Bytes a link carries in the mean; the most is five times that.
    const CUT_BYTES: u64 = 4 << 10;
    const FRAME: usize = 5 * CUT_BYTES as usize + 1;

    let (bed, mut listener) = Bed::start(spoken, CUT_BYTES).await;
    let server = async {
        let (transport, _) = listener.accept().await.expect("a session");
        let framed = Framed::new(transport, LengthDelimitedCodec::new());
        let (to_client, from_client) = framed.split::<Bytes>();
        from_client.map_ok(Into::into).forward(to_client).await
    };
    let client = async {
        let mut framed = Framed::new(bed.connect().await, LengthDelimitedCodec::new());
        for number in 0..FRAMES {
            let bytes = (0..FRAME).map(|at| number.wrapping_add((at % 251) as u8));
            let frame = Bytes::from_iter(bytes);
            framed.send(frame.clone()).await.expect("sends");
            let echoed = framed.next().await.expect("a frame").expect("a whole one");
            assert!(echoed == frame, "frame {number}");
        }
    };
    tokio::select! {
        () = client => {}
        ended = server => panic!("the server's end: {ended:?}"),
    }
    // Each frame is cut at least once.
    bed.assert_cut(FRAMES.into());
}

/// A line of up to some hundred characters, of 1 to 4 bytes each: the same from the same generator.
fn line(rng: &mut StdRng) -> String {
    let length = rng.random_range(0..300);
    let characters = ['a', 'é', '→', '🦀', ' ', '\t'];
    (0..length)
        .map(|_| characters[rng.random_range(0..characters.len())])
        .collect()
}

async fn lines_go_both_ways_at_once_between_split_halves_in_tasks_of_their_own(spoken: Spoken) {
    const LINES: u32 = 3_000;

    let (bed, mut listener) = Bed::paced(spoken).await;
    let client = bed.connect().await;
    let (server, _) = listener.accept().await.expect("a session");
    let mut tasks = Vec::new();
    let mut kept = Vec::new();
    for (transport, sent, expected) in [(client, 1, 2), (server, 2, 1)] {
        let (mut to_peer, from_peer) = Framed::new(transport, LinesCodec::new()).split::<String>();
        let writing = tokio::spawn(async move {
            let mut rng = StdRng::seed_from_u64(sent);
            for _ in 0..LINES {
                to_peer.feed(line(&mut rng)).await.expect("takes a line");
            }
            to_peer.flush().await.expect("sends them");
            to_peer
        });
        let reading = tokio::spawn(async move {
            let mut from_peer = from_peer;
            let mut rng = StdRng::seed_from_u64(expected);
            for number in 0..LINES {
                let line_in = from_peer
                    .next()
                    .await
                    .expect("a line")
                    .expect("a whole one");
                assert_eq!(line_in, line(&mut rng), "line {number}");
            }
            from_peer
        });
        tasks.push((writing, reading));
    }
    for (writing, reading) in tasks {
        let (writing, reading) = (writing.await, reading.await);
        kept.push((writing.expect("all are sent"), reading.expect("all came")));
    }
    bed.assert_cut(3);
}

async fn a_codec_with_a_state_of_its_own_keeps_it_over_cuts(spoken: Spoken) {
    const VALUES: u64 = 100_000;

    let value = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (number % 64);
    let (bed, mut listener) = Bed::paced(spoken).await;
    let server = tokio::spawn(async move {
        let (transport, _) = listener.accept().await.expect("a session");
        let (reading, writing) = tokio::io::split(transport);
        let mut values = FramedRead::new(reading, Differences::default());
        let mut to_client = FramedWrite::new(writing, Differences::default());
        let mut values = values.by_ref().try_filter_map(|decoded| match decoded {
            Decoded::Value(value) => ok(Some(value)),
            Decoded::End { .. } => ok(None),
        });
        to_client.send_all(&mut values).await.expect("takes them");
        to_client.close().await
    });

    let (reading, writing) = tokio::io::split(bed.connect().await);
    let sending = tokio::spawn(async move {
        let mut to_server = FramedWrite::new(writing, Differences::default());
        let values = stream::iter((0..VALUES).map(value)).map(Ok);
        values.forward(&mut to_server).await.expect("takes them");
        to_server
    });
    let mut from_server = FramedRead::new(reading, Differences::default());
    for number in 0..VALUES {
        let decoded = from_server.next().await.expect("a value");
        let decoded = decoded.expect("a whole one");
        assert_eq!(decoded, Decoded::Value(value(number)), "value {number}");
    }
    let _to_server = sending.await.expect("all are sent");
    if spoken.tells_the_end() {
        // `forward` has closed the sink, and the server closes its own then.
        let end = from_server.next().await.expect("what its end decodes to");
        assert_eq!(end.expect("a clean end"), Decoded::End { values: VALUES });
        assert!(from_server.next().await.is_none());
        server.await.expect("no panic").expect("a clean end");
    }
    bed.assert_cut(3);
}
