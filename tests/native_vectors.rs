//! native against the worked examples of its document: both roles say what stands there, byte for byte, and understand it.

use std::{collections::BTreeMap, time::Duration};

use unbroken::{
    HandshakeError,
    protocol::{
        Handshake,
        native::{
            Answer, ClientOpen, ClientProtection, ClientResume, Decoder, Frame, Head, Hello, Id,
            Item, Kind, Nonce, Opened, PRELUDE_LEN, Prelude, Reject, RejectCode, ServerHandshake,
            ServerProtection, SessionSecret, reset, security, suite,
        },
    },
};

const PROTOCOL: &str = include_str!("../docs/PROTOCOL.md");

/// What each side sent, by link.
type Links = BTreeMap<&'static str, Link>;

const CLIENT_WINDOW: u64 = 65_536;
const SERVER_WINDOW: u64 = 1_048_576;

fn id() -> Id {
    std::array::from_fn(|at| at as u8)
}

fn secret() -> SessionSecret {
    SessionSecret::new(std::array::from_fn(|at| 0x20 + at as u8))
}

fn opened() -> Opened {
    Opened {
        id: id(),
        secret: secret(),
        route: 7,
        window: SERVER_WINDOW,
        resume_window: Duration::from_secs(300),
    }
}

fn resume(attempt: u32, nonce: Nonce, received: u64) -> ClientResume {
    let protection = ClientProtection::None;
    ClientResume::new(id(), &secret(), 7, attempt, nonce, received, protection)
}

