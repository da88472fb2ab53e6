//! Frames and lines, through tokio-util's codecs, while every link is cut after 20 ms.
//!
//! ```text
//! cargo run --example codecs
//! ```

use std::{error::Error, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use tokio_util::codec::{Framed, LengthDelimitedCodec, LinesCodec};
use unbroken::{Config, Handle, Listener};

#[path = "support/cuts.rs"]
mod cuts;

type BoxError = Box<dyn Error + Send + Sync>;

const FRAMES: u32 = 8_000;
const LINES: u64 = 8_000;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut listener = Listener::bind("127.0.0.1:0", Config::new()).await?;
    let (addr, cuts) = cuts::before(listener.local_addr()?, Duration::from_millis(20)).await?;

    // The first session is for frames, the second for lines.
    let server = tokio::spawn(async move {
        let (transport, _peer) = listener.accept().await?;
        let (to_client, from_client) = Framed::new(transport, LengthDelimitedCodec::new()).split();
        // When the client has closed its sink this closes its own.
        from_client.map_ok(Bytes::from).forward(to_client).await?;

        let (transport, _peer) = listener.accept().await?;
        let mut lines = Framed::new(transport, LinesCodec::new());
        let mut total = 0;
        while let Some(line) = lines.next().await {
            total += line?.parse::<u64>()?;
            lines.send(total.to_string()).await?;
        }
        SinkExt::<String>::close(&mut lines).await?;
        Ok::<_, BoxError>(())
    });

    let frames = frames(addr).await?;
    println!(
        "{FRAMES} frames came back in order, over {} resumes",
        frames.stats().resumes
    );
    let lines = lines(addr).await?;
    println!(
        "{LINES} lines were counted once each, over {} resumes",
        lines.stats().resumes
    );
    server.await??;
    println!("{} links were cut", cuts.count());
    Ok(())
}

/// Many frames under way at once, each of 32 KiB: one task writes, another reads.
async fn frames(addr: SocketAddr) -> Result<Handle, BoxError> {
    let frame = |number: u32| Bytes::from(number.to_be_bytes().repeat(8 << 10));

    let transport = unbroken::connect(addr, Config::new()).await?;
    let handle = transport.handle();
    let (mut to_server, mut from_server) =
        Framed::new(transport, LengthDelimitedCodec::new()).split::<Bytes>();
    let writing = tokio::spawn(async move {
        for number in 0..FRAMES {
            to_server.feed(frame(number)).await?;
        }
        // Returns when the server has all of them.
        to_server.close().await
    });
    let mut expected = 0;
    while let Some(received) = from_server.next().await {
        assert_eq!(received?, frame(expected));
        expected += 1;
    }
    assert_eq!(expected, FRAMES);
    writing.await??;
    Ok(handle)
}

/// One line at a time, each answered by the total so far: a line that was lost, or came twice, would show in all that follow.
async fn lines(addr: SocketAddr) -> Result<Handle, BoxError> {
    let transport = unbroken::connect(addr, Config::new()).await?;
    let handle = transport.handle();
    let mut lines = Framed::new(transport, LinesCodec::new());
    let mut expected = 0;
    for number in 1..=LINES {
        expected += number;
        lines.send(number.to_string()).await?;
        let total = lines.next().await.ok_or("the server ended the stream")??;
        assert_eq!(total, expected.to_string());
    }
    SinkExt::<String>::close(&mut lines).await?;
    assert!(lines.next().await.is_none());
    Ok(handle)
}
