//! Changes that arrived before what they depend on.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::records::DocKey;
use crate::identity::ChangeHash;

/// Bounded by count and bytes; one beyond the bounds is dropped, and repair brings it again.
#[derive(Debug)]
pub(crate) struct Orphans {
    waiting: BTreeMap<DocKey, BTreeMap<ChangeHash, Bytes>>,
    count: usize,
    bytes: usize,
    count_max: usize,
    bytes_max: usize,
}

impl Orphans {
    pub(crate) fn new(count_max: usize, bytes_max: usize) -> Self {
        Self { waiting: BTreeMap::new(), count: 0, bytes: 0, count_max, bytes_max }
    }

    /// Keeps a change until its dependencies come; false when there is no room.
    pub(crate) fn keep(&mut self, key: DocKey, hash: ChangeHash, chunk: Bytes) -> bool {
        if self.count >= self.count_max || self.bytes + chunk.len() > self.bytes_max {
            return false;
        }
        let len = chunk.len();
        if self.waiting.entry(key).or_default().insert(hash, chunk).is_none() {
            self.count += 1;
            self.bytes += len;
        }
        true
    }

    /// Takes all that wait for changes of one document.
    pub(crate) fn take(&mut self, key: &DocKey) -> Vec<Bytes> {
        let chunks: Vec<Bytes> = self.waiting.remove(key).unwrap_or_default().into_values().collect();
        self.count -= chunks.len();
        self.bytes -= chunks.iter().map(Bytes::len).sum::<usize>();
        chunks
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
