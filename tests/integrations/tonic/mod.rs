//! tonic: calls of all four kinds, and what ends them.

use std::convert::Infallible;

use http_body_util::BodyExt;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{
    Status, Streaming,
    body::Body,
    transport::{Channel, Endpoint, Server},
};
use tower::service_fn;
use unbroken::{Handle, LinkState, Listener};

use self::numbers::{Number, Numbers};
use crate::{bed::Bed, cutting_proxy::Close};

mod calls;
mod endings;
mod limits;
#[path = "../../../examples/tonic/numbers.rs"]
pub(crate) mod numbers;
mod peers;
mod settings;

/// A server of numbers, until it is dropped, and how many calls it is at.
fn serve(server: Server, listener: Listener) -> (JoinSet<()>, watch::Receiver<usize>) {
    serve_with(server, listener, numbers::serve)
}

/// Such a server of another service.
fn serve_with<F>(
    server: Server,
    listener: Listener,
    service: impl Fn(http::Request<Body>) -> F + Clone + Send + 'static,
) -> (JoinSet<()>, watch::Receiver<usize>)
where
    F: Future<Output = Result<http::Response<Body>, Infallible>> + Send + 'static,
{
    let (calls, at) = watch::channel(0);
    let service = service_fn(move |request| {
        let at = At::one_more(calls.clone());
        let responding = service(request);
        async move {
            let response = responding.await?;
            // Until all of it has been sent, or it is given up.
            Ok::<_, Infallible>(response.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _ = &at;
                    frame
                }))
            }))
        }
    });
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let served = server.serve_with_incoming(service, listener).await;
        served.expect("a server that serves");
    });
    (serving, at)
}

/// One of the calls that a server is at.
struct At(watch::Sender<usize>);

impl At {
    fn one_more(calls: watch::Sender<usize>) -> Self {
        calls.send_modify(|calls| *calls += 1);
        Self(calls)
    }
}

impl Drop for At {
    fn drop(&mut self) {
        self.0.send_modify(|calls| *calls -= 1);
    }
}

async fn until(at: &mut watch::Receiver<usize>, calls: usize) {
    let reached = at.wait_for(|at| *at == calls).await;
    reached.expect("a server that is there");
}

fn endpoint(bed: &Bed) -> Endpoint {
    Endpoint::from(bed.uri("/"))
}

async fn channel(bed: &Bed) -> Channel {
    let endpoint = endpoint(bed);
    let connected = endpoint.connect_with_connector(bed.connector()).await;
    connected.expect("a session")
}

/// How many numbers come until the end, in order.
async fn counted(mut numbers: Streaming<Number>) -> u64 {
    let mut expected = 0;
    while let Some(number) = numbers.message().await.expect("a number, or the end") {
        assert_eq!(number, expected.into());
        expected += 1;
    }
    expected
}

/// A stream each way, one number at a time.
struct Echo {
    sent: u64,
    received: u64,
    to: mpsc::UnboundedSender<Number>,
    from: Streaming<Number>,
}

impl Echo {
    /// Numbers on their way at once, at most.
    const AHEAD: u64 = 16;

    async fn open(client: &mut Numbers) -> Self {
        Self::try_open(client).await.expect("a stream")
    }

    async fn try_open(client: &mut Numbers) -> Result<Self, Status> {
        let (to, numbers) = mpsc::unbounded_channel();
        let numbers = UnboundedReceiverStream::new(numbers);
        let from = client.echo(numbers).await?.into_inner();
        let mut echo = Self {
            sent: 0,
            received: 0,
            to,
            from,
        };
        echo.go_on(1).await;
        Ok(echo)
    }

    fn send(&mut self) {
        self.to.send(self.sent.into()).expect("a call in progress");
        self.sent += 1;
    }

    /// The next one comes back.
    async fn receive(&mut self) {
        let echoed = self.from.message().await.expect("a number");
        assert_eq!(echoed, Some(self.received.into()));
        self.received += 1;
    }

    /// So many more go there, and back but for the last.
    async fn keep_on(&mut self, numbers: u64) {
        for _ in 0..numbers {
            self.send();
            if self.sent - self.received == Self::AHEAD {
                self.receive().await;
            }
        }
    }

    /// So many more there and back.
    async fn go_on(&mut self, numbers: u64) {
        self.keep_on(numbers).await;
        while self.received < self.sent {
            self.receive().await;
        }
    }

    /// The end there and back.
    async fn end(self) {
        let Self { to, mut from, .. } = self;
        drop(to);
        let end = from.message().await.expect("a clean end");
        assert_eq!(end, None);
    }
}

/// Once it returns, there is a session on which calls are answered.
async fn until_open(client: &mut Numbers) {
    // What is handed to a connection in the moment in which it ends fails with it.
    while client.next(Number::from(1)).await.is_err() {}
}

/// The newest session, whose link is cut; there is no other until the proxy no longer refuses.
async fn cut_off(bed: &Bed) -> Handle {
    let session = bed.sessions().pop().expect("a session");
    bed.proxy.set_refusing(true);
    bed.proxy.cut_now(Close::Reset);
    let mut state = session.subscribe();
    let detached = state.wait_for(|state| matches!(state, LinkState::Reconnecting { .. }));
    detached.await.expect("a session without a link");
    session
}
