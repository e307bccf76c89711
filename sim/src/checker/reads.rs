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
            self.check_durable(node, target, value, now);
        }
        if !target.only_grows() {
            return;
        }
        let shown: BTreeSet<u32> = value.map(written_fields).unwrap_or_default().into_iter().collect();
        self.check_causes(node, target, &shown, now);
        self.count_read(target, &shown, asked);
        self.check_own_writes((node, since), target, &shown, asked, now);
    }

    /// A document that is only added to shows what was acknowledged here before it was asked for.
    pub(crate) fn check_own_writes(
        &mut self,
        (node, since): (usize, Instant),
        target: &Target,
        shown: &BTreeSet<u32>,
        asked: Instant,
        now: Instant,
    ) {
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

    /// What a server shows is durable there.
    fn check_durable(&mut self, node: usize, target: &Target, value: &Value, now: Instant) {
        let durable = self.tap.nodes[node].durable.iter();
        let durable: BTreeSet<u32> = durable.filter_map(|&number| self.tap.change(number).write).collect();
        let early = written_fields(value).into_iter().find(|id| !durable.contains(id));
        if let Some(early) = early {
            self.report(Invariant::DurableBeforeShown, now, node, || {
                format!("{} shows w{early}, which is not durable here", target.id())
            });
        }
    }
}
