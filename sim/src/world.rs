//! The event loop: engines, disks, network and clients on one virtual clock.
//!
//! Events happen in the order of their times, and of their insertion where times are equal. Nothing reads a clock, a
//! thread or an unordered map, so a seed is a run.

mod circuits;
mod costs;
mod doubles;
mod evictions;
mod faults;
mod heard;
mod known;
mod outputs;
mod pairs;
mod patches;
mod queue;
mod scale;
mod settle;
mod spread;
mod upgrades;
mod versions;
mod watched;
mod ways;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use knot_engine::documents::{AutomergeDocument, Document, ModelDocument};
use knot_engine::membership::Records;
use knot_engine::{EditRequest, Engine, Faults, Instant, PeerIdentity, SessionEvent, Step, StorageEvent, Table};

use self::circuits::Circuits;
use self::evictions::Evictions;
use self::queue::{Happening, Queue};
use self::upgrades::Upgrades;
use crate::application::Application;
use crate::checker::{Checkers, Invariant, is_crowded};
use crate::draw::Draw;
use crate::hostile::Hostile;
use crate::later::Later;
use crate::ledger::Outcome;
use crate::network::{Delivery, Links, Plan, Process, RETRANSMIT, Streams};
use crate::node::{Node, ReadFor};
use crate::report::{Counts, Report};
use crate::scenario::{Action, DocumentKind, Operation, Scenario};
use crate::tap::Tap;
use crate::trace::Trace;
use crate::watch::{Observed, Watch};
use crate::workload;

/// Wakes in a row at one moment before an engine counts as stuck.
const IDLE_WAKES_MAX: u32 = 1_000;
/// Servers in a cluster of which all that each says of each is looked at; beyond, that would cost more than what happens.
const SERVERS_MAX: usize = 64;
/// How often queues are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked who is known.
const GLANCE_EVERY: Duration = Duration::from_millis(250);

/// Lets `scenario` happen with the documents that it names, and with `application` in place of the simulator's own
/// clients.
pub(crate) fn play(
    scenario: Scenario,
    planted: Faults,
    watch: Watch,
    application: Option<Box<dyn Application>>,
) -> Report {
    fn of<D: Document>(world: World<D>, application: Option<Box<dyn Application>>) -> Report {
        match application {
            Some(application) => world.with(application).run(),
            None => world.run(),
        }
    }
    match scenario.document {
        DocumentKind::Model => of(World::<ModelDocument>::new(scenario, planted, watch), application),
        DocumentKind::Automerge => of(World::<AutomergeDocument>::new(scenario, planted, watch), application),
    }
}

/// One run.
pub(crate) struct World<D: Document> {
    scenario: Scenario,
    planted: Faults,
    now: Instant,
    queue: Queue<D>,
    nodes: Vec<Node<D>>,
    /// What waits for a process that is not scheduled.
    backlogs: Vec<VecDeque<Happening<D>>>,
    links: Links,
    streams: Streams,
    /// Who is at the other end of a stream, for an end that does not know yet.
    introductions: BTreeMap<(u64, usize), PeerIdentity>,
    verdicts: Draw,
    /// How long a trial takes at most, in microseconds.
    trial_max_us: u64,
    exits: Draw,
    later: Later,
    hostile: Hostile,
    evictions: Evictions,
    circuits: Circuits,
    upgrades: Upgrades,
    pairs: pairs::Pairs,
    ways: ways::Ways,
    known: known::Known,
    checkers: Checkers,
    trace: Trace,
    counts: Counts,
    /// Faults under way that disturb membership.
    disturbances: u32,
    /// When the last of them ended.
    calm_since: Instant,
    /// What asks for edits in place of the simulator's own workload.
    application: Option<Box<dyn Application>>,
    /// Times a server was declared failed that ran and could be reached.
    false_failures: u64,
    /// Answers of the audit at the end.
    audit: settle::Audit,
    /// Whether a client asks for its write to be held by others.
    waits_for_peers: bool,
    /// The run ends here at the latest.
    until: Option<Instant>,
}

