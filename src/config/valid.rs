//! Checking a configuration, once, where it is used.

use std::{sync::Arc, time::Duration};

use super::{Config, FRAME, Snet};
use crate::{
    error::ConfigError,
    protocol::{Role, native, snet::Settings as SnetSettings},
    security::Security,
    transport::MemoryBudget,
};

/// The longest duration any setting takes; points in time so far ahead still exist.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// The smallest and the largest window or history, in bytes.
const BUFFER: std::ops::RangeInclusive<usize> = 64..=1 << 31;

impl Config {
    /// Checks everything, once, where it is used: at an end of this role.
    pub(crate) fn validate(self, role: Role) -> Result<Valid, ConfigError> {
        let silence = self.snet.as_ref().and_then(Snet::effective_silence);
        for (field, duration) in [
            ("resume_window", self.resume_window),
            ("handshake_timeout", self.handshake_timeout),
            ("linger", self.linger),
            ("retry", self.retry_first),
            ("retry", self.retry_cap),
            ("keepalive", self.ping_after),
            ("keepalive", self.dead_after),
            ("Snet::silence", silence.unwrap_or(LONGEST)),
        ] {
            if duration < Duration::from_millis(1) || duration > LONGEST {
                return wrong(field, "it has to be from a millisecond to 366 days long");
            }
        }
        if self.retry_first > self.retry_cap {
            return wrong("retry", "the first delay exceeds the cap");
        }
        if self.ping_after >= self.dead_after {
            return wrong(
                "keepalive",
                "a ping is of no use once the link is given up for dead",
            );
        }
        let dead_after = silence.unwrap_or_default().max(self.dead_after);
        let notice = dead_after + self.handshake_timeout + self.retry_cap;
        if self.linger <= notice {
            return wrong(
                "linger",
                format!(
                    "{:?} is not longer than silence, handshake timeout and retry cap together, {notice:?}",
                    self.linger
                ),
            );
        }
        let (window, max_window) = self.windows();
        if self.max_window.is_some() {
            check_buffer("max_window", max_window)?;
        }
        check_buffer("window", window)?;
        if max_window < window {
            return wrong(
                "max_window",
                format!("it is less than the window of {window} bytes"),
            );
        }
        if let Some(snet) = &self.snet {
            check_buffer("Snet::history", snet.history)?;
            let most = snet.largest_socket_buffer();
            if snet.socket_buffer.is_some_and(|bytes| bytes > most) {
                return wrong(
                    "Snet::socket_buffer",
                    format!(
                        "a history of {} bytes allows {most} bytes at most",
                        snet.history
                    ),
                );
            }
            if self.route > u16::MAX.into() {
                return wrong("route", "snet's connection ids have 16 bits for it");
            }
        }
        if !FRAME.contains(&self.max_frame) {
            let (start, end) = (FRAME.start(), FRAME.end());
            return wrong(
                "max_frame",
                format!("it has to be from {start} to {end} bytes"),
            );
        }
        let history = self.snet.as_ref().map_or(0, |snet| snet.history);
        let smallest = MemoryBudget::smallest_for(window.max(history));
        if self.memory.bytes() < smallest {
            return wrong(
                "memory_budget",
                format!(
                    "{} bytes are less than the {smallest} that one session may need",
                    self.memory.bytes()
                ),
            );
        }
        for (field, limit) in [
            ("max_sessions", self.max_sessions),
            ("max_sessions_per_address", self.max_sessions_per_address),
            ("max_sessions_per_identity", self.max_sessions_per_identity),
            ("max_handshakes", self.max_handshakes),
            (
                "max_handshakes_per_address",
                self.max_handshakes_per_address,
            ),
        ] {
            if limit == 0 {
                return wrong(field, "a server needs at least one");
            }
        }
        if self.max_resumes_per_second == 0 {
            return wrong(
                "max_resumes_per_second",
                "without any, no session survives its first link",
            );
        }
        if let Err(problem) = self.security.check(role) {
            return wrong("security", problem);
        }
        if let (Some(snet), true) = (&self.snet, self.security.authenticates()) {
            match role {
                Role::Client => {
                    return wrong(
                        "snet",
                        "it authenticates nobody, and a client speaks it in place of what `security` asks for",
                    );
                }
                Role::Server if !snet.unauthenticated => {
                    return wrong(
                        "snet",
                        "whoever speaks it gets past what `security` asks for; `Snet::unauthenticated` says that this is meant",
                    );
                }
                Role::Server => {}
            }
        }
        Ok(Valid {
            security: self.security,
            native: Arc::new(native::Settings {
                window,
                max_window,
                resume_window: self.resume_window,
                linger: self.linger,
                ping_after: self.ping_after,
                dead_after: self.dead_after,
                handshake_timeout: self.handshake_timeout,
                max_frame: self.max_frame,
            }),
            socket_buffer: self
                .snet
                .as_ref()
                .map(|snet| snet.socket_buffer.unwrap_or(snet.largest_socket_buffer())),
            snet: self.snet.map(|snet| SnetSettings {
                history: snet.history,
                resume_window: self.resume_window,
                linger: self.linger,
                silence,
                fin_is_close: snet.fin_is_close,
                cipher: snet.cipher,
            }),
            resume_window: self.resume_window,
            handshake_timeout: self.handshake_timeout,
            retry_first: self.retry_first,
            retry_cap: self.retry_cap,
            memory: self.memory,
            max_sessions: self.max_sessions,
            max_sessions_per_address: self.max_sessions_per_address,
            max_sessions_per_identity: self.max_sessions_per_identity,
            max_handshakes: self.max_handshakes,
            max_handshakes_per_address: self.max_handshakes_per_address,
            max_resumes_per_second: self.max_resumes_per_second,
            route: self.route,
        })
    }
}

