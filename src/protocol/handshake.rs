//! What every handshake has in common, whichever protocol it belongs to.

use std::fmt;

use zeroize::Zeroize;

use super::{native, snet};
use crate::error::HandshakeError;

/// The most bytes a machine transmits or receives before the other side has the word: native's RESUME in a Noise IK message, behind its
/// prelude.
pub(crate) const LONGEST: usize = 162;

/// A handshake under way.
///
/// The driver writes what [`transmit`](Self::transmit) gives until it gives nothing, then reads at most
/// [`wanted`](Self::wanted) bytes and hands them to [`receive`](Self::receive), and so on; what each role asks of its driver in
/// between stands with the role. It never wants a byte beyond the handshake, so whatever follows stays in the link. `wanted` is 0
/// while the machine has something to transmit, waits for a decision, or is at its end.
pub trait Handshake {
    /// What is to be written next.
    fn transmit(&self) -> &[u8];
    /// `count` bytes of [`transmit`](Self::transmit) have been written.
    fn transmitted(&mut self, count: usize);
    /// The most bytes that may be read now.
    fn wanted(&self) -> usize;
    /// Takes bytes that were read.
    ///
    /// # Errors
    ///
    /// What the peer did wrong; the link is to be closed.
    fn receive(&mut self, bytes: &[u8]) -> Result<(), HandshakeError>;
}

/// A server on a new link, whichever protocol the client speaks: the first byte tells.
///
/// It is carried on until it is one of the two, which the driver takes out and carries on. Until then it wants no byte beyond
/// the shortest first message.
#[derive(Debug)]
pub enum ServerHandshake {
    /// The client has said nothing yet.
    Silent {
        /// Whether a client may speak snet.
        accepts_snet: bool,
    },
    /// The client speaks snet.
    Snet(snet::ServerHandshake),
    /// The client speaks the native protocol.
    Native(native::ServerHandshake),
}

impl ServerHandshake {
    /// Waits for a client's first byte, which is native's; or snet's too, if that is accepted.
    pub fn new(accepts_snet: bool) -> Self {
        Self::Silent { accepts_snet }
    }
}

impl Handshake for ServerHandshake {
    fn transmit(&self) -> &[u8] {
        match self {
            Self::Silent { .. } => &[],
            Self::Snet(machine) => machine.transmit(),
            Self::Native(machine) => machine.transmit(),
        }
    }

    fn transmitted(&mut self, count: usize) {
        match self {
            Self::Silent { .. } => {}
            Self::Snet(machine) => machine.transmitted(count),
            Self::Native(machine) => machine.transmitted(count),
        }
    }

    fn wanted(&self) -> usize {
        match self {
            Self::Silent { accepts_snet: true } => snet::ServerHandshake::SHORTEST,
            Self::Silent {
                accepts_snet: false,
            } => native::ServerHandshake::SHORTEST,
            Self::Snet(machine) => machine.wanted(),
            Self::Native(machine) => machine.wanted(),
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        if let (Self::Silent { accepts_snet }, [first, ..]) = (&self, bytes) {
            *self = match *first {
                native::FIRST_BYTE => Self::Native(native::ServerHandshake::new()),
                snet::OPEN | snet::RESUME if *accepts_snet => {
                    Self::Snet(snet::ServerHandshake::new())
                }
                other => return Err(HandshakeError::FirstByte(other)),
            };
        }
        match self {
            Self::Silent { .. } => Ok(()),
            Self::Snet(machine) => machine.receive(bytes),
            Self::Native(machine) => machine.receive(bytes),
        }
    }
}

/// The bytes of a handshake: one message going out, then one coming in.
pub(super) struct Wire {
    out: [u8; LONGEST],
    out_len: usize,
    written: usize,
    inbound: [u8; LONGEST],
    expected: usize,
    read: usize,
}

impl Wire {
    /// Sends `message`, then expects one of `expected` bytes.
    pub(super) fn new(message: &[u8], expected: usize) -> Self {
        let mut wire = Self {
            out: [0; LONGEST],
            out_len: 0,
            written: 0,
            inbound: [0; LONGEST],
            expected: 0,
            read: 0,
        };
        wire.send(message, expected);
        wire
    }

    pub(super) fn send(&mut self, message: &[u8], expected: usize) {
        self.out[..message.len()].copy_from_slice(message);
        self.out_len = message.len();
        self.written = 0;
        self.expected = expected;
        self.read = 0;
    }

    /// Sends `more` behind the message that is going out.
    pub(super) fn append(&mut self, more: &[u8]) {
        self.out[self.out_len..self.out_len + more.len()].copy_from_slice(more);
        self.out_len += more.len();
    }

    /// Changes how long the message being received will be.
    pub(super) fn expect(&mut self, expected: usize) {
        self.expected = expected;
    }

    pub(super) fn transmit(&self) -> &[u8] {
        &self.out[self.written..self.out_len]
    }

