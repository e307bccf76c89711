//! What follows when a belief about a member changes.

use std::sync::Arc;
use std::time::Duration;

use super::action::Action;
use super::evidence::{Before, Evidence};
use super::machine::{Membership, STRANGERS_MAX, Timer};
use super::message::Standing;
use super::table::{Entry, Fact};
use super::{MEMBERS_MAX, Record, Status};
use crate::faults::Fault;
use crate::identity::NodeId;
use crate::sometimes;
use crate::time::Instant;

/// Members of one name that are told of.
const NAMESAKES_MAX: usize = 8;

impl Membership {
    /// Puts `fact` in place of what was believed, and does what follows from it.
    pub(super) fn install(&mut self, fact: Fact, standing: Standing, now: Instant) {
        let node = fact.record.node;
        let old = self.table.remove(&node);
        if old.is_none() && self.table.len() >= MEMBERS_MAX && !self.make_room(&node) {
            self.stats.table_full += 1;
            return;
        }
        let from = old.as_ref().map(|entry| entry.status);
        let patience = self.config.cross_zone_timeout_max;
        let fact = Fact { record: self.config.records.share(fact.record), ..fact };
        let stuck = old.as_ref().is_some_and(|entry| entry.is_stream_stuck(patience, now));
        let version = (fact.record.incarnation, fact.record.boot);
        let before = old.as_ref().map(|entry| Arc::clone(entry.record()));
        let new_boot = before.as_ref().is_none_or(|before| before.boot != fact.record.boot);
        let moved = before.as_ref().filter(|before| before.addresses != fact.record.addresses);
        let renamed = before.as_ref().is_none_or(|before| before.name != fact.record.name);
        let restored = old.as_ref().is_some_and(|entry| entry.restored);
        let full = new_boot || restored || moved.is_some() || renamed;
        let record = Arc::clone(&fact.record);
        let mut entry = old.unwrap_or_else(|| self.newcomer(&fact, now));
        if new_boot && !self.faults.has(Fault::LinkOutlivesBoot) {
            entry.forget_ways();
        }
        entry.set_record(fact.record);
        if let (true, Some(before)) = (self.faults.has(Fault::AddressKept), moved) {
            let addresses = before.addresses.clone();
            entry.set_record(Arc::new(Record { addresses, ..Record::clone(&record) }));
        }
        entry.durable = !fact.retired;
        entry.restored &= self.faults.has(Fault::RestoredKept);
        if from != Some(fact.status) {
            entry.status = fact.status;
            entry.since = back(now, standing.age_s);
        }
        entry.accuse(standing.accuser, standing.refused);
        self.table.insert(entry);
        self.dirty = true;
        self.gossip.push(node, full);
        self.timers.arm_by(Timer::Gossip, now + self.config.gossip_interval / 4);
        if let (Some(from), true) = (moved, fact.status == Status::Alive) {
            sometimes!("address moved");
            let (from, to) = (from.addresses.clone(), record.addresses.clone());
            self.act(Action::AddressMoved { node, from, to });
        }
        if from != Some(fact.status) {
            let evidence = self.evidence(&node, Before { status: from, restored, new_boot }, &standing, now);
            self.act(Action::Changed { node, from, to: fact.status, incarnation: version.0, evidence });
        }
        if stuck && fact.status == Status::Alive {
            sometimes!("stuck stream closed");
            self.act(Action::Disconnect { peer: node });
        }
        if from != Some(fact.status) {
            self.look_at_mesh(now);
        }
        self.follow_status(node, from, fact.status, new_boot, &standing, now);
        if moved.is_some() {
            self.follow_move(node, now);
        }
        let back_again = from.is_none_or(|from| from > Status::Suspect) || renamed;
        if fact.status == Status::Alive && back_again {
            self.check_name(&record.name);
        }
    }

    /// Who has opened a stream is there, and takes the place of one that is known by hearsay alone.
    fn make_room(&mut self, newcomer: &NodeId) -> bool {
        let hearsay = |entry: &Entry| entry.contact().last_seen.is_none() && !entry.is_open() && !entry.restored;
        if !self.strangers.contains_key(newcomer) {
            return false;
        }
        let Some(node) = self.table.next_after(newcomer, hearsay) else {
            return false;
        };
        if let Some(entry) = self.table.remove(&node) {
            self.act(Action::Reaped { record: Arc::clone(entry.record()), durable: entry.durable });
        }
        self.suspicions.remove(&node);
        self.answer_call(&node);
        for timer in [Timer::Connect(node), Timer::Suspicion(node), Timer::Reap(node)] {
            self.timers.disarm(&timer);
        }
        self.stats.table_full += 1;
        true
    }

