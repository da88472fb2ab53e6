//! tokio-tungstenite at both ends of a session.

use std::{error::Error as StdError, fmt::Debug};

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_tungstenite::{
    WebSocketStream, accept_async, client_async,
    tungstenite::{
        self, Message,
        protocol::{
            CloseFrame,
            frame::{
                Frame,
                coding::{CloseCode, Data, OpCode},
            },
        },
    },
};
use unbroken::{CloseReason, Error, Listener, ResumableTransport};

use crate::bed::{Bed, Spoken, over_each};

/// How many pings follow each other, each once the last has been answered.
pub(crate) const PINGS: u32 = 30;

over_each!(
    numbered_messages_go_both_ways_and_a_close_ends_them,
    large_and_fragmented_messages_arrive_whole,
    a_server_that_closes_says_why,
    a_session_that_dies_is_an_error_at_both_ends,
);

/// The content of a message, and whether it is text: text and binary take turns.
pub(crate) fn content(number: u32) -> (Bytes, bool) {
    let times = number as usize * 37 % 500;
    match number % 2 {
        0 => (format!("{number} ").repeat(times).into(), true),
        _ => (number.to_be_bytes().repeat(times).into(), false),
    }
}

pub(crate) fn message(number: u32) -> Message {
    match content(number) {
        (bytes, true) => Message::Text(bytes.try_into().expect("digits and spaces")),
        (bytes, false) => Message::Binary(bytes),
    }
}

/// How many messages an end may have sent beyond those it has received: all at once would need few links.
const AHEAD: usize = 8;

/// Sends so many numbered messages and receives as many, both at once.
pub(crate) async fn talk<S, M, E>(socket: &mut S, messages: u32, message: fn(u32) -> M)
where
    S: Stream<Item = Result<M, E>> + Sink<M, Error = E> + Unpin,
    M: PartialEq,
    E: Debug,
{
    let (mut to_peer, mut from_peer) = socket.split();
    let ahead = Semaphore::new(AHEAD);
    let sending = async {
        for number in 0..messages {
            ahead.acquire().await.expect("it is open").forget();
            to_peer.send(message(number)).await.expect("sends");
        }
    };
    let receiving = async {
        for number in 0..messages {
            let received = from_peer.next().await.expect("a message");
            let received = received.expect("a whole one");
            assert!(received == message(number), "message {number}");
            ahead.add_permits(1);
        }
    };
    tokio::join!(sending, receiving);
}

/// Pings the peer, time and again.
pub(crate) async fn ping<S>(socket: &mut S)
where
    S: Stream<Item = tungstenite::Result<Message>>
        + Sink<Message, Error = tungstenite::Error>
        + Unpin,
{
    for number in 0..PINGS {
        let payload = Bytes::copy_from_slice(&number.to_be_bytes());
        let ping = Message::Ping(payload.clone());
        socket.send(ping).await.expect("sends");
        let pong = socket.next().await.expect("an answer");
        assert_eq!(pong.expect("a whole one"), Message::Pong(payload));
    }
}

pub(crate) fn farewell() -> CloseFrame {
    CloseFrame {
        code: CloseCode::Library(4321),
        reason: "all is said".into(),
    }
}

/// Closes, and takes the peer's answer and the end of the stream.
pub(crate) async fn close<S>(mut socket: S, told: bool)
where
    S: Stream<Item = tungstenite::Result<Message>>
        + Sink<Message, Error = tungstenite::Error>
        + Unpin,
{
    exchange_farewells(&mut socket).await;
    end(socket, told).await;
}

/// Closes, and takes the peer's answer.
pub(crate) async fn exchange_farewells<S>(socket: &mut S)
where
    S: Stream<Item = tungstenite::Result<Message>>
        + Sink<Message, Error = tungstenite::Error>
        + Unpin,
{
    let farewell = Message::Close(Some(farewell()));
    socket.send(farewell.clone()).await.expect("sends");
    let answer = socket.next().await.expect("an answer");
    assert_eq!(answer.expect("a whole one"), farewell);
}

/// Takes the end of the stream, which is none over snet, after both have closed.
pub(crate) async fn end<S>(mut socket: S, told: bool)
where
    S: Stream<Item = tungstenite::Result<Message>> + Unpin,
{
    match socket.next().await {
        None => assert!(told, "nothing tells the end over snet"),
        Some(Err(error)) if !told => assert!(Error::find(&error).is_some(), "{error:?}"),
        Some(other) => panic!("{other:?} after both have closed"),
    }
}

