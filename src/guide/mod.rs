//! How to run on a [`ResumableTransport`](crate::ResumableTransport) what others have built: a chapter each.
//!
//! | chapter | what | features |
//! |---|---|---|
//! | [`hyper`](hyper/index.html) | HTTP/1 and HTTP/2 clients and servers, upgrades | `hyper` |
//! | [`tonic`](tonic/index.html) | gRPC channels and servers | `tonic` |
//! | [`axum`](axum/index.html) | HTTP servers, server-sent events, WebSockets | `axum`; its clients are hyper's: `hyper` |
//! | [`codecs`] | tokio-util's `Framed`, split halves, `copy_bidirectional` | |
//! | [`tower`] | what goes below and above a [`Connector`](crate::Connector) | |
//! | [`tls`] | rustls below each link, and through the session end to end | |
//! | [`websocket`] | tokio-tungstenite, at both ends | |
//! | [`clients`] | clients of servers that know nothing of sessions: tokio-postgres, redis, OpenSSH | |
//!
//! The features are those besides the default ones, and the first three chapters are there with them. Each example of this guide is a program in the repository,
//! `cargo run --example NAME`, which cuts its own links as it goes.
//!
//! # What holds for all of them
//!
//! **When the link breaks**, what runs on the session is not told. Reads wait, writes go on until the session holds a window of them, and
//! both go on as if nothing had happened once the client has resumed on a new link. That takes a dial and a handshake: less than a
//! millisecond on loopback, a few round trips elsewhere. A link that falls silent without being closed is noticed after 30 seconds
//! ([`Config::keepalive`](crate::Config::keepalive)). After an outage the next attempt may be up to 10 seconds away
//! ([`Config::retry`](crate::Config::retry)); a program that is told of changes of the network calls
//! [`Handle::network_changed`](crate::Handle::network_changed), and is back at once. No request is sent twice, none is answered twice, and
//! none is lost, so there is nothing to retry and nothing that has to be idempotent on that account.
//!
//! **When the session dies**, every read and write on it is an error, and with it whatever was in flight. That is so when the resume
//! window has passed without a link ([`Config::resume_window`](crate::Config::resume_window), 5 minutes), when the server has been
//! restarted or has ended the session, or when either end gives it up. [`Error::find`](crate::Error::find) finds why in what most
//! libraries make of it. Whether the server had done what a request in flight asked for is then as
//! unknown as with a TCP connection that is lost: retry what may be done twice, on a new session.
//!
//! **Opening a session** is not resumed: until there is one, a failed link is a failed [`connect`](crate::connect), which is for a
//! retry above it to mend.
//!
//! **Timeouts above the session** are the one thing to look after. Whatever closes a connection that says nothing for 20 seconds, from above, ends
//! a session that would have been back after 30. The session has its own pings and knows a dead link from a silent peer, so keepalives
//! of the protocol above are not needed; where they are wanted for another reason, they have to be more patient than
//! the resume window. Deadlines of single requests are another matter: they say how long an answer is worth waiting for, and work as ever.

#[cfg(all(feature = "client", feature = "axum", feature = "hyper"))]
#[cfg_attr(docsrs, doc(cfg(all(feature = "axum", feature = "hyper"))))]
#[doc = include_str!("axum.md")]
pub mod axum {}

#[cfg(all(feature = "client", feature = "server"))]
#[doc = include_str!("clients.md")]
pub mod clients {}

#[cfg(all(feature = "client", feature = "server"))]
#[doc = include_str!("codecs.md")]
pub mod codecs {}

#[cfg(all(feature = "client", feature = "server", feature = "hyper"))]
#[cfg_attr(docsrs, doc(cfg(feature = "hyper")))]
#[doc = include_str!("hyper.md")]
pub mod hyper {}

#[cfg(all(feature = "client", feature = "server"))]
#[doc = include_str!("tls.md")]
pub mod tls {}

#[cfg(all(feature = "client", feature = "server", feature = "tonic"))]
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
#[doc = include_str!("tonic.md")]
pub mod tonic {}

#[cfg(all(feature = "client", feature = "server"))]
#[doc = include_str!("tower.md")]
pub mod tower {}

#[cfg(all(feature = "client", feature = "server"))]
#[doc = include_str!("websocket.md")]
pub mod websocket {}
