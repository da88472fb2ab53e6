//! For those that open and resume sessions: what each protocol calls by its own name.

use std::{net::SocketAddr, time::Instant};

use super::Shared;
use crate::{
    error::{CloseReason, Error, ResumeError},
    protocol::{
        LinkId,
        native::{self, ClientProtection, ClientResume, Reject, SessionSecret, Tombstone},
        snet::{self, Counts, SessionKey},
    },
    transport::{
        any_session::AnySession,
        clock::now,
        link::AnyLink,
        session_io::{Need, SessionIo},
        wakers::lock,
    },
};

impl Shared {
    /// Waits until the user says that the network has changed.
    pub(crate) async fn network_change(&self) {
        self.nudge.notified().await;
    }

    /// An attempt to resume begins. Returns its number since the link was lost.
    pub(crate) fn begin_attempt(&self) -> u32 {
        self.with(SessionIo::begin_attempt)
    }

    /// See [`SessionIo::attempt_failed`].
    pub(crate) fn attempt_failed(&self, error: Error) {
        self.with(|io, fx| io.attempt_failed(error, fx));
    }

    /// Whether a new link is wanted.
    pub(crate) fn wants_link(&self) -> bool {
        lock(&self.io).need() == Need::Link
    }

    /// How many bytes have been received.
    pub(crate) fn received(&self) -> u64 {
        self.stats().received
    }

    /// Runs `change` on a session that speaks snet.
    fn with_snet<R>(
        &self,
        change: impl FnOnce(&mut snet::SnetSession) -> R,
    ) -> Result<R, ResumeError> {
        self.with(|io, fx| match &mut io.session {
            AnySession::Snet(session) => {
                let result = change(session);
                io.look(fx);
                Ok(result)
            }
            AnySession::Native(_) => Err(ResumeError::Unknown),
        })
    }

    /// Runs `change` on a session that speaks native.
    fn with_native<R>(
        &self,
        change: impl FnOnce(&mut native::NativeSession) -> R,
    ) -> Result<R, ResumeError> {
        self.with(|io, fx| match &mut io.session {
            AnySession::Native(session) => {
                let result = change(session);
                io.look(fx);
                Ok(result)
            }
            AnySession::Snet(_) => Err(ResumeError::Unknown),
        })
    }

    /// Gives `link` to the session if it [attaches](snet::SnetSession::attach) it.
    fn put(
        &self,
        link: AnyLink,
        attach: impl FnOnce(&mut AnySession) -> Result<LinkId, ResumeError>,
    ) -> Result<(), (ResumeError, AnyLink)> {
        self.with(|io, fx| match attach(&mut io.session) {
            Ok(id) => {
                io.put(id, link, fx);
                Ok(())
            }
            Err(error) => {
                io.look(fx);
                Err((error, link))
            }
        })
    }

    /// Closes the old link, whose cursors are final from here on, and says what to ask for on the new one; `None` if none is wanted
    /// any more.
    pub(crate) fn begin_snet_resume(&self) -> Option<(snet::Opened, Counts)> {
        if !self.with(SessionIo::break_before_make) {
            return None;
        }
        self.with_snet(|session| (session.opened().clone(), session.counts()))
            .ok()
    }

    /// Whether the session can go on with a server that counts like this. Ends it if it never can.
    pub(crate) fn check_snet(&self, peer: Counts) -> Result<(), ResumeError> {
        let verdict = self.with_snet(|session| session.check(peer))?;
        if verdict == Err(ResumeError::Gap) {
            self.close(CloseReason::Gap);
        }
        verdict
    }

    /// The key that a peer proves to know.
    pub(crate) fn snet_key(&self) -> Result<SessionKey, ResumeError> {
        self.with_snet(|session| session.opened().key.clone())
    }

    /// See [`snet::SnetSession::answer`].
    pub(crate) fn answer_snet(&self, peer: Counts) -> Result<Counts, ResumeError> {
        self.with_snet(|session| session.answer(peer))?
    }

