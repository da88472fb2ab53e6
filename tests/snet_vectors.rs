//! snet against what two Go peers put on the wire: in their place, each of our roles says the same, byte for byte.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use rc4::{KeyInit, StreamCipher};
use serde_json::Value;
use unbroken::protocol::{
    Handshake, LinkId, Role, Session,
    snet::{
        Challenge, CipherChoice, ClientOpen, ClientResume, Counts, Hello, KeyAgreement, Opened,
        PrivateKey, PublicKey, ResumeReply, ServerHandshake, SessionKey, Settings, SnetSession,
    },
};

const PROTOCOL: &str = include_str!("../docs/PROTOCOL.md");

/// One recorded session.
struct Recording {
    name: String,
    cipher: CipherChoice,
    key: [u8; 8],
    id: u64,
    client_wrote: Vec<u8>,
    server_wrote: Vec<u8>,
    connections: Vec<Connection>,
}

/// All bytes each side sent on one TCP connection, and how many of them reached the other.
struct Connection {
    from_client: Vec<u8>,
    from_server: Vec<u8>,
    delivered_to_client: usize,
    delivered_to_server: usize,
}

impl Connection {
    /// What the client received.
    fn to_client(&self) -> &[u8] {
        &self.from_server[..self.delivered_to_client]
    }

    /// What the server received.
    fn to_server(&self) -> &[u8] {
        &self.from_client[..self.delivered_to_server]
    }
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/snet.json")).expect("the vectors are JSON")
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    let list = value[name]
        .as_array()
        .unwrap_or_else(|| panic!("no list {name}"));
    assert!(!list.is_empty(), "{name} is empty");
    list
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    let text = value[name]
        .as_str()
        .unwrap_or_else(|| panic!("no text {name}"));
    assert!(!text.is_empty(), "{name} is empty");
    text
}

