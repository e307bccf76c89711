//! The machine: everything is handed in, everything to be done comes out.
//!
//! A driver calls the `handle_*` methods as things happen, then drains [`Engine::poll_output`], then sleeps until
//! [`Engine::poll_timeout`]. The engine never fails: bad bytes from a peer end in a counter, a closed session or an event.

mod circuits;
mod eviction;
mod idle;
mod relay;
mod repair;
mod sessions;
mod spread;
mod views;

pub use self::eviction::{EVICTED, eviction_of};

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::api::{EditId, EditRequest, Event, MemberChange, Output, ReadId, Review, SessionEvent, StorageEvent};
use crate::config::{Config, FULL_BACKOFF, MEMBERS_SAVE, MEMBERS_SAVED_AT_ONCE};
use crate::documents::{Document, DocumentId};
use crate::faults::{Fault, Faults};
use crate::identity::{Address, Boot, ChangeHash, ClusterId, Incarnation, NodeId, SessionId};
use crate::membership::{Action, Closed, ForceLeaveError, Membership, Record, STARTS_MAX, Via};
use crate::random::{Random, Seed};
use crate::replication::batch::Flush;
use crate::replication::records::NodeRecord;
use crate::replication::{Author, Effect, Recovered, Replica, Verdict};
use crate::seal::{DatagramDrop, Datagrams, KeyRing};
use crate::sometimes;
use crate::stats::Stats;
use crate::time::{Instant, Wall};
use crate::wire::{Frame, Packet};

use self::circuits::Circuits;
use self::relay::Relays;
use self::repair::Repairs;
use self::sessions::Sessions;
use self::spread::Spread;

/// Why the engine wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerKind {
    /// Membership: probes, suspicions, gossip, seeds.
    Membership,
    /// Roots are compared and announced.
    Roots,
    /// A repair has heard nothing for too long.
    Pull,
    /// An edit has waited long enough for replicas.
    Replicas,
    /// The member table is saved.
    Members,
    /// Idle streams are looked for.
    Streams,
    /// A change has waited too long for a stream.
    Relays,
    /// Nobody has answered who was asked for a circuit.
    Circuits,
}

/// One node.
#[derive(Debug)]
pub struct Engine<D> {
    config: Config,
    faults: Faults,
    node: NodeId,
    boot: Boot,
    record: NodeRecord,
    /// The raised start count is durable: from here on the node speaks.
    started: bool,
    rewrite_tail: bool,
    seeds: Vec<Address>,
    membership: Membership,
    datagrams: Datagrams,
    replica: Replica<D>,
    sessions: Sessions,
    repairs: Repairs,
    spread: Spread,
    relays: Relays,
    circuits: Circuits,
    outputs: VecDeque<Output<D>>,
    save_members: Option<Instant>,
    /// When idle streams are looked for.
    sweep: Option<Instant>,
    /// The node's record was refused, and is to be saved with the members.
    save_node: bool,
    left: bool,
    numbers: u64,
    stats: Stats,
}

impl<D: Document> Engine<D> {
    /// A node that starts with what is on its disk. Its first output makes its raised start count durable; nothing is
    /// sent or acknowledged before that.
    #[must_use]
    pub fn new(config: Config, recovered: Recovered, seed: Seed, faults: Faults, now: Instant) -> Self {
        let mut random = Random::new(&seed, "boot");
        let boot = Boot(random.bytes16());
        let node = config.node_key.node_id();
        sometimes!("start after a crash", recovered.unclean);
        sometimes!("start with members", !recovered.members.is_empty());
        let mut record = recovered.node.unwrap_or_else(|| first_record(&config));
        let unraised = faults.has(Fault::IncarnationNotRaised) && record.starts > 0;
        record.starts = record.starts.saturating_add(u32::from(!unraised)).min(STARTS_MAX);
        let me = Record {
            node,
            boot,
            incarnation: Incarnation { starts: record.starts, refutations: 0 },
            name: config.name.clone(),
            zone: config.zone.clone(),
            addresses: config.addresses.clone(),
            version: config.version.clone(),
            url: config.url.clone(),
        };
        let mut membership =
            Membership::new(config.membership.clone(), me, Random::new(&seed, "membership"), faults, now);
        membership.restore(recovered.members, now);
        let author = Author { node, boot, zone: config.zone.clone() };
        let mut replica = Replica::new(author, record.secret, recovered.documents, config.limits.clone(), faults);
        replica.save_node(&record);
        let mut engine = Self {
            datagrams: Datagrams::new(config.cluster_keys.clone(), node, boot),
            node,
            boot,
            record,
            started: faults.has(Fault::SpeaksEarly),
            rewrite_tail: recovered.unclean && !faults.has(Fault::DirtyTailTrusted),
            seeds: Vec::new(),
            membership,
            replica,
            sessions: Sessions::default(),
            repairs: Repairs::new(Random::new(&seed, "repairs")),
            spread: Spread::new(faults),
            relays: Relays::default(),
            circuits: Circuits::default(),
            outputs: VecDeque::new(),
            save_members: None,
            sweep: None,
            save_node: false,
            left: false,
            numbers: 0,
            stats: Stats::default(),
            faults,
            config,
        };
        engine.recall_evictions(now);
        engine
    }

