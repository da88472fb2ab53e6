//! What a link is handed (`docs/PROTOCOL.md`, native: "Offsets and credit", "Acknowledgements and trimming").

use std::time::{Duration, Instant};

use super::{Acknowledgement, NativeSession};
use crate::protocol::{
    native::{
        frame::{Frame, Head, MAX_DATA},
        link::{Link, Receipt},
    },
    session::is_due,
};

/// How long an acknowledgement waits for others to go along with.
const ACK_DELAY: Duration = Duration::from_millis(25);

impl NativeSession {
    /// Forgets what the peer has received and no link in use is still to be handed: DATA carries no offset, so a link cannot leave out
    /// anything.
    pub(super) fn trim(&mut self) {
        let cursors = [self.link.as_ref(), self.previous.as_deref()];
        let cursor = cursors.into_iter().flatten().map(|link| link.next).min();
        let tight = self.is_tight();
        let replay = &mut self.streams.replay;
        replay.trim(self.acknowledged.min(cursor.unwrap_or(u64::MAX)));
        if tight {
            replay.shrink();
        }
    }

    /// How many bytes of the stream the link may be handed now.
    pub(super) fn sendable(&self, link: &Link) -> u64 {
        if self.verdict.is_some() {
            return 0;
        }
        let end = self.streams.replay.end().min(self.limit);
        end.saturating_sub(link.next)
    }

    /// Whether the link is to be handed the FIN next.
    pub(super) fn is_fin_next(&self, link: &Link) -> bool {
        self.verdict.is_none() && self.fin == Some(link.next)
    }

    /// How far `received` or `limit` may move before the peer hears of it at once. By the window as it is now: a peer that has used
    /// up what a small one allows waits for the next.
    pub(super) fn acknowledge_after(&self) -> u64 {
        let smaller = (self.windows.receive as u64).min(self.identity.peer_window);
        (smaller / 4).max(1)
    }

    /// Whether the peer is to hear at once of what was received.
    pub(super) fn is_receipt_due(&self, stated: Receipt, now: Instant) -> bool {
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
    pub(super) fn compose(&mut self, now: Instant) {
        // Taken out, so that the session can be asked while it is changed.
        let Some(mut link) = self.link.take() else {
            return;
        };
        if link.is_idle() && !link.ended {
            self.compose_on(&mut link, now);
        }
        self.link = Some(link);
    }

    pub(super) fn compose_on(&mut self, link: &mut Link, now: Instant) {
        let mut head = Head::default();
        let mut own = self.receipt();
        let payload = self.sendable(link).min(MAX_DATA as u64) as usize;
        let fin = payload == 0 && self.is_fin_next(link);
        match link.stated {
            None => {
                if let Some(confirm) = link.confirm.take() {
                    let pushed = head.push_bytes(&*confirm);
                    debug_assert!(pushed, "nothing precedes it");
                }
                put(
                    &mut head,
                    Frame::Attach {
                        from: link.next,
                        received: own.received,
                        limit: own.limit,
                    },
                );
                self.state(link, own);
            }
            Some(stated) if stated != own => {
                let along = payload > 0 || fin || self.reset.is_some();
                if along || self.is_receipt_due(stated, now) {
                    self.widen(link, now);
                    own = self.receipt();
                    put(
                        &mut head,
                        Frame::Ack {
                            received: own.received,
                            limit: own.limit,
                        },
                    );
                    self.state(link, own);
                }
            }
            Some(_) => {}
        }
        if let Some(code) = self.reset {
            put(&mut head, Frame::Reset { code });
            link.ended = true;
            link.send(head, 0);
            return;
        }
        if let Some(ping) = link.pong.take() {
            put(&mut head, Frame::Pong(ping));
        }
        let speaks = !head.as_bytes().is_empty() || payload > 0 || fin;
        let again = link
            .pinged
            .and_then(|(_, at)| at.checked_add(self.settings.ping_after));
        let aged = is_due(again, now);
        if link.ponged && (link.ping_due || speaks && aged) {
            self.pings += 1;
            put(&mut head, Frame::Ping(self.pings));
            link.ping_due = false;
            link.pinged = Some((self.pings, now));
            link.ponged = false;
        }
        if payload > 0 {
            put(&mut head, Frame::Data { len: payload });
        } else if fin {
            put(&mut head, Frame::Fin);
            link.next += 1;
            self.fin_handed = true;
        }
        link.send(head, payload);
    }

    /// The link says what was received.
    pub(super) fn state(&mut self, link: &mut Link, own: Receipt) {
        link.stated = Some(own);
        self.granted = own.limit;
        self.acknowledgement = Acknowledgement::Nothing;
    }

    /// Something was received, or taken by the application: the peer is to hear of it before long.
    pub(super) fn acknowledge_soon(&mut self, now: Instant) {
        let stated = self.link.as_ref().and_then(|link| link.stated);
        if self.acknowledgement == Acknowledgement::Nothing
            && stated.is_some_and(|stated| stated != self.receipt())
        {
            self.acknowledgement = Acknowledgement::By(now + ACK_DELAY);
        }
    }
}

fn put(head: &mut Head, frame: Frame) {
    let pushed = head.push(&frame);
    debug_assert!(pushed, "a head has room for one of each");
}
