//! One server: its disk, and the process that runs its engine, as the server's driver would.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use knot_engine::documents::{Document, DocumentId};
use knot_engine::membership::{self, Records};
use knot_engine::seal::ClusterKey;
use knot_engine::{
    Address, Config, EditId, Engine, Faults, Instant, NodeId, NodeKey, ReadId, Recovered, Seed, SessionId, Table, Wall,
};

use crate::disk::{Disk, Folder, Image};
use crate::draw::Draw;
use crate::network::{own_address, seed_address};
use crate::scenario::{Bounds, NodeSpec, Scenario, Target};
use crate::workload;

/// Servers whose names are given to all as seeds.
pub(crate) const SEEDS: usize = 3;

/// The key of clusters whose datagrams are sealed, and under which whoever goes through others shakes hands.
pub(crate) const CLUSTER_KEY: &str = "0123456789abcdefghijklmnopqrstuv";

/// Of a thousand servers, those whose ids lie at an edge of what ids are divided into.
const EDGE_PER_MILLE: u64 = 200;

/// A server's clocks.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    drift_ppm: i64,
    /// How far the wall clock is off, in seconds.
    offset_s: i64,
    /// When somebody set the wall clock.
    pub(crate) set_at: Instant,
}

const MILLION: i64 = 1_000_000;

impl Clock {
    fn new(spec: &NodeSpec) -> Self {
        Self { drift_ppm: spec.clock_drift_ppm, offset_s: spec.clock_offset_s, set_at: Instant::ZERO }
    }

    /// What the monotonic clock shows at `now`.
    pub(crate) fn read(&self, now: Instant) -> Instant {
        if self.drift_ppm == 0 {
            return now;
        }
        Instant::from_micros(scale(now.as_micros(), MILLION + self.drift_ppm, MILLION))
    }

    /// What the wall clock shows at `now`.
    pub(crate) fn wall(&self, now: Instant) -> Wall {
        let since_ms = i64::try_from(self.read(now).as_micros() / 1_000).unwrap_or(i64::MAX);
        Wall(workload::WALL_ORIGIN_MS + since_ms + self.offset_s * 1_000)
    }

