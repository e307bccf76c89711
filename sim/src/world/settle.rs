//! The end of a run: faults have stopped, the cluster settles, and all that it shows is audited.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use knot_engine::documents::{Document, DocumentId};
use knot_engine::membership::{Member, Status};
use knot_engine::{DocumentView, Engine, Etag, HistoryEntry, Instant, Queue, ReadError, VersionView, Wall};
use serde_json::Value;

use super::World;
use crate::application;
use crate::checker::{
    Clocks, IDLE_AFTER, IDLE_AFTER_LARGE, IDLE_DATAGRAM_BYTES_MIN, IDLE_FOR, IDLE_FOR_LARGE, Invariant, Replica, Seen,
    Sent, Spending, root_gap, settle_bound,
};
use crate::ledger::{Outcome, Write};
use crate::network::{Process, RETRANSMIT};
use crate::node::{ReadFor, Running};
use crate::scenario::{Bounds, FaultKind, Target};
use crate::workload;

/// Of one document in so many earlier versions are looked at.
const VERSIONS_OF_EVERY: usize = 4;
/// How often, and how many times, queues are looked at in the end.
const LOOK_AT_QUEUES_EVERY: Duration = Duration::from_millis(100);
const QUEUE_LOOKS: usize = 5;
/// How often it is seen whether the cluster has settled.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long after the last fault a server may take to start again.
const STARTS_WITHIN: Duration = Duration::from_secs(3);
/// How long streams may take to get over the faults: the longest wait for a retransmission, and a keepalive.
const STREAMS_RECOVER: Duration = Duration::from_secs(60);
/// Audits begun at most, where something came while one was under way.
const AUDITS_MAX: usize = 10;
/// How often members are saved while they change, for every so many of them ...
const MEMBERS_SAVED: Duration = Duration::from_secs(1);
const MEMBERS_SAVED_AT_ONCE: usize = 32;
/// ... and how long that takes.
const SAVE: Duration = Duration::from_millis(100);
/// How long a read of the audit may take.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// Datagrams lost of a thousand up to which a cluster counts as idle.
const IDLE_LOSS_MAX: u64 = 1;
/// The engine's name for datagrams among what it sends.
const DATAGRAM: &str = "datagram";
/// How long a server that was cut off may take itself for sick, and probe seldom.
const WELL_AGAIN: Duration = Duration::from_secs(60);

/// The answers of the audit that is under way.
#[derive(Debug, Default)]
pub(super) struct Audit {
    pub(super) values: BTreeMap<usize, Result<DocumentView, ReadError>>,
    pub(super) histories: BTreeMap<usize, Vec<HistoryEntry>>,
    pub(super) versions: BTreeMap<usize, Option<Result<VersionView, ReadError>>>,
    pub(super) versions_asked: usize,
}

impl Audit {
    pub(super) fn on_value(&mut self, node: usize, answer: Result<DocumentView, ReadError>) {
        self.values.insert(node, answer);
    }

    pub(super) fn on_history(&mut self, node: usize, entries: Vec<HistoryEntry>) {
        self.histories.insert(node, entries);
    }
}

impl<D: Document> World<D> {
    /// Waits until all live servers are alike; says how long that took since the last fault.
    pub(super) fn settle(&mut self) -> Option<Duration> {
        let quiet = self.now;
        self.run_until(quiet + STARTS_WITHIN);
        self.excuse_the_dead();
        let since = self.last_disturbance().max(quiet);
        let end = since + settle_bound(self.nodes.len());
        loop {
            if self.is_over() {
                return None;
            }
            let Some((invariant, node, detail)) = self.difference() else {
                return Some(self.now.since(since));
            };
            if self.now >= end {
                self.checkers.report(invariant, self.now, node, || detail);
                return None;
            }
            let next = self.now + LOOK_EVERY;
            self.run_until(next);
        }
    }

    /// What only a server that never comes back has, nobody can show.
    fn excuse_the_dead(&mut self) {
        let live = |node: &usize| self.nodes[*node].held_down == 0 && !self.checkers.outside.contains(node);
        let (living, dead): (Vec<usize>, Vec<usize>) = (0..self.nodes.len()).partition(live);
        for node in dead {
            let held: Vec<_> = self.checkers.tap.nodes[node].durable.iter().copied().collect();
            self.checkers.excuse(held, &living);
        }
    }

