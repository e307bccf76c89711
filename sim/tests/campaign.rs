//! A short campaign, and the proof that it would find what it looks for.

use std::process::{Command, Output};

use knot_engine::{Area, Fault, Faults};
use knot_sim::campaign::{self, Campaign, Summary, replay_line, run_scenario, run_seed};
use knot_sim::checker::Invariant;
use knot_sim::level::Level;
use knot_sim::library::named;
use knot_sim::matrix::{Detection, Totals, detect};
use knot_sim::scenario::{DocumentKind, Length, Profile, Scenario, Shape};
use knot_sim::shrink::shrink;

/// Some of the planted bugs in each part of the engine are found within this many seeds.
const FEW_SEEDS: u64 = 30;

fn knot_sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_knot-sim")).args(arguments).output().expect("knot-sim starts")
}

fn assert_well(summary: &Summary, shape: &Shape) {
    let failures: Vec<String> = summary
        .failures
        .iter()
        .map(|report| format!("{}\n{:#?}", replay_line(report.seed, shape, Faults::default()), report.violations))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn promises_hold_under_faults() {
    let shape = Shape::default();
    let summary = campaign::run(&Campaign::new(0..40, shape), &()).expect("engines run anywhere");
    assert_well(&summary, &shape);
    assert!(summary.counts.crashes > 0, "faults happen");
    assert!(summary.counts.acknowledged > 0, "edits are made");
}

#[test]
fn promises_hold_under_faults_with_automerge() {
    let shape = Shape { document: DocumentKind::Automerge, ..Shape::default() };
    let summary = campaign::run(&Campaign::new(0..6, shape), &()).expect("engines run anywhere");
    assert_well(&summary, &shape);
}

#[test]
fn nothing_goes_wrong_where_nothing_is_wrong() {
    let shape = Shape { profile: Profile::Calm, ..Shape::default() };
    let summary = campaign::run(&Campaign::new(0..10, shape), &()).expect("engines run anywhere");
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
fn planted_bugs_are_found_in_every_part_of_the_engine() {
    for area in Area::ALL {
        let planted = Fault::ALL.iter().copied().filter(|fault| fault.area() == area);
        let detections: Vec<Detection> =
            planted.map(|fault| detect(fault, Some(Length::Tiny), 0, FEW_SEEDS, 2)).collect();
        let Totals { planted, found, .. } = Totals::of(&detections);
        let missed: Vec<&str> =
            detections.iter().filter(|found| found.seeds.is_none()).map(|missed| missed.name).collect();
        assert!(found >= 2, "{found} of {planted} found in {}, not {missed:?}", area.name());
    }
}

#[test]
fn a_failing_seed_prints_the_line_that_replays_it() {
    let planted = ["--plant", "ack_before_persist"];
    let campaign = knot_sim(&[&["run", "--seeds", "0..5", "--jobs", "1"][..], &planted].concat());
    assert_eq!(campaign.status.code(), Some(1));
    let printed = String::from_utf8(campaign.stdout).expect("text");
    let line = printed.lines().find_map(|line| line.trim().strip_prefix("replay: knot-sim ")).expect("a replay line");
    let arguments: Vec<&str> = line.split_whitespace().collect();
    let replay = knot_sim(&arguments);
    assert_eq!(replay.status.code(), Some(1), "{line}");
}

#[test]
fn a_failure_is_noticed_replayed_and_made_small() {
    let campaign = knot_sim(&["run", "--seeds", "0..500", "--length", "tiny", "--canary", "--jobs", "2"]);
    assert_eq!(campaign.status.code(), Some(1));
    let printed = String::from_utf8(campaign.stdout).expect("text");
    let failed = printed.lines().filter(|line| line.trim().starts_with("canary at")).count();
    assert!((1..=20).contains(&failed), "{printed}");
    for (command, well) in [("replay", 1), ("shrink", 0)] {
        let prefix = format!("{command}: knot-sim ");
        let line = printed.lines().find_map(|line| line.trim().strip_prefix(&prefix)).expect("such a line");
        let again = knot_sim(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(again.status.code(), Some(well), "{line}");
        let printed = String::from_utf8(again.stdout).expect("text");
        assert!(printed.contains("canary at"), "{line}");
    }
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

/// Runs every scenario file in a folder of this crate's; returns how many there are.
fn all_hold(folder: &str) -> usize {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = 0;
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("readable");
        let scenario = Scenario::from_toml(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let report = run_scenario(scenario, Faults::default(), None);
        assert!(report.violations.is_empty(), "{}: {:#?}", path.display(), report.violations);
        files += 1;
    }
    files
}

#[test]
fn every_bug_that_was_found_stays_mended() {
    assert!(all_hold("corpus") > 0);
}

#[test]
fn what_operators_dread_ends_well() {
    assert!(all_hold("scenarios") >= 11);
}

#[test]
fn of_two_processes_of_one_server_one_steps_back() {
    let scenario = || named("folder-copied").expect("it is in the library").scenario().expect("it is a scenario");
    let report = run_scenario(scenario(), Faults::default(), None);
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
    assert!(report.marks.contains(&"fenced"), "{:?}", report.marks);
    assert!(Level::Servers.cannot_play(&scenario()).is_empty());
    assert_eq!(Level::Processes.cannot_play(&scenario()), ["clone"]);
    for (fault, broken) in [
        (Fault::DoubleIgnored, Invariant::OneStepsBack),
        (Fault::FencedTakesEdits, Invariant::FencedTakesNone),
        (Fault::ActorReused, Invariant::ActorSeqUnique),
    ] {
        let violations = run_scenario(scenario(), fault.into(), None).violations;
        assert_eq!(violations.first().map(|violation| violation.invariant), Some(broken), "{fault}: {violations:#?}");
    }
}

#[test]
fn a_failure_shrinks_to_what_it_needs() {
    let shape = Shape { nodes: Some(4), ..Shape::default() };
    for fault in [Fault::TombstoneDropped, Fault::PushBeforePersist] {
        let faults = Faults::from(fault);
        let broken = |seed: &u64| !run_seed(*seed, &shape, faults, None).violations.is_empty();
        let seed = (0..FEW_SEEDS).find(broken).expect("it is found");
        let shrunk = shrink(Scenario::generate(seed, &shape), faults, 200, &|_, _| {}).expect("it fails");
        assert!(shrunk.events() <= 10, "{fault}: {} events after {} runs", shrunk.events(), shrunk.replays);
        let again = run_scenario(shrunk.scenario.clone(), faults, None).violations;
        assert_eq!(again.first().map(|violation| violation.invariant), Some(shrunk.violation.invariant));
        assert!(run_scenario(shrunk.scenario, Faults::default(), None).violations.is_empty());
    }
}

#[test]
fn a_scenario_goes_to_a_file_and_back() {
    let dir = std::env::temp_dir().join(format!("knot-sim-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let file = dir.join("scenario.toml");
    let written = knot_sim(&["scenario", "--seed", "5", "--nodes", "3"]);
    std::fs::write(&file, &written.stdout).expect("written");
    let path = file.to_str().expect("UTF-8");
    let (from_file, from_seed) = (knot_sim(&["trace", path]), knot_sim(&["trace", "5", "--nodes", "3"]));
    assert!(from_file.status.success(), "{from_file:?}");
    assert_eq!(from_file.stdout, from_seed.stdout);
    std::fs::write(&file, "quiet_at_ms = 1\nnodes = []\n").expect("written");
    let refused = knot_sim(&["run", "--scenario", path]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("2 to 64"), "{refused:?}");
    std::fs::remove_dir_all(dir).expect("removed");
}
