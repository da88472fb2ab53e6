//! A process whose sessions buffer as much as they may, all together.

use std::time::Duration;

use tokio::{
    io::AsyncWriteExt,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tower::ServiceExt;
use unbroken::{
    CloseReason, Config, Connector, Error, Handle, MemoryBudget, RejectCode, ResumableTransport,
};

use super::{
    memory_link::Fault,
    memory_net::{
        Dial, Net, Protocol, ROOMY, closed, connected, exchange, expect, native, over_both,
        pattern, send, state, until, within,
    },
};

const WINDOW: usize = 128 << 10;
/// What a window is not shrunk below.
const FLOOR: usize = 16 << 10;
const BUDGET: usize = 1 << 20;
/// Longer than a test takes.
const AGES: Duration = Duration::from_secs(24 * 60 * 60);
/// After how long nothing moves any more.
const SETTLED: Duration = Duration::from_millis(300);
/// How long a session that has waited for memory does not look whether there is some, and an acknowledgement is put off.
const LOOKS: Duration = Duration::from_millis(1000 + 25 + 2);

fn config(memory: &MemoryBudget) -> Config {
    elsewhere().memory_budget(memory.clone())
}

/// A client of its own process, which has memory enough.
fn elsewhere() -> Config {
    // No ping wakes anybody.
    native()
        .window(WINDOW)
        .resume_window(AGES)
        .keepalive(AGES, 2 * AGES)
        .linger(3 * AGES)
}

/// Writes for as long as the peer lets it, and gives the transport back.
fn writing(mut end: ResumableTransport, bytes: Vec<u8>) -> JoinHandle<ResumableTransport> {
    tokio::spawn(async move {
        end.write_all(&bytes).await.expect("writing");
        end.flush().await.expect("flushing");
        end
    })
}

/// A session whose client writes and whose server does not read.
struct Hog {
    client: JoinHandle<ResumableTransport>,
    server: ResumableTransport,
    bytes: Vec<u8>,
}

impl Hog {
    fn new((client, server): (ResumableTransport, ResumableTransport), seed: u64) -> Self {
        let bytes = pattern(seed, 4 * WINDOW);
        let client = writing(client, bytes.clone());
        Self {
            client,
            server,
            bytes,
        }
    }

    /// The server reads after all.
    async fn relent(mut self) -> (ResumableTransport, ResumableTransport) {
        expect(&mut self.server, &self.bytes).await;
        let client = within("the writer", self.client).await.expect("no panic");
        (client, self.server)
    }
}

async fn hogs(net: &mut Net, count: u64) -> Vec<Hog> {
    let mut open = Vec::new();
    for _ in 0..count {
        open.push(net.open(&elsewhere()).await);
    }
    let hogs = open.into_iter().zip(1..);
    let hogs = hogs.map(|(ends, seed)| Hog::new(ends, seed)).collect();
    sleep(SETTLED).await;
    hogs
}

/// The most that is ever in use until the test ends.
fn watch(memory: &MemoryBudget) -> tokio::sync::watch::Receiver<usize> {
    let (peak, watched) = tokio::sync::watch::channel(0);
    let memory = memory.clone();
    tokio::spawn(async move {
        loop {
            peak.send_modify(|peak| *peak = memory.used().max(*peak));
            sleep(Duration::from_millis(1)).await;
        }
    });
    watched
}

async fn refused(net: &mut Net) {
    let connector = Connector::new(net.dialer(), elsewhere());
    let error = connector.oneshot(()).await.expect_err("no memory");
    assert!(
        matches!(error, Error::Rejected { reason: RejectCode::Busy, retry_after } if retry_after.as_secs() == 1),
        "{error:?}"
    );
    let error = net.failure().await;
    assert!(matches!(error, Error::Overloaded(_)), "{error:?}");
    assert!(error.to_string().contains("memory budget"), "{error}");
}

/// Both ways at once.
async fn transfer(client: ResumableTransport, server: ResumableTransport, len: usize) {
    let (up, down) = (pattern(91, len), pattern(92, len));
    let (client, server) = (tokio::io::split(client), tokio::io::split(server));
    let write = |mut half: tokio::io::WriteHalf<ResumableTransport>, bytes: Vec<u8>| async move {
        half.write_all(&bytes).await.expect("writing");
        half.shutdown().await.expect("the peer has it all");
    };
    let read = |mut half: tokio::io::ReadHalf<ResumableTransport>, bytes: Vec<u8>| async move {
        for part in bytes.chunks(10_000) {
            expect(&mut half, part).await;
        }
        super::memory_net::expect_end(&mut half).await;
    };
    tokio::join!(
        write(client.1, up.clone()),
        write(server.1, down.clone()),
        read(client.0, down),
        read(server.0, up),
    );
}

#[tokio::test(start_paused = true)]
async fn hogs_hold_what_they_were_allowed_and_new_sessions_are_refused_until_there_is_room() {
    const HOGS: usize = 20;
    let memory = MemoryBudget::new(BUDGET);
    let peak = watch(&memory);
    let mut net = Net::new(&config(&memory), ROOMY);
    let mut open = hogs(&mut net, HOGS as u64).await;
    // All of them were allowed a window before anybody used it.
    let used = memory.used();
    assert_eq!(used, HOGS * WINDOW);
    refused(&mut net).await;
    // Those that run go on, and are resumed; what they hold once they have been read from is the smaller window.
    for wire in 0..HOGS {
        net.wire(wire).cut(Fault::Reset);
    }
    sleep(SETTLED).await;
    for hog in &mut open {
        let (first, rest) = hog.bytes.split_at(WINDOW + WINDOW / 2);
        expect(&mut hog.server, first).await;
        hog.bytes = rest.to_vec();
        sleep(SETTLED).await;
    }
    let held = memory.used();
    assert!((BUDGET / 2..BUDGET).contains(&held), "{held}");
    // When they are read from, all of it comes, and there is room.
    let mut ends = Vec::new();
    for hog in open {
        ends.push(hog.relent().await);
    }
    let (client, server) = net.open(&elsewhere()).await;
    transfer(client, server, 10 * WINDOW).await;
    drop(ends);
    until("its end", || (memory.used() == 0).then_some(())).await;
    let bound = BUDGET + (HOGS + 1) * (WINDOW + FLOOR);
    assert!(*peak.borrow() <= bound, "{}", *peak.borrow());
}

#[tokio::test(start_paused = true)]
async fn the_sooner_memory_is_short_the_less_each_hog_gets() {
    let memory = MemoryBudget::new(BUDGET);
    let mut net = Net::new(&config(&memory), ROOMY);
    let mut open = Vec::new();
    // Each writes when the ones before have done so, and was allowed a window when it was opened.
    for seed in 1.. {
        if memory.used() >= BUDGET {
            break;
        }
        open.push(Hog::new(net.open(&elsewhere()).await, seed));
        sleep(SETTLED).await;
    }
    assert_eq!((open.len(), memory.used()), (BUDGET / WINDOW, BUDGET));
    refused(&mut net).await;
    // Read from, none may have as much waiting again as before, and there is room for others.
    for hog in &mut open {
        let (first, rest) = hog.bytes.split_at(WINDOW);
        expect(&mut hog.server, first).await;
        hog.bytes = rest.to_vec();
        sleep(SETTLED).await;
        let waiting = hog.server.handle().stats().received as usize - WINDOW;
        assert!((FLOOR..WINDOW).contains(&waiting), "{waiting} wait");
        let used = memory.used();
        assert!((BUDGET / 2..BUDGET).contains(&used), "{used} are in use");
    }
    let (mut client, mut server) = net.open(&elsewhere()).await;
    exchange(&mut client, &mut server).await;
}

#[tokio::test(start_paused = true)]
async fn an_honest_session_beside_hogs_completes_exactly_once() {
    for hogged in [3, 6, 9] {
        let memory = MemoryBudget::new(BUDGET);
        let mut net = Net::new(&config(&memory), ROOMY);
        let (client, server) = net.open(&elsewhere()).await;
        let (resumed_client, resumed_server) = net.open(&elsewhere()).await;
        let hogs = hogs(&mut net, hogged).await;
        transfer(client, server, 20 * WINDOW).await;
        let wire = net.wire(1);
        let cuts = async {
            for _ in 0..5 {
                sleep(Duration::from_millis(7)).await;
                net.newest().cut(Fault::Reset);
            }
            wire.cut(Fault::Reset);
        };
        tokio::join!(transfer(resumed_client, resumed_server, 20 * WINDOW), cuts);
        for hog in hogs {
            hog.relent().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_acceptors_and_a_connector_share_a_budget() {
    let memory = MemoryBudget::new(BUDGET);
    let mut nets = [(); 2].map(|()| Net::new(&config(&memory), ROOMY));
    let hogs = hogs(&mut nets[0], 12).await;
    for net in &mut nets {
        refused(net).await;
    }
    // A client of this process does not even dial.
    let other = Net::new(&elsewhere(), ROOMY);
    let connector = Connector::new(other.dialer(), config(&memory));
    let error = connector.clone().oneshot(()).await.expect_err("no memory");
    assert!(matches!(error, Error::Overloaded(_)), "{error:?}");
    assert!(error.to_string().contains("memory budget"), "{error}");
    assert_eq!(other.dials().len(), 0);
    for hog in hogs {
        hog.relent().await;
    }
    for net in &mut nets {
        let (mut client, mut server) = net.open(&elsewhere()).await;
        exchange(&mut client, &mut server).await;
    }
    connector.oneshot(()).await.expect("there is room");
    assert_eq!(other.dials().len(), 1);
}

/// How many bytes the peer may still send, once all that is under way has come.
async fn grants(peer: &Handle) -> u64 {
    sleep(SETTLED).await;
    peer.stats().credit
}

/// Memory is used up for a while by hogs, during which `wait` sees that somebody waits; when they have gone, `go_on` is to hold at once.
async fn wait_for_memory(
    net: &mut Net,
    memory: &MemoryBudget,
    wait: impl AsyncFnOnce(&Net),
    go_on: impl Fn() -> bool,
) {
    let hogs = hogs(net, 12).await;
    assert!(memory.used() > BUDGET);
    wait(net).await;
    // By now nothing is looked at often.
    sleep(Duration::from_secs(40 * 60)).await;
    assert!(!go_on(), "there is no memory");
    for hog in hogs {
        hog.client.abort();
        hog.server.handle().close(1);
    }
    let began = Instant::now();
    until("memory", || (memory.used() < BUDGET / 2).then_some(())).await;
    until("what waits", || go_on().then_some(())).await;
    let took = began.elapsed();
    assert!(took <= LOOKS + SETTLED, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_waits_for_credit_is_given_it_when_there_is_memory_again() {
    let memory = MemoryBudget::new(BUDGET);
    let mut net = Net::new(&config(&memory), ROOMY);
    let (client, mut server) = net.open(&elsewhere()).await;
    let peer = client.handle();
    let bytes = pattern(1, 3 * WINDOW);
    let mut writer = None;
    // It reads, but never all: the peer gets no more than the floor allows.
    let unread = 20_000;
    wait_for_memory(
        &mut net,
        &memory,
        async |_| {
            writer = Some(writing(client, bytes.clone()));
            sleep(SETTLED).await;
            expect(&mut server, &bytes[..WINDOW - unread]).await;
            assert_eq!(grants(&peer).await, 0);
        },
        || peer.stats().sent - peer.stats().unacknowledged > (WINDOW + unread) as u64,
    )
    .await;
    expect(&mut server, &bytes[WINDOW - unread..]).await;
    within("the writer", writer.expect("it writes"))
        .await
        .expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_waits_for_room_goes_on_when_there_is_memory_again() {
    let memory = MemoryBudget::new(BUDGET);
    let mut net = Net::new(&config(&memory), ROOMY);
    for linked in [true, false] {
        let (mut client, server) = net.open(&elsewhere()).await;
        let handle = server.handle();
        let bytes = pattern(1, 3 * WINDOW);
        let mut writer = None;
        let wire = net.newest();
        let before = if linked { WINDOW } else { 0 };
        wait_for_memory(
            &mut net,
            &memory,
            async |net: &Net| {
                if !linked {
                    net.set(Dial::Refuse);
                    wire.cut(Fault::Reset);
                }
                writer = Some(writing(server, bytes.clone()));
                sleep(SETTLED).await;
                let sent = handle.stats().sent;
                assert!(sent <= (before + FLOOR) as u64 || !linked, "{sent}");
            },
            || handle.stats().sent == (before + WINDOW) as u64,
        )
        .await;
        net.set(Dial::Serve);
        expect(&mut client, &bytes).await;
        within("the writer", writer.expect("it writes"))
            .await
            .expect("no panic");
    }
}

/// How a session goes.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Both ends read all, and shut down.
    Shut,
    /// Both transports are dropped.
    Drop,
    /// The client resets it, and both transports are kept.
    Reset,
    /// No link is dialled any more.
    Expire,
    /// The server forgets it.
    Forget,
    /// The task that has the server's transport panics.
    Panic,
}

/// A session with something in each of its buffers goes.
async fn goes(protocol: Protocol, way: Way) {
    let memory = MemoryBudget::new(BUDGET);
    let config = protocol
        .keeping(WINDOW)
        .window(WINDOW)
        .memory_budget(memory.clone());
    let mut net = Net::new(&config, ROOMY);
    let (mut client, mut server) = net.open(&config).await;
    let (up, down) = (pattern(1, WINDOW / 2), pattern(2, WINDOW / 3));
    send(&mut client, &up).await;
    send(&mut server, &down).await;
    sleep(SETTLED).await;
    let used = memory.used();
    assert!(used >= up.len() + down.len(), "{used}");
    let handles = [client.handle(), server.handle()];
    match way {
        Way::Shut => {
            expect(&mut server, &up).await;
            expect(&mut client, &down).await;
            let _ = timeout(SETTLED, async {
                tokio::join!(client.shutdown(), server.shutdown())
            })
            .await;
        }
        Way::Drop => {}
        Way::Reset => {
            handles[0].close(7);
            net.set(Dial::Refuse);
            for handle in &handles {
                closed(handle).await;
            }
            // What was received can still be read, and is still there.
            assert!(memory.used() >= down.len());
            expect(&mut client, &down).await;
            expect(&mut server, &up).await;
            assert_eq!(memory.used(), 0, "though the transports are there");
        }
        Way::Expire => {
            net.lose(&client, &server).await;
            for handle in &handles {
                assert_eq!(closed(handle).await, CloseReason::Expired);
            }
        }
        Way::Forget => {
            net.restart_server(&config);
            net.newest().cut(Fault::Reset);
            closed(&handles[0]).await;
        }
        Way::Panic => {
            let panicking = tokio::spawn(async move {
                let _server = server;
                panic!("on purpose");
            });
            assert!(panicking.await.is_err());
            drop(client);
            return gone(&memory, way).await;
        }
    }
    drop((client, server));
    gone(&memory, way).await;
    // Handles keep nothing.
    drop(handles);
}

/// For longer than any session lasts.
async fn gone(memory: &MemoryBudget, way: Way) {
    for _ in 0..3600 {
        if memory.used() == 0 {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
    panic!("{} bytes are in use after {way:?}", memory.used());
}

over_both!(what_a_session_held_is_given_back_however_it_goes);

async fn what_a_session_held_is_given_back_however_it_goes(protocol: Protocol) {
    use Way::*;
    for way in [Shut, Drop, Reset, Expire, Forget, Panic] {
        goes(protocol, way).await;
    }
}

/// What keeps the sessions goes with the runtime, and the transports after it.
#[test]
fn what_a_session_held_is_given_back_when_its_runtime_is_gone() {
    for protocol in [Protocol::Native, Protocol::Snet] {
        let memory = MemoryBudget::new(BUDGET);
        let config = protocol
            .keeping(WINDOW)
            .window(WINDOW)
            .memory_budget(memory.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let ends = runtime.block_on(async {
            let mut net = Net::new(&config, ROOMY);
            let (mut client, mut server) = net.open(&config).await;
            send(&mut client, &pattern(1, WINDOW / 2)).await;
            send(&mut server, &pattern(2, WINDOW / 3)).await;
            sleep(SETTLED).await;
            (client, server)
        });
        assert!(memory.used() >= WINDOW / 2 + WINDOW / 3);
        drop(runtime);
        // Only what was received is left.
        assert!(memory.used() > 0);
        drop(ends);
        assert_eq!(memory.used(), 0);
    }
}

/// Windows that shrink and grow while everything moves: nothing is lost, and nobody is left behind.
#[tokio::test(start_paused = true)]
async fn many_sessions_share_little_memory() {
    let memory = MemoryBudget::new(4 * WINDOW);
    let peak = watch(&memory);
    let config = config(&memory);
    let mut net = Net::new(&config, 5000);
    let mut tasks = Vec::new();
    let mut open = Vec::new();
    for _ in 0..30 {
        open.push(net.open(&elsewhere()).await);
    }
    for (number, (client, server)) in open.into_iter().enumerate() {
        tasks.push(tokio::spawn(async move {
            sleep(Duration::from_millis(number as u64 % 7)).await;
            transfer(client, server, WINDOW * (1 + number % 5)).await;
        }));
    }
    for task in tasks {
        within("the transfer", task).await.expect("no panic");
    }
    until("the end", || (memory.used() == 0).then_some(())).await;
    let bound = memory.bytes() + 30 * (WINDOW + FLOOR);
    assert!((memory.bytes() / 2..bound).contains(&*peak.borrow()));
    let (client, server) = net.open(&elsewhere()).await;
    connected(&client.handle()).await;
    state(&server.handle(), |state| {
        *state == unbroken::LinkState::Connected
    })
    .await;
}
