//! Looking again at changes in quarantine: a release has the gate judge them anew, a drop puts one aside.
//!
//! What the gate says of a change depends on the change, its ancestors, its rivals and this version's rules, and all
//! servers of one version say the same. So neither of the two decides anything: a release brings what is noted of a
//! change, perhaps by an earlier version, up to what the gate says now, and a drop is for the eyes of people alone.
//! Heads, roots and what is sent to peers stay as they are with both. Nothing of the bytes is given back: who lacks a
//! change has to be able to get it as long as it counts in anybody's heads, and a later gate may take it.

use super::batch::Done;
use super::content::rebuild;
use super::open::{Origin, Waiter};
use super::records::{DocKey, StoredChange};
use super::replica::{Effect, Replica};
use crate::api::{Event, ReadError, ReadId, Review, ReviewError, Reviewed};
use crate::documents::gate::{Judgement, Log, judge};
use crate::documents::{ChangeHeader, Document, DocumentId, Quarantine};
use crate::faults::Fault;
use crate::identity::ChangeHash;
use crate::sometimes;
use crate::stats::Stats;
use crate::time::Instant;

impl<D: Document> Replica<D> {
    pub(crate) fn review(
        &mut self,
        id: ReadId,
        document: &DocumentId,
        review: Review,
        now: Instant,
        stats: &mut Stats,
    ) {
        let key = self.index.key(document);
        let refused = match self.admits_read(document) {
            Err(ReadError::NotHeldHere) => Some(ReviewError::NotHeldHere),
            Err(_) => Some(ReviewError::Busy),
            Ok(()) if self.failed => Some(ReviewError::StorageFailed),
            Ok(()) if self.full_until.is_some_and(|until| now < until) => Some(ReviewError::DiskFull),
            Ok(()) => (!self.index.contains(&key)).then_some(ReviewError::NotFound),
        };
        if let Some(error) = refused {
            self.answer_review(id, Err(error));
            return;
        }
        let waiter = Waiter::Review { id, review, begun: false, tried: Vec::new() };
        self.open.touch(key, document).waiters.push_back(waiter);
        self.waiting += 1;
        self.kick(key, now, stats);
    }

    /// Has a document read from storage anew for the review that is next; false while something of it is on its way
    /// there or back. What peers send meanwhile waits, so that what is read is all there is.
    pub(super) fn begin_review(&mut self, key: DocKey) -> bool {
        let Some(open) = self.open.get_mut(&key) else { return false };
        let is_pending = open.batch.is_some_and(|batch| self.batches.is_pending(batch));
        if is_pending || open.load.is_some() || !self.started {
            return false;
        }
        if let Some(Waiter::Review { begun, .. }) = open.waiters.front_mut() {
            *begun = true;
        }
        open.reset();
        true
    }

    /// A document's log has been made from what is `stored`. Where a review waits for it, what is noted of its changes is
    /// brought up to date, here and in the batch being gathered. Content is tried next, as after a change has arrived.
    pub(super) fn look_again(
        &mut self,
        key: DocKey,
        genesis: &ChangeHash,
        stored: &mut [StoredChange],
        headers: &[ChangeHeader],
    ) {
        let faults = self.faults;
        let Some(open) = self.open.get_mut(&key) else { return };
        let Some(Waiter::Review { review, begun: true, tried, .. }) = open.waiters.front_mut() else { return };
        let (Some(before), Some(record)) = (&open.log, &mut open.record) else { return };
        let in_quarantine = |index: usize| before.quarantined(index).is_some();
        let renoted = match *review {
            Review::Release(meant) => {
                sometimes!("judged again");
                let is_judged = !faults.has(Fault::ReleaseUnjudged);
                let noted = stored.iter().position(|change| change.quarantine.is_some());
                let first = noted.and_then(|index| headers.get(index)).map(|header| header.hash);
                let meant = meant.or(first.filter(|_| faults.has(Fault::ReleaseCutShort)));
                release(genesis, stored, headers, |hash| meant.is_none_or(|meant| meant == *hash), is_judged)
            }
            Review::Drop(meant) => {
                let found = headers.iter().position(|header| header.hash == meant);
                let found = found.filter(|index| in_quarantine(*index));
                sometimes!("put aside", found.is_some());
                found.into_iter().filter_map(|index| put_aside(index, stored)).collect()
            }
        };
        let Some(log) = rebuild(genesis, stored, headers, faults.has(Fault::GapAccepted)) else { return };
        let is_tried = |index: &usize| {
            let is_named = headers.get(*index).is_some_and(|header| match *review {
                Review::Release(meant) => meant.is_none_or(|meant| meant == header.hash),
                Review::Drop(meant) => meant == header.hash,
            });
            in_quarantine(*index) && (is_named || log.quarantined(*index).is_none())
        };
        let looked_at: Vec<usize> = (0..stored.len()).filter(is_tried).collect();
        *tried = looked_at.iter().filter_map(|index| log.hash(*index).copied()).collect();
        if renoted.is_empty() {
            return;
        }
        let first_freed = looked_at.into_iter().find(|index| log.quarantined(*index).is_none());
        if let Some(first) = first_freed {
            self.sequence += 1;
            record.sequence = self.sequence;
            record.verified = record.verified.min(u32::try_from(first).unwrap_or(u32::MAX));
        }
        let counts = |(index, change): &(usize, &StoredChange)| log.quarantined(*index).is_some() && !change.dropped;
        let counted = stored.iter().enumerate().filter(counts).count();
        record.quarantined = u32::try_from(counted).unwrap_or(u32::MAX);
        record.deleted = log.is_deleted();
        record.revived = log.is_revived();
        if faults.has(Fault::DropForgets) && matches!(review, Review::Drop(_)) {
            record.heads = log.live_heads();
        }
        let record = record.clone();
        open.log = Some(log);
        for change in renoted.iter().filter_map(|index| stored.get(*index)) {
            self.batches.write(change.write());
        }
        self.stage(key, record, None, Origin::Repair);
    }