/// One link: what each side has sent on it.
#[derive(Default)]
struct Link {
    from_client: Vec<u8>,
    from_server: Vec<u8>,
    /// What is not on the wire as it is: what a message or a record there holds, by its sender and offset, and the hash `h` of the
    /// handshake after so many messages.
    inside: BTreeMap<(&'static str, usize), Vec<u8>>,
}

/// What a machine has to say, as it goes out.
fn say(machine: &mut impl Handshake, wire: &mut Vec<u8>) -> Vec<u8> {
    let said = machine.transmit().to_vec();
    machine.transmitted(said.len());
    wire.extend(&said);
    said
}

/// What the other machine makes of it, byte for byte.
fn hear(machine: &mut impl Handshake, bytes: &[u8]) {
    for byte in bytes {
        assert!(machine.wanted() > 0, "it wants all of it");
        machine.receive(&[*byte]).expect("the peer does right");
    }
}

/// What a server makes of a client's first message.
fn hear_first(server: &mut ServerHandshake, bytes: &[u8]) {
    let (prelude, message) = bytes.split_at(PRELUDE_LEN);
    hear(server, prelude);
    assert_eq!(
        server.prelude().map(|prelude| prelude.encode().to_vec()),
        Some(prelude.to_vec())
    );
    assert_eq!(server.wanted(), 0, "it is to be let on");
    server
        .proceed(ServerProtection::None)
        .expect("it asks for no protection");
    hear(server, message);
}

/// Frames as a session hands them to a link, DATA with its payload, and that they are read as they were written.
fn send(frames: &[(Frame, &[u8])], wire: &mut Vec<u8>) {
    let start = wire.len();
    for (frame, payload) in frames {
        let mut head = Head::new();
        assert!(head.push(frame), "a head has room for one frame");
        wire.extend(head.as_bytes());
        wire.extend(*payload);
    }
    let mut decoder = Decoder::new();
    let mut input = &wire[start..];
    for (frame, payload) in frames {
        let (used, item) = decoder.decode(input).expect("a frame");
        assert_eq!(item, Some(Item::Frame(*frame)));
        input = &input[used..];
        if let Frame::Data { len } = *frame {
            let (used, item) = decoder.decode(input).expect("its payload");
            assert_eq!(item, Some(Item::Payload(len)));
            assert_eq!(&input[..used], *payload);
            input = &input[used..];
        }
    }
    assert!(input.is_empty(), "nothing else was sent");
}

fn data(payload: &[u8]) -> (Frame, &[u8]) {
    let len = payload.len();
    (Frame::Data { len }, payload)
}

fn control(frame: Frame) -> (Frame, &'static [u8]) {
    (frame, &[])
}

fn attach(from: u64, received: u64, limit: u64) -> (Frame, &'static [u8]) {
    control(Frame::Attach {
        from,
        received,
        limit,
    })
}

fn ack(received: u64, limit: u64) -> (Frame, &'static [u8]) {
    control(Frame::Ack { received, limit })
}

/// The session is opened; the client writes 5 bytes, the server 12, of which 7 arrive.
fn open() -> Link {
    let mut link = Link::default();
    let mut client = ClientOpen::new(CLIENT_WINDOW, ClientProtection::None);
    let mut server = ServerHandshake::new();
    hear_first(&mut server, &say(&mut client, &mut link.from_client));
    let window = CLIENT_WINDOW;
    assert_eq!(server.hello(), Some(Hello::Open { window }));
    server.open(&opened());
    hear(&mut client, &say(&mut server, &mut link.from_server));
    let confirm = client.confirm().expect("it is opened");
    hear(&mut server, &confirm);
    assert_eq!(server.proved(), Some(0));

    link.from_client.extend(confirm);
    let client = [attach(0, 0, CLIENT_WINDOW), data(b"hello")];
    send(&client, &mut link.from_client);
    let server = [
        attach(0, 0, SERVER_WINDOW),
        ack(5, 5 + SERVER_WINDOW),
        data(b"hello, world"),
    ];
    send(&server, &mut link.from_server);
    link
}

/// Both handshake machines of a resume, up to the CONFIRM, with which the client has proved itself.
fn resumed(attempt: u32, received: [u64; 2]) -> (Link, ServerHandshake) {
    let [by_client, by_server] = received;
    let nonces = [0xc0 + attempt as u8, 0x50 + attempt as u8].map(|byte| [byte; 16]);
    let mut link = Link::default();
    let mut client = resume(attempt, nonces[0], by_client);
    let mut server = ServerHandshake::new();
    hear_first(&mut server, &say(&mut client, &mut link.from_client));
    let hello = Hello::Resume {
        id: id(),
        attempt,
        nonce: nonces[0],
        received: by_client,
    };
    assert_eq!(server.hello(), Some(hello));
    server.resume(&secret(), nonces[1], by_server);
    hear(&mut client, &say(&mut server, &mut link.from_server));
    let received = by_server;
    assert_eq!(client.answer(), Some(Answer::Resumed { received }));
    let confirm = client.confirm(by_client).expect("it goes on");
    hear(&mut server, &confirm);
    assert_eq!(server.proved(), Some(by_client));
    link.from_client.extend(confirm);
    (link, server)
}

/// The session goes on with the 5 bytes that were lost, and both ends end it; the last RESET is lost.
fn second() -> Link {
    let (mut link, _) = resumed(1, [7, 5]);
    let client = [
        attach(5, 7, 7 + CLIENT_WINDOW),
        control(Frame::Ping(1)),
        ack(12, 12 + CLIENT_WINDOW),
        control(Frame::Fin),
        ack(13, 12 + CLIENT_WINDOW),
    ];
    send(&client, &mut link.from_client);
    let server = [
        attach(7, 5, 5 + SERVER_WINDOW),
        data(b"world"),
        control(Frame::Pong(1)),
        ack(6, 5 + SERVER_WINDOW),
        control(Frame::Fin),
        control(Frame::Reset { code: reset::CLEAN }),
    ];
    send(&server, &mut link.from_server);
    link
}

/// The client learns of the end from the tombstone.
fn third() -> Link {
    let (mut link, mut server) = resumed(2, [13, 6]);
    send(&[attach(6, 13, 12 + CLIENT_WINDOW)], &mut link.from_client);
    server.end(13, 6, 5 + SERVER_WINDOW, reset::CLEAN);
    let told = say(&mut server, &mut link.from_server);
    let expected = [
        attach(13, 6, 5 + SERVER_WINDOW),
        control(Frame::Reset { code: reset::CLEAN }),
    ];
    let mut frames = Vec::new();
    send(&expected, &mut frames);
    assert_eq!(told, frames);
    link
}

/// The server has forgotten it.
fn unknown() -> Link {
    let mut link = Link::default();
    let mut client = resume(3, [0xc3; 16], 13);
    let mut server = ServerHandshake::new();
    hear_first(&mut server, &say(&mut client, &mut link.from_client));
    let rejected = Reject {
        code: RejectCode::Unknown,
        retry_after: Duration::ZERO,
    };
    server.reject(rejected.code, rejected.retry_after);
    hear(&mut client, &say(&mut server, &mut link.from_server));
    assert_eq!(client.answer(), Some(Answer::Rejected(rejected)));
    link
}

/// Another client wants a session.
fn busy() -> Link {
    let mut link = Link::default();
    let mut client = ClientOpen::new(CLIENT_WINDOW, ClientProtection::None);
    let mut server = ServerHandshake::new();
    hear_first(&mut server, &say(&mut client, &mut link.from_client));
    let rejected = Reject {
        code: RejectCode::Busy,
        retry_after: Duration::from_millis(1500),
    };
    server.reject(rejected.code, rejected.retry_after);
    hear(&mut client, &say(&mut server, &mut link.from_server));
    assert_eq!(client.rejected(), Some(rejected));
    link
}

/// And another one, with a security that is not offered.
fn not_offered() -> Link {
    let prelude = Prelude {
        kind: Kind::Open,
        security: security::NK,
        suite: suite::AES_GCM_SHA256,
        route: 0,
    };
    let mut link = Link::default();
    link.from_client.extend(prelude.encode());
    let mut server = ServerHandshake::new();
    hear(&mut server, &link.from_client);
    assert_eq!(server.prelude(), Some(prelude));
    let code = RejectCode::SecurityNotOffered;
    let proceeded = server.proceed(ServerProtection::None);
    assert_eq!(proceeded, Err(HandshakeError::Security));
    server.reject(code, Duration::ZERO);
    say(&mut server, &mut link.from_server);
    link
}

/// The same under Noise.
#[cfg(feature = "noise")]
mod noise {
    use super::*;
    use unbroken::protocol::noise::{
        ClientKeys, Initiator, Key, MAX_PLAINTEXT, Records, ServerKeys, Suite, TAG_LEN,
    };

