//! What was asked for and what came of it.

use std::collections::{BTreeMap, BTreeSet};

use knot_engine::Instant;

use crate::scenario::{Operation, Target};

/// What the client of a write knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No answer yet.
    Pending,
    /// It was made, and is durable.
    Acknowledged {
        /// When.
        at: Instant,
        /// How many changes that may have been: none when the document already was as asked.
        changed: bool,
    },
    /// It was not made, for this reason, and nothing of it remains.
    Refused(String),
    /// The server died first, or said that its storage failed: it may have been made.
    Unknown,
}

/// One write that reached a server.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// What was asked.
    pub operation: Operation,
    /// When.
    pub asked: Instant,
    /// What came of it.
    pub outcome: Outcome,
    /// True when the only disk that held it was set back to an earlier copy: nobody could keep it.
    pub excused: bool,
}

impl Write {
    /// Whether a document may show it: it was asked of that document, and not refused.
    pub(crate) fn may_show_in(&self, target: &Target) -> bool {
        self.operation.target == *target && !matches!(self.outcome, Outcome::Refused(_))
    }
}

/// Every write that reached a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    writes: BTreeMap<u32, Write>,
    by_target: BTreeMap<Target, BTreeSet<u32>>,
}

impl Ledger {
    /// A write reaches a server.
    pub(crate) fn ask(&mut self, operation: &Operation, now: Instant) {
        self.by_target.entry(operation.target.clone()).or_default().insert(operation.id);
        let write = Write { operation: operation.clone(), asked: now, outcome: Outcome::Pending, excused: false };
        self.writes.insert(operation.id, write);
    }

    /// A write has its answer, or never will.
    pub(crate) fn settle(&mut self, id: u32, outcome: Outcome) {
        if let Some(write) = self.writes.get_mut(&id) {
            write.outcome = outcome;
        }
    }

    /// Nobody could keep this write.
    pub(crate) fn excuse(&mut self, id: u32) {
        if let Some(write) = self.writes.get_mut(&id) {
            write.excused = true;
        }
    }

    /// A write by its number.
    #[must_use]
    pub(crate) fn get(&self, id: u32) -> Option<&Write> {
        self.writes.get(&id)
    }

    /// All writes, in the order of their numbers.
    pub(crate) fn writes(&self) -> impl Iterator<Item = &Write> {
        self.writes.values()
    }

    /// All documents that a write was asked of, with the numbers of those writes.
    pub(crate) fn targets(&self) -> impl Iterator<Item = (&Target, &BTreeSet<u32>)> {
        self.by_target.iter()
    }

    /// The writes to a document.
    pub(crate) fn writes_to(&self, target: &Target) -> impl Iterator<Item = &Write> {
        let ids = self.by_target.get(target);
        ids.into_iter().flatten().filter_map(|id| self.writes.get(id))
    }
}
