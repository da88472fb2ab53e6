//! What a session is, whatever it speaks: the driver's contract, and the life that every one of them leads.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use crate::error::{CloseReason, ProtocolError, RejectCode, ResumeError};

/// Which end of a session this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The end that dials, and dials again.
    Client,
    /// The end that accepts.
    Server,
}

/// Where a session stands towards its links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A link carries it.
    Attached,
    /// It waits for a link since then.
    Detached(Instant),
    /// It is over.
    Closed(CloseReason),
}

/// A link, by the number of the attempt that attached it; 0 is the open. The numbers grow from link to link.
pub type LinkId = u64;

/// What became of bytes that a link gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// Where in the buffer the new bytes of the stream are now, in the clear. They are counted as received, so they must reach the
    /// application, whatever else is said here.
    pub fresh: Range<usize>,
    /// Whether the peer has said something that a writer may wait for.
    pub moved: bool,
    /// Whether the peer has just taken the link into use.
    pub attached: bool,
    /// What the peer did wrong. The session has given the link up.
    pub broken: Option<ProtocolError>,
    /// Why the server does not take the link into use, and when it wants to be asked again. The session has given the link up.
    pub rejected: Option<(RejectCode, Duration)>,
}

/// What a session has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Bytes the application has written.
    pub sent: u64,
    /// Bytes received from the peer, read by the application or not.
    pub received: u64,
    /// Bytes sent again because a link was lost.
    pub replayed: u64,
    /// Links attached after the first.
    pub resumes: u64,
    /// Bytes sent that the peer may not have received yet, for all this end knows.
    pub unacknowledged: u64,
    /// How many more bytes the peer allows to be sent. snet has no credit; there it is what the history leaves.
    pub credit: u64,
    /// The round trip, smoothed as TCP does it (RFC 6298), from the pings of all links; `None` before the first answer, and in snet,
    /// which has no pings. It includes the time the peer takes to answer: up to 20 ms where its application has just been served and
    /// does not poll.
    pub round_trip: Option<Duration>,
}

/// One end of a session: what it has sent and received, and what it may do next.
///
/// It does no I/O and knows no time but what it is told; the [module](super) says what to call, in which order.
pub trait Session: Send {
    /// Which end this is.
    fn role(&self) -> Role;
    /// Where the session stands towards its links.
    fn phase(&self) -> Phase;
    /// Why the session is over for the application. It may still need links, to tell the peer.
    fn verdict(&self) -> Option<CloseReason>;
    /// What it has done so far.
    fn stats(&self) -> Stats;

    // What the application does.

    /// How many bytes [`write`](Self::write) takes now.
    fn room(&self) -> usize;
    /// Whether no byte can be written any more, because no offset is left to count it by.
    fn is_exhausted(&self) -> bool;
    /// Appends the first bytes of `bytes` to the stream, and returns how many.
    fn write(&mut self, bytes: &[u8]) -> usize;
    /// The application will write no more.
    fn shut_write(&mut self);
    /// Whether the application has said that it will write no more.
    fn is_write_shut(&self) -> bool;
    /// Whether the end of the stream has reached the peer, as far as the protocol lets this end know. `flushed` says that the link
    /// holds nothing back.
    fn is_shut_down(&self, flushed: bool) -> bool;
    /// Bytes that wait for the application.
    fn waiting(&self) -> usize;
    /// Moves waiting bytes to `out` and returns how many.
    fn read(&mut self, out: &mut [u8], now: Instant) -> usize;
    /// Whether the peer has ended its stream and all of it has been received.
    fn is_read_ended(&self) -> bool;
    /// Ends the session with an error at both ends. What was received can still be read.
    fn reset(&mut self, code: u32, now: Instant);
    /// The application has dropped its transport: what it wrote goes on its way, what arrives is counted and discarded.
    fn drop_transport(&mut self, now: Instant);

    // What memory there is.

    /// Bytes of memory that its buffers take now: allocated, whether or not anything is in them.
    fn allocated(&self) -> usize;
    /// How many bytes of each direction it keeps, at first: what it is configured with.
    fn window(&self) -> usize;
    /// How many it keeps at most, when as much is under way.
    fn max_window(&self) -> usize;
    /// How much the peer may send beyond a [window](Self::window) of what the application has taken.
    fn promised(&self) -> usize;
    /// It is to keep at most `bytes` of each direction from now on: 1 at least, and no more than its
    /// [`max_window`](Self::max_window). What the peer was allowed to send it may still send, and what is held is kept for as long as it is needed. While it is less than the
    /// [window](Self::window), memory is given back as soon as it is no longer needed. snet, where the peer relies on the history, does nothing.
    ///
    /// Returns whether anybody may go on who waited for that: a writer, or the peer, to whom the session may [owe](Self::owes) word of it.
    fn set_window(&mut self, bytes: usize, now: Instant) -> bool;
    /// Whether a writer or the peer waits, and would not with the whole [window](Self::window).
    fn is_confined(&self) -> bool;

    // What the links do.

