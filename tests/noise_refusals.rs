//! Which refusals a server gives that protects its links.

#![cfg(all(feature = "noise", feature = "server"))]

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use unbroken::{Acceptor, Config, Error, HandshakeError, KeyPair, Security};

/// A server whose clients have to show a key, and who has seen none, still knows the version for the reason.
#[tokio::test(start_paused = true)]
async fn a_client_of_another_version_is_told_that_and_not_that_its_key_is_not_let_in() {
    let keys = KeyPair::generate().expect("there is randomness");
    for (security, announced) in [(0, &[][..]), (4, &[0, 0])] {
        let security_of_server = Security::key_pair(keys.clone()).authorize(|_| true);
        let server = Acceptor::new(Config::new().security(security_of_server));
        let (mut client, link) = tokio::io::duplex(1024);
        let accepting = tokio::spawn(async move { server.accept(link).await });

        let prelude = [&b"UNBR\x02\0"[..], &[security, 0], &[0; 8]].concat();
        client.write_all(&prelude).await.expect("room");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("reading");
        let reject = [announced, b"\x15\0\0\x06\0\x06\0\0\0\0"].concat();
        assert_eq!(answer, reject);
        drop(client);
        let accepted = accepting.await.expect("it does not panic");
        assert!(
            matches!(accepted, Err(Error::Handshake(HandshakeError::Version))),
            "{accepted:?}"
        );
    }
}