impl<D: Document> std::fmt::Debug for World<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("seed", &self.scenario.seed).field("now", &self.now).finish_non_exhaustive()
    }
}

impl<D: Document> World<D> {
    /// A world in which `scenario` is about to happen, with `planted` bugs in every engine, and `watch` is told of it.
    pub(crate) fn new(scenario: Scenario, planted: Faults, watch: Watch) -> Self {
        let scenario = scenario.expanded();
        let records = Records::shared();
        let nodes: Vec<Node<D>> =
            (0..scenario.nodes.len()).map(|index| Node::new(index, &scenario, &records)).collect();
        let targets: BTreeSet<_> = scenario.operations.iter().map(|operation| &operation.target).collect();
        let genesis = targets.iter().map(|target| D::genesis_hash(&target.id())).collect();
        let tap = Tap::new(|bytes| D::header(bytes).ok(), nodes.len());
        let node_ids = nodes.iter().map(|node| node.key.node_id()).collect();
        let zones = nodes.iter().map(|node| node.spec.zone.clone()).collect();
        let mut verdicts = Draw::new(scenario.seed, "verdicts");
        let mut world = Self {
            trial_max_us: outputs::trial_max_us(&mut verdicts),
            exits: Draw::new(scenario.seed, "exits"),
            later: Later::new(scenario.seed),
            evictions: Evictions::default(),
            circuits: Circuits::new(scenario.seed),
            upgrades: Upgrades::default(),
            hostile: Hostile::new(scenario.seed, scenario.document, |bytes| D::header(bytes).ok()),
            pairs: pairs::Pairs::default(),
            ways: ways::Ways::default(),
            known: known::Known::default(),
            planted,
            now: Instant::ZERO,
            queue: Queue::default(),
            links: Links::new(scenario.seed, &scenario.network, &scenario.nodes),
            streams: Streams::default(),
            introductions: BTreeMap::new(),
            verdicts,
            checkers: Checkers::new(tap, genesis, node_ids, zones),
            waits_for_peers: scenario.operations.iter().any(|operation| operation.replicas > 0),
            until: watch.until,
            trace: Trace::new(watch),
            counts: Counts::default(),
            disturbances: 0,
            calm_since: Instant::ZERO,
            application: None,
            false_failures: 0,
            audit: settle::Audit::default(),
            backlogs: nodes.iter().map(|_| VecDeque::new()).collect(),
            nodes,
            scenario,
        };
        world.schedule_scenario();
        world
    }

    /// With an application whose commands are the scenario's operations.
    fn with(mut self, application: Box<dyn Application>) -> Self {
        self.application = Some(application);
        self.checkers.values_are_own = false;
        self
    }

    fn schedule_scenario(&mut self) {
        let millis = |at_ms: u64| Instant::from_micros(at_ms.saturating_mul(1_000));
        for index in 0..self.nodes.len() {
            let at = millis(self.nodes[index].spec.start_at_ms);
            self.insert(at, Happening::Start(index));
        }
        for index in 0..self.scenario.faults.len() {
            let fault = self.scenario.faults[index].clone();
            for begins_ms in fault.begins_at_ms() {
                self.insert(millis(begins_ms), Happening::FaultBegins(index));
                if let Some(lasting_ms) = fault.for_ms {
                    self.insert(millis(begins_ms.saturating_add(lasting_ms)), Happening::FaultEnds(index));
                }
            }
        }
        for index in 0..self.scenario.operations.len() {
            let at = Instant::from_micros(self.scenario.operations[index].at_us);
            self.insert(at, Happening::Operation(index));
        }
        self.insert(Instant::ZERO + LOOK_EVERY, Happening::Look);
        self.insert(Instant::ZERO + GLANCE_EVERY, Happening::Glance);
    }

