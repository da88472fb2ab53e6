//! WebSockets, through tokio-tungstenite at both ends, while every link is cut after 20 ms.
//!
//! ```text
//! cargo run --example websocket
//! ```

use std::{error::Error, time::Duration};

use futures_util::{SinkExt, StreamExt, TryStreamExt, future};
use tokio_tungstenite::{
    accept_async, client_async,
    tungstenite::{
        Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use unbroken::{Config, Listener};

#[path = "support/cuts.rs"]
mod cuts;

const MESSAGES: u32 = 10_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut listener = Listener::bind("127.0.0.1:0", Config::new()).await?;
    let (addr, cuts) = cuts::before(listener.local_addr()?, Duration::from_millis(20)).await?;

    // The server sends each message back; the answer to a close is tungstenite's own.
    let server = tokio::spawn(async move {
        let (transport, _peer) = listener.accept().await?;
        let (to_client, from_client) = accept_async(transport).await?.split();
        from_client
            .try_filter(|message| future::ready(!message.is_close()))
            .forward(to_client)
            .await
    });

    let transport = unbroken::connect(addr, Config::new()).await?;
    let handle = transport.handle();
    let (mut socket, _response) = client_async(format!("ws://{addr}/"), transport).await?;
    for number in 0..MESSAGES {
        let message = match number % 2 {
            0 => Message::text(number.to_string()),
            _ => Message::binary(number.to_be_bytes().to_vec()),
        };
        socket.send(message.clone()).await?;
        assert_eq!(socket.try_next().await?, Some(message));
    }

    // Not before all has come: a peer that has read a close sends nothing after its answer to it.
    let farewell = CloseFrame {
        code: CloseCode::Normal,
        reason: "all is said".into(),
    };
    let close = Message::Close(Some(farewell));
    socket.send(close.clone()).await?;
    assert_eq!(socket.try_next().await?, Some(close));
    assert_eq!(socket.try_next().await?, None);
    server.await??;

    let resumes = handle.stats().resumes;
    println!(
        "{MESSAGES} messages came back, one by one and in order; {} cuts, {resumes} resumes",
        cuts.count()
    );
    Ok(())
}
