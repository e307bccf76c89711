//! What a document was as of a version in its history: made anew from the changes that lead to it, and from no others.
//!
//! A version is named by the changes that were its heads, most often by one. All servers that hold those say the same of
//! it, whatever else they hold. Nothing of it is kept: it is made for who asks, in a [`Job`].

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::content::{read_all, rebuild};
use super::job::{Job, Verdict};
use super::records::{DocKey, changes_of};
use super::replica::{Effect, Purpose, Replica};
use crate::api::{Event, ReadError, ReadId, VERSION_BYTES_MAX, VersionView};
use crate::documents::{Document, DocumentId};
use crate::faults::Fault;
use crate::identity::ChangeHash;
use crate::stats::Stats;

impl<D: Document> Replica<D> {
    pub(crate) fn version(&mut self, id: ReadId, document: &DocumentId, heads: Vec<ChangeHash>) {
        let key = self.index.key(document);
        let refused = match self.admits_read(document) {
            Err(error) => Some(error),
            Ok(()) if self.failed => Some(ReadError::Unreadable),
            Ok(()) if !self.started || self.versions_asked >= self.limits.versions => Some(ReadError::Busy),
            Ok(()) => (!self.index.contains(&key)).then_some(ReadError::NotFound),
        };
        if let Some(error) = refused {
            self.answer_version(id, Err(error));
            return;
        }
        self.versions_asked += 1;
        self.load(changes_of(&key), Purpose::Version(id, key, heads.into()));
    }

    /// The changes of a document have been read for a version of it.
    pub(super) fn version_loaded(
        &mut self,
        id: ReadId,
        key: DocKey,
        heads: &Arc<[ChangeHash]>,
        entries: &[(Bytes, Bytes)],
        stats: &mut Stats,
    ) {
        match self.job_of_version(key, heads, entries) {
            Err(error) => {
                self.versions_asked -= 1;
                self.answer_version(id, Err(error));
            }
            Ok((job, deleted)) => {
                self.versions.insert(job.number, (id, deleted));
                if job.is_small() {
                    self.on_verdict(job.run(), stats);
                } else {
                    self.effects.push_back(Effect::Verify(job));
                }
            }
        }
    }

    /// What makes the document from its heads and all that they descend from, and whether it was deleted then.
    fn job_of_version(
        &mut self,
        key: DocKey,
        heads: &[ChangeHash],
        entries: &[(Bytes, Bytes)],
    ) -> Result<(Job<D>, bool), ReadError> {
        let (mut stored, mut headers) = read_all::<D>(entries).ok_or(ReadError::Unreadable)?;
        let record = self.index.record(&key).ok_or(ReadError::Unreadable)?;
        stored.truncate(record.changes as usize);
        headers.truncate(record.changes as usize);
        let genesis = self.genesis(&record.id);
        let root = D::genesis_hash(&genesis);
        let drop_unknown_deps = self.faults.has(Fault::GapAccepted);
        let log = rebuild(&root, &stored, &headers, drop_unknown_deps).ok_or(ReadError::Unreadable)?;
        for head in heads {
            let index = log.index_of(head).ok_or(ReadError::NoVersion)?;
            if let Some(why) = log.quarantined(index) {
                return Err(ReadError::NotApplied(why));
            }
        }
        let later: BTreeSet<usize> = log.missing_from(heads).into_iter().collect();
        let (stored, headers): (Vec<_>, Vec<_>) = stored
            .into_iter()
            .zip(headers)
            .enumerate()
            .filter(|(at, _)| !later.contains(at))
            .map(|(_, both)| both)
            .unzip();
        if stored.iter().map(|change| change.chunk.len()).sum::<usize>() > VERSION_BYTES_MAX {
            return Err(ReadError::VersionTooLong);
        }
        let deleted = rebuild(&root, &stored, &headers, drop_unknown_deps).ok_or(ReadError::Unreadable)?.is_deleted();
        let reaches = stored.len();
        let (trusted, candidates): (Vec<_>, Vec<_>) =
            stored.into_iter().partition(|change| change.order < record.verified);
        let [trusted, candidates] =
            [trusted, candidates].map(|list| list.into_iter().map(|change| change.chunk).collect());
        self.numbers += 1;
        let number = self.numbers;
        Ok((Job { number, key, genesis, base: None, trusted, candidates, reaches }, deleted))
    }

    /// Answers who asked for a version, where the verdict is of one; gives it back where it is not.
    pub(super) fn on_version(&mut self, verdict: Verdict<D>) -> Option<Verdict<D>> {
        let Some((id, deleted)) = self.versions.remove(&verdict.number) else { return Some(verdict) };
        self.versions_asked -= usize::from(!self.faults.has(Fault::VersionsLeak));
        let refused = verdict.refused.first().map(|(_, _, why)| *why);
        let answer = match (verdict.outcome, refused) {
            (Ok(_), Some(why)) => Err(ReadError::NotApplied(why)),
            (Ok(trial), None) => value_of(trial.document).map(|value| VersionView { value, deleted }),
            (Err(_), _) => Err(ReadError::Unreadable),
        };
        self.answer_version(id, answer);
        None
    }

    pub(super) fn answer_version(&mut self, id: ReadId, answer: Result<VersionView, ReadError>) {
        self.effects.push_back(Effect::Event(Event::Version(id, answer)));
    }
}

fn value_of<D: Document>(mut document: D) -> Result<Value, ReadError> {
    catch_unwind(AssertUnwindSafe(|| document.value())).map_err(|_| ReadError::Unreadable)
}
