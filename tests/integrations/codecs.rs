//! tokio-util's codecs, and tokio's own tools for streams.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::bed::{Bed, Spoken, over_each};

over_each!(frames_arrive_whole_and_in_order);

async fn frames_arrive_whole_and_in_order(spoken: Spoken) {
    let (bed, mut listener) = Bed::start(spoken, 4 << 10).await;
    let server = tokio::spawn(async move {
        let (transport, _) = listener.accept().await.expect("a session");
        let framed = Framed::new(transport, LengthDelimitedCodec::new());
        let (to_client, from_client) = framed.split::<Bytes>();
        from_client
            .map(|frame| frame.map(Into::into))
            .forward(to_client)
            .await
    });
    let mut framed = Framed::new(bed.connect().await, LengthDelimitedCodec::new());
    for number in 0..1_000_u32 {
        let frame = Bytes::from(number.to_be_bytes().repeat(100));
        framed.send(frame.clone()).await.expect("sends");
        let echoed = framed.next().await.expect("a frame").expect("a whole one");
        assert_eq!(echoed, frame, "frame {number}");
    }
    bed.assert_cut(30);
    server.abort();
}
