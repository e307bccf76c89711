//! One node's documents: requests and changes go in, storage requests and durable facts come out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::batch::{Batches, Done, Flush};
use super::index::Index;
use super::job::{Job, Verdict};
use super::open::{Content, Incoming, Open, OpenDocuments, Origin, Waiter};
use super::orphans::Orphans;
use super::records::{DocKey, DocumentRecord, KnownMember, NodeRecord, members_write};
use super::serve::Serves;
use crate::api::{
    BatchId, DocumentView, EditError, EditId, EditRequest, Edited, Event, HistoryEntry, LoadId, ReadError, ReadId,
    ReviewError,
};
use crate::config::Limits;
use crate::documents::{Document, DocumentId, Scope};
use crate::faults::{Fault, Faults};
use crate::identity::{Boot, ChangeHash, NodeId, SessionId};
use crate::sometimes;
use crate::stats::{Queue, Stats};
use crate::storage::Query;
use crate::time::{Instant, Wall};
use crate::wire::DocumentChanges;

/// Names a delivery of changes by a peer, so that its end can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// What the rest of the engine is to do.
#[derive(Debug)]
pub(crate) enum Effect<D> {
    Load {
        load: LoadId,
        query: Query,
    },
    Verify(Job<D>),
    Event(Event),
    /// The node's own record is durable: it may speak.
    Started,
    /// There was no room for the node's own record.
    NodeRefused,
    /// Changes made here are durable: push them, then answer those who made them.
    Durable {
        authored: Vec<(DocumentId, Bytes)>,
        edits: Vec<DurableEdit>,
    },
    /// A delivery is over; `complete` says that all of it is durable here.
    Delivered {
        ticket: Ticket,
        complete: bool,
    },
    /// A change came without what it depends on.
    Missing {
        document: DocumentId,
        from: NodeId,
    },
    /// An answer to a repair is ready.
    Window {
        session: SessionId,
        request: u32,
        changes: Vec<DocumentChanges>,
        next: Option<Bytes>,
    },
}

/// An edit that is durable here and may have to wait for peers.
#[derive(Debug)]
pub(crate) struct DurableEdit {
    pub(crate) id: EditId,
    pub(crate) edited: Edited,
    pub(crate) scope: Scope,
    pub(crate) replicas: usize,
    pub(crate) timeout: std::time::Duration,
}

/// Who the node is, as far as its documents care.
#[derive(Clone, Debug)]
pub(crate) struct Author {
    pub(crate) node: NodeId,
    pub(crate) boot: Boot,
    pub(crate) zone: String,
}

/// What a load was for.
#[derive(Debug)]
pub(super) enum Purpose {
    Open(DocKey),
    History(ReadId, DocKey),
    Version(ReadId, DocKey, Arc<[ChangeHash]>),
    Serve(u64),
}

#[derive(Debug)]
pub(crate) struct Replica<D> {
    pub(super) author: Author,
    pub(super) faults: Faults,
    pub(super) limits: Limits,
    pub(super) index: Index,
    pub(super) open: OpenDocuments<D>,
    pub(super) batches: Batches,
    pub(super) orphans: Orphans,
    pub(super) serves: Serves,
    pub(super) loads: BTreeMap<LoadId, Purpose>,
    /// Versions that are being made, by the number of the job: for whom, and whether the document was deleted.
    pub(super) versions: BTreeMap<u64, (ReadId, bool)>,
    /// Those that are being made, or for which changes are being read.
    pub(super) versions_asked: usize,
    pub(super) tickets: BTreeMap<Ticket, Delivery>,
    pub(super) effects: VecDeque<Effect<D>>,
    /// Documents changed lately, for repair to leave aside.
    pub(super) recent: BTreeMap<DocKey, Instant>,
    pub(super) sequence: u64,
    /// Rises when changes were discarded, so that their actors are never used again.
    pub(super) generation: u32,
    /// Histories asked for before the start was durable: what was recovered may be in the page cache alone.
    early: Vec<(ReadId, DocumentId)>,
    pub(super) waiting: usize,
    pub(super) incoming_bytes: usize,
    pub(super) numbers: u64,
    pub(super) full_until: Option<Instant>,
    pub(super) failed: bool,
    /// The start is durable, and what was recovered with it: from here on requests are answered.
    pub(super) started: bool,
    /// The engine has left or is fenced: no more edits.
    pub(super) closed: bool,
}

