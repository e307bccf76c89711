//! What clusters of many sizes cost, and how soon all of one know.
//!
//! Full engines run as in any other simulation, with its checkers, on a calm network. The document is the cheap model, of
//! which one is written. Where more servers are to meet at once than is of use, they know each other from the start.

use std::time::Duration;

use knot_engine::documents::ModelDocument;
use knot_engine::membership::Status;
use knot_engine::{Engine, Faults};
use serde::Serialize;

use crate::checker::Sent;
use crate::draw::Draw;
use crate::scenario::{
    Action, Bounds, DiskSpec, DocumentKind, FORMAT, LinkSpec, NetworkSpec, NodeSpec, Operation, Scenario, Target,
};
use crate::watch::Watch;
use crate::world::World;

/// Most servers that meet by joining; larger clusters are measured from after that.
pub const JOIN_MAX: usize = 1_000;
/// How finely times are told.
const STEP: Duration = Duration::from_millis(10);
/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(180);
/// A cluster is left alone for so long before it is measured, so that what was opened for a need is closed again.
const CALM: Duration = Duration::from_secs(90);
/// The same in clusters that nobody had to join.
const CALM_MET: Duration = Duration::from_secs(20);
/// How long it is measured.
const IDLE: Duration = Duration::from_secs(10);
/// Servers start within this time.
const STARTS_MS: u64 = 400;
/// What is begun by hand is planned for this time.
const NEVER_MS: u64 = u64::MAX / 1_000_000;
/// One way between two zones, in microseconds.
const FAR_US: (u64, u64) = (4_000, 120_000);

/// What the process costs, as its system tells.
pub trait Meter {
    /// Processor time so far.
    fn cpu(&self) -> Duration;
    /// Bytes of memory in use.
    fn memory(&self) -> u64;
}

/// One line of the table. Times are simulated, in milliseconds; none where the time was up.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Servers.
    pub nodes: usize,
    /// Zones.
    pub zones: usize,
    /// All start at once and all know all; none where they began as acquaintances.
    pub join_all_ms: Option<u64>,
    /// One more starts, and all know it and it knows all.
    pub join_one_ms: Option<u64>,
    /// One is killed, and all see it failed.
    pub crash_ms: Option<u64>,
    /// It starts again elsewhere, and all know where.
    pub record_ms: Option<u64>,
    /// A change that one server writes is on every disk.
    pub push_ms: Option<u64>,
    /// Bytes of datagrams that a server sends in a second when nothing happens: the mean, and the most of any.
    pub idle_bytes: (u64, u64),
    /// Bytes of frames, the mean.
    pub idle_frame_bytes: u64,
    /// Open streams of a server, the mean.
    pub streams: usize,
    /// Bytes of the process's memory over the servers: engines, disks and the simulator.
    pub memory_bytes: u64,
    /// Processor milliseconds of a simulated second in which nothing happens.
    pub cpu_ms: u64,
    /// Servers declared failed that ran and could be reached.
    pub false_failures: u64,
    /// The promise that broke, if one did; what comes after it was not measured.
    pub broken: Option<String>,
}

/// Measures a cluster of `nodes` servers in `zones` zones.
#[must_use]
pub fn measure(nodes: usize, zones: usize, seed: u64, meter: &dyn Meter) -> Row {
    let zones = zones.clamp(1, nodes.max(1));
    let mut run = Run { world: World::new(scenario(nodes, zones, seed), Faults::default(), Watch::default()) };
    let meets = nodes <= JOIN_MAX;
    let join_all_ms = if meets {
        run.until(|run| run.all_know_all(nodes - 1))
    } else {
        // Before any of them has said a word.
        run.world.let_pass(Duration::from_micros(1));
        run.world.introduce_all();
        None
    };
    run.world.let_pass(if meets { CALM } else { CALM_MET });
    let (cpu, sent) = (meter.cpu(), run.world.sent());
    run.world.let_pass(IDLE);
    let cpu_ms = millis(meter.cpu().saturating_sub(cpu)) / IDLE.as_secs();
    let idle: Vec<Sent> = run.world.sent().iter().map(|(node, after)| after.since(sent[node])).collect();
    let a_second = |bytes: u64| bytes / IDLE.as_secs();
    let mean = |of: fn(&Sent) -> u64| a_second(idle.iter().map(of).sum::<u64>() / idle.len().max(1) as u64);
    let most = idle.iter().map(|sent| sent.datagram_bytes).max().unwrap_or(0);
    let idle_bytes = (mean(|sent| sent.datagram_bytes), a_second(most));
    let idle_frame_bytes = mean(|sent| sent.frame_bytes);
    let memory_bytes = meter.memory() / idle.len().max(1) as u64;
    let streams = run.streams() / idle.len().max(1);

    let last = nodes - 1;
    run.world.begin(last);
    let join_one_ms = run.until(|run| run.all_know_all(nodes));
    run.rest();
    run.world.operate();
    let push_ms = run.until(Run::all_hold);
    run.rest();
    run.world.kill(1);
    let crash_ms = run.until(|run| run.all_see(1, |status, _| status == Status::Failed));
    run.world.move_away(1);
    run.world.begin(1);
    let record_ms = run.until(Run::all_found_the_moved);
    Row {
        nodes,
        zones,
        join_all_ms,
        join_one_ms,
        crash_ms,
        record_ms,
        push_ms,
        idle_bytes,
        idle_frame_bytes,
        streams,
        memory_bytes,
        cpu_ms,
        false_failures: run.world.false_failures(),
        broken: run.world.broken(),
    }
}

