//! native's prelude and handshakes, each role: on whatever is said to it, with somebody in between, and called in any order.

#![no_main]

use std::time::Duration;

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use unbroken::{
    HandshakeError, RejectCode,
    protocol::{
        Handshake, ServerHandshake,
        native::{
            self, Answer, CONFIRM_LEN, ClientOpen, ClientResume, Hello, Id, Kind, Opened,
            PRELUDE_LEN, Prelude, SessionSecret, security, suite,
        },
    },
};
use unbroken_fuzz::{
    drive::{Edits, Transcript, drive, hear, misuse, say},
    input::{Pieces, byte, offset, pick, rest},
};

const ID: Id = [7; 16];
const CLIENT_NONCE: [u8; 16] = [0xc1; 16];
const SERVER_NONCE: [u8; 16] = [0x51; 16];
/// What a server that resumes has received.
const RECEIVED: u64 = 6;

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    match pick(&mut input, 6) {
        0 => server(input, true),
        1 => server(input, false),
        2 => open(input),
        3 => resume(input),
        4 => between(input),
        _ => misused(input),
    }
});

fn secret() -> SessionSecret {
    SessionSecret::new([9; 32])
}

fn opened() -> Opened {
    Opened {
        id: ID,
        secret: secret(),
        route: 7,
        window: 1 << 20,
        resume_window: Duration::from_secs(300),
    }
}

fn client_resume(received: u64) -> ClientResume {
    ClientResume::new(ID, &secret(), 7, 1, CLIENT_NONCE, received)
}