/// Whether an error says that the peer has reset the session with this code; snet does not tell why it is over.
pub(crate) fn is_reset(error: &(dyn StdError + 'static), code: u32, spoken: Spoken) -> bool {
    match Error::find(error) {
        Some(Error::Closed(CloseReason::Reset(told))) => *told == code,
        Some(Error::Closed(CloseReason::Refused(_))) => spoken == Spoken::Snet,
        _ => false,
    }
}

type Socket = WebSocketStream<ResumableTransport>;

/// Both ends of a WebSocket.
async fn sockets(bed: &Bed, mut listener: Listener) -> (Socket, Socket, Listener) {
    let accepting = tokio::spawn(async move {
        let (transport, _) = listener.accept().await.expect("a session");
        let socket = accept_async(transport).await.expect("a client's handshake");
        (socket, listener)
    });
    let transport = bed.connect().await;
    let connecting = client_async("ws://localhost/", transport).await;
    let (client, _) = connecting.expect("a server's handshake");
    let (server, listener) = accepting.await.expect("no panic");
    (client, server, listener)
}

async fn numbered_messages_go_both_ways_and_a_close_ends_them(spoken: Spoken) {
    const MESSAGES: u32 = 200;
    let (bed, listener) = Bed::start(spoken, 4 << 10).await;
    let (mut client, mut server, _listener) = sockets(&bed, listener).await;
    let serving = tokio::spawn(async move {
        talk(&mut server, MESSAGES, message).await;
        for number in 0..PINGS {
            let ping = server.next().await.expect("a ping").expect("a whole one");
            assert_eq!(ping.into_data()[..], number.to_be_bytes());
        }
        let closed = server.next().await.expect("a close").expect("a whole one");
        assert_eq!(closed, Message::Close(Some(farewell())));
        let end = server.next().await;
        assert!(end.is_none(), "{end:?}");
    });
    talk(&mut client, MESSAGES, message).await;
    ping(&mut client).await;
    close(client, spoken.tells_the_end()).await;
    serving.await.expect("no panic");
    bed.assert_cut(10);
}

/// What a large message is made of.
fn large(number: u32) -> Bytes {
    const WORDS: u32 = 1 << 20;
    let from = number * WORDS;
    let bytes: Vec<u8> = (from..from + WORDS).flat_map(u32::to_be_bytes).collect();
    bytes.into()
}

async fn large_and_fragmented_messages_arrive_whole(spoken: Spoken) {
    const FRAGMENT: usize = 100_000;
    let (bed, listener) = Bed::start(spoken, 200 << 10).await;
    let (mut client, mut server, _listener) = sockets(&bed, listener).await;
    let echoing: JoinHandle<()> = tokio::spawn(async move {
        while let Some(message) = server.next().await {
            match message.expect("a whole one") {
                message @ Message::Binary(_) => server.send(message).await.expect("sends"),
                Message::Ping(_) | Message::Close(_) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    let expect = async |client: &mut Socket, expected: Message| {
        let received = client.next().await.expect("a message");
        assert!(
            received.expect("a whole one") == expected,
            "another message"
        );
    };
    let whole = Message::Binary(large(0));
    client.send(whole.clone()).await.expect("sends");
    expect(&mut client, whole).await;

    let parts = large(1);
    let last = parts.len().div_ceil(FRAGMENT) - 1;
    for (number, part) in parts.chunks(FRAGMENT).enumerate() {
        let kind = if number == 0 {
            Data::Binary
        } else {
            Data::Continue
        };
        let part = Bytes::copy_from_slice(part);
        let fragment = Frame::message(part, OpCode::Data(kind), number == last);
        client.send(Message::Frame(fragment)).await.expect("sends");
        if number == last / 2 {
            // Control frames may come between fragments.
            client
                .send(Message::Ping("half".into()))
                .await
                .expect("sends");
        }
    }
    expect(&mut client, Message::Pong("half".into())).await;
    expect(&mut client, Message::Binary(parts)).await;
    close(client, spoken.tells_the_end()).await;
    echoing.await.expect("no panic");
    bed.assert_cut(4);
}

async fn a_server_that_closes_says_why(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 2 << 10).await;
    let (mut client, mut server, _listener) = sockets(&bed, listener).await;
    let serving = tokio::spawn(async move {
        talk(&mut server, 100, message).await;
        server.close(Some(farewell())).await.expect("closes");
        let answer = server
            .next()
            .await
            .expect("an answer")
            .expect("a whole one");
        assert_eq!(answer, Message::Close(Some(farewell())));
        let end = server.next().await;
        assert!(end.is_none(), "{end:?}");
    });
    talk(&mut client, 100, message).await;
    let closed = client.next().await.expect("a close").expect("a whole one");
    assert_eq!(closed, Message::Close(Some(farewell())));
    end(client, spoken.tells_the_end()).await;
    serving.await.expect("no panic");
    bed.assert_cut(5);
}

async fn a_session_that_dies_is_an_error_at_both_ends(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 2 << 10).await;
    let (mut client, mut server, listener) = sockets(&bed, listener).await;
    tokio::join!(
        talk(&mut client, 100, message),
        talk(&mut server, 100, message)
    );
    let session = server.get_ref().handle();
    assert!(listener.sessions().close(session.id(), 7));
    let error = client
        .next()
        .await
        .expect("no end")
        .expect_err("no message");
    assert!(is_reset(&error, 7, spoken), "{error:?}");
    let error = server
        .next()
        .await
        .expect("no end")
        .expect_err("no message");
    let own = Error::Closed(CloseReason::LocalReset(7)).to_string();
    let told = Error::find(&error).expect("the session's own");
    assert_eq!(told.to_string(), own);
    let error = server.send(message(0)).await.expect_err("nowhere to go");
    assert!(Error::find(&error).is_some(), "{error:?}");
    bed.assert_cut(5);
}
