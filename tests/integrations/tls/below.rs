//! Each link a TLS connection of its own.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{self, AlertDescription, CertificateError, ClientConfig, HandshakeKind, ServerConfig},
    server::TlsStream,
};
use tower::{Service, ServiceBuilder, ServiceExt};
use unbroken::{
    CloseReason, Config, Error, LinkState, Listener, ResumableLayer, ResumableTransport,
    TcpConnector,
};

use super::{
    Identity, NAME, client_config, client_exchange, config, least_cuts, rustls_error,
    server_config, server_exchange, server_name,
};
use crate::{
    bed::{self, Bed, Spoken, under_cuts},
    cutting_proxy::{Close, CuttingProxy, Faults},
};

/// How long a dial may take, the TLS handshake included.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes of a TLS handshake in either direction, about.
const TLS_HANDSHAKE: u64 = 1_500;

/// How long a session waits for the true server.
const RESUME_WINDOW: Duration = Duration::from_secs(2);

/// Opens sessions whose links are TLS over TCP.
pub(super) fn over_tls<T>(
    config: Config,
    tls: ClientConfig,
) -> impl Service<T, Response = ResumableTransport, Error = Error, Future: Send> + Clone + Send + 'static
where
    TcpConnector: Service<T, Response = TcpStream, Error = io::Error, Future: Send>,
    T: Clone + Send + 'static,
{
    let tls = TlsConnector::from(Arc::new(tls));
    ServiceBuilder::new()
        .layer(ResumableLayer::new(config))
        .timeout(DIAL_TIMEOUT)
        .and_then(move |tcp| tls.connect(server_name(), tcp))
        .service(TcpConnector::new())
}

/// What came of the TLS handshakes at a server.
#[derive(Clone, Debug, Default)]
struct Tally(Arc<[AtomicU32; 3]>);

impl Tally {
    fn count<T>(&self, accepted: &io::Result<TlsStream<T>>) {
        let [full, resumed, failed] = &*self.0;
        let kind = accepted
            .as_ref()
            .map(|link| link.get_ref().1.handshake_kind());
        let counter = match kind {
            Ok(Some(HandshakeKind::Resumed)) => resumed,
            Ok(_) => full,
            Err(_) => failed,
        };
        counter.fetch_add(1, Relaxed);
    }

    fn full(&self) -> u32 {
        self.0[0].load(Relaxed)
    }

    fn resumed(&self) -> u32 {
        self.0[1].load(Relaxed)
    }

    fn failed(&self) -> u32 {
        self.0[2].load(Relaxed)
    }
}

/// A listener whose links are TLS.
async fn listen(config: Config, tls: ServerConfig) -> (Listener, SocketAddr, Tally) {
    let tls = TlsAcceptor::from(Arc::new(tls));
    let tally = Tally::default();
    let counted = tally.clone();
    let wrap = move |tcp| {
        let (accepting, tally) = (tls.accept(tcp), counted.clone());
        async move {
            let accepted = accepting.await;
            tally.count(&accepted);
            accepted
        }
    };
    let listener = Listener::bind_with((Ipv4Addr::LOCALHOST, 0), config, wrap).await;
    let listener = listener.expect("a free port");
    let addr = listener.local_addr().expect("its address");
    (listener, addr, tally)
}

mod both_directions_arrive_whole_and_end_cleanly_over_tls_links {
    use super::*;

    async fn over(spoken: Spoken) {
        let (server, client) = (Identity::new(NAME), Identity::new("client.test"));
        let tls = server_config(&server, Some(&client));
        let (mut listener, addr, tally) = listen(config(spoken), tls).await;
        let faults = Faults {
            early: 0.4,
            early_bytes: TLS_HANDSHAKE,
            ..bed::faults(12 << 10)
        };
        let bed = Bed::with(addr, spoken, faults).await;
        let ends = spoken.tells_the_end();
        let serving = tokio::spawn(async move {
            // An open that was cut may leave a session that nobody uses.
            let mut exchanges = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (transport, _) = accepted.expect("a session");
                        exchanges.spawn(server_exchange(transport, ends));
                    }
                    // With the listener: over snet the client may yet have to come back for the rest.
                    Some(done) = exchanges.join_next() => return (listener, done),
                }
            }
        });
        let tls = client_config(&server, Some(&client));
        let connector = bed.patient(over_tls(config(spoken), tls));
        let Ok(transport) = connector.oneshot(bed.addr()).await;
        client_exchange(transport, ends).await;
        let (_listener, served) = serving.await.expect("no panic");
        served.expect("the server's part");
        println!("{tally:?}");
        bed.assert_cut(least_cuts(spoken));
        // snet may get by with too few links for that.
        let hit = tally.failed() > 0 || spoken == Spoken::Snet;
        assert!(hit, "no cut hit a TLS handshake");
        assert!(tally.full() > 0, "the first link has no ticket");
        assert!(tally.resumed() > 0, "later links use tickets");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn native() {
        under_cuts(|| over(Spoken::Native)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn snet() {
        under_cuts(|| over(Spoken::Snet)).await;
    }
}

/// Sends each session back what it sends.
async fn echo_sessions(mut listener: Listener) {
    while let Ok((transport, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(transport);
            tokio::io::copy(&mut from, &mut to).await
        });
    }
}

