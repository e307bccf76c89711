//! A replica of one document: what the engine does with a change, without the engine.

use bytes::Bytes;
use knot_engine::documents::{
    Actor, Authored, Document, DocumentId, Edit, EditRefused, Judgement, Log, Quarantine, Scope, judge,
};
use knot_engine::{Boot, NodeId, Wall};
use serde_json::Value;

/// The document that all replicas of a test hold.
pub(crate) fn id() -> DocumentId {
    DocumentId::new(Scope::Global, "users", "ada").unwrap()
}

/// A replica that checks all it receives.
#[derive(Clone, Debug)]
pub(crate) struct Replica<D> {
    pub(crate) node: NodeId,
    pub(crate) actor: Actor,
    pub(crate) doc: D,
    pub(crate) log: Log,
    pub(crate) changes: Vec<Bytes>,
}

impl<D: Document> Replica<D> {
    /// The replica of node `number`.
    pub(crate) fn new(number: u8) -> Self {
        let node = NodeId([number; 16]);
        Self {
            node,
            actor: Actor::new(node, &Boot([9; 16]), &id(), 0),
            doc: D::new(&id()),
            log: Log::new(&D::genesis_hash(&id())),
            changes: Vec::new(),
        }
    }

    /// Makes an edit; the change must pass the inline checks.
    pub(crate) fn try_edit(&mut self, edit: &Edit) -> Result<Option<Bytes>, EditRefused> {
        let deleted = self.log.is_deleted();
        let Some(Authored { chunk, header }) = self.doc.edit(&self.actor, edit, deleted, Wall(1_000))? else {
            return Ok(None);
        };
        assert_eq!(D::header(&chunk).as_ref(), Ok(&header));
        assert_eq!(judge(&self.log, &header), Judgement::Admit);
        assert_eq!(self.log.push(&header, None), Vec::<usize>::new());
        self.changes.push(chunk.clone());
        Ok(Some(chunk))
    }

    pub(crate) fn edit(&mut self, edit: &Edit) -> Option<Bytes> {
        self.try_edit(edit).unwrap()
    }

    pub(crate) fn put(&mut self, value: Value) -> Option<Bytes> {
        self.edit(&Edit::Put(value))
    }

    pub(crate) fn increment(&mut self, pointer: &str, by: i64) -> Option<Bytes> {
        self.edit(&Edit::Increment { pointer: pointer.to_owned(), by })
    }

    /// Takes a change from a peer through header, judge and trial.
    pub(crate) fn receive(&mut self, bytes: &Bytes) -> Judgement
    where
        D: Clone,
    {
        let Ok(header) = D::header(bytes) else {
            panic!("malformed");
        };
        let reason = match judge(&self.log, &header) {
            verdict @ (Judgement::Known | Judgement::Orphan { .. }) => return verdict,
            Judgement::Admit if self.log.displaces(&header) => {
                self.log.push(&header, None);
                self.rebuild();
                let reason = self.try_out(bytes);
                if let Some(reason) = reason {
                    self.log.quarantine(self.changes.len(), reason);
                }
                reason
            }
            Judgement::Admit => {
                let reason = self.try_out(bytes);
                self.log.push(&header, reason);
                reason
            }
            Judgement::Quarantine(reason) => {
                self.log.push(&header, Some(reason));
                Some(reason)
            }
        };
        self.changes.push(bytes.clone());
        reason.map_or(Judgement::Admit, Judgement::Quarantine)
    }

    fn try_out(&mut self, bytes: &Bytes) -> Option<Quarantine>
    where
        D: Clone,
    {
        let candidates = std::slice::from_ref(bytes);
        let trial = self.doc.clone().trial(candidates).unwrap();
        self.doc = trial.document;
        trial.refused.first().map(|(_, reason)| *reason)
    }

    /// Starts over from what is not in quarantine.
    fn rebuild(&mut self) {
        let is_live = |index: &usize| self.log.quarantined(*index).is_none();
        let live: Vec<_> = (0..self.changes.len()).filter(is_live).map(|index| self.changes[index].clone()).collect();
        self.doc = D::new(&id());
        self.doc.apply(&live).unwrap();
    }

    /// Takes everything that `other` has and this does not.
    pub(crate) fn pull(&mut self, other: &Self)
    where
        D: Clone,
    {
        for index in other.log.missing_from(&self.log.heads()) {
            self.receive(&other.changes[index]);
        }
        assert!(self.log.knows_all(&other.log.heads()));
    }
}

/// Both hold what either held.
pub(crate) fn exchange<D: Document + Clone>(a: &mut Replica<D>, b: &mut Replica<D>) {
    a.pull(b);
    b.pull(a);
    assert_eq!(a.log.heads(), b.log.heads());
    assert_eq!(a.doc.value(), b.doc.value());
}
