//! When a client dials again, and when it gives up.

use std::time::Duration;

use tokio::time::Instant;
use unbroken::{CloseReason, Config, LinkState, ResumableTransport};

use super::{
    memory_link::{Client, Fault, Server},
    memory_net::{
        Dial, Net, Protocol, ROOMY, closed, connected, exchange, over_both, resumed, state, until,
    },
};

over_both!(
    it_dials_at_once_then_after_50_ms_doubling_with_jitter_up_to_the_cap,
    the_delays_are_the_configured_ones,
    a_link_that_was_good_starts_the_backoff_over,
    a_server_that_drops_each_link_at_once_is_not_dialled_in_a_tight_loop,
    a_changed_network_resets_the_backoff_and_tries_at_once,
    it_gives_up_when_the_resume_window_has_passed_since_the_loss,
    the_state_tells_the_attempts_and_the_figures_add_up,
);

const FIRST: Duration = Duration::from_millis(50);
const CAP: Duration = Duration::from_secs(10);
/// The clock of tokio's timers has steps of this length.
const STEP: Duration = Duration::from_millis(2);

/// When the client noticed that it had lost its link.
async fn lost(client: &ResumableTransport) -> Instant {
    let lost = state(&client.handle(), |state| {
        matches!(state, LinkState::Reconnecting { .. })
    })
    .await;
    match lost {
        LinkState::Reconnecting { since, .. } => Instant::from_std(since),
        state => panic!("{state:?}"),
    }
}

/// How long after `from` each dial began that came after.
fn after(net: &Net, from: Instant) -> Vec<Duration> {
    let dials = net.dials().into_iter();
    dials
        .filter_map(|at| at.checked_duration_since(from))
        .collect()
}

async fn it_dials_at_once_then_after_50_ms_doubling_with_jitter_up_to_the_cap(protocol: Protocol) {
    let config: Config = protocol.config().resume_window(Duration::from_secs(120));
    let mut jitters = Vec::new();
    for _ in 0..5 {
        let mut net = Net::new(&config, ROOMY);
        let (mut client, mut server) = net.open(&config).await;
        exchange(&mut client, &mut server).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        net.set(Dial::Refuse);
        net.newest().cut(Fault::Reset);
        let lost = lost(&client).await;
        assert_eq!(closed(&client.handle()).await, CloseReason::Expired);
        assert_eq!(lost.elapsed().as_secs(), 120);
        let dials = after(&net, lost);
        assert_eq!(dials[0], Duration::ZERO);
        let mut base = FIRST;
        for (earlier, later) in dials.iter().zip(&dials[1..]) {
            let gap = *later - *earlier;
            let most = base.mul_f64(1.5).min(CAP.max(base)) + STEP;
            assert!((base..=most).contains(&gap), "{gap:?} instead of {base:?}");
            jitters.push((gap - base).as_secs_f64() / base.as_secs_f64());
            base = (2 * base).min(CAP);
        }
        assert!(dials.len() > 12, "{dials:?}");
        // It has given up.
        tokio::time::sleep(Duration::from_secs(1000)).await;
        assert_eq!(after(&net, lost).len(), dials.len());
    }
    let spread = jitters.iter().filter(|jitter| **jitter > 0.25).count();
    assert!(spread > 0 && spread < jitters.len(), "{jitters:?}");
}

async fn the_delays_are_the_configured_ones(protocol: Protocol) {
    let (first, cap) = (Duration::from_millis(400), Duration::from_secs(1));
    let config = protocol.config().retry(first, cap);
    let mut net = Net::new(&config, ROOMY);
    let (client, _server) = net.open(&config).await;
    net.set(Dial::Refuse);
    net.newest().cut(Fault::Reset);
    let lost = lost(&client).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let dials = after(&net, lost);
    assert_eq!(dials[0], Duration::ZERO);
    assert!(
        (first..=first.mul_f64(1.5) + STEP).contains(&dials[1]),
        "{dials:?}"
    );
    // Once at the cap there is no room above it for jitter.
    let late: Vec<_> = dials[3..]
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    assert!(
        late.iter().all(|gap| (cap..=cap + STEP).contains(gap)),
        "{late:?}"
    );
    drop(client);
}

async fn a_link_that_was_good_starts_the_backoff_over(protocol: Protocol) {
    let mut net = Net::new(&protocol.config(), ROOMY);
    let (mut client, mut server) = net.open(&protocol.config()).await;
    net.set(Dial::Refuse);
    net.newest().cut(Fault::Reset);
    tokio::time::sleep(Duration::from_secs(40)).await;
    net.set(Dial::Serve);
    connected(&client.handle()).await;
    exchange(&mut client, &mut server).await;
    net.set(Dial::Refuse);
    net.newest().cut(Fault::Reset);
    let lost = lost(&client).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let dials = after(&net, lost);
    assert_eq!(dials[0], Duration::ZERO);
    assert!(dials[1] < FIRST.mul_f64(1.5) + STEP, "{dials:?}");
}

