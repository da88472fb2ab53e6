//! Proofs that arrive at the same moment, on different threads.

use std::{
    future::Future,
    pin::Pin,
    sync::Barrier,
    task::{Context, Poll, Waker},
    thread,
};

use tokio::runtime::Handle;
use unbroken::{Accepted, Acceptor, Error};

use super::{
    memory_link::{MemoryLink, link},
    memory_net::{ROOMY, expect, plain, send},
    raw_peer,
};

type Accepting = Pin<Box<dyn Future<Output = Result<Accepted, Error>> + Send>>;

/// Begins to accept a link.
fn accepting(acceptor: &Acceptor) -> (MemoryLink, Accepting) {
    let (peer, end, _) = link(ROOMY);
    let acceptor = acceptor.clone();
    (peer, Box::pin(async move { acceptor.accept(end).await }))
}

fn poll(accepting: &mut Accepting) -> Poll<Result<Accepted, Error>> {
    accepting
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

/// Carries a handshake on until it waits for something other than its peer.
async fn step<T>(accepting: &mut Accepting, peer: impl Future<Output = T>) -> T {
    let mut peer = Box::pin(peer);
    std::future::poll_fn(|cx| {
        assert!(poll(accepting).is_pending());
        cx.waker().wake_by_ref();
        peer.as_mut().poll(cx)
    })
    .await
}

#[tokio::test]
async fn a_session_that_an_open_and_a_resume_prove_at_once_opens_once() {
    let acceptor = Acceptor::new(plain());
    for turn in 0..6_000 {
        let (mut first, mut opening) = accepting(&acceptor);
        let machine = step(&mut opening, raw_peer::begin_open(&mut first)).await;
        let mut open = machine.expect("message 2");
        let opened = open.opened().expect("named").clone();
        let (mut second, mut resuming) = accepting(&acceptor);
        let asked = step(&mut resuming, raw_peer::request(&mut second, &opened, 0, 0));
        let (mut resume, _) = asked.await.expect("granted");
        resume.confirm();
        raw_peer::drive(&mut first, &mut open).await.expect("room");
        raw_peer::drive(&mut second, &mut resume)
            .await
            .expect("room");

        let (runtime, barrier) = (Handle::current(), Barrier::new(2));
        let outcomes = thread::scope(|scope| {
            let threads = [&mut opening, &mut resuming].map(|accepting| {
                scope.spawn(|| {
                    let _runtime = runtime.enter();
                    barrier.wait();
                    poll(accepting)
                })
            });
            threads.map(|thread| thread.join().expect("no panic"))
        });
        let [opened, resumed] = outcomes.map(|outcome| match outcome {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => panic!("the proof is there"),
        });
        let mut server = match (opened, resumed) {
            (Ok(Accepted::New(server)), Ok(Accepted::Resumed(_)))
            | (Err(Error::Resume(_)), Ok(Accepted::New(server))) => server,
            // Opened by one, and newer on the other.
            other => panic!("{other:?} in turn {turn}"),
        };
        send(&mut server, b"alive").await;
        expect(&mut second, b"alive").await;
    }
}
