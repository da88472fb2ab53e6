//! Noise: only what the other end has sealed opens, each record once and in its place; anything else is an error, and the last thing
//! that its end takes.

#![no_main]

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use unbroken::{
    HandshakeError,
    protocol::noise::{Initiator, MAX_PLAINTEXT, Pattern, Records, Responder, Suite, TAG_LEN},
};
use unbroken_fuzz::{
    input::{byte, pick, rest, size},
    keys::Keys,
};

const PROLOGUE: &[u8] = b"UNBR prologue";

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let link = Link {
        pattern: Pattern::ALL[usize::from(pick(&mut input, 4))],
        suite: Suite::ALL[usize::from(pick(&mut input, 2))],
        keys: Keys::of(data),
    };
    match pick(&mut input, 4) {
        0 => first(input, link),
        1 => second(input, link),
        2 => between(input, link),
        _ => records(input, link),
    }
});

#[derive(Clone, Copy)]
struct Link {
    pattern: Pattern,
    suite: Suite,
    keys: Keys,
}

impl Link {
    fn initiator(self) -> Initiator {
        let [ephemeral, _] = self.keys.ephemeral();
        let keys = self.keys.client(self.pattern);
        Initiator::new(keys, self.suite, PROLOGUE, ephemeral)
    }

    fn responder(self) -> Responder {
        let [_, ephemeral] = self.keys.ephemeral();
        let keys = self.keys.server(self.pattern);
        Responder::new(keys, self.suite, PROLOGUE, ephemeral)
    }
}

/// A server is told anything.
fn first(mut input: Unstructured<'_>, link: Link) {
    let message = rest(&mut input);
    let mut server = link.responder();
    match server.first(message) {
        // In the clear, as far as it goes.
        Ok(payload) if link.pattern == Pattern::Nn => assert_eq!(payload, message[32..]),
        Ok(_) => panic!("{:?} takes what nobody sealed", link.pattern),
        Err(error) => assert_eq!(error, HandshakeError::Decrypt),
    }
}

/// A client is told anything.
fn second(mut input: Unstructured<'_>, link: Link) {
    let mut client = link.initiator();
    client.first(b"first").expect("it is the first");
    let answered = client.second(rest(&mut input));
    assert_eq!(answered.err(), Some(HandshakeError::Decrypt));
}

/// Somebody changes one byte of a handshake, or its length.
fn between(mut input: Unstructured<'_>, link: Link) {
    let payload = vec![7; size(&mut input).min(200)];
    let mut client = link.initiator();
    let mut server = link.responder();
    let sent = client.first(&payload).expect("it is the first");
    assert_eq!(sent.len(), link.pattern.first_len(payload.len()));
    let got = change(&sent, &mut input);
    let heard = server.first(&got);
    if got == sent {
        assert_eq!(heard, Ok(payload.clone()));
        assert_eq!(client.hash(), server.hash());
    } else if link.pattern != Pattern::Nn {
        return assert_eq!(heard, Err(HandshakeError::Decrypt));
    } else if heard.is_err() {
        return;
    }
    let (said, server) = server.second(&payload).expect("the first is in");
    assert_eq!(said.len(), link.pattern.second_len(payload.len()));
    let answer = change(&said, &mut input);
    let heard = client.second(&answer);
    if got == sent && answer == said {
        let (heard, client) = heard.expect("nobody changed anything");
        assert_eq!(heard, payload);
        assert_eq!(client.hash(), server.hash());
    } else {
        assert_eq!(heard.err(), Some(HandshakeError::Decrypt));
    }
}

/// With one byte changed, shorter or longer, or as it is.
fn change(message: &[u8], input: &mut Unstructured<'_>) -> Vec<u8> {
    let mut message = message.to_vec();
    match pick(input, 4) {
        0 => {}
        1 => {
            let at = size(input);
            let change = byte(input);
            if let Some(byte) = message.get_mut(at) {
                // The top bit of a public key is nobody's.
                *byte ^= if at == 31 { change & 0x7f } else { change };
            }
        }
        2 => message.truncate(size(input)),
        _ => message.resize(message.len() + pick(input, 40) as usize, 0),
    }
    message
}

