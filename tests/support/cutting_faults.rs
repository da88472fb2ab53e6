//! What the cutting proxy does to links: how often, and to which.

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};

/// Past the longest handshake of snet, 57 bytes.
const EARLY_BYTES: u64 = 64;

/// A drawn lifetime (exponential) is at most this many times its mean.
const LONGEST: f64 = 5.0;

/// What goes wrong, how often. Start from [`Faults::none`] or [`Faults::harsh`] and change fields.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    /// All draws come from it. The caller prints it.
    pub(crate) seed: u64,
    /// Mean time from a link's accept to its cut, exponentially distributed.
    pub(crate) cut_every: Option<Duration>,
    /// Mean number of bytes, in a direction drawn at random, until a link is cut, exponentially distributed.
    pub(crate) cut_bytes: Option<u64>,
    /// Probability that a link is cut within the first bytes of a direction, where handshakes are.
    pub(crate) early: f64,
    /// How many these are.
    pub(crate) early_bytes: u64,
    /// Probability that a cut is a reset; else it is an orderly end.
    pub(crate) reset: f64,
    /// Probability that a link goes silent where it would have been cut: nothing is forwarded, nothing closed.
    pub(crate) silent: f64,
    /// A silent link is reset after this time at the latest, or when both peers have closed it.
    pub(crate) silent_for: Duration,
    /// Probability that a cut is followed by an outage: links are accepted and reset.
    pub(crate) outage: f64,
    /// Outages last a uniformly drawn time up to this.
    pub(crate) outage_for: Duration,
    /// Bytes per second, for each link and direction.
    pub(crate) rate: Option<u64>,
}

impl Faults {
    /// Forwards transparently; `CuttingProxy::cut_now` and its like still work.
    pub(crate) fn none() -> Self {
        Self {
            seed: 0,
            cut_every: None,
            cut_bytes: None,
            early: 0.0,
            early_bytes: EARLY_BYTES,
            reset: 0.5,
            silent: 0.0,
            silent_for: Duration::from_secs(3),
            outage: 0.0,
            outage_for: Duration::from_millis(300),
            rate: None,
        }
    }

    /// Every fault there is, a link living `cut_every` in the mean.
    pub(crate) fn harsh(seed: u64, cut_every: Duration) -> Self {
        Self {
            seed,
            cut_every: Some(cut_every),
            early: 0.1,
            silent: 0.03,
            outage: 0.1,
            ..Self::none()
        }
    }

    /// Makes the same number of draws whatever the settings, so that changing one fault leaves the others where they were.
    pub(super) fn draw(&self, rng: &mut StdRng) -> Fate {
        let [
            life,
            bytes,
            early,
            direction,
            offset,
            reset,
            silent,
            outage,
            outage_for,
        ] = std::array::from_fn(|_| rng.random::<f64>());
        let direction = if direction < 0.5 {
            Direction::Up
        } else {
            Direction::Down
        };
        let stretch = |unit: f64| (-(1.0 - unit).ln()).min(LONGEST);
        let bytes = if early < self.early {
            Some((offset * self.early_bytes as f64) as u64)
        } else {
            self.cut_bytes
                .map(|mean| (mean as f64 * stretch(bytes)) as u64)
        };
        Fate {
            life: self.cut_every.map(|mean| mean.mul_f64(stretch(life))),
            bytes: bytes.map(|bytes| (direction, bytes)),
            close: if reset < self.reset {
                Close::Reset
            } else {
                Close::Fin
            },
            silent: silent < self.silent,
            outage: (outage < self.outage).then(|| self.outage_for.mul_f64(outage_for)),
        }
    }
}

/// How a cut closes both sides of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// TCP RST; what the proxy's sockets held is gone.
    Reset,
    /// TCP FIN; what was already sent still arrives.
    Fin,
}

/// A link's fate, drawn when it is accepted.
pub(super) struct Fate {
    pub(super) life: Option<Duration>,
    pub(super) bytes: Option<(Direction, u64)>,
    pub(super) close: Close,
    pub(super) silent: bool,
    pub(super) outage: Option<Duration>,
}

/// Of bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// To the upstream.
    Up,
    /// From it.
    Down,
}
