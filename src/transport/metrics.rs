//! A session's part in the numbers of `unbroken::metrics`. Without the feature nothing is left of it.

#[cfg(not(feature = "metrics"))]
pub(crate) use off::{Recorder, handshake_refused};
#[cfg(feature = "metrics")]
pub(crate) use on::{Recorder, handshake_refused};

#[cfg(feature = "metrics")]
mod on {
    use std::time::{Duration, Instant};

    use ::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

    use crate::{
        error::{CloseReason, Error, HandshakeError, Limit, ResumeError},
        protocol::{Phase, Stats},
        transport::{any_session::AnySession, any_session::role_name, now, state::LinkState},
    };

    /// How long what the application moves may go unrecorded.
    const LAG: Duration = Duration::from_millis(500);

    /// Records what a session does, from its beginning to its end.
    #[derive(Default)]
    pub(crate) struct Recorder {
        /// `None` before and after.
        open: Option<Box<Open>>,
        /// By when what the application has moved since is recorded.
        due: Option<Instant>,
    }

    /// Of a session that is not over. Dropping it takes the session off the gauges.
    struct Open {
        labels: Labels,
        since: Instant,
        /// Since when it has had no link.
        detached: Option<Instant>,
        reason: CloseReason,
        /// What of its figures has been recorded.
        recorded: Stats,
        recorded_buffered: usize,
        sessions: Gauge,
        sessions_detached: Gauge,
        buffered: Gauge,
        sent: Counter,
        received: Counter,
        replayed: Counter,
        round_trip: Histogram,
    }

    /// Role and protocol.
    type Labels = [(&'static str, &'static str); 2];

    impl Recorder {
        /// The session begins.
        pub(crate) fn begin(&mut self, session: &AnySession) {
            let labels = [
                ("role", role_name(session.role())),
                ("protocol", session.protocol()),
            ];
            counter!("unbroken_sessions_opened_total", &labels).increment(1);
            let sessions = gauge!("unbroken_sessions", &labels);
            sessions.increment(1.0);
            let open = Open {
                since: now(),
                detached: None,
                // Unless another is given: then nobody keeps the session any more.
                reason: CloseReason::Abandoned,
                recorded: Stats::default(),
                recorded_buffered: 0,
                sessions,
                sessions_detached: gauge!("unbroken_sessions_detached", &labels),
                buffered: gauge!("unbroken_buffered_bytes", &labels),
                sent: counter!("unbroken_bytes_sent_total", &labels),
                received: counter!("unbroken_bytes_received_total", &labels),
                replayed: counter!("unbroken_bytes_replayed_total", &labels),
                round_trip: histogram!("unbroken_round_trip_seconds", &labels),
                labels,
            };
            self.open = Some(Box::new(open));
        }

        /// Records what has changed since the last call. The session's buffers take `buffered` bytes.
        pub(crate) fn observe(&mut self, session: &AnySession, state: &LinkState, buffered: usize) {
            let Some(open) = &mut self.open else { return };
            open.record(session.stats());
            open.record_buffered(buffered);
            match *state {
                LinkState::Connected => open.attached(),
                LinkState::Reconnecting { since, .. } => open.detached(since),
                LinkState::Closed(reason) => {
                    open.reason = reason;
                    self.open = None;
                }
            }
            if self.open.is_none() || self.due.is_some_and(|at| at <= now()) {
                self.due = None;
            }
        }

        /// The application has read or written.
        pub(crate) fn application_came(&mut self) {
            if self.due.is_none() && self.open.is_some() {
                self.due = now().checked_add(LAG);
            }
        }

        /// When [`observe`](Self::observe) is to be called at the latest.
        pub(crate) fn due(&self) -> Option<Instant> {
            self.due
        }

        /// A link is gone through no doing of this end's.
        pub(crate) fn link_lost(&mut self, session: &AnySession) {
            if let Some(open) = &self.open
                && !matches!(session.phase(), Phase::Closed(_))
            {
                counter!("unbroken_links_lost_total", &open.labels).increment(1);
            }
        }

        /// An attempt to resume has come to nothing.
        pub(crate) fn attempt_failed(&mut self) {
            if let Some(open) = &self.open {
                let [_, protocol] = open.labels;
                counter!("unbroken_attempts_failed_total", &[protocol]).increment(1);
            }
        }
    }

    impl Open {
        fn record(&mut self, stats: Stats) {
            let before = &self.recorded;
            let resumes = stats.resumes - before.resumes;
            if resumes > 0 {
                counter!("unbroken_resumes_total", &self.labels).increment(resumes);
            }
            for (counter, now, before) in [
                (&self.sent, stats.sent, before.sent),
                (&self.received, stats.received, before.received),
                (&self.replayed, stats.replayed, before.replayed),
            ] {
                if now > before {
                    counter.increment(now - before);
                }
            }
            if let Some(round_trip) = stats.round_trip
                && stats.round_trip != before.round_trip
            {
                self.round_trip.record(round_trip.as_secs_f64());
            }
            self.recorded = stats;
        }