    /// Lets it all happen: until the first broken promise, or until all has settled and been audited.
    fn run(mut self) -> Report {
        let quiet = self.scenario.quiet_at();
        self.run_until(quiet);
        if !self.scenario.core.is_empty() {
            self.heal_core();
        }
        if self.scenario.canary {
            self.checkers.report(Invariant::Canary, self.now, 0, || "this run was to fail".to_owned());
        }
        let settled = self.settle();
        if settled.is_some() {
            self.audit();
            self.idle();
        }
        self.observe_state();
        self.report(settled)
    }

    fn report(mut self, settled: Option<Duration>) -> Report {
        for running in self.nodes.iter().filter_map(|node| node.running.as_ref()) {
            self.counts.add_drops(running.engine.stats());
        }
        let mut counts = self.counts;
        for write in self.checkers.ledger.writes() {
            match write.outcome {
                Outcome::Acknowledged { .. } => counts.acknowledged += 1,
                Outcome::Refused(_) => counts.refused += 1,
                Outcome::Pending | Outcome::Unknown => counts.unknown += 1,
            }
        }
        counts.events = self.trace.events();
        counts.datagrams = self.links.counts.datagrams;
        counts.datagrams_lost = self.links.counts.lost;
        counts.frames = self.links.counts.frames;
        counts.connects = self.links.counts.connects;
        counts.changes = self.checkers.tap.changes().count() as u64;
        let account = self.checkers.account(|_| true);
        counts.weigh(&account, settled);
        Report {
            seed: self.scenario.seed,
            nodes: self.nodes.len(),
            account,
            violations: self.checkers.violations,
            trace: blake3::Hash::from_bytes(self.trace.hash()).to_hex().to_string(),
            simulated_us: self.now.as_micros(),
            settled_us: settled.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            counts,
            marks: Vec::new(),
            left_behind: None,
        }
    }

    /// Whether a promise is broken, or as much has happened as was wanted.
    fn is_over(&self) -> bool {
        !self.checkers.violations.is_empty() || self.until.is_some_and(|until| self.now >= until)
    }

    fn insert(&mut self, at: Instant, what: Happening<D>) {
        self.queue.insert(at.max(self.now), what);
    }

    fn insert_plan(&mut self, plan: Plan) {
        for (at, delivery) in plan {
            self.insert(at, Happening::Network(delivery));
        }
    }

    /// Lets happen what happens before `end`, unless a promise breaks.
    fn run_until(&mut self, end: Instant) {
        let end = self.until.map_or(end, |until| until.min(end));
        while !self.is_over()
            && let Some((at, what)) = self.queue.pop_before(end)
        {
            self.now = at;
            self.happen(what);
        }
        if !self.is_over() {
            self.now = end;
        }
    }

    fn happen(&mut self, what: Happening<D>) {
        if let Some(node) = self.node_of(&what)
            && self.is_held_up(node)
        {
            self.set_aside(node, what);
            return;
        }
        self.perform_now(what);
    }

    fn perform_now(&mut self, what: Happening<D>) {
        match what {
            Happening::Network(delivery) => self.on_delivery(delivery),
            Happening::Circuit(process, session, event) => self.on_circuit_event(process, session, event),
            Happening::Wake(process, at) => self.on_wake(process, at),
            Happening::CommitDone(process) => self.on_commit_done(process),
            Happening::Load(process, load, query) => {
                if self.runs(process) {
                    let event = self.nodes[process.node].disk.load(load, &query);
                    self.on_storage(process, event);
                }
            }
            Happening::Verdict(process, verdict) => {
                self.trace.add(self.now, process.node, "verdict", &[]);
                self.tell(process, |engine, now| engine.handle_verdict(*verdict, now));
            }
            Happening::Operation(index) => self.on_operation(index),
            Happening::Passing(node, target) => self.on_passing(node, &target),
            Happening::FaultBegins(index) => self.on_fault_begins(index),
            Happening::FaultEnds(index) => self.on_fault_ends(index),
            Happening::Start(node) => self.start(node),
            Happening::Exit(process) => self.on_exit(process),
            Happening::Turn(node) => self.on_turn(node),
            Happening::Spread(change) => self.on_spread_due(&change),
            Happening::Look => self.on_look(),
            Happening::Glance => self.on_glance(),
        }
    }

