//! A server shows what it has acknowledged.

use std::collections::BTreeSet;

use knot_engine::Instant;
use serde_json::Value;

use super::phantom::written_fields;
use super::{Checkers, Invariant};
use crate::ledger::{Outcome, Write};
use crate::scenario::{Action, Target};

impl Checkers {
    /// A read that was asked for at `asked` is answered; none where there is no document. `since` is when the server's
    /// disk was last set back.
    pub(crate) fn check_read(
        &mut self,
        (node, since): (usize, Instant),
        target: &Target,
        value: Option<&Value>,
        asked: Instant,
        now: Instant,
    ) {
        if let Some(value) = value {
            self.check_fields(node, target, value, now);
        }
        if !target.only_grows() {
            return;
        }
        let shown: BTreeSet<u32> = value.map(written_fields).unwrap_or_default().into_iter().collect();
        self.check_causes(node, target, &shown, now);
        let acknowledged = |write: &&Write| {
            write.operation.node == node
                && write.operation.action != Action::Increment
                && matches!(write.outcome, Outcome::Acknowledged { at, changed: true } if at > since && at <= asked)
        };
        let mut writes = self.ledger.writes_to(target).filter(acknowledged).map(|write| write.operation.id);
        let missing = writes.find(|id| !shown.contains(id));
        drop(writes);
        if let Some(missing) = missing {
            let write = self.describe(missing);
            self.report(Invariant::ReadsOwnWrites, now, node, || {
                format!("a read that was asked for at {asked} does not show {write}")
            });
        }
    }
}