    /// What the wall clock shows; the driver says so now and then, and when that has been set. Others are told it in answers
    /// to probes, and people how far clocks are apart; nothing rests on it.
    pub fn set_wall(&mut self, wall: Wall, now: Instant) {
        self.membership.set_wall(wall, now);
    }

    /// A datagram arrived. Whatever does not verify is counted and forgotten.
    pub fn handle_datagram(&mut self, bytes: Bytes, now: Instant) {
        if !self.started {
            return;
        }
        let membership = &self.membership;
        let boot_of = |node: NodeId| membership.let_in(&node).map(|record| record.boot);
        match self.datagrams.open(&bytes, boot_of) {
            Ok((from, body)) => self.on_packet(from, &body, now),
            Err(drop) => {
                sometimes!("datagram of another boot", drop == DatagramDrop::Forged);
                sometimes!("datagram repeated", drop == DatagramDrop::Replayed);
                sometimes!("datagram of a stranger", drop == DatagramDrop::UnknownSender);
                self.stats.dropped(drop_reason(drop));
            }
        }
        self.settle(now);
    }

    fn on_packet(&mut self, from: NodeId, body: &[u8], now: Instant) {
        match Packet::decode(body) {
            Ok(Some(packet)) => {
                self.stats.received("datagram", body.len());
                self.membership.on_datagram_verified(from, now);
                self.on_roots(from, packet.roots, now);
                self.membership.handle_message(from, Via::Datagram, packet.message, now);
            }
            Ok(None) => {
                sometimes!("later version sent");
                self.stats.dropped("unknown datagram kind");
            }
            Err(_) => self.stats.dropped("malformed datagram"),
        }
    }

    /// Something happened to a stream. The driver numbers the streams it accepts with odd numbers.
    pub fn handle_session(&mut self, session: SessionId, event: SessionEvent, now: Instant) {
        match event {
            SessionEvent::Opened(identity) => self.on_opened(session, identity, now),
            SessionEvent::Frame(bytes) => self.on_frame(session, &bytes, now),
            SessionEvent::Writable { queued } => self.sessions.drained(session, queued),
            SessionEvent::Closed(why) => self.on_closed(session, why, now),
            SessionEvent::Circuit(step) => self.on_circuit_step(session, step),
        }
        self.settle(now);
    }

    /// Storage has done, or failed to do, what it was asked.
    pub fn handle_storage(&mut self, event: StorageEvent, now: Instant) {
        match event {
            StorageEvent::Persisted(batch) => self.replica.persisted(batch, now, &mut self.stats),
            StorageEvent::Full(batch) => {
                self.replica.refused(batch, now + FULL_BACKOFF, now, &mut self.stats);
                // The member table may have been among what was refused.
                self.save_members.get_or_insert(now + MEMBERS_SAVE);
            }
            StorageEvent::Failed(batch) if self.faults.has(Fault::FailureIgnored) => {
                self.replica.persisted(batch, now, &mut self.stats);
            }
            StorageEvent::Failed(_) => self.replica.storage_failed(),
            StorageEvent::Loaded { load, entries, complete } => {
                self.replica.loaded(load, &entries, complete, now, &mut self.stats);
            }
            StorageEvent::LoadFailed(load) => self.replica.load_failed(load, &mut self.stats),
        }
        self.settle(now);
    }

