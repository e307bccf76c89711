//! The machine itself: what it holds, and how inputs reach its parts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::action::{Action, ForceLeaveError, TimerKind};
use super::clock::Reading;
use super::config::Config;
use super::gossip::Queue;
use super::mesh::Mesh;
use super::message::{BUCKETS, Message, Standing, Update, Via};
use super::probe::{Outcome, Probe, Relay};
use super::route::Route;
use super::seeds::Seeds;
use super::suspicion::Suspicion;
use super::table::{Entry, Fact, Table, belief_hash, bucket};
use super::timers::Timers;
use super::{MEMBERS_MAX, Member, Record, STARTS_MAX, STARTS_SKIPPED_MAX, Status};
use crate::faults::Faults;
use crate::identity::{Address, Boot, NodeId};
use crate::random::Random;
use crate::sometimes;
use crate::time::Instant;

/// Most actions that wait for [`Membership::poll_action`]. Beyond it they are dropped and counted; gossip and
/// comparison repair what a lost message would have told.
pub const ACTIONS_MAX: usize = 4 * MEMBERS_MAX;
/// Most timers that one call of [`Membership::handle_timeout`] serves; what is left is due at once.
const TIMERS_A_CALL_MAX: usize = 65_536;
/// Open sessions to peers of whom no record is known yet.
pub(super) const STRANGERS_MAX: usize = 1_024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Probe,
    ProbeDirect(u32),
    ProbeEnd(u32),
    Relay(u32),
    Suspicion(NodeId),
    Gossip,
    Connect(NodeId),
    Seeds,
    Failed,
    Mesh,
    Reap(NodeId),
    Leave,
}

impl Timer {
    const fn kind(self) -> TimerKind {
        match self {
            Self::Probe => TimerKind::Probe,
            Self::ProbeDirect(_) | Self::ProbeEnd(_) => TimerKind::ProbeTimeout,
            Self::Relay(_) => TimerKind::Relay,
            Self::Suspicion(_) => TimerKind::Suspicion,
            Self::Gossip => TimerKind::Gossip,
            Self::Connect(_) => TimerKind::Connect,
            Self::Seeds => TimerKind::SeedRetry,
            Self::Failed => TimerKind::FailedRetry,
            Self::Mesh => TimerKind::Mesh,
            Self::Reap(_) => TimerKind::Reap,
            Self::Leave => TimerKind::Leave,
        }
    }
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Suspicions that this node raised itself.
    pub suspicions: u64,
    /// Times this node denied what was said of it.
    pub refutations: u64,
    /// Comparisons of tables begun.
    pub syncs: u64,
    /// Messages dropped because a limit was broken.
    pub invalid: u64,
    /// Claims about a member, this node among them, that it does not own up to.
    pub disowned: u64,
    /// Records dropped because the table was full.
    pub table_full: u64,
    /// Actions dropped because the queue was full.
    pub actions_dropped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    Leaving,
    Fenced,
}

/// The membership machine of one node. Feed it, then drain [`Self::poll_action`], then wait until [`Self::poll_timeout`].
#[derive(Clone, Debug)]
pub struct Membership {
    pub(super) config: Config,
    pub(super) faults: Faults,
    pub(super) random: Random,
    /// What the wall clock showed last.
    pub(super) reading: Option<Reading>,
    pub(super) me: Member,
    /// The highest start count that others can drive this node to while it runs.
    pub(super) starts_max: u32,
    pub(super) phase: Phase,
    pub(super) table: Table,
    pub(super) timers: Timers<Timer>,
    pub(super) gossip: Queue,
    pub(super) suspicions: BTreeMap<NodeId, Suspicion>,
    pub(super) strangers: BTreeMap<NodeId, Route>,
    pub(super) evicted: BTreeSet<NodeId>,
    pub(super) mesh: Mesh,
    pub(super) seeds: Seeds,
    pub(super) attempts: BTreeMap<Address, (NodeId, Instant)>,
    pub(super) sessions: usize,
    pub(super) probes: BTreeMap<u32, Probe>,
    pub(super) relays: BTreeMap<u32, Relay>,
    pub(super) rotation: Vec<NodeId>,
    pub(super) outcomes: VecDeque<Outcome>,
    pub(super) sick: u32,
    pub(super) seq: u32,
    pub(super) probe_count: u64,
    pub(super) failed_cursor: NodeId,
    /// Other boots of this node that were heard of, and how often each rose above this one.
    pub(super) doubles: BTreeMap<Boot, u8>,
    pub(super) stats: Stats,
    actions: VecDeque<Action>,
    pub(super) dirty: bool,
}

