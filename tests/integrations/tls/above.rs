//! One TLS connection from end to end, through the session.

use std::{io, net::Ipv4Addr, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tower::ServiceExt;
use unbroken::{CloseReason, Connector, Error, Listener, ResumableTransport, TcpConnector};

use super::{
    Identity, NAME, client_config, client_exchange, config, least_cuts, server_config,
    server_exchange, server_name,
};
use crate::bed::{Bed, Spoken, over_each, under_cuts};

over_each!(a_tls_connection_goes_on_over_many_links_and_ends_cleanly);

/// A listener, behind what cuts.
pub(super) async fn start(spoken: Spoken) -> (Bed, Listener) {
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0), config(spoken)).await;
    let listener = listener.expect("a free port");
    let addr = listener.local_addr().expect("its address");
    (Bed::before(addr, spoken, 12 << 10).await, listener)
}

type Pair = (
    client::TlsStream<ResumableTransport>,
    server::TlsStream<ResumableTransport>,
);

/// Both ends of a TLS connection through a new session.
async fn pair(bed: &Bed, listener: &mut Listener) -> Pair {
    let identity = Identity::new(NAME);
    let acceptor = TlsAcceptor::from(Arc::new(server_config(&identity, None)));
    let accepting = async {
        // An open that was cut may leave a session that nobody uses.
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    handshakes.spawn(acceptor.accept(accepted.expect("a session").0));
                }
                Some(done) = handshakes.join_next() => return done,
            }
        }
    };
    let connecting = async {
        let connector = Connector::new(TcpConnector::new(), config(bed.spoken));
        let Ok(transport) = bed.patient(connector).oneshot(bed.addr()).await;
        let tls = TlsConnector::from(Arc::new(client_config(&identity, None)));
        tls.connect(server_name(), transport).await
    };
    let (server, client) = tokio::join!(accepting, connecting);
    let server = server.expect("no panic").expect("a TLS handshake");
    (client.expect("a TLS handshake"), server)
}

async fn a_tls_connection_goes_on_over_many_links_and_ends_cleanly(spoken: Spoken) {
    let (bed, mut listener) = start(spoken).await;
    let (client, server) = pair(&bed, &mut listener).await;
    // snet tells no ends, TLS does.
    let serving = tokio::spawn(server_exchange(server, true));
    client_exchange(client, true).await;
    serving.await.expect("the server's part");
    bed.assert_cut(least_cuts(spoken));
}

/// A message one way.
async fn pass(from: &mut (impl AsyncWrite + Unpin), to: &mut (impl AsyncRead + Unpin)) {
    let message = [7; 1024];
    let mut received = [0; 1024];
    let sending = async {
        from.write_all(&message).await?;
        from.flush().await
    };
    let (sent, read) = tokio::join!(sending, to.read_exact(&mut received));
    sent.expect("sends");
    read.expect("receives");
    assert_eq!(received, message);
}

/// Messages there and back, through some cuts.
async fn ping_pong((client, server): &mut Pair) {
    for _ in 0..100 {
        pass(client, server).await;
        pass(server, client).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_dies_is_an_error_and_no_end_of_the_tls_connection() {
    under_cuts(|| async {
        let (bed, mut listener) = start(Spoken::Native).await;

        // The server gives it up.
        let mut ends = pair(&bed, &mut listener).await;
        ping_pong(&mut ends).await;
        let (mut client, server) = ends;
        server.get_ref().0.handle().close(7);
        let read = client.read(&mut [0]).await.expect_err("no end of file");
        assert_eq!(read.kind(), io::ErrorKind::ConnectionReset);
        let flushed = async {
            client.write_all(b"too late").await?;
            client.flush().await
        };
        let written = flushed.await.expect_err("nobody hears it");
        for error in [&read, &written] {
            let reset = Error::find(error);
            assert!(
                matches!(reset, Some(Error::Closed(CloseReason::Reset(7)))),
                "{error:?}"
            );
        }

        // It ends the session in order, and TLS not.
        let mut ends = pair(&bed, &mut listener).await;
        ping_pong(&mut ends).await;
        let (mut client, server) = ends;
        let (mut session, _) = server.into_inner();
        session.shutdown().await.expect("the client has everything");
        let cut_short = client.read(&mut [0]).await.expect_err("no end of file");
        assert_eq!(cut_short.kind(), io::ErrorKind::UnexpectedEof);
        assert!(Error::find(&cut_short).is_none(), "{cut_short:?}");

        bed.assert_cut(5);
    })
    .await;
}
