//! A document as of its latest changes is the document as it is read.

use std::collections::{BTreeMap, BTreeSet};

use knot_engine::documents::Document;
use knot_engine::{ChangeHash, HistoryEntry, ReadError, ReadId, VersionView};
use serde_json::Value;

use super::{Process, World};
use crate::checker::Invariant;
use crate::node::ReadFor;
use crate::scenario::Target;

impl<D: Document> World<D> {
    /// Asks a server for the version that its history ends with; the answer has to be what it showed.
    pub(super) fn look_at_version(&mut self, node: usize, target: &Target, history: &[HistoryEntry], value: &Value) {
        let (id, now) = (target.id(), self.now);
        let local = self.nodes[node].clock.read(now);
        let Some(running) = &mut self.nodes[node].running else { return };
        let version = running.engine.version(&id, heads(history), local);
        running.reads.insert(version, ReadFor::AuditVersion(target.clone(), value.clone()));
        let process = Process { node, start: running.start };
        self.drain(process);
    }

    pub(super) fn on_version(&mut self, process: Process, read: ReadId, answer: Result<VersionView, ReadError>) {
        let Some(running) = &mut self.nodes[process.node].running else { return };
        let Some(ReadFor::AuditVersion(target, value)) = running.reads.remove(&read) else { return };
        let is_same = answer.as_ref().is_ok_and(|view| view.value == value && !view.deleted);
        // A disk that cannot be read answers nothing.
        if is_same || answer == Err(ReadError::Unreadable) {
            return;
        }
        self.checkers.report(Invariant::Convergence, self.now, process.node, || {
            format!("{} as of its latest changes is {answer:?}, and reads show {value}", target.id())
        });
    }
}

/// The changes that count and that no other depends on.
fn heads(history: &[HistoryEntry]) -> Vec<ChangeHash> {
    let counted: BTreeMap<&str, &HistoryEntry> =
        history.iter().filter(|entry| entry.quarantine.is_none()).map(|entry| (entry.hash.as_str(), entry)).collect();
    let seen: BTreeSet<&str> = counted.values().flat_map(|entry| entry.deps.iter().map(String::as_str)).collect();
    counted.keys().filter(|hash| !seen.contains(*hash)).filter_map(|hash| hash.parse().ok()).collect()
}
