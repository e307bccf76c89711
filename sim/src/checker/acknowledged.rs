//! An acknowledged write is never lost.

use std::collections::{BTreeMap, BTreeSet};

use knot_engine::Instant;
use serde_json::Value;

use super::phantom::written_fields;
use super::{Checkers, Invariant, Seen, Shown};
use crate::ledger::{Outcome, Write};
use crate::scenario::{Action, Target};
use crate::tap::ChangeNo;
use crate::workload::increment_of;

impl Checkers {
    /// At the end: each server shows every acknowledged write to each document that it holds.
    pub(crate) fn audit(&mut self, seen: &BTreeMap<Target, Vec<(usize, Seen)>>, now: Instant) {
        let existing: Vec<BTreeSet<Target>> = (0..self.zones.len()).map(|node| self.existing(node)).collect();
        for (target, replicas) in seen {
            self.count_last_reads(target, replicas);
            let Some((first, one)) = replicas.first() else {
                continue;
            };
            for (node, other) in replicas {
                let exists = existing[*node].contains(target);
                self.check_deleted(*node, target, other, exists, now);
                self.check_phantoms(*node, target, other, now);
                self.check_kept(*node, target, other, now);
                self.check_seen(*node, target, other, now);
                self.check_equal(target, (*first, one), (*node, other), now);
            }
        }
    }

    fn check_seen(&mut self, node: usize, target: &Target, seen: &Seen, now: Instant) {
        let Some(etag) = seen.etag else { return };
        let shown =
            Shown { etag, value: seen.value.as_ref(), revived: Some(seen.revived), conflicts: Some(&seen.conflicts) };
        self.check_state(node, target, if seen.value.is_some() { shown } else { Shown::deleted(etag) }, now);
    }

    /// At the end, from outside: each server shows the acknowledged writes of documents that are only added to, and all
    /// show the same of all.
    #[cfg(any(feature = "l2", feature = "l3"))]
    pub(crate) fn audit_shown(&mut self, seen: &BTreeMap<Target, Vec<(usize, Seen)>>, now: Instant) {
        for (target, replicas) in seen {
            let Some((first, one)) = replicas.first() else {
                continue;
            };
            let kept: BTreeSet<u32> = self
                .ledger
                .writes_to(target)
                .filter(|write| must_be_kept(write))
                .map(|write| write.operation.id)
                .collect();
            for (node, other) in replicas {
                self.check_phantoms(*node, target, other, now);
                self.check_seen(*node, target, other, now);
                if target.only_grows() {
                    self.check_shown(*node, other, &kept, now);
                    let asked = self.ledger.writes_to(target).filter(|write| write.may_show_in(target));
                    let count = asked.map(incremented).sum();
                    self.check_count(*node, target, other, count, now);
                }
                self.check_equal(target, (*first, one), (*node, other), now);
            }
        }
    }

    #[cfg(any(feature = "l2", feature = "l3"))]
    fn check_shown(&mut self, node: usize, seen: &Seen, kept: &BTreeSet<u32>, now: Instant) {
        let value = seen.value.as_ref().unwrap_or(&Value::Null);
        let fields: BTreeSet<u32> = written_fields(value).into_iter().collect();
        let is_field = |id: &u32| self.ledger.get(*id).is_some_and(|write| write.operation.action != Action::Increment);
        let hidden = kept.iter().copied().filter(is_field).find(|id| !fields.contains(id));
        if let Some(id) = hidden {
            let write = self.describe(id);
            self.report(Invariant::AcknowledgedKept, now, node, || format!("{write} is not shown here"));
        }
    }

    fn check_kept(&mut self, node: usize, target: &Target, seen: &Seen, now: Instant) {
        let history: BTreeSet<u32> = seen.history.iter().copied().collect();
        let lost =
            self.ledger.writes_to(target).find(|write| must_be_kept(write) && !history.contains(&write.operation.id));
        if let Some(lost) = lost {
            let write = self.describe(lost.operation.id);
            self.report(Invariant::AcknowledgedKept, now, node, || format!("{write} is not in the history here"));
        }
        if target.only_grows() && self.values_are_own {
            self.check_grown(node, target, seen, &history, now);
        }
    }

    /// A document that is only added to shows all that its history holds.
    fn check_grown(&mut self, node: usize, target: &Target, seen: &Seen, history: &BTreeSet<u32>, now: Instant) {
        let value = seen.value.as_ref().unwrap_or(&Value::Null);
        let fields: BTreeSet<u32> = written_fields(value).into_iter().collect();
        let mut count = 0;
        let mut hidden = None;
        for write in self.ledger.writes_to(target) {
            let id = write.operation.id;
            if !history.contains(&id) {
                continue;
            }
            count += incremented(write);
            if write.operation.action != Action::Increment && !fields.contains(&id) {
                hidden.get_or_insert(id);
            }
        }
        if let Some(id) = hidden {
            let write = self.describe(id);
            self.report(Invariant::AcknowledgedKept, now, node, || {
                format!("{write} is in the history and not in the value")
            });
        }
        self.check_count(node, target, seen, count, now);
    }

    /// Counters that were begun at once are two counters, of which one shows: no more than all increments.
    fn check_count(&mut self, node: usize, target: &Target, seen: &Seen, count: i64, now: Instant) {
        let value = seen.value.as_ref().unwrap_or(&Value::Null);
        let shown = value.get("count").map_or(Some(0), Value::as_i64);
        if shown.is_none_or(|shown| !(0..=count).contains(&shown)) {
            self.report(Invariant::NoPhantom, now, node, || {
                format!("{} counts {shown:?} where its increments add up to {count}", target.id())
            });
        }
    }

    /// A disk was set back, or is gone for good: what it alone held nobody could keep.
    pub(crate) fn excuse(&mut self, lost: impl IntoIterator<Item = ChangeNo>, others: &[usize]) {
        for number in lost {
            let elsewhere = others.iter().any(|&other| self.tap.nodes[other].durable.contains(&number));
            if !elsewhere && let Some(id) = self.tap.change(number).write {
                self.ledger.excuse(id);
            }
        }
    }
}

/// What a write adds to its document's counter.
fn incremented(write: &Write) -> i64 {
    if write.operation.action == Action::Increment { increment_of(write.operation.id) } else { 0 }
}

pub(super) fn must_be_kept(write: &Write) -> bool {
    matches!(write.outcome, Outcome::Acknowledged { changed: true, .. }) && !write.excused
}
