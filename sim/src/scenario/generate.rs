//! Scenarios from seeds.
//!
//! Half of them swarm (Groce et al., 2012): a random subset of the kinds of faults, since kinds that are always on mask
//! each other. The other half have all on. Their lengths run from shorter to longer than every timeout.

use serde::{Deserialize, Serialize};

use super::plots::{self, Times};
use super::{
    Bounds, DiskSpec, DocumentKind, FORMAT, Fault, FaultKind, LinkSpec, NetworkSpec, NodeSpec, Scenario, Spread,
};
use crate::checker::LOSS_ENVELOPE;
use crate::draw::Draw;
use crate::workload::{self, Bulk};

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
    /// 2 to 6 s, of three or four servers with a hasty membership: as many runs as there can be.
    Tiny,
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
    /// Whether one seed in a hundred is to fail, whatever happens.
    pub canary: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self { profile: Profile::Mixed, length: None, nodes: None, document: DocumentKind::Model, canary: false }
    }
}

const ZONES: [&str; 4] = ["au", "gb", "us", "za"];
/// Fewest and most servers that a seed chooses.
const NODES_MIN: u64 = 3;
const NODES_MAX: u64 = 21;
/// Faults begin after the servers have had time to meet.
const FAULTS_BEGIN_MS: u64 = 3_000;
/// The same where there is little time.
const FAULTS_BEGIN_TINY_MS: u64 = 700;
/// How long a probe and what follows from it takes, roughly.
const UNIT_MS: u64 = 1_000;
/// The same where membership is hasty.
const UNIT_TINY_MS: u64 = 250;
/// Of a thousand tiny seeds that would load many documents, those that do.
const LOADS_TINY_PER_MILLE: u64 = 120;
/// Of a thousand seeds, those that are being upgraded.
const UPGRADES_PER_MILLE: u64 = 100;
/// Of a thousand seeds, those with a hostile member.
const HOSTILE_PER_MILLE: u64 = 100;
/// Of a thousand seeds, those that fail where that is asked for.
const CANARIES_PER_MILLE: u64 = 10;

impl Scenario {
    /// The scenario of `seed` in `shape`.
    #[must_use]
    pub fn generate(seed: u64, shape: &Shape) -> Self {
        let bounds = Bounds::generate(seed);
        let hasty = shape.length == Some(Length::Tiny);
        let begin_ms = if hasty { FAULTS_BEGIN_TINY_MS } else { FAULTS_BEGIN_MS };
        let quiet_at_ms = begin_ms + window_ms(seed, shape.length);
        let few = hasty.then(|| 3 + Draw::new(seed, "few").index(2));
        let mut nodes = nodes(seed, shape.nodes.or(few), quiet_at_ms);
        let mut draw = Draw::new(seed, "disk");
        let commit_max_us = *draw.pick(&[300, 2_000, 20_000]);
        let core = core(seed, shape.profile, nodes.len());
        let sealed = shape.profile != Profile::Calm && Draw::new(seed, "sealed").chance(150);
        let outlasts = !core.is_empty();
        let mut faults = Faults::new(seed, shape.profile, &nodes, quiet_at_ms, sealed, outlasts).generate(begin_ms);
        let unit_ms = if hasty { UNIT_TINY_MS } else { UNIT_MS };
        let times = Times { begin_ms, quiet_at_ms, unit_ms };
        let plots = shape.profile != Profile::Calm && !outlasts;
        let alone = plots && !hasty && plots::are_alone(seed, times);
        let refills = plots && !alone && plots::refills(seed, &bounds, times);
        let mut network = network(seed, &nodes);
        if alone {
            faults = plots::one_by_one(seed, &nodes, times);
            network.be_well();
            nodes.iter_mut().for_each(NodeSpec::be_well);
        } else if refills {
            plots::refill(seed, times, &mut faults);
        } else if plots {
            plots::add(seed, &nodes, times, &mut faults);
        }
        // A load takes most of the time of a run that is to be one of very many.
        let loads = !hasty || Draw::new(seed, "loads").chance(LOADS_TINY_PER_MILLE);
        let bulk = loads.then(|| match bounds.bulk() {
            Some(count) if refills => Bulk::First(count),
            Some(count) => Bulk::Now(count),
            None => Bulk::Small,
        });
        Self {
            format: FORMAT,
            seed,
            document: shape.document,
            sealed,
            hasty,
            administrators: false,
            tenants: false,
            canary: shape.canary && Draw::new(seed, "canary").chance(CANARIES_PER_MILLE),
            core,
            clients: Vec::new(),
            operations: workload::generate(
                seed,
                shape.document,
                &nodes,
                begin_ms.min(workload::BEGIN_MS)..quiet_at_ms,
                bulk,
            ),
            network,
            disk: DiskSpec { commit_min_us: 60, commit_max_us },
            bounds,
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
            let mut node = NodeSpec::new(&format!("n{index}"), ZONES[zone.min(ZONES.len() - 1)]);
            node.start_at_ms = draw.between(0, 400);
            node.own_seed = own_seed;
            node
        })
        .collect();
    let mut clocks = Draw::new(seed, "clocks");
    if clocks.chance(250) {
        for node in &mut nodes {
            node.clock_offset_s = clock_offset_s(&mut clocks);
            node.clock_drift_ppm = i64::try_from(clocks.between(0, 400)).unwrap_or_default() - 200;
        }
        // One whose clock is broken.
        let broken = clocks.index(nodes.len());
        nodes[broken].clock_drift_ppm *= 150;
    }
    let mut versions = Draw::new(seed, "versions");
    if versions.chance(UPGRADES_PER_MILLE) {
        for node in &mut nodes {
            node.later_version = versions.chance(500);
        }
    }
    let mut hostile = Draw::new(seed, "who is hostile");
    if hostile.chance(HOSTILE_PER_MILLE) {
        let index = hostile.index(nodes.len());
        nodes[index].hostile = true;
    }
    // Some clusters grow: one server joins the others when they already hold something.
    if draw.chance(200)
        && let Some(last) = nodes.last_mut()
    {
        last.start_at_ms = draw.between(0, quiet_at_ms);
    }
    nodes
}

