//! What sessions do, in numbers, for the recorder of the [`metrics`](https://docs.rs/metrics) facade.
//!
//! Without a recorder nothing is counted. Install one before the first session is opened: a session's gauges stay with the recorder that
//! was there then, so that they go down where they went up.
//!
//! | name | kind | labels | what |
//! |---|---|---|---|
//! | `unbroken_sessions_opened_total` | counter | role, protocol | sessions opened |
//! | `unbroken_sessions_closed_total` | counter | role, protocol, reason | sessions that are over |
//! | `unbroken_resumes_total` | counter | role, protocol | links taken into use after a session's first |
//! | `unbroken_links_lost_total` | counter | role, protocol | links that failed, ended, broke the protocol or were silent for too long under a session that goes on; not those that were replaced |
//! | `unbroken_attempts_failed_total` | counter | protocol | a client's attempts to resume that came to nothing: no link could be dialled, or it was of no use before the server used it |
//! | `unbroken_handshakes_refused_total` | counter | reason | links that a server turned away, or that failed before they were of any use |
//! | `unbroken_bytes_sent_total` | counter | role, protocol | bytes of the streams that the application has written |
//! | `unbroken_bytes_received_total` | counter | role, protocol | bytes of the streams that have been received, whether or not the application has read them |
//! | `unbroken_bytes_replayed_total` | counter | role, protocol | bytes sent again because a link was lost |
//! | `unbroken_sessions` | gauge | role, protocol | sessions that are open: those whose [`LinkState`](crate::LinkState) is not `Closed` |
//! | `unbroken_sessions_detached` | gauge | role, protocol | those of them that have no link |
//! | `unbroken_buffered_bytes` | gauge | role, protocol | memory that open sessions take of their [`MemoryBudget`](crate::MemoryBudget) |
//! | `unbroken_detached_seconds` | histogram | role, protocol | how long a session had no link, whenever it gets one again |
//! | `unbroken_round_trip_seconds` | histogram | role, protocol | the smoothed round trip, whenever it has changed; snet measures none |
//! | `unbroken_session_seconds` | histogram | role, protocol | how long a session was open |
//!
//! | label | values |
//! |---|---|
//! | role | `client`, `server` |
//! | protocol | `native`, `snet` |
//! | reason of a close | `local`, `peer`, `expired`, `finished`, `reset`, `local_reset`, `refused`, `gap`, `exhausted`, `abandoned`, as in [`CloseReason`](crate::CloseReason) |
//! | reason of a refusal | `unknown`, `expired`, `gap`, `proof`, `not_authorised`, `version`, `shutting_down`, `closed`, `stale`, `security`, `elsewhere`, as in [`RejectCode`](crate::RejectCode); a setting's name if it is the limit that was reached, as in [`Limit`](crate::Limit): `max_handshakes`, `max_handshakes_per_address`, `max_sessions`, `max_sessions_per_address`, `max_sessions_per_identity`, `max_resumes_per_second`, `memory_budget`; `file_descriptors` if the system ran out of them; `not_spoken` if the first bytes belong to no protocol spoken here, `malformed` for other messages that cannot be right, `timeout`, `link` if the link failed or ended, `internal` |
//!
//! # They lag
//!
//! Reading and writing count nothing. What they have moved or left in memory, and the round trip, is recorded when the session's own task runs or a link changes, and
//! when the session is over: within half a second of the application's reading or writing, as long as the runtime has time for it.
//!
//! # What is replaced
//!
//! A link that is replaced by a newer one is not lost. But snet closes the old one before it asks for the new one: meanwhile both ends are
//! detached, and the server, which cannot know why, counts a link lost. A server whose client comes back before it has noticed the loss of the
//! old link counts a resume and no loss.

use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Tells the recorder what each of the [metrics](self) is, and its unit. Call it once the recorder is installed, if that shows
/// descriptions.
pub fn describe() {
    for (name, what) in [
        ("unbroken_sessions_opened_total", "sessions opened"),
        ("unbroken_sessions_closed_total", "sessions that are over"),
        (
            "unbroken_resumes_total",
            "links taken into use after a session's first",
        ),
        (
            "unbroken_links_lost_total",
            "links lost under a session that goes on",
        ),
        (
            "unbroken_attempts_failed_total",
            "attempts to resume that came to nothing",
        ),
        (
            "unbroken_handshakes_refused_total",
            "links turned away, or failed before they were of any use",
        ),
    ] {
        describe_counter!(name, Unit::Count, what);
    }
    for (name, what) in [
        (
            "unbroken_bytes_sent_total",
            "bytes that the application has written",
        ),
        (
            "unbroken_bytes_received_total",
            "bytes received from the peer",
        ),
        (
            "unbroken_bytes_replayed_total",
            "bytes sent again because a link was lost",
        ),
    ] {
        describe_counter!(name, Unit::Bytes, what);
    }
    for (name, what) in [
        ("unbroken_sessions", "sessions that are open"),
        (
            "unbroken_sessions_detached",
            "sessions that are open without a link",
        ),
    ] {
        describe_gauge!(name, Unit::Count, what);
    }
    describe_gauge!(
        "unbroken_buffered_bytes",
        Unit::Bytes,
        "memory that open sessions buffer in"
    );
    for (name, what) in [
        (
            "unbroken_detached_seconds",
            "how long a session had no link",
        ),
        ("unbroken_round_trip_seconds", "the smoothed round trip"),
        ("unbroken_session_seconds", "how long a session was open"),
    ] {
        describe_histogram!(name, Unit::Seconds, what);
    }
}
