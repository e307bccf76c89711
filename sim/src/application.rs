//! Your own application under test: what its clients ask for, how that changes documents, and what must hold then.
//!
//! ```no_run
//! # use knot_sim::application::{Cluster, Draws, Finished, Planned, Workload, rehearse};
//! # use knot_engine::documents::{DocumentId, Edit};
//! # use serde_json::Value;
//! # struct ShoppingList;
//! # impl Workload for ShoppingList {
//! #     type Command = ();
//! #     fn generate(&self, _: &mut Draws, _: &Cluster) -> Vec<Planned<()>> { Vec::new() }
//! #     fn document(&self, _: &()) -> DocumentId { DocumentId::new(knot_engine::documents::Scope::Global, "lists", "ours").unwrap() }
//! #     fn apply(&self, _: &(), _: Option<&Value>) -> Option<Edit> { None }
//! #     fn check(&self, _: &Finished<()>) -> Result<(), String> { Ok(()) }
//! # }
//! // In a test: five hundred clusters, each with faults of its own.
//! rehearse(ShoppingList).seeds(0..500).run();
//! ```
//!
//! Engines, disks and network are those of the simulator's own campaigns, and so are the promises that are checked
//! beside yours. `sim/examples/shopping-list` is a whole application.

mod bound;
mod rehearsal;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use knot_engine::documents::{DocumentId, Edit};
use serde_json::Value;

pub(crate) use self::bound::{Application, Bound};
pub use self::rehearsal::{Rehearsal, SEED_VARIABLE, rehearse};
use crate::draw::Draw;

/// An application that keeps its data in documents.
pub trait Workload {
    /// What a client asks the application for.
    type Command: Clone + Debug;

    /// The commands of one run, in any order. All randomness comes from `draws`, so that a seed is a run.
    fn generate(&self, draws: &mut Draws, cluster: &Cluster) -> Vec<Planned<Self::Command>>;

    /// The document that a command is about.
    fn document(&self, command: &Self::Command) -> DocumentId;

    /// How a command changes its document, which is `document` on the server that was asked; none where it does not exist.
    /// None is returned where the command has nothing to do.
    fn apply(&self, command: &Self::Command, document: Option<&Value>) -> Option<Edit>;

    /// Whether the application's promises hold, when faults have stopped and all servers are alike.
    ///
    /// # Errors
    /// With what does not hold, for people.
    fn check(&self, finished: &Finished<Self::Command>) -> Result<(), String>;
}

/// A command with its time and its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned<C> {
    /// When a client asks, since the beginning.
    pub at: Duration,
    /// Which server it asks, by its place in [`Cluster::servers`].
    pub server: usize,
    /// What for.
    pub command: C,
}

/// The cluster of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its servers.
    pub servers: Vec<Server>,
    /// Until when clients may ask: then faults stop, too.
    pub until: Duration,
}

/// A server of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
}

/// Random draws of a run.
#[derive(Debug)]
pub struct Draws(Draw);

impl Draws {
    pub(crate) fn new(draw: Draw) -> Self {
        Self(draw)
    }

    /// A number from `low` up to but not including `high`; `low` when the range is empty.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.between(low, high)
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.0.chance(percent.saturating_mul(10))
    }

    /// One of `items`.
    ///
    /// # Panics
    /// When there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        self.0.pick(items)
    }
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server said that it is done: it must stand.
    Acknowledged,
    /// There was nothing to do.
    Nothing,
    /// The server refused: nothing of it may show.
    Refused,
    /// The server died, or its only disk was lost: it may have been done.
    Unknown,
    /// No server was there to ask.
    NotAsked,
}

/// A command and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done<C> {
    /// The command, with its time and server.
    pub planned: Planned<C>,
    /// What its client knows.
    pub outcome: Outcome,
}

/// A run when all has settled.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished<C> {
    /// All commands, in the order of their times.
    pub commands: Vec<Done<C>>,
    /// The documents that exist, by server: the same on all that hold them, which has been checked before.
    pub documents: BTreeMap<usize, BTreeMap<DocumentId, Value>>,
}

impl<C> Finished<C> {
    /// A document as all servers that hold it show it.
    #[must_use]
    pub fn document(&self, id: &DocumentId) -> Option<&Value> {
        self.documents.values().find_map(|documents| documents.get(id))
    }
}
