//! Failures seen elsewhere, each absent here: sessions over in-memory links, in virtual time, but for what is about real sockets.

#![cfg(all(feature = "client", feature = "server"))]

#[path = "../support/memory_link.rs"]
mod memory_link;
#[path = "../support/memory_net.rs"]
mod memory_net;
#[path = "../support/raw_native.rs"]
mod raw_native;
#[path = "../support/raw_peer.rs"]
mod raw_peer;

mod endings;
mod handshakes;
mod raw_session;
mod roaming;
mod snet_go;
mod stubborn_io;

use memory_link::{Side, Wire};
use memory_net::{
    NATIVE_CONFIRM, NATIVE_OPEN, NATIVE_OPENED, NATIVE_RESUME, NATIVE_RESUMED, Protocol,
};

/// The bytes of the stream that `side` wrote on a link.
fn stream(protocol: Protocol, wire: &Wire, side: Side) -> Vec<u8> {
    if protocol == Protocol::Snet {
        return memory_net::stream(wire, side);
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
