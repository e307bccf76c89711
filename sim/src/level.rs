//! How much of a server a run has.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use knot_engine::{Faults, marks};

use crate::draw::Draw;
#[cfg(all(feature = "l3", target_os = "linux"))]
use crate::l3::Unready;
use crate::report::Report;
use crate::scenario::{Bounds, FaultKind, NodeSpec, Scenario, Shape};
use crate::watch::Watch;
use crate::world::play;

/// How much of a server a run has. A scenario is the same at all levels, but for what one of them cannot play.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Level {
    /// Engines alone: thousands of simulated seconds a second.
    #[default]
    #[value(name = "1")]
    Engines,
    /// Whole servers, with HTTP, sessions and storage: about a hundred simulated seconds a second with ten servers.
    #[value(name = "2")]
    Servers,
    /// Processes of the real binary on the kernel's network, in its time.
    #[value(name = "3")]
    Processes,
}

impl Level {
    /// As the command line spells it.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Engines => 1,
            Self::Servers => 2,
            Self::Processes => 3,
        }
    }

    /// Whether this build has it: level 2 comes with the feature `l2`, level 3 with `l3`, on Linux.
    #[must_use]
    pub fn is_built(self) -> bool {
        match self {
            Self::Engines => true,
            Self::Servers => cfg!(feature = "l2"),
            Self::Processes => cfg!(all(feature = "l3", target_os = "linux")),
        }
    }

    /// What of a scenario cannot be played here, as files spell it.
    #[must_use]
    pub fn cannot_play(self, scenario: &Scenario) -> Vec<&'static str> {
        let is_played = |kind: &FaultKind| match self {
            // Its disks hold keys, and no bytes.
            Self::Engines => !matches!(kind, FaultKind::BitRot { .. } | FaultKind::MisdirectedWrite { .. }),
            // turmoil lets time pass for all hosts alike, and two processes of one server run its spaces twice.
            Self::Servers => {
                let is_twice = matches!(kind, FaultKind::Clone { .. });
                !(matches!(kind, FaultKind::Pause { .. } | FaultKind::SlowCpu { .. }) || is_twice && scenario.tenants)
            }
            Self::Processes => processes_play(kind),
        };
        let faults = scenario.faults.iter().map(|fault| &fault.kind);
        let mut missing: Vec<&str> = faults.filter(|kind| !is_played(kind)).map(FaultKind::name).collect();
        let (not_simulated, not_engines) = (self == Self::Processes, self != Self::Engines);
        let any = |is_so: fn(&NodeSpec) -> bool| scenario.nodes.iter().any(is_so);
        let knobs = [
            ("bounds", not_simulated && scenario.bounds != Bounds::default()),
            ("hasty", not_simulated && scenario.hasty),
            ("core", not_simulated && !scenario.core.is_empty()),
            ("clock_offset_s", not_simulated && any(|node| node.clock_offset_s != 0)),
            ("clock_drift_ppm", not_engines && any(|node| node.clock_drift_ppm != 0)),
            ("administrators", self != Self::Servers && scenario.administrators),
            ("tenants", self != Self::Servers && scenario.tenants),
            ("later_version", not_engines && any(|node| node.later_version)),
            ("hostile", not_engines && any(|node| node.hostile)),
        ];
        missing.extend(knobs.into_iter().filter(|(_, used)| *used).map(|(name, _)| name));
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
            Self::Servers => self.cut_to_size(Scenario::generate(seed, shape)),
            Self::Processes => self.cut_to_size(Scenario::generate(seed, shape)),
        }
    }

    /// Takes out of a scenario what cannot be played here.
    pub(crate) fn cut_to_size(self, mut scenario: Scenario) -> Scenario {
        if self == Self::Processes {
            (scenario.bounds, scenario.hasty) = (Bounds::default(), false);
            scenario.core.clear();
            for fault in &mut scenario.faults {
                if let FaultKind::Crash { moves, .. } | FaultKind::Stop { moves, .. } = &mut fault.kind {
                    *moves = false;
                }
            }
            scenario.nodes.iter_mut().for_each(|node| node.clock_offset_s = 0);
        }
        scenario.administrators = self == Self::Servers && Draw::new(scenario.seed, "administrators come").chance(500);
        scenario.tenants = self == Self::Servers && Draw::new(scenario.seed, "tenants come").chance(300);
        let missing = self.cannot_play(&scenario);
        scenario.faults.retain(|fault| !missing.contains(&fault.kind.name()));
        for node in &mut scenario.nodes {
            (node.clock_drift_ppm, node.later_version, node.hostile) = (0, false, false);
        }
        scenario
    }

    /// Runs a scenario with these bugs planted in every engine. A panic ends the run as a broken promise does.
    ///
    /// # Errors
    /// When the scenario cannot be played, or not to its end.
    pub fn run(self, scenario: Scenario, planted: Faults) -> Result<Report, NotRun> {
        let missing = self.cannot_play(&scenario);
        if !missing.is_empty() {
            return Err(NotRun::NotPlayed { level: self.number(), missing });
        }
        match self {
            Self::Engines => Ok(caught(scenario, |scenario| play(scenario, planted, Watch::default(), None))),
            #[cfg(feature = "l2")]
            Self::Servers => {
                let planted = crate::l2::Planted { faults: planted, defect: None };
                Ok(caught(scenario, |scenario| crate::l2::run(scenario, planted)))
            }
            // No bug can be planted in a binary.
            #[cfg(all(feature = "l3", target_os = "linux"))]
            Self::Processes => Ok(crate::l3::run(scenario, &crate::l3::ready()?)?),
            #[cfg(not(feature = "l2"))]
            Self::Servers => Err(NotRun::NotBuilt(self.number())),
            #[cfg(not(all(feature = "l3", target_os = "linux")))]
            Self::Processes => Err(NotRun::NotBuilt(self.number())),
        }
    }
}

