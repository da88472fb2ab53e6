//! Of stubborn-io, EternalTerminal and SignalR: what a reconnecting stream does to its application, and both ends to each other.

use std::{future::poll_fn, pin::Pin, task::Poll, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf, split},
    time::Instant,
};
use unbroken::LinkState;

use super::{
    memory_link::{Client, Fault, Server},
    memory_net::{
        Dial, NATIVE_CONFIRM, NATIVE_OPEN, Net, Protocol, ROOMY, connected, exchange, expect,
        expect_nothing, over_both, pattern, resumed, send, within,
    },
    stream_on::stream_on,
};

over_both!(
    stubborn_io_23_a_zero_length_read_is_no_disconnect,
    stubborn_io_23_shutdown_starts_no_reconnect,
    stubborn_io_23_both_split_halves_wake,
    stubborn_io_23_both_split_halves_learn_of_the_end,
    stubborn_io_23_the_tail_of_a_frame_does_not_go_onto_the_new_link,
    eternal_terminal_17_window_sized_replays_both_ways_do_not_lock_each_other,
    eternal_terminal_17_not_when_they_are_cut_in_their_midst_either,
    eternal_terminal_17_a_lost_window_is_replayed_both_ways_at_once,
    signalr_24_resumes_under_full_load_both_ways_lose_nothing,
);

async fn stubborn_io_23_a_zero_length_read_is_no_disconnect(protocol: Protocol) {
    let mut net = Net::new(&protocol.config(), ROOMY);
    let (mut client, mut server) = net.open(&protocol.config()).await;
    for waiting in [false, true] {
        if waiting {
            send(&mut server, b"waiting").await;
        }
        for _ in 0..3 {
            let read = within("an empty read", client.read(&mut [])).await;
            assert_eq!(read.expect("no error"), 0);
            let write = within("an empty write", client.write(&[])).await;
            assert_eq!(write.expect("no error"), 0);
        }
        // A buffer that is full already is as empty.
        let mut full = [1, 2, 3];
        let mut buf = ReadBuf::new(&mut full);
        buf.set_filled(3);
        poll_fn(|cx| Pin::new(&mut client).poll_read(cx, &mut buf))
            .await
            .expect("no error");
        assert_eq!(buf.filled(), [1, 2, 3]);
    }
    expect(&mut client, b"waiting").await;
    exchange(&mut client, &mut server).await;
    assert_eq!((net.links(), client.handle().stats().resumes), (1, 0));
}

async fn stubborn_io_23_shutdown_starts_no_reconnect(protocol: Protocol) {
    let mut net = Net::new(&protocol.config(), ROOMY);
    let (mut client, mut server) = net.open(&protocol.config()).await;
    send(&mut client, b"all there is").await;
    within("the shutdown", client.shutdown())
        .await
        .expect("all is handed over");
    within("the shutdown", client.shutdown())
        .await
        .expect("it can be done twice");
    // The other direction goes on, on the same link.
    for _ in 0..10 {
        send(&mut server, b"still").await;
        expect(&mut client, b"still").await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    expect(&mut server, b"all there is").await;
    match protocol {
        Protocol::Snet => expect_nothing(&mut server).await,
        // The end of the stream came with it.
        Protocol::Native => {
            let end = within("the end", server.read(&mut [0])).await;
            assert_eq!(end.expect("a clean end"), 0);
        }
    }
    assert_eq!(net.links(), 1);
    assert_eq!(client.handle().state(), LinkState::Connected);
}

async fn stubborn_io_23_both_split_halves_wake(protocol: Protocol) {
    let config = protocol.keeping(1000);
    let mut net = Net::new(&config, 100);
    let (client, mut server) = net.open(&config).await;
    let handle = client.handle();
    let (mut reading, mut writing) = split(client);
    let up = pattern(1, 10_000);
    let to_write = up.clone();
    net.set(Dial::Refuse);
    net.newest().cut(Fault::Reset);
    // Both halves wait on the lost link, each in a task of its own.
    let writer = tokio::spawn(async move {
        send(&mut writing, &to_write).await;
        writing
    });
    let reader = tokio::spawn(async move {
        expect(&mut reading, b"awake").await;
        reading
    });
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!writer.is_finished() && !reader.is_finished());
    net.set(Dial::Serve);
    handle.network_changed();
    connected(&handle).await;
    let began = Instant::now();
    send(&mut server, b"awake").await;
    let reading = within("the reader", reader).await.expect("no panic");
    expect(&mut server, &up).await;
    let writing = within("the writer", writer).await.expect("no panic");
    assert!(
        began.elapsed() < Duration::from_millis(100),
        "{:?}: somebody else did their work",
        began.elapsed()
    );
    exchange(&mut reading.unsplit(writing), &mut server).await;
}

