//! Whole servers, with HTTP, sessions and storage, under the scenarios that engines play alone.

use std::path::Path;
use std::process::Command;

use knot_engine::Fault;
use knot_sim::checker::Invariant;
use knot_sim::l2::{Defect, Planted, run};
use knot_sim::level::Level;
use knot_sim::library::named;
use knot_sim::report::Report;
use knot_sim::scenario::{Length, Scenario, Shape};

const CUT_OFF: &str = include_str!("../corpus-level-2/dark-while-cut-off.toml");

fn scenario(text: &str) -> Scenario {
    Scenario::from_toml(text).expect("a scenario")
}

fn assert_well(name: &str, report: &Report) {
    assert!(report.violations.is_empty(), "{name}: {:#?}", report.violations);
    assert!(report.counts.acknowledged > 0, "{name}: {report:#?}");
    assert!(report.settled_us.is_some(), "{name}: {report:#?}");
}

#[test]
fn servers_take_what_operators_dread() {
    for name in ["backup-restored", "disk-full", "flapping-link", "machine-replaced", "rolling-restart"] {
        let text = named(name).expect("it is in the library").text;
        assert_well(name, &run(scenario(text), Planted::default()));
    }
}

#[test]
fn servers_take_what_seeds_draw() {
    let shape = Shape { length: Some(Length::Short), nodes: Some(4), ..Shape::default() };
    for seed in 0..4 {
        let report = Level::Servers.run(Level::Servers.generate(seed, &shape), Default::default());
        assert_well(&format!("seed {seed}"), &report.expect("it is built"));
    }
}

#[test]
fn what_servers_failed_before_they_stand_now() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus-level-2");
    let files = std::fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("readable").path());
    let ran = files.map(|path| {
        let text = std::fs::read_to_string(&path).expect("readable");
        assert_well(&path.display().to_string(), &run(scenario(&text), Planted::default()));
    });
    assert!(ran.count() >= 2);
}

#[test]
fn bugs_in_and_around_the_engine_are_found() {
    let around = |defect| Planted { defect: Some(defect), ..Planted::default() };
    let in_engine = Planted { faults: Fault::AckBeforePersist.into(), ..Planted::default() };
    for planted in [in_engine, around(Defect::AnsweredUnwritten), around(Defect::JournalUnsynced)] {
        let report = run(scenario(CUT_OFF), planted);
        let is_lost = report.violations.iter().any(|violation| violation.invariant == Invariant::AcknowledgedKept);
        assert!(is_lost, "{planted:?}: {:#?}", report.violations);
    }
}

#[test]
fn an_edit_is_made_of_the_state_that_it_names() {
    let edited = named("lists-edited-everywhere").expect("it is in the library").text;
    let report = run(scenario(edited), Planted::default());
    assert_well("lists-edited-everywhere", &report);
    assert!(report.counts.refused > 0, "{report:#?}");
    let planted = Planted { defect: Some(Defect::ConditionUnchecked), ..Planted::default() };
    let report = run(scenario(edited), planted);
    let is_found = report.violations.iter().any(|violation| violation.invariant == Invariant::PreconditionHeld);
    assert!(is_found, "{:#?}", report.violations);
}

#[test]
fn who_is_evicted_is_out_until_the_readmission() {
    let evicted = named("evicted-server").expect("it is in the library").text;
    assert_well("evicted-server", &run(scenario(evicted), Planted::default()));
    let report = run(scenario(evicted), Planted { faults: Fault::EvictedLetIn.into(), ..Planted::default() });
    let is_found = report.violations.iter().any(|violation| violation.invariant == Invariant::ShutOut);
    assert!(is_found, "{:#?}", report.violations);
}

#[test]
fn of_two_processes_of_one_server_one_steps_back() {
    let copied = named("folder-copied").expect("it is in the library").text;
    assert_well("folder-copied", &run(scenario(copied), Planted::default()));
    for (fault, broken) in
        [(Fault::DoubleIgnored, Invariant::OneStepsBack), (Fault::FencedTakesEdits, Invariant::FencedTakesNone)]
    {
        let report = run(scenario(copied), Planted { faults: fault.into(), ..Planted::default() });
        let is_found = report.violations.iter().any(|violation| violation.invariant == broken);
        assert!(is_found, "{fault:?}: {:#?}", report.violations);
    }
    let with_spaces = Scenario { tenants: true, ..scenario(copied) };
    assert_eq!(Level::Servers.cannot_play(&with_spaces), ["clone"]);
}

#[test]
fn bugs_in_accounts_are_found() {
    const APART: &str = include_str!("../corpus-level-2/administrators-apart.toml");
    let with = |seed| Scenario { seed, ..scenario(APART) };
    for seed in 0..10 {
        assert_well(&format!("seed {seed}"), &run(with(seed), Planted::default()));
    }
    for defect in Defect::IN_ACCOUNTS {
        let is_found = |seed: &u64| {
            let report = run(with(*seed), Planted { defect: Some(defect), ..Planted::default() });
            report.violations.iter().any(|violation| violation.invariant == Invariant::Accounts)
        };
        assert!((0..50).any(|seed| is_found(&seed)), "{defect:?} is not found by 50 seeds");
    }
}

#[test]
fn bugs_in_spaces_are_found() {
    const APART: &str = include_str!("../corpus-level-2/tenants-apart.toml");
    let with = |seed| Scenario { seed, ..scenario(APART) };
    for seed in 0..5 {
        assert_well(&format!("seed {seed}"), &run(with(seed), Planted::default()));
    }
    for defect in Defect::IN_SPACES {
        let is_found = |seed: &u64| {
            let report = run(with(*seed), Planted { defect: Some(defect), ..Planted::default() });
            report.violations.iter().any(|violation| violation.invariant == Invariant::Spaces)
        };
        assert!((0..50).any(|seed| is_found(&seed)), "{defect:?} is not found by 50 seeds");
    }
}

#[test]
fn a_panic_in_any_task_ends_the_run() {
    let report = run(scenario(CUT_OFF), Planted { defect: Some(Defect::CommitterPanics), ..Planted::default() });
    let [violation] = &report.violations[..] else { panic!("{:#?}", report.violations) };
    assert_eq!(violation.invariant, Invariant::NoPanic);
    assert!(violation.detail.starts_with("planted: ") && violation.detail.contains("committer.rs"), "{violation}");
}

#[test]
fn a_seed_is_a_run_in_any_process() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus-level-2/rotten-after-a-clean-stop.toml");
    let trace = |what: &str| {
        let arguments = ["trace", what, "--level", "2", "--length", "tiny"];
        let output = Command::new(env!("CARGO_BIN_EXE_knot-sim")).args(arguments).output().expect("knot-sim starts");
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let mut seen = Vec::new();
    for what in ["3", "4", file.to_str().expect("text")] {
        let one = trace(what);
        assert_eq!(one, trace(what), "{what}");
        seen.push(one);
    }
    seen.dedup();
    assert_eq!(seen.len(), 3, "a trace says what happened: {seen:?}");
}
