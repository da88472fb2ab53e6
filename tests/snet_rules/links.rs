//! Links of odd kinds: those that lie, and those that are sessions themselves.

use std::{
    future::ready,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    sync::mpsc,
    time::timeout,
};
use tower::ServiceExt;
use unbroken::{Accepted, Acceptor, Config, Connector, Error, ResumableTransport, Snet};

use super::{
    memory_link::{Client, Fault, Lie, Server, Side, link},
    memory_net::{
        HUNG, Net, ROOMY, closed, connected, exchange, expect, expect_nothing, pattern, plain,
        plain_history, resumed, send, stream, within,
    },
};

/// One end's link breaks the contract of its traits in the midst of a read and a write.
async fn lies(side: Side, lie: Lie) {
    let mut net = Net::new(&plain(), ROOMY);
    let (client, server) = net.open(&plain()).await;
    let (mut end, mut other) = match side {
        Client => (client, server),
        Server => (server, client),
    };
    exchange(&mut end, &mut other).await;
    let (inbound, outbound) = (pattern(1, 200), pattern(2, 200));
    // A read that is half done: its buffer holds bytes already when the link next has its say.
    let half = inbound.clone();
    send(&mut other, &half[..100]).await;
    let (mut reading, mut writing) = split(end);
    let reader = tokio::spawn(async move {
        let mut read = vec![0; 200];
        reading.read_exact(&mut read).await.expect("reading");
        (reading, read)
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let lying = net.newest();
    lying.lie(side, lie);
    writing.write_all(&outbound).await.expect("room");
    send(&mut other, &inbound[100..]).await;
    let (reading, read) = within("the reader", reader).await.expect("no panic");
    assert!(read == inbound, "{lie:?}: the read is spoilt");
    expect(&mut other, &outbound).await;
    let mut end = reading.unsplit(writing);
    exchange(&mut end, &mut other).await;
    expect_nothing(&mut end).await;
    expect_nothing(&mut other).await;
    assert!(lying.dropped(side).is_some(), "{lie:?}: the link is kept");
    assert_eq!(net.links(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_link_whose_write_takes_nothing_is_replaced() {
    lies(Client, Lie::WritesNothing).await;
    lies(Server, Lie::WritesNothing).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_whose_write_claims_too_much_is_replaced() {
    lies(Client, Lie::WritesTooMuch).await;
    lies(Server, Lie::WritesTooMuch).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_whose_read_takes_bytes_back_is_replaced() {
    lies(Client, Lie::TakesBack).await;
    lies(Server, Lie::TakesBack).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_whose_read_fills_the_buffer_and_fails_is_replaced() {
    lies(Client, Lie::FillsAndFails).await;
    lies(Server, Lie::FillsAndFails).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_whose_read_fills_the_buffer_and_waits_is_replaced() {
    lies(Client, Lie::FillsAndWaits).await;
    lies(Server, Lie::FillsAndWaits).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_lies_in_the_handshake_is_an_error() {
    for lie in [
        Lie::WritesNothing,
        Lie::WritesTooMuch,
        Lie::TakesBack,
        Lie::FillsAndFails,
        Lie::FillsAndWaits,
    ] {
        let net = Net::new(&plain(), ROOMY);
        let acceptor = net.acceptor();
        let (mut peer, end, wire) = link(ROOMY);
        wire.lie(Server, lie);
        send(&mut peer, &[0, 1, 2, 3, 4, 5, 6, 7, 8]).await;
        let accepted = within("the acceptor", acceptor.accept(end)).await;
        assert!(
            matches!(accepted, Err(Error::Link(_))),
            "{lie:?}: {accepted:?}"
        );

        let (end, mut peer, wire) = link(ROOMY);
        wire.lie(Client, lie);
        peer.write_all(&[1; 24]).await.expect("room");
        let end = Arc::new(Mutex::new(Some(end)));
        let dial = tower::service_fn(move |()| {
            let link = end.lock().expect("no panic").take();
            ready(link.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused)))
        });
        let opened = within("opening", Connector::new(dial, plain()).oneshot(())).await;
        assert!(matches!(opened, Err(Error::Link(_))), "{lie:?}: {opened:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_goes_out_as_it_did_the_first_time() {
    let config = Config::new().snet(Snet::rc4().silence(None));
    let mut net = Net::new(&config, ROOMY);
    let (mut client, mut server) = net.open(&config).await;
    exchange(&mut client, &mut server).await;
    net.newest().cut(Fault::Deaf);
    let (up, down) = (pattern(1, 500), pattern(2, 500));
    send(&mut client, &up).await;
    send(&mut server, &down).await;
    net.cut_and_resume(&client, &server).await;
    expect(&mut server, &up).await;
    expect(&mut client, &down).await;
    for (side, clear) in [(Client, &up), (Server, &down)] {
        let first = &stream(&net.wire(0), side)[300..];
        assert_eq!(first, stream(&net.wire(1), side));
        assert_ne!(first, clear);
    }
    // The keystreams go on where they were.
    exchange(&mut client, &mut server).await;
    net.cut_and_resume(&client, &server).await;
    exchange(&mut client, &mut server).await;
}

/// A session whose links are sessions.
struct Nested {
    /// Carries the inner sessions.
    net: Net,
    client: ResumableTransport,
    server: ResumableTransport,
}

async fn nested() -> Nested {
    // What an inner session holds, at both ends, is what the outer one can lose with it: far less than half its history.
    let inner_config = plain_history(64 << 10);
    let mut net = Net::new(&inner_config, 16 << 10);
    let mut inner = net.take_outcomes();
    let acceptor = Acceptor::new(plain());
    let (sender, mut sessions) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(outcome) = inner.recv().await {
            let Ok(Accepted::New(link)) = outcome else {
                continue;
            };
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            tokio::spawn(async move {
                if let Ok(Accepted::New(transport)) = acceptor.accept(link).await {
                    let _ = sender.send(transport);
                }
            });
        }
    });
    let inner = Connector::new(net.dialer(), inner_config);
    let client = within("opening", Connector::new(inner, plain()).oneshot(()))
        .await
        .expect("the outer session opens");
    let server = within("the outer session", sessions.recv())
        .await
        .expect("a session");
    Nested {
        net,
        client,
        server,
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_over_a_session_resumes_at_either_level() {
    let Nested {
        net,
        mut client,
        mut server,
    } = nested().await;
    exchange(&mut client, &mut server).await;
    // A lost link is the inner session's own business.
    for _ in 0..3 {
        net.newest().cut(Fault::Reset);
        exchange(&mut client, &mut server).await;
    }
    assert_eq!(net.links(), 4);
    assert_eq!(client.handle().stats().resumes, 0);
    // The outer one moves to another inner session.
    within("moving", client.handle().migrate())
        .await
        .expect("it moves");
    exchange(&mut client, &mut server).await;
    assert_eq!(server.handle().stats().resumes, 1);
    // What neither polls, both keepers do.
    let bytes = pattern(1, 300_000);
    client.write_all(&bytes).await.expect("room");
    net.newest().cut(Fault::Reset);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        server.handle().stats().received,
        client.handle().stats().sent
    );
    let handle = client.handle();
    drop(client);
    expect(&mut server, &bytes).await;
    closed(&handle).await;
}

/// Both levels lose their links under full load both ways.
async fn nested_under_load() {
    let nested = nested().await;
    let (client_handle, server_handle) = (nested.client.handle(), nested.server.handle());
    let stream = |end: ResumableTransport, seed| async move {
        let (mut reading, mut writing) = split(end);
        let bytes = pattern(7, 200_000);
        tokio::join!(
            async {
                for _ in 0..seed {
                    send(&mut writing, &bytes).await;
                }
            },
            async {
                for _ in 0..seed {
                    expect(&mut reading, &bytes).await;
                }
            }
        );
        reading.unsplit(writing)
    };
    let client = tokio::spawn(stream(nested.client, 20));
    let server = tokio::spawn(stream(nested.server, 20));
    let mut turn = 0;
    while !(client.is_finished() && server.is_finished()) {
        tokio::time::sleep(Duration::from_millis(3)).await;
        turn += 1;
        if turn % 5 == 0 {
            within("moving", client_handle.migrate())
                .await
                .expect("it moves");
        } else {
            nested.net.newest().cut(Fault::Reset);
        }
    }
    let (mut client, mut server) = (
        client.await.expect("the client's stream is whole"),
        server.await.expect("the server's stream is whole"),
    );
    connected(&client_handle).await;
    resumed(&server_handle, 1).await;
    exchange(&mut client, &mut server).await;
}

#[test]
fn sessions_over_sessions_do_not_lock_each_other() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime");
    let done = runtime.block_on(async { timeout(HUNG, tokio::spawn(nested_under_load())).await });
    // Threads that have locked each other never come back.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done.expect("it does not hang").expect("no panic");
}
