//! Noise links that carry no sessions, from their first byte on.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    join,
};
use unbroken::{
    Error, HandshakeError, NoiseLink,
    protocol::noise::{ClientKeys, Key, Pattern, ServerKeys, Suite, public_key},
};

const PRESHARED: Key = [3; 32];
const CLIENT: Key = [4; 32];
const SERVER: Key = [5; 32];
const OTHER: Key = [6; 32];

type Ends = (
    Result<NoiseLink<DuplexStream>, Error>,
    Result<(NoiseLink<DuplexStream>, Option<Key>), Error>,
);

async fn shake(client: ClientKeys<'_>, suite: Suite, server: ServerKeys<'_>) -> Ends {
    // The bytes fit at once or in many pieces.
    let (near, far) = duplex(7);
    join!(
        NoiseLink::connect(near, client, suite),
        NoiseLink::accept(far, server)
    )
}

fn keys(pattern: Pattern, server: &Key) -> (ClientKeys<'_>, ServerKeys<'static>) {
    match pattern {
        Pattern::Nn => (ClientKeys::Anonymous, ServerKeys::Anonymous),
        Pattern::NnPsk0 => (
            ClientKeys::Preshared(&PRESHARED),
            ServerKeys::Preshared(&PRESHARED),
        ),
        Pattern::Nk => (ClientKeys::Server(server), ServerKeys::Private(&SERVER)),
        Pattern::Ik => (
            ClientKeys::Mutual {
                private: &CLIENT,
                server,
            },
            ServerKeys::Mutual(&SERVER),
        ),
    }
}

#[tokio::test]
async fn every_pattern_carries_bytes_both_ways_with_either_suite() {
    let public = public_key(&SERVER);
    for pattern in Pattern::ALL {
        for suite in Suite::ALL {
            let (client, server) = keys(pattern, &public);
            let (client, server) = shake(client, suite, server).await;
            let (mut client, (mut server, key)) = (
                client.expect("the keys match"),
                server.expect("the keys match"),
            );
            let expected = (pattern == Pattern::Ik).then(|| public_key(&CLIENT));
            assert_eq!(key, expected);
            assert_eq!(client.hash(), server.hash());
            let talking = async {
                client.write_all(b"question").await?;
                client.shutdown().await?;
                let mut answer = Vec::new();
                client.read_to_end(&mut answer).await.map(|_| answer)
            };
            let answering = async {
                let mut question = Vec::new();
                server.read_to_end(&mut question).await?;
                assert_eq!(question, b"question");
                server.write_all(b"answer").await?;
                server.shutdown().await
            };
            let (answer, answered) = join!(talking, answering);
            assert_eq!(answer.expect("the link goes on"), b"answer");
            answered.expect("the link goes on");
        }
    }
}

#[tokio::test]
async fn other_keys_are_an_error_at_both_ends() {
    let (public, other) = (public_key(&SERVER), public_key(&OTHER));
    let mutual = |server| ClientKeys::Mutual {
        private: &CLIENT,
        server,
    };
    for suite in Suite::ALL {
        for (client, server) in [
            (
                ClientKeys::Preshared(&OTHER),
                ServerKeys::Preshared(&PRESHARED),
            ),
            (ClientKeys::Server(&other), ServerKeys::Private(&SERVER)),
            (ClientKeys::Server(&public), ServerKeys::Private(&OTHER)),
            (mutual(&other), ServerKeys::Mutual(&SERVER)),
            (mutual(&public), ServerKeys::Mutual(&OTHER)),
        ] {
            let (client, server) = shake(client, suite, server).await;
            let refused = server.expect_err("the keys differ");
            assert!(matches!(refused, Error::Handshake(HandshakeError::Decrypt)));
            let told = client.expect_err("the keys differ");
            assert!(
                matches!(&told, Error::Link(error) if error.kind() == io::ErrorKind::UnexpectedEof)
            );
        }
    }
}