/// One direction of a link, between an end that seals and one that opens.
struct Direction {
    /// What was sealed, with its plaintext.
    sealed: Vec<(Vec<u8>, Vec<u8>)>,
    opened: usize,
    broken: bool,
}

impl Direction {
    /// What opens is the next record, and only before anything did not.
    fn open(&mut self, records: &mut Records, record: &[u8], tight: bool) {
        let room = if tight {
            record.len().saturating_sub(TAG_LEN)
        } else {
            record.len()
        };
        let mut plaintext = vec![0; room];
        let result = records.open(record, &mut plaintext);
        let next = self.sealed.get(self.opened);
        match next.filter(|(sealed, _)| sealed == record && !self.broken) {
            Some((_, expected)) => {
                assert_eq!(result.map(|len| &plaintext[..len]), Ok(&expected[..]));
                self.opened += 1;
            }
            None => {
                assert_eq!(result, Err(HandshakeError::Decrypt));
                self.broken = true;
                let leaks = |(_, secret): &(Vec<u8>, Vec<u8>)| {
                    secret.len() >= 8 && plaintext.windows(8).any(|found| found == &secret[..8])
                };
                assert!(
                    !self.sealed.iter().any(leaks),
                    "what did not open can be read"
                );
            }
        }
    }
}

fn records(mut input: Unstructured<'_>, link: Link) {
    let mut client = link.initiator();
    let mut server = link.responder();
    let message = client.first(b"").expect("it is the first");
    server.first(&message).expect("it is right");
    let (message, server) = server.second(b"").expect("the first is in");
    let (_, client) = client.second(&message).expect("it is right");
    let mut ends = [client, server];
    let mut directions = [0, 1].map(|_| Direction {
        sealed: Vec::new(),
        opened: 0,
        broken: false,
    });
    let mut left = 1 << 18;
    while !input.is_empty() {
        let action = byte(&mut input);
        let from = usize::from(action >> 7);
        let tight = action & 0x40 != 0;
        let direction = &directions[from];
        let oldest = direction.opened;
        match action & 0x07 {
            0 | 1 => {
                let count = size(&mut input).min(MAX_PLAINTEXT + 2);
                let mut record = vec![0; count + TAG_LEN];
                let seed = direction.sealed.len() as u8;
                let mixed = |at: usize| (at as u8).wrapping_mul(31) ^ (at >> 8) as u8;
                let plaintext: Vec<u8> = (0..count)
                    .map(|at| mixed(at) ^ seed.wrapping_mul(77) ^ 0x5a)
                    .collect();
                if count > left {
                    return;
                }
                left -= count;
                let sealed = ends[from].seal(&plaintext, &mut record);
                if count > MAX_PLAINTEXT {
                    assert_eq!(sealed, Err(HandshakeError::OutOfPlace));
                } else {
                    assert_eq!(sealed, Ok(count + TAG_LEN));
                    directions[from].sealed.push((record, plaintext));
                }
            }
            // The next one, most of the time.
            2 | 3 => {
                if let Some((record, _)) = direction.sealed.get(oldest).cloned() {
                    directions[from].open(&mut ends[1 - from], &record, tight);
                }
            }
            // Any of them: one before, or before its time.
            4 => {
                let at = usize::from(byte(&mut input));
                if let Some((record, _)) = direction.sealed.get(at).cloned() {
                    directions[from].open(&mut ends[1 - from], &record, tight);
                }
            }
            // The next one, with something wrong.
            5 => {
                if let Some((record, _)) = direction.sealed.get(oldest).cloned() {
                    let record = change(&record, &mut input);
                    directions[from].open(&mut ends[1 - from], &record, tight);
                }
            }
            // Its own.
            6 => {
                let at = usize::from(byte(&mut input));
                if let Some((record, _)) = directions[1 - from].sealed.get(at).cloned() {
                    directions[from].open(&mut ends[1 - from], &record, tight);
                }
            }
            _ => {
                let count = usize::from(byte(&mut input)).min(input.len());
                let record = input.bytes(count).unwrap_or(&[]);
                directions[from].open(&mut ends[1 - from], record, tight);
            }
        }
    }
}
