//! When faults have stopped, replicas become equal and views complete, within a stated time.

use std::collections::BTreeMap;
use std::time::Duration;

use knot_engine::membership::{Member, Status};
use knot_engine::{Etag, Instant, NodeId, ScopeStatus};
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

/// How long a cluster of `nodes` may take to settle: a retry on either side, a freeze, a suspicion, two rounds of probes,
/// a repair. Local health may stretch a round.
#[must_use]
pub fn settle_bound(nodes: usize) -> Duration {
    let decades = if nodes > 10 { 2 } else { 1 };
    let count = u32::try_from(nodes).unwrap_or(u32::MAX);
    2 * RETRY + FREEZE + decades * SUSPICION + 2 * count * Duration::from_secs(1) + REPAIR
}

/// A live server's view, for comparison.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) node: usize,
    pub(crate) me: Member,
    pub(crate) scopes: Vec<ScopeStatus>,
    pub(crate) members: Vec<Member>,
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
}

impl Checkers {
    /// Why these replicas have not settled; none when they have.
    pub(crate) fn difference(&self, replicas: &[Replica]) -> Option<(Invariant, usize, String)> {
        replicas.iter().find_map(|replica| self.view_gap(replica, replicas)).or_else(|| root_gap(replicas))
    }

    fn view_gap(&self, replica: &Replica, live: &[Replica]) -> Option<(Invariant, usize, String)> {
        let seen: BTreeMap<NodeId, &Member> =
            replica.members.iter().map(|member| (member.record.node, member)).collect();
        let gap = |detail: String| Some((Invariant::MembershipComplete, replica.node, detail));
        let lost =
            self.former_ids.iter().find(|(id, _)| seen.get(id).is_some_and(|member| member.status <= Status::Suspect));
        if let Some((_, node)) = lost {
            return gap(format!("the machine that was n{node} is gone and is not seen as failed"));
        }
        let promised = self.node_ids.iter().enumerate().filter(|(node, _)| !self.outside.contains(node));
        for (node, id) in promised {
            let other = live.iter().find(|other| other.node == node);
            match (other, seen.get(id)) {
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

    /// At the end: what one server shows of a document equals what another shows.
    pub(super) fn check_equal(
        &mut self,
        target: &Target,
        (first, one): (usize, &Seen),
        (node, other): (usize, &Seen),
        now: Instant,
    ) {
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

fn root_gap(replicas: &[Replica]) -> Option<(Invariant, usize, String)> {
    let mut first: BTreeMap<&str, (usize, &ScopeStatus)> = BTreeMap::new();
    for replica in replicas {
        for scope in &replica.scopes {
            let (node, known) = *first.entry(&scope.scope).or_insert((replica.node, scope));
            if known != scope {
                let detail = format!("{scope:?} here and {known:?} on n{node}");
                return Some((Invariant::Convergence, replica.node, detail));
            }
        }
    }
    None
}