/// What is left of a delivery.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) outstanding: usize,
    pub(super) complete: bool,
}

impl<D: Document> Replica<D> {
    pub(crate) fn new(
        author: Author,
        secret: [u8; 32],
        documents: Vec<(DocKey, DocumentRecord)>,
        limits: Limits,
        faults: Faults,
    ) -> Self {
        let mut index = Index::new(secret, faults);
        index.hold(Scope::Global);
        index.hold(Scope::Zone(author.zone.as_str().into()));
        let hides = faults.has(Fault::TombstoneNotRecovered);
        for (key, record) in documents.into_iter().filter(|(_, record)| !(hides && record.deleted)) {
            index.update(key, record);
        }
        Self {
            sequence: if faults.has(Fault::SequenceRestarts) { 0 } else { index.sequence() },
            index,
            open: OpenDocuments::new(limits.log_cache_bytes, limits.document_cache_bytes),
            batches: Batches::new(),
            orphans: Orphans::new(limits.orphans, limits.orphan_bytes, faults),
            serves: Serves::default(),
            loads: BTreeMap::new(),
            tickets: BTreeMap::new(),
            effects: VecDeque::new(),
            recent: BTreeMap::new(),
            generation: 0,
            versions: BTreeMap::new(),
            versions_asked: 0,
            early: Vec::new(),
            waiting: 0,
            incoming_bytes: 0,
            numbers: 0,
            full_until: None,
            failed: false,
            started: false,
            closed: false,
            author,
            faults,
            limits,
        }
    }

    pub(crate) fn pop_effect(&mut self) -> Option<Effect<D>> {
        self.effects.pop_front()
    }

    /// Whether a document changed here less than `window` ago, by a change that is being pushed.
    pub(crate) fn is_recent(&self, key: &DocKey, now: Instant, window: std::time::Duration) -> bool {
        self.recent.get(key).is_some_and(|at| now.since(*at) < window)
    }

    /// Forgets a document and its tombstone. Only a planted bug does that.
    pub(crate) fn purge(&mut self, key: &DocKey) {
        self.index.remove(key);
        self.open.remove(key);
    }

    /// Closes the batch being gathered; none when it is empty.
    pub(crate) fn flush(&mut self) -> Option<Flush> {
        self.batches.flush()
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Takes another cluster's secret; only an empty node may.
    pub(crate) fn adopt(&mut self, secret: [u8; 32]) {
        assert!(self.index.is_empty(), "a node with documents keeps its secret");
        self.index = Index::new(secret, self.faults);
        self.index.hold(Scope::Global);
        self.index.hold(Scope::Zone(self.author.zone.as_str().into()));
        self.orphans = Orphans::new(self.limits.orphans, self.limits.orphan_bytes, self.faults);
        self.open = OpenDocuments::new(self.limits.log_cache_bytes, self.limits.document_cache_bytes);
    }

    /// Whether a document was ever written here, durable or not yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.index.is_empty() && self.sequence == 0
    }

    pub(crate) fn save_node(&mut self, record: &NodeRecord) {
        self.batches.write(record.write());
        self.batches.then(Done::Node);
    }

    pub(crate) fn save_members(&mut self, members: &[KnownMember]) {
        if !self.failed {
            self.batches.write(members_write(members));
        }
    }