    fn psk() -> Key {
        std::array::from_fn(|at| 0x60 + at as u8)
    }

    /// `link` counts from 1.
    fn client_with(psk: Key, link: u8) -> ClientProtection {
        ClientProtection::Noise {
            keys: ClientKeys::Preshared(psk.into()),
            suite: Suite::AesGcm,
            ephemeral: [0xe0 + link; 32].into(),
        }
    }

    fn server_with(link: u8) -> ServerProtection {
        ServerProtection::Noise {
            keys: ServerKeys::Preshared(psk().into()),
            ephemeral: [0xf0 + link; 32].into(),
        }
    }

    fn hear_first(server: &mut ServerHandshake, bytes: &[u8], protection: ServerProtection) {
        let (prelude, message) = bytes.split_at(PRELUDE_LEN);
        hear(server, prelude);
        server.proceed(protection).expect("it is what is asked for");
        hear(server, message);
    }

    /// What is inside of a link's messages, of which the first carries the frame that `clear` sends without a protection.
    fn look(link: &mut Link, number: u8, clear: &impl Handshake) {
        let frame = &clear.transmit()[PRELUDE_LEN..];
        let (prelude, first) = link.from_client.split_at(PRELUDE_LEN);
        let ephemeral = [0xe0 + number; 32].into();
        let keys = ClientKeys::Preshared(psk().into());
        let mut initiator = Initiator::new(keys, Suite::AesGcm, prelude, ephemeral);
        let said = initiator.first(frame);
        assert_eq!(said.as_deref(), Ok(&first[2..]));
        let after_first = initiator.hash();
        let (answer, records) = initiator
            .second(&link.from_server[2..])
            .expect("the second");
        link.inside.extend([
            (("client", PRELUDE_LEN), frame.to_vec()),
            (("server", 0), answer),
            (("h", 1), after_first.to_vec()),
            (("h", 2), records.hash().to_vec()),
        ]);
    }

