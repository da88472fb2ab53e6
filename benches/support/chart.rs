//! What was measured, drawn: a group of bars for each load, in a column for each number of threads.

use std::fmt::{self, Write};

use crate::{
    figures::{ratio, spread},
    table::{Row, Table, threads},
};

/// Kinds whose names begin alike, and the colours of their bars on a light and on a dark ground.
pub(crate) struct Family {
    prefix: &'static str,
    light: &'static str,
    dark: &'static str,
}

impl Family {
    pub(crate) const fn new(prefix: &'static str, light: &'static str, dark: &'static str) -> Self {
        Self {
            prefix,
            light,
            dark,
        }
    }
}

// All in pixels.
const MARGIN: usize = 24;
const NAMES: usize = 160;
const BARS: usize = 260;
/// For the figures behind the bars.
const VALUES: usize = 120;
const COLUMN: usize = NAMES + BARS + VALUES + MARGIN;
const HEAD: usize = 76;
const NOTE: usize = 16;
const GROUP_HEAD: usize = 26;
const BAR: usize = 13;
const PITCH: usize = 18;
const AXIS: usize = 40;

/// The tables as SVG, below a title and notes: a row for those with the same title, on one scale. Behind each bar its median, and its ratio
/// to the `peer`.
pub(crate) fn chart(
    title: &str,
    notes: &[&str],
    tables: &[Table],
    peer: &str,
    families: &[Family],
) -> Result<String, fmt::Error> {
    let mut groups: Vec<Vec<&Table>> = Vec::new();
    for table in tables {
        match groups.iter_mut().find(|of| of[0].title == table.title) {
            Some(group) => group.push(table),
            None => groups.push(vec![table]),
        }
    }
    let columns = groups.iter().map(Vec::len).max().unwrap_or(1);
    let head = HEAD + notes.len() * NOTE;
    let tall = |group: &[&Table]| GROUP_HEAD + group[0].rows.len() * PITCH + AXIS;
    let width = MARGIN + columns * COLUMN;
    let height = head + groups.iter().map(|group| tall(group)).sum::<usize>();

    let mut out = String::new();
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">"
    )?;
    writeln!(out, "<title>{}</title>", escaped(title))?;
    style(&mut out, families)?;
    writeln!(
        out,
        "<rect class=\"ground\" width=\"{width}\" height=\"{height}\"/>"
    )?;
    text(&mut out, "title", (MARGIN, 32), title)?;
    for (number, note) in notes.iter().enumerate() {
        let at = (MARGIN, 52 + number * NOTE);
        text(&mut out, "note", at, &first_upper(note))?;
    }
    let widest = groups.iter().max_by_key(|group| group.len());
    for (column, table) in widest.into_iter().flatten().enumerate() {
        let at = (MARGIN + column * COLUMN, head - 12);
        text(&mut out, "head", at, &first_upper(threads(table.threads)))?;
    }
    let mut top = head;
    for group in &groups {
        let most = group.iter().flat_map(|table| &table.rows);
        let most = most
            .flat_map(|row| &row.runs)
            .fold(0.0, |most: f64, run| most.max(*run));
        for (column, table) in group.iter().enumerate() {
            let at = (MARGIN + column * COLUMN, top);
            bars(&mut out, at, table, most, peer, families)?;
        }
        top += tall(group);
    }
    writeln!(out, "</svg>")?;
    Ok(out)
}

