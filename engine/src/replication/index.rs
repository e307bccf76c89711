//! The durable state of every document, in memory: name, heads, counts. About 300 bytes a document.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::records::{DocKey, DocumentRecord, SCOPE_TAG_BYTES, prefix_end, scope_tag};
use super::tree::{FANOUT, Sum, Tree, fingerprint};
use crate::api::{Etag, ScopeStatus, Summary};
use crate::documents::{DocumentId, Scope};
use crate::faults::{Fault, Faults};
use crate::identity::ChangeHash;
use crate::time::Wall;

/// Domain of [`etag`]; the epoch is 0 until history can be squashed.
const ETAG_CONTEXT: &str = "knot 2026 etag";
const EPOCH: u32 = 0;

/// The etag of a document with these sorted heads.
pub(crate) fn etag(heads: &[ChangeHash]) -> Etag {
    let mut hasher = blake3::Hasher::new_derive_key(ETAG_CONTEXT);
    hasher.update(&EPOCH.to_le_bytes());
    for head in heads {
        hasher.update(&head.0);
    }
    let [bytes @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *hasher.finalize().as_bytes();
    Etag(bytes)
}

/// Nearly every document has one head; that one is kept inline.
#[derive(Debug)]
enum Heads {
    One(ChangeHash),
    Many(Box<[ChangeHash]>),
}

impl Heads {
    fn new(heads: &[ChangeHash]) -> Self {
        match heads {
            [one] => Self::One(*one),
            many => Self::Many(many.into()),
        }
    }

    fn as_slice(&self) -> &[ChangeHash] {
        match self {
            Self::One(head) => std::slice::from_ref(head),
            Self::Many(heads) => heads,
        }
    }
}

/// The scope and name of a collection, shared by its documents.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Collection {
    scope: Scope,
    name: Arc<str>,
}

/// The documents of a collection by name, deleted ones among them.
#[derive(Debug, Default)]
struct Names {
    keys: BTreeSet<Arc<str>>,
    deleted: usize,
}

#[derive(Debug)]
struct Entry {
    collection: Arc<Collection>,
    key: Arc<str>,
    heads: Heads,
    sequence: u64,
    modified: Wall,
    changes: u32,
    verified: u32,
    quarantined: u32,
    deleted: bool,
    revived: bool,
}

impl Entry {
    fn id(&self) -> DocumentId {
        DocumentId::from_parts(self.collection.scope.clone(), self.collection.name.clone(), self.key.clone())
    }

    fn record(&self) -> DocumentRecord {
        DocumentRecord {
            id: self.id(),
            heads: self.heads.as_slice().to_vec(),
            deleted: self.deleted,
            revived: self.revived,
            sequence: self.sequence,
            modified: self.modified.0,
            changes: self.changes,
            verified: self.verified,
            quarantined: self.quarantined,
        }
    }
}

/// What is known of the documents of one scope as a whole.
#[derive(Debug, Default)]
struct ScopeTotals {
    tree: Tree,
    deleted: u64,
}

/// All documents, by hashed name, by name and by sequence.
#[derive(Debug)]
pub(crate) struct Index {
    secret: [u8; 32],
    faults: Faults,
    entries: BTreeMap<DocKey, Entry>,
    /// The hashed name that leads on from a name costs less to compute than to keep.
    collections: BTreeMap<Arc<Collection>, Names>,
    by_sequence: BTreeMap<u64, DocKey>,
    scopes: BTreeMap<Scope, ScopeTotals>,
    quarantined: u64,
}

impl Index {
    pub(crate) fn new(secret: [u8; 32], faults: Faults) -> Self {
        Self {
            secret,
            faults,
            entries: BTreeMap::new(),
            collections: BTreeMap::new(),
            by_sequence: BTreeMap::new(),
            scopes: BTreeMap::new(),
            quarantined: 0,
        }
    }