    /// `plaintext` goes out in a record, and comes in as it was.
    fn seal(
        from: &mut Records,
        to: &mut Records,
        plaintext: &[u8],
        link: &mut Link,
        by: &'static str,
    ) {
        assert!(plaintext.len() <= MAX_PLAINTEXT);
        let wire = match by {
            "client" => &mut link.from_client,
            _ => &mut link.from_server,
        };
        link.inside.insert((by, wire.len()), plaintext.to_vec());
        let mut record = vec![0; plaintext.len() + TAG_LEN];
        let len = from.seal(plaintext, &mut record).expect("it fits");
        wire.extend((len as u16).to_be_bytes());
        wire.extend(&record);
        let mut opened = vec![0; record.len()];
        let len = to.open(&record, &mut opened).expect("it is right");
        assert_eq!(opened[..len], *plaintext);
    }

    fn frames(frames: &[(Frame, &[u8])]) -> Vec<u8> {
        let mut wire = Vec::new();
        send(frames, &mut wire);
        wire
    }

    /// The session is opened; the client writes 5 bytes, the server 12.
    pub(crate) fn open() -> Link {
        let mut link = Link::default();
        let mut client = ClientOpen::new(CLIENT_WINDOW, client_with(psk(), 1));
        let mut server = ServerHandshake::new();
        let first = say(&mut client, &mut link.from_client);
        hear_first(&mut server, &first, server_with(1));
        let window = CLIENT_WINDOW;
        assert_eq!(server.hello(), Some(Hello::Open { window }));
        server.open(&opened());
        hear(&mut client, &say(&mut server, &mut link.from_server));
        look(
            &mut link,
            1,
            &ClientOpen::new(CLIENT_WINDOW, ClientProtection::None),
        );
        let mut ours = client.take_records().expect("it is opened");
        let mut theirs = server.take_records().expect("it has answered");
        let confirm = client.confirm().expect("it is opened");
        hear(&mut server, &confirm);
        assert_eq!(server.proved(), Some(0));

        let said = frames(&[attach(0, 0, CLIENT_WINDOW), data(b"hello")]);
        let said = [&confirm[..], &said].concat();
        seal(&mut ours, &mut theirs, &said, &mut link, "client");
        let said = frames(&[
            attach(0, 0, SERVER_WINDOW),
            ack(5, 5 + SERVER_WINDOW),
            data(b"hello, world"),
        ]);
        seal(&mut theirs, &mut ours, &said, &mut link, "server");
        link
    }

    /// The session goes on with the 12 bytes, none of which arrived, for their record did not; then both ends end the link.
    pub(crate) fn resumed() -> Link {
        let mut link = Link::default();
        let protection = client_with(psk(), 2);
        let mut client = ClientResume::new(id(), &secret(), 7, 1, [0xc1; 16], 0, protection);
        let mut server = ServerHandshake::new();
        let first = say(&mut client, &mut link.from_client);
        hear_first(&mut server, &first, server_with(2));
        server.resume(&secret(), [0x51; 16], 5);
        hear(&mut client, &say(&mut server, &mut link.from_server));
        assert_eq!(client.answer(), Some(Answer::Resumed { received: 5 }));
        look(&mut link, 2, &resume(1, [0xc1; 16], 0));
        let mut ours = client.take_records().expect("it goes on");
        let mut theirs = server.take_records().expect("it has answered");
        let confirm = client.confirm(0).expect("it goes on");
        hear(&mut server, &confirm);
        assert_eq!(server.proved(), Some(0));

        let said = frames(&[attach(5, 0, CLIENT_WINDOW)]);
        let said = [&confirm[..], &said].concat();
        seal(&mut ours, &mut theirs, &said, &mut link, "client");
        let said = frames(&[attach(0, 5, 5 + SERVER_WINDOW), data(b"hello, world")]);
        seal(&mut theirs, &mut ours, &said, &mut link, "server");
        seal(&mut ours, &mut theirs, &[], &mut link, "client");
        seal(&mut theirs, &mut ours, &[], &mut link, "server");
        link
    }

