//! The real binary, a process for each server, in a scenario that the other levels play as well. Where the machine does
//! not allow that (it takes root, `ip` and `setpriv`) this says so aloud and checks nothing.

#![cfg(target_os = "linux")]

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use knot_engine::Faults;
use knot_sim::checker::Invariant;
use knot_sim::l3;
use knot_sim::level::Level;
use knot_sim::library::named;
use knot_sim::report::Report;
use knot_sim::scenario::Scenario;

/// The server's binary.
static BINARY: LazyLock<PathBuf> = LazyLock::new(binary);

/// How long something may take that has no reason to take any time.
const SOON: Duration = Duration::from_secs(30);

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

/// What the simulator is to be started with.
fn knot_sim(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_knot-sim"));
    command.args(arguments).env(l3::BINARY_VARIABLE, &*BINARY);
    command
}

/// Starts the simulator for level 3, which finds nothing to do there.
fn look_in() -> Output {
    knot_sim(&["replay", "no-such-scenario", "--level", "3"]).output().expect("knot-sim starts")
}

/// The machine, for one run at a time: their times are its own. None, and why is said, where it cannot play.
fn machine() -> Option<MutexGuard<'static, ()>> {
    static MACHINE: Mutex<()> = Mutex::new(());
    let machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let looked = look_in();
    if looked.status.code() != Some(3) {
        return Some(machine);
    }
    let why = String::from_utf8_lossy(&looked.stderr).lines().next().unwrap_or_default().to_owned();
    // Seen without --nocapture, and repeated at the end of `.ci/run`.
    let _ = writeln!(std::io::stderr(), "SKIPPED level 3: {why}");
    None
}

#[test]
fn one_scenario_is_played_at_every_level() {
    for level in [Level::Engines, Level::Servers] {
        assert_well(level, &level.run(brief_outage(), Faults::default()).expect("it is built"));
    }
    let Some(_machine) = machine() else { return };
    let report = l3::run(brief_outage(), &BINARY).expect("the machine is well");
    assert_well(Level::Processes, &report);
    assert_eq!(report.left_behind, None);
}

#[test]
fn what_failed_leaves_its_logs() {
    let Some(_machine) = machine() else { return };
    let nodes = ["a", "b"].map(|name| format!("[[nodes]]\nname = \"{name}\"\nzone = \"z\"\n"));
    let calm = format!("format = 1\nquiet_at_ms = 500\n{}", nodes.concat());
    let calm = Scenario::from_toml(&calm).expect("a scenario");
    let report = l3::run(Scenario { canary: true, ..calm }, &BINARY).expect("the machine is well");
    let [violation] = &report.violations[..] else { panic!("{:#?}", report.violations) };
    assert_eq!(violation.invariant, Invariant::Canary);
    let folder = report.left_behind.expect("it failed");
    let log = std::fs::read_to_string(folder.join("a").join("log")).expect("readable");
    assert!(!log.is_empty());
    std::fs::remove_dir_all(folder).expect("removable");
}

#[test]
fn a_machine_that_cannot_play_is_no_broken_promise() {
    let complaint = |command: &mut Command| {
        let output = command.output().expect("knot-sim starts");
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    let said = complaint(knot_sim(&["replay", "brief-outage", "--level", "3"]).env(l3::BINARY_VARIABLE, "/none"));
    assert!(said.contains("no knot at /none") && said.contains("hint: `cargo build"), "{said}");
    let Some(_machine) = machine() else { return };
    let said = complaint(knot_sim(&["run", "--scenario", "brief-outage", "--level", "3"]).env("TMPDIR", "/none"));
    assert!(said.contains("/none") && said.contains("TMPDIR"), "{said}");
}

/// What `ip` prints, by the word.
fn ip(arguments: &[&str]) -> Vec<String> {
    let output = Command::new("ip").args(arguments).output().expect("ip starts");
    String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
}

/// Waits for something that comes soon.
fn soon<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < SOON, "{what} within {SOON:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process that ends with the test, however that does.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_simulator_that_is_killed_takes_its_servers_along_and_the_next_one_tidies_up() {
    let Some(_machine) = machine() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let run = knot_sim(&["replay", "brief-outage", "--level", "3"]).env("TMPDIR", folder.path()).spawn();
    let mut run = Ends(run.expect("knot-sim starts"));
    let prefix = format!("knot-sim-{}-", run.0.id());
    let namespaces = || ip(&["netns", "list"]).into_iter().filter(|word| word.starts_with(&prefix)).collect::<Vec<_>>();
    let is_server =
        |pid: &&String| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "knot");
    let (namespace, server) = soon("a server runs", || {
        let running =
            |name: String| Some((name.clone(), ip(&["netns", "pids", &name]).iter().find(is_server)?.clone()));
        namespaces().into_iter().find_map(running)
    });
    run.0.kill().expect("it runs");
    run.0.wait().expect("it was started here");
    soon("the server is gone", || (!is_server(&&server)).then_some(()));

    let left = Command::new("ip").args(["netns", "exec", &namespace, "sleep", "600"]).spawn();
    let mut left = Ends(left.expect("ip starts"));
    let pid = left.0.id().to_string();
    soon("something runs there", || ip(&["netns", "pids", &namespace]).contains(&pid).then_some(()));
    look_in();
    let ended = soon("it was ended", || left.0.try_wait().expect("it was started here"));
    assert_eq!(ended.signal(), Some(9), "{ended}");
    assert_eq!(namespaces(), Vec::<String>::new());
}

#[test]
fn what_processes_cannot_play_is_named() {
    let of = |name: &str| Level::Processes.cannot_play(&named(name).expect("a name").scenario().expect("a scenario"));
    assert_eq!(of("slow-disk"), ["slow_disk"]);
    assert_eq!(of("folder-copied"), ["clone"]);
    for played in ["zone-split", "evicted-server", "lists-edited-everywhere"] {
        assert_eq!(of(played), Vec::<&str>::new(), "{played}");
    }
}
