//! What others have built, over sessions whose links are cut all the time: it does not know, and neither do its peers.
//!
//! The faults are drawn from a seed, which is printed; `UNBROKEN_SEED` sets it.

#![cfg(all(feature = "client", feature = "server"))]

#[cfg(all(feature = "axum", feature = "hyper"))]
mod axum;
mod bed;
mod codecs;
#[path = "../support/cutting_proxy.rs"]
mod cutting_proxy;
#[cfg(feature = "hyper")]
mod hyper;
#[cfg(unix)]
mod openssh;
#[cfg(unix)]
mod postgres;
#[cfg(unix)]
mod redis;
#[cfg(unix)]
mod servers;
mod tls;
#[cfg(feature = "tonic")]
mod tonic;
mod tower;
mod websocket;
