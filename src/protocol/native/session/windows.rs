//! How much is kept of each direction (`docs/PROTOCOL.md`, native: "Offsets and credit").
//!
//! A window limits a transfer once a whole one is under way: then it takes about a round trip until the next has come. The end that
//! receives sees that, and lets its window grow; the end that sends keeps as much as it is allowed to have under way.

use std::time::{Duration, Instant};

use super::NativeSession;
use crate::protocol::{native::link::Link, session::Session, streams::UNSENT};

/// In how many of the shortest round trips a whole window has to be used up for it to grow. One would do on a path that loses nothing; where
/// it does, the losses of each window take another to mend, or two.
const SHORT: u32 = 4;
/// The longest round trip that is believed: a peer makes it as long as it likes, and is not to have its window grow for slow reading.
const LONGEST: Duration = Duration::from_secs(1);
/// How many round trips have to be measured on a link before one is believed: the first answer may have waited for the peer's
/// application.
const MEASURED: u32 = 2;

/// The windows of a session, in bytes.
pub(super) struct Windows {
    /// The most that may be kept of each direction now: what the configuration allows, and the memory.
    bound: usize,
    /// How far the peer may be ahead of the application.
    pub(super) receive: usize,
    /// Since when, and since which byte the application has taken, it is seen how fast they are used up.
    since: Instant,
    from: u64,
    /// When the one for receiving last limited the peer.
    limited: Instant,
    /// When memory was last given back that was little used.
    relaxed: Instant,
}

impl Windows {
    pub(super) fn new(window: usize, bound: usize, now: Instant) -> Self {
        Self {
            bound,
            receive: window,
            since: now,
            from: 0,
            limited: now,
            relaxed: now,
        }
    }
}

impl NativeSession {
    /// Whether the session is to make do with less than it is configured with.
    pub(super) fn is_tight(&self) -> bool {
        self.windows.bound < self.settings.window
    }

    /// How many bytes may be written now.
    pub(super) fn room_to_write(&self) -> usize {
        let replay = &self.streams.replay;
        // The last offset is the FIN's.
        let offsets = u64::MAX - 1 - replay.end();
        let offsets = usize::try_from(offsets).unwrap_or(usize::MAX);
        let window = self.settings.window.min(self.windows.bound);
        // What waits for a link makes nothing faster; without one a window does.
        let (unsent, most_unsent) = match &self.link {
            // The FIN is past the end.
            Some(link) => {
                let unsent = replay.end().saturating_sub(link.next);
                (
                    usize::try_from(unsent).unwrap_or(usize::MAX),
                    window.min(UNSENT),
                )
            }
            None => (replay.len(), window),
        };
        let under_way = self.limit.saturating_sub(self.acknowledged);
        let under_way = usize::try_from(under_way).unwrap_or(usize::MAX);
        let most = under_way.min(self.windows.bound).max(window);
        most.saturating_sub(replay.len())
            .min(most_unsent.saturating_sub(unsent))
            .min(offsets)
    }

    /// Keeps at most `bytes` of each direction from now on. Returns whether somebody has been waiting for that.
    pub(super) fn bound_windows(&mut self, bytes: usize, now: Instant) -> bool {
        let (full, limit) = (self.room() == 0, self.own_limit());
        let windows = &mut self.windows;
        windows.bound = bytes.clamp(1, self.settings.largest_window());
        windows.receive = windows.receive.max(self.settings.window).min(windows.bound);
        if self.is_tight() {
            self.streams.replay.shrink();
            self.streams.receive.shrink();
        }
        self.acknowledge_soon(now);
        full && self.room() > 0 || self.own_limit() > limit
    }

    /// The peer is about to be told what it may send. If it has used up a whole window about as fast as a window allows, it may send more.
    pub(super) fn widen(&mut self, link: &mut Link, now: Instant) {
        let consumed = self.streams.receive.consumed();
        let windows = &mut self.windows;
        if consumed.saturating_sub(windows.from) < windows.receive as u64 {
            return;
        }
        let took = now.saturating_duration_since(windows.since);
        windows.since = now;
        windows.from = consumed;
        let Some(shortest) = link.round_trips.shortest else {
            return;
        };
        if took >= shortest.min(LONGEST) * SHORT {
            return;
        }
        if link.round_trips.count < MEASURED {
            link.ping_due |= link.ponged;
            return;
        }
        windows.limited = now;
        windows.receive = windows.receive.saturating_mul(2).min(windows.bound);
    }

    /// Gives back memory, and credit, that was needed once. What is needed again comes again.
    pub(super) fn relax(&mut self, now: Instant) {
        let period = self.settings.ping_after;
        let windows = &mut self.windows;
        if now.saturating_duration_since(windows.relaxed) < period {
            return;
        }
        windows.relaxed = now;
        if now.saturating_duration_since(windows.limited) >= period {
            windows.receive = windows.receive.min(self.settings.window);
        }
        self.streams.replay.shrink();
        self.streams.receive.shrink();
    }

    /// How much of what the peer may send is beyond the window it is always allowed.
    pub(super) fn promised_to_peer(&self) -> usize {
        if self.life.closed().is_some() || self.life.is_dropped() || self.peer_fin.is_some() {
            // Nothing more comes, or what does is not kept.
            return 0;
        }
        let ahead = self.own_limit() - self.streams.receive.consumed();
        usize::try_from(ahead)
            .unwrap_or(usize::MAX)
            .saturating_sub(self.settings.window)
    }
}

/// What the round trips on a link have taken.
#[derive(Clone, Copy, Default)]
pub(in crate::protocol::native) struct RoundTrips {
    shortest: Option<Duration>,
    count: u32,
}

impl RoundTrips {
    /// Another has taken so long.
    pub(super) fn add(&mut self, took: Duration) {
        self.shortest = Some(self.shortest.map_or(took, |shortest| shortest.min(took)));
        self.count = self.count.saturating_add(1);
    }
}