    /// Why the cluster has not settled; none when it has. The first reason found ends the search: a look at all views costs
    /// the square of the cluster's size.
    fn difference(&self) -> Option<(Invariant, usize, String)> {
        let replicas = self.replicas();
        let gap = |(node, engine): (usize, &Engine<D>)| {
            let members: Vec<_> = engine.members().collect();
            self.checkers.view_gap(node, &members, &replicas)
        };
        self.promised()
            .find_map(gap)
            .or_else(|| root_gap(&replicas, !self.hostile.has_forged()))
            .or_else(|| self.unanswered())
            .or_else(|| self.release_gap())
            .or_else(|| self.stream_gap())
    }

    /// The engines that something is promised of.
    fn promised(&self) -> impl Iterator<Item = (usize, &Engine<D>)> {
        let promised = self.nodes.iter().filter(|node| !self.checkers.outside.contains(&node.index));
        promised.filter_map(|node| Some((node.index, &node.running.as_ref()?.engine)))
    }

    /// What they hold.
    pub(super) fn replicas(&self) -> Vec<Replica> {
        let replica = |(node, engine): (usize, &Engine<D>)| {
            let (me, scopes) = (engine.me().clone(), engine.scopes());
            Replica { node, me, scopes }
        };
        self.promised().map(replica).collect()
    }

    fn unanswered(&self) -> Option<(Invariant, usize, String)> {
        let outside = |node: &usize| self.checkers.outside.contains(node);
        let asked = self.nodes.iter().filter(|node| !outside(&node.index));
        let mut reads = asked.filter_map(|node| Some((node.index, node.running.as_ref()?.reads.values().next()?)));
        if let Some((node, read)) = reads.next() {
            return Some((Invariant::Answered, node, format!("a read has no answer: {read:?}")));
        }
        let pending = |outcome: &Outcome| *outcome == Outcome::Pending;
        let mut writes = self.checkers.ledger.writes().filter(|write| !outside(&write.operation.node));
        let write = writes.find(|write| pending(&write.outcome))?;
        let node = write.operation.node;
        let detail = format!("w{} was asked at {}", write.operation.id, write.asked);
        Some((Invariant::Answered, node, detail))
    }

    /// Reads every document on every live server that holds it. Where servers that were not healed still send what they
    /// have, until that has been possible while nothing came.
    pub(super) fn audit(&mut self) {
        for _ in 0..AUDITS_MAX {
            let before = self.sequences();
            let Some(all) = self.look_at_all() else { return };
            if self.sequences() == before && self.audit_forged(&all, &before) {
                self.checkers.audit(&all, self.now);
                self.audit_feeds();
                self.audit_lists(&all);
                self.audit_members();
                self.audit_clocks();
                self.check_application(&all);
                self.replay_logs();
                self.check_spending();
                self.audit_memory();
                self.audit_queues();
                return;
            }
            if self.settle().is_none() {
                return;
            }
        }
    }

    fn look_at_all(&mut self) -> Option<BTreeMap<Target, Vec<(usize, Seen)>>> {
        let targets: Vec<Target> = self.checkers.ledger.targets().map(|(target, _)| target.clone()).collect();
        let mut all = BTreeMap::new();
        for (at, target) in targets.into_iter().enumerate() {
            let seen = self.look_at(&target);
            // They are made of whole logs, which takes its time.
            if at % VERSIONS_OF_EVERY == 0 {
                self.look_at_versions(&target);
            }
            all.insert(target, seen);
            if self.is_over() {
                return None;
            }
        }
        Some(all)
    }

