//! The smallest scenario that still breaks the same promise.
//!
//! What is left out of a scenario moves no other draw, so most of one can go: delta debugging (Zeller and Hildebrandt,
//! 2002) over faults, then operations, then servers, then numbers, again until nothing more can go.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use knot_engine::Faults;

use crate::campaign::run_scenario;
use crate::checker::{Invariant, Violation};
use crate::report::Report;
use crate::scenario::{Action, Bounds, DiskSpec, NetworkSpec, NodeSpec, Scenario, Target};

/// Runs that a failure may take to become small, where nobody says otherwise.
pub const REPLAYS_MAX: usize = 200;

/// As few operations as need no broad cuts.
const FOCUSED: usize = 16;
/// Documents that are tried alone.
const TARGETS_TRIED: usize = 4;
/// How long before it shows what is wrong may have begun.
const RECENT: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(3), Duration::from_secs(20)];

/// Bounds that are reached sooner when they are less, and never so small that nothing passes.
const TIGHTENED: [fn(&mut Bounds) -> &mut usize; 8] = [
    |bounds| &mut bounds.window_bytes,
    |bounds| &mut bounds.document_cache_bytes,
    |bounds| &mut bounds.log_cache_bytes,
    |bounds| &mut bounds.orphans,
    |bounds| &mut bounds.orphan_bytes,
    |bounds| &mut bounds.persist_bytes,
    |bounds| &mut bounds.waiters,
    |bounds| &mut bounds.incoming_bytes,
];

/// What is left of a scenario.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The scenario.
    pub scenario: Scenario,
    /// How it breaks.
    pub violation: Violation,
    /// The folder with what its servers left behind, where there were processes.
    pub left_behind: Option<PathBuf>,
    /// Runs that this took.
    pub replays: usize,
}

impl Shrunk {
    /// What happens in it: faults and operations.
    #[must_use]
    pub fn events(&self) -> usize {
        self.scenario.faults.len() + self.scenario.operations.len()
    }
}

/// Makes `scenario`, run with `planted` bugs, as small as `replays_max` runs allow; none when it breaks nothing.
/// `progress` hears of each run: how many there were, and how many events are left.
#[must_use]
pub fn shrink(
    scenario: Scenario,
    planted: Faults,
    replays_max: usize,
    progress: &dyn Fn(usize, usize),
) -> Option<Shrunk> {
    let run = |scenario| Ok::<_, Infallible>(run_scenario(scenario, planted, None));
    let Ok(shrunk) = shrink_with(scenario, &run, replays_max, progress);
    shrunk
}

/// Makes `scenario` as small as `replays_max` runs allow, each of which is a call of `run`. Of what processes leave behind
/// only that of the last run stays which fails in the same way.
///
/// # Errors
/// When a run cannot be made.
pub(crate) fn shrink_with<E>(
    scenario: Scenario,
    run: &dyn Fn(Scenario) -> Result<Report, E>,
    replays_max: usize,
    progress: &dyn Fn(usize, usize),
) -> Result<Option<Shrunk>, E> {
    let scenario = scenario.expanded();
    let Report { violations, left_behind, .. } = run(scenario.clone())?;
    let Some(violation) = violations.into_iter().next() else { return Ok(None) };
    let best = Shrunk { scenario, violation, left_behind, replays: 1 };
    let invariant = best.violation.invariant;
    let mut shrinker = Shrinker { invariant, best, run, not_run: None, replays_max, progress };
    loop {
        let before = shrinker.best.scenario.clone();
        shrinker.drop_what_comes_after();
        shrinker.focus();
        shrinker.drop_servers();
        shrinker.tighten();
        shrinker.drop_entries(|scenario| &mut scenario.faults);
        shrinker.drop_entries(|scenario| &mut scenario.operations);
        shrinker.simplify();
        if shrinker.best.scenario == before || shrinker.is_spent() {
            return shrinker.not_run.map_or(Ok(Some(shrinker.best)), Err);
        }
    }
}

struct Shrinker<'a, E> {
    invariant: Invariant,
    best: Shrunk,
    run: &'a dyn Fn(Scenario) -> Result<Report, E>,
    /// Why a run could not be made, after which there are no more.
    not_run: Option<E>,
    replays_max: usize,
    progress: &'a dyn Fn(usize, usize),
}

