//! What a link gives (`docs/PROTOCOL.md`, native: "Frames", "Errors of a peer").

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use super::{Acknowledgement, NativeSession};
use crate::{
    error::ProtocolError,
    protocol::{
        native::{
            frame::{self, Frame, Item},
            link::Receipt,
        },
        session::{Arrived, LinkId, Role, Session},
    },
};

impl NativeSession {
    /// A link gave `bytes`. The new ones of the stream end up side by side.
    pub(super) fn on_bytes(&mut self, link: LinkId, bytes: &mut [u8], now: Instant) -> Arrived {
        let mut arrived = Arrived::default();
        // A client that had asked for another link would be silent on this one.
        self.gap_suspected &= !self.holds(link);
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
                self.give_up(link, now);
                break;
            }
        }
        self.acknowledge_soon(now);
        arrived
    }

    pub(super) fn on_frame(
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
                } => self.on_attach(id, from, Receipt { received, limit }, now, arrived),
                Frame::Reject(reject) if self.life.role == Role::Client => {
                    arrived.rejected = Some((reject.code, reject.retry_after));
                    self.rejected(reject, now);
                    self.give_up(id, now);
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
                let end = self.peer_fin.unwrap_or(self.streams.receive.received());
                if arriving != end || end == u64::MAX {
                    return Err(ProtocolError::FinMoved);
                }
                self.peer_fin = Some(end);
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
            Frame::Ping(ping) => {
                link.pong = Some(ping);
                // As often as this, at most, there may be memory to give back.
                self.release();
            }
            Frame::Pong(ping) => {
                if let Some((number, at)) = link.pinged.filter(|_| !link.ponged)
                    && number == ping
                {
                    link.ponged = true;
                    link.round_trips.add(now.saturating_duration_since(at));
                    self.measured(now.saturating_duration_since(at));
                }
            }
            Frame::Attach { .. } | Frame::Reject(_) => {
                return Err(ProtocolError::OutOfPlace(frame.kind()));
            }
        }
        self.end_if_done(now);
        Ok(())
    }

    /// The first frame on a link: the peer uses it from now on.
    pub(super) fn on_attach(
        &mut self,
        id: LinkId,
        from: u64,
        receipt: Receipt,
        now: Instant,
        arrived: &mut Arrived,
    ) -> Result<(), ProtocolError> {
        if self.slot(id).is_some_and(|link| link.confirm.is_some()) {
            // It cannot have seen the CONFIRM.
            return Err(ProtocolError::OutOfPlace(frame::ATTACH));
        }
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
        self.end_if_done(now);
        Ok(())
    }

    pub(super) fn on_receipt(&mut self, receipt: Receipt) -> Result<(), ProtocolError> {
        if receipt.received > self.handed() {
            return Err(ProtocolError::AckBeyondSent);
        }
        self.acknowledged = self.acknowledged.max(receipt.received);
        self.limit = self.limit.max(receipt.limit);
        self.trim();
        Ok(())
    }

    /// A smoothed round trip as in RFC 6298, section 2.
    pub(super) fn measured(&mut self, round_trip: Duration) {
        self.round_trip = Some(match self.round_trip {
            None => round_trip,
            Some(smoothed) => (smoothed * 7 + round_trip) / 8,
        });
    }

    /// Takes in a piece of a DATA frame's payload, `piece` of `bytes`, and moves what is new of it behind what is `fresh` already.
    pub(super) fn on_payload(
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
        if fresh.start == fresh.end {
            *fresh = new;
        } else {
            let count = new.len();
            bytes.copy_within(new, fresh.end);
            fresh.end += count;
        }
    }
}