    /// Whether a document's log is in memory and holds all of `heads`.
    pub(crate) fn knows_all(&self, document: &DocumentId, heads: &[ChangeHash]) -> bool {
        let open = self.open.get(&self.index.key(document));
        open.and_then(|open| open.log.as_ref()).is_some_and(|log| log.knows_all(heads))
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    pub(crate) fn is_failed(&self) -> bool {
        self.failed
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full_until.is_some()
    }

    pub(crate) fn edit(&mut self, id: EditId, request: EditRequest, wall: Wall, now: Instant, stats: &mut Stats) {
        if let Err(error) = self.admits_edit(&request, now) {
            self.answer_edit(id, Err(error));
            return;
        }
        let key = self.index.key(&request.document);
        let document = request.document.clone();
        let open = self.open.touch(key, &document);
        open.waiters.push_back(Waiter::Edit { id, request: Box::new(request), wall });
        self.waiting += 1;
        self.kick(key, now, stats);
    }

    fn admits_edit(&self, request: &EditRequest, now: Instant) -> Result<(), EditError> {
        if self.closed {
            return Err(EditError::Left);
        }
        if self.failed {
            return Err(EditError::StorageFailed);
        }
        if self.full_until.is_some_and(|until| now < until) {
            sometimes!("edit refused while full");
            return Err(EditError::DiskFull);
        }
        if !request.document.scope().is_held_in(&self.author.zone) {
            return Err(EditError::NotHeldHere);
        }
        let crowded = self.batches.bytes_waiting() >= self.limits.persist_bytes;
        if self.waiting >= self.limits.waiters || crowded && !self.faults.has(Fault::PersistUnbounded) {
            sometimes!("edit refused as busy");
            return Err(EditError::Busy);
        }
        Ok(())
    }

    pub(crate) fn read(&mut self, id: ReadId, document: &DocumentId, conflicts: bool, now: Instant, stats: &mut Stats) {
        if let Err(error) = self.admits_read(document) {
            self.answer_read(id, Err(error));
            return;
        }
        let key = self.index.key(document);
        if !self.index.contains(&key) && self.open.get(&key).is_none() {
            self.answer_read(id, Err(ReadError::NotFound));
            return;
        }
        let open = self.open.touch(key, document);
        open.waiters.push_back(Waiter::Read { id, conflicts });
        self.waiting += 1;
        self.kick(key, now, stats);
    }

    pub(super) fn admits_read(&self, document: &DocumentId) -> Result<(), ReadError> {
        if !document.scope().is_held_in(&self.author.zone) {
            return Err(ReadError::NotHeldHere);
        }
        if self.waiting >= self.limits.waiters {
            return Err(ReadError::Busy);
        }
        Ok(())
    }

    pub(crate) fn history(&mut self, id: ReadId, document: &DocumentId) {
        let key = self.index.key(document);
        if let Err(error) = self.admits_read(document) {
            self.answer_history(id, Err(error));
        } else if !self.started && self.failed {
            self.answer_history(id, Err(ReadError::Unreadable));
        } else if !self.started {
            self.waiting += 1;
            self.early.push((id, document.clone()));
        } else if self.index.contains(&key) {
            self.waiting += 1;
            self.load(super::records::changes_of(&key), Purpose::History(id, key));
        } else {
            self.answer_history(id, Err(ReadError::NotFound));
        }
    }

    pub(super) fn load(&mut self, query: Query, purpose: Purpose) -> LoadId {
        self.numbers += 1;
        let load = LoadId(self.numbers);
        self.loads.insert(load, purpose);
        self.effects.push_back(Effect::Load { load, query });
        load
    }

    /// Takes changes from a peer. Each document is one part of the delivery that `ticket` names.
    pub(crate) fn receive(
        &mut self,
        from: NodeId,
        origin: Origin,
        changes: Vec<DocumentChanges>,
        ticket: Option<Ticket>,
        now: Instant,
        stats: &mut Stats,
    ) {
        if let Some(ticket) = ticket {
            let outstanding = changes.iter().map(|document| document.changes.len()).sum::<usize>() + 1;
            self.tickets.insert(ticket, Delivery { outstanding, complete: true });
        }
        for DocumentChanges { document, changes } in changes {
            let held = document.scope().is_held_in(&self.author.zone) || self.faults.has(Fault::ForeignTaken);
            let named = document.check().is_ok() || self.faults.has(Fault::NameUnchecked);
            let entitled = named && held;
            let room = self.incoming_bytes < self.limits.incoming_bytes
                && self.batches.bytes_waiting() < self.limits.persist_bytes
                && !self.failed
                && self.full_until.is_none_or(|until| now >= until);
            if !entitled || !room {
                sometimes!("changes without room", entitled);
                stats.dropped(if entitled { "changes without room" } else { "changes not held here" });
                self.delivered(ticket, changes.len(), entitled && self.faults.has(Fault::RoomlessHeld));
                continue;
            }
            let key = self.index.key(&document);
            let open = self.open.touch(key, &document);
            for chunk in changes {
                self.incoming_bytes += chunk.len();
                open.incoming.push_back(Incoming { chunk, ticket, from: Some(from), origin });
            }
            self.kick(key, now, stats);
        }
        self.delivered(ticket, 1, true);
    }

    /// Notes that `parts` of a delivery are over.
    pub(super) fn delivered(&mut self, ticket: Option<Ticket>, parts: usize, complete: bool) {
        let Some(ticket) = ticket else { return };
        let Some(delivery) = self.tickets.get_mut(&ticket) else { return };
        delivery.outstanding = delivery.outstanding.saturating_sub(parts);
        delivery.complete &= complete;
        if delivery.outstanding == 0 {
            sometimes!("delivery not whole", !delivery.complete);
            let complete = delivery.complete;
            self.tickets.remove(&ticket);
            self.effects.push_back(Effect::Delivered { ticket, complete });
        }
    }

    pub(crate) fn persisted(&mut self, batch: BatchId, now: Instant, stats: &mut Stats) {
        sometimes!("disk has room again", self.full_until.is_some());
        stats.batches += 1;
        self.full_until = None;
        let mut authored = Vec::new();
        let mut edits = Vec::new();
        let batch = BatchId(batch.0 + u64::from(self.faults.has(Fault::NextBatchCounted)));
        for done in self.batches.persisted(batch) {
            match done {
                Done::Node => self.start(now, stats),
                Done::Update { key, record, authored: chunk, origin } => {
                    match chunk {
                        Some(chunk) => {
                            stats.changes_authored += 1;
                            authored.push((record.id.clone(), chunk));
                        }
                        None => stats.changes_received += 1,
                    }
                    // What a repair brought is on its way to nobody else: others have to find it as well.
                    if origin != Origin::Repair {
                        self.recent.insert(key, now);
                    }
                    self.updated(key, *record, now, stats);
                }
                Done::Edit(edit) => edits.push(edit),
                Done::Read { id, answer, .. } => self.answer_read(id, *answer),
                Done::Review { id, answer } => self.answer_review(id, Ok(answer)),
                Done::Ticket(ticket) => self.delivered(Some(ticket), 1, true),
            }
        }
        if self.faults.has(Fault::PushBeforePersist) {
            authored.clear();
        }
        if self.faults.has(Fault::AckBeforePersist) {
            edits.clear();
        }
        if !authored.is_empty() || !edits.is_empty() {
            self.effects.push_back(Effect::Durable { authored, edits });
        }
    }

    fn start(&mut self, now: Instant, stats: &mut Stats) {
        self.effects.push_back(Effect::Started);
        if !std::mem::replace(&mut self.started, true) {
            sometimes!("asked before the start", self.waiting > 0);
            for key in self.open.keys() {
                self.kick(key, now, stats);
            }
            self.answer_early();
        }
    }

    fn answer_early(&mut self) {
        for (id, document) in std::mem::take(&mut self.early) {
            self.waiting -= 1;
            self.history(id, &document);
        }
    }

    fn updated(&mut self, key: DocKey, record: DocumentRecord, now: Instant, stats: &mut Stats) {
        self.index.update(key, record);
        if let Some(summary) = self.index.summary(&key) {
            self.effects.push_back(Effect::Event(Event::Changed(summary)));
        }
        // Requests may have waited for content that only now is in storage.
        if let Some(open) = self.open.get_mut(&key) {
            if matches!(open.content, Content::Absent) && open.load.is_none() {
                open.unapplied.clear();
            }
            if !open.waiters.is_empty() && !self.faults.has(Fault::PersistWakesNobody) {
                self.kick(key, now, stats);
            }
        }
    }

    /// Storage has no room: nothing of what waits was written.
    pub(crate) fn refused(&mut self, batch: BatchId, until: Instant, now: Instant, stats: &mut Stats) {
        // Each batch of a refused epoch is refused in its turn; the first has said it for all.
        if !self.batches.is_pending(batch) {
            sometimes!("refused in its turn");
            return;
        }
        sometimes!("disk full");
        self.full_until = Some(until);
        let mut again = Vec::new();
        let keys = self.open.keys();
        let lost: Vec<DocKey> = keys
            .iter()
            .filter(|key| {
                let batch = self.open.get(key).and_then(|open| open.batch);
                batch.is_some_and(|batch| self.batches.is_pending(batch))
            })
            .copied()
            .collect();
        self.discard(&EditError::DiskFull, &ReviewError::DiskFull, &mut again);
        self.generation += u32::from(!self.faults.has(Fault::GenerationKept));
        for key in lost {
            self.end_refused_review(key);
            if let Some(open) = self.open.get_mut(&key).filter(|_| !self.faults.has(Fault::RefusedKept)) {
                open.reset();
            }
        }
        if self.faults.has(Fault::ReadsLostWhenFull) {
            again.clear();
        }
        sometimes!("read asked again", !again.is_empty());
        for (key, id, conflicts) in again {
            match self.index.id(&key) {
                Some(document) => {
                    self.open.touch(key, &document).waiters.push_back(Waiter::Read { id, conflicts });
                    self.waiting += 1;
                }
                None => self.answer_read(id, Err(ReadError::NotFound)),
            }
        }
        for key in self.open.keys() {
            self.kick(key, now, stats);
        }
        self.sequence = self.sequence.max(self.index.sequence());
    }

    /// A write or a sync failed: what was not acknowledged never is.
    pub(crate) fn storage_failed(&mut self) {
        sometimes!("storage failed");
        self.failed = true;
        let mut reads = Vec::new();
        self.discard(&EditError::StorageFailed, &ReviewError::StorageFailed, &mut reads);
        for (_, id, _) in reads {
            self.answer_read(id, Err(ReadError::Unreadable));
        }
        for (id, _) in std::mem::take(&mut self.early) {
            self.waiting -= 1;
            self.answer_history(id, Err(ReadError::Unreadable));
        }
        self.effects.push_back(Effect::Event(Event::StorageFailed));
    }

    fn discard(&mut self, error: &EditError, review: &ReviewError, reads: &mut Vec<(DocKey, ReadId, bool)>) {
        for done in self.batches.refused() {
            match done {
                Done::Node => self.effects.push_back(Effect::NodeRefused),
                Done::Update { .. } => {}
                Done::Edit(edit) => self.answer_edit(edit.id, Err(error.clone())),
                Done::Read { id, key, conflicts, .. } => reads.push((key, id, conflicts)),
                Done::Review { id, .. } => self.answer_review(id, Err(review.clone())),
                Done::Ticket(ticket) => self.delivered(Some(ticket), 1, self.faults.has(Fault::HeldWhenRefused)),
            }
        }
    }

    pub(super) fn answer_edit(&mut self, id: EditId, answer: Result<Edited, EditError>) {
        self.effects.push_back(Effect::Event(Event::Edited(id, answer)));
    }

    pub(super) fn answer_read(&mut self, id: ReadId, answer: Result<DocumentView, ReadError>) {
        self.effects.push_back(Effect::Event(Event::Read(id, answer)));
    }

    pub(super) fn answer_history(&mut self, id: ReadId, answer: Result<Vec<HistoryEntry>, ReadError>) {
        self.effects.push_back(Effect::Event(Event::History(id, answer)));
    }

    pub(crate) fn verdict(&mut self, verdict: Verdict<D>, now: Instant, stats: &mut Stats) {
        let key = verdict.key;
        self.on_verdict(verdict, stats);
        if !self.faults.has(Fault::VerdictWakesNobody) {
            self.kick(key, now, stats);
        }
    }

    pub(crate) fn queues(&self) -> Vec<Queue> {
        vec![
            Queue { name: "persist_bytes", depth: self.batches.bytes_waiting(), limit: self.limits.persist_bytes },
            Queue { name: "waiters", depth: self.waiting, limit: self.limits.waiters },
            Queue { name: "versions", depth: self.versions_asked, limit: self.limits.versions },
            Queue { name: "incoming_bytes", depth: self.incoming_bytes, limit: self.limits.incoming_bytes },
            Queue { name: "orphans", depth: self.orphans.len(), limit: self.limits.orphans },
            Queue { name: "orphan_bytes", depth: self.orphans.bytes(), limit: self.limits.orphan_bytes },
        ]
    }

    /// What the genesis of a document is derived from: its name, and nothing else.
    pub(super) fn genesis(&self, id: &DocumentId) -> DocumentId {
        if self.faults.has(Fault::GenesisUnshared) {
            let key = format!("{}{}", id.key(), self.author.node);
            return DocumentId::from_parts(id.scope().clone(), id.collection().into(), key.as_str().into());
        }
        id.clone()
    }

    /// Drops entries of `recent` that are no longer.
    pub(crate) fn forget_recent(&mut self, now: Instant) {
        self.recent.retain(|_, at| now.since(*at) < crate::config::RECENT);
    }
}

impl<D: Document> Open<D> {
    /// The state that the next write builds on.
    pub(super) fn state(&self) -> Option<&DocumentRecord> {
        self.record.as_ref()
    }
}
