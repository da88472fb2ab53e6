//! The same handshakes under Noise.

use super::*;
use crate::protocol::noise::{
    ClientKeys, Initiator, Key, Pattern, Records, Responder, ServerKeys, Suite, TAG_LEN, public_key,
};

const CLIENT: Key = [0x11; 32];
const SERVER: Key = [0x22; 32];
const SHARED: Key = [0x77; 32];

fn client_keys(pattern: Pattern) -> ClientKeys {
    let server = public_key(&SERVER);
    match pattern {
        Pattern::Nn => ClientKeys::Anonymous,
        Pattern::NnPsk0 => ClientKeys::Preshared(SHARED.into()),
        Pattern::Nk => ClientKeys::Server(server),
        Pattern::Ik => ClientKeys::Mutual {
            private: CLIENT.into(),
            server,
        },
    }
}

fn server_keys(pattern: Pattern) -> ServerKeys {
    match pattern {
        Pattern::Nn => ServerKeys::Anonymous,
        Pattern::NnPsk0 => ServerKeys::Preshared(SHARED.into()),
        Pattern::Nk => ServerKeys::Private(SERVER.into()),
        Pattern::Ik => ServerKeys::Mutual(SERVER.into()),
    }
}

fn client(pattern: Pattern, suite: Suite) -> ClientProtection {
    ClientProtection::Noise {
        keys: client_keys(pattern),
        suite,
        ephemeral: [3; 32].into(),
    }
}

fn proceed(server: &mut ServerHandshake, pattern: Pattern) -> Result<(), HandshakeError> {
    server.proceed(ServerProtection::Noise {
        keys: server_keys(pattern),
        ephemeral: [4; 32].into(),
    })
}

fn client_open(pattern: Pattern, suite: Suite) -> ClientOpen {
    ClientOpen::new(5, client(pattern, suite))
}

fn client_resume(pattern: Pattern, suite: Suite) -> ClientResume {
    let protection = client(pattern, suite);
    ClientResume::new(ID, &secret(), 7, 3, CLIENT_NONCE, 1000, protection)
}

/// A server that has taken in `first` as a link of this pattern, in pieces.
fn serve(first: &[u8], pattern: Pattern, most: usize) -> Result<ServerHandshake, HandshakeError> {
    let mut server = ServerHandshake::new();
    let rest = feed(&mut server, first, most)?;
    proceed(&mut server, pattern)?;
    assert_eq!(feed(&mut server, rest, most)?, b"");
    Ok(server)
}

fn every(mut check: impl FnMut(Pattern, Suite)) {
    for pattern in Pattern::ALL {
        for suite in Suite::ALL {
            check(pattern, suite);
        }
    }
}

/// Carries `bytes` in one record.
fn carry(from: &mut Records, to: &mut Records, bytes: &[u8]) -> Vec<u8> {
    let mut record = vec![0; bytes.len() + TAG_LEN];
    from.seal(bytes, &mut record).expect("it fits");
    let mut out = vec![0; record.len()];
    let len = to.open(&record, &mut out).expect("the next");
    out.truncate(len);
    out
}

#[test]
fn an_open_comes_about_under_every_security_and_however_it_is_cut() {
    every(|pattern, suite| {
        for most in [1, 2, 17, 28, 1000] {
            let mut client = client_open(pattern, suite);
            let first = said(&mut client);
            assert_eq!(first.len(), 18 + pattern.first_len(12));
            let mut server = serve(&first, pattern, most).expect("the client does right");
            assert_eq!(server.hello(), Some(Hello::Open { window: 5 }));
            let binding = server.binding();
            let shown = (pattern == Pattern::Ik).then(|| public_key(&CLIENT));
            assert_eq!((binding.security, binding.client_key), (first[6], shown));

            server.open(&opened());
            let second = said(&mut server);
            assert_eq!(second.len(), 2 + pattern.second_len(68));
            assert_eq!(server.wanted(), 0, "its records are to be taken first");
            let mut behind = [&second[..], b"follows"].concat();
            assert_eq!(feed(&mut client, &behind, most), Ok(&b"follows"[..]));
            behind.clear();
            assert_eq!(client.opened().expect("it is named").id, ID);

            let mut ours = client.take_records().expect("the link is protected");
            let mut theirs = server.take_records().expect("the link is protected");
            assert!(client.take_records().is_none() && server.take_records().is_none());
            let confirm = client.confirm().expect("it is opened");
            let carried = carry(&mut ours, &mut theirs, &confirm);
            feed(&mut server, &carried, most).expect("it proves");
            assert_eq!(server.proved(), Some(0));
        }
    });
}

