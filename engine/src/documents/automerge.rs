//! Documents held by Automerge 0.12.
//!
//! The root map is the document: JSON objects are maps, arrays lists, strings scalar strings, integers 64-bit integers.
//! Automerge panics on hostile bytes and on some honest misuse, so: bytes reach it only through [`chunk`], foreign
//! changes only through [`trial`], the actor is set for every edit (cloning and forking randomise it), and changes leave
//! as uncompressed chunks, taken before Automerge deflates them.

mod chunk;
mod read;
mod trial;
mod write;

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, Change, ReadDoc};
use bytes::Bytes;
use serde_json::{Map, Value};

use super::gate::OPERATION_COUNTER_MAX;
use super::{
    Actor, CHANGE_DEPS_MAX, CHANGE_OPS_MAX, ChangeHeader, Conflict, Document, DocumentId, Edit, EditRefused, Malformed,
    Quarantine, Trial, json,
};
use crate::identity::ChangeHash;
use crate::time::Wall;

/// The commit message that makes an empty change a delete.
const DELETE_MESSAGE: &str = "delete";
/// Heap of a document with nothing but its genesis.
const WEIGHT_EMPTY: usize = 13_200;

/// A document held by Automerge.
#[derive(Clone, Debug)]
pub struct AutomergeDocument {
    /// In a box because it is 3.5 kB, and the engine keeps and hands on documents by value.
    doc: Box<Automerge>,
    /// Bytes of all changes applied.
    applied_bytes: usize,
}

impl Document for AutomergeDocument {
    fn genesis_hash(id: &DocumentId) -> ChangeHash {
        ChangeHash(genesis(id).hash().0)
    }

    fn header(bytes: &Bytes) -> Result<ChangeHeader, Malformed> {
        chunk::parse(bytes).map(|(_, header)| header)
    }

    fn new(id: &DocumentId) -> Self {
        let mut doc = Box::new(Automerge::new());
        doc.apply_changes([genesis(id)]).expect("the genesis applies to an empty document");
        Self { doc, applied_bytes: 0 }
    }

    fn apply(&mut self, changes: &[Bytes]) -> Result<(), Quarantine> {
        let parsed = changes
            .iter()
            .map(|bytes| chunk::parse(bytes).map(|(change, _)| change))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Quarantine::Apply)?;
        let doc = &mut self.doc;
        catch_unwind(AssertUnwindSafe(|| trial::apply(doc, parsed))).map_err(|_panic| Quarantine::Panic)??;
        self.applied_bytes += changes.iter().map(Bytes::len).sum::<usize>();
        Ok(())
    }

    fn trial(self, candidates: &[Bytes]) -> Result<Trial<Self>, Quarantine> {
        trial::run(self, candidates)
    }

    fn edit(&mut self, actor: &Actor, edit: &Edit, deleted: bool, wall: Wall) -> Result<Option<Bytes>, EditRefused> {
        if matches!(edit, Edit::Delete) && deleted {
            return Ok(None);
        }
        let heads = self.doc.get_heads();
        if heads.len() >= CHANGE_DEPS_MAX {
            return Err(EditRefused::TooLarge);
        }
        self.doc.set_actor(ActorId::from(&actor.0[..]));
        let options = CommitOptions::default().with_time(wall.0);
        let hash = match edit {
            Edit::Delete => Some(self.doc.empty_commit(options.with_message(DELETE_MESSAGE))),
            Edit::Put(_) | Edit::MergePatch(_) | Edit::JsonPatch(_) | Edit::Increment { .. } => {
                self.write(edit, deleted, options)?
            }
        };
        let Some(hash) = hash else { return Ok(None) };
        let change = self.doc.get_change_by_hash(&hash);
        let bytes =
            Bytes::copy_from_slice(change.as_ref().expect("a change that was just committed is there").raw_bytes());
        if within_limits(&bytes) {
            self.applied_bytes += bytes.len();
            Ok(Some(bytes))
        } else {
            *self.doc = self.doc.fork_at(&heads).expect("a document can go back to heads that it had");
            Err(EditRefused::TooLarge)
        }
    }

    fn value(&self) -> Value {
        Value::Object(self.members())
    }

    fn conflicts(&self) -> Vec<Conflict> {
        read::Conflicts::of(&*self.doc)
    }

    fn weight(&self) -> usize {
        WEIGHT_EMPTY + self.applied_bytes + self.applied_bytes / 2
    }
}

