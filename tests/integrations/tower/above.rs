//! What applies to the opening of a session: layers above.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep};
use tower::{
    BoxError, ServiceBuilder, ServiceExt,
    retry::{
        Policy, RetryLayer,
        backoff::{Backoff, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff},
    },
    timeout::error::Elapsed,
    util::rng::HasherRng,
};
use unbroken::{Error, LinkState, ResumableLayer, ResumableTransport, TcpConnector};

use super::{Echo, echo_behind_a_proxy, quiet, round_trip, until_resumed};
use crate::{
    bed::{POLL, Spoken, over_each, within},
    cutting_proxy::{Close, Traffic},
};

over_each!(
    a_retry_above_opens_a_session_once_the_server_can_be_reached,
    a_timeout_above_bounds_the_opening_and_not_the_session,
);

/// Opens again after what may pass, less and less often.
#[derive(Clone)]
struct UntilOpen {
    backoff: ExponentialBackoff,
    retries: Arc<AtomicU32>,
}

impl UntilOpen {
    fn new() -> Self {
        let (first, cap) = (Duration::from_millis(1), Duration::from_millis(10));
        let maker = ExponentialBackoffMaker::new(first, cap, 0.5, HasherRng::new());
        Self {
            backoff: maker.expect("a backoff").make_backoff(),
            retries: Arc::default(),
        }
    }
}

impl Policy<SocketAddr, ResumableTransport, Error> for UntilOpen {
    type Future = Sleep;

    fn retry(
        &mut self,
        _: &mut SocketAddr,
        result: &mut Result<ResumableTransport, Error>,
    ) -> Option<Sleep> {
        let wait = match result {
            Err(Error::Dial(_) | Error::Link(_) | Error::HandshakeTimeout) => {
                self.backoff.next_backoff()
            }
            Err(Error::Rejected { retry_after, .. }) if !retry_after.is_zero() => {
                sleep(*retry_after)
            }
            _ => return None,
        };
        self.retries.fetch_add(1, Relaxed);
        Some(wait)
    }

    fn clone_request(&mut self, addr: &SocketAddr) -> Option<SocketAddr> {
        Some(*addr)
    }
}

async fn a_retry_above_opens_a_session_once_the_server_can_be_reached(spoken: Spoken) {
    let (proxy, _echo) = echo_behind_a_proxy(spoken).await;
    proxy.set_refusing(true);
    let connect = ServiceBuilder::new()
        .layer(RetryLayer::new(UntilOpen::new()))
        .layer(ResumableLayer::new(quiet(spoken)))
        .service(TcpConnector::new());
    let opening = tokio::spawn(connect.oneshot(proxy.addr()));
    while proxy.stats().refused < 5 {
        sleep(POLL).await;
    }
    proxy.set_refusing(false);
    let opened = opening.await.expect("no panic");
    let mut transport = opened.expect("a session");
    round_trip(&mut transport, b"opened").await;
    proxy.cut_now(Close::Reset);
    until_resumed(&transport, 1).await;
    round_trip(&mut transport, b"resumed").await;
}

#[tokio::test]
async fn a_retry_above_comes_back_to_a_busy_server_when_that_has_said() {
    let echo = Echo::start(quiet(Spoken::Native).max_sessions(1)).await;
    let policy = UntilOpen::new();
    let retries = policy.retries.clone();
    let connect = ServiceBuilder::new()
        .layer(RetryLayer::new(policy))
        .layer(ResumableLayer::new(quiet(Spoken::Native)))
        .service(TcpConnector::new());
    let mut first = connect.clone().oneshot(echo.addr).await.expect("a session");
    round_trip(&mut first, b"first").await;
    let begun = Instant::now();
    let ending = async {
        while retries.load(Relaxed) == 0 {
            sleep(POLL).await;
        }
        first.handle().close(1);
    };
    let (second, ()) = within(async { tokio::join!(connect.oneshot(echo.addr), ending) }).await;
    let waited = begun.elapsed();
    round_trip(&mut second.expect("a session"), b"second").await;
    assert!(waited >= Duration::from_secs(1), "{waited:?}");
}

#[tokio::test]
async fn a_retry_above_leaves_alone_what_no_retry_can_mend() {
    let (proxy, _echo) = echo_behind_a_proxy(Spoken::Native).await;
    let wrong = quiet(Spoken::Native).retry(Duration::from_secs(2), Duration::from_secs(1));
    let connect = ServiceBuilder::new()
        .timeout(Duration::from_secs(30))
        .layer(RetryLayer::new(UntilOpen::new()))
        .layer(ResumableLayer::new(wrong))
        .service(TcpConnector::new());
    let failed: BoxError = within(connect.oneshot(proxy.addr()))
        .await
        .expect_err("a configuration that cannot be used");
    let failed = failed.downcast_ref::<Error>();
    assert!(matches!(failed, Some(Error::Config(_))), "{failed:?}");
}

async fn a_timeout_above_bounds_the_opening_and_not_the_session(spoken: Spoken) {
    let patience = Duration::from_millis(200);
    let (proxy, _echo) = echo_behind_a_proxy(spoken).await;
    let connect = ServiceBuilder::new()
        .timeout(patience)
        .layer(ResumableLayer::new(quiet(spoken)))
        .service(TcpConnector::new());

    // It takes links and says nothing.
    proxy.set_traffic(Traffic::Hold);
    let late: Result<ResumableTransport, BoxError> = connect.clone().oneshot(proxy.addr()).await;
    let late = late.expect_err("nobody to talk to");
    assert!(late.is::<Elapsed>(), "{late:?}");

    proxy.set_traffic(Traffic::Forward);
    let mut transport = connect.oneshot(proxy.addr()).await.expect("a session");
    round_trip(&mut transport, b"before").await;
    let lost = {
        proxy.set_refusing(true);
        proxy.cut_now(Close::Reset);
        let mut state = transport.handle().subscribe();
        let lost = state
            .wait_for(|state| matches!(state, LinkState::Reconnecting { .. }))
            .await;
        match &*lost.expect("a session") {
            LinkState::Reconnecting { since, .. } => *since,
            other => panic!("{other:?}"),
        }
    };
    while lost.elapsed() <= 2 * patience {
        sleep(POLL).await;
    }
    proxy.set_refusing(false);
    round_trip(&mut transport, b"after").await;
    assert_eq!(transport.handle().stats().resumes, 1);
}
