//! The machine itself: what it holds, and how inputs reach its parts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::config::Config;
use super::gossip::Queue;
use super::message::{BUCKETS, Message, Standing, Update, Via};
use super::probe::{Outcome, Probe, Relay};
use super::seeds::Seeds;
use super::suspicion::Suspicion;
use super::table::{Entry, Fact, Link, Table, belief_hash, bucket};
use super::timers::Timers;
use super::{MEMBERS_MAX, Member, Record, Status};
use crate::faults::Faults;
use crate::identity::{Address, Boot, Incarnation, NodeId};
use crate::random::Random;
use crate::time::Instant;

/// Most actions that wait for [`Membership::poll_action`]. Beyond it they are dropped and counted; gossip and
/// comparison repair what a lost message would have told.
pub const ACTIONS_MAX: usize = 4 * MEMBERS_MAX;
/// Most timers that one call of [`Membership::handle_timeout`] serves; what is left is due at once.
const TIMERS_A_CALL_MAX: usize = 65_536;
/// Open sessions to peers of whom no record is known yet.
const STRANGERS_MAX: usize = 1_024;

/// What the engine is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a message. Where the pipe is gone by now, drop it.
    Send {
        /// To whom.
        to: NodeId,
        /// By which pipe.
        via: Via,
        /// What.
        message: Message,
    },
    /// Open a stream. Answer with [`Membership::on_session_opened`] or [`Membership::on_connect_failed`].
    Connect {
        /// Where.
        address: Address,
        /// Who should answer; none for a seed.
        peer: Option<NodeId>,
    },
    /// Close the session with a failed member: its pipe may hang for minutes after the network has healed.
    Disconnect {
        /// With whom.
        peer: NodeId,
    },
    /// A member is believed to be in another state.
    Changed {
        /// Who.
        node: NodeId,
        /// Before; none for a new member.
        from: Option<Status>,
        /// Now.
        to: Status,
        /// The statement of its own that this is about.
        incarnation: Incarnation,
        /// Who says so, where it is an accusation.
        accuser: Option<NodeId>,
        /// Whether the accuser was refused by the member's host.
        refused: bool,
    },
    /// A member started again elsewhere.
    AddressMoved {
        /// Who.
        node: NodeId,
        /// Before.
        from: Vec<Address>,
        /// Now.
        to: Vec<Address>,
    },
    /// Several live members bear one name.
    NameTaken {
        /// The name.
        name: String,
        /// Who bears it.
        nodes: Vec<NodeId>,
    },
    /// A failed or departed member is no longer listed. That does not take it out of the durable set.
    Reaped {
        /// Its last record.
        record: Record,
        /// Whether it counted as durable.
        durable: bool,
    },
    /// This node raised its own incarnation; `starts` has to be persisted where it rose.
    Refuted {
        /// What it is now.
        incarnation: Incarnation,
    },
    /// Another live boot of this node's own id exists, and it is the higher one. This machine has fallen silent.
    Fenced {
        /// The other.
        boot: Boot,
    },
    /// The goodbye has been said.
    LeftDone,
}

/// Why the next timeout is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerKind {
    /// The next probe.
    Probe,
    /// A probe was not answered.
    ProbeTimeout,
    /// A probe for another member was not answered.
    Relay,
    /// A suspicion ends.
    Suspicion,
    /// A round of gossip.
    Gossip,
    /// Connect to a member.
    Connect,
    /// Try the seeds.
    SeedRetry,
    /// Knock at a failed member.
    FailedRetry,
    /// A member has been listed long enough.
    Reap,
    /// The goodbye ends.
    Leave,
}

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
            Self::Reap(_) => TimerKind::Reap,
            Self::Leave => TimerKind::Leave,
        }
    }
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Probes sent.
    pub probes: u64,
    /// Probes that neither the member nor a helper answered.
    pub probes_missed: u64,
    /// Suspicions that this node raised itself.
    pub suspicions: u64,
    /// Members that this node declared failed itself.
    pub failures: u64,
    /// Times this node denied what was said of it.
    pub refutations: u64,
    /// Comparisons of tables begun.
    pub syncs: u64,
    /// Messages dropped because a limit was broken.
    pub invalid: u64,
    /// Records dropped because the table was full.
    pub table_full: u64,
    /// Actions dropped because the queue was full.
    pub actions_dropped: u64,
}

/// Members by status, this node included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusCounts {
    /// Alive.
    pub alive: usize,
    /// Suspect.
    pub suspect: usize,
    /// Failed.
    pub failed: usize,
    /// Left.
    pub left: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    Leaving,
    Fenced,
}

