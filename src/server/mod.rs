//! The end that accepts.

mod acceptor;
mod aging;
mod handshakes;
mod host;
mod listener;
mod native;
mod owners;
mod registry;
mod resume_rate;
mod sessions;
mod snet;

pub use acceptor::Acceptor;
pub use host::Accepted;
pub use listener::Listener;
pub use sessions::{SessionInfo, Sessions};
