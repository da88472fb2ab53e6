//! Native under Noise, for the same tests as in the clear but those that look at bytes on the wire.

// Each of its users takes a part of it.
#![allow(dead_code, unused_macros, unused_imports)]

use std::any::Any;

use unbroken::{
    HandshakeError, Security, Suite,
    protocol::{
        Handshake,
        native::{ClientOpen, ClientProtection, ClientResume, ServerHandshake, ServerProtection},
        noise::{ClientKeys, Records, SecretKey, ServerKeys},
    },
};

use super::memory_link::MemoryLink;

/// By how many bytes a handshake's first message is longer than its frame, its second, and what follows it than what it carries.
pub(crate) const FIRST: usize = 2 + 32;
pub(crate) const SECOND: usize = 2 + 32 + 16;
pub(crate) const RECORD: usize = 2 + 16;

/// Whether frames can be read off the wire.
pub(crate) const READABLE: bool = false;

/// What both ends are configured with.
pub(crate) fn security() -> Security {
    Security::anonymous()
}

fn ephemeral() -> SecretKey {
    rand::random::<[u8; 32]>().into()
}

/// What a raw client protects its links with.
pub(crate) fn client() -> ClientProtection {
    ClientProtection::Noise {
        keys: ClientKeys::Anonymous,
        suite: Suite::fastest(),
        ephemeral: ephemeral(),
    }
}

/// A handshake, and what else is to be done in it.
pub(crate) trait GoesOn: Handshake {
    /// Does what is due when it wants nothing. Returns whether there was anything.
    fn go_on<L: 'static>(&mut self, link: &mut L) -> Result<bool, HandshakeError>;
}

/// Puts the link under the records, if the handshake has come to them.
fn protect<L: 'static>(link: &mut L, records: Option<Records>) -> bool {
    let link = (link as &mut dyn Any).downcast_mut::<MemoryLink>();
    let link = link.expect("raw peers have in-memory links here");
    records.map(|records| link.protect(records)).is_some()
}

impl GoesOn for ClientOpen {
    fn go_on<L: 'static>(&mut self, link: &mut L) -> Result<bool, HandshakeError> {
        Ok(protect(link, self.take_records()))
    }
}

impl GoesOn for ClientResume {
    fn go_on<L: 'static>(&mut self, link: &mut L) -> Result<bool, HandshakeError> {
        Ok(protect(link, self.take_records()))
    }
}

impl GoesOn for ServerHandshake {
    fn go_on<L: 'static>(&mut self, link: &mut L) -> Result<bool, HandshakeError> {
        if self.prelude().is_some() {
            self.proceed(ServerProtection::Noise {
                keys: ServerKeys::Anonymous,
                ephemeral: ephemeral(),
            })?;
            return Ok(true);
        }
        Ok(protect(link, self.take_records()))
    }
}

/// Tests of snet beside those of native: they are run with those in the clear.
macro_rules! with_snet {
    ($($item:item)*) => {};
}
pub(crate) use with_snet;
