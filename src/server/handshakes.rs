//! A bound on the handshakes in progress.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::oneshot;

/// The handshakes in progress, in the order in which their peers were last heard.
///
/// When there are as many as there may be, the one that has been silent longest makes room: a peer that stalls loses against one that
/// goes on, however many stall.
pub(super) struct Handshakes {
    by_silence: Mutex<BySilence>,
    most: usize,
}

#[derive(Default)]
struct BySilence {
    /// The key grows with each sign of life; dropping the sender evicts.
    evictions: BTreeMap<u64, oneshot::Sender<()>>,
    next: u64,
}

impl Handshakes {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            by_silence: Mutex::default(),
            most,
        })
    }

    /// Takes a place, another's if there is none left. The receiver tells when it is taken in turn.
    pub(super) fn enter(self: &Arc<Self>) -> (Place, oneshot::Receiver<()>) {
        let (sender, evicted) = oneshot::channel();
        let (key, removed) = {
            let mut by_silence = self.lock();
            let removed = if by_silence.evictions.len() >= self.most {
                by_silence.evictions.pop_first()
            } else {
                None
            };
            (by_silence.append(sender), removed)
        };
        // Outside the lock: it wakes another task.
        drop(removed);
        let place = Place {
            handshakes: self.clone(),
            key: AtomicU64::new(key),
        };
        (place, evicted)
    }

    fn lock(&self) -> MutexGuard<'_, BySilence> {
        self.by_silence
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl BySilence {
    fn append(&mut self, eviction: oneshot::Sender<()>) -> u64 {
        let key = self.next;
        self.next += 1;
        self.evictions.insert(key, eviction);
        key
    }
}

/// One handshake's place, given back when it is dropped.
pub(super) struct Place {
    handshakes: Arc<Handshakes>,
    key: AtomicU64,
}

impl Place {
    /// The peer has been heard.
    pub(super) fn heard(&self) {
        let mut by_silence = self.handshakes.lock();
        // Absent if it has just been evicted.
        if let Some(eviction) = by_silence
            .evictions
            .remove(&self.key.load(Ordering::Relaxed))
        {
            self.key
                .store(by_silence.append(eviction), Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let eviction = self
            .handshakes
            .lock()
            .evictions
            .remove(&self.key.load(Ordering::Relaxed));
        drop(eviction);
    }
}
