//! The server.

use std::{future::pending, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{rt::TokioExecutor, server::conn::auto};
use tokio::{sync::Semaphore, task::JoinSet};
use unbroken::{Listener, Sessions};

use super::{AnyBody, DOWN, LONG, NOISE, digest, fed, feed, full, trailers, upgrades};
use crate::bed::Spoken;

type Answer = Result<Response<AnyBody>, hyper::Error>;

/// Where requests stand that wait to be let go.
pub(super) struct Gate {
    arrived: Semaphore,
    released: Semaphore,
}

impl Gate {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            arrived: Semaphore::new(0),
            released: Semaphore::new(0),
        })
    }

    /// Waits until so many more have come.
    pub(super) async fn arrived(&self, requests: u32) {
        let come = self.arrived.acquire_many(requests).await;
        come.expect("it stays open").forget();
    }

    /// Lets so many go on.
    pub(super) fn release(&self, requests: usize) {
        self.released.add_permits(requests);
    }

    async fn pass(&self) {
        self.arrived.add_permits(1);
        let released = self.released.acquire().await;
        released.expect("it stays open").forget();
    }
}

pub(super) async fn answer(request: Request<Incoming>, gate: Arc<Gate>) -> Answer {
    if request.method() == Method::CONNECT {
        return Ok(upgrades::answer(request));
    }
    let body = match request.uri().path() {
        "/echo" => full(request.into_body().collect().await?.to_bytes()),
        // A long body each way at once; behind that to the client, the digest of that to the server.
        "/exchange" => {
            let (mut sender, body) = fed();
            tokio::spawn(async move {
                let upload = digest(request.into_body(), LONG);
                let (_, (digest, _)) = tokio::join!(feed(&mut sender, DOWN), upload);
                sender.send_data(digest).await.expect("the client is there");
            });
            body
        }
        // Echoes once it is let go. A connection whose body nobody reads does not notice that its client has gone.
        "/gate" => {
            let body = request.into_body().collect().await?.to_bytes();
            gate.pass().await;
            full(body)
        }
        // A body that begins and never ends.
        "/begun" => {
            let (mut sender, body) = fed();
            tokio::spawn(async move {
                sender.send_data(Bytes::from("begun")).await.expect("room");
                pending::<()>().await;
            });
            body
        }
        // Answers without a look at the body.
        "/early" => {
            let mut response = Response::new(full(NOISE.clone()));
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            return Ok(response);
        }
        "/trailers" => return trailers::answer(request).await,
        "/upgrade" => return Ok(upgrades::answer(request)),
        _ => {
            let mut response = Response::new(full(""));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Ok(response);
        }
    };
    Ok(Response::new(body))
}

/// A running server; it is gone with its last session when it is dropped.
pub(super) struct Server {
    pub(super) sessions: Sessions,
    pub(super) gate: Arc<Gate>,
    serving: JoinSet<()>,
}

impl Server {
    /// Serves HTTP of either version with `http`. What is served needs no adapter.
    pub(super) fn with(http: auto::Builder<TokioExecutor>, listener: Listener) -> Self {
        Self::start(http, listener, |_| ())
    }

    /// Serves it so that no connection may end with an error, where the peer's end is told.
    pub(super) fn strict(spoken: Spoken, listener: Listener) -> Self {
        let http = auto::Builder::new(TokioExecutor::new());
        Self::start(http, listener, move |ended| match ended {
            Ok(()) => {}
            Err(_) if !spoken.tells_the_end() => {}
            Err(error) => panic!("a connection ended: {error:?}"),
        })
    }

    /// Serves it, and clients may end as they like.
    pub(super) fn lenient(listener: Listener) -> Self {
        Self::with(auto::Builder::new(TokioExecutor::new()), listener)
    }

    fn start(
        http: auto::Builder<TokioExecutor>,
        mut listener: Listener,
        ended: impl Fn(Result<(), unbroken::BoxError>) + Send + 'static,
    ) -> Self {
        let gate = Gate::new();
        let at_gate = gate.clone();
        let sessions = listener.sessions();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (transport, _) = accepted.expect("the listener works");
                        let (http, gate) = (http.clone(), at_gate.clone());
                        connections.spawn(async move {
                            let answer = service_fn(|request| answer(request, gate.clone()));
                            http.serve_connection_with_upgrades(transport, answer).await
                        });
                    }
                    Some(connection) = connections.join_next() => {
                        ended(connection.expect("no panic"));
                    }
                }
            }
        });
        Self {
            sessions,
            gate,
            serving,
        }
    }

    /// Runs `client` as long as it serves.
    pub(super) async fn beside<T>(&mut self, client: impl Future<Output = T>) -> T {
        tokio::select! {
            Some(ended) = self.serving.join_next() => panic!("the server ended: {ended:?}"),
            done = client => done,
        }
    }
}