async fn a_server_that_drops_each_link_at_once_is_not_dialled_in_a_tight_loop(protocol: Protocol) {
    for dial in [
        // Attached, and nothing comes of it.
        Dial::CutAt(Client, 57),
        // The handshake fails.
        Dial::CutAt(Server, 24),
        Dial::CutAt(Client, 0),
    ] {
        let mut net = Net::new(&protocol.config(), ROOMY);
        let (mut client, mut server) = net.open(&protocol.config()).await;
        net.set(dial);
        net.newest().cut(Fault::Reset);
        let lost = lost(&client).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let dials = after(&net, lost).len();
        assert!((8..=20).contains(&dials), "{dials} dials in a minute");
        net.set(Dial::Serve);
        exchange(&mut client, &mut server).await;
    }
}

async fn a_changed_network_resets_the_backoff_and_tries_at_once(protocol: Protocol) {
    let mut net = Net::new(&protocol.config(), ROOMY);
    let (mut client, mut server) = net.open(&protocol.config()).await;
    net.set(Dial::Refuse);
    net.newest().cut(Fault::Reset);
    // By now each delay is 10 seconds.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let last = *net.dials().last().expect("a dial");
    until("the next dial", || {
        net.dials().last().filter(|at| **at > last).copied()
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let changed = Instant::now();
    client.handle().network_changed();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let dials = after(&net, changed);
    assert_eq!(dials[0], Duration::ZERO);
    let gap = dials[1] - dials[0];
    assert!(
        (FIRST..=FIRST.mul_f64(1.5) + STEP).contains(&gap),
        "{gap:?}"
    );
    // Told again and again, it tries each time.
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(7)).await;
        let changed = Instant::now();
        client.handle().network_changed();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(after(&net, changed).first(), Some(&Duration::ZERO));
    }
    // And what hangs on the old network is given up.
    net.plan([Dial::Hang, Dial::Serve]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let changed = Instant::now();
    client.handle().network_changed();
    client.handle().network_changed();
    tokio::time::sleep(Duration::from_millis(1)).await;
    client.handle().network_changed();
    resumed(&client.handle(), 1).await;
    assert!(changed.elapsed() < Duration::from_millis(50));
    exchange(&mut client, &mut server).await;
}

async fn it_gives_up_when_the_resume_window_has_passed_since_the_loss(protocol: Protocol) {
    let window = Duration::from_secs(33);
    let config = protocol.config().resume_window(window);
    // However the attempts fail: refused, in a dial that hangs, on a link that is silent.
    for dial in [Dial::Refuse, Dial::Hang, Dial::Ignore] {
        let mut net = Net::new(&protocol.config(), ROOMY);
        let (client, _server) = net.open(&config).await;
        net.set(dial);
        net.newest().cut(Fault::Reset);
        let lost = lost(&client).await;
        assert_eq!(closed(&client.handle()).await, CloseReason::Expired);
        let passed = lost.elapsed();
        assert!((window..window + STEP).contains(&passed), "{passed:?}");
    }
}

async fn the_state_tells_the_attempts_and_the_figures_add_up(protocol: Protocol) {
    let mut net = Net::new(&protocol.config(), ROOMY);
    let (mut client, mut server) = net.open(&protocol.config()).await;
    let (handle, mut states) = (client.handle(), client.handle().subscribe());
    assert_eq!(*states.borrow_and_update(), LinkState::Connected);
    exchange(&mut client, &mut server).await;
    assert!(!states.has_changed().expect("the session lives"));
    let stats = handle.stats();
    assert_eq!((stats.sent, stats.received), (300, 300));
    assert_eq!((stats.replayed, stats.resumes), (0, 0));
    // snet acknowledges nothing, but on resume; what is certain can be told from the history.
    let unheard = match protocol {
        Protocol::Snet => 300,
        Protocol::Native => 0,
    };
    assert_eq!(stats.unacknowledged, unheard);

    net.set(Dial::Refuse);
    net.newest().cut(Fault::Reset);
    let lost = lost(&client).await;
    let mut attempts = Vec::new();
    while attempts.last() != Some(&4) {
        states.changed().await.expect("the session lives");
        match states.borrow_and_update().clone() {
            LinkState::Reconnecting { attempt, since } => {
                assert_eq!(since, lost.into_std());
                attempts.push(attempt);
            }
            state => panic!("{state:?}"),
        }
    }
    attempts.dedup();
    // The first is made at once, before anybody can look.
    assert!(
        [&[0, 1, 2, 3, 4][..], &[1, 2, 3, 4]].contains(&&attempts[..]),
        "{attempts:?}"
    );
    net.set(Dial::Serve);
    state(&handle, |state| *state == LinkState::Connected).await;
    exchange(&mut client, &mut server).await;
    let stats = handle.stats();
    assert_eq!((stats.sent, stats.received), (600, 600));
    assert_eq!((stats.replayed, stats.resumes), (0, 1));
    // The counts of the resume say that 300 had arrived.
    assert_eq!(stats.unacknowledged, unheard);
    assert_eq!(server.handle().stats().resumes, 1);

    drop(client);
    let ended = match protocol {
        Protocol::Snet => {
            assert_eq!(closed(&handle).await, CloseReason::Local);
            CloseReason::Local
        }
        Protocol::Native => CloseReason::Finished,
    };
    drop(server);
    assert_eq!(closed(&handle).await, ended);
}
