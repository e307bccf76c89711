//! From a missed probe to a failure: suspicion, its confirmation, its end.

use std::time::Duration;

use super::Status;
use super::machine::{Membership, Timer};
use super::message::Standing;
use super::probe::Contested;
use super::suspicion::{Suspicion, longest};
use super::table::Entry;
use crate::faults::Fault;
use crate::identity::NodeId;
use crate::sometimes;
use crate::time::Instant;

/// A zone in which so many, and more than a fifth, are suspect at once has lost its network rather than its servers.
const MASS_MIN: usize = 5;
const MASS_FRACTION: usize = 5;
/// Between two looks at whether a failure that is held back may be declared.
const HOLD_STEP: Duration = Duration::from_secs(1);
/// One more wait for a member that was heard after it fell under suspicion.
const EXTENSION: Duration = Duration::from_secs(4);
/// Who was heard so lately is not believed to have failed on another's word alone.
const RECENTLY: Duration = Duration::from_secs(30);

impl Membership {
    /// Raises a suspicion, or adds this node's own to one.
    pub(super) fn suspect(&mut self, node: NodeId, refused: bool, now: Instant) {
        let Some(entry) = self.table.get(&node).filter(|entry| entry.is_live() && !entry.restored) else {
            return;
        };
        if !self.is_running() {
            return;
        }
        let standing =
            Standing { status: Status::Suspect, refused, accuser: Some(self.me.record.node), ..Standing::ALIVE };
        if entry.status == Status::Suspect {
            self.hear_accuser(node, &standing, now);
            return;
        }
        let mut fact = entry.fact();
        fact.status = Status::Suspect;
        sometimes!("member suspected");
        self.stats.suspicions += 1;
        self.install(fact, standing, now);
        self.timers.arm_by(Timer::Gossip, now);
        self.settle_refused(node, now);
    }

    /// Follows from a member becoming suspect, on whosever word. The suspect hears of it first.
    pub(super) fn begin_suspicion(&mut self, node: NodeId, standing: &Standing, now: Instant) {
        let Some(entry) = self.table.get(&node) else {
            return;
        };
        let version = entry.version();
        let carried_over = self.faults.has(Fault::SuspicionCarriedOver);
        if self.suspicions.get(&node).is_some_and(|suspicion| suspicion.version == version || carried_over) {
            self.hear_accuser(node, standing, now);
            return;
        }
        self.suspicions.insert(node, Suspicion::new(version, now));
        self.tell(node, now);
        self.hear_accuser(node, standing, now);
        // A few others look for themselves, so that a true suspicion is soon confirmed and a false one soon denied.
        let elsewhere = standing.accuser != Some(self.me.record.node);
        let among = u64::try_from(self.live()).unwrap_or(u64::MAX);
        let wanted = u64::try_from(2 * self.config.suspicion_confirmations).unwrap_or(u64::MAX);
        if elsewhere && self.random.below(among) < wanted {
            self.probe(node, false, None, now);
        }
    }

    pub(super) fn hear_accuser(&mut self, node: NodeId, standing: &Standing, now: Instant) {
        let live = self.live();
        let Some(suspicion) = self.suspicions.get_mut(&node) else {
            return;
        };
        let Some(accuser) = standing.accuser else {
            let deadline = suspicion.deadline(&self.config, live);
            self.timers.arm_by(Timer::Suspicion(node), deadline);
            return;
        };
        let confirmed = suspicion.accusers.len() > self.config.suspicion_confirmations;
        if !suspicion.accuse(accuser, standing.refused) {
            return;
        }
        let most = self.config.suspicion_confirmations;
        sometimes!("suspicion confirmed", suspicion.accusers.len() > most);
        let deadline = suspicion.deadline(&self.config, live);
        self.timers.arm(Timer::Suspicion(node), deadline);
        if !confirmed && let Some(entry) = self.table.get_mut(&node) {
            entry.accuse(Some(accuser), standing.refused);
            self.gossip.push(node, false);
            self.timers.arm_by(Timer::Gossip, now);
        }
        self.settle_refused(node, now);
    }

