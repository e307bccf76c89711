//! Documents held by Automerge 0.12.
//!
//! The root map is the document: JSON objects are maps, arrays lists, strings scalar strings, integers 64-bit integers.
//! Automerge panics on hostile bytes and on some honest misuse, so: bytes reach it only through [`chunk`], foreign
//! changes only through [`trial`], the actor is set for every edit (cloning and forking randomise it), and changes leave
//! as uncompressed chunks, taken before Automerge deflates them.

mod chunk;
mod encode;
mod read;
mod trial;
mod write;

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, Change, ReadDoc};
use bytes::Bytes;
use serde_json::{Map, Value};

use super::gate::OPERATION_COUNTER_MAX;
use super::{
    Actor, Authored, CHANGE_DEPS_MAX, CHANGE_OPS_MAX, ChangeHeader, ChangeKind, Conflict, Document, DocumentId, Edit,
    EditRefused, Malformed, Quarantine, Trial, json,
};
use crate::identity::ChangeHash;
use crate::time::Wall;

/// The commit message that makes an empty change a delete.
const DELETE_MESSAGE: &str = "delete";
/// Heap of a document with nothing but its genesis, once Automerge holds it.
const WEIGHT_EMPTY: usize = 13_200;
/// Heap of a document that Automerge does not hold yet, besides its one change.
const WEIGHT_UNOPENED: usize = 128;

/// A document held by Automerge, from the moment that takes more than its first change.
///
/// Many documents are created and then left alone. Automerge's form of them takes 13 kB and most of the time of a write,
/// so a new document, and one that was just created here, do without.
#[derive(Clone, Debug)]
pub struct AutomergeDocument {
    id: DocumentId,
    /// In a box because it is 3.5 kB, and the engine keeps and hands on documents by value.
    doc: Option<Box<Automerge>>,
    /// The change that created the document, while there is no `doc` to hold it.
    creation: Option<Bytes>,
    /// Bytes of all changes applied.
    applied_bytes: usize,
}

impl Document for AutomergeDocument {
    fn genesis_hash(id: &DocumentId) -> ChangeHash {
        genesis(id).1
    }

    fn header(bytes: &Bytes) -> Result<ChangeHeader, Malformed> {
        chunk::parse(bytes).map(|(_, header)| header)
    }

    fn new(id: &DocumentId) -> Self {
        Self { id: id.clone(), doc: None, creation: None, applied_bytes: 0 }
    }

    fn apply(&mut self, changes: &[Bytes]) -> Result<(), Quarantine> {
        if changes.is_empty() {
            return Ok(());
        }
        let parsed = changes
            .iter()
            .map(|bytes| chunk::parse(bytes).map(|(change, _)| change))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Quarantine::Apply)?;
        catch_unwind(AssertUnwindSafe(|| trial::apply(self.open(), parsed))).map_err(|_panic| Quarantine::Panic)??;
        self.applied_bytes += changes.iter().map(Bytes::len).sum::<usize>();
        Ok(())
    }

    fn trial(self, candidates: &[Bytes]) -> Result<Trial<Self>, Quarantine> {
        trial::run(self, candidates)
    }

    fn edit(&mut self, actor: &Actor, edit: &Edit, deleted: bool, wall: Wall) -> Result<Option<Authored>, EditRefused> {
        if matches!(edit, Edit::Delete) && deleted {
            return Ok(None);
        }
        let is_unwritten = self.doc.is_none() && self.creation.is_none();
        if is_unwritten && let Target::Value(members) = target(edit, Map::new)? {
            return self.create(actor, &members, deleted, wall);
        }
        self.edit_opened(actor, edit, deleted, wall)
    }

    fn value(&mut self) -> Value {
        Value::Object(members(self.open()))
    }

    fn conflicts(&mut self) -> Vec<Conflict> {
        read::Conflicts::of(&*self.open())
    }

    fn weight(&self) -> usize {
        match &self.doc {
            Some(_) => WEIGHT_EMPTY + self.applied_bytes + self.applied_bytes / 2,
            None => WEIGHT_UNOPENED + self.applied_bytes,
        }
    }
}

impl AutomergeDocument {
    /// The document as Automerge holds it. A panic on the way leaves it as it was.
    fn open(&mut self) -> &mut Automerge {
        let doc = self.doc.get_or_insert_with(|| first(&self.id, self.creation.as_ref()));
        self.creation = None;
        doc
    }

    /// The first edit of a document that Automerge does not hold.
    fn create(
        &mut self,
        actor: &Actor,
        members: &Map<String, Value>,
        deleted: bool,
        wall: Wall,
    ) -> Result<Option<Authored>, EditRefused> {
        if members.is_empty() && !deleted {
            return Ok(None);
        }
        let authored = encode::creation(Self::genesis_hash(&self.id), actor, members, wall)?;
        self.applied_bytes = authored.chunk.len();
        self.creation = Some(authored.chunk.clone());
        Ok(Some(authored))
    }

