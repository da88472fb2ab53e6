//! What others' frameworks ask of a transport.

#[cfg(feature = "hyper")]
mod hyper;
