//! A server's part in native's handshakes.

use std::time::Duration;

use super::{
    host::{Accepted, Arriving, Failed, Host},
    registry::{Denied, Known, Named, Proved},
};
use crate::{
    error::{Error, HandshakeError, RejectCode, ResumeError},
    protocol::native::{Ended, Hello, Id, Opened, ServerHandshake, SessionSecret, Tombstone},
    transport::{BoxLink, SessionId, exchange, random},
};

/// When a client is to try again that was turned away because the server has too much to do, or is shutting down.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A link whose client has said what it wants.
pub(super) async fn accept(
    server: &Host,
    arriving: Arriving<'_>,
    mut machine: ServerHandshake,
) -> Result<Accepted, Failed> {
    match machine.hello() {
        Some(Hello::Open { window }) => open(server, arriving, machine, window).await,
        Some(Hello::Resume { id, attempt, .. }) => {
            resume(server, arriving, machine, id, attempt).await
        }
        Some(Hello::Unacceptable(code)) => {
            let error = match code {
                RejectCode::Version => HandshakeError::Version,
                _ => HandshakeError::Security,
            };
            Err(turn_away(arriving.link, &mut machine, error).await)
        }
        None => Err(HandshakeError::OutOfPlace.into()),
    }
}

async fn open(
    server: &Host,
    arriving: Arriving<'_>,
    mut machine: ServerHandshake,
    peer_window: u64,
) -> Result<Accepted, Failed> {
    if let Err(denied) = server.registry.check_open(arriving.peer_addr, None) {
        return Err(turn_away(arriving.link, &mut machine, denied).await);
    }
    let opened = Opened {
        id: server.registry.draw_native_id()?,
        secret: SessionSecret::new(random::bytes()?),
        route: server.config.route,
        window: server.config.native.window as u64,
        resume_window: server.config.resume_window,
    };
    machine.open(&opened);
    let id = SessionId::native(opened.id);
    let named = Named::Native {
        secret: opened.secret,
        peer_window,
    };
    server.registry.name(id, named);
    let (
        Arriving {
            link, peer_addr, ..
        },
        received,
    ) = prove(arriving, &mut machine).await?;
    match server.registry.prove(id, peer_addr, None) {
        Ok(Proved::Opened(entry)) => {
            // A resume may have been attached since, which is newer. The session is new all the same, and nobody else hands it out.
            let _ = entry.session().attach_native(link, 0, received);
            Ok(server.keep(entry))
        }
        // A resume was faster, and so is newer.
        Ok(Proved::Running(_) | Proved::Ended(_)) => {
            Err(turn_away(link, &mut machine, ResumeError::Stale).await)
        }
        Err(denied) => Err(turn_away(link, &mut machine, denied).await),
    }
}

async fn resume(
    server: &Host,
    arriving: Arriving<'_>,
    mut machine: ServerHandshake,
    id: Id,
    attempt: u32,
) -> Result<Accepted, Failed> {
    if let Err(denied) = server.registry.check_resume(arriving.peer_addr) {
        return Err(turn_away(arriving.link, &mut machine, denied).await);
    }
    let id = SessionId::native(id);
    let (secret, received) = match consider(server, id, attempt) {
        Ok(granted) => granted,
        Err(error) => return Err(turn_away(arriving.link, &mut machine, error).await),
    };
    machine.resume(&secret, random::bytes()?, received);
    let (
        Arriving {
            link, peer_addr, ..
        },
        confirmed,
    ) = prove(arriving, &mut machine).await?;
    match server.registry.prove(id, peer_addr, None) {
        Ok(Proved::Opened(entry)) => {
            // As with an open.
            let _ = entry.session().attach_native(link, attempt, confirmed);
            Ok(server.keep(entry))
        }
        Ok(Proved::Running(session)) => match session.attach_native(link, attempt, confirmed) {
            Ok(()) => {
                session.came_from(peer_addr);
                Ok(Accepted::Resumed(id))
            }
            Err((error, link)) => Err(match session.tombstone() {
                Some(tombstone) => tell_end(link, &mut machine, &tombstone, confirmed).await,
                None => turn_away(link, &mut machine, error).await,
            }),
        },
        Ok(Proved::Ended(tombstone)) => {
            server.registry.told(id, attempt);
            Err(tell_end(link, &mut machine, &tombstone, confirmed).await)
        }
        Err(denied) => Err(turn_away(link, &mut machine, denied).await),
    }
}

