//! What native guarantees (`docs/PROTOCOL.md`), at the ends that applications hold: over in-memory links, in virtual time.

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

mod credit;
mod delivery;
mod dropping;
mod ends;
mod liveness;
mod memory;
mod migrate;
mod protocols;
mod refusals;
mod resumes;
mod sessions;
mod shutdown;
mod switching;
mod tombstones;
mod waits;
mod windows;
