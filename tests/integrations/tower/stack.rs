//! All layers at once, while links are cut.

use std::{
    future::{Ready, pending, ready},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tower::{
    BoxError, ServiceBuilder, ServiceExt,
    retry::{Policy, RetryLayer},
    service_fn,
    timeout::error::Elapsed,
};
use unbroken::{ResumableLayer, TcpConnector};

use super::{Echo, round_trips};
use crate::bed::{Bed, SOCKET_BUFFER, Spoken, over_each};

over_each!(every_layer_below_does_its_work_and_every_stream_arrives_whole);

const SESSIONS: usize = 4;

/// Fewer than there are sessions.
const DIALS_AT_ONCE: u32 = 2;

/// From a dial to the next.
const PERIOD: Duration = Duration::from_millis(4);

const DIAL_TIMEOUT: Duration = Duration::from_millis(30);

/// What was dialled.
#[derive(Default)]
struct Dials {
    begun: Mutex<Vec<Instant>>,
    under_way: AtomicU32,
    most_at_once: AtomicU32,
}

/// Counts a dial as under way for as long as its future exists.
struct UnderWay(Arc<Dials>);

impl UnderWay {
    fn new(dials: &Arc<Dials>) -> Self {
        let at_once = dials.under_way.fetch_add(1, Relaxed) + 1;
        dials.most_at_once.fetch_max(at_once, Relaxed);
        Self(dials.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

/// What a retry has mended.
#[derive(Default)]
struct Mended {
    refused: AtomicU32,
    late: AtomicU32,
}

#[derive(Clone)]
struct UntilDialled(Arc<Mended>);

impl<Response> Policy<SocketAddr, Response, BoxError> for UntilDialled {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut SocketAddr,
        result: &mut Result<Response, BoxError>,
    ) -> Option<Ready<()>> {
        let error = result.as_ref().err()?;
        if error.is::<Elapsed>() {
            self.0.late.fetch_add(1, Relaxed);
        } else {
            let refused = error.is::<io::Error>();
            assert!(refused, "{error:?}");
            self.0.refused.fetch_add(1, Relaxed);
        }
        Some(ready(()))
    }

    fn clone_request(&mut self, addr: &SocketAddr) -> Option<SocketAddr> {
        Some(*addr)
    }
}

async fn every_layer_below_does_its_work_and_every_stream_arrives_whole(spoken: Spoken) {
    let echo = Echo::start(spoken.config()).await;
    let bed = Bed::before(echo.addr, spoken, 4 << 10).await;
    let dials = Arc::new(Dials::default());
    let mended = Arc::new(Mended::default());
    let dial = {
        let dials = dials.clone();
        service_fn(move |addr: SocketAddr| {
            let number = {
                let mut begun = dials.begun.lock().expect("no panic");
                begun.push(Instant::now());
                begun.len()
            };
            let under_way = UnderWay::new(&dials);
            async move {
                let _under_way = under_way;
                match number % 10 {
                    3 => Err(io::ErrorKind::NetworkUnreachable.into()),
                    7 => pending().await,
                    // As snet needs it, in whichever task it is called.
                    _ => {
                        let tcp = TcpConnector::new().socket_buffer_limit(SOCKET_BUFFER);
                        tcp.oneshot(addr).await
                    }
                }
            }
        })
    };
    let connect = ServiceBuilder::new()
        .layer(ResumableLayer::new(spoken.config()))
        .layer(RetryLayer::new(UntilDialled(mended.clone())))
        .concurrency_limit(DIALS_AT_ONCE as usize)
        .buffer(SESSIONS)
        .rate_limit(1, PERIOD)
        .timeout(DIAL_TIMEOUT)
        .service(dial);
    let connect = bed.patient(connect);

    let mut transports = Vec::new();
    for _ in 0..SESSIONS {
        let Ok(transport) = connect.clone().oneshot(bed.addr()).await;
        transports.push(transport);
    }
    let mut clients = JoinSet::new();
    for mut transport in transports {
        clients.spawn(async move { round_trips(&mut transport, 0..60).await });
    }
    while let Some(done) = clients.join_next().await {
        done.expect("every message, in order");
    }

    bed.assert_cut(30);
    let begun = dials.begun.lock().expect("no panic");
    let hurried = begun
        .windows(2)
        .filter(|pair| pair[1] - pair[0] < PERIOD / 2);
    // The limit counts from when it was asked, which may be a while before it calls. Each dial that was refused would be hurried.
    assert!(hurried.count() < 3, "{begun:?}");
    assert_eq!(dials.most_at_once.load(Relaxed), DIALS_AT_ONCE);
    let (refused, late) = (mended.refused.load(Relaxed), mended.late.load(Relaxed));
    assert!(refused >= 3 && late >= 3, "{refused} refused, {late} late");
}
