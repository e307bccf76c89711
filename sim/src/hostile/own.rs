//! A document that a hostile member alone writes: branches, and what the rules forbid, at random.

use std::collections::BTreeMap;

use bytes::Bytes;
use knot_engine::documents::{
    ACTOR_BYTES, Actor, AutomergeDocument, ChangeHeader, Document, DocumentId, ModelDocument,
};
use knot_engine::{ChangeHash, NodeId};

use super::forge::{Content, Draft};
use super::rules;
use super::unbound;
use crate::draw::Draw;
use crate::scenario::{DocumentKind, Target};

/// Authors that write it; few, so that they come to be on two branches at once.
const AUTHORS: u8 = 3;
/// Changes that it ever has.
const CHANGES_MAX: usize = 40;
/// Of a thousand changes, those that are not what an author would write.
const FORBIDDEN_PER_MILLE: u64 = 300;
/// Members of its top level.
const KEYS: u64 = 4;

/// Its changes, in the order in which they were made.
#[derive(Debug)]
pub(super) struct Own {
    genesis: ChangeHash,
    authors: Vec<Actor>,
    headers: Vec<ChangeHeader>,
    chunks: Vec<Bytes>,
}

/// Writes to one or two of its members.
pub(super) fn writes(draw: &mut Draw) -> Content {
    let count = 1 + draw.index(2);
    Content::Writes((0..count).map(|_| (format!("k{}", draw.between(0, KEYS)), draw.between(0, 1_000))).collect())
}

/// An actor of this node.
pub(super) fn actor(me: NodeId, number: u8, drawn: &[u8]) -> Actor {
    let mut bytes = me.0.to_vec();
    bytes.push(number);
    bytes.extend(drawn.iter().copied().chain(std::iter::repeat(0)).take(ACTOR_BYTES - bytes.len()));
    Actor(bytes.into())
}

impl Own {
    pub(super) fn new(kind: DocumentKind, target: &Target, me: NodeId) -> Self {
        let authors = (0..AUTHORS).map(|number| actor(me, number, target.key.as_bytes())).collect();
        Self { genesis: genesis_of(kind, &target.id()), authors, headers: Vec::new(), chunks: Vec::new() }
    }

    pub(super) fn genesis(&self) -> ChangeHash {
        self.genesis
    }

    pub(super) fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    pub(super) fn add(&mut self, header: ChangeHeader, chunk: Bytes) {
        if self.headers.len() < CHANGES_MAX {
            self.headers.push(header);
            self.chunks.push(chunk);
        }
    }

    /// The next change: on any of those that are there, by any of its authors.
    pub(super) fn draft(&self, draw: &mut Draw, kind: DocumentKind, me: NodeId) -> Draft {
        let mut deps: Vec<ChangeHash> = (0..1 + draw.index(2)).map(|_| self.any(draw)).collect();
        let actor = draw.pick(&self.authors).clone();
        let all: BTreeMap<ChangeHash, ChangeHeader> =
            self.headers.iter().map(|header| (header.hash, header.clone())).collect();
        let before = rules::ancestors(&all, &deps);
        let by_actor = || before.iter().filter_map(|hash| all.get(hash)).filter(|header| header.actor == actor);
        let last = by_actor().max_by_key(|header| header.seq);
        let before_last = last.and_then(|last| by_actor().find(|header| header.seq + 1 == last.seq));
        deps.extend(last.map(|last| last.hash));
        let last_op = deps.iter().filter_map(|dep| all.get(dep)).map(rules::last_op).max().unwrap_or(0);
        let (seq, start_op) = (last.map_or(1, |last| last.seq.saturating_add(1)), last_op.saturating_add(1));
        let content = self.content(draw, kind);
        let draft = Draft { deps, actor, seq, start_op, content };
        if !draw.chance(FORBIDDEN_PER_MILLE) {
            return draft;
        }
        let mut forbidden = forbidden(draw, kind, me, draft);
        // A number used again, with all that could be asked of it but for that.
        if forbidden.seq + 1 == seq && draw.chance(500) {
            forbidden.deps.extend(before_last.map(|header| header.hash));
        }
        forbidden
    }

    fn any(&self, draw: &mut Draw) -> ChangeHash {
        // The genesis, or one of the latest.
        let back = 1 + draw.index(6);
        let index = self.headers.len().checked_sub(back);
        index.and_then(|index| self.headers.get(index)).map_or(self.genesis, |header| header.hash)
    }

    fn content(&self, draw: &mut Draw, kind: DocumentKind) -> Content {
        match draw.index(10) {
            0 | 1 => Content::Delete,
            2 if kind == DocumentKind::Automerge && draw.chance(500) => {
                Content::Into(1 + draw.between(0, 3), draw.pick(&self.authors).clone())
            }
            _ => writes(draw),
        }
    }
}

fn forbidden(draw: &mut Draw, kind: DocumentKind, me: NodeId, draft: Draft) -> Draft {
    let (seq, start_op) = (draft.seq, draft.start_op);
    match draw.index(8) {
        0 => Draft { seq: seq + 1, ..draft },
        1 => Draft { seq: seq - 1, ..draft },
        2 => Draft { seq: u64::from(u32::MAX), ..draft },
        3 => Draft { start_op: start_op + 1, ..draft },
        4 => Draft { start_op: (start_op - 1).max(1), ..draft },
        // One that is allowed, but for what it leaves to those that follow.
        5 => Draft { start_op: 1 << 31, ..draft },
        6 if kind == DocumentKind::Automerge => {
            let nobody = actor(me, u8::MAX, &draw.bytes());
            Draft { content: Content::Into(1, nobody), ..draft }
        }
        _ => Draft { actor: unbound(draw.bytes()), ..draft },
    }
}

pub(super) fn genesis_of(kind: DocumentKind, document: &DocumentId) -> ChangeHash {
    match kind {
        DocumentKind::Model => ModelDocument::genesis_hash(document),
        DocumentKind::Automerge => AutomergeDocument::genesis_hash(document),
    }
}
