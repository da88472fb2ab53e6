//! What this process takes, as Linux tells it.

// Each of its users takes a part of it.
#![allow(dead_code)]

use std::{fmt, fs, io, str::FromStr};

/// Ticks of the processor times in `/proc`, in a second; the same on every Linux.
const TICKS: f64 = 100.0;

/// So far; or, as a difference, meanwhile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    /// Bytes of memory that is resident.
    pub(crate) resident: f64,
    /// Bytes on the heap, as they were asked for.
    pub(crate) heap: f64,
    /// Processor time of all threads, in seconds.
    pub(crate) user: f64,
    pub(crate) system: f64,
    /// Context switches of the main thread.
    pub(crate) voluntary: f64,
    pub(crate) involuntary: f64,
    /// How often the runtime had nothing to do and went to sleep.
    pub(crate) parks: f64,
}

impl Usage {
    /// Of this process, with what only its allocator and its runtime know.
    pub(crate) fn now(heap: usize, parks: u64) -> io::Result<Self> {
        let (user, system) = processor_time()?;
        Ok(Self {
            resident: field("/proc/self/smaps_rollup", "Rss:")? * 1024.0,
            heap: heap as f64,
            user,
            system,
            voluntary: field("/proc/self/status", "voluntary_ctxt_switches:")?,
            involuntary: field("/proc/self/status", "nonvoluntary_ctxt_switches:")?,
            parks: parks as f64,
        })
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            resident: self.resident - before.resident,
            heap: self.heap - before.heap,
            user: self.user - before.user,
            system: self.system - before.system,
            voluntary: self.voluntary - before.voluntary,
            involuntary: self.involuntary - before.involuntary,
            parks: self.parks - before.parks,
        }
    }

    pub(crate) fn cpu(self) -> f64 {
        self.user + self.system
    }
}

/// Of all threads of this process, in seconds: in its own code, and in the system's.
pub(crate) fn processor_time() -> io::Result<(f64, f64)> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // After the program's name, which may hold anything: fields 3 to 52.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let seconds = |field: usize| {
        let ticks = fields.split_whitespace().nth(field - 3);
        ticks.and_then(|ticks| Some(ticks.parse::<f64>().ok()? / TICKS))
    };
    match (seconds(14), seconds(15)) {
        (Some(user), Some(system)) => Ok((user, system)),
        _ => Err(io::Error::other("/proc/self/stat cannot be read")),
    }
}

fn field(path: &str, name: &str) -> io::Result<f64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("{path} has no {name}")))
}

/// All figures in a line, for another process.
impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            resident,
            heap,
            user,
            system,
            voluntary,
            involuntary,
            parks,
        } = self;
        write!(
            f,
            "{resident} {heap} {user} {system} {voluntary} {involuntary} {parks}"
        )
    }
}

impl FromStr for Usage {
    type Err = io::Error;

    fn from_str(line: &str) -> io::Result<Self> {
        let figures: Result<Vec<f64>, _> = line.split(' ').map(str::parse).collect();
        match figures.as_deref() {
            Ok(&[resident, heap, user, system, voluntary, involuntary, parks]) => Ok(Self {
                resident,
                heap,
                user,
                system,
                voluntary,
                involuntary,
                parks,
            }),
            _ => Err(io::Error::other(format!(
                "the other process has said {line:?}"
            ))),
        }
    }
}
