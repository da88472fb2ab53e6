//! The end that accepts.

mod acceptor;
mod aging;
mod handshakes;
mod host;
mod listener;
mod native;
mod registry;
mod sessions;
mod snet;

pub use acceptor::Acceptor;
pub use host::Accepted;
pub use listener::Listener;
pub use sessions::{SessionInfo, Sessions};
