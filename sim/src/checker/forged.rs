//! What counts of a document to which a hostile member has added follows from the rules alone.

use std::collections::BTreeMap;

use knot_engine::documents::{ChangeKind, DocumentId};
use knot_engine::{ChangeHash, Instant};
use serde_json::{Map, Value};

use super::{Checkers, Invariant, Seen};
use crate::hostile::rules::{Changes, Why, condemned};
use crate::hostile::{Content, Hostile};
use crate::scenario::Target;

impl Checkers {
    /// A hostile member has made changes, these and perhaps more.
    pub(crate) fn on_forged(&mut self, hostile: &Hostile) {
        self.genesis.extend(hostile.genesis());
        self.tap.on_forged(hostile.hashes());
    }

    /// At the end: every server has condemned the same changes of a document, those that the rules condemn, and shows what
    /// the others make. `own` documents are those that only the hostile member writes.
    pub(crate) fn check_forged(
        &mut self,
        hostile: &Hostile,
        target: &Target,
        replicas: &[(usize, Seen)],
        now: Instant,
    ) {
        let own = hostile.own().any(|own| own == target);
        let fails =
            |hash: &ChangeHash| hostile.forged(hash).is_some_and(|forged| matches!(forged.content, Content::Into(..)));
        for (node, seen) in replicas {
            let changes = self.changes_of(seen);
            let condemned = condemned(&changes, fails);
            for (hash, header) in &changes {
                let said = seen.changes.get(hash).cloned().flatten();
                let due = condemned.get(hash);
                let right = match (&said, due) {
                    (None, None) => true,
                    (Some(said), Some(Why::Itself(why))) => *said == why.to_string(),
                    (Some(_), Some(Why::Others)) => true,
                    (Some(_), None) | (None, Some(_)) => false,
                };
                if !right {
                    let target = target.id();
                    self.report(Invariant::ForgedJudged, now, *node, || {
                        format!("{hash} of {target} is {said:?}, and by the rules {due:?}: {header:?}")
                    });
                    return;
                }
            }
            if own {
                let due = value_of(hostile, &changes, &condemned.into_keys().collect());
                if due != seen.value {
                    let (target, shown) = (target.id(), &seen.value);
                    self.report(Invariant::ForgedJudged, now, *node, || {
                        format!("{target} shows {shown:?}, and its changes make {due:?}")
                    });
                }
            }
        }
        if let Some(((first, one), others)) = replicas.split_first() {
            for (node, other) in others {
                self.check_equal(target, (*first, one), (*node, other), now);
            }
        }
    }

    /// At the end: a server counts this many changes in quarantine, and these of each document.
    pub(crate) fn check_quarantine(&mut self, node: usize, counted: u64, listed: &[(DocumentId, u32)], now: Instant) {
        let sum: u64 = listed.iter().map(|(_, count)| u64::from(*count)).sum();
        if sum != counted {
            self.report(Invariant::ForgedJudged, now, node, || {
                format!("it counts {counted} changes in quarantine, and {sum} by their documents: {listed:?}")
            });
        }
    }

    fn changes_of(&self, seen: &Seen) -> Changes {
        let numbers = seen.changes.keys().filter_map(|hash| self.tap.number_of(hash));
        let headers = numbers.filter_map(|number| self.tap.header(&self.tap.change(number).bytes));
        headers.map(|header| (header.hash, header)).collect()
    }
}

/// What the changes that count make: of each member the write with the greatest operation; none where all that is not
/// built on is a delete.
fn value_of(hostile: &Hostile, changes: &Changes, condemned: &std::collections::BTreeSet<ChangeHash>) -> Option<Value> {
    let live = || changes.iter().filter(|(hash, _)| !condemned.contains(hash));
    let is_head = |hash: &ChangeHash| !live().any(|(_, header)| header.deps.contains(hash));
    let edited = live().any(|(hash, header)| is_head(hash) && header.kind == ChangeKind::Edit);
    if !edited {
        return None;
    }
    let mut written: BTreeMap<&str, ((u64, &[u8]), u64)> = BTreeMap::new();
    for (hash, header) in live() {
        let Some(Content::Writes(writes)) = hostile.forged(hash).map(|forged| &forged.content) else { continue };
        for (counter, (key, value)) in (header.start_op..).zip(writes) {
            let write = ((counter, &header.actor.0[..]), *value);
            let standing = written.entry(key).or_insert(write);
            *standing = (*standing).max(write);
        }
    }
    let members: Map<String, Value> =
        written.into_iter().map(|(key, (_, value))| (key.to_owned(), value.into())).collect();
    Some(Value::Object(members))
}