    /// How far it and another may drift apart in so long.
    pub(crate) fn drift_from(&self, other: &Self, time: Duration) -> Duration {
        let ppm = self.drift_ppm.unsigned_abs() + other.drift_ppm.unsigned_abs();
        let micros = time.as_micros() * u128::from(ppm) / u128::from(MILLION.unsigned_abs());
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// What it says of the write `id`, which is all that tells writes apart on the network.
    pub(crate) fn wall_of(&self, id: u32) -> Wall {
        workload::wall(id, self.offset_s)
    }

    /// The first moment at which it shows `local`, or later.
    pub(crate) fn shows_at(&self, local: Instant) -> Instant {
        if self.drift_ppm == 0 {
            return local;
        }
        let mut at = Instant::from_micros(scale(local.as_micros(), MILLION, MILLION + self.drift_ppm));
        while self.read(at) < local {
            at = at + Duration::from_micros(1);
        }
        at
    }
}

fn scale(micros: u64, by: i64, of: i64) -> u64 {
    let scaled = i128::from(micros) * i128::from(by) / i128::from(of);
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// Why a read was asked for.
#[derive(Clone, Debug)]
pub(crate) enum ReadFor {
    /// A client's, and when it asked.
    Client(Target, Instant),
    /// The application's, before it edits: the operation's place.
    Application(usize),
    /// A client's, before it edits what it reads: the operation's place.
    Patch(usize),
    /// The same client's, once it has.
    Edited(Target),
    /// The value of a document at the end.
    AuditValue,
    /// Somebody looks at what a hostile member has made.
    Passing,
    /// An operator has what is in quarantine looked at again.
    Review,
    /// And that of a document of which an earlier version has refused what counts.
    Release(DocumentId),
    /// The history of a document at the end.
    AuditHistory,
    /// The document as of changes in that history.
    AuditVersion,
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Running<D: Document> {
    pub(crate) engine: Engine<D>,
    pub(crate) start: u32,
    pub(crate) since: Instant,
    pub(crate) edits: BTreeMap<EditId, u32>,
    /// Those for which there was no room when they were asked.
    pub(crate) crowded: BTreeSet<EditId>,
    pub(crate) reads: BTreeMap<ReadId, ReadFor>,
    /// The earliest moment for which a wake is in the event queue.
    pub(crate) wake_at: Option<Instant>,
    /// Sessions it accepted; they have odd numbers.
    accepted: u64,
    /// Wakes in a row that came no later than the one before.
    pub(crate) idle_wakes: u32,
    /// What it has said of each member; at first what it read from its disk.
    pub(crate) told: BTreeMap<NodeId, membership::Status>,
    /// Where it has said that members are who have moved.
    pub(crate) moved: BTreeMap<NodeId, Vec<Address>>,
    /// When it stepped back before another process of its server.
    pub(crate) fenced: Option<Instant>,
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
    records: Records,
    pub(crate) disk: Disk,
    pub(crate) running: Option<Running<D>>,
    /// While the process is not scheduled: since one fault or more hold it.
    pub(crate) paused: u32,
    /// Faults that keep it down.
    pub(crate) held_down: u32,
    pub(crate) moves: u32,
    /// When it last did.
    pub(crate) moved_at: Instant,
    pub(crate) clock: Clock,
    /// Until when it is busy, where its processor is slow.
    pub(crate) busy_until: Instant,
    /// Whether it is to turn to what waits then.
    pub(crate) has_turn: bool,
    /// How long each event takes it, by the faults that slow it down.
    pub(crate) slow: Vec<Duration>,
    /// Storage operations until the process dies, and whether the machine loses power then.
    pub(crate) fuse: Option<(u64, bool)>,
    /// Fuses that have blown, and whose fault goes on.
    pub(crate) blown: u32,
    sealed: bool,
    hasty: bool,
    /// When its disk was last set back.
    pub(crate) restored: Instant,
    /// The machine on which another process of this server may run.
    pub(crate) double: Option<usize>,
    /// When such a process last ended.
    pub(crate) double_ended: Option<Instant>,
    /// Its own folder and key, and whether it stopped well, while it runs on a copy of another's.
    own: Option<(Folder, NodeKey, bool)>,
    /// Who last saw it failed, or gone.
    pub(crate) seen_gone_by: Option<usize>,
    starts: u32,
    clean: bool,
    keys: Draw,
    draw: Draw,
}

impl<D: Document> Node<D> {
    pub(crate) fn new(index: usize, scenario: &Scenario, records: &Records) -> Self {
        let seed = scenario.seed;
        let mut keys = Draw::new(seed, &format!("key {index}"));
        Self {
            index,
            spec: scenario.nodes[index].clone(),
            key: first_key(&mut keys, Draw::new(seed, &format!("edge {index}")).chance(EDGE_PER_MILLE)),
            keys,
            bounds: scenario.bounds.clone(),
            records: records.clone(),
            disk: Disk::new(scenario.disk.clone(), Draw::new(seed, &format!("disk {index}"))),
            running: None,
            paused: 0,
            held_down: 0,
            moves: 0,
            moved_at: Instant::ZERO,
            clock: Clock::new(&scenario.nodes[index]),
            busy_until: Instant::ZERO,
            has_turn: false,
            slow: Vec::new(),
            fuse: None,
            blown: 0,
            sealed: scenario.sealed,
            hasty: scenario.hasty,
            restored: Instant::ZERO,
            double: None,
            double_ended: None,
            own: None,
            seen_gone_by: None,
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
        let seed = self.draw.bytes();
        let mut engine = self.engine(&image, seed, faults, now);
        engine.join(self.seeds(nodes), self.clock.read(now));
        engine.set_wall(self.clock.wall(now), self.clock.read(now));
        self.starts += 1;
        self.clean = false;
        let told = engine.members().map(|member| (member.record.node, member.status)).collect();
        self.running = Some(Running {
            engine,
            start: self.starts,
            since: now,
            edits: BTreeMap::new(),
            crowded: BTreeSet::new(),
            reads: BTreeMap::new(),
            wake_at: None,
            accepted: 0,
            idle_wakes: 0,
            told,
            moved: BTreeMap::new(),
            fenced: None,
        });
        image
    }

    /// Somebody sets the wall clock.
    pub(crate) fn set_clock(&mut self, by_s: i64, now: Instant) {
        self.clock.offset_s += by_s;
        self.clock.set_at = now;
        if let Some(running) = &mut self.running {
            running.engine.set_wall(self.clock.wall(now), self.clock.read(now));
        }
    }

    fn engine(&self, image: &Image, seed: Seed, faults: Faults, now: Instant) -> Engine<D> {
        let mut recovered = Recovered::new(!self.clean);
        for table in [Table::Meta, Table::Documents] {
            for ((_, key), value) in image.iter().filter(|((of, _), _)| *of == table) {
                recovered.push(table, key, value).expect("an engine reads what it wrote");
            }
        }
        Engine::new(self.config(), recovered, seed, faults, self.clock.read(now))
    }

    /// An engine that knows what the disk says and nothing else. It is never run.
    pub(crate) fn read_anew(&self, faults: Faults, now: Instant) -> Engine<D> {
        self.engine(&self.disk.visible(), self.draw.clone().bytes(), faults, now)
    }

    /// The machine is gone: what takes its place has another key, and nothing on its disk.
    pub(crate) fn replace(&mut self) {
        self.key = NodeKey::from_bytes(self.keys.bytes());
        self.disk.lose();
        self.clean = true;
    }

    /// Another server's folder and key are put in the place of its own.
    pub(crate) fn wear(&mut self, folder: Folder, key: NodeKey) {
        let own = (self.disk.exchange(folder), std::mem::replace(&mut self.key, key), self.clean);
        self.own = Some(own);
        self.clean = false;
    }

    /// It has its own folder and key again; what it wore is deleted.
    pub(crate) fn take_off(&mut self) {
        if let Some((folder, key, clean)) = self.own.take() {
            self.disk.exchange(folder);
            (self.key, self.clean) = (key, clean);
        }
    }

    /// Counts a storage operation; whether the process dies at it, and whether with its machine.
    pub(crate) fn burn(&mut self) -> Option<bool> {
        let (left, power) = self.fuse?;
        self.fuse = (left > 1).then_some((left - 1, power));
        (left <= 1).then_some(power)
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
            cluster_keys: self.sealed.then(|| ClusterKey::new(CLUSTER_KEY).expect("a key of its length").into()),
            membership: self.membership(),
            limits: self.bounds.limits(),
        }
    }

    /// How its membership works and waits.
    pub(crate) fn membership(&self) -> membership::Config {
        membership::Config {
            records: self.records.clone(),
            full_mesh: self.bounds.full_mesh,
            ..if self.hasty { hasty() } else { membership::Config::default() }
        }
    }

    fn seeds(&self, nodes: usize) -> Vec<Address> {
        (0..nodes.min(SEEDS)).filter(|&seed| self.spec.own_seed || seed != self.index).map(seed_address).collect()
    }
}

/// A key; where it is to lie at an edge, one whose id is in the first or the last of the buckets in which tables of
/// members are compared: what is counted wrong shows there.
fn first_key(keys: &mut Draw, at_an_edge: bool) -> NodeKey {
    loop {
        let key = NodeKey::from_bytes(keys.bytes());
        let NodeId([first, ..]) = key.node_id();
        let bucket = usize::from(first) % membership::BUCKETS;
        if !at_an_edge || bucket == 0 || bucket == membership::BUCKETS - 1 {
            return key;
        }
    }
}

/// A membership that works and waits a fifth of its usual times. What is measured against round trips stays.
pub(crate) fn hasty() -> membership::Config {
    let usual = membership::Config::default();
    membership::Config {
        probe_interval: usual.probe_interval / 5,
        gossip_interval: usual.gossip_interval / 4,
        suspicion_min: usual.suspicion_min / 4,
        cut_off_hold: usual.cut_off_hold / 5,
        seed_retry: usual.seed_retry / 5,
        seed_retry_slow: usual.seed_retry_slow / 5,
        seed_refresh: usual.seed_refresh / 5,
        connect_retry_min: usual.connect_retry_min / 5,
        connect_retry_max: usual.connect_retry_max / 5,
        better_retry: usual.better_retry / 5,
        connect_courtesy: usual.connect_courtesy / 5,
        failed_retry: usual.failed_retry / 5,
        failed_patience: usual.failed_patience / 5,
        failed_probe: usual.failed_probe / 5,
        restored_grace: usual.restored_grace / 5,
        ..usual
    }
}
