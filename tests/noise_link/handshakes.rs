//! Noise links that carry no sessions, from their first byte on.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    join,
};
use unbroken::{
    Error, HandshakeError, KeyPair, NoiseLink, PublicKey, Security,
    protocol::noise::{Pattern, Suite},
};

const PRESHARED: [u8; 32] = [3; 32];
const OTHER: [u8; 32] = [6; 32];

type Ends = (
    Result<NoiseLink<DuplexStream>, Error>,
    Result<(NoiseLink<DuplexStream>, Option<PublicKey>), Error>,
);

async fn shake(client: &Security, server: &Security) -> Ends {
    // The bytes fit at once or in many pieces.
    let (near, far) = duplex(7);
    join!(
        NoiseLink::connect(near, client),
        NoiseLink::accept(far, server)
    )
}

fn pair(private: u8) -> KeyPair {
    KeyPair::from_private_bytes([private; 32])
}

fn client_pair() -> KeyPair {
    pair(4)
}

fn server_pair() -> KeyPair {
    pair(5)
}

fn keys(pattern: Pattern) -> (Security, Security) {
    let server = server_pair().public();
    match pattern {
        Pattern::Nn => (Security::anonymous(), Security::anonymous()),
        Pattern::NnPsk0 => (Security::psk(PRESHARED), Security::psk(PRESHARED)),
        Pattern::Nk => (
            Security::server_key(server),
            Security::key_pair(server_pair()),
        ),
        Pattern::Ik => (
            Security::mutual(client_pair(), server),
            Security::key_pair(server_pair()).authorize(|key| *key == client_pair().public()),
        ),
    }
}

#[tokio::test]
async fn every_pattern_carries_bytes_both_ways_with_either_suite() {
    for pattern in Pattern::ALL {
        for suite in Suite::ALL {
            let (client, server) = keys(pattern);
            let (client, server) = shake(&client.suite(suite), &server).await;
            let (mut client, (mut server, key)) = (
                client.expect("the keys match"),
                server.expect("the keys match"),
            );
            let expected = (pattern == Pattern::Ik).then(|| client_pair().public());
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
    let (public, other) = (server_pair().public(), pair(6).public());
    let mutual = |server| Security::mutual(client_pair(), server);
    let key_pair = || Security::key_pair(server_pair());
    for suite in Suite::ALL {
        for (client, server) in [
            (Security::psk(OTHER), Security::psk(PRESHARED)),
            (Security::server_key(other), key_pair()),
            (Security::server_key(public), Security::key_pair(pair(6))),
            (mutual(other), key_pair().authorize(|_| true)),
            (
                mutual(public),
                Security::key_pair(pair(6)).authorize(|_| true),
            ),
        ] {
            let (client, server) = shake(&client.suite(suite), &server).await;
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
    for asked in Pattern::ALL {
        for offered in Pattern::ALL.into_iter().filter(|other| *other != asked) {
            let (client, server) = shake(&keys(asked).0, &keys(offered).1).await;
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
async fn accept(bytes: &[u8], security: &Security) -> Error {
    let (mut near, far) = duplex(1000);
    near.write_all(bytes).await.expect("they fit");
    near.shutdown().await.expect("it can be");
    NoiseLink::accept(far, security)
        .await
        .map(|_| ())
        .expect_err("it cannot be right")
}

#[tokio::test]
async fn a_client_first_says_the_pattern_and_the_suite_and_a_server_believes_no_others() {
    for (pattern, code) in Pattern::ALL.into_iter().zip(1..) {
        for (suite, suite_code) in Suite::ALL.into_iter().zip(1..) {
            let (near, mut far) = duplex(1000);
            let (client, server) = keys(pattern);
            let client = client.suite(suite);
            let connecting = NoiseLink::connect(near, &client);
            let len = pattern.first_len(0);
            let mut bytes = vec![0; 4 + len];
            let hanging_up = async {
                far.read_exact(&mut bytes).await.expect("it has come");
                drop(far);
            };
            let (connected, ()) = join!(connecting, hanging_up);
            connected.expect_err("the server has hung up");
            assert_eq!(bytes[..4], [code, suite_code, 0, len as u8]);

            for end in 0..bytes.len() {
                let error = accept(&bytes[..end], &server).await;
                assert!(
                    matches!(&error, Error::Link(error) if error.kind() == io::ErrorKind::UnexpectedEof)
                );
            }
            for wrong in [0, 3, 255] {
                let mut changed = bytes.clone();
                changed[1] = wrong;
                let error = accept(&changed, &server).await;
                assert!(matches!(error, Error::Handshake(HandshakeError::Security)));
            }
            // With NN the first message hides nothing: there the client would notice.
            if pattern != Pattern::Nn {
                let mut changed = bytes.clone();
                changed[1] = suite_code ^ 3;
                let error = accept(&changed, &server).await;
                assert!(matches!(error, Error::Handshake(HandshakeError::Decrypt)));
            }
            for wrong in [0, len - 1, len + 1, 65_535] {
                let mut changed = bytes.clone();
                changed[2..4].copy_from_slice(&(wrong as u16).to_be_bytes());
                let error = accept(&changed, &server).await;
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
    for answer in [
        &[0, 0][..],
        &[0, 47],
        &[0, 49],
        &[[0, 48].as_slice(), &[9; 48]].concat(),
    ] {
        let (near, mut far) = duplex(1000);
        far.write_all(answer).await.expect("it fits");
        let error = NoiseLink::connect(near, &keys(Pattern::Nk).0)
            .await
            .expect_err("it is none of the server's");
        let expected = match answer {
            [0, 48, ..] => HandshakeError::Decrypt,
            _ => HandshakeError::MessageLength(answer[1].into()),
        };
        assert!(matches!(error, Error::Handshake(found) if found == expected));
    }
}

#[tokio::test]
async fn who_is_not_let_in_or_asks_for_another_suite_is_turned_away() {
    let (client, _) = keys(Pattern::Ik);
    let closed = Security::key_pair(server_pair()).authorize(|_| false);
    let refused = shake(&client, &closed).await.1.expect_err("not let in");
    assert!(matches!(
        refused,
        Error::Handshake(HandshakeError::NotAuthorised)
    ));
    for (asked, taken) in [
        (Suite::AesGcm, Suite::ChaChaPoly),
        (Suite::ChaChaPoly, Suite::AesGcm),
    ] {
        let (client, server) = keys(Pattern::NnPsk0);
        let (client, server) = (client.suite(asked), server.suite(taken));
        let refused = shake(&client, &server).await.1.expect_err("another suite");
        assert!(matches!(
            refused,
            Error::Handshake(HandshakeError::Security)
        ));
    }
}

#[tokio::test]
async fn an_end_with_the_other_ends_security_or_none_does_not_begin() {
    let (client, server) = keys(Pattern::Nk);
    let (none, mutual) = (Security::none(), keys(Pattern::Ik).0);
    let loose = Security::anonymous().authorize(|_| true);
    let is_config = |error| matches!(error, Error::Config(error) if error.field == "security");
    for security in [&server, &none, &loose] {
        let (near, _far) = duplex(1);
        let error = NoiseLink::connect(near, security).await.expect_err("wrong");
        assert!(is_config(error));
    }
    for security in [&client, &none, &mutual, &loose] {
        let (near, _far) = duplex(1);
        let error = NoiseLink::accept(near, security).await.map(|_| ());
        assert!(is_config(error.expect_err("wrong")));
    }
}