fn check_buffer(field: &'static str, bytes: usize) -> Result<(), ConfigError> {
    if BUFFER.contains(&bytes) {
        Ok(())
    } else {
        let (start, end) = (BUFFER.start(), BUFFER.end());
        wrong(field, format!("it has to be from {start} to {end} bytes"))
    }
}

fn wrong<T>(field: &'static str, problem: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError {
        field,
        problem: problem.into(),
    })
}

/// A configuration that has been checked.
#[derive(Clone, Debug)]
pub(crate) struct Valid {
    pub(crate) security: Security,
    pub(crate) native: Arc<native::Settings>,
    /// A client that has these speaks snet, a server accepts it.
    pub(crate) snet: Option<SnetSettings>,
    /// The bound on either socket buffer, as read back, if there is one.
    pub(crate) socket_buffer: Option<usize>,
    pub(crate) resume_window: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) retry_first: Duration,
    pub(crate) retry_cap: Duration,
    pub(crate) memory: MemoryBudget,
    pub(crate) max_sessions: usize,
    pub(crate) max_sessions_per_address: usize,
    pub(crate) max_sessions_per_identity: usize,
    pub(crate) max_handshakes: usize,
    pub(crate) max_handshakes_per_address: usize,
    pub(crate) max_resumes_per_second: u32,
    pub(crate) route: u32,
}

#[cfg(test)]
mod tests {
    use super::{super::snet::DEFAULT_SILENCE, *};

