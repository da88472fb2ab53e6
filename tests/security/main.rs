//! What each security lets open, lets in and keeps out: over in-memory links, in virtual time.

#![cfg(all(feature = "client", feature = "server", feature = "noise"))]

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

mod authorize;
mod choices;
mod config;
mod matrix;
mod middle;
mod path;
mod raw;
mod rejects;
mod tamper;
