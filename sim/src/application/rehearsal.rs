//! Many seeds of an application, as a test runs them.

use std::convert::Infallible;
use std::ops::{Range, RangeInclusive};
use std::rc::Rc;

use knot_engine::Faults;

use super::{Bound, Workload};
use crate::report::Report;
use crate::scenario::{DocumentKind, Length, Profile, Scenario, Shape};
use crate::shrink::{REPLAYS_MAX, Shrunk, shrink_with};
use crate::watch::Watch;
use crate::world::play;

/// The environment variable that narrows a rehearsal to one seed, and prints what happens in it.
pub const SEED_VARIABLE: &str = "KNOT_SIM_SEED";

/// Clusters that an application is about to be run on.
#[derive(Debug)]
#[must_use = "a rehearsal does nothing until it is run"]
pub struct Rehearsal<W> {
    workload: Rc<W>,
    seeds: Range<u64>,
    servers: Option<RangeInclusive<usize>>,
    shape: Shape,
    planted: Faults,
}

/// A hundred clusters of Automerge documents, with the faults of the simulator's own campaigns.
pub fn rehearse<W: Workload + 'static>(workload: W) -> Rehearsal<W> {
    Rehearsal {
        workload: Rc::new(workload),
        seeds: 0..100,
        servers: None,
        shape: Shape { document: DocumentKind::Automerge, length: Some(Length::Short), ..Shape::default() },
        planted: Faults::default(),
    }
}

impl<W: Workload + 'static> Rehearsal<W> {
    /// Which seeds; 0 to 99 otherwise.
    pub fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// How many servers, 2 to 64; each seed chooses 3 to 20 otherwise.
    pub fn servers(mut self, servers: RangeInclusive<usize>) -> Self {
        self.servers = Some(servers);
        self
    }

    /// Which faults; [`Profile::Mixed`] otherwise.
    pub fn faults(mut self, profile: Profile) -> Self {
        self.shape.profile = profile;
        self
    }

    /// How long faults go on; [`Length::Short`] otherwise.
    pub fn length(mut self, length: Length) -> Self {
        self.shape.length = Some(length);
        self
    }

    /// Plants bugs in the engines, to see that the application's checks find them.
    pub fn planted(mut self, planted: Faults) -> Self {
        self.planted = planted;
        self
    }

    /// Runs all seeds, or the one that [`SEED_VARIABLE`] names.
    ///
    /// # Panics
    /// At the first seed in which a promise breaks, yours or the engine's: with the promise, the least that breaks it,
    /// and how to run it again.
    pub fn run(self) {
        let one = std::env::var(SEED_VARIABLE).ok().map(|text| {
            let seed = text.parse();
            seed.unwrap_or_else(|_| panic!("{SEED_VARIABLE} is {text:?}, and should be the number of a seed"))
        });
        let seeds = one.map_or(self.seeds.clone(), |seed| seed..seed + 1);
        for seed in seeds {
            if let Some(failure) = self.failure(seed, one.is_some()) {
                panic!("{failure}");
            }
        }
    }

    /// How a seed fails, for people; none when it does not.
    #[must_use]
    pub fn failure(&self, seed: u64, log: bool) -> Option<String> {
        let mut scenario = self.scenario(seed);
        let bound = Bound::new(Rc::clone(&self.workload), &mut scenario);
        let watch = if log {
            Watch { log: Some(Box::new(|line| eprintln!("{line}"))), ..Watch::default() }
        } else {
            Watch::default()
        };
        let violation = self.run_scenario(scenario.clone(), &bound, watch).violations.into_iter().next()?;
        let run = |scenario: Scenario| Ok::<_, Infallible>(self.run_scenario(scenario, &bound, Watch::default()));
        let Ok(shrunk) = shrink_with(scenario, &run, REPLAYS_MAX, &|_, _| {});
        let least = shrunk.map(|shrunk| least(&shrunk, &bound)).unwrap_or_default();
        Some(format!(
            "seed {seed} breaks a promise: {violation}\n{least}\nRun it again, with all that happens:\n    \
             {SEED_VARIABLE}={seed} cargo test <this test> -- --nocapture"
        ))
    }

    fn scenario(&self, seed: u64) -> Scenario {
        let nodes = self.servers.as_ref().map(|servers| {
            let mut draw = crate::draw::Draw::new(seed, "servers");
            draw.between(*servers.start() as u64, *servers.end() as u64 + 1)
        });
        let nodes = nodes.and_then(|nodes| usize::try_from(nodes).ok());
        Scenario::generate(seed, &Shape { nodes, ..self.shape })
    }

    fn run_scenario(&self, scenario: Scenario, bound: &Bound<W>, watch: Watch) -> Report {
        play(scenario, self.planted, watch, Some(Box::new(bound.clone())))
    }
}

/// What is left of a failure, for people.
fn least<W: Workload>(shrunk: &Shrunk, bound: &Bound<W>) -> String {
    let scenario = &shrunk.scenario;
    let mut lines = vec![format!("The least that does, of {} servers:", scenario.nodes.len())];
    let mut events: Vec<(u64, String)> = scenario
        .faults
        .iter()
        .map(|fault| (fault.at_ms * 1_000, format!("{:?} for {} ms", fault.kind, fault.for_ms.unwrap_or_default())))
        .collect();
    events.extend(scenario.operations.iter().map(|operation| {
        let server = &scenario.nodes[operation.node].name;
        (operation.at_us, format!("{server} is asked for {}", bound.describe(operation.id)))
    }));
    events.sort();
    for (at_us, event) in events {
        lines.push(format!("    {:>10.3} s  {event}", std::time::Duration::from_micros(at_us).as_secs_f64()));
    }
    lines.push(format!("    {}", shrunk.violation));
    lines.join("\n")
}
