//! Who sees an effect sees its causes: a document that is only added to shows, with each write, all that its author saw.

use std::collections::BTreeSet;

use knot_engine::Instant;

use super::{Checkers, Invariant};
use crate::scenario::{Action, Target};
use crate::tap::ChangeNo;

impl Checkers {
    /// A server shows these writes of a document that is only added to.
    pub(super) fn check_causes(&mut self, node: usize, target: &Target, shown: &BTreeSet<u32>, now: Instant) {
        let mut open: Vec<ChangeNo> = shown.iter().filter_map(|id| self.tap.number_of_write(*id)).collect();
        let mut seen: BTreeSet<ChangeNo> = open.iter().copied().collect();
        let mut missing = None;
        while let Some(number) = open.pop() {
            let change = self.tap.change(number);
            let hidden = change.write.filter(|id| !shown.contains(id));
            if let Some(id) = hidden
                && self.ledger.get(id).is_some_and(|write| write.operation.action != Action::Increment)
            {
                missing = Some(id);
                break;
            }
            let causes = change.deps.iter().filter_map(|dep| self.tap.number_of(dep));
            open.extend(causes.filter(|cause| seen.insert(*cause)));
        }
        if let Some(id) = missing {
            let write = self.describe(id);
            self.report(Invariant::CausalReads, now, node, || {
                format!("{} shows what was written after {write}, and not that", target.id())
            });
        }
    }
}
