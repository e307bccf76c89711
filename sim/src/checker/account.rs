//! What became of each acknowledged write, as those saw it who read.
//!
//! After the set-full checker of Jepsen: every acknowledged write is an element that each later read of its document has
//! or lacks. Reads of clients count where the document is only added to, as only there a value shows all its writes; at
//! the end every server entitled to a document is read with its history. A write that the last read lacks is lost, which
//! [`Invariant::AcknowledgedKept`](super::Invariant) calls a broken promise. One that some read lacked and a later one has
//! was stale, which is what a cluster without a leader does, and what this puts a number to.

use std::collections::{BTreeMap, BTreeSet};

use knot_engine::Instant;
use serde::Serialize;

use super::{Checkers, Seen};
use crate::disk::{Batch, Image};
use crate::histogram::Histogram;
use crate::ledger::{Outcome, Write};
use crate::scenario::{Action, Target};
use crate::spread::Spread;
use crate::tap::ChangeNo;

/// What became of the acknowledged writes of a run, or of many. Writes that changed nothing are not among them, nor, where
/// servers are seen from outside, those that a later value need not show.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Account {
    /// How many there are: the sum of the next four.
    pub acknowledged: u64,
    /// The last read has it: at the end of a run, that of every server entitled to it.
    pub kept: u64,
    /// The last read lacks it.
    pub lost: u64,
    /// Nobody read its document after it was acknowledged: the run ended early, or no server that holds it came back.
    pub never_read: u64,
    /// The only disk that held it was lost or set back.
    pub excused: u64,
    /// Of all, those that some read lacked which was asked for after they were acknowledged, and that the last has.
    pub stale: u64,
    /// How long after the acknowledgement the last read was asked for that lacked one of these, at most, in microseconds.
    pub stalest_us: u64,
    /// From the acknowledgement until the last of the servers entitled to it that are there at the end came to hold it.
    pub everywhere: Histogram,
}

impl Account {
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { acknowledged, kept, lost, never_read, excused, stale, stalest_us, everywhere } = other;
        self.acknowledged += acknowledged;
        self.kept += kept;
        self.lost += lost;
        self.never_read += never_read;
        self.excused += excused;
        self.stale += stale;
        self.stalest_us = self.stalest_us.max(*stalest_us);
        self.everywhere.merge(everywhere);
    }
}

/// What reads have had and lacked.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Whether the last read of a write's document had the write.
    last: BTreeMap<u32, bool>,
    /// When the last read was asked for that lacked it.
    lacked: BTreeMap<u32, Instant>,
    spread: Spread,
    everywhere: Histogram,
}

impl Checkers {
    /// A client's read of a document that is only added to, asked for at `asked`, shows these writes.
    pub(crate) fn count_read(&mut self, target: &Target, shown: &BTreeSet<u32>, asked: Instant) {
        let before = |write: &&Write| {
            write.operation.action != Action::Increment && acknowledged_at(write).is_some_and(|at| at <= asked)
        };
        for write in self.ledger.writes_to(target).filter(before) {
            let id = write.operation.id;
            let has = shown.contains(&id);
            self.reads.last.insert(id, has);
            if !has {
                self.reads.lacked.insert(id, asked);
            }
        }
    }

    /// The reads at the end, of all servers entitled to the document.
    pub(super) fn count_last_reads(&mut self, target: &Target, replicas: &[(usize, Seen)]) {
        if replicas.is_empty() {
            return;
        }
        let nodes: Vec<usize> = replicas.iter().map(|(node, _)| *node).collect();
        for write in self.ledger.writes_to(target) {
            let (id, Some(at)) = (write.operation.id, acknowledged_at(write)) else { continue };
            self.reads.last.insert(id, replicas.iter().all(|(_, seen)| seen.history.contains(&id)));
            if let Some(took_us) = self.reads.spread.took_us_since(at, id, &nodes, nodes.len()) {
                self.reads.everywhere.add(took_us);
            }
        }
    }

    /// Batches are durable.
    pub(crate) fn on_durable(&mut self, node: usize, batches: &[Batch], now: Instant) -> Vec<ChangeNo> {
        let held = self.tap.on_durable(node, batches);
        self.hold(node, &held, now);
        held
    }

    /// What only a power cut would have taken is durable now.
    pub(crate) fn on_tail_written(&mut self, node: usize, durable: &Image, now: Instant) {
        let held = self.tap.on_tail_written(node, durable);
        self.hold(node, &held, now);
    }

    fn hold(&mut self, node: usize, changes: &[ChangeNo], now: Instant) {
        for write in changes.iter().filter_map(|&number| self.tap.change(number).write) {
            self.reads.spread.hold(write, node, now);
        }
    }

    /// What became of the writes that reads can tell of.
    pub(crate) fn account(&self, can_tell: impl Fn(&Write) -> bool) -> Account {
        let mut account = Account { everywhere: self.reads.everywhere.clone(), ..Account::default() };
        for write in self.ledger.writes().filter(|write| can_tell(write)) {
            let (id, Some(at)) = (write.operation.id, acknowledged_at(write)) else { continue };
            account.acknowledged += 1;
            let last = self.reads.last.get(&id);
            *match last {
                _ if write.excused => &mut account.excused,
                Some(true) => &mut account.kept,
                Some(false) => &mut account.lost,
                None => &mut account.never_read,
            } += 1;
            if let Some(lacked) = self.reads.lacked.get(&id).filter(|_| last == Some(&true)) {
                account.stale += 1;
                let after = lacked.as_micros() - at.as_micros();
                account.stalest_us = account.stalest_us.max(after);
            }
        }
        account
    }
}

/// When a write was acknowledged that changed something.
fn acknowledged_at(write: &Write) -> Option<Instant> {
    match write.outcome {
        Outcome::Acknowledged { at, changed: true } => Some(at),
        Outcome::Acknowledged { changed: false, .. } | Outcome::Pending | Outcome::Refused(_) | Outcome::Unknown => {
            None
        }
    }
}