async fn stubborn_io_23_both_split_halves_learn_of_the_end(protocol: Protocol) {
    let config = protocol.keeping(1000).resume_window(Duration::from_secs(5));
    let mut net = Net::new(&config, 100);
    let (client, _server) = net.open(&config).await;
    let (mut reading, mut writing) = split(client);
    let writer = tokio::spawn(async move { writing.write_all(&[0; 10_000]).await });
    let reader = tokio::spawn(async move { reading.read(&mut [0]).await });
    net.set(Dial::Refuse);
    net.newest().cut(Fault::Reset);
    assert!(
        within("the writer", writer)
            .await
            .expect("no panic")
            .is_err()
    );
    assert!(
        within("the reader", reader)
            .await
            .expect("no panic")
            .is_err()
    );
}

async fn stubborn_io_23_the_tail_of_a_frame_does_not_go_onto_the_new_link(protocol: Protocol) {
    const FRAME: usize = 1000;
    // What the link takes of the frame, and how much of that arrives.
    for (taken, arrives) in [(1, 0), (300, 0), (300, 120), (300, 299), (999, 999)] {
        let mut net = Net::new(&protocol.config(), taken);
        // The handshake; in native also ATTACH, a PING and the header of DATA.
        let before = match protocol {
            Protocol::Snet => 25,
            Protocol::Native => NATIVE_OPEN + NATIVE_CONFIRM + 28 + 12 + 4,
        };
        net.plan([Dial::CutAt(Client, before + arrives)]);
        let frame = pattern(1, FRAME);
        let connector = unbroken::Connector::new(net.dialer(), protocol.config());
        let mut client = tower::ServiceExt::oneshot(connector, ())
            .await
            .expect("the session opens");
        let mut server = net.session().await;
        client.write_all(&frame).await.expect("writing");
        resumed(&client.handle(), 1).await;
        expect(&mut server, &frame).await;
        expect_nothing(&mut server).await;
        let on_second = stream_on(protocol, &net.wire(1), Client);
        assert_eq!(
            on_second,
            frame[arrives..],
            "{taken} taken, {arrives} arrive"
        );
        exchange(&mut client, &mut server).await;
    }
}

/// Both applications write and flush a window before they read, over links that hold next to nothing.
async fn window_sized_replay(protocol: Protocol, capacity: usize, history: usize, cuts: usize) {
    let config = protocol.keeping(history);
    let mut net = Net::new(&config, capacity);
    let (mut client, mut server) = net.open(&config).await;
    exchange(&mut client, &mut server).await;
    let (up, down) = (pattern(1, history), pattern(2, history));
    net.set(Dial::Refuse);
    net.newest().cut(Fault::Reset);
    tokio::time::sleep(Duration::from_millis(1)).await;
    // Detached, the session takes a window whole.
    send(&mut client, &up[..history / 2]).await;
    send(&mut server, &down[..history / 2]).await;
    net.set(Dial::Serve);
    client.handle().network_changed();
    let both = |mut end: unbroken::ResumableTransport, out: Vec<u8>, inbound: Vec<u8>| async move {
        send(&mut end, &out[history / 2..]).await;
        expect(&mut end, &inbound).await;
        end
    };
    let (client_handle, server_handle) = (client.handle(), server.handle());
    let client = tokio::spawn(both(client, up.clone(), down.clone()));
    let server = tokio::spawn(both(server, down, up));
    for _ in 0..cuts {
        // In the midst of the replay.
        tokio::time::sleep(Duration::from_millis(12)).await;
        net.newest().cut(Fault::Reset);
        tokio::join!(connected(&client_handle), connected(&server_handle));
    }
    let (client, server) = within("both", async { tokio::join!(client, server) }).await;
    exchange(
        &mut client.expect("no panic"),
        &mut server.expect("no panic"),
    )
    .await;
    assert!(client_handle.stats().sent >= history as u64);
}