/// What a server does with a client that has said what it wants, or more than that.
fn answer(machine: &mut native::ServerHandshake, choice: u8) {
    match choice % 4 {
        0 => machine.open(&opened()),
        1 => machine.resume(&secret(), SERVER_NONCE, RECEIVED),
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

/// The CONFIRM of a client that was given [`opened`].
fn confirm() -> [u8; CONFIRM_LEN] {
    let mut client = ClientOpen::new(0);
    let mut server = native::ServerHandshake::new();
    hear(&mut server, &say(&mut client), Pieces::WHOLE).expect("it is right");
    server.open(&opened());
    hear(&mut client, &say(&mut server), Pieces::WHOLE).expect("it is right");
    client.confirm().expect("it is open")
}

/// What is right about a first message, by the document.
fn expected(wire: &[u8]) -> Option<Hello> {
    let prelude = Prelude::decode(wire.first_chunk::<PRELUDE_LEN>()?);
    let frame = &wire[PRELUDE_LEN..];
    match prelude {
        Ok(prelude) if (prelude.security, prelude.suite) != (security::NONE, suite::NONE) => {
            Some(Hello::Unacceptable(RejectCode::SecurityNotOffered))
        }
        Ok(prelude) => match (prelude.kind, frame.len()) {
            (Kind::Open, 12..) if frame[..4] == [0x10, 0, 0, 8] => Some(Hello::Open {
                window: u64_at(frame, 4),
            }),
            (Kind::Resume, 48..) if frame[..4] == [0x12, 0, 0, 44] => Some(Hello::Resume {
                id: frame[4..20].try_into().expect("16 bytes"),
                attempt: u32_at(frame, 20),
                nonce: frame[24..40].try_into().expect("16 bytes"),
                received: u64_at(frame, 40),
            }),
            _ => None,
        },
        Err(HandshakeError::Version) => Some(Hello::Unacceptable(RejectCode::Version)),
        Err(_) => None,
    }
}

fn server(mut input: Unstructured<'_>, accepts_snet: bool) {
    let choices = [byte(&mut input), byte(&mut input)];
    let pieces = Pieces::draw(&mut input);
    let wire = rest(&mut input);
    let run = |pieces| {
        let mut machine = ServerHandshake::new(accepts_snet);
        let mut found = None;
        let mut proved = None;
        let mut used_for_hello = 0;
        let transcript = drive(&mut machine, wire, pieces, |machine, used| {
            let ServerHandshake::Native(machine) = machine else {
                return;
            };
            if let Some(hello) = machine.hello() {
                found = Some(hello);
                used_for_hello = used;
                answer(machine, choices[0]);
            } else if let Some(received) = machine.proved() {
                proved = Some(received);
                answer(machine, choices[1]);
            }
        });
        match found {
            Some(Hello::Open { .. }) => assert_eq!(used_for_hello, 28),
            Some(Hello::Resume { .. }) => assert_eq!(used_for_hello, 64),
            Some(Hello::Unacceptable(_)) => assert!((16..=28).contains(&used_for_hello)),
            None => {}
        }
        if let (ServerHandshake::Native(machine), Err(_)) = (&mut machine, &transcript.outcome) {
            assert_eq!(machine.wanted(), 0, "it was given up");
            machine.reject(RejectCode::BadProof, Duration::ZERO);
            let said = say(machine);
            let knows = wire.len() >= PRELUDE_LEN && wire[..4] == *b"UNBR";
            assert_eq!(!said.is_empty(), knows);
            assert_eq!(machine.wanted(), 0);
        }
        (transcript, found, proved)
    };
    let (transcript, found, proved) = run(Pieces::WHOLE);
    let again = run(pieces);
    assert_eq!(again.0.said, transcript.said);
    if !matches!(found, Some(Hello::Unacceptable(_))) {
        // Behind what is not to be understood, more or less of it may have been read.
        assert_eq!(again.0.outcome, transcript.outcome);
    }
    assert_eq!((again.1, again.2), (found, proved));

    match wire {
        [] => assert_eq!(transcript.outcome, Ok(0)),
        [0x55, ..] => {
            assert_eq!(found, expected(wire));
            let magic = &b"UNBR"[..wire.len().min(4)];
            let wrong = &wire[..magic.len()] != magic;
            assert_eq!(transcript.outcome == Err(HandshakeError::Magic), wrong);
            let answered = found.is_some() && !transcript.said.is_empty();
            assert!(transcript.said.is_empty() || answered);
        }
        [0x00 | 0xff, ..] if accepts_snet => assert_eq!(found, None),
        [first, ..] => {
            let outcome = Err(HandshakeError::FirstByte(*first));
            assert_eq!(transcript.outcome, outcome);
        }
    }
    if let (Some(Hello::Open { .. }), 0) = (found, choices[0] % 4) {
        let right = wire.get(28..28 + CONFIRM_LEN) == Some(&confirm()[..]);
        assert_eq!(proved, right.then_some(0));
    } else {
        // Fixed nonces can be answered by one who has the secret, and who is not here.
        assert_eq!(proved, None);
    }
}

/// Whether what a client was answered is a REJECT, whole.
fn is_reject(wire: &[u8]) -> bool {
    wire.len() >= 10 && wire[..4] == [0x15, 0, 0, 6]
}

fn check_client(whole: &Transcript, again: &Transcript, wire: &[u8], reply: usize, first: u8) {
    assert_eq!(again.said, whole.said);
    match (&whole.outcome, &again.outcome) {
        // What follows a REJECT is read or not.
        (Ok(_), Ok(_)) if is_reject(wire) => {}
        (whole, again) => assert_eq!(whole, again),
    }
    match wire {
        [kind, ..] if *kind != first && *kind != 0x15 && wire.len() >= 4 => {
            assert!(whole.outcome.is_err());
        }
        _ => {}
    }
    if let Ok(used) = whole.outcome {
        assert!(used <= reply, "more than the answer was read");
    }
}

fn open(mut input: Unstructured<'_>) {
    let window = offset(&mut input);
    let pieces = Pieces::draw(&mut input);
    let wire = rest(&mut input);
    let run = |pieces| {
        let mut machine = ClientOpen::new(window);
        let transcript = drive(&mut machine, wire, pieces, |_, _| {});
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
        (transcript, fields, machine.rejected())
    };
    let (transcript, opened, rejected) = run(Pieces::WHOLE);
    let again = run(pieces);
    check_client(&transcript, &again.0, wire, 68, 0x11);
    assert_eq!((again.1, again.2), (opened, rejected));
    let expected = (wire.len() >= 68 && wire[..4] == [0x11, 0, 0, 64]).then(|| {
        (
            wire[4..20].try_into().expect("16 bytes"),
            u32_at(wire, 52),
            u64_at(wire, 56),
            Duration::from_millis(u32_at(wire, 64).into()),
        )
    });
    assert_eq!(opened, expected);
    assert_eq!(rejected.is_some(), is_reject(wire));
}

fn resume(mut input: Unstructured<'_>) {
    let received = offset(&mut input);
    let pieces = Pieces::draw(&mut input);
    let wire = rest(&mut input);
    let run = |pieces| {
        let mut machine = client_resume(received);
        let transcript = drive(&mut machine, wire, pieces, |_, _| {});
        let answer = machine.answer();
        let resumed = matches!(answer, Some(Answer::Resumed { .. }));
        assert_eq!(resumed, machine.confirm(received).is_some());
        (transcript, answer)
    };
    let (transcript, answer) = run(Pieces::WHOLE);
    let again = run(pieces);
    check_client(&transcript, &again.0, wire, 60, 0x13);
    assert_eq!(again.1, answer);
    // What a server that holds the secret answers, with the nonce and the count of the wire.
    let right = wire.len() >= 60 && {
        let mut server = native::ServerHandshake::new();
        hear(&mut server, &say(&mut client_resume(received)), pieces).expect("it is right");
        let nonce = wire[4..20].try_into().expect("16 bytes");
        server.resume(&secret(), nonce, u64_at(wire, 20));
        say(&mut server) == wire[..60]
    };
    match answer {
        Some(Answer::Resumed { received }) => {
            assert!(right);
            assert_eq!(received, u64_at(wire, 20));
        }
        Some(Answer::Rejected(_)) => assert!(is_reject(wire)),
        None => assert!(!right && !is_reject(wire)),
    }
}

/// Both roles do right, and somebody in between changes what they say.
fn between(mut input: Unstructured<'_>) {
    let resumes = pick(&mut input, 2) == 1;
    let edits = Edits::draw(&mut input);
    let pieces = Pieces::draw(&mut input);
    let received = offset(&mut input);
    let switching = offset(&mut input);
    let mut open = ClientOpen::new(received);
    let mut resume = client_resume(received);
    let mut server = ServerHandshake::new(false);

    let client: &mut dyn Handshake = if resumes { &mut resume } else { &mut open };
    let sent = say(client);
    let mut first = sent.clone();
    edits.make(0, &mut first);
    if hear(&mut server, &first, pieces).is_err() {
        return assert_ne!(first, sent, "a client's first message is right");
    }
    let ServerHandshake::Native(mut server) = server else {
        panic!("it has heard native's first byte");
    };
    match server.hello() {
        Some(Hello::Open { window }) => {
            assert_eq!(window, u64_at(&first, 20));
            answer(&mut server, 0);
        }
        Some(Hello::Resume { .. }) => answer(&mut server, 1),
        Some(Hello::Unacceptable(code)) => {
            assert_ne!(first, sent);
            server.reject(code, Duration::ZERO);
        }
        None => return assert_ne!(first, sent),
    }
    let said = say(&mut server);
    let mut second = said.clone();
    edits.make(1, &mut second);
    let heard = hear(client, &second, pieces);

    let confirm = if resumes {
        resume.confirm(switching)
    } else {
        open.confirm()
    };
    let Some(confirm) = confirm else {
        assert!(
            first != sent || second != said,
            "nobody changed anything, and the client is not content: {heard:?}"
        );
        return;
    };
    let mut third = confirm.to_vec();
    edits.make(2, &mut third);
    let proved = match hear(&mut server, &third, pieces) {
        Ok(()) => server.proved(),
        Err(_) => None,
    };
    // The prelude's route is for others, and with security none nothing vouches for it.
    let route = first[..8] == sent[..8] && first[12..16] == sent[12..16];
    if resumes {
        assert!(route && first[16..] == sent[16..], "a request was changed");
        assert_eq!(second, said, "an answer was changed");
        assert_eq!(proved, (third == confirm).then_some(switching));
    } else {
        let named = second[..52] == said[..52];
        assert_eq!(proved, (named && third == confirm).then_some(0));
    }
}

fn misused(mut input: Unstructured<'_>) {
    match pick(&mut input, 3) {
        0 => misuse(
            &mut native::ServerHandshake::new(),
            &mut input,
            |machine, action, _| answer(machine, action),
        ),
        1 => misuse(
            &mut ClientOpen::new(1 << 16),
            &mut input,
            |machine, _, _| assert!(machine.opened().is_none() || machine.rejected().is_none()),
        ),
        _ => misuse(&mut client_resume(3), &mut input, |machine, action, _| {
            machine.confirm(action.into());
        }),
    }
}