    /// A job is done.
    pub fn handle_verdict(&mut self, verdict: Verdict<D>, now: Instant) {
        self.replica.verdict(verdict, now, &mut self.stats);
        self.settle(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.started {
            if self.membership.poll_timeout().is_some_and(|(at, _)| at <= now) {
                self.membership.handle_timeout(now);
            }
            self.compare_roots(now);
            self.expire_pulls(now);
            self.sweep(now);
            self.give_up_calls(now);
            self.give_up_searches(now);
            for (id, mut edited) in self.spread.waits.expire(now) {
                edited.replicated |= self.faults.has(Fault::TimeoutCountsAsHeld);
                self.emit(Event::Edited(id, Ok(edited)));
            }
            if self.save_members.is_some_and(|at| at <= now) {
                self.save_members = None;
                if std::mem::take(&mut self.save_node) {
                    self.replica.save_node(&self.record);
                }
                self.replica.save_members(&self.membership.persistent());
            }
        }
        self.settle(now);
    }

    /// When to call [`Engine::handle_timeout`], and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, TimerKind)> {
        if !self.started {
            return None;
        }
        [
            self.membership.poll_timeout().map(|(at, _)| (at, TimerKind::Membership)),
            self.repairs.tick().map(|at| (at, TimerKind::Roots)),
            self.repairs.pull_deadline().map(|at| (at, TimerKind::Pull)),
            self.spread.waits.next_deadline().map(|at| (at, TimerKind::Replicas)),
            self.save_members.map(|at| (at, TimerKind::Members)),
            self.sweep.map(|at| (at, TimerKind::Streams)),
            self.relays.next_deadline().map(|at| (at, TimerKind::Relays)),
            self.circuits.next_deadline().map(|at| (at, TimerKind::Circuits)),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Finds the cluster through these addresses, now and whenever nobody else answers.
    pub fn join(&mut self, seeds: Vec<Address>, now: Instant) {
        if self.started {
            self.membership.join(seeds, now);
        } else {
            self.seeds = seeds;
        }
        self.settle(now);
    }

    /// Takes all these for live members, as if it had met them long ago. For a simulator that does not wait until thousands
    /// have.
    #[doc(hidden)]
    pub fn introduce(&mut self, records: &[Arc<Record>], now: Instant) {
        self.membership.introduce(records, now);
        self.settle(now);
    }

    /// Says goodbye; [`Event::LeaveDone`] follows. `retire` also takes the node out of the durable set.
    pub fn leave(&mut self, retire: bool, now: Instant) {
        self.left = true;
        self.replica.close();
        // Whoever waits for peers is told how far it came.
        for (id, edited) in self.spread.waits.expire(Instant::from_micros(u64::MAX)) {
            sometimes!("left while edits wait");
            self.emit(Event::Edited(id, Ok(edited)));
        }
        if self.started {
            self.membership.leave(retire, now);
        } else {
            self.emit(Event::LeaveDone);
        }
        self.settle(now);
    }

    /// Takes a member that is gone for good out of the cluster and out of the durable set.
    ///
    /// # Errors
    /// When it is unknown, is this node, or is alive and `force` is false.
    pub fn force_leave(&mut self, who: &NodeId, force: bool, now: Instant) -> Result<(), ForceLeaveError> {
        let result = self.membership.force_leave(who, force, now);
        self.settle(now);
        result
    }

    /// Asks for an edit; [`Event::Edited`] answers. `wall` labels the change for people.
    pub fn edit(&mut self, request: EditRequest, wall: Wall, now: Instant) -> EditId {
        self.numbers += 1;
        let id = EditId(self.numbers);
        self.stats.edits += 1;
        self.replica.edit(id, request, wall, now, &mut self.stats);
        self.settle(now);
        id
    }

    /// Asks for a document; [`Event::Read`] answers with durable state.
    pub fn read(&mut self, document: &DocumentId, conflicts: bool, now: Instant) -> ReadId {
        self.numbers += 1;
        let id = ReadId(self.numbers);
        self.stats.reads += 1;
        self.replica.read(id, document, conflicts, now, &mut self.stats);
        self.settle(now);
        id
    }

    /// Asks for a document's changes; [`Event::History`] answers.
    pub fn history(&mut self, document: &DocumentId, now: Instant) -> ReadId {
        self.numbers += 1;
        let id = ReadId(self.numbers);
        self.replica.history(id, document);
        self.settle(now);
        id
    }

    /// Asks what a document was when these changes were its heads; [`Event::Version`] answers.
    pub fn version(&mut self, document: &DocumentId, heads: Vec<ChangeHash>, now: Instant) -> ReadId {
        self.numbers += 1;
        let id = ReadId(self.numbers);
        self.stats.reads += 1;
        self.replica.version(id, document, heads);
        self.settle(now);
        id
    }

    /// Looks again at changes of a document that are in quarantine; [`Event::Reviewed`] answers, once that is durable.
    pub fn review(&mut self, document: &DocumentId, review: Review, now: Instant) -> ReadId {
        self.numbers += 1;
        let id = ReadId(self.numbers);
        self.replica.review(id, document, review, now, &mut self.stats);
        self.settle(now);
        id
    }

    /// The next thing to do. Drain it after every call.
    pub fn poll_output(&mut self) -> Option<Output<D>> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        // With nothing else left to do, what was gathered becomes one batch.
        let Flush { batch, epoch, writes } = self.replica.flush()?;
        let epoch = if self.faults.has(Fault::EpochKept) { 0 } else { epoch };
        let rewrite_tail = std::mem::take(&mut self.rewrite_tail);
        Some(Output::Persist { batch, epoch, rewrite_tail, writes })
    }

    /// Carries what the parts want of each other, until none wants anything.
    fn settle(&mut self, now: Instant) {
        loop {
            if let Some(effect) = self.replica.pop_effect() {
                self.on_effect(effect, now);
            } else if self.started
                && let Some(action) = self.membership.poll_action()
            {
                self.on_action(action, now);
            } else {
                break;
            }
        }
        let membership = self.membership.stats();
        self.stats.dropped_so_far("membership message beyond a limit", membership.invalid);
        self.stats.dropped_so_far("claim that its subject disowns", membership.disowned);
        self.stats.dropped_so_far("member without room", membership.table_full);
        self.stats.dropped_so_far("membership action without room", membership.actions_dropped);
        let keeps = self.started && !self.faults.has(Fault::MembersUnsaved);
        if keeps && self.save_members.is_none() && self.membership.take_dirty() {
            let often = u32::try_from(self.membership.known() / MEMBERS_SAVED_AT_ONCE).unwrap_or(u32::MAX);
            self.save_members = Some(now + MEMBERS_SAVE * often.max(1));
        }
    }

    fn on_effect(&mut self, effect: Effect<D>, now: Instant) {
        match effect {
            Effect::Load { load, query } => self.outputs.push_back(Output::Load { load, query }),
            Effect::Verify(job) => self.outputs.push_back(Output::Verify(job)),
            Effect::Event(event) => {
                let mut eviction = None;
                if let Event::Changed(summary) = &event {
                    self.repairs.arm(now);
                    // An eviction and its end may come together: what counts is what there is by now.
                    eviction =
                        Some(&summary.id).filter(|id| id.collection() == EVICTED).and_then(|id| self.summary(id));
                }
                self.emit(event);
                if let Some(summary) = eviction {
                    self.follow_eviction(&summary, now);
                }
            }
            Effect::Started => {
                if !self.started {
                    self.started = true;
                    let seeds = std::mem::take(&mut self.seeds);
                    self.membership.join(seeds, now);
                }
            }
            // The first start needs it; a later one is tried again with the next thing to save.
            Effect::NodeRefused if !self.started => self.emit(Event::StorageFailed),
            Effect::NodeRefused => self.save_node = true,
            Effect::Durable { authored, edits } => self.spread(authored, edits, now),
            Effect::Delivered { ticket, complete } => self.on_delivered(ticket, complete, now),
            Effect::Missing { document, from } => self.fetch(document, from, now),
            Effect::Window { session, request, changes, next } => {
                self.send(session, &Frame::Window { request, changes, next });
            }
        }
    }

    fn on_action(&mut self, action: Action, now: Instant) {
        match action {
            Action::Send { to, via: Via::Datagram, message } => self.send_datagram(to, message),
            Action::Send { to, via: Via::Stream, message } => {
                let roots = if message.carries_roots() { self.roots_for(to) } else { Vec::new() };
                match self.sessions.of(to) {
                    Some(session) => self.send(session, &Frame::Membership(message, roots)),
                    None => self.stats.dropped("membership message without session"),
                }
            }
            Action::Connect { address, peer } => self.connect(address, peer, now),
            Action::Detour { peer } => self.seek_circuit(peer, now),
            Action::Disconnect { peer } => {
                if let Some(session) = self.sessions.of(peer) {
                    self.hang_up(session, "the member was silent on it");
                }
                self.membership.on_session_closed(peer, Closed::Local, now);
            }
            Action::Changed { node, from, to, evidence, .. } => {
                let Some(record) = self.membership.record(&node) else { return };
                let (name, zone) = (record.name.clone(), record.zone.clone());
                self.repairs.arm(now);
                self.plan_sweep(now);
                self.emit(Event::Member(MemberChange { node, name, zone, from, to, evidence, at: now }));
            }
            Action::AddressMoved { node, to, .. } => self.emit(Event::AddressMoved { node, addresses: to }),
            Action::NameTaken { name, nodes } => self.name_taken(name, &nodes),
            Action::Reaped { record, .. } => self.datagrams.forget(record.node),
            Action::Refuted { incarnation } => {
                if incarnation.starts > self.record.starts {
                    self.record.starts = incarnation.starts;
                    self.replica.save_node(&self.record);
                }
            }
            Action::Fenced { .. } => {
                self.left = true;
                if !self.faults.has(Fault::FencedTakesEdits) {
                    self.replica.close();
                }
                self.emit(Event::Fenced);
            }
            Action::LeftDone => self.emit(Event::LeaveDone),
        }
    }

    fn name_taken(&mut self, name: String, nodes: &[NodeId]) {
        let address = |node: &NodeId| self.membership.record(node)?.addresses.first().cloned();
        let addresses = nodes.iter().filter_map(address).collect();
        self.emit(Event::NameTaken { name, addresses });
    }

    fn send_datagram(&mut self, to: NodeId, message: crate::membership::Message) {
        let roots = if message.carries_roots() { self.roots_for(to) } else { Vec::new() };
        self.send_sealed(to, &Packet { message, roots }.encode());
    }

    /// Seals `body` for a member and sends it, whatever it says. In the simulator servers of later versions say what this
    /// one has never heard of.
    #[doc(hidden)]
    pub fn send_sealed(&mut self, to: NodeId, body: &[u8]) {
        let mine = &self.config.addresses;
        if !mine.is_empty() && !mine.iter().any(Address::takes_datagrams) {
            return;
        }
        let Some(record) = self.membership.let_in(&to) else { return };
        let Some(address) = record.addresses.iter().find(|address| address.takes_datagrams()).cloned() else {
            return;
        };
        let boot = record.boot;
        match self.datagrams.seal(to, boot, body) {
            Some(bytes) => {
                self.stats.sent("datagram", bytes.len());
                self.outputs.push_back(Output::SendDatagram { to: address, bytes });
            }
            None => self.stats.dropped("datagram not sealed"),
        }
    }

    fn send(&mut self, session: SessionId, frame: &Frame) {
        let bytes = frame.encode();
        self.send_encoded(session, frame.kind(), bytes);
    }

    fn send_encoded(&mut self, session: SessionId, kind: &'static str, bytes: Bytes) {
        self.stats.sent(kind, bytes.len());
        self.sessions.queue(session, bytes.len());
        self.outputs.push_back(Output::SendFrame { session, frame: bytes });
    }

    /// Holds these cluster keys from now on, and none that is not among them. Whoever drives the streams closes those that
    /// were opened under another.
    pub fn set_keys(&mut self, keys: KeyRing) {
        self.datagrams.set_keys(keys.clone());
        self.config.cluster_keys = Some(keys);
    }

    fn emit(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}

/// A node's record before its first start: servers of one key and name agree on the cluster without asking.
fn first_record(config: &Config) -> NodeRecord {
    let (cluster, secret) = match config.cluster_keys.as_ref().map(KeyRing::first) {
        Some(key) => (key.cluster_id(&config.cluster_name), key.replication_secret(&config.cluster_name)),
        None => {
            let secret = blake3::derive_key("knot 2026 cluster without a key", config.cluster_name.as_bytes());
            let [id @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *blake3::hash(&secret).as_bytes();
            (ClusterId(id), secret)
        }
    };
    NodeRecord { cluster, secret, starts: 0 }
}

fn drop_reason(drop: DatagramDrop) -> &'static str {
    match drop {
        DatagramDrop::TooShort => "datagram too short",
        DatagramDrop::TooLong => "datagram too long",
        DatagramDrop::Version => "datagram of another version",
        DatagramDrop::UnknownKey => "datagram under another cluster key",
        DatagramDrop::UnknownSender => "datagram from an unknown sender",
        DatagramDrop::Forged => "datagram does not verify",
        DatagramDrop::Replayed => "datagram seen before",
        DatagramDrop::Crowded => "datagram from one peer too many",
    }
}