/// From a second to a century, either way.
fn clock_offset_s(draw: &mut Draw) -> i64 {
    const SPANS_S: [i64; 4] = [1, 3_600, 10 * 365 * 86_400, 100 * 365 * 86_400];
    let span = *draw.pick(&SPANS_S);
    if draw.chance(500) { span } else { -span }
}

/// In some runs only a part of the servers is healed: one that knows a seed, and at least one more.
fn core(seed: u64, profile: Profile, count: usize) -> Vec<usize> {
    let mut draw = Draw::new(seed, "core");
    if profile == Profile::Calm || count < 4 || !draw.chance(150) {
        return Vec::new();
    }
    let mut others: Vec<usize> = (1..count).collect();
    draw.shuffle(&mut others);
    let kept = 1 + draw.index(count - 2);
    others.truncate(kept);
    let mut core: Vec<usize> = std::iter::once(0).chain(others).collect();
    core.sort_unstable();
    core
}

fn window_ms(seed: u64, length: Option<Length>) -> u64 {
    let mut draw = Draw::new(seed, "length");
    let length = length.unwrap_or(match draw.between(0, 100) {
        0..50 => Length::Short,
        50..85 => Length::Medium,
        _ => Length::Long,
    });
    match length {
        Length::Tiny => draw.between(2_000, 6_000),
        Length::Short => draw.between(8_000, 20_000),
        Length::Medium => draw.between(25_000, 60_000),
        Length::Long => draw.between(100_000, 200_000),
    }
}

fn network(seed: u64, nodes: &[NodeSpec]) -> NetworkSpec {
    let mut draw = Draw::new(seed, "network");
    let zones = zones(nodes);
    let pairs = (0..zones.len()).flat_map(|one| (0..one).map(move |other| (one, other)));
    let mut links: Vec<LinkSpec> =
        pairs.map(|(one, other)| LinkSpec::new(zones[one], zones[other], draw.between(4_000, 120_000))).collect();
    let near_us = draw.between(80, 800);
    let jitter_percent = draw.between(1, 30);
    let loss_per_mille = *draw.pick(&[0, 0, 1, 10, LOSS_ENVELOPE]);
    let duplicate_per_mille = *draw.pick(&[0, 0, 5]);
    let reorder_per_mille = *draw.pick(&[0, 0, 10]);
    let spread = *draw.pick(&[Spread::Even, Spread::Even, Spread::Tail]);
    for link in &mut links {
        if draw.chance(250) {
            link.back_us = Some(draw.between(4_000, 120_000));
        }
        if draw.chance(100) {
            link.bytes_per_s = Some(*draw.pick(&[125_000, 1_250_000]));
        }
    }
    NetworkSpec {
        near_us,
        jitter_percent,
        spread,
        loss_per_mille,
        duplicate_per_mille,
        reorder_per_mille,
        links,
        ..NetworkSpec::default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Partition,
    Flap,
    Swizzle,
    Gray,
    NoDatagrams,
    Packets,
    Corrupt,
    Lag,
    Narrow,
    Mtu,
    Reset,
    HalfOpen,
    StreamsStall,
    SlowReader,
    Crash,
    PowerCut,
    CrashAtStorage,
    Stop,
    Restore,
    DiskLost,
    Pause,
    SlowCpu,
    Clock,
    Fsync,
    ReadFails,
    DiskFull,
    SlowDisk,
}

const CLASSES: [Class; 27] = [
    Class::Partition,
    Class::Flap,
    Class::Swizzle,
    Class::Gray,
    Class::NoDatagrams,
    Class::Packets,
    Class::Corrupt,
    Class::Lag,
    Class::Narrow,
    Class::Mtu,
    Class::Reset,
    Class::HalfOpen,
    Class::StreamsStall,
    Class::SlowReader,
    Class::Crash,
    Class::PowerCut,
    Class::CrashAtStorage,
    Class::Stop,
    Class::Restore,
    Class::DiskLost,
    Class::Pause,
    Class::SlowCpu,
    Class::Clock,
    Class::Fsync,
    Class::ReadFails,
    Class::DiskFull,
    Class::SlowDisk,
];

struct Faults<'a> {
    draw: Draw,
    classes: Vec<Class>,
    nodes: &'a [NodeSpec],
    quiet_at_ms: u64,
    /// Whether they may last longer than that.
    outlasts: bool,
}