impl Membership {
    /// A node alone. `random` is its own stream; `faults` is all false outside a simulator.
    #[must_use]
    pub fn new(config: Config, me: Record, random: Random, faults: Faults, now: Instant) -> Self {
        let mut machine = Self {
            starts_max: me.incarnation.starts.saturating_add(STARTS_SKIPPED_MAX).min(STARTS_MAX),
            me: Member {
                record: config.records.share(Arc::new(me)),
                status: Status::Alive,
                since: now,
                last_seen: Some(now),
                rtt: None,
                clock: None,
                datagrams: false,
                durable: true,
            },
            seeds: Seeds::new(now),
            config,
            faults,
            random,
            reading: None,
            phase: Phase::Running,
            table: Table::new(),
            timers: Timers::new(),
            gossip: Queue::default(),
            suspicions: BTreeMap::new(),
            strangers: BTreeMap::new(),
            evicted: BTreeSet::new(),
            mesh: Mesh::default(),
            attempts: BTreeMap::new(),
            sessions: 0,
            probes: BTreeMap::new(),
            relays: BTreeMap::new(),
            rotation: Vec::new(),
            outcomes: VecDeque::new(),
            sick: 0,
            seq: 0,
            probe_count: 0,
            failed_cursor: NodeId([0; 16]),
            doubles: BTreeMap::new(),
            stats: Stats::default(),
            actions: VecDeque::new(),
            dirty: true,
        };
        let first = machine.jitter(machine.config.probe_interval);
        machine.timers.arm(Timer::Probe, now + first);
        machine
    }

    /// Tells of members known from before a restart, as [`Self::persistent`] gave them. Those that were alive are
    /// connected to, and count as suspect until something is heard of them; after a grace period they count as failed.
    pub fn restore(&mut self, members: Vec<(Arc<Record>, Status, bool)>, now: Instant) {
        for (record, status, durable) in members {
            let node = record.node;
            if node == self.me.record.node || !record.is_valid() || self.table.len() >= MEMBERS_MAX {
                continue;
            }
            let live = status <= Status::Suspect;
            let believed = if live { Status::Suspect } else { status };
            let retired = status == Status::Left && !durable;
            let record = self.config.records.share(record);
            let mut entry = Entry::new(Fact { record, status: believed, retired }, now);
            entry.restored = live;
            entry.restored_from = status;
            self.table.insert(entry);
            match status {
                Status::Alive | Status::Suspect => {
                    self.timers.arm(Timer::Suspicion(node), now + self.config.restored_grace);
                }
                Status::Failed => self.timers.arm(Timer::Reap(node), now + self.config.failed_retention),
                Status::Left => self.timers.arm(Timer::Reap(node), now + self.config.left_retention),
            }
            if status != Status::Left && self.table.live() < self.config.full_mesh {
                let spread = self.jitter(self.config.connect_retry_min);
                self.timers.arm(Timer::Connect(node), now + spread);
            }
        }
        self.look_at_mesh(now);
    }

    /// Takes all these for live members that nothing new is to be told of.
    pub(crate) fn introduce(&mut self, records: &[Arc<Record>], now: Instant) {
        for record in records.iter().filter(|record| record.node != self.me.record.node) {
            let record = self.config.records.share(Arc::clone(record));
            self.table.insert(Entry::new(Fact { record, status: Status::Alive, retired: false }, now));
        }
        self.look_at_mesh(now);
    }

