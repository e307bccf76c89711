//! What this node hears of others and of itself, and what it tells.

use std::sync::Arc;
use std::time::Duration;

use super::action::Action;
use super::machine::{Membership, Phase, Timer};
use super::message::{
    BUCKETS, DATAGRAM_BYTES_MAX, Message, SYNC_BYTES_MAX, SYNC_UPDATES_MAX, Standing, Update, Via, encoded_bytes,
};
use super::table::{Entry, Fact, bucket, render};
use super::{Record, STARTS_SKIPPED_MAX, Status};
use crate::faults::Fault;
use crate::identity::{Boot, Incarnation, NodeId};
use crate::sometimes;
use crate::time::Instant;

/// Room for the message around its updates.
const HEAD_BYTES: usize = 24;
/// Gossip by stream may be this long; it carries records that fit no datagram.
const STREAM_GOSSIP_BYTES_MAX: usize = 32 << 10;
/// Other boots of this node that are remembered.
const DOUBLES_MAX: usize = 64;
/// Times that one of them has to rise above this node after the first to be taken for alive.
const DOUBLE_RISES: u8 = 3;
/// Between two reminders to one member of what is held against it, and between two comparisons of tables with it.
const REMIND: Duration = Duration::from_millis(200);
const SYNC_PAUSE: Duration = Duration::from_secs(2);
/// Probes in a row that must show a difference before tables are compared.
const DIFFERS_MIN: u8 = 3;

impl Membership {
    pub(super) fn apply_all(&mut self, from: NodeId, updates: Vec<Update>, now: Instant) {
        for update in updates {
            self.apply(from, update, now);
        }
    }

    pub(super) fn apply(&mut self, from: NodeId, update: Update, now: Instant) {
        if self.phase == Phase::Fenced {
            return;
        }
        if update.node() == self.me.record.node {
            self.hear_of_myself(from, &update, now);
            return;
        }
        let mut standing = *update.standing();
        let Some(mut fact) = self.fact_of(from, update) else {
            return;
        };
        if self.evicted.contains(&fact.record.node) {
            (fact.status, fact.retired) = (Status::Left, true);
            (standing.status, standing.retired) = (Status::Left, true);
        }
        let Some(entry) = self.table.get(&fact.record.node) else {
            if !self.is_outdated(&standing) {
                self.install(fact, standing, now);
            }
            return;
        };
        let node = fact.record.node;
        let held_version = entry.version();
        let outranked = self.faults.has(Fault::BootOutranks) && fact.record.boot < held_version.1;
        let is_final = self.faults.has(Fault::LeftIsFinal) && entry.status == Status::Left;
        if outranked || is_final {
            return;
        }
        // What a member says of itself stays as it is until it starts again.
        if from != node && entry.contact().own_word == Some(fact.record.boot) && fact.record.boot == held_version.1 {
            let incarnation = fact.record.incarnation;
            fact.record = said_at(entry.record(), incarnation);
        }
        let risen = fact.record.incarnation.starts > held_version.0.starts;
        if from != node && risen && entry.contact().disowned.is_some_and(|disowned| fact.version() <= disowned) {
            self.stats.disowned += 1;
            return;
        }
        // Nobody rises further by himself. Two members that believed it of each other would never ask each other again.
        let reach = held_version.0.starts.saturating_add(STARTS_SKIPPED_MAX);
        let by_own_word = entry.contact().own_word == Some(held_version.1);
        if from != node && by_own_word && fact.record.incarnation.starts > reach {
            self.stats.disowned += 1;
            return;
        }
        if entry.restored && fact.version() >= held_version {
            sometimes!("restored member heard of");
            self.install(fact, standing, now);
            return;
        }
        if fact.version() == held_version && fact.status == entry.status && fact.status == Status::Suspect {
            self.hear_accuser(node, &standing, now);
            return;
        }
        let worse = fact.status == Status::Failed && fact.version() == held_version;
        if worse && entry.is_live() && self.sees_itself(entry, now) && self.is_running() {
            self.contest(node, &standing, now);
            return;
        }
        let mut merged = entry.fact();
        if merged.merge(fact) {
            self.install(merged, standing, now);
        }
    }

