//! Documents: JSON for people, a graph of immutable changes for the protocol.
//!
//! The protocol sees only [`ChangeHeader`]s: a change's hash, what it depends on, who wrote it. The content behind them is
//! a type parameter, [`Document`]: [`AutomergeDocument`] in the server, [`ModelDocument`] where a simulation is about the
//! protocol and not about JSON.
//!
//! - A document begins with a genesis change that every replica derives from its [`DocumentId`] alone. It is never stored
//!   or sent; every other change descends from it, so a change cannot be replayed into another document.
//! - A delete is an empty change that depends on the heads it observed. A document is deleted when all its heads are
//!   deletes: an edit that the delete had not seen is a head of its own, and revives it.
//! - Nothing here trusts bytes from a peer: see [`gate`].

mod automerge;
pub mod gate;
mod id;
mod json;
mod model;

use bytes::Bytes;
use serde_json::Value;

pub use self::automerge::AutomergeDocument;
pub use self::gate::{Judgement, Log, OPERATION_COUNTER_MAX, judge};
pub use self::id::{COLLECTION_BYTES_MAX, DocumentId, KEY_BYTES_MAX, NameError, Scope, ZONE_BYTES_MAX, is_label};
pub use self::model::ModelDocument;
use crate::identity::{ChangeHash, NodeId};
use crate::time::Wall;

/// Longest change in its uncompressed encoding, in bytes. With its document's name it fits a frame of 1 MiB.
pub const CHANGE_BYTES_MAX: usize = (1 << 20) - 4096;
/// Most operations in one change.
pub const CHANGE_OPS_MAX: u64 = 100_000;
/// Most changes that one change may name as its dependencies.
pub const CHANGE_DEPS_MAX: usize = 256;
/// Deepest nesting of objects and arrays in a document.
pub const JSON_DEPTH_MAX: usize = 32;
/// Most object members and array elements in a document, counted over all levels.
pub const JSON_NODES_MAX: usize = 50_000;

/// Who authored a change: the node, and which of its starts and documents.
///
/// The 24 bytes are `node id (16) | hash of (boot, document, generation) (8)`, so that an actor is bound to its node by
/// construction and a restored or cloned node never uses one twice. The genesis actor is 16 bytes and has no node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Actor(pub Bytes);

/// Length of an author's actor, in bytes.
pub const ACTOR_BYTES: usize = 24;

impl Actor {
    /// The actor that `node` writes `document` with during `boot`.
    /// `generation` rises when changes were made and then discarded before they were durable.
    #[must_use]
    pub fn new(node: NodeId, boot: &crate::identity::Boot, document: &DocumentId, generation: u32) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("knot 2026 automerge actor");
        hasher.update(&boot.0);
        hasher.update(&generation.to_le_bytes());
        hasher.update(document.to_string().as_bytes());
        let mut bytes = node.0.to_vec();
        bytes.extend(hasher.finalize().as_bytes().iter().take(ACTOR_BYTES - node.0.len()));
        Self(bytes.into())
    }

    /// The node it belongs to; none for a genesis actor or a malformed one.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        if self.0.len() != ACTOR_BYTES {
            return None;
        }
        self.0.first_chunk().copied().map(NodeId)
    }
}

/// What a change does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Writes values. Also what a merge of concurrent heads is.
    Edit,
    /// Deletes the document as its author saw it.
    Delete,
}

/// What the protocol knows of a change without opening its document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeHeader {
    /// SHA-256 of the chunk; computed from the bytes, never taken from a peer.
    pub hash: ChangeHash,
    /// The heads its author saw; at least one.
    pub deps: Vec<ChangeHash>,
    /// Its author.
    pub actor: Actor,
    /// Its author's count of changes to this document, from 1.
    pub seq: u64,
    /// The counter of its first operation.
    pub start_op: u64,
    /// How many operations it has.
    pub ops: u64,
    /// When its author's wall clock said it was made.
    pub wall: Wall,
    /// What it does.
    pub kind: ChangeKind,
    /// Actors of other changes that its operations refer to.
    pub refers_to: Vec<Actor>,
}

/// A change that was made here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authored {
    /// The change as it is stored and sent.
    pub chunk: Bytes,
    /// What [`Document::header`] reads from it.
    pub header: ChangeHeader,
}

/// Why bytes are not a change that this engine could ever store. The same bytes get the same answer everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Longer than [`CHANGE_BYTES_MAX`].
    #[error("change is over {CHANGE_BYTES_MAX} bytes")]
    TooLong,
    /// Not one uncompressed change chunk, one with trailing bytes, or one whose dependencies are none or not ascending.
    #[error("not one uncompressed change chunk")]
    NotAChange,
    /// The checksum does not match the bytes.
    #[error("checksum does not match")]
    Checksum,
    /// The chunk's columns do not decode, claim more than [`CHANGE_OPS_MAX`] operations, or hold what no document has.
    #[error("columns do not decode, or not within the limits")]
    Columns,
}