    fn runs(&self, process: Process) -> bool {
        let running = self.nodes[process.node].running.as_ref();
        running.is_some_and(|running| running.start == process.start)
    }

    fn process_of(&self, node: usize) -> Option<Process> {
        let running = self.nodes[node].running.as_ref()?;
        let start = running.start;
        Some(Process { node, start })
    }

    /// Hands something to a process's engine, if it still runs, and does what it asks for then.
    fn tell(&mut self, process: Process, say: impl FnOnce(&mut Engine<D>, Instant)) {
        let local = self.nodes[process.node].clock.read(self.now);
        if let Some(running) = &mut self.nodes[process.node].running
            && running.start == process.start
        {
            say(&mut running.engine, local);
            self.drain(process);
        }
    }

    fn on_wake(&mut self, process: Process, at: Instant) {
        let now = self.now;
        let local = self.nodes[process.node].clock.read(now);
        let Some(running) = &mut self.nodes[process.node].running else {
            return;
        };
        if running.start != process.start || running.wake_at != Some(at) {
            return;
        }
        running.wake_at = None;
        let due = |engine: &Engine<D>| engine.poll_timeout().filter(|(at, _)| *at <= local);
        if due(&running.engine).is_some() {
            self.trace.add(now, process.node, "wake", &[]);
            running.engine.handle_timeout(local);
        }
        let still_due = due(&running.engine);
        running.idle_wakes = if still_due.is_some() { running.idle_wakes + 1 } else { 0 };
        if let Some((_, kind)) = still_due
            && running.idle_wakes > IDLE_WAKES_MAX
        {
            let stuck = || format!("timer {kind:?} is due for ever");
            self.checkers.report(Invariant::Progress, now, process.node, stuck);
            return;
        }
        self.drain(process);
    }

    /// Puts a wake for the engine's next timer into the queue, unless an earlier one is there.
    fn schedule_wake(&mut self, process: Process) {
        let now = self.now;
        let node = &mut self.nodes[process.node];
        let Some(running) = &mut node.running else {
            return;
        };
        let Some((at, _)) = running.engine.poll_timeout() else {
            return;
        };
        let at = node.clock.shows_at(at).max(now);
        if running.wake_at.is_none_or(|earlier| at < earlier) {
            running.wake_at = Some(at);
            self.insert(at, Happening::Wake(process, at));
        }
    }

    fn on_commit_done(&mut self, process: Process) {
        if !self.runs(process) {
            return;
        }
        let node = process.node;
        let (commit, next) = self.nodes[node].disk.finish_commit();
        if commit.tail_written {
            let durable = self.nodes[node].disk.durable();
            self.checkers.on_tail_written(node, durable, self.now);
        }
        let held = self.checkers.on_durable(node, &commit.durable, self.now);
        self.weigh_held(&held);
        self.checkers.tap.on_refused(node, &commit.refused);
        self.observe_durable(node, &commit.durable);
        if commit.durable.iter().flat_map(|batch| &batch.writes).any(|write| write.table == Table::Changes) {
            self.pairs.stores(node, self.now);
        }
        if self.burns(node) {
            return;
        }
        if let Some(wait) = next {
            self.insert(self.now + wait, Happening::CommitDone(process));
        }
        for event in commit.events {
            self.on_storage(process, event);
        }
    }

    fn on_storage(&mut self, process: Process, event: StorageEvent) {
        self.trace.add(self.now, process.node, storage_name(&event), &[]);
        self.trace.log(self.now, process.node, || match &event {
            StorageEvent::Loaded { load, entries, complete } => {
                format!("loaded {load:?}: {} entries, complete {complete}", entries.len())
            }
            StorageEvent::Persisted(_)
            | StorageEvent::Full(_)
            | StorageEvent::Failed(_)
            | StorageEvent::LoadFailed(_) => format!("disk: {event:?}"),
        });
        self.tell(process, |engine, now| engine.handle_storage(event, now));
    }