    pub(crate) fn key(&self, id: &DocumentId) -> DocKey {
        DocKey::of(&self.secret, id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn contains(&self, key: &DocKey) -> bool {
        self.entries.contains_key(key)
    }

    pub(crate) fn record(&self, key: &DocKey) -> Option<DocumentRecord> {
        self.entries.get(key).map(Entry::record)
    }

    /// Sorted heads; none when the document is not there.
    pub(crate) fn heads(&self, key: &DocKey) -> Option<&[ChangeHash]> {
        self.entries.get(key).map(|entry| entry.heads.as_slice())
    }

    pub(crate) fn summary(&self, key: &DocKey) -> Option<Summary> {
        self.entries.get(key).map(|entry| summary(&entry.record()))
    }

    /// Takes a document's new state, which is durable.
    pub(crate) fn update(&mut self, key: DocKey, record: DocumentRecord) {
        self.remove(&key);
        let DocumentRecord { id, heads, deleted, revived, sequence, modified, changes, verified, quarantined } = record;
        let fingerprint = self.fingerprint(&key, &heads, deleted);
        let totals = self.scopes.entry(id.scope().clone()).or_default();
        totals.tree.add(&key, fingerprint);
        totals.deleted += u64::from(deleted);
        self.quarantined += u64::from(quarantined);
        self.by_sequence.insert(sequence, key);
        let (scope, name, document_key) = id.into_parts();
        let collection = self.collection(Collection { scope, name });
        if let Some(names) = self.collections.get_mut(&collection) {
            names.keys.insert(document_key.clone());
            names.deleted += usize::from(deleted);
        }
        let heads = Heads::new(&heads);
        let modified = Wall(modified);
        let entry = Entry {
            collection,
            key: document_key,
            heads,
            sequence,
            modified,
            changes,
            verified,
            quarantined,
            deleted,
            revived,
        };
        self.entries.insert(key, entry);
    }

    /// Forgets a document. Only an update and a planted bug do that: tombstones stay.
    pub(crate) fn remove(&mut self, key: &DocKey) {
        let Some(old) = self.entries.remove(key) else { return };
        let heads = old.heads.as_slice();
        let kept = self.faults.has(Fault::SumKept) && heads.len() > 1;
        let fingerprint = if kept { 0 } else { self.fingerprint(key, heads, old.deleted) };
        if let Some(totals) = self.scopes.get_mut(&old.collection.scope) {
            totals.tree.remove(key, fingerprint);
            totals.deleted -= u64::from(old.deleted);
        }
        self.quarantined -= u64::from(old.quarantined);
        self.by_sequence.remove(&old.sequence);
        if let Some(names) = self.collections.get_mut(&old.collection) {
            names.keys.remove(&old.key);
            names.deleted -= usize::from(old.deleted);
        }
    }

    /// What a document adds to the sums.
    fn fingerprint(&self, key: &DocKey, heads: &[ChangeHash], deleted: bool) -> u128 {
        let heads = heads.get(..1).filter(|_| self.faults.has(Fault::FirstHeadOnly)).unwrap_or(heads);
        let heads = if deleted && self.faults.has(Fault::TombstoneNotSummed) { &[] } else { heads };
        fingerprint(&self.secret, key, heads)
    }

    fn collection(&mut self, collection: Collection) -> Arc<Collection> {
        if let Some((known, _)) = self.collections.get_key_value(&collection) {
            return known.clone();
        }
        let shared = Arc::new(collection);
        self.collections.insert(shared.clone(), Names::default());
        shared
    }

    /// Lists a scope even while it is empty.
    pub(crate) fn hold(&mut self, scope: Scope) {
        self.scopes.entry(scope).or_default();
    }

    /// Notes how many leading changes have passed; in memory only, and saved with the document's next change.
    pub(crate) fn set_verified(&mut self, key: &DocKey, verified: u32) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.verified = verified.min(entry.changes);
        }
    }

    /// The greatest sequence number in use.
    pub(crate) fn sequence(&self) -> u64 {
        self.by_sequence.last_key_value().map_or(0, |(sequence, _)| *sequence)
    }

    pub(crate) fn quarantined(&self) -> u64 {
        self.quarantined
    }

    /// Documents that have changes in quarantine, and how many.
    pub(crate) fn with_quarantined(&self) -> impl Iterator<Item = (DocumentId, u32)> {
        self.entries.values().filter(|entry| entry.quarantined > 0).map(|entry| (entry.id(), entry.quarantined))
    }

    /// The sum over a scope.
    pub(crate) fn root(&self, scope: &Scope) -> Sum {
        self.scopes.get(scope).map(|totals| totals.tree.root()).unwrap_or_default()
    }

