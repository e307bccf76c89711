//! The changes of documents that clients edit deep within, as histories tell of them to who sees servers from outside.
//!
//! The answer to an edit names the state that its change alone makes, and so the change: it is in every history in the
//! end, and what is there besides are edits whose clients had no answer.

use std::collections::BTreeMap;

use knot_engine::{ChangeHash, Etag};
#[cfg(any(feature = "l2", feature = "l3"))]
use knot_engine::{
    Instant,
    documents::{AutomergeDocument, Document},
};

#[cfg(any(feature = "l2", feature = "l3"))]
use super::acknowledged::must_be_kept;
use super::edited::Past;
#[cfg(any(feature = "l2", feature = "l3"))]
use super::{Checkers, Invariant, edited::etag_of};
#[cfg(any(feature = "l2", feature = "l3"))]
use crate::{ledger::Outcome, scenario::Target};

/// See the module. At level 1 it stays empty: there a tap sees every change.
#[derive(Debug, Default)]
pub(super) struct Told {
    pasts: BTreeMap<ChangeHash, Past>,
    /// Changes by the states that they alone make.
    changes: BTreeMap<Etag, ChangeHash>,
    /// Acknowledged writes by the same.
    #[cfg(any(feature = "l2", feature = "l3"))]
    writes: BTreeMap<Etag, u32>,
}

impl Told {
    pub(super) fn past(&self, hash: &ChangeHash) -> Option<Past> {
        self.pasts.get(hash).cloned()
    }

    pub(super) fn change_at(&self, etag: Etag) -> Option<ChangeHash> {
        self.changes.get(&etag).copied()
    }
}

#[cfg(any(feature = "l2", feature = "l3"))]
impl Checkers {
    /// A write made a change, says its answer, that alone makes the state of this etag.
    pub(crate) fn tell_of_write(&mut self, id: u32, etag: Etag) {
        self.edits.told.writes.insert(etag, id);
    }

    /// A server's history of a document has these changes. What starts the document is in no history.
    pub(crate) fn tell_of_changes(&mut self, target: &Target, changes: &[(ChangeHash, Past)]) {
        let genesis = AutomergeDocument::genesis_hash(&target.id());
        self.expect_document(genesis);
        for (hash, past) in changes {
            let mut past = past.clone();
            if past.deps.is_empty() {
                past.deps.push(genesis);
            }
            self.edits.told.pasts.insert(*hash, past);
            self.edits.told.changes.insert(etag_of(&[*hash]), *hash);
        }
    }

    /// At the end: a history has the changes of all acknowledged writes, and besides them none but of writes whose
    /// clients never learned what came of them.
    pub(crate) fn check_history(&mut self, node: usize, target: &Target, changes: &[(ChangeHash, Past)], now: Instant) {
        let written = |(hash, _): &(ChangeHash, Past)| self.edits.told.writes.get(&etag_of(&[*hash])).copied();
        let (known, unknown): (Vec<_>, Vec<_>) = changes.iter().map(written).partition(Option::is_some);
        let lost = self
            .ledger
            .writes_to(target)
            .find(|write| must_be_kept(write) && !known.contains(&Some(write.operation.id)));
        if let Some(lost) = lost.map(|write| write.operation.id) {
            let write = self.describe(lost);
            self.report(Invariant::AcknowledgedKept, now, node, || format!("{write} is not in the history here"));
        }
        let may_be = |outcome: &Outcome| matches!(outcome, Outcome::Pending | Outcome::Unknown);
        let unanswered = self.ledger.writes_to(target).filter(|write| may_be(&write.outcome)).count();
        if unknown.len() > unanswered {
            self.report(Invariant::NoPhantom, now, node, || {
                let count = unknown.len();
                format!("the history of {} has {count} changes of {unanswered} unanswered writes", target.id())
            });
        }
    }
}
