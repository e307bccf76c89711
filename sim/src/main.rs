//! `knot-sim`: runs simulated clusters, seed by seed.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use knot_engine::Faults;
use knot_sim::campaign::{self, Summary, replay_line, run_scenario, run_seed, shrink_line};
use knot_sim::planted::{Detection, PLANTED, detect};
use knot_sim::report::Report;
use knot_sim::scenario::{DocumentKind, Length, Profile, Scenario, Shape};
use knot_sim::shrink::shrink;

/// Simulates knot clusters under faults and checks what they promise.
#[derive(Debug, Parser)]
#[command(name = "knot-sim", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  knot-sim run --seeds 0..1000               a thousand clusters, faults as each seed draws them
  knot-sim run --seed 17 --log               one of them again, event by event
  knot-sim run --seeds 0..50 --document automerge --nodes 10
  knot-sim planted                           how many seeds each planted bug takes
  knot-sim trace --seed 17                   the hash of all that happens in a run
  knot-sim scenario --seed 17 > a.toml       what a seed stands for, as a file
  knot-sim run --scenario a.toml --log       what such a file stands for
  knot-sim shrink --seed 17 > a.toml         the least of it that fails the same way

Exit codes: 0 all promises held, 1 one did not, 2 the command line is wrong.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run seeds and check every promise.
    #[command(after_help = EXAMPLES)]
    Run(Run),
    /// Plant each known bug and count the seeds until it is found.
    Planted(PlantedArgs),
    /// Print the hash of all that happens in a run.
    Trace(One),
    /// Print a seed's scenario as TOML.
    Scenario(One),
    /// Find the smallest scenario that fails as a seed or a file does, and print it as TOML.
    Shrink(ShrinkArgs),
}

#[derive(Clone, Copy, Debug, Args)]
struct ShapeArgs {
    /// How many servers; the seed chooses 3 to 20 otherwise.
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..=64))]
    nodes: Option<u64>,
    /// What is replicated.
    #[arg(long, value_enum, default_value_t = DocumentKind::Model)]
    document: DocumentKind,
    /// Which kinds of faults.
    #[arg(long, value_enum, default_value_t = Profile::Mixed)]
    profile: Profile,
    /// How long faults go on; the seed chooses otherwise.
    #[arg(long, value_enum)]
    length: Option<Length>,
}

impl ShapeArgs {
    fn shape(self) -> Shape {
        Shape {
            profile: self.profile,
            length: self.length,
            nodes: self.nodes.and_then(|nodes| usize::try_from(nodes).ok()),
            document: self.document,
        }
    }
}

#[derive(Debug, Args)]
struct Run {
    /// Seeds from A up to but not including B.
    #[arg(long, value_name = "A..B", conflicts_with = "seed", default_value = "0..100")]
    seeds: Seeds,
    /// One seed.
    #[arg(long)]
    seed: Option<u64>,
    /// A scenario from a file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seeds"])]
    scenario: Option<PathBuf>,
    #[command(flatten)]
    shape: ShapeArgs,
    /// How many runs at once; as many as there are processors otherwise.
    #[arg(long)]
    jobs: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print every event; for one seed or file.
    #[arg(long)]
    log: bool,
    /// Plant a bug, by its flag's name.
    #[arg(long, value_parser = planted_by_name)]
    plant: Option<Faults>,
}

#[derive(Debug, Args)]
struct PlantedArgs {
    /// Give up on a bug after this many seeds.
    #[arg(long, default_value_t = 500)]
    seeds_max: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Only this bug.
    #[arg(long)]
    only: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct One {
    /// Which seed.
    #[arg(long)]
    seed: u64,
    #[command(flatten)]
    shape: ShapeArgs,
}

#[derive(Debug, Args)]
struct ShrinkArgs {
    /// Which seed.
    #[arg(long, required_unless_present = "scenario")]
    seed: Option<u64>,
    /// A scenario from a file.
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    scenario: Option<PathBuf>,
    #[command(flatten)]
    shape: ShapeArgs,
    /// Plant a bug, by its flag's name.
    #[arg(long, value_parser = planted_by_name)]
    plant: Option<Faults>,
    /// Stop after this many runs.
    #[arg(long, default_value_t = 200)]
    replays: usize,
}

#[derive(Clone, Debug)]
struct Seeds(Range<u64>);

#[derive(Debug)]
struct NotARange;

impl fmt::Display for NotARange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("seeds are A..B, with A less than B")
    }
}