    /// Takes a message that the engine has authenticated as `from`'s.
    pub fn handle_message(&mut self, from: NodeId, via: Via, message: Message, now: Instant) {
        if from == self.me.record.node || self.phase == Phase::Fenced {
            return;
        }
        if !message.is_valid() {
            self.stats.invalid += 1;
            return;
        }
        if let Some(entry) = self.table.get_mut(&from) {
            let contact = entry.contact_mut();
            contact.last_seen = Some(now);
            contact.link.refused = false;
            if via == Via::Stream {
                contact.link.heard = Some(now);
            }
        }
        match message {
            Message::Ping { seq, view, updates } => {
                self.apply_all(from, updates, now);
                self.on_ping(from, via, seq, now);
                self.compare_view(from, view, now);
            }
            Message::Ack { seq, view, clock, updates } => {
                self.apply_all(from, updates, now);
                self.on_ack(from, via, seq, clock, now);
                self.compare_view(from, view, now);
            }
            Message::PingReq { seq, target } => self.on_ping_req(from, via, seq, target, now),
            Message::Vouch { seq } => self.on_vouch(from, seq, now),
            Message::Nack { seq } => self.on_nack(from, seq),
            Message::Gossip { updates } => self.apply_all(from, updates, now),
            Message::SyncDigest { record, answer, buckets } => {
                self.on_digest(from, record, answer, &buckets, now);
            }
            Message::Sync { mask, answer, updates } => {
                self.apply_all(from, updates, now);
                if answer {
                    self.send_table(from, mask, false, now);
                }
            }
            Message::Leave { boot, incarnation, retired } => {
                let standing = Standing { status: Status::Left, retired, ..Standing::ALIVE };
                let update = Update::Brief { node: from, boot, incarnation, standing };
                self.apply(from, update, now);
            }
        }
        self.tell_if_accused(from, now);
    }

