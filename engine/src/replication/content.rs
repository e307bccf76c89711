//! Bringing a document into memory, and working off what waits for it.

use std::borrow::Cow;

use bytes::Bytes;

use super::job::{Job, Verdict};
use super::open::{Content, Origin, Waiter};
use super::records::{DocKey, StoredChange, change_write, changes_of};
use super::replica::{Effect, Purpose, Replica};
use crate::api::{EditError, Event, HistoryEntry, LoadId, ReadError, ReviewError};
use crate::documents::gate::Log;
use crate::documents::{ChangeHeader, ChangeKind, Document, Quarantine};
use crate::faults::Fault;
use crate::identity::ChangeHash;
use crate::sometimes;
use crate::stats::Stats;
use crate::time::Instant;

impl<D: Document> Replica<D> {
    /// Works off what waits for a document, as far as what is in memory allows.
    pub(super) fn kick(&mut self, key: DocKey, now: Instant, stats: &mut Stats) {
        while self.step(key, now, stats) {}
        let batches = &self.batches;
        let guards = !self.faults.has(Fault::EvictsPending);
        self.open.settle(&key, |batch| guards && batches.is_pending(batch));
    }

    /// One step; false when there is none, or it must wait for storage or a job.
    fn step(&mut self, key: DocKey, now: Instant, stats: &mut Stats) -> bool {
        let stored = self.index.contains(&key);
        let Some(open) = self.open.get_mut(&key) else { return false };
        if open.waiters.is_empty() && open.incoming.is_empty() {
            return false;
        }
        if let Some(Waiter::Review { begun: false, .. }) = open.waiters.front() {
            return self.begin_review(key);
        }
        if open.log.is_none() {
            if open.load.is_none() && stored {
                self.start_load(key);
                return false;
            }
            if open.load.is_some() {
                return false;
            }
            let id = open.id.clone();
            let genesis = D::genesis_hash(&self.genesis(&id));
            if let Some(open) = self.open.get_mut(&key) {
                open.log = Some(Log::new(&genesis));
            }
            return true;
        }
        if let Some(incoming) = open.incoming.pop_front() {
            let leaks = self.faults.has(Fault::IncomingLeak) && incoming.ticket.is_none();
            self.incoming_bytes -= if leaks { 0 } else { incoming.chunk.len() };
            self.admit(key, incoming, now, stats);
            return true;
        }
        if open.waiters.is_empty() || open.load.is_some() || !self.started {
            return false;
        }
        match &open.content {
            Content::Away(_) => false,
            Content::Absent => self.start_content(key),
            Content::Ready(_) if open.unapplied.is_empty() => self.serve_waiter(key, stats),
            Content::Ready(_) => {
                self.start_trial(key);
                false
            }
        }
    }

    fn start_load(&mut self, key: DocKey) {
        sometimes!("loaded");
        let load = self.load(changes_of(&key), Purpose::Open(key));
        if let Some(open) = self.open.get_mut(&key) {
            open.load = Some(load);
        }
    }

    /// Makes the content of a document that has none in memory; true when that took no load.
    fn start_content(&mut self, key: DocKey) -> bool {
        let Some(open) = self.open.get_mut(&key) else { return false };
        if open.log.as_ref().is_some_and(Log::is_empty) {
            let id = open.id.clone();
            let document = D::new(&self.genesis(&id));
            if let Some(open) = self.open.get_mut(&key) {
                open.content = Content::Ready(document);
            }
            return true;
        }
        // Storage does not have it all yet; the next durable batch kicks again.
        sometimes!("content waits for storage", open.batch.is_some_and(|batch| self.batches.is_pending(batch)));
        if !open.batch.is_some_and(|batch| self.batches.is_pending(batch)) {
            self.start_load(key);
        }
        false
    }

    /// Has the changes that came since the content was made tried on it.
    fn start_trial(&mut self, key: DocKey) {
        self.numbers += 1;
        let number = self.numbers;
        let Some(open) = self.open.get_mut(&key) else { return };
        let Content::Ready(document) = std::mem::replace(&mut open.content, Content::Away(number)) else { return };
        let candidates = open.unapplied.drain(..).map(|(_, chunk)| chunk).collect();
        let reaches = open.log.as_ref().map_or(0, Log::len);
        let id = open.id.clone();
        let genesis = self.genesis(&id);
        let job = Job { number, key, genesis, base: Some(document), trusted: Vec::new(), candidates, reaches };
        sometimes!("tried on content");
        self.effects.push_back(Effect::Verify(job));
    }

    pub(crate) fn loaded(
        &mut self,
        load: LoadId,
        entries: &[(Bytes, Bytes)],
        complete: bool,
        now: Instant,
        stats: &mut Stats,
    ) {
        match self.loads.remove(&load) {
            Some(Purpose::Open(key)) => {
                self.opened(key, entries, stats);
                self.kick(key, now, stats);
            }
            Some(Purpose::History(id, key)) => {
                self.waiting -= 1;
                let answer = self.history_of(key, entries);
                self.answer_history(id, answer);
            }
            Some(Purpose::Version(id, key, heads)) => self.version_loaded(id, key, &heads, entries, stats),
            Some(Purpose::Serve(serve)) => self.served(serve, entries, complete, stats),
            None => {}
        }
    }