    /// The belief an update expresses, where its record is known. Otherwise a comparison of tables will bring it.
    fn fact_of(&mut self, from: NodeId, update: Update) -> Option<Fact> {
        match update {
            Update::Full { record, standing } => {
                Some(Fact { record, status: standing.status, retired: standing.retired })
            }
            Update::Brief { node, boot, incarnation, standing } => {
                let known = self.table.get(&node).map(Entry::record);
                let known =
                    known.filter(|record| record.boot == boot && record.incarnation.starts == incarnation.starts);
                if let Some(record) = known {
                    let record = said_at(record, incarnation);
                    return Some(Fact { record, status: standing.status, retired: standing.retired });
                }
                let newer = self.table.get(&node).is_none_or(|entry| entry.version() < (incarnation, boot));
                if let (true, Some(entry)) = (newer, self.table.get_mut(&from)) {
                    sometimes!("news of a stranger");
                    entry.link_mut().differs = DIFFERS_MIN;
                    self.lacks_a_record();
                }
                None
            }
        }
    }

    /// Whether it was failed or left for so long that everyone forgets it by now.
    fn is_outdated(&self, standing: &Standing) -> bool {
        let retention = match standing.status {
            Status::Alive | Status::Suspect => return false,
            Status::Failed => self.config.failed_retention,
            Status::Left => self.config.left_retention,
        };
        Duration::from_secs(u64::from(standing.age_s)) >= retention
    }

    /// What others hold to be this node's own statement has to be topped, whether an earlier start made it before a backup
    /// was restored, or nobody did: only so does this node's word count again. But nobody is followed out of reach of
    /// [`STARTS_SKIPPED_MAX`](super::STARTS_SKIPPED_MAX): the start count is kept, and would soon have no room to rise.
    fn hear_of_myself(&mut self, from: NodeId, update: &Update, now: Instant) {
        if self.phase != Phase::Running {
            return;
        }
        let (incarnation, boot) = update.version();
        let mine = (self.me.record.incarnation, self.me.record.boot);
        if boot == mine.1 {
            let accused = update.standing().status != Status::Alive;
            let denies = accused && !self.faults.has(Fault::AccusationIgnored);
            if incarnation > mine.0 || denies && incarnation == mine.0 {
                self.refute(from, incarnation, now);
            } else if accused {
                self.deny_again(from, now);
            }
        } else if (incarnation, boot) > mine {
            self.hear_of_double(from, incarnation, boot, now);
        }
    }

    /// An earlier boot of this node cannot answer. One that rises above us again and again after we rose above it is alive;
    /// but what members last heard of a dead one differs, and may come to us in rising order. Of two that live, the one with
    /// the lesser boot steps back; the other goes on rising until then, so that never both do.
    fn hear_of_double(&mut self, from: NodeId, incarnation: Incarnation, boot: Boot, now: Instant) {
        if self.faults.has(Fault::IncarnationNotRaised) {
            return;
        }
        sometimes!("former start heard of");
        if self.above(incarnation).is_none() {
            self.disown(from, now);
            return;
        }
        let risen = self.doubles.get(&boot).map_or(0, |risen| risen.saturating_add(1));
        let is_alive = risen >= DOUBLE_RISES && !self.faults.has(Fault::DoubleIgnored);
        let yields = is_alive && boot > self.me.record.boot;
        if yields || self.faults.has(Fault::FencedAtOnce) {
            sometimes!("fenced");
            self.phase = Phase::Fenced;
            self.timers.clear();
            self.act(Action::Fenced { boot });
            return;
        }
        if risen > 0 || self.doubles.len() < DOUBLES_MAX {
            self.doubles.insert(boot, risen);
        }
        self.refute(from, incarnation, now);
    }

