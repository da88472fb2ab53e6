//! A server's part in snet's handshakes.

use super::{
    host::{Accepted, Arriving, Failed, Host},
    registry::{Known, Named, Proved},
};
use crate::{
    error::{Error, HandshakeError, ResumeError},
    protocol::snet::{Counts, Hello, ResumeRequest, ServerHandshake, SessionKey},
    transport::{SessionId, Shared, exchange, random},
};

/// A link whose client has said what it wants.
pub(super) async fn accept(
    server: &Host,
    arriving: Arriving<'_>,
    machine: ServerHandshake,
) -> Result<Accepted, Failed> {
    match machine.hello() {
        Some(Hello::Open(_)) => Ok(open(server, arriving, machine).await?),
        Some(Hello::Resume(request)) => resume(server, arriving, machine, request).await,
        None => Err(HandshakeError::OutOfPlace.into()),
    }
}

async fn open(
    server: &Host,
    mut arriving: Arriving<'_>,
    mut machine: ServerHandshake,
) -> Result<Accepted, Error> {
    server.registry.check_open(arriving.peer())?;
    let agreement = random::key_agreement()?;
    let id = server.registry.draw_snet_id()?;
    let key = machine
        .open(&agreement, id, random::challenge()?.get())
        .ok_or(HandshakeError::OutOfPlace)?;
    let id = SessionId::snet(id);
    arriving.place.answer(server.registry.proving());
    server.registry.name(id, Named::Snet(key))?;
    prove(&mut arriving, &mut machine).await?;
    match server.registry.prove(id, arriving.peer())? {
        Proved::Opened(entry) => {
            // A resume may have been attached since, which is newer. The session is new all the same, and nobody else hands it out.
            let _ = entry
                .session()
                .attach_snet(arriving.link, 0, Counts::default(), 0);
            Ok(server.keep(entry))
        }
        // A resume was faster, and so is newer.
        Proved::Running(_) | Proved::Ended(_) => Err(ResumeError::Stale.into()),
    }
}

async fn resume(
    server: &Host,
    mut arriving: Arriving<'_>,
    mut machine: ServerHandshake,
    request: ResumeRequest,
) -> Result<Accepted, Failed> {
    // Without a word: zeros are final to a client.
    server.registry.check_resume(arriving.peer_addr)?;
    let number = server.registry.number_request();
    let (key, counts) = match consider(server, &request) {
        Ok(granted) => granted,
        Err(error) => {
            machine.refuse();
            exchange(&mut arriving.link, &mut machine, || {}).await?;
            return Err(Failed {
                error: error.into(),
                told: Some(arriving.link),
            });
        }
    };
    arriving.place.answer(server.registry.proving());
    machine.resume(&key, counts, random::challenge()?);
    prove(&mut arriving, &mut machine).await?;
    let peer = arriving.peer();
    let link = arriving.link;
    let attach =
        |session: &Shared| session.attach_snet(link, number, request.counts, counts.received);
    match server.registry.prove(SessionId::snet(request.id), peer)? {
        Proved::Opened(entry) => {
            // As with an open.
            let _ = attach(entry.session());
            Ok(server.keep(entry))
        }
        Proved::Running(session) => {
            attach(&session)?;
            session.came_from(peer.addr);
            Ok(Accepted::Resumed(session.id()))
        }
        Proved::Ended(_) => Err(ResumeError::Closed.into()),
    }
}

/// Whether a session can be resumed like this, with what key, and what its own counts are.
fn consider(server: &Host, request: &ResumeRequest) -> Result<(SessionKey, Counts), ResumeError> {
    let verify = |key: SessionKey| {
        if request.verify(&key) {
            Ok(key)
        } else {
            Err(ResumeError::Proof)
        }
    };
    match server.registry.find(SessionId::snet(request.id)) {
        Some(Known::Session(session)) => {
            let key = verify(session.snet_key()?)?;
            Ok((key, session.answer_snet(request.counts)?))
        }
        Some(Known::Unproved(Named::Snet(key))) => {
            let key = verify(key)?;
            if request.counts.received > 0 {
                return Err(ResumeError::ReceivedTooMuch);
            }
            Ok((key, Counts::default()))
        }
        Some(Known::Unproved(Named::Native { .. }) | Known::Ended(_)) | None => {
            Err(ResumeError::Unknown)
        }
    }
}

/// Carries a handshake on that waits for the peer's proof.
async fn prove(arriving: &mut Arriving<'_>, machine: &mut ServerHandshake) -> Result<(), Error> {
    let place = arriving.place;
    exchange(&mut arriving.link, machine, || place.heard()).await?;
    if machine.is_proved() {
        Ok(())
    } else {
        Err(HandshakeError::Proof.into())
    }
}
