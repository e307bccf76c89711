//! Deleted means deleted: unless an edit that the delete had not seen is a head of its own.

use std::collections::BTreeSet;

use knot_engine::{ChangeHash, Instant};

use super::{Checkers, Invariant, Seen};
use crate::scenario::Target;

impl Checkers {
    /// The documents that exist by the changes on a server's disk alone, whatever the engine's index says.
    pub(super) fn existing(&self, node: usize) -> BTreeSet<Target> {
        let held = &self.tap.nodes[node].durable;
        // What is forged never counts in a document that others write.
        let changes = || held.iter().map(|&number| self.tap.change(number)).filter(|change| !change.is_forged);
        let deps: BTreeSet<ChangeHash> = changes().flat_map(|change| change.deps.iter().copied()).collect();
        changes()
            .filter(|change| !change.is_delete && !deps.contains(&change.hash))
            .filter_map(|change| self.ledger.get(change.write?))
            .map(|write| write.operation.target.clone())
            .collect()
    }

    /// At the end: a document reads as deleted exactly when its changes say so.
    pub(super) fn check_deleted(&mut self, node: usize, target: &Target, seen: &Seen, exists: bool, now: Instant) {
        if exists != seen.value.is_some() {
            let state = if exists { "exists" } else { "does not exist" };
            self.report(Invariant::DeletedStaysDeleted, now, node, || {
                format!("by its changes {} {state}; it reads as {:?}", target.id(), seen.value)
            });
        }
    }
}
