//! One end of a native session (`docs/PROTOCOL.md`, "native").

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use super::{
    Answer, ClientResume, Nonce, SessionSecret,
    frame::{Frame, Head, Item, MAX_DATA, Reject},
    link::{Link, Receipt},
    message::CONFIRM_LEN,
};
use crate::{
    error::{CloseReason, ProtocolError, Refusal, RejectCode, ResumeError, reset},
    protocol::{
        session::{Arrived, Life, LinkId, Phase, Role, Session, Stats, is_due},
        streams::Streams,
    },
};

/// How long an acknowledgement waits for others to go along with.
const ACK_DELAY: Duration = Duration::from_millis(25);

/// What a session is configured with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many sent bytes are kept until they are acknowledged, and how many received ones may wait for the application.
    pub window: usize,
    /// How long a detached session waits for a link.
    pub resume_window: Duration,
    /// How long a session goes on after its transport was dropped, or after a reset of which the server is still to learn.
    pub linger: Duration,
    /// After how long without a byte from the peer it is pinged.
    pub ping_after: Duration,
    /// After how long without a byte from the peer a link is given up.
    pub dead_after: Duration,
    /// How long a server may take to use a link that a client has confirmed.
    pub handshake_timeout: Duration,
}

/// What both ends know of a session once it is open.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The session's id.
    pub id: [u8; 16],
    /// What proofs are made with.
    pub secret: SessionSecret,
    /// The server's route, for the prelude of a resume.
    pub route: u32,
    /// The window the peer has stated.
    pub peer_window: u64,
}

/// What is left of a session that a server has closed.
#[derive(Clone, Debug)]
pub struct Tombstone {
    /// What proofs are made with.
    pub secret: SessionSecret,
    /// The number of the last attempt that was attached.
    pub last: Option<u32>,
    /// How many positions of the peer's stream were received, FIN included.
    pub received: u64,
    /// The code of the RESET; `None` if the session expired, which a REJECT says.
    pub code: Option<u32>,
}

/// What the peer is to hear of what was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acknowledgement {
    /// It knows.
    Nothing,
    /// It is to hear of it by then, or earlier along with something else.
    By(Instant),
    /// It is to hear of it now.
    Due,
}

/// One end of a native session.
///
/// Offsets count the bytes of a stream and then its FIN, which takes one position.
pub struct NativeSession {
    settings: Settings,
    identity: Identity,
    life: Life,
    streams: Streams,
    /// The link that is written to.
    link: Option<Link>,
    /// A client's link before that, as long as the server may still be using it. It is read, and taken up again if the newer one fails.
    previous: Option<Link>,
    /// The greatest offset the peer has said to have received.
    acknowledged: u64,
    /// The greatest offset up to which the peer has allowed DATA.
    limit: u64,
    /// The offset of this end's FIN, once the application has shut its write side.
    fin: Option<u64>,
    /// Whether the FIN was handed to any link.
    fin_handed: bool,
    /// The offset of the peer's FIN, once it has arrived.
    peer_fin: Option<u64>,
    /// Whether the link is to say what was received.
    acknowledgement: Acknowledgement,
    /// The session is over for the application.
    verdict: Option<CloseReason>,
    /// The code of the RESET this end is to send, and is not done with.
    reset: Option<u32>,
    /// When a client that has reset the session stops trying to tell the server.
    tell_until: Option<Instant>,
    /// The number of a client's last attempt to resume.
    attempt: u32,
    /// What was trimmed when that began, if no link could change it any more.
    trimmed: Option<u64>,
    /// When a server that put a client off wants to be asked again.
    retry_at: Option<Instant>,
    /// Whether a peer has proved that it lacks what is no longer held, or claims to have what never was sent.
    gap_suspected: bool,
    pings: u64,
    round_trip: Option<Duration>,
}