async fn eternal_terminal_17_window_sized_replays_both_ways_do_not_lock_each_other(
    protocol: Protocol,
) {
    window_sized_replay(protocol, 7, 20_000, 0).await;
    window_sized_replay(protocol, 1, 2_000, 0).await;
    window_sized_replay(protocol, 64 << 10, 1 << 20, 0).await;
}

async fn eternal_terminal_17_not_when_they_are_cut_in_their_midst_either(protocol: Protocol) {
    window_sized_replay(protocol, 7, 20_000, 5).await;
    window_sized_replay(protocol, 512, 1 << 20, 9).await;
}

async fn eternal_terminal_17_a_lost_window_is_replayed_both_ways_at_once(protocol: Protocol) {
    // Here the first link took all and delivered none of it.
    const WINDOW: usize = 8000;
    let config = protocol.keeping(2 * WINDOW);
    // Room for native's frames besides.
    let mut net = Net::new(&config, WINDOW + 200);
    let (mut client, mut server) = net.open(&config).await;
    net.newest().cut(Fault::Deaf);
    let (up, down) = (pattern(1, WINDOW), pattern(2, WINDOW));
    send(&mut client, &up).await;
    send(&mut server, &down).await;
    assert_eq!(stream_on(protocol, &net.newest(), Client).len(), WINDOW);
    net.newest().cut(Fault::Reset);
    resumed(&client.handle(), 1).await;
    resumed(&server.handle(), 1).await;
    tokio::join!(expect(&mut client, &down), expect(&mut server, &up));
    assert_eq!(client.handle().stats().replayed, WINDOW as u64);
    assert_eq!(server.handle().stats().replayed, WINDOW as u64);
    expect_nothing(&mut client).await;
    expect_nothing(&mut server).await;
    poll_fn(|cx| {
        let mut byte = [0];
        let mut buf = ReadBuf::new(&mut byte);
        assert!(Pin::new(&mut client).poll_read(cx, &mut buf).is_pending());
        Poll::Ready(())
    })
    .await;
    assert_eq!(net.links(), 2);
}

async fn signalr_24_resumes_under_full_load_both_ways_lose_nothing(protocol: Protocol) {
    const CUTS: usize = 60;
    let config = protocol.keeping(10_000);
    for capacity in [16, 1000] {
        let mut net = Net::new(&config, capacity);
        let (client, server) = net.open(&config).await;
        let handles = [client.handle(), server.handle()];
        // Each link is cut in the midst of what it carries, from one side or the other.
        net.newest().cut_at(Client, 1000);
        net.plan((0..CUTS).map(|cut| {
            let side = [Client, Server][cut % 2];
            Dial::CutAt(side, protocol.resume_sent() + 997 * (cut + 3) % 3000)
        }));
        let (up, down) = (pattern(1, 300_000), pattern(2, 300_000));
        let stream = |end: unbroken::ResumableTransport, out: Vec<u8>, inbound: Vec<u8>| async move {
            let (mut reading, mut writing) = split(end);
            tokio::join!(send(&mut writing, &out), expect(&mut reading, &inbound));
            reading.unsplit(writing)
        };
        let client = tokio::spawn(stream(client, up.clone(), down.clone()));
        let server = tokio::spawn(stream(server, down, up));
        let (client, server) = within("both", async { tokio::join!(client, server) }).await;
        let (mut client, mut server) = (client.expect("no panic"), server.expect("no panic"));
        exchange(&mut client, &mut server).await;
        expect_nothing(&mut client).await;
        expect_nothing(&mut server).await;
        for handle in handles {
            let stats = handle.stats();
            assert!(
                stats.resumes >= CUTS as u64 / 2,
                "{} resumes",
                stats.resumes
            );
            assert!(stats.replayed > 0, "nothing was replayed");
        }
    }
}