impl AutomergeDocument {
    /// Writes an edit that is not a delete and commits it; none when it changes nothing. On refusal nothing is written.
    fn write(
        &mut self,
        edit: &Edit,
        deleted: bool,
        options: CommitOptions,
    ) -> Result<Option<automerge::ChangeHash>, EditRefused> {
        let is_new = self.applied_bytes == 0;
        let present = self.members();
        let target = target(edit, || if deleted { Map::new() } else { present.clone() })?;
        let mut tx = self.doc.transaction();
        let mut written = match &target {
            Target::Value(members) if is_new => write::create(&mut tx, members),
            Target::Value(members) => write::put(&mut tx, &present, members),
            Target::Increment { tokens, by } => {
                let cleared = if deleted { write::put(&mut tx, &present, &Map::new()) } else { Ok(()) };
                cleared
                    .and_then(|()| write::increment(&mut tx, tokens, *by))
                    .and_then(|()| read::document(&tx).map_err(|_| EditRefused::TooDeep))
                    .and_then(|members| json::check(&Value::Object(members)))
            }
        };
        let ops = tx.pending_ops();
        if written.is_ok() && ops as u64 > CHANGE_OPS_MAX {
            written = Err(EditRefused::TooLarge);
        }
        match (written, ops) {
            (Err(refused), _) => {
                tx.rollback();
                Err(refused)
            }
            (Ok(()), 0) => {
                tx.rollback();
                Ok(deleted.then(|| self.doc.empty_commit(options)))
            }
            (Ok(()), _) => Ok(tx.commit_with(options).0),
        }
    }

    fn members(&self) -> Map<String, Value> {
        read::document(&*self.doc).unwrap_or_default()
    }
}

enum Target {
    Value(Map<String, Value>),
    Increment { tokens: Vec<String>, by: i64 },
}

/// What the edit asks for, checked against the limits; patches apply to `base`.
fn target(edit: &Edit, base: impl FnOnce() -> Map<String, Value>) -> Result<Target, EditRefused> {
    let value = match edit {
        Edit::Put(value) => {
            json::check(value)?;
            value.clone()
        }
        Edit::MergePatch(patch) => json::merge_patch(Value::Object(base()), patch)?,
        Edit::JsonPatch(patch) => json::json_patch(Value::Object(base()), patch)?,
        Edit::Increment { pointer, by } => {
            let tokens = json::pointer_tokens(pointer)
                .ok_or_else(|| EditRefused::Increment("the path is not a JSON pointer".to_owned()))?;
            return Ok(Target::Increment { tokens, by: *by });
        }
        Edit::Delete => Value::Object(Map::new()),
    };
    json::check(&value)?;
    match value {
        Value::Object(members) => Ok(Target::Value(members)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(EditRefused::NotAnObject(json::kind(&value)))
        }
    }
}

/// Whether every replica would admit the change that was just made.
fn within_limits(bytes: &[u8]) -> bool {
    chunk::last_op(bytes).is_some_and(|last_op| last_op <= OPERATION_COUNTER_MAX)
}

/// The change that a document begins with: empty, without dependencies, at time 0, by an actor that is a hash of the
/// document's id. Its bytes are put together here because that is cheaper than having Automerge make them.
fn genesis(id: &DocumentId) -> Change {
    const LAYOUT: &str = "knot 2026 automerge genesis, layout 1";
    const ACTOR_LEN: u8 = 16;
    let hash = blake3::derive_key(LAYOUT, id.to_string().as_bytes());
    let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 1, 8 + ACTOR_LEN];
    chunk.extend([0, ACTOR_LEN]);
    chunk.extend(hash.iter().take(ACTOR_LEN.into()));
    let (seq, start_op, time, message, other_actors, columns) = (1, 1, 0, 0, 0, 0);
    chunk.extend([seq, start_op, time, message, other_actors, columns]);
    Change::try_from(&chunk[..]).expect("the genesis chunk is well formed")
}
