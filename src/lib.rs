//! Byte-stream connections that survive.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "transport")]
mod config;
mod error;
#[cfg(feature = "transport")]
mod integrations;
pub mod protocol;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "transport")]
mod transport;

#[cfg(feature = "client")]
#[cfg_attr(docsrs, doc(cfg(feature = "client")))]
pub use client::{Connecting, Connector, ResumableLayer, Target, TcpConnector, connect};
#[cfg(feature = "transport")]
#[cfg_attr(docsrs, doc(cfg(feature = "transport")))]
pub use config::{Config, Snet};
pub use error::{BoxError, CloseReason, ConfigError, Error, HandshakeError, ResumeError};
#[cfg(feature = "server")]
#[cfg_attr(docsrs, doc(cfg(feature = "server")))]
pub use server::{Accepted, Acceptor, Listener};
#[cfg(feature = "transport")]
#[cfg_attr(docsrs, doc(cfg(feature = "transport")))]
pub use transport::{Handle, LinkState, ResumableTransport, SessionId, Stats};
