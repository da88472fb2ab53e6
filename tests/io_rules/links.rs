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
use unbroken::{Accepted, Acceptor, Connector, Error, ResumableTransport, protocol::Handshake};

use super::{
    memory_link::{Client, Fault, Lie, Server, Side, link},
    memory_net::{
        HUNG, Net, Protocol, ROOMY, closed, connected, exchange, expect, expect_nothing, over_both,
        pattern, resumed, send, within,
    },
};

over_both!(
    a_link_whose_write_takes_nothing_is_replaced,
    a_link_whose_write_claims_too_much_is_replaced,
    a_link_whose_read_takes_bytes_back_is_replaced,
    a_link_whose_read_fills_the_buffer_and_fails_is_replaced,
    a_link_whose_read_fills_the_buffer_and_waits_is_replaced,
    a_link_that_lies_in_the_handshake_is_an_error,
    a_session_over_a_session_resumes_at_either_level,
);

/// One end's link breaks the contract of its traits in the midst of a read and a write.
async fn lies(protocol: Protocol, side: Side, lie: Lie) {
    let mut net = Net::new(&protocol.config(), ROOMY);
    let (client, server) = net.open(&protocol.config()).await;
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

async fn a_link_whose_write_takes_nothing_is_replaced(protocol: Protocol) {
    lies(protocol, Client, Lie::WritesNothing).await;
    lies(protocol, Server, Lie::WritesNothing).await;
}

async fn a_link_whose_write_claims_too_much_is_replaced(protocol: Protocol) {
    lies(protocol, Client, Lie::WritesTooMuch).await;
    lies(protocol, Server, Lie::WritesTooMuch).await;
}

async fn a_link_whose_read_takes_bytes_back_is_replaced(protocol: Protocol) {
    lies(protocol, Client, Lie::TakesBack).await;
    lies(protocol, Server, Lie::TakesBack).await;
}

async fn a_link_whose_read_fills_the_buffer_and_fails_is_replaced(protocol: Protocol) {
    lies(protocol, Client, Lie::FillsAndFails).await;
    lies(protocol, Server, Lie::FillsAndFails).await;
}

async fn a_link_whose_read_fills_the_buffer_and_waits_is_replaced(protocol: Protocol) {
    lies(protocol, Client, Lie::FillsAndWaits).await;
    lies(protocol, Server, Lie::FillsAndWaits).await;
}

async fn a_link_that_lies_in_the_handshake_is_an_error(protocol: Protocol) {
    for lie in [
        Lie::WritesNothing,
        Lie::WritesTooMuch,
        Lie::TakesBack,
        Lie::FillsAndFails,
        Lie::FillsAndWaits,
    ] {
        let net = Net::new(&protocol.config(), ROOMY);
        let acceptor = net.acceptor();
        let (mut peer, end, wire) = link(ROOMY);
        wire.lie(Server, lie);
        let first = match protocol {
            Protocol::Snet => vec![0, 1, 2, 3, 4, 5, 6, 7, 8],
            Protocol::Native => super::raw_native::open_machine(1000).transmit().to_vec(),
        };
        send(&mut peer, &first).await;
        let accepted = within("the acceptor", acceptor.accept(end)).await;
        assert!(
            matches!(accepted, Err(Error::Link(_))),
            "{lie:?}: {accepted:?}"
        );

        let (end, mut peer, wire) = link(ROOMY);
        wire.lie(Client, lie);
        peer.write_all(&[1; 68]).await.expect("room");
        let end = Arc::new(Mutex::new(Some(end)));
        let dial = tower::service_fn(move |()| {
            let link = end.lock().expect("no panic").take();
            ready(link.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused)))
        });
        let opened = within(
            "opening",
            Connector::new(dial, protocol.config()).oneshot(()),
        )
        .await;
        assert!(matches!(opened, Err(Error::Link(_))), "{lie:?}: {opened:?}");
    }
}

/// A session whose links are sessions.
struct Nested {
    /// Carries the inner sessions.
    net: Net,
    client: ResumableTransport,
    server: ResumableTransport,
}

async fn nested(protocol: Protocol) -> Nested {
    // What an inner session holds, at both ends, is what the outer one can lose with it: far less than half its history.
    let inner_config = protocol.keeping(64 << 10);
    let mut net = Net::new(&inner_config, 16 << 10);
    let mut inner = net.take_outcomes();
    let acceptor = Acceptor::new(protocol.config());
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
    let client = within(
        "opening",
        Connector::new(inner, protocol.config()).oneshot(()),
    )
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

async fn a_session_over_a_session_resumes_at_either_level(protocol: Protocol) {
    let Nested {
        net,
        mut client,
        mut server,
    } = nested(protocol).await;
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
async fn nested_under_load(protocol: Protocol) {
    let nested = nested(protocol).await;
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

fn sessions_over_sessions(protocol: Protocol) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime");
    let done =
        runtime.block_on(async { timeout(HUNG, tokio::spawn(nested_under_load(protocol))).await });
    // Threads that have locked each other never come back.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done.expect("it does not hang").expect("no panic");
}

#[test]
fn sessions_over_sessions_do_not_lock_each_other() {
    for protocol in [Protocol::Snet, Protocol::Native] {
        sessions_over_sessions(protocol);
    }
}
