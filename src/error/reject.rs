//! Why a server turns a client away (`docs/PROTOCOL.md`, native: "Rejects").

use std::fmt;

/// Why a server turns a client away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectCode {
    /// 1: there is no session of this id.
    Unknown,
    /// 2: the session was without a link for longer than its resume window.
    Expired,
    /// 3: one end lacks bytes that the other no longer holds.
    Gap,
    /// 4: the proof of holding the session's secret does not hold.
    BadProof,
    /// 5: the server has as much to do as it takes on.
    Busy,
    /// 6: the server does not speak the version of the prelude.
    Version,
    /// 7: the server is being shut down.
    ShuttingDown,
    /// 8: the client's key is not let in.
    NotAuthorised,
    /// 9: the session was closed.
    Closed,
    /// 10: a newer attempt has been attached.
    Stale,
    /// 11: the server does not offer the security that the prelude asks for.
    SecurityNotOffered,
    /// 12: another server has the session, by the route that the client gives.
    Elsewhere,
    /// A code without a name. [`RejectCode::from`] makes it of no code that has one.
    Other(u16),
}

impl RejectCode {
    /// The code on the wire.
    pub fn code(self) -> u16 {
        match self {
            Self::Unknown => 1,
            Self::Expired => 2,
            Self::Gap => 3,
            Self::BadProof => 4,
            Self::Busy => 5,
            Self::Version => 6,
            Self::ShuttingDown => 7,
            Self::NotAuthorised => 8,
            Self::Closed => 9,
            Self::Stale => 10,
            Self::SecurityNotOffered => 11,
            Self::Elsewhere => 12,
            Self::Other(code) => code,
        }
    }

    /// Whether the session cannot be resumed, now or later. Of a REJECT that came in the clear though a security was asked for this says
    /// nothing: anybody can have sent it.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Unknown | Self::Expired | Self::Gap | Self::NotAuthorised | Self::Closed
        )
    }
}

impl From<u16> for RejectCode {
    fn from(code: u16) -> Self {
        match code {
            1 => Self::Unknown,
            2 => Self::Expired,
            3 => Self::Gap,
            4 => Self::BadProof,
            5 => Self::Busy,
            6 => Self::Version,
            7 => Self::ShuttingDown,
            8 => Self::NotAuthorised,
            9 => Self::Closed,
            10 => Self::Stale,
            11 => Self::SecurityNotOffered,
            12 => Self::Elsewhere,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for RejectCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "the server has no session of this id",
            Self::Expired => "the session had no link for longer than its resume window",
            Self::Gap => "bytes were lost that neither end still holds",
            Self::BadProof => "the proof of holding the session's secret does not hold",
            Self::Busy => "the server has too much to do",
            Self::Version => "the server does not speak this version of the protocol",
            Self::ShuttingDown => "the server is shutting down",
            Self::NotAuthorised => "the server does not let this client in",
            Self::Closed => "the session was closed",
            Self::Stale => "a newer attempt to resume has come first",
            Self::SecurityNotOffered => "the server does not offer the security asked for",
            Self::Elsewhere => "another server has the session: what leads its links here is wrong",
            Self::Other(code) => return write!(f, "a reason without a name, code {code}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_as_it_was_written_and_twelve_have_names() {
        for code in 0..=u16::MAX {
            let read = RejectCode::from(code);
            assert_eq!(read.code(), code);
            let named = !matches!(read, RejectCode::Other(_));
            assert_eq!(named, (1..=12).contains(&code), "{code}");
        }
    }

    #[test]
    fn five_codes_are_final() {
        let is_final = |code: &u16| RejectCode::from(*code).is_final();
        let all: Vec<u16> = (0..=u16::MAX).filter(is_final).collect();
        assert_eq!(all, [1, 2, 3, 8, 9]);
    }

    #[test]
    fn each_code_is_explained_in_its_own_words() {
        let mut words: Vec<String> = (0..=13)
            .map(|code| RejectCode::from(code).to_string())
            .collect();
        words.sort();
        words.dedup();
        assert_eq!(words.len(), 14);
    }
}
