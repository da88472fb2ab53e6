//! What many measurements of the same come to.

// Each of its users takes a part of it.
#![allow(dead_code)]

/// The middle of some figures and how far they spread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

/// Of at least one figure. Of an even number, the median is the mean of the two in the middle.
pub(crate) fn spread(mut figures: Vec<f64>) -> Spread {
    figures.sort_by(f64::total_cmp);
    let half = figures.len() / 2;
    let middle = match figures.len() % 2 {
        0 => (figures[half - 1] + figures[half]) / 2.0,
        _ => figures[half],
    };
    Spread {
        median: middle,
        least: figures[0],
        most: figures[figures.len() - 1],
    }
}

/// Of the ratios of one thing's figures to another's, run by run.
pub(crate) fn ratio(of: &[f64], to: &[f64]) -> Spread {
    spread(of.iter().zip(to).map(|(of, to)| of / to).collect())
}

/// The figure that this part of them, from 0 to 1, does not exceed, by nearest rank. Of at least one figure, in ascending order.
pub(crate) fn quantile(ascending: &[f64], part: f64) -> f64 {
    let rank = (ascending.len() as f64 * part).ceil() as usize;
    ascending[rank.clamp(1, ascending.len()) - 1]
}
