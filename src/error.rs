//! Errors: one enum for what a user meets, kept whole inside every `io::Error`.

mod limit;
mod reject;
pub mod reset;

use std::{fmt, io, sync::Arc, time::Duration};

pub use limit::Limit;
pub use reject::RejectCode;

/// Any error, boxed: what services below and above speak.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An error as libraries share it whose own errors can be cloned.
type SharedError = Arc<dyn std::error::Error + Send + Sync>;

/// What can go wrong with a session, its links or the opening of either.
///
/// Reading and writing a transport return it inside an [`io::Error`], with a kind chosen for each variant; it is found again with
/// `get_ref` and `downcast_ref`, or from further out by [`find`](Self::find):
///
/// ```
/// fn is_gap(error: &std::io::Error) -> bool {
///     let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<unbroken::Error>());
///     matches!(inner, Some(unbroken::Error::Closed(unbroken::CloseReason::Gap)))
/// }
/// assert!(is_gap(&unbroken::Error::Closed(unbroken::CloseReason::Gap).into()));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting of the configuration cannot be used.
    #[error("the configuration cannot be used: {0}")]
    Config(#[from] ConfigError),
    /// A target that names no place to dial.
    #[error("cannot dial {target:?}: {problem}")]
    Target {
        /// The target as it was given.
        target: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The service that dials could not give a link.
    #[error("no link to the peer could be opened")]
    Dial(#[source] BoxError),
    /// The link failed while the session was being opened or resumed on it.
    #[error("the link failed during the handshake")]
    Link(#[source] io::Error),
    /// The peer did not take its next step in the handshake in time.
    #[error("the peer did not finish the handshake in time")]
    HandshakeTimeout,
    /// The peer's handshake cannot be right.
    #[error("the peer's handshake is wrong: {0}")]
    Handshake(#[from] HandshakeError),
    /// This end has as much to do, or as much memory in use, as it is configured for, by this limit, and gave this one up. It may be tried
    /// again later.
    #[error("there is no room for it: {0}")]
    Overloaded(Limit),
    /// The server gives no session, or no link for one, for now or for good.
    #[error("the server refused: {reason}")]
    Rejected {
        /// Why.
        reason: RejectCode,
        /// How long to wait before another try, if the server says so; otherwise 0.
        retry_after: Duration,
    },
    /// The listener or acceptor was shut down.
    #[error("the server was shut down")]
    ShutDown,
    /// A resume was turned away.
    #[error("the resume was turned away: {0}")]
    Resume(#[from] ResumeError),
    /// The session is over.
    #[error("the session is over: {0}")]
    Closed(CloseReason),
    /// The system's random generator failed, so no key could be made.
    #[error("the system's random generator failed")]
    Random(#[source] BoxError),
    /// Something was written after the write side was shut down.
    #[error("the write side of the transport was shut down")]
    WriteAfterShutdown,
    /// Only the end that dials can replace the link.
    #[error("only the client of a session can migrate it: the server cannot dial")]
    CannotDial,
}

impl Error {
    /// The error of this crate among `error` and its sources, in what hyper or another library makes of one. An [`io::Error`] is looked
    /// into, and an error in an `Arc`.
    ///
    /// ```
    /// use std::io;
    /// use unbroken::{CloseReason, Error};
    ///
    /// let lost = io::Error::from(Error::Closed(CloseReason::Expired));
    /// let failed = io::Error::other(lost);
    /// assert!(matches!(Error::find(&failed), Some(Error::Closed(CloseReason::Expired))));
    /// ```
    ///
    /// It is not found where a library keeps no source: h2 has only the text and the kind of an I/O error.
    /// [`Handle::state`](crate::Handle::state) says it there.
    pub fn find<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found);
            }
            // All of these name the source of the error inside them as their own.
            next = if let Some(inside) = error.downcast_ref().and_then(io::Error::get_ref) {
                Some(inside)
            } else if let Some(shared) = error.downcast_ref::<SharedError>() {
                Some(&**shared)
            } else if let Some(shared) = error.downcast_ref::<Arc<io::Error>>() {
                Some(&**shared)
            } else if let Some(shared) = error.downcast_ref::<Arc<Self>>() {
                Some(&**shared)
            } else {
                error.source()
            };
        }
        None
    }

    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Config(_) | Self::Target { .. } => io::ErrorKind::InvalidInput,
            Self::Dial(source) => source
                .downcast_ref::<io::Error>()
                .map_or(io::ErrorKind::Other, io::Error::kind),
            Self::Link(source) => source.kind(),
            Self::HandshakeTimeout => io::ErrorKind::TimedOut,
            Self::Handshake(_) => io::ErrorKind::InvalidData,
            Self::Overloaded(_) => io::ErrorKind::QuotaExceeded,
            Self::Random(_) => io::ErrorKind::Other,
            Self::Resume(_) | Self::Rejected { .. } => io::ErrorKind::ConnectionRefused,
            Self::ShutDown => io::ErrorKind::NotConnected,
            Self::Closed(reason) => reason.kind(),
            Self::WriteAfterShutdown => io::ErrorKind::BrokenPipe,
            Self::CannotDial => io::ErrorKind::Unsupported,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}`: {problem}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The setting, as the builder method is called.
    pub field: &'static str,
    /// What is wrong with it, or what would do.
    pub problem: String,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// This end dropped its transport, and what it had written is on its way.
    Local,
    /// The peer closed the session in order. Reading returns the end of the stream, not an error.
    Peer,
    /// No link was attached within the resume window; or the transport was dropped, and what it had written could not be handed over
    /// within `linger`.
    Expired,
    /// Both ends have ended their streams in order, and all of both has been delivered. Reading returns the end of the stream, not an
    /// error.
    Finished,
    /// The peer has reset the session, with this code. Those from `0xffff_ff00` on are the transport's own, as
    /// [`reset`] lists them.
    Reset(u32),
    /// This end has reset the session, with this code: [`Handle::close`](crate::Handle::close), or the transport was dropped with
    /// bytes that had not been read.
    LocalReset(u32),
    /// The server refused to resume the session, for good.
    Refused(Refusal),
    /// More was lost with the link than one end still holds: the stream cannot be continued without a hole.
    Gap,
    /// One direction has had as many bytes as an offset can count, 2^64 − 1; or a client has made as many attempts to resume as can be
    /// numbered, 2^32 − 1.
    Exhausted,
    /// What kept the session is gone: its runtime was shut down, or a cipher or a link of the user's panicked.
    Abandoned,
}

impl CloseReason {
    fn kind(self) -> io::ErrorKind {
        match self {
            Self::Local | Self::Peer | Self::Finished => io::ErrorKind::BrokenPipe,
            Self::Expired => io::ErrorKind::TimedOut,
            Self::Reset(_) => io::ErrorKind::ConnectionReset,
            Self::LocalReset(_) => io::ErrorKind::ConnectionAborted,
            Self::Refused(_) => io::ErrorKind::ConnectionRefused,
            Self::Gap => io::ErrorKind::InvalidData,
            Self::Exhausted => io::ErrorKind::Other,
            Self::Abandoned => io::ErrorKind::ConnectionAborted,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Finished => "both ends have ended it",
            Self::Reset(code) => return write!(f, "the peer reset it, {}", ResetCode(*code)),
            Self::LocalReset(code) => return write!(f, "this end reset it, {}", ResetCode(*code)),
            Self::Refused(refusal) => {
                return write!(f, "the server refused to resume it: {refusal}");
            }
            Self::Local => "this end closed it",
            Self::Peer => "the peer closed it",
            Self::Expired => "no link could be had in time",
            Self::Gap => {
                "more was lost with the link than the history holds; a larger history prevents it"
            }
            Self::Exhausted => {
                "no number is left to count its bytes, or its attempts to resume, by"
            }
            Self::Abandoned => "what kept it is gone: its runtime was shut down, or it panicked",
        })
    }
}

/// Why a server refused to resume a session, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It knows no such session, or no longer: it has restarted, or forgotten it.
    #[error("it knows no such session, or no longer")]
    Unknown,
    /// It does not let this client have the session.
    #[error("this client may not have it")]
    NotAuthorised,
    /// It has closed the session.
    #[error("it has closed the session")]
    Closed,
    /// It says no more than that, as snet does: it does not know the session, or no longer, or could not satisfy the resume.
    #[error("it gives no reason")]
    Unexplained,
}

/// A RESET's code, for people.
struct ResetCode(u32);

impl fmt::Display for ResetCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            reset::DROPPED_UNREAD => {
                f.write_str("because its transport was dropped with bytes unread")
            }
            reset::LINGER => f.write_str("because its end took longer than may be lingered"),
            reset::SHUTTING_DOWN => f.write_str("because the server is shutting down"),
            reset::ABANDONED => f.write_str("because one end can go on no more"),
            code => write!(f, "with the code {code}"),
        }
    }
}

/// What is wrong with a peer's handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The first byte belongs to no protocol that is spoken here.
    #[error("the first byte, {0:#04x}, belongs to no protocol spoken here")]
    FirstByte(u8),
    /// A public key of 0, with which everybody would know the secret.
    #[error("the public key is 0")]
    ZeroPublicKey,
    /// The proof of knowing the session's key does not hold.
    #[error("the proof of knowing the session's key does not hold")]
    Proof,
    /// A message came in that no step of the handshake waits for.
    #[error("bytes came in that no step waits for")]
    OutOfPlace,
    /// The first bytes are not those of a native prelude.
    #[error("the first bytes are not \"UNBR\"")]
    Magic,
    /// The prelude is of a version that is not spoken here.
    #[error("the peer speaks another version of the protocol")]
    Version,
    /// The prelude asks for a security, or a suite of it, that is not offered here.
    #[error("the peer asks for a security that is not offered")]
    Security,
    /// The first frame does what the prelude did not announce: it opens though that says resume, or the other way round.
    #[error("the first frame is not what the prelude announced")]
    Kind,
    /// The peer has other keys than this end, or what it sent was changed on the way.
    #[error("it cannot be decrypted: the peer has other keys, or somebody changed it on the way")]
    Decrypt,
    /// The client's key is not let in.
    #[error("the client's key is not let in")]
    NotAuthorised,
    /// A message of the link's security has a length that it cannot have.
    #[error("a message of the link's security has {0} bytes, which it cannot have")]
    MessageLength(u16),
    /// A message is not the frame that the handshake waits for.
    #[error("a message is wrong: {0}")]
    Frame(#[from] ProtocolError),
}

/// What a native peer did wrong on a link. It ends the link, not the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A frame of a type that is not known, and that may not be skipped.
    #[error("a frame of the unknown type {0:#04x}")]
    UnknownFrame(u8),
    /// A frame whose length its type does not have.
    #[error("a frame of type {frame:#04x} with a payload of {len} bytes")]
    Length {
        /// The frame's type.
        frame: u8,
        /// The length of the payload it announces, in bytes.
        len: u32,
    },
    /// A frame that could be skipped, and is longer than this end [takes](crate::Config::max_frame).
    #[error(
        "a frame of type {frame:#04x} with a payload of {len} bytes, which is too long to be skipped"
    )]
    TooLong {
        /// The frame's type.
        frame: u8,
        /// The length of the payload it announces, in bytes.
        len: u32,
    },
    /// A frame of a known type where it cannot stand.
    #[error("a frame of type {0:#04x} out of its place")]
    OutOfPlace(u8),
    /// Something other than ATTACH at the start of an attached link.
    #[error("the link starts with a frame of type {0:#04x}, not with ATTACH")]
    NotAttach(u8),
    /// An ATTACH that starts behind a hole: beyond what was received.
    #[error("the link starts beyond what was received")]
    AttachBeyondReceived,
    /// An acknowledgement of more than was ever sent.
    #[error("it acknowledges more than was sent")]
    AckBeyondSent,
    /// Data beyond the limit that it was given.
    #[error("it sent data beyond its limit")]
    DataBeyondLimit,
    /// Data behind the end of its direction.
    #[error("it sent data after FIN")]
    DataAfterFin,
    /// A FIN at another offset than the one before, or below what was received.
    #[error("it ends its direction at another offset than before")]
    FinMoved,
}

/// Why a resume was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// There is no session of this id, or no longer.
    #[error("there is no session of this id")]
    Unknown,
    /// The session had no link for longer than its resume window.
    #[error("the session has expired")]
    Expired,
    /// The request is not from the session's peer.
    #[error("the request's proof does not hold")]
    Proof,
    /// The client gives another route than this server's: its session is somewhere else.
    #[error("the session is another server's, by its route")]
    Elsewhere,
    /// The session was opened by a client with another key, or on a link with another protection.
    #[error("the session is another client's, or its links are protected in another way")]
    NotAuthorised,
    /// The peer says it has received more than was sent.
    #[error("the peer claims to have received more than was sent")]
    ReceivedTooMuch,
    /// The peer says it has sent less than was received.
    #[error("the peer claims to have sent less than was received")]
    SentTooLittle,
    /// The peer lacks bytes that this end no longer holds.
    #[error("the peer lacks more than the history holds")]
    Gap,
    /// This end closed the session and the peer has had everything.
    #[error("the session has ended and the peer has received all of it")]
    Ended,
    /// A newer resume has been attached meanwhile.
    #[error("a newer link has been attached meanwhile")]
    Stale,
    /// The session is over.
    #[error("the session is over")]
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error around another, as most libraries make them.
    #[derive(Debug, thiserror::Error)]
    #[error("around it")]
    struct Around<E: std::error::Error + 'static>(#[source] E);

    #[test]
    fn an_error_of_ours_is_found_in_whatever_it_is_wrapped_in() {
        let ours = || Error::Closed(CloseReason::Expired);
        let io = || io::Error::from(ours());
        let shared: SharedError = Arc::new(io());
        let wrapped: [BoxError; 9] = [
            ours().into(),
            io().into(),
            io::Error::other(io::Error::other(Around(io()))).into(),
            Around(io()).into(),
            Around(Arc::new(io())).into(),
            Around(Arc::new(ours())).into(),
            Around(shared.clone()).into(),
            io::Error::other(shared).into(),
            Error::Dial(Around(ours()).into()).into(),
        ];
        for error in &wrapped[..8] {
            let found = Error::find(&**error);
            let is_ours = matches!(found, Some(Error::Closed(CloseReason::Expired)));
            assert!(is_ours, "{error:?}: {found:?}");
        }
        // The outermost of several.
        assert!(matches!(Error::find(&*wrapped[8]), Some(Error::Dial(_))));
        for other in [
            io::ErrorKind::Other.into(),
            io::Error::from_raw_os_error(104),
            io::Error::other("text"),
        ] {
            assert!(Error::find(&Around(other)).is_none());
        }
    }
}
