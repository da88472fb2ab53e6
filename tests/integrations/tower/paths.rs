//! More than one way to the same server: services that fail over, and that balance.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};
use tower::{
    BoxError, ServiceBuilder, ServiceExt,
    balance::p2c::Balance,
    discover::ServiceList,
    load::{CompleteOnResponse, PendingRequests},
    retry::RetryLayer,
    service_fn,
};
use unbroken::{Config, Connector, Handle, LinkState, ResumableLayer, TcpConnector};

use super::{Again, Echo, quiet, round_trips, until_resumed};
use crate::{
    bed::{Bed, SOCKET_BUFFER, Spoken, over_each},
    cutting_proxy::{Close, Faults, Traffic},
};

over_each!(
    the_first_path_that_answers_carries_it_at_the_open_and_at_each_redial,
    a_stream_goes_on_over_another_path_when_its_own_dies,
    a_fixed_order_stays_with_a_path_that_takes_links_and_says_nothing,
    taking_turns_leaves_a_path_that_takes_links_and_says_nothing,
    the_handshake_timeout_bounds_the_whole_of_a_redial,
    a_balanced_stream_goes_on_over_the_path_that_is_left,
);

type Paths = Arc<[SocketAddr]>;

/// Where nobody listens. The port is taken, so that nobody will.
struct Dead {
    addr: SocketAddr,
    _bound: TcpSocket,
}

impl Dead {
    fn new() -> io::Result<Self> {
        let bound = TcpSocket::new_v4()?;
        bound.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(Self {
            addr: bound.local_addr()?,
            _bound: bound,
        })
    }
}

/// Where nobody answers: a listener whose queue is full, so that the system drops what comes.
struct BlackHole {
    addr: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl BlackHole {
    async fn new() -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listener = socket.listen(1)?;
        let addr = listener.local_addr()?;
        let mut queued = Vec::new();
        while let Ok(link) = timeout(EACH, TcpStream::connect(addr)).await {
            queued.push(link?);
        }
        Ok(Self {
            addr,
            _listener: listener,
            _queued: queued,
        })
    }
}

/// Dials the first of the paths that answers within a while.
async fn first_to_answer(paths: Paths, each: Duration) -> Result<TcpStream, BoxError> {
    let mut failed = BoxError::from("there are no paths");
    for &path in paths.iter() {
        match timeout(each, TcpConnector::new().oneshot(path)).await {
            Ok(Ok(link)) => return Ok(link),
            Ok(Err(error)) => failed = error.into(),
            Err(late) => failed = late.into(),
        }
    }
    Err(failed)
}

/// More than a path on this machine ever needs.
const EACH: Duration = Duration::from_millis(50);

async fn the_first_path_that_answers_carries_it_at_the_open_and_at_each_redial(spoken: Spoken) {
    let echo = Echo::start(quiet(spoken)).await;
    let near = echo.path(Faults::none()).await;
    let far = echo.path(Faults::none()).await;
    let dead = Dead::new().expect("a port");
    let black_hole = BlackHole::new().await.expect("a full queue");
    let paths = Paths::from([dead.addr, black_hole.addr, near.addr(), far.addr()]);
    let dial = service_fn(|paths| first_to_answer(paths, EACH));
    let connect = Connector::new(dial, quiet(spoken));

    let mut transport = connect.oneshot(paths).await.expect("a session");
    round_trips(&mut transport, 0..10).await;
    for resumes in 1..=5 {
        near.cut_now(Close::Reset);
        until_resumed(&transport, resumes).await;
        round_trips(&mut transport, 0..10).await;
    }
    assert_eq!((near.stats().accepted, far.stats().accepted), (6, 0));

    drop(near);
    for resumes in 6..=10 {
        until_resumed(&transport, resumes).await;
        round_trips(&mut transport, 0..10).await;
        far.cut_now(Close::Reset);
    }
    until_resumed(&transport, 11).await;
    round_trips(&mut transport, 0..10).await;
    assert_eq!(far.stats().accepted, 6);
}

async fn a_stream_goes_on_over_another_path_when_its_own_dies(spoken: Spoken) {
    let echo = Echo::start(spoken.config()).await;
    let near = Bed::before(echo.addr, spoken, 4 << 10).await;
    let far = Bed::before(echo.addr, spoken, 4 << 10).await;
    let dead = Dead::new().expect("a port");
    let paths = Paths::from([dead.addr, near.addr(), far.addr()]);
    let dial = service_fn(|paths| first_to_answer(paths, EACH));
    let connect = near.patient(Connector::new(dial, spoken.config()));

    let Ok(mut transport) = connect.oneshot(paths).await;
    // In an outage of the near path, the far one may be what answers.
    while near.proxy.stats().cut < 8 {
        round_trips(&mut transport, 0..20).await;
    }
    let (cut, resumes) = (far.proxy.stats().cut, transport.handle().stats().resumes);

    drop(near);
    while far.proxy.stats().cut < cut + 15 {
        round_trips(&mut transport, 20..40).await;
    }
    let resumes = transport.handle().stats().resumes - resumes;
    assert!(resumes >= 8, "{resumes} resumes");
}