/// Whether a session may be resumed by such an attempt, with what secret, and how much of the client's stream has been received. Nothing
/// the client said is believed yet.
fn consider(
    server: &Host,
    id: SessionId,
    attempt: u32,
) -> Result<(SessionSecret, u64), ResumeError> {
    if attempt == 0 {
        // The number of the open.
        return Err(ResumeError::Stale);
    }
    let remembered = |tombstone: Tombstone| match tombstone.end {
        Ended::Rejected(RejectCode::Gap) => Err(ResumeError::Gap),
        Ended::Rejected(_) => Err(ResumeError::Expired),
        Ended::Reset(_) if Some(attempt) <= tombstone.last => Err(ResumeError::Stale),
        Ended::Reset(_) => Ok((tombstone.secret, tombstone.received)),
    };
    match server.registry.find(id) {
        Some(Known::Session(session)) => match session.answer_native(attempt)? {
            Ok(answer) => Ok(answer),
            Err(tombstone) => remembered(tombstone),
        },
        Some(Known::Unproved(Named::Native { secret, .. })) => Ok((secret, 0)),
        Some(Known::Ended(tombstone)) => remembered(tombstone),
        Some(Known::Unproved(Named::Snet(_))) | None => Err(ResumeError::Unknown),
    }
}

/// Carries a handshake on that waits for the client's CONFIRM, and returns how much that says to have received.
async fn prove<'a>(
    mut arriving: Arriving<'a>,
    machine: &mut ServerHandshake,
) -> Result<(Arriving<'a>, u64), Failed> {
    let place = arriving.place;
    match exchange(&mut arriving.link, machine, || place.heard()).await {
        Ok(()) => {}
        Err(Error::Handshake(error @ HandshakeError::Proof)) => {
            return Err(turn_away(arriving.link, machine, error).await);
        }
        Err(error) => return Err(error.into()),
    }
    let confirmed = machine.proved().ok_or(HandshakeError::OutOfPlace)?;
    Ok((arriving, confirmed))
}

/// Tells a client that has proved itself how its session ended.
async fn tell_end(
    mut link: BoxLink,
    machine: &mut ServerHandshake,
    tombstone: &Tombstone,
    confirmed: u64,
) -> Failed {
    match tombstone.end {
        Ended::Rejected(RejectCode::Gap) => turn_away(link, machine, ResumeError::Gap).await,
        Ended::Rejected(_) => turn_away(link, machine, ResumeError::Expired).await,
        Ended::Reset(code) => {
            // Nothing follows, so the client's own count will do as the start of it.
            machine.end(confirmed, tombstone.received, tombstone.limit, code);
            let told = exchange(&mut link, machine, || {}).await.is_ok();
            Failed {
                error: ResumeError::Ended.into(),
                told: told.then_some(link),
            }
        }
    }
}

/// Why a client is turned away.
struct Refused {
    error: Error,
    /// What the client is told, unless the link is closed without a word.
    code: Option<RejectCode>,
}

impl From<HandshakeError> for Refused {
    fn from(error: HandshakeError) -> Self {
        Self {
            error: error.into(),
            code: match error {
                HandshakeError::Version => Some(RejectCode::Version),
                HandshakeError::Security => Some(RejectCode::SecurityNotOffered),
                HandshakeError::Proof => Some(RejectCode::BadProof),
                _ => None,
            },
        }
    }
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Self {
        Self {
            error: denied.into(),
            code: Some(match denied {
                Denied::Unknown => RejectCode::Unknown,
                Denied::Full(_) => RejectCode::Busy,
                Denied::Draining => RejectCode::ShuttingDown,
            }),
        }
    }
}

impl From<ResumeError> for Refused {
    fn from(error: ResumeError) -> Self {
        Self {
            error: error.into(),
            code: match error {
                ResumeError::Unknown => Some(RejectCode::Unknown),
                ResumeError::Expired => Some(RejectCode::Expired),
                ResumeError::Proof => Some(RejectCode::BadProof),
                ResumeError::Gap => Some(RejectCode::Gap),
                ResumeError::Stale => Some(RejectCode::Stale),
                ResumeError::Ended | ResumeError::Closed => Some(RejectCode::Closed),
                // What cannot be is the client's error.
                ResumeError::ReceivedTooMuch | ResumeError::SentTooLittle => None,
            },
        }
    }
}

/// Tells a client that it is turned away, and why.
async fn turn_away(
    mut link: BoxLink,
    machine: &mut ServerHandshake,
    refused: impl Into<Refused>,
) -> Failed {
    let Refused { error, code } = refused.into();
    let Some(code) = code else {
        return error.into();
    };
    let retry_after = match code {
        RejectCode::Busy | RejectCode::ShuttingDown => RETRY_AFTER,
        _ => Duration::ZERO,
    };
    machine.reject(code, retry_after);
    let told = exchange(&mut link, machine, || {}).await.is_ok();
    Failed {
        error,
        told: told.then_some(link),
    }
}
