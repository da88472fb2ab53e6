//! Frames, through tokio-util's codec, while every link is cut after 20 ms.
//!
//! ```text
//! cargo run --example codecs
//! ```

use std::{error::Error, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use unbroken::{Config, Listener};

#[path = "support/cuts.rs"]
mod cuts;

const FRAMES: u32 = 20_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut listener = Listener::bind("127.0.0.1:0", Config::new()).await?;
    let (addr, cuts) = cuts::before(listener.local_addr()?, Duration::from_millis(20)).await?;

    let server = tokio::spawn(async move {
        let (transport, _peer) = listener.accept().await?;
        let (to_client, from_client) = Framed::new(transport, LengthDelimitedCodec::new()).split();
        from_client
            .map(|frame| frame.map(Bytes::from))
            .forward(to_client)
            .await
    });

    let transport = unbroken::connect(addr, Config::new()).await?;
    let handle = transport.handle();
    let (mut to_server, mut from_server) =
        Framed::new(transport, LengthDelimitedCodec::new()).split::<Bytes>();
    tokio::spawn(async move {
        for number in 0..FRAMES {
            to_server.feed(number.to_be_bytes().to_vec().into()).await?;
        }
        to_server.close().await
    });
    let mut expected = 0;
    while let Some(frame) = from_server.next().await {
        assert_eq!(frame?[..], u32::to_be_bytes(expected));
        expected += 1;
    }
    assert_eq!(expected, FRAMES);
    server.await??;

    let resumes = handle.stats().resumes;
    println!(
        "{FRAMES} frames came back in order; {} cuts, {resumes} resumes",
        cuts.count()
    );
    Ok(())
}