    /// What a hostile member has forged: in the documents of others it counts nowhere, and its own are alike everywhere.
    /// False where something of it came late, and others do not have it yet.
    fn audit_forged(&mut self, all: &BTreeMap<Target, Vec<(usize, Seen)>>, before: &[Option<u64>]) -> bool {
        if !self.hostile.has_forged() {
            return true;
        }
        let own: Vec<Target> = self.hostile.own().cloned().collect();
        let spoiled = self.hostile.spoiled();
        let spoiled: Vec<Target> = all.keys().filter(|target| spoiled.contains(&target.id())).cloned().collect();
        for target in spoiled.iter().chain(&own) {
            // A change is tried when its document is read first, and its history says so from then on.
            self.look_at(target);
            let seen = self.look_at(target);
            if self.sequences() != before {
                return false;
            }
            self.checkers.check_forged(&self.hostile, target, &seen, self.now);
            if self.is_over() {
                return true;
            }
        }
        self.check_confined(&own);
        if let Some((invariant, node, detail)) = root_gap(&self.replicas(), true) {
            self.checkers.report(invariant, self.now, node, || detail);
        }
        true
    }

    /// A zone's document is nowhere else, although it was sent there.
    fn check_confined(&mut self, own: &[Target]) {
        for node in &self.nodes {
            let Some(running) = &node.running else { continue };
            let outside = own.iter().filter(|target| !target.is_held_in(&node.spec.zone));
            if let Some(target) = outside.into_iter().find(|target| running.engine.summary(&target.id()).is_some()) {
                let detail = || format!("it took {}, which a hostile member sent it", target.id());
                self.checkers.report(Invariant::ScopeEntitlement, self.now, node.index, detail);
            }
        }
    }

    fn sequences(&self) -> Vec<Option<u64>> {
        self.nodes.iter().map(|node| Some(node.running.as_ref()?.engine.sequence())).collect()
    }

    fn audit_feeds(&mut self) {
        for node in &self.nodes {
            let Some(running) = &node.running else { continue };
            let scopes = running.engine.scopes();
            let documents = scopes.iter().map(|scope| scope.documents + scope.deleted).sum();
            let feed = running.engine.changes_since(0, usize::MAX);
            self.checkers.check_feed(node.index, documents, &feed, self.now);
            let (counted, listed) = (running.engine.quarantined_changes(), running.engine.quarantined());
            self.checkers.check_quarantine(node.index, counted, &listed, self.now);
        }
    }

    /// Each server lists the documents that it shows, whole and in pages.
    fn audit_lists(&mut self, all: &BTreeMap<Target, Vec<(usize, Seen)>>) {
        let mut shown: BTreeMap<(usize, &Option<String>, &str), BTreeSet<&str>> = BTreeMap::new();
        for (target, replicas) in all {
            for (node, seen) in replicas {
                let keys = shown.entry((*node, &target.zone, &target.collection)).or_default();
                if seen.value.is_some() {
                    keys.insert(&target.key);
                }
            }
        }
        for ((node, zone, collection), keys) in shown {
            let Some(running) = &self.nodes[node].running else { continue };
            let scope = Target { zone: zone.clone(), collection: collection.to_owned(), key: String::new() }.scope();
            let list = |prefix: &str, after: Option<&str>, limit: usize| -> Vec<String> {
                let page = running.engine.list(&scope, collection, prefix, after, limit);
                page.into_iter().map(|summary| summary.id.key().to_owned()).collect()
            };
            self.checkers.check_list((node, collection), &keys, list, self.now);
        }
    }

    /// Servers that believe the same of all members have the same hash of them.
    fn audit_members(&mut self) {
        let believes = |(node, engine): (usize, &Engine<D>)| {
            let mut members: Vec<_> = engine.members().collect();
            members.sort_unstable_by_key(|member| member.record.node);
            (node, members, engine.view_hash())
        };
        let beliefs: Vec<_> = self.promised().map(believes).collect();
        self.checkers.check_beliefs(&beliefs, self.now);
    }

