//! One server's machine, and the supervisor that runs the server on it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use knot_engine::{Instant, NodeKey, Wall, membership};
use knot_server::config::{Config, Trust};
use knot_server::simulated::Simulated;
use knot_server::spaces::Containers;
use knot_server::storage::{JournaledStorage, RedbStorage, StorageError};
use knot_server::websocket::Dialer;
use knot_server::{Platform, RunError, run as serve};
use redb::StorageBackend;
use tokio::sync::{oneshot, watch};

use super::containers::SimContainers;
use super::disk::{CrashDisk, File};
use super::network::SimNetwork;
use super::wires::Wires;
use super::{Planted, damages};
use crate::checker::Invariant;
use crate::draw::Draw;
use crate::network::Process;
use crate::node::hasty;
use crate::scenario::{FaultKind, RESTART_AFTER, Scenario};
use crate::servers::{Findings, Loss, TOKEN, Yard, config};
use crate::shared::Shared;

/// What wall clocks show when a run begins, in milliseconds since the Unix epoch.
const WALL_ORIGIN_MS: i64 = 1_800_000_000_000;

/// One server's machine.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) node: usize,
    pub(super) disk: CrashDisk,
    scenario: Arc<Scenario>,
    names: Arc<[String]>,
    wires: Wires,
    findings: Shared<Findings>,
    planted: Planted,
    machine: Shared<Machine>,
    containers: SimContainers,
}

/// What of a machine outlives its processes, besides its disk.
#[derive(Debug)]
struct Machine {
    randomness: Draw,
    commits: Draw,
    /// How long commits take at least.
    slow: Duration,
    /// How far the wall clock is off.
    offset_s: i64,
    /// How many machines of that name there were before.
    replaced: u64,
    /// What the key of a server is drawn from whose folder is copied here.
    worn: Option<String>,
    /// Tells the process that runs to stop.
    stop: Option<watch::Sender<bool>>,
    /// Whether nobody is to start a process that stops.
    stays_down: bool,
}