    pub(super) fn transmitted(&mut self, count: usize) {
        self.written = (self.written + count).min(self.out_len);
    }

    pub(super) fn wanted(&self) -> usize {
        if self.transmit().is_empty() {
            self.expected - self.read
        } else {
            0
        }
    }

    /// Expects no more than has come in.
    pub(super) fn finish(&mut self) {
        self.expected = self.read;
    }

    /// Takes bytes in.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        if bytes.len() > self.wanted() {
            return Err(HandshakeError::OutOfPlace);
        }
        self.inbound[self.read..self.read + bytes.len()].copy_from_slice(bytes);
        self.read += bytes.len();
        Ok(())
    }

    /// What has come in of the message.
    pub(super) fn inbound(&self) -> &[u8] {
        &self.inbound[..self.read]
    }

    /// Takes bytes in, and gives the message when it is whole.
    pub(super) fn receive<const N: usize>(
        &mut self,
        bytes: &[u8],
    ) -> Result<Option<[u8; N]>, HandshakeError> {
        self.take(bytes)?;
        if self.expected == 0 || self.read < self.expected {
            return Ok(None);
        }
        self.expected = 0;
        self.read = 0;
        let mut message = [0; N];
        message.copy_from_slice(&self.inbound[..N]);
        Ok(Some(message))
    }
}

/// Without the bytes, some of which are secret.
impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("to_transmit", &self.transmit().len())
            .field("read", &self.read)
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.out.zeroize();
        self.inbound.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snet::{ClientResume, Counts, KeyAgreement, Opened, PrivateKey, SessionKey};

    const SNET: [bool; 2] = [true, false];

    /// Hands `bytes` over one by one, as far as the machine wants them; gives what is left of them.
    fn feed<'a>(
        machine: &mut ServerHandshake,
        mut bytes: &'a [u8],
    ) -> Result<&'a [u8], HandshakeError> {
        while let ([first, rest @ ..], true) = (bytes, machine.wanted() > 0) {
            machine.receive(&[*first])?;
            bytes = rest;
            if let ServerHandshake::Native(machine) = machine {
                machine.proceed(native::ServerProtection::None)?;
            }
        }
        Ok(bytes)
    }

    /// What a client says first, and something that is not to be read.
    fn first(client: &impl Handshake) -> Vec<u8> {
        [client.transmit(), b"follows"].concat()
    }

    #[test]
    fn a_native_client_is_known_by_its_first_byte() {
        let open = first(&native::ClientOpen::new(5, native::ClientProtection::None));
        let secret = native::SessionSecret::new([1; 32]);
        let resume = native::ClientResume::new(
            [2; 16],
            &secret,
            0,
            1,
            [3; 16],
            4,
            native::ClientProtection::None,
        );
        for accepts_snet in SNET {
            for first in [&open, &first(&resume)] {
                let mut server = ServerHandshake::new(accepts_snet);
                assert_eq!(feed(&mut server, first), Ok(&b"follows"[..]));
                let ServerHandshake::Native(machine) = server else {
                    panic!("{server:?} is not native");
                };
                let opens = matches!(machine.hello(), Some(native::Hello::Open { window: 5 }));
                assert!(opens == (first == &open) && machine.hello().is_some());
            }
        }
    }

    #[test]
    fn an_snet_client_is_known_by_its_first_byte_where_it_may_speak() {
        let private = PrivateKey::new(3).expect("not 0");
        let open = first(&snet::ClientOpen::new(KeyAgreement::Private(private)));
        let session = Opened {
            id: 1,
            key: SessionKey::new([2; 8]),
        };
        let resume = first(&ClientResume::new(&session, Counts::default()));
        for first in [&open, &resume] {
            let mut server = ServerHandshake::new(true);
            assert_eq!(feed(&mut server, first), Ok(&b"follows"[..]));
            let ServerHandshake::Snet(machine) = server else {
                panic!("{server:?} is not snet");
            };
            let opens = matches!(machine.hello(), Some(snet::Hello::Open(_)));
            assert!(opens == (first == &open) && machine.hello().is_some());

            let refused = feed(&mut ServerHandshake::new(false), first);
            assert_eq!(refused, Err(HandshakeError::FirstByte(first[0])));
        }
    }

    #[test]
    fn any_other_first_byte_is_an_error() {
        for accepts_snet in SNET {
            for byte in 1..0xff {
                let received = ServerHandshake::new(accepts_snet).receive(&[byte]);
                let expected = match byte {
                    0x55 => Ok(()),
                    other => Err(HandshakeError::FirstByte(other)),
                };
                assert_eq!(received, expected);
            }
        }
    }

    /// What is read at once must not reach beyond a first message that turns out to be the shortest.
    #[test]
    fn no_more_is_wanted_at_first_than_the_shortest_message() {
        assert_eq!(ServerHandshake::new(true).wanted(), 9);
        assert_eq!(ServerHandshake::new(false).wanted(), 28);
    }
}