/// Why there is no report of a run: what its servers would have come to, nobody knows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotRun {
    /// This build does not have a level.
    #[error("this knot-sim was built without level {0}")]
    NotBuilt(u8),
    /// The scenario has what its level cannot play.
    #[error("it has what level {level} does not play: {}", missing.join(", "))]
    NotPlayed {
        /// The level.
        level: u8,
        /// What that is, as files spell it.
        missing: Vec<&'static str>,
    },
    /// This machine cannot run servers in namespaces, or could not go on.
    #[cfg(all(feature = "l3", target_os = "linux"))]
    #[error("level 3 cannot be played: {0}")]
    Unready(#[from] Unready),
}

impl NotRun {
    /// Whether that is this machine's fault, not the asker's.
    #[must_use]
    pub fn is_unready(&self) -> bool {
        match self {
            Self::NotBuilt(_) | Self::NotPlayed { .. } => false,
            #[cfg(all(feature = "l3", target_os = "linux"))]
            Self::Unready(_) => true,
        }
    }

    /// What may help.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NotBuilt(3) if !cfg!(target_os = "linux") => "it needs the namespaces of Linux".to_owned(),
            Self::NotBuilt(level) => format!("build it with its usual features, or with --features l{level}"),
            Self::NotPlayed { level: 1, .. } => "these need the bytes of a disk: add --level 2".to_owned(),
            Self::NotPlayed { level: 3, .. } => "disk, clock and processor of a process are the machine's: play it at \
                                                 level 1 or 2, or take these out of the file"
                .to_owned(),
            Self::NotPlayed { .. } => {
                "only engines alone can do that: play it at level 1, or take these out of the file".to_owned()
            }
            #[cfg(all(feature = "l3", target_os = "linux"))]
            Self::Unready(unready) => unready.hint().to_owned(),
        }
    }
}

/// Whether it can go wrong with a process of the real binary. Its kernel, clock, disk and processor are the machine's.
fn processes_play(kind: &FaultKind) -> bool {
    match kind {
        FaultKind::Partition { .. }
        | FaultKind::DatagramsBlocked { .. }
        | FaultKind::Gray { .. }
        | FaultKind::Loss { .. }
        | FaultKind::Duplicate { .. }
        | FaultKind::Reorder { .. }
        | FaultKind::Corrupt { .. }
        | FaultKind::Lag { .. }
        | FaultKind::Throttle { .. }
        | FaultKind::Mtu { .. }
        | FaultKind::Reset { .. }
        | FaultKind::HalfOpen { .. }
        | FaultKind::StreamsStall { .. }
        | FaultKind::Restore { .. }
        | FaultKind::DiskLost { .. }
        | FaultKind::Evict { .. }
        | FaultKind::Pause { .. } => true,
        FaultKind::Crash { moves, .. } | FaultKind::Stop { moves, .. } => !moves,
        FaultKind::SlowReader { .. }
        | FaultKind::CrashAtStorage { .. }
        | FaultKind::Clone { .. }
        | FaultKind::SlowCpu { .. }
        | FaultKind::Clock { .. }
        | FaultKind::FsyncFails { .. }
        | FaultKind::ReadFails { .. }
        | FaultKind::DiskFull { .. }
        | FaultKind::SlowDisk { .. }
        | FaultKind::BitRot { .. }
        | FaultKind::MisdirectedWrite { .. } => false,
    }
}

/// Automerge panics over some of what hostile members send. The engine catches that and says so in its own way; the usual
/// pages of a panic would be about nothing. One that the engine does not catch is a broken promise, with its message.
fn hush_automerge() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |info| {
            if !info.location().is_some_and(|location| location.file().contains("/automerge-")) {
                usual(info);
            }
        }));
    });
}

/// Runs a scenario; a panic ends the run as a broken promise does.
pub(crate) fn caught(scenario: Scenario, run: impl FnOnce(Scenario) -> Report) -> Report {
    let (seed, nodes) = (scenario.seed, scenario.nodes.len());
    hush_automerge();
    // What an earlier run on this thread left behind is not this one's.
    let _ = marks::take();
    let report = catch_unwind(AssertUnwindSafe(|| run(scenario)));
    let report = report.unwrap_or_else(|panic| Report::panicked(seed, nodes, panic.as_ref()));
    Report { marks: marks::take().names().collect(), ..report }
}
