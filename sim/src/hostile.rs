//! A hostile member: it holds the cluster's key and runs an engine, so all talk to it, and it sends besides what no
//! engine makes.
//!
//! Two sorts of documents suffer. To what others write it appends changes that the rules of the
//! [gate](knot_engine::documents::gate) forbid, and changes that build on those: none of them may ever count. Documents
//! that it alone writes get anything, allowed or not, in any order; above all one author writes on two branches at once,
//! so that which of its changes count depends on which have arrived. [`rules`] says independently of the engine what
//! counts in the end. What it may not be told of it cannot spoil: who holds the key is trusted with content, and only its
//! own documents lose by it. It also opens circuits in anybody's name, which nobody is to mind.

mod circuits;
mod forge;
mod names;
mod own;
pub(crate) mod rules;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use knot_engine::documents::{Actor, ChangeHeader, DocumentId};
use knot_engine::wire::{DocumentChanges, Frame};
use knot_engine::{ChangeHash, NodeId, Review};

pub(crate) use self::forge::Content;
use self::forge::Draft;
pub(crate) use self::names::is_name;
use self::own::Own;
use crate::draw::Draw;
use crate::edits::LISTS;
use crate::scenario::{DocumentKind, Target, ZONE_MARK};
use crate::tap::ReadHeader;

/// Of a thousand frames with changes that it sends, those to whose documents it appends something.
const APPENDS_PER_MILLE: u64 = 250;
/// Of a thousand frames, those after which it sends of its own documents ...
const OWN_PER_MILLE: u64 = 150;
/// ... and those after which it sends what is no change, or no frame.
const GARBAGE_PER_MILLE: u64 = 4;
/// Of a thousand frames, those after which it says something of a circuit.
const CIRCUITS_PER_MILLE: u64 = 30;
/// Of a thousand frames, those after which it sends a document whose name is none.
const MISNAMED_PER_MILLE: u64 = 3;
/// Of a thousand frames, those after which somebody reads one of its own documents.
const READS_PER_MILLE: u64 = 60;
/// Of a thousand of these reads, those with which an operator looks at what is in quarantine ...
const REVIEWS_PER_MILLE: u64 = 400;
/// ... and of a thousand such looks, those that are not for a document of its own but for one that it has spoiled.
const SPOILED_PER_MILLE: u64 = 500;
/// Of a thousand starts, those after which a server finds what an earlier version of it has refused ...
const UPGRADES_PER_MILLE: u64 = 400;
/// ... and of a thousand changes of the document that it is about, those.
const REFUSED_PER_MILLE: u64 = 400;
/// Changes that it forges in a run. One that is full sends no more; what it has made it may send again.
const FORGED_MAX: usize = 160;
/// The number of its pushes; nobody is asked to confirm them.
const SEQ: u64 = 1 << 40;
/// Longest garbage, in bytes.
const GARBAGE_BYTES_MAX: usize = 300;

/// What is forged in a run.
#[derive(Debug)]
pub(crate) struct Hostile {
    draw: Draw,
    circuits: Draw,
    names: Draw,
    /// An operator's, so that what it draws changes nothing of what is forged.
    reviews: Draw,
    kind: DocumentKind,
    read: ReadHeader,
    own: BTreeMap<Target, Own>,
    forged: BTreeMap<ChangeHash, Forged>,
    /// Changes of documents whose names are none.
    misnamed: BTreeSet<ChangeHash>,
}

/// A change that no engine made.
#[derive(Clone, Debug)]
pub(crate) struct Forged {
    /// The document it was made for.
    pub(crate) document: DocumentId,
    /// What it writes.
    pub(crate) content: Content,
}

/// Who it is, and whom it talks to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Between<'a> {
    pub(crate) me: NodeId,
    pub(crate) my_zone: &'a str,
    pub(crate) their_zone: &'a str,
    pub(crate) everybody: &'a [NodeId],
}

