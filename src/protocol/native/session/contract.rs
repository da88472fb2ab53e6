//! The driver's contract, of which most is done elsewhere.

use std::time::Instant;

use super::{Acknowledgement, NativeSession};
use crate::{
    error::{CloseReason, reset},
    protocol::session::{Arrived, LinkId, Phase, Role, Session, Stats},
};

impl Session for NativeSession {
    fn role(&self) -> Role {
        self.life.role
    }

    fn phase(&self) -> Phase {
        self.life.phase()
    }

    fn verdict(&self) -> Option<CloseReason> {
        self.verdict
    }

    fn stats(&self) -> Stats {
        let end = self.streams.replay.end();
        Stats {
            sent: end,
            received: self.streams.receive.received(),
            replayed: self.streams.replayed(),
            resumes: self.life.resumes(),
            unacknowledged: end.saturating_sub(self.acknowledged),
            credit: self.limit.saturating_sub(end),
            round_trip: self.round_trip,
        }
    }

    fn room(&self) -> usize {
        self.room_to_write()
    }

    fn is_exhausted(&self) -> bool {
        self.streams.replay.end() == u64::MAX - 1
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        self.streams.replay.push(&bytes[..count])
    }

    fn shut_write(&mut self) {
        if self.verdict.is_none() && self.fin.is_none() {
            self.life.shut_write();
            self.fin = Some(self.streams.replay.end());
        }
    }

    fn is_write_shut(&self) -> bool {
        self.life.is_write_shut()
    }

    fn is_shut_down(&self, _: bool) -> bool {
        self.is_delivered()
    }

    fn waiting(&self) -> usize {
        self.streams.receive.waiting()
    }

    fn read(&mut self, out: &mut [u8], now: Instant) -> usize {
        let count = self.streams.receive.read(out);
        if self.is_tight() {
            self.streams.receive.shrink();
        }
        self.acknowledge_soon(now);
        count
    }

    fn is_read_ended(&self) -> bool {
        self.peer_fin.is_some()
    }

    fn reset(&mut self, code: u32, now: Instant) {
        // 0 would say that both streams have arrived with their ends.
        let code = code.max(reset::CLEAN + 1);
        self.reset_with(CloseReason::LocalReset(code), code, now);
    }

    fn drop_transport(&mut self, now: Instant) {
        if self.life.is_dropped() {
            return;
        }
        if self.waiting() > 0 && !self.is_write_shut() {
            self.reset(reset::DROPPED_UNREAD, now);
        }
        self.shut_write();
        self.life.drop_transport(now);
        self.streams.receive.discard();
        self.acknowledge_soon(now);
    }

    fn allocated(&self) -> usize {
        self.streams.allocated()
    }

    fn window(&self) -> usize {
        self.settings.window
    }

    fn max_window(&self) -> usize {
        self.settings.largest_window()
    }

    fn promised(&self) -> usize {
        self.promised_to_peer()
    }

    fn set_window(&mut self, bytes: usize, now: Instant) -> bool {
        self.bound_windows(bytes, now)
    }

    fn is_confined(&self) -> bool {
        let writer = self.room() == 0 && !self.is_write_shut() && !self.is_exhausted();
        let received = self.streams.receive.received();
        let peer = self.own_limit() == received && self.peer_fin.is_none();
        self.is_tight() && self.verdict.is_none() && (writer || peer)
    }

    fn holds(&self, link: LinkId) -> bool {
        let links = [self.link.as_ref(), self.previous.as_deref()];
        links.into_iter().flatten().any(|held| held.id == link)
    }

    fn transmit(&mut self, now: Instant) -> [&[u8]; 3] {
        self.compose(now);
        let Some(link) = &self.link else {
            return [&[]; 3];
        };
        // A payload was composed of what is there, and is not trimmed before it is handed over.
        let (first, second) = match link.payload() {
            0 => Default::default(),
            _ => self.streams.replay.from(link.next).unwrap_or_default(),
        };
        let first = &first[..first.len().min(link.payload())];
        let second = &second[..second.len().min(link.payload() - first.len())];
        [link.head(), first, second]
    }

