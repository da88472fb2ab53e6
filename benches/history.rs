//! A gibibyte each way at once over snet with default settings, directly over loopback TCP, severed every 20 to 50 ms: the history
//! never overflows. Fails on a gap or a wrong byte.
//!
//! `cargo bench --bench history`; a number sets other mebibytes than 1,024.

use std::{process::ExitCode, time::Duration};

use bulk::{CutAfter, Plan, run};
use unbroken::{Config, Snet};

#[path = "../tests/support/bulk.rs"]
mod bulk;

fn main() -> ExitCode {
    // cargo passes `--bench` too.
    let mebibytes = std::env::args().find_map(|argument| argument.parse().ok());
    let plan = Plan {
        bytes: mebibytes.unwrap_or(1024) << 20,
        cut_after: CutAfter::Time(Duration::from_millis(20), Duration::from_millis(50)),
        unread_for: Duration::from_millis(5),
        seed: rand::random(),
    };
    let mut code = ExitCode::SUCCESS;
    for (name, snet) in [("plain", Snet::plain()), ("RC4", Snet::rc4())] {
        match run(Config::new().snet(snet), plan) {
            Ok(report) => {
                let rate = (plan.bytes >> 20) as f64 / report.took.as_secs_f64();
                println!("{name}: {rate:.0} MiB/s each way; {report}");
            }
            Err(broken) => {
                println!("{name}: {broken}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
