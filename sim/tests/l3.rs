//! The real binary, a process for each server, in a scenario that the other levels play as well. Where the machine does
//! not allow namespaces (they need root and `ip`) this says so and checks nothing.

#![cfg(target_os = "linux")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use knot_engine::Faults;
use knot_sim::l3::{self, Unready};
use knot_sim::level::Level;
use knot_sim::library::named;
use knot_sim::report::Report;
use knot_sim::scenario::Scenario;

/// The server's binary, beside that of the simulator, as the sources have it now.
fn binary() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_knot-sim")).with_file_name("knot");
    let made = beside.metadata().and_then(|file| file.modified()).ok();
    // Built with all tests it is new, and to build it alone takes another engine, without marks.
    if made.is_none_or(|made| ["engine/src", "server/src"].iter().any(|folder| is_newer(folder.as_ref(), made))) {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--locked", "-p", "knot-server"]);
        if beside.parent().is_some_and(|folder| folder.ends_with("release")) {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo starts").success());
    }
    beside
}

/// Whether a file in a folder of the repository has changed since.
fn is_newer(folder: &Path, since: SystemTime) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let entries = std::fs::read_dir(root.join(folder)).expect("the folder is there");
    entries.map(|entry| entry.expect("readable").path()).any(|path| {
        let modified = path.metadata().and_then(|file| file.modified()).expect("readable");
        if path.is_dir() { is_newer(&path, since) } else { modified > since }
    })
}

fn brief_outage() -> Scenario {
    named("brief-outage").expect("it is in the library").scenario().expect("it is a scenario")
}

fn assert_well(level: Level, report: &Report) {
    assert!(report.violations.is_empty(), "{level:?}: {:#?}", report.violations);
    assert!(report.settled_us.is_some(), "{level:?}: {report:#?}");
    let account = &report.account;
    assert!(account.kept > 40 && account.kept == account.acknowledged, "{level:?}: {account:?}");
    assert!(account.stale > 0, "{level:?}: the sites were cut off from each other: {account:?}");
    assert!(report.counts.datagrams_lost > 0 && report.counts.crashes > 0, "{level:?}: {:?}", report.counts);
}

#[test]
fn one_scenario_is_played_at_every_level() {
    for level in [Level::Engines, Level::Servers] {
        assert_well(level, &level.run(brief_outage(), Faults::default()).expect("it is built"));
    }
    match l3::run(brief_outage(), &binary()) {
        Ok(report) => assert_well(Level::Processes, &report),
        Err(Unready::NoNamespaces(why)) => {
            // Seen without --nocapture.
            let _ = writeln!(std::io::stderr(), "SKIPPED level 3: no network namespaces here ({why})");
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_processes_cannot_play_is_named() {
    let of = |name: &str| Level::Processes.cannot_play(&named(name).expect("a name").scenario().expect("a scenario"));
    assert_eq!(of("slow-disk"), ["slow_disk"]);
    assert_eq!(of("zone-split"), Vec::<&str>::new());
}
