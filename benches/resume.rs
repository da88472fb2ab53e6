//! What the loss of links costs sessions on loopback TCP.
//!
//! - From the cut of one link to the first byte that the application reads from the next: [`first_byte`].
//! - All links of thousands of sessions cut at once, and all of them migrated at once: [`storm`].
//!
//! `cargo bench --bench resume -- --help` lists what can be set.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use kinds::Kind;
use storm::{Limits, Way};
use unbroken::BoxError;

#[path = "support/child.rs"]
mod child;
#[path = "support/csv.rs"]
mod csv;
#[path = "support/cuttable.rs"]
mod cuttable;
#[path = "support/figures.rs"]
mod figures;
#[path = "resume/first_byte.rs"]
mod first_byte;
#[path = "support/kinds.rs"]
mod kinds;
#[path = "resume/pattern.rs"]
mod pattern;
#[path = "resume/server.rs"]
mod server;
#[path = "resume/storm.rs"]
mod storm;
#[path = "support/usage.rs"]
mod usage;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// From a cut to the first byte.
    First,
    /// All links cut at once.
    Storm,
    /// All sessions migrated at once.
    Migrate,
}

#[derive(Parser)]
struct Options {
    /// Cuts of each kind of session, for the first byte.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    cuts: u64,
    /// Sessions whose links are cut at once. Each takes a file in either process.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    sessions: u32,
    /// Sessions that are migrated at once. Each takes two files in either process.
    #[arg(long, default_value_t = 9000, value_parser = clap::value_parser!(u32).range(1..))]
    migrated: u32,
    /// How often all are cut, or migrated.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Part::First, Part::Storm, Part::Migrate])]
    part: Vec<Part>,
    /// Only these kinds of sessions.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::None, Kind::Noise, Kind::Plain, Kind::Rc4])]
    kind: Vec<Kind>,
    /// What the server of all those sessions lets one address do.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Limits::Default, Limits::Raised])]
    limits: Vec<Limits>,
    /// To be the server: of this kind.
    #[arg(long, hide = true, requires = "limits")]
    serve: Option<Kind>,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn run(options: &Options) -> Result<bool, BoxError> {
    if let Some(kind) = options.serve {
        let limits = options.limits.first().copied();
        server::serve(kind, limits.unwrap_or(Limits::Default))?;
        return Ok(true);
    }
    let mut whole = true;
    if options.part.contains(&Part::First) {
        first_byte::run(&options.kind, options.cuts)?;
    }
    for (part, way, sessions) in [
        (Part::Storm, Way::Cut, options.sessions),
        (Part::Migrate, Way::Migrate, options.migrated),
    ] {
        if options.part.contains(&part) {
            whole &= storm::run(
                way,
                &options.kind,
                &options.limits,
                sessions,
                options.rounds,
            )?;
        }
    }
    Ok(whole)
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
    if options.kind.contains(&Kind::Tcp) {
        eprintln!("TCP without a session does not resume");
        return ExitCode::FAILURE;
    }
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("sessions were lost, late or wrong");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