impl NativeSession {
    /// A session that a handshake has just opened, detached since `now`.
    pub fn new(role: Role, identity: Identity, settings: Settings, now: Instant) -> Self {
        Self {
            life: Life::new(role, settings.resume_window, settings.linger, now),
            streams: Streams::new(settings.window),
            link: None,
            previous: None,
            acknowledged: 0,
            limit: identity.peer_window,
            fin: None,
            fin_handed: false,
            peer_fin: None,
            acknowledgement: Acknowledgement::Nothing,
            verdict: None,
            reset: None,
            tell_until: None,
            attempt: 0,
            trimmed: None,
            retry_at: None,
            gap_suspected: false,
            pings: 0,
            round_trip: None,
            identity,
            settings,
        }
    }

    /// The id, the secret and what else both ends know.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How many positions of the peer's stream have been received, its FIN included.
    pub fn received(&self) -> u64 {
        self.streams.receive.received() + u64::from(self.peer_fin.is_some())
    }

    /// When a server that put this client off wants to be asked again.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Up to where the peer may send: what the application has taken, and the window.
    fn own_limit(&self) -> u64 {
        let consumed = self.streams.receive.consumed();
        consumed.saturating_add(self.settings.window as u64)
    }

    fn receipt(&self) -> Receipt {
        Receipt {
            received: self.received(),
            limit: self.own_limit(),
        }
    }

    /// How many positions of this end's stream any link was handed.
    fn handed(&self) -> u64 {
        self.streams.handed() + u64::from(self.fin_handed)
    }

    /// Whether the peer has received the stream with its FIN.
    fn is_delivered(&self) -> bool {
        self.fin.is_some_and(|fin| self.acknowledged > fin)
    }

    /// How far `received` or `limit` may move before the peer hears of it at once.
    fn acknowledge_after(&self) -> u64 {
        let smaller = (self.settings.window as u64).min(self.identity.peer_window);
        (smaller / 4).max(1)
    }

    // What a resume does.

    /// A client starts to resume on a link that has just been dialled. Whatever link it has goes on meanwhile. `None` once it has made
    /// as many attempts as can be numbered; the session is over then.
    pub fn resume(&mut self, nonce: Nonce) -> Option<ClientResume> {
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
    /// The session cannot go on with such a server, and is over with [`CloseReason::Gap`]; or it was over before.
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
        let verdict = if received > self.handed() {
            Err(ResumeError::ReceivedTooMuch)
        } else if self.trimmed.is_some_and(|trimmed| received < trimmed) {
            Err(ResumeError::Gap)
        } else {
            Ok(())
        };
        if verdict.is_err() {
            self.close(CloseReason::Gap);
        }
        verdict?;
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
        let mut link = Link::new(id, from, now);
        link.confirm = Some(confirm);
        link.attach_by = now.checked_add(self.settings.handshake_timeout);
        self.life.number(id);
        self.previous = self.link.replace(link);
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
        let verdict = if received > self.handed() {
            Err(ResumeError::ReceivedTooMuch)
        } else if received < self.streams.replay.start() {
            Err(ResumeError::Gap)
        } else {
            Ok(())
        };
        if verdict.is_err() {
            // Or the client has given this attempt up and acknowledged more since on the link it had: then it comes again.
            self.gap_suspected = true;
            return verdict;
        }
        self.life.number(id);
        self.life.attach(id);
        self.acknowledged = self.acknowledged.max(received);
        self.gap_suspected = false;
        self.link = Some(Link::new(id, received, now));
        self.trim();
        Ok(())
    }

    /// What a closed session of a server's leaves, so that a client which has not heard of its end can still be told.
    pub fn tombstone(&self) -> Option<Tombstone> {
        self.life.closed()?;
        Some(Tombstone {
            secret: self.identity.secret.clone(),
            // A server's numbers are its client's attempts.
            last: self.life.last().and_then(|last| u32::try_from(last).ok()),
            received: self.received(),
            code: self.reset,
        })
    }

    // What is sent.

    /// Forgets what the peer has received and no link in use is still to be handed: DATA carries no offset, so a link cannot leave out
    /// anything.
    fn trim(&mut self) {
        let cursors = [&self.link, &self.previous];
        let cursor = cursors.into_iter().flatten().map(|link| link.next).min();
        let replay = &mut self.streams.replay;
        replay.trim(self.acknowledged.min(cursor.unwrap_or(u64::MAX)));
    }

