//! Many seeds, on all cores: each run is independent of every other.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use knot_engine::{Fault, Faults, marks};
use serde::Serialize;

use crate::checker::Account;
use crate::jobs;
use crate::level::{Level, NotRun, caught};
use crate::percentile::percentile;
use crate::report::{Counts, Report};
use crate::scenario::{DocumentKind, Length, Profile, Scenario, Shape};
use crate::trace::Sink;
use crate::watch::Watch;
use crate::world::play;

/// Failing seeds after which a campaign stops.
pub const FAILURES_MAX: usize = 10;

/// Runs one seed.
#[must_use]
pub fn run_seed(seed: u64, shape: &Shape, planted: Faults, sink: Option<Sink>) -> Report {
    run_scenario(Scenario::generate(seed, shape), planted, sink)
}

/// Runs a scenario. A panic of the engine ends the run as a broken promise does.
#[must_use]
pub fn run_scenario(scenario: Scenario, planted: Faults, log: Option<Sink>) -> Report {
    run_watched(scenario, planted, Watch { log, ..Watch::default() })
}

/// Runs a scenario and tells `watch` of it.
#[must_use]
pub fn run_watched(scenario: Scenario, planted: Faults, watch: Watch) -> Report {
    caught(scenario, |scenario| play(scenario, planted, watch, None))
}

/// The one line that runs a seed again.
#[must_use]
pub fn replay_line(seed: u64, shape: &Shape, planted: Faults) -> String {
    format!("knot-sim replay {seed}{}{}", options(shape), plant_option(planted))
}

/// The options that stand for a shape on a command line, each after a blank.
pub(crate) fn options(shape: &Shape) -> String {
    let mut line = String::new();
    let profile = match shape.profile {
        Profile::Mixed => None,
        Profile::Swarm => Some("swarm"),
        Profile::All => Some("all"),
        Profile::Calm => Some("calm"),
    };
    let length = shape.length.map(|length| match length {
        Length::Tiny => "tiny",
        Length::Short => "short",
        Length::Medium => "medium",
        Length::Long => "long",
    });
    let document = (shape.document != DocumentKind::Model).then(|| shape.document.name());
    let nodes = shape.nodes.map(|nodes| nodes.to_string());
    for (option, value) in
        [("--profile", profile), ("--length", length), ("--document", document), ("--nodes", nodes.as_deref())]
    {
        if let Some(value) = value {
            line.push_str(&format!(" {option} {value}"));
        }
    }
    if shape.canary {
        line.push_str(" --canary");
    }
    line
}

/// The option that stands for planted bugs on a command line, after a blank.
pub(crate) fn plant_option(planted: Faults) -> String {
    let bug = Fault::ALL.iter().find(|bug| planted.has(**bug));
    bug.map(|bug| format!(" --plant {bug}")).unwrap_or_default()
}

/// Many runs.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Their seeds.
    pub seeds: Range<u64>,
    /// No seed is begun after this long; none for as long as it takes.
    pub lasting: Option<Duration>,
    /// What a seed stands for.
    pub runs: Runs,
    /// How much of a server each run has.
    pub level: Level,
    /// The bugs that are planted.
    pub planted: Faults,
    /// How many runs at once.
    pub jobs: usize,
}

/// What a seed of a campaign stands for.
#[derive(Clone, Debug)]
pub enum Runs {
    /// A scenario that it draws.
    Drawn(Shape),
    /// This scenario, with its seed.
    Of(Box<Scenario>),
}

impl Campaign {
    /// A campaign over what `seeds` draw.
    #[must_use]
    pub fn new(seeds: Range<u64>, shape: Shape) -> Self {
        Self {
            seeds,
            lasting: None,
            runs: Runs::Drawn(shape),
            level: Level::Engines,
            planted: Faults::default(),
            jobs: 2,
        }
    }

    /// The scenario of a seed.
    #[must_use]
    pub fn scenario(&self, seed: u64) -> Scenario {
        match &self.runs {
            Runs::Drawn(shape) => self.level.generate(seed, shape),
            Runs::Of(scenario) => Scenario { seed, ..(**scenario).clone() },
        }
    }
}

/// Is told how a campaign goes, on any of its threads.
pub trait Listener: Sync {
    /// A run is over.
    fn on_progress(&self, _progress: &Progress) {}

    /// A run broke a promise.
    fn on_failure(&self, _report: &Report) {}
}

/// Nobody listens.
impl Listener for () {}

/// How far a campaign is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Runs that are over.
    pub runs: u64,
    /// How many there will be; none when time says.
    pub of: Option<u64>,
    /// For how long it has gone on.
    pub elapsed: Duration,
    /// How long it goes on, where time says.
    pub lasting: Option<Duration>,
    /// Virtual time of all runs.
    pub simulated: Duration,
    /// Faults that began.
    pub faults: u64,
    /// States that the engines have come by, of those in [`marks`].
    pub marks: usize,
    /// Runs that broke a promise.
    pub failures: usize,
}