impl std::error::Error for NotARange {}

impl FromStr for Seeds {
    type Err = NotARange;

    fn from_str(text: &str) -> Result<Self, NotARange> {
        let (first, end) = text.split_once("..").ok_or(NotARange)?;
        let first = first.parse().map_err(|_| NotARange)?;
        let end = end.parse().map_err(|_| NotARange)?;
        if first < end { Ok(Self(first..end)) } else { Err(NotARange) }
    }
}

fn planted_by_name(name: &str) -> Result<Faults, String> {
    let found = PLANTED.iter().find(|planted| planted.name == name);
    found.map(|planted| planted.faults()).ok_or_else(|| {
        let names: Vec<&str> = PLANTED.iter().map(|planted| planted.name).collect();
        format!("no such bug; there are {}", names.join(", "))
    })
}

fn main() -> ExitCode {
    match perform(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
    }
}

/// Whether all is well; an error is a wrong command line.
fn perform(command: Command) -> Result<bool, String> {
    Ok(match command {
        Command::Run(run) => run_seeds(&run)?,
        Command::Planted(args) => run_planted(&args),
        Command::Shrink(args) => run_shrink(&args)?,
        Command::Trace(one) => {
            let report = run_seed(one.seed, &one.shape.shape(), Faults::default(), None);
            println!("{}", report.trace);
            report.violations.is_empty()
        }
        Command::Scenario(one) => {
            print_scenario(&Scenario::generate(one.seed, &one.shape.shape()))?;
            true
        }
    })
}

fn read_scenario(path: &Path) -> Result<Scenario, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Scenario::from_toml(&text).map_err(|error| format!("{} is no scenario: {error}", path.display()))
}

fn print_scenario(scenario: &Scenario) -> Result<(), String> {
    let text = scenario.to_toml().map_err(|error| format!("cannot write the scenario as TOML: {error}"))?;
    print!("{text}");
    Ok(())
}

fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("cannot print JSON: {error}"),
    }
}

fn run_seeds(run: &Run) -> Result<bool, String> {
    let shape = run.shape.shape();
    let planted = run.plant.unwrap_or_default();
    if let Some(path) = &run.scenario {
        return Ok(run_one(run, read_scenario(path)?, planted));
    }
    if let Some(seed) = run.seed {
        return Ok(run_one(run, Scenario::generate(seed, &shape), planted));
    }
    if run.log {
        return Err("--log is for one run: add --seed N or --scenario FILE".to_owned());
    }
    let jobs = run.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let seeds = run.seeds.0.clone();
    let total = seeds.end - seeds.start;
    let progress = |runs: u64, failures: usize| {
        if runs.is_multiple_of((total / 20).max(1)) {
            eprintln!("{runs} of {total} seeds, {failures} failed");
        }
    };
    let summary = campaign::run(seeds, &shape, planted, jobs, &progress);
    if run.json {
        print_json(&summary);
    } else {
        print_summary(&summary, &shape);
    }
    Ok(summary.failures.is_empty())
}

fn run_one(run: &Run, scenario: Scenario, planted: Faults) -> bool {
    let sink = run.log.then(|| -> knot_sim::Sink { Box::new(|line| println!("{line}")) });
    let report = run_scenario(scenario, planted, sink);
    if run.json {
        print_json(&report);
    } else {
        print_report(&report);
    }
    report.violations.is_empty()
}