    /// Which setting a configuration is refused for.
    fn refused(config: Config) -> Option<&'static str> {
        config.validate(Role::Server).err().map(|error| error.field)
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        let config = || Config::new().snet(Snet::plain());
        let second = Duration::from_secs(1);
        assert_eq!(refused(config()), None);
        assert_eq!(refused(Config::new()), None);
        assert_eq!(refused(Config::new().window(63)), Some("window"));
        assert_eq!(refused(Config::new().max_window(63)), Some("max_window"));
        assert_eq!(
            refused(Config::new().window(1000).max_window(999)),
            Some("max_window")
        );
        assert_eq!(
            refused(Config::new().keepalive(second, second)),
            Some("keepalive")
        );
        assert_eq!(
            refused(Config::new().keepalive(second, second * 40)),
            Some("linger")
        );
        assert_eq!(refused(Config::new().route(u32::MAX)), None);
        assert_eq!(
            refused(config().resume_window(Duration::ZERO)),
            Some("resume_window")
        );
        assert_eq!(
            refused(config().resume_window(Duration::MAX)),
            Some("resume_window")
        );
        assert_eq!(
            refused(config().handshake_timeout(Duration::ZERO)),
            Some("handshake_timeout")
        );
        assert_eq!(
            refused(config().linger(Duration::from_secs(50))),
            Some("linger")
        );
        assert_eq!(refused(config().linger(Duration::from_secs(51))), None);
        assert_eq!(refused(config().linger(Duration::MAX)), Some("linger"));
        assert_eq!(refused(config().retry(second * 2, second)), Some("retry"));
        assert_eq!(
            refused(config().retry(Duration::ZERO, second)),
            Some("retry")
        );
        for none in [
            ("max_sessions", config().max_sessions(0)),
            (
                "max_sessions_per_address",
                config().max_sessions_per_address(0),
            ),
            (
                "max_sessions_per_identity",
                config().max_sessions_per_identity(0),
            ),
            ("max_handshakes", config().max_handshakes(0)),
            (
                "max_handshakes_per_address",
                config().max_handshakes_per_address(0),
            ),
            ("max_resumes_per_second", config().max_resumes_per_second(0)),
            ("max_frame", config().max_frame(65_535)),
            ("max_frame", config().max_frame(1 << 24)),
        ] {
            let (field, config) = none;
            assert_eq!(refused(config), Some(field));
        }
        assert_eq!(refused(config().max_frame((1 << 24) - 1)), None);
        // Of no effect, but no mistake.
        assert_eq!(
            refused(config().max_handshakes(1).max_handshakes_per_address(9)),
            None
        );
        let snet_history = Snet::rc4().history(3 << 20);
        for (config, smallest) in [
            (Config::new(), 2 << 20),
            (Config::new().window(64), 64 << 10),
            (Config::new().snet(snet_history), 6 << 20),
        ] {
            let with = |bytes| config.clone().memory_budget(MemoryBudget::new(bytes));
            assert_eq!(refused(with(smallest)), None);
            assert_eq!(refused(with(smallest - 1)), Some("memory_budget"));
        }
        assert_eq!(refused(config().route(0xffff)), None);
        assert_eq!(refused(config().route(0x1_0000)), Some("route"));
        let snet = |snet| Config::new().snet(snet);
        assert_eq!(
            refused(snet(Snet::rc4().history(63))),
            Some("Snet::history")
        );
        assert_eq!(
            refused(snet(Snet::rc4().history(usize::MAX))),
            Some("Snet::history")
        );
        assert_eq!(
            refused(snet(Snet::rc4().silence(Duration::ZERO))),
            Some("Snet::silence")
        );
        assert_eq!(refused(snet(Snet::rc4().silence(None))), None);
        assert_eq!(refused(snet(Snet::rc4().socket_buffer(224 << 10))), None);
        assert_eq!(
            refused(snet(Snet::rc4().socket_buffer((224 << 10) + 1))),
            Some("Snet::socket_buffer")
        );
    }

    /// A probe closes a link that works, which such a server would take for the end.
    #[test]
    fn where_a_fin_is_a_close_silence_is_probed_only_if_asked_for() {
        let silence = |snet: Snet| snet.effective_silence();
        let second = Duration::from_secs(1);
        assert_eq!(silence(Snet::plain()), Some(DEFAULT_SILENCE));
        assert_eq!(silence(Snet::plain().silence(None)), None);
        assert_eq!(silence(Snet::plain().fin_is_close(true)), None);
        assert_eq!(
            silence(Snet::plain().silence(second).fin_is_close(true)),
            Some(second)
        );
    }
}