impl<'a> Faults<'a> {
    fn new(seed: u64, profile: Profile, nodes: &'a [NodeSpec], quiet_at_ms: u64, sealed: bool, outlasts: bool) -> Self {
        let mut draw = Draw::new(seed, "faults");
        let swarms = match profile {
            Profile::Mixed => seed.is_multiple_of(2),
            Profile::Swarm => true,
            Profile::All | Profile::Calm => false,
        };
        let mut classes = CLASSES.to_vec();
        classes.retain(|class| sealed || *class != Class::Corrupt);
        if profile == Profile::Calm {
            classes.clear();
        }
        if swarms {
            draw.shuffle(&mut classes);
            let kept = 1 + draw.index(5);
            classes.truncate(kept);
        }
        Self { draw, classes, nodes, quiet_at_ms, outlasts }
    }

    fn generate(mut self, begin_ms: u64) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.classes.is_empty() {
            return faults;
        }
        let gap_ms = *self.draw.pick(&[600, 2_000, 6_000]);
        let mut at_ms = begin_ms;
        loop {
            at_ms += self.draw.between(gap_ms / 4, gap_ms * 2);
            // The last second is left for faults to end in.
            if at_ms + 1_000 >= self.quiet_at_ms {
                break;
            }
            let class = *self.draw.pick(&self.classes);
            if class == Class::Swizzle {
                self.swizzle(at_ms, &mut faults);
            } else {
                faults.push(self.fault(class, at_ms));
            }
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
        let at_ms = self.draw.between(FAULTS_BEGIN_MS.min(self.quiet_at_ms - 1), self.quiet_at_ms);
        let node = self.draw.index(self.nodes.len());
        let power = self.draw.chance(500);
        faults.push(Fault::new(at_ms, None, FaultKind::Crash { node, power, moves: false }));
    }

    fn fault(&mut self, class: Class, at_ms: u64) -> Fault {
        let lasting = self.lasting_ms();
        let lasting = if self.outlasts { lasting } else { lasting.min(self.quiet_at_ms - at_ms) };
        let node = self.draw.index(self.nodes.len());
        let moves = self.draw.chance(150);
        let kind = match class {
            Class::Flap => return self.flap(at_ms, lasting),
            Class::Partition | Class::Swizzle => self.partition(),
            Class::Gray => self.gray(),
            Class::NoDatagrams => {
                let (left, right) = self.sides();
                FaultKind::DatagramsBlocked { left, right }
            }
            Class::Packets => self.packets(),
            Class::Corrupt => FaultKind::Corrupt { per_mille: self.draw.between(10, 300) },
            Class::Lag => FaultKind::Lag { node, extra_ms: self.draw.between(10, 900) },
            Class::Narrow => FaultKind::Throttle {
                node,
                bytes_per_s: *self.draw.pick(&[4_000, 30_000, 250_000]),
                queue_bytes: *self.draw.pick(&[2_000, 20_000]),
            },
            Class::Mtu => FaultKind::Mtu { node, bytes: *self.draw.pick(&[200, 600, 1_000]) },
            Class::Reset => FaultKind::Reset { node },
            Class::HalfOpen => FaultKind::HalfOpen { node },
            Class::StreamsStall => FaultKind::StreamsStall { node },
            Class::SlowReader => {
                FaultKind::SlowReader { node, bytes_per_s: *self.draw.pick(&[1_000, 20_000, 300_000]) }
            }
            Class::Crash => FaultKind::Crash { node, power: false, moves },
            Class::PowerCut => FaultKind::Crash { node, power: true, moves },
            Class::CrashAtStorage => {
                let (operation, power) = (1 + self.draw.between(0, 12), self.draw.chance(500));
                FaultKind::CrashAtStorage { node, operation, power }
            }
            Class::Stop => FaultKind::Stop { node, moves },
            Class::Restore => FaultKind::Restore { node, down_ms: self.draw.between(50, 1_500) },
            Class::DiskLost => FaultKind::DiskLost { node },
            Class::Pause => FaultKind::Pause { node },
            Class::SlowCpu => FaultKind::SlowCpu { node, event_us: *self.draw.pick(&[50, 500, 3_000]) },
            Class::Clock => FaultKind::Clock { node, offset_s: clock_offset_s(&mut self.draw) },
            Class::Fsync => FaultKind::FsyncFails { node, power: self.draw.chance(700) },
            Class::ReadFails => FaultKind::ReadFails { node },
            Class::DiskFull if self.draw.chance(300) => return self.brim(at_ms, lasting, node),
            Class::DiskFull => FaultKind::DiskFull { node },
            Class::SlowDisk => FaultKind::SlowDisk { node, commit_ms: self.draw.between(5, 400) },
        };
        Fault::new(at_ms, Some(lasting), kind)
    }