    /// Serves every timer that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..TIMERS_A_CALL_MAX {
            let Some(timer) = self.timers.pop_due(now) else {
                return;
            };
            match timer {
                Timer::Probe => self.on_probe_due(now),
                Timer::ProbeDirect(seq) => self.on_probe_direct(seq, now),
                Timer::ProbeEnd(seq) => self.on_probe_end(seq, now),
                Timer::Relay(seq) => self.on_relay_missed(seq),
                Timer::Suspicion(node) => self.on_suspicion_over(node, now),
                Timer::Gossip => self.on_gossip_due(now),
                Timer::Connect(node) => self.on_connect_due(node, now),
                Timer::Seeds => self.on_seeds_due(now),
                Timer::Failed => self.on_failed_due(now),
                Timer::Mesh => self.on_mesh_due(now),
                Timer::Reap(node) => self.on_reap(node),
                Timer::Leave => self.act(Action::LeftDone),
            }
        }
    }

    /// When [`Self::handle_timeout`] is next to be called, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, TimerKind)> {
        self.timers.next().map(|(at, timer)| (at, timer.kind()))
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Says goodbye to everyone, for good where `retire` is set. [`Action::LeftDone`] follows within two seconds.
    pub fn leave(&mut self, retire: bool, now: Instant) {
        if self.phase != Phase::Running {
            return;
        }
        self.phase = Phase::Leaving;
        self.me.status = Status::Left;
        self.me.durable = !retire;
        self.me.since = now;
        self.timers.clear();
        let Record { node, boot, incarnation, .. } = *self.me.record;
        let live: Vec<_> = self.table.iter().filter(|entry| entry.is_live()).map(Entry::node).collect();
        let mut told = false;
        for to in live {
            let Some(entry) = self.table.get(&to) else {
                continue;
            };
            let (stream, datagrams) = (entry.is_open(), entry.link().datagrams);
            let goodbye = Message::Leave { boot, incarnation, retired: retire };
            if stream {
                self.send(to, Via::Stream, goodbye.clone());
            }
            if datagrams {
                self.send(to, Via::Datagram, goodbye);
            }
            told |= stream || datagrams;
        }
        sometimes!("goodbye", told);
        sometimes!("goodbye to nobody", !told);
        if !told {
            self.act(Action::LeftDone);
            return;
        }
        self.gossip = Queue::default();
        self.gossip.push(node, false);
        self.timers.arm(Timer::Gossip, now + self.config.gossip_interval);
        let rounds = self.config.gossip_interval * 3 + self.config.gossip_interval / 2;
        self.timers.arm(Timer::Leave, now + rounds.min(self.config.leave_timeout));
    }

    /// Makes a member leave, and the durable set with it, everywhere. One that still runs comes back by denying it.
    ///
    /// # Errors
    /// An unknown member; this node itself; a live one where `force` is not set.
    pub fn force_leave(&mut self, who: &NodeId, force: bool, now: Instant) -> Result<(), ForceLeaveError> {
        if *who == self.me.record.node {
            return Err(ForceLeaveError::Myself);
        }
        let entry = self.table.get(who).ok_or(ForceLeaveError::Unknown)?;
        if entry.is_live() && !entry.restored && !force {
            return Err(ForceLeaveError::Alive);
        }
        let mut fact = entry.fact();
        (fact.status, fact.retired) = (Status::Left, true);
        let accuser = Some(self.me.record.node);
        self.install(fact, Standing { accuser, ..Standing::ALIVE }, now);
        Ok(())
    }

    /// Takes a node for shut out: whatever is heard of it, it has left, and is not waited for.
    pub fn evict(&mut self, node: NodeId, now: Instant) {
        self.evicted.insert(node);
        // Who is not known need not leave, and neither need this node.
        let _ = self.force_leave(&node, true, now);
    }

    /// Takes a node that was shut out for what is heard of it again.
    pub fn readmit(&mut self, node: &NodeId) {
        self.evicted.remove(node);
    }

    /// Who is shut out.
    #[must_use]
    pub const fn evicted(&self) -> &BTreeSet<NodeId> {
        &self.evicted
    }

    /// Everyone known, this node first.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        std::iter::once(self.me.clone()).chain(self.table.iter().map(Entry::member))
    }

    /// One member; this node too.
    #[must_use]
    pub fn member(&self, node: &NodeId) -> Option<Member> {
        if *node == self.me.record.node {
            return Some(self.me.clone());
        }
        self.table.get(node).map(Entry::member)
    }

    /// What a member says of itself; this node too.
    #[must_use]
    pub fn record(&self, node: &NodeId) -> Option<&Record> {
        if *node == self.me.record.node {
            return Some(&self.me.record);
        }
        self.table.get(node).map(|entry| &**entry.record())
    }

    /// The same, unless it is shut out.
    #[must_use]
    pub fn let_in(&self, node: &NodeId) -> Option<&Record> {
        self.record(node).filter(|_| !self.evicted.contains(node))
    }

    /// On whose word a member has its standing, and whether its host had refused them.
    #[must_use]
    pub fn accusation(&self, node: &NodeId) -> (Option<NodeId>, bool) {
        self.table.get(node).map_or((None, false), |entry| (entry.contact().accuser, entry.contact().refused))
    }

    /// This node.
    #[must_use]
    pub const fn me(&self) -> &Member {
        &self.me
    }

    /// How many members are known, this node included.
    #[must_use]
    pub fn known(&self) -> usize {
        self.table.len() + 1
    }

    /// Equal on nodes that believe the same of the same members; suspicion aside.
    #[must_use]
    pub fn view_hash(&self) -> u64 {
        self.table.view().wrapping_add(self.own_hash())
    }

    /// Whether no stream to any other member is open.
    #[must_use]
    pub const fn isolated(&self) -> bool {
        self.sessions == 0
    }

    /// What happened so far.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// What to hand to [`Self::restore`] after a restart: the others, each with whether it is durable.
    #[must_use]
    pub fn persistent(&self) -> Vec<(Arc<Record>, Status, bool)> {
        let status = |entry: &Entry| {
            if entry.restored { entry.restored_from } else { entry.status }
        };
        self.table.iter().map(|entry| (Arc::clone(entry.record()), status(entry), entry.durable)).collect()
    }

    /// Whether [`Self::persistent`] changed since this was last asked.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    pub(super) fn buckets(&self) -> Vec<u64> {
        let mut buckets = self.table.buckets().to_vec();
        debug_assert_eq!(buckets.len(), BUCKETS);
        if let Some(mine) = buckets.get_mut(bucket(&self.me.record.node)) {
            *mine = mine.wrapping_add(self.own_hash());
        }
        buckets
    }

    fn own_hash(&self) -> u64 {
        belief_hash(&self.me.record, self.me.status, self.me.durable)
    }

    pub(super) fn act(&mut self, action: Action) {
        if self.actions.len() < ACTIONS_MAX {
            self.actions.push_back(action);
        } else {
            self.stats.actions_dropped += 1;
        }
    }

    pub(super) fn send(&mut self, to: NodeId, via: Via, message: Message) {
        self.act(Action::Send { to, via, message });
    }

    /// A random wait below `most`.
    pub(super) fn jitter(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.random.below(u64::try_from(most.as_micros()).unwrap_or(u64::MAX)))
    }

    /// Live members, this node included.
    pub(super) fn live(&self) -> usize {
        self.table.live() + 1
    }

    pub(super) fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    pub(super) fn greet_stranger(&mut self, peer: NodeId, route: Route) {
        if self.strangers.len() < STRANGERS_MAX {
            self.strangers.insert(peer, route);
        }
    }
}