/// What a campaign came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Seeds that ran.
    pub runs: u64,
    /// Runs that broke a promise, by seed.
    pub failures: Vec<Report>,
    /// Virtual time of all runs, in seconds.
    pub simulated_s: f64,
    /// Processor time of all runs, in seconds.
    pub cpu_s: f64,
    /// How long a cluster took to settle, in seconds: in the middle, and at most.
    pub settled_s: [f64; 2],
    /// Numbers of all runs together.
    pub counts: Counts,
    /// What became of the writes that were acknowledged in all of them.
    pub account: Account,
    /// In how many runs the engines came by each state.
    pub marks: BTreeMap<&'static str, u64>,
}

impl Summary {
    /// Virtual seconds in a second of processor time.
    #[must_use]
    pub fn speed(&self) -> f64 {
        self.simulated_s / self.cpu_s.max(f64::MIN_POSITIVE)
    }

    /// States that no run reached.
    #[must_use]
    pub fn marks_missed(&self) -> Vec<&'static str> {
        self.marks.iter().filter(|(_, runs)| **runs == 0).map(|(mark, _)| *mark).collect()
    }
}

#[derive(Default)]
struct Gathered {
    summary: Summary,
    settled: Vec<f64>,
}

/// Runs a campaign. Stops early once [`FAILURES_MAX`] seeds have failed.
///
/// # Errors
/// When a seed cannot be run: what failed before, `listener` has been told.
pub fn run(campaign: &Campaign, listener: &dyn Listener) -> Result<Summary, NotRun> {
    let begun = Instant::now();
    let gathered = Mutex::new(Gathered::default());
    let not_run = Mutex::new(None);
    let is_late = || campaign.lasting.is_some_and(|lasting| begun.elapsed() >= lasting);
    jobs::each(campaign.seeds.clone(), campaign.jobs, |seed| {
        if is_late() {
            return ControlFlow::Break(());
        }
        let clock = CpuClock::start();
        let report = match campaign.level.run(campaign.scenario(seed), campaign.planted) {
            Ok(report) => report,
            Err(why) => {
                jobs::lock(&not_run).get_or_insert(why);
                return ControlFlow::Break(());
            }
        };
        let cpu = clock.elapsed();
        if !report.violations.is_empty() {
            listener.on_failure(&report);
        }
        let progress = jobs::lock(&gathered).add(report, cpu).progress(campaign, begun.elapsed());
        listener.on_progress(&progress);
        if progress.failures >= FAILURES_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match jobs::gathered(not_run) {
        Some(why) => Err(why),
        None => Ok(jobs::gathered(gathered).finish()),
    }
}

impl Gathered {
    fn add(&mut self, report: Report, cpu: Duration) -> &Self {
        let summary = &mut self.summary;
        summary.runs += 1;
        summary.cpu_s += cpu.as_secs_f64();
        summary.simulated_s += Duration::from_micros(report.simulated_us).as_secs_f64();
        summary.counts.add(&report.counts);
        summary.account.add(&report.account);
        for mark in &report.marks {
            *summary.marks.entry(mark).or_default() += 1;
        }
        if let Some(settled) = report.settled_us {
            self.settled.push(Duration::from_micros(settled).as_secs_f64());
        }
        if !report.violations.is_empty() {
            summary.failures.push(report);
        }
        self
    }

    fn progress(&self, campaign: &Campaign, elapsed: Duration) -> Progress {
        let Range { start, end } = campaign.seeds;
        Progress {
            runs: self.summary.runs,
            of: campaign.lasting.is_none().then_some(end - start),
            elapsed,
            lasting: campaign.lasting,
            simulated: Duration::try_from_secs_f64(self.summary.simulated_s).unwrap_or_default(),
            faults: self.summary.counts.faults,
            marks: self.summary.marks.len(),
            failures: self.summary.failures.len(),
        }
    }

    fn finish(mut self) -> Summary {
        self.settled.sort_by(f64::total_cmp);
        self.summary.settled_s = [50, 100].map(|percent| percentile(&self.settled, percent).unwrap_or_default());
        for mark in marks::MARKS {
            self.summary.marks.entry(mark.name).or_default();
        }
        self.summary.failures.sort_by_key(|report| report.seed);
        self.summary
    }
}

/// Processor time of this thread where the system tells it, else time that passes.
struct CpuClock {
    cpu: Option<Duration>,
    wall: Instant,
}

impl CpuClock {
    fn start() -> Self {
        Self { cpu: thread_cpu(), wall: Instant::now() }
    }

    fn elapsed(&self) -> Duration {
        match (self.cpu, thread_cpu()) {
            (Some(before), Some(now)) => now.saturating_sub(before),
            _ => self.wall.elapsed(),
        }
    }
}

fn thread_cpu() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanos = text.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}
