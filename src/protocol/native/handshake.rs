//! native's handshakes, each role a machine that is fed bytes in pieces of any size (`docs/PROTOCOL.md`, native: "Open", "Resume").

mod client;
mod server;

pub use client::{Answer, ClientOpen, ClientResume};
pub use server::{Hello, ServerHandshake};

use super::{
    bytes::{HEADER_LEN, header},
    frame::misplaced,
    prelude::PRELUDE_LEN,
};
use crate::error::ProtocolError;

/// The prelude and a first frame of `first` bytes together.
const fn with_prelude(first: usize) -> usize {
    PRELUDE_LEN + HEADER_LEN + first
}

/// The payload of a frame that must be of this type and length, when it is whole.
fn payload<const N: usize>(frame: &[u8], kind: u8) -> Result<Option<&[u8; N]>, ProtocolError> {
    let Some((head, rest)) = frame.split_first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    match header(*head) {
        (found, _) if found != kind => Err(misplaced(found)),
        (_, len) if len as usize != N => Err(ProtocolError::Length { frame: kind, len }),
        _ => Ok(rest.first_chunk()),
    }
}

#[cfg(test)]
mod tests;
