//! TLS as tokio-rustls does it by default, between two ends that trust each other.

use std::sync::{Arc, LazyLock};

use rcgen::CertifiedKey;
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
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
    let client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("it is PKCS #8");
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("the key is the certificate's");
    (Arc::new(client).into(), Arc::new(server).into())
});

/// Whom the client takes the server for.
pub(crate) fn server_name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("it is a name")
}
