//! What is said at the end.

use std::error::Error;
use std::fmt;

use indicatif::HumanBytes;

use crate::http::Received;
use crate::progress::Snapshot;
use crate::source::Source;

/// The result of a run; displayed on stdout.
pub(crate) struct Report<'a> {
    /// What was sent.
    pub(crate) source: &'a Source,
    /// None when a transfer failed.
    pub(crate) received: Option<&'a Received>,
    /// At the end.
    pub(crate) snapshot: &'a Snapshot,
    /// From the connect to the last byte.
    pub(crate) seconds: f64,
}

impl Report<'_> {
    /// True when both ends got what was sent.
    pub(crate) fn identical(&self) -> bool {
        self.received.is_some_and(|received| {
            received.by_server == self.source.sha256() && received.by_client == self.source.sha256()
        })
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = self.snapshot;
        let total = HumanBytes(self.source.bytes());
        let rate = |bytes: u64| HumanBytes((bytes as f64 / self.seconds.max(1e-9)) as u64);
        writeln!(f, "file        {total}, {}", self.source.name())?;
        for (name, bytes) in [("uploaded  ", now.up), ("downloaded", now.down)] {
            writeln!(f, "{name}  {}, {}/s", HumanBytes(bytes), rate(bytes))?;
        }
        writeln!(f, "time        {:.1} s", self.seconds)?;
        let proxy = &now.proxy;
        writeln!(
            f,
            "links       {} cut, {} gone silent, {} dials refused",
            proxy.cut, proxy.silenced, proxy.refused
        )?;
        if let Some(session) = &now.session {
            writeln!(
                f,
                "session     {} resumes; replayed {} up, {} down",
                session.resumes,
                HumanBytes(session.replayed_up),
                HumanBytes(session.replayed_down)
            )?;
        }
        writeln!(f, "SHA-256     {} sent", self.source.sha256())?;
        let Some(received) = self.received else {
            return writeln!(f, "INCOMPLETE");
        };
        writeln!(f, "            {} at the server", received.by_server)?;
        writeln!(f, "            {} at the client", received.by_client)?;
        let verdict = if self.identical() {
            "identical"
        } else {
            "DIFFERENT"
        };
        writeln!(f, "{verdict}")
    }
}

/// An error and its causes, for people. A cause already told by the error above it is not told again.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !told.ends_with(&text) {
            told = format!("{told}: {text}");
        }
        cause = error.source();
    }
    told
}
