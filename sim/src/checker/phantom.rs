//! Every value traces to an attempted write.

use knot_engine::Instant;
use serde_json::Value;

use super::{Checkers, Invariant, Seen};
use crate::scenario::Target;
use crate::tap::ChangeNo;

impl Checkers {
    /// A change is about to be stored: somebody asked for it.
    pub(super) fn check_traces(&mut self, node: usize, number: ChangeNo, now: Instant) {
        let change = self.tap.change(number);
        let known = change.is_forged || change.write.is_some_and(|id| self.ledger.get(id).is_some());
        if !known {
            let hash = change.hash;
            self.report(Invariant::NoPhantom, now, node, || format!("nobody asked for {hash}"));
        }
    }

    /// At the end: no refused write is in a history, and each field was written to this document.
    pub(super) fn check_phantoms(&mut self, node: usize, target: &Target, seen: &Seen, now: Instant) {
        for &id in &seen.history {
            if self.ledger.get(id).is_none_or(|write| !write.may_show_in(target)) {
                let write = self.describe(id);
                self.report(Invariant::NoPhantom, now, node, || {
                    format!("the history of {} holds {write}", target.id())
                });
            }
        }
        if let Some(value) = &seen.value {
            self.check_fields(node, target, value, now);
        }
    }

    /// Each of the fields of a value was written to this document, by a write that was not refused.
    pub(crate) fn check_fields(&mut self, node: usize, target: &Target, value: &Value, now: Instant) {
        if !self.values_are_own {
            return;
        }
        for id in written_fields(value) {
            let write = self.ledger.get(id);
            if write.is_none_or(|write| !write.may_show_in(target)) {
                let write = self.describe(id);
                self.report(Invariant::NoPhantom, now, node, || {
                    format!("{} shows {write}, which was not written to it", target.id())
                });
            }
        }
    }
}

/// The numbers of the writes whose fields a value shows, at the top and within `nest`.
pub(crate) fn written_fields(value: &Value) -> Vec<u32> {
    let objects = [Some(value), value.get("nest")];
    let fields = objects.into_iter().flatten().filter_map(Value::as_object);
    fields.flat_map(|object| object.keys()).filter_map(|key| key.strip_prefix('w')?.parse().ok()).collect()
}
