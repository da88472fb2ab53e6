//! A native session with the links it was given, and somebody who watches what it puts on them.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use unbroken::{
    CloseReason, RejectCode,
    protocol::{
        LinkId, Phase, Role, Session,
        native::{CONFIRM_LEN, Decoder, Frame, HEAD_LEN, Item, MAX_DATA, NativeSession},
    },
};

/// How long an end that has had its last word waits for the other's end of the link.
const PATIENCE: Duration = Duration::from_secs(10);

/// A session, and its driver's part between its links and its application.
pub(crate) struct Carried {
    pub(crate) session: NativeSession,
    role: Role,
    window: usize,
    direct: bool,
    /// Those the session holds, the newest last.
    links: Vec<Held>,
    /// Bytes that went straight to the application.
    at_hand: VecDeque<u8>,
    /// Why the server did not take a link into use that this end had proved itself on.
    pub(crate) rejections: Vec<RejectCode>,
    /// When the link of a session that is over is closed at the latest.
    close_by: Option<Instant>,
    /// The greatest limit it has stated, on any link.
    limit: u64,
}

struct Held {
    link: usize,
    id: LinkId,
    /// Whether something was composed for it that it has not taken.
    begun: bool,
    /// Whether its write side is shut.
    ended: bool,
    watch: Watch,
}

impl Carried {
    pub(crate) fn new(session: NativeSession, direct: bool) -> Self {
        Self {
            role: session.role(),
            window: session.max_window(),
            session,
            direct,
            links: Vec::new(),
            at_hand: VecDeque::new(),
            rejections: Vec::new(),
            close_by: None,
            limit: 0,
        }
    }

    /// The session has attached the link.
    pub(crate) fn put(&mut self, link: usize, id: LinkId, now: Instant) {
        self.links.push(Held {
            link,
            id,
            begun: false,
            ended: false,
            watch: Watch::new(self.role),
        });
        self.close_by = None;
        self.look(now);
    }

    pub(crate) fn holds(&self, link: usize) -> bool {
        self.links.iter().any(|held| held.link == link)
    }

    pub(crate) fn has_ended(&self, link: usize) -> bool {
        self.links
            .iter()
            .any(|held| held.link == link && held.ended)
    }

    /// Drops the links that the session has let go.
    pub(crate) fn look(&mut self, now: Instant) {
        self.links.retain(|held| self.session.holds(held.id));
        let over = self.closed().is_some() && !self.links.is_empty();
        if over && self.close_by.is_none() {
            self.close_by = Some(now + PATIENCE);
        }
        let unacknowledged = self.session.stats().unacknowledged as usize;
        assert!(
            self.closed().is_some() || unacknowledged + self.session.room() <= self.window,
            "what may have to be sent again fits the window"
        );
        assert!(
            self.session.waiting() <= self.window,
            "what waits fits the window"
        );
    }

    pub(crate) fn closed(&self) -> Option<CloseReason> {
        match self.session.phase() {
            Phase::Closed(reason) => Some(reason),
            Phase::Attached | Phase::Detached(_) => None,
        }
    }

    /// Whether the session is over and needs no link any more.
    pub(crate) fn is_over(&self) -> bool {
        self.closed().is_some() && self.links.is_empty()
    }

    /// What a writer, or a reader at the end, may wait for.
    fn awaited(&self) -> (usize, u64, bool, bool) {
        let session = &self.session;
        (
            session.room(),
            session.stats().credit,
            session.is_shut_down(true),
            session.is_read_ended(),
        )
    }

    /// Takes at most `most` bytes for the link, if it is the one that is written to.
    pub(crate) fn transmit(&mut self, link: usize, most: usize, now: Instant) -> Vec<u8> {
        let Some(held) = self.links.last_mut().filter(|held| held.link == link) else {
            return Vec::new();
        };
        let owes = self.session.owes(now);
        let pieces = self.session.transmit(now);
        let whole = pieces.concat();
        assert!(pieces[0].len() <= HEAD_LEN && whole.len() <= HEAD_LEN + MAX_DATA);
        if !held.begun {
            // Or the driver would not ask when it has to, or ask in vain.
            assert_eq!(owes, !whole.is_empty(), "what it owes is what it transmits");
        }
        if whole.is_empty() {
            assert!(
                self.session.is_flushed(),
                "nothing to hand over, and not flushed"
            );
        }
        let count = whole.len().min(most);
        self.session.transmitted(count);
        held.begun = count < whole.len();
        let before = held.watch.receipt;
        held.watch.see(&whole[..count]);
        if let Some((_, limit)) = held.watch.receipt.filter(|_| held.watch.receipt != before) {
            assert!(
                limit >= self.limit,
                "the limit is less than on another link"
            );
            self.limit = limit;
        }
        held.ended |= self.session.wants_close() && !held.begun;
        self.look(now);
        whole[..count].to_vec()
    }

