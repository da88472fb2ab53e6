//! TLS as tokio-rustls does it by default, between two ends that trust each other.

use std::sync::Arc;

use rcgen::CertifiedKey;
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::{CryptoProvider, aws_lc_rs},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    },
};
use unbroken::BoxError;

/// A certificate that is signed by itself, its key, and the trust in it.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) roots: Arc<RootCertStore>,
}

impl Identity {
    pub(crate) fn generate() -> Result<Self, BoxError> {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let chain = vec![cert.der().clone()];
        let key = PrivateKeyDer::try_from(signing_key.serialize_der())?;
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone())?;
        Ok(Self {
            chain,
            key,
            roots: Arc::new(roots),
        })
    }
}

/// The client's end, and the server's.
pub(crate) type Ends = (TlsConnector, TlsAcceptor);

pub(crate) fn ends(identity: &Identity) -> Result<Ends, BoxError> {
    // tokio-rustls's default. quinn brings in its own, ring, and of two rustls takes neither by itself.
    let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(identity.roots.clone())
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())?;
    Ok((Arc::new(client).into(), Arc::new(server).into()))
}

/// Whom the client takes the server for.
pub(crate) fn server_name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("it is a name")
}
