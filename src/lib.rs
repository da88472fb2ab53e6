//! Byte-stream connections that survive.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;
pub mod protocol;

pub use error::{BoxError, CloseReason, Error, HandshakeError, ResumeError};
