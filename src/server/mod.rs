//! The end that accepts.

mod acceptor;
mod aging;
mod handshakes;
mod listener;
mod native;
mod registry;
mod sessions;
mod snet;

pub use acceptor::{Accepted, Acceptor};
pub use listener::Listener;
pub use sessions::{SessionInfo, Sessions};