    pub(crate) fn load_failed(&mut self, load: LoadId, stats: &mut Stats) {
        match self.loads.remove(&load) {
            Some(Purpose::Open(key)) => self.unreadable(key, stats),
            Some(Purpose::History(id, _)) => {
                self.waiting -= 1;
                self.answer_history(id, Err(ReadError::Unreadable));
            }
            Some(Purpose::Version(id, ..)) => {
                self.versions_asked -= 1;
                self.answer_version(id, Err(ReadError::Unreadable));
            }
            Some(Purpose::Serve(serve)) => self.serves.drop(serve),
            None => {}
        }
    }

    fn opened(&mut self, key: DocKey, entries: &[(Bytes, Bytes)], stats: &mut Stats) {
        let record = self.index.record(&key);
        let Some((mut stored, headers)) = read_all::<D>(entries) else {
            self.unreadable(key, stats);
            return;
        };
        let Some(id) = self.open.get(&key).map(|open| open.id.clone()) else { return };
        let genesis = self.genesis(&id);
        let loses = self.faults.has(Fault::ArrivedDuringLoad);
        let drop_unknown_deps = self.faults.has(Fault::GapAccepted);
        let Some(open) = self.open.get_mut(&key) else { return };
        open.load = None;
        if open.log.is_none() {
            let genesis = D::genesis_hash(&genesis);
            let Some(log) = rebuild(&genesis, &stored, &headers, drop_unknown_deps) else {
                self.unreadable(key, stats);
                return;
            };
            open.log = Some(log);
            open.record = record;
            self.look_again(key, &genesis, &mut stored, &headers);
        }
        let Some(open) = self.open.get_mut(&key) else { return };
        let (false, Some(log)) = (open.waiters.is_empty(), &open.log) else { return };
        let verified = open.record.as_ref().map_or(0, |record| record.verified as usize);
        let reaches = log.len();
        let known = stored.len();
        let (mut trusted, mut candidates) = (Vec::new(), Vec::new());
        for change in stored.into_iter().filter(|change| log.quarantined(change.order as usize).is_none()) {
            let list = if (change.order as usize) < verified { &mut trusted } else { &mut candidates };
            list.push(change.chunk);
        }
        candidates
            .extend(open.unapplied.drain(..).filter(|(order, _)| *order >= known && !loses).map(|(_, chunk)| chunk));
        self.numbers += 1;
        let number = self.numbers;
        open.content = Content::Away(number);
        let job = Job { number, key, genesis, base: None, trusted, candidates, reaches };
        if job.is_small() {
            self.on_verdict(job.run(), stats);
        } else {
            sometimes!("trial elsewhere");
            self.effects.push_back(Effect::Verify(job));
        }
    }

    pub(super) fn on_verdict(&mut self, verdict: Verdict<D>, stats: &mut Stats) {
        let Some(verdict) = self.on_version(verdict) else { return };
        let Verdict { number, key, reaches, from_log, outcome, refused } = verdict;
        let Some(open) = self.open.get_mut(&key) else { return };
        let any = self.faults.has(Fault::StaleVerdict);
        if !matches!(open.content, Content::Away(job) if job == number || any) {
            sometimes!("verdict too late");
            sometimes!("verdict of an earlier trial", matches!(open.content, Content::Away(_)));
            return;
        }
        let Ok(trial) = outcome else {
            open.content = Content::Absent;
            if from_log {
                self.unreadable(key, stats);
            }
            return;
        };
        open.content = Content::Ready(trial.document);
        if let Some(record) = &mut open.record {
            record.verified = u32::try_from(reaches).unwrap_or(u32::MAX);
        }
        if !refused.is_empty() {
            // The record that marks them says how far the trial came, when it is durable.
            for (chunk, hash, why) in refused {
                self.quarantine(key, hash, why, &chunk, stats);
            }
            return;
        }
        self.index.set_verified(&key, u32::try_from(reaches).unwrap_or(u32::MAX));
    }

    /// Marks a change that failed its trial; it stays in the log and counts in heads and roots. What descends from it
    /// follows from that, here and whenever the log is read again.
    fn quarantine(&mut self, key: DocKey, hash: ChangeHash, why: Quarantine, chunk: &Bytes, stats: &mut Stats) {
        let Some(open) = self.open.get_mut(&key) else { return };
        let (Some(log), Some(record)) = (&mut open.log, &mut open.record) else { return };
        let Some(order) = log.index_of(&hash) else { return };
        let condemned = log.quarantine(order, why);
        if condemned.is_empty() {
            return;
        }
        open.unapplied.retain(|(order, _)| !condemned.contains(order));
        record.quarantined += u32::try_from(condemned.len()).unwrap_or(u32::MAX);
        record.deleted = log.is_deleted();
        record.revived = log.is_revived();
        let (record, document) = (record.clone(), open.id.clone());
        stats.quarantined += condemned.len() as u64;
        self.batches.write(change_write(&key, u32::try_from(order).unwrap_or(u32::MAX), Some(why), chunk));
        self.stage(key, record, None, Origin::Repair);
        self.effects.push_back(Effect::Event(Event::Quarantined { document, change: hash, why }));
    }

