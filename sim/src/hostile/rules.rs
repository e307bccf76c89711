//! Which changes of a document count, said a second time: from sets, and not in the order in which they came.
//!
//! The engine's gate decides change by change as they arrive, with indexes and a graph that grows. This takes all changes
//! that there are at the end and applies the same rules by their definition, so that a slip on either side shows.

use std::collections::{BTreeMap, BTreeSet};

use knot_engine::ChangeHash;
use knot_engine::documents::gate::OPERATION_COUNTER_MAX;
use knot_engine::documents::{Actor, CHANGE_DEPS_MAX, CHANGE_OPS_MAX, ChangeHeader, Quarantine};

/// A document's changes without its genesis.
pub(crate) type Changes = BTreeMap<ChangeHash, ChangeHeader>;

/// Why a change does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It breaks a rule by itself, and is called by that everywhere.
    Itself(Quarantine),
    /// What it depends on does not count, or another of its author has its number. Where both hold, which is said
    /// depends on what came first.
    Others,
}

/// The changes that do not count, and why. `fails` names those that pass all rules and then do not apply.
pub(crate) fn condemned(changes: &Changes, fails: impl Fn(&ChangeHash) -> bool) -> BTreeMap<ChangeHash, Why> {
    let mut condemned = BTreeMap::new();
    let mut stands: BTreeMap<(&[u8], u64), ChangeHash> = BTreeMap::new();
    for (hash, header) in changes {
        match breaks(changes, header) {
            Some(why) => drop(condemned.insert(*hash, Why::Itself(why))),
            // The lowest hash comes first.
            None => drop(stands.entry((&header.actor.0[..], header.seq)).or_insert(*hash)),
        }
    }
    for (hash, header) in changes {
        let first = stands.get(&(&header.actor.0[..], header.seq));
        if !condemned.contains_key(hash) && (first != Some(hash) || fails(hash)) {
            condemned.insert(*hash, Why::Others);
        }
    }
    loop {
        let falls = |(hash, header): &(&ChangeHash, &ChangeHeader)| {
            !condemned.contains_key(hash) && header.deps.iter().any(|dep| condemned.contains_key(dep))
        };
        let more: Vec<ChangeHash> = changes.iter().filter(falls).map(|(hash, _)| *hash).collect();
        if more.is_empty() {
            return condemned;
        }
        condemned.extend(more.into_iter().map(|hash| (hash, Why::Others)));
    }
}

/// The rule that a change breaks whatever else there is.
fn breaks(changes: &Changes, header: &ChangeHeader) -> Option<Quarantine> {
    if header.ops > CHANGE_OPS_MAX || header.deps.len() > CHANGE_DEPS_MAX {
        return Some(Quarantine::TooLarge);
    }
    if header.actor.node().is_none() {
        return Some(Quarantine::UnboundActor);
    }
    let deps = || header.deps.iter().filter_map(|dep| changes.get(dep));
    let last = deps().map(last_op).max().unwrap_or(0);
    if header.start_op != last.saturating_add(1) || last_op(header) > OPERATION_COUNTER_MAX {
        return Some(Quarantine::OperationCounter);
    }
    let follows = header.seq == 1 || deps().any(|dep| dep.actor == header.actor && dep.seq + 1 == header.seq);
    let before = ancestors(changes, &header.deps);
    let before = || before.iter().filter_map(|hash| changes.get(hash));
    if !follows || before().any(|other| other.actor == header.actor && other.seq == header.seq) {
        return Some(Quarantine::SequenceGap);
    }
    let known = |actor: &Actor| before().any(|other| other.actor == *actor);
    (!header.refers_to.iter().all(known)).then_some(Quarantine::UnknownActor)
}

/// Those changes, and all that they build on.
pub(crate) fn ancestors(changes: &Changes, of: &[ChangeHash]) -> BTreeSet<ChangeHash> {
    let mut found = BTreeSet::new();
    let mut left = of.to_vec();
    while let Some(hash) = left.pop() {
        if let Some(header) = changes.get(&hash).filter(|_| found.insert(hash)) {
            left.extend(&header.deps);
        }
    }
    found
}

/// The counter of a change's last operation; where it has none, of the last before it.
pub(crate) fn last_op(header: &ChangeHeader) -> u64 {
    (header.start_op - 1).saturating_add(header.ops)
}
