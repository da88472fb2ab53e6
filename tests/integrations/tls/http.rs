//! hyper over both, and what ALPN decides.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures_util::{
    future::join_all,
    stream::{Pending, pending},
};
use http::{Request, Response, Uri, Version};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::Connect},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tower::{ServiceBuilder, ServiceExt};
use unbroken::{
    Accepted, Acceptor, CloseReason, Connector, Error, Listener, ResumableLayer, TcpConnector,
};

use super::{
    Identity, NAME, below::over_tls, client_config, config, least_cuts, rustls_error,
    server_config, server_name,
};
use crate::{
    bed::{self, Bed, Spoken, over_each, under_cuts},
    cutting_proxy::Faults,
};

/// By what a server knows that a link is for sessions.
const SESSIONS: &[u8] = b"unbroken";

/// Bytes of a request's body, which comes back in the response.
const BODY: usize = 8 << 10;

/// What came with the request, or never anything.
type Answer = Either<Incoming, StreamBody<Pending<Result<Frame<Bytes>, Infallible>>>>;

/// Sends bodies back, and at `/never` begins one that never goes on.
async fn answer(request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    Ok(Response::new(match request.uri().path() {
        "/never" => Either::Right(StreamBody::new(pending())),
        _ => Either::Left(request.into_body()),
    }))
}

async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let server = auto::Builder::new(TokioExecutor::new());
    // Its end is the client's to judge.
    let _ = server
        .serve_connection(TokioIo::new(io), service_fn(answer))
        .await;
}

/// A server that offers these protocols.
fn offering(own: &Identity, protocols: &[&[u8]]) -> TlsAcceptor {
    let mut config = server_config(own, None);
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// What asks for h2 and takes http/1.1, over what `inner` connects.
fn https<C>(trusted: &Identity, inner: C) -> HttpsConnector<C> {
    HttpsConnectorBuilder::new()
        .with_tls_config(client_config(trusted, None))
        .https_only()
        .with_server_name_resolver(FixedServerNameResolver::new(server_name()))
        .enable_all_versions()
        .wrap_connector(inner)
}

fn uri(addr: SocketAddr, path: &str) -> Uri {
    format!("https://{addr}{path}").parse().expect("a URI")
}

/// A body that no other request has.
fn body(number: u16) -> Bytes {
    number.to_be_bytes().repeat(BODY / 2).into()
}

async fn echo<C>(client: &Client<C, Full<Bytes>>, addr: SocketAddr, number: u16) -> Version
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let sent = body(number);
    let request = Request::post(uri(addr, "/")).body(Full::new(sent.clone()));
    let response = client.request(request.expect("a request")).await;
    let response = response.expect("a response");
    let version = response.version();
    let received = response.into_body().collect().await.expect("its body");
    assert!(received.to_bytes() == sent, "another body than {number}'s");
    version
}

/// One request, and then many at once, of which hyper speaks `version`.
async fn exchange<C>(client: &Client<C, Full<Bytes>>, addr: SocketAddr, version: Version)
where
    C: Connect + Clone + Send + Sync + 'static,
{
    assert_eq!(echo(client, addr, 0).await, version);
    let requests = (1..=64).map(|number| echo(client, addr, number));
    match version {
        Version::HTTP_2 => {
            let versions = join_all(requests).await;
            assert!(versions.iter().all(|spoken| *spoken == version));
        }
        _ => {
            for request in requests {
                assert_eq!(request.await, version);
            }
        }
    }
}

over_each!(hyper_speaks_what_alpn_chose_through_the_session);

/// A client of a server that offers `protocols` inside its sessions.
async fn above(
    spoken: Spoken,
    protocols: &[&[u8]],
) -> (
    Bed,
    Client<impl Connect + Clone + Send + Sync + 'static, Full<Bytes>>,
) {
    let identity = Identity::new(NAME);
    let (bed, mut listener) = super::above::start(spoken).await;
    let tls = offering(&identity, protocols);
    tokio::spawn(async move {
        while let Ok((transport, _)) = listener.accept().await {
            let accepting = tls.accept(transport);
            tokio::spawn(async move { serve(accepting.await.expect("a TLS handshake")).await });
        }
    });
    let connector = bed.patient(Connector::new(TcpConnector::new(), config(spoken)));
    let client = Client::builder(TokioExecutor::new()).build(https(&identity, connector));
    (bed, client)
}

async fn hyper_speaks_what_alpn_chose_through_the_session(spoken: Spoken) {
    for (protocols, version) in [
        (&[b"h2".as_slice(), b"http/1.1"][..], Version::HTTP_2),
        (&[b"http/1.1"], Version::HTTP_11),
    ] {
        let (bed, client) = above(spoken, protocols).await;
        exchange(&client, bed.addr(), version).await;
        if version == Version::HTTP_2 {
            assert_eq!(bed.sessions().len(), 1, "there is one connection");
        }
        bed.assert_cut(least_cuts(spoken));
    }
}

