//! A last-writer map with a change format of its own, for simulations that are about the protocol and not about JSON.
//!
//! Members of the top level are written whole; the write with the greatest (operation counter, actor) stands, so replicas
//! that hold the same changes agree whatever order they came in. It has no conflicts to show and nothing that could
//! panic, and it authors by the same rules as Automerge: on all heads, naming its own last change, counters contiguous.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::gate::OPERATION_COUNTER_MAX;
use super::{
    Actor, Authored, CHANGE_BYTES_MAX, CHANGE_DEPS_MAX, CHANGE_OPS_MAX, ChangeHeader, ChangeKind, Conflict, Document,
    DocumentId, Edit, EditRefused, Malformed, Quarantine, Trial, json,
};
use crate::identity::ChangeHash;
use crate::time::Wall;

const MAGIC: [u8; 4] = *b"knt1";
/// Heap of a document with nothing but its genesis.
const WEIGHT_EMPTY: usize = 400;

/// A map in which the last write to a member stands.
#[derive(Clone, Debug, Default)]
pub struct ModelDocument {
    members: BTreeMap<String, Written>,
    heads: BTreeSet<ChangeHash>,
    known: BTreeSet<ChangeHash>,
    authors: BTreeMap<Actor, (u64, ChangeHash)>,
    last_op: u64,
    applied_bytes: usize,
}

/// The write that stands for a member; without a value where it was removed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Written {
    counter: u64,
    actor: Actor,
    value: Option<String>,
}

/// A change as it is encoded, behind [`MAGIC`].
#[derive(Debug, Serialize, Deserialize)]
struct Change {
    deps: Vec<[u8; 32]>,
    actor: Vec<u8>,
    seq: u64,
    start_op: u64,
    wall: i64,
    delete: bool,
    writes: Vec<(String, Option<String>)>,
}

impl Document for ModelDocument {
    fn genesis_hash(id: &DocumentId) -> ChangeHash {
        ChangeHash(blake3::derive_key("knot 2026 model genesis", id.to_string().as_bytes()))
    }

    fn header(bytes: &Bytes) -> Result<ChangeHeader, Malformed> {
        parse(bytes).map(|(_, header)| header)
    }

    fn new(id: &DocumentId) -> Self {
        let genesis = Self::genesis_hash(id);
        Self { heads: BTreeSet::from([genesis]), known: BTreeSet::from([genesis]), ..Self::default() }
    }

    fn apply(&mut self, changes: &[Bytes]) -> Result<(), Quarantine> {
        for bytes in changes {
            let (change, header) = parse(bytes).map_err(|_| Quarantine::Apply)?;
            self.admit(change, &header, bytes.len())?;
        }
        Ok(())
    }

    fn trial(mut self, candidates: &[Bytes]) -> Result<Trial<Self>, Quarantine> {
        let mut refused: Vec<(ChangeHash, Quarantine)> = Vec::new();
        for bytes in candidates {
            let Ok((change, header)) = parse(bytes) else {
                refused.push((ChangeHash([0; 32]), Quarantine::Apply));
                continue;
            };
            let hash = header.hash;
            let descends = |(culprit, _): &(ChangeHash, Quarantine)| header.deps.contains(culprit);
            if refused.iter().any(descends) {
                refused.push((hash, Quarantine::Ancestor));
            } else if let Err(reason) = self.admit(change, &header, bytes.len()) {
                refused.push((hash, reason));
            }
        }
        Ok(Trial { document: self, refused })
    }

    fn edit(&mut self, actor: &Actor, edit: &Edit, deleted: bool, wall: Wall) -> Result<Option<Authored>, EditRefused> {
        let is_delete = matches!(edit, Edit::Delete);
        let writes = if is_delete { Vec::new() } else { self.writes(edit, deleted)? };
        let changes_something = if is_delete { !deleted } else { deleted || !writes.is_empty() };
        if !changes_something {
            return Ok(None);
        }
        let change = self.author(actor, writes, is_delete, wall);
        let mut bytes = MAGIC.to_vec();
        bytes.extend(postcard::to_stdvec(&change).map_err(|_| EditRefused::TooLarge)?);
        let bytes = Bytes::from(bytes);
        let header = header(&change, &bytes);
        let last_op = header.start_op.saturating_add(header.ops);
        if bytes.len() > CHANGE_BYTES_MAX
            || header.ops > CHANGE_OPS_MAX
            || header.deps.len() > CHANGE_DEPS_MAX
            || last_op > OPERATION_COUNTER_MAX
        {
            return Err(EditRefused::TooLarge);
        }
        self.admit(change, &header, bytes.len()).map_err(|_| EditRefused::TooLarge)?;
        Ok(Some(Authored { chunk: bytes, header }))
    }

    fn value(&mut self) -> Value {
        Value::Object(self.present())
    }

    fn conflicts(&mut self) -> Vec<Conflict> {
        Vec::new()
    }

    fn weight(&self) -> usize {
        WEIGHT_EMPTY + 2 * self.applied_bytes
    }
}

impl ModelDocument {
    fn present(&self) -> Map<String, Value> {
        self.members
            .iter()
            .filter_map(|(key, written)| {
                let value = serde_json::from_str(written.value.as_deref()?).unwrap_or(Value::Null);
                Some((key.clone(), value))
            })
            .collect()
    }