/// Times out soon, where a path takes links and says nothing.
fn hasty(spoken: Spoken) -> Config {
    quiet(spoken).handshake_timeout(2 * EACH)
}

async fn attempts(handle: &Handle, times: u32) {
    let mut states = handle.subscribe();
    let many = states.wait_for(
        |state| matches!(state, LinkState::Reconnecting { attempt, .. } if *attempt > times),
    );
    let _state = many.await.expect("a session");
}

async fn a_fixed_order_stays_with_a_path_that_takes_links_and_says_nothing(spoken: Spoken) {
    let echo = Echo::start(quiet(spoken)).await;
    let near = echo.path(Faults::none()).await;
    let far = echo.path(Faults::none()).await;
    let paths = Paths::from([near.addr(), far.addr()]);
    let dial = service_fn(|paths| first_to_answer(paths, EACH));
    let connect = Connector::new(dial, hasty(spoken));
    let mut transport = connect.oneshot(paths).await.expect("a session");
    round_trips(&mut transport, 0..10).await;

    near.set_traffic(Traffic::Hold);
    near.cut_now(Close::Reset);
    attempts(&transport.handle(), 3).await;
    assert_eq!(far.stats().accepted, 0);
    near.set_traffic(Traffic::Forward);
    round_trips(&mut transport, 0..10).await;
}

async fn taking_turns_leaves_a_path_that_takes_links_and_says_nothing(spoken: Spoken) {
    let echo = Echo::start(quiet(spoken)).await;
    let near = echo.path(Faults::none()).await;
    let far = echo.path(Faults::none()).await;
    let paths = Paths::from([near.addr(), far.addr()]);
    let turn = Arc::new(AtomicUsize::new(0));
    let dial = service_fn(move |paths: Paths| {
        let mut turned = paths.to_vec();
        turned.rotate_left(turn.fetch_add(1, Relaxed) % paths.len());
        first_to_answer(turned.into(), EACH)
    });
    let connect = Connector::new(dial, hasty(spoken));
    let mut transport = connect.oneshot(paths).await.expect("a session");
    round_trips(&mut transport, 0..10).await;
    transport.handle().migrate().await.expect("the other path");
    round_trips(&mut transport, 0..10).await;
    assert_eq!((near.stats().accepted, far.stats().accepted), (1, 1));

    near.set_traffic(Traffic::Hold);
    for resumes in 2..=4 {
        near.cut_now(Close::Reset);
        far.cut_now(Close::Reset);
        until_resumed(&transport, resumes).await;
        round_trips(&mut transport, 0..10).await;
    }
    assert!(far.stats().accepted >= 3, "{:?}", far.stats());
}

async fn the_handshake_timeout_bounds_the_whole_of_a_redial(spoken: Spoken) {
    let echo = Echo::start(quiet(spoken)).await;
    let near = echo.path(Faults::none()).await;
    let black_hole = BlackHole::new().await.expect("a full queue");
    let paths = Paths::from([black_hole.addr, near.addr()]);
    let longer = 6 * EACH;
    let dial = service_fn(move |paths| first_to_answer(paths, longer));
    let connect = Connector::new(dial, hasty(spoken));
    // The first dial has the time it takes.
    let mut transport = connect.oneshot(paths).await.expect("a session");
    round_trips(&mut transport, 0..10).await;

    near.cut_now(Close::Reset);
    attempts(&transport.handle(), 3).await;
    assert_eq!(near.stats().accepted, 1);
}

async fn a_balanced_stream_goes_on_over_the_path_that_is_left(spoken: Spoken) {
    let echo = Echo::start(spoken.config()).await;
    let one = Bed::before(echo.addr, spoken, 4 << 10).await;
    let other = Bed::before(echo.addr, spoken, 4 << 10).await;
    let dials = Arc::<[AtomicUsize; 2]>::default();
    let paths = [(0, one.addr()), (1, other.addr())].map(|(path, addr)| {
        let dials = dials.clone();
        let dial = service_fn(move |()| {
            dials[path].fetch_add(1, Relaxed);
            // As snet needs it, in whichever task it is called.
            let tcp = TcpConnector::new().socket_buffer_limit(SOCKET_BUFFER);
            tcp.oneshot(addr)
        });
        PendingRequests::new(dial, CompleteOnResponse::default())
    });
    let connect = ServiceBuilder::new()
        .layer(ResumableLayer::new(spoken.config()))
        .layer(RetryLayer::new(Again(2)))
        .buffer(4)
        .service(Balance::new(ServiceList::new::<()>(paths)));

    let Ok(mut transport) = one.patient(connect).oneshot(()).await;
    // Which of them is dialled is left to chance.
    while one.proxy.stats().cut < 2 || other.proxy.stats().cut < 2 {
        round_trips(&mut transport, 0..20).await;
    }

    drop(one);
    let (before, cut) = (dials[0].load(Relaxed), other.proxy.stats().cut);
    // The balancer does not leave the dead path out: it is for the retry to come to the other.
    while dials[0].load(Relaxed) == before || other.proxy.stats().cut < cut + 15 {
        round_trips(&mut transport, 20..40).await;
    }
    let resumes = transport.handle().stats().resumes;
    assert!(resumes >= 8, "{resumes} resumes");
}
