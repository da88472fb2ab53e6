//! A bound on how often each address may try to resume.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::owners::Source;

/// How long a bucket takes from empty to full.
const REFILL: Duration = Duration::from_secs(1);
/// What an attempt takes from a bucket: as much as flows in for each unit of the rate in a second, so that of the rate there is
/// one a nanosecond.
const ATTEMPT: u64 = 1_000_000_000;
/// How many buckets a generation holds.
const GENERATION: usize = 32_768;

/// A bucket of attempts for each address, of one second's worth, and one for all links without an address.
///
/// # Memory
///
/// A bucket that nobody has drawn from for a second is full again, and a full bucket is as good as none. So those that were drawn from
/// stand in two generations, the last second's and the one's before; the older is forgotten as a whole when the younger is a second
/// old, or has got [`GENERATION`] buckets. So there are never more than two generations' worth: 65,536 buckets of 40 bytes.
///
/// # What it takes to have a bucket forgotten that is not full
///
/// [`GENERATION`] other addresses, each with an attempt since the bucket was last drawn from, in less than a second: whoever has so many
/// can make as many attempts from each of them as he would get back from the one. To refuse newcomers instead, or have them share a bucket,
/// would let him lock out everybody else.
pub(super) struct ResumeRate {
    generations: Mutex<Generations>,
    per_second: u32,
}

struct Generations {
    young: HashMap<Option<Source>, Bucket>,
    old: HashMap<Option<Source>, Bucket>,
    /// When the young one began.
    since: Instant,
}

#[derive(Clone, Copy)]
struct Bucket {
    /// What is missing from it, in parts of an attempt.
    missing: u64,
    at: Instant,
}

impl ResumeRate {
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self {
            generations: Mutex::new(Generations {
                young: HashMap::new(),
                old: HashMap::new(),
                since: now,
            }),
            per_second,
        }
    }

    /// Takes an attempt from the address's bucket, if one is left.
    pub(super) fn take(&self, addr: Option<SocketAddr>, now: Instant) -> bool {
        let source = addr.map(Source::from);
        let mut generations = self
            .generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        generations.advance(now);
        let full = Bucket {
            missing: 0,
            at: now,
        };
        let mut bucket = generations.withdraw(&source).unwrap_or(full);
        let taken = bucket.take(self.per_second, now);
        generations.put(source, bucket, now);
        taken
    }
}

impl Generations {
    fn advance(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age >= REFILL {
            self.begin(now);
        }
        if age >= 2 * REFILL {
            self.old = HashMap::new();
        }
    }

    /// Begins another generation, and gives back the memory of the last but one.
    fn begin(&mut self, now: Instant) {
        self.old = std::mem::take(&mut self.young);
        self.since = now;
    }

    fn withdraw(&mut self, source: &Option<Source>) -> Option<Bucket> {
        self.young
            .remove(source)
            .or_else(|| self.old.remove(source))
    }

    fn put(&mut self, source: Option<Source>, bucket: Bucket, now: Instant) {
        if self.young.len() >= GENERATION {
            self.begin(now);
        }
        self.young.insert(source, bucket);
    }
}

impl Bucket {
    fn take(&mut self, per_second: u32, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).min(REFILL);
        // At most 10^9 times 2^32.
        let come_in = passed.as_nanos() as u64 * u64::from(per_second);
        self.at = now;
        self.missing = self.missing.saturating_sub(come_in);
        let taken = self.missing + ATTEMPT <= ATTEMPT * u64::from(per_second);
        if taken {
            self.missing += ATTEMPT;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn addr(number: usize) -> Option<SocketAddr> {
        let ip = Ipv4Addr::from(number as u32);
        Some(SocketAddrV4::new(ip, 1).into())
    }

    proptest! {
        /// Against an account of every attempt there was: with rates of whole nanoseconds, none is rounded.
        #[test]
        fn no_more_pass_than_a_second_s_worth_and_what_has_come_in_since(
            per_second in prop::sample::select(vec![1_u32, 2, 5, 8, 1000]),
            attempts in vec((0..3_usize, 0..700_u64), 1..300),
        ) {
            let start = Instant::now();
            let rate = ResumeRate::new(per_second, start);
            let each = REFILL / per_second;
            // When each address's bucket will be full again.
            let mut full_at = [start; 3];
            let mut now = start;
            for (number, millis) in attempts {
                // As often as not at once.
                now += Duration::from_millis(millis.saturating_sub(350));
                let addr = addr(number).filter(|_| number > 0);
                let full_again = full_at[number].max(now) + each;
                let expected = full_again <= now + REFILL;
                prop_assert_eq!(rate.take(addr, now), expected);
                if expected {
                    full_at[number] = full_again;
                }
            }
        }
    }

    #[test]
    fn a_flood_of_addresses_takes_bounded_memory_which_is_given_back() {
        let start = Instant::now();
        let rate = ResumeRate::new(1, start);
        let held = || {
            let generations = rate.generations.lock().expect("no panic");
            [&generations.young, &generations.old]
                .map(|buckets| (buckets.len(), buckets.capacity()))
        };
        for number in 0..GENERATION * 5 {
            assert!(rate.take(addr(number), start), "the first of its address");
            let [(young, _), (old, _)] = held();
            assert!(young <= GENERATION && old <= GENERATION);
        }
        // Those of the last generation are still known.
        assert!(!rate.take(addr(GENERATION * 5 - 1), start));
        assert!(rate.take(addr(0), start + 3 * REFILL));
        let [(young, capacity), old] = held();
        assert_eq!((young, old), (1, (0, 0)));
        assert!(capacity < 10);
    }

    /// As many of other addresses as a generation holds, but for one: not enough.
    #[test]
    fn an_empty_bucket_outlives_nearly_a_generation_of_strangers() {
        let start = Instant::now();
        for before in [0, 1, 1000, GENERATION / 2, GENERATION - 1] {
            let rate = ResumeRate::new(1, start);
            for number in 0..before {
                rate.take(addr(1_000_000 + number), start);
            }
            assert!(rate.take(None, start));
            for number in 0..GENERATION - 1 {
                rate.take(addr(number), start);
            }
            assert!(!rate.take(None, start), "behind {before} others");
        }
    }

    #[test]
    fn the_greatest_rate_is_counted_without_overflow() {
        let start = Instant::now();
        let mut bucket = Bucket {
            missing: ATTEMPT * u64::from(u32::MAX),
            at: start,
        };
        assert!(!bucket.take(u32::MAX, start));
        assert!(bucket.take(u32::MAX, start + Duration::from_nanos(1)));
        assert!(bucket.take(u32::MAX, start + 100 * REFILL));
        assert_eq!(bucket.missing, ATTEMPT);
    }
}
