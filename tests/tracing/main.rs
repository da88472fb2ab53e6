//! What is told of sessions through `tracing`, and what never is.

#![cfg(all(feature = "client", feature = "server"))]

#[path = "../support/capture.rs"]
mod capture;
#[path = "../support/memory_link.rs"]
mod memory_link;
#[path = "../support/memory_net.rs"]
mod memory_net;
#[path = "../support/raw_peer.rs"]
mod raw_peer;
#[path = "../support/setup_clear.rs"]
mod setup;

mod events;
mod secrets;