    /// The sums of the 256 children of `prefix` in `scope`.
    pub(crate) fn split(&self, scope: &Scope, prefix: &[u8]) -> Vec<Sum> {
        if prefix.is_empty() {
            return self.scopes.get(scope).map_or_else(|| vec![Sum::default(); FANOUT], |t| t.tree.children().to_vec());
        }
        let mut sums = vec![Sum::default(); FANOUT];
        for (key, heads) in self.range(scope, prefix) {
            let child = key.0.get(SCOPE_TAG_BYTES + prefix.len()).copied().unwrap_or(0);
            if let Some(sum) = sums.get_mut(usize::from(child)) {
                sum.add(self.fingerprint(key, heads, self.is_deleted(key)));
            }
        }
        sums
    }

    /// The documents of `scope` whose hashed names begin with `prefix`.
    pub(crate) fn range(&self, scope: &Scope, prefix: &[u8]) -> impl Iterator<Item = (&DocKey, &[ChangeHash])> {
        let (start, end) = self.bounds(scope, prefix);
        self.entries.range((Bound::Included(start), end)).map(|(key, entry)| (key, entry.heads.as_slice()))
    }

    pub(crate) fn id(&self, key: &DocKey) -> Option<DocumentId> {
        self.entries.get(key).map(Entry::id)
    }

    /// How many changes of a document are durable.
    pub(crate) fn changes(&self, key: &DocKey) -> u32 {
        self.entries.get(key).map_or(0, |entry| entry.changes)
    }

    pub(crate) fn is_deleted(&self, key: &DocKey) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.deleted)
    }

    /// The bytes that all keys of `prefix` in `scope` begin with.
    pub(crate) fn key_prefix(&self, scope: &Scope, prefix: &[u8]) -> Vec<u8> {
        [&scope_tag(&self.secret, scope)[..], prefix].concat()
    }

    fn bounds(&self, scope: &Scope, prefix: &[u8]) -> (DocKey, Bound<DocKey>) {
        let full = self.key_prefix(scope, prefix);
        let end = prefix_end(&full).map_or(Bound::Unbounded, |end| Bound::Excluded(padded(&end)));
        (padded(&full), end)
    }

    /// In key order, without deleted ones.
    pub(crate) fn list(
        &self,
        scope: &Scope,
        collection: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<Summary> {
        let name = Collection { scope: scope.clone(), name: collection.into() };
        let Some(names) = self.collections.get(&name) else { return Vec::new() };
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix),
        };
        names
            .keys
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|key| key.starts_with(prefix))
            .map(|key| DocumentId::from_parts(name.scope.clone(), name.name.clone(), key.clone()))
            .filter_map(|id| self.entries.get(&self.key(&id)))
            .filter(|entry| !entry.deleted)
            .take(limit)
            .map(|entry| summary(&entry.record()))
            .collect()
    }

    /// The collections of a scope that hold documents, with how many of them exist.
    pub(crate) fn collections(&self, scope: &Scope) -> Vec<(Arc<str>, usize)> {
        let first = Collection { scope: scope.clone(), name: "".into() };
        self.collections
            .range(Arc::new(first)..)
            .take_while(|(collection, _)| collection.scope == *scope)
            .map(|(collection, names)| (collection.name.clone(), names.keys.len() - names.deleted))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Documents updated after `sequence`, in that order.
    pub(crate) fn changes_since(&self, sequence: u64, limit: usize) -> Vec<Summary> {
        self.by_sequence
            .range((Bound::Excluded(sequence), Bound::Unbounded))
            .filter_map(|(_, key)| self.summary(key))
            .take(limit)
            .collect()
    }

    pub(crate) fn scopes(&self) -> Vec<ScopeStatus> {
        self.scopes
            .iter()
            .map(|(scope, totals)| {
                let root = totals.tree.root();
                ScopeStatus {
                    scope: scope.to_string(),
                    documents: root.count - totals.deleted,
                    deleted: totals.deleted,
                    root: format!("{:032x}", root.sum),
                }
            })
            .collect()
    }
}

/// What people see of a record.
pub(crate) fn summary(record: &DocumentRecord) -> Summary {
    Summary {
        id: record.id.clone(),
        etag: etag(&record.heads),
        deleted: record.deleted,
        revived: record.revived,
        sequence: record.sequence,
        modified: record.modified(),
        changes: record.changes,
    }
}

fn padded(prefix: &[u8]) -> DocKey {
    let mut key = [0; 24];
    key.iter_mut().zip(prefix).for_each(|(to, from)| *to = *from);
    DocKey(key)
}
