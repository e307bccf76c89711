//! One server: its disk, and the process that runs its engine, as the server's driver would.

use std::collections::BTreeMap;

use knot_engine::documents::Document;
use knot_engine::{
    Address, Config, EditId, Engine, Faults, Instant, Limits, NodeKey, ReadId, Recovered, SessionId, Table,
};

use crate::disk::{Disk, Image};
use crate::draw::Draw;
use crate::network::{own_address, seed_address};
use crate::scenario::{Bounds, NodeSpec, Scenario, Target};

/// Servers whose names are given to all as seeds.
const SEEDS: usize = 3;

/// Why a read was asked for.
#[derive(Clone, Debug)]
pub(crate) enum ReadFor {
    /// A client's, and when it asked.
    Client(Target, Instant),
    /// The value of a document at the end.
    AuditValue,
    /// The history of a document at the end.
    AuditHistory,
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Running<D: Document> {
    pub(crate) engine: Engine<D>,
    pub(crate) start: u32,
    pub(crate) since: Instant,
    pub(crate) edits: BTreeMap<EditId, u32>,
    pub(crate) reads: BTreeMap<ReadId, ReadFor>,
    /// The earliest moment for which a wake is in the event queue.
    pub(crate) wake_at: Option<Instant>,
    /// Sessions it accepted; they have odd numbers.
    accepted: u64,
    /// Wakes in a row that came no later than the one before.
    pub(crate) idle_wakes: u32,
}

impl<D: Document> Running<D> {
    /// The number of the next session that it accepts.
    pub(crate) fn accept(&mut self) -> SessionId {
        self.accepted += 1;
        SessionId(2 * self.accepted - 1)
    }
}

/// One server.
#[derive(Debug)]
pub(crate) struct Node<D: Document> {
    pub(crate) index: usize,
    pub(crate) spec: NodeSpec,
    pub(crate) key: NodeKey,
    bounds: Bounds,
    pub(crate) disk: Disk,
    pub(crate) running: Option<Running<D>>,
    /// While the process is not scheduled: since one fault or more hold it.
    pub(crate) paused: u32,
    /// Faults that keep it down.
    pub(crate) held_down: u32,
    pub(crate) moves: u32,
    /// When its disk was last set back.
    pub(crate) restored: Instant,
    starts: u32,
    clean: bool,
    draw: Draw,
}

impl<D: Document> Node<D> {
    pub(crate) fn new(index: usize, scenario: &Scenario) -> Self {
        let seed = scenario.seed;
        let mut keys = Draw::new(seed, &format!("key {index}"));
        Self {
            index,
            spec: scenario.nodes[index].clone(),
            key: NodeKey::from_bytes(keys.bytes()),
            bounds: scenario.bounds.clone(),
            disk: Disk::new(scenario.disk.clone(), Draw::new(seed, &format!("disk {index}"))),
            running: None,
            paused: 0,
            held_down: 0,
            moves: 0,
            restored: Instant::ZERO,
            starts: 0,
            clean: true,
            draw: Draw::new(seed, &format!("process {index}")),
        }
    }

    /// Its present address.
    pub(crate) fn address(&self) -> Address {
        own_address(self.index, self.moves)
    }

    /// Starts a process from what the disk shows; returns what it read.
    ///
    /// # Panics
    /// When one runs, or the engine refuses what it wrote itself.
    pub(crate) fn start(&mut self, nodes: usize, faults: Faults, now: Instant) -> Image {
        assert!(self.running.is_none(), "one process at a time");
        let image = self.disk.visible();
        let mut recovered = Recovered::new(!self.clean);
        for table in [Table::Meta, Table::Documents] {
            for ((_, key), value) in image.iter().filter(|((of, _), _)| *of == table) {
                recovered.push(table, key, value).expect("an engine reads what it wrote");
            }
        }
        let config = self.config();
        let seed = self.draw.bytes();
        let mut engine = Engine::new(config, recovered, seed, faults, now);
        engine.join(self.seeds(nodes), now);
        self.starts += 1;
        self.clean = false;
        self.running = Some(Running {
            engine,
            start: self.starts,
            since: now,
            edits: BTreeMap::new(),
            reads: BTreeMap::new(),
            wake_at: None,
            accepted: 0,
            idle_wakes: 0,
        });
        image
    }

    /// Ends the process; what it had in memory is gone.
    pub(crate) fn stop(&mut self, clean: bool) -> Option<Running<D>> {
        self.clean = clean;
        self.running.take()
    }

    fn config(&self) -> Config {
        Config {
            node_key: self.key.clone(),
            name: self.spec.name.clone(),
            zone: self.spec.zone.clone(),
            addresses: vec![self.address()],
            version: "sim".to_owned(),
            url: format!("http://{}", self.spec.name),
            cluster_name: "sim".to_owned(),
            cluster_key: None,
            membership: knot_engine::membership::Config::default(),
            limits: Limits {
                window_bytes: self.bounds.window_bytes,
                document_cache_bytes: self.bounds.document_cache_bytes,
                log_cache_bytes: self.bounds.log_cache_bytes,
                orphans: self.bounds.orphans,
                ..Limits::default()
            },
        }
    }

    fn seeds(&self, nodes: usize) -> Vec<Address> {
        (0..nodes.min(SEEDS)).filter(|&seed| self.spec.own_seed || seed != self.index).map(seed_address).collect()
    }
}
