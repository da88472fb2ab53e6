//! TCP clients and servers that know nothing of sessions, with a forwarder at each end of one.

use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use unbroken::{CloseReason, Error, Handle, Listener};

use crate::bed::{Bed, Spoken, over_each, over_native};

over_each!(a_forwarded_echo_comes_back_whole);
over_native!(
    a_forwarder_passes_on_either_half_that_is_closed_while_the_other_goes_on,
    a_forwarder_whose_session_has_died_resets_what_it_forwards,
);

/// Less than a link carries, and more.
const SIZES: [usize; 2] = [100, 150_000];

fn bytes(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7 * seed) as u8).collect()
}

/// From TCP to TCP over a session that is cut.
struct Forwarded {
    bed: Bed,
    /// Sessions are resumed through it.
    _listener: Listener,
    session: Handle,
    client: TcpStream,
    server: TcpStream,
    near: JoinHandle<io::Result<(u64, u64)>>,
    far: JoinHandle<io::Result<(u64, u64)>>,
}

/// A TCP connection in two pieces.
async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a free port");
    let addr: SocketAddr = listener.local_addr().expect("its address");
    let (near, far) = tokio::join!(TcpStream::connect(addr), listener.accept());
    (near.expect("connects"), far.expect("accepts").0)
}

impl Forwarded {
    async fn start(spoken: Spoken) -> Self {
        let (bed, mut listener) = Bed::paced(spoken).await;
        let (client, mut to_client) = tcp().await;
        let (mut to_server, server) = tcp().await;
        let mut there = bed.connect().await;
        let (mut here, _) = listener.accept().await.expect("a session");
        let near = tokio::spawn(async move {
            let ended = copy_bidirectional(&mut to_client, &mut there).await;
            if ended.is_err() {
                // Else it would end as if that were all.
                to_client.set_zero_linger()?;
            }
            ended
        });
        let session = here.handle();
        let far = tokio::spawn(async move { copy_bidirectional(&mut here, &mut to_server).await });
        Self {
            bed,
            session,
            _listener: listener,
            client,
            server,
            near,
            far,
        }
    }
}

/// Sends all, ends it, and only then may the other begin, which reads to the end first.
async fn one_after_the_other(first: &mut TcpStream, second: &mut TcpStream, length: usize) {
    let (asked, answered) = (bytes(length, 3), bytes(2 * length, 5));
    tokio::join!(
        async {
            first.write_all(&asked).await.expect("writes");
            first.shutdown().await.expect("ends it");
            let mut all = Vec::new();
            first.read_to_end(&mut all).await.expect("reads");
            assert!(all == answered, "an answer of {} bytes", all.len());
        },
        async {
            let mut all = Vec::new();
            second.read_to_end(&mut all).await.expect("reads");
            assert!(all == asked, "a question of {} bytes", all.len());
            second.write_all(&answered).await.expect("writes");
            second.shutdown().await.expect("ends it");
        },
    );
}

async fn a_forwarder_passes_on_either_half_that_is_closed_while_the_other_goes_on(spoken: Spoken) {
    let mut cuts = 0;
    for length in SIZES {
        for client_ends_first in [true, false] {
            let mut forwarded = Forwarded::start(spoken).await;
            let (client, server) = (&mut forwarded.client, &mut forwarded.server);
            let (question, answer) = (length as u64, 2 * length as u64);
            let up_and_down = if client_ends_first {
                one_after_the_other(client, server, length).await;
                (question, answer)
            } else {
                one_after_the_other(server, client, length).await;
                (answer, question)
            };
            for forwarder in [forwarded.near, forwarded.far] {
                let ended = forwarder.await.expect("no panic");
                assert_eq!(ended.expect("a clean end"), up_and_down);
            }
            cuts += forwarded.bed.proxy.stats().cut;
        }
    }
    assert!(cuts >= 5, "{cuts} cuts");
}

async fn a_forwarded_echo_comes_back_whole(spoken: Spoken) {
    const LENGTH: usize = 800_000;

    let forwarded = Forwarded::start(spoken).await;
    let mut server = forwarded.server;
    let echoing = tokio::spawn(async move {
        let (mut reading, mut writing) = server.split();
        tokio::io::copy(&mut reading, &mut writing).await
    });
    let (mut reading, mut writing) = forwarded.client.into_split();
    let sent = bytes(LENGTH, 3);
    let expected = sent.clone();
    let sending = tokio::spawn(async move {
        writing.write_all(&sent).await.expect("writes");
        writing
    });
    let mut echoed = vec![0; LENGTH];
    reading.read_exact(&mut echoed).await.expect("reads");
    assert!(echoed == expected);
    let _writing = sending.await.expect("no panic");
    forwarded.bed.assert_cut(3);
    echoing.abort();
}

async fn a_forwarder_whose_session_has_died_resets_what_it_forwards(spoken: Spoken) {
    let mut forwarded = Forwarded::start(spoken).await;
    let sent = bytes(400_000, 3);
    forwarded.server.write_all(&sent).await.expect("writes");
    let mut received = vec![0; sent.len()];
    let reading = forwarded.client.read_exact(&mut received);
    reading.await.expect("reads");
    assert!(received == sent);
    forwarded.bed.assert_cut(1);

    forwarded.session.close(7);
    let end = forwarded.client.read(&mut received).await;
    let error = end.expect_err("no clean end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let error = forwarded.near.await.expect("no panic");
    let error = error.expect_err("no clean end");
    let reset = matches!(
        Error::find(&error),
        Some(Error::Closed(CloseReason::Reset(7)))
    );
    assert!(reset, "{error:?}");
}
