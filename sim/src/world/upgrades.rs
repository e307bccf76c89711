//! Servers that ran an earlier version, whose gate refused what the present one takes, and operators who release it.
//!
//! What an earlier version has noted stands on the disk, so that is where it is written before a start. Only documents of
//! a hostile member suffer: until the release they read otherwise than elsewhere, which no client is to see.

use std::collections::{BTreeMap, BTreeSet};

use knot_engine::documents::{Document, DocumentId};
use knot_engine::{Instant, ReadId, Review, ReviewError, Reviewed};

use super::World;
use crate::checker::Invariant;
use crate::node::ReadFor;

/// What was refused where.
#[derive(Debug, Default)]
pub(super) struct Upgrades {
    refused: BTreeSet<(usize, DocumentId)>,
    /// In which start it was released last: a disk may be set back to what it was before.
    released: BTreeMap<(usize, DocumentId), u32>,
}

impl<D: Document> World<D> {
    /// A server is about to start with another version than it has run so far.
    pub(super) fn upgrade(&mut self, node: usize) {
        let Some(document) = self.hostile.refused_by_an_earlier_version() else { return };
        let hostile = &mut self.hostile;
        let refused = self.nodes[node].disk.refuse(|chunk| hostile.was_refused(&document, chunk));
        if refused > 0 {
            self.trace
                .log(self.now, node, || format!("has {refused} changes of {document} that its gate refused once"));
            self.upgrades.refused.insert((node, document));
        }
    }

    /// The operator sees to it that every server judges again.
    pub(super) fn see_to_releases(&mut self) {
        for (node, document) in self.unreleased() {
            let Some(process) = self.process_of(node) else { continue };
            let local = self.nodes[node].clock.read(self.now);
            if let Some(running) = &mut self.nodes[node].running {
                let is_asked = |asked: &ReadFor| matches!(asked, ReadFor::Release(asked) if *asked == document);
                if running.reads.values().any(is_asked) {
                    continue;
                }
                let asked = running.engine.review(&document, Review::Release(None), local);
                running.reads.insert(asked, ReadFor::Release(document));
            }
            self.drain(process);
        }
    }

    /// What has not been released since its server has started.
    fn unreleased(&self) -> Vec<(usize, DocumentId)> {
        let is_due = |(node, document): &&(usize, DocumentId)| {
            let start = self.nodes[*node].running.as_ref().map(|running| running.start);
            start.is_some() && self.upgrades.released.get(&(*node, document.clone())).copied() != start
        };
        self.upgrades.refused.iter().filter(is_due).cloned().collect()
    }

    /// A server that has yet to release something cannot be like the others.
    pub(super) fn release_gap(&self) -> Option<(Invariant, usize, String)> {
        let due = self.unreleased().into_iter().find(|(node, _)| !self.checkers.outside.contains(node));
        due.map(|(node, document)| (Invariant::Answered, node, format!("{document} is not released")))
    }

    pub(super) fn on_reviewed(&mut self, node: usize, review: ReadId, answer: &Result<Vec<Reviewed>, ReviewError>) {
        let now: Instant = self.now;
        self.trace.log(now, node, || format!("has looked again: {answer:?}"));
        let Some(running) = &mut self.nodes[node].running else { return };
        // What is not there was set back with its disk, and comes anew to the present version.
        let is_done = matches!(answer, Ok(_) | Err(ReviewError::NotFound));
        if let (Some(ReadFor::Release(document)), true) = (running.reads.remove(&review), is_done) {
            self.upgrades.released.insert((node, document), running.start);
        }
    }
}
