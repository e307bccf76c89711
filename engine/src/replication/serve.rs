//! Answering repairs: the changes that a peer asked for, in windows of bounded size.
//!
//! Nothing is kept between windows: each says where the next begins, and the peer says it again. Of a range that is a place
//! in storage. Of documents it is the one that comes next, in the order of their places, and which runs of its log the
//! peer still lacks, so that a log is gone through once and not for every window ([`lacks`](super::lacks)).
//!
//! One answer takes, besides the request, one window and one piece of a log, which are of
//! [`window_bytes`](crate::Limits::window_bytes) and one more change each, and what [`Scan`] remembers.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::lacks::{Lacks, Scan};
use super::records::{DOC_KEY_BYTES, DocKey, DocumentRecord, StoredChange, changes_between, prefix_end};
use super::replica::{Effect, Purpose, Replica};
use crate::documents::{COLLECTION_BYTES_MAX, Document, DocumentId, KEY_BYTES_MAX, ZONE_BYTES_MAX};
use crate::faults::Fault;
use crate::identity::{ChangeHash, SessionId};
use crate::sometimes;
use crate::stats::Stats;
use crate::storage::{Query, Table};
use crate::wire::{DocumentChanges, Wanted};

/// Longest name in a frame, with its lengths.
const NAME_BYTES_MAX: usize = ZONE_BYTES_MAX + COLLECTION_BYTES_MAX + KEY_BYTES_MAX + 16;

/// One answer being put together.
#[derive(Debug)]
struct Serve {
    session: SessionId,
    request: u32,
    /// The document whose log is being read; none for a range.
    current: Option<Current>,
    left: VecDeque<Asked>,
    changes: Vec<DocumentChanges>,
    bytes: usize,
    /// There is no room for more.
    full: bool,
}

/// A document that the peer asked for.
#[derive(Debug)]
struct Asked {
    key: DocKey,
    id: DocumentId,
    /// What the peer has of it.
    heads: Vec<ChangeHash>,
    /// What it lacks, where an earlier window has found that out.
    lacks: Option<Lacks>,
}

#[derive(Debug)]
struct Current {
    key: DocKey,
    id: DocumentId,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Scan(Scan),
    Send(Lacks),
}

/// Where the next window goes on.
#[derive(Debug, Serialize, Deserialize)]
struct Cursor {
    key: [u8; DOC_KEY_BYTES],
    lacks: Option<Lacks>,
}

/// All answers being put together.
#[derive(Debug, Default)]
pub(super) struct Serves {
    under_way: BTreeMap<u64, Serve>,
}

impl Serves {
    pub(super) fn drop(&mut self, serve: u64) {
        self.under_way.remove(&serve);
    }

    fn of(&self, session: SessionId) -> usize {
        self.under_way.values().filter(|serve| serve.session == session).count()
    }
}

impl Cursor {
    fn encode(&self) -> Bytes {
        // Serialising our own plain types into memory has no way to fail.
        postcard::to_stdvec(self).unwrap_or_default().into()
    }
}

impl Serve {
    fn new(session: SessionId, request: u32) -> Self {
        let (left, changes) = (VecDeque::new(), Vec::new());
        Self { session, request, current: None, left, changes, bytes: 0, full: false }
    }

    /// Where the next window goes on; none when all is said.
    fn cursor(&self) -> Option<Cursor> {
        let current = self.current.as_ref().and_then(|current| match &current.step {
            Step::Send(lacks) => Some(Cursor { key: current.key.0, lacks: Some(lacks.clone()) }),
            Step::Scan(_) => None,
        });
        current.or_else(|| self.left.front().map(|next| Cursor { key: next.key.0, lacks: next.lacks.clone() }))
    }

    /// Takes the stored changes that the peer lacks, as far as there is room.
    fn take(&mut self, entries: &[(Bytes, Bytes)], window_bytes: usize) {
        let Some(Current { id, step: Step::Send(lacks), .. }) = &mut self.current else { return };
        for change in entries.iter().filter_map(|(key, value)| StoredChange::read(key, value)) {
            if !lacks.contains(change.order) {
                continue;
            }
            let begun = self.changes.last().is_some_and(|last| last.document == *id);
            let bytes = change.chunk.len() + if begun { 0 } else { NAME_BYTES_MAX };
            // A change that is larger than a window goes alone.
            if !self.changes.is_empty() && self.bytes + bytes > window_bytes {
                sometimes!("window cut");
                self.full = true;
                return;
            }
            self.bytes += bytes;
            lacks.sent(change.order + 1);
            match self.changes.last_mut().filter(|_| begun) {
                Some(last) => last.changes.push(change.chunk),
                None => self.changes.push(DocumentChanges { document: id.clone(), changes: vec![change.chunk] }),
            }
        }
        self.full |= self.bytes >= window_bytes;
    }
}

