//! What other implementations get wrong and ours must not, one test each, as far as it shows in the core. Names start with where
//! the failure was seen.

#[path = "../support/core_carried.rs"]
mod core_carried;
#[path = "../support/core_ends.rs"]
mod core_ends;
#[path = "../support/core_native.rs"]
mod core_native;
#[path = "../support/core_native_server.rs"]
mod core_native_server;
#[path = "../support/core_noise.rs"]
mod core_noise;
#[path = "../support/core_pair.rs"]
mod core_pair;
#[path = "../support/core_scripted.rs"]
mod core_scripted;
#[path = "../support/core_shield.rs"]
mod core_shield;
#[path = "../support/core_snet.rs"]
mod core_snet;

mod both;
mod native;
mod noise;
mod snet;
