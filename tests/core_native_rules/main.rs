//! The rules of native's sessions (`docs/PROTOCOL.md`, "native"): one end opposite a script; and where the handshake matters, both over
//! links.

#[path = "../support/core_carried.rs"]
mod core_carried;
#[path = "../support/core_native.rs"]
mod core_native;
#[path = "../support/core_native_server.rs"]
mod core_native_server;
#[path = "../support/core_pair.rs"]
mod core_pair;
#[path = "../support/core_scripted.rs"]
mod core_scripted;
#[path = "../support/core_shield.rs"]
mod core_shield;

mod credit;
mod endings;
mod errors;
mod memory;
mod resumes;
mod server;
mod timers;
