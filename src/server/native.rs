//! A server's part in native's handshakes.

use std::time::Duration;

use super::{
    host::{Accepted, Arriving, Failed, Host},
    registry::{Closed, Known, Named, Proved},
};
use crate::{
    error::{Error, HandshakeError, RejectCode, ResumeError},
    protocol::native::{Hello, Id, Opened, ServerHandshake, SessionSecret, Tombstone},
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
            Err(turn_away(arriving.link, &mut machine, code, error).await)
        }
        None => Err(HandshakeError::OutOfPlace.into()),
    }
}

async fn open(
    server: &Host,
    mut arriving: Arriving<'_>,
    mut machine: ServerHandshake,
    peer_window: u64,
) -> Result<Accepted, Failed> {
    if let Err(closed) = server.registry.check_open() {
        return Err(turn_away(arriving.link, &mut machine, code(closed), closed).await);
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
    let received = prove(&mut arriving, &mut machine).await?;
    let link = arriving.link;
    match server.registry.prove(id, arriving.peer_addr) {
        Ok(Ok(Proved::Opened(session))) => {
            // A resume may have been attached since, which is newer. The session is new all the same, and nobody else hands it out.
            let _ = session.attach_native(link, 0, received);
            Ok(server.keep(session))
        }
        // A resume was faster, and so is newer.
        Ok(Ok(Proved::Running(_) | Proved::Ended(_))) => {
            Err(turn_away(link, &mut machine, RejectCode::Stale, ResumeError::Stale).await)
        }
        Ok(Err(error)) => Err(turn_away(link, &mut machine, refusal(error), error).await),
        Err(closed) => Err(turn_away(link, &mut machine, code(closed), closed).await),
    }
}

async fn resume(
    server: &Host,
    mut arriving: Arriving<'_>,
    mut machine: ServerHandshake,
    id: Id,
    attempt: u32,
) -> Result<Accepted, Failed> {
    let id = SessionId::native(id);
    let (secret, received) = match consider(server, id, attempt) {
        Ok(granted) => granted,
        Err(error) => {
            return Err(turn_away(arriving.link, &mut machine, refusal(error), error).await);
        }
    };
    machine.resume(&secret, random::bytes()?, received);
    let confirmed = match prove(&mut arriving, &mut machine).await {
        Ok(confirmed) => confirmed,
        Err(error @ Error::Handshake(HandshakeError::Proof)) => {
            let code = RejectCode::BadProof;
            return Err(turn_away(arriving.link, &mut machine, code, error).await);
        }
        Err(error) => return Err(error.into()),
    };
    let Arriving {
        link, peer_addr, ..
    } = arriving;
    match server.registry.prove(id, peer_addr) {
        Ok(Ok(Proved::Opened(session))) => {
            // As with an open.
            let _ = session.attach_native(link, attempt, confirmed);
            Ok(server.keep(session))
        }
        Ok(Ok(Proved::Running(session))) => match session.attach_native(link, attempt, confirmed) {
            Ok(()) => {
                session.came_from(peer_addr);
                Ok(Accepted::Resumed(id))
            }
            Err((error, link)) => match session.tombstone() {
                Some(tombstone) => tell_end(link, &mut machine, &tombstone, confirmed).await,
                None => Err(turn_away(link, &mut machine, refusal(error), error).await),
            },
        },
        Ok(Ok(Proved::Ended(tombstone))) => {
            server.registry.told(id, attempt);
            tell_end(link, &mut machine, &tombstone, confirmed).await
        }
        Ok(Err(error)) => Err(turn_away(link, &mut machine, refusal(error), error).await),
        Err(closed) => Err(turn_away(link, &mut machine, code(closed), closed).await),
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
    let remembered = |tombstone: Tombstone| match tombstone.code {
        None => Err(ResumeError::Expired),
        Some(_) if Some(attempt) <= tombstone.last => Err(ResumeError::Stale),
        Some(_) => Ok((tombstone.secret, tombstone.received)),
    };
    match server.registry.find(id) {
        Some(Known::Session(session)) => match session.tombstone() {
            Some(tombstone) => remembered(tombstone),
            None => Ok((session.native_secret()?, session.answer_native(attempt)?)),
        },
        Some(Known::Unproved(Named::Native { secret, .. })) => Ok((secret, 0)),
        Some(Known::Ended(tombstone)) => remembered(tombstone),
        Some(Known::Unproved(Named::Snet(_))) | None => Err(ResumeError::Unknown),
    }
}

/// Carries a handshake on that waits for the client's CONFIRM, and returns how much that says to have received.
async fn prove(arriving: &mut Arriving<'_>, machine: &mut ServerHandshake) -> Result<u64, Error> {
    let place = arriving.place;
    exchange(&mut arriving.link, machine, || place.heard()).await?;
    machine
        .proved()
        .ok_or_else(|| HandshakeError::OutOfPlace.into())
}

/// Tells a client that has proved itself how its session ended.
async fn tell_end(
    mut link: BoxLink,
    machine: &mut ServerHandshake,
    tombstone: &Tombstone,
    confirmed: u64,
) -> Result<Accepted, Failed> {
    let Some(reset) = tombstone.code else {
        return Err(turn_away(link, machine, RejectCode::Expired, ResumeError::Expired).await);
    };
    // Nothing follows, so the client's own count will do as the start of it.
    let received = tombstone.received;
    machine.end(confirmed, received, received, reset);
    exchange(&mut link, machine, || {}).await?;
    Err(Failed {
        error: ResumeError::Ended.into(),
        told: Some(link),
    })
}

/// Tells a client that it is turned away, and why.
async fn turn_away(
    mut link: BoxLink,
    machine: &mut ServerHandshake,
    code: RejectCode,
    error: impl Into<Error>,
) -> Failed {
    let retry_after = match code {
        RejectCode::Busy | RejectCode::ShuttingDown => RETRY_AFTER,
        _ => Duration::ZERO,
    };
    machine.reject(code, retry_after);
    let told = exchange(&mut link, machine, || {}).await.is_ok();
    Failed {
        error: error.into(),
        told: told.then_some(link),
    }
}

fn code(closed: Closed) -> RejectCode {
    match closed {
        Closed::Full => RejectCode::Busy,
        Closed::Draining => RejectCode::ShuttingDown,
    }
}

fn refusal(error: ResumeError) -> RejectCode {
    match error {
        ResumeError::Unknown => RejectCode::Unknown,
        ResumeError::Expired => RejectCode::Expired,
        ResumeError::Proof => RejectCode::BadProof,
        ResumeError::ReceivedTooMuch | ResumeError::SentTooLittle | ResumeError::Gap => {
            RejectCode::Gap
        }
        ResumeError::Stale => RejectCode::Stale,
        ResumeError::Ended | ResumeError::Closed => RejectCode::Closed,
    }
}
