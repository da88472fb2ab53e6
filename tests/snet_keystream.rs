//! What `SECURITY.md` says of snet's keystream, so that nobody takes it for a supposition.

use std::time::{Duration, Instant};

use unbroken::protocol::{
    Role, Session,
    snet::{CipherChoice, Counts, Opened, SessionKey, Settings, SnetSession},
};

const CLIENT: &[u8] = b"LOGIN eve pw=hunter2\n";
const SERVER: &[u8] = b"220 mail.example ready\n";
/// That of the session in `docs/PROTOCOL.md`.
const KEY: [u8; 8] = [0x09, 0xe7, 0xa9, 0xaf, 0x65, 0x64, 0xb6, 0x48];

/// What goes over the link when this end writes `text`.
fn ciphertext(role: Role, text: &[u8]) -> Vec<u8> {
    let settings = Settings {
        history: 1 << 16,
        resume_window: Duration::from_secs(300),
        linger: Duration::from_secs(60),
        silence: None,
        fin_is_close: false,
        cipher: CipherChoice::Rc4,
    };
    let now = Instant::now();
    let opened = Opened {
        id: 1,
        key: SessionKey::new(KEY),
    };
    let mut session = SnetSession::new(role, opened, settings, now);
    session
        .attach(0, Counts::default(), 0, now)
        .expect("it is new");
    assert_eq!(session.write(text), text.len());
    session.transmit(now).concat()
}

fn xor<'a>(one: &'a [u8], other: &'a [u8]) -> impl Iterator<Item = u8> + 'a {
    one.iter().zip(other).map(|(one, other)| one ^ other)
}

fn hex(bytes: impl IntoIterator<Item = u8>) -> String {
    let hex: Vec<String> = bytes
        .into_iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    hex.join(" ")
}

#[test]
fn known_text_of_one_end_is_the_others_secret() {
    let said = include_str!("../SECURITY.md").replace("` `", " ");
    let client = ciphertext(Role::Client, CLIENT);
    let server = ciphertext(Role::Server, SERVER);
    let both: Vec<u8> = xor(&client[8..], &server).collect();
    for line in [hex(client.clone()), hex(server), hex(both.clone())] {
        assert!(said.contains(&line), "SECURITY.md lacks {line}");
    }
    assert!(xor(&both, SERVER).eq(CLIENT[8..].iter().copied()));

    // What the handshake of that session masks the id with.
    let keystream = xor(
        &[0x1b, 0x73, 0x8a, 0x0a, 0xb8, 0x0b, 0xe1, 0xf8],
        &[1, 0, 0, 0, 0, 0, 0, 0],
    )
    .collect::<Vec<_>>();
    assert!(xor(&client, &keystream).eq(CLIENT[..8].iter().copied()));
}
