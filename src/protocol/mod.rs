//! The protocol, without I/O: no clock, no socket, no runtime and no randomness in it. Time and random bytes are arguments.
//!
//! This is what the rest of the crate stands on. Use it by itself to carry sessions over something the crate does not know.
//!
//! # Driving a session
//!
//! First a handshake on the first link, in the role of a client or of a server. It is a [`Handshake`]: write what it transmits, read
//! what it wants. A server whose clients may speak either protocol starts with [`ServerHandshake`]. The handshake ends in what both
//! ends make their [`Session`] of, and the link is attached to it. What follows is the same for both protocols.
//!
//! The application:
//! - [`Session::write`] takes what there is [room](Session::room) for; [`Session::shut_write`] ends what it writes;
//! - [`Session::read`] gives what [waits](Session::waiting), until nothing does and the stream [has ended](Session::is_read_ended);
//! - [`Session::drop_transport`] when it needs the session no more, [`Session::reset`] to end it with an error.
//!
//! The links, each by the number under which it was attached, which is greater than those before:
//! - hand [`Session::transmit`] to the newest and say with [`Session::transmitted`] how much it took: after a write, when the link
//!   has room again, and whenever the session [owes](Session::owes) something;
//! - pass what a link gives through [`Session::receive`]; what is fresh of it goes to the application at once, if nothing waits, or
//!   else is [stored](Session::store), as far as so much was [wanted](Session::wanted): before anything else is asked of the session;
//! - when a link fails, [`Session::link_failed`]; when it ends in order, [`Session::link_ended`];
//! - when the session [wants it closed](Session::wants_close), and the link holds nothing back, end its write side, discard what still
//!   comes until its end or for a while, and then call [`Session::link_closed`];
//! - close links that the session no longer [holds](Session::holds), which any call can bring about.
//!
//! At any time: call [`Session::handle_timeout`] when [`Session::poll_timeout`] says so, and ask for the latter again after every
//! other call. [`Session::phase`] tells when it is over, and whether it waits for a link, which a client then dials.
//!
//! ## snet
//!
//! [`snet::ClientOpen`] and [`snet::ServerHandshake`] end in a [`snet::Opened`]. Both ends make a [`snet::SnetSession`] of it, and
//! attach the link with [`attach`](snet::SnetSession::attach), as number 0 and with counts of 0.
//!
//! To resume, a client [gives its old link up](snet::SnetSession::detach), takes its [counts](snet::SnetSession::counts), runs a
//! [`snet::ClientResume`], [checks](snet::SnetSession::check) the server's counts and attaches. A server
//! [answers](snet::SnetSession::answer) with its counts, goes on with the old link if it has one, and attaches once the new one has
//! proved itself. It numbers the requests in the order in which they come.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use unbroken::protocol::{Role, Session, snet};
//!
//! let settings = snet::Settings {
//!     history: 1 << 20,
//!     resume_window: Duration::from_secs(300),
//!     linger: Duration::from_secs(60),
//!     silence: None,
//!     fin_is_close: false,
//!     cipher: snet::CipherChoice::Rc4,
//! };
//! let opened = snet::Opened { id: 7, key: snet::SessionKey::new(*b"8 bytes.") };
//! let now = Instant::now();
//! let mut client = snet::SnetSession::new(Role::Client, opened.clone(), settings.clone(), now);
//! let mut server = snet::SnetSession::new(Role::Server, opened, settings, now);
//! client.attach(0, snet::Counts::default(), 0, now)?;
//! server.attach(0, snet::Counts::default(), 0, now)?;
//!
//! client.write(b"hello");
//! let mut wire = client.transmit(now).concat();
//! client.transmitted(wire.len());
//! let arrived = server.receive(0, &mut wire, now);
//! assert_eq!(wire[arrived.fresh], *b"hello");
//! # Ok::<(), unbroken::ResumeError>(())
//! ```
//!
//! ## native
//!
//! When [`native::ClientOpen`] has the server's answer, the client has its [`native::NativeSession`], and attaches the link with
//! [`attach_opened`](native::NativeSession::attach_opened), as number 0. The last message of the handshake is transmitted by the
//! session, in front of its own frames. A server tells [`native::ServerHandshake`] what to [answer](native::ServerHandshake::open),
//! remembers that, makes its session when the client has [proved](native::ServerHandshake::proved) itself, and gives it the link with
//! [`attach`](native::NativeSession::attach), as attempt 0.
//!
//! To resume, with its old link still in use or without, a client runs what [`resume`](native::NativeSession::resume) gives it on a
//! new one. One attempt is made at a time, and none while the session [is switching](Session::is_switching). When the server
//! has agreed, the client gives the session the new link with [`attach_resumed`](native::NativeSession::attach_resumed), which
//! says under what number, and goes on reading the old one until the session no longer holds it; when the server has not,
//! [`rejected`](native::NativeSession::rejected) is told why. A server [asks](native::NativeSession::answer) the session whether it
//! takes the attempt, answers with what that says, and attaches once the client has proved itself. Whenever it cannot go on it
//! [rejects](native::ServerHandshake::reject) the attempt; and when the client has proved itself and the session turns out to be
//! over, its [`tombstone`](native::NativeSession::tombstone), which a server keeps for a while, says how to
//! [end](native::ServerHandshake::end) the handshake.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use unbroken::protocol::{Handshake, Role, Session, native};
//!
//! fn carry(from: &mut impl Handshake, to: &mut impl Handshake) -> Result<(), unbroken::HandshakeError> {
//!     let message = from.transmit().to_vec();
//!     from.transmitted(message.len());
//!     for piece in message.chunks(to.wanted().max(1)) {
//!         to.receive(piece)?;
//!     }
//!     Ok(())
//! }
//!
//! let settings = native::Settings {
//!     window: 1 << 20,
//!     max_window: 8 << 20,
//!     resume_window: Duration::from_secs(300),
//!     linger: Duration::from_secs(60),
//!     ping_after: Duration::from_secs(15),
//!     dead_after: Duration::from_secs(30),
//!     handshake_timeout: Duration::from_secs(10),
//!     max_frame: native::MAX_DATA,
//! };
//! let now = Instant::now();
//!
//! // The server names the session,
//! let mut open = native::ClientOpen::new(1 << 20, native::ClientProtection::None);
//! let mut handshake = native::ServerHandshake::new();
//! carry(&mut open, &mut handshake)?;
//! handshake.proceed(native::ServerProtection::None)?;
//! let Some(native::Hello::Open { window }) = handshake.hello() else { panic!("it opens") };
//! let opened = native::Opened {
//!     id: [7; 16],
//!     secret: native::SessionSecret::new([9; 32]),
//!     route: 0,
//!     window: 1 << 20,
//!     resume_window: settings.resume_window,
//! };
//! handshake.open(&opened);
//! carry(&mut handshake, &mut open)?;
//!
//! // the client has it,
//! let (Some(opened), Some(confirm)) = (open.opened(), open.confirm()) else { panic!("it is open") };
//! let identity = |peer_window| native::Identity {
//!     id: opened.id,
//!     secret: opened.secret.clone(),
//!     binding: native::Binding::NONE,
//!     route: opened.route,
//!     peer_window,
//! };
//! let mut client =
//!     native::NativeSession::new(Role::Client, identity(opened.window), settings.clone(), now);
//! client.attach_opened(confirm, now);
//! client.write(b"hello");
//! let mut wire = client.transmit(now).concat();
//! client.transmitted(wire.len());
//!
//! // and so has the server.
//! let mut server = native::NativeSession::new(Role::Server, identity(window), settings, now);
//! let (message, frames) = wire.split_at_mut(native::CONFIRM_LEN);
//! handshake.receive(message)?;
//! let Some(received) = handshake.proved() else { panic!("it is the client") };
//! server.attach(0, received, now)?;
//! let arrived = server.receive(0, frames, now);
//! assert_eq!(frames[arrived.fresh], *b"hello");
//! # Ok::<(), unbroken::Error>(())
//! ```

pub(crate) mod handshake;
pub mod native;
#[cfg(feature = "noise")]
#[cfg_attr(docsrs, doc(cfg(feature = "noise")))]
pub mod noise;
mod receive;
mod replay;
mod ring;
mod session;
pub mod snet;
mod streams;

pub use handshake::{Handshake, ServerHandshake};
pub use replay::ReplayBuffer;
pub use session::{Arrived, LinkId, Phase, Role, Session, Stats};