impl Hostile {
    pub(crate) fn new(seed: u64, kind: DocumentKind, read: ReadHeader) -> Self {
        let draw = |stream| Draw::new(seed, stream);
        Self {
            draw: draw("hostile"),
            circuits: draw("hostile circuits"),
            names: draw("hostile names"),
            reviews: draw("reviews"),
            kind,
            read,
            own: BTreeMap::new(),
            forged: BTreeMap::new(),
            misnamed: BTreeSet::new(),
        }
    }

    /// A change that was forged.
    pub(crate) fn forged(&self, hash: &ChangeHash) -> Option<&Forged> {
        self.forged.get(hash)
    }

    pub(crate) fn has_forged(&self) -> bool {
        !self.forged.is_empty()
    }

    /// All changes that were forged.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = ChangeHash> {
        self.forged.keys().chain(&self.misnamed).copied()
    }

    /// What its own documents begin with.
    pub(crate) fn genesis(&self) -> impl Iterator<Item = ChangeHash> {
        self.own.values().map(Own::genesis)
    }

    /// The documents that it alone writes.
    pub(crate) fn own(&self) -> impl Iterator<Item = &Target> {
        self.own.keys()
    }

    /// The documents of others to which something was appended.
    pub(crate) fn spoiled(&self) -> BTreeSet<&DocumentId> {
        self.forged.values().map(|forged| &forged.document).collect()
    }

    /// What it says after a frame of its engine's.
    pub(crate) fn frames(&mut self, between: Between<'_>, sent: &Bytes) -> Vec<Bytes> {
        let mut frames = Vec::new();
        if let Some(changes) = changes_in(sent)
            && self.draw.chance(APPENDS_PER_MILLE)
        {
            frames.extend(self.append(between.me, &changes));
        }
        if self.draw.chance(OWN_PER_MILLE) {
            frames.push(self.of_its_own(between));
        }
        if self.draw.chance(GARBAGE_PER_MILLE) {
            frames.push(self.garbage(between));
        }
        if self.circuits.chance(CIRCUITS_PER_MILLE) {
            frames.push(circuits::step(&mut self.circuits, between.me, between.everybody));
        }
        if self.names.chance(MISNAMED_PER_MILLE) {
            frames.extend(self.misnamed(between));
        }
        frames
    }

    /// One of its own documents, when somebody is to look at it.
    pub(crate) fn read_by_others(&mut self) -> Option<Target> {
        let count = self.own.len();
        if count == 0 || !self.draw.chance(READS_PER_MILLE) {
            return None;
        }
        let index = self.draw.index(count);
        self.own.keys().nth(index).cloned()
    }

    /// What an operator is to do about changes in quarantine when somebody reads one of its own documents: release all
    /// of a document or one, or drop one. It may be that this one is none of them.
    pub(crate) fn reviewed_by_others(&mut self, read: &Target) -> Option<(DocumentId, Review)> {
        if !self.reviews.chance(REVIEWS_PER_MILLE) {
            return None;
        }
        let spoiled: Vec<DocumentId> = self.spoiled().into_iter().cloned().collect();
        let document = if !spoiled.is_empty() && self.reviews.chance(SPOILED_PER_MILLE) {
            self.reviews.pick(&spoiled).clone()
        } else {
            read.id()
        };
        let of_it = self.forged.iter().filter(|(_, forged)| forged.document == document);
        let changes: Vec<ChangeHash> = of_it.map(|(hash, _)| *hash).collect();
        if changes.is_empty() {
            return None;
        }
        let change = *self.reviews.pick(&changes);
        let review = match self.reviews.index(4) {
            0 | 1 => Review::Release(None),
            2 => Review::Release(Some(change)),
            _ => Review::Drop(change),
        };
        Some((document, review))
    }

    /// One of its own documents, of which a server that starts has refused changes with the version it ran before.
    pub(crate) fn refused_by_an_earlier_version(&mut self) -> Option<DocumentId> {
        if self.own.is_empty() || !self.reviews.chance(UPGRADES_PER_MILLE) {
            return None;
        }
        let index = self.reviews.index(self.own.len());
        self.own.keys().nth(index).map(Target::id)
    }

    /// Whether that is one of those changes.
    pub(crate) fn was_refused(&mut self, document: &DocumentId, chunk: &Bytes) -> bool {
        let forged = (self.read)(chunk).and_then(|header| self.forged.get(&header.hash));
        forged.is_some_and(|forged| forged.document == *document) && self.reviews.chance(REFUSED_PER_MILLE)
    }

    /// Appends what is forbidden to the document of one of these changes, and perhaps what builds on that.
    fn append(&mut self, me: NodeId, changes: &[DocumentChanges]) -> Option<Bytes> {
        let of = &changes[self.draw.index(changes.len())];
        let own = self.own.keys().any(|target| target.id() == of.document);
        // Etags count what is in quarantine, and of these documents each etag is to name one known state.
        let by_etag = of.document.collection().ends_with(LISTS);
        if own || by_etag || of.changes.is_empty() || self.forged.len() >= FORGED_MAX {
            return None;
        }
        let base = (self.read)(of.changes.get(self.draw.index(of.changes.len()))?)?;
        if self.forged.contains_key(&base.hash) {
            return None;
        }
        let forbidden = self.forbidden(me, &base);
        let mut forged = vec![self.forge(&of.document, forbidden)?];
        if self.draw.chance(300)
            && let Some(child) = (self.read)(&forged[0]).map(|parent| self.child(me, &parent))
        {
            forged.extend(self.forge(&of.document, child));
            self.draw.shuffle(&mut forged);
        }
        Some(push(&of.document, forged))
    }

    /// What an author might write on top of a change, but for one thing.
    fn forbidden(&mut self, me: NodeId, base: &ChangeHeader) -> Draft {
        let next_op = base.start_op.saturating_add(base.ops);
        let draft = Draft {
            deps: vec![base.hash],
            actor: base.actor.clone(),
            seq: base.seq + 1,
            start_op: next_op,
            content: self.content(),
        };
        match self.draw.index(if self.kind == DocumentKind::Automerge { 10 } else { 8 }) {
            0 => Draft { seq: base.seq + 2, ..draft },
            1 => Draft { seq: base.seq, ..draft },
            2 => Draft { seq: u64::from(u32::MAX), ..draft },
            // Of its own, so that no honest change could come to have this number.
            3 => Draft { actor: self.actor(me), seq: 2, ..draft },
            4 => Draft { start_op: next_op + 1 + self.draw.between(0, 5), ..draft },
            5 => Draft { start_op: (next_op - 1).max(1) + 2 * u64::from(next_op == 1), ..draft },
            6 => Draft { start_op: *self.draw.pick(&[1 << 31, u64::from(u32::MAX)]), ..draft },
            7 => Draft { actor: unbound(self.draw.bytes()), seq: 1, ..draft },
            8 => Draft { content: Content::Into(1, unbound(self.draw.bytes())), ..draft },
            _ => Draft { content: Content::Into(1, self.actor(me)), ..draft },
        }
    }

    /// What is allowed but for what it builds on.
    fn child(&mut self, me: NodeId, parent: &ChangeHeader) -> Draft {
        let start_op = parent.start_op.saturating_add(parent.ops);
        Draft { deps: vec![parent.hash], actor: self.actor(me), seq: 1, start_op, content: self.content() }
    }

    /// A new change of one of its own documents, or some of those that are there again, in any order.
    fn of_its_own(&mut self, between: Between<'_>) -> Bytes {
        let target = self.target(between);
        if self.forged.len() < FORGED_MAX && self.draw.chance(700) {
            let kind = self.kind;
            let own = self.own.entry(target.clone()).or_insert_with(|| Own::new(kind, &target, between.me));
            let drawn = own.draft(&mut self.draw, kind, between.me);
            if let Some(chunk) = self.forge(&target.id(), drawn)
                && let Some(own) = self.own.get_mut(&target)
                && let Some(header) = (self.read)(&chunk)
            {
                own.add(header, chunk);
            }
        }
        let mut chunks = self.own.get(&target).map(|own| own.chunks().to_vec()).unwrap_or_default();
        match self.draw.index(4) {
            // The latest alone: an orphan, where those before it have not come.
            0 | 1 => drop(chunks.drain(..chunks.len().saturating_sub(1))),
            2 => self.draw.shuffle(&mut chunks),
            _ => {
                self.draw.shuffle(&mut chunks);
                chunks.truncate(1 + chunks.len() / 2);
            }
        }
        push(&target.id(), chunks)
    }

    /// Which of its own documents: mostly one that the other may have.
    fn target(&mut self, between: Between<'_>) -> Target {
        let may_have = between.my_zone == between.their_zone || self.draw.chance(250);
        if may_have && self.draw.chance(400) {
            let (zone, collection) = (between.my_zone, format!("{ZONE_MARK}{}.hostile", between.my_zone));
            return Target { zone: Some(zone.to_owned()), collection, key: "h0".to_owned() };
        }
        Target { zone: None, collection: "hostile".to_owned(), key: format!("h{}", self.draw.index(2)) }
    }

    /// A change like any other, of a document that cannot be.
    fn misnamed(&mut self, between: Between<'_>) -> Option<Bytes> {
        let document = names::drawn(&mut self.names, between.their_zone)?;
        let draft = Draft {
            deps: vec![own::genesis_of(self.kind, &document)],
            actor: own::actor(between.me, self.names.bytes()[0], &self.names.bytes()),
            seq: 1,
            start_op: 1,
            content: own::writes(&mut self.names),
        };
        let chunk = forge::encode(self.kind, &draft)?;
        self.misnamed.insert((self.read)(&chunk)?.hash);
        Some(push(&document, vec![chunk]))
    }

    /// What is no change, or no frame. What is no frame costs it the stream.
    fn garbage(&mut self, between: Between<'_>) -> Bytes {
        let bytes: Vec<u8> = (0..1 + self.draw.index(GARBAGE_BYTES_MAX)).map(|_| self.draw.bytes()[0]).collect();
        let document = self.target(between).id();
        if self.draw.chance(800) {
            return push(&document, vec![bytes.into()]);
        }
        let frame = push(&document, vec![bytes.into()]);
        frame.slice(..frame.len() - 1)
    }

    fn content(&mut self) -> Content {
        if self.draw.chance(150) {
            return Content::Delete;
        }
        own::writes(&mut self.draw)
    }

    /// An actor that nobody has used.
    fn actor(&mut self, me: NodeId) -> Actor {
        own::actor(me, self.draw.bytes()[0], &self.draw.bytes())
    }

    fn forge(&mut self, document: &DocumentId, draft: Draft) -> Option<Bytes> {
        let chunk = forge::encode(self.kind, &draft)?;
        let hash = (self.read)(&chunk)?.hash;
        self.forged.insert(hash, Forged { document: document.clone(), content: draft.content });
        Some(chunk)
    }
}

fn changes_in(frame: &Bytes) -> Option<Vec<DocumentChanges>> {
    match Frame::decode(frame) {
        Ok(Some(Frame::Push { changes, .. } | Frame::Relay { changes, .. } | Frame::Window { changes, .. })) => {
            (!changes.is_empty()).then_some(changes)
        }
        _ => None,
    }
}

fn push(document: &DocumentId, changes: Vec<Bytes>) -> Bytes {
    let changes = vec![DocumentChanges { document: document.clone(), changes }];
    Frame::Push { seq: SEQ, ack: false, changes }.encode()
}

/// An actor of no node.
fn unbound(drawn: [u8; 32]) -> Actor {
    Actor(Bytes::copy_from_slice(&drawn[..16]))
}
