//! Each command, as people run it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn knot_sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_knot-sim")).args(arguments).output().expect("knot-sim starts")
}

/// What it printed, where it ended with `code`.
fn printed(arguments: &[&str], code: i32) -> String {
    let output = knot_sim(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// What it complained of, where the command line was wrong.
fn complaint(arguments: &[&str]) -> String {
    let output = knot_sim(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).expect("text")
}

fn json(arguments: &[&str], code: i32) -> Value {
    serde_json::from_str(&printed(arguments, code)).expect("JSON")
}

/// A folder of a test's own.
fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("knot-sim-cli-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

const COMMANDS: [&str; 11] =
    ["run", "replay", "diff", "shrink", "list", "explain", "plan", "scenario", "trace", "matrix", "completions"];

#[test]
fn every_command_has_examples() {
    for command in COMMANDS {
        assert!(printed(&[command, "--help"], 0).contains("EXAMPLES:"), "{command}");
    }
}

#[test]
fn every_line_of_the_manual_is_understood() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/simulator.md");
    let manual = std::fs::read_to_string(manual).expect("readable");
    let lines = manual.lines().filter_map(|line| line.strip_prefix("    knot-sim "));
    let mut shown = 0;
    for line in lines {
        let line = line.split('#').next().unwrap_or_default().split(['>', '|']).next().unwrap_or_default();
        let arguments: Vec<&str> = line.split_whitespace().chain(["--help"]).collect();
        printed(&arguments, 0);
        shown += 1;
    }
    assert!(shown >= COMMANDS.len(), "{shown} lines");
}

#[test]
fn a_script_completes_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell], 0);
        assert!(COMMANDS.iter().all(|command| script.contains(command)), "{shell}");
    }
}

#[test]
fn named_scenarios_are_listed_with_what_they_are_about() {
    let listed = printed(&["list"], 0);
    assert!(listed.lines().any(|line| line.starts_with("region-lost  ")), "{listed}");
    let all = json(&["list", "--json"], 0);
    let all = all.as_array().expect("a list");
    assert_eq!(all.len(), listed.lines().count());
    assert!(all.iter().all(|known| known["about"].as_str().is_some_and(|about| about.len() > 20)), "{all:?}");
}

#[test]
fn a_scenario_is_told_in_words() {
    let told = printed(&["explain", "region-lost"], 0);
    for expected in ["ZONE", "ONE WAY, MS", "135.0", "142.0", "CLIENTS", "WHAT GOES WRONG", "zone au", "WHAT MUST HOLD"]
    {
        assert!(told.contains(expected), "{expected} is not in {told}");
    }
    let told = json(&["explain", "17", "--json"], 0);
    assert!(told["explanation"]["events"].as_array().is_some_and(|events| !events.is_empty()), "{told}");
    assert_eq!(told["name"], "seed 17");
}

#[test]
fn a_replay_gives_the_hash_of_the_run() {
    let hash = printed(&["trace", "17"], 0);
    let replayed = printed(&["replay", "17"], 0);
    assert!(replayed.contains(hash.trim()), "{replayed}");
    let logged = printed(&["replay", "17", "--log"], 0);
    let traced = printed(&["replay", "17", "--trace"], 0);
    assert!(logged.contains("STARTS") && logged.contains(hash.trim()));
    assert!(traced.contains(" | ") && traced.contains(hash.trim()));
    assert!(traced.lines().count() > logged.lines().count());
}

#[test]
fn a_run_that_is_stopped_shows_how_each_server_stands() {
    let shown = printed(&["replay", "17", "--until", "12.5s"], 0);
    for expected in ["at 12.500000s", "SERVER", "ROOT", "QUEUE", "n0"] {
        assert!(shown.contains(expected), "{expected} is not in {shown}");
    }
    let shown = json(&["replay", "17", "--until", "350ms", "--json"], 0);
    assert_eq!(shown["simulated_us"], 350_000);
    let nodes = shown["state"]["nodes"].as_array().expect("servers");
    assert_eq!(shown["nodes"], nodes.len());
    assert!(nodes.iter().all(|node| node["members"].is_array() && node["scopes"].is_array()), "{nodes:?}");
}

