//! A scenario: all that a run is made of, as plain data.
//!
//! Topology, operations at their times, faults at their times, as a file or from a seed. Each fault carries its own end,
//! and each draw of the run comes from a stream of its own, so taking one entry out leaves the rest as it was.

mod bounds;
mod client;
mod fault;
mod file;
mod generate;
mod network;
mod plots;
pub(crate) mod words;

use knot_engine::Instant;
use knot_engine::documents::{DocumentId, Scope};
use serde::{Deserialize, Serialize};

pub use self::bounds::Bounds;
pub use self::client::ClientSpec;
pub(crate) use self::fault::RESTART_AFTER;
pub use self::fault::{Fault, FaultKind};
pub use self::file::ScenarioError;
pub(crate) use self::generate::zones;
pub use self::generate::{Length, Profile, Shape};
pub use self::network::{LinkSpec, NetworkSpec, Spread};

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
    /// The version of this format.
    #[serde(default = "current_format")]
    pub format: u32,
    /// Where every draw comes from.
    #[serde(default)]
    pub seed: u64,
    /// What is replicated.
    #[serde(default)]
    pub document: DocumentKind,
    /// Whether datagrams are sealed as a server seals them. It costs time, and only corruption needs it.
    #[serde(default)]
    pub sealed: bool,
    /// Whether membership works and waits a fifth of its usual times, so that a short run sees what a long one does.
    #[serde(default)]
    pub hasty: bool,
    /// Whether the run is to fail whatever happens, to prove that a failure is noticed.
    #[serde(default)]
    pub canary: bool,
    /// From here on nothing goes wrong and nobody writes, in milliseconds.
    pub quiet_at_ms: u64,
    /// Servers that alone are healed then, while what is wrong with the others stays wrong for ever. Empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub core: Vec<usize>,
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
    /// Who asks at intervals.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<ClientSpec>,
    /// Whether people make, change and delete users meanwhile. It takes whole servers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub administrators: bool,
    /// Whether people make, start, move and delete spaces meanwhile. It takes whole servers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tenants: bool,
    /// What goes wrong.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// What clients ask for, in time order.
    #[serde(default)]
    pub operations: Vec<Operation>,
}

impl Scenario {
    /// From when on nothing goes wrong.
    pub(crate) fn quiet_at(&self) -> Instant {
        Instant::from_micros(self.quiet_at_ms * 1_000)
    }
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
    /// How far its wall clock is off, in seconds.
    #[serde(default, skip_serializing_if = "is_default")]
    pub clock_offset_s: i64,
    /// How much faster its clock runs than time, in millionths.
    #[serde(default, skip_serializing_if = "is_default")]
    pub clock_drift_ppm: i64,
    /// Whether it runs a later version, which says things besides that this one has never heard of.
    #[serde(default, skip_serializing_if = "is_default")]
    pub later_version: bool,
    /// Whether it sends what no engine makes: changes that are forged, and what is no change at all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hostile: bool,
}

impl NodeSpec {
    /// A server that is there from the beginning, with a clock that is right.
    #[must_use]
    pub fn new(name: &str, zone: &str) -> Self {
        Self {
            name: name.to_owned(),
            zone: zone.to_owned(),
            start_at_ms: 0,
            own_seed: false,
            clock_offset_s: 0,
            clock_drift_ppm: 0,
            later_version: false,
            hostile: false,
        }
    }

    /// Nothing about it makes others wait.
    fn be_well(&mut self) {
        (self.clock_drift_ppm, self.hostile) = (0, false);
    }
}

/// The version of the scenario format that this version writes.
pub const FORMAT: u32 = 1;

fn current_format() -> u32 {
    FORMAT
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
    /// Read it, and make an edit of some depth of what was read, if it is still that. Only engines alone are asked so.
    Patch,
    /// Read it.
    Read,
    /// What the application under test makes of it. Not in files: a file holds no application.
    #[serde(skip)]
    Own,
}

impl Action {
    pub(crate) fn is_own(self) -> bool {
        self == Self::Own
    }
}
