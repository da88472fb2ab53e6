//! From one link to the next (`docs/PROTOCOL.md`, native: "Open", "Resume", "Attach, and from one link to the next").

use std::time::Instant;

use super::{Acknowledgement, Ended, Identity, NativeSession, Tombstone};
use crate::{
    error::{CloseReason, RejectCode, ResumeError, reset},
    protocol::{
        native::{Answer, CONFIRM_LEN, ClientProtection, ClientResume, Nonce, link::Link},
        session::{LinkId, Session},
    },
};

impl NativeSession {
    /// A client starts to resume on a link that has just been dialled, and that `protection` covers: that of the open. Whatever link it has goes on meanwhile. `None` once it has made
    /// as many attempts as can be numbered; the session is over then.
    pub fn resume(&mut self, nonce: Nonce, protection: ClientProtection) -> Option<ClientResume> {
        let Some(attempt) = self.attempt.checked_add(1) else {
            self.close(CloseReason::Exhausted);
            return None;
        };
        self.attempt = attempt;
        self.trimmed = self.link.is_none().then(|| self.streams.replay.start());
        let Identity {
            id, secret, route, ..
        } = &self.identity;
        Some(ClientResume::new(
            *id,
            secret,
            *route,
            attempt,
            nonce,
            self.received(),
            protection,
        ))
    }

    /// A client gives the session the link on which it was opened. `confirm` is the CONFIRM that goes out first.
    pub fn attach_opened(&mut self, confirm: [u8; CONFIRM_LEN], now: Instant) {
        self.switch(0, 0, confirm, now);
        self.life.attach(0);
    }

    /// A client gives the session a link on which the server has answered `resume` and proved itself. From now on it is the one that is
    /// written to, first with the CONFIRM. Returns its number.
    ///
    /// # Errors
    ///
    /// The link is to be closed. After [`ResumeError::Gap`] the session is over too: the server lacks what it had acknowledged.
    pub fn attach_resumed(
        &mut self,
        resume: &ClientResume,
        now: Instant,
    ) -> Result<LinkId, ResumeError> {
        let Some(Answer::Resumed { received }) = resume.answer() else {
            return Err(ResumeError::Proof);
        };
        if self.life.closed().is_some() {
            return Err(ResumeError::Closed);
        }
        if received > self.handed() {
            return Err(ResumeError::ReceivedTooMuch);
        }
        if self.trimmed.is_some_and(|trimmed| received < trimmed) {
            self.close(CloseReason::Gap);
            return Err(ResumeError::Gap);
        }
        self.acknowledged = self.acknowledged.max(received);
        // Less than what is trimmed was true when it was said: the old link has brought newer acknowledgements since.
        let from = received.max(self.streams.replay.start());
        let Some(confirm) = resume.confirm(self.received()) else {
            return Err(ResumeError::Proof);
        };
        let id = LinkId::from(self.attempt);
        self.switch(id, from, confirm, now);
        Ok(id)
    }

    fn switch(&mut self, id: LinkId, from: u64, confirm: [u8; CONFIRM_LEN], now: Instant) {
        let mut link = Link::new(id, from, self.settings.max_frame, now);
        link.confirm = Some(Box::new(confirm));
        link.attach_by = now.checked_add(self.settings.handshake_timeout);
        self.life.number(id);
        self.previous = self.link.replace(link).map(Box::new);
        self.trim();
    }

    /// What a server answers to a RESUME: how much it has received. It believes none of it yet, and changes nothing.
    ///
    /// # Errors
    ///
    /// The attempt is not newer than the last, or the session is over.
    pub fn answer(&self, attempt: u32) -> Result<u64, ResumeError> {
        if self.life.closed().is_some() {
            return Err(ResumeError::Closed);
        }
        self.life.check_number(LinkId::from(attempt))?;
        Ok(self.received())
    }

    /// A server gives the session a link whose client has proved itself and, in its CONFIRM, said to have received as much as `received`;
    /// it takes the place of the one in use. Attempt 0 is the open.
    ///
    /// # Errors
    ///
    /// The link is to be closed, and the session is as it was.
    pub fn attach(&mut self, attempt: u32, received: u64, now: Instant) -> Result<(), ResumeError> {
        let id = LinkId::from(attempt);
        self.answer(attempt)?;
        if received > self.handed() {
            return Err(ResumeError::ReceivedTooMuch);
        }
        if received < self.streams.replay.start() {
            // Or the client has given this attempt up and acknowledged more since on the link it had: then it comes again.
            self.gap_suspected = true;
            return Err(ResumeError::Gap);
        }
        self.life.number(id);
        self.life.attach(id);
        self.acknowledged = self.acknowledged.max(received);
        self.gap_suspected = false;
        self.link = Some(Link::new(id, received, self.settings.max_frame, now));
        self.trim();
        Ok(())
    }

    /// What a closed session of a server's leaves, so that a client which has not heard of its end can still be told.
    pub fn tombstone(&self) -> Option<Tombstone> {
        let reason = self.life.closed()?;
        Some(Tombstone {
            secret: self.identity.secret.clone(),
            binding: self.identity.binding,
            // A server's numbers are its client's attempts.
            last: self.life.last().and_then(|last| u32::try_from(last).ok()),
            received: self.received(),
            limit: self.own_limit(),
            end: match (reason, self.reset) {
                (_, Some(code)) => Ended::Reset(code),
                (CloseReason::Gap, None) => Ended::Rejected(RejectCode::Gap),
                (CloseReason::Expired, None) => Ended::Rejected(RejectCode::Expired),
                (_, None) => Ended::Reset(reset::ABANDONED),
            },
        })
    }

    /// A link is gone. A client that has its last one yet takes that up again.
    pub(super) fn give_up(&mut self, link: LinkId, now: Instant) {
        let is = |held: Option<&Link>| held.is_some_and(|held| held.id == link);
        if is(self.link.as_ref()) {
            self.link = self.previous.take().map(|previous| *previous);
            self.acknowledgement = Acknowledgement::Nothing;
        } else if is(self.previous.as_deref()) {
            self.previous = None;
        } else {
            return;
        }
        if self.link.is_none() {
            self.life.detach(now);
        }
        self.trim();
        if self.life.closed().is_some() {
            self.release();
        }
        // What was stated on the link that failed may not have arrived.
        self.acknowledge_soon(now);
    }
}