impl<D: Document> Replica<D> {
    /// Begins an answer; [`Effect::Window`] ends it.
    pub(crate) fn serve(&mut self, session: SessionId, request: u32, wanted: Wanted, stats: &mut Stats) {
        if self.serves.of(session) >= self.limits.serves_per_peer {
            sometimes!("request without room");
            stats.dropped("repair requests without room");
            return;
        }
        self.numbers += 1;
        let number = self.numbers;
        let mut serve = Serve::new(session, request);
        match wanted {
            Wanted::Range { scope, prefix, after } => {
                let full = self.index.key_prefix(&scope, &prefix);
                let end = prefix_end(&full).unwrap_or_default().into();
                // Elsewhere are documents that the peer may not be entitled to.
                let advances = !self.faults.has(Fault::CursorNotAdvanced);
                let after = after.filter(|after| after.starts_with(&full) && advances);
                // The least key above `after` is `after` and a zero.
                let start = after.map_or_else(|| full.into(), |after| [&after[..], &[0]].concat().into());
                let query = Query { table: Table::Changes, start, end, bytes_max: self.limits.window_bytes };
                self.serves.under_way.insert(number, serve);
                self.load(query, Purpose::Serve(number));
            }
            Wanted::Documents { documents, after } => {
                serve.left = self.asked(documents, after.as_deref());
                self.serves.under_way.insert(number, serve);
                self.proceed(number);
            }
        }
    }

    /// What is left of a request, in the order of places.
    fn asked(&self, documents: Vec<(DocumentId, Vec<ChangeHash>)>, after: Option<&[u8]>) -> VecDeque<Asked> {
        let named = |(id, heads)| Asked { key: self.index.key(&id), id, heads, lacks: None };
        let mut asked: Vec<Asked> = documents.into_iter().map(named).collect();
        asked.sort_by_key(|asked| asked.key);
        // One that does not decode is passed over: the peer is sent more than it lacks.
        if let Some(cursor) = after.and_then(|after| postcard::from_bytes::<Cursor>(after).ok()) {
            asked.retain(|asked| asked.key.0 >= cursor.key);
            if let Some(first) = asked.first_mut().filter(|first| first.key.0 == cursor.key) {
                sometimes!("document resumed", cursor.lacks.is_some());
                first.lacks = cursor.lacks;
            }
        }
        asked.into()
    }

    /// Goes on with an answer until something has to be read, or sends it.
    fn proceed(&mut self, number: u64) {
        while let Some(serve) = self.serves.under_way.get_mut(&number) {
            let bytes_max = self.limits.window_bytes;
            let read = match &mut serve.current {
                None if serve.full || serve.left.is_empty() => {
                    self.finish(number);
                    return;
                }
                None => {
                    let asked = serve.left.pop_front();
                    let any = self.faults.has(Fault::AnyHeadServed);
                    serve.current = asked.and_then(|asked| begin(self.index.record(&asked.key)?, asked, any));
                    continue;
                }
                Some(Current { key, step: Step::Scan(scan), .. }) => {
                    scan.wants().map(|(from, to)| changes_between(key, from, to, bytes_max))
                }
                Some(Current { step: Step::Send(lacks), .. }) if serve.full && lacks.first().is_some() => {
                    self.finish(number);
                    return;
                }
                Some(Current { key, step: Step::Send(lacks), .. }) => lacks
                    .first()
                    .map(|(from, to)| changes_between(key, from, to, bytes_max.saturating_sub(serve.bytes))),
            };
            match read {
                Some(query) => {
                    self.load(query, Purpose::Serve(number));
                    return;
                }
                None => serve.current = serve.current.take().and_then(Current::next),
            }
        }
    }

    fn finish(&mut self, number: u64) {
        let Some(serve) = self.serves.under_way.remove(&number) else { return };
        let next = serve.cursor().map(|cursor| cursor.encode());
        let Serve { session, request, changes, .. } = serve;
        if self.faults.has(Fault::ServesLeak) {
            self.serves.under_way.insert(number, Serve::new(session, request));
        }
        self.effects.push_back(Effect::Window { session, request, changes, next });
    }

