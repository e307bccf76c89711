//! Sums over the documents of one scope, by the first byte of their hashed names.
//!
//! A sum is the count of documents and the sum, modulo 2^128, of a keyed hash over each one's name and heads. Sums add,
//! so an update costs one subtraction and one addition, and the sum over a range is the sum over its parts. The key is
//! the cluster's replication secret: who does not have it cannot construct documents that cancel out.

use serde::{Deserialize, Serialize};

use super::records::DocKey;
use crate::identity::ChangeHash;

/// Children of one split.
pub(crate) const FANOUT: usize = 256;

/// Documents in a range: how many, and their hashes added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// How many documents, deleted ones included.
    pub count: u64,
    /// Their fingerprints, added modulo 2^128.
    pub sum: u128,
}

impl Sum {
    pub(crate) fn add(&mut self, fingerprint: u128) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(fingerprint);
    }

    pub(crate) fn remove(&mut self, fingerprint: u128) {
        self.count = self.count.saturating_sub(1);
        self.sum = self.sum.wrapping_sub(fingerprint);
    }

    fn plus(self, other: Self) -> Self {
        Self { count: self.count + other.count, sum: self.sum.wrapping_add(other.sum) }
    }
}

/// What one document adds to the sums: a keyed hash of its name and sorted heads.
pub(crate) fn fingerprint(secret: &[u8; 32], key: &DocKey, heads: &[ChangeHash]) -> u128 {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(&key.0);
    for head in heads {
        hasher.update(&head.0);
    }
    let [bytes @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *hasher.finalize().as_bytes();
    u128::from_le_bytes(bytes)
}

/// The first level of one scope's split, kept up to date; deeper levels are summed on demand from the index.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    children: Vec<Sum>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { children: vec![Sum::default(); FANOUT] }
    }
}

impl Tree {
    pub(crate) fn add(&mut self, key: &DocKey, fingerprint: u128) {
        if let Some(sum) = self.children.get_mut(usize::from(key.first_byte())) {
            sum.add(fingerprint);
        }
    }

    pub(crate) fn remove(&mut self, key: &DocKey, fingerprint: u128) {
        if let Some(sum) = self.children.get_mut(usize::from(key.first_byte())) {
            sum.remove(fingerprint);
        }
    }

    /// The sum over the whole scope.
    pub(crate) fn root(&self) -> Sum {
        self.children.iter().copied().fold(Sum::default(), Sum::plus)
    }

    pub(crate) fn children(&self) -> &[Sum] {
        &self.children
    }
}
