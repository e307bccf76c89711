//! When faults have stopped, replicas become equal and views complete, within a stated time.

use std::collections::BTreeMap;
use std::time::Duration;

use knot_engine::documents::Conflict;
use knot_engine::membership::{Member, Status};
use knot_engine::{ChangeHash, Etag, Instant, ScopeStatus};
use serde_json::Value;

use super::{Checkers, Invariant};
use crate::scenario::Target;

/// Isolated and failed members are tried again within this time.
const RETRY: Duration = Duration::from_secs(30);
/// Nobody is declared failed for this long while many seem to be.
const FREEZE: Duration = Duration::from_secs(30);
/// A suspicion takes up to this long in a cluster of ten, by the membership's formula: 6 x 4 s x log10(n).
const SUSPICION: Duration = Duration::from_secs(24);
/// Three probes that differ, a session, and its retries.
const REPAIR: Duration = Duration::from_secs(20);

/// How long replicas that differ may leave it at that, where nothing is wrong: as long as a repair may take.
pub(crate) const REST: Duration = REPAIR;

/// How long a cluster of `nodes` may take to settle: a retry on either side, a freeze, a suspicion, two rounds of probes,
/// a repair. Local health may stretch a round.
#[must_use]
pub fn settle_bound(nodes: usize) -> Duration {
    let decades = if nodes > 10 { 2 } else { 1 };
    let count = u32::try_from(nodes).unwrap_or(u32::MAX);
    2 * RETRY + FREEZE + decades * SUSPICION + 2 * count * Duration::from_secs(1) + REPAIR
}

/// What a live server says of itself, and holds.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) node: usize,
    pub(crate) me: Member,
    pub(crate) scopes: Vec<ScopeStatus>,
}

/// What a server shows of one document.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// Its state; none when it never existed here.
    pub(crate) etag: Option<Etag>,
    /// Its value; none when it is deleted or does not exist.
    pub(crate) value: Option<Value>,
    /// The writes in its history.
    pub(crate) history: Vec<u32>,
    /// All changes in its history, and why those that do not count are in quarantine.
    pub(crate) changes: BTreeMap<ChangeHash, Option<String>>,
    /// Its places that hold more than one value.
    pub(crate) conflicts: Vec<Conflict>,
    /// Whether an edit that a delete had not seen brought it back.
    pub(crate) revived: bool,
}

impl Checkers {
    /// Why the view that a live server has of the members is not complete; none when it is. `live` are all such servers in
    /// the order of their numbers.
    pub(crate) fn view_gap(
        &self,
        node: usize,
        members: &[Member],
        live: &[Replica],
    ) -> Option<(Invariant, usize, String)> {
        let gap = |detail: String| Some((Invariant::MembershipComplete, node, detail));
        let mut seen: Vec<Option<&Member>> = vec![None; self.node_ids.len()];
        for member in members {
            if let Some(node) = self.former_ids.get(&member.record.node) {
                if member.status <= Status::Suspect {
                    return gap(format!("the machine that was n{node} is gone and is not seen as failed"));
                }
            } else if let Some(place) = self.node_of(member.record.node).and_then(|node| seen.get_mut(node)) {
                *place = Some(member);
            }
        }
        let mut live = live.iter().peekable();
        for (node, seen) in seen.into_iter().enumerate().filter(|(node, _)| !self.outside.contains(node)) {
            match (live.next_if(|other| other.node == node), seen) {
                (Some(_), None) => return gap(format!("n{node} lives and is not known")),
                (Some(other), Some(member)) => {
                    if member.status != Status::Alive {
                        return gap(format!("n{node} lives and is seen as {:?}", member.status));
                    }
                    if member.record.boot != other.me.record.boot
                        || member.record.addresses != other.me.record.addresses
                    {
                        let (has, says) = (member.record.incarnation, other.me.record.incarnation);
                        return gap(format!("n{node} is known by an earlier start ({has}, it is at {says})"));
                    }
                }
                (None, Some(member)) if member.status <= Status::Suspect => {
                    return gap(format!("n{node} is dead and is seen as {:?}", member.status));
                }
                (None, _) => {}
            }
        }
        None
    }

    /// A server has begun no repair and stored nothing for [`REST`], and nothing was wrong: it lacks nothing that one of
    /// those that run has and it may have too.
    pub(crate) fn check_rest(&mut self, node: usize, running: &[usize], now: Instant) {
        let zone = self.zones[node].as_str();
        let may_have = |id: u32| {
            let write = self.ledger.get(id);
            write.is_some_and(|write| write.operation.target.is_held_in(zone) && now.since(write.asked) >= REST)
        };
        let held = &self.tap.nodes[node].durable;
        let lacks = |other: usize| {
            let mut changes =
                self.tap.nodes[other].durable.difference(held).filter_map(|&no| self.tap.change(no).write);
            changes.find(|id| may_have(*id)).map(|id| (other, id))
        };
        if let Some((other, id)) = running.iter().find_map(|&other| lacks(other)) {
            let write = self.describe(id);
            self.report(Invariant::Convergence, now, node, || {
                format!("it lacks {write}, which n{other} has, and has done nothing about it for {REST:?}")
            });
        }
    }

    /// At the end: what one server shows of a document equals what another shows.
    pub(super) fn check_equal(
        &mut self,
        target: &Target,
        (first, one): (usize, &Seen),
        (node, other): (usize, &Seen),
        now: Instant,
    ) {
        if one.conflicts != other.conflicts || one.revived != other.revived {
            self.report(Invariant::Convergence, now, node, || {
                let shown = |seen: &Seen| format!("{:?}, came back: {}", seen.conflicts, seen.revived);
                format!("conflicts of {} are {} here and {} on n{first}", target.id(), shown(other), shown(one))
            });
        }
        if one.etag != other.etag || one.value != other.value {
            self.report(Invariant::Convergence, now, node, || {
                format!(
                    "{} is {:?} {:?} here and {:?} {:?} on n{first}",
                    target.id(),
                    other.etag,
                    other.value,
                    one.etag,
                    one.value
                )
            });
        }
    }
}

/// Why these replicas do not hold the same; none when they do. Whether they count the same documents as deleted is left
/// out where not `all_tried`: what does not apply is found out by those who read it.
pub(crate) fn root_gap(replicas: &[Replica], all_tried: bool) -> Option<(Invariant, usize, String)> {
    let mut first: BTreeMap<&str, (usize, &ScopeStatus)> = BTreeMap::new();
    for replica in replicas {
        for scope in &replica.scopes {
            let (node, known) = *first.entry(&scope.scope).or_insert((replica.node, scope));
            let alike = if all_tried { known == scope } else { known.root == scope.root };
            if !alike {
                let detail = format!("{scope:?} here and {known:?} on n{node}");
                return Some((Invariant::Convergence, replica.node, detail));
            }
        }
    }
    None
}
