//! Level 2: whole servers, with HTTP, sessions and storage, on turmoil's clock, level 1's network and disks that crash.
//!
//! The scenario is the one that engines alone play at level 1, and so are the promises, as far as they can be seen from
//! outside: by clients, and by a tap on what servers send each other. The servers run as the binary runs them; only
//! their sockets, their disks, their clocks and their randomness are the simulator's.

mod containers;
mod disk;
mod draw;
mod host;
mod network;
mod panics;
mod play;
mod wires;

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use knot_engine::{Faults, Instant};
pub use knot_server::simulated::Defect;
use turmoil::net::TcpStream;

pub(crate) use self::draw::generate;
use self::host::Host;
use self::panics::Listening;
use self::play::Stage;
use self::wires::{Network, Wires};
use crate::checker::{Invariant, settle_bound};
use crate::level::Level;
use crate::report::Report;
use crate::scenario::{FaultKind, Scenario};
use crate::servers::{self, Findings, HTTP_PORT, Reach, Yard};
use crate::shared::Shared;

/// How finely time passes.
const TICK: Duration = Duration::from_millis(10);
/// What follows the settling: the audit, whose reads are requests like any other.
const AUDIT_WITHIN: Duration = Duration::from_secs(600);

/// Bugs that are planted in every server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Planted {
    /// In its engine.
    pub faults: Faults,
    /// Around it.
    pub defect: Option<Defect>,
}

/// Runs a scenario with whole servers, which replicate Automerge documents and seal what they send, whatever it says.
///
/// # Panics
/// When the scenario has what [this level cannot play](Level::cannot_play).
#[must_use]
pub fn run(scenario: Scenario, planted: Planted) -> Report {
    let missing = Level::Servers.cannot_play(&scenario);
    assert!(missing.is_empty(), "level 2 does not play {}", missing.join(", "));
    let scenario = Arc::new(scenario.expanded());
    let findings = Shared::new(Findings::default());
    let wires = Wires::new(Network::new(&scenario));
    let yard = Shared::new(Yard::default());
    let mut sim = turmoil::Builder::new()
        .simulation_duration(
            Duration::from_millis(scenario.quiet_at_ms) + settle_bound(scenario.nodes.len()) + AUDIT_WITHIN,
        )
        .tick_duration(TICK)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(1))
        .tcp_capacity(16_384)
        .epoch(SystemTime::UNIX_EPOCH)
        .rng_seed(scenario.seed)
        .build();
    let hosts: Vec<Host> =
        (0..scenario.nodes.len()).map(|node| Host::new(node, &scenario, &wires, &findings, &yard, planted)).collect();
    for host in &hosts {
        let host = host.clone();
        sim.host(host.name().to_owned(), move || host.clone().supervise());
    }
    let clients = servers::clients(Turmoil(scenario.clone()), scenario.clone(), findings.clone(), Some(yard));
    sim.client("clients", async {
        clients.await;
        Ok(())
    });
    let panics = Listening::begin(scenario.faults.iter().any(|fault| damages(&fault.kind).is_some()));
    let mut stage = Stage::new(&scenario, &hosts, &wires);
    let ended = stage.play(&mut sim, || panics.heard().is_some() || findings.get().is_over);
    let crashes = stage.crashes;
    let elapsed = sim.elapsed();
    drop(sim);
    if let Some(panic) = panics.heard() {
        findings.get().accuse(Invariant::NoPanic, Instant::ZERO + elapsed, 0, panic);
    }
    let findings = std::mem::take(&mut *findings.get());
    let mut report = servers::report(&scenario, findings, (ended, elapsed));
    add_network(&mut report, &wires.get());
    report.counts.crashes = crashes;
    report
}

/// The server whose disk a fault damages; other faults lose, or fail, and what they leave is sound.
fn damages(kind: &FaultKind) -> Option<usize> {
    if let FaultKind::BitRot { node, .. } | FaultKind::MisdirectedWrite { node } = kind { Some(*node) } else { None }
}

/// Clients on turmoil's network.
#[derive(Clone, Debug)]
struct Turmoil(Arc<Scenario>);

impl Reach for Turmoil {
    type Stream = TcpStream;

    fn now(&self) -> Instant {
        Instant::ZERO + turmoil::sim_elapsed().unwrap_or_default()
    }

    async fn connect(&self, node: usize) -> io::Result<TcpStream> {
        TcpStream::connect((self.0.nodes[node].name.as_str(), HTTP_PORT)).await
    }
}

/// Adds what passed between the servers.
fn add_network(report: &mut Report, network: &Network) {
    if let Some(leak) = network.leak() {
        servers::accuse_of_leak(report, leak);
    }
    let counts = network.counts();
    report.trace = network.trace();
    report.counts.datagrams = counts.datagrams;
    report.counts.datagrams_lost = counts.lost;
    report.counts.frames = counts.frames;
    report.counts.connects = counts.connects;
}
