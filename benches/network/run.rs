//! Everything that was asked for, in order.

use std::{ffi::OsStr, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use tappers::Tun;
use unbroken::BoxError;

use crate::{
    kinds::{self, Kind},
    measure::{Load, measure},
    namespace,
    options::{Loads, Options},
    path::{Conditions, MTU, QUEUE},
    report::{Report, Row},
};

/// What windows are measured over.
const WINDOWS_OVER: Conditions = Conditions {
    round_trip: Duration::from_millis(100),
    loss: 0.0,
};
/// How far an echo over TCP may be from the round trip that was asked for, beyond a tenth of it.
const TOLERANCE: Duration = Duration::from_millis(2);

pub(crate) fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) if options.ignore < options.secs => options,
        Ok(_) => {
            eprintln!("--ignore has to be less than --secs");
            return ExitCode::FAILURE;
        }
        Err(error) => {
            // There is nobody left to tell.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let done = match &options.inside {
        None => namespace::enter(),
        Some(outside) => inside(&options, outside).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

fn inside(options: &Options, outside: &OsStr) -> Result<(), BoxError> {
    let bench = Bench {
        tun: namespace::lay_path(outside)?,
        options,
    };
    println!(
        "TCP: congestion control {}; send buffer {}, receive buffer {} (least, first, most)",
        match &options.congestion {
            Some(name) => format!("{name} at the sender"),
            None => namespace::get("tcp_congestion_control")?,
        },
        namespace::get("tcp_wmem")?.replace('\t', " "),
        namespace::get("tcp_rmem")?.replace('\t', " "),
    );
    println!(
        "path: packets of {MTU} bytes, {QUEUE} of them at most; seed {}",
        options.seed
    );
    for conditions in options.lossless() {
        bench.verify(conditions)?;
    }

    let mut report = Report::create()?;
    let all = bench.chosen(kinds::all());
    if options.wants(Loads::Bulk) {
        for conditions in options.conditions() {
            let rows = bench.rows(&all, conditions, bench.bulk())?;
            report.add("bulk", "MiB/s", conditions, &rows)?;
        }
    }
    if options.wants(Loads::Windows) {
        let windows = bench.chosen(kinds::windows());
        let rows = bench.rows(&windows, WINDOWS_OVER, bench.bulk())?;
        report.add("windows", "MiB/s", WINDOWS_OVER, &rows)?;
    }
    if options.wants(Loads::Echo) {
        for conditions in options.lossless() {
            let rows = bench.rows(&all, conditions, Load::Echo)?;
            report.add("echo", "ms", conditions, &rows)?;
        }
    }
    println!("\n{}", report.path.display());
    Ok(())
}

struct Bench<'a> {
    tun: Arc<Tun>,
    options: &'a Options,
}

impl Bench<'_> {
    fn bulk(&self) -> Load {
        Load::Bulk {
            lasts: self.options.secs,
            ignored: self.options.ignore,
        }
    }

    /// The first, which is what the others are compared with, and those whose name was asked for.
    fn chosen(&self, kinds: Vec<Kind>) -> Vec<Kind> {
        let mut first = true;
        let is_chosen =
            |kind: &Kind| std::mem::take(&mut first) || kind.name.contains(&self.options.only);
        kinds.into_iter().filter(is_chosen).collect()
    }

    /// Measures each kind, in turns.
    fn rows<'a>(
        &self,
        kinds: &'a [Kind],
        conditions: Conditions,
        load: Load,
    ) -> Result<Vec<Row<'a>>, BoxError> {
        let rows = kinds.iter().map(|kind| Row {
            name: &kind.name,
            runs: Vec::new(),
        });
        let mut rows: Vec<_> = rows.collect();
        let congestion = self.options.congestion.as_deref();
        for run in 0..self.options.runs {
            let seed = self.options.seed.wrapping_add(run.into());
            for (kind, row) in kinds.iter().zip(&mut rows) {
                let measured = measure(&self.tun, conditions, seed, kind, load, congestion);
                let measured = measured.map_err(|error| format!("{}: {error}", kind.name));
                row.runs.push(measured?);
            }
        }
        Ok(rows)
    }

    /// Whether an echo over TCP takes as long as it should.
    fn verify(&self, conditions: Conditions) -> Result<(), BoxError> {
        let tcp = kinds::all().swap_remove(0);
        let congestion = self.options.congestion.as_deref();
        let seed = self.options.seed;
        let echo = measure(&self.tun, conditions, seed, &tcp, Load::Echo, congestion)?;
        let round_trip = conditions.round_trip;
        println!(
            "round trip asked for: {round_trip:?}; of TCP: {:.3} ms",
            echo.value
        );
        let off = (echo.value - round_trip.as_secs_f64() * 1e3).abs();
        if off > (TOLERANCE + round_trip / 10).as_secs_f64() * 1e3 {
            return Err("the path does not keep its round trip: is the machine too busy?".into());
        }
        Ok(())
    }
}
