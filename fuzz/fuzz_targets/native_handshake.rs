//! native's prelude and handshakes, each role, under each security: on whatever is said to it, with somebody in between, and called in
//! any order.

#![no_main]

use std::time::Duration;

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use unbroken::{
    HandshakeError, RejectCode,
    protocol::{
        Handshake, ServerHandshake,
        native::{
            self, Answer, CONFIRM_LEN, ClientOpen, ClientProtection, ClientResume, Hello, Id, Kind,
            Opened, PRELUDE_LEN, Prelude, ServerProtection,
        },
        noise::{Pattern, Records, Suite, TAG_LEN},
    },
};
use unbroken_fuzz::{
    drive::{Edits, drive, hear, misuse, say},
    input::{Pieces, byte, offset, pick, rest},
    keys::Keys,
};

const ID: Id = [7; 16];
const CLIENT_NONCE: [u8; 16] = [0xc1; 16];
const SERVER_NONCE: [u8; 16] = [0x51; 16];
/// What a server that resumes has received.
const RECEIVED: u64 = 6;

/// A REJECT, as it stands in the clear.
const REJECT: [u8; 4] = [0x15, 0, 0, 6];
const REJECT_LEN: usize = 10;

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let keys = Keys::of(data);
    match pick(&mut input, 6) {
        0 => server(input, true, keys),
        1 => server(input, false, keys),
        2 => open(input, keys),
        3 => resume(input, keys),
        4 => between(input, keys),
        _ => misused(input, keys),
    }
});

/// What protects a link; both ends' fit if they have the same pattern.
#[derive(Clone, Copy)]
struct Security {
    pattern: Option<Pattern>,
    suite: Suite,
    keys: Keys,
}

impl Security {
    fn draw(input: &mut Unstructured<'_>, keys: Keys) -> Self {
        let choice = usize::from(byte(input));
        let pattern = (choice % 5).checked_sub(1);
        Self {
            pattern: pattern.map(|pattern| Pattern::ALL[pattern]),
            suite: Suite::ALL[choice / 5 % 2],
            keys,
        }
    }

    fn client(self) -> ClientProtection {
        let Some(pattern) = self.pattern else {
            return ClientProtection::None;
        };
        let [ephemeral, _] = self.keys.ephemeral();
        ClientProtection::Noise {
            keys: self.keys.client(pattern),
            suite: self.suite,
            ephemeral,
        }
    }

    fn server(self) -> ServerProtection {
        let Some(pattern) = self.pattern else {
            return ServerProtection::None;
        };
        let [_, ephemeral] = self.keys.ephemeral();
        ServerProtection::Noise {
            keys: self.keys.server(pattern),
            ephemeral,
        }
    }

    /// The prelude's security.
    fn code(self) -> u8 {
        match self.pattern {
            None => 0,
            Some(Pattern::Nn) => 1,
            Some(Pattern::NnPsk0) => 2,
            Some(Pattern::Nk) => 3,
            Some(Pattern::Ik) => 4,
        }
    }

    /// Whether a server with this security goes on behind this prelude.
    fn takes(self, prelude: &Prelude) -> bool {
        let suites = if self.pattern.is_some() { 1..3 } else { 0..1 };
        prelude.security == self.code() && suites.contains(&prelude.suite)
    }
}

fn opened(keys: Keys) -> Opened {
    Opened {
        id: ID,
        secret: keys.session(),
        route: 7,
        window: 1 << 20,
        resume_window: Duration::from_secs(300),
    }
}

fn client_resume(received: u64, security: Security) -> ClientResume {
    let protection = security.client();
    let secret = security.keys.session();
    ClientResume::new(ID, &secret, 7, 1, CLIENT_NONCE, received, protection)
}

