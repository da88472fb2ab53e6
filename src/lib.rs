//! Byte-stream connections that survive.
//!
//! A [`ResumableTransport`] is `AsyncRead + AsyncWrite`. Under it the network connection, the *link*, may break and be replaced any number
//! of times, and no byte is lost, duplicated or reordered: or reading and writing say why the session is over. hyper, tonic, axum,
//! tokio-util's codecs and whatever else takes a byte stream run on it without knowing: the [`guide`] has a chapter for each.
//!
//! ```no_run
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use unbroken::{Config, Listener};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::new();
//! let mut listener = Listener::bind("127.0.0.1:0", config.clone()).await?;
//! let mut client = unbroken::connect(listener.local_addr()?, config).await?;
//! let (mut server, _peer) = listener.accept().await?;
//!
//! client.write_all(b"whatever happens to the link").await?;
//! client.flush().await?;
//! let mut bytes = [0; 28];
//! server.read_exact(&mut bytes).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | link | one underlying connection: TCP, TLS, a Unix socket, anything `AsyncRead + AsyncWrite` |
//! | session | the logical connection that outlives its links; both ends hold its state |
//! | transport | [`ResumableTransport`], the application's end of a session |
//! | resume | attaching a new link to a session: prove who you are, exchange counts, replay |
//! | replay | sending again what the peer has not received |
//! | detached | a session without a link, waiting for a resume |
//! | resume window | how long a detached session is kept |
//!
//! # What to use
//!
//! - A client over TCP: [`connect`]. Over anything that a Tower service dials: [`Connector`] or [`ResumableLayer`].
//! - A server on a TCP port: [`Listener`], with TLS below too. For links of any kind: [`Acceptor`].
//! - To watch and steer: [`ResumableTransport::handle`].
//! - To carry sessions over something else: [`protocol`], which does no I/O.
//!
//! # Two protocols
//!
//! A session speaks the **native** protocol, which is the default, or **snet**, that of the Go and C# libraries of this name
//! ([`Config::snet`]). A server told to accept snet speaks both on one port. What they do differently:
//!
//! | | native | snet |
//! |---|---|---|
//! | a writer waits | for acknowledgements and the peer's credit | for its history to have room |
//! | a session can die of too much data | never | with links that buffer more than the history allows for |
//! | `shutdown` is done | when the peer has everything, the end included | when a link has taken everything |
//! | half-close | both ways | no |
//! | a session's end reaches the peer | at once, with a reason | with its next resume, without one |
//! | [`migrate`](Handle::migrate) | makes the new link before it breaks the old one | breaks first |
//! | a silent link | pinged, then replaced | replaced |
//!
//! # What to know
//!
//! - **Flush.** Writing goes to the link in the same poll as far as the link takes it, but a link may buffer (TLS does): flush when
//!   you wait for an answer.
//! - **Shut down, or read to the end, before you drop.** Dropping drains: what was written goes on its way for
//!   [`linger`](Config::linger) at most, as long as the runtime runs, and nobody hears whether it arrived. `shutdown().await` tells. A
//!   transport that is dropped with bytes unread, and its write side not shut, resets the session.
//! - **A session that dies is an error.** A reset, an expiry, a refusal and a gap each return an [`Error`] of their own, inside the
//!   [`std::io::Error`], once everything received has been read. Only the end of the peer's stream reads as the end.
//! - **The default encrypts and authenticates nobody.** It keeps out who listens, not who comes in between: choose a [`Security`] with a
//!   key wherever somebody might, or `Security::none()` with TLS below. snet protects nothing, RC4 or not. `SECURITY.md` has who can do
//!   what.
//!
//! # Logs
//!
//! What happens is told through [`tracing`](https://docs.rs/tracing), under the target `unbroken` and those below it:
//!
//! | level | event | fields |
//! |---|---|---|
//! | error | the listening socket has failed | |
//! | warn | the session is over, by a [gap](CloseReason::Gap) or because what kept it is [gone](CloseReason::Abandoned) | as below |
//! | warn | no connection can be accepted for now | |
//! | info | a session is opened | `role`, `protocol`, `peer` |
//! | info | the session is over, in any other way | `reason`; `sent`, `received`, `replayed` in bytes; `resumes` |
//! | info | a server is shutting down; it is shut down | `sessions`, `deadline`; `reset`: how many it had to end |
//! | debug | a link is attached | `link`: its number; `outstanding`: bytes the peer may lack, which go out on it, again or for the first time |
//! | debug | the link ended, it failed, its peer broke the protocol or was silent for too long | `link`, `error` |
//! | debug | the session is resumed: both ends use the new link | `detached`: for how long there was none; `resumes` |
//! | debug | an attempt to resume failed | `attempt`, counted from the loss; `error` with its causes |
//! | debug | the peer is silent, or the network has changed, so the link is doubted | |
//! | debug | a handshake came to nothing, at a server | `peer`, `error` with its causes |
//!
//! Those of one session have the field `session`, the first 8 digits of its [`SessionId`]. Its own task, and with it every redial, runs in
//! the span `session` (info, without a parent) with `id`, `role` and `protocol`; a server's handshakes run in the span `accept` (debug)
//! with `peer`, if it is known. The words may change from version to version; no secret, no proof and no byte of a stream is ever
//! part of them.
//!
//! # Features
//!
//! | feature | default | what |
//! |---|---|---|
//! | `client` | yes | `connect`, `Connector`, `ResumableLayer`, `TcpConnector` |
//! | `server` | yes | `Listener`, `Acceptor` |
//! | `transport` | by the two | `ResumableTransport`, `Handle`, `Config` |
//! | `noise` | yes | `KeyPair`, `PublicKey`, `PresharedKey`; Noise in the [`protocol`] core |
//! | `noise` | yes | [`Security`] other than `none`, keys, [`NoiseLink`] |
//! | `aws-lc-rs` | no | AWS-LC's ciphers for Noise in place of ring's: faster where the processor has AVX-512, and a C library to build |
//! | `hyper` | no | `hyper::rt::{Read, Write}` and hyper-util's `Connection` for `ResumableTransport` |
//! | `tonic` | no | tonic's `Connected` for `ResumableTransport`, and `hyper` with it |
//! | `axum` | no | axum's `Listener` for ours, `PeerAddr` and [`Handle`] as its `ConnectInfo` |
//! | `metrics` | no | counters, gauges and histograms for the recorder of the `metrics` facade; the module `metrics` lists them |
//!
//! Without any, the [`protocol`] core remains, which needs no tokio.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "transport")]
#[cfg_attr(
    not(all(feature = "client", feature = "server")),
    allow(dead_code, unused_imports, reason = "each end uses its part")
)]
mod config;
mod error;
#[cfg(any(feature = "client", feature = "server"))]
pub mod guide;
#[cfg(feature = "transport")]
mod integrations;
#[cfg(feature = "transport")]
#[cfg_attr(
    not(all(feature = "client", feature = "server")),
    allow(dead_code, unused_imports, reason = "each end uses its part")
)]
mod link;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub mod metrics;
pub mod protocol;
#[cfg(any(feature = "transport", feature = "noise"))]
mod security;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "transport")]
#[cfg_attr(
    not(all(feature = "client", feature = "server")),
    allow(dead_code, unused_imports, reason = "each end uses its part")
)]
mod transport;