#[test]
fn a_resume_comes_about_under_every_security_and_its_proofs_hold_on_its_own_link_alone() {
    every(|pattern, suite| {
        for most in [1, 5, 1000] {
            let resuming = |ephemeral: u8| {
                let protection = ClientProtection::Noise {
                    keys: client_keys(pattern),
                    suite,
                    ephemeral: [ephemeral; 32].into(),
                };
                let mut client =
                    ClientResume::new(ID, &secret(), 7, 3, CLIENT_NONCE, 1000, protection);
                let first = said(&mut client);
                let mut server = serve(&first, pattern, most).expect("the client does right");
                assert_eq!(server.hello(), Some(RESUME_HELLO));
                server.resume(&secret(), SERVER_NONCE, 2000);
                let second = said(&mut server);
                feed(&mut client, &second, most).expect("the server does right");
                let expected = Answer::Resumed { received: 2000 };
                assert_eq!(client.answer(), Some(expected));
                assert!(server.take_records().is_some() && client.take_records().is_some());
                (client, server)
            };
            let (client, mut server) = resuming(1);
            let (other, mut elsewhere) = resuming(2);
            let confirm = client.confirm(1500).expect("it goes on");
            // The same secret, nonces and counts on another link are another proof.
            assert_ne!(confirm, other.confirm(1500).expect("it goes on"));
            let passed_on = feed(&mut elsewhere, &confirm, most);
            assert_eq!(passed_on, Err(HandshakeError::Proof));
            feed(&mut server, &confirm, most).expect("it proves");
            assert_eq!(server.proved(), Some(1500));
        }
    });
}

#[test]
fn a_proof_that_somebody_in_between_passes_on_holds_for_neither_end() {
    // He ends both links himself, which NN lets him do, and knows everything but the secret.
    let suite = Suite::AesGcm;
    let mut client = client_resume(Pattern::Nn, suite);
    let first = said(&mut client);
    let (prelude, message) = (&first[..16], &first[18..]);
    let mut to_client = Responder::new(ServerKeys::Anonymous, suite, prelude, [8; 32].into());
    let mut to_server = Initiator::new(ClientKeys::Anonymous, suite, prelude, [9; 32].into());
    let resume = to_client.first(message).expect("the client's");
    let message = to_server.first(&resume).expect("its turn");
    let length = u16::try_from(message.len()).expect("short").to_be_bytes();
    let passed_on = [prelude, &length, &message].concat();

    let mut server = serve(&passed_on, Pattern::Nn, 1000).expect("a client like any");
    assert_eq!(server.hello(), Some(RESUME_HELLO));
    server.resume(&secret(), SERVER_NONCE, 2000);
    let (resumed, _) = to_server
        .second(&said(&mut server)[2..])
        .expect("the server's");
    let (message, _) = to_client.second(&resumed).expect("its turn");
    let length = u16::try_from(message.len()).expect("short").to_be_bytes();
    let fed = feed(&mut client, &[&length[..], &message].concat(), 1000).err();
    assert_eq!(fed, Some(HandshakeError::Proof));
}