    fn on_operation(&mut self, index: usize) {
        let operation = self.scenario.operations[index].clone();
        let node = operation.node;
        let now = self.now;
        let local = self.nodes[node].clock.read(now);
        let Some(running) = &mut self.nodes[node].running else {
            return;
        };
        let process = Process { node, start: running.start };
        self.trace.observe(now, || Observed::Asked(operation.clone()));
        match workload::request(&operation) {
            None if operation.action.is_own() => {
                let read = running.engine.read(&operation.target.id(), false, local);
                running.reads.insert(read, ReadFor::Application(index));
            }
            Some(request) => self.ask_for_edit(&operation, request),
            None if operation.action == Action::Patch => {
                let read = running.engine.read(&operation.target.id(), true, local);
                running.reads.insert(read, ReadFor::Patch(index));
            }
            None => {
                let read = running.engine.read(&operation.target.id(), false, local);
                running.reads.insert(read, ReadFor::Client(operation.target.clone(), now));
            }
        }
        self.trace.add(now, node, "operation", &operation.id.to_le_bytes());
        self.trace.log(now, node, || {
            let target = operation.target.id();
            format!("asked w{}: {:?} {target}", operation.id, operation.action)
        });
        self.drain(process);
    }

    /// Has a server that runs make an edit.
    fn ask_for_edit(&mut self, operation: &Operation, request: EditRequest) {
        let clock = &mut self.nodes[operation.node].clock;
        let (local, wall) = (clock.read(self.now), clock.wall_of(operation.id));
        let Some(running) = &mut self.nodes[operation.node].running else { return };
        self.checkers.ledger.ask(operation, self.now);
        let crowded = is_crowded(&running.engine.queues());
        let edit = running.engine.edit(request, wall, local);
        running.edits.insert(edit, operation.id);
        running.crowded.extend(crowded.then_some(edit));
    }

    fn on_delivery(&mut self, delivery: Delivery) {
        let now = self.now;
        let mut plan = Plan::new();
        match delivery {
            Delivery::Datagram { to, bytes } => {
                if let Some(process) = self.process_of(to) {
                    self.trace.add(now, to, "datagram", &bytes);
                    self.tell(process, |engine, now| engine.handle_datagram(bytes, now));
                }
            }
            Delivery::Session { to, session, event } => self.on_session(to, session, event),
            Delivery::Connect(attempt) => {
                if let Some(taker) = Streams::on_connect(&mut self.links, &attempt, now, &mut plan) {
                    self.open_stream(attempt.from, attempt.session, taker, &mut plan);
                }
            }
            Delivery::Opened { stream, side } => {
                if let Some(peer) = self.introductions.remove(&(stream, side))
                    && let Some((process, session)) = self.streams.on_opened(stream, side)
                {
                    self.on_opening(process, session);
                    self.on_session(process, session, SessionEvent::Opened(peer));
                }
            }
            Delivery::Arrive { stream, side, frame } => {
                let end = (stream, side);
                let arrived = self.streams.on_arrive(&self.links, end, frame, now, &mut plan);
                if let Some((process, session, frame)) = arrived {
                    self.trace.observe(now, || Observed::FrameArrives { end });
                    self.on_session(process, session, SessionEvent::Frame(frame));
                }
            }
            Delivery::Departed { stream, side, bytes } => {
                if let Some((process, session, queued)) = self.streams.on_departed(stream, side, bytes) {
                    self.on_session(process, session, SessionEvent::Writable { queued });
                }
            }
            Delivery::Break { stream, side, why } => {
                if let Some((process, session)) = self.streams.on_break(stream, side) {
                    self.trace.observe(now, || Observed::StreamEnds { end: (stream, side) });
                    self.on_session(process, session, SessionEvent::Closed(why));
                }
            }
            Delivery::Retry { stream, since } => {
                self.streams.on_retry(&mut self.links, (stream, since), now, &mut plan);
            }
            Delivery::GiveUp { stream, since } => {
                self.streams.on_give_up(stream, since, now, &mut plan);
            }
        }
        self.insert_plan(plan);
    }

