//! What a client meets: what it dials and is told leaves nothing behind either.

use std::{net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{sleep, timeout},
};
use unbroken::{Error, HandshakeError, LinkState, connect};

use super::{Echo, alone, config, open_files, settles};

#[test]
fn snet_go_12_a_failed_dial_or_handshake_leaks_nothing() {
    alone(async {
        // Nobody listens there.
        let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let nowhere = closed.local_addr().expect("an address");
        drop(closed);
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let addr = server.local_addr().expect("an address");
        let config = config().handshake_timeout(Duration::from_millis(30));
        let base = open_files();
        for _ in 0..50 {
            let error = connect(nowhere, config.clone()).await.expect_err("refused");
            assert!(matches!(error, Error::Dial(_)), "{error:?}");
        }
        settles(base).await;
        for turn in 0..60 {
            let (opened, ()) = tokio::join!(connect(addr, config.clone()), async {
                let (mut link, _) = server.accept().await.expect("a link");
                match turn % 5 {
                    // Closes at once, or after the hello.
                    0 => {}
                    1 => {
                        link.read_exact(&mut [0; 9]).await.expect("a hello");
                    }
                    // Says nothing, for longer than the client waits.
                    2 => sleep(Duration::from_millis(60)).await,
                    // A public key of 0; half an answer.
                    3 => link.write_all(&[0; 24]).await.expect("writing"),
                    _ => link.write_all(&[1; 23]).await.expect("writing"),
                }
            });
            let error = opened.expect_err("no server answers");
            let expected = match turn % 5 {
                2 => matches!(error, Error::HandshakeTimeout),
                3 => matches!(error, Error::Handshake(HandshakeError::ZeroPublicKey)),
                _ => matches!(error, Error::Link(_)),
            };
            assert!(expected, "{turn}: {error:?}");
        }
        settles(base).await;
        // Given up by the caller, dialling or in the handshake.
        for turn in 0..40_u64 {
            let limit = Duration::from_micros(turn * 50);
            assert!(timeout(limit, connect(addr, config.clone())).await.is_err());
        }
        // What is still in the backlog is the test's own.
        while let Ok(accepted) = timeout(Duration::from_millis(20), server.accept()).await {
            drop(accepted);
        }
        settles(base).await;
    });
}

#[test]
fn snet_go_12_resumes_that_fail_leak_nothing() {
    alone(async {
        let echo = Echo::start(config()).await;
        let base = echo.base;
        // A session through a port of the test's own, which serves it once.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let addr = port.local_addr().expect("an address");
        let retry = Duration::from_millis(1);
        let quick = config()
            .retry(retry, retry)
            .handshake_timeout(Duration::from_millis(30));
        let mut first = echo.link().await;
        let (client, proxy) = tokio::join!(connect(addr, quick), async {
            let (mut link, _) = port.accept().await.expect("a link");
            // Handshake only: 9 up, 24 down, 16 up.
            let mut bytes = [0; 24];
            for (up, count) in [(true, 9), (false, 24), (true, 16)] {
                let (from, to) = if up {
                    (&mut link, &mut first)
                } else {
                    (&mut first, &mut link)
                };
                from.read_exact(&mut bytes[..count]).await.expect("reading");
                to.write_all(&bytes[..count]).await.expect("writing");
            }
            link
        });
        let client = client.expect("a session");
        drop((proxy, first));
        for turn in 0..100 {
            let (mut link, _) = port.accept().await.expect("a link");
            match turn % 4 {
                0 => {}
                // An answer that no server gives: counts, and a challenge of 0.
                1 => {
                    let mut answer = [0; 24];
                    answer[8] = 1;
                    link.write_all(&answer).await.expect("writing");
                    let _ = link.read_to_end(&mut Vec::new()).await;
                }
                2 => link.write_all(&[1; 23]).await.expect("writing"),
                _ => {
                    // Counts that cannot be: more received than was ever sent.
                    link.write_all(&[1; 24]).await.expect("writing");
                    let _ = link.read_to_end(&mut Vec::new()).await;
                }
            }
            assert!(matches!(
                client.handle().state(),
                LinkState::Reconnecting { .. }
            ));
            // The port, and at most a link of the client's on its way, at both ends.
            assert!(open_files() <= base + 4, "{} files open", open_files());
        }
        drop(port);
        settles(base).await;
        drop(client);
        echo.still_serves().await;
    });
}