#[test]
fn no_changed_byte_of_a_protected_message_gets_past_anybody() {
    every(|pattern, suite| {
        let first = said(&mut client_resume(pattern, suite));
        for at in 0..first.len() {
            let mut changed = first.clone();
            changed[at] ^= 1;
            let mut client = client_resume(pattern, suite);
            said(&mut client);
            let mut server = ServerHandshake::new();
            let Ok(rest) = feed(&mut server, &changed, 1000) else {
                continue;
            };
            let taken = proceed(&mut server, pattern)
                .and_then(|()| feed(&mut server, rest, 1000).map(|_| ()));
            if taken.is_ok() && matches!(server.hello(), Some(Hello::Resume { .. })) {
                // In the clear with NN, and the route nowhere but in the prelude; the answer tells.
                assert!(pattern == Pattern::Nn, "byte {at}");
                server.resume(&secret(), SERVER_NONCE, 2000);
                let answered = feed(&mut client, &said(&mut server), 1000).map(|_| ());
                assert_eq!(answered, Err(HandshakeError::Decrypt), "byte {at}");
            }
        }
        let mut server = serve(&first, pattern, 1000).expect("unchanged");
        server.resume(&secret(), SERVER_NONCE, 2000);
        let second = said(&mut server);
        for at in 0..second.len() {
            let mut client = client_resume(pattern, suite);
            said(&mut client);
            let mut changed = second.clone();
            changed[at] ^= 1;
            let error = feed(&mut client, &changed, 1000).expect_err("it is changed");
            if at < 2 {
                assert!(matches!(error, HandshakeError::MessageLength(_)));
            } else {
                assert_eq!(error, HandshakeError::Decrypt, "byte {at}");
            }
            assert_eq!((client.answer(), client.confirm(0)), (None, None));
        }
    });
}

#[test]
fn a_rejection_is_sealed_where_that_can_be_and_else_known_for_anybodys() {
    let suite = Suite::fastest();
    for pattern in Pattern::ALL {
        for sealed in [true, false] {
            let mut client = client_resume(pattern, suite);
            let first = said(&mut client);
            let mut server = if sealed {
                serve(&first, pattern, 1000).expect("unchanged")
            } else {
                let mut server = ServerHandshake::new();
                feed(&mut server, &first, 1000).expect("a prelude");
                server
            };
            server.reject(BUSY.code, BUSY.retry_after);
            let told = said(&mut server);
            let expected = if sealed {
                assert_eq!(told.len(), 2 + pattern.second_len(10));
                Answer::Rejected(BUSY)
            } else {
                assert_eq!(told, *b"\0\0\x15\0\0\x06\0\x05\0\0\x05\xdc");
                Answer::RejectedInTheClear(BUSY)
            };
            for most in [1, 3, 1000] {
                let mut client = client_resume(pattern, suite);
                said(&mut client);
                assert_eq!(feed(&mut client, &told, most), Ok(&[][..]));
                assert_eq!(client.answer(), Some(expected));
                assert_eq!((client.confirm(0), client.wanted()), (None, 0));

                let mut open = client_open(pattern, suite);
                said(&mut open);
                // A sealed one is for the link it was sealed on.
                let fed = feed(&mut open, &told, most);
                assert_eq!(fed.is_ok(), !sealed);
                assert_eq!(open.rejected(), (!sealed).then_some(BUSY));
            }
        }
    }
}

#[test]
fn nothing_but_a_rejection_is_taken_in_the_clear() {
    let mut client = client_open(Pattern::Nn, Suite::AesGcm);
    said(&mut client);
    let clear = [&[0, 0][..], &opened().encode()].concat();
    let taken = feed(&mut client, &clear, 1000).err();
    let misplaced = crate::error::ProtocolError::OutOfPlace(OPENED);
    assert_eq!(taken, Some(HandshakeError::Frame(misplaced)));
    assert!(client.opened().is_none());
}