    /// Servers know how far the clocks of those that they hear are ahead of their own.
    fn audit_clocks(&mut self) {
        // A copy of a server runs on another machine, by another clock.
        if self.scenario.faults.iter().any(|fault| matches!(fault.kind, FaultKind::Clone { .. })) {
            return;
        }
        let mut found = Vec::new();
        for (node, engine) in self.promised() {
            let clock = &self.nodes[node].clock;
            for member in engine.members() {
                let Some(seen) = member.clock else { continue };
                let is_it = |process: &Running<D>| process.engine.me().record.boot == member.record.boot;
                let mut nodes = self.nodes.iter().filter(|node| node.running.as_ref().is_some_and(is_it));
                let Some(other) = nodes.next().map(|node| &node.clock) else { continue };
                // It was told at some moment of a round trip.
                let round_trip = (seen.within * 2).as_micros();
                let asked = seen.at.as_micros().saturating_sub(u64::try_from(round_trip).unwrap_or(u64::MAX));
                let since = clock.shows_at(Instant::from_micros(asked));
                if clock.set_at.max(other.set_at) < since {
                    let ahead_ms = other.wall(self.now).0 - clock.wall(self.now).0;
                    let drift = clock.drift_from(other, self.now.since(since));
                    found.push((node, member, seen, Clocks { ahead_ms, drift }));
                }
            }
        }
        for (node, member, seen, shown) in found {
            self.checkers.check_clocks(node, &member, seen, shown, self.now);
        }
    }

    fn check_application(&mut self, all: &BTreeMap<Target, Vec<(usize, Seen)>>) {
        let Some(application) = &self.application else {
            return;
        };
        let mut documents: BTreeMap<usize, BTreeMap<DocumentId, Value>> = BTreeMap::new();
        for (target, replicas) in all {
            for (node, seen) in replicas {
                let shown = documents.entry(*node).or_default();
                shown.extend(seen.value.clone().map(|value| (target.id(), value)));
            }
        }
        let ledger = &self.checkers.ledger;
        let checked =
            application.check(&|id| ledger.get(id).map_or(application::Outcome::NotAsked, outcome), documents);
        if let Err(why) = checked {
            self.checkers.report(Invariant::Application, self.now, 0, || why);
        }
    }

    /// Starts an engine from each disk that is at rest, and compares it with the one that runs.
    fn replay_logs(&mut self) {
        for node in 0..self.nodes.len() {
            let Some(running) = self.nodes[node].running.as_ref().filter(|_| self.nodes[node].disk.is_idle()) else {
                continue;
            };
            let shown = running.engine.scopes();
            let replayed = self.nodes[node].read_anew(self.planted, self.now).scopes();
            self.checkers.check_replay(node, &shown, &replayed, self.now);
        }
    }

    /// What a server knows of members is on its disk a moment later.
    fn audit_memory(&mut self) {
        let before: Vec<_> = (0..self.nodes.len()).map(|node| self.members_of(node)).collect();
        let pause = self.nodes.len() / MEMBERS_SAVED_AT_ONCE + 1;
        let next = self.now + MEMBERS_SAVED * u32::try_from(pause).unwrap_or(u32::MAX) + SAVE;
        self.run_until(next);
        for (node, before) in before.into_iter().enumerate() {
            let same = |(one, other): (&(Member, bool), &(Member, bool))| {
                one.0.record == other.0.record && one.0.status == other.0.status && one.0.durable == other.0.durable
            };
            let members = self.members_of(node);
            let lasts = before.len() == members.len() && before.iter().zip(&members).all(same);
            if lasts && !members.is_empty() {
                let recalled = self.nodes[node].read_anew(self.planted, self.now);
                self.checkers.check_memory(node, &members, |member| recalled.member(&member.record.node), self.now);
            }
        }
    }

    /// Looks at all queues now and then.
    fn audit_queues(&mut self) {
        let mut least: Vec<_> = (0..self.nodes.len()).map(|node| self.queues_of(node)).collect();
        for _ in 0..QUEUE_LOOKS {
            self.run_until(self.now + LOOK_AT_QUEUES_EVERY);
            for (node, least) in least.iter_mut().enumerate() {
                let queues = self.queues_of(node);
                least.truncate(queues.len());
                least.iter_mut().zip(&queues).for_each(|(least, queue)| least.depth = least.depth.min(queue.depth));
            }
        }
        for (node, least) in least.iter().enumerate() {
            self.checkers.check_emptied(node, least, self.now);
        }
    }

    /// What a server's queues hold; nothing where its storage takes nothing, or others are not healed.
    fn queues_of(&self, node: usize) -> Vec<Queue> {
        let here = self.at_work(node).filter(|_| self.scenario.core.is_empty());
        let here = here.filter(|here| !here.engine.is_disk_full() && !here.engine.is_storage_failed());
        here.map(|here| here.engine.queues()).unwrap_or_default()
    }

