//! Noise against what two peers of another implementation say with the same keys: each of our roles says and understands the same, byte
//! for byte.

#![cfg(feature = "noise")]

use serde_json::Value;
use unbroken::protocol::noise::{
    ClientKeys, Initiator, Key, Pattern, Records, Responder, ServerKeys, Suite, TAG_LEN, public_key,
};

/// Keys change behind this many records.
const REKEY_AFTER: usize = 1 << 20;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/noise.json")).expect("the vectors are JSON")
}

fn bytes(value: &Value, name: &str) -> Vec<u8> {
    let digits = value[name].as_str().unwrap_or_else(|| panic!("no {name}"));
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            let pair = str::from_utf8(pair).expect("digits");
            u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("{pair} in {name}"))
        })
        .collect()
}

fn key(value: &Value, name: &str) -> Key {
    bytes(value, name).try_into().expect("32 bytes")
}

/// Both roles of one of the handshakes.
fn ends(vectors: &Value, handshake: &Value) -> (Pattern, Initiator, Responder) {
    let name = handshake["protocol"].as_str().expect("a name");
    let (pattern, suite) = name
        .strip_prefix("Noise_")
        .and_then(|name| name.split_once("_25519_"))
        .expect("a name as Noise has them");
    let suite = match suite {
        "AESGCM_SHA256" => Suite::AesGcm,
        "ChaChaPoly_BLAKE2s" => Suite::ChaChaPoly,
        other => panic!("no suite is called {other}"),
    };
    let psk = key(vectors, "psk");
    let server = key(vectors, "server_public");
    let private = key(vectors, "server_private");
    let (client_keys, server_keys) = match pattern {
        "NN" => (ClientKeys::Anonymous, ServerKeys::Anonymous),
        "NNpsk0" => (
            ClientKeys::Preshared(psk.into()),
            ServerKeys::Preshared(psk.into()),
        ),
        "NK" => (
            ClientKeys::Server(server),
            ServerKeys::Private(private.into()),
        ),
        "IK" => (
            ClientKeys::Mutual {
                private: key(vectors, "client_private").into(),
                server,
            },
            ServerKeys::Mutual(private.into()),
        ),
        other => panic!("no pattern is called {other}"),
    };
    let prologue = bytes(handshake, "prologue");
    let pattern = client_keys.pattern();
    let client_ephemeral = key(vectors, "client_ephemeral").into();
    let server_ephemeral = key(vectors, "server_ephemeral").into();
    (
        pattern,
        Initiator::new(client_keys, suite, &prologue, client_ephemeral),
        Responder::new(server_keys, suite, &prologue, server_ephemeral),
    )
}

/// Runs one of the handshakes, and gives both ends' records, the client's first.
fn shake(vectors: &Value, handshake: &Value) -> [Records; 2] {
    let name = &handshake["protocol"];
    let (pattern, mut client, mut server) = ends(vectors, handshake);
    let payloads = ["first_payload", "second_payload"].map(|name| bytes(vectors, name));
    let first = client.first(&payloads[0]).expect("its turn");
    assert_eq!(first, bytes(handshake, "first"), "{name}");
    assert_eq!(first.len(), pattern.first_len(payloads[0].len()), "{name}");
    assert_eq!(server.first(&first).as_ref(), Ok(&payloads[0]), "{name}");
    let after_first = bytes(handshake, "hash_after_first");
    assert_eq!(client.hash()[..], after_first[..], "{name}");
    assert_eq!(server.hash()[..], after_first[..], "{name}");
    let shown = (pattern == Pattern::Ik).then(|| key(vectors, "client_public"));
    assert_eq!(server.client_key(), shown, "{name}");

    let (second, server) = server.second(&payloads[1]).expect("its turn");
    assert_eq!(second, bytes(handshake, "second"), "{name}");
    let len = pattern.second_len(payloads[1].len());
    assert_eq!(second.len(), len, "{name}");
    let (payload, client) = client.second(&second).expect("the server's");
    assert_eq!(payload, payloads[1], "{name}");
    let hash = bytes(handshake, "hash");
    assert_eq!(client.hash()[..], hash[..], "{name}");
    assert_eq!(server.hash()[..], hash[..], "{name}");
    [client, server]
}

/// One end seals what the other implementation sealed, into the same, and the other end opens it.
fn exchange(from: &mut Records, to: &mut Records, records: &Value, of: &Value) {
    let records = records.as_array().expect("a list");
    assert!(records.len() >= 3, "{of}");
    for (nth, expected) in records.iter().enumerate() {
        let plaintext = bytes(expected, "plaintext");
        let mut record = vec![0; plaintext.len() + TAG_LEN];
        let len = from.seal(&plaintext, &mut record).expect("it fits");
        assert_eq!(len, record.len());
        assert_eq!(record, bytes(expected, "record"), "{of}, {nth}");
        let mut opened = vec![0; record.len()];
        let len = to.open(&record, &mut opened).expect("it is right");
        assert_eq!(opened[..len], plaintext, "{of}, {nth}");
    }
}

fn handshakes(vectors: &Value) -> &[Value] {
    let handshakes = vectors["handshakes"].as_array().expect("a list");
    assert_eq!(handshakes.len(), Pattern::ALL.len() * Suite::ALL.len());
    handshakes
}

#[test]
fn handshakes_and_records_are_those_of_another_implementation() {
    let vectors = vectors();
    for end in ["client", "server"] {
        let private = key(&vectors, &format!("{end}_private"));
        let public = key(&vectors, &format!("{end}_public"));
        assert_eq!(public_key(&private), public);
    }
    for handshake in handshakes(&vectors) {
        let [mut client, mut server] = shake(&vectors, handshake);
        let of = &handshake["protocol"];
        exchange(&mut client, &mut server, &handshake["from_client"], of);
        exchange(&mut server, &mut client, &handshake["from_server"], of);
    }
}

#[test]
fn the_records_around_a_rekey_are_those_of_another_implementation() {
    let vectors = vectors();
    let mut rekeyed = 0;
    for handshake in handshakes(&vectors) {
        if handshake["around_rekey_from_client"].is_null() {
            continue;
        }
        rekeyed += 1;
        let [mut client, mut server] = shake(&vectors, handshake);
        let of = &handshake["protocol"];
        pass(&mut client, &mut server);
        let records = &handshake["around_rekey_from_client"];
        exchange(&mut client, &mut server, records, of);
        // The other direction has a key and a number of its own.
        exchange(&mut server, &mut client, &handshake["from_server"], of);
        let [mut client, mut server] = shake(&vectors, handshake);
        pass(&mut server, &mut client);
        let records = &handshake["around_rekey_from_server"];
        exchange(&mut server, &mut client, records, of);
    }
    assert_eq!(rekeyed, Suite::ALL.len());
}

/// All records but one that a direction's first key is for.
fn pass(from: &mut Records, to: &mut Records) {
    let mut record = [0; TAG_LEN];
    let mut plaintext = [0; TAG_LEN];
    for _ in 1..REKEY_AFTER {
        from.seal(&[], &mut record).expect("it fits");
        to.open(&record, &mut plaintext).expect("it is right");
    }
}