/// Why a session or an attempt at one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The peer's host closed it in order.
    Eof,
    /// The peer's host broke it.
    Reset,
    /// The peer's host is there, and nothing listens.
    Refused,
    /// No answer in time, or no way there.
    Timeout,
    /// This node closed it.
    Local,
}

/// Why a member cannot be made to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForceLeaveError {
    /// No such member is known.
    #[error("no such member is known")]
    Unknown,
    /// It answers, and force was not asked for.
    #[error("the member is alive")]
    Alive,
    /// A node leaves by [`Membership::leave`].
    #[error("a node cannot force itself to leave")]
    Myself,
}

/// The membership machine of one node. Feed it, then drain [`Self::poll_action`], then wait until [`Self::poll_timeout`].
#[derive(Clone, Debug)]
pub struct Membership {
    pub(super) config: Config,
    pub(super) faults: Faults,
    pub(super) random: Random,
    pub(super) me: Member,
    pub(super) phase: Phase,
    pub(super) table: Table,
    pub(super) timers: Timers<Timer>,
    pub(super) gossip: Queue,
    pub(super) suspicions: BTreeMap<NodeId, Suspicion>,
    pub(super) strangers: BTreeSet<NodeId>,
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
    /// Other boots of this node that were heard of, and how high.
    pub(super) doubles: BTreeMap<Boot, Incarnation>,
    pub(super) stats: Stats,
    actions: VecDeque<Action>,
    dirty: bool,
}

