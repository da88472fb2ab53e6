//! How a session ends, and what time does to it (`docs/PROTOCOL.md`, native: "Liveness", "Ending", "Rejects").

use std::time::Instant;

use super::{Acknowledgement, NativeSession};
use crate::{
    error::{CloseReason, Refusal, RejectCode, reset},
    protocol::{
        native::{frame::Reject, link::Link},
        session::{Role, Session, is_due},
    },
};

/// For how many times `dead_after` bytes that a link holds back keep it from counting as dead. Nothing protects the length of a
/// record: one whose length was changed on the way may wait for more than the peer has to say.
const HELD_BACK: u32 = 8;

impl NativeSession {
    /// A client was refused the link: the session is over if that is final, and else waits as long as the server says.
    pub fn rejected(&mut self, reject: Reject, now: Instant) {
        if reject.code.is_final() {
            self.close(self.conclude(refused(reject.code)));
        } else {
            self.retry_at = now.checked_add(reject.retry_after);
        }
    }

    /// Whether both streams are delivered with their ends.
    fn is_done(&self) -> bool {
        self.is_delivered() && self.peer_fin.is_some()
    }

    /// Why the session is over, if it is for this reason unless there was another before.
    fn conclude(&self, reason: CloseReason) -> CloseReason {
        if self.is_done() {
            CloseReason::Finished
        } else {
            self.verdict.unwrap_or(reason)
        }
    }

    pub(super) fn on_reset(&mut self, code: u32) {
        let is_servers = self.life.role == Role::Client;
        if let (reset::CLEAN, Some(fin)) = (code, self.fin)
            && is_servers
            && self.fin_handed
            && self.peer_fin.is_some()
        {
            // So the server has received it, whether or not it has said so in another way.
            self.acknowledged = self.acknowledged.max(fin + 1);
        }
        let reason = self.conclude(CloseReason::Reset(code));
        match self.life.role {
            // Nothing comes after the server's.
            Role::Client => self.close(reason),
            Role::Server => self.end(reason, code),
        }
    }

    /// Once both streams are delivered with their ends, a server ends the session, and a client waits for it to say so.
    pub(super) fn end_if_done(&mut self, now: Instant) {
        if !self.is_done() {
            return;
        }
        match self.life.role {
            Role::Server => self.end(CloseReason::Finished, reset::CLEAN),
            Role::Client => {
                let until = now.checked_add(self.settings.linger);
                self.tell_until = self.tell_until.or(until);
            }
        }
    }

    /// The session is over; what is left is to say so on the link.
    pub(super) fn end(&mut self, reason: CloseReason, code: u32) {
        if self.life.close(reason) {
            self.verdict = Some(reason);
            self.reset = Some(code);
            self.previous = None;
            self.release();
        }
    }

    /// Gives up the memory that nothing needs any more. A frame that was begun on a link is finished, and then it is all.
    pub(super) fn release(&mut self) {
        let begun = self.link.as_ref().is_some_and(|link| link.payload() > 0);
        let replay = &mut self.streams.replay;
        if self.life.closed().is_some() && !begun {
            replay.trim(replay.end());
        }
        replay.release();
    }

    /// A client that has reset the session goes on until it hears the server say so too.
    pub(super) fn reset_with(&mut self, reason: CloseReason, code: u32, now: Instant) {
        if self.verdict.is_some() {
            return;
        }
        match self.life.role {
            Role::Server => self.end(reason, code),
            Role::Client => {
                self.verdict = Some(reason);
                self.reset = Some(code);
                self.tell_until = now.checked_add(self.settings.linger);
            }
        }
    }

    /// When the link is to be given up for the peer's silence.
    pub(super) fn dead_at(&self, link: &Link) -> Option<Instant> {
        let dead_after = self.settings.dead_after;
        let trusted = dead_after.saturating_mul(HELD_BACK);
        let held_back = link.stirred.saturating_duration_since(link.heard);
        link.heard
            .checked_add(held_back.saturating_add(dead_after).min(trusted))
    }

    /// When the peer is to be pinged. Again before it answers, as long as what comes is held back: there is nothing to acknowledge
    /// then, and the peer, whose answer has to wait its turn, is to hear something as well.
    pub(super) fn ping_at(&self, link: &Link) -> Option<Instant> {
        let since = match link.unanswered() {
            None => Some(link.heard),
            Some(at) => (link.stirred > link.heard).then(|| link.heard.max(at)),
        };
        let idle = !link.ping_due && link.arriving.is_some() && !link.ended;
        let at = since.and_then(|since| since.checked_add(self.settings.ping_after));
        at.filter(|_| idle)
    }

    /// When the oldest of a client's endings that nobody answers is over.
    pub(super) fn gives_up_at(&self) -> Option<Instant> {
        let times = [
            self.life.lingers_until(self.settings.linger),
            self.tell_until,
        ];
        times.into_iter().flatten().min()
    }

    /// Does what is due by `now`.
    pub(super) fn on_time(&mut self, now: Instant) {
        if is_due(self.gives_up_at(), now) {
            let reason = self.conclude(if self.is_delivered() {
                CloseReason::Local
            } else {
                CloseReason::Expired
            });
            self.end(reason, self.reset.unwrap_or(reset::LINGER));
        }
        if is_due(self.life.expires_at(self.settings.resume_window), now) {
            let reason = if self.gap_suspected {
                CloseReason::Gap
            } else {
                CloseReason::Expired
            };
            self.close(self.conclude(reason));
        }
        if self.life.closed().is_some() {
            return;
        }
        self.relax(now);
        if let Acknowledgement::By(at) = self.acknowledgement
            && at <= now
        {
            self.acknowledgement = Acknowledgement::Due;
        }
        let is_overdue =
            |link: &&Link| is_due(link.attach_by, now) || is_due(self.dead_at(link), now);
        let links =
            [self.previous.as_deref(), self.link.as_ref()].map(|link| link.filter(is_overdue));
        for id in links
            .map(|link| link.map(|link| link.id))
            .into_iter()
            .flatten()
        {
            self.give_up(id, now);
        }
        let ping = self.link.as_ref().and_then(|link| self.ping_at(link));
        if is_due(ping, now)
            && let Some(link) = &mut self.link
        {
            link.ping_due = true;
            link.ponged = true;
            // Nothing has come for a while: what is empty is given back.
            self.release();
        }
    }
}

/// Why a client's session is over that was refused like this, for good.
fn refused(code: RejectCode) -> CloseReason {
    match code {
        RejectCode::Expired => CloseReason::Expired,
        RejectCode::Gap => CloseReason::Gap,
        RejectCode::NotAuthorised => CloseReason::Refused(Refusal::NotAuthorised),
        RejectCode::Closed => CloseReason::Refused(Refusal::Closed),
        _ => CloseReason::Refused(Refusal::Unknown),
    }
}