    /// The others that a server knows, and whether it gave them up without a word of anybody; none while its disk may not
    /// hold what it should.
    fn members_of(&self, node: usize) -> Vec<(Member, bool)> {
        let Some(here) = self.at_work(node).filter(|_| !self.checkers.outside.contains(&node)) else {
            return Vec::new();
        };
        if here.engine.is_disk_full() || here.engine.is_storage_failed() {
            return Vec::new();
        }
        let me = here.engine.me().record.node;
        let others = here.engine.members().filter(|member| member.record.node != me);
        let given_up = |member: &Member| {
            member.status == Status::Failed && here.engine.accusation(&member.record.node) == (None, false)
        };
        let mut members: Vec<_> = others.map(|member| (member.clone(), given_up(&member))).collect();
        members.sort_unstable_by_key(|(member, _)| member.record.node);
        members
    }

    /// Where nothing has gone wrong, nothing was sent twice.
    fn check_spending(&mut self) {
        let usual = &self.scenario.network;
        let lossy = usual.loss_per_mille_most() > 0 || usual.links.iter().any(|link| link.bytes_per_s.is_some());
        // What is cut into many small windows costs an envelope for each.
        let small_windows = self.scenario.bounds.window_bytes < Bounds::default().window_bytes;
        if self.hostile.has_forged()
            || self.counts.faults > 0
            || lossy
            || small_windows
            || !self.scenario.bounds.takes_all()
        {
            return;
        }
        let frame_bytes = self.sent().values().map(|sent| sent.frame_bytes).sum();
        let spent = Spending { frame_bytes, ..self.checkers.needed() };
        self.checkers.check_amplification(spent, self.now);
    }

    fn look_at(&mut self, target: &Target) -> Vec<(usize, Seen)> {
        let id = target.id();
        let now = self.now;
        let holders: Vec<usize> = (0..self.nodes.len())
            .filter(|&node| target.is_held_in(&self.nodes[node].spec.zone))
            .filter(|&node| self.nodes[node].running.is_some() && !self.checkers.outside.contains(&node))
            .collect();
        self.audit = Audit::default();
        let mut etags: BTreeMap<usize, Option<Etag>> = BTreeMap::new();
        for &node in &holders {
            let local = self.nodes[node].clock.read(now);
            let Some(running) = &mut self.nodes[node].running else {
                continue;
            };
            etags.insert(node, running.engine.summary(&id).map(|summary| summary.etag));
            let value = running.engine.read(&id, true, local);
            running.reads.insert(value, ReadFor::AuditValue);
            let history = running.engine.history(&id, local);
            running.reads.insert(history, ReadFor::AuditHistory);
            let process = Process { node, start: running.start };
            self.drain(process);
        }
        let count = holders.len();
        self.await_answers(|audit| audit.values.len() >= count && audit.histories.len() >= count);
        let audit = &self.audit;
        holders
            .into_iter()
            .map(|node| {
                let entries = audit.histories.get(&node).map(Vec::as_slice).unwrap_or_default();
                let entries = entries.iter().filter_map(|entry| Some((entry.hash.parse().ok()?, entry)));
                let honest = entries.clone().filter(|(hash, _)| !self.checkers.tap.is_forged(hash));
                let view = audit.values.get(&node).and_then(|answer| answer.clone().ok());
                let seen = Seen {
                    etag: etags.get(&node).copied().flatten(),
                    history: honest.filter_map(|(_, entry)| workload::write_of(Wall(entry.time))).collect(),
                    changes: entries.map(|(hash, entry)| (hash, entry.quarantine.clone())).collect(),
                    revived: view.as_ref().is_some_and(|view| view.summary.revived),
                    conflicts: view.as_ref().map(|view| view.conflicts.clone()).unwrap_or_default(),
                    value: view.map(|view| view.value),
                };
                (node, seen)
            })
            .collect()
    }

    pub(super) fn await_answers(&mut self, are_all: impl Fn(&Audit) -> bool) {
        let end = self.now + READ_WITHIN;
        while !are_all(&self.audit) {
            if self.is_over() {
                return;
            }
            if self.now >= end {
                self.checkers
                    .report(Invariant::Answered, self.now, 0, || "a read of the audit has no answer".to_owned());
                return;
            }
            let next = self.now + Duration::from_millis(1);
            self.run_until(next);
        }
    }

