//! Bugs on purpose, and how many seeds it takes to find each.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Mutex;

use knot_engine::{Fault, Faults};
use serde::Serialize;

use crate::campaign::run_seed;
use crate::checker::{Invariant, Violation};
use crate::jobs;
use crate::percentile::percentile;
use crate::scenario::{DocumentKind, Length, Scenario, Shape};
use crate::shrink::shrink;

/// How a planted bug was found, or that it was not.
#[derive(Clone, Debug, Serialize)]
pub struct Detection {
    /// The part of the engine that it sits in.
    pub area: &'static str,
    /// The bug.
    pub name: &'static str,
    /// What the engine does wrong with it.
    pub says: &'static str,
    /// How many seeds it took; none when none of them found it.
    pub seeds: Option<u64>,
    /// The seed that found it.
    pub seed: Option<u64>,
    /// The promise that it broke.
    pub invariant: Option<Invariant>,
    /// How.
    pub detail: Option<String>,
    /// What is left of the seed's scenario when all is gone that the bug does not need, where that was asked for.
    pub least: Option<Least>,
}

/// A failure made small.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Least {
    /// Faults and operations that are left.
    pub events: usize,
    /// Servers that are left.
    pub servers: usize,
    /// Runs that this took.
    pub replays: usize,
}

/// What the runs draw that look for a bug.
fn shape_for(fault: Fault, length: Option<Length>) -> Shape {
    // Only Automerge derives the first change of a document from more than its name.
    let automerge = fault == Fault::GenesisUnshared;
    let document = if automerge { DocumentKind::Automerge } else { DocumentKind::Model };
    Shape { document, length, ..Shape::default() }
}

/// Looks for `fault` from seed `first` on, in at most `seeds_max` seeds, `jobs` at once. The seed that finds it is the
/// first that does, however many run at once.
#[must_use]
pub fn detect(fault: Fault, length: Option<Length>, first: u64, seeds_max: u64, jobs: usize) -> Detection {
    let shape = shape_for(fault, length);
    let found: Mutex<BTreeMap<u64, Violation>> = Mutex::default();
    jobs::each(first..first.saturating_add(seeds_max), jobs, |seed| {
        let report = run_seed(seed, &shape, fault.into(), None);
        let Some(violation) = report.violations.into_iter().next() else { return ControlFlow::Continue(()) };
        // What fails without the bug says nothing of it.
        if !run_seed(seed, &shape, Faults::default(), None).violations.is_empty() {
            return ControlFlow::Continue(());
        }
        jobs::lock(&found).insert(seed, violation);
        ControlFlow::Break(())
    });
    let (seed, violation) = jobs::gathered(found).pop_first().unzip();
    Detection {
        area: fault.area().name(),
        name: fault.name(),
        says: fault.says(),
        seeds: seed.map(|seed| seed - first + 1),
        seed,
        invariant: violation.as_ref().map(|violation| violation.invariant),
        detail: violation.map(|violation| violation.detail),
        least: None,
    }
}

/// Makes the failure of the seed that found `fault` small, in at most `replays_max` runs.
#[must_use]
pub fn least(fault: Fault, length: Option<Length>, seed: u64, replays_max: usize) -> Option<Least> {
    let scenario = Scenario::generate(seed, &shape_for(fault, length));
    let shrunk = shrink(scenario, fault.into(), replays_max, &|_, _| {})?;
    Some(Least { events: shrunk.events(), servers: shrunk.scenario.nodes.len(), replays: shrunk.replays })
}

/// What a matrix came to.
#[derive(Clone, Debug, Serialize)]
pub struct Totals {
    /// Bugs looked for.
    pub planted: usize,
    /// Of these, those that were found.
    pub found: usize,
    /// Seeds that half of those that were found took, at most.
    pub median: Option<u64>,
    /// Seeds that 95 in a hundred of them took, at most.
    pub p95: Option<u64>,
    /// Of those that were made small, how many have come down to [`EVENTS_FEW`] events or fewer.
    pub small: usize,
}

/// What a person can follow.
pub const EVENTS_FEW: usize = 10;

impl Totals {
    /// Of `detections`.
    #[must_use]
    pub fn of(detections: &[Detection]) -> Self {
        let mut seeds: Vec<u64> = detections.iter().filter_map(|detection| detection.seeds).collect();
        seeds.sort_unstable();
        let [median, p95] = [50, 95].map(|percent| percentile(&seeds, percent));
        let few = |detection: &&Detection| detection.least.is_some_and(|least| least.events <= EVENTS_FEW);
        let small = detections.iter().filter(few).count();
        Self { planted: detections.len(), found: seeds.len(), median, p95, small }
    }
}