#[test]
fn a_server_takes_the_pattern_it_is_for_and_tells_the_others_in_the_clear() {
    for offered in Pattern::ALL {
        for asked in Pattern::ALL.into_iter().filter(|asked| *asked != offered) {
            let first = said(&mut client_open(asked, Suite::AesGcm));
            let error = serve(&first, offered, 1000).err();
            assert_eq!(error, Some(HandshakeError::Security));
        }
        let clear = said(&mut ClientOpen::new(5, ClientProtection::None));
        let error = serve(&clear, offered, 1000).err();
        assert_eq!(error, Some(HandshakeError::Security));

        let mut other_suite = said(&mut client_open(offered, Suite::AesGcm));
        other_suite[7] = 3;
        let mut server = ServerHandshake::new();
        feed(&mut server, &other_suite, 1000).expect("a prelude");
        assert_eq!(proceed(&mut server, offered), Err(HandshakeError::Security));
        server.reject(RejectCode::SecurityNotOffered, Duration::ZERO);
        assert_eq!(said(&mut server)[..8], *b"\0\0\x15\0\0\x06\0\x0b");
    }
}

#[test]
fn a_client_with_another_key_is_told_so_in_the_clear() {
    for (pattern, keys) in [
        (Pattern::NnPsk0, ClientKeys::Preshared([1; 32].into())),
        (Pattern::Nk, ClientKeys::Server(public_key(&[1; 32]))),
    ] {
        let mut client = ClientOpen::new(
            5,
            ClientProtection::Noise {
                keys,
                suite: Suite::AesGcm,
                ephemeral: [3; 32].into(),
            },
        );
        let first = said(&mut client);
        let mut server = ServerHandshake::new();
        let rest = feed(&mut server, &first, 1000).expect("a prelude");
        proceed(&mut server, pattern).expect("offered");
        let error = feed(&mut server, rest, 1000).err();
        assert_eq!(error, Some(HandshakeError::Decrypt));
        server.reject(RejectCode::NotAuthorised, Duration::ZERO);
        feed(&mut client, &said(&mut server), 1000).expect("a rejection");
        let told = client.rejected().map(|reject| reject.code);
        assert_eq!(told, Some(RejectCode::NotAuthorised));
    }
}

#[test]
fn a_message_of_another_length_is_known_before_it_is_read() {
    for pattern in Pattern::ALL {
        let first = said(&mut client_open(pattern, Suite::AesGcm));
        for length in [
            0u16,
            1,
            first.len() as u16 - 19,
            first.len() as u16 - 17,
            u16::MAX,
        ] {
            let bytes = [&first[..16], &length.to_be_bytes()].concat();
            let error = serve(&bytes, pattern, 1000).err();
            assert_eq!(error, Some(HandshakeError::MessageLength(length)));
        }
        let mut client = client_open(pattern, Suite::AesGcm);
        said(&mut client);
        let error = feed(&mut client, &[0xff, 0xff], 1).err();
        assert_eq!(error, Some(HandshakeError::MessageLength(0xffff)));
    }
}

#[test]
fn no_machine_transmits_or_wants_more_than_a_driver_makes_room_for() {
    let longest = crate::protocol::handshake::LONGEST;
    every(|pattern, suite| {
        let mut client = client_resume(pattern, suite);
        assert!(client.transmit().len() <= longest);
        let mut server = serve(&said(&mut client), pattern, 1000).expect("unchanged");
        server.resume(&secret(), SERVER_NONCE, 0);
        assert!(server.transmit().len() <= longest);
    });
}

#[test]
fn no_key_shows_in_a_machine_that_is_printed() {
    every(|pattern, suite| {
        let mut client = client_open(pattern, suite);
        let mut server = serve(&said(&mut client), pattern, 1000).expect("unchanged");
        let before = format!("{client:?} {server:?}");
        server.open(&opened());
        feed(&mut client, &said(&mut server), 1000).expect("unchanged");
        let protections = format!(
            "{:?} {:?}",
            self::client(pattern, suite),
            ServerProtection::Noise {
                keys: server_keys(pattern),
                ephemeral: [4; 32].into(),
            }
        );
        let printed = format!("{before} {client:?} {server:?} {protections}");
        for secret in [0x11, 0x22, 0x77, 3, 4, 0x5c] {
            let shown = format!("{secret}, {secret}, {secret}, {secret}");
            assert!(!printed.contains(&shown), "{printed}");
        }
    });
}