// On one thread, where nothing comes between a connection's reading and its writing: it reads of the end first, and passes the cause on.
#[tokio::test]
async fn a_session_that_dies_is_found_in_the_error_of_a_request_over_tls() {
    under_cuts(|| async {
        let (bed, client) = above(Spoken::Native, &[b"http/1.1"]).await;
        exchange(&client, bed.addr(), Version::HTTP_11).await;
        let answered = client.get(uri(bed.addr(), "/never")).await;
        // HTTP/1 may have opened more than one.
        for session in bed.sessions() {
            session.close(7);
        }
        let body = answered.expect("a response").into_body().collect().await;
        let error = body.expect_err("no end of it");
        let reason = Error::find(&error);
        assert!(
            matches!(reason, Some(Error::Closed(CloseReason::LocalReset(7)))),
            "{error:?}"
        );
        bed.assert_cut(10);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hyper_sees_nothing_of_the_alpn_of_links_and_speaks_what_it_is_told_to() {
    under_cuts(|| async {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let identity = Identity::new(NAME);
            let tls = offering(&identity, &[b"h2", b"http/1.1"]);
            let bind = Listener::bind_with("127.0.0.1:0", config(Spoken::Native), move |tcp| {
                let accepting = tls.accept(tcp);
                async move {
                    let link = accepting.await?;
                    assert_eq!(link.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
                    Ok(link)
                }
            });
            let mut listener = bind.await.expect("a free port");
            let addr = listener.local_addr().expect("its address");
            tokio::spawn(async move {
                while let Ok((transport, _)) = listener.accept().await {
                    tokio::spawn(serve(transport));
                }
            });
            let bed = Bed::with(addr, Spoken::Native, unsilent()).await;
            let tcp = ServiceBuilder::new()
                .map_response(TokioIo::new)
                .service(TcpConnector::new());
            let connector = ServiceBuilder::new()
                .layer(ResumableLayer::new(config(Spoken::Native)))
                .map_response(TokioIo::new)
                .service(https(&identity, tcp));
            let client = Client::builder(TokioExecutor::new())
                .http2_only(version == Version::HTTP_2)
                .build(bed.patient(connector));
            exchange(&client, bed.addr(), version).await;
            if version == Version::HTTP_2 {
                assert_eq!(bed.sessions().len(), 1, "there is one connection");
            }
            bed.assert_cut(10);
        }
    })
    .await;
}

/// Cuts alone: a TLS handshake that is met by silence takes its whole timeout.
fn unsilent() -> Faults {
    Faults {
        silent: 0.0,
        ..bed::faults(12 << 10)
    }
}

/// Takes links by hand: those for sessions, and others that speak HTTP themselves.
async fn serve_both(listener: TcpListener, tls: TlsAcceptor) {
    let acceptor = Acceptor::new(config(Spoken::Native));
    while let Ok((tcp, peer)) = listener.accept().await {
        tcp.set_nodelay(true).expect("a socket");
        let (accepting, acceptor) = (tls.accept(tcp), acceptor.clone());
        tokio::spawn(async move {
            let Ok(link) = accepting.await else {
                return;
            };
            if link.get_ref().1.alpn_protocol() != Some(SESSIONS) {
                return serve(link).await;
            }
            if let Ok(Accepted::New(transport)) = acceptor.accept_from(link, peer).await {
                serve(transport).await;
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alpn_tells_sessions_from_https_on_one_port() {
    under_cuts(|| async {
        let identity = Identity::new(NAME);
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let tls = offering(&identity, &[SESSIONS, b"h2", b"http/1.1"]);
        tokio::spawn(serve_both(listener, tls));

        let bed = Bed::with(addr, Spoken::Native, unsilent()).await;
        let mut tls = client_config(&identity, None);
        tls.alpn_protocols = vec![SESSIONS.to_vec()];
        let connector = bed.patient(over_tls(config(Spoken::Native), tls.clone()));
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build(connector);
        exchange(&client, bed.addr(), Version::HTTP_2).await;
        assert_eq!(bed.sessions().len(), 1);
        bed.assert_cut(10);

        // As anybody's client does.
        let tcp = ServiceBuilder::new()
            .map_response(TokioIo::new)
            .service(TcpConnector::new());
        let client = Client::builder(TokioExecutor::new()).build(https(&identity, tcp));
        exchange(&client, addr, Version::HTTP_2).await;

        // A server that knows no sessions says so.
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let addr = listener.local_addr().expect("its address");
        tokio::spawn(serve_both(listener, offering(&identity, &[b"h2"])));
        let refused = over_tls(config(Spoken::Native), tls).oneshot(addr).await;
        let refused = refused.expect_err("no session");
        assert!(matches!(refused, Error::Dial(_)), "{refused:?}");
        assert_eq!(
            rustls_error(&refused).map(ToString::to_string).as_deref(),
            Some("received fatal alert: NoApplicationProtocol")
        );
    })
    .await;
}