impl Membership {
    /// A node alone. `random` is its own stream; `faults` is all false outside a simulator.
    #[must_use]
    pub fn new(config: Config, me: Record, random: Random, faults: Faults, now: Instant) -> Self {
        let mut machine = Self {
            me: Member {
                record: me,
                status: Status::Alive,
                since: now,
                last_seen: Some(now),
                rtt: None,
                durable: true,
            },
            seeds: Seeds::new(now),
            config,
            faults,
            random,
            phase: Phase::Running,
            table: Table::new(),
            timers: Timers::new(),
            gossip: Queue::default(),
            suspicions: BTreeMap::new(),
            strangers: BTreeSet::new(),
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
    pub fn restore(&mut self, members: Vec<(Record, Status, bool)>, now: Instant) {
        for (record, status, durable) in members {
            let node = record.node;
            if node == self.me.record.node || !record.is_valid() || self.table.len() >= MEMBERS_MAX
            {
                continue;
            }
            let live = status <= Status::Suspect;
            self.table.insert(Entry {
                member: Member {
                    record,
                    status: if live { Status::Suspect } else { status },
                    since: now,
                    last_seen: None,
                    rtt: None,
                    durable: durable || status != Status::Left,
                },
                accuser: None,
                refused: false,
                restored: live,
                restored_from: status,
                link: Link::default(),
            });
            match status {
                Status::Alive | Status::Suspect => {
                    self.timers
                        .arm(Timer::Suspicion(node), now + self.config.restored_grace);
                }
                Status::Failed => self
                    .timers
                    .arm(Timer::Reap(node), now + self.config.failed_retention),
                Status::Left => self
                    .timers
                    .arm(Timer::Reap(node), now + self.config.left_retention),
            }
            if status != Status::Left {
                let spread = self.jitter(self.config.connect_retry_min);
                self.timers.arm(Timer::Connect(node), now + spread);
            }
        }
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
            entry.member.last_seen = Some(now);
            entry.link.refused = false;
        }
        match message {
            Message::Ping { seq, view, updates } => {
                self.apply_all(from, updates, now);
                self.on_ping(from, via, seq, now);
                self.compare_view(from, view, now);
            }
            Message::Ack { seq, view, updates } => {
                self.apply_all(from, updates, now);
                self.on_ack(from, via, seq, now);
                self.compare_view(from, view, now);
            }
            Message::PingReq { seq, target } => self.on_ping_req(from, via, seq, target, now),
            Message::Vouch { seq } => self.on_vouch(from, seq, now),
            Message::Nack { seq } => self.on_nack(from, seq),
            Message::Gossip { updates } => self.apply_all(from, updates, now),
            Message::SyncDigest {
                record,
                answer,
                buckets,
            } => {
                self.on_digest(from, record, answer, &buckets, now);
            }
            Message::Sync {
                mask,
                answer,
                updates,
            } => {
                self.apply_all(from, updates, now);
                if answer {
                    self.send_table(from, mask, false, now);
                }
            }
            Message::Leave {
                boot,
                incarnation,
                retired,
            } => {
                let standing = Standing {
                    status: Status::Left,
                    retired,
                    ..Standing::ALIVE
                };
                let update = Update::Brief {
                    node: from,
                    boot,
                    incarnation,
                    standing,
                };
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
        let Record {
            node,
            boot,
            incarnation,
            ..
        } = self.me.record;
        let live: Vec<_> = self
            .table
            .iter()
            .filter(|(_, entry)| entry.is_live())
            .map(|(id, _)| *id)
            .collect();
        let mut told = false;
        for to in live {
            let Some(entry) = self.table.get(&to) else {
                continue;
            };
            let (stream, datagrams) = (entry.link.open.is_some(), entry.link.datagrams);
            let goodbye = Message::Leave {
                boot,
                incarnation,
                retired: retire,
            };
            if stream {
                self.send(to, Via::Stream, goodbye.clone());
            }
            if datagrams {
                self.send(to, Via::Datagram, goodbye);
            }
            told |= stream || datagrams;
        }
        if !told {
            self.act(Action::LeftDone);
            return;
        }
        self.gossip = Queue::default();
        self.gossip.push(node, false);
        self.timers
            .arm(Timer::Gossip, now + self.config.gossip_interval);
        let rounds = self.config.gossip_interval * 3 + self.config.gossip_interval / 2;
        self.timers
            .arm(Timer::Leave, now + rounds.min(self.config.leave_timeout));
    }

    /// Makes a member leave, and the durable set with it, everywhere. One that still runs comes back by denying it.
    ///
    /// # Errors
    /// An unknown member; this node itself; a live one where `force` is not set.
    pub fn force_leave(
        &mut self,
        who: &NodeId,
        force: bool,
        now: Instant,
    ) -> Result<(), ForceLeaveError> {
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
        self.install(
            fact,
            Standing {
                accuser,
                ..Standing::ALIVE
            },
            now,
        );
        Ok(())
    }

    /// Everyone known, this node first.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        std::iter::once(&self.me).chain(self.table.iter().map(|(_, entry)| &entry.member))
    }

    /// One member; this node too.
    #[must_use]
    pub fn member(&self, node: &NodeId) -> Option<&Member> {
        if *node == self.me.record.node {
            return Some(&self.me);
        }
        self.table.get(node).map(|entry| &entry.member)
    }

    /// This node.
    #[must_use]
    pub const fn me(&self) -> &Member {
        &self.me
    }

    /// How many members are in each state.
    #[must_use]
    pub fn counts(&self) -> StatusCounts {
        let mut counts = StatusCounts::default();
        for member in self.members() {
            match member.status {
                Status::Alive => counts.alive += 1,
                Status::Suspect => counts.suspect += 1,
                Status::Failed => counts.failed += 1,
                Status::Left => counts.left += 1,
            }
        }
        counts
    }

    /// Equal on nodes that believe the same of the same members; suspicion aside.
    #[must_use]
    pub fn view_hash(&self) -> u64 {
        self.buckets()
            .iter()
            .fold(0, |sum, bucket| u64::wrapping_add(sum, *bucket))
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

    /// Members about whom there is still something to tell.
    #[must_use]
    pub fn gossip_pending(&self) -> usize {
        self.gossip.len()
    }

    /// What to hand to [`Self::restore`] after a restart: the others, each with whether it is durable.
    #[must_use]
    pub fn persistent(&self) -> Vec<(Record, Status, bool)> {
        let status = |entry: &Entry| {
            if entry.restored {
                entry.restored_from
            } else {
                entry.member.status
            }
        };
        self.table
            .iter()
            .map(|(_, e)| (e.member.record.clone(), status(e), e.member.durable))
            .collect()
    }

    /// Whether [`Self::persistent`] changed since this was last asked.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    pub(super) fn buckets(&self) -> Vec<u64> {
        let mut buckets = self.table.buckets().to_vec();
        debug_assert_eq!(buckets.len(), BUCKETS);
        if let Some(mine) = buckets.get_mut(bucket(&self.me.record.node)) {
            *mine = mine.wrapping_add(belief_hash(&self.me));
        }
        buckets
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
        Duration::from_micros(
            self.random
                .below(u64::try_from(most.as_micros()).unwrap_or(u64::MAX)),
        )
    }

    /// Live members, this node included.
    pub(super) fn live(&self) -> usize {
        self.table.live() + 1
    }

    pub(super) fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Puts `fact` in place of what was believed, and does what follows from it.
    pub(super) fn install(&mut self, fact: Fact, standing: Standing, now: Instant) {
        let node = fact.record.node;
        let old = self.table.remove(&node);
        if old.is_none() && self.table.len() >= MEMBERS_MAX {
            self.stats.table_full += 1;
            return;
        }
        let from = old.as_ref().map(|entry| entry.member.status);
        let version = (fact.record.incarnation, fact.record.boot);
        let new_boot = old
            .as_ref()
            .is_none_or(|entry| entry.member.record.boot != fact.record.boot);
        let moved = old
            .as_ref()
            .map(|entry| entry.member.record.addresses.clone())
            .filter(|old| *old != fact.record.addresses);
        let renamed = old
            .as_ref()
            .is_none_or(|entry| entry.member.record.name != fact.record.name);
        let full = new_boot
            || old.as_ref().is_some_and(|entry| entry.restored)
            || moved.is_some()
            || renamed;
        let mut entry = old.unwrap_or_else(|| self.newcomer(&fact, now));
        if new_boot {
            let open = entry.link.open;
            entry.link = Link {
                open,
                ..Link::default()
            };
        }
        entry.member.record = fact.record;
        entry.member.durable = !fact.retired;
        entry.restored = false;
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
        self.timers
            .arm_by(Timer::Gossip, now + self.config.gossip_interval / 4);
        if let (Some(from), true) = (moved, fact.status == Status::Alive) {
            self.act(Action::AddressMoved {
                node,
                from,
                to: record.addresses.clone(),
            });
        }
        if from != Some(fact.status) {
            let Standing {
                accuser, refused, ..
            } = standing;
            self.act(Action::Changed {
                node,
                from,
                to: fact.status,
                incarnation: version.0,
                accuser,
                refused,
            });
        }
        self.follow_status(node, from, fact.status, new_boot, &standing, now);
        let back_again = from.is_none_or(|from| from > Status::Suspect) || renamed;
        if fact.status == Status::Alive && back_again {
            self.check_name(&record.name);
        }
    }

    fn newcomer(&mut self, fact: &Fact, now: Instant) -> Entry {
        let open = self.strangers.remove(&fact.record.node);
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
            link: Link {
                open: open.then_some(now),
                ..Link::default()
            },
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
        match to {
            Status::Alive => {
                self.timers.disarm(&Timer::Reap(node));
                if changed || new_boot {
                    self.enter_rotation(node);
                    let hurry = from.is_some_and(|from| from > Status::Suspect)
                        || new_boot && from.is_some();
                    self.plan_connect(node, hurry, now);
                }
            }
            Status::Suspect => self.begin_suspicion(node, standing, now),
            Status::Failed => {
                if changed {
                    self.age_out(node, self.config.failed_retention, standing, now);
                    if self
                        .table
                        .get(&node)
                        .is_some_and(|entry| entry.link.open.is_some())
                    {
                        self.act(Action::Disconnect { peer: node });
                    }
                    self.plan_connect(node, true, now);
                }
                if !self.timers.is_armed(&Timer::Failed) {
                    let first = self.jitter(self.config.failed_probe);
                    self.timers.arm(Timer::Failed, now + first);
                }
            }
            Status::Left => {
                if changed {
                    self.age_out(node, self.config.left_retention, standing, now);
                    self.timers.disarm(&Timer::Connect(node));
                }
            }
        }
    }

    fn age_out(&mut self, node: NodeId, retention: Duration, standing: &Standing, now: Instant) {
        let age = Duration::from_secs(u64::from(standing.age_s));
        self.timers
            .arm(Timer::Reap(node), now + retention.saturating_sub(age));
    }

    fn on_reap(&mut self, node: NodeId) {
        if self.table.get(&node).is_none_or(Entry::is_live) {
            return;
        }
        if let Some(entry) = self.table.remove(&node) {
            self.suspicions.remove(&node);
            self.timers.disarm(&Timer::Connect(node));
            self.timers.disarm(&Timer::Suspicion(node));
            if entry.link.open.is_some() && self.strangers.len() < STRANGERS_MAX {
                self.strangers.insert(node);
            }
            self.dirty = true;
            self.act(Action::Reaped {
                record: entry.member.record,
                durable: entry.member.durable,
            });
        }
    }

    fn check_name(&mut self, name: &str) {
        let bears =
            |member: &&Member| member.status <= Status::Suspect && member.record.name == name;
        let nodes: Vec<_> = self
            .members()
            .filter(bears)
            .map(|member| member.record.node)
            .collect();
        if nodes.len() > 1 {
            self.act(Action::NameTaken {
                name: name.to_owned(),
                nodes,
            });
        }
    }

    pub(super) fn greet_stranger(&mut self, peer: NodeId) {
        if self.strangers.len() < STRANGERS_MAX {
            self.strangers.insert(peer);
        }
    }

    pub(super) fn mark_dirty(&mut self) {
        self.dirty = true;
    }
}

fn back(now: Instant, seconds: u32) -> Instant {
    Instant::from_micros(
        now.as_micros()
            .saturating_sub(u64::from(seconds) * 1_000_000),
    )
}
