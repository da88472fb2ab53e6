//! What every handshake has in common, whichever protocol it belongs to.

use std::fmt;

use zeroize::Zeroize;

use crate::error::HandshakeError;

/// The most bytes a machine transmits or receives before the other side has the word: native's OPENED.
pub(crate) const LONGEST: usize = 68;

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