    /// The document's content is at hand, so what was to be tried has been.
    pub(super) fn end_review(&mut self, key: DocKey, id: ReadId, review: Review, tried: &[ChangeHash]) {
        let open = self.open.get(&key);
        let Some(log) = open.and_then(|open| open.log.as_ref()).filter(|log| !log.is_empty()) else {
            self.answer_review(id, Err(ReviewError::NotFound));
            return;
        };
        let outcome = |hash: &ChangeHash| {
            let index = log.index_of(hash)?;
            Some(Reviewed { change: *hash, quarantine: log.quarantined(index) })
        };
        let answer: Vec<Reviewed> = tried.iter().filter_map(outcome).collect();
        if answer.is_empty() && review != Review::Release(None) {
            self.answer_review(id, Err(ReviewError::NotQuarantined));
            return;
        }
        match open.and_then(|open| open.batch).filter(|batch| self.batches.is_pending(*batch)) {
            Some(batch) => self.batches.after(batch, Done::Review { id, answer }),
            None => self.answer_review(id, Ok(answer)),
        }
    }

    /// What a review was about to make durable was refused while it waits for a trial. It would be refused again and again,
    /// so whoever asked is told.
    pub(super) fn end_refused_review(&mut self, key: DocKey) {
        let waiters = self.open.get_mut(&key).map(|open| &mut open.waiters);
        let is_begun = |waiter: &mut Waiter| matches!(waiter, Waiter::Review { begun: true, .. });
        if let Some(Waiter::Review { id, .. }) = waiters.and_then(|waiters| waiters.pop_front_if(is_begun)) {
            self.waiting -= 1;
            self.answer_review(id, Err(ReviewError::DiskFull));
        }
    }

    pub(super) fn answer_review(&mut self, id: ReadId, answer: Result<Vec<Reviewed>, ReviewError>) {
        self.effects.push_back(Effect::Event(Event::Reviewed(id, answer)));
    }
}

/// Judges anew those changes that `is_meant` says, and what is in quarantine only because of what it depends on. Returns
/// the places of those of which something else is noted now.
fn release(
    genesis: &ChangeHash,
    stored: &mut [StoredChange],
    headers: &[ChangeHeader],
    is_meant: impl Fn(&ChangeHash) -> bool,
    is_judged: bool,
) -> Vec<usize> {
    let mut log = Log::new(genesis);
    let mut renoted = Vec::new();
    for (index, (change, header)) in stored.iter_mut().zip(headers).enumerate() {
        if log.contains(&header.hash) || !log.knows_all(&header.deps) {
            return renoted;
        }
        let (noted, dropped) = (change.quarantine, change.dropped);
        let is_meant = is_meant(&header.hash);
        if noted.is_some() && (is_meant || noted == Some(Quarantine::Ancestor)) {
            change.quarantine = match judge(&log, header) {
                Judgement::Quarantine(why) if is_judged => Some(why),
                Judgement::Quarantine(_) | Judgement::Admit | Judgement::Known | Judgement::Orphan { .. } => None,
            };
        }
        log.push(header, change.quarantine);
        change.dropped &= !is_meant && log.quarantined(index).is_some();
        if (noted, dropped) != (change.quarantine, change.dropped) {
            renoted.push(index);
        }
    }
    renoted
}

/// Puts a change aside; none where it is already.
fn put_aside(index: usize, stored: &mut [StoredChange]) -> Option<usize> {
    let change = stored.get_mut(index).filter(|change| !change.dropped)?;
    change.dropped = true;
    Some(index)
}