struct Run {
    world: World<ModelDocument>,
}

impl Run {
    /// How long it takes until `done`; none when that is too long.
    fn until(&mut self, done: impl Fn(&Self) -> bool) -> Option<u64> {
        let begun = self.world.now();
        while self.world.now().since(begun) < PATIENCE && self.world.let_pass(STEP) {
            if done(self) {
                return Some(millis(self.world.now().since(begun)));
            }
        }
        None
    }

    fn rest(&mut self) {
        self.world.let_pass(Duration::from_secs(10));
    }

    /// Whether all views are equal, and complete.
    fn all_know_all(&self, count: usize) -> bool {
        let mut engines = self.world.engines().map(|(_, engine)| engine);
        let Some(first) = engines.next() else { return false };
        let view = first.view_hash();
        let complete = |first: &Engine<_>| first.members().filter(|member| member.status == Status::Alive).count();
        engines.all(|engine| engine.view_hash() == view) && complete(first) == count
    }

    fn all_see(&self, node: usize, as_wanted: impl Fn(Status, &Engine<ModelDocument>) -> bool) -> bool {
        let mut others = self.world.engines().filter(|(observer, _)| *observer != node);
        others.all(|(_, engine)| self.world.seen(engine, node).is_some_and(|(status, _)| as_wanted(status, engine)))
    }

    fn all_found_the_moved(&self) -> bool {
        let Some((_, moved)) = self.world.engines().find(|(node, _)| *node == 1) else { return false };
        let me = moved.me();
        let mut others = self.world.engines().filter(|(observer, _)| *observer != 1);
        others.all(|(_, engine)| {
            let seen = self.world.seen(engine, 1);
            seen.is_some_and(|(status, member)| {
                status == Status::Alive && member.record.addresses == me.record.addresses
            })
        })
    }

    fn all_hold(&self) -> bool {
        let id = target().id();
        self.world.engines().all(|(_, engine)| engine.summary(&id).is_some())
    }

    fn streams(&self) -> usize {
        self.world.engines().map(|(_, engine)| engine.streams()).sum()
    }
}

fn target() -> Target {
    Target { zone: None, collection: "users".to_owned(), key: "ann".to_owned() }
}

/// Servers spread over the zones in turn. All but the last start in a moment; the last is started later.
fn scenario(nodes: usize, zones: usize, seed: u64) -> Scenario {
    let mut draw = Draw::new(seed, "scale");
    let zone = |index: usize| format!("zone-{:02}", index % zones);
    let node = |index: usize| {
        let begins = if nodes > JOIN_MAX { 0 } else { draw.between(0, STARTS_MS) };
        let start_at_ms = if index + 1 == nodes { NEVER_MS } else { begins };
        NodeSpec { start_at_ms, ..NodeSpec::new(&format!("n{index}"), &zone(index)) }
    };
    let write = Operation {
        id: 1,
        at_us: NEVER_MS * 1_000,
        node: nodes / 2,
        action: Action::Put,
        replicas: 0,
        target: target(),
    };
    let nodes: Vec<NodeSpec> = (0..nodes).map(node).collect();
    let mut draw = Draw::new(seed, "scale network");
    let pairs = (0..zones).flat_map(|one| (0..one).map(move |other| (one, other)));
    let links = pairs.map(|(one, other)| LinkSpec::new(&zone(one), &zone(other), draw.between(FAR_US.0, FAR_US.1)));
    Scenario {
        format: FORMAT,
        seed,
        document: DocumentKind::Model,
        sealed: false,
        hasty: false,
        canary: false,

        administrators: false,
        tenants: false,
        quiet_at_ms: NEVER_MS,
        core: Vec::new(),
        network: NetworkSpec { links: links.collect(), ..NetworkSpec::default() },
        disk: DiskSpec::default(),
        bounds: Bounds::default(),
        nodes,
        clients: Vec::new(),
        faults: Vec::new(),
        operations: vec![write],
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
