//! What the targets share: how their input is taken apart, and how a handshake is driven.

pub mod drive;
pub mod input;
pub mod keys;
