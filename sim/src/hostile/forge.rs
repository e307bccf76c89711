//! Writes any change, allowed or not, as each kind of document encodes it.

use std::num::NonZeroU64;

use automerge::legacy::{Key, ObjectId, Op, OpId, OpType};
use automerge::{ActorId, Change, ExpandedChange, ScalarValue};
use bytes::Bytes;
use knot_engine::ChangeHash;
use knot_engine::documents::Actor;

use crate::scenario::DocumentKind;

/// A change as its author would have it.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) deps: Vec<ChangeHash>,
    pub(crate) actor: Actor,
    pub(crate) seq: u64,
    pub(crate) start_op: u64,
    pub(crate) content: Content,
}

/// What a change does.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Sets members of the top level.
    Writes(Vec<(String, u64)>),
    /// Deletes the document.
    Delete,
    /// Writes into an object that is not there: the one which this operation of this actor would have made. Automerge
    /// only.
    Into(u64, Actor),
}

/// The chunk; none where this kind of document has no way to write it.
pub(super) fn encode(kind: DocumentKind, draft: &Draft) -> Option<Bytes> {
    let mut deps = draft.deps.clone();
    deps.sort_unstable();
    deps.dedup();
    match kind {
        DocumentKind::Model => model(draft, &deps),
        DocumentKind::Automerge => automerge(draft, &deps),
    }
}

fn model(draft: &Draft, deps: &[ChangeHash]) -> Option<Bytes> {
    let deps: Vec<[u8; 32]> = deps.iter().map(|dep| dep.0).collect();
    let (delete, writes) = match &draft.content {
        Content::Writes(writes) => (false, writes.as_slice()),
        Content::Delete => (true, [].as_slice()),
        Content::Into(..) => return None,
    };
    let writes: Vec<(&str, Option<String>)> =
        writes.iter().map(|(key, value)| (key.as_str(), Some(value.to_string()))).collect();
    let wall = 0_i64;
    let body = (deps, draft.actor.0.to_vec(), draft.seq, draft.start_op, wall, delete, writes);
    let mut bytes = b"knt1".to_vec();
    bytes.extend(postcard::to_stdvec(&body).ok()?);
    Some(bytes.into())
}

fn automerge(draft: &Draft, deps: &[ChangeHash]) -> Option<Bytes> {
    let op = |obj: ObjectId, key: &str, value: u64| Op {
        action: OpType::Put(ScalarValue::Uint(value)),
        obj,
        key: Key::Map(key.into()),
        pred: Vec::new().into(),
        insert: false,
    };
    let operations = match &draft.content {
        Content::Writes(writes) => writes.iter().map(|(key, value)| op(ObjectId::Root, key, *value)).collect(),
        Content::Delete => Vec::new(),
        Content::Into(counter, actor) => vec![op(ObjectId::Id(OpId(*counter, actor_id(actor))), "into", 0)],
    };
    let change = Change::from(ExpandedChange {
        operations,
        actor_id: actor_id(&draft.actor),
        hash: None,
        seq: draft.seq,
        start_op: NonZeroU64::new(draft.start_op)?,
        time: 0,
        message: matches!(draft.content, Content::Delete).then(|| "delete".to_owned()),
        deps: deps.iter().map(|dep| automerge::ChangeHash(dep.0)).collect(),
        extra_bytes: Vec::new(),
        author: None,
    });
    Some(Bytes::copy_from_slice(change.raw_bytes()))
}

fn actor_id(actor: &Actor) -> ActorId {
    ActorId::from(&actor.0[..])
}
