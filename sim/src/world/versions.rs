//! Earlier versions of a document: as of its latest changes it is as it is read, and as of one change it is alike on all
//! servers that hold that.

use std::collections::{BTreeMap, BTreeSet};

use knot_engine::documents::Document;
use knot_engine::{ChangeHash, HistoryEntry, ReadError, ReadId, VersionView};

use super::{Process, World};
use crate::checker::Invariant;
use crate::node::ReadFor;
use crate::scenario::Target;

/// What a server shows of one version; none where it may fail to.
type Shown = Option<Result<VersionView, ReadError>>;

impl<D: Document> World<D> {
    /// Asks servers for the version that their history ends with, which has to be what they show, and for one before.
    pub(super) fn look_at_versions(&mut self, target: &Target) {
        let audit = std::mem::take(&mut self.audit);
        let read = |node: &usize| audit.values.get(node).and_then(|answer| answer.as_ref().ok());
        let histories = || audit.histories.iter().filter_map(|(node, history)| Some((*node, history, read(node)?)));
        for (node, history, _) in histories() {
            self.ask_version(node, target, heads(history));
        }
        let latest = self.await_versions();
        for (node, _, view) in histories() {
            let Some(Some(shown)) = latest.get(&node) else { continue };
            if !shown.as_ref().is_ok_and(|shown| shown.value == view.value && !shown.deleted) {
                self.checkers.report(Invariant::Convergence, self.now, node, || {
                    format!("{} as of its latest changes is {shown:?}, and reads show {}", target.id(), view.value)
                });
            }
        }
        if let Some(hash) = common(histories().map(|(_, history, _)| history.as_slice())) {
            for (node, ..) in histories() {
                self.ask_version(node, target, vec![hash]);
            }
            let earlier = self.await_versions();
            let mut shown = earlier.iter().filter_map(|(node, shown)| Some((node, shown.as_ref()?)));
            if let Some((first, one)) = shown.next()
                && let Some((node, other)) = shown.find(|(_, other)| *other != one)
            {
                self.checkers.report(Invariant::Convergence, self.now, *node, || {
                    format!("{} as of {hash} is {other:?}, and on n{first} {one:?}", target.id())
                });
            }
        }
        self.audit = audit;
    }

    fn ask_version(&mut self, node: usize, target: &Target, heads: Vec<ChangeHash>) {
        let local = self.nodes[node].clock.read(self.now);
        let Some(running) = &mut self.nodes[node].running else { return };
        let version = running.engine.version(&target.id(), heads, local);
        running.reads.insert(version, ReadFor::AuditVersion);
        self.audit.versions_asked += 1;
        let process = Process { node, start: running.start };
        self.drain(process);
    }

    pub(super) fn on_version(&mut self, process: Process, read: ReadId, answer: Result<VersionView, ReadError>) {
        let Some(running) = &mut self.nodes[process.node].running else { return };
        if let Some(ReadFor::AuditVersion) = running.reads.remove(&read) {
            let is_excused = match &answer {
                Err(ReadError::Unreadable) => self.nodes[process.node].disk.reads_fail,
                // What is forged may be tried, and put in quarantine, only now.
                Err(ReadError::NotApplied(_)) => self.hostile.has_forged(),
                Ok(_) | Err(_) => false,
            };
            self.audit.versions.insert(process.node, (!is_excused).then_some(answer));
        }
    }

    fn await_versions(&mut self) -> BTreeMap<usize, Shown> {
        self.await_answers(|audit| audit.versions.len() >= audit.versions_asked);
        self.audit.versions_asked = 0;
        std::mem::take(&mut self.audit.versions)
    }
}

/// The changes that count and that no other depends on.
fn heads(history: &[HistoryEntry]) -> Vec<ChangeHash> {
    let counted: BTreeMap<&str, &HistoryEntry> = counted(history).map(|entry| (entry.hash.as_str(), entry)).collect();
    let seen: BTreeSet<&str> = counted.values().flat_map(|entry| entry.deps.iter().map(String::as_str)).collect();
    counted.keys().filter(|hash| !seen.contains(*hash)).filter_map(|hash| hash.parse().ok()).collect()
}

fn counted(history: &[HistoryEntry]) -> impl Iterator<Item = &HistoryEntry> {
    history.iter().filter(|entry| entry.quarantine.is_none())
}

/// One of the changes that count in all of these histories: the one in their middle.
fn common<'a>(mut histories: impl Iterator<Item = &'a [HistoryEntry]>) -> Option<ChangeHash> {
    let hashes =
        |history: &'a [HistoryEntry]| counted(history).map(|entry| entry.hash.as_str()).collect::<BTreeSet<_>>();
    let first = hashes(histories.next()?);
    let all = histories.fold(first, |all, history| all.intersection(&hashes(history)).copied().collect());
    all.iter().nth(all.len() / 2)?.parse().ok()
}