fn count(value: &Value, name: &str) -> u64 {
    value[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no number {name}"))
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(
        text.is_ascii() && text.len().is_multiple_of(2),
        "not hex: {text}"
    );
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits");
    (0..text.len()).step_by(2).map(byte).collect()
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn recordings() -> Vec<Recording> {
    let vectors = vectors();
    let recordings: Vec<Recording> = list(&vectors, "sessions").iter().map(recording).collect();
    let names: BTreeSet<&str> = recordings
        .iter()
        .map(|recording| recording.name.as_str())
        .collect();
    assert_eq!(
        (names.len(), recordings.len()),
        (6, 6),
        "each recording once"
    );
    let resumed = |recording: &&Recording| recording.connections.len() > 1;
    assert_eq!(
        recordings.iter().filter(resumed).count(),
        4,
        "recordings with a resume"
    );
    recordings
}

fn recording(value: &Value) -> Recording {
    let connections = list(value, "connections").iter().map(|value| Connection {
        from_client: unhex(text(value, "client_to_server_hex")),
        from_server: unhex(text(value, "server_to_client_hex")),
        delivered_to_client: count(value, "delivered_to_client") as usize,
        delivered_to_server: count(value, "delivered_to_server") as usize,
    });
    let encrypt = value["encrypt"].as_bool().expect("whether it is encrypted");
    let key = unhex(text(value, "session_key_le_hex"));
    Recording {
        name: text(value, "name").to_owned(),
        cipher: if encrypt {
            CipherChoice::Rc4
        } else {
            CipherChoice::Plain
        },
        key: key.try_into().expect("8 bytes of key"),
        id: count(value, "conn_id"),
        client_wrote: unhex(text(value, "client_app_sent_hex")),
        server_wrote: unhex(text(value, "server_app_sent_hex")),
        connections: connections.collect(),
    }
}

impl Recording {
    fn settings(&self) -> Settings {
        Settings {
            history: 4096,
            resume_window: Duration::from_secs(60),
            linger: Duration::from_secs(60),
            silence: None,
            fin_is_close: false,
            cipher: self.cipher.clone(),
        }
    }

    /// The key agreement of the end with this public key, as it came out.
    fn agreement(&self, public: &[u8]) -> KeyAgreement {
        let public = PublicKey::from_bytes(public.try_into().expect("8 bytes")).expect("not 0");
        KeyAgreement::Known(public, SessionKey::new(self.key))
    }
}

/// How the bytes of a link come in.
#[derive(Clone, Copy, Debug)]
enum Pieces {
    One,
    /// 1 to 40 bytes, by a generator of this state.
    Random(u64),
    Whole,
}

impl Pieces {
    fn next(&mut self) -> usize {
        match self {
            Self::One => 1,
            Self::Random(state) => {
                *state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                1 + (*state >> 33) as usize % 40
            }
            Self::Whole => usize::MAX,
        }
    }

    fn all() -> Vec<Self> {
        let random = (1..=50).map(Self::Random);
        [Self::One, Self::Whole].into_iter().chain(random).collect()
    }
}

/// One of our ends in the place of a recorded one.
struct End {
    session: Option<SnetSession>,
    wrote: Vec<u8>,
    received: Vec<u8>,
    now: Instant,
    pieces: Pieces,
}

impl End {
    fn new(wrote: &[u8], pieces: Pieces) -> Self {
        Self {
            session: None,
            wrote: wrote.to_vec(),
            received: Vec::new(),
            now: Instant::now(),
            pieces,
        }
    }

    /// Moves a handshake on until it wants nothing more; `decide` is asked after each piece.
    fn shake<H: Handshake>(
        &mut self,
        handshake: &mut H,
        input: &mut &[u8],
        said: &mut Vec<u8>,
        mut decide: impl FnMut(&mut Self, &mut H),
    ) {
        loop {
            while !handshake.transmit().is_empty() {
                let count = self.pieces.next().min(handshake.transmit().len());
                said.extend(&handshake.transmit()[..count]);
                handshake.transmitted(count);
            }
            let most = self.pieces.next().min(handshake.wanted());
            let (piece, rest) = input.split_at_checked(most).expect("the recording goes on");
            if piece.is_empty() {
                return;
            }
            *input = rest;
            handshake
                .receive(piece)
                .expect("the recorded peer does right");
            decide(self, handshake);
        }
    }

    /// The data that follows a handshake, in and out.
    fn carry(&mut self, link: LinkId, mut input: &[u8], said: &mut Vec<u8>) {
        let session = self.session.as_mut().expect("the handshake is over");
        assert_eq!(session.write(&self.wrote), self.wrote.len());
        self.wrote.clear();
        loop {
            let unsent = session.transmit(self.now).concat();
            let before = said.len();
            said.extend(unsent.iter().take(self.pieces.next()));
            let sent = said.len() - before;
            session.transmitted(sent);

            let (piece, rest) = input.split_at(self.pieces.next().min(input.len()));
            input = rest;
            let mut piece = piece.to_vec();
            let arrived = session.receive(link, &mut piece, self.now);
            assert_eq!(arrived.broken, None);
            self.received.extend(&piece[arrived.fresh]);
            if piece.is_empty() && sent == 0 {
                break;
            }
        }
        session.link_failed(link, self.now);
    }
}

#[test]
fn our_client_says_what_the_recorded_client_said() {
    for recording in recordings() {
        for pieces in Pieces::all() {
            let mut end = End::new(&recording.client_wrote, pieces);
            let public = recording.connections[0].from_client[1..9].to_vec();
            for (nth, connection) in recording.connections.iter().enumerate() {
                let mut input = connection.to_client();
                let mut said = Vec::new();
                if nth == 0 {
                    let mut open = ClientOpen::new(recording.agreement(&public));
                    end.shake(&mut open, &mut input, &mut said, |_, _| {});
                    let opened = open
                        .opened()
                        .expect("the server has named the session")
                        .clone();
                    assert_eq!(opened.id, recording.id, "{}", recording.name);
                    let mut session =
                        SnetSession::new(Role::Client, opened, recording.settings(), end.now);
                    session
                        .attach(0, Counts::default(), 0, end.now)
                        .expect("the first link");
                    end.session = Some(session);
                } else {
                    let session = end
                        .session
                        .as_ref()
                        .expect("opened on the first connection");
                    let counts = session.counts();
                    let mut resume = ClientResume::new(session.opened(), counts);
                    let mut granted = None;
                    end.shake(&mut resume, &mut input, &mut said, |end, resume| {
                        if let Some(ResumeReply::Granted { counts, .. }) = resume.reply() {
                            let session = end.session.as_ref().expect("there is one");
                            session.check(counts).expect("it can go on");
                            granted = Some(counts);
                            resume.confirm();
                        }
                    });
                    let session = end.session.as_mut().expect("there is one");
                    let server = granted.expect("the server grants it");
                    let attached = session.attach(nth as u64, server, counts.received, end.now);
                    attached.expect("it can go on");
                }
                end.carry(nth as u64, input, &mut said);
                let place = format!("{}, connection {nth}, {pieces:?}", recording.name);
                assert_eq!(said, connection.from_client, "{place}");
            }
            assert_eq!(
                end.received, recording.server_wrote,
                "{}, {pieces:?}",
                recording.name
            );
        }
    }
}

#[test]
fn our_server_says_what_the_recorded_server_said() {
    for recording in recordings() {
        for pieces in Pieces::all() {
            let mut end = End::new(&recording.server_wrote, pieces);
            let public = recording.connections[0].from_server[..8].to_vec();
            for (nth, connection) in recording.connections.iter().enumerate() {
                let mut input = connection.to_server();
                let mut said = Vec::new();
                let mut handshake = ServerHandshake::new();
                let challenge = number(&connection.from_server, 16);
                let mut peer = Counts::default();
                let mut stated = 0;
                end.shake(
                    &mut handshake,
                    &mut input,
                    &mut said,
                    |end, handshake| match handshake.hello() {
                        None => {}
                        Some(Hello::Open(_)) => {
                            assert_eq!(nth, 0, "sessions open on the first connection");
                            let id = unmask(&recording.key, &connection.from_server[8..16]);
                            assert_eq!(id, recording.id);
                            let agreement = recording.agreement(&public);
                            let key = handshake.open(&agreement, id, challenge);
                            let opened = Opened {
                                id,
                                key: key.expect("it wants a session"),
                            };
                            let settings = recording.settings();
                            let session = SnetSession::new(Role::Server, opened, settings, end.now);
                            end.session = Some(session);
                        }
                        Some(Hello::Resume(request)) => {
                            let session = end.session.as_mut().expect("it was opened");
                            let key = session.opened().key.clone();
                            assert_eq!(request.id, recording.id);
                            assert!(request.verify(&key), "the request's proof holds");
                            let own = session.answer(request.counts).expect("it can go on");
                            let challenge = Challenge::new(challenge).expect("not 0");
                            handshake.resume(&key, own, challenge);
                            (peer, stated) = (request.counts, own.received);
                        }
                    },
                );
                assert!(handshake.is_proved(), "{}", recording.name);
                let session = end.session.as_mut().expect("it was opened");
                session
                    .attach(nth as u64, peer, stated, end.now)
                    .expect("it can go on");
                end.carry(nth as u64, input, &mut said);
                let place = format!("{}, connection {nth}, {pieces:?}", recording.name);
                assert_eq!(said, connection.from_server, "{place}");
            }
            assert_eq!(
                end.received, recording.client_wrote,
                "{}, {pieces:?}",
                recording.name
            );
        }
    }
}

/// The connection id under the first 8 bytes of the key's RC4 keystream.
fn unmask(key: &[u8; 8], masked: &[u8]) -> u64 {
    let mut id: [u8; 8] = masked.try_into().expect("8 bytes");
    let mut rc4 = rc4::Rc4::new_from_slice(key).expect("RC4 takes 8 bytes");
    rc4.apply_keystream(&mut id);
    u64::from_le_bytes(id)
}

#[test]
fn dh64_agrees_with_the_recorded_rows() {
    let vectors = vectors();
    let rows = list(&vectors, "dh64");
    assert_eq!(rows.len(), 32);
    for row in rows {
        let number = |name: &str| {
            let digits = text(row, name);
            assert_eq!(digits.len(), 16);
            u64::from_str_radix(digits, 16).expect("hex digits")
        };
        let public = |name: &str| PublicKey::from_bytes(number(name).to_le_bytes()).expect("not 0");
        for (own, peer) in [("a", "b"), ("b", "a")] {
            let private = PrivateKey::new(number(&format!("{own}_private"))).expect("not 0");
            let own_public = number(&format!("{own}_public"));
            assert_eq!(private.public().to_bytes(), own_public.to_le_bytes());

            // The secret is not to be had from the key itself; what is made of it is.
            let secret = private.agree(public(&format!("{peer}_public")));
            let agreed = ClientResume::new(&opened(secret), Counts::default());
            let recorded = SessionKey::new(number("secret").to_le_bytes());
            let expected = ClientResume::new(&opened(recorded), Counts::default());
            assert_eq!(agreed.transmit(), expected.transmit(), "{row}");
        }
    }
}

fn opened(key: SessionKey) -> Opened {
    Opened { id: 1, key }
}

/// Each worked example of the document names where in the recordings it stands:
/// ` ```hex <session> <connection, from 1> <client|server> <offset>`. What follows a `;` in a line is a remark.
#[test]
fn the_documents_examples_are_in_the_recordings() {
    let recordings = recordings();
    let mut examples = 0;
    // native's examples are of other bytes.
    let (chapter, _) = PROTOCOL.split_once("\n# native\n").expect("its end");
    let mut lines = chapter.lines();
    while let Some(line) = lines.next() {
        let Some(place) = line.strip_prefix("```hex") else {
            continue;
        };
        let words: Vec<&str> = place.split_whitespace().collect();
        let [session, connection, side, offset] = words[..] else {
            panic!("an example without its place: {line}");
        };
        let body = lines.by_ref().take_while(|line| *line != "```");
        let digits: String = body
            .flat_map(|line| {
                line.split(';')
                    .next()
                    .unwrap_or_default()
                    .split_whitespace()
            })
            .collect();
        let example = unhex(&digits);
        assert!(!example.is_empty(), "an empty example: {line}");
        let recording = recordings
            .iter()
            .find(|recording| recording.name == session);
        let connection: usize = connection.parse().expect("a number");
        let connection = &recording.expect("a recording of that name").connections[connection - 1];
        let stream = match side {
            "client" => &connection.from_client,
            "server" => &connection.from_server,
            other => panic!("{other} is no side"),
        };
        let offset: usize = offset.parse().expect("a number");
        assert_eq!(
            stream.get(offset..offset + example.len()),
            Some(&example[..]),
            "{line}"
        );
        examples += 1;
    }
    assert!(examples >= 8, "{examples} examples");
}