impl<E> Shrinker<'_, E> {
    fn is_spent(&self) -> bool {
        self.best.replays >= self.replays_max || self.not_run.is_some()
    }

    /// Keeps what `change` makes of the best scenario, if that is another one and breaks the same promise.
    fn attempt(&mut self, change: impl FnOnce(&mut Scenario)) -> bool {
        let mut scenario = self.best.scenario.clone();
        change(&mut scenario);
        if self.is_spent() || scenario == self.best.scenario || scenario.check().is_err() {
            return false;
        }
        self.best.replays += 1;
        let Report { violations, mut left_behind, .. } = match (self.run)(scenario.clone()) {
            Ok(report) => report,
            Err(why) => {
                self.not_run = Some(why);
                return false;
            }
        };
        let found = violations.into_iter().next().filter(|violation| violation.invariant == self.invariant);
        let fails = found.is_some();
        if let Some(violation) = found {
            self.best.violation = violation;
            self.best.scenario = scenario;
            std::mem::swap(&mut self.best.left_behind, &mut left_behind);
        }
        if let Some(folder) = left_behind {
            // What cannot be removed is in nobody's way.
            let _ = std::fs::remove_dir_all(folder);
        }
        (self.progress)(self.best.replays, self.best.events());
        fails
    }

    /// What comes after the violation has no part in it.
    fn drop_what_comes_after(&mut self) {
        let at_us = self.best.violation.at_us;
        self.attempt(|scenario| {
            scenario.operations.retain(|operation| operation.at_us <= at_us);
            scenario.faults.retain(|fault| fault.at_ms * 1_000 <= at_us);
        });
        // As if all had been quiet from the last event on.
        self.attempt(|scenario| {
            let operations = scenario.operations.iter().map(|operation| operation.at_us / 1_000 + 1);
            let faults = scenario.faults.iter().map(|fault| fault.ends_at_ms().unwrap_or(fault.at_ms) + 1);
            scenario.quiet_at_ms = operations.chain(faults).max().unwrap_or_default();
        });
    }

    /// Leaves out most operations at once, where what is wrong is wrong with one document, or has only just begun.
    fn focus(&mut self) {
        if self.best.scenario.operations.len() <= FOCUSED {
            return;
        }
        self.attempt(|scenario| scenario.operations.retain(|operation| operation.action != Action::Read));
        let mut counts: BTreeMap<Target, usize> = BTreeMap::new();
        for operation in &self.best.scenario.operations {
            *counts.entry(operation.target.clone()).or_default() += 1;
        }
        let mut targets: Vec<(Target, usize)> = counts.into_iter().collect();
        let detail = self.best.violation.detail.clone();
        let is_named = |target: &Target| detail.contains(&target.id().to_string());
        targets.sort_by_key(|(target, count)| Reverse((is_named(target), *count)));
        for (target, _) in targets.into_iter().take(TARGETS_TRIED) {
            if self.attempt(|scenario| scenario.operations.retain(|operation| operation.target == target)) {
                break;
            }
        }
        let end = self.best.violation.at_us;
        for window in RECENT {
            let begins = end.saturating_sub(u64::try_from(window.as_micros()).unwrap_or(u64::MAX));
            if self.attempt(|scenario| scenario.operations.retain(|operation| operation.at_us >= begins)) {
                break;
            }
        }
    }

    /// Makes bounds that are small already smaller: what goes wrong at a bound then does so after fewer events.
    fn tighten(&mut self) {
        for bound in TIGHTENED {
            let is_small = *bound(&mut self.best.scenario.bounds) < *bound(&mut Bounds::default());
            if is_small
                && self.attempt(|scenario| *bound(&mut scenario.bounds) = (*bound(&mut scenario.bounds) / 4).max(1))
            {
                self.drop_what_comes_after();
            }
        }
    }

    /// Leaves out entries of a list: halves of it, then smaller and smaller pieces.
    fn drop_entries<T>(&mut self, list: impl Fn(&mut Scenario) -> &mut Vec<T>) {
        let mut piece = list(&mut self.best.scenario).len();
        while piece > 0 && !self.is_spent() {
            let mut start = 0;
            while start < list(&mut self.best.scenario).len() {
                let end = (start + piece).min(list(&mut self.best.scenario).len());
                let fails = self.attempt(|scenario| drop(list(scenario).drain(start..end)));
                start = if fails { start } else { end };
            }
            piece = if piece == 1 { 0 } else { piece.div_ceil(2) };
        }
    }

    /// Leaves out servers, with all that names them.
    fn drop_servers(&mut self) {
        for node in (0..self.best.scenario.nodes.len()).rev() {
            if self.best.scenario.nodes.len() > 2 {
                self.attempt(|scenario| without_server(scenario, node));
            }
        }
    }

    /// Makes everything that is left as usual as it can be.
    fn simplify(&mut self) {
        self.attempt(|scenario| {
            scenario.network.loss_per_mille = 0;
            scenario.network.duplicate_per_mille = 0;
            scenario.network.reorder_per_mille = 0;
        });
        self.attempt(|scenario| scenario.network = NetworkSpec::default());
        self.attempt(|scenario| scenario.sealed = false);
        self.attempt(|scenario| scenario.core.clear());
        self.attempt(|scenario| scenario.bounds = Bounds::default());
        self.attempt(|scenario| scenario.disk = DiskSpec::default());
        self.attempt(|scenario| {
            let start = |node: &mut NodeSpec| *node = NodeSpec::new(&node.name, &node.zone);
            scenario.nodes.iter_mut().for_each(start);
        });
        self.attempt(|scenario| scenario.operations.iter_mut().for_each(|operation| operation.replicas = 0));
        for index in 0..self.best.scenario.faults.len() {
            let halve = |scenario: &mut Scenario| {
                let fault = &mut scenario.faults[index];
                fault.for_ms = fault.for_ms.map(|lasting| lasting / 2);
            };
            while self.best.scenario.faults[index].for_ms.is_some_and(|lasting| lasting > 1) && self.attempt(halve) {}
        }
    }
}

fn without_server(scenario: &mut Scenario, gone: usize) {
    let zones: Vec<String> = scenario.zones().into_iter().map(str::to_owned).collect();
    scenario.nodes.remove(gone);
    scenario.operations.retain(|operation| operation.node != gone);
    let renumber = |node: &mut usize| *node -= usize::from(*node > gone);
    scenario.operations.iter_mut().for_each(|operation| renumber(&mut operation.node));
    scenario.faults.retain_mut(|fault| fault.kind.without(gone));
    scenario.core.retain(|node| *node != gone);
    scenario.core.iter_mut().for_each(renumber);
    for zone in zones {
        if !scenario.nodes.iter().any(|node| node.zone == zone) {
            scenario.network.links.retain(|link| !link.between.contains(&zone));
            scenario.operations.retain(|operation| operation.target.zone.as_ref() != Some(&zone));
        }
    }
}
