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
#[path = "../support/setup_clear.rs"]
mod setup;
#[path = "../support/stream_on.rs"]
mod stream_on;

mod endings;
mod handshakes;
mod raw_session;
mod roaming;
mod snet_go;
mod stubborn_io;
