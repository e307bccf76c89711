//! Where nothing is wrong, a write is soon on all disks that are to have it, and counted there.

use std::time::Duration;

use knot_engine::{Edited, Instant};

use super::{Checkers, Invariant, Pace};
use crate::tap::ChangeNo;

/// What servers do besides waiting for packets and commits: others ask for something too.
const OWN: Duration = Duration::from_millis(250);
/// Commits that may be in a write's way on each server: one that is under way, and its own.
const COMMITS: u32 = 2;
/// Spans that a zone is cut into on each step of a push.
const FANOUT: usize = 6;
/// Round trips of a step: a stream is opened to whoever is to pass the change on.
const STEP_ROUND_TRIPS: u32 = 3;

/// How long a write may take until it is on all disks.
pub(crate) fn spread_within(pace: &Pace, commit: Duration, full_mesh: bool) -> Duration {
    let steps = if full_mesh { 1 } else { 2 + pace.nodes.max(2).ilog(FANOUT) };
    (pace.round_trip * STEP_ROUND_TRIPS + commit * COMMITS) * steps + OWN
}

impl Checkers {
    /// A write was acknowledged so long ago, with nothing wrong before or since: it is on this server's disk.
    pub(crate) fn check_spread(&mut self, node: usize, number: ChangeNo, ago: Duration, now: Instant) {
        if !self.tap.nodes[node].durable.contains(&number) {
            let write = self.tap.change(number).write.map(|id| self.describe(id));
            self.report(Invariant::SpreadInTime, now, node, || {
                format!("it does not have {write:?}, which was acknowledged {ago:?} ago while nothing was wrong")
            });
        }
    }

    /// A write that waited for peers is answered, and there are so many that take it.
    pub(crate) fn check_replicated(&mut self, node: usize, id: u32, edited: &Edited, peers: usize, now: Instant) {
        let asked = self.ledger.get(id).map_or(0, |write| write.operation.replicas);
        if asked > 0 && peers >= asked && !edited.replicated {
            let write = self.describe(id);
            self.report(Invariant::SpreadInTime, now, node, || {
                format!("{write} waited for {asked} peers, and {peers} take it; {} are said to hold it", edited.held_by)
            });
        }
    }
}
