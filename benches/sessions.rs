//! What sessions cost a machine by their number: how many a second can be opened, what memory idle ones hold, and what processor time
//! they take. Everything stands beside TCP without sessions, measured in the same way. Linux alone.
//!
//! - New sessions a second: [`rate`].
//! - Memory, wake-ups and processor time of those that are idle: [`idle`].
//!
//! `cargo bench --bench sessions -- --help` lists what can be set.

use std::{alloc::System, process::ExitCode};

use cap::Cap;
use clap::{Parser, ValueEnum};
use held::Held;
use kinds::Kind;
use unbroken::BoxError;

#[path = "support/child.rs"]
mod child;
#[path = "support/csv.rs"]
mod csv;
#[path = "sessions/ends.rs"]
mod ends;
#[path = "support/figures.rs"]
mod figures;
#[path = "sessions/held.rs"]
mod held;
#[path = "sessions/idle.rs"]
mod idle;
#[path = "support/kinds.rs"]
mod kinds;
#[path = "sessions/rate.rs"]
mod rate;
#[path = "support/usage.rs"]
mod usage;

/// Counts what is on the heap, which costs every kind an addition for each allocation.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// New sessions a second.
    Rate,
    /// Memory of idle sessions.
    Memory,
    /// Wake-ups and processor time of idle sessions.
    Idle,
}

/// What another process of this program is.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    RateServer,
    IdleServer,
    IdleClient,
}

#[derive(Parser)]
struct Options {
    /// How often each kind is measured, in turns, for the new sessions a second.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Seconds of each of those measurements.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    secs: u64,
    /// How many are opened at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    tasks: u32,
    /// Idle sessions. Each takes a file in either process.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    sessions: u32,
    /// Seconds for which idle sessions are watched.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    idle_secs: u64,
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Part::Rate, Part::Memory, Part::Idle])]
    part: Vec<Part>,
    /// Only these kinds, and TCP.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::None, Kind::Noise, Kind::Plain, Kind::Rc4])]
    kind: Vec<Kind>,
    /// To be one of the others.
    #[arg(long, hide = true)]
    role: Option<Role>,
    /// What that one does with idle connections.
    #[arg(long, hide = true, default_value = "merely")]
    held: Held,
    /// Milliseconds of silence before its sessions ping.
    #[arg(long, hide = true, default_value_t = 15_000)]
    ping: u64,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn run(options: &Options) -> Result<(), BoxError> {
    let mut kinds = vec![Kind::Tcp];
    kinds.extend(options.kind.iter().filter(|kind| **kind != Kind::Tcp));
    match options.role {
        None => {}
        Some(Role::RateServer) => return rate::serve(&options.kind),
        Some(role) => return idle::be(role, options.kind[0], options.held, options.ping),
    }
    if options.part.contains(&Part::Rate) {
        rate::run(&kinds, options.runs, options.secs, options.tasks)?;
    }
    if options.part.contains(&Part::Memory) {
        idle::memory(&kinds, options.sessions)?;
    }
    if options.part.contains(&Part::Idle) {
        idle::watch(&kinds, options.sessions, options.idle_secs)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // Where it goes, nothing can be said of a failure to say it.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