    fn refute(&mut self, from: NodeId, heard: Incarnation, now: Instant) {
        let top = if self.faults.has(Fault::RefutesOwn) { self.me.record.incarnation } else { heard };
        let Some(raised) = self.above(top.max(self.me.record.incarnation)) else {
            self.disown(from, now);
            return;
        };
        let new_start = raised.starts != self.me.record.incarnation.starts;
        self.me.record = self.config.records.share(said_at(&self.me.record, raised));
        sometimes!("refuted");
        self.stats.refutations += 1;
        self.worsen();
        self.dirty = true;
        self.act(Action::Refuted { incarnation: raised });
        self.gossip.push(self.me.record.node, new_start);
        self.timers.arm_by(Timer::Gossip, now);
    }

    /// Tells a member that still holds what this node has denied. It may have been cut off while the denial went round.
    fn deny_again(&mut self, from: NodeId, now: Instant) {
        let Some(denial) = self.update_of(&self.me.record.node, false, now) else {
            return;
        };
        let Some(entry) = self.table.get_mut(&from) else {
            return;
        };
        let denied = entry.link().denied.is_some_and(|denied| now.since(denied) < REMIND);
        if denied || self.faults.has(Fault::DenialNotRepeated) {
            return;
        }
        sometimes!("denied again");
        entry.link_mut().denied = Some(now);
        self.send_every_way(from, vec![denial]);
    }

    /// The next incarnation that this node may take; none beyond what others can drive it to.
    fn above(&self, incarnation: Incarnation) -> Option<Incarnation> {
        let next = match incarnation.refutations.checked_add(1) {
            Some(refutations) => Incarnation { refutations, ..incarnation },
            None => Incarnation { starts: incarnation.starts.checked_add(1)?, refutations: 0 },
        };
        (next.starts <= self.starts_max).then_some(next)
    }

    /// Passes over a claim about this node that it cannot top. Whoever made it hears this node's word, which shows that
    /// the claim is not its own.
    fn disown(&mut self, from: NodeId, now: Instant) {
        self.stats.disowned += 1;
        let Some(entry) = self.table.get_mut(&from) else {
            return;
        };
        if entry.is_open() && entry.link().denied.is_none_or(|denied| now.since(denied) >= REMIND) {
            entry.link_mut().denied = Some(now);
            self.send_digest(from, false, now);
        }
    }

    /// What is to be told of `node` now.
    pub(super) fn update_of(&self, node: &NodeId, full: bool, now: Instant) -> Option<Update> {
        // Who has not heard that it is evicted would tell it that it has left, which it would deny again and again.
        if self.evicted.contains(node) {
            return None;
        }
        if *node == self.me.record.node {
            let standing = Standing { status: self.me.status, retired: !self.me.durable, ..Standing::ALIVE };
            return Some(render(&self.me.record, standing, full));
        }
        self.table.get(node).filter(|entry| !entry.restored).map(|entry| entry.update(full, now))
    }

    /// News for a message to `to`: first what is held against it, then what was told least.
    pub(super) fn news(&mut self, to: &NodeId, via: Via, now: Instant) -> Vec<Update> {
        let mut budget = match via {
            Via::Datagram => DATAGRAM_BYTES_MAX,
            Via::Stream => STREAM_GOSSIP_BYTES_MAX,
        } - HEAD_BYTES;
        let accused = self.table.get(to).filter(|entry| entry.status != Status::Alive && !entry.restored);
        let mut updates: Vec<_> = accused.map(|entry| entry.update(false, now)).into_iter().collect();
        budget -= updates.first().map_or(0, encoded_bytes);
        if self.faults.has(Fault::NewsUntold) {
            return updates;
        }
        let live = self.live();
        let mut queue = std::mem::take(&mut self.gossip);
        updates.extend(queue.take(budget, live, |node, full| self.update_of(node, full, now)));
        self.gossip = queue;
        updates
    }

