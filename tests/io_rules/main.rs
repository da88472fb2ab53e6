//! What our ends do with their links, whichever protocol they speak: over in-memory links, in virtual time.

#![cfg(all(feature = "client", feature = "server"))]

#[path = "../support/memory_link.rs"]
mod memory_link;
#[path = "../support/memory_net.rs"]
mod memory_net;
#[path = "../support/raw_native.rs"]
mod raw_native;
#[path = "../support/setup_clear.rs"]
mod setup;
#[path = "../support/stream_on.rs"]
mod stream_on;

mod backoff;
mod keeper;
mod links;
mod wakers;
