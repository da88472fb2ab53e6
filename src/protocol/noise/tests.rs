use super::*;

const PRIVATE: [Key; 2] = [[0x11; 32], [0x22; 32]];

fn ends(pattern: Pattern, suite: Suite) -> (Initiator, Responder) {
    let server = public_key(&PRIVATE[1]);
    let (client_keys, server_keys) = match pattern {
        Pattern::Nn => (ClientKeys::Anonymous, ServerKeys::Anonymous),
        Pattern::NnPsk0 => (
            ClientKeys::Preshared([7; 32].into()),
            ServerKeys::Preshared([7; 32].into()),
        ),
        Pattern::Nk => (
            ClientKeys::Server(server),
            ServerKeys::Private(PRIVATE[1].into()),
        ),
        Pattern::Ik => (
            ClientKeys::Mutual {
                private: PRIVATE[0].into(),
                server,
            },
            ServerKeys::Mutual(PRIVATE[1].into()),
        ),
    };
    assert_eq!(client_keys.pattern(), pattern);
    assert_eq!(server_keys.pattern(), pattern);
    (
        Initiator::new(client_keys, suite, b"prologue", [3; 32].into()),
        Responder::new(server_keys, suite, b"prologue", [4; 32].into()),
    )
}

fn every(mut check: impl FnMut(Pattern, Suite)) {
    for pattern in Pattern::ALL {
        for suite in Suite::ALL {
            check(pattern, suite);
        }
    }
}

fn established(pattern: Pattern, suite: Suite) -> (Records, Records) {
    let (mut client, mut server) = ends(pattern, suite);
    let first = client.first(b"").expect("its turn");
    server.first(&first).expect("the client's");
    let (second, server) = server.second(b"").expect("its turn");
    let (_, client) = client.second(&second).expect("the server's");
    (client, server)
}

#[test]
fn both_ends_agree_on_payloads_hashes_and_keys() {
    every(|pattern, suite| {
        let (mut client, mut server) = ends(pattern, suite);
        let first = client.first(b"open").expect("its turn");
        assert_eq!(first.len(), pattern.first_len(4));
        assert_eq!(server.first(&first), Ok(b"open".to_vec()));
        assert_eq!(client.hash(), server.hash());
        let shown = (pattern == Pattern::Ik).then(|| public_key(&PRIVATE[0]));
        assert_eq!(server.client_key(), shown);
        let after_first = client.hash();

        let (second, mut server) = server.second(b"opened").expect("its turn");
        assert_eq!(second.len(), pattern.second_len(6));
        let (answer, mut client) = client.second(&second).expect("the server's");
        assert_eq!(answer, b"opened");
        assert_eq!(client.hash(), server.hash());
        assert_ne!(*client.hash(), after_first);

        let mut record = [0; 32];
        let mut plaintext = [0; 32];
        for message in [&b"one"[..], b"", b"three"] {
            let len = client.seal(message, &mut record).expect("it fits");
            assert_eq!(len, message.len() + TAG_LEN);
            let len = server.open(&record[..len], &mut plaintext).expect("whole");
            assert_eq!(plaintext[..len], *message);
            let len = server.seal(message, &mut record).expect("it fits");
            let len = client.open(&record[..len], &mut plaintext).expect("whole");
            assert_eq!(plaintext[..len], *message);
        }
    });
}

#[test]
fn a_changed_byte_anywhere_is_noticed_by_the_end_of_the_handshake() {
    every(|pattern, suite| {
        let (mut client, _) = ends(pattern, suite);
        let first = client.first(b"open").expect("its turn");
        for at in 0..first.len() {
            let (mut client, mut server) = ends(pattern, suite);
            client.first(b"open").expect("its turn");
            let mut changed = first.clone();
            changed[at] ^= 1;
            // With NN the first message is in the clear: the second tells.
            let Ok(_) = server.first(&changed) else {
                continue;
            };
            assert_eq!(pattern, Pattern::Nn, "byte {at}");
            let (second, _) = server.second(b"opened").expect("its turn");
            assert_eq!(client.second(&second).err(), Some(HandshakeError::Decrypt));
        }

        let (_, mut server) = ends(pattern, suite);
        server.first(&first).expect("the client's");
        let (second, _) = server.second(b"opened").expect("its turn");
        for at in 0..second.len() {
            let (mut client, _) = ends(pattern, suite);
            client.first(b"open").expect("its turn");
            let mut changed = second.clone();
            changed[at] ^= 0x80;
            // The highest bit of a public key counts for nothing in the agreement, but in the hash.
            let error = client.second(&changed).err();
            assert_eq!(error, Some(HandshakeError::Decrypt), "byte {at}");
        }
    });
}

