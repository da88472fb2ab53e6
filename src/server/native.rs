//! A server's part in native's handshakes.

use std::time::Duration;

use super::{
    host::{Accepted, Arriving, Failed, Host},
    registry::{Denied, Known, Named, Proved},
};
use crate::{
    error::{Error, HandshakeError, RejectCode, ResumeError},
    protocol::native::{
        Binding, Ended, Hello, Id, Kind, Opened, Prelude, ServerHandshake, SessionSecret, Tombstone,
    },
    transport::{AnyLink, SessionId, exchange, random},
};

/// When a client is to try again that was turned away for now: the server has too much to do, is shutting down or is not the one.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A link whose client has announced what it wants.
pub(super) async fn accept(
    server: &Host,
    mut arriving: Arriving<'_>,
    mut machine: ServerHandshake,
) -> Result<Accepted, Failed> {
    if let Some(prelude) = machine.prelude() {
        // Before any cryptography: it is what floods would have this end do.
        let allowed: Result<(), Refused> = match prelude.kind {
            Kind::Open => (server.registry.check_open(arriving.peer())).map_err(Into::into),
            // Not to be told from a session that is no more, if it were looked for here.
            Kind::Resume if prelude.route != server.config.route => {
                Err(ResumeError::Elsewhere.into())
            }
            Kind::Resume => (server.registry.check_resume(arriving.peer_addr)).map_err(Into::into),
        };
        if let Err(refused) = allowed {
            return Err(turn_away(arriving.link, &mut machine, refused).await);
        }
        if let Err(error) = uncover(server, &mut arriving, &mut machine, &prelude).await {
            return Err(match error {
                Error::Handshake(error) => turn_away(arriving.link, &mut machine, error).await,
                error => error.into(),
            });
        }
    }
    // A client of another version has not come to show a key.
    let speaks = !matches!(machine.hello(), Some(Hello::Unacceptable(_)));
    if speaks && !server.config.security.admits(machine.binding().client_key) {
        return Err(turn_away(arriving.link, &mut machine, HandshakeError::NotAuthorised).await);
    }
    match machine.hello() {
        Some(Hello::Open { window }) => open(server, arriving, machine, window).await,
        Some(Hello::Resume { id, attempt, .. }) => {
            resume(server, arriving, machine, id, attempt).await
        }
        Some(Hello::Unacceptable(_)) => {
            Err(turn_away(arriving.link, &mut machine, HandshakeError::Version).await)
        }
        None => Err(HandshakeError::OutOfPlace.into()),
    }
}

/// Carries the handshake on until the client has said what it wants, under the link's protection if there is to be one.
async fn uncover(
    server: &Host,
    arriving: &mut Arriving<'_>,
    machine: &mut ServerHandshake,
    prelude: &Prelude,
) -> Result<(), Error> {
    let security = &server.config.security;
    let protection = security
        .for_server(prelude, random::bytes()?)
        .ok_or(HandshakeError::Security)?;
    machine.proceed(protection)?;
    let place = arriving.place;
    exchange(&mut arriving.link, machine, || place.heard()).await
}

