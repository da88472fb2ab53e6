//! rustls: below each link, and through the session from end to end.

use std::{error::Error, io, sync::Arc};

use rcgen::CertifiedKey;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    server::WebPkiClientVerifier,
};
use unbroken::Config;

use crate::bed::Spoken;

mod above;
mod below;
#[cfg(all(feature = "axum", feature = "tonic"))]
mod frameworks;
#[cfg(feature = "hyper")]
mod http;

/// Whom clients take the server for.
const NAME: &str = "server.test";

fn server_name() -> ServerName<'static> {
    ServerName::try_from(NAME).expect("a name")
}

/// A certificate that is signed by itself, and its key.
struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    fn new(name: &str) -> Self {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        Self {
            certificate: cert.der().clone(),
            key: PrivateKeyDer::try_from(signing_key.serialize_der()).expect("its key"),
        }
    }

    /// Trust in nobody else.
    fn trust(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a root");
        Arc::new(roots)
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone()]
    }
}

/// One of the two that are compiled in, between which rustls does not choose.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A client that trusts `server`, and shows a certificate if it has one.
fn client_config(server: &Identity, own: Option<&Identity>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(server.trust());
    match own {
        Some(own) => builder
            .with_client_auth_cert(own.chain(), own.key.clone_key())
            .expect("a certificate and its key"),
        None => builder.with_no_client_auth(),
    }
}

/// A server that lets everybody in, or only who shows `client`.
fn server_config(own: &Identity, client: Option<&Identity>) -> ServerConfig {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match client {
        Some(client) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(client.trust(), provider()).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        }
        None => builder.with_no_client_auth(),
    };
    builder
        .with_single_cert(own.chain(), own.key.clone_key())
        .expect("a certificate and its key")
}

/// What rustls says in `error`: it or one of its sources, `io::Error`s looked into.
fn rustls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inside) => Some(inside),
            None => error.source(),
        };
    }
    None
}

/// What sessions speak, with less under way than passes between two cuts: before the next the server has answered.
fn config(spoken: Spoken) -> Config {
    spoken.config().window(8 << 10)
}

/// So many cuts or more. snet has no window: it hands all it has to a link, so few may carry it.
fn least_cuts(spoken: Spoken) -> u64 {
    if spoken == Spoken::Snet { 2 } else { 10 }
}

/// How many numbers go either way, of 8 bytes each.
const NUMBERS: u64 = 128 << 10;
/// Where those of each direction begin.
const FROM_CLIENT: u64 = 0;
const FROM_SERVER: u64 = 1 << 63;

/// Numbers show what is lost, repeated or out of order. Flushed, for TLS buffers.
async fn send(to: &mut (impl AsyncWrite + Unpin), numbers: std::ops::Range<u64>) {
    let bytes: Vec<u8> = numbers.flat_map(u64::to_be_bytes).collect();
    for piece in bytes.chunks(3_001) {
        to.write_all(piece).await.expect("writes");
        to.flush().await.expect("flushes");
    }
}

async fn receive(from: &mut (impl AsyncRead + Unpin), numbers: std::ops::Range<u64>) {
    for number in numbers {
        let received = from.read_u64().await.expect("a number");
        assert_eq!(received, number);
    }
}

async fn expect_end(from: &mut (impl AsyncRead + Unpin)) {
    let read = from.read(&mut [0]).await.expect("the end");
    assert_eq!(read, 0, "more than was sent");
}

/// Sends while it receives, ends its direction first, and reads the other to the end; if there are `ends`.
async fn client_exchange(io: impl AsyncRead + AsyncWrite, ends: bool) {
    let (mut from, mut to) = split(io);
    let sending = async {
        send(&mut to, FROM_CLIENT..FROM_CLIENT + NUMBERS).await;
        if ends {
            to.shutdown().await.expect("the server has everything");
        }
    };
    let receiving = async {
        receive(&mut from, FROM_SERVER..FROM_SERVER + NUMBERS).await;
        if ends {
            expect_end(&mut from).await;
        }
    };
    tokio::join!(sending, receiving);
}

/// The other side of it: half of what it sends goes when the client's direction has ended.
async fn server_exchange(io: impl AsyncRead + AsyncWrite, ends: bool) {
    let half = FROM_SERVER + NUMBERS / 2;
    let (mut from, mut to) = split(io);
    let receiving = async {
        receive(&mut from, FROM_CLIENT..FROM_CLIENT + NUMBERS).await;
        if ends {
            expect_end(&mut from).await;
        }
    };
    tokio::join!(receiving, send(&mut to, FROM_SERVER..half));
    send(&mut to, half..FROM_SERVER + NUMBERS).await;
    to.shutdown().await.expect("the client has everything");
}