    /// A client with another key.
    pub(crate) fn stranger() -> Link {
        let mut link = Link::default();
        let mut client = ClientOpen::new(CLIENT_WINDOW, client_with([0; 32], 3));
        let mut server = ServerHandshake::new();
        let first = say(&mut client, &mut link.from_client);
        let (last, rest) = first.split_last().expect("it has said something");
        hear_first(&mut server, rest, server_with(3));
        let decrypted = server.receive(&[*last]);
        assert_eq!(decrypted, Err(HandshakeError::Decrypt));
        let rejected = Reject {
            code: RejectCode::NotAuthorised,
            retry_after: Duration::ZERO,
        };
        server.reject(rejected.code, rejected.retry_after);
        hear(&mut client, &say(&mut server, &mut link.from_server));
        assert_eq!(client.rejected(), Some(rejected));
        link
    }
}

fn links() -> Links {
    #[allow(unused_mut, reason = "there are more with Noise")]
    let mut links = BTreeMap::from([
        ("open", open()),
        ("resume", second()),
        ("ended", third()),
        ("unknown", unknown()),
        ("busy", busy()),
        ("not-offered", not_offered()),
    ]);
    #[cfg(feature = "noise")]
    links.extend([
        ("noise-open", noise::open()),
        ("noise-resume", noise::resumed()),
        ("noise-stranger", noise::stranger()),
    ]);
    links
}

/// The bytes of a block. What follows a `;` in a line is a remark.
fn block<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines.take_while(|line| *line != "```") {
        let digits = line.split(';').next().unwrap_or_default();
        bytes.extend(digits.split_whitespace().map(|byte| {
            u8::from_str_radix(byte, 16).unwrap_or_else(|_| panic!("{byte} is no byte"))
        }));
    }
    bytes
}

/// Each block names where it stands: ` ```hex <link> <client|server> <offset>`, or ` ```inside` for what is encrypted there.
#[test]
fn the_documents_examples_are_all_that_either_role_sends() {
    let (_, chapter) = PROTOCOL.split_once("\n# native\n").expect("its chapter");
    let mut documented: BTreeMap<(String, String), Vec<u8>> = BTreeMap::new();
    let mut inside: BTreeMap<(String, String, usize), Vec<u8>> = BTreeMap::new();
    let mut lines = chapter.lines();
    while let Some(line) = lines.next() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (kind, link, side, offset) = match words[..] {
            [kind @ ("```hex" | "```inside"), link, side, offset] => (kind, link, side, offset),
            ["```hex" | "```inside", ..] => panic!("an example without its place: {line}"),
            _ => continue,
        };
        let place = (link.to_owned(), side.to_owned());
        let offset: usize = offset.parse().expect("a number");
        let bytes = block(&mut lines);
        if kind == "```inside" {
            inside.insert((place.0, place.1, offset), bytes);
        } else {
            let wire = documented.entry(place).or_default();
            assert_eq!(wire.len(), offset, "a hole before {line}");
            wire.extend(bytes);
        }
    }
    if cfg!(not(feature = "noise")) {
        documented.retain(|(link, _), _| !link.starts_with("noise-"));
        inside.retain(|(link, ..), _| !link.starts_with("noise-"));
    }

    let hex = |bytes: &[u8]| -> String {
        let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        bytes.join(" ")
    };
    let mut sent = BTreeMap::new();
    let mut held = BTreeMap::new();
    for (name, link) in links() {
        for (side, bytes) in [("client", link.from_client), ("server", link.from_server)] {
            if !bytes.is_empty() {
                sent.insert((name.to_owned(), side.to_owned()), hex(&bytes));
            }
        }
        for ((side, offset), bytes) in link.inside {
            if !bytes.is_empty() {
                held.insert((name.to_owned(), side.to_owned(), offset), hex(&bytes));
            }
        }
    }
    for (place, sent) in &sent {
        let documented = documented.get(place).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(hex(documented), *sent, "{place:?}");
    }
    assert_eq!(documented.len(), sent.len(), "nothing else is documented");
    for (place, held) in &held {
        let documented = inside.get(place).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(hex(documented), *held, "inside of {place:?}");
    }
    assert_eq!(inside.len(), held.len(), "nothing else is documented");
}
