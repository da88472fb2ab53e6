//! What a Noise link does for those above it, and what it puts up with from the link below.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use unbroken::{Error, NoiseLink, protocol::noise::Suite};

use super::{
    memory_link::{Lie, MemoryLink, Side, Wire, link},
    pattern,
    pieces::{Pieces, Pipe},
    records,
};

/// Two ends, and what is between them.
fn pair(capacity: usize) -> (NoiseLink<MemoryLink>, NoiseLink<MemoryLink>, Wire) {
    let (client, server, wire) = link(capacity);
    let records = records(Suite::AesGcm);
    (
        NoiseLink::new(client, records.0),
        NoiseLink::new(server, records.1),
        wire,
    )
}

async fn write_once(link: &mut NoiseLink<MemoryLink>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *link).poll_write(cx, bytes))).await
}

#[tokio::test]
async fn the_hash_is_the_same_at_both_ends_and_nothing_secret_is_shown() {
    let (client, server, _wire) = pair(1000);
    assert_eq!(client.hash(), server.hash());
    let shown = format!("{client:?}");
    assert_eq!(
        shown,
        "NoiseLink { records: Records { sealed: 0, opened: 0, .. }, .. }"
    );
}

#[tokio::test]
async fn writing_nothing_puts_nothing_on_the_wire() {
    let (mut client, _server, wire) = pair(1000);
    assert_eq!(client.write(&[]).await.expect("it is no error"), 0);
    let nothing = [IoSlice::new(&[]), IoSlice::new(&[])];
    assert_eq!(
        client.write_vectored(&nothing).await.expect("nor is this"),
        0
    );
    client.flush().await.expect("the link goes on");
    assert!(wire.written(Side::Client).is_empty());
}

#[tokio::test]
async fn small_pieces_share_a_record() {
    let (mut client, _server, wire) = pair(1000);
    assert!(client.is_write_vectored());
    let slices = [b"head".as_slice(), b"", b"payload"].map(IoSlice::new);
    assert_eq!(client.write_vectored(&slices).await.expect("it fits"), 11);
    assert_eq!(wire.written(Side::Client).len(), 2 + 11 + 16);
}

#[tokio::test]
async fn what_a_session_hands_over_at_a_time_is_taken_at_once() {
    let (mut client, mut server, wire) = pair(100_000);
    let payload = pattern(65_536);
    let slices = [&payload[..100], &payload[..40_000], &payload[40_000..]].map(IoSlice::new);
    assert_eq!(
        client.write_vectored(&slices).await.expect("it fits"),
        65_636
    );
    assert_eq!(
        wire.polls(Side::Client),
        1,
        "it goes to the link in one piece"
    );
    let mut bytes = vec![0; 65_636];
    server.read_exact(&mut bytes).await.expect("it has come");
    assert_eq!(bytes, [&payload[..100], &payload].concat());
}

#[tokio::test]
async fn a_link_that_takes_nothing_more_holds_the_writer_up_and_nothing_is_lost() {
    let (mut client, mut server, _wire) = pair(1000);
    let bytes = pattern(500_000);
    let mut written = 0;
    while let Poll::Ready(result) = write_once(&mut client, &bytes[written..]).await {
        written += result.expect("the link goes on");
    }
    assert!(
        written < 70_000,
        "{written} bytes wait for a link that takes 1,000"
    );
    let writing = async {
        client
            .write_all(&bytes[written..])
            .await
            .expect("the link goes on");
        client.shutdown().await.expect("the link goes on");
    };
    let mut read = Vec::new();
    let (_, result) = tokio::join!(writing, server.read_to_end(&mut read));
    result.expect("it ends in order");
    assert!(read == bytes);
}

#[tokio::test]
async fn shutting_down_sends_what_was_held_back_then_the_end_then_ends_the_link() {
    let (forth, back) = (Pipe::default(), Pipe::default());
    let (client, server) = records(Suite::AesGcm);
    let mut client = NoiseLink::new(Pieces::new(&back, &forth, None), client);
    let mut server = NoiseLink::new(Pieces::new(&forth, &back, None), server);
    client.write_all(b"last words").await.expect("it is taken");
    assert!(!forth.has_ended());
    client.shutdown().await.expect("the link goes on");
    assert!(forth.has_ended());
    assert_eq!(forth.waiting().len(), (2 + 10 + 16) + (2 + 16));
    client.shutdown().await.expect("it is shut");
    assert_eq!(forth.waiting().len(), (2 + 10 + 16) + (2 + 16));
    let error = client.write(b"x").await.expect_err("it is shut");
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    assert!(matches!(inner, Some(Error::WriteAfterShutdown)));

    // The other direction goes on.
    server.write_all(b"answer").await.expect("it is taken");
    let mut answer = [0; 6];
    client.read_exact(&mut answer).await.expect("it has come");
    assert_eq!(&answer, b"answer");
    let mut words = Vec::new();
    server
        .read_to_end(&mut words)
        .await
        .expect("it ends in order");
    assert_eq!(words, b"last words");
}

#[tokio::test]
async fn a_shutdown_that_has_to_wait_says_the_end_once() {
    let (mut client, mut server, wire) = pair(10);
    let writing = async {
        client.write_all(b"words").await.expect("it is taken");
        for _ in 0..100 {
            let shutting = poll_fn(|cx| Poll::Ready(Pin::new(&mut client).poll_shutdown(cx)));
            let _ = shutting.await;
        }
        client.shutdown().await.expect("the link goes on");
    };
    let mut words = Vec::new();
    let (_, result) = tokio::join!(writing, server.read_to_end(&mut words));
    result.expect("it ends in order");
    assert_eq!(words, b"words");
    assert_eq!(wire.written(Side::Client).len(), (2 + 5 + 16) + (2 + 16));
}

