//! What a topology would do: how fast writes spread, what the links carry, how soon a crash is noticed.

mod gauge;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::time::Duration;

use serde::Serialize;

use self::gauge::{Carried, Gauge, Meters};
use crate::checker::Violation;
use crate::jobs;
use crate::percentile::percentile;
use crate::scenario::Scenario;

/// Times of one kind, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Times {
    /// How many.
    pub count: usize,
    /// The median.
    pub p50: f64,
    /// 95 of a hundred take no longer.
    pub p95: f64,
    /// 99 of a hundred take no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Times {
    /// Of microseconds.
    fn of(mut micros: Vec<u64>) -> Self {
        micros.sort_unstable();
        let [p50, p95, p99, max] = [50, 95, 99, 100].map(|percent| {
            let micros = percentile(&micros, percent).unwrap_or_default();
            Duration::from_micros(micros).as_secs_f64() * 1e3
        });
        Self { count: micros.len(), p50, p95, p99, max }
    }
}

/// How writes of one zone's clients spread.
#[derive(Clone, Debug, Serialize)]
pub struct Convergence {
    /// Where the writer is.
    pub writer_zone: String,
    /// From the acknowledgement until more than half of the servers entitled to it show it, in milliseconds.
    pub most_ms: Times,
    /// Until every one of them does, in milliseconds.
    pub all_ms: Times,
    /// Writes that not every server came to show. Servers that never return are not waited for.
    pub never: usize,
}

/// What passes in one direction.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Traffic {
    /// From this zone, or server.
    pub from: String,
    /// To this one.
    pub to: String,
    /// Bytes of frames and datagrams in the average run, before sealing and compression, headers of IP left out.
    pub bytes: u64,
    /// A second, on average.
    pub bytes_per_s: u64,
    /// In the busiest second of any run.
    pub peak_bytes_per_s: u64,
    /// Of the bytes, those of changes and their comparison.
    pub document_bytes: u64,
}

/// How crashes are noticed.
#[derive(Clone, Debug, Serialize)]
pub struct Detection {
    /// Processes that ended without a goodbye.
    pub crashes: usize,
    /// Of these, back before anybody declared them failed.
    pub back_first: usize,
    /// Until the first server declares it failed, in milliseconds.
    pub first_ms: Times,
    /// Until the last does of those that do, in milliseconds.
    pub last_ms: Times,
}

/// What a topology would do.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// How many runs it was seen in.
    pub runs: u64,
    /// Virtual time of all of them, in seconds.
    pub simulated_s: f64,
    /// How writes spread, by the zone of the writer.
    pub convergence: Vec<Convergence>,
    /// What passes between zones.
    pub zones: Vec<Traffic>,
    /// The busiest way from one server to another.
    pub busiest: Option<Traffic>,
    /// How crashes are noticed.
    pub detection: Detection,
    /// From the end of the last fault until all agree, in milliseconds.
    pub settled_ms: Times,
    /// Runs that broke a promise: their seed, and how.
    pub broken: Vec<(u64, Violation)>,
}

/// Runs `scenario` with `seeds` seeds from its own on, on `jobs` threads, and measures.
#[must_use]
pub fn plan(scenario: &Scenario, seeds: u64, jobs: usize) -> Plan {
    let gauges: Mutex<BTreeMap<u64, Gauge>> = Mutex::default();
    jobs::each(0..seeds, jobs, |turn| {
        let seed = scenario.seed.wrapping_add(turn);
        let gauge = gauge::measure(Scenario { seed, ..scenario.clone() });
        jobs::lock(&gauges).insert(turn, gauge);
        ControlFlow::Continue(())
    });
    summary(scenario, jobs::gathered(gauges).into_values().collect())
}

fn summary(scenario: &Scenario, gauges: Vec<Gauge>) -> Plan {
    let simulated_us: u64 = gauges.iter().map(|gauge| gauge.simulated_us).sum();
    let simulated_s = Duration::from_micros(simulated_us).as_secs_f64();
    let convergence = convergence(scenario, &gauges);
    let (zones, busiest) = traffic(scenario, &gauges, simulated_us);
    let mut detection = Detection { crashes: 0, back_first: 0, first_ms: Times::default(), last_ms: Times::default() };
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for crash in gauges.iter().flat_map(Gauge::crashes) {
        detection.crashes += 1;
        match crash.noticed_after_us {
            Some([one, all]) => {
                first.push(one);
                last.push(all);
            }
            None => detection.back_first += 1,
        }
    }
    (detection.first_ms, detection.last_ms) = (Times::of(first), Times::of(last));
    Plan {
        runs: gauges.len() as u64,
        simulated_s,
        convergence,
        zones,
        busiest,
        detection,
        settled_ms: Times::of(gauges.iter().filter_map(|gauge| gauge.settled_us).collect()),
        broken: gauges.into_iter().filter_map(|gauge| Some((gauge.seed, gauge.violation?))).collect(),
    }
}

fn convergence(scenario: &Scenario, gauges: &[Gauge]) -> Vec<Convergence> {
    let of_zone = |zone: &str| {
        let spreads: Vec<[Option<u64>; 2]> =
            gauges.iter().flat_map(|gauge| gauge.spread_from(scenario, zone)).collect();
        let took = |which: usize| Times::of(spreads.iter().filter_map(|spread| spread[which]).collect());
        let never = spreads.iter().filter(|[_, all]| all.is_none()).count();
        Convergence { writer_zone: zone.to_owned(), most_ms: took(0), all_ms: took(1), never }
    };
    scenario.zones().into_iter().map(of_zone).collect()
}

fn traffic(scenario: &Scenario, gauges: &[Gauge], simulated_us: u64) -> (Vec<Traffic>, Option<Traffic>) {
    let runs = gauges.len().max(1) as u64;
    let entry = |(from, to): (String, String), carried: Carried| Traffic {
        from,
        to,
        bytes: carried.bytes / runs,
        bytes_per_s: carried.bytes.saturating_mul(1_000_000) / simulated_us.max(1),
        peak_bytes_per_s: carried.peak,
        document_bytes: carried.document_bytes / runs,
    };
    let zone_names = scenario.zones();
    let zone = |zone: usize| zone_names.get(zone).map_or_else(String::new, |name| (*name).to_owned());
    let zones = sum(gauges.iter().map(|gauge| &gauge.zones));
    let zones = zones.into_iter().map(|((from, to), carried)| entry((zone(from), zone(to)), carried)).collect();
    let server = |node: usize| scenario.nodes.get(node).map_or_else(String::new, |node| node.name.clone());
    let links = sum(gauges.iter().map(|gauge| &gauge.links));
    let busiest = links.into_iter().max_by_key(|(_, carried)| carried.bytes);
    (zones, busiest.map(|((from, to), carried)| entry((server(from), server(to)), carried)))
}

fn sum<'a>(meters: impl Iterator<Item = &'a Meters>) -> BTreeMap<(usize, usize), Carried> {
    let mut all: BTreeMap<(usize, usize), Carried> = BTreeMap::new();
    for (pair, carried) in meters.flat_map(Meters::carried) {
        all.entry(pair).or_default().add(&carried);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_milliseconds() {
        let times = Times::of((1..=100).map(|millis| millis * 1_000).collect());
        assert_eq!(times, Times { count: 100, p50: 50.0, p95: 95.0, p99: 99.0, max: 100.0 });
        assert_eq!(Times::of(vec![7_000]), Times { count: 1, p50: 7.0, p95: 7.0, p99: 7.0, max: 7.0 });
        assert_eq!(Times::of(Vec::new()), Times::default());
    }
}
