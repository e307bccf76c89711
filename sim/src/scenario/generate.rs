//! Scenarios from seeds.
//!
//! Half of them swarm (Groce et al., 2012): a random subset of the kinds of faults, since kinds that are always on mask
//! each other. The other half have all on. Their lengths run from shorter to longer than every timeout.

use knot_engine::Limits;
use serde::{Deserialize, Serialize};

use super::{Bounds, DiskSpec, DocumentKind, Fault, FaultKind, NetworkSpec, NodeSpec, Scenario};
use crate::checker::LOSS_ENVELOPE;
use crate::draw::Draw;
use crate::workload;

/// Which kinds of faults a scenario has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// `swarm` for even seeds, `all` for odd ones.
    #[default]
    Mixed,
    /// A random subset.
    Swarm,
    /// All.
    All,
    /// None: operations alone.
    Calm,
}

/// How long faults go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Length {
    /// 8 to 20 s.
    Short,
    /// 25 to 60 s.
    Medium,
    /// 100 to 200 s: longer than every timeout.
    Long,
}

/// What is asked of a scenario; what is left open, the seed chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Which faults.
    pub profile: Profile,
    /// How long.
    pub length: Option<Length>,
    /// How many servers.
    pub nodes: Option<usize>,
    /// What is replicated.
    pub document: DocumentKind,
}

impl Default for Shape {
    fn default() -> Self {
        Self { profile: Profile::Mixed, length: None, nodes: None, document: DocumentKind::Model }
    }
}

const ZONES: [&str; 4] = ["au", "gb", "us", "za"];
/// Fewest and most servers that a seed chooses.
const NODES_MIN: u64 = 3;
const NODES_MAX: u64 = 21;
/// Faults begin after the servers have had time to meet.
const FAULTS_BEGIN_MS: u64 = 3_000;

impl Scenario {
    /// The scenario of `seed` in `shape`.
    #[must_use]
    pub fn generate(seed: u64, shape: &Shape) -> Self {
        let quiet_at_ms = FAULTS_BEGIN_MS + window_ms(seed, shape.length);
        let nodes = nodes(seed, shape.nodes, quiet_at_ms);
        let mut draw = Draw::new(seed, "disk");
        let commit_max_us = *draw.pick(&[300, 2_000, 20_000]);
        let faults = Faults::new(seed, shape.profile, &nodes, quiet_at_ms).generate();
        Self {
            seed,
            document: shape.document,
            operations: workload::generate(seed, shape.document, &nodes, quiet_at_ms),
            network: network(seed, &nodes),
            disk: DiskSpec { commit_min_us: 60, commit_max_us },
            bounds: bounds(seed),
            nodes,
            faults,
            quiet_at_ms,
        }
    }

    /// The zones of this scenario, in order.
    #[must_use]
    pub fn zones(&self) -> Vec<&str> {
        zones(&self.nodes)
    }
}

/// The zones of `nodes`, in order.
pub(crate) fn zones(nodes: &[NodeSpec]) -> Vec<&str> {
    let mut zones: Vec<&str> = nodes.iter().map(|node| node.zone.as_str()).collect();
    zones.sort_unstable();
    zones.dedup();
    zones
}

fn nodes(seed: u64, count: Option<usize>, quiet_at_ms: u64) -> Vec<NodeSpec> {
    let mut draw = Draw::new(seed, "nodes");
    let drawn = match draw.between(0, 100) {
        0..30 => NODES_MIN,
        30..70 => draw.between(4, 6),
        70..92 => draw.between(6, 9),
        _ => draw.between(9, NODES_MAX),
    };
    let count = count.unwrap_or(usize::try_from(drawn).unwrap_or(3));
    let zones = 2 + draw.index(3.min(count.saturating_sub(1)));
    let own_seed = draw.chance(250);
    let mut nodes: Vec<NodeSpec> = (0..count)
        .map(|index| {
            let zone = if index < zones { index } else { draw.index(zones) };
            NodeSpec {
                name: format!("n{index}"),
                zone: ZONES[zone.min(ZONES.len() - 1)].to_owned(),
                start_at_ms: draw.between(0, 400),
                own_seed,
            }
        })
        .collect();
    // Some clusters grow: one server joins the others when they already hold something.
    if draw.chance(200)
        && let Some(last) = nodes.last_mut()
    {
        last.start_at_ms = draw.between(0, quiet_at_ms);
    }
    nodes
}

fn window_ms(seed: u64, length: Option<Length>) -> u64 {
    let mut draw = Draw::new(seed, "length");
    let length = length.unwrap_or(match draw.between(0, 100) {
        0..50 => Length::Short,
        50..85 => Length::Medium,
        _ => Length::Long,
    });
    match length {
        Length::Short => draw.between(8_000, 20_000),
        Length::Medium => draw.between(25_000, 60_000),
        Length::Long => draw.between(100_000, 200_000),
    }
}

fn network(seed: u64, nodes: &[NodeSpec]) -> NetworkSpec {
    let mut draw = Draw::new(seed, "network");
    let far_us =
        (0..zones(nodes).len()).map(|zone| (0..zone).map(|_| draw.between(4_000, 120_000)).collect()).collect();
    NetworkSpec {
        near_us: draw.between(80, 800),
        far_us,
        jitter_percent: draw.between(1, 30),
        loss_per_mille: *draw.pick(&[0, 0, 1, 10, LOSS_ENVELOPE]),
        duplicate_per_mille: *draw.pick(&[0, 0, 5]),
        reorder_per_mille: *draw.pick(&[0, 0, 10]),
    }
}

