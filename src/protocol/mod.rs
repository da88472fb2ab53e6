//! The protocol, without I/O: no clock, no socket, no runtime and no randomness in it. Time and random bytes are arguments.
//!
//! This is what the rest of the crate stands on. Use it by itself to carry sessions over something the crate does not know.
//!
//! # Driving a session
//!
//! First a handshake ([`snet::ClientOpen`], [`snet::ServerHandshake`]) on the first link. It is a [`Handshake`]: write what
//! it transmits, read what it wants. It ends in a [`snet::Opened`], from which both ends make their [`Session`]; each then attaches
//! the link with [`Session::attach`] and counts of 0.
//!
//! While a link is attached:
//! - application to link: [`Session::write`] takes what there is [room](Session::room) for; hand [`Session::unsent`] to the link
//!   and say with [`Session::handed`] how much it took;
//! - link to application: pass what the link gives through [`Session::arrived`]; what is fresh of it either goes to the
//!   application at once, if nothing [waits](Session::waiting), or is [stored](Session::store), as far as there is
//!   [room](Session::receive_room), until [`Session::read`];
//! - when the link fails, [`Session::detach`]; when it ends in order, [`Session::link_ended`].
//!
//! While none is, a client resumes: it takes its [counts](Session::counts), after which it touches the old link no more, runs a
//! [`snet::ClientResume`], [checks](Session::check) the server's counts and attaches. A server
//! [answers](Session::answer) with its counts, goes on with the old link if it has one, and attaches once the new one has proved
//! itself.
//!
//! At any time: call [`Session::handle_timeout`] when [`Session::poll_timeout`] says so, and ask for the latter again after every
//! other call. [`Session::phase`] tells when it is over.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use unbroken::protocol::{Arrived, Role, Session, Settings, snet};
//!
//! let settings = Settings {
//!     history: 1 << 20,
//!     resume_window: Duration::from_secs(300),
//!     linger: Duration::from_secs(60),
//!     silence: None,
//!     fin_is_close: false,
//!     cipher: snet::CipherChoice::Rc4,
//! };
//! let opened = snet::Opened { id: 7, key: snet::SessionKey::new(*b"8 bytes.") };
//! let now = Instant::now();
//! let mut client = Session::new(Role::Client, opened.clone(), settings.clone(), now);
//! let mut server = Session::new(Role::Server, opened, settings, now);
//! client.attach(0, snet::Counts::default(), 0, now)?;
//! server.attach(0, snet::Counts::default(), 0, now)?;
//!
//! client.write(b"hello");
//! let mut wire = client.unsent().0.to_vec();
//! client.handed(wire.len());
//! assert_eq!(server.arrived(&mut wire, now), Arrived::Fresh(0..5));
//! assert_eq!(wire, b"hello");
//! # Ok::<(), unbroken::ResumeError>(())
//! ```

pub(crate) mod handshake;
pub mod native;
mod receive;
mod replay;
mod ring;
mod session;
pub mod snet;
mod streams;

pub use handshake::{Handshake, ServerHandshake};
pub use replay::ReplayBuffer;
pub use session::{Arrived, LinkId, Phase, Role, Session, Stats};
