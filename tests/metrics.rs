//! What sessions do, in numbers: over in-memory links, in virtual time.

#![cfg(all(feature = "client", feature = "server", feature = "metrics"))]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    atomics::AtomicU64, set_default_local_recorder,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::{Builder, Runtime},
    time::sleep,
};
use tower::ServiceExt;
use unbroken::{
    Acceptor, CloseReason, Config, Connector, Error, LinkState, Listener, Refusal,
    ResumableTransport,
};

#[path = "support/memory_link.rs"]
mod memory_link;
#[path = "support/memory_net.rs"]
mod memory_net;
#[path = "support/setup_clear.rs"]
mod setup;

use memory_link::{Fault, link};
use memory_net::{Dial, Net, ROOMY, closed, exchange, expect, native, plain, resumed, send};

/// What was recorded, by name and label values: `"unbroken_sessions client native"`.
#[derive(Default)]
struct Numbers(Mutex<Tables>);

#[derive(Default)]
struct Tables {
    counters: BTreeMap<String, Arc<AtomicU64>>,
    /// As bits.
    gauges: BTreeMap<String, Arc<AtomicU64>>,
    histograms: BTreeMap<String, Arc<Samples>>,
    described: BTreeSet<String>,
    names: BTreeSet<String>,
}

#[derive(Default)]
struct Samples(Mutex<Vec<f64>>);

/// Also after a test has failed, so that its own message is the one to be read.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HistogramFn for Samples {
    fn record(&self, value: f64) {
        lock(&self.0).push(value);
    }
}

impl Tables {
    fn entry(&mut self, key: &Key) -> String {
        self.names.insert(key.name().to_owned());
        let values = key.labels().map(|label| label.value());
        let words: Vec<&str> = [key.name()].into_iter().chain(values).collect();
        words.join(" ")
    }
}

impl Recorder for &'static Numbers {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        let mut tables = lock(&self.0);
        tables.described.insert(name.as_str().to_owned());
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, what: SharedString) {
        self.describe_counter(name, unit, what);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, what: SharedString) {
        self.describe_counter(name, unit, what);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut tables = lock(&self.0);
        let entry = tables.entry(key);
        Counter::from_arc(tables.counters.entry(entry).or_default().clone())
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let mut tables = lock(&self.0);
        let entry = tables.entry(key);
        Gauge::from_arc(tables.gauges.entry(entry).or_default().clone())
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let mut tables = lock(&self.0);
        let entry = tables.entry(key);
        Histogram::from_arc(tables.histograms.entry(entry).or_default().clone())
    }
}

impl Numbers {
    /// Numbers of this thread alone, for as long as the guard is there.
    fn here() -> (&'static Self, metrics::LocalRecorderGuard<'static>) {
        let numbers: &'static Self = Box::leak(Box::default());
        let recorder: &'static &'static Self = Box::leak(Box::new(numbers));
        (numbers, set_default_local_recorder(recorder))
    }