#[test]
fn a_reader_that_has_seen_enough_ends_nothing_badly() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_knot-sim"))
        .args(["replay", "17", "--trace"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("knot-sim starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_failure_leaves_a_page_and_the_lines_to_go_on_with() {
    let folder = folder("failure");
    let failing = ["run", "--seeds", "0..1", "--plant", "scope_ignored", "--out", path(&folder)];
    let lines = printed(&failing, 1);
    let page = folder.join("knot-sim-0.html");
    assert!(lines.contains(path(&page)), "{lines}");
    assert!(lines.contains("replay: knot-sim replay 0 --plant scope_ignored"), "{lines}");
    assert!(lines.contains("shrink: knot-sim shrink 0 --plant scope_ignored"), "{lines}");
    assert!(std::fs::read_to_string(page).expect("a page").starts_with("<!doctype html>"));
    let summary = json(&[&failing[..], &["--json"]].concat(), 1);
    assert_eq!(summary["failures"][0]["replay"], "knot-sim replay 0 --plant scope_ignored");
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn a_campaign_says_how_far_it_is() {
    let output = knot_sim(&["run", "--seeds", "0..2"]);
    let said = String::from_utf8(output.stderr).expect("text");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("2 of 2 seeds | ") && last.contains(" marks | ") && last.ends_with(" 0 failed"), "{said}");
    assert!(!said.contains('\u{1b}'), "no terminal, no escapes");
}

#[test]
fn a_campaign_ends_when_its_time_is_over() {
    let summary = json(&["run", "--minutes", "0.02", "--seeds", "40..", "--json"], 0);
    assert!(summary["runs"].as_u64().is_some_and(|runs| runs > 0), "{summary}");
    assert!(complaint(&["run", "--seeds", "40.."]).contains("--minutes"));
}

#[test]
fn one_scenario_runs_under_many_seeds() {
    let summary = json(&["run", "--scenario", "disk-full", "--seeds", "0..3", "--json"], 0);
    assert_eq!(summary["runs"], 3);
    let own = json(&["run", "--scenario", "disk-full", "--json"], 0);
    assert_eq!(own["runs"], 1);
    assert_ne!(printed(&["trace", "disk-full", "--seed", "1"], 0), printed(&["trace", "disk-full", "--seed", "2"], 0));
}

#[test]
fn two_runs_are_compared_to_the_first_event_that_differs() {
    assert!(printed(&["diff", "17", "17"], 0).starts_with("alike in all "));
    let parted = printed(&["diff", "17", "--plant", "ack_before_persist", "--context", "3"], 1);
    assert!(parted.contains("--- knot-sim replay 17\n"), "{parted}");
    assert!(parted.contains("+++ knot-sim replay 17 --plant ack_before_persist\n"), "{parted}");
    let parting = json(&["diff", "17", "18", "--json"], 1);
    assert_ne!(parting["one"][0], parting["other"][0]);
}

#[test]
fn a_plan_measures_a_topology() {
    let folder = folder("plan");
    let page = folder.join("plan.html");
    let drawn = ["plan", "--scenario", "mass-restart", "--seeds", "2", "--page", path(&page)];
    let table = printed(&drawn, 0);
    for expected in ["TIMES, MS", "P50", "on all servers", "crash noticed", "settled", "TRAFFIC", "busiest link"] {
        assert!(table.contains(expected), "{expected} is not in {table}");
    }
    assert!(page.exists());
    let plan = json(&["plan", "--scenario", "mass-restart", "--seeds", "2", "--json"], 0);
    assert_eq!(plan["runs"], 2);
    let ordered = |times: &Value| {
        let all: Vec<f64> = ["p50", "p95", "p99", "max"].iter().filter_map(|key| times[key].as_f64()).collect();
        all.len() == 4 && all.is_sorted()
    };
    for zone in plan["convergence"].as_array().expect("zones") {
        assert!(ordered(&zone["most_ms"]) && ordered(&zone["all_ms"]), "{zone}");
    }
    assert!(plan["detection"]["crashes"].as_u64().is_some_and(|crashes| crashes > 0), "{plan}");
    assert!(plan["busiest"]["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{plan}");
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn what_is_left_of_a_failure_is_a_scenario_and_a_page() {
    let folder = folder("shrink");
    let (small, page) = (folder.join("small.toml"), folder.join("small.html"));
    let toml = printed(&["shrink", "0", "--plant", "scope_ignored", "--page", path(&page)], 0);
    std::fs::write(&small, toml).expect("written");
    printed(&["replay", path(&small), "--plant", "scope_ignored"], 1);
    assert!(page.exists());
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn a_mistake_is_told_with_what_to_do() {
    assert!(complaint(&["replay", "region-los"]).contains("did you mean region-lost?"));
    assert!(complaint(&["explain", "no such file.toml"]).contains("knot-sim list"));
    assert!(complaint(&["replay", "17", "--until", "12"]).contains("12.5s"));
    assert!(complaint(&["replay", "17", "--seed", "3"]).contains("leave out --seed"));
    assert!(complaint(&["replay", "17", "--plant", "nothing"]).contains("scope_ignored"));
    assert!(complaint(&["replay"]).contains("SEED|SCENARIO|FILE"));
    assert!(complaint(&["replay", "17", "--page", "/dev/null/a.html"]).contains("--page"));
}

#[test]
#[cfg(feature = "l2")]
fn what_a_level_does_not_play_is_named() {
    let said = complaint(&["replay", "laptop-asleep", "--level", "2"]);
    assert!(said.contains("level 2 does not play: pause") && said.contains("play it at level 1"), "{said}");
    let said = complaint(&["replay", "half-upgraded", "--level", "2"]);
    assert!(said.contains("level 2 does not play: later_version"), "{said}");
    let rotten = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus-level-2/rotten-after-a-clean-stop.toml");
    let said = complaint(&["run", "--scenario", rotten]);
    assert!(said.contains("level 1 does not play: bit_rot, misdirected_write"), "{said}");
    assert!(said.contains("add --level 2"), "{said}");
    let said = complaint(&["replay", "3", "--level", "2", "--page", "page.html"]);
    assert!(said.contains("leave out --level"), "{said}");
    let said = complaint(&["run", "--seeds", "0..2", "--level", "2", "--require-marks"]);
    assert!(said.contains("--require-marks") && said.contains("leave out --level"), "{said}");
}
