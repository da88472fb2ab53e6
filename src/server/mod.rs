//! The end that accepts.

mod acceptor;
mod handshakes;
mod listener;
mod registry;

pub use acceptor::{Accepted, Acceptor};
pub use listener::Listener;