    /// How many bytes of the stream the link may be handed now.
    fn sendable(&self, link: &Link) -> u64 {
        if self.verdict.is_some() {
            return 0;
        }
        let end = self.streams.replay.end().min(self.limit);
        end.saturating_sub(link.next)
    }

    /// Whether the link is to be handed the FIN next.
    fn is_fin_next(&self, link: &Link) -> bool {
        self.verdict.is_none() && self.fin == Some(link.next)
    }

    /// Whether the peer is to hear at once of what was received.
    fn is_receipt_due(&self, stated: Receipt, now: Instant) -> bool {
        let own = self.receipt();
        let after = self.acknowledge_after();
        own.received - stated.received >= after
            || own.limit - stated.limit >= after
            || match self.acknowledgement {
                Acknowledgement::Nothing => false,
                Acknowledgement::By(at) => at <= now,
                Acknowledgement::Due => true,
            }
    }

    /// Composes what the link is to be handed next, if it has been handed all that was composed before.
    fn compose(&mut self, now: Instant) {
        // Taken out, so that the session can be asked while it is changed.
        let Some(mut link) = self.link.take() else {
            return;
        };
        if link.is_idle() && !link.ended {
            self.compose_on(&mut link, now);
        }
        self.link = Some(link);
    }

    fn compose_on(&mut self, link: &mut Link, now: Instant) {
        let mut head = Head::default();
        let mut pushed = true;
        let own = self.receipt();
        let payload = self.sendable(link).min(MAX_DATA as u64) as usize;
        let fin = payload == 0 && self.is_fin_next(link);
        match link.stated {
            None => {
                if let Some(confirm) = link.confirm.take() {
                    pushed &= head.push_bytes(&confirm);
                }
                pushed &= head.push(&Frame::Attach {
                    from: link.next,
                    received: own.received,
                    limit: own.limit,
                });
                self.state(link, own);
            }
            Some(stated) if stated != own => {
                let along = payload > 0 || fin || self.reset.is_some();
                if along || self.is_receipt_due(stated, now) {
                    pushed &= head.push(&Frame::Ack {
                        received: own.received,
                        limit: own.limit,
                    });
                    self.state(link, own);
                }
            }
            Some(_) => {}
        }
        if let Some(code) = self.reset {
            pushed &= head.push(&Frame::Reset { code });
            link.ended = true;
            link.send(head, 0);
            return;
        }
        if let Some(ping) = link.pong.take() {
            pushed &= head.push(&Frame::Pong(ping));
        }
        let speaks = !head.as_bytes().is_empty() || payload > 0 || fin;
        let aged = link
            .pinged
            .is_some_and(|at| now >= at + self.settings.ping_after);
        if link.ping.is_none() && (link.ping_due || speaks && aged) {
            self.pings += 1;
            pushed &= head.push(&Frame::Ping(self.pings));
            link.ping_due = false;
            link.ping = Some((self.pings, now));
            link.pinged = Some(now);
        }
        if payload > 0 {
            pushed &= head.push(&Frame::Data { len: payload });
        } else if fin {
            pushed &= head.push(&Frame::Fin);
            link.next += 1;
            self.fin_handed = true;
        }
        // A head has room for one of each.
        debug_assert!(pushed);
        link.send(head, payload);
    }

    /// The link says what was received.
    fn state(&mut self, link: &mut Link, own: Receipt) {
        link.stated = Some(own);
        self.acknowledgement = Acknowledgement::Nothing;
    }

    /// Something was received, or taken by the application: the peer is to hear of it before long.
    fn acknowledge_soon(&mut self, now: Instant) {
        let stated = self.link.as_ref().and_then(|link| link.stated);
        if self.acknowledgement == Acknowledgement::Nothing
            && stated.is_some_and(|stated| stated != self.receipt())
        {
            self.acknowledgement = Acknowledgement::By(now + ACK_DELAY);
        }
    }

    // What is received.

    fn slot(&mut self, id: LinkId) -> Option<&mut Link> {
        [&mut self.link, &mut self.previous]
            .into_iter()
            .flatten()
            .find(|link| link.id == id)
    }

