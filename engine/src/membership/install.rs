//! What follows when a belief about a member changes.

use std::time::Duration;

use super::action::Action;
use super::machine::{Membership, STRANGERS_MAX, Timer};
use super::message::Standing;
use super::table::{Entry, Fact, Link};
use super::{MEMBERS_MAX, Member, Status};
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
        let from = old.as_ref().map(|entry| entry.member.status);
        let patience = self.config.cross_zone_timeout_max;
        let stuck = old.as_ref().is_some_and(|entry| entry.is_stream_stuck(patience, now));
        let version = (fact.record.incarnation, fact.record.boot);
        let new_boot = old.as_ref().is_none_or(|entry| entry.member.record.boot != fact.record.boot);
        let moved =
            old.as_ref().map(|entry| entry.member.record.addresses.clone()).filter(|old| *old != fact.record.addresses);
        let renamed = old.as_ref().is_none_or(|entry| entry.member.record.name != fact.record.name);
        let full = new_boot || old.as_ref().is_some_and(|entry| entry.restored) || moved.is_some() || renamed;
        let mut entry = old.unwrap_or_else(|| self.newcomer(&fact, now));
        if new_boot && !self.faults.has(Fault::LinkOutlivesBoot) {
            let open = entry.link.open;
            entry.link = Link { open, ..Link::default() };
        }
        entry.member.record = fact.record;
        if let (true, Some(first)) = (self.faults.has(Fault::AddressKept), &moved) {
            entry.member.record.addresses.clone_from(first);
        }
        entry.member.durable = !fact.retired;
        entry.restored &= self.faults.has(Fault::RestoredKept);
        if from != Some(fact.status) {
            entry.member.status = fact.status;
            entry.member.since = back(now, standing.age_s);
        }
        entry.accuser = standing.accuser;
        entry.refused = standing.refused;
        let record = entry.member.record.clone();
        self.table.insert(entry);
        self.dirty = true;
        self.gossip.push(node, full);
        self.timers.arm_by(Timer::Gossip, now + self.config.gossip_interval / 4);
        if let (Some(from), true) = (moved, fact.status == Status::Alive) {
            sometimes!("address moved");
            self.act(Action::AddressMoved { node, from, to: record.addresses.clone() });
        }
        if from != Some(fact.status) {
            let Standing { accuser, refused, .. } = standing;
            self.act(Action::Changed { node, from, to: fact.status, incarnation: version.0, accuser, refused });
        }
        if stuck && fact.status == Status::Alive {
            sometimes!("stuck stream closed");
            self.act(Action::Disconnect { peer: node });
        }
        self.follow_status(node, from, fact.status, new_boot, &standing, now);
        let back_again = from.is_none_or(|from| from > Status::Suspect) || renamed;
        if fact.status == Status::Alive && back_again {
            self.check_name(&record.name);
        }
    }

    /// Who has opened a stream is there, and takes the place of one that is known by hearsay alone.
    fn make_room(&mut self, newcomer: &NodeId) -> bool {
        let hearsay = |entry: &Entry| entry.member.last_seen.is_none() && entry.link.open.is_none() && !entry.restored;
        if !self.strangers.contains(newcomer) {
            return false;
        }
        let Some(node) = self.table.next_after(newcomer, hearsay) else {
            return false;
        };
        if let Some(Entry { member: Member { record, durable, .. }, .. }) = self.table.remove(&node) {
            self.act(Action::Reaped { record, durable });
        }
        self.suspicions.remove(&node);
        for timer in [Timer::Connect(node), Timer::Suspicion(node), Timer::Reap(node)] {
            self.timers.disarm(&timer);
        }
        self.stats.table_full += 1;
        true
    }

    fn newcomer(&mut self, fact: &Fact, now: Instant) -> Entry {
        let open = self.strangers.remove(&fact.record.node);
        sometimes!("stranger introduced", open);
        Entry {
            member: Member {
                record: fact.record.clone(),
                status: fact.status,
                since: now,
                last_seen: open.then_some(now),
                rtt: None,
                durable: !fact.retired,
            },
            accuser: None,
            refused: false,
            restored: false,
            restored_from: fact.status,
            own_word: None,
            disowned: None,
            link: Link { open: open.then_some(now), ..Link::default() },
        }
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
                    if self.table.get(&node).is_some_and(|entry| entry.link.open.is_some()) {
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
        let from = Some(std::mem::replace(&mut entry.member.status, Status::Failed));
        entry.member.since = now;
        let incarnation = entry.member.record.incarnation;
        self.table.insert(entry);
        self.stats.failures += 1;
        self.timers.arm(Timer::Reap(node), now + self.config.failed_retention);
        self.act(Action::Changed { node, from, to: Status::Failed, incarnation, accuser: None, refused: false });
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
            self.timers.disarm(&Timer::Suspicion(node));
            if entry.link.open.is_some() && self.strangers.len() < STRANGERS_MAX {
                self.strangers.insert(node);
            } else if entry.link.open.is_some() {
                self.sessions = self.sessions.saturating_sub(1);
            }
            self.dirty = true;
            self.act(Action::Reaped { record: entry.member.record, durable: entry.member.durable });
        }
    }

    fn check_name(&mut self, name: &str) {
        let bears = |member: &&Member| member.status <= Status::Suspect && member.record.name == name;
        let named = self.members().filter(bears).map(|member| member.record.node);
        let nodes: Vec<_> = named.take(NAMESAKES_MAX).collect();
        if nodes.len() > 1 {
            self.act(Action::NameTaken { name: name.to_owned(), nodes });
        }
    }
}

fn back(now: Instant, seconds: u32) -> Instant {
    Instant::from_micros(now.as_micros().saturating_sub(u64::from(seconds) * 1_000_000))
}