#[test]
fn other_keys_another_prologue_and_another_pattern_come_to_nothing() {
    let server = public_key(&PRIVATE[1]);
    let other = public_key(&[0x33; 32]);
    for suite in Suite::ALL {
        let pairs = [
            (
                ClientKeys::Preshared([8; 32].into()),
                ServerKeys::Preshared([7; 32].into()),
            ),
            (
                ClientKeys::Server(other),
                ServerKeys::Private(PRIVATE[1].into()),
            ),
            (
                ClientKeys::Server(server),
                ServerKeys::Mutual(PRIVATE[1].into()),
            ),
            (
                ClientKeys::Mutual {
                    private: PRIVATE[0].into(),
                    server: other,
                },
                ServerKeys::Mutual(PRIVATE[1].into()),
            ),
        ];
        for (client, server) in pairs {
            let mut client = Initiator::new(client, suite, b"", [3; 32].into());
            let mut server = Responder::new(server, suite, b"", [4; 32].into());
            let first = client.first(b"open").expect("its turn");
            assert_eq!(server.first(&first), Err(HandshakeError::Decrypt));
        }
        for (keys, servers) in [
            (
                ClientKeys::Server(server),
                ServerKeys::Private(PRIVATE[1].into()),
            ),
            (
                ClientKeys::Preshared([7; 32].into()),
                ServerKeys::Preshared([7; 32].into()),
            ),
        ] {
            let mut client = Initiator::new(keys, suite, b"one", [3; 32].into());
            let mut server = Responder::new(servers, suite, b"two", [4; 32].into());
            let first = client.first(b"open").expect("its turn");
            assert_eq!(server.first(&first), Err(HandshakeError::Decrypt));
        }
    }
}

#[test]
fn records_open_in_order_unchanged_and_once_and_none_after_one_that_does_not() {
    every(|pattern, suite| {
        let (mut client, mut server) = established(pattern, suite);
        let mut records = [[0; 20]; 3];
        for record in &mut records {
            client.seal(b"data", record).expect("it fits");
        }
        let mut out = [0; 20];
        let mut wrong = vec![records[1].to_vec(), records[0][..15].to_vec()];
        wrong.extend((0..20).map(|at| {
            let mut changed = records[0];
            changed[at] ^= 4;
            changed.to_vec()
        }));
        for wrong in wrong {
            let (_, mut server) = established(pattern, suite);
            for record in [&wrong[..], &records[0], &records[1]] {
                let opened = server.open(record, &mut out);
                assert_eq!(opened, Err(HandshakeError::Decrypt));
            }
        }
        assert_eq!(server.open(&records[0], &mut out), Ok(4));
        assert_eq!(server.open(&records[1], &mut out), Ok(4));
        assert_eq!(
            server.open(&records[1], &mut out),
            Err(HandshakeError::Decrypt)
        );
        assert_eq!(
            server.open(&records[2], &mut out),
            Err(HandshakeError::Decrypt)
        );
        // Nor is a record taken for one of the other direction.
        assert_eq!(
            client.open(&records[0], &mut out),
            Err(HandshakeError::Decrypt)
        );
    });
}

#[test]
fn the_longest_record_is_65535_bytes() {
    let (mut client, mut server) = established(Pattern::Nn, Suite::AesGcm);
    let plaintext = vec![5; MAX_PLAINTEXT + 1];
    let mut record = vec![0; 65_536 + TAG_LEN];
    let too_long = client.seal(&plaintext, &mut record);
    assert_eq!(too_long, Err(HandshakeError::OutOfPlace));
    let len = client.seal(&plaintext[..MAX_PLAINTEXT], &mut record);
    assert_eq!(len, Ok(65_535));
    let mut out = vec![0; 65_535];
    assert_eq!(server.open(&record[..65_535], &mut out), Ok(MAX_PLAINTEXT));
    assert_eq!(out[..MAX_PLAINTEXT], plaintext[..MAX_PLAINTEXT]);
}

#[test]
fn each_direction_changes_its_key_after_2_to_the_20_records() {
    for suite in Suite::ALL {
        let (mut client, mut server) = established(Pattern::Nn, suite);
        let mut record = [0; TAG_LEN];
        let mut out = [0; TAG_LEN];
        for _ in 0..REKEY_AFTER - 1 {
            client.seal(b"", &mut record).expect("it fits");
            server.open(&record, &mut out).expect("the next");
        }
        // The last under the first key, which the other direction still has.
        client.seal(b"", &mut record).expect("it fits");
        server.open(&record, &mut out).expect("the next");
        server.seal(b"", &mut record).expect("it fits");
        client.open(&record, &mut out).expect("the next");
        // The first under the second key is not one under the first.
        client.seal(b"", &mut record).expect("it fits");
        let sealed = record;
        server.open(&sealed, &mut out).expect("the next");
        let (mut same, _) = established(Pattern::Nn, suite);
        for _ in 0..REKEY_AFTER {
            same.state.write_message(b"", &mut record).expect("it fits");
        }
        // Those were sealed past `seal`, and so under the first key for good.
        same.state.write_message(b"", &mut record).expect("it fits");
        assert_ne!(record, sealed);
    }
}

#[test]
fn a_point_of_low_order_is_known_for_one() {
    let mut one = [0; 32];
    one[0] = 1;
    assert!(is_low_order(&[0; 32]));
    assert!(is_low_order(&one));
    assert!(!is_low_order(&public_key(&PRIVATE[0])));
}
