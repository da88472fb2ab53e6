//! Native in the clear, for tests that look at its bytes on the wire.

// Each of its users takes a part of it.
#![allow(dead_code, unused_macros, unused_imports)]

use unbroken::{
    HandshakeError, Security,
    protocol::{
        Handshake,
        native::{ClientOpen, ClientProtection, ClientResume, ServerHandshake, ServerProtection},
    },
};

/// By how many bytes a handshake's first message is longer than its frame, its second, and what follows it than what it carries.
pub(crate) const FIRST: usize = 0;
pub(crate) const SECOND: usize = 0;
pub(crate) const RECORD: usize = 0;

/// Whether frames can be read off the wire.
pub(crate) const READABLE: bool = true;

/// What both ends are configured with.
pub(crate) fn security() -> Security {
    Security::none()
}

/// What a raw client protects its links with.
pub(crate) fn client() -> ClientProtection {
    ClientProtection::None
}

/// A handshake, and what else is to be done in it.
pub(crate) trait GoesOn: Handshake {
    /// Does what is due when it wants nothing. Returns whether there was anything.
    fn go_on<L: 'static>(&mut self, _: &mut L) -> Result<bool, HandshakeError> {
        Ok(false)
    }
}

impl GoesOn for ClientOpen {}

impl GoesOn for ClientResume {}

impl GoesOn for ServerHandshake {
    fn go_on<L: 'static>(&mut self, _: &mut L) -> Result<bool, HandshakeError> {
        let paused = self.prelude().is_some();
        if paused {
            self.proceed(ServerProtection::None)?;
        }
        Ok(paused)
    }
}

/// Tests of snet beside those of native.
macro_rules! with_snet {
    ($($item:item)*) => {$($item)*};
}
pub(crate) use with_snet;
