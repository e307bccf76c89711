//! Documents whose log, or content too, is in memory, and the requests that wait for that.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::records::{DocKey, DocumentRecord};
use super::replica::Ticket;
use crate::api::{BatchId, EditId, EditRequest, LoadId, ReadId, Review};
use crate::documents::gate::Log;
use crate::documents::{Document, DocumentId};
use crate::identity::{ChangeHash, NodeId};
use crate::sometimes;
use crate::time::Wall;

/// A request that needs the content.
#[derive(Debug)]
pub(super) enum Waiter {
    Edit {
        id: EditId,
        request: Box<EditRequest>,
        wall: Wall,
    },
    Read {
        id: ReadId,
        conflicts: bool,
    },
    /// `tried` are the changes that it is about, once the document has been read for it.
    Review {
        id: ReadId,
        review: Review,
        begun: bool,
        tried: Vec<ChangeHash>,
    },
}

/// A change from a peer that needs the log.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) chunk: Bytes,
    pub(super) ticket: Option<Ticket>,
    pub(super) from: Option<NodeId>,
    pub(super) origin: Origin,
}

/// How a change came to be here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was made here.
    Here,
    /// Its author pushed it, to others as well.
    Push,
    /// It was missing, and asked for.
    Repair,
}

#[derive(Debug)]
pub(super) enum Content<D> {
    Absent,
    Ready(D),
    /// The job of this number has it.
    Away(u64),
}

/// One document in memory.
#[derive(Debug)]
pub(super) struct Open<D> {
    pub(super) id: DocumentId,
    /// Includes changes that are not durable yet.
    pub(super) log: Option<Log>,
    pub(super) content: Content<D>,
    /// The state that the log amounts to; none while there is no change.
    pub(super) record: Option<DocumentRecord>,
    /// Changes in the log that the content has not seen, with their place in the log.
    pub(super) unapplied: Vec<(usize, Bytes)>,
    pub(super) load: Option<LoadId>,
    pub(super) waiters: VecDeque<Waiter>,
    pub(super) incoming: VecDeque<Incoming>,
    /// The last batch that holds one of its changes.
    pub(super) batch: Option<BatchId>,
    used: u64,
    log_weight: usize,
    content_weight: usize,
}

/// The cache. Whatever is waited for, or not durable yet, stays in it.
#[derive(Debug)]
pub(super) struct OpenDocuments<D> {
    documents: BTreeMap<DocKey, Open<D>>,
    /// By last use.
    order: BTreeMap<u64, DocKey>,
    uses: u64,
    log_weight: usize,
    content_weight: usize,
    log_weight_max: usize,
    content_weight_max: usize,
}

/// How many of the least recently used a look for room considers.
const EVICTIONS_TRIED: usize = 16;

impl<D: Document> OpenDocuments<D> {
    pub(super) fn new(log_weight_max: usize, content_weight_max: usize) -> Self {
        Self {
            documents: BTreeMap::new(),
            order: BTreeMap::new(),
            uses: 0,
            log_weight: 0,
            content_weight: 0,
            log_weight_max,
            content_weight_max,
        }
    }

    pub(super) fn get(&self, key: &DocKey) -> Option<&Open<D>> {
        self.documents.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &DocKey) -> Option<&mut Open<D>> {
        self.documents.get_mut(key)
    }

    pub(super) fn keys(&self) -> Vec<DocKey> {
        self.documents.keys().copied().collect()
    }

    pub(super) fn remove(&mut self, key: &DocKey) {
        if let Some(open) = self.documents.remove(key) {
            self.order.remove(&open.used);
            self.log_weight -= open.log_weight;
            self.content_weight -= open.content_weight;
        }
    }

    /// The document, now the most recently used.
    pub(super) fn touch(&mut self, key: DocKey, id: &DocumentId) -> &mut Open<D> {
        self.uses += 1;
        let uses = self.uses;
        let open = self.documents.entry(key).or_insert_with(|| Open::new(id.clone()));
        self.order.remove(&open.used);
        open.used = uses;
        self.order.insert(uses, key);
        open
    }

    /// Accounts for a document's present weight, and makes room.
    pub(super) fn settle(&mut self, key: &DocKey, pending: impl Fn(BatchId) -> bool) {
        if let Some(open) = self.documents.get_mut(key) {
            let (log, content) = open.weigh();
            self.log_weight = self.log_weight - open.log_weight + log;
            self.content_weight = self.content_weight - open.content_weight + content;
            (open.log_weight, open.content_weight) = (log, content);
        }
        for _ in 0..EVICTIONS_TRIED {
            if self.log_weight <= self.log_weight_max && self.content_weight <= self.content_weight_max {
                return;
            }
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.evict(oldest, &pending);
        }
    }

    fn evict(&mut self, key: DocKey, pending: &impl Fn(BatchId) -> bool) {
        let Some(open) = self.documents.get_mut(&key) else { return };
        if open.is_idle() && !open.batch.is_some_and(pending) {
            self.log_weight -= open.log_weight;
            self.content_weight -= open.content_weight;
            sometimes!("evicted");
            self.documents.remove(&key);
            return;
        }
        sometimes!("spared");
        self.uses += 1;
        open.used = self.uses;
        self.order.insert(self.uses, key);
    }
}

impl<D: Document> Open<D> {
    fn new(id: DocumentId) -> Self {
        Self {
            id,
            log: None,
            content: Content::Absent,
            record: None,
            unapplied: Vec::new(),
            load: None,
            waiters: VecDeque::new(),
            incoming: VecDeque::new(),
            batch: None,
            used: 0,
            log_weight: 0,
            content_weight: 0,
        }
    }

    fn is_idle(&self) -> bool {
        self.load.is_none()
            && self.waiters.is_empty()
            && self.incoming.is_empty()
            && !matches!(self.content, Content::Away(_))
    }

    fn weigh(&self) -> (usize, usize) {
        let unapplied: usize = self.unapplied.iter().map(|(_, chunk)| chunk.len()).sum();
        let content = match &self.content {
            Content::Ready(document) => document.weight(),
            Content::Absent | Content::Away(_) => 0,
        };
        (OPEN_BYTES + self.log.as_ref().map_or(0, Log::weight), content + unapplied)
    }

    /// Forgets everything that was not durable, so that the next use loads what is.
    pub(super) fn reset(&mut self) {
        self.log = None;
        self.content = Content::Absent;
        self.record = None;
        self.unapplied.clear();
        self.batch = None;
    }
}

/// What an entry takes besides its log and content: 600 bytes in a map that is two thirds full, and its place by last use.
const OPEN_BYTES: usize = 1_024;