    /// Two processes met: each learns who the other is.
    fn open_stream(&mut self, from: Process, session: knot_engine::SessionId, taker: Process, plan: &mut Plan) {
        let Some(opener) = &self.nodes[from.node].running else {
            return;
        };
        let opener_identity = opener.engine.identity();
        let Some(running) = &mut self.nodes[taker.node].running else {
            return;
        };
        let accepted = running.accept();
        let taker_identity = running.engine.identity();
        let number = self.streams.open(&mut self.links, (from, session), (taker, accepted), self.now, plan);
        self.introductions.insert((number, 0), taker_identity);
        self.introductions.insert((number, 1), opener_identity);
    }

    fn on_session(&mut self, to: Process, session: knot_engine::SessionId, event: SessionEvent) {
        if !self.runs(to) {
            return;
        }
        let (name, content): (&str, &[u8]) = match &event {
            SessionEvent::Opened(_) => ("opened", &[]),
            SessionEvent::Frame(frame) => ("frame", frame),
            SessionEvent::Writable { .. } => ("writable", &[]),
            SessionEvent::Closed(_) => ("closed", &[]),
            SessionEvent::Circuit(Step::Bytes(bytes)) => ("circuit bytes", bytes),
            SessionEvent::Circuit(_) => ("circuit", &[]),
        };
        self.trace.add(self.now, to.node, name, content);
        self.trace.log(self.now, to.node, || match &event {
            SessionEvent::Frame(frame) => format!("{session:?} frame of {} bytes", frame.len()),
            SessionEvent::Opened(peer) => format!("{session:?} opened to {}", peer.node()),
            SessionEvent::Circuit(Step::Bytes(bytes)) => format!("{session:?} circuit takes {} bytes", bytes.len()),
            SessionEvent::Writable { .. } | SessionEvent::Closed(_) | SessionEvent::Circuit(_) => {
                format!("{session:?} {event:?}")
            }
        });
        let opens = matches!(event, SessionEvent::Opened(_));
        self.pairs.opens(opens.then_some((to, session)));
        self.tell(to, |engine, now| engine.handle_session(session, event, now));
        self.pairs.opens(None);
    }

    /// Looks at what is to be known within a second or two.
    fn on_glance(&mut self) {
        self.look_who_is_known();
        self.insert(self.now + GLANCE_EVERY, Happening::Glance);
    }

    fn on_look(&mut self) {
        self.see_to_readmissions();
        self.see_to_releases();
        // What a fault has left in streams goes on disturbing.
        if self.streams.are_disturbed(8 * RETRANSMIT, self.now) {
            self.calm_since = self.now;
        }
        for index in 0..self.nodes.len() {
            if let Some(running) = &self.nodes[index].running {
                let queues = running.engine.queues();
                self.checkers.check_queues(index, &queues, self.now);
                let all_honest = !self.scenario.nodes.iter().any(|node| node.hostile);
                self.checkers.check_honest(index, running.engine.stats(), all_honest, self.now);
                self.checkers.check_panics(index, running.engine.stats(), self.now);
                if self.nodes.len() <= SERVERS_MAX {
                    let me = running.engine.me().record.node;
                    let others = running.engine.members().filter(|member| member.record.node != me);
                    let members = others.map(|member| (member.record.node, member.status));
                    self.checkers.check_told(index, &running.told, members, self.now);
                }
            }
        }
        self.look_at_pairs();
        self.look_who_is_heard();
        self.look_at_doubles();
        self.insert(self.now + LOOK_EVERY, Happening::Look);
    }
}

fn storage_name(event: &StorageEvent) -> &'static str {
    match event {
        StorageEvent::Persisted(_) => "persisted",
        StorageEvent::Full(_) => "full",
        StorageEvent::Failed(_) => "failed",
        StorageEvent::Loaded { .. } => "loaded",
        StorageEvent::LoadFailed(_) => "load failed",
    }
}
