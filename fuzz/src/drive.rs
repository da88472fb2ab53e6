//! A handshake, driven by its contract.

use arbitrary::Unstructured;
use unbroken::{HandshakeError, protocol::Handshake};

use crate::input::{Pieces, byte, pick};

/// The most bytes one message of either protocol has: native's RESUME in a message of Noise IK, behind the prelude.
pub const LONGEST: usize = 162;

/// What a machine said and took.
#[derive(Debug, PartialEq, Eq)]
pub struct Transcript {
    /// What it transmitted.
    pub said: Vec<u8>,
    /// How many bytes of the wire it took, if it liked all of them.
    pub outcome: Result<usize, HandshakeError>,
}

/// Drives `machine` with what is on the `wire` until it needs no more, the wire is at its end, or something is wrong with it.
///
/// `decide` is called with the number of bytes taken so far whenever the machine neither has anything to say nor wants anything. It
/// says whether it has done anything about that.
pub fn drive<H: Handshake>(
    machine: &mut H,
    wire: &[u8],
    mut pieces: Pieces,
    mut decide: impl FnMut(&mut H, usize) -> bool,
) -> Transcript {
    let mut said = Vec::new();
    let mut used = 0;
    loop {
        let out = machine.transmit();
        assert!(out.len() <= LONGEST, "more to say than a message is long");
        assert!(machine.wanted() <= LONGEST, "more than a message wanted");
        if !out.is_empty() {
            assert_eq!(machine.wanted(), 0, "it has the word, and wants to hear");
            let count = pieces.next(out.len());
            said.extend(&out[..count]);
            machine.transmitted(count);
        } else if machine.wanted() > 0 {
            let count = pieces.next(machine.wanted().min(wire.len() - used));
            if count == 0 {
                break;
            }
            if let Err(error) = machine.receive(&wire[used..used + count]) {
                return Transcript {
                    said,
                    outcome: Err(error),
                };
            }
            used += count;
        } else if !decide(machine, used) {
            break;
        }
    }
    Transcript {
        said,
        outcome: Ok(used),
    }
}

/// Takes everything that `machine` has to say.
pub fn say(machine: &mut (impl Handshake + ?Sized)) -> Vec<u8> {
    let said = machine.transmit().to_vec();
    assert!(said.len() <= LONGEST, "more to say than a message is long");
    machine.transmitted(said.len());
    said
}

/// Hands `message` over, in these pieces, until the machine wants no more or finds something wrong. Returns how much it took.
pub fn hear(
    machine: &mut (impl Handshake + ?Sized),
    message: &[u8],
    mut pieces: Pieces,
) -> Result<usize, HandshakeError> {
    let mut used = 0;
    while used < message.len() && machine.wanted() > 0 {
        let count = pieces.next(machine.wanted().min(message.len() - used));
        machine.receive(&message[used..used + count])?;
        used += count;
    }
    Ok(used)
}

/// Bytes that somebody changes on their way: which message, which byte of it, and how.
#[derive(Clone, Debug, Default)]
pub struct Edits(Vec<[u8; 3]>);

impl Edits {
    /// Draws up to 3.
    pub fn draw(input: &mut Unstructured<'_>) -> Self {
        let count = pick(input, 4);
        let edit = |_| std::array::from_fn(|_| byte(input));
        Self((0..count).map(edit).collect())
    }

    /// Makes those of message `number`.
    pub fn make(&self, number: u8, message: &mut [u8]) {
        for [of, at, change] in &self.0 {
            if of % 3 == number
                && let Some(byte) = message.get_mut(usize::from(*at))
            {
                *byte ^= change;
            }
        }
    }
}

/// Calls whatever there is to call, in any order, as no driver does: it may make no sense, but it is no panic.
pub fn misuse<H: Handshake>(
    machine: &mut H,
    input: &mut Unstructured<'_>,
    mut act: impl FnMut(&mut H, u8, &mut Unstructured<'_>),
) {
    while !input.is_empty() {
        match byte(input) {
            0..64 => {
                let count = usize::from(byte(input)).min(input.len());
                let bytes = input.bytes(count).unwrap_or(&[]);
                // More than it wants, at times.
                let _ = machine.receive(bytes);
            }
            64..128 => machine.transmitted(byte(input).into()),
            action => act(machine, action, input),
        }
        assert!(machine.transmit().len() <= LONGEST);
        assert!(machine.wanted() <= LONGEST);
    }
}