    /// The member writes that make the document what the edit asks for.
    fn writes(&self, edit: &Edit, deleted: bool) -> Result<Vec<(String, Option<String>)>, EditRefused> {
        let present = self.present();
        let base = if deleted { Map::new() } else { present.clone() };
        let target = target(edit, base)?;
        json::check(&target)?;
        let Value::Object(target) = target else {
            return Err(EditRefused::NotAnObject(json::kind(&target)));
        };
        let removed = present.keys().filter(|key| !target.contains_key(*key)).map(|key| (key.clone(), None));
        let set = target
            .iter()
            .filter(|(key, value)| present.get(*key) != Some(value))
            .map(|(key, value)| (key.clone(), Some(value.to_string())));
        Ok(removed.chain(set).collect())
    }

    fn author(&self, actor: &Actor, writes: Vec<(String, Option<String>)>, delete: bool, wall: Wall) -> Change {
        let mut deps = self.heads.clone();
        let mut seq = 1;
        if let Some((last_seq, last)) = self.authors.get(actor) {
            deps.insert(*last);
            seq = last_seq + 1;
        }
        Change {
            deps: deps.iter().map(|dep| dep.0).collect(),
            actor: actor.0.to_vec(),
            seq,
            start_op: self.last_op + 1,
            wall: wall.0,
            delete,
            writes,
        }
    }

    /// Applies a change whose dependencies are here; one that is here already changes nothing.
    fn admit(&mut self, change: Change, header: &ChangeHeader, bytes: usize) -> Result<(), Quarantine> {
        if self.known.contains(&header.hash) {
            return Ok(());
        }
        let known = header.deps.iter().all(|dep| self.known.contains(dep));
        let last_seq = self.authors.get(&header.actor).map_or(0, |(seq, _)| *seq);
        if !known || last_seq.checked_add(1) != Some(header.seq) {
            return Err(Quarantine::Apply);
        }
        for dep in &header.deps {
            self.heads.remove(dep);
        }
        self.heads.insert(header.hash);
        self.known.insert(header.hash);
        self.authors.insert(header.actor.clone(), (header.seq, header.hash));
        let last_op = header.start_op.saturating_sub(1).saturating_add(header.ops);
        self.last_op = self.last_op.max(last_op);
        self.applied_bytes += bytes;
        for (counter, (key, value)) in (header.start_op..=last_op).zip(change.writes) {
            let written = Written { counter, actor: header.actor.clone(), value };
            match self.members.get_mut(&key) {
                Some(standing) if *standing < written => *standing = written,
                Some(_) => {}
                None => drop(self.members.insert(key, written)),
            }
        }
        Ok(())
    }
}

fn target(edit: &Edit, base: Map<String, Value>) -> Result<Value, EditRefused> {
    match edit {
        Edit::Put(value) => {
            json::check(value)?;
            Ok(value.clone())
        }
        Edit::MergePatch(patch) => json::merge_patch(Value::Object(base), patch),
        Edit::JsonPatch(patch) => json::json_patch(Value::Object(base), patch),
        Edit::Increment { pointer, by } => increment(Value::Object(base), pointer, *by),
        Edit::Delete => Ok(Value::Object(base)),
    }
}

/// Adds to the integer at `pointer`, a free member of an object counting as 0.
fn increment(mut base: Value, pointer: &str, by: i64) -> Result<Value, EditRefused> {
    let refuse = |why: &str| EditRefused::Increment(why.to_owned());
    let mut tokens = json::pointer_tokens(pointer).ok_or_else(|| refuse("the path is not a JSON pointer"))?;
    let last = tokens.pop().ok_or_else(|| refuse("the document itself is not a number"))?;
    let parent = tokens.iter().try_fold(&mut base, |value, token| match value {
        Value::Object(members) => members.get_mut(token),
        Value::Array(elements) => elements.get_mut(json::array_index(token)?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    });
    let place = match parent {
        Some(Value::Object(members)) => Some(members.entry(last).or_insert(Value::from(0))),
        Some(Value::Array(elements)) => json::array_index(&last).and_then(|index| elements.get_mut(index)),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) | None => None,
    };
    let place = place.ok_or_else(|| refuse("the parent is not an object or array"))?;
    let sum = place
        .as_i64()
        .and_then(|present| present.checked_add(by))
        .ok_or_else(|| refuse("there is a value that is not an integer"))?;
    *place = Value::from(sum);
    Ok(base)
}

fn parse(bytes: &[u8]) -> Result<(Change, ChangeHeader), Malformed> {
    if bytes.len() > CHANGE_BYTES_MAX {
        return Err(Malformed::TooLong);
    }
    let body = bytes.strip_prefix(MAGIC.as_slice()).ok_or(Malformed::NotAChange)?;
    let (change, rest) = postcard::take_from_bytes::<Change>(body).map_err(|_| Malformed::Columns)?;
    let ascending = change.deps.iter().zip(change.deps.iter().skip(1)).all(|(a, b)| a < b);
    if !rest.is_empty() || change.deps.is_empty() || !ascending {
        return Err(Malformed::NotAChange);
    }
    let header = header(&change, bytes);
    Ok((change, header))
}

fn header(change: &Change, bytes: &[u8]) -> ChangeHeader {
    let is_delete = change.delete && change.writes.is_empty();
    ChangeHeader {
        hash: ChangeHash(*blake3::hash(bytes).as_bytes()),
        deps: change.deps.iter().copied().map(ChangeHash).collect(),
        actor: Actor(Bytes::copy_from_slice(&change.actor)),
        seq: change.seq,
        start_op: change.start_op,
        ops: change.writes.len() as u64,
        wall: Wall(change.wall),
        kind: if is_delete { ChangeKind::Delete } else { ChangeKind::Edit },
        refers_to: Vec::new(),
    }
}
