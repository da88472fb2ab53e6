//! What a handler knows of the other end.

use std::{collections::HashSet, convert::Infallible, fmt::Display};

use http::uri::PathAndQuery;
use tokio::{sync::mpsc, task::JoinSet};
use tonic::{
    Request, Response, Status,
    body::Body,
    client::Grpc,
    transport::{Channel, Server},
};
use tonic_prost::ProstCodec;
use tower::{service_fn, util::MapRequestLayer};
use unbroken::{Handle, Listener};

use super::{channel, cut_off};
use crate::bed::{Bed, Spoken, over_each};
#[cfg(feature = "noise")]
use {super::endpoint, crate::bed::within};

over_each!(
    a_handler_knows_where_the_session_was_opened_from,
    a_handler_knows_the_session_and_where_its_peer_is_now,
);

const ROUNDS: u64 = 5;

/// The caller, as a handler sees it.
#[derive(Clone, PartialEq, prost::Message)]
struct Caller {
    #[prost(string, optional, tag = "1")]
    opened_from: Option<String>,
    #[prost(string, optional, tag = "2")]
    now_at: Option<String>,
    #[prost(string, optional, tag = "3")]
    key: Option<String>,
}

async fn serve(request: http::Request<Body>) -> Result<http::Response<Body>, Infallible> {
    let whoami = service_fn(async |request: Request<Caller>| {
        let session = request.extensions().get::<Handle>();
        let shown = |shown: &dyn Display| shown.to_string();
        Ok::<_, Status>(Response::new(Caller {
            opened_from: request.remote_addr().map(|addr| shown(&addr)),
            now_at: session.and_then(Handle::peer_addr).map(|addr| shown(&addr)),
            key: key_of(session),
        }))
    });
    let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
    Ok(grpc.unary(whoami, request).await)
}

#[cfg(feature = "noise")]
fn key_of(session: Option<&Handle>) -> Option<String> {
    let key = session.and_then(Handle::peer_identity);
    key.map(|key| key.to_string())
}

#[cfg(not(feature = "noise"))]
fn key_of(_: Option<&Handle>) -> Option<String> {
    None
}

async fn whoami(channel: &Channel) -> Caller {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.expect("a channel");
    let path = PathAndQuery::from_static("/callers.Callers/Whoami");
    let request = Request::new(Caller::default());
    let answer = grpc.unary(request, path, ProstCodec::default()).await;
    answer.expect("an answer").into_inner()
}

/// A server for each session, which adds its [`Handle`] to the extensions of each request, and where each was opened from.
fn serve_each(mut listener: Listener) -> (JoinSet<()>, mpsc::UnboundedReceiver<String>) {
    let (opened, opened_from) = mpsc::unbounded_channel();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        while let Ok((transport, peer)) = listener.accept().await {
            opened.send(peer.to_string()).expect("a test");
            let session = transport.handle();
            let add_session = MapRequestLayer::new(move |mut request: http::Request<Body>| {
                request.extensions_mut().insert(session.clone());
                request
            });
            let one = tokio_stream::once(Ok::<_, Infallible>(transport));
            let served = Server::builder()
                .layer(add_session)
                .serve_with_incoming(service_fn(serve), one)
                .await;
            served.expect("a server of one session");
        }
    });
    (serving, opened_from)
}

async fn a_handler_knows_where_the_session_was_opened_from(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 1 << 20).await;
    bed.proxy.stop_faults();
    let sessions = listener.sessions();
    let mut serving = JoinSet::new();
    let server = Server::builder().serve_with_incoming(service_fn(serve), listener);
    serving.spawn(async move { server.await.expect("a server that serves") });
    let channel = channel(&bed).await;
    let caller = whoami(&channel).await;
    let opened_from = sessions.list()[0].peer_addr.map(|addr| addr.to_string());
    assert_eq!(caller.opened_from, opened_from);
    for _ in 0..ROUNDS {
        cut_off(&bed).await;
        bed.proxy.set_refusing(false);
        assert_eq!(whoami(&channel).await, caller);
    }
    bed.assert_cut(ROUNDS);
}

async fn a_handler_knows_the_session_and_where_its_peer_is_now(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 1 << 20).await;
    bed.proxy.stop_faults();
    let sessions = listener.sessions();
    let (_serving, mut opened) = serve_each(listener);
    let channel = channel(&bed).await;
    let opened_from = opened.recv().await.expect("a session");
    let mut seen_at = HashSet::new();
    let newest = || sessions.list()[0].peer_addr.map(|addr| addr.to_string());
    for _ in 0..ROUNDS {
        // Not of a call during which the link was replaced.
        let now_at = loop {
            let before = newest();
            let caller = whoami(&channel).await;
            assert_eq!(caller.opened_from.as_ref(), Some(&opened_from));
            if newest() == before {
                assert_eq!(caller.now_at, before);
                break before;
            }
        };
        seen_at.insert(now_at);
        cut_off(&bed).await;
        bed.proxy.set_refusing(false);
    }
    whoami(&channel).await;
    // The system may give a link the port of the one before.
    assert!(seen_at.len() > 1, "{seen_at:?}");
    bed.assert_cut(ROUNDS);
}

#[cfg(feature = "noise")]
#[tokio::test]
async fn a_handler_knows_the_key_of_its_peer() {
    use unbroken::{Connector, KeyPair, Security, TcpConnector};

    let config = || Spoken::Noise.config();
    let server = KeyPair::generate().expect("keys");
    let client = KeyPair::generate().expect("keys");
    let (server_key, client_key) = (server.public(), client.public());
    let keys = Security::key_pair(server).authorize(move |key| *key == client_key);
    let listener = Listener::bind("127.0.0.1:0", config().security(keys)).await;
    let listener = listener.expect("a free port");
    let addr = listener.local_addr().expect("its address");
    let bed = Bed::before(addr, Spoken::Noise, 1 << 20).await;
    bed.proxy.stop_faults();
    let (_serving, _opened) = serve_each(listener);
    let keys = Security::mutual(client, server_key);
    let connector = Connector::new(TcpConnector::new(), config().security(keys));
    let endpoint = endpoint(&bed);
    let channel = endpoint.connect_with_connector(bed.patient(connector));
    let channel = within(channel).await.expect("a session");
    for _ in 0..ROUNDS {
        let caller = within(whoami(&channel)).await;
        assert_eq!(caller.key, Some(client_key.to_string()));
        cut_off(&bed).await;
        bed.proxy.set_refusing(false);
    }
    within(whoami(&channel)).await;
    bed.assert_cut(ROUNDS);
}
