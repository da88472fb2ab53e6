//! HTTP/2 under TLS, while every link is cut after 100 ms: with a TLS connection for each link, or with one from end to end.
//!
//! ```text
//! cargo run --example tls
//! cargo run --example tls -- above
//! ```

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::try_join_all;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, Version, body::Incoming, service::service_fn};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{Client, connect::Connect},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{PrivateKeyDer, ServerName},
    },
};
use tower::ServiceBuilder;
use unbroken::{
    BoxError, Config, Connector, Handle, Listener, ResumableLayer, Security, TcpConnector,
};

#[path = "support/cuts.rs"]
mod cuts;

const REQUESTS: u32 = 20_000;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (client, server) = certified()?;
    match std::env::args().nth(1).as_deref() {
        None | Some("below") => below(client, server).await,
        Some("above") => above(client, server).await,
        Some(other) => Err(format!("\"below\" or \"above\", not {other:?}").into()),
    }
}

/// Each link is a TLS connection, which protects the session: it needs no security of its own.
async fn below(client: ClientConfig, server: ServerConfig) -> Result<(), BoxError> {
    let config = Config::new().security(Security::none());
    let tls = TlsAcceptor::from(Arc::new(server));
    let wrap = move |tcp| tls.accept(tcp);
    let mut listener = Listener::bind_with("127.0.0.1:0", config.clone(), wrap).await?;
    let server = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((transport, _peer)) = listener.accept().await {
            tokio::spawn(serve(transport));
        }
    });

    let tls = TlsConnector::from(Arc::new(client));
    let name = ServerName::try_from("localhost")?;
    let connector = ServiceBuilder::new()
        .layer(ResumableLayer::new(config))
        .timeout(Duration::from_secs(5))
        .and_then(move |tcp| tls.connect(name, tcp))
        .service(TcpConnector::new());
    // hyper does not see what links are made of, so no ALPN can tell it.
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build(connector);
    requests(client, server).await
}

/// One TLS connection through the session, whose links have their own protection too.
async fn above(client: ClientConfig, mut server: ServerConfig) -> Result<(), BoxError> {
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tls = TlsAcceptor::from(Arc::new(server));
    let mut listener = Listener::bind("127.0.0.1:0", Config::new()).await?;
    let server = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((transport, _peer)) = listener.accept().await {
            let accepting = tls.accept(transport);
            tokio::spawn(async move { serve(accepting.await?).await });
        }
    });

    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(client)
        .https_only()
        .enable_all_versions()
        .wrap_connector(Connector::new(TcpConnector::new(), Config::new()));
    requests(
        Client::builder(TokioExecutor::new()).build(connector),
        server,
    )
    .await
}

/// Sends each request's body back.
async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<(), BoxError> {
    let echo = service_fn(async |request: Request<Incoming>| {
        Ok::<_, Infallible>(Response::new(request.into_body()))
    });
    let server = auto::Builder::new(TokioExecutor::new());
    server.serve_connection(TokioIo::new(io), echo).await
}

/// Numbered ones, a hundred at a time, over links that are cut.
async fn requests<C>(client: Client<C, Full<Bytes>>, server: SocketAddr) -> Result<(), BoxError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let (addr, cuts) = cuts::before(server, Duration::from_millis(100)).await?;
    let request = async |number: u32| {
        let sent = Bytes::from(number.to_be_bytes().repeat(1_000));
        let request = Request::post(format!("https://{addr}/")).body(sent.clone().into())?;
        let response = client.request(request).await?;
        assert_eq!(response.version(), Version::HTTP_2);
        let session = response.extensions().get::<Handle>().cloned();
        assert_eq!(response.into_body().collect().await?.to_bytes(), sent);
        session.ok_or_else(|| BoxError::from("a response without a session"))
    };
    // By itself: hyper opens a connection for each request until one has turned out to be HTTP/2.
    let session = request(0).await?;
    for first in (1..=REQUESTS).step_by(100) {
        let sessions = try_join_all((first..first + 100).map(&request)).await?;
        assert!(sessions.iter().all(|other| other.id() == session.id()));
    }
    println!(
        "{REQUESTS} requests were answered in one session; {} cuts, {} resumes",
        cuts.count(),
        session.stats().resumes
    );
    Ok(())
}

/// A client and a server that trust a new certificate.
fn certified() -> Result<(ClientConfig, ServerConfig), BoxError> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let key = PrivateKeyDer::try_from(signing_key.serialize_der())?;
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone())?;
    // Named, because a program may have been built with more than one.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![cert.into()], key)?;
    Ok((client, server))
}
