//! A scenario: all that a run is made of, as plain data.
//!
//! Topology, operations at their times, faults at their times. Each fault carries its own end, and each draw of the run
//! comes from a stream of its own, so taking one entry out leaves the rest as it was.

mod file;
mod generate;

use knot_engine::Limits;
use knot_engine::documents::{DocumentId, Scope};
use serde::{Deserialize, Serialize};

pub use self::file::ScenarioError;
pub(crate) use self::generate::zones;
pub use self::generate::{Length, Profile, Shape};

/// Which [`Document`](knot_engine::documents::Document) is replicated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DocumentKind {
    /// A last-writer map: cheap, for runs that are about the protocol.
    #[default]
    Model,
    /// Automerge, as the server runs it.
    Automerge,
}

impl DocumentKind {
    /// As the command line spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Automerge => "automerge",
        }
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Where every draw comes from.
    #[serde(default)]
    pub seed: u64,
    /// What is replicated.
    #[serde(default)]
    pub document: DocumentKind,
    /// From here on nothing goes wrong and nobody writes, in milliseconds.
    pub quiet_at_ms: u64,
    /// The network when nothing is wrong with it.
    #[serde(default)]
    pub network: NetworkSpec,
    /// The disks when nothing is wrong with them.
    #[serde(default)]
    pub disk: DiskSpec,
    /// How much each server may keep and send.
    #[serde(default)]
    pub bounds: Bounds,
    /// The servers.
    pub nodes: Vec<NodeSpec>,
    /// What goes wrong.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// What clients ask for, in time order.
    #[serde(default)]
    pub operations: Vec<Operation>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// When it first starts.
    #[serde(default)]
    pub start_at_ms: u64,
    /// Whether its own name is among the seeds it is given, as in a configuration that all servers share.
    #[serde(default)]
    pub own_seed: bool,
}

/// What packets go through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkSpec {
    /// One way within a zone, in microseconds.
    pub near_us: u64,
    /// One way between zones, in microseconds, by the greater zone number, then the lesser; zones are numbered in the
    /// order of their names. A file may leave out what is as usual.
    pub far_us: Vec<Vec<u64>>,
    /// Up to this much more, in per cent of the latency.
    pub jitter_percent: u64,
    /// Datagrams lost of a thousand.
    pub loss_per_mille: u64,
    /// Datagrams that arrive twice, of a thousand.
    pub duplicate_per_mille: u64,
    /// Datagrams that are overtaken, of a thousand.
    pub reorder_per_mille: u64,
}

impl Default for NetworkSpec {
    fn default() -> Self {
        Self {
            near_us: 300,
            far_us: Vec::new(),
            jitter_percent: 5,
            loss_per_mille: 0,
            duplicate_per_mille: 0,
            reorder_per_mille: 0,
        }
    }
}

/// What a commit takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskSpec {
    /// Least time of a commit, in microseconds.
    pub commit_min_us: u64,
    /// Greatest time of a commit, in microseconds.
    pub commit_max_us: u64,
}

impl Default for DiskSpec {
    fn default() -> Self {
        Self { commit_min_us: 60, commit_max_us: 300 }
    }
}

/// Bounds of a server that are made small in some runs, so that what happens at them happens often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// Bytes of changes in one answer to a repair.
    pub window_bytes: usize,
    /// Bytes of materialised documents.
    pub document_cache_bytes: usize,
    /// Bytes of document logs.
    pub log_cache_bytes: usize,
    /// Changes whose dependencies are missing.
    pub orphans: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        let own = Limits::default();
        Self {
            window_bytes: own.window_bytes,
            document_cache_bytes: own.document_cache_bytes,
            log_cache_bytes: own.log_cache_bytes,
            orphans: own.orphans,
        }
    }
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Names the write for ever: it is in the value that is written and in the change's time.
    pub id: u32,
    /// When, in microseconds.
    pub at_us: u64,
    /// Of which server.
    pub node: usize,
    /// What.
    pub action: Action,
    /// How many peers must hold it before the answer.
    #[serde(default)]
    pub replicas: usize,
    /// About which document.
    pub target: Target,
}

