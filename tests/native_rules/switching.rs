//! Between two links: what is seen of the change from outside, and what a peer must not do in the midst of it. Links that hold
//! back what they took.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufWriter},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tower::ServiceExt;
use unbroken::{
    Accepted, Acceptor, CloseReason, Config, Connector, Error, LinkState, ResumableTransport,
    protocol::native::{Frame, Opened},
};

use super::{
    ends::{against_raw_server, against_raw_server_over},
    memory_link::{Client, Fault, MemoryLink, Server, Wire, link},
    memory_net::{
        NATIVE_CONFIRM, NATIVE_RESUME, Net, ROOMY, closed, exchange, expect, native, native_window,
        pattern, resumed, send, until, within,
    },
    raw_native::{self, Frames},
    shutdown::expect_end,
};

/// Takes down every state that is published, until the session is over.
fn states(end: &ResumableTransport) -> JoinHandle<Vec<LinkState>> {
    let mut states = end.handle().subscribe();
    let mut seen = vec![states.borrow_and_update().clone()];
    tokio::spawn(async move {
        while !matches!(seen.last(), Some(LinkState::Closed(_))) && states.changed().await.is_ok() {
            seen.push(states.borrow_and_update().clone());
        }
        seen
    })
}

#[tokio::test(start_paused = true)]
async fn nobody_sees_a_change_of_links_as_a_loss() {
    for delay in [0, 30].map(Duration::from_millis) {
        let mut net = Net::slow(&native(), ROOMY, delay);
        let (mut client, mut server) = net.open(&native()).await;
        let seen = [states(&client), states(&server)];
        for turn in 1..20 {
            exchange(&mut client, &mut server).await;
            let handle = client.handle();
            let moves = tokio::spawn(async move { handle.migrate().await });
            if turn % 2 == 0 && !delay.is_zero() {
                // The old link's end comes long before the new one's first frame.
                let old = net.newest();
                until("CONFIRM", || {
                    let sent = net.newest().written(Client).len();
                    (net.links() > turn && sent >= NATIVE_RESUME + NATIVE_CONFIRM).then_some(())
                })
                .await;
                old.cut_end(Client, Fault::End);
            }
            within("the migration", moves)
                .await
                .expect("no panic")
                .expect("it moves");
            resumed(&server.handle(), turn as u64).await;
        }
        drop((client, server));
        for seen in seen {
            let seen = within("the end", seen).await.expect("no panic");
            let expected = [
                LinkState::Connected,
                LinkState::Closed(CloseReason::Finished),
            ];
            assert_eq!(seen, expected);
        }
    }
}

/// The old link is gone for good when the new one fails: that is a loss, and seen.
#[tokio::test(start_paused = true)]
async fn a_switch_that_fails_when_the_old_link_is_gone_is_a_loss() {
    let (net, mut client, server, opened) = against_raw_server(1000).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let handle = client.handle();
    let moves = tokio::spawn(async move { handle.migrate().await });
    let (silent, _) = raw_native::serve_resume(net.ignored().await, &opened, 0).await;
    drop(server);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The server has changed over, for all that is known here.
    assert_eq!(client.handle().state(), LinkState::Connected);
    drop(silent);
    let (mut third, _) = raw_native::serve_resume(net.ignored().await, &opened, 0).await;
    assert!(matches!(
        client.handle().state(),
        LinkState::Reconnecting { .. }
    ));
    third.attach(0, 0, 1000).await.expect("room");
    within("the migration", moves)
        .await
        .expect("no panic")
        .expect("the next link is as good");
    third.send_data(b"here").await.expect("room");
    expect(&mut client, b"here").await;
}

/// A server attaches when it has seen the proof, and no sooner.
#[tokio::test(start_paused = true)]
async fn an_attach_that_comes_before_the_proof_ends_the_link() {
    let (net, mut client, mut server, opened) = against_raw_server(1000).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let handle = client.handle();
    let moves = tokio::spawn(async move { handle.migrate().await });
    let mut link = net.ignored().await;
    let mut machine = raw_native::hear(&mut link).await.expect("a RESUME");
    machine.resume(&opened.secret, [3; 16], 0);
    let attach = Frame::Attach {
        from: 0,
        received: 0,
        limit: 1 << 20,
    };
    // In one segment.
    let mut segment = unbroken::protocol::Handshake::transmit(&machine).to_vec();
    segment.extend(raw_native::frame(attach));
    segment.extend(raw_native::data(b"unproved"));
    link.write_all(&segment).await.expect("room");
    let moved = within("the migration", moves).await.expect("no panic");
    assert!(moved.is_err(), "{moved:?}");
    server.send_data(b"proved").await.expect("room");
    expect(&mut client, b"proved").await;
    assert_eq!(client.handle().stats().resumes, 0);
}

