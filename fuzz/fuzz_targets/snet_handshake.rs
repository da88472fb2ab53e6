//! snet's handshakes, each role: on whatever is said to it, with somebody in between, and called in any order.

#![no_main]

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use unbroken::{
    HandshakeError,
    protocol::{
        Handshake, ServerHandshake,
        snet::{
            self, Challenge, ClientOpen, ClientResume, Counts, Hello, KeyAgreement, Opened,
            PrivateKey, PublicKey, ResumeReply, SessionKey,
        },
    },
};
use unbroken_fuzz::{
    drive::{Edits, drive, hear, misuse, say},
    input::{Pieces, offset, pick, rest},
};

const ID: u64 = 0x0102_0304_0506_0708;
const CHALLENGE: u64 = 0x1112_1314_1516_1718;
/// Whatever the other end's public key, so that a proof is always the same.
const KEY: [u8; 8] = *b"8 bytes.";

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

fn known() -> KeyAgreement {
    let public = PrivateKey::new(77).expect("not 0").public();
    KeyAgreement::Known(public, SessionKey::new(KEY))
}

fn private() -> KeyAgreement {
    KeyAgreement::Private(PrivateKey::new(0x0123_4567_89ab_cdef).expect("not 0"))
}

fn session() -> Opened {
    Opened {
        id: ID,
        key: SessionKey::new(KEY),
    }
}

