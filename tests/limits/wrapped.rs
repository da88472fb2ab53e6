//! What makes a link of a TCP connection is part of the handshake: limits and deadline bound it. Over real sockets.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tower::{ServiceExt, service_fn};
use unbroken::{Config, Connector, Listener, ResumableTransport};

/// After which time a test counts as hung.
const HUNG: Duration = Duration::from_secs(30);

const GREETING: u8 = b'G';

/// A handshake that TLS might have: it waits for a byte, and for the right one.
async fn greeted(mut stream: TcpStream) -> io::Result<TcpStream> {
    match stream.read_u8().await? {
        GREETING => Ok(stream),
        other => Err(io::Error::other(format!("greeted with {other}"))),
    }
}

async fn bind(config: Config) -> (Listener, SocketAddr) {
    let listener = Listener::bind_with((Ipv4Addr::LOCALHOST, 0), config, greeted).await;
    let listener = listener.expect("a free port");
    let addr = listener.local_addr().expect("its address");
    (listener, addr)
}

async fn open(addr: SocketAddr) -> Result<ResumableTransport, unbroken::Error> {
    let dial = service_fn(|addr: SocketAddr| async move {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_u8(GREETING).await?;
        io::Result::Ok(stream)
    });
    Connector::new(dial, Config::new()).oneshot(addr).await
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    let done = timeout(HUNG, work).await;
    done.unwrap_or_else(|_| panic!("not done after {HUNG:?}"))
}

async fn until_closed(mut stream: TcpStream) {
    let read = within(stream.read_u8()).await;
    assert!(read.is_err(), "the server said {read:?}");
}

#[tokio::test]
async fn a_wrap_that_comes_to_nothing_gives_up_its_place_and_its_time() {
    let config = Config::new()
        .max_handshakes(4)
        .handshake_timeout(HUNG * 2)
        .linger(HUNG * 5);
    let (mut listener, addr) = bind(config).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(addr).await.expect("connects"));
    }
    // There are places for four, and those that were silent longest have made room.
    let (client, server) = within(async { tokio::join!(open(addr), listener.accept()) }).await;
    client.expect("a session");
    server.expect("a session");
    for stream in silent.drain(..4) {
        until_closed(stream).await;
    }

    let (_listener, addr) = bind(Config::new().handshake_timeout(Duration::from_millis(50))).await;
    until_closed(TcpStream::connect(addr).await.expect("connects")).await;
}

#[tokio::test]
async fn who_gets_through_a_wrap_has_been_heard() {
    let (mut listener, addr) = bind(Config::new().max_handshakes(2)).await;
    let mut first = TcpStream::connect(addr).await.expect("connects");
    let silent = TcpStream::connect(addr).await.expect("connects");
    first.write_u8(GREETING).await.expect("writes");
    // Each of these takes a place, which is not to be that of the first.
    let (client, server) = within(async { tokio::join!(open(addr), listener.accept()) }).await;
    let _session = (client.expect("a session"), server.expect("a session"));
    until_closed(silent).await;
    let still_there = timeout(Duration::from_millis(50), first.read_u8()).await;
    assert!(still_there.is_err(), "{still_there:?}");
}

#[tokio::test]
async fn a_wrap_that_fails_or_panics_concerns_its_link_alone() {
    let config = Config::new();
    let bound = Listener::bind_with((Ipv4Addr::LOCALHOST, 0), config, |stream| {
        let greeting = greeted(stream);
        async move {
            match greeting.await {
                Err(error) if error.to_string() == "greeted with 80" => panic!("{error}"),
                greeted => greeted,
            }
        }
    });
    let mut listener = bound.await.expect("a free port");
    let addr = listener.local_addr().expect("its address");
    for greeting in [b'F', b'P'] {
        let mut stream = TcpStream::connect(addr).await.expect("connects");
        stream.write_u8(greeting).await.expect("writes");
        until_closed(stream).await;
    }
    let (client, server) = within(async { tokio::join!(open(addr), listener.accept()) }).await;
    let (mut client, (mut server, _)) = (client.expect("a session"), server.expect("a session"));
    client.write_all(b"through").await.expect("writes");
    client.flush().await.expect("flushes");
    let mut read = [0; 7];
    within(server.read_exact(&mut read)).await.expect("reads");
    assert_eq!(&read, b"through");
}
