//! Changes that arrived before what they depend on.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::records::DocKey;
use crate::faults::{Fault, Faults};
use crate::identity::ChangeHash;

/// Bounded by count and bytes; beyond the bounds the oldest make room, and repair brings them again.
#[derive(Debug)]
pub(crate) struct Orphans {
    waiting: BTreeMap<DocKey, BTreeMap<ChangeHash, Orphan>>,
    by_age: BTreeMap<u64, (DocKey, ChangeHash)>,
    arrivals: u64,
    bytes: usize,
    count_max: usize,
    bytes_max: usize,
    faults: Faults,
}

#[derive(Debug)]
struct Orphan {
    arrival: u64,
    chunk: Bytes,
}

impl Orphans {
    pub(crate) fn new(count_max: usize, bytes_max: usize, faults: Faults) -> Self {
        Self { waiting: BTreeMap::new(), by_age: BTreeMap::new(), arrivals: 0, bytes: 0, count_max, bytes_max, faults }
    }

    /// Keeps a change until its dependencies come; returns how many older ones had to go for it.
    pub(crate) fn keep(&mut self, key: DocKey, hash: ChangeHash, chunk: Bytes) -> usize {
        if self.waiting.get(&key).is_some_and(|orphans| orphans.contains_key(&hash)) {
            return 0;
        }
        self.arrivals += 1;
        let arrival = self.arrivals;
        self.bytes += chunk.len();
        self.by_age.insert(arrival, (key, hash));
        self.waiting.entry(key).or_default().insert(hash, Orphan { arrival, chunk });
        let mut gone = 0;
        while self.by_age.len() > self.count_max || self.bytes > self.bytes_max {
            if self.faults.has(Fault::OrphansUnbounded) {
                break;
            }
            let Some((_, (key, hash))) = self.by_age.pop_first() else { break };
            self.forget(&key, &hash);
            gone += 1;
        }
        gone
    }

    /// Takes all that wait for changes of one document.
    pub(crate) fn take(&mut self, key: &DocKey) -> Vec<Bytes> {
        let orphans = self.waiting.remove(key).unwrap_or_default();
        orphans
            .into_values()
            .map(|orphan| {
                self.by_age.remove(&orphan.arrival);
                self.bytes -= orphan.chunk.len();
                orphan.chunk
            })
            .collect()
    }

    fn forget(&mut self, key: &DocKey, hash: &ChangeHash) {
        let Some(orphans) = self.waiting.get_mut(key) else { return };
        if let Some(orphan) = orphans.remove(hash) {
            self.bytes -= if self.faults.has(Fault::OrphanBytesKept) { 0 } else { orphan.chunk.len() };
        }
        if orphans.is_empty() {
            self.waiting.remove(key);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_age.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