fn challenge() -> Challenge {
    Challenge::new(CHALLENGE).expect("not 0")
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn counts(bytes: &[u8], at: usize) -> Counts {
    Counts {
        sent: number(bytes, at),
        received: number(bytes, at + 8),
    }
}

/// The message 3 of whoever holds [`KEY`].
fn proof() -> Vec<u8> {
    let mut client = ClientResume::new(&session(), Counts::default());
    let mut server = snet::ServerHandshake::new();
    hear(&mut server, &say(&mut client), Pieces::WHOLE).expect("it is right");
    server.resume(&session().key, Counts::default(), challenge());
    hear(&mut client, &say(&mut server), Pieces::WHOLE).expect("it is right");
    client.confirm();
    say(&mut client)
}

/// What a server answers.
fn answer(server: &mut snet::ServerHandshake, choice: u8, own: Counts) {
    match choice {
        0 => {
            server.open(&known(), ID, CHALLENGE);
        }
        1 => {
            server.open(&private(), ID, CHALLENGE);
        }
        2 => server.resume(&SessionKey::new(KEY), own, challenge()),
        _ => server.refuse(),
    }
}

fn server(mut input: Unstructured<'_>, accepts_snet: bool) {
    let choice = pick(&mut input, 4);
    let pieces = Pieces::draw(&mut input);
    let wire = rest(&mut input);
    let own = Counts {
        sent: 5,
        received: 6,
    };
    let run = |pieces| {
        let mut machine = ServerHandshake::new(accepts_snet);
        let mut answered = false;
        let transcript = drive(&mut machine, wire, pieces, |machine, used| {
            let ServerHandshake::Snet(machine) = machine else {
                return false;
            };
            match machine.hello() {
                None => return false,
                Some(Hello::Open(public)) => {
                    assert_eq!((used, wire[0]), (9, 0x00));
                    let expected = wire[1..9].try_into().expect("8 bytes");
                    assert_eq!(Some(public), PublicKey::from_bytes(expected));
                }
                Some(Hello::Resume(request)) => {
                    assert_eq!((used, wire[0]), (41, 0xff));
                    assert_eq!(request.id, number(wire, 1));
                    assert_eq!(request.counts, counts(wire, 9));
                    let right = ClientResume::new(
                        &Opened {
                            id: request.id,
                            ..session()
                        },
                        request.counts,
                    );
                    let verified = request.verify(&SessionKey::new(KEY));
                    assert_eq!(verified, wire[..41] == *right.transmit());
                }
            }
            answer(machine, choice, own);
            !std::mem::replace(&mut answered, true)
        });
        let proved = matches!(&machine, ServerHandshake::Snet(machine) if machine.is_proved());
        (transcript, proved)
    };
    let (transcript, proved) = run(Pieces::WHOLE);
    let (first, accepted) = match wire {
        [] => return assert_eq!(transcript.outcome, Ok(0)),
        [0x55, ..] => return assert!(!proved),
        [first, ..] => (*first, accepts_snet && [0x00, 0xff].contains(first)),
    };
    // native's may read on behind what it cannot understand, depending on how that comes in.
    assert_eq!(run(pieces), (transcript, proved));
    let (transcript, _) = run(pieces);
    if !accepted {
        assert_eq!(transcript.outcome, Err(HandshakeError::FirstByte(first)));
        return;
    }
    let request = if first == 0 { 9 } else { 41 };
    if wire.len() < request {
        assert_eq!(transcript.outcome, Ok(wire.len()));
        assert_eq!(transcript.said, []);
        return;
    }
    let zero = first == 0 && PublicKey::from_bytes(wire[1..9].try_into().unwrap()).is_none();
    if zero {
        assert_eq!(transcript.outcome, Err(HandshakeError::ZeroPublicKey));
        return;
    }
    match (first, choice) {
        // A private key's proof is not known here.
        (0x00, 1) => assert_eq!(transcript.said.len(), 24),
        (0x00, 0) | (0xff, 2) => {
            assert_eq!(transcript.said.len(), 24);
            let third = &wire[request..wire.len().min(request + 16)];
            let expected = match third.len() {
                16 if third == proof() => Ok(request + 16),
                16 => Err(HandshakeError::Proof),
                some => Ok(request + some),
            };
            assert_eq!(transcript.outcome, expected);
            assert_eq!(proved, third == proof());
        }
        (0xff, 3) => assert_eq!(transcript.said, [0; 24]),
        // Answers to something else.
        _ => assert_eq!(transcript.said, []),
    }
}

fn open(mut input: Unstructured<'_>) {
    let pieces = Pieces::draw(&mut input);
    let wire = rest(&mut input);
    for agreement in [known, private] {
        let run = |pieces| {
            let mut machine = ClientOpen::new(agreement());
            let transcript = drive(&mut machine, wire, pieces, |_, _| false);
            (transcript, machine.opened().map(|opened| opened.id))
        };
        let (transcript, id) = run(Pieces::WHOLE);
        let public = wire
            .first_chunk()
            .map(|bytes| PublicKey::from_bytes(*bytes));
        let (said, outcome) = match public {
            _ if wire.len() < 24 => (9, Ok(wire.len())),
            Some(None) => (9, Err(HandshakeError::ZeroPublicKey)),
            _ => (9 + 16, Ok(24)),
        };
        assert_eq!(transcript.said.len(), said);
        assert_eq!(transcript.outcome, outcome);
        assert_eq!(id.is_some(), said > 9);
        assert_eq!(run(pieces), (transcript, id));
    }
}

fn resume(mut input: Unstructured<'_>) {
    let own = Counts {
        sent: offset(&mut input),
        received: offset(&mut input),
    };
    let pieces = Pieces::draw(&mut input);
    let wire = rest(&mut input);
    let run = |pieces| {
        let mut machine = ClientResume::new(&session(), own);
        let mut confirmed = false;
        let transcript = drive(&mut machine, wire, pieces, |machine, _| {
            if confirmed || machine.reply().is_none() {
                return false;
            }
            confirmed = true;
            machine.confirm();
            true
        });
        (transcript, machine.reply())
    };
    let (transcript, reply) = run(Pieces::WHOLE);
    let (said, outcome, expected) = match wire.first_chunk::<24>() {
        None => (41, Ok(wire.len()), None),
        Some(reply) if *reply == [0; 24] => (41, Ok(24), Some(ResumeReply::Refused)),
        Some(reply) => match Challenge::new(number(reply, 16)) {
            None => (41, Err(HandshakeError::OutOfPlace), None),
            Some(challenge) => {
                let counts = counts(reply, 0);
                let granted = ResumeReply::Granted { counts, challenge };
                (41 + 16, Ok(24), Some(granted))
            }
        },
    };
    assert_eq!(transcript.said.len(), said);
    assert_eq!((transcript.outcome, reply), (outcome, expected));
    assert_eq!(run(pieces), (transcript, reply));
}

/// Both roles do right, and somebody in between changes what they say.
fn between(mut input: Unstructured<'_>) {
    let resumes = pick(&mut input, 2) == 1;
    let edits = Edits::draw(&mut input);
    let pieces = Pieces::draw(&mut input);
    let own = Counts {
        sent: offset(&mut input),
        received: offset(&mut input),
    };
    let mut open = ClientOpen::new(if pick(&mut input, 2) == 0 {
        known()
    } else {
        private()
    });
    let is_known = open.transmit()[1..] == known().public().to_bytes();
    let mut resume = ClientResume::new(&session(), own);
    let mut server = ServerHandshake::new(true);

    let client: &mut dyn Handshake = if resumes { &mut resume } else { &mut open };
    let sent = say(client);
    let mut first = sent.clone();
    edits.make(0, &mut first);
    if hear(&mut server, &first, pieces).is_err() {
        return assert_ne!(first, sent, "a client's first message is right");
    }
    let ServerHandshake::Snet(mut server) = server else {
        return assert_ne!(first[0], sent[0]);
    };
    match server.hello() {
        None => return assert_ne!(first[0], sent[0]),
        Some(Hello::Open(_)) => {
            answer(&mut server, if is_known { 0 } else { 1 }, own);
        }
        Some(Hello::Resume(request)) => {
            assert_eq!(request.verify(&session().key), resumes && first == sent);
            answer(&mut server, 2, own);
        }
    }
    let said = say(&mut server);
    let mut second = said.clone();
    edits.make(1, &mut second);
    let heard = hear(client, &second, pieces);
    if resumes {
        resume.confirm();
    }
    let client: &mut dyn Handshake = if resumes { &mut resume } else { &mut open };
    let confirm = say(client);
    let mut third = confirm.clone();
    edits.make(2, &mut third);
    let proved = hear(&mut server, &third, pieces).is_ok() && server.is_proved();

    let same = [first == sent, second[16..] == said[16..], third == confirm];
    if [first == sent, second == said, third == confirm] == [true; 3] {
        assert_eq!(heard, Ok(24));
        assert!(proved, "nobody changed anything");
        assert!(resumes || open.opened().is_some_and(|opened| opened.id == ID));
    } else if !same[1] || !same[2] {
        assert!(!proved, "a proof that was changed, or of something else");
    }
}

fn misused(mut input: Unstructured<'_>) {
    let own = Counts::default();
    match pick(&mut input, 3) {
        0 => misuse(
            &mut snet::ServerHandshake::new(),
            &mut input,
            |machine, action, _| answer(machine, action % 4, own),
        ),
        1 => misuse(
            &mut ClientOpen::new(private()),
            &mut input,
            |machine, _, _| assert!(machine.opened().is_none_or(|opened| opened.id != 1)),
        ),
        _ => misuse(
            &mut ClientResume::new(&session(), own),
            &mut input,
            |machine, _, _| machine.confirm(),
        ),
    }
}