/// A trial that failed: the change is kept, counted and listed, and never applied.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize, thiserror::Error,
)]
#[non_exhaustive]
pub enum Quarantine {
    /// More than [`CHANGE_OPS_MAX`] operations, or more than [`CHANGE_DEPS_MAX`] dependencies.
    #[error("too many operations or dependencies")]
    TooLarge,
    /// `seq` is not one more than its author's greatest in this document.
    #[error("sequence number is not the author's next")]
    SequenceGap,
    /// `start_op` is not the one that an honest author of these dependencies would use.
    #[error("operation counter does not follow its dependencies")]
    OperationCounter,
    /// Its operations refer to an actor that no ancestor has.
    #[error("refers to an actor that its ancestors do not have")]
    UnknownActor,
    /// The actor is not of the form that binds it to a node.
    #[error("actor is not bound to a node")]
    UnboundActor,
    /// Depends on a change that is in quarantine.
    #[error("depends on a change in quarantine")]
    Ancestor,
    /// Applying it failed.
    #[error("does not apply")]
    Apply,
    /// Applying, saving or loading it panicked.
    #[error("applying it panicked")]
    Panic,
    /// The document did not survive being saved and loaded again.
    #[error("document does not reload")]
    Reload,
}

/// An edit as a client asks for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// Make the document equal this object; becomes a diff.
    Put(Value),
    /// RFC 7396.
    MergePatch(Value),
    /// RFC 6902.
    JsonPatch(Value),
    /// Add to the counter at a JSON pointer, making it one when it is a number or absent.
    Increment {
        /// RFC 6901 pointer to the counter.
        pointer: String,
        /// What to add; may be negative.
        by: i64,
    },
    /// Delete the document.
    Delete,
}

/// Why an edit cannot be made. All are the client's to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditRefused {
    /// A document is a JSON object.
    #[error("a document is a JSON object, not {0}")]
    NotAnObject(&'static str),
    /// Deeper than [`JSON_DEPTH_MAX`].
    #[error("nested deeper than {JSON_DEPTH_MAX} levels")]
    TooDeep,
    /// More than [`JSON_NODES_MAX`] members and elements.
    #[error("more than {JSON_NODES_MAX} members and elements")]
    TooManyNodes,
    /// The change that the edit makes would be over [`CHANGE_BYTES_MAX`] or [`CHANGE_OPS_MAX`].
    #[error("the edit makes a change of more than {CHANGE_BYTES_MAX} bytes or {CHANGE_OPS_MAX} operations")]
    TooLarge,
    /// The JSON Patch is malformed, or names a path that is not there.
    #[error("JSON Patch: {0}")]
    Patch(String),
    /// A `test` operation of the JSON Patch did not hold.
    #[error("JSON Patch: the test at operation {0} failed")]
    PatchTest(usize),
    /// The pointer does not lead to a number or a place where one can be.
    #[error("cannot increment: {0}")]
    Increment(String),
    /// A number that neither a 64-bit integer nor a double holds.
    #[error("number out of range at {0}")]
    Number(String),
}

/// Two or more values that were written to one place at once.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Conflict {
    /// RFC 6901 pointer to the place.
    pub pointer: String,
    /// Every value there; the first is the one that reads show.
    pub values: Vec<ConflictValue>,
}

/// One of the values in a [`Conflict`].
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ConflictValue {
    /// The value.
    pub value: Value,
    /// The node that wrote it, in hexadecimal.
    pub node: String,
}

/// A trial's outcome: the document with every change that passed, and those that did not, in the order given.
#[derive(Debug)]
pub struct Trial<D> {
    /// Holds every candidate that is not in `refused`.
    pub document: D,
    /// What goes to quarantine. A candidate that depends on a refused one is refused as well.
    pub refused: Vec<(ChangeHash, Quarantine)>,
}

/// A document type that the protocol can replicate.
///
/// All methods are pure: the same calls give the same bytes in any process.
pub trait Document: Sized + Send + std::fmt::Debug + 'static {
    /// The hash of the change that every replica of `id` starts from.
    fn genesis_hash(id: &DocumentId) -> ChangeHash;

    /// Reads a change's header, checking its size, form and checksum. Allocates in proportion to `bytes`, however
    /// hostile they are, and never panics.
    ///
    /// # Errors
    /// When the bytes are not one well-formed change.
    fn header(bytes: &Bytes) -> Result<ChangeHeader, Malformed>;

    /// The document with nothing but its genesis.
    fn new(id: &DocumentId) -> Self;

    /// Applies changes that passed a trial before (here or at their author), each after its dependencies.
    ///
    /// # Errors
    /// When they do not apply after all: what was stored is not what passed. The document is then unusable.
    fn apply(&mut self, changes: &[Bytes]) -> Result<(), Quarantine>;

    /// Applies `candidates` in order, each judged on its ancestors alone, and checks that the result can be saved and
    /// loaded. A panic inside is caught and counts against the change. Candidates have passed [`Document::header`]; one
    /// that has not is refused under an all-zero hash.
    ///
    /// # Errors
    /// When `self` itself turns out to be unusable; the caller rebuilds it from its log.
    fn trial(self, candidates: &[Bytes]) -> Result<Trial<Self>, Quarantine>;

    /// Makes an edit as `actor` and returns the change; none when the document already is as asked.
    /// The document holds the change afterwards. `deleted` says that all present heads are deletes: the edit starts
    /// from an empty object.
    ///
    /// # Errors
    /// When the edit cannot be made; the document is as before.
    fn edit(&mut self, actor: &Actor, edit: &Edit, deleted: bool, wall: Wall) -> Result<Option<Authored>, EditRefused>;

    /// The document as JSON. Concurrent maps at one place read as their union. Changes nothing but what is in memory, as
    /// does [`Document::conflicts`].
    fn value(&mut self) -> Value;

    /// Every place that holds more than one value.
    fn conflicts(&mut self) -> Vec<Conflict>;

    /// Bytes of heap it takes, roughly; bounds the cache.
    fn weight(&self) -> usize;
}