/// Colours for both grounds; a viewer that knows of neither shows the light one.
fn style(out: &mut String, families: &[Family]) -> fmt::Result {
    writeln!(out, "<style>")?;
    writeln!(
        out,
        "text {{ font: 12px system-ui, sans-serif; fill: #1f2328 }} .value {{ paint-order: stroke; stroke-width: 3px; stroke: #ffffff }}"
    )?;
    writeln!(
        out,
        ".title {{ font-size: 18px; font-weight: 600 }} .head, .load {{ font-weight: 600 }}"
    )?;
    writeln!(
        out,
        ".head {{ font-size: 14px }} .note, .tick {{ font-size: 11px; fill: #59636e }}"
    )?;
    writeln!(
        out,
        ".name {{ text-anchor: end }} .tick {{ text-anchor: middle }}"
    )?;
    writeln!(
        out,
        ".ground {{ fill: #ffffff }} .grid {{ stroke: #d1d9e0 }} .spread {{ stroke: #1f2328 }}"
    )?;
    for (number, family) in families.iter().enumerate() {
        writeln!(out, ".family{number} {{ fill: {} }}", family.light)?;
    }
    writeln!(out, "@media (prefers-color-scheme: dark) {{")?;
    writeln!(
        out,
        "text {{ fill: #e6edf3 }} .value {{ stroke: #0d1117 }} .note, .tick {{ fill: #9198a1 }}"
    )?;
    writeln!(
        out,
        ".ground {{ fill: #0d1117 }} .grid {{ stroke: #3d444d }} .spread {{ stroke: #e6edf3 }}"
    )?;
    for (number, family) in families.iter().enumerate() {
        writeln!(out, ".family{number} {{ fill: {} }}", family.dark)?;
    }
    writeln!(out, "}}\n</style>")
}

/// One table, at its upper left corner; `most` is the largest figure that has to have room on the axis.
fn bars(
    out: &mut String,
    (left, top): (usize, usize),
    table: &Table,
    most: f64,
    peer: &str,
    families: &[Family],
) -> fmt::Result {
    text(out, "load", (left, top + 14), &first_upper(&table.title))?;
    let start = left + NAMES;
    let first = top + GROUP_HEAD;
    let bottom = first + table.rows.len() * PITCH;
    let step = step(most);
    let steps = (most / step).ceil().max(1.0);
    let x = |figure: f64| start as f64 + figure / (steps * step) * BARS as f64;
    for tick in 0..=steps as usize {
        let figure = tick as f64 * step;
        let at = x(figure);
        line(out, "grid", (at, first as f64), (at, bottom as f64))?;
        text(out, "tick", (at as usize, bottom + 14), &figure.to_string())?;
    }
    text(out, "note", (start + BARS + 28, bottom + 14), table.unit)?;
    let peer = table.runs(peer);
    for (number, row) in table.rows.iter().enumerate() {
        let top = first + number * PITCH;
        let of = spread(row.runs.clone());
        let family = families
            .iter()
            .position(|family| row.kind.starts_with(family.prefix));
        text(out, "name", (start - 8, top + 13), row.kind)?;
        writeln!(
            out,
            "<rect class=\"family{}\" x=\"{start}\" y=\"{}\" width=\"{:.1}\" height=\"{BAR}\"/>",
            family.unwrap_or(families.len()),
            top + (PITCH - BAR) / 2,
            x(of.median) - start as f64
        )?;
        let middle = (top + PITCH / 2) as f64;
        line(out, "spread", (x(of.least), middle), (x(of.most), middle))?;
        let value = (x(of.most).max(x(of.median)) as usize + 6, top + 13);
        text(out, "value", value, &label(row, of.median, peer))?;
    }
    Ok(())
}

fn label(row: &Row, median: f64, peer: Option<&[f64]>) -> String {
    let digits = usize::from(median < 100.0);
    let compared = peer.map(|peer| format!(" ({:.2})", ratio(&row.runs, peer).median));
    format!("{median:.digits$}{}", compared.unwrap_or_default())
}

/// Between the marks of an axis that reaches to `most`: 1, 2 or 5 times a power of ten, for six marks at most beside that at zero.
fn step(most: f64) -> f64 {
    let least = most.max(f64::MIN_POSITIVE) / 6.0;
    let power = 10_f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|of| of * power >= least);
    factor.unwrap_or(10.0) * power
}

fn text(out: &mut String, class: &str, (x, y): (usize, usize), text: &str) -> fmt::Result {
    let text = escaped(text);
    writeln!(
        out,
        "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{text}</text>"
    )
}

fn line(out: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) -> fmt::Result {
    writeln!(
        out,
        "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
        from.0, from.1, to.0, to.1
    )
}

fn first_upper(text: &str) -> String {
    let mut rest = text.chars();
    let first = rest.next().into_iter().flat_map(char::to_uppercase);
    first.chain(rest).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