    fn on_frame(
        &mut self,
        id: LinkId,
        frame: Frame,
        limit: u64,
        now: Instant,
        arrived: &mut Arrived,
    ) -> Result<(), ProtocolError> {
        let Some(link) = self.slot(id) else {
            return Ok(());
        };
        let Some(arriving) = link.arriving else {
            return match frame {
                Frame::Attach {
                    from,
                    received,
                    limit,
                } => self.on_attach(id, from, Receipt { received, limit }, arrived),
                Frame::Reject(reject) if self.life.role == Role::Client => {
                    self.rejected(reject, now);
                    self.link_failed(id, now);
                    Ok(())
                }
                _ => Err(ProtocolError::NotAttach(frame.kind())),
            };
        };
        match frame {
            Frame::Data { len } => {
                let end = arriving.checked_add(len as u64);
                if end.is_none_or(|end| end > limit) {
                    return Err(ProtocolError::DataBeyondLimit);
                }
                if self.peer_fin.is_some_and(|fin| end > Some(fin)) {
                    return Err(ProtocolError::DataAfterFin);
                }
            }
            Frame::Ack { received, limit } => {
                self.on_receipt(Receipt { received, limit })?;
                arrived.moved = true;
            }
            Frame::Fin => {
                if *self.peer_fin.get_or_insert(arriving) != arriving
                    || arriving < self.streams.receive.received()
                    || arriving == u64::MAX
                {
                    return Err(ProtocolError::FinMoved);
                }
                if let Some(link) = self.slot(id) {
                    link.arriving = Some(arriving + 1);
                }
                self.acknowledgement = Acknowledgement::Due;
                arrived.moved = true;
            }
            Frame::Reset { code } => {
                self.on_reset(code);
                arrived.moved = true;
            }
            Frame::Ping(ping) => link.pong = Some(ping),
            Frame::Pong(ping) => {
                if let Some((number, at)) = link.ping
                    && number == ping
                {
                    link.ping = None;
                    self.measured(now.saturating_duration_since(at));
                }
            }
            Frame::Attach { .. } | Frame::Reject(_) => {
                return Err(ProtocolError::OutOfPlace(frame.kind()));
            }
        }
        self.end_if_done();
        Ok(())
    }

    /// The first frame on a link: the peer uses it from now on.
    fn on_attach(
        &mut self,
        id: LinkId,
        from: u64,
        receipt: Receipt,
        arrived: &mut Arrived,
    ) -> Result<(), ProtocolError> {
        if from > self.received() {
            return Err(ProtocolError::AttachBeyondReceived);
        }
        self.on_receipt(receipt)?;
        if let Some(link) = self.slot(id) {
            link.arriving = Some(from);
            link.attach_by = None;
        }
        if self.life.role == Role::Client {
            // The server has closed it.
            self.previous = None;
            self.retry_at = None;
            if id > 0 {
                self.life.attach(id);
            }
            self.trim();
        }
        arrived.attached = true;
        arrived.moved = true;
        self.end_if_done();
        Ok(())
    }

    fn on_receipt(&mut self, receipt: Receipt) -> Result<(), ProtocolError> {
        if receipt.received > self.handed() {
            return Err(ProtocolError::AckBeyondSent);
        }
        self.acknowledged = self.acknowledged.max(receipt.received);
        self.limit = self.limit.max(receipt.limit);
        self.trim();
        Ok(())
    }

    /// A client was refused the link: the session is over if that is final, and else waits as long as the server says.
    pub fn rejected(&mut self, reject: Reject, now: Instant) {
        match refused(reject.code) {
            Some(reason) => self.close(self.verdict.unwrap_or(reason)),
            None => self.retry_at = now.checked_add(reject.retry_after),
        }
    }

    fn on_reset(&mut self, code: u32) {
        let reason = if self.is_delivered() && self.peer_fin.is_some() {
            CloseReason::Finished
        } else {
            self.verdict.unwrap_or(CloseReason::Reset(code))
        };
        match self.life.role {
            // Nothing comes after the server's.
            Role::Client => self.close(reason),
            Role::Server => self.end(reason, code),
        }
    }

    /// A server ends the session once both streams are delivered with their ends.
    fn end_if_done(&mut self) {
        if self.life.role == Role::Server && self.is_delivered() && self.peer_fin.is_some() {
            self.end(CloseReason::Finished, reset::CLEAN);
        }
    }