    /// Storage has answered.
    pub(super) fn served(&mut self, number: u64, entries: &[(Bytes, Bytes)], complete: bool, stats: &mut Stats) {
        let window_bytes = self.limits.window_bytes;
        let Some(serve) = self.serves.under_way.get_mut(&number) else { return };
        match &mut serve.current {
            None => {
                self.served_range(number, entries, complete);
                return;
            }
            Some(Current { step: Step::Scan(scan), .. }) => {
                let whole = complete && scan.wants().is_some_and(|(from, _)| from == 0) && scan.found_nothing();
                sometimes!("piece too large", !complete);
                if scan.read::<D>(entries, complete, window_bytes).is_err() {
                    stats.dropped("document unreadable");
                    serve.current = None;
                } else if whole {
                    // All that it lacks is at hand.
                    serve.current = serve.current.take().and_then(Current::next);
                    serve.take(entries, window_bytes);
                }
            }
            Some(Current { step: Step::Send(lacks), .. }) => {
                let before = lacks.first();
                serve.take(entries, window_bytes);
                let lacks = serve.current.as_ref().and_then(Current::lacks);
                if !serve.full && lacks.and_then(Lacks::first) == before {
                    stats.dropped("document unreadable");
                    serve.current = None;
                }
                serve.full |= !complete;
            }
        }
        self.proceed(number);
    }

    fn served_range(&mut self, number: u64, entries: &[(Bytes, Bytes)], complete: bool) {
        let fitting = fitting(entries, self.limits.window_bytes);
        let whole = complete && fitting.len() == entries.len();
        sometimes!("range cut", !whole);
        let next = if whole { None } else { fitting.last().map(|(key, _)| key.clone()) };
        let changes = self.by_document(fitting);
        let Some(Serve { session, request, .. }) = self.serves.under_way.remove(&number) else { return };
        self.effects.push_back(Effect::Window { session, request, changes, next });
    }

    /// Groups a scan of the log by document.
    fn by_document(&self, entries: &[(Bytes, Bytes)]) -> Vec<DocumentChanges> {
        let mut grouped: Vec<(DocKey, DocumentChanges)> = Vec::new();
        for change in entries.iter().filter_map(|(key, value)| StoredChange::read(key, value)) {
            match grouped.last_mut() {
                Some((key, group)) if *key == change.key => group.changes.push(change.chunk),
                _ => {
                    if let Some(document) = self.index.id(&change.key) {
                        grouped.push((change.key, DocumentChanges { document, changes: vec![change.chunk] }));
                    }
                }
            }
        }
        grouped.into_iter().map(|(_, group)| group).collect()
    }

    pub(crate) fn serving(&self) -> usize {
        self.serves.under_way.len()
    }

    /// Gives up the answers to a session that is gone.
    pub(crate) fn forget_session(&mut self, session: SessionId) {
        self.serves.under_way.retain(|_, serve| serve.session != session);
    }
}

impl Current {
    /// What follows when a step has nothing left to read; none when the document is done.
    fn next(self) -> Option<Self> {
        match self.step {
            Step::Scan(scan) => Some(Self { step: Step::Send(scan.into_lacks()), ..self }),
            Step::Send(_) => None,
        }
    }

    fn lacks(&self) -> Option<&Lacks> {
        match &self.step {
            Step::Scan(_) => None,
            Step::Send(lacks) => Some(lacks),
        }
    }
}

/// The first step for a document; none when the peer lacks nothing of it.
fn begin(record: DocumentRecord, asked: Asked, any: bool) -> Option<Current> {
    let Asked { key, id, heads, lacks } = asked;
    let step = match lacks.filter(|lacks| lacks.is_valid(record.changes)) {
        Some(lacks) => Step::Send(lacks),
        None if any && record.heads.iter().any(|head| heads.contains(head)) => return None,
        None if record.heads.iter().all(|head| heads.contains(head)) => return None,
        None if heads.is_empty() => Step::Send(Lacks::all(record.changes)),
        None => {
            sometimes!("log scanned");
            Step::Scan(Scan::new(record.changes, heads))
        }
    };
    Some(Current { key, id, step })
}

/// As many leading entries as one window holds, names counted, and at least one.
fn fitting(entries: &[(Bytes, Bytes)], bytes_max: usize) -> &[(Bytes, Bytes)] {
    let mut bytes = 0;
    let mut last = None;
    let end = entries.iter().position(|(key, value)| {
        let document = key.get(..DOC_KEY_BYTES);
        bytes += value.len() + if last == document { 0 } else { NAME_BYTES_MAX };
        last = document;
        bytes > bytes_max
    });
    entries.get(..end.unwrap_or(entries.len()).max(1)).unwrap_or(entries)
}
