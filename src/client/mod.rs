//! The end that dials.

mod connect;
mod connector;
mod dial;
mod layer;
mod redial;
mod target;
mod tcp;

pub use connect::connect;
pub use connector::{Connecting, Connector};
pub use layer::ResumableLayer;
pub use target::Target;
pub use tcp::TcpConnector;
