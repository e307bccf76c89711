//! `knot-sim run`.

use std::path::PathBuf;

use clap::Args;
use knot_engine::Faults;

use super::arguments::{Seeds, ShapeArgs, jobs, planted_by_name, read_scenario};
use super::output::print_json;
use crate::Sink;
use crate::campaign::{self, Summary, replay_line, run_scenario, shrink_line};
use crate::report::Report;
use crate::scenario::{Scenario, Shape};

#[derive(Debug, Args)]
pub(super) struct RunArgs {
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
    /// Fail when a state that should be reached is not; see `engine/src/marks.rs`.
    #[arg(long, conflicts_with_all = ["seed", "scenario"])]
    require_marks: bool,
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

pub(super) fn perform(run: &RunArgs) -> Result<bool, String> {
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
    let jobs = jobs(run.jobs);
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
    let missed = run.require_marks && !summary.marks_missed().is_empty();
    Ok(summary.failures.is_empty() && !missed)
}

fn run_one(run: &RunArgs, scenario: Scenario, planted: Faults) -> bool {
    let sink = run.log.then(|| -> Sink { Box::new(|line| println!("{line}")) });
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
    let missed = summary.marks_missed();
    println!("marks      {} of {} reached", summary.marks.len() - missed.len(), summary.marks.len());
    for mark in missed {
        println!("           not reached: {mark}");
    }
}
