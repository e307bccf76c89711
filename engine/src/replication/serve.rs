//! Answering repairs: the changes that a peer asked for, in windows of bounded size.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::content::{read_all, rebuild};
use super::records::{DOC_KEY_BYTES, DocKey, StoredChange, changes_of, prefix_end};
use super::replica::{Effect, Purpose, Replica};
use crate::documents::{COLLECTION_BYTES_MAX, Document, DocumentId, KEY_BYTES_MAX, ZONE_BYTES_MAX};
use crate::identity::{ChangeHash, SessionId};
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
    /// The document being loaded, and what the peer has of it; none for a range.
    loading: Option<(DocKey, DocumentId, Vec<ChangeHash>)>,
    left: VecDeque<(DocKey, DocumentId, Vec<ChangeHash>)>,
    changes: Vec<DocumentChanges>,
    bytes: usize,
    /// There was no room for all that the peer lacks.
    more: bool,
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

impl<D: Document> Replica<D> {
    /// Begins an answer; [`Effect::Window`] ends it.
    pub(crate) fn serve(&mut self, session: SessionId, request: u32, wanted: Wanted, stats: &mut Stats) {
        if self.serves.of(session) >= self.limits.serves_per_peer {
            stats.dropped("repair requests without room");
            return;
        }
        self.numbers += 1;
        let number = self.numbers;
        let mut serve = Serve {
            session,
            request,
            loading: None,
            left: VecDeque::new(),
            changes: Vec::new(),
            bytes: 0,
            more: false,
        };
        match wanted {
            Wanted::Range { scope, prefix, after } => {
                let full = self.index.key_prefix(&scope, &prefix);
                let end = prefix_end(&full).unwrap_or_default().into();
                // Elsewhere are documents that the peer may not be entitled to.
                let after = after.filter(|after| after.starts_with(&full));
                // The least key above `after` is `after` and a zero.
                let start = after.map_or_else(|| full.into(), |after| [&after[..], &[0]].concat().into());
                let query = Query { table: Table::Changes, start, end, bytes_max: self.limits.window_bytes };
                self.serves.under_way.insert(number, serve);
                self.load(query, Purpose::Serve(number));
            }
            Wanted::Documents(documents) => {
                serve.left = documents.into_iter().map(|(id, heads)| (self.index.key(&id), id, heads)).collect();
                self.serves.under_way.insert(number, serve);
                self.serve_next(number);
            }
        }
    }

    /// Loads the next document of an answer, or sends it.
    fn serve_next(&mut self, number: u64) {
        let Some(serve) = self.serves.under_way.get_mut(&number) else { return };
        while serve.bytes < self.limits.window_bytes
            && let Some((key, id, theirs)) = serve.left.pop_front()
        {
            let ours = self.index.heads(&key).unwrap_or_default();
            if ours.iter().all(|head| theirs.contains(head)) {
                continue;
            }
            serve.loading = Some((key, id, theirs));
            self.load(changes_of(&key), Purpose::Serve(number));
            return;
        }
        // The peer asks again, with the heads that it then has.
        let next = (serve.more || !serve.left.is_empty()).then(Bytes::new);
        self.finish(number, next);
    }

    fn finish(&mut self, number: u64, next: Option<Bytes>) {
        let Some(serve) = self.serves.under_way.remove(&number) else { return };
        let Serve { session, request, changes, .. } = serve;
        self.effects.push_back(Effect::Window { session, request, changes, next });
    }

    /// Storage has answered.
    pub(super) fn served(&mut self, number: u64, entries: &[(Bytes, Bytes)], complete: bool) {
        let Some(serve) = self.serves.under_way.get_mut(&number) else { return };
        let Some((key, id, theirs)) = serve.loading.take() else {
            let fitting = fitting(entries, self.limits.window_bytes);
            let whole = complete && fitting.len() == entries.len();
            let next = if whole { None } else { fitting.last().map(|(key, _)| key.clone()) };
            let changes = self.by_document(fitting);
            if let Some(serve) = self.serves.under_way.get_mut(&number) {
                serve.changes = changes;
            }
            self.finish(number, next);
            return;
        };
        let durable = self.index.record(&key).map_or(0, |record| record.changes as usize);
        let genesis = D::genesis_hash(&self.genesis(&id));
        let missing = missing::<D>(genesis, entries.get(..durable).unwrap_or(entries), &theirs);
        let Some(serve) = self.serves.under_way.get_mut(&number) else { return };
        let mut changes = Vec::new();
        for chunk in missing {
            if serve.bytes > 0 && serve.bytes + chunk.len() > self.limits.window_bytes {
                serve.more = true;
                serve.left.clear();
                break;
            }
            serve.bytes += chunk.len();
            changes.push(chunk);
        }
        if !changes.is_empty() {
            serve.changes.push(DocumentChanges { document: id, changes });
        }
        self.serve_next(number);
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

/// The chunks of a log that are not behind `theirs`, each after its dependencies.
fn missing<D: Document>(genesis: ChangeHash, entries: &[(Bytes, Bytes)], theirs: &[ChangeHash]) -> Vec<Bytes> {
    let Some((stored, headers)) = read_all::<D>(entries) else { return Vec::new() };
    let Some(log) = rebuild(&genesis, &stored, headers, false) else { return Vec::new() };
    log.missing_from(theirs).into_iter().filter_map(|at| stored.get(at)).map(|change| change.chunk.clone()).collect()
}