#[tokio::test]
async fn a_link_that_ends_without_a_word_is_cut_off() {
    let (mut client, mut server, _wire) = pair(1000);
    client.write_all(b"and").await.expect("it is taken");
    drop(client);
    let mut bytes = Vec::new();
    let error = server
        .read_to_end(&mut bytes)
        .await
        .expect_err("it was cut off");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(bytes, b"and");
}

#[tokio::test]
async fn an_idle_link_holds_no_memory_nor_does_little_traffic_take_any() {
    let (mut client, mut server, _wire) = pair(1 << 20);
    let mut bytes = vec![0; 1 << 20];
    for _ in 0..100 {
        client.write_all(&[7; 64]).await.expect("it is taken");
        assert_eq!(server.read(&mut bytes).await.expect("it has come"), 64);
        server.write_all(&[7; 64]).await.expect("it is taken");
        assert_eq!(client.read(&mut bytes).await.expect("it has come"), 64);
    }
    assert_eq!((client.allocated(), server.allocated()), (0, 0));

    client
        .write_all(&pattern(900_000))
        .await
        .expect("it is taken");
    assert!(client.allocated() > 0);
    client.release();
    assert_eq!(client.allocated(), 0);
    server
        .read_exact(&mut bytes[..899_999])
        .await
        .expect("it has come");
    server.release();
    let waiting = server.allocated();
    assert!(
        waiting > 0,
        "the last byte was opened with others, and waits"
    );
    server
        .read_exact(&mut bytes[899_999..900_000])
        .await
        .expect("it has come");
    assert!(bytes[..900_000] == pattern(900_000));
    server.release();
    assert_eq!(server.allocated(), 0);
}

#[tokio::test]
async fn a_link_that_lies_about_what_it_took_is_not_written_to_again() {
    for (lie, kind) in [
        (Lie::WritesNothing, io::ErrorKind::WriteZero),
        (Lie::WritesTooMuch, io::ErrorKind::Other),
    ] {
        for len in [5, 100_000] {
            let (mut client, _server, wire) = pair(1 << 20);
            wire.lie(Side::Client, lie);
            let bytes = pattern(len);
            let error = client.write(&bytes).await.expect_err("the link lies");
            assert_eq!(error.kind(), kind);
            let polls = wire.polls(Side::Client);
            client.write(&bytes).await.expect_err("it has failed");
            client.flush().await.expect_err("it has failed");
            client.shutdown().await.expect_err("it has failed");
            assert_eq!(wire.polls(Side::Client), polls);
        }
    }
}

#[tokio::test]
async fn a_link_that_lies_about_what_it_gave_gives_nothing() {
    for lie in [Lie::TakesBack, Lie::FillsAndFails, Lie::FillsAndWaits] {
        for has_buffer in [false, true] {
            let (mut client, mut server, wire) = pair(1 << 20);
            if has_buffer {
                client
                    .write_all(&pattern(100_000))
                    .await
                    .expect("it is taken");
                let mut bytes = vec![0; 100_000];
                server.read_exact(&mut bytes).await.expect("it has come");
                assert!(server.allocated() > 0);
            }
            wire.lie(Side::Server, lie);
            let mut bytes = [0xcc; 100];
            let mut buf = ReadBuf::new(&mut bytes);
            let mut cx = Context::from_waker(Waker::noop());
            for _ in 0..2 {
                let result = Pin::new(&mut server).poll_read(&mut cx, &mut buf);
                assert!(matches!(result, Poll::Ready(Err(_))), "{lie:?}: {result:?}");
                assert!(buf.filled().is_empty());
            }
        }
    }
}

#[tokio::test]
async fn what_had_come_can_be_read_when_writing_fails() {
    let (mut client, mut server, wire) = pair(1000);
    server.write_all(b"too much").await.expect("it is taken");
    wire.lie(Side::Client, Lie::WritesNothing);
    client.write(b"x").await.expect_err("the link lies");
    let mut bytes = [0; 8];
    client.read_exact(&mut bytes).await.expect("it had come");
    assert_eq!(&bytes, b"too much");
}

/// A link that one direction must leave alone.
struct OneWay<L> {
    link: L,
    may_read: bool,
}

impl<L: AsyncRead + Unpin> AsyncRead for OneWay<L> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        assert!(
            self.may_read,
            "the waker of a writer was left with a reader's"
        );
        Pin::new(&mut self.link).poll_read(cx, buf)
    }
}

impl<L: AsyncWrite + Unpin> AsyncWrite for OneWay<L> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        assert!(
            !self.may_read,
            "the waker of a reader was left with a writer's"
        );
        Pin::new(&mut self.link).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        assert!(
            !self.may_read,
            "the waker of a reader was left with a writer's"
        );
        Pin::new(&mut self.link).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        assert!(
            !self.may_read,
            "the waker of a reader was left with a writer's"
        );
        Pin::new(&mut self.link).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn each_direction_uses_its_side_of_the_link_alone() {
    let (client, server, _wire) = link(1000);
    let records = records(Suite::AesGcm);
    let mut client = NoiseLink::new(
        OneWay {
            link: client,
            may_read: false,
        },
        records.0,
    );
    let mut server = NoiseLink::new(
        OneWay {
            link: server,
            may_read: true,
        },
        records.1,
    );
    let writing = async {
        client.write_all(&pattern(200_000)).await?;
        client.flush().await?;
        client.shutdown().await
    };
    let mut bytes = Vec::new();
    let (written, read) = tokio::join!(writing, server.read_to_end(&mut bytes));
    written.expect("the link goes on");
    read.expect("it ends in order");
    assert!(bytes == pattern(200_000));
}
