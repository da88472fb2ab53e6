//! Whom sessions count for.

use std::{
    collections::{HashMap, hash_map},
    hash::Hash,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use crate::{config::Valid, error::Limit, transport::Peer};

/// An address as limits count it.
///
/// IPv6 counts by /64, since a single host has all the addresses of one; an IPv4-mapped address is the IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    V4(Ipv4Addr),
    /// The upper half of the address.
    V6(u64),
}

impl From<SocketAddr> for Source {
    fn from(addr: SocketAddr) -> Self {
        match addr.ip().to_canonical() {
            IpAddr::V4(addr) => Self::V4(addr),
            // The upper half: 64 bits.
            IpAddr::V6(addr) => Self::V6((addr.to_bits() >> 64) as u64),
        }
    }
}

/// A client's public key.
type ClientKey = [u8; 32];

/// Whom a session counts for, as far as that is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    /// Of the link that opened the session; it stays the same wherever the session roams.
    source: Option<Source>,
    key: Option<ClientKey>,
}

impl Owner {
    pub(super) fn new(peer: Peer) -> Self {
        Self {
            source: peer.addr.map(Source::from),
            key: peer.key,
        }
    }
}

/// How many sessions each has. Who has none takes no memory.
pub(super) struct Owners {
    by_source: Tally<Source>,
    by_key: Tally<ClientKey>,
}

impl Owners {
    pub(super) fn new(config: &Valid) -> Self {
        Self {
            by_source: Tally::new(config.max_sessions_per_address),
            by_key: Tally::new(config.max_sessions_per_identity),
        }
    }

    /// Whether there is room for one more of its sessions, or else what is in the way.
    pub(super) fn check(&self, owner: &Owner) -> Result<(), Limit> {
        if self.by_source.is_full(owner.source) {
            Err(Limit::SessionsPerAddress)
        } else if self.by_key.is_full(owner.key) {
            Err(Limit::SessionsPerIdentity)
        } else {
            Ok(())
        }
    }

    /// One more, which [`check`](Self::check) has found room for under the same lock.
    pub(super) fn add(&mut self, owner: &Owner) {
        self.by_source.add(owner.source);
        self.by_key.add(owner.key);
    }

    /// One that was added is over.
    pub(super) fn remove(&mut self, owner: &Owner) {
        self.by_source.remove(owner.source);
        self.by_key.remove(owner.key);
    }

    /// How many each has who has any.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (HashMap<Source, usize>, HashMap<ClientKey, usize>) {
        (self.by_source.counts.clone(), self.by_key.counts.clone())
    }
}

struct Tally<K> {
    counts: HashMap<K, usize>,
    most: usize,
}

impl<K: Eq + Hash> Tally<K> {
    fn new(most: usize) -> Self {
        Self {
            counts: HashMap::new(),
            most,
        }
    }

    fn is_full(&self, key: Option<K>) -> bool {
        key.and_then(|key| self.counts.get(&key))
            .is_some_and(|count| *count >= self.most)
    }

    fn add(&mut self, key: Option<K>) {
        if let Some(key) = key {
            *self.counts.entry(key).or_default() += 1;
        }
    }

    fn remove(&mut self, key: Option<K>) {
        if let Some(key) = key
            && let hash_map::Entry::Occupied(mut count) = self.counts.entry(key)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(addr: &str) -> Source {
        addr.parse::<SocketAddr>().expect("an address").into()
    }

    #[test]
    fn an_address_counts_with_those_that_one_host_may_have() {
        let same = |one, other| source(one) == source(other);
        assert!(same("192.0.2.1:1", "192.0.2.1:2"));
        assert!(!same("192.0.2.1:1", "192.0.2.2:1"));
        assert!(same("192.0.2.1:1", "[::ffff:192.0.2.1]:1"));
        assert!(!same("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:1"));
        assert!(same("[2001:db8:1:2::3]:1", "[2001:db8:1:2:ffff:1:2:3]:4"));
        assert!(!same("[2001:db8:1:2::3]:1", "[2001:db8:1:3::3]:1"));
        assert!(!same("[::c000:201]:1", "192.0.2.1:1"));
    }
}
