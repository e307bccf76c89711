//! What a server says of itself: lists of documents, the hash of its view, whether others hold all that it does, queues.

use std::collections::BTreeSet;

use knot_engine::membership::{Member, Status};
use knot_engine::{Instant, Queue};

use super::{Checkers, Invariant};

/// Keys in a page of the lists that are compared.
const PAGE: usize = 3;
/// Queues in which something may stay: streams are open, and what an orphan depends on may never come.
const NEVER_EMPTY: [&str; 3] = ["sessions", "orphans", "orphan_bytes"];

impl Checkers {
    /// At the end: a server that shows these keys of a collection lists them, in order, at once and in pages.
    pub(crate) fn check_list(
        &mut self,
        (node, collection): (usize, &str),
        keys: &BTreeSet<&str>,
        list: impl Fn(&str, Option<&str>, usize) -> Vec<String>,
        now: Instant,
    ) {
        let due: Vec<&str> = keys.iter().copied().collect();
        let mut paged: Vec<String> = Vec::new();
        loop {
            let page = list("", paged.last().map(String::as_str), PAGE);
            let is_last = page.len() < PAGE;
            paged.extend(page);
            if is_last || paged.len() > due.len() {
                break;
            }
        }
        let prefix = due.last().map(|key| &key[..key.len().min(2)]).unwrap_or_default();
        let begin_so: Vec<&str> = due.iter().copied().filter(|key| key.starts_with(prefix)).collect();
        for (what, listed, due) in [
            ("at once", list("", None, usize::MAX), &due),
            ("in pages", paged, &due),
            (prefix, list(prefix, None, usize::MAX), &begin_so),
        ] {
            if listed != *due {
                self.report(Invariant::ViewsAgree, now, node, || {
                    format!("{collection} is listed as {listed:?} ({what}), and has {due:?}")
                });
            }
        }
    }

    /// At the end: two servers that believe the same of all members have the same hash of them.
    pub(crate) fn check_beliefs(&mut self, beliefs: &[(usize, Vec<Member>, u64)], now: Instant) {
        let Some(((first, members, hash), others)) = beliefs.split_first() else { return };
        for (node, other, other_hash) in others {
            let same =
                members.len() == other.len() && members.iter().zip(other).all(|(one, other)| is_same(one, other));
            if same && hash != other_hash {
                self.report(Invariant::ViewsAgree, now, *node, || {
                    format!(
                        "it believes the same of all members as n{first}; their hashes are {other_hash:x} and {hash:x}"
                    )
                });
            }
        }
    }

    /// When a cluster that has settled has been left alone: a server waits for nothing, and others hold all that it does.
    pub(crate) fn check_at_rest(&mut self, node: usize, queues: &[Queue], held_elsewhere: bool, now: Instant) {
        for queue in queues.iter().filter(|queue| queue.depth > 0 && !NEVER_EMPTY.contains(&queue.name)) {
            self.report(Invariant::ViewsAgree, now, node, || {
                format!("nothing is asked of it, and {} holds {}", queue.name, queue.depth)
            });
        }
        if !held_elsewhere {
            self.report(Invariant::ViewsAgree, now, node, || {
                "it does not know that others hold all it does".to_owned()
            });
        }
    }
}

/// Whether two servers believe the same of a member. Who is suspected is still believed to live.
fn is_same(one: &Member, other: &Member) -> bool {
    let belief = |member: &Member| {
        let record = &member.record;
        (record.node, record.boot, record.incarnation, member.status.max(Status::Suspect), member.durable)
    };
    belief(one) == belief(other)
}
