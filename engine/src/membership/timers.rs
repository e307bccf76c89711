//! Deadlines by name. Equal deadlines fire in the order in which they were set.

use std::collections::BTreeMap;

use crate::time::Instant;

#[derive(Clone, Debug)]
pub(super) struct Timers<K> {
    queue: BTreeMap<(Instant, u64), K>,
    armed: BTreeMap<K, (Instant, u64)>,
    serial: u64,
}

impl<K: Ord + Clone> Timers<K> {
    pub(super) fn new() -> Self {
        Self { queue: BTreeMap::new(), armed: BTreeMap::new(), serial: 0 }
    }

    /// Sets `key` to fire at `at`, whatever it was set to before.
    pub(super) fn arm(&mut self, key: K, at: Instant) {
        self.disarm(&key);
        self.serial += 1;
        self.queue.insert((at, self.serial), key.clone());
        self.armed.insert(key, (at, self.serial));
    }

    /// Sets `key` to fire at `at` unless it fires sooner anyway.
    pub(super) fn arm_by(&mut self, key: K, at: Instant) {
        if self.armed.get(&key).is_none_or(|(set, _)| at < *set) {
            self.arm(key, at);
        }
    }

    pub(super) fn disarm(&mut self, key: &K) {
        if let Some(slot) = self.armed.remove(key) {
            self.queue.remove(&slot);
        }
    }

    pub(super) fn is_armed(&self, key: &K) -> bool {
        self.armed.contains_key(key)
    }

    pub(super) fn next(&self) -> Option<(Instant, &K)> {
        self.queue.first_key_value().map(|((at, _), key)| (*at, key))
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (at, _) = self.next()?;
        if at > now {
            return None;
        }
        let (_, key) = self.queue.pop_first()?;
        self.armed.remove(&key);
        Some(key)
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.armed.clear();
    }
}
