//! What the keeper does for an application that does not poll, and that it does nothing else.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use unbroken::CloseReason;

use super::{
    memory_link::{Client, Fault, Server},
    memory_net::{
        Dial, Net, Protocol, ROOMY, closed, exchange, expect, over_both, pattern, plain, resumed,
        send, until, within,
    },
    setup,
    stream_on::stream_on,
};

over_both!(
    it_writes_what_the_link_did_not_take,
    it_takes_in_what_the_application_does_not_read,
    a_reader_that_was_woken_and_went_away_stalls_nothing,
    a_writer_that_was_woken_and_went_away_stalls_nothing,
    an_application_that_went_away_is_resumed_for,
    a_busy_application_is_not_interfered_with,
    it_counts_down_a_servers_resume_window,
    it_wakes_a_writer_that_waits_for_room,
);

/// How long a woken task has to poll before the keeper does it instead.
const GRACE: Duration = Duration::from_millis(10);

/// A task that is woken, and does nothing about it.
#[derive(Default)]
pub(super) struct Idler(AtomicUsize);

impl Wake for Idler {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Idler {
    pub(super) fn woken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Polls a future once, for the idler.
pub(super) fn poll_once<R>(idler: &Arc<Idler>, future: impl Future<Output = R>) -> bool {
    let waker = Waker::from(idler.clone());
    pin!(future)
        .poll(&mut Context::from_waker(&waker))
        .is_ready()
}

async fn it_writes_what_the_link_did_not_take(protocol: Protocol) {
    let mut net = Net::new(&protocol.config(), 16);
    let (mut client, mut server) = net.open(&protocol.config()).await;
    let bytes = pattern(1, 20_000);
    // Accepted whole at once, and never polled again.
    let written = client.write(&bytes).await.expect("room");
    assert_eq!(written, bytes.len());
    match protocol {
        Protocol::Snet => assert_eq!(stream_on(protocol, &net.newest(), Client).len(), 16),
        // Frames take their part.
        Protocol::Native if setup::READABLE => {
            let taken = stream_on(protocol, &net.newest(), Client).len();
            assert!(taken <= 16, "{taken}");
        }
        Protocol::Native => {}
    }
    let began = Instant::now();
    expect(&mut server, &bytes).await;
    assert!(began.elapsed() < GRACE, "{:?}", began.elapsed());
    drop(client);
}

async fn it_takes_in_what_the_application_does_not_read(protocol: Protocol) {
    const HISTORY: usize = 10_000;
    let config = protocol.keeping(HISTORY);
    let mut net = Net::new(&config, 100);
    let (mut client, mut server) = net.open(&config).await;
    let bytes = pattern(1, HISTORY + 50);
    send(&mut server, &bytes).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // As much as its buffer holds, and no more.
    assert_eq!(client.handle().stats().received, HISTORY as u64);
    expect(&mut client, &bytes).await;
    exchange(&mut client, &mut server).await;
}

async fn a_reader_that_was_woken_and_went_away_stalls_nothing(protocol: Protocol) {
    let mut net = Net::new(&protocol.config(), 100);
    let (mut client, mut server) = net.open(&protocol.config()).await;
    let bytes = pattern(1, 10_000);
    let idler = Arc::new(Idler::default());
    assert!(!poll_once(&idler, client.read(&mut [0; 50])));
    let began = Instant::now();
    send(&mut server, &bytes).await;
    let waited = began.elapsed();
    assert_eq!(idler.woken(), 1);
    assert!(
        (GRACE / 2..3 * GRACE).contains(&waited),
        "{waited:?} to notice that nobody reads"
    );
    expect(&mut client, &bytes).await;
    // One that was served, and does not come again.
    send(&mut server, &bytes[..1]).await;
    expect(&mut client, &bytes[..1]).await;
    let began = Instant::now();
    send(&mut server, &bytes).await;
    assert!(began.elapsed() < 3 * GRACE, "{:?}", began.elapsed());
    expect(&mut client, &bytes).await;
}

async fn a_writer_that_was_woken_and_went_away_stalls_nothing(protocol: Protocol) {
    let mut net = Net::new(&protocol.config(), 100);
    let (mut client, mut server) = net.open(&protocol.config()).await;
    let bytes = pattern(1, 10_000);
    client.write_all(&bytes).await.expect("room");
    let idler = Arc::new(Idler::default());
    assert!(!poll_once(&idler, client.flush()));
    let began = Instant::now();
    expect(&mut server, &bytes).await;
    assert!(idler.woken() > 0);
    assert!(began.elapsed() < 3 * GRACE, "{:?}", began.elapsed());
}

async fn an_application_that_went_away_is_resumed_for(protocol: Protocol) {
    let mut net = Net::new(&protocol.config(), 100);
    let (mut client, mut server) = net.open(&protocol.config()).await;
    let bytes = pattern(1, 10_000);
    client.write_all(&bytes).await.expect("room");
    let idler = Arc::new(Idler::default());
    assert!(!poll_once(&idler, client.flush()));
    assert!(!poll_once(&idler, client.read(&mut [0])));
    net.newest().cut(Fault::Reset);
    expect(&mut server, &bytes).await;
    send(&mut server, &bytes).await;
    expect(&mut client, &bytes).await;
}

async fn a_busy_application_is_not_interfered_with(protocol: Protocol) {
    let mut net = Net::new(&protocol.config(), 100);
    let (mut client, mut server) = net.open(&protocol.config()).await;
    let bytes = pattern(1, 100_000);
    let to_send = bytes.clone();
    let sending = tokio::spawn(async move {
        for part in to_send.chunks(50) {
            send(&mut server, part).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server
    });
    let polls = net.newest().polls(Client);
    expect(&mut client, &bytes).await;
    let polls = net.newest().polls(Client) - polls;
    // Each part takes a poll that finds it and one that finds nothing, and the keeper makes none.
    assert!(polls <= 2 * 2000 + 200, "{polls} polls");
    drop(sending.await);
}

/// native asks for signs of life, of course.
#[tokio::test(start_paused = true)]
async fn an_idle_snet_session_costs_no_wake_ups() {
    let mut net = Net::new(&plain(), ROOMY);
    let (mut client, mut server) = net.open(&plain()).await;
    exchange(&mut client, &mut server).await;
    let reading = tokio::spawn(async move {
        let mut byte = [0];
        let count = server.read(&mut byte).await.expect("reading");
        assert_eq!((count, byte), (1, [7]));
        server
    });
    // One reader waits, at the other end nobody does; the graces pass.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let (wire, parks) = (net.newest(), metrics.worker_park_count(0));
    let polls = [Client, Server].map(|side| wire.polls(side));
    tokio::time::sleep(Duration::from_secs(100 * 60 * 60)).await;
    assert_eq!([Client, Server].map(|side| wire.polls(side)), polls);
    // A wake-up of a task would be one at least; tokio's timer goes a long way in a few steps.
    let parks = metrics.worker_park_count(0) - parks;
    assert!(parks <= 12, "{parks} times something happened");
    client.write_all(&[7]).await.expect("writing");
    within("the reader", reading).await.expect("no panic");
}

async fn it_counts_down_a_servers_resume_window(protocol: Protocol) {
    let window = Duration::from_secs(20);
    let config = protocol.config().resume_window(window);
    let mut net = Net::new(&config, ROOMY);
    let (client, server) = net.open(&protocol.config()).await;
    net.lose(&client, &server).await;
    let lost = Instant::now();
    assert_eq!(closed(&server.handle()).await, CloseReason::Expired);
    assert_eq!(lost.elapsed().as_secs(), 20);
    // And forgets the session: the client is told so.
    net.set(Dial::Serve);
    let told = match protocol {
        Protocol::Snet => protocol.unknown(),
        Protocol::Native => CloseReason::Expired,
    };
    assert_eq!(closed(&client.handle()).await, told);
    // A link in time stops the clock.
    let mut net = Net::new(&config, ROOMY);
    let (mut client, mut server) = net.open(&protocol.config()).await;
    for turn in 1..5 {
        net.lose(&client, &server).await;
        tokio::time::sleep(window / 2).await;
        net.set(Dial::Serve);
        client.handle().network_changed();
        resumed(&client.handle(), turn).await;
    }
    tokio::time::sleep(2 * window).await;
    exchange(&mut client, &mut server).await;
}

async fn it_wakes_a_writer_that_waits_for_room(protocol: Protocol) {
    const HISTORY: usize = 1000;
    let config = protocol.keeping(HISTORY);
    let mut net = Net::new(&config, 100);
    let (mut client, mut server) = net.open(&config).await;
    let bytes = pattern(1, 20 * HISTORY);
    let to_write = bytes.clone();
    net.newest().cut_end(Client, Fault::Stall);
    let writing = tokio::spawn(async move {
        client.write_all(&to_write).await.expect("writing");
        client
    });
    until("a full history", || {
        (server.handle().stats().received == 0).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!writing.is_finished());
    net.newest().go_on();
    expect(&mut server, &bytes).await;
    within("the writer", writing).await.expect("no panic");
}