    pub(super) fn on_gossip_due(&mut self, now: Instant) {
        if self.gossip.is_empty() {
            return;
        }
        for to in self.gossip_targets() {
            let Some(entry) = self.table.get(&to) else { continue };
            let (datagrams, stream) = (entry.link().datagrams, entry.is_open());
            let mut via = if datagrams || !stream { Via::Datagram } else { Via::Stream };
            let mut updates = self.news(&to, via, now);
            if updates.is_empty() && stream && !self.gossip.is_empty() {
                via = Via::Stream;
                updates = self.news(&to, via, now);
            }
            if !updates.is_empty() {
                self.send(to, via, Message::Gossip { updates });
            }
        }
        if !self.gossip.is_empty() {
            self.timers.arm(Timer::Gossip, now + self.config.gossip_interval);
        }
    }

    fn gossip_targets(&mut self) -> Vec<NodeId> {
        let fit = |entry: &Entry| entry.is_live() && entry.is_reachable();
        let fanout = self.config.gossip_fanout;
        if !self.is_full_mesh() {
            return self.pick_listeners(fanout).into_iter().collect();
        }
        let mut targets: Vec<_> = self.table.iter().filter(|entry| fit(entry)).map(Entry::node).collect();
        for place in 0..fanout.min(targets.len()) {
            let other = place + self.random.index(targets.len() - place);
            targets.swap(place, other);
        }
        targets.truncate(fanout);
        targets
    }

    /// Tells a member that speaks to us what we hold against it, so that it can deny that.
    pub(super) fn tell_if_accused(&mut self, node: NodeId, now: Instant) {
        let Some(entry) = self.table.get(&node) else {
            return;
        };
        let accused = entry.status != Status::Alive && !entry.restored;
        if accused && entry.link().told.is_none_or(|told| now.since(told) >= REMIND) {
            sometimes!("accused told");
            self.tell(node, now);
        }
    }

