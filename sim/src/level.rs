//! How much of a server a run has.

use std::panic::{AssertUnwindSafe, catch_unwind};

use knot_engine::{Faults, marks};

use crate::report::Report;
use crate::scenario::{FaultKind, Scenario, Shape};
use crate::watch::Watch;
use crate::world::play;

/// How much of a server a run has. A scenario is the same at both levels, but for what one of them cannot play.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Level {
    /// Engines alone: thousands of simulated seconds a second.
    #[default]
    #[value(name = "1")]
    Engines,
    /// Whole servers, with HTTP, sessions and storage: about a hundred simulated seconds a second with ten servers.
    #[value(name = "2")]
    Servers,
}

impl Level {
    /// As the command line spells it.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Engines => 1,
            Self::Servers => 2,
        }
    }

    /// Whether this build has it: level 2 comes with the feature `l2`.
    #[must_use]
    pub fn is_built(self) -> bool {
        self == Self::Engines || cfg!(feature = "l2")
    }

    /// What of a scenario cannot be played here, as files spell it.
    #[must_use]
    pub fn cannot_play(self, scenario: &Scenario) -> Vec<&'static str> {
        let is_played = |kind: &FaultKind| match self {
            // Its disks hold keys, and no bytes.
            Self::Engines => !matches!(kind, FaultKind::BitRot { .. } | FaultKind::MisdirectedWrite { .. }),
            // turmoil lets time pass for all hosts alike.
            Self::Servers => !matches!(kind, FaultKind::Pause { .. } | FaultKind::SlowCpu { .. }),
        };
        let faults = scenario.faults.iter().map(|fault| &fault.kind);
        let mut missing: Vec<&str> = faults.filter(|kind| !is_played(kind)).map(FaultKind::name).collect();
        if self == Self::Servers && scenario.nodes.iter().any(|node| node.clock_drift_ppm != 0) {
            missing.push("clock_drift_ppm");
        }
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// The scenario of `seed` in `shape`, with what can be played here.
    #[must_use]
    pub fn generate(self, seed: u64, shape: &Shape) -> Scenario {
        match self {
            Self::Engines => Scenario::generate(seed, shape),
            #[cfg(feature = "l2")]
            Self::Servers => crate::l2::generate(seed, shape),
            #[cfg(not(feature = "l2"))]
            Self::Servers => not_built(),
        }
    }

    /// Runs a scenario with these bugs planted in every engine. A panic ends the run as a broken promise does, and so does
    /// what cannot be played.
    #[must_use]
    pub fn run(self, scenario: Scenario, planted: Faults) -> Report {
        match self {
            Self::Engines => caught(scenario, |scenario| play(scenario, planted, Watch::default(), None)),
            #[cfg(feature = "l2")]
            Self::Servers => {
                let planted = crate::l2::Planted { faults: planted, defect: None };
                caught(scenario, |scenario| crate::l2::run(scenario, planted))
            }
            #[cfg(not(feature = "l2"))]
            Self::Servers => not_built(),
        }
    }
}

#[cfg(not(feature = "l2"))]
fn not_built() -> ! {
    panic!("this build has no level 2: it comes with the feature `l2`");
}

/// Runs a scenario; a panic ends the run as a broken promise does.
pub(crate) fn caught(scenario: Scenario, run: impl FnOnce(Scenario) -> Report) -> Report {
    let (seed, nodes) = (scenario.seed, scenario.nodes.len());
    // What an earlier run on this thread left behind is not this one's.
    let _ = marks::take();
    let report = catch_unwind(AssertUnwindSafe(|| run(scenario)));
    let report = report.unwrap_or_else(|panic| Report::panicked(seed, nodes, panic.as_ref()));
    Report { marks: marks::take().names().collect(), ..report }
}