fn print_report(report: &Report) {
    let verdict = if report.violations.is_empty() { "ok" } else { "FAILED" };
    println!("seed {}: {verdict}, {} servers, trace {}", report.seed, report.nodes, report.trace);
    for violation in &report.violations {
        println!("  {violation}");
    }
    let counts = &report.counts;
    println!(
        "  {} events, {} datagrams, {} frames, {} changes, {} edits acknowledged, {} refused, {} unknown, {} crashes, {} repairs",
        counts.events,
        counts.datagrams,
        counts.frames,
        counts.changes,
        counts.acknowledged,
        counts.refused,
        counts.unknown,
        counts.crashes,
        counts.repairs
    );
}

fn print_summary(summary: &Summary, shape: &Shape) {
    for report in &summary.failures {
        println!("seed {} FAILED", report.seed);
        for violation in &report.violations {
            println!("  {violation}");
        }
        println!("  replay: {}", replay_line(report.seed, shape));
        println!("  shrink: {}", shrink_line(report.seed, shape));
    }
    let counts = &summary.counts;
    let [middle, most] = summary.settled_s;
    let rows: [(&str, String); 9] = [
        ("runs", format!("{}, {} failed", summary.runs, summary.failures.len())),
        ("simulated", format!("{:.0} s, {:.0} s a processor second", summary.simulated_s, summary.speed())),
        ("events", counts.events.to_string()),
        ("datagrams", format!("{}, {} lost", counts.datagrams, counts.datagrams_lost)),
        ("frames", format!("{} on {} connections", counts.frames, counts.connects)),
        (
            "edits",
            format!("{} acknowledged, {} refused, {} unknown", counts.acknowledged, counts.refused, counts.unknown),
        ),
        ("crashes", counts.crashes.to_string()),
        ("repairs", counts.repairs.to_string()),
        ("settled", format!("{middle:.1} s in the middle, {most:.1} s at most")),
    ];
    for (name, value) in rows {
        println!("{name:<10} {value}");
    }
    for (reason, count) in &counts.drops {
        println!("dropped    {count:>8}  {reason}");
    }
}

fn run_shrink(args: &ShrinkArgs) -> Result<bool, String> {
    let scenario = match (&args.scenario, args.seed) {
        (Some(path), _) => read_scenario(path)?,
        (None, seed) => Scenario::generate(seed.unwrap_or_default(), &args.shape.shape()),
    };
    let progress = |replays: usize, events: usize| {
        if replays.is_multiple_of(20) {
            eprintln!("{replays} runs, {events} events left");
        }
    };
    let Some(shrunk) = shrink(scenario, args.plant.unwrap_or_default(), args.replays, &progress) else {
        eprintln!("nothing fails in it");
        return Ok(false);
    };
    eprintln!("{} events on {} servers after {} runs", shrunk.events(), shrunk.scenario.nodes.len(), shrunk.replays);
    println!("# {}", shrunk.violation.to_string().replace('\n', "\n# "));
    print_scenario(&shrunk.scenario)?;
    Ok(true)
}

fn run_planted(args: &PlantedArgs) -> bool {
    let wanted = |name: &str| args.only.as_deref().is_none_or(|only| only == name);
    let mut found: Vec<Detection> = Vec::new();
    for planted in PLANTED.iter().filter(|planted| wanted(planted.name)) {
        let detection = detect(planted, args.first, args.seeds_max);
        if !args.json {
            print_detection(&detection);
        }
        found.push(detection);
    }
    if args.json {
        print_json(&found);
    }
    found.iter().all(|detection| detection.seeds.is_some())
}

fn print_detection(detection: &Detection) {
    match (detection.seeds, &detection.invariant) {
        (Some(seeds), Some(invariant)) => {
            let name = detection.name;
            println!("{name:<24} {seeds:>5} seeds   {invariant}");
        }
        _ => println!("{:<24}     -         not found", detection.name),
    }
}