/// What a server does with a client that has said what it wants, or more than that.
fn answer(machine: &mut native::ServerHandshake, choice: u8, keys: Keys) {
    match choice % 4 {
        0 => machine.open(&opened(keys)),
        1 => machine.resume(&keys.session(), SERVER_NONCE, RECEIVED),
        2 => machine.reject(RejectCode::Busy, Duration::from_millis(1500)),
        _ => machine.end(1, 2, 3, 4),
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

/// Hands a client's first message to a server, which lets it go on under this security.
fn hear_first(
    machine: &mut native::ServerHandshake,
    message: &[u8],
    pieces: Pieces,
    security: Security,
) -> Result<(), HandshakeError> {
    let used = hear(machine, message, pieces)?;
    machine.proceed(security.server())?;
    hear(machine, &message[used..], pieces)?;
    Ok(())
}

/// What a first message comes to, by the document.
#[derive(Clone, Copy, Debug, PartialEq)]
enum First {
    Hello(Hello),
    /// Another security than is offered.
    Refused,
    /// Wrong, or not all of it is there.
    Nothing,
}

fn expected(wire: &[u8], security: Security) -> First {
    let Some(prelude) = wire.first_chunk::<PRELUDE_LEN>() else {
        return First::Nothing;
    };
    let prelude = match Prelude::decode(prelude) {
        Ok(prelude) => prelude,
        Err(HandshakeError::Version) => {
            return First::Hello(Hello::Unacceptable(RejectCode::Version));
        }
        Err(_) => return First::Nothing,
    };
    if !security.takes(&prelude) {
        return First::Refused;
    }
    let (kind, len) = match prelude.kind {
        Kind::Open => ([0x10, 0, 0, 8], 12),
        Kind::Resume => ([0x12, 0, 0, 44], 48),
    };
    let message = &wire[PRELUDE_LEN..];
    let frame = match security.pattern {
        None => message.get(..len),
        // A key, and the rest in the clear.
        Some(Pattern::Nn) => match message {
            [0, said, message @ ..] if usize::from(*said) == 32 + len => message.get(32..32 + len),
            _ => None,
        },
        // Nobody here could have sealed it.
        Some(_) => None,
    };
    match frame {
        Some(frame) if frame[..4] == kind => First::Hello(match prelude.kind {
            Kind::Open => Hello::Open {
                window: u64_at(frame, 4),
            },
            Kind::Resume => Hello::Resume {
                id: frame[4..20].try_into().expect("16 bytes"),
                attempt: u32_at(frame, 20),
                nonce: frame[24..40].try_into().expect("16 bytes"),
                received: u64_at(frame, 40),
            },
        }),
        _ => First::Nothing,
    }
}

/// What came of a server's handshake.
#[derive(Debug, PartialEq)]
struct Served {
    said: Vec<u8>,
    first: First,
    error: Option<HandshakeError>,
}

fn serve(
    wire: &[u8],
    pieces: Pieces,
    accepts_snet: bool,
    security: Security,
    choice: u8,
) -> Served {
    let mut machine = ServerHandshake::new(accepts_snet);
    let mut first = First::Nothing;
    let mut error = None;
    let mut sealed = None;
    let transcript = drive(&mut machine, wire, pieces, |machine, used| {
        let ServerHandshake::Native(machine) = machine else {
            return false;
        };
        if machine.prelude().is_some() {
            assert!((PRELUDE_LEN..=28).contains(&used));
            if let Err(found) = machine.proceed(security.server()) {
                error = Some(found);
                return false;
            }
            assert_eq!(machine.prelude(), None);
        } else if let Some(records) = machine.take_records() {
            sealed = Some((records, used));
            return false;
        } else if first == First::Nothing
            && let Some(hello) = machine.hello()
        {
            let cover = match security.pattern {
                None => 0,
                Some(pattern) => 2 + pattern.first_len(0),
            };
            match hello {
                Hello::Open { .. } => assert_eq!(used, 28 + cover),
                Hello::Resume { .. } => assert_eq!(used, 64 + cover),
                Hello::Unacceptable(_) => assert!((16..=28).contains(&used)),
            }
            first = First::Hello(hello);
            answer(machine, choice, security.keys);
        } else {
            return false;
        }
        true
    });
    if let ServerHandshake::Native(machine) = &machine {
        assert_eq!(machine.proved(), None, "nobody here has the secret");
    }
    if let Some((mut records, used)) = sealed {
        opens_nothing(&mut records, &wire[used..]);
    }
    let error = error.or(transcript.outcome.err());
    if error == Some(HandshakeError::Security) {
        first = First::Refused;
    }
    let mut said = transcript.said;
    if let (ServerHandshake::Native(machine), Some(_)) = (&mut machine, error) {
        assert_eq!(machine.wanted(), 0, "it was given up");
        machine.reject(RejectCode::BadProof, Duration::ZERO);
        let told = say(machine);
        assert_eq!(machine.wanted(), 0);
        // Whoever asked for a security is told in its second message, or in place of it.
        let sealed = 2 + Pattern::Nn.second_len(REJECT_LEN);
        let possible: &[usize] = match wire.get(..PRELUDE_LEN) {
            Some(prelude) if prelude[..4] != *b"UNBR" => &[0],
            Some(prelude) if prelude[6] != 0 => &[2 + REJECT_LEN, sealed],
            Some(_) => &[REJECT_LEN],
            None => &[0],
        };
        assert!(possible.contains(&told.len()));
        said.extend(told);
    }
    Served { said, first, error }
}

/// Nothing on the wire is a record that somebody has sealed.
fn opens_nothing(records: &mut Records, wire: &[u8]) {
    let Some((len, behind)) = wire.split_first_chunk() else {
        return;
    };
    let len = usize::from(u16::from_be_bytes(*len));
    if let Some(record) = behind.get(..len) {
        let mut plaintext = vec![0; len];
        let opened = records.open(record, &mut plaintext);
        assert_eq!(opened, Err(HandshakeError::Decrypt));
    }
}

fn server(mut input: Unstructured<'_>, accepts_snet: bool, keys: Keys) {
    let choice = byte(&mut input);
    let security = Security::draw(&mut input, keys);
    let pieces = Pieces::draw(&mut input);
    let wire = rest(&mut input);
    let run = |pieces| serve(wire, pieces, accepts_snet, security, choice);
    let served = run(Pieces::WHOLE);
    assert_eq!(run(pieces), served);

    match wire {
        [] => assert_eq!(served.error, None),
        [0x55, ..] => {
            let magic = &b"UNBR"[..wire.len().min(4)];
            let wrong = &wire[..magic.len()] != magic;
            assert_eq!(served.error == Some(HandshakeError::Magic), wrong);
            assert_eq!(served.first, expected(wire, security));
        }
        [0x00 | 0xff, ..] if accepts_snet => assert_eq!(served.first, First::Nothing),
        [first, ..] => assert_eq!(served.error, Some(HandshakeError::FirstByte(*first))),
    }
}

/// Whether what a client was answered is a REJECT, whole.
fn is_reject(wire: &[u8]) -> bool {
    wire.len() >= REJECT_LEN && wire[..4] == REJECT
}

/// What of the wire may be a REJECT: all of it, or what follows a message of length 0.
fn clear(wire: &[u8], security: Security) -> &[u8] {
    match (security.pattern, wire) {
        (None, wire) => wire,
        (Some(_), [0, 0, wire @ ..]) => wire,
        (Some(_), _) => &[],
    }
}

fn open(mut input: Unstructured<'_>, keys: Keys) {
    let window = offset(&mut input);
    let security = Security::draw(&mut input, keys);
    let pieces = Pieces::draw(&mut input);
    let wire = rest(&mut input);
    let run = |pieces| {
        let mut machine = ClientOpen::new(window, security.client());
        let transcript = drive(&mut machine, wire, pieces, |_, _| false);
        let opened = machine.opened();
        assert_eq!(opened.is_some(), machine.confirm().is_some());
        let fields = opened.map(|opened| {
            let Opened {
                id,
                route,
                window,
                resume_window,
                ..
            } = opened;
            (*id, *route, *window, *resume_window)
        });
        let rejected = machine.rejected();
        assert!(machine.take_records().is_none(), "nobody here can seal");
        // What follows a REJECT may be read or not.
        (transcript.said, transcript.outcome.err(), fields, rejected)
    };
    let whole = run(Pieces::WHOLE);
    assert_eq!(run(pieces), whole);
    let (_, _, opened, rejected) = whole;
    let named = security.pattern.is_none() && wire.len() >= 68 && wire[..4] == [0x11, 0, 0, 64];
    let expected = named.then(|| {
        (
            wire[4..20].try_into().expect("16 bytes"),
            u32_at(wire, 52),
            u64_at(wire, 56),
            Duration::from_millis(u32_at(wire, 64).into()),
        )
    });
    assert_eq!(opened, expected);
    assert_eq!(rejected.is_some(), is_reject(clear(wire, security)));
}

fn resume(mut input: Unstructured<'_>, keys: Keys) {
    let received = offset(&mut input);
    let security = Security::draw(&mut input, keys);
    let pieces = Pieces::draw(&mut input);
    let wire = rest(&mut input);
    let run = |pieces| {
        let mut machine = client_resume(received, security);
        let transcript = drive(&mut machine, wire, pieces, |_, _| false);
        let answer = machine.answer();
        assert_eq!(machine.confirm(received), None);
        assert!(machine.take_records().is_none(), "nobody here can seal");
        (transcript.said, transcript.outcome.err(), answer)
    };
    let whole = run(Pieces::WHOLE);
    assert_eq!(run(pieces), whole);
    let (_, _, answer) = whole;
    let rejects = is_reject(clear(wire, security));
    match answer {
        Some(Answer::Resumed { .. }) => panic!("nobody here has the secret"),
        Some(Answer::Rejected(_)) => assert!(rejects && security.pattern.is_none()),
        Some(Answer::RejectedInTheClear(_)) => assert!(rejects && security.pattern.is_some()),
        None => assert!(!rejects),
    }
}

/// Both roles do right, if not always with keys that fit, and somebody in between changes what they say.
fn between(mut input: Unstructured<'_>, keys: Keys) {
    let resumes = pick(&mut input, 2) == 1;
    let security = Security::draw(&mut input, keys);
    let offered = match pick(&mut input, 4) {
        0 => Security::draw(&mut input, keys),
        _ => security,
    };
    let edits = Edits::draw(&mut input);
    let pieces = Pieces::draw(&mut input);
    let received = offset(&mut input);
    let switching = offset(&mut input);
    let mut open = ClientOpen::new(received, security.client());
    let mut resume = client_resume(received, security);
    let mut server = native::ServerHandshake::new();

    let client: &mut dyn Handshake = if resumes { &mut resume } else { &mut open };
    let sent = say(client);
    let mut first = sent.clone();
    edits.make(0, &mut first);
    let fits = security.pattern == offered.pattern;
    if let Err(error) = hear_first(&mut server, &first, pieces, offered) {
        assert!(first != sent || !fits, "{error} though all was right");
        server.reject(RejectCode::BadProof, Duration::ZERO);
    } else {
        match server.hello() {
            Some(Hello::Unacceptable(code)) => {
                assert_ne!(first, sent);
                server.reject(code, Duration::ZERO);
            }
            Some(hello) => {
                let binding = server.binding();
                assert_eq!(binding.security, first[6]);
                let shown = (first[6] == 4).then(|| keys.shown());
                assert_eq!(binding.client_key, shown);
                answer(
                    &mut server,
                    matches!(hello, Hello::Resume { .. }).into(),
                    keys,
                );
            }
            None => return assert_ne!(first, sent),
        }
    }
    let said = say(&mut server);
    let mut second = said.clone();
    edits.make(1, &mut second);
    let heard = hear(client, &second, pieces);

    let (confirm, sealing) = if resumes {
        (resume.confirm(switching), resume.take_records())
    } else {
        (open.confirm(), open.take_records())
    };
    let opening = server.take_records();
    let Some(confirm) = confirm else {
        assert!(
            first != sent || second != said || !fits,
            "nobody changed anything, and the client is not content: {heard:?}"
        );
        return;
    };
    assert!(fits, "the client has taken what is not its security");
    let received = if resumes { switching } else { 0 };
    let Some(mut sealing) = sealing else {
        let mut third = confirm.to_vec();
        edits.make(2, &mut third);
        let proved = match hear(&mut server, &third, pieces) {
            Ok(_) => server.proved(),
            Err(_) => None,
        };
        // The prelude's route is for others, and with security none nothing vouches for it.
        let same = first[..8] == sent[..8] && first[12..] == sent[12..] && second == said;
        let named = second[..52] == said[..52];
        assert!(same || !resumes, "the server has proved what it never saw");
        let right = named && third == confirm;
        assert_eq!(proved, right.then_some(received));
        last_word(server, pieces);
        return;
    };
    assert_eq!((&first, &second), (&sent, &said), "it was sealed");
    let mut opening = opening.expect("the client has the server's second message");
    assert_eq!(opening.hash(), sealing.hash());
    let mut record = vec![0; CONFIRM_LEN + TAG_LEN];
    let len = sealing.seal(&confirm, &mut record).expect("it fits");
    assert_eq!(len, record.len());
    let mut third = record.clone();
    edits.make(2, &mut third);
    let mut plaintext = vec![0; third.len()];
    match opening.open(&third, &mut plaintext) {
        Ok(len) => {
            assert_eq!(third, record, "it was sealed");
            assert_eq!(plaintext[..len], confirm);
            assert_eq!(
                hear(&mut server, &plaintext[..len], pieces),
                Ok(CONFIRM_LEN)
            );
            assert_eq!(server.proved(), Some(received));
            last_word(server, pieces);
        }
        Err(error) => {
            assert_eq!(error, HandshakeError::Decrypt);
            assert_ne!(third, record);
        }
    }
}

/// What a server says in place of taking the link into use: of a session that is over ATTACH and RESET, and else a REJECT.
fn last_word(mut server: native::ServerHandshake, mut pieces: Pieces) {
    let expected = if server.proved().is_some() && pieces.next(2) == 1 {
        server.end(1, 2, 3, 4);
        28 + 8
    } else {
        server.reject(RejectCode::Stale, Duration::ZERO);
        REJECT_LEN
    };
    assert_eq!(say(&mut server).len(), expected);
    server.reject(RejectCode::Busy, Duration::ZERO);
    server.end(1, 2, 3, 4);
    assert_eq!((say(&mut server).len(), server.wanted()), (0, 0));
}

fn misused(mut input: Unstructured<'_>, keys: Keys) {
    let role = pick(&mut input, 3);
    let security = Security::draw(&mut input, keys);
    match role {
        0 => misuse(
            &mut native::ServerHandshake::new(),
            &mut input,
            |machine, action, _| match action % 8 {
                0 | 1 => drop(machine.proceed(security.server())),
                2 => drop(machine.take_records()),
                3 => drop(machine.binding()),
                action => answer(machine, action, keys),
            },
        ),
        1 => misuse(
            &mut ClientOpen::new(1 << 16, security.client()),
            &mut input,
            |machine, _, _| {
                machine.take_records();
                assert!(machine.opened().is_none() || machine.rejected().is_none());
            },
        ),
        _ => misuse(
            &mut client_resume(3, security),
            &mut input,
            |machine, action, _| {
                machine.confirm(action.into());
                machine.take_records();
            },
        ),
    }
}
