//! Making an edit or a read on a document whose content is at hand.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::batch::Done;
use super::index::{etag, summary};
use super::open::{Content, Origin};
use super::records::{DocKey, DocumentRecord, change_write};
use super::replica::{DurableEdit, Effect, Replica};
use crate::api::{
    DocumentView, EditError, EditId, EditRequest, Edited, Etag, EtagMatch, Precondition, ReadError, ReadId,
};
use crate::documents::gate::{Judgement, judge};
use crate::documents::{
    Actor, Authored, ChangeHeader, ChangeKind, Document, DocumentId, Edit, EditRefused, Quarantine,
};
use crate::faults::Fault;
use crate::identity::Boot;
use crate::sometimes;
use crate::stats::Stats;
use crate::time::Wall;

impl<D: Document> Replica<D> {
    pub(super) fn perform_edit(
        &mut self,
        key: DocKey,
        id: EditId,
        request: EditRequest,
        wall: Wall,
        stats: &mut Stats,
    ) {
        let EditRequest { document: name, mut edit, mut precondition, replicas, timeout } = request;
        if self.faults.has(Fault::IfMatchIgnored) {
            precondition.if_match = None;
        }
        if let Edit::JsonPatch(serde_json::Value::Array(operations)) = &mut edit
            && self.faults.has(Fault::PatchCutShort)
        {
            operations.pop();
        }
        let before = self.open.get(&key).and_then(|open| open.state().cloned());
        let stale = self.faults.has(Fault::PreconditionOnIndex).then(|| self.index.record(&key));
        if let Err(error) = may_edit(stale.as_ref().unwrap_or(&before).as_ref(), &edit, &precondition) {
            self.answer_edit(id, Err(error));
            return;
        }
        let created = before.as_ref().is_none_or(|record| record.deleted);
        sometimes!("recreated", created && before.is_some());
        let boot = if self.faults.has(Fault::ActorReused) { Boot([0; 16]) } else { self.author.boot };
        let shared = self.faults.has(Fault::ActorShared).then(|| without_key(&name));
        let of = shared.as_ref().unwrap_or(&name);
        let actor = Actor::new(self.author.node, &boot, of, self.generation);
        let Some(open) = self.open.get_mut(&key) else { return };
        let Content::Ready(document) = &mut open.content else { return };
        let heads = before.map(|record| record.heads).unwrap_or_default();
        let made = catch_unwind(AssertUnwindSafe(|| document.edit(&actor, &edit, created, wall)));
        let made = match made {
            Ok(Ok(made)) => made,
            Ok(Err(refused)) => {
                self.answer_edit(id, Err(refused.into()));
                return;
            }
            Err(_) => {
                // A document that panicked is in no known state.
                stats.dropped("edit panicked");
                open.content = Content::Absent;
                self.answer_edit(id, Err(EditError::Unreadable));
                return;
            }
        };
        let unchanged =
            Edited { etag: etag(&heads), created: false, changed: false, held_by: 0, replicated: replicas == 0 };
        let edited = match made {
            None => unchanged,
            Some(authored) => match self.author(key, authored, stats) {
                Ok(etag) => Edited { etag, created, changed: true, ..unchanged },
                Err(error) => {
                    self.answer_edit(id, Err(error));
                    return;
                }
            },
        };
        self.answer_when_durable(key, DurableEdit { id, edited, scope: name.scope().clone(), replicas, timeout });
    }

    /// Takes a change made here through the gate that peers will put it through, and stages it.
    fn author(&mut self, key: DocKey, authored: Authored, stats: &mut Stats) -> Result<Etag, EditError> {
        let Authored { chunk, header } = authored;
        let Some(open) = self.open.get_mut(&key) else { return Err(EditError::Busy) };
        let Some(log) = &open.log else { return Err(EditError::Busy) };
        if !matches!(judge(log, &header), Judgement::Admit) {
            // The content now holds a change that no replica would take.
            stats.dropped("own change refused by the gate");
            open.content = Content::Absent;
            return Err(EditRefused::TooLarge.into());
        }
        Ok(self.append(key, &header, chunk, None, Origin::Here))
    }

    fn answer_when_durable(&mut self, key: DocKey, edit: DurableEdit) {
        let batch = self.open.get(&key).and_then(|open| open.batch).filter(|batch| self.batches.is_pending(*batch));
        match batch {
            Some(batch) if !self.faults.has(Fault::AckBeforePersist) => self.batches.after(batch, Done::Edit(edit)),
            _ => self.effects.push_back(Effect::Durable { authored: Vec::new(), edits: vec![edit] }),
        }
    }

    pub(super) fn perform_read(&mut self, key: DocKey, id: ReadId, conflicts: bool, stats: &mut Stats) {
        let Some(open) = self.open.get_mut(&key) else { return };
        let shows_deleted = self.faults.has(Fault::DeletedStillShown);
        let answer = match (&open.record, &mut open.content) {
            (None, _) => Err(ReadError::NotFound),
            (Some(record), _) if record.deleted && !shows_deleted => Err(ReadError::Gone { etag: etag(&record.heads) }),
            (Some(record), Content::Ready(document)) => {
                let read = || (document.value(), if conflicts { document.conflicts() } else { Vec::new() });
                match catch_unwind(AssertUnwindSafe(read)) {
                    Ok((value, conflicts)) => Ok(DocumentView { summary: summary(record), value, conflicts }),
                    Err(_) => {
                        // As after an edit that panicked; what is stored may still make the document.
                        stats.dropped("read panicked");
                        open.content = Content::Absent;
                        Err(ReadError::Unreadable)
                    }
                }
            }
            (Some(_), Content::Absent | Content::Away(_)) => Err(ReadError::Unreadable),
        };
        let waits = !self.faults.has(Fault::ReadUnsynced);
        match open.batch.filter(|batch| waits && self.batches.is_pending(*batch)) {
            // It shows a change that a crash could still take back.
            Some(batch) => {
                sometimes!("read waited");
                self.batches.after(batch, Done::Read { id, key, conflicts, answer: Box::new(answer) });
            }
            None => self.answer_read(id, answer),
        }
    }