    /// See [`snet::SnetSession::attach`].
    pub(crate) fn attach_snet(
        &self,
        link: AnyLink,
        request: u64,
        peer: Counts,
        stated: u64,
    ) -> Result<(), ResumeError> {
        self.put(link, |session| match session {
            AnySession::Snet(session) => session
                .attach(request, peer, stated, now())
                .map(|()| request),
            AnySession::Native(_) => Err(ResumeError::Unknown),
        })
        .map_err(|(error, _)| error)
    }

    /// What a client asks for on a new link; `None` if none is wanted any more.
    pub(crate) fn begin_native_resume(
        &self,
        nonce: native::Nonce,
        protection: ClientProtection,
    ) -> Result<Option<ClientResume>, ResumeError> {
        if !self.wants_link() {
            return Ok(None);
        }
        self.with_native(|session| session.resume(nonce, protection))
    }

    /// See [`native::NativeSession::attach_opened`].
    pub(crate) fn attach_opened(
        &self,
        link: AnyLink,
        confirm: [u8; native::CONFIRM_LEN],
    ) -> Result<(), ResumeError> {
        self.put(link, |session| match session {
            AnySession::Native(session) => {
                session.attach_opened(confirm, now());
                Ok(0)
            }
            AnySession::Snet(_) => Err(ResumeError::Unknown),
        })
        .map_err(|(error, _)| error)
    }

    /// See [`native::NativeSession::attach_resumed`].
    pub(crate) fn attach_resumed(
        &self,
        link: AnyLink,
        resume: &ClientResume,
    ) -> Result<(), ResumeError> {
        self.put(link, |session| match session {
            AnySession::Native(session) => session.attach_resumed(resume, now()),
            AnySession::Snet(_) => Err(ResumeError::Unknown),
        })
        .map_err(|(error, _)| error)
    }

    /// See [`native::NativeSession::rejected`].
    pub(crate) fn rejected(&self, reject: Reject) -> Result<(), ResumeError> {
        self.with_native(|session| session.rejected(reject, now()))
    }

    /// When a server that put this client off wants to be asked again.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.with_native(|session| session.retry_at()).ok()?
    }

    /// What a server answers to a client that asks to resume by such an attempt: how much it has received, and the secret that this is
    /// proved with; or what is left of the session.
    ///
    /// # Errors
    ///
    /// See [`native::NativeSession::answer`].
    pub(crate) fn answer_native(
        &self,
        attempt: u32,
    ) -> Result<Result<(SessionSecret, u64), Tombstone>, ResumeError> {
        self.with_native(|session| match session.tombstone() {
            Some(tombstone) => Ok(Err(tombstone)),
            None => Ok(Ok((
                session.identity().secret.clone(),
                session.answer(attempt)?,
            ))),
        })?
    }

    /// What the session's links have to be.
    pub(crate) fn binding(&self) -> Result<native::Binding, ResumeError> {
        self.with_native(|session| session.identity().binding)
    }

    /// See [`native::NativeSession::attach`]. The link comes back if the session does not take it.
    pub(crate) fn attach_native(
        &self,
        link: AnyLink,
        attempt: u32,
        received: u64,
    ) -> Result<(), (ResumeError, AnyLink)> {
        self.put(link, |session| match session {
            AnySession::Native(session) => session
                .attach(attempt, received, now())
                .map(|()| LinkId::from(attempt)),
            AnySession::Snet(_) => Err(ResumeError::Unknown),
        })
    }

    /// See [`native::NativeSession::tombstone`].
    pub(crate) fn tombstone(&self) -> Option<Tombstone> {
        self.with_native(|session| session.tombstone()).ok()?
    }

    /// The peer's newest link comes from there.
    pub(crate) fn came_from(&self, peer_addr: Option<SocketAddr>) {
        *lock(&self.peer_addr) = peer_addr;
    }
}
