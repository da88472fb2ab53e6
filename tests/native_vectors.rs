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

fn links() -> Links {
    BTreeMap::from([
        ("open", open()),
        ("resume", second()),
        ("ended", third()),
        ("unknown", unknown()),
        ("busy", busy()),
        ("not-offered", not_offered()),
    ])
}

/// Each block names where it stands: ` ```hex <link> <client|server> <offset>`. What follows a `;` in a line is a remark.
#[test]
fn the_documents_examples_are_all_that_either_role_sends() {
    let (_, chapter) = PROTOCOL.split_once("\n# native\n").expect("its chapter");
    let mut documented: BTreeMap<(String, String), Vec<u8>> = BTreeMap::new();
    let mut lines = chapter.lines();
    while let Some(line) = lines.next() {
        let Some(place) = line.strip_prefix("```hex ") else {
            continue;
        };
        let words: Vec<&str> = place.split_whitespace().collect();
        let [link, side, offset] = words[..] else {
            panic!("an example without its place: {line}");
        };
        let wire = documented
            .entry((link.to_owned(), side.to_owned()))
            .or_default();
        let offset: usize = offset.parse().expect("a number");
        assert_eq!(wire.len(), offset, "a hole before {line}");
        for line in lines.by_ref().take_while(|line| *line != "```") {
            let digits = line.split(';').next().unwrap_or_default();
            wire.extend(digits.split_whitespace().map(|byte| {
                u8::from_str_radix(byte, 16).unwrap_or_else(|_| panic!("{byte} is no byte"))
            }));
        }
    }

    let mut sent = BTreeMap::new();
    for (name, link) in links() {
        for (side, bytes) in [("client", link.from_client), ("server", link.from_server)] {
            if !bytes.is_empty() {
                sent.insert((name.to_owned(), side.to_owned()), bytes);
            }
        }
    }
    for (place, sent) in &sent {
        let hex = |bytes: &[u8]| -> Vec<String> {
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let documented = documented.get(place).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(hex(documented).join(" "), hex(sent).join(" "), "{place:?}");
    }
    assert_eq!(documented.len(), sent.len(), "nothing else is documented");
}
