//! The command line.

use std::{ffi::OsString, time::Duration};

use clap::{Parser, ValueEnum};

use crate::path::Conditions;

/// Measures single transfers over a path of this program's own
#[derive(Parser)]
pub(crate) struct Options {
    /// How often everything is measured, in turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// How long each transfer goes on
    #[arg(long, default_value = "6", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) secs: Duration,
    /// How much of that does not count, for slow start
    #[arg(long, default_value = "2", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) ignore: Duration,
    /// Round trips, in milliseconds
    #[arg(
        long,
        default_value = "0,20,100",
        value_delimiter = ',',
        value_name = "MS"
    )]
    rtt: Vec<u32>,
    /// Shares of the packets that are lost, in per cent
    #[arg(long, default_value = "0,1", value_delimiter = ',', value_parser = percent, value_name = "PER CENT")]
    loss: Vec<f64>,
    /// What is measured; by default everything
    #[arg(long, value_enum, value_delimiter = ',')]
    load: Vec<Loads>,
    /// Only kinds whose name contains this, and TCP
    #[arg(long, default_value = "", value_name = "NAME")]
    pub(crate) only: String,
    /// The sender's congestion control; by default the system's
    #[arg(long, value_name = "NAME")]
    pub(crate) congestion: Option<String>,
    /// What the losses are drawn with; each run adds its number
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
    /// Given by this program to itself: the network namespace from which it comes
    #[arg(long, hide = true)]
    pub(crate) inside: Option<OsString>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum Loads {
    /// One direction, as fast as it goes
    Bulk,
    /// The same with native's windows of several sizes, over 100 ms without loss
    Windows,
    /// The time of an echo of 64 bytes, without loss
    Echo,
}

impl Options {
    pub(crate) fn wants(&self, load: Loads) -> bool {
        self.load.is_empty() || self.load.contains(&load)
    }

    /// Every round trip, without loss.
    pub(crate) fn lossless(&self) -> impl Iterator<Item = Conditions> {
        self.rtt.iter().map(|rtt| Conditions {
            round_trip: Duration::from_millis((*rtt).into()),
            loss: 0.0,
        })
    }

    /// Every round trip with every loss.
    pub(crate) fn conditions(&self) -> impl Iterator<Item = Conditions> {
        self.lossless().flat_map(|lossless| {
            self.loss.iter().map(move |percent| Conditions {
                loss: percent / 100.0,
                ..lossless
            })
        })
    }
}

fn seconds(value: &str) -> Result<Duration, String> {
    let seconds = value.parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn percent(value: &str) -> Result<f64, String> {
    let percent: Option<f64> = value.parse().ok();
    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
    percent.ok_or_else(|| "not a number from 0 to 100".to_owned())
}