    /// Leaves the cluster alone and measures what it sends.
    pub(super) fn idle(&mut self) {
        // Each datagram that is lost is answered with helpers' probes; who is half reachable is never left alone.
        let loses = self.scenario.network.loss_per_mille_most() > IDLE_LOSS_MAX;
        if loses || self.scenario.hasty || !self.checkers.outside.is_empty() {
            return;
        }
        // What a fault has left in streams comes late, and is no sign of unrest.
        let patience = self.now + STREAMS_RECOVER;
        while self.streams.are_disturbed(RETRANSMIT, self.now) && self.now < patience && !self.is_over() {
            self.run_until(self.now + LOOK_EVERY);
        }
        let is_large = self.nodes.len() > self.scenario.bounds.full_mesh;
        let (after, lasting) = if is_large { (IDLE_AFTER_LARGE, IDLE_FOR_LARGE) } else { (IDLE_AFTER, IDLE_FOR) };
        let begins = self.now + after;
        self.run_until(begins);
        let mut before = self.sent();
        self.run_until(begins + lasting);
        let all_probe = |sent: Sent| sent.datagram_bytes >= IDLE_DATAGRAM_BYTES_MIN * lasting.as_secs();
        let at_work = self.nodes.iter().filter(|node| node.running.is_some()).count();
        if at_work > 1 && !self.sent_since(&before).values().copied().all(all_probe) {
            self.run_until(self.now + WELL_AGAIN);
            before = self.sent();
            self.run_until(self.now + lasting);
        }
        if self.is_over() {
            return;
        }
        let some_failed = self.checkers.has_replaced() || self.nodes.iter().any(|node| node.running.is_none());
        self.audit_rest();
        for (node, sent) in self.sent_since(&before) {
            self.checkers.check_idle(node, sent, lasting, (some_failed, at_work), self.now);
        }
    }

    fn sent_since(&self, before: &BTreeMap<usize, Sent>) -> BTreeMap<usize, Sent> {
        let earlier = |node: &usize| before.get(node).copied().unwrap_or_default();
        self.sent().into_iter().map(|(node, sent)| (node, sent.since(earlier(&node)))).collect()
    }

    /// Who has been left alone waits for nothing, and is known to hold no more than others do.
    fn audit_rest(&mut self) {
        let circuits = self.speaks_through_others();
        for node in 0..self.nodes.len() {
            let Some(running) = &self.nodes[node].running else { continue };
            // What only this server may have nobody else holds.
            let zone = &self.nodes[node].spec.zone;
            let alone = !self
                .nodes
                .iter()
                .any(|other| other.index != node && other.spec.zone == *zone && other.running.is_some());
            let (mut queues, held) = (running.engine.queues(), alone || running.engine.is_held_elsewhere());
            queues.retain(|queue| !(circuits && queue.name.starts_with("circuits")));
            self.checkers.check_at_rest(node, &queues, held, self.now);
        }
    }

    /// What each server that runs has sent.
    pub(crate) fn sent(&self) -> BTreeMap<usize, Sent> {
        let running = self.nodes.iter().filter_map(|node| Some((node.index, node.running.as_ref()?.engine.stats())));
        running
            .map(|(node, stats)| {
                let bytes = |datagrams: bool| {
                    let kinds = stats.sent.iter().filter(|(kind, _)| (**kind == DATAGRAM) == datagrams);
                    kinds.map(|(_, traffic)| traffic.bytes).sum()
                };
                let sent = Sent { datagram_bytes: bytes(true), frame_bytes: bytes(false), repairs: stats.repairs };
                (node, sent)
            })
            .collect()
    }
}

fn outcome(write: &Write) -> application::Outcome {
    match &write.outcome {
        _ if write.excused => application::Outcome::Unknown,
        Outcome::Acknowledged { changed: true, .. } => application::Outcome::Acknowledged,
        Outcome::Acknowledged { changed: false, .. } => application::Outcome::Nothing,
        Outcome::Refused(_) => application::Outcome::Refused,
        Outcome::Pending | Outcome::Unknown => application::Outcome::Unknown,
    }
}
