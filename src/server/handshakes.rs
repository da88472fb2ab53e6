//! A bound on the handshakes in progress, in all and from each address.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{owners::Source, registry::Proving};
use crate::{error::Limit, transport::now};

/// The handshakes in progress, in the order in which their peers were last heard.
///
/// When there are as many as there may be, the one that has been silent longest makes room: a peer that stalls loses against one that
/// goes on, however many stall. Where it is one address that has as many as it may, it is one of that address which makes room, so
/// that nobody's flood costs another one's handshake before all places are taken.
pub(super) struct Handshakes {
    table: Mutex<Table>,
    most: usize,
    most_per_source: usize,
}

/// When a peer was last heard, in an order without ties.
type Moment = u64;

#[derive(Default)]
struct Table {
    in_progress: BTreeMap<Moment, InProgress>,
    /// The keys of those in progress whose source is known; no source without any.
    by_source: HashMap<Source, BTreeSet<Moment>>,
    next: Moment,
}

struct InProgress {
    source: Option<Source>,
    /// When the peer was last heard, or its link accepted.
    heard: Instant,
    evict: oneshot::Sender<Limit>,
}

impl Handshakes {
    pub(super) fn new(most: usize, most_per_source: usize) -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::default(),
            most,
            most_per_source,
        })
    }

    /// Takes a place, another's if there is none left. The receiver tells when it is taken in turn, and for which limit.
    pub(super) fn enter(
        self: &Arc<Self>,
        source: Option<Source>,
    ) -> (Place, oneshot::Receiver<Limit>) {
        let (evict, evicted) = oneshot::channel();
        let (moment, in_the_way) = {
            let mut table = self.lock();
            let in_the_way = self.full(&table, source);
            let in_the_way =
                in_the_way.and_then(|(moment, limit)| Some((table.remove(moment)?, limit)));
            let entering = InProgress {
                source,
                heard: now(),
                evict,
            };
            (table.append(entering), in_the_way)
        };
        // Outside the lock: it wakes another task.
        if let Some((slowest, limit)) = in_the_way {
            slowest.evict(limit);
        }
        let place = Place {
            handshakes: self.clone(),
            moment: AtomicU64::new(moment),
            proving: OnceLock::new(),
        };
        (place, evicted)
    }

    /// Has the one silent longest make room for what no place was asked for yet, if it has been silent for longer than `grace`: before
    /// that, its silence may be this end's own being behind. Returns whether there was one.
    pub(super) fn make_room(&self, grace: Duration, limit: Limit) -> bool {
        let slowest = {
            let mut table = self.lock();
            let silent_longest = table.in_progress.first_key_value();
            let stuck = silent_longest
                .filter(|(_, handshake)| now().saturating_duration_since(handshake.heard) > grace)
                .map(|(moment, _)| *moment);
            stuck.and_then(|moment| table.remove(moment))
        };
        // Outside the lock: it wakes another task.
        slowest.map(|slowest| slowest.evict(limit)).is_some()
    }

    /// Who has to make room for one more from there, and which limit asks for it.
    fn full(&self, table: &Table, source: Option<Source>) -> Option<(Moment, Limit)> {
        let of_source = source.and_then(|source| table.by_source.get(&source));
        if let Some(moments) = of_source
            && moments.len() >= self.most_per_source
        {
            Some((*moments.first()?, Limit::HandshakesPerAddress))
        } else if table.in_progress.len() >= self.most {
            let (moment, _) = table.in_progress.first_key_value()?;
            Some((*moment, Limit::Handshakes))
        } else {
            None
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn append(&mut self, handshake: InProgress) -> Moment {
        let moment = self.next;
        self.next += 1;
        if let Some(source) = handshake.source {
            self.by_source.entry(source).or_default().insert(moment);
        }
        self.in_progress.insert(moment, handshake);
        moment
    }

    fn remove(&mut self, moment: Moment) -> Option<InProgress> {
        let handshake = self.in_progress.remove(&moment)?;
        if let Some(source) = handshake.source
            && let Some(moments) = self.by_source.get_mut(&source)
        {
            moments.remove(&moment);
            if moments.is_empty() {
                self.by_source.remove(&source);
            }
        }
        Some(handshake)
    }
}

impl InProgress {
    fn evict(self, limit: Limit) {
        // Nobody hears it if the handshake is just over.
        let _ = self.evict.send(limit);
    }
}

/// One handshake's place, given back when it is dropped.
pub(super) struct Place {
    handshakes: Arc<Handshakes>,
    moment: AtomicU64,
    /// Once the server has answered the peer, which now has to prove itself.
    proving: OnceLock<Proving>,
}

impl Place {
    /// The peer is answered now, and has to be told what becomes of it.
    pub(super) fn answer(&self, proving: Proving) {
        // There is one answer to a handshake.
        let _ = self.proving.set(proving);
    }

    /// The peer has been heard.
    pub(super) fn heard(&self) {
        let mut table = self.handshakes.lock();
        // Absent if it has just been evicted.
        if let Some(mut handshake) = table.remove(self.moment.load(Ordering::Relaxed)) {
            handshake.heard = now();
            self.moment
                .store(table.append(handshake), Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let moment = self.moment.load(Ordering::Relaxed);
        let handshake = self.handshakes.lock().remove(moment);
        // Outside the lock: it wakes whoever still listens.
        drop(handshake);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    const MOST: usize = 6;
    const MOST_PER_SOURCE: usize = 3;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// From this source, if it has a number.
        Enter(Option<u8>),
        Hear(usize),
        Leave(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => prop::option::weighted(0.8, 0..4_u8).prop_map(Step::Enter),
            2 => any::<usize>().prop_map(Step::Hear),
            1 => any::<usize>().prop_map(Step::Leave),
        ]
    }

    /// A handshake as the model has it: those before it in the list have been silent for longer.
    struct Modelled {
        source: Option<Source>,
        place: Place,
        evicted: oneshot::Receiver<Limit>,
    }

    proptest! {
        /// Against a list that is searched from end to end.
        #[test]
        fn the_one_silent_longest_of_those_in_the_way_makes_room_and_nobody_else(
            steps in vec(step(), 0..200)
        ) {
            let handshakes = Handshakes::new(MOST, MOST_PER_SOURCE);
            let mut model: Vec<Modelled> = Vec::new();
            for step in steps {
                match step {
                    Step::Enter(number) => {
                        let source = number.map(|n| Source::V4(Ipv4Addr::new(192, 0, 2, n)));
                        let is_neighbour = |other: &Modelled| source.is_some() && other.source == source;
                        let neighbours = model.iter().filter(|other| is_neighbour(other)).count();
                        let evicted = if neighbours >= MOST_PER_SOURCE {
                            let slowest = model.iter().position(is_neighbour);
                            slowest.map(|slowest| (slowest, Limit::HandshakesPerAddress))
                        } else {
                            (model.len() >= MOST).then_some((0, Limit::Handshakes))
                        };
                        let (place, eviction) = handshakes.enter(source);
                        if let Some((slowest, limit)) = evicted {
                            let mut slowest = model.remove(slowest);
                            prop_assert_eq!(slowest.evicted.try_recv(), Ok(limit));
                            // It may be heard once more, and gives back nothing.
                            slowest.place.heard();
                        }
                        model.push(Modelled { source, place, evicted: eviction });
                    }
                    Step::Hear(number) if !model.is_empty() => {
                        let heard = model.remove(number % model.len());
                        heard.place.heard();
                        model.push(heard);
                    }
                    Step::Leave(number) if !model.is_empty() => {
                        model.remove(number % model.len());
                    }
                    Step::Hear(_) | Step::Leave(_) => {}
                }
                for other in &mut model {
                    prop_assert!(other.evicted.try_recv().is_err());
                    prop_assert!(!other.evicted.is_terminated());
                }
                let table = handshakes.lock();
                prop_assert_eq!(table.in_progress.len(), model.len());
                let sources: usize = table.by_source.values().map(BTreeSet::len).sum();
                let known = model.iter().filter(|other| other.source.is_some()).count();
                prop_assert_eq!(sources, known);
                prop_assert!(table.by_source.values().all(|moments| !moments.is_empty()));
            }
            drop(model);
            let table = handshakes.lock();
            prop_assert!(table.in_progress.is_empty() && table.by_source.is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_made_by_who_has_been_silent_for_longer_than_the_grace() {
        const GRACE: Duration = Duration::from_secs(1);
        let handshakes = Handshakes::new(MOST, MOST_PER_SOURCE);
        let make_room = || handshakes.make_room(GRACE, Limit::FileDescriptors);
        assert!(!make_room(), "there is none");
        let (first, mut first_evicted) = handshakes.enter(None);
        let (_second, mut second_evicted) = handshakes.enter(None);
        tokio::time::advance(GRACE).await;
        assert!(!make_room(), "they may still be on their way");
        first.heard();
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(make_room());
        assert_eq!(second_evicted.try_recv(), Ok(Limit::FileDescriptors));
        assert!(!make_room(), "the other has been heard since");
        assert!(first_evicted.try_recv().is_err());
        tokio::time::advance(GRACE).await;
        assert!(make_room());
        assert_eq!(first_evicted.try_recv(), Ok(Limit::FileDescriptors));
    }
}