/// A document's name as data.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The zone that alone holds it; none for a global one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its collection.
    pub collection: String,
    /// Its key.
    pub key: String,
}

impl Target {
    /// The engine's name of it.
    ///
    /// # Panics
    /// When a scenario file holds a name that no document can have.
    #[must_use]
    pub fn id(&self) -> DocumentId {
        DocumentId::new(self.scope(), &self.collection, &self.key).expect("a scenario's documents have valid names")
    }

    /// Which servers hold it.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match &self.zone {
            Some(zone) => Scope::Zone(zone.as_str().into()),
            None => Scope::Global,
        }
    }

    /// Whether a server in `zone` holds it.
    #[must_use]
    pub fn is_held_in(&self, zone: &str) -> bool {
        self.zone.as_deref().is_none_or(|held| held == zone)
    }

    /// Whether its fields are only ever added to, so that each acknowledged one must still be there at the end.
    #[must_use]
    pub fn only_grows(&self) -> bool {
        self.collection.ends_with(GROWING)
    }
}

/// How the names of collections end whose documents are never overwritten or deleted.
pub const GROWING: &str = "notes";
/// How the names of zone-scoped collections begin; the zone and a dot follow. No other name or value holds it, so that it
/// gives away a document that leaves its zone.
pub const ZONE_MARK: &str = "only-in-";

/// What is done to a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Put an object, provided that there is no document.
    Create,
    /// Put a nested object, provided that there is no document.
    CreateNested,
    /// Put an object.
    Put,
    /// Merge a field of its own into it.
    Merge,
    /// Merge a field of its own into a nested object.
    Nest,
    /// Increment a counter.
    Increment,
    /// Delete it.
    Delete,
    /// Read it.
    Read,
}

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When it begins, in milliseconds.
    pub at_ms: u64,
    /// How long it lasts; none for a server that never comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// What.
    #[serde(flatten)]
    pub kind: FaultKind,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FaultKind {
    /// Nothing passes from `left` to `right`, nor back unless `one_way`.
    Partition {
        /// One side.
        left: Vec<usize>,
        /// The other.
        right: Vec<usize>,
        /// Whether packets from right to left still pass.
        one_way: bool,
    },
    /// The process dies and is started again.
    Crash {
        /// Whose.
        node: usize,
        /// True when the machine loses power: what was not synced is gone, and nothing refuses connections meanwhile.
        power: bool,
        /// Whether it comes back at another address.
        moves: bool,
    },
    /// The process leaves, stops and is started again.
    Stop {
        /// Whose.
        node: usize,
        /// Whether it comes back at another address.
        moves: bool,
    },
    /// The disk is copied at the beginning; at the end the machine loses power and starts from the copy.
    Restore {
        /// Whose.
        node: usize,
        /// How long it stays down, in milliseconds.
        down_ms: u64,
    },
    /// The process is not scheduled.
    Pause {
        /// Whose.
        node: usize,
    },
    /// More datagrams are lost.
    Loss {
        /// Of a thousand.
        per_mille: u64,
    },
    /// More datagrams arrive twice.
    Duplicate {
        /// Of a thousand.
        per_mille: u64,
    },
    /// More datagrams are overtaken.
    Reorder {
        /// Of a thousand.
        per_mille: u64,
    },
    /// All packets to and from a server take longer.
    Lag {
        /// Whose.
        node: usize,
        /// How much, in milliseconds.
        extra_ms: u64,
    },
    /// A sync fails: what it covered can be read but is not durable. The process stops and is started again.
    FsyncFails {
        /// Whose.
        node: usize,
        /// Whether the machine loses power at the end.
        power: bool,
    },
    /// No room for writes.
    DiskFull {
        /// Whose.
        node: usize,
    },
    /// Commits take longer.
    SlowDisk {
        /// Whose.
        node: usize,
        /// How long, in milliseconds.
        commit_ms: u64,
    },
    /// Every stream of a server is reset.
    Reset {
        /// Whose.
        node: usize,
    },
}

impl Fault {
    /// When it ends, in milliseconds; none when it does not.
    #[must_use]
    pub fn ends_at_ms(&self) -> Option<u64> {
        self.for_ms.map(|lasting| self.at_ms + lasting)
    }
}
