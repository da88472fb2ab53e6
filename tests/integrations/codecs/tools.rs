//! tokio's `copy`, buffers and lines, and tokio-util's streams of bytes.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter, copy};
use tokio_util::io::{ReaderStream, StreamReader};

use crate::bed::{Bed, Spoken, over_each};

over_each!(
    lines_through_buffers_arrive_whole_and_in_order,
    a_copy_is_read_as_a_stream_of_chunks_and_back,
);

async fn lines_through_buffers_arrive_whole_and_in_order(spoken: Spoken) {
    const LINES: u32 = 12_000;

    let line = |number: u32| format!("{number} {}", "é".repeat(number as usize % 50));
    let (bed, mut listener) = Bed::paced(spoken).await;
    let client = bed.connect().await;
    let (server, _) = listener.accept().await.expect("a session");
    let sending = tokio::spawn(async move {
        let mut to_client = BufWriter::new(server);
        for number in 0..LINES {
            let line = line(number) + "\n";
            to_client.write_all(line.as_bytes()).await.expect("writes");
        }
        to_client.shutdown().await.expect("flushes, and ends it");
        to_client
    });
    let mut lines = BufReader::new(client).lines();
    for number in 0..LINES {
        let line_in = lines.next_line().await.expect("reads");
        assert_eq!(line_in, Some(line(number)), "line {number}");
    }
    if spoken.tells_the_end() {
        assert_eq!(lines.next_line().await.expect("a clean end"), None);
    }
    let _to_client = sending.await.expect("no panic");
    bed.assert_cut(3);
}

async fn a_copy_is_read_as_a_stream_of_chunks_and_back(spoken: Spoken) {
    const LENGTH: usize = 400_000;

    let sent: Vec<u8> = (0..LENGTH).map(|at| (at / 7) as u8).collect();
    let (bed, mut listener) = Bed::paced(spoken).await;
    let mut client = bed.connect().await;
    let (server, _) = listener.accept().await.expect("a session");
    let source = sent.clone();
    let sending = tokio::spawn(async move {
        let copied = copy(&mut source.as_slice(), &mut client).await;
        assert_eq!(copied.expect("copies"), LENGTH as u64);
        client.shutdown().await.expect("ends it");
        client
    });
    // In and out of chunks, as a body of HTTP is.
    let mut reading = StreamReader::new(ReaderStream::new(server));
    let mut received = vec![0; LENGTH];
    reading.read_exact(&mut received).await.expect("reads");
    assert!(received == sent);
    if spoken.tells_the_end() {
        assert_eq!(reading.read(&mut [0]).await.expect("a clean end"), 0);
    }
    let _client = sending.await.expect("no panic");
    bed.assert_cut(3);
}
