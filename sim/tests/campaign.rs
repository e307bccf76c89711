//! A short campaign, and the proof that it would find what it looks for.

use std::process::{Command, Output};

use knot_engine::Faults;
use knot_sim::campaign::{self, Summary, replay_line, run_seed};
use knot_sim::planted::{PLANTED, detect};
use knot_sim::scenario::{DocumentKind, Profile, Scenario, Shape};

/// Every planted bug is found within this many seeds.
const SEEDS_TO_DETECTION_MAX: u64 = 100;

fn knot_sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_knot-sim")).args(arguments).output().expect("knot-sim starts")
}

fn assert_well(summary: &Summary, shape: &Shape) {
    let failures: Vec<String> = summary
        .failures
        .iter()
        .map(|report| format!("{}\n{:#?}", replay_line(report.seed, shape), report.violations))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn promises_hold_under_faults() {
    let shape = Shape::default();
    let summary = campaign::run(0..40, &shape, Faults::default(), 2, &|_, _| {});
    assert_well(&summary, &shape);
    assert!(summary.counts.crashes > 0, "faults happen");
    assert!(summary.counts.acknowledged > 0, "edits are made");
}

#[test]
fn promises_hold_under_faults_with_automerge() {
    let shape = Shape { document: DocumentKind::Automerge, ..Shape::default() };
    let summary = campaign::run(0..6, &shape, Faults::default(), 2, &|_, _| {});
    assert_well(&summary, &shape);
}

#[test]
fn nothing_goes_wrong_where_nothing_is_wrong() {
    let shape = Shape { profile: Profile::Calm, ..Shape::default() };
    let summary = campaign::run(0..10, &shape, Faults::default(), 2, &|_, _| {});
    assert_well(&summary, &shape);
    assert_eq!(summary.counts.unknown, 0, "every edit has its answer");
}

#[test]
fn a_seed_is_a_run() {
    let shape = Shape::default();
    let run = |seed| run_seed(seed, &shape, Faults::default(), None).trace;
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn a_seed_is_a_run_in_any_process() {
    for document in ["model", "automerge"] {
        let trace = || knot_sim(&["trace", "--seed", "5", "--nodes", "5", "--document", document]);
        let (one, other) = (trace(), trace());
        assert!(one.status.success(), "{one:?}");
        assert_eq!(one.stdout, other.stdout);
    }
}

#[test]
fn every_planted_bug_is_found() {
    let missed: Vec<&str> = PLANTED
        .iter()
        .filter(|planted| detect(planted, 0, SEEDS_TO_DETECTION_MAX).seeds.is_none())
        .map(|planted| planted.name)
        .collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn a_failing_seed_prints_the_line_that_replays_it() {
    let planted = ["--plant", "ack_before_persist"];
    let campaign = knot_sim(&[&["run", "--seeds", "0..5", "--jobs", "1"][..], &planted].concat());
    assert_eq!(campaign.status.code(), Some(1));
    let printed = String::from_utf8(campaign.stdout).expect("text");
    let line = printed.lines().find_map(|line| line.trim().strip_prefix("replay: knot-sim ")).expect("a replay line");
    let arguments: Vec<&str> = line.split_whitespace().collect();
    let replay = knot_sim(&[&arguments[..], &planted].concat());
    assert_eq!(replay.status.code(), Some(1), "{line}");
}

#[test]
fn a_wrong_command_line_is_told_apart_from_a_failure() {
    assert_eq!(knot_sim(&["run", "--seeds", "5..5"]).status.code(), Some(2));
    assert_eq!(knot_sim(&["run", "--seeds", "0..1"]).status.code(), Some(0));
}

#[test]
fn a_scenario_is_plain_data() {
    let scenario = Scenario::generate(7, &Shape::default());
    let text = serde_json::to_string(&scenario).expect("it serialises");
    let again: Scenario = serde_json::from_str(&text).expect("it reads back");
    assert_eq!(scenario, again);
}
