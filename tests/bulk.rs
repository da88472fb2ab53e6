//! Bulk over snet never overflows the history where our ends meet directly, and is never wrong where it does. Over native it always
//! arrives.

#![cfg(all(feature = "client", feature = "server"))]

use std::{future::Future, net::Ipv4Addr, time::Duration};

use bulk::{Broken, CutAfter, Plan, Way, read_pattern, write_pattern};
use cutting_proxy::{Close, CuttingProxy, Faults, Traffic};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use unbroken::{CloseReason, Config, Error, Listener, Refusal, Security, Snet, connect};

#[path = "support/bulk.rs"]
mod bulk;
#[path = "support/cutting_proxy.rs"]
mod cutting_proxy;

/// After which time a test without a time of its own counts as hung.
const HUNG: Duration = Duration::from_secs(60);

/// How often counters that nothing announces are looked at.
const POLL: Duration = Duration::from_millis(1);

/// In the clear.
fn native() -> Config {
    Config::new().security(Security::none())
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> T {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => panic!("not done after {limit:?}"),
    }
}

/// As far as native's windows grow by default.
const MOST: u64 = 8 << 20;

/// Never keeps more than `window` bytes.
fn bulk(config: Config, window: u64, plan: Plan) {
    let report = bulk::run(config, plan);
    let report = report.unwrap_or_else(|broken| panic!("{broken}"));
    println!("{report}");
    assert!(report.cuts >= 50, "{report}");
    assert!(report.resumes >= 50, "{report}");
    assert!(report.replayed > 0, "{report}");
    // Half of snet's history may be on its way; all of it, or of native's window, unacknowledged.
    assert!(report.largest_loss <= 1 << 19, "{report}");
    assert!(report.largest_unacknowledged <= window, "{report}");
}

#[test]
fn with_default_settings_plain_bulk_never_overflows_the_history() {
    let plan = Plan {
        bytes: 384 << 20,
        cut_after: CutAfter::Bytes(0, 1 << 20),
        unread_for: Duration::from_millis(3),
        seed: 1,
    };
    bulk(native().snet(Snet::plain()), 1 << 20, plan);
}

#[test]
fn with_default_settings_rc4_bulk_never_overflows_the_history() {
    // The cipher is slow without optimisation, and so the queues fill slowly.
    let plan = Plan {
        bytes: 24 << 20,
        cut_after: CutAfter::Bytes(0, 64 << 10),
        unread_for: Duration::from_millis(10),
        seed: 2,
    };
    bulk(native().snet(Snet::rc4()), 1 << 20, plan);
}

#[test]
fn bulk_over_native_arrives_whole() {
    let plan = Plan {
        bytes: 256 << 20,
        cut_after: CutAfter::Bytes(0, 1 << 20),
        unread_for: Duration::from_millis(3),
        seed: 3,
    };
    bulk(native(), MOST, plan);
}

#[test]
fn bulk_over_native_arrives_whole_through_a_small_window() {
    let plan = Plan {
        bytes: 64 << 20,
        cut_after: CutAfter::Bytes(0, 64 << 10),
        unread_for: Duration::from_millis(3),
        seed: 4,
    };
    bulk(native().window(100_000), 100_000, plan);
}

#[cfg(feature = "noise")]
#[test]
fn bulk_under_noise_arrives_whole() {
    let plan = Plan {
        bytes: 64 << 20,
        cut_after: CutAfter::Bytes(0, 256 << 10),
        unread_for: Duration::from_millis(3),
        seed: 5,
    };
    bulk(Config::new(), MOST, plan);
}

#[cfg(feature = "noise")]
#[test]
fn bulk_under_noise_arrives_whole_through_a_small_window() {
    let plan = Plan {
        bytes: 40 << 20,
        cut_after: CutAfter::Bytes(0, 32 << 10),
        unread_for: Duration::from_millis(3),
        seed: 6,
    };
    bulk(Config::new().window(100_000), 100_000, plan);
}

/// A history that holds less than what the proxy swallows, at one end or the other.
const SMALL: usize = 256 << 10;

/// How long the server keeps the session without a link, and with that how long it waits for a request that mends a gap.
const SERVER_WINDOW: Duration = Duration::from_millis(300);

/// Why a stream broke. That it did not end as if it were whole, and that no wrong byte came before, has been checked by then.
fn reason(broken: &Broken) -> CloseReason {
    let inner = broken
        .error
        .get_ref()
        .and_then(|inner| inner.downcast_ref());
    match inner {
        Some(Error::Closed(reason)) => *reason,
        _ => panic!("{broken}"),
    }
}

/// Streams one way through a proxy that at some point swallows more than the history, then cuts. Returns why the client's and
/// the server's end say that the session is over.
async fn swallow(way: Way) -> (CloseReason, CloseReason) {
    let config = native().snet(Snet::plain().history(SMALL));
    let listener = Listener::bind(
        (Ipv4Addr::LOCALHOST, 0),
        config.clone().resume_window(SERVER_WINDOW),
    );
    let mut listener = listener.await.expect("a free port");
    let addr = listener.local_addr().expect("its address");
    let proxy = CuttingProxy::start(addr, Faults::none())
        .await
        .expect("a proxy");
    let (client, accepted) = tokio::join!(connect(proxy.addr(), config), listener.accept());
    let client = client.expect("a session");
    let (server, _) = accepted.expect("the session");
    let (mut writer, mut reader) = match way {
        Way::Up => (client, server),
        Way::Down => (server, client),
    };
    let fault = async {
        while reader_has(&proxy, way) < SMALL as u64 {
            sleep(POLL).await;
        }
        proxy.set_traffic(Traffic::Swallow);
        while proxy.stats().swallowed < 2 * SMALL as u64 {
            sleep(POLL).await;
        }
        // Not a byte is forwarded after the hole: new links come when the old one is gone.
        proxy.set_refusing(true);
        proxy.cut_now(Close::Reset);
        while proxy.stats().live > 0 {
            sleep(POLL).await;
        }
        proxy.set_traffic(Traffic::Forward);
        proxy.set_refusing(false);
    };
    let (_gate, open) = watch::channel(true);
    let (written, read, ()) = tokio::join!(
        write_pattern(&mut writer, way, u64::MAX),
        read_pattern(&mut reader, way, u64::MAX, open),
        fault
    );
    let written = reason(&written.expect_err("it never ends"));
    let read = reason(&read.expect_err("it never ends"));
    match way {
        Way::Up => (written, read),
        Way::Down => (read, written),
    }
}

