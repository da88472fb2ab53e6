//! What of a stream was written on an in-memory link, whichever protocol it was.

use super::{
    memory_link::{Side, Wire},
    memory_net::{
        NATIVE_CONFIRM, NATIVE_OPEN, NATIVE_OPENED, NATIVE_RESUME, NATIVE_RESUMED, Protocol, stream,
    },
    raw_native,
};

/// The bytes of the stream that `side` wrote on a link.
pub(crate) fn stream_on(protocol: Protocol, wire: &Wire, side: Side) -> Vec<u8> {
    if protocol == Protocol::Snet {
        return stream(wire, side);
    }
    let opens = wire.written(Side::Client)[5] == 0;
    let handshake = match (side, opens) {
        (Side::Client, true) => NATIVE_OPEN + NATIVE_CONFIRM,
        (Side::Client, false) => NATIVE_RESUME + NATIVE_CONFIRM,
        (Side::Server, true) => NATIVE_OPENED,
        (Side::Server, false) => NATIVE_RESUMED,
    };
    raw_native::payload(&wire.written(side)[handshake..])
}
