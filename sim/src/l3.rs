//! Level 3: the `knot` binary, a process for each server, in network namespaces between which every packet passes here.
//!
//! The scenario is the one of the other levels, and time is the machine's own: a run takes as long as it says, and no two
//! are alike. Kernel, sockets and file system are real, so what they do is out of a simulator's hands: nobody takes back
//! what a killed process wrote, and all processes have one clock. The network is level 1's, for packets of IP.

mod machine;
mod namespaces;
mod packet;
mod play;
mod router;
mod unready;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use knot_engine::Instant;
use tokio::net::TcpStream;

use self::machine::Machine;
use self::namespaces::{Namespaces, address};
use self::play::Stage;
use self::router::{Router, Sky, Weather};
use self::unready::At;
pub use self::unready::Unready;
use crate::level::Level;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::servers::{self, CLUSTER_PORT, Findings, HTTP_PORT, Reach};
use crate::shared::Shared;

/// The environment variable that says which binary to run.
pub const BINARY_VARIABLE: &str = "KNOT_BINARY";

/// The binary that servers run: what [`BINARY_VARIABLE`] says, else `knot` beside this program.
///
/// # Errors
/// When it is not there, or servers cannot have namespaces of their own here.
pub fn ready() -> Result<PathBuf, Unready> {
    let beside = || std::env::current_exe().unwrap_or_default().with_file_name("knot");
    let binary = std::env::var_os(BINARY_VARIABLE).map_or_else(beside, PathBuf::from);
    if !binary.is_file() {
        return Err(Unready::NoBinary(binary));
    }
    let setpriv = Command::new("setpriv").args(["--pdeathsig", "KILL", "true"]).output();
    let setpriv = setpriv.map_err(|error| Unready::NoSetpriv(error.to_string()))?;
    if !setpriv.status.success() {
        return Err(Unready::NoSetpriv(String::from_utf8_lossy(&setpriv.stderr).trim().to_owned()));
    }
    drop(Namespaces::new(0)?);
    std::path::absolute(&binary).at_path(&binary)
}

/// Runs a scenario with processes of `binary`. What they leave behind stays where a promise breaks, and where the run
/// breaks off.
///
/// # Errors
/// When servers cannot be set up, or this machine cannot go on.
///
/// # Panics
/// When the scenario has what [this level cannot play](Level::cannot_play).
pub fn run(scenario: Scenario, binary: &Path) -> Result<Report, Unready> {
    let missing = Level::Processes.cannot_play(&scenario);
    assert!(missing.is_empty(), "level 3 does not play {}", missing.join(", "));
    let scenario = Arc::new(scenario.expanded());
    let namespaces = Namespaces::new(scenario.nodes.len())?;
    let within = std::env::temp_dir();
    let folder = tempfile::Builder::new().prefix("knot-sim-").tempdir_in(&within).at_path(&within)?.keep();
    // A thread of its own, since it goes to where the clients are and stays there.
    let ran = std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            namespaces.enter_as_client()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().at("the runtime")?;
            runtime.block_on(play_out(&scenario, binary, &namespaces, &folder))
        });
        let panicked = |panic: &_| Report::panicked(scenario.seed, scenario.nodes.len(), panic);
        run.join().unwrap_or_else(|panic| Ok(panicked(panic.as_ref())))
    });
    match ran {
        Ok(report) if report.violations.is_empty() => {
            std::fs::remove_dir_all(&folder).at_path(&folder)?;
            Ok(report)
        }
        Ok(report) => Ok(Report { left_behind: Some(folder), ..report }),
        Err(why) => Err(Unready::BrokeOff { why: Box::new(why), folder }),
    }
}

async fn play_out(
    scenario: &Arc<Scenario>,
    binary: &Path,
    namespaces: &Namespaces,
    folder: &Path,
) -> Result<Report, Unready> {
    let machines: Result<Vec<Machine>, Unready> = (0..scenario.nodes.len())
        .map(|node| {
            let home = folder.join(&scenario.nodes[node].name);
            let at = |node: usize| address(node).to_string();
            let data = format!("data_dir = {:?}\n", machine::data_folder(&home).display().to_string());
            let config = servers::config(scenario, node, &format!("{}:{CLUSTER_PORT}", at(node)), at, &data);
            Machine::new(binary, namespaces.name(node), home, &config)
        })
        .collect();
    let sky = Sky::new(Weather::new(scenario));
    let mut router = Router::start(namespaces.lines()?, &sky);
    let findings = Shared::new(Findings::default());
    let clients = tokio::spawn(servers::clients(Namespaced(sky.clone()), scenario.clone(), findings.clone(), None));
    let mut stage = Stage::new(scenario, machines?, sky.clone(), findings.clone());
    tokio::select! {
        played = stage.play(clients) => played?,
        broken = router.broken() => return Err(broken),
    }
    let elapsed = sky.get().now().since(Instant::ZERO);
    stage.stop_all().await?;
    let found = std::mem::take(&mut *findings.get());
    let mut report = servers::report(scenario, found, (Ok(()), elapsed));
    let weather = sky.get();
    if let Some(leak) = weather.leak() {
        servers::accuse_of_leak(&mut report, leak);
    }
    [report.counts.datagrams, report.counts.datagrams_lost] = weather.counts();
    report.counts.drops.extend(weather.drops().map(|(why, count)| (why.to_owned(), count)));
    report.counts.crashes = stage.crashes;
    Ok(report)
}

/// Clients in a namespace of their own.
#[derive(Clone, Debug)]
struct Namespaced(Sky);

impl Reach for Namespaced {
    type Stream = TcpStream;

    fn now(&self) -> Instant {
        self.0.get().now()
    }

    async fn connect(&self, node: usize) -> io::Result<TcpStream> {
        TcpStream::connect((address(node), HTTP_PORT)).await
    }
}

/// How often it is seen whether a process has ended by itself.
const LOOK_EVERY: Duration = Duration::from_millis(100);