    /// Tells `node` what is believed of it.
    pub(super) fn tell(&mut self, node: NodeId, now: Instant) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        let Some(entry) = self.table.get_mut(&node) else {
            return;
        };
        entry.link_mut().told = Some(now);
        let updates = vec![entry.update(false, now)];
        self.send_every_way(node, updates);
    }

    /// By datagram and by stream, of which one may be stuck.
    fn send_every_way(&mut self, to: NodeId, updates: Vec<Update>) {
        let Some(entry) = self.table.get(&to) else {
            return;
        };
        let (datagrams, stream) = (entry.link().datagrams, entry.is_open());
        // Where no way is known a datagram may find one.
        if datagrams || !stream && !self.is_full_mesh() {
            self.send(to, Via::Datagram, Message::Gossip { updates: updates.clone() });
        }
        if stream {
            self.send(to, Via::Stream, Message::Gossip { updates });
        }
    }

    pub(super) fn view(&self) -> [u8; 8] {
        self.view_hash().to_le_bytes()
    }

    /// News takes a moment to arrive; only a difference that stays is worth comparing tables.
    pub(super) fn compare_view(&mut self, from: NodeId, view: [u8; 8], now: Instant) {
        let differs = view != self.view();
        if !self.is_full_mesh() {
            self.compare_among_many(from, differs, now);
            return;
        }
        let running = self.is_running();
        let Some(entry) = self.table.get_mut(&from) else {
            return;
        };
        let link = entry.link_mut();
        link.differs = if differs { link.differs.saturating_add(1) } else { 0 };
        let pause = link.synced.is_some_and(|synced| now.since(synced) < SYNC_PAUSE);
        if link.differs >= DIFFERS_MIN && link.open.is_some() && !pause && running {
            sometimes!("views differ");
            self.send_digest(from, true, now);
        }
    }

    /// Begins a comparison. At the opening of a session the lower id asks for the answer, so that one is enough.
    pub(super) fn send_digest(&mut self, to: NodeId, answer: bool, now: Instant) {
        if let Some(entry) = self.table.get_mut(&to) {
            entry.link_mut().differs = 0;
            entry.link_mut().synced = Some(now);
        }
        self.stats.syncs += 1;
        let (record, buckets) = (Arc::clone(&self.me.record), self.buckets());
        self.send(to, Via::Stream, Message::SyncDigest { record, answer, buckets });
    }

    pub(super) fn on_digest(&mut self, from: NodeId, record: Arc<Record>, answer: bool, theirs: &[u64], now: Instant) {
        if record.node != from {
            self.stats.invalid += 1;
            return;
        }
        let said = (record.incarnation, record.boot);
        self.apply(from, Update::Full { record: Arc::clone(&record), standing: Standing::ALIVE }, now);
        self.check_word(from, said, record, now);
        let mut mask = 0;
        let buckets = BUCKETS - usize::from(self.faults.has(Fault::BucketSkipped));
        for (place, (a, b)) in self.buckets().iter().zip(theirs).enumerate().take(buckets) {
            if a != b {
                mask |= 1_u64 << place;
            }
        }
        if answer && mask != 0 {
            sometimes!("tables compared");
            self.send_table(from, mask, true, now);
        }
    }

    /// A member that says less of itself than is held of it may have started from a backup: it is shown what is held, to
    /// rise above it. One that was shown and does not rise disowns it, and its own word stands: a statement that nobody
    /// made would otherwise keep it out until everybody has forgotten that.
    ///
    /// Its record of this start is taken as it says it, and from nobody else any more.
    fn check_word(&mut self, from: NodeId, said: (Incarnation, Boot), record: Arc<Record>, now: Instant) {
        if let Some(entry) = self.table.get_mut(&from).filter(|entry| entry.version() == said) {
            entry.contact_mut().own_word = Some(said.1);
            let fact = Fact { record, ..entry.fact() };
            if fact != entry.fact() {
                let standing = *entry.update(false, now).standing();
                self.install(fact, standing, now);
            }
            return;
        }
        let Some(entry) = self.table.get_mut(&from).filter(|entry| entry.version() > said) else {
            return;
        };
        let held = entry.version();
        // What is only a denial ahead may have overtaken this word.
        let overtaken = held.0.starts == said.0.starts && held.0.refutations < u32::MAX;
        if entry.link_mut().shown.replace(held) != Some(held) || overtaken {
            sometimes!("word behind");
            let updates = vec![entry.update(true, now)];
            self.send(from, Via::Stream, Message::Gossip { updates });
            return;
        }
        self.stats.disowned += 1;
        self.install(Fact { record, status: Status::Alive, retired: false }, Standing::ALIVE, now);
        if let Some(entry) = self.table.get_mut(&from) {
            entry.contact_mut().disowned = Some(held);
            entry.contact_mut().own_word = Some(said.1);
        }
    }

    pub(super) fn send_table(&mut self, to: NodeId, mask: u64, answer: bool, now: Instant) {
        let wanted = |node: &NodeId| mask & (1_u64 << bucket(node)) != 0;
        let me = self.me.record.node;
        let mut nodes: Vec<_> = self.table.iter().map(Entry::node).filter(wanted).collect();
        nodes.extend(Some(me).filter(wanted));
        let (mut part, mut bytes) = (Vec::new(), HEAD_BYTES);
        for node in nodes {
            let Some(update) = self.update_of(&node, true, now) else {
                continue;
            };
            let size = encoded_bytes(&update);
            if bytes + size > SYNC_BYTES_MAX || part.len() >= SYNC_UPDATES_MAX {
                let updates = std::mem::take(&mut part);
                self.send(to, Via::Stream, Message::Sync { mask, answer: false, updates });
                bytes = HEAD_BYTES;
            }
            bytes += size;
            part.push(update);
        }
        self.send(to, Via::Stream, Message::Sync { mask, answer, updates: part });
    }

    /// Live members of a zone too small to watch over itself.
    pub(super) fn is_small(&self, zone: &str) -> bool {
        let own = usize::from(self.me.record.zone == zone);
        self.table.live_in(zone) + own < super::probe::ZONE_MIN
    }
}

/// The same record with another incarnation.
fn said_at(record: &Arc<Record>, incarnation: Incarnation) -> Arc<Record> {
    if record.incarnation == incarnation {
        return Arc::clone(record);
    }
    Arc::new(Record { incarnation, ..Record::clone(record) })
}