    fn transmitted(&mut self, count: usize) {
        if let Some(link) = &mut self.link {
            let payload = link.sent(count);
            if payload > 0 {
                self.streams.hand(&mut link.next, payload);
                self.trim();
            }
            if self.life.closed().is_some() {
                self.release();
            }
        }
    }

    fn is_flushed(&self) -> bool {
        self.link.as_ref().is_none_or(|link| {
            let said = link.stated.is_some() && (self.reset.is_none() || link.ended);
            link.is_idle() && said && self.sendable(link) == 0 && !self.is_fin_next(link)
        })
    }

    fn owes(&self, now: Instant) -> bool {
        self.link.as_ref().is_some_and(|link| {
            link.is_idle()
                && !link.ended
                && (!self.is_flushed()
                    || link.ping_due && link.ponged
                    || link.pong.is_some()
                    || link.stated.is_some_and(|stated| {
                        stated != self.receipt() && self.is_receipt_due(stated, now)
                    }))
        })
    }

    /// The peer is held to its credit, so there is always room for what it sends.
    fn wanted(&self) -> usize {
        usize::MAX
    }

    fn is_stream_next(&self, link: LinkId) -> bool {
        let links = [self.link.as_ref(), self.previous.as_deref()];
        let mut links = links.into_iter().flatten();
        links.any(|held| held.id == link && held.decoder.data_left() > 0)
    }

    fn receive(&mut self, link: LinkId, bytes: &mut [u8], now: Instant) -> Arrived {
        self.on_bytes(link, bytes, now)
    }

    fn stirred(&mut self, link: LinkId, now: Instant) {
        if let Some(link) = self.slot(link) {
            link.stirred = now;
        }
    }

    fn store(&mut self, bytes: &[u8]) {
        // Whatever else has become of the session by now: they were received before it did.
        if !self.life.is_dropped() {
            self.streams.receive.store(bytes);
        }
    }

    /// The end of a link says nothing of the stream's.
    fn link_ended(&mut self, link: LinkId, now: Instant) {
        self.link_failed(link, now);
    }

    fn link_failed(&mut self, link: LinkId, now: Instant) {
        self.give_up(link, now);
    }

    fn wants_close(&self) -> bool {
        let over = self.life.closed().is_some();
        let link = self.link.as_ref().filter(|_| over);
        link.is_some_and(|link| link.ended && link.is_idle())
    }

    fn link_closed(&mut self, _: Instant) {
        self.link = None;
        self.release();
    }

    fn is_switching(&self) -> bool {
        let link = self
            .link
            .as_ref()
            .filter(|_| self.life.role == Role::Client);
        link.is_some_and(|link| link.arriving.is_none())
    }

    fn probe(&mut self) {
        if let Some(link) = &mut self.link {
            link.ping_due = true;
        }
    }

    fn close(&mut self, reason: CloseReason) {
        if self.life.close(reason) {
            self.verdict = Some(reason);
            self.link = None;
            self.previous = None;
            self.release();
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.life.closed().is_some() {
            return None;
        }
        let acknowledge_at = match self.acknowledgement {
            Acknowledgement::By(at) => Some(at),
            Acknowledgement::Nothing | Acknowledgement::Due => None,
        };
        let link = self.link.as_ref();
        let mut earliest = acknowledge_at;
        let mut consider = |at: Option<Instant>| {
            if let Some(at) = at
                && earliest.is_none_or(|earliest| at < earliest)
            {
                earliest = Some(at);
            }
        };
        consider(self.life.expires_at(self.settings.resume_window));
        consider(self.gives_up_at());
        if let Some(link) = link {
            consider(link.attach_by);
            consider(self.ping_at(link));
            consider(self.dead_at(link));
        }
        if let Some(previous) = &self.previous {
            consider(self.dead_at(previous));
        }
        earliest
    }

    fn handle_timeout(&mut self, now: Instant) -> bool {
        self.on_time(now);
        false
    }
}