#[tokio::test]
async fn a_server_takes_no_other_pattern_than_its_keys() {
    let public = public_key(&SERVER);
    for asked in Pattern::ALL {
        for offered in Pattern::ALL.into_iter().filter(|other| *other != asked) {
            let client = keys(asked, &public).0;
            let server = keys(offered, &public).1;
            let (client, server) = shake(client, Suite::AesGcm, server).await;
            client.expect_err("it is refused");
            let refused = server.expect_err("it is refused");
            assert!(matches!(
                refused,
                Error::Handshake(HandshakeError::Security)
            ));
        }
    }
}

/// What a server makes of these bytes and the end of the link.
async fn accept(bytes: &[u8], keys: ServerKeys<'_>) -> Error {
    let (mut near, far) = duplex(1000);
    near.write_all(bytes).await.expect("they fit");
    near.shutdown().await.expect("it can be");
    NoiseLink::accept(far, keys)
        .await
        .map(|_| ())
        .expect_err("it cannot be right")
}

#[tokio::test]
async fn a_client_first_says_the_pattern_and_the_suite_and_a_server_believes_no_others() {
    let public = public_key(&SERVER);
    for (pattern, code) in Pattern::ALL.into_iter().zip(1..) {
        for (suite, suite_code) in Suite::ALL.into_iter().zip(1..) {
            let (near, mut far) = duplex(1000);
            let connecting = NoiseLink::connect(near, keys(pattern, &public).0, suite);
            let len = pattern.first_len(0);
            let mut bytes = vec![0; 4 + len];
            let hanging_up = async {
                far.read_exact(&mut bytes).await.expect("it has come");
                drop(far);
            };
            let (connected, ()) = join!(connecting, hanging_up);
            connected.expect_err("the server has hung up");
            assert_eq!(bytes[..4], [code, suite_code, 0, len as u8]);

            let server = || keys(pattern, &public).1;
            for end in 0..bytes.len() {
                let error = accept(&bytes[..end], server()).await;
                assert!(
                    matches!(&error, Error::Link(error) if error.kind() == io::ErrorKind::UnexpectedEof)
                );
            }
            for wrong in [0, 3, 255] {
                let mut changed = bytes.clone();
                changed[1] = wrong;
                let error = accept(&changed, server()).await;
                assert!(matches!(error, Error::Handshake(HandshakeError::Security)));
            }
            // With NN the first message hides nothing: there the client would notice.
            if pattern != Pattern::Nn {
                let mut changed = bytes.clone();
                changed[1] = suite_code ^ 3;
                let error = accept(&changed, server()).await;
                assert!(matches!(error, Error::Handshake(HandshakeError::Decrypt)));
            }
            for wrong in [0, len - 1, len + 1, 65_535] {
                let mut changed = bytes.clone();
                changed[2..4].copy_from_slice(&(wrong as u16).to_be_bytes());
                let error = accept(&changed, server()).await;
                assert!(matches!(
                    error,
                    Error::Handshake(HandshakeError::MessageLength(said)) if usize::from(said) == wrong
                ));
            }
        }
    }
}

#[tokio::test]
async fn a_client_believes_no_answer_but_its_servers() {
    let public = public_key(&SERVER);
    for answer in [
        &[0, 0][..],
        &[0, 47],
        &[0, 49],
        &[[0, 48].as_slice(), &[9; 48]].concat(),
    ] {
        let (near, mut far) = duplex(1000);
        far.write_all(answer).await.expect("it fits");
        let error = NoiseLink::connect(near, ClientKeys::Server(&public), Suite::AesGcm)
            .await
            .expect_err("it is none of the server's");
        let expected = match answer {
            [0, 48, ..] => HandshakeError::Decrypt,
            _ => HandshakeError::MessageLength(answer[1].into()),
        };
        assert!(matches!(error, Error::Handshake(found) if found == expected));
    }
}