    /// Adds a change to a document's log and to the batch being gathered; returns the etag that results.
    pub(super) fn append(
        &mut self,
        key: DocKey,
        header: &ChangeHeader,
        chunk: Bytes,
        quarantine: Option<Quarantine>,
        origin: Origin,
    ) -> Etag {
        let authored = origin == Origin::Here;
        let Some(open) = self.open.get_mut(&key) else { return etag(&[]) };
        let Some(log) = &mut open.log else { return etag(&[]) };
        let order = log.len();
        let demoted = log.push(header, quarantine);
        let quarantine = log.quarantined(order);
        self.sequence += 1;
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let before = open.record.as_ref();
        let mut heads = log.heads();
        if self.faults.has(Fault::HeadsUnsorted) {
            heads.sort_by_key(|head| log.index_of(head));
        }
        let mut deleted = log.is_deleted() || self.faults.has(Fault::DeleteBeatsEdit) && log.is_revived();
        if self.faults.has(Fault::DeletedByArrival) {
            deleted = header.kind == ChangeKind::Delete;
        }
        let headed = before.map_or(0, |record| record.heads.len());
        sometimes!("heads split", heads.len() > headed.max(1));
        sometimes!("heads joined", heads.len() < headed);
        sometimes!("deleted twice", deleted && heads.len() > 1);
        sometimes!("delete beside an edit", log.is_revived());
        let record = DocumentRecord {
            id: open.id.clone(),
            heads,
            deleted,
            revived: log.is_revived()
                || self.faults.has(Fault::RevivedKept) && before.is_some_and(|record| record.revived),
            sequence: self.sequence,
            modified: header.wall.0,
            changes: number(order + 1),
            // The author's content has seen the whole log.
            verified: if authored { number(order + 1) } else { before.map_or(0, |record| record.verified) },
            quarantined: before.map_or(0, |record| record.quarantined)
                + number(demoted.len())
                + u32::from(quarantine.is_some()),
        };
        open.record = Some(record.clone());
        if !demoted.is_empty() && !self.faults.has(Fault::DisplacedShown) {
            sometimes!("displaced");
            // The content holds what no longer counts; the next use makes it anew, without what waited to be tried on it
            // and is put aside. One of our own actors may be among that, so none of them is used again.
            open.content = Content::Absent;
            open.unapplied.retain(|(order, _)| !demoted.contains(order));
            self.generation += 1;
        }
        let lost = self.faults.has(Fault::ArrivedDuringTrial) && matches!(open.content, Content::Away(_));
        sometimes!("changed during trial", !authored && matches!(open.content, Content::Away(_)));
        sometimes!("changed during load", !authored && open.load.is_some());
        let in_use = open.load.is_some() || !matches!(open.content, Content::Absent);
        if !authored && quarantine.is_none() && in_use && !lost {
            open.unapplied.push((order, chunk.clone()));
        }
        let etag = etag(&record.heads);
        let durable = self.faults.has(Fault::OrderFromIndex).then(|| self.index.changes(&key));
        let order = durable.unwrap_or(number(order));
        self.batches.write(change_write(&key, order, quarantine, &chunk));
        self.stage(key, record, authored.then_some(chunk), origin);
        etag
    }

    /// Puts a document's new state into the batch being gathered.
    pub(super) fn stage(&mut self, key: DocKey, record: DocumentRecord, authored: Option<Bytes>, origin: Origin) {
        let batch = self.batches.write(record.write(&key));
        if self.faults.has(Fault::PushBeforePersist)
            && let Some(chunk) = &authored
        {
            let authored = vec![(record.id.clone(), chunk.clone())];
            self.effects.push_back(Effect::Durable { authored, edits: Vec::new() });
        }
        self.batches.then(Done::Update { key, record: Box::new(record), authored, origin });
        if let Some(open) = self.open.get_mut(&key) {
            open.batch = Some(batch);
        }
    }
}

/// What all documents of a collection have in common.
fn without_key(id: &DocumentId) -> DocumentId {
    DocumentId::from_parts(id.scope().clone(), id.collection().into(), "".into())
}

/// Whether a document in this state may be edited so.
fn may_edit(state: Option<&DocumentRecord>, edit: &Edit, precondition: &Precondition) -> Result<(), EditError> {
    let current = state.filter(|record| !record.deleted).map(|record| etag(&record.heads));
    let matches = |wanted: &EtagMatch| match (wanted, &current) {
        (_, None) => false,
        (EtagMatch::Any, Some(_)) => true,
        (EtagMatch::OneOf(etags), Some(current)) => etags.contains(current),
    };
    if precondition.if_match.as_ref().is_some_and(|wanted| !matches(wanted))
        || precondition.if_none_match.as_ref().is_some_and(matches)
    {
        return Err(EditError::Precondition { current });
    }
    match (edit, state) {
        (Edit::Put(_), _) => Ok(()),
        (_, Some(record)) if record.deleted => Err(EditError::Gone),
        (Edit::Delete | Edit::JsonPatch(_), None) => Err(EditError::NotFound),
        (Edit::Delete | Edit::JsonPatch(_) | Edit::MergePatch(_) | Edit::Increment { .. }, _) => Ok(()),
    }
}
