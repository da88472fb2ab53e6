//! TLS as tokio-rustls does it by default, between two ends that trust each other.

use std::sync::{Arc, LazyLock};

use rcgen::CertifiedKey;
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::{CryptoProvider, aws_lc_rs},
        pki_types::{PrivateKeyDer, ServerName},
    },
};

/// The client's end, and the server's.
pub(crate) static TLS: LazyLock<(TlsConnector, TlsAcceptor)> = LazyLock::new(|| {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("the name is one");
    let mut roots = RootCertStore::empty();
    roots
        .add(cert.der().clone())
        .expect("it was generated just now");
    // tokio-rustls's default. Another dependency may bring in a second provider, and of two rustls takes neither by itself.
    let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider has ciphers for them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("it is PKCS #8");
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has ciphers for them")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("the key is the certificate's");
    (Arc::new(client).into(), Arc::new(server).into())
});

/// Whom the client takes the server for.
pub(crate) fn server_name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("it is a name")
}
