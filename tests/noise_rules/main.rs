//! What native guarantees it guarantees under Noise: the tests of native's rules and of failures elsewhere once more, but for the modules
//! that look at bytes on the wire.

#![cfg(all(feature = "client", feature = "server", feature = "noise"))]

#[path = "../support/memory_link.rs"]
mod memory_link;
#[path = "../support/memory_net.rs"]
mod memory_net;
#[path = "../support/raw_native.rs"]
mod raw_native;
#[path = "../support/raw_peer.rs"]
mod raw_peer;
#[path = "../support/setup_noise.rs"]
mod setup;
#[path = "../support/stream_on.rs"]
mod stream_on;

#[path = "../native_rules/credit.rs"]
mod credit;
#[path = "../native_rules/delivery.rs"]
mod delivery;
#[path = "../native_rules/dropping.rs"]
mod dropping;
#[path = "../native_rules/ends.rs"]
mod ends;
#[path = "../native_rules/liveness.rs"]
mod liveness;
#[path = "../native_rules/migrate.rs"]
mod migrate;
#[path = "../native_rules/refusals.rs"]
mod refusals;
#[path = "../native_rules/resumes.rs"]
mod resumes;
#[path = "../native_rules/sessions.rs"]
mod sessions;
#[path = "../native_rules/shutdown.rs"]
mod shutdown;
#[path = "../native_rules/switching.rs"]
mod switching;
#[path = "../native_rules/tombstones.rs"]
mod tombstones;
#[path = "../native_rules/waits.rs"]
mod waits;

#[path = "../io_rules/backoff.rs"]
mod backoff;
#[path = "../io_rules/keeper.rs"]
mod keeper;
#[path = "../io_rules/links.rs"]
mod links;
#[path = "../io_rules/wakers.rs"]
mod wakers;

#[path = "../failures/endings.rs"]
mod endings;
#[path = "../failures/handshakes.rs"]
mod handshakes;
#[path = "../failures/raw_session.rs"]
mod raw_session;
#[path = "../failures/roaming.rs"]
mod roaming;