    /// A counter; 0 as long as nothing was counted.
    fn count(&self, entry: &str) -> u64 {
        let tables = lock(&self.0);
        let counter = tables.counters.get(&format!("unbroken_{entry}"));
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    fn gauge(&self, entry: &str) -> f64 {
        let tables = lock(&self.0);
        f64::from_bits(tables.gauges[&format!("unbroken_{entry}")].load(Ordering::Relaxed))
    }

    fn samples(&self, entry: &str) -> Vec<f64> {
        let tables = lock(&self.0);
        let samples = tables.histograms.get(&format!("unbroken_{entry}"));
        samples.map_or(Vec::new(), |samples| lock(&samples.0).clone())
    }

    /// Every gauge is back at 0.
    fn check_gauges_down(&self) {
        for (entry, gauge) in &lock(&self.0).gauges {
            assert_eq!(
                f64::from_bits(gauge.load(Ordering::Relaxed)),
                0.0,
                "{entry}"
            );
        }
    }
}

/// Time for what lags, and for both ends to have heard of what the other did.
async fn catch_up() {
    sleep(Duration::from_millis(600)).await;
}

type Make = fn() -> Config;

const BOTH: [(&str, Make); 2] = [("native", native), ("snet", plain)];
const ROLES: [&str; 2] = ["client", "server"];

/// Takes both ends of a native session to their ends.
async fn finish(mut client: ResumableTransport, mut server: ResumableTransport) {
    let (up, down) = tokio::join!(client.shutdown(), server.shutdown());
    up.and(down).expect("both ends shut down");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.expect("a clean end");
    server.read_to_end(&mut rest).await.expect("a clean end");
    assert!(rest.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_session_counts_what_it_does() {
    for (protocol, config) in BOTH {
        let (numbers, _guard) = Numbers::here();
        let of = |name: &str, role: &str| numbers.count(&format!("{name} {role} {protocol}"));
        let gauge = |name: &str, role: &str| numbers.gauge(&format!("{name} {role} {protocol}"));
        let samples =
            |name: &str, role: &str| numbers.samples(&format!("{name} {role} {protocol}"));
        let mut net = Net::new(&config(), ROOMY);
        let (mut client, mut server) = net.open(&config()).await;
        for role in ROLES {
            assert_eq!(of("sessions_opened_total", role), 1);
            assert_eq!(gauge("sessions", role), 1.0);
            assert_eq!(gauge("sessions_detached", role), 0.0);
        }

        send(&mut client, &[1; 1000]).await;
        expect(&mut server, &[1; 1000]).await;
        send(&mut server, &[2; 10]).await;
        expect(&mut client, &[2; 10]).await;
        catch_up().await;
        let bytes = |role| ["sent", "received"].map(|way| of(&format!("bytes_{way}_total"), role));
        assert_eq!(bytes("client"), [1000, 10]);
        assert_eq!(bytes("server"), [10, 1000]);

        // A byte stream in one direction alone is counted while it goes on as well.
        for _ in 0..100 {
            send(&mut server, &[3; 10]).await;
            sleep(Duration::from_millis(50)).await;
        }
        let sent = of("bytes_sent_total", "server");
        assert!((800..=1010).contains(&sent), "{sent}");
        expect(&mut client, &[3; 1000]).await;

        // Under way when the link is cut.
        client.write_all(&[4; 100]).await.expect("there is room");
        net.lose(&client, &server).await;
        sleep(Duration::from_secs(5)).await;
        for role in ROLES {
            assert_eq!(of("links_lost_total", role), 1);
            assert_eq!(gauge("sessions", role), 1.0);
            assert_eq!(gauge("sessions_detached", role), 1.0);
            assert_eq!(of("resumes_total", role), 0);
        }
        let failed = numbers.count(&format!("attempts_failed_total {protocol}"));
        assert!((3..30).contains(&failed), "{failed}");
        net.set(Dial::Serve);
        resumed(&client.handle(), 1).await;
        expect(&mut server, &[4; 100]).await;
        catch_up().await;
        for role in ROLES {
            assert_eq!(of("resumes_total", role), 1);
            assert_eq!(gauge("sessions_detached", role), 0.0);
            let detached = samples("detached_seconds", role);
            assert!(
                matches!(detached[..], [seconds] if (5.0..20.0).contains(&seconds)),
                "{detached:?}"
            );
        }
        assert_eq!(of("bytes_sent_total", "client"), 1100);
        assert_eq!(of("bytes_replayed_total", "client"), 100);
        assert_eq!(of("bytes_replayed_total", "server"), 0);

        client.handle().migrate().await.expect("it migrates");
        catch_up().await;
        for role in ROLES {
            assert_eq!(of("resumes_total", role), 2);
            assert_eq!(gauge("sessions_detached", role), 0.0);
        }
        assert_eq!(of("links_lost_total", "client"), 1);
        // In snet the client closes the old link before it asks for the new one.
        let ended = u64::from(protocol == "snet");
        assert_eq!(of("links_lost_total", "server"), 1 + ended);

        for role in ROLES {
            let round_trips = samples("round_trip_seconds", role);
            assert_eq!(round_trips.is_empty(), protocol == "snet");
            assert!(
                round_trips
                    .iter()
                    .all(|seconds| (0.0..1.0).contains(seconds))
            );
        }

        let reasons = if protocol == "native" {
            finish(client, server).await;
            ["finished", "finished"]
        } else {
            let handle = client.handle();
            drop(client);
            closed(&handle).await;
            server.handle().close(7);
            ["local", "local_reset"]
        };
        catch_up().await;
        for (role, reason) in ROLES.into_iter().zip(reasons) {
            let over = format!("sessions_closed_total {role} {protocol} {reason}");
            assert_eq!(numbers.count(&over), 1, "{over}");
            let ages = samples("session_seconds", role);
            assert!(
                matches!(ages[..], [seconds] if (10.0..60.0).contains(&seconds)),
                "{ages:?}"
            );
        }
        numbers.check_gauges_down();
        assert_eq!(of("bytes_received_total", "server"), 1100);
        assert_eq!(of("bytes_received_total", "client"), 1010);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_counts_once_how_it_ended() {
    for (protocol, config) in BOTH {
        let (numbers, _guard) = Numbers::here();
        let mut net = Net::new(&config(), ROOMY);

        // Reset by one end.
        let (client, server) = net.open(&config()).await;
        client.handle().close(7);
        if protocol == "native" {
            assert_eq!(closed(&server.handle()).await, CloseReason::Reset(7));
        }
        drop((client, server));

        // Unknown to the server, which has been restarted: the client is refused, the old server waits in vain.
        let (client, server) = net.open(&config()).await;
        net.restart_server(&config());
        net.newest().cut(Fault::Reset);
        let refusal = match closed(&client.handle()).await {
            CloseReason::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        };
        assert_eq!(refusal == Refusal::Unknown, protocol == "native");
        assert_eq!(closed(&server.handle()).await, CloseReason::Expired);
        drop((client, server));

        // Long after everything has lingered.
        sleep(Duration::from_secs(3_600)).await;
        numbers.check_gauges_down();
        let closed = |role, reason| {
            numbers.count(&format!("sessions_closed_total {role} {protocol} {reason}"))
        };
        assert_eq!(closed("client", "local_reset"), 1);
        assert_eq!(closed("client", "refused"), 1);
        assert_eq!(closed("server", "expired"), 1);
        // In snet nothing tells the server, whose application has then dropped its transport.
        let reason = if protocol == "native" {
            "reset"
        } else {
            "local"
        };
        assert_eq!(closed("server", reason), 1);
        assert_eq!(numbers.count("handshakes_refused_total unknown"), 1);
        for role in ROLES {
            let ages = numbers.samples(&format!("session_seconds {role} {protocol}"));
            assert_eq!(ages.len(), 2);
        }
    }
}

/// Of RESUMED, its header included: all a server sends before it uses the link.
const RESUMED: usize = 60;

#[tokio::test(start_paused = true)]
async fn a_link_that_the_server_never_used_is_a_failed_attempt() {
    let (numbers, _guard) = Numbers::here();
    let mut net = Net::new(&native(), ROOMY);
    let (mut client, mut server) = net.open(&native()).await;
    exchange(&mut client, &mut server).await;
    let counted = || {
        [
            numbers.count("links_lost_total client native"),
            numbers.count("attempts_failed_total native"),
            numbers.count("resumes_total client native"),
        ]
    };
    // Beside a link that serves.
    net.plan([Dial::CutAt(memory_link::Server, RESUMED)]);
    client.handle().migrate().await.expect_err("it is cut");
    catch_up().await;
    assert_eq!(counted()[..2], [0, 1]);

    // Without one.
    net.plan([Dial::CutAt(memory_link::Server, RESUMED)]);
    let resumes = client.handle().stats().resumes;
    net.wire(0).cut(Fault::Reset);
    resumed(&client.handle(), resumes + 1).await;
    catch_up().await;
    assert_eq!(counted(), [1, 2, resumes + 1]);
    finish(client, server).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_counts_whom_it_refuses_and_why() {
    let (numbers, _guard) = Numbers::here();
    let refused = |reason| numbers.count(&format!("handshakes_refused_total {reason}"));
    let config = native().max_sessions(1);
    let acceptor = Acceptor::new(config.clone());
    for (bytes, reason) in [
        (&b"GET / HTTP/1.1\r\n"[..], "not_spoken"),
        (b"", "link"),
        (b"UNBR", "timeout"),
        // It resumes in the prelude, and opens in the frame.
        (b"UNBR\x01\x01\0\0\0\0\0\0\0\0\0\0\x10\0\0\x08", "malformed"),
        (
            b"UNBR\x02\0\0\0\0\0\0\0\0\0\0\0\x10\0\0\x08\0\0\0\0\0\0\0\0",
            "version",
        ),
        (
            b"UNBR\x01\0\x01\x01\0\0\0\0\0\0\0\0\x10\0\0\x08\0\0\0\0\0\0\0\0",
            "security",
        ),
    ] {
        let (mut client, server, _) = link(ROOMY);
        client.write_all(bytes).await.expect("there is room");
        let client = (reason != "link").then_some(client);
        acceptor.accept(server).await.expect_err(reason);
        drop(client);
        assert_eq!(refused(reason), 1, "{reason}");
    }

    let mut net = Net::new(&config, ROOMY);
    let first = net.open(&config).await;
    let connector = Connector::new(net.dialer(), config.clone());
    connector.clone().oneshot(()).await.expect_err("it is full");
    catch_up().await;
    assert_eq!(refused("max_sessions"), 1);
    let sessions = net
        .acceptor()
        .sessions()
        .expect("a configuration that can be used");
    let shut_down = tokio::spawn(async move { sessions.shutdown(Duration::from_secs(5)).await });
    sleep(Duration::from_secs(1)).await;
    connector
        .oneshot(())
        .await
        .expect_err("it is shutting down");
    catch_up().await;
    assert_eq!(refused("shutting_down"), 1);
    assert_eq!(shut_down.await.expect("no panic"), 1);
    assert_eq!(
        numbers.count("sessions_closed_total server native local_reset"),
        1
    );
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_the_limit_that_was_reached() {
    for (protocol, config) in BOTH {
        let (numbers, _guard) = Numbers::here();
        let config = config()
            .max_sessions_per_address(1)
            .max_handshakes(3)
            .max_handshakes_per_address(2)
            .max_resumes_per_second(1);
        let addr = |last| std::net::SocketAddr::from(([192, 0, 2, last], 1));
        let mut net = Net::new(&config, ROOMY);
        let connector = Connector::new(net.dialer_from(addr(1)), config.clone());
        let client = connector.clone().oneshot(()).await.expect("room");
        let server = net.session().await;
        connector.oneshot(()).await.expect_err("it has one");
        // As often as it may, and once more.
        for resumes in 1..=2 {
            net.dialled().iter().for_each(|wire| wire.cut(Fault::Reset));
            resumed(&client.handle(), resumes).await;
        }
        catch_up().await;
        let handshakes = [1, 1, 1, 2, 3].map(|last| net.raw_link_from(addr(last)));
        catch_up().await;
        for limit in [
            "max_sessions_per_address",
            "max_resumes_per_second",
            "max_handshakes_per_address",
            "max_handshakes",
        ] {
            let refused = numbers.count(&format!("handshakes_refused_total {limit}"));
            // A client over snet is not told when to come again.
            let most = match (protocol, limit) {
                ("snet", "max_resumes_per_second") => 10,
                _ => 1,
            };
            assert!(
                (1..=most).contains(&refused),
                "{protocol}: {refused} {limit}"
            );
        }
        drop((handshakes, client, server));
    }
}

/// The keeper is gone before the session, and whoever else would say that it is over.
#[test]
fn the_gauges_go_down_with_the_runtime() {
    for (protocol, config) in BOTH {
        let (numbers, _guard) = Numbers::here();
        let runtime = runtime();
        let ends = runtime.block_on(async {
            let ends = Net::new(&config(), ROOMY).open(&config()).await;
            sleep(Duration::from_millis(20)).await;
            (ends.0.handle(), ends)
        });
        for role in ROLES {
            assert_eq!(numbers.gauge(&format!("sessions {role} {protocol}")), 1.0);
        }
        drop(runtime);
        numbers.check_gauges_down();
        for role in ROLES {
            let over = format!("sessions_closed_total {role} {protocol} abandoned");
            assert_eq!(numbers.count(&over), 1, "{over}");
        }
        drop(ends);
        numbers.check_gauges_down();
    }
}

/// The runtime stops before it has polled the keeper at all.
#[test]
fn the_gauges_go_down_without_the_keeper() {
    for (protocol, config) in BOTH {
        let (numbers, _guard) = Numbers::here();
        let runtime = runtime();
        let client = runtime.block_on(async {
            let net = Net::new(&config(), ROOMY);
            let connector = Connector::new(net.dialer(), config());
            connector.oneshot(()).await.expect("the session opens")
        });
        assert_eq!(numbers.gauge(&format!("sessions client {protocol}")), 1.0);
        drop(runtime);
        numbers.check_gauges_down();
        let over = format!("sessions_closed_total client {protocol} abandoned");
        assert_eq!(numbers.count(&over), 1);
        let state = client.handle().state();
        assert_eq!(state, LinkState::Closed(CloseReason::Abandoned));
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

#[tokio::test]
async fn sessions_that_nobody_takes_are_counted_out() {
    let (numbers, _guard) = Numbers::here();
    let listener = Listener::bind("127.0.0.1:0", native())
        .await
        .expect("a port");
    let sessions = listener.sessions();
    let addr = listener.local_addr().expect("it has one");
    let client = unbroken::connect(addr, native())
        .await
        .expect("the session opens");
    memory_net::until("the session", || (sessions.count() == 1).then_some(())).await;
    assert_eq!(numbers.gauge("sessions server native"), 1.0);
    listener.shutdown(Duration::from_millis(50)).await;
    drop(client);
    memory_net::until("the end", || {
        let down = ROLES.map(|role| numbers.gauge(&format!("sessions {role} native")) == 0.0);
        down.iter().all(|down| *down).then_some(())
    })
    .await;
    numbers.check_gauges_down();
}

#[tokio::test(start_paused = true)]
async fn what_open_sessions_buffer_is_what_they_take_of_their_budget() {
    for (protocol, config) in BOTH {
        let (numbers, _guard) = Numbers::here();
        let memory = unbroken::MemoryBudget::new(16 << 20);
        let config = config().memory_budget(memory.clone());
        let buffered = || {
            let of = |role| numbers.gauge(&format!("buffered_bytes {role} {protocol}"));
            ROLES.map(of).iter().sum::<f64>()
        };
        let mut net = Net::new(&config, ROOMY);
        let (mut first, mut peer) = net.open(&config).await;
        let (second, _other) = net.open(&config).await;
        assert_eq!(buffered(), 0.0);
        for (end, len) in [(&mut first, 100_000), (&mut peer, 5000)] {
            send(end, &vec![7; len]).await;
        }
        catch_up().await;
        assert!(buffered() >= 105_000.0);
        assert_eq!(buffered(), memory.used() as f64);
        expect(&mut peer, &[7; 100_000]).await;
        catch_up().await;
        assert_eq!(buffered(), memory.used() as f64);
        // One that is over is no longer counted, though its application may still read.
        second.handle().close(1);
        first.handle().close(1);
        for end in [&first, &peer, &second] {
            if protocol == "snet" {
                end.handle().close(1);
            }
            closed(&end.handle()).await;
        }
        assert_eq!(buffered(), 0.0);
        assert!(memory.used() >= 5000);
        drop((first, peer));
        assert_eq!(memory.used(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn every_metric_is_described_and_documented() {
    let (numbers, _guard) = Numbers::here();
    unbroken::metrics::describe();
    let mut net = Net::new(&native(), ROOMY);
    let (client, server) = net.open(&native()).await;
    net.lose(&client, &server).await;
    sleep(Duration::from_secs(1)).await;
    net.set(Dial::Serve);
    resumed(&client.handle(), 1).await;
    finish(client, server).await;
    let error = net.acceptor().accept(tokio::io::empty()).await;
    assert!(matches!(error, Err(Error::Link(_))));
    catch_up().await;
    let tables = lock(&numbers.0);
    assert_eq!(tables.names, tables.described);
    let docs = include_str!("../src/metrics.rs");
    for name in &tables.described {
        assert!(docs.contains(&format!("//! | `{name}` | ")), "{name}");
    }
}