    /// The session is over; what is left is to say so on the link.
    fn end(&mut self, reason: CloseReason, code: u32) {
        if self.life.close(reason) {
            self.verdict = Some(reason);
            self.reset = Some(code);
            self.previous = None;
            self.release();
        }
    }

    /// Gives up the memory that nothing needs any more. A frame that was begun on a link is finished, and then it is all.
    fn release(&mut self) {
        let begun = self.link.as_ref().is_some_and(|link| link.payload() > 0);
        let replay = &mut self.streams.replay;
        if self.life.closed().is_some() && !begun {
            replay.trim(replay.end());
        }
        replay.release();
    }

    /// A smoothed round trip as in RFC 6298, section 2.
    fn measured(&mut self, round_trip: Duration) {
        self.round_trip = Some(match self.round_trip {
            None => round_trip,
            Some(smoothed) => (smoothed * 7 + round_trip) / 8,
        });
    }

    /// A client that has reset the session goes on until it hears the server say so too.
    fn reset_with(&mut self, reason: CloseReason, code: u32, now: Instant) {
        if self.verdict.is_some() {
            return;
        }
        match self.life.role {
            Role::Server => self.end(reason, code),
            Role::Client => {
                self.verdict = Some(reason);
                self.reset = Some(code);
                self.tell_until = self.life.linger_from(now);
            }
        }
    }

    /// When the link is to be given up for the peer's silence.
    fn dead_at(&self, link: &Link) -> Option<Instant> {
        link.heard.checked_add(self.settings.dead_after)
    }

    /// When the peer is to be pinged.
    fn ping_at(&self, link: &Link) -> Option<Instant> {
        let idle = !link.ping_due && link.ping.is_none() && link.arriving.is_some();
        let at = link.heard.checked_add(self.settings.ping_after);
        at.filter(|_| idle && !link.ended)
    }

    /// When the oldest of a client's endings that nobody answers is over.
    fn gives_up_at(&self) -> Option<Instant> {
        let times = [self.life.lingers_until(), self.tell_until];
        times.into_iter().flatten().min()
    }
}

