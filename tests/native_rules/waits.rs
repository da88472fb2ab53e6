//! Whoever waits does so no longer than there is something to wait for, and costs nothing meanwhile.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::SinkExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream, ReadBuf},
    time::{Instant, interval, timeout},
};
use tokio_util::codec::{Framed, LinesCodec};
use tower::{ServiceBuilder, ServiceExt};
use unbroken::{Accepted, Config, Connector, LinkState, ResumableTransport};

use super::{
    ends::against_raw_server,
    memory_link::{Client, Fault, Server},
    memory_net::{
        Dial, Net, ROOMY, connected, exchange, expect, native, native_window, pattern, send, until,
        within,
    },
    raw_native,
};

/// After how long there are no acknowledgements left to send.
const SETTLED: Duration = Duration::from_millis(100);
/// Less than a link may be silent before it is pinged.
const QUIET: Duration = Duration::from_secs(10);
/// How many polls in a row are taken for polls without an end. Time stands still while a task wakes itself.
const SPINS: usize = 1000;

/// A session over links that keep what they are given until it is more than `buffer`, or flushed.
async fn open_buffered(
    net: &mut Net,
    config: &Config,
    buffer: usize,
) -> (ResumableTransport, ResumableTransport) {
    net.set(Dial::Ignore);
    let dialer = ServiceBuilder::new()
        .map_response(move |link| BufStream::with_capacity(buffer, buffer, link))
        .service(net.dialer());
    let connector = Connector::new(dialer, config.clone());
    let (client, server) = tokio::join!(connector.oneshot(()), async {
        let link = BufStream::with_capacity(buffer, buffer, net.ignored().await);
        net.acceptor().accept(link).await
    });
    match server.expect("the session opens") {
        Accepted::New(server) => (client.expect("the session opens"), server),
        other => panic!("{other:?} instead of a new session"),
    }
}

/// What a link holds back makes no room, and only its writer can change that.
#[tokio::test(start_paused = true)]
async fn a_writer_waits_for_no_ping_to_flush_its_link() {
    const WINDOW: usize = 4096;
    for from in [Client, Server] {
        let config = native_window(WINDOW);
        let mut net = Net::new(&config, ROOMY);
        let (client, server) = open_buffered(&mut net, &config, 2 * WINDOW).await;
        let (mut writer, mut reader) = match from {
            Client => (client, server),
            Server => (server, client),
        };
        tokio::time::sleep(SETTLED).await;
        let bytes = pattern(1, 20 * WINDOW);
        let began = Instant::now();
        let reading = tokio::spawn({
            let bytes = bytes.clone();
            async move {
                expect(&mut reader, &bytes).await;
                reader
            }
        });
        within("room", writer.write_all(&bytes))
            .await
            .expect("writing");
        within("the flush", writer.flush()).await.expect("flushed");
        drop(within("the reader", reading).await.expect("no panic"));
        assert_eq!(began.elapsed(), Duration::ZERO, "{from:?}");
    }
}

/// A transport that counts how many times it is asked to shut down.
struct Counting {
    transport: ResumableTransport,
    shutdowns: Arc<AtomicUsize>,
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.transport).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let polls = self.shutdowns.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(polls < SPINS, "the task wakes itself");
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

/// The flush has nothing to do, and is no reason to look again whether the shutdown has.
#[tokio::test(start_paused = true)]
async fn a_close_that_flushes_each_time_it_is_polled_is_not_woken_by_itself() {
    for closes in [Client, Server] {
        let mut net = Net::new(&native(), ROOMY);
        let (mut client, mut server) = net.open(&native()).await;
        exchange(&mut client, &mut server).await;
        tokio::time::sleep(SETTLED).await;
        let (transport, mut peer) = match closes {
            Client => (client, server),
            Server => (server, client),
        };
        // The end goes out, and nobody acknowledges it.
        net.newest().cut_end(closes.other(), Fault::Deaf);
        let shutdowns = Arc::new(AtomicUsize::new(0));
        let counting = Counting {
            transport,
            shutdowns: shutdowns.clone(),
        };
        let mut framed = Framed::new(counting, LinesCodec::new());
        let close = async { SinkExt::<&str>::close(&mut framed).await };
        tokio::pin!(close);
        // The task has something else to wait for besides.
        let mut ticks = interval(Duration::from_secs(1));
        let quiet = timeout(QUIET, async {
            loop {
                tokio::select! {
                    biased;
                    closed = &mut close => return closed,
                    _ = ticks.tick() => {}
                }
            }
        });
        let closed = quiet.await;
        assert!(closed.is_err(), "{closed:?} though nothing was heard");
        // Before and after each tick.
        let polls = shutdowns.load(Ordering::Relaxed);
        assert!(polls <= 30, "{polls} polls in {QUIET:?}");
        // It is woken when there is a reason.
        net.newest().go_on();
        within("the close", close).await.expect("all has arrived");
        let read = within("the end", peer.read(&mut [0])).await;
        assert_eq!(read.expect("reading"), 0);
    }
}

