//! tonic and axum over both.

use std::sync::Arc;

use axum::{Router, extract::ConnectInfo, routing::post};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::{Request, uri::Scheme};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rcgen::CertifiedKey;
use tokio_rustls::{TlsAcceptor, rustls::crypto::aws_lc_rs};
use tonic::transport::{
    Certificate, Channel, ClientTlsConfig, Endpoint, Identity as PemIdentity, Server,
    ServerTlsConfig,
};
use tower::service_fn;
use unbroken::{Listener, PeerAddr};

use super::{Identity, NAME, below::over_tls, client_config, config, server_config};
use crate::{
    bed::{self, Bed, Spoken, over_each, under_cuts},
    cutting_proxy::Faults,
    tonic::numbers::{self, Number, Numbers},
};

over_each!(tonic_has_a_tls_connection_of_its_own_through_a_session);

const NUMBERS: u64 = 4_000;
const ONE_BY_ONE: u64 = 500;

/// Numbers that go there and back in one stream, and then one by one.
async fn call(channel: Channel) {
    let mut client = Numbers::new(channel);
    let sent = stream::iter(0..NUMBERS).map(Number::from);
    let echoed = client.echo(sent).await.expect("an answer").into_inner();
    let echoed: Vec<Number> = echoed.try_collect().await.expect("a clean end");
    assert!(echoed.into_iter().eq((0..NUMBERS).map(Number::from)));
    for number in 0..ONE_BY_ONE {
        let next = client.next(Number::from(number)).await.expect("an answer");
        assert_eq!(next.into_inner(), Number::from(number + 1));
    }
}

async fn tonic_has_a_tls_connection_of_its_own_through_a_session(spoken: Spoken) {
    // tonic's server takes the process's, and there are two to choose from.
    let _ = aws_lc_rs::default_provider().install_default();
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
    let identity = PemIdentity::from_pem(cert.pem(), signing_key.serialize_pem());
    let (bed, listener) = Bed::start(spoken, 2 << 10).await;
    let server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity));
    let server = server.expect("a certificate and its key");
    let serving = server.serve_with_incoming(service_fn(numbers::serve), listener);
    let serving = tokio::spawn(serving);

    let mut uri = bed.uri("/").into_parts();
    uri.scheme = Some(Scheme::HTTPS);
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(cert.pem()))
        .domain_name(NAME);
    let endpoint = Endpoint::from(http::Uri::from_parts(uri).expect("a URI"));
    let endpoint = endpoint.tls_config(tls).expect("a root");
    let channel = endpoint.connect_with_connector(bed.connector()).await;
    call(channel.expect("a session, and TLS in it")).await;
    bed.assert_cut(8);
    assert_eq!(bed.sessions().len(), 1);
    serving.abort();
}

/// A listener whose links are TLS, and a proxy that cuts them.
async fn bind(identity: &Identity) -> (Bed, Listener) {
    let tls = TlsAcceptor::from(Arc::new(server_config(identity, None)));
    let config = config(Spoken::Native);
    let bound = Listener::bind_with("127.0.0.1:0", config, move |tcp| tls.accept(tcp)).await;
    let listener = bound.expect("a free port");
    let addr = listener.local_addr().expect("its address");
    // A TLS handshake that is met by silence takes its whole timeout.
    let faults = Faults {
        silent: 0.0,
        ..bed::faults(12 << 10)
    };
    (Bed::with(addr, Spoken::Native, faults).await, listener)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tonic_runs_over_links_of_tls() {
    under_cuts(|| async {
        let identity = Identity::new(NAME);
        let (bed, listener) = bind(&identity).await;
        let serving = Server::builder().serve_with_incoming(service_fn(numbers::serve), listener);
        let calling = async {
            let tls = client_config(&identity, None);
            let connector = bed.patient(over_tls(config(Spoken::Native), tls));
            let endpoint = Endpoint::from(bed.uri("/"));
            let channel = endpoint.connect_with_connector(connector).await;
            call(channel.expect("a session")).await;
        };
        tokio::select! {
            served = serving => panic!("{served:?}"),
            () = calling => {}
        }
        bed.assert_cut(8);
        assert_eq!(bed.sessions().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn axum_serves_over_links_of_tls_and_knows_the_peer() {
    under_cuts(|| async {
        let identity = Identity::new(NAME);
        let (bed, listener) = bind(&identity).await;
        let app = Router::new().route(
            "/",
            post(
                async |ConnectInfo(peer): ConnectInfo<PeerAddr>, body: Bytes| {
                    assert!(peer.ip().is_loopback());
                    body
                },
            ),
        );
        let app = app.into_make_service_with_connect_info::<PeerAddr>();
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });
        let tls = client_config(&identity, None);
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build::<_, Full<Bytes>>(bed.patient(over_tls(config(Spoken::Native), tls)));
        for number in 0..200_u32 {
            let body = Bytes::from(number.to_be_bytes().repeat(500));
            let request = Request::post(bed.uri("/")).body(body.clone().into());
            let answer = client.request(request.expect("a request")).await;
            let answered = answer.expect("an answer").into_body().collect().await;
            assert_eq!(answered.expect("a whole body").to_bytes(), body);
        }
        bed.assert_cut(5);
        serving.abort();
    })
    .await;
}