impl Host {
    pub(super) fn new(
        node: usize,
        scenario: &Arc<Scenario>,
        wires: &Wires,
        findings: &Shared<Findings>,
        yard: &Shared<Yard>,
        planted: Planted,
    ) -> Self {
        let draw = |what: &str| Draw::new(scenario.seed, &format!("{what} {node}"));
        let (yard, draws) = (yard.clone(), Shared::new(draw("containers")));
        let containers = SimContainers { node, yard, findings: findings.clone(), draw: draws };
        Self {
            node,
            disk: CrashDisk::new(draw("crash disk")),
            scenario: scenario.clone(),
            names: scenario.nodes.iter().map(|node| node.name.clone()).collect(),
            wires: wires.clone(),
            findings: findings.clone(),
            planted,
            machine: Shared::new(Machine {
                randomness: draw("randomness"),
                commits: draw("commits"),
                slow: Duration::ZERO,
                offset_s: scenario.nodes[node].clock_offset_s,
                replaced: 0,
                worn: None,
                stop: None,
                stays_down: false,
            }),
            containers,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.scenario.nodes[self.node].name
    }

    /// Asks the process to stop, and nobody to start it again.
    pub(super) fn stop(&self) {
        let mut machine = self.machine.get();
        machine.stays_down = true;
        if let Some(stop) = machine.stop.take() {
            // It may have stopped already.
            let _ = stop.send(true);
        }
    }

    /// A process that stops is started again.
    pub(super) fn may_start(&self) {
        self.machine.get().stays_down = false;
    }

    /// Another machine takes the name: with another key, and with nothing on its disk.
    pub(super) fn replace(&self) {
        self.machine.get().replaced += 1;
        self.containers.yard.get().replace(self.node);
        self.disk.lose();
    }

    /// A copy of another machine's folder, key and all, takes the place of its own.
    pub(super) fn wear(&self, other: &Self) {
        let key = other.key();
        self.machine.get().worn = Some(key);
        self.disk.wear(&other.disk);
    }

    /// It has its own folder again.
    pub(super) fn take_off(&self) {
        self.machine.get().worn = None;
        self.disk.take_off();
    }

    /// What its key is drawn from.
    fn key(&self) -> String {
        let machine = self.machine.get();
        machine.worn.clone().unwrap_or_else(|| format!("key {} of {}", self.node, machine.replaced))
    }

    /// Whether its process has said that it has stepped back.
    pub(super) fn has_stepped_back(&self) -> bool {
        self.findings.get().stepped_back.contains(&self.node)
    }

    /// What its process said is over with it.
    pub(super) fn is_over(&self) {
        self.findings.get().stepped_back.remove(&self.node);
    }

    /// Nothing runs any more.
    pub(super) fn lose_power(&self) {
        self.containers.yard.get().power_lost(self.node);
    }

    /// Commits take so much longer.
    pub(super) fn set_slow(&self, by: Duration) {
        self.machine.get().slow = by;
    }

    /// The wall clock jumps.
    pub(super) fn set_clock(&self, by_s: i64) {
        self.machine.get().offset_s += by_s;
    }

    /// Runs the server, and starts it again when it stops by itself, as a supervisor does.
    pub(super) async fn supervise(self) -> turmoil::Result {
        let starts = Duration::from_millis(self.scenario.nodes[self.node].start_at_ms);
        tokio::time::sleep(starts.saturating_sub(turmoil::sim_elapsed().unwrap_or_default())).await;
        loop {
            let (owner, clean) = self.disk.take_over();
            match self.open(owner, clean) {
                Ok(storage) => self.serve(storage).await,
                Err(error @ (StorageError::Corrupt(_) | StorageError::Version { .. })) => self.tidy(&error.to_string()),
                // What fails now may not when it is tried again.
                Err(_) => {}
            }
            if self.machine.get().stays_down {
                return Ok(());
            }
            tokio::time::sleep(RESTART_AFTER).await;
        }
    }

    /// Opens the store, making its file under another name first, as the server does in a folder.
    fn open(&self, owner: u64, clean: bool) -> Result<JournaledStorage, StorageError> {
        let gone = || StorageError::Failed(io::Error::other("the process is gone"));
        let file = |file| Arc::new(self.disk.file(owner, file));
        let existed = self.disk.has_tree();
        if !existed {
            let new = file(File::NewTree);
            new.set_len(0).map_err(StorageError::Failed)?;
            drop(RedbStorage::on_backend(new.clone(), false)?);
            new.sync_data().map_err(StorageError::Failed)?;
            if !self.disk.name_tree(owner) {
                return Err(gone());
            }
        }
        let (tree, journal) = (file(File::Tree), file(File::Journal));
        JournaledStorage::on_backends_simulated(tree, journal, existed && !clean, self.planted.defect)
    }

    async fn serve(&self, storage: JournaledStorage) {
        let process = self.wires.get().process_started(self.node);
        let (ready, _) = oneshot::channel();
        let (stop, stopped) = watch::channel(false);
        self.machine.get().stop = Some(stop);
        let ended = serve(self.config(), self.platform(process, storage), ready, stopped).await;
        self.wires.get().process_died(self.node, true);
        match ended {
            Ok(_) => self.disk.end_well(),
            Err(RunError::Corrupt(why)) => self.tidy(&why.to_string()),
            Err(RunError::Storage(damage @ StorageError::Corrupt(_))) => self.tidy(&damage.to_string()),
            Err(RunError::Panicked(why)) => self.accuse(Invariant::NoPanic, why),
            // A supervisor starts it again.
            Err(_) => {}
        }
    }

    /// Does what the message for damaged data asks for: the other servers have everything. Damage must have a cause.
    fn tidy(&self, why: &str) {
        let now = now();
        let began = |at_ms: u64| Instant::from_micros(at_ms * 1_000) <= now;
        let begun = || self.scenario.faults.iter().filter(|fault| began(fault.at_ms)).map(|fault| &fault.kind);
        // What it has may be a copy of what another's disk had.
        let copied = begun().filter_map(|kind| {
            if let FaultKind::Clone { node, to } = kind { (*to == self.node).then_some(*node) } else { None }
        });
        let disks: Vec<usize> = copied.chain([self.node]).collect();
        if !begun().any(|kind| damages(kind).is_some_and(|node| disks.contains(&node))) {
            self.accuse(Invariant::AcknowledgedKept, format!("its data is damaged, and no fault did that: {why}"));
        }
        self.disk.lose();
        self.has_lost(Instant::ZERO, now);
    }

    /// What was acknowledged between these two moments may be gone from its disk.
    pub(super) fn has_lost(&self, since: Instant, until: Instant) {
        self.findings.get().lose(Loss { node: self.node, since, until });
    }

    fn accuse(&self, invariant: Invariant, detail: String) {
        self.findings.get().accuse(invariant, now(), self.node, detail);
    }

    fn config(&self) -> Config {
        let name = &self.scenario.nodes[self.node].name;
        let address = self.wires.get().address(self.node).to_string();
        let text = config(&self.scenario, self.node, &address, |seed| self.scenario.nodes[seed].name.clone(), "");
        let file = std::path::Path::new("knot.toml");
        Config::parse(Some((file, &text)), &BTreeMap::new(), name).expect("the configuration is right").config
    }

    fn platform(&self, process: Process, storage: JournaledStorage) -> Platform<SimNetwork> {
        let seed = self.machine.get().randomness.bytes();
        let mut key = Draw::new(self.scenario.seed, &self.key());
        let machine = self.machine.clone();
        Platform {
            network: SimNetwork { process, names: self.names.clone(), wires: self.wires.clone() },
            storage: Arc::new(storage),
            node_key: NodeKey::from_bytes(key.bytes()),
            token: TOKEN.into(),
            tls: None,
            dialer: Dialer::new(&Trust { skip_verify: true, ..Trust::default() }).expect("it reads nothing"),
            seed,
            wall: Arc::new(move || {
                let elapsed = turmoil::sim_elapsed().unwrap_or_default().as_millis();
                let elapsed = i64::try_from(elapsed).unwrap_or(i64::MAX);
                Wall(WALL_ORIGIN_MS + elapsed + machine.get().offset_s * 1_000)
            }),
            reload: None,
            simulated: Some(self.simulated()),
        }
    }

    fn simulated(&self) -> Simulated {
        let (machine, disk) = (self.machine.clone(), self.scenario.disk.clone());
        let (bounds, is_hasty) = (self.scenario.bounds.clone(), self.scenario.hasty);
        Simulated {
            commit_takes: Arc::new(move || {
                let mut machine = machine.get();
                let usual = machine.commits.between(disk.commit_min_us, disk.commit_max_us + 1);
                Duration::from_micros(usual) + machine.slow
            }),
            tune: Arc::new(move |config| {
                config.limits = bounds.limits();
                config.membership = membership::Config {
                    full_mesh: bounds.full_mesh,
                    failed_retention: config.membership.failed_retention,
                    ..if is_hasty { hasty() } else { membership::Config::default() }
                };
            }),
            faults: self.planted.faults,
            defect: self.planted.defect,
            containers: self.scenario.tenants.then(|| Arc::new(self.containers.clone()) as Arc<dyn Containers>),
        }
    }
}

pub(super) fn now() -> Instant {
    Instant::ZERO + turmoil::sim_elapsed().unwrap_or_default()
}