    /// A link that comes and goes.
    fn flap(&mut self, at_ms: u64, lasting_ms: u64) -> Fault {
        let every_ms = self.draw.between(200, 4_000);
        let for_ms = 1 + every_ms * self.draw.between(100, 900) / 1_000;
        let room = (lasting_ms / every_ms).max(1);
        let kind = if self.draw.chance(300) { self.gray() } else { self.partition() };
        Fault { at_ms, for_ms: Some(for_ms.min(lasting_ms)), every_ms, times: room, kind }
    }

    /// A disk that is full to the brim: now and then something is deleted, and written again.
    fn brim(&mut self, at_ms: u64, lasting_ms: u64, node: usize) -> Fault {
        let every_ms = self.draw.between(20, 600);
        let for_ms = 1 + every_ms * self.draw.between(50, 700) / 1_000;
        let times = (lasting_ms / every_ms).max(1);
        Fault { at_ms, for_ms: Some(for_ms.min(lasting_ms)), every_ms, times, kind: FaultKind::DiskFull { node } }
    }

    /// One server after another is cut off from all, and then each comes back, in another order.
    fn swizzle(&mut self, at_ms: u64, faults: &mut Vec<Fault>) {
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        self.draw.shuffle(&mut order);
        let kept = 1 + self.draw.index(order.len());
        order.truncate(kept);
        let step_ms = self.draw.between(50, 1_500);
        let count = order.len() as u64;
        let mut backs: Vec<u64> = (0..count).map(|turn| at_ms + (count + turn) * step_ms).collect();
        self.draw.shuffle(&mut backs);
        for ((turn, node), back_ms) in (0..).zip(order).zip(backs) {
            let begins = at_ms + turn * step_ms;
            let ends = if self.outlasts { back_ms } else { back_ms.min(self.quiet_at_ms) };
            if begins < ends {
                let right = (0..self.nodes.len()).filter(|other| *other != node).collect();
                let kind = FaultKind::Partition { left: vec![node], right, one_way: false };
                faults.push(Fault::new(begins, Some(ends - begins), kind));
            }
        }
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
        let (left, right) = self.sides();
        FaultKind::Partition { left, right, one_way: self.draw.chance(250) }
    }

    fn gray(&mut self) -> FaultKind {
        let (left, right) = self.sides();
        FaultKind::Gray {
            left,
            right,
            one_way: self.draw.chance(400),
            extra_ms: self.draw.between(50, 3_000),
            loss_per_mille: self.draw.between(0, 400),
        }
    }

    /// A zone and the rest, one server and the rest, a part and the rest, or two that leave others between them.
    fn sides(&mut self) -> (Vec<usize>, Vec<usize>) {
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        let kind = self.draw.between(0, 4);
        if kind == 0 {
            let zone = &self.nodes[self.draw.index(self.nodes.len())].zone;
            let sides: (Vec<usize>, Vec<usize>) = order.iter().partition(|&&index| self.nodes[index].zone == *zone);
            if !sides.1.is_empty() {
                return sides;
            }
        }
        self.draw.shuffle(&mut order);
        let at = if kind == 1 { order.len() - 1 } else { 1 + self.draw.index(order.len() - 1) };
        let mut right = order.split_off(at);
        if kind == 3 {
            right.truncate(1);
            order.truncate(1);
        }
        (order, right)
    }

    fn packets(&mut self) -> FaultKind {
        match self.draw.between(0, 3) {
            0 => FaultKind::Loss { per_mille: self.draw.between(10, 400) },
            1 => FaultKind::Duplicate { per_mille: self.draw.between(50, 500) },
            _ => FaultKind::Reorder { per_mille: self.draw.between(50, 500) },
        }
    }
}
