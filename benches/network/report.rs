//! Tables, and a file with every single measurement.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use crate::{measure::Measured, path::Conditions};

/// One kind under one load and the same conditions, run by run.
pub(crate) struct Row<'a> {
    pub(crate) name: &'a str,
    pub(crate) runs: Vec<Measured>,
}

impl Row<'_> {
    fn values(&self) -> Vec<f64> {
        self.runs.iter().map(|run| run.value).collect()
    }

    /// Beside another kind in the same run.
    fn ratios(&self, to: &Row<'_>) -> Vec<f64> {
        let pairs = self.values().into_iter().zip(to.values());
        pairs.map(|(this, that)| this / that).collect()
    }
}

/// The median, the least and the most.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [
        values[values.len() / 2],
        values[0],
        values[values.len() - 1],
    ]
}

/// Of everything that was measured, in the order in which it was.
pub(crate) struct Report {
    file: io::BufWriter<fs::File>,
    pub(crate) path: PathBuf,
}

impl Report {
    pub(crate) fn create() -> io::Result<Self> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
        let path = target
            .unwrap_or(Path::new("target"))
            .join("bench/network.csv");
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut file = io::BufWriter::new(fs::File::create(&path)?);
        writeln!(
            file,
            "load,unit,rtt_ms,loss_percent,kind,run,value,to_tcp,carried,lost,overflowed,late_us"
        )?;
        Ok(Self { file, path })
    }

    /// The first row is what the others are compared with.
    pub(crate) fn add(
        &mut self,
        load: &str,
        unit: &str,
        conditions: Conditions,
        rows: &[Row<'_>],
    ) -> io::Result<()> {
        let round_trip = conditions.round_trip.as_secs_f64() * 1e3;
        let loss = conditions.loss * 100.0;
        println!("\n{load}, {unit}; round trip {round_trip} ms, loss {loss} %");
        println!(
            "  {:16} {:>9} {:20} {:20} {:>8} {:>7} {:>9}",
            "", "median", "(spread)", "to TCP", "lost", "dropped", "late, µs"
        );
        for row in rows {
            let [value, least, most] = spread(row.values());
            let [ratio, ratio_least, ratio_most] = spread(row.ratios(&rows[0]));
            let sum = |of: fn(&Measured) -> u64| row.runs.iter().map(of).sum::<u64>();
            let lost = sum(|run| run.counts.lost);
            let overflowed = sum(|run| run.counts.overflowed);
            let packets = lost + sum(|run| run.counts.carried);
            let late = spread(
                row.runs
                    .iter()
                    .map(|run| run.counts.late_micros())
                    .collect(),
            );
            println!(
                "  {:16} {value:9.3} {:20} {ratio:5.2} {:14} {:6.2} % {overflowed:7} {:9.1}",
                row.name,
                format!("({least:.3} to {most:.3})"),
                format!("({ratio_least:.2} to {ratio_most:.2})"),
                lost as f64 * 100.0 / packets.max(1) as f64,
                late[0],
            );
            for (run, (measured, ratio)) in row.runs.iter().zip(row.ratios(&rows[0])).enumerate() {
                let Measured { value, counts } = measured;
                writeln!(
                    self.file,
                    "{load},{unit},{round_trip},{loss},\"{}\",{run},{value:.6},{ratio:.4},{},{},{},{:.1}",
                    row.name,
                    counts.carried,
                    counts.lost,
                    counts.overflowed,
                    counts.late_micros()
                )?;
            }
        }
        self.file.flush()
    }
}