/// Bytes that the proxy has forwarded this way.
fn reader_has(proxy: &CuttingProxy, way: Way) -> u64 {
    match way {
        Way::Up => proxy.stats().up,
        Way::Down => proxy.stats().down,
    }
}

/// The client sees from the server's counts that its history no longer reaches back; the server that no request can mend it.
#[tokio::test]
async fn bytes_to_the_server_that_overflow_the_history_are_a_gap_at_both_ends() {
    let reasons = within(HUNG, swallow(Way::Up)).await;
    assert_eq!(reasons, (CloseReason::Gap, CloseReason::Gap));
}

/// The server sees from the client's counts that its history no longer reaches back, and can only tell the client with zeros.
#[tokio::test]
async fn bytes_to_the_client_that_overflow_the_history_are_a_gap_at_the_server_and_a_refusal_at_the_client()
 {
    let reasons = within(HUNG, swallow(Way::Down)).await;
    assert_eq!(
        reasons,
        (CloseReason::Refused(Refusal::Unexplained), CloseReason::Gap)
    );
}

/// What a proxy has swallowed is sent again: native knows what has arrived.
#[tokio::test]
async fn bytes_that_are_swallowed_on_the_way_are_no_gap_over_native() {
    for way in [Way::Up, Way::Down] {
        let work = async {
            let config = native();
            let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0), config.clone()).await;
            let mut listener = listener.expect("a free port");
            let addr = listener.local_addr().expect("its address");
            let proxy = CuttingProxy::start(addr, Faults::none()).await;
            let proxy = proxy.expect("a proxy");
            let (client, accepted) = tokio::join!(connect(proxy.addr(), config), listener.accept());
            let client = client.expect("a session");
            let (server, _) = accepted.expect("the session");
            let handle = client.handle();
            let (mut writer, mut reader) = match way {
                Way::Up => (client, server),
                Way::Down => (server, client),
            };
            const BYTES: u64 = 16 * SMALL as u64;
            let fault = async {
                for turn in 0..3 {
                    while reader_has(&proxy, way) < (1 + 4 * turn) * SMALL as u64 {
                        sleep(POLL).await;
                    }
                    let swallowed = proxy.stats().swallowed;
                    proxy.set_traffic(Traffic::Swallow);
                    // Acknowledgements go the same way, so no more than what is left of the window comes.
                    while proxy.stats().swallowed < swallowed + SMALL as u64 / 4 {
                        sleep(POLL).await;
                    }
                    proxy.set_refusing(true);
                    proxy.cut_now(Close::Reset);
                    while proxy.stats().live > 0 {
                        sleep(POLL).await;
                    }
                    proxy.set_traffic(Traffic::Forward);
                    proxy.set_refusing(false);
                }
            };
            let (_gate, open) = watch::channel(true);
            let (written, read, ()) = tokio::join!(
                write_pattern(&mut writer, way, BYTES),
                read_pattern(&mut reader, way, BYTES, open),
                fault
            );
            written.unwrap_or_else(|broken| panic!("{broken}"));
            read.unwrap_or_else(|broken| panic!("{broken}"));
            assert!(handle.stats().resumes >= 3);
            assert!(writer.handle().stats().replayed >= 3 * SMALL as u64 / 4);
        };
        within(HUNG, work).await;
    }
}

/// A link that took the upload along was good for something, though the client has heard nothing on it but the handshake.
#[tokio::test]
async fn links_that_carry_only_an_upload_are_replaced_without_growing_delays() {
    for config in [native().snet(Snet::plain()), native()] {
        upload_only(config).await;
    }
}

async fn upload_only(config: Config) {
    /// The delays before as many attempts come to more than a minute if they grow.
    const CUTS: u64 = 14;
    let work = async {
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0), config.clone()).await;
        let mut listener = listener.expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let proxy = CuttingProxy::start(addr, Faults::none()).await;
        let proxy = proxy.expect("a proxy");
        let (client, accepted) = tokio::join!(connect(proxy.addr(), config), listener.accept());
        let mut client = client.expect("a session");
        let (mut server, _) = accepted.expect("the session");
        let (from, to) = (client.handle(), server.handle());
        let cuts = async {
            for cut in 1..=CUTS {
                let received = to.stats().received;
                while to.stats().received < received + SMALL as u64 {
                    sleep(POLL).await;
                }
                proxy.cut_now(Close::Reset);
                while from.stats().resumes < cut {
                    sleep(POLL).await;
                }
            }
        };
        let (_gate, open) = watch::channel(true);
        tokio::select! {
            () = cuts => {}
            written = write_pattern(&mut client, Way::Up, u64::MAX) => panic!("{written:?}"),
            read = read_pattern(&mut server, Way::Up, u64::MAX, open) => panic!("{read:?}"),
        }
    };
    within(Duration::from_secs(15), work).await;
}