/// What a client has written to the old link, and the server has not spoken of yet.
const UNDER_WAY: usize = 900;

/// A client of ours with so much under way on its old link, which the test has read; and a new link on which it has asked to resume.
async fn asked_with_bytes_under_way(
    capacity: usize,
) -> (
    ResumableTransport,
    Frames<MemoryLink>,
    Opened,
    MemoryLink,
    Vec<u8>,
) {
    let (net, mut client, mut old, opened) = against_raw_server_over(capacity, 1 << 20).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let bytes = pattern(1, UNDER_WAY);
    let (_, taken) = tokio::join!(send(&mut client, &bytes), old.take(UNDER_WAY));
    assert_eq!(taken, bytes);
    let handle = client.handle();
    tokio::spawn(async move { handle.migrate().await });
    let new = net.ignored().await;
    (client, old, opened, new, bytes)
}

fn acknowledge(received: u64) -> Frame {
    Frame::Ack {
        received,
        limit: 1 << 20,
    }
}

/// DATA carries no offset: what the new link has begun with it has to bring, though the old one brings word that it has arrived.
#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_over_the_old_link_is_still_sent_over_the_new_one() {
    // A link that takes a little at a time is far behind.
    let (mut client, mut old, opened, new, bytes) = asked_with_bytes_under_way(100).await;
    let (mut new, _) = raw_native::serve_resume(new, &opened, 0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    old.send(acknowledge(UNDER_WAY as u64)).await.expect("room");
    until("the ACK", || {
        (client.handle().stats().unacknowledged == 0).then_some(())
    })
    .await;
    // Room that comes of that is used, too.
    let more = pattern(2, 1000);
    let writing = tokio::spawn(async move {
        send(&mut client, &more).await;
        (client, more)
    });
    let attach = within("ATTACH", new.next()).await;
    assert!(
        matches!(attach, Some(Frame::Attach { from: 0, .. })),
        "{attach:?}"
    );
    assert!(
        within("the replay", new.take(UNDER_WAY)).await == bytes,
        "the replay is spoilt"
    );
    let after = within("what follows", new.take(1000)).await;
    let (client, more) = within("the writer", writing).await.expect("no panic");
    assert!(after == more, "what follows is spoilt");
    drop((client, old));
}

/// What the old link has brought word of since is gone when the answer to the resume comes, which knows nothing of it.
#[tokio::test(start_paused = true)]
async fn a_new_link_starts_behind_what_was_acknowledged_over_the_old_one() {
    let (mut client, mut old, opened, new, _) = asked_with_bytes_under_way(ROOMY).await;
    old.send(acknowledge(UNDER_WAY as u64)).await.expect("room");
    until("the ACK", || {
        (client.handle().stats().unacknowledged == 0).then_some(())
    })
    .await;
    let (mut new, _) = raw_native::serve_resume(new, &opened, 0).await;
    let attach = within("ATTACH", new.next()).await;
    let from = UNDER_WAY as u64;
    assert!(
        matches!(attach, Some(Frame::Attach { from: start, .. }) if start == from),
        "{attach:?}"
    );
    new.attach(0, from, 1 << 20).await.expect("room");
    send(&mut client, b"behind it").await;
    assert_eq!(within("the bytes", new.take(9)).await, b"behind it");
    assert_eq!(client.handle().stats().replayed, 0);
}

/// A link that keeps all it is given until it is flushed, as far as it has room.
type Holding = BufWriter<MemoryLink>;