/// Half of the runs have the engine's own bounds, half some that are reached all the time.
fn bounds(seed: u64) -> Bounds {
    let mut draw = Draw::new(seed, "bounds");
    let own = Limits::default();
    let mut pick = |usual: usize, small: usize| if draw.chance(500) { usual } else { small };
    Bounds {
        window_bytes: pick(own.window_bytes, 1_500),
        document_cache_bytes: pick(own.document_cache_bytes, 20_000),
        log_cache_bytes: pick(own.log_cache_bytes, 20_000),
        orphans: pick(own.orphans, 4),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Partition,
    Crash,
    PowerCut,
    Stop,
    Restore,
    Pause,
    Packets,
    Lag,
    Fsync,
    DiskFull,
    SlowDisk,
    Reset,
}

const CLASSES: [Class; 12] = [
    Class::Partition,
    Class::Crash,
    Class::PowerCut,
    Class::Stop,
    Class::Restore,
    Class::Pause,
    Class::Packets,
    Class::Lag,
    Class::Fsync,
    Class::DiskFull,
    Class::SlowDisk,
    Class::Reset,
];

struct Faults<'a> {
    draw: Draw,
    classes: Vec<Class>,
    nodes: &'a [NodeSpec],
    quiet_at_ms: u64,
}

impl<'a> Faults<'a> {
    fn new(seed: u64, profile: Profile, nodes: &'a [NodeSpec], quiet_at_ms: u64) -> Self {
        let mut draw = Draw::new(seed, "faults");
        let swarms = match profile {
            Profile::Mixed => seed.is_multiple_of(2),
            Profile::Swarm => true,
            Profile::All | Profile::Calm => false,
        };
        let mut classes = CLASSES.to_vec();
        if profile == Profile::Calm {
            classes.clear();
        }
        if swarms {
            draw.shuffle(&mut classes);
            let kept = 1 + draw.index(5);
            classes.truncate(kept);
        }
        Self { draw, classes, nodes, quiet_at_ms }
    }

    fn generate(mut self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.classes.is_empty() {
            return faults;
        }
        let gap_ms = *self.draw.pick(&[600, 2_000, 6_000]);
        let mut at_ms = FAULTS_BEGIN_MS;
        loop {
            at_ms += self.draw.between(gap_ms / 4, gap_ms * 2);
            // The last second is left for faults to end in.
            if at_ms + 1_000 >= self.quiet_at_ms {
                break;
            }
            let fault = self.fault(at_ms);
            faults.push(fault);
        }
        self.add_victim(&mut faults);
        faults
    }

    /// Some runs end with one server still down, which the rest must have noticed.
    fn add_victim(&mut self, faults: &mut Vec<Fault>) {
        let kills = [Class::Crash, Class::PowerCut];
        let allowed = kills.iter().any(|class| self.classes.contains(class));
        if self.nodes.len() < 4 || !allowed || !self.draw.chance(300) {
            return;
        }
        faults.push(Fault {
            at_ms: self.draw.between(FAULTS_BEGIN_MS, self.quiet_at_ms),
            for_ms: None,
            kind: FaultKind::Crash {
                node: self.draw.index(self.nodes.len()),
                power: self.draw.chance(500),
                moves: false,
            },
        });
    }

    fn fault(&mut self, at_ms: u64) -> Fault {
        let class = *self.draw.pick(&self.classes);
        let lasting = self.lasting_ms();
        let node = self.draw.index(self.nodes.len());
        let moves = self.draw.chance(150);
        let kind = match class {
            Class::Partition => self.partition(),
            Class::Crash => FaultKind::Crash { node, power: false, moves },
            Class::PowerCut => FaultKind::Crash { node, power: true, moves },
            Class::Stop => FaultKind::Stop { node, moves },
            Class::Restore => FaultKind::Restore { node, down_ms: self.draw.between(50, 1_500) },
            Class::Pause => FaultKind::Pause { node },
            Class::Packets => self.packets(),
            Class::Lag => FaultKind::Lag { node, extra_ms: self.draw.between(10, 900) },
            Class::Fsync => FaultKind::FsyncFails { node, power: self.draw.chance(700) },
            Class::DiskFull => FaultKind::DiskFull { node },
            Class::SlowDisk => FaultKind::SlowDisk { node, commit_ms: self.draw.between(5, 400) },
            Class::Reset => FaultKind::Reset { node },
        };
        Fault { at_ms, for_ms: Some(lasting.min(self.quiet_at_ms - at_ms)), kind }
    }

    /// From shorter than a probe to longer than every timeout.
    fn lasting_ms(&mut self) -> u64 {
        match self.draw.between(0, 100) {
            0..35 => self.draw.between(50, 1_500),
            35..75 => self.draw.between(1_500, 8_000),
            75..93 => self.draw.between(8_000, 30_000),
            _ => self.draw.between(30_000, 90_000),
        }
    }

    fn partition(&mut self) -> FaultKind {
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        let (left, right) = match self.draw.between(0, 3) {
            0 => {
                let zone = &self.nodes[self.draw.index(self.nodes.len())].zone;
                order.iter().partition(|&&index| self.nodes[index].zone == *zone)
            }
            1 => {
                self.draw.shuffle(&mut order);
                let right = order.split_off(1);
                (order, right)
            }
            _ => {
                self.draw.shuffle(&mut order);
                let at = 1 + self.draw.index(order.len() - 1);
                let right = order.split_off(at);
                (order, right)
            }
        };
        FaultKind::Partition { left, right, one_way: self.draw.chance(250) }
    }

    fn packets(&mut self) -> FaultKind {
        match self.draw.between(0, 3) {
            0 => FaultKind::Loss { per_mille: self.draw.between(10, 400) },
            1 => FaultKind::Duplicate { per_mille: self.draw.between(50, 500) },
            _ => FaultKind::Reorder { per_mille: self.draw.between(50, 500) },
        }
    }
}
