//! What is said of a session's life. The crate's documentation lists it, with what else is.
//!
//! No secret, proof, nonce or byte of a stream may ever be part of it.

use std::{fmt, net::SocketAddr, time::Duration};

use tracing::{Span, debug, field, info, info_span, warn};

use super::{
    clock::now,
    state::{LinkState, SessionId},
};
use crate::{error::CloseReason, protocol::Stats};

/// What the session's own task runs in, redials included.
///
/// It has no parent: the session outlives whatever it was opened in.
pub(super) fn span(id: SessionId, role: &'static str, protocol: &'static str) -> Span {
    info_span!(parent: None, "session", id = %id.short(), role, protocol)
}

pub(super) fn opened(
    id: SessionId,
    role: &'static str,
    protocol: &'static str,
    peer: Option<SocketAddr>,
) {
    info!(session = %id.short(), role, protocol, peer = peer.map(field::display), "a session is opened");
}

/// A link is in use. `before` is what the session's state was when it was last looked at.
pub(super) fn attached(id: SessionId, before: &LinkState, stats: &Stats) {
    if stats.resumes == 0 {
        return;
    }
    let detached = match before {
        LinkState::Reconnecting { since, .. } => now().saturating_duration_since(*since),
        LinkState::Connected | LinkState::Closed(_) => Duration::ZERO,
    };
    debug!(
        session = %id.short(),
        ?detached,
        resumes = stats.resumes,
        "the session is resumed"
    );
}

pub(super) fn over(id: SessionId, reason: CloseReason, stats: &Stats) {
    let session = id.short();
    let Stats {
        sent,
        received,
        replayed,
        resumes,
        ..
    } = *stats;
    match reason {
        // A configuration, or a program, is to be mended.
        CloseReason::Gap | CloseReason::Abandoned => {
            warn!(%session, %reason, sent, received, replayed, resumes, "the session is over");
        }
        _ => info!(%session, %reason, sent, received, replayed, resumes, "the session is over"),
    }
}

/// An error with what caused it, in one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some errors say what caused them themselves.
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            said = text;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::error::{Error, HandshakeError};

    #[test]
    fn causes_are_said_once() {
        let dial = Error::Dial(io::Error::other(Error::Link(io::Error::other("cut"))).into());
        let rows = [
            (Error::HandshakeTimeout, Error::HandshakeTimeout.to_string()),
            (
                HandshakeError::Magic.into(),
                Error::Handshake(HandshakeError::Magic).to_string(),
            ),
            (
                dial,
                "no link to the peer could be opened: the link failed during the handshake: cut"
                    .to_owned(),
            ),
        ];
        for (error, expected) in rows {
            assert_eq!(Chain(&error).to_string(), expected);
        }
    }
}