/// A client's and a server's end of a session over such links, and the newest of those.
async fn over_holding_links(config: &Config) -> [ResumableTransport; 2] {
    let acceptor = Acceptor::new(config.clone());
    let (accepted, mut transports) = mpsc::unbounded_channel();
    let dial = tower::service_fn(move |(): ()| {
        let (near, far, _): (_, _, Wire) = link(1 << 20);
        let hold = |link| -> Holding { BufWriter::with_capacity(1 << 20, link) };
        let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
        tokio::spawn(async move {
            if let Ok(Accepted::New(transport)) = acceptor.accept(hold(far)).await {
                let _ = accepted.send(transport);
            }
        });
        std::future::ready(io::Result::Ok(hold(near)))
    });
    let connector = Connector::new(dial, config.clone());
    let client = within("opening", connector.oneshot(()))
        .await
        .expect("a session");
    let server = within("the session", transports.recv())
        .await
        .expect("a session");
    [client, server]
}

#[tokio::test(start_paused = true)]
async fn over_links_that_hold_back_nobody_waits_for_a_flush_in_vain() {
    const WINDOW: usize = 1000;
    let [mut client, mut server] = over_holding_links(&native_window(WINDOW)).await;
    exchange(&mut client, &mut server).await;
    // A writer that waits for room has its bytes flushed, and the acknowledgements of an end that only reads are.
    let bytes = pattern(1, 30 * WINDOW);
    for turn in 0..2 {
        let to_write = bytes.clone();
        let writing = tokio::spawn(async move {
            client.write_all(&to_write).await.expect("writing");
            // What is left of it is the keeper's.
            client
        });
        expect(&mut server, &bytes).await;
        client = within("the writer", writing).await.expect("no panic");
        if turn == 0 {
            within("moving", client.handle().migrate())
                .await
                .expect("it moves");
        }
    }
    // Signs of life are flushed as well.
    tokio::time::sleep(Duration::from_secs(600)).await;
    for end in [&client, &server] {
        let stats = end.handle().stats();
        assert_eq!((stats.resumes, stats.unacknowledged), (1, 0));
        assert!(stats.round_trip.is_some());
    }
    // The end, too; and what goes with a drop.
    server.write_all(b"unflushed").await.expect("room");
    within("the shutdown", server.shutdown())
        .await
        .expect("done");
    client.write_all(b"unflushed").await.expect("room");
    let handle = client.handle();
    expect_end(&mut client, b"unflushed").await;
    drop(client);
    expect_end(&mut server, b"unflushed").await;
    assert_eq!(closed(&handle).await, CloseReason::Finished);
}

#[tokio::test(start_paused = true)]
async fn over_links_that_hold_back_a_reset_and_a_rejection_arrive() {
    let config = native();
    let [client, mut server] = over_holding_links(&config).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.handle().close(5);
    assert_eq!(closed(&server.handle()).await, CloseReason::Reset(5));
    assert!(server.read(&mut [0]).await.is_err());
    let [client, server] = over_holding_links(&config).await;
    server.handle().close(6);
    assert_eq!(closed(&client.handle()).await, CloseReason::Reset(6));

    let acceptor = Acceptor::new(config);
    let (near, far, _) = link(ROOMY);
    let mut near: Holding = BufWriter::new(near);
    let accepting =
        tokio::spawn(async move { acceptor.accept::<Holding>(BufWriter::new(far)).await });
    let mut prelude = b"UNBR\x02".to_vec();
    prelude.extend([0; 23]);
    send(&mut near, &prelude).await;
    let mut reject = [0; 10];
    within("a REJECT", near.read_exact(&mut reject))
        .await
        .expect("a REJECT");
    assert_eq!(reject, [0x15, 0, 0, 6, 0, 6, 0, 0, 0, 0]);
    drop(near);
    let accepted = within("the acceptor", accepting).await.expect("no panic");
    assert!(matches!(accepted, Err(Error::Handshake(_))), "{accepted:?}");
}

/// A task that waits to write does not keep the others from running, nor does it look again and again.
#[tokio::test(start_paused = true)]
async fn a_writer_that_waits_does_not_spin() {
    const WINDOW: usize = 1000;
    let mut net = Net::new(&native_window(WINDOW), ROOMY);
    let (mut client, server) = net.open(&native_window(WINDOW)).await;
    within("room", client.write_all(&[7; 2 * WINDOW]))
        .await
        .expect("room");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let wire = net.newest();
    let polls = wire.polls(Client);
    let early = timeout(Duration::from_secs(10), client.write(&[7])).await;
    assert!(early.is_err(), "beyond the credit");
    let polls = wire.polls(Client) - polls;
    assert!(polls < 30, "{polls} polls of the link");
    assert_eq!(wire.dropped(Server), None);
    drop(server);
}
