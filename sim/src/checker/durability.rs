//! Durable first: before it is acknowledged, before it is sent, and never without what it depends on.

use bytes::Bytes;
use knot_engine::{Edited, Instant, NodeId};

use super::{Checkers, Invariant};
use crate::disk::Batch;
use crate::tap::ChangeNo;

impl Checkers {
    /// A batch goes to a server's disk.
    pub(crate) fn on_persist(&mut self, node: usize, batch: &Batch, now: Instant) {
        let changes = self.tap.read(&batch.writes);
        for &number in &changes {
            self.check_identity(node, number, now);
            self.check_traces(node, number, now);
            self.check_author_had_it(node, number, now);
        }
        self.tap.on_persist(node, &changes);
        for &number in &changes {
            self.check_dependencies(node, number, now);
        }
    }

    /// What came from another server was durable at its author first.
    fn check_author_had_it(&mut self, node: usize, number: ChangeNo, now: Instant) {
        let change = self.tap.change(number);
        if change.is_forged {
            return;
        }
        let (author, hash) = (change.author, change.hash);
        let Some(author) = author.and_then(|id| self.node_of(id)) else {
            return;
        };
        let had_it = |machine: usize| self.tap.nodes[machine].ever_durable.contains(&number);
        let is_author = |id: &NodeId| self.node_of(*id) == Some(author);
        let is_own = is_author(&self.server_on(node));
        if !is_own && !had_it(author) && !self.ever_had(number).iter().any(is_author) {
            self.report(Invariant::DurableBeforeSent, now, author, || {
                format!("n{node} stores {hash}, which is not durable at its author n{author}")
            });
        }
    }

    fn check_dependencies(&mut self, node: usize, number: ChangeNo, now: Instant) {
        let change = self.tap.change(number);
        let missing = change.deps.iter().copied().find(|dep| {
            let held = self.tap.number_of(dep);
            !self.genesis.contains(dep) && held.is_none_or(|dep| !self.tap.nodes[node].asked.contains(&dep))
        });
        if let Some(missing) = missing {
            let hash = change.hash;
            self.report(Invariant::LogClosed, now, node, || {
                format!("{hash} is stored without {missing}, which it depends on")
            });
        }
    }

    /// A server sends a frame: it holds nothing that is not durable there.
    pub(crate) fn check_sent(&mut self, node: usize, frame: &Bytes, now: Instant) {
        let held = &self.tap.nodes[node];
        let early = held.in_flight.iter().copied().find(|&number| {
            let bytes = &self.tap.change(number).bytes;
            bytes.len() <= frame.len() && contains(frame, bytes)
        });
        if let Some(number) = early {
            let hash = self.tap.change(number).hash;
            self.report(Invariant::DurableBeforeSent, now, node, || {
                format!("a frame holds {hash}, which is not durable here")
            });
        }
    }

    /// A write is acknowledged: its change is durable here, and at as many peers as the answer says.
    pub(crate) fn check_acknowledged(&mut self, node: usize, id: u32, edited: &Edited, now: Instant) {
        if !edited.changed {
            return;
        }
        let here = self.change_of_write(node, id);
        let Some(number) = here else {
            let write = self.describe(id);
            self.report(Invariant::DurableBeforeAcknowledged, now, node, || format!("{write} is not durable here"));
            return;
        };
        let here = self.server_on(node);
        let peers = self.ever_had(number).into_iter().filter(|peer| *peer != here).count();
        let asked = self.ledger.get(id).map_or(0, |write| write.operation.replicas);
        let said = if edited.replicated { edited.held_by.max(asked) } else { edited.held_by };
        if peers < said {
            let write = self.describe(id);
            self.report(Invariant::DurableBeforeAcknowledged, now, node, || {
                format!("{write} is said to be held by {said} peers, and is by {peers}")
            });
        }
    }

    fn change_of_write(&self, node: usize, id: u32) -> Option<ChangeNo> {
        // The latest changes have the greatest numbers.
        let durable = self.tap.nodes[node].durable.iter().rev().copied();
        durable.into_iter().find(|&number| self.tap.change(number).write == Some(id))
    }
}

/// Whether `needle` is in `hay`. Changes begin alike, so their middle is compared first.
pub(super) fn contains(hay: &[u8], needle: &[u8]) -> bool {
    let Some((&first, _)) = needle.split_first() else {
        return true;
    };
    let middle = needle.len() / 2;
    hay.windows(needle.len()).any(|window| window[0] == first && window[middle] == needle[middle] && window == needle)
}
