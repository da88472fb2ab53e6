//! The memory that sessions buffer in, and what there is of it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What a window is never shrunk below, in bytes, unless it is smaller by itself: with less, what a byte costs outweighs the byte.
const FLOOR: usize = 16 * 1024;
/// In how many steps a window shrinks to the floor: each change is told to the peer.
const STEPS: usize = 16;
/// Up to how many eighths of a budget windows grow: short of half of it, from where on they shrink. Of what is left of that one session
/// has half at most, so that few that have grown leave something for others.
const GROWTH: usize = 3;
/// The smallest budget there may be, in bytes.
const SMALLEST: usize = 4 * FLOOR;

/// A bound on the bytes that sessions buffer, together.
///
/// Clones are the same budget. Give one to every [`Config`](crate::Config) of a process whose sessions are to share it, of listeners,
/// acceptors and connectors alike; a `Config` that is given none [has its own](crate::Config::memory_budget).
///
/// ```
/// use unbroken::{Config, MemoryBudget};
///
/// let memory = MemoryBudget::new(256 << 20);
/// let public = Config::new().memory_budget(memory.clone());
/// let internal = Config::new().memory_budget(memory.clone()).window(4 << 20);
/// assert_eq!((memory.used(), memory.bytes()), (0, 256 << 20));
/// ```
///
/// # What it does
///
/// Windows may [grow](crate::Config::max_window) while what peers are allowed thereby and what is used stay within three eighths of it. From half
/// of it on the [windows](crate::Config::window) of native sessions shrink, the more the less is left, down
/// to 16 KiB or what they are configured with, whichever is less: writers wait earlier, peers are allowed less, and memory is given back
/// as soon as it is empty. A session finds out when anything happens to it, so one that is idle does at the next
/// [ping](crate::Config::keepalive). Windows grow again as memory is given back; a session in which somebody waits for that looks
/// after 20 milliseconds first, and after a second at the latest. Once all of it is in use, no new session is opened: a server refuses it as
/// [busy](crate::RejectCode::Busy), or closes the link of a client that speaks snet, and a client's attempt to open one fails with
/// [`Error::Overloaded`](crate::Error::Overloaded) before it dials. Sessions that are open go on, and are resumed.
///
/// # What is counted
///
/// The allocations in which sessions keep what was sent and may have to be sent again, and what was received and has not been read,
/// whether they are full or not; and those of Noise links. Not the few hundred bytes that a session takes itself, the buffers of sockets,
/// of TLS or of any other link the crate did not make, nor what the application holds.
///
/// # How far it can be exceeded
///
/// What a peer was allowed to send, it may still send: a native session that is open when memory becomes short can come to hold its
/// whole window of what its application does not read, and its writer 16 KiB. What windows have grown by is three eighths of the budget at most, of
/// all sessions together. snet's history cannot shrink, since the peer relies on it.
/// So at the worst the budget is exceeded by three eighths of it, by a window and 16 KiB for each native session, a Noise link's 200 KiB while it is busy, and
/// by two histories for each that speaks snet; no more, because no session is added but those whose opening has begun. Where peers are
/// not trusted, choose [`window`](crate::Config::window) and
/// [`max_sessions`](crate::Config::max_sessions) for that.
#[derive(Clone)]
pub struct MemoryBudget(Arc<Inner>);

struct Inner {
    bytes: usize,
    used: AtomicUsize,
    /// How much peers may send beyond what the windows of their sessions are at first.
    promised: AtomicUsize,
}

impl MemoryBudget {
    /// A budget of so many bytes, none of which is in use.
    ///
    /// Where it is [used](crate::Config::memory_budget) it has to be 64 KiB at least, and twice the window and the history configured there:
    /// what one session may hold.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Inner {
            bytes,
            used: AtomicUsize::new(0),
            promised: AtomicUsize::new(0),
        }))
    }

    /// How many bytes may be in use before no new session is opened.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// How many bytes are in use.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// The smallest budget for sessions that keep so many bytes of each direction.
    pub(crate) fn smallest_for(window: usize) -> usize {
        window.saturating_mul(2).max(SMALLEST)
    }

    /// Whether no new session may be opened.
    pub(crate) fn is_used_up(&self) -> bool {
        self.used() >= self.0.bytes
    }

    /// How many bytes a session may keep of each direction now that would keep `whole`, and `most` where much is under way, and that has
    /// a `share` already.
    fn window(&self, whole: usize, most: usize, share: &Share) -> usize {
        let used = self.used();
        let half = self.0.bytes / 2;
        if used <= half {
            // What it has itself is no reason to have less.
            let promised = self.0.promised.load(Ordering::Relaxed);
            let others = used.saturating_sub(share.bytes) + promised.saturating_sub(share.promised);
            let left = (self.0.bytes / 8 * GROWTH).saturating_sub(others) / 2;
            let wanted = most - whole;
            if left >= wanted {
                return most;
            }
            // In steps: not every byte that is used somewhere changes everybody's window.
            return whole + left / whole * whole;
        }
        let left = self.0.bytes.saturating_sub(used);
        let steps = left / half.div_ceil(STEPS).max(1);
        let floor = whole.min(FLOOR);
        floor + (whole - floor) / STEPS * steps.min(STEPS)
    }
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget")
            .field("bytes", &self.bytes())
            .field("used", &self.used())
            .finish()
    }
}