#[cfg(feature = "client")]
#[cfg_attr(docsrs, doc(cfg(feature = "client")))]
pub use client::{Connecting, Connector, ResumableLayer, Target, TcpConnector, connect};
#[cfg(feature = "transport")]
#[cfg_attr(docsrs, doc(cfg(feature = "transport")))]
pub use config::{Config, Snet};
pub use error::{
    BoxError, CloseReason, ConfigError, Error, HandshakeError, Limit, ProtocolError, Refusal,
    RejectCode, ResumeError, reset,
};
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use integrations::PeerAddr;
#[cfg(feature = "transport")]
#[cfg_attr(docsrs, doc(cfg(feature = "transport")))]
pub use protocol::Stats;
#[cfg(feature = "noise")]
#[cfg_attr(docsrs, doc(cfg(feature = "noise")))]
pub use protocol::noise::Suite;
#[cfg(all(feature = "noise", feature = "transport"))]
#[cfg_attr(docsrs, doc(cfg(all(feature = "noise", feature = "transport"))))]
pub use security::NoiseLink;
#[cfg(feature = "transport")]
#[cfg_attr(docsrs, doc(cfg(feature = "transport")))]
pub use security::Security;
#[cfg(feature = "noise")]
#[cfg_attr(docsrs, doc(cfg(feature = "noise")))]
pub use security::{KeyError, KeyKind, KeyPair, PresharedKey, PublicKey};
#[cfg(feature = "server")]
#[cfg_attr(docsrs, doc(cfg(feature = "server")))]
pub use server::{Accepted, Acceptor, Listener, SessionInfo, Sessions};
#[cfg(feature = "transport")]
#[cfg_attr(docsrs, doc(cfg(feature = "transport")))]
pub use transport::{Handle, LinkState, MemoryBudget, ResumableTransport, SessionId};

/// The README's examples are tests.
#[cfg(all(
    doctest,
    feature = "client",
    feature = "server",
    feature = "noise",
    feature = "axum",
    feature = "tonic"
))]
#[doc = include_str!("../README.md")]
struct Readme;