async fn open(
    server: &Host,
    arriving: Arriving<'_>,
    mut machine: ServerHandshake,
    peer_window: u64,
) -> Result<Accepted, Failed> {
    let binding = machine.binding();
    let peer = arriving.peer_with(&binding);
    if let Err(denied) = server.registry.check_open(peer) {
        return Err(turn_away(arriving.link, &mut machine, denied).await);
    }
    let opened = Opened {
        id: server.registry.draw_native_id()?,
        secret: SessionSecret::new(random::bytes()?),
        route: server.config.route,
        window: server.config.native.window as u64,
        resume_window: server.config.resume_window,
    };
    let id = SessionId::native(opened.id);
    let named = Named::Native {
        secret: opened.secret.clone(),
        binding,
        peer_window,
    };
    arriving.place.answer(server.registry.proving());
    if let Err(denied) = server.registry.name(id, named) {
        return Err(turn_away(arriving.link, &mut machine, denied).await);
    }
    machine.open(&opened);
    let (link, received) = prove(arriving, &mut machine).await?;
    match server.registry.prove(id, peer) {
        Ok(Proved::Opened(entry)) => {
            // A resume may have been attached since, which is newer. The session is new all the same, and nobody else hands it out.
            let _ = entry.session().attach_native(link, 0, received);
            Ok(server.keep(entry))
        }
        // The server has begun to shut down since.
        Ok(Proved::Ended(tombstone)) if tombstone.last.is_none() => {
            Err(tell_end(link, &mut machine, &tombstone, received).await)
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
    let id = SessionId::native(id);
    let binding = machine.binding();
    let peer = arriving.peer_with(&binding);
    let (secret, received) = match consider(server, id, attempt, &binding) {
        Ok(granted) => granted,
        Err(error) => return Err(turn_away(arriving.link, &mut machine, error).await),
    };
    arriving.place.answer(server.registry.proving());
    machine.resume(&secret, random::bytes()?, received);
    let (link, confirmed) = prove(arriving, &mut machine).await?;
    match server.registry.prove(id, peer) {
        Ok(Proved::Opened(entry)) => {
            // As with an open.
            let _ = entry.session().attach_native(link, attempt, confirmed);
            Ok(server.keep(entry))
        }
        Ok(Proved::Running(session)) => match session.attach_native(link, attempt, confirmed) {
            Ok(()) => {
                session.came_from(peer.addr);
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

/// Whether a session may be resumed by such an attempt on a link like this, with what secret, and how much of the client's stream has been
/// received. Nothing the client said is believed yet.
fn consider(
    server: &Host,
    id: SessionId,
    attempt: u32,
    binding: &Binding,
) -> Result<(SessionSecret, u64), ResumeError> {
    let check = |opened_with: &Binding| {
        if binding == opened_with {
            Ok(())
        } else {
            Err(ResumeError::NotAuthorised)
        }
    };
    let is_newer = |last: Option<u32>| {
        // 0 is the number of the open.
        if attempt == 0 || Some(attempt) <= last {
            Err(ResumeError::Stale)
        } else {
            Ok(())
        }
    };
    let remembered = |tombstone: Tombstone| {
        check(&tombstone.binding)?;
        match tombstone.end {
            Ended::Rejected(RejectCode::Gap) => Err(ResumeError::Gap),
            Ended::Rejected(_) => Err(ResumeError::Expired),
            Ended::Reset(_) => {
                is_newer(tombstone.last)?;
                Ok((tombstone.secret, tombstone.received))
            }
        }
    };
    match server.registry.find(id) {
        Some(Known::Session(session)) => {
            check(&session.binding()?)?;
            is_newer(None)?;
            match session.answer_native(attempt)? {
                Ok(answer) => Ok(answer),
                Err(tombstone) => remembered(tombstone),
            }
        }
        Some(Known::Unproved(Named::Native {
            secret, binding, ..
        })) => {
            check(&binding)?;
            is_newer(None)?;
            Ok((secret, 0))
        }
        Some(Known::Ended(tombstone)) => remembered(tombstone),
        Some(Known::Unproved(Named::Snet(_))) | None => Err(ResumeError::Unknown),
    }
}

/// Carries a handshake on that waits for the client's CONFIRM, on the link as it is protected from now on; returns that, and how much the
/// client says to have received.
async fn prove(
    mut arriving: Arriving<'_>,
    machine: &mut ServerHandshake,
) -> Result<(AnyLink, u64), Failed> {
    let place = arriving.place;
    // Without records to take, this goes on to the CONFIRM.
    let mut carried = exchange(&mut arriving.link, machine, || place.heard()).await;
    #[cfg(feature = "noise")]
    let mut link = arriving.link.protect(machine.take_records());
    #[cfg(not(feature = "noise"))]
    let mut link = arriving.link;
    if carried.is_ok() {
        carried = exchange(&mut link, machine, || place.heard()).await;
    }
    match carried {
        Ok(()) => {}
        Err(Error::Handshake(error @ HandshakeError::Proof)) => {
            return Err(turn_away(link, machine, error).await);
        }
        Err(error) => return Err(error.into()),
    }
    let confirmed = machine.proved().ok_or(HandshakeError::OutOfPlace)?;
    Ok((link, confirmed))
}

/// Tells a client that has proved itself how its session ended.
async fn tell_end(
    mut link: AnyLink,
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
                // Whoever has another key is not let in either.
                HandshakeError::NotAuthorised | HandshakeError::Decrypt => {
                    Some(RejectCode::NotAuthorised)
                }
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
                ResumeError::NotAuthorised => Some(RejectCode::NotAuthorised),
                ResumeError::Elsewhere => Some(RejectCode::Elsewhere),
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
    mut link: AnyLink,
    machine: &mut ServerHandshake,
    refused: impl Into<Refused>,
) -> Failed {
    let Refused { error, code } = refused.into();
    let Some(code) = code else {
        return error.into();
    };
    let retry_after = match code {
        RejectCode::Busy | RejectCode::ShuttingDown | RejectCode::Elsewhere => RETRY_AFTER,
        _ => Duration::ZERO,
    };
    machine.reject(code, retry_after);
    let told = exchange(&mut link, machine, || {}).await.is_ok();
    Failed {
        error,
        told: told.then_some(link),
    }
}
