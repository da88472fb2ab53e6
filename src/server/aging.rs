//! A table that forgets.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    time::{Duration, Instant},
};

/// Entries that are forgotten after a while, and the oldest of them when there are too many.
pub(super) struct Aging<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// The keys in the order in which they were entered.
    by_age: BTreeMap<u64, K>,
    /// The place in `by_age` of the next.
    next: u64,
    most: usize,
    lifetime: Duration,
}

struct Entry<V> {
    value: V,
    since: Instant,
    place: u64,
}

impl<K: Copy + Eq + Hash, V> Aging<K, V> {
    /// A table of at most `most` entries, each of which is kept for `lifetime`.
    pub(super) fn new(most: usize, lifetime: Duration) -> Self {
        Self {
            entries: HashMap::new(),
            by_age: BTreeMap::new(),
            next: 0,
            most,
            lifetime,
        }
    }

    pub(super) fn insert(&mut self, key: K, value: V, now: Instant) {
        self.remove(&key);
        self.forget(self.most.saturating_sub(1), now);
        let place = self.next;
        self.next += 1;
        self.by_age.insert(place, key);
        let entry = Entry {
            value,
            since: now,
            place,
        };
        self.entries.insert(key, entry);
    }

    pub(super) fn get_mut(&mut self, key: &K, now: Instant) -> Option<&mut V> {
        self.forget(self.most, now);
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.by_age.remove(&entry.place);
        Some(entry.value)
    }

    /// Takes out all there is.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (K, V)> + use<K, V> {
        self.by_age.clear();
        let entries = std::mem::take(&mut self.entries);
        entries.into_iter().map(|(key, entry)| (key, entry.value))
    }

    /// Forgets what is older than the lifetime, and of the rest the oldest until `most` are left.
    fn forget(&mut self, most: usize, now: Instant) {
        while let Some((&place, key)) = self.by_age.first_key_value()
            && let Some(oldest) = self.entries.get(key)
            && (self.entries.len() > most || oldest.since + self.lifetime <= now)
        {
            self.entries.remove(key);
            self.by_age.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(10);

    #[test]
    fn the_oldest_make_room_and_age_takes_all() {
        let start = Instant::now();
        let mut table = Aging::new(3, LIFETIME);
        for key in 0..5 {
            table.insert(key, key * 10, start + Duration::from_secs(key));
        }
        let now = start + Duration::from_secs(5);
        let mut kept = |now| {
            (0..5)
                .filter(|key| table.get_mut(key, now).is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(kept(now), [2, 3, 4]);
        assert_eq!(kept(start + LIFETIME + Duration::from_secs(3)), [4]);
        assert_eq!(kept(start + LIFETIME + Duration::from_secs(4)), []);
        assert!(table.by_age.is_empty());
    }

    #[test]
    fn an_entry_that_is_made_anew_is_young_again() {
        let now = Instant::now();
        let mut table = Aging::new(2, LIFETIME);
        for key in [1, 2, 1, 3] {
            table.insert(key, (), now);
        }
        assert!(table.contains(&1) && table.contains(&3));
        assert_eq!(table.remove(&2), None);
        assert_eq!(table.remove(&1), Some(()));
        assert_eq!(table.by_age.len(), 1);
    }
}