    fn edit_opened(
        &mut self,
        actor: &Actor,
        edit: &Edit,
        deleted: bool,
        wall: Wall,
    ) -> Result<Option<Authored>, EditRefused> {
        let is_unwritten = self.applied_bytes == 0;
        let doc = self.open();
        let heads = doc.get_heads();
        if heads.len() >= CHANGE_DEPS_MAX {
            return Err(EditRefused::TooLarge);
        }
        doc.set_actor(ActorId::from(&actor.0[..]));
        let options = CommitOptions::default().with_time(wall.0);
        let (hash, kind) = match edit {
            Edit::Delete => (Some(doc.empty_commit(options.with_message(DELETE_MESSAGE))), ChangeKind::Delete),
            Edit::Put(_) | Edit::MergePatch(_) | Edit::JsonPatch(_) | Edit::Increment { .. } => {
                (write(doc, edit, is_unwritten, deleted, options)?, ChangeKind::Edit)
            }
        };
        let Some(hash) = hash else { return Ok(None) };
        let change = doc.get_change_by_hash(&hash);
        let chunk =
            Bytes::copy_from_slice(change.as_ref().expect("a change that was just committed is there").raw_bytes());
        let header = chunk::own_header(&chunk, ChangeHash(hash.0), kind)
            .ok()
            .filter(|header| header.start_op.saturating_add(header.ops) <= OPERATION_COUNTER_MAX);
        let Some(header) = header else {
            *doc = doc.fork_at(&heads).expect("a document can go back to heads that it had");
            return Err(EditRefused::TooLarge);
        };
        self.applied_bytes += chunk.len();
        Ok(Some(Authored { chunk, header }))
    }
}

/// A document that has nothing but its genesis and the change that created it.
fn first(id: &DocumentId, creation: Option<&Bytes>) -> Box<Automerge> {
    let (genesis, _) = genesis(id);
    let chunks = std::iter::once(&genesis[..]).chain(creation.map(|chunk| &chunk[..]));
    let changes = chunks.map(|chunk| Change::try_from(chunk).expect("what was encoded here is a change"));
    let mut doc = Box::new(Automerge::new());
    doc.apply_changes(changes).expect("they apply to an empty document");
    doc
}

/// Writes an edit that is not a delete and commits it; none when it changes nothing. On refusal nothing is written.
fn write(
    doc: &mut Automerge,
    edit: &Edit,
    is_unwritten: bool,
    deleted: bool,
    options: CommitOptions,
) -> Result<Option<automerge::ChangeHash>, EditRefused> {
    let present = members(doc);
    let target = target(edit, || if deleted { Map::new() } else { present.clone() })?;
    let mut tx = doc.transaction();
    let mut written = match &target {
        Target::Value(members) if is_unwritten => write::create(&mut tx, members),
        Target::Value(members) => write::put(&mut tx, &present, members),
        Target::Increment { tokens, by } => {
            let cleared = if deleted { write::put(&mut tx, &present, &Map::new()) } else { Ok(()) };
            cleared
                .and_then(|()| write::increment(&mut tx, tokens, *by))
                .and_then(|()| read::document(&tx).map_err(|_| EditRefused::TooDeep))
                .and_then(|members| json::check(&Value::Object(members)))
        }
        Target::Nothing => Ok(()),
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
            Ok(deleted.then(|| doc.empty_commit(options)))
        }
        (Ok(()), _) => Ok(tx.commit_with(options).0),
    }
}

fn members(doc: &Automerge) -> Map<String, Value> {
    read::document(doc).unwrap_or_default()
}

/// What an edit asks for.
enum Target<'a> {
    Value(Cow<'a, Map<String, Value>>),
    Increment { tokens: Vec<String>, by: i64 },
    Nothing,
}

/// What the edit asks for, checked against the limits; patches apply to `base`.
fn target(edit: &Edit, base: impl FnOnce() -> Map<String, Value>) -> Result<Target<'_>, EditRefused> {
    let value = match edit {
        Edit::Put(value) => Cow::Borrowed(value),
        Edit::MergePatch(patch) => Cow::Owned(json::merge_patch(Value::Object(base()), patch)?),
        Edit::JsonPatch(patch) => Cow::Owned(json::json_patch(Value::Object(base()), patch)?),
        Edit::Increment { pointer, by } => {
            let tokens = json::pointer_tokens(pointer)
                .ok_or_else(|| EditRefused::Increment("the path is not a JSON pointer".to_owned()))?;
            return Ok(Target::Increment { tokens, by: *by });
        }
        Edit::Delete => return Ok(Target::Nothing),
    };
    json::check(&value)?;
    match value {
        Cow::Borrowed(Value::Object(members)) => Ok(Target::Value(Cow::Borrowed(members))),
        Cow::Owned(Value::Object(members)) => Ok(Target::Value(Cow::Owned(members))),
        Cow::Borrowed(other) => Err(EditRefused::NotAnObject(json::kind(other))),
        Cow::Owned(other) => Err(EditRefused::NotAnObject(json::kind(&other))),
    }
}

/// The change that a document begins with: empty, without dependencies, at time 0, by an actor that is a hash of the
/// document's id. Returns its chunk and hash.
fn genesis(id: &DocumentId) -> (Vec<u8>, ChangeHash) {
    const LAYOUT: &str = "knot 2026 automerge genesis, layout 1";
    const ACTOR_LEN: u8 = 16;
    let hash = blake3::derive_key(LAYOUT, id.to_string().as_bytes());
    let mut body = vec![0, ACTOR_LEN];
    body.extend(hash.iter().take(ACTOR_LEN.into()));
    let (seq, start_op, time, message, other_actors, columns) = (1, 1, 0, 0, 0, 0);
    body.extend([seq, start_op, time, message, other_actors, columns]);
    encode::seal(&body)
}