    /// A host that refuses this node and a second member has lost the process: there is nothing to wait for.
    fn settle_refused(&mut self, node: NodeId, now: Instant) {
        let Some(entry) = self.table.get(&node) else {
            return;
        };
        let Some(suspicion) = self.suspicions.get(&node) else {
            return;
        };
        let own = suspicion.refused.contains(&self.me.record.node) && entry.link().refused;
        let second = suspicion.refused.len() >= 2 || self.live() <= 2;
        if entry.status == Status::Suspect && own && second {
            sometimes!("refused by two");
            self.declare_failed(node, true, now);
        }
    }

    pub(super) fn on_suspicion_over(&mut self, node: NodeId, now: Instant) {
        if !self.is_running() {
            return;
        }
        if self.table.get(&node).is_some_and(|entry| entry.restored) {
            self.give_up_restored(node, now);
            return;
        }
        let Some(suspicion) = self.suspicions.get_mut(&node) else {
            return;
        };
        let Some(entry) = self.table.get(&node) else {
            return;
        };
        let stands = entry.status == Status::Suspect && entry.version() == suspicion.version;
        sometimes!("suspicion overtaken", !stands);
        if !stands && !self.faults.has(Fault::SuspicionUnchecked) {
            self.suspicions.remove(&node);
            return;
        }
        if stands {
            let heard = entry.contact().last_seen.is_some_and(|seen| seen > suspicion.since);
            if heard && !suspicion.extended {
                sometimes!("suspicion drawn out");
                suspicion.extended = !self.faults.has(Fault::SuspicionDrawnOut);
                self.timers.arm(Timer::Suspicion(node), now + EXTENSION);
                self.tell(node, now);
                self.probe(node, true, None, now);
                return;
            }
            let (since, refused) = (suspicion.since, !suspicion.refused.is_empty());
            let held = !refused && (self.seems_cut_off(now) || self.is_mass(&entry.record().zone));
            sometimes!("cut off", self.seems_cut_off(now));
            sometimes!("zone suspect at once", self.is_mass(&entry.record().zone));
            if held && now.since(since) < self.longest_hold() {
                self.timers.arm(Timer::Suspicion(node), now + HOLD_STEP);
                return;
            }
        }
        self.declare_failed(node, false, now);
    }

    fn longest_hold(&self) -> Duration {
        longest(&self.config, self.live()) + self.config.cut_off_hold
    }

    fn is_mass(&self, zone: &str) -> bool {
        let suspects = self.table.suspect_in(zone);
        suspects >= MASS_MIN && suspects * MASS_FRACTION > self.table.live_in(zone)
    }

    pub(super) fn declare_failed(&mut self, node: NodeId, refused: bool, now: Instant) {
        sometimes!("member failed");
        let accuser = Some(self.me.record.node);
        self.fail(node, &Standing { refused, accuser, ..Standing::ALIVE }, now);
    }

    /// Takes over another's word that a member failed.
    pub(super) fn believe_failed(&mut self, node: NodeId, standing: &Standing, now: Instant) {
        self.fail(node, standing, now);
    }

    fn fail(&mut self, node: NodeId, standing: &Standing, now: Instant) {
        let Some(entry) = self.table.get(&node).filter(|entry| entry.is_live()) else {
            return;
        };
        let mut fact = entry.fact();
        fact.status = Status::Failed;
        self.timers.disarm(&Timer::Suspicion(node));
        // Who accused it is told of first.
        self.install(fact, Standing { status: Status::Failed, ..*standing }, now);
        self.suspicions.remove(&node);
    }

    /// Whether this node can tell by itself how a member is: by the stream with it, or, where there are not streams with
    /// all, because it heard it a moment ago.
    pub(super) fn sees_itself(&self, entry: &Entry, now: Instant) -> bool {
        let recently = |seen: Instant| now.since(seen) <= RECENTLY;
        entry.is_open() || !self.is_full_mesh() && entry.contact().last_seen.is_some_and(recently)
    }

    /// Somebody declared a member failed that this node sees itself. We look for ourselves before we believe it: after
    /// a partition each side hears of the other's failures, which were true there.
    pub(super) fn contest(&mut self, node: NodeId, standing: &Standing, now: Instant) {
        let Some(entry) = self.table.get(&node) else {
            return;
        };
        let version = entry.version();
        if entry.status == Status::Alive {
            let mut fact = entry.fact();
            fact.status = Status::Suspect;
            self.install(fact, Standing { status: Status::Suspect, ..*standing }, now);
        }
        sometimes!("failure contested");
        self.probe(node, true, Some(Contested { standing: *standing, version }), now);
    }
}
