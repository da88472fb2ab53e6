//! The bounds of an end, as its errors name them.

use std::fmt;

/// A bound that has been reached: a setting of the [`Config`](crate::Config), or the system's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// [`max_handshakes`](crate::Config::max_handshakes).
    Handshakes,
    /// [`max_handshakes_per_address`](crate::Config::max_handshakes_per_address).
    HandshakesPerAddress,
    /// [`max_sessions`](crate::Config::max_sessions).
    Sessions,
    /// [`max_sessions_per_address`](crate::Config::max_sessions_per_address).
    SessionsPerAddress,
    /// [`max_sessions_per_identity`](crate::Config::max_sessions_per_identity).
    SessionsPerIdentity,
    /// [`max_resumes_per_second`](crate::Config::max_resumes_per_second).
    ResumesPerSecond,
    /// [`memory_budget`](crate::Config::memory_budget).
    Memory,
    /// The system's own, on the file descriptors of the process or of all; no setting.
    FileDescriptors,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handshakes => "this handshake was the slowest of too many",
            Self::HandshakesPerAddress => {
                "this handshake was the slowest of too many from its address"
            }
            Self::Sessions => "it has as many sessions as it may",
            Self::SessionsPerAddress => "it has as many sessions from this address as it may",
            Self::SessionsPerIdentity => "it has as many sessions of this client as it may",
            Self::FileDescriptors => {
                "this handshake was the slowest as the system ran out of file descriptors"
            }
            Self::Memory => "its memory budget is used up",
            Self::ResumesPerSecond => {
                "more attempts to resume came from this address than it takes in a second"
            }
        })
    }
}