    /// What is stored makes no document: whoever waits for it is told.
    fn unreadable(&mut self, key: DocKey, stats: &mut Stats) {
        stats.dropped("document unreadable");
        let Some(open) = self.open.get_mut(&key) else { return };
        open.load = None;
        let waiters = std::mem::take(&mut open.waiters);
        let incoming = std::mem::take(&mut open.incoming);
        self.waiting -= waiters.len();
        for waiter in waiters {
            match waiter {
                Waiter::Edit { id, .. } => self.answer_edit(id, Err(EditError::Unreadable)),
                Waiter::Read { id, .. } => self.answer_read(id, Err(ReadError::Unreadable)),
                Waiter::Review { id, .. } => self.answer_review(id, Err(ReviewError::Unreadable)),
            }
        }
        for change in incoming {
            self.incoming_bytes -= change.chunk.len();
            self.delivered(change.ticket, 1, false);
        }
    }

    fn serve_waiter(&mut self, key: DocKey, stats: &mut Stats) -> bool {
        let Some(waiter) = self.open.get_mut(&key).and_then(|open| open.waiters.pop_front()) else { return false };
        let leaks = self.faults.has(Fault::WaitersLeak) && matches!(waiter, Waiter::Read { .. });
        self.waiting -= usize::from(!leaks);
        match waiter {
            // What was not durable when storage failed never will be, and must not be shown or built on.
            Waiter::Edit { id, .. } if self.failed => self.answer_edit(id, Err(EditError::StorageFailed)),
            Waiter::Read { id, .. } if self.failed => self.answer_read(id, Err(ReadError::Unreadable)),
            Waiter::Review { id, .. } if self.failed => self.answer_review(id, Err(ReviewError::StorageFailed)),
            Waiter::Edit { id, request, wall } => self.perform_edit(key, id, *request, wall, stats),
            Waiter::Read { id, conflicts } => self.perform_read(key, id, conflicts, stats),
            Waiter::Review { id, review, tried, .. } => self.end_review(key, id, review, &tried),
        }
        true
    }

    fn history_of(&self, key: DocKey, entries: &[(Bytes, Bytes)]) -> Result<Vec<HistoryEntry>, ReadError> {
        let (mut stored, mut headers) = read_all::<D>(entries).ok_or(ReadError::Unreadable)?;
        let record = self.index.record(&key).ok_or(ReadError::Unreadable)?;
        stored.truncate(record.changes as usize);
        headers.truncate(record.changes as usize);
        let genesis = D::genesis_hash(&self.genesis(&record.id));
        let drop_unknown_deps = self.faults.has(Fault::GapAccepted);
        // What is stored with a change says why that one was refused; what others fell with it follows from all of them.
        let log = rebuild(&genesis, &stored, &headers, drop_unknown_deps).ok_or(ReadError::Unreadable)?;
        let changes = stored.iter().zip(&headers).enumerate();
        Ok(changes.map(|(index, (change, header))| entry(change, header, &genesis, log.quarantined(index))).collect())
    }
}

/// Every change and its header, in order; none when one of them does not decode.
pub(super) fn read_all<D: Document>(entries: &[(Bytes, Bytes)]) -> Option<(Vec<StoredChange>, Vec<ChangeHeader>)> {
    let mut headers = Vec::with_capacity(entries.len());
    let mut stored = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        let change = StoredChange::read(key, value)?;
        headers.push(D::header(&change.chunk).ok()?);
        stored.push(change);
    }
    Some((stored, headers))
}

/// The log that stored changes amount to; none when they are not one.
pub(super) fn rebuild(
    genesis: &ChangeHash,
    stored: &[StoredChange],
    headers: &[ChangeHeader],
    drop_unknown_deps: bool,
) -> Option<Log> {
    let mut log = Log::new(genesis);
    for (change, header) in stored.iter().zip(headers) {
        let mut header = Cow::Borrowed(header);
        if drop_unknown_deps {
            header.to_mut().deps.retain(|dep| log.contains(dep));
        }
        if log.contains(&header.hash) || !log.knows_all(&header.deps) {
            return None;
        }
        log.push(&header, change.quarantine);
    }
    Some(log)
}

fn entry(
    change: &StoredChange,
    header: &ChangeHeader,
    genesis: &ChangeHash,
    quarantine: Option<Quarantine>,
) -> HistoryEntry {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    HistoryEntry {
        hash: header.hash.to_string(),
        deps: header.deps.iter().filter(|dep| *dep != genesis).map(ToString::to_string).collect(),
        node: header.actor.node().map(|node| node.to_string()).unwrap_or_default(),
        actor: hex(&header.actor.0),
        seq: header.seq,
        time: header.wall.0,
        kind: match header.kind {
            ChangeKind::Edit => "edit",
            ChangeKind::Delete => "delete",
        },
        bytes: change.chunk.len(),
        quarantine: quarantine.map(|why| why.to_string()),
        dropped: quarantine.is_some() && change.dropped,
    }
}