        fn record_buffered(&mut self, buffered: usize) {
            if buffered != self.recorded_buffered {
                self.buffered
                    .increment(buffered as f64 - self.recorded_buffered as f64);
                self.recorded_buffered = buffered;
            }
        }

        fn detached(&mut self, since: Instant) {
            if self.detached.is_none() {
                self.detached = Some(since);
                self.sessions_detached.increment(1.0);
            }
        }

        fn attached(&mut self) {
            if let Some(since) = self.detached.take() {
                self.sessions_detached.decrement(1.0);
                // Before its first link a session has lost none.
                if self.recorded.resumes > 0 {
                    let detached = now().saturating_duration_since(since);
                    histogram!("unbroken_detached_seconds", &self.labels)
                        .record(detached.as_secs_f64());
                }
            }
        }
    }

    impl Drop for Open {
        fn drop(&mut self) {
            if self.detached.is_some() {
                self.sessions_detached.decrement(1.0);
            }
            self.sessions.decrement(1.0);
            self.record_buffered(0);
            let age = now().saturating_duration_since(self.since);
            histogram!("unbroken_session_seconds", &self.labels).record(age.as_secs_f64());
            let [role, protocol] = self.labels;
            let labels = [role, protocol, ("reason", close_word(self.reason))];
            counter!("unbroken_sessions_closed_total", &labels).increment(1);
        }
    }

    /// A server's handshake has come to nothing.
    pub(crate) fn handshake_refused(error: &Error) {
        let labels = [("reason", refusal_word(error))];
        counter!("unbroken_handshakes_refused_total", &labels).increment(1);
    }

    fn close_word(reason: CloseReason) -> &'static str {
        match reason {
            CloseReason::Local => "local",
            CloseReason::Peer => "peer",
            CloseReason::Expired => "expired",
            CloseReason::Finished => "finished",
            CloseReason::Reset(_) => "reset",
            CloseReason::LocalReset(_) => "local_reset",
            CloseReason::Refused(_) => "refused",
            CloseReason::Gap => "gap",
            CloseReason::Exhausted => "exhausted",
            CloseReason::Abandoned => "abandoned",
        }
    }

    fn refusal_word(error: &Error) -> &'static str {
        match error {
            Error::Link(_) => "link",
            Error::HandshakeTimeout => "timeout",
            Error::Overloaded(limit) => match limit {
                Limit::Handshakes => "max_handshakes",
                Limit::HandshakesPerAddress => "max_handshakes_per_address",
                Limit::Sessions => "max_sessions",
                Limit::SessionsPerAddress => "max_sessions_per_address",
                Limit::SessionsPerIdentity => "max_sessions_per_identity",
                Limit::ResumesPerSecond => "max_resumes_per_second",
                Limit::Memory => "memory_budget",
                Limit::FileDescriptors => "file_descriptors",
            },
            Error::ShutDown => "shutting_down",
            Error::Handshake(error) => match error {
                HandshakeError::FirstByte(_) | HandshakeError::Magic => "not_spoken",
                HandshakeError::Proof | HandshakeError::Decrypt => "proof",
                HandshakeError::NotAuthorised => "not_authorised",
                HandshakeError::Version => "version",
                HandshakeError::Security => "security",
                HandshakeError::ZeroPublicKey
                | HandshakeError::OutOfPlace
                | HandshakeError::Kind
                | HandshakeError::MessageLength(_)
                | HandshakeError::Frame(_) => "malformed",
            },
            Error::Resume(error) => match error {
                ResumeError::Unknown => "unknown",
                ResumeError::Expired => "expired",
                ResumeError::Proof => "proof",
                ResumeError::ReceivedTooMuch | ResumeError::SentTooLittle | ResumeError::Gap => {
                    "gap"
                }
                ResumeError::Elsewhere => "elsewhere",
                ResumeError::NotAuthorised => "not_authorised",
                ResumeError::Stale => "stale",
                ResumeError::Ended | ResumeError::Closed => "closed",
            },
            _ => "internal",
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod off {
    use std::time::Instant;

    use crate::{
        error::Error,
        transport::{any_session::AnySession, state::LinkState},
    };

    /// Records nothing.
    #[derive(Default)]
    pub(crate) struct Recorder(());

    impl Recorder {
        pub(crate) fn begin(&mut self, _: &AnySession) {}

        pub(crate) fn observe(&mut self, _: &AnySession, _: &LinkState, _: usize) {}

        pub(crate) fn application_came(&mut self) {}

        pub(crate) fn due(&self) -> Option<Instant> {
            None
        }

        pub(crate) fn link_lost(&mut self, _: &AnySession) {}

        pub(crate) fn attempt_failed(&mut self) {}
    }

    pub(crate) fn handshake_refused(_: &Error) {}
}