/// A session's part of a budget, given back when it is dropped.
pub(super) struct Share {
    budget: MemoryBudget,
    bytes: usize,
    promised: usize,
}

impl Share {
    /// Of nothing so far.
    pub(super) fn new(budget: MemoryBudget) -> Self {
        Self {
            budget,
            bytes: 0,
            promised: 0,
        }
    }

    /// The session holds so many bytes now, and its peer may send so many more than its window is at first.
    pub(super) fn set(&mut self, bytes: usize, promised: usize) {
        change(&self.budget.0.used, &mut self.bytes, bytes);
        change(&self.budget.0.promised, &mut self.promised, promised);
    }

    /// How many bytes the session may keep of each direction now that would keep `whole`, and `most` where much is under way.
    pub(super) fn window(&self, whole: usize, most: usize) -> usize {
        self.budget.window(whole, most, self)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0, 0);
    }
}

/// Has `of`, of which `part` is this session's, count `now` for it.
fn change(of: &AtomicUsize, part: &mut usize, now: usize) {
    if now > *part {
        of.fetch_add(now - *part, Ordering::Relaxed);
    } else if now < *part {
        of.fetch_sub(*part - now, Ordering::Relaxed);
    }
    *part = now;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{FLOOR, MemoryBudget, Ordering, SMALLEST, STEPS, Share};

    proptest! {
        #[test]
        fn shares_add_up_and_are_given_back(
            sizes in proptest::collection::vec((0usize..8, 0usize..1 << 40), 0..100),
        ) {
            let budget = MemoryBudget::new(SMALLEST);
            let mut shares: Vec<_> = (0..8).map(|_| Some(Share::new(budget.clone()))).collect();
            let mut model = [0; 8];
            for (which, bytes) in sizes {
                match &mut shares[which] {
                    Some(share) if bytes % 5 > 0 => {
                        share.set(bytes, bytes / 2);
                        model[which] = bytes;
                    }
                    share => {
                        *share = share.is_none().then(|| Share::new(budget.clone()));
                        model[which] = 0;
                    }
                }
                prop_assert_eq!(budget.used(), model.iter().sum::<usize>());
                let promised = budget.0.promised.load(Ordering::Relaxed);
                prop_assert_eq!(promised, model.iter().map(|bytes| bytes / 2).sum::<usize>());
            }
            drop(shares);
            prop_assert_eq!(budget.used(), 0);
            prop_assert_eq!(budget.0.promised.load(Ordering::Relaxed), 0);
        }

        /// Whoever may keep more promises as much: all together never more than fits into three eighths of the budget beside what
        /// others use.
        #[test]
        fn windows_grow_as_far_as_part_of_the_budget_goes(
            bytes in SMALLEST..1 << 26,
            whole in 1usize..1 << 20,
            factor in 1usize..32,
            used in 0.0..1.0,
            turns in proptest::collection::vec(1usize..8, 0..100),
        ) {
            let bound = bytes / 8 * 3;
            let (most, used) = (whole * factor, (bound as f64 * used) as usize);
            let budget = MemoryBudget::new(bytes);
            let mut shares: Vec<_> = (0..8).map(|_| Share::new(budget.clone())).collect();
            shares[0].set(used, 0);
            for which in turns {
                let window = shares[which].window(whole, most);
                prop_assert!((whole..=most).contains(&window));
                prop_assert!(window - whole <= (bound - used) / 2);
                shares[which].set(0, window - whole);
                let promised = budget.0.promised.load(Ordering::Relaxed);
                prop_assert!(promised <= bound - used);
            }
            // What it holds itself does not stand in its way.
            drop(shares.drain(1..));
            if most - whole <= bound / 2 {
                prop_assert_eq!(shares[0].window(whole, most), most);
            }
        }

        #[test]
        fn windows_are_whole_up_to_half_and_then_shrink_to_the_floor(
            bytes in prop_oneof![SMALLEST..1 << 22, Just(usize::MAX)],
            whole in prop_oneof![1usize..=1 << 31, 1usize..100_000],
            parts in proptest::collection::vec(0.0..1.5, 1..50),
        ) {
            let budget = MemoryBudget::new(bytes);
            let mut share = Share::new(budget.clone());
            let mut used: Vec<_> = parts.iter().map(|part| (bytes as f64 * part) as usize).collect();
            used.extend([0, bytes / 2, bytes - 1, bytes]);
            used.sort_unstable();
            let (floor, mut last) = (whole.min(FLOOR), whole);
            for used in used {
                share.set(used, 0);
                let window = share.window(whole, whole);
                prop_assert!((floor..=last).contains(&window), "{window} after {last}");
                last = window;
                prop_assert_eq!(budget.is_used_up(), used >= bytes);
                if used <= bytes / 2 {
                    prop_assert_eq!(window, whole);
                } else {
                    // Not further below the straight line than a step and what divisions round off.
                    let left = bytes.saturating_sub(used) as f64 / (bytes as f64 / 2.0);
                    let line = floor as f64 + (whole - floor) as f64 * left;
                    let step = (whole - floor) as f64 / STEPS as f64 * 1.1 + STEPS as f64;
                    prop_assert!((window as f64) <= line + 1.0 && window as f64 >= line - step);
                }
                if used >= bytes {
                    prop_assert_eq!(window, floor);
                }
            }
        }
    }
}
