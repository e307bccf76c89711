//! What one run measures.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use knot_engine::membership::Status;
use knot_engine::{Faults, Instant};

use crate::campaign::run_watched;
use crate::checker::Violation;
use crate::scenario::{Scenario, Target};
use crate::spread::Spread;
use crate::watch::{Kind, Observed, Observer, Watch};

/// What passed in one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Carried {
    pub(super) bytes: u64,
    pub(super) document_bytes: u64,
    /// In the busiest second.
    pub(super) peak: u64,
}

impl Carried {
    pub(super) fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.document_bytes += other.document_bytes;
        self.peak = self.peak.max(other.peak);
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Meter {
    carried: Carried,
    second: u64,
    this_second: u64,
}

/// What passed in each direction.
#[derive(Clone, Debug, Default)]
pub(super) struct Meters(BTreeMap<(usize, usize), Meter>);

impl Meters {
    fn add(&mut self, now: Instant, pair: (usize, usize), kind: Kind, bytes: usize) {
        let meter = self.0.entry(pair).or_default();
        let second = now.as_micros() / 1_000_000;
        if meter.second != second {
            (meter.second, meter.this_second) = (second, 0);
        }
        let bytes = bytes as u64;
        meter.this_second += bytes;
        meter.carried.bytes += bytes;
        meter.carried.peak = meter.carried.peak.max(meter.this_second);
        if kind.is_replication() {
            meter.carried.document_bytes += bytes;
        }
    }

    pub(super) fn carried(&self) -> BTreeMap<(usize, usize), Carried> {
        self.0.iter().map(|(pair, meter)| (*pair, meter.carried)).collect()
    }
}

/// A process that ended without a goodbye.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crash {
    node: usize,
    at: Instant,
    /// Whether it is back.
    over: bool,
    /// Until the first and the last server declared it failed; none when nobody did before it was back.
    pub(super) noticed_after_us: Option<[u64; 2]>,
}

/// What one run measures.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauge {
    pub(super) seed: u64,
    pub(super) simulated_us: u64,
    pub(super) settled_us: Option<u64>,
    pub(super) violation: Option<Violation>,
    pub(super) links: Meters,
    pub(super) zones: Meters,
    spread: Spread,
    /// Of each write: its server and its document.
    writes: BTreeMap<u32, (usize, Target)>,
    crashes: Vec<Crash>,
    zone_of: Vec<usize>,
}

/// Runs a scenario and measures.
pub(super) fn measure(scenario: Scenario) -> Gauge {
    let zones = scenario.zones();
    let zone_of = scenario.nodes.iter().map(|node| zones.iter().position(|zone| *zone == node.zone));
    let zone_of = zone_of.map(Option::unwrap_or_default).collect();
    let gauge = Rc::new(RefCell::new(Gauge { seed: scenario.seed, zone_of, ..Gauge::default() }));
    let observer: Box<dyn Observer> = Box::new(Rc::clone(&gauge));
    let report = run_watched(scenario, Faults::default(), Watch { observer: Some(observer), ..Watch::default() });
    let mut gauge = Rc::unwrap_or_clone(gauge).into_inner();
    gauge.simulated_us = report.simulated_us;
    gauge.settled_us = report.settled_us;
    gauge.violation = report.violations.into_iter().next();
    gauge
}

impl Observer for Gauge {
    fn observe(&mut self, now: Instant, what: Observed) {
        self.spread.observe(now, &what);
        match what {
            Observed::Asked(operation) => {
                self.writes.insert(operation.id, (operation.node, operation.target));
            }
            Observed::Datagram { from, to, bytes, .. } => {
                self.carry(now, (from, to), Kind::of_datagram(&bytes), &bytes)
            }
            Observed::Frame { from, to, bytes, .. } => self.carry(now, (from, to), Kind::of_frame(&bytes), &bytes),
            Observed::Ends { node, how } if how != "clean" => {
                self.crashes.push(Crash { node, at: now, over: false, noticed_after_us: None });
            }
            Observed::Starts { node } => {
                let theirs = self.crashes.iter_mut().filter(|crash| crash.node == node);
                theirs.for_each(|crash| crash.over = true);
            }
            Observed::Member { subject, status: Status::Failed, .. } => self.on_failed(now, subject),
            Observed::Ends { .. }
            | Observed::Member { .. }
            | Observed::Pauses { .. }
            | Observed::FaultBegins(_)
            | Observed::FaultEnds(_)
            | Observed::Answered { .. }
            | Observed::Holds { .. }
            | Observed::FrameArrives { .. }
            | Observed::StreamEnds { .. }
            | Observed::Scopes { .. }
            | Observed::Repairs { .. }
            | Observed::State(_) => {}
        }
    }
}

impl Gauge {
    /// What a server sends itself takes no link.
    fn carry(&mut self, now: Instant, (from, to): (usize, usize), kind: Kind, bytes: &[u8]) {
        if from == to {
            return;
        }
        self.links.add(now, (from, to), kind, bytes.len());
        if let Some((from, to)) = self.zone_of.get(from).zip(self.zone_of.get(to)) {
            self.zones.add(now, (*from, *to), kind, bytes.len());
        }
    }

    fn on_failed(&mut self, now: Instant, subject: usize) {
        let crash = self.crashes.iter_mut().rfind(|crash| crash.node == subject && !crash.over);
        if let Some(crash) = crash {
            let after = now.as_micros() - crash.at.as_micros();
            crash.noticed_after_us = Some([crash.noticed_after_us.map_or(after, |[first, _]| first), after]);
        }
    }

    pub(super) fn crashes(&self) -> impl Iterator<Item = Crash> + '_ {
        self.crashes.iter().copied()
    }

    /// How long each acknowledged write from `zone` took to reach most servers entitled to it, and all; none where it
    /// never did.
    pub(super) fn spread_from<'a>(
        &'a self,
        scenario: &'a Scenario,
        zone: &'a str,
    ) -> impl Iterator<Item = [Option<u64>; 2]> + 'a {
        let gone = |node: usize| {
            scenario.faults.iter().any(|fault| fault.for_ms.is_none() && fault.kind.nodes().contains(&node))
        };
        let servers: Vec<usize> = (0..scenario.nodes.len()).filter(|node| !gone(*node)).collect();
        self.spread.writes().filter_map(move |write| {
            let (writer, target) = self.writes.get(&write)?;
            let zone_of = |node: usize| scenario.nodes.get(node).map(|node| node.zone.as_str());
            let holds = |node: &usize| zone_of(*node).is_some_and(|zone| target.is_held_in(zone));
            let entitled: Vec<usize> = servers.iter().copied().filter(holds).collect();
            let most = entitled.len() / 2 + 1;
            let took = |count: usize| self.spread.took_us(write, &entitled, count);
            (zone_of(*writer) == Some(zone)).then(|| [took(most.min(entitled.len())), took(entitled.len())])
        })
    }
}
