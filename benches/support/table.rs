//! What was measured of several kinds of stream, as text and as CSV.

use std::fmt::{self, Write};

use crate::figures::{Spread, ratio, spread};

/// One figure of all kinds under one load.
pub(crate) struct Table {
    /// In one word.
    pub(crate) load: &'static str,
    pub(crate) title: String,
    /// Of how many threads the two ends have.
    pub(crate) threads: usize,
    pub(crate) unit: &'static str,
    pub(crate) rows: Vec<Row>,
}

/// The figures of one kind, run by run.
pub(crate) struct Row {
    pub(crate) kind: &'static str,
    pub(crate) runs: Vec<f64>,
}

impl Table {
    pub(crate) fn runs(&self, kind: &str) -> Option<&[f64]> {
        let row = self.rows.iter().find(|row| row.kind == kind)?;
        Some(&row.runs)
    }

    /// As text, each kind compared with the `peers` in the same run.
    pub(crate) fn text(&self, peers: &[&str]) -> String {
        let mut head = vec![String::new()];
        for of in [self.unit.to_owned()]
            .into_iter()
            .chain(peers.iter().map(|peer| format!("to {peer}")))
        {
            head.extend([of, "least to most".to_owned()]);
        }
        let mut lines = vec![head];
        for row in &self.rows {
            let mut line = vec![row.kind.to_owned()];
            line.extend(cells(spread(row.runs.clone()), 1));
            for peer in peers.iter().filter_map(|peer| self.runs(peer)) {
                line.extend(cells(ratio(&row.runs, peer), 2));
            }
            lines.push(line);
        }
        let title = format!("{}; {}", self.title, threads(self.threads));
        aligned(&title, &lines)
    }

    /// As lines of CSV: one for each kind and run.
    fn csv(&self, peers: &[&str], out: &mut String) -> fmt::Result {
        for row in &self.rows {
            for (run, figure) in row.runs.iter().enumerate() {
                write!(
                    out,
                    "{},{},\"{}\",{},\"{}\",{},{figure:.3}",
                    self.load,
                    self.threads,
                    self.title,
                    self.unit,
                    row.kind,
                    run + 1
                )?;
                for peer in peers {
                    let peer = self.runs(peer).map(|peer| figure / peer[run]);
                    write!(out, ",{:.4}", peer.unwrap_or(f64::NAN))?;
                }
                writeln!(out)?;
            }
        }
        Ok(())
    }
}

/// All the tables, with how each figure compares with those of the `peers` in the same run.
pub(crate) fn csv(tables: &[Table], peers: &[&str]) -> Result<String, fmt::Error> {
    let mut out = String::from("load,threads,figure,unit,kind,run,value");
    for peer in peers {
        write!(out, ",to {peer}")?;
    }
    writeln!(out)?;
    for table in tables {
        table.csv(peers, &mut out)?;
    }
    Ok(out)
}

pub(crate) fn threads(count: usize) -> &'static str {
    match count {
        1 => "both ends on one thread",
        _ => "each end on a thread of its own",
    }
}

fn cells(of: Spread, digits: usize) -> [String; 2] {
    [
        format!("{:.digits$}", of.median),
        format!("{:.digits$} to {:.digits$}", of.least, of.most),
    ]
}

/// A title, and below it lines of cells, in columns as wide as they have to be.
fn aligned(title: &str, lines: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut out = format!("{title}\n");
    for line in lines {
        for (column, cell) in line.iter().enumerate() {
            let width = width(column);
            out.push_str(&match column {
                0 => format!("  {cell:width$}"),
                _ => format!("  {cell:>width$}"),
            });
        }
        out.push('\n');
    }
    out
}
