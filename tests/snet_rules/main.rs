//! The rules by which our ends do better within snet's bytes (`docs/PROTOCOL.md`), over in-memory links, in virtual time.

#![cfg(all(feature = "client", feature = "server"))]

#[path = "../support/memory_link.rs"]
mod memory_link;
#[path = "../support/memory_net.rs"]
mod memory_net;
#[path = "../support/raw_peer.rs"]
mod raw_peer;
#[path = "../support/setup_clear.rs"]
mod setup;

mod client;
mod ending;
mod race;
mod server;
mod unproved;