/// Somebody who is reached in the server's place, with a certificate of his own for its name. Counts the handshakes that have come to
/// nothing; one that does not is a failure.
async fn impostor() -> (SocketAddr, watch::Receiver<u32>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a free port");
    let addr = listener.local_addr().expect("its address");
    let tls = TlsAcceptor::from(Arc::new(server_config(&Identity::new(NAME), None)));
    let (refused, refusals) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Err(_) = tls.accept(tcp).await else {
                // Whoever waits for refusals is told that there will be no more.
                return;
            };
            refused.send_modify(|count| *count += 1);
        }
    });
    (addr, refusals)
}

async fn round_trip(transport: &mut ResumableTransport) {
    for message in [*b"here", *b"stay"] {
        transport.write_all(&message).await.expect("writes");
        transport.flush().await.expect("flushes");
        let mut echoed = [0; 4];
        transport.read_exact(&mut echoed).await.expect("the echo");
        assert_eq!(echoed, message);
    }
}

#[tokio::test]
async fn a_server_with_another_certificate_gets_nothing_and_the_session_waits_for_the_true_one() {
    under_cuts(|| async {
        let server = Identity::new(NAME);
        let config = Spoken::Native.config().resume_window(RESUME_WINDOW);
        let (listener, addr, _) = listen(config.clone(), server_config(&server, None)).await;
        tokio::spawn(echo_sessions(listener));
        let (impostor, mut refusals) = impostor().await;
        let proxy = CuttingProxy::start(impostor, Faults::none()).await;
        let proxy = proxy.expect("a proxy");
        let connector = over_tls(config, client_config(&server, None));

        let untrusted = rustls::Error::InvalidCertificate(CertificateError::BadSignature);

        // A first dial fails, and says why.
        let refused = connector.clone().oneshot(proxy.addr()).await;
        let refused = refused.expect_err("no session with him");
        assert!(matches!(refused, Error::Dial(_)), "{refused:?}");
        assert_eq!(rustls_error(&refused), Some(&untrusted), "{refused:?}");

        // So does a migration, and the session stays on the link it has.
        proxy.set_upstream(addr);
        let mut transport = connector.oneshot(proxy.addr()).await.expect("a session");
        let handle = transport.handle();
        round_trip(&mut transport).await;
        proxy.set_upstream(impostor);
        let refused = handle.migrate().await.expect_err("no link to him");
        assert!(matches!(refused, Error::Dial(_)), "{refused:?}");
        assert_eq!(rustls_error(&refused), Some(&untrusted), "{refused:?}");
        assert_eq!(handle.state(), LinkState::Connected);
        round_trip(&mut transport).await;

        // When the link is lost it tries him again and again, until the true one is back.
        let before = *refusals.borrow();
        proxy.cut_now(Close::Reset);
        transport.write_all(b"wait").await.expect("room for it");
        let tried = refusals.wait_for(|count| *count >= before + 3).await;
        tried.expect("nobody has let him in");
        let state = handle.state();
        assert!(matches!(state, LinkState::Reconnecting { .. }), "{state:?}");
        proxy.set_upstream(addr);
        let mut echoed = [0; 4];
        transport.read_exact(&mut echoed).await.expect("the echo");
        assert_eq!(&echoed, b"wait");

        // Or until the resume window has passed.
        proxy.set_upstream(impostor);
        proxy.cut_now(Close::Fin);
        let over = transport.read(&mut [0]).await.expect_err("no end of file");
        assert_eq!(over.kind(), io::ErrorKind::TimedOut);
        let reason = Error::find(&over);
        assert!(
            matches!(reason, Some(Error::Closed(CloseReason::Expired))),
            "{over:?}"
        );
        assert!(refusals.has_changed().is_ok(), "he has been let in");
        assert_eq!(handle.stats().resumes, 1);
    })
    .await;
}

#[tokio::test]
async fn a_client_without_the_certificate_asked_for_is_told_so_as_the_first_link_fails() {
    under_cuts(|| async {
        let (server, client) = (Identity::new(NAME), Identity::new("client.test"));
        let tls = server_config(&server, Some(&client));
        let (_listener, addr, tally) = listen(Spoken::Native.config(), tls).await;
        let tls = client_config(&server, None);
        let connector = over_tls(Spoken::Native.config(), tls);
        let refused = connector.oneshot(addr).await.expect_err("no session");
        // In TLS 1.3 the client's handshake is done before the server has looked for the certificate.
        assert!(matches!(refused, Error::Link(_)), "{refused:?}");
        let told = rustls_error(&refused);
        let required = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
        assert_eq!(told, Some(&required), "{refused:?}");
        assert_eq!(tally.failed(), 1);
    })
    .await;
}
