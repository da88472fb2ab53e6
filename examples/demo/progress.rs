//! What the user sees while the transfers run: bars on a terminal, else a line a second. All on stderr.

use std::fmt;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};

use crate::cutting_proxy;
use crate::link::SessionStats;

const BAR: &str =
    "{prefix:>8} {bar:32} {bytes:>10} of {total_bytes}  {bytes_per_sec:>12}  {eta:>4} left";

/// Bytes of the file that have arrived.
#[derive(Default)]
pub(crate) struct Progress {
    up: AtomicU64,
    down: AtomicU64,
}

impl Progress {
    /// At the server.
    pub(crate) fn up(&self) -> u64 {
        self.up.load(Relaxed)
    }

    /// At the client.
    pub(crate) fn down(&self) -> u64 {
        self.down.load(Relaxed)
    }

    /// The server adds to it.
    pub(crate) fn up_counter(&self) -> &AtomicU64 {
        &self.up
    }

    /// The client adds to it.
    pub(crate) fn down_counter(&self) -> &AtomicU64 {
        &self.down
    }
}

/// Everything that is counted, at one moment.
pub(crate) struct Snapshot {
    /// Bytes of the file at the server.
    pub(crate) up: u64,
    /// Bytes of the file at the client.
    pub(crate) down: u64,
    /// What the proxy did to links.
    pub(crate) proxy: cutting_proxy::Stats,
    /// None without a session.
    pub(crate) session: Option<SessionStats>,
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proxy = &self.proxy;
        write!(f, "links: {} cut", proxy.cut)?;
        write!(f, ", {} gone silent", proxy.silenced)?;
        write!(f, ", {} dials refused", proxy.refused)?;
        if let Some(session) = &self.session {
            let replayed = session.replayed_up + session.replayed_down;
            write!(f, "; {} resumes", session.resumes)?;
            write!(f, ", {} replayed", HumanBytes(replayed))?;
        }
        Ok(())
    }
}

/// Shows snapshots.
pub(crate) enum Display {
    /// Redrawn in place.
    Bars {
        /// The server's bytes.
        up: ProgressBar,
        /// The client's bytes.
        down: ProgressBar,
        /// Links and resumes.
        line: ProgressBar,
    },
    /// One after the other.
    Lines {
        /// Size of the file.
        total: u64,
        /// Of the first line.
        started: Instant,
    },
}

impl Display {
    /// For two transfers of `total` bytes each.
    pub(crate) fn new(total: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines {
                total,
                started: Instant::now(),
            };
        }
        let bars = MultiProgress::new();
        let bar = |name| {
            let bar = bars.add(ProgressBar::new(total).with_prefix(name));
            match ProgressStyle::with_template(BAR) {
                Ok(style) => bar.with_style(style.progress_chars("=> ")),
                Err(_) => bar,
            }
        };
        let (up, down) = (bar("upload"), bar("download"));
        let line = bars.add(ProgressBar::no_length());
        if let Ok(style) = ProgressStyle::with_template("   {msg}") {
            line.set_style(style);
        }
        Self::Bars { up, down, line }
    }

    /// Time between two snapshots worth showing.
    pub(crate) fn period(&self) -> Duration {
        match self {
            Self::Bars { .. } => Duration::from_millis(100),
            Self::Lines { .. } => Duration::from_secs(1),
        }
    }

    /// Shows a snapshot.
    pub(crate) fn show(&mut self, now: &Snapshot) {
        match self {
            Self::Bars { up, down, line } => {
                up.set_position(now.up);
                down.set_position(now.down);
                line.set_message(now.to_string());
            }
            Self::Lines { total, started } => eprintln!(
                "{:3} s: uploaded {}, downloaded {} of {}; {now}",
                started.elapsed().as_secs(),
                HumanBytes(now.up),
                HumanBytes(now.down),
                HumanBytes(*total),
            ),
        }
    }

    /// Shows the last snapshot, and leaves it there.
    pub(crate) fn finish(&mut self, last: &Snapshot) {
        self.show(last);
        if let Self::Bars { up, down, line } = self {
            up.abandon();
            down.abandon();
            line.abandon();
        }
    }
}