/// Why a client's session is over that was refused like this; `None` if it may try again.
fn refused(code: RejectCode) -> Option<CloseReason> {
    match code {
        RejectCode::Expired => Some(CloseReason::Expired),
        RejectCode::Gap => Some(CloseReason::Gap),
        RejectCode::Unknown => Some(CloseReason::Refused(Refusal::Unknown)),
        RejectCode::NotAuthorised => Some(CloseReason::Refused(Refusal::NotAuthorised)),
        RejectCode::Closed => Some(CloseReason::Refused(Refusal::Closed)),
        _ => None,
    }
}

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
        // The last offset is the FIN's.
        let offsets = u64::MAX - 1 - self.streams.replay.end();
        let offsets = usize::try_from(offsets).unwrap_or(usize::MAX);
        self.streams.replay.room().min(offsets)
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
        self.acknowledge_soon(now);
        count
    }

    fn is_read_ended(&self) -> bool {
        self.peer_fin.is_some()
    }

    fn reset(&mut self, code: u32, now: Instant) {
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

    fn holds(&self, link: LinkId) -> bool {
        let links = [&self.link, &self.previous];
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
                    || link.ping_due && link.ping.is_none()
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

    fn receive(&mut self, link: LinkId, bytes: &mut [u8], now: Instant) -> Arrived {
        let mut arrived = Arrived::default();
        // What arrives here is not stored yet, but may be: so the limit is that of before.
        let limit = self.own_limit();
        let mut at = 0;
        while at < bytes.len() {
            if self.life.closed().is_some() {
                break;
            }
            let Some(source) = self.slot(link) else { break };
            source.heard = now;
            let handled = match source.decoder.decode(&bytes[at..]) {
                Ok((used, item)) => {
                    at += used;
                    match item {
                        None => Ok(()),
                        Some(Item::Payload(count)) => {
                            self.on_payload(link, bytes, at - count..at, &mut arrived.fresh);
                            Ok(())
                        }
                        Some(Item::Frame(frame)) => {
                            self.on_frame(link, frame, limit, now, &mut arrived)
                        }
                    }
                }
                Err(error) => Err(error),
            };
            if let Err(error) = handled {
                arrived.broken = Some(error);
                self.link_failed(link, now);
                break;
            }
        }
        self.acknowledge_soon(now);
        arrived
    }

    fn store(&mut self, bytes: &[u8]) {
        if !self.life.is_dropped() && self.verdict.is_none() {
            self.streams.receive.store(bytes);
        }
    }

    /// The end of a link says nothing of the stream's.
    fn link_ended(&mut self, link: LinkId, now: Instant) {
        self.link_failed(link, now);
    }

    fn link_failed(&mut self, link: LinkId, now: Instant) {
        let is = |slot: &Option<Link>| slot.as_ref().is_some_and(|held| held.id == link);
        if is(&self.link) {
            self.link = self.previous.take();
            self.acknowledgement = Acknowledgement::Nothing;
        } else if is(&self.previous) {
            self.previous = None;
        } else {
            return;
        }
        if !self.is_carried() {
            self.life.detach(now);
        }
        self.trim();
        if self.life.closed().is_some() {
            self.release();
        }
        // What was stated on the link that failed may not have arrived.
        self.acknowledge_soon(now);
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
        [
            self.life.expires_at(),
            self.gives_up_at(),
            acknowledge_at,
            link.and_then(|link| link.attach_by),
            link.and_then(|link| self.ping_at(link)),
            link.and_then(|link| self.dead_at(link)),
            self.previous.as_ref().and_then(|link| self.dead_at(link)),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn handle_timeout(&mut self, now: Instant) -> bool {
        if is_due(self.gives_up_at(), now) {
            let reason = self.verdict.unwrap_or(if self.is_delivered() {
                CloseReason::Local
            } else {
                CloseReason::Expired
            });
            self.end(reason, self.reset.unwrap_or(reset::LINGER));
        }
        if is_due(self.life.expires_at(), now) {
            let reason = if self.gap_suspected {
                CloseReason::Gap
            } else {
                CloseReason::Expired
            };
            self.close(self.verdict.unwrap_or(reason));
        }
        if self.life.closed().is_some() {
            return false;
        }
        if let Acknowledgement::By(at) = self.acknowledgement
            && at <= now
        {
            self.acknowledgement = Acknowledgement::Due;
        }
        let is_overdue =
            |link: &&Link| is_due(link.attach_by, now) || is_due(self.dead_at(link), now);
        let links = [&self.previous, &self.link].map(|link| link.as_ref().filter(is_overdue));
        for id in links
            .map(|link| link.map(|link| link.id))
            .into_iter()
            .flatten()
        {
            self.link_failed(id, now);
        }
        let ping = self.link.as_ref().and_then(|link| self.ping_at(link));
        if is_due(ping, now)
            && let Some(link) = &mut self.link
        {
            link.ping_due = true;
            // Nothing has come for a while: what is empty is given back.
            self.release();
        }
        false
    }
}

impl NativeSession {
    /// Takes in a piece of a DATA frame's payload, `piece` of `bytes`, and moves what is new of it behind what is `fresh` already.
    fn on_payload(
        &mut self,
        link: LinkId,
        bytes: &mut [u8],
        piece: Range<usize>,
        fresh: &mut Range<usize>,
    ) {
        let Some(arriving) = self.slot(link).and_then(|link| link.arriving.as_mut()) else {
            return;
        };
        let mut cursor = *arriving;
        let again = self.streams.arrive(&mut cursor, piece.len());
        if let Some(arriving) = self.slot(link).and_then(|link| link.arriving.as_mut()) {
            *arriving = cursor;
        }
        let new = piece.start + again..piece.end;
        if fresh.is_empty() {
            *fresh = new;
        } else {
            let count = new.len();
            bytes.copy_within(new, fresh.end);
            fresh.end += count;
        }
    }

    /// Whether a link carries the session: one that the peer uses, as far as this end knows.
    fn is_carried(&self) -> bool {
        let links = [&self.link, &self.previous];
        links
            .into_iter()
            .flatten()
            .any(|link| self.life.role == Role::Server || link.id == 0 || link.arriving.is_some())
    }
}