/// The same of a task that waits for room.
#[tokio::test(start_paused = true)]
async fn a_writer_that_flushes_each_time_it_is_polled_is_not_woken_by_itself() {
    const WINDOW: usize = 1000;
    for has_link in [false, true] {
        let mut net = Net::new(&native_window(WINDOW), ROOMY);
        let (mut client, mut server) = net.open(&native_window(WINDOW)).await;
        exchange(&mut client, &mut server).await;
        tokio::time::sleep(SETTLED).await;
        if has_link {
            net.newest().cut_end(Server, Fault::Deaf);
        } else {
            net.lose(&client, &server).await;
        }
        let bytes = pattern(1, WINDOW);
        send(&mut client, &bytes).await;
        let polls = Cell::new(0);
        let mut ticks = interval(Duration::from_secs(1));
        let mut write = |cx: &mut Context<'_>| {
            polls.set(polls.get() + 1);
            assert!(polls.get() < SPINS, "the task wakes itself");
            while ticks.poll_tick(cx).is_ready() {}
            let written = Pin::new(&mut client).poll_write(cx, b"more");
            let flushed = Pin::new(&mut client).poll_flush(cx);
            assert!(matches!(flushed, Poll::Ready(Ok(()))), "{flushed:?}");
            written
        };
        let written = timeout(QUIET, poll_fn(&mut write)).await;
        assert!(written.is_err(), "{written:?} beyond the window");
        // Once a tick, and whatever the keeper does about the link.
        let polls = polls.get();
        assert!(polls <= 30, "{polls} polls in {QUIET:?}");
        net.newest().go_on();
        net.set(Dial::Serve);
        let written = within("room", poll_fn(&mut write)).await;
        assert_eq!(written.expect("writing"), 4);
        expect(&mut server, &[&bytes[..], b"more"].concat()).await;
    }
}

/// The server closes the old link before its word on the new one has arrived.
#[tokio::test(start_paused = true)]
async fn a_migration_never_shows_reconnecting() {
    for delay in [0, 50].map(Duration::from_millis) {
        let mut net = Net::slow(&native(), ROOMY, delay);
        let (mut client, mut server) = net.open(&native()).await;
        exchange(&mut client, &mut server).await;
        let mut watched = [&client, &server].map(|end| end.handle().subscribe());
        for states in &mut watched {
            assert_eq!(*states.borrow_and_update(), LinkState::Connected);
        }
        for moved in 1..=5 {
            within("the migration", client.handle().migrate())
                .await
                .expect("it moves");
            exchange(&mut client, &mut server).await;
            tokio::time::sleep(SETTLED).await;
            assert_eq!(client.handle().stats().resumes, moved);
            for (name, states) in ["client", "server"].iter().zip(&watched) {
                let changed = states.has_changed().expect("it is there");
                assert!(!changed, "{name}, {delay:?}: {:?}", *states.borrow());
            }
        }
    }
}

/// Whatever the link was dialled over is gone, and nothing else carries the session.
#[tokio::test(start_paused = true)]
async fn a_changed_network_gives_up_a_link_that_the_server_has_not_taken() {
    let (net, mut client, server, opened) = against_raw_server(10_000).await;
    tokio::time::sleep(SETTLED).await;
    net.newest().cut(Fault::Reset);
    let (silent, _) = raw_native::serve_resume(net.ignored().await, &opened, 0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(net.links(), 2);
    let state = client.handle().state();
    assert!(matches!(state, LinkState::Reconnecting { .. }), "{state:?}");

    let changed = Instant::now();
    client.handle().network_changed();
    until("the next dial", || (net.links() == 3).then_some(())).await;
    assert!(changed.elapsed() < SETTLED, "{:?}", changed.elapsed());
    assert!(net.wire(1).dropped(Client).is_some());
    let (mut taken, _) = raw_native::serve_resume(net.ignored().await, &opened, 0).await;
    taken.attach(0, 0, 10_000).await.expect("room");
    connected(&client.handle()).await;
    send(&mut client, b"goes on").await;
    assert_eq!(within("the bytes", taken.take(7)).await, b"goes on");
    assert!(changed.elapsed() < SETTLED, "{:?}", changed.elapsed());
    drop((server, silent));
}