    pub(crate) fn receive(&mut self, link: usize, bytes: &mut [u8], now: Instant) {
        let Some(held) = self.links.iter().find(|held| held.link == link) else {
            panic!("nothing is wanted of this link");
        };
        let before = self.awaited();
        let arrived = self.session.receive(held.id, bytes, now);
        assert_eq!(arrived.broken, None, "the peer does right");
        self.rejections
            .extend(arrived.rejected.map(|(code, _)| code));
        let fresh = &bytes[arrived.fresh];
        if self.direct && self.session.waiting() == 0 {
            self.at_hand.extend(fresh);
        } else {
            self.session.store(fresh);
        }
        if before != self.awaited() {
            assert!(arrived.moved, "whoever waits is to be woken");
        }
        self.look(now);
    }

    /// The link has failed, or the other end has ended it.
    pub(crate) fn link_failed(&mut self, link: usize, now: Instant) {
        if let Some(held) = self.links.iter().find(|held| held.link == link) {
            if held.ended {
                self.session.link_closed(now);
            } else {
                self.session.link_failed(held.id, now);
            }
            self.links.retain(|held| held.link != link);
            self.look(now);
        }
    }

    /// All links have failed.
    pub(crate) fn lose_links(&mut self, now: Instant) {
        while let Some(held) = self.links.last() {
            self.link_failed(held.link, now);
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> usize {
        if self.session.verdict().is_some() || self.session.is_write_shut() {
            return 0;
        }
        self.session.write(bytes)
    }

    pub(crate) fn read(&mut self, out: &mut [u8], now: Instant) -> usize {
        let at_hand = self.at_hand.len().min(out.len());
        for (byte, taken) in out.iter_mut().zip(self.at_hand.drain(..at_hand)) {
            *byte = taken;
        }
        at_hand + self.session.read(&mut out[at_hand..], now)
    }

    /// It is to make do with a window of so many bytes.
    pub(crate) fn set_window(&mut self, bytes: usize, now: Instant) {
        let before = self.session.room();
        let moved = self.session.set_window(bytes, now);
        let (room, held) = (self.session.room(), self.session.stats().unacknowledged);
        assert!(room == 0 || room + held as usize <= bytes);
        assert!(
            moved || before > 0 || room == 0,
            "whoever waits is to be woken"
        );
        if bytes >= self.window {
            assert!(!self.session.is_confined(), "by its own window");
        }
        self.look(now);
    }

    /// Bytes that wait for the application, or have just been given to it.
    pub(crate) fn waiting(&self) -> usize {
        self.at_hand.len() + self.session.waiting()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let due = [self.session.poll_timeout(), self.close_by];
        due.into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.close_by.is_some_and(|at| at <= now) {
            self.close_by = None;
            self.session.link_closed(now);
        }
        self.session.handle_timeout(now);
        self.look(now);
    }
}

/// Watches what a session puts on one link.
struct Watch {
    decoder: Decoder,
    /// What is left of the handshake's last message, which is the session's to send.
    confirm: usize,
    /// The last ATTACH or ACK: what was received, and the limit.
    receipt: Option<(u64, u64)>,
    fin: bool,
    reset: bool,
}

impl Watch {
    fn new(role: Role) -> Self {
        Self {
            decoder: Decoder::new(),
            confirm: match role {
                Role::Client => CONFIRM_LEN,
                Role::Server => 0,
            },
            receipt: None,
            fin: false,
            reset: false,
        }
    }

    fn see(&mut self, bytes: &[u8]) {
        let confirm = self.confirm.min(bytes.len());
        self.confirm -= confirm;
        let mut bytes = &bytes[confirm..];
        while !bytes.is_empty() {
            let decoded = self.decoder.decode(bytes);
            let (used, item) = decoded.expect("frames are well made");
            bytes = &bytes[used..];
            if let Some(Item::Frame(frame)) = item {
                self.see_frame(frame);
            }
        }
    }

    fn see_frame(&mut self, frame: Frame) {
        assert!(!self.reset, "{frame:?} after RESET");
        let is_attach = matches!(frame, Frame::Attach { .. });
        assert_eq!(
            is_attach,
            self.receipt.is_none(),
            "ATTACH comes first, once"
        );
        match frame {
            Frame::Attach {
                received, limit, ..
            } => self.receipt = Some((received, limit)),
            Frame::Ack { received, limit } => {
                let before = self.receipt.replace((received, limit));
                let (received_before, limit_before) = before.expect("ATTACH came first");
                assert!(received >= received_before, "received goes back");
                assert!(limit >= limit_before, "the limit goes back");
                assert_ne!(before, self.receipt, "no news");
            }
            Frame::Data { .. } => assert!(!self.fin, "DATA after FIN"),
            Frame::Fin => {
                assert!(!self.fin, "FIN twice");
                self.fin = true;
            }
            Frame::Reset { .. } => self.reset = true,
            Frame::Ping(_) | Frame::Pong(_) => {}
            Frame::Reject(_) => panic!("REJECT on an attached link"),
        }
    }
}