    fn newcomer(&mut self, fact: &Fact, now: Instant) -> Entry {
        let mut entry = Entry::new(fact.clone(), now);
        if let Some(route) = self.strangers.remove(&fact.record.node) {
            sometimes!("stranger introduced");
            entry.contact_mut().last_seen = Some(now);
            let link = entry.link_mut();
            (link.open, link.route) = (Some(now), route);
        }
        entry
    }

    fn follow_status(
        &mut self,
        node: NodeId,
        from: Option<Status>,
        to: Status,
        new_boot: bool,
        standing: &Standing,
        now: Instant,
    ) {
        let changed = from != Some(to);
        sometimes!("failed member back", from == Some(Status::Failed) && to == Status::Alive);
        sometimes!("left member back", from == Some(Status::Left) && to == Status::Alive);
        sometimes!("member left", changed && to == Status::Left);
        match to {
            Status::Alive => {
                self.timers.disarm(&Timer::Reap(node));
                if changed || new_boot {
                    self.enter_rotation(node);
                    let hurry = from.is_some_and(|from| from > Status::Suspect) || new_boot && from.is_some();
                    self.plan_connect(node, hurry, now);
                }
            }
            Status::Suspect => {
                self.begin_suspicion(node, standing, now);
                self.knock_soon(now);
            }
            Status::Failed => {
                if changed {
                    self.age_out(node, self.config.failed_retention, standing, now);
                    if self.table.get(&node).is_some_and(|entry| entry.is_open()) {
                        self.act(Action::Disconnect { peer: node });
                    }
                    self.plan_connect(node, true, now);
                }
                self.knock_soon(now);
            }
            Status::Left => {
                if changed {
                    self.age_out(node, self.config.left_retention, standing, now);
                    self.timers.disarm(&Timer::Connect(node));
                    self.answer_call(&node);
                }
            }
        }
    }

    /// A member known from before a restart has stayed silent. It counts as failed here, but others are not told: this
    /// start has never heard it, and may be the one that is cut off.
    pub(super) fn give_up_restored(&mut self, node: NodeId, now: Instant) {
        let Some(mut entry) = self.table.remove(&node) else {
            return;
        };
        sometimes!("restored member given up");
        let from = Some(std::mem::replace(&mut entry.status, Status::Failed));
        entry.since = now;
        let incarnation = entry.record().incarnation;
        self.table.insert(entry);
        self.timers.arm(Timer::Reap(node), now + self.config.failed_retention);
        self.act(Action::Changed { node, from, to: Status::Failed, incarnation, evidence: Evidence::Unheard });
        self.look_at_mesh(now);
        self.knock_soon(now);
    }

    fn knock_soon(&mut self, now: Instant) {
        if !self.timers.is_armed(&Timer::Failed) {
            let first = self.jitter(self.config.failed_probe);
            self.timers.arm(Timer::Failed, now + first);
        }
    }

    fn age_out(&mut self, node: NodeId, retention: Duration, standing: &Standing, now: Instant) {
        let age = Duration::from_secs(u64::from(standing.age_s));
        self.timers.arm(Timer::Reap(node), now + retention.saturating_sub(age));
    }

    pub(super) fn on_reap(&mut self, node: NodeId) {
        if self.table.get(&node).is_none_or(Entry::is_live) {
            return;
        }
        if let Some(entry) = self.table.remove(&node) {
            self.suspicions.remove(&node);
            self.timers.disarm(&Timer::Connect(node));
            self.answer_call(&node);
            self.timers.disarm(&Timer::Suspicion(node));
            if entry.is_open() && self.strangers.len() < STRANGERS_MAX {
                self.strangers.insert(node, entry.link().route.clone());
            } else if entry.is_open() {
                self.sessions = self.sessions.saturating_sub(1);
            }
            self.dirty = true;
            self.act(Action::Reaped { record: Arc::clone(entry.record()), durable: entry.durable });
        }
    }

    fn check_name(&mut self, name: &str) {
        let me = Some(self.me.record.node).filter(|_| self.me.record.name == name);
        let nodes: Vec<_> = me.into_iter().chain(self.table.named(name)).take(NAMESAKES_MAX).collect();
        if nodes.len() > 1 {
            self.act(Action::NameTaken { name: name.to_owned(), nodes });
        }
    }
}

fn back(now: Instant, seconds: u32) -> Instant {
    Instant::from_micros(now.as_micros().saturating_sub(u64::from(seconds) * 1_000_000))
}