    /// Whether the link is in use. One that no longer is is to be dropped.
    fn holds(&self, link: LinkId) -> bool;
    /// What the newest link in use is to be handed, in up to three pieces. Nothing without a link.
    fn transmit(&mut self, now: Instant) -> [&[u8]; 3];
    /// That link has taken the first `count` bytes of [`transmit`](Self::transmit).
    fn transmitted(&mut self, count: usize);
    /// Whether that link has been handed all that may be sent now.
    fn is_flushed(&self) -> bool;
    /// Whether this end owes the peer an answer that should not wait for the application's next write.
    fn owes(&self, now: Instant) -> bool;
    /// How many bytes may be taken from a link to [wait](Self::waiting) for the application; more may be if they go to it at once.
    fn wanted(&self) -> usize;
    /// Whether what a link gives next is of the stream, and not of a header in front of it: then it may lie where the stream is to go.
    fn is_stream_next(&self, link: LinkId) -> bool;
    /// A link in use gave `bytes`.
    fn receive(&mut self, link: LinkId, bytes: &mut [u8], now: Instant) -> Arrived;
    /// Something has come on a link in use that it holds back until it is whole: the peer is there, though it has said nothing yet.
    fn stirred(&mut self, link: LinkId, now: Instant);
    /// Lets bytes that [arrived](Self::receive) fresh wait for the application, unless it has gone.
    fn store(&mut self, bytes: &[u8]);
    /// A link has ended in order.
    fn link_ended(&mut self, link: LinkId, now: Instant);
    /// A link is gone.
    fn link_failed(&mut self, link: LinkId, now: Instant);
    /// Whether the newest link has been handed the last that this end puts on it: it is to be closed in order, its write side first,
    /// and then [`link_closed`](Self::link_closed) called.
    fn wants_close(&self) -> bool;
    /// The newest link was closed in order.
    fn link_closed(&mut self, now: Instant);
    /// Whether a client waits for the server to take the newest link into use.
    fn is_switching(&self) -> bool;
    /// Asks the peer for a sign of life, if the protocol can.
    fn probe(&mut self);
    /// Ends the session at once, unless it is over already. The peer is told nothing.
    fn close(&mut self, reason: CloseReason);

    // What time does.

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    fn poll_timeout(&self) -> Option<Instant>;
    /// Does what is due by `now`, and returns whether the peer has been silent for so long that a new link should be tried.
    fn handle_timeout(&mut self, now: Instant) -> bool;
}

/// How far the application has taken this end towards its close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It may write.
    Open,
    /// It will write no more.
    WriteShut,
    /// It dropped the transport then; the session goes on for the linger time at most.
    Dropped(Instant),
}

/// The life of a session: its links come and go, its application ends, its time runs out.
pub(super) struct Life {
    pub(super) role: Role,
    phase: Phase,
    ending: Ending,
    /// The number of the link that was attached last.
    last: Option<LinkId>,
    resumes: u64,
}

impl Life {
    /// Of a session that was opened at `now`, and has no link yet.
    pub(super) fn new(role: Role, now: Instant) -> Self {
        Self {
            role,
            phase: Phase::Detached(now),
            ending: Ending::Open,
            last: None,
            resumes: 0,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn closed(&self) -> Option<CloseReason> {
        match self.phase {
            Phase::Closed(reason) => Some(reason),
            Phase::Attached | Phase::Detached(_) => None,
        }
    }

    /// How many links were attached after the first.
    pub(super) fn resumes(&self) -> u64 {
        self.resumes
    }

    /// Whether a link of this number may be attached: an older one must not push out a newer.
    pub(super) fn check_number(&self, link: LinkId) -> Result<(), ResumeError> {
        match self.last {
            Some(last) if link <= last => Err(ResumeError::Stale),
            _ => Ok(()),
        }
    }

    pub(super) fn last(&self) -> Option<LinkId> {
        self.last
    }

    /// No link may be attached any more that is not newer than `link`.
    pub(super) fn number(&mut self, link: LinkId) {
        self.last = Some(link);
    }

    /// A link carries the session.
    pub(super) fn attach(&mut self, link: LinkId) {
        self.phase = Phase::Attached;
        if link > 0 {
            self.resumes += 1;
        }
    }

    /// No link carries it any more.
    pub(super) fn detach(&mut self, now: Instant) {
        if self.phase == Phase::Attached {
            self.phase = Phase::Detached(now);
        }
    }

    /// Ends it, unless it is over already. Returns whether it was not.
    pub(super) fn close(&mut self, reason: CloseReason) -> bool {
        let open = self.closed().is_none();
        if open {
            self.phase = Phase::Closed(reason);
        }
        open
    }

    /// Runs `untrusted`; if that panics the session stays closed.
    pub(super) fn guarded(&mut self, untrusted: impl FnOnce()) {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed(CloseReason::Abandoned));
        untrusted();
        self.phase = phase;
    }

    pub(super) fn shut_write(&mut self) {
        if self.ending == Ending::Open {
            self.ending = Ending::WriteShut;
        }
    }

    pub(super) fn is_write_shut(&self) -> bool {
        self.ending != Ending::Open
    }

    pub(super) fn drop_transport(&mut self, now: Instant) {
        if !self.is_dropped() {
            self.ending = Ending::Dropped(now);
        }
    }

    pub(super) fn is_dropped(&self) -> bool {
        matches!(self.ending, Ending::Dropped(_))
    }

    /// When a detached session expires.
    pub(super) fn expires_at(&self, resume_window: Duration) -> Option<Instant> {
        match self.phase {
            Phase::Detached(since) => since.checked_add(resume_window),
            Phase::Attached | Phase::Closed(_) => None,
        }
    }

    /// When a session whose transport was dropped ends at the latest.
    pub(super) fn lingers_until(&self, linger: Duration) -> Option<Instant> {
        match self.ending {
            Ending::Dropped(at) => at.checked_add(linger),
            Ending::Open | Ending::WriteShut => None,
        }
    }
}

/// Whether `at` has come by `now`.
pub(super) fn is_due(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| at <= now)
}
