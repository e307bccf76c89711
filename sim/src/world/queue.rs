//! What is still to happen, in the order of times, and of insertion where times are equal.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use knot_engine::documents::Document;
use knot_engine::{Instant, LoadId, Query, SessionEvent, SessionId, Verdict};

use super::spread::Spreading;
use crate::network::{Delivery, Process};
use crate::scenario::Target;

/// What happens.
#[derive(Debug)]
pub(super) enum Happening<D: Document> {
    Network(Delivery),
    /// A process tells its engine what happened to a stream that this carries itself.
    Circuit(Process, SessionId, SessionEvent),
    Wake(Process, Instant),
    CommitDone(Process),
    Load(Process, LoadId, Query),
    Verdict(Process, Box<Verdict<D>>),
    Operation(usize),
    /// Somebody looks at what a hostile member has made.
    Passing(usize, Target),
    FaultBegins(usize),
    FaultEnds(usize),
    Start(usize),
    Exit(Process),
    /// A busy process turns to what waits for it.
    Turn(usize),
    /// A write should be everywhere.
    Spread(Spreading),
    Look,
    Glance,
}

struct Entry<D: Document> {
    at: Instant,
    number: u64,
    what: Happening<D>,
}

impl<D: Document> PartialEq for Entry<D> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl<D: Document> Eq for Entry<D> {}

impl<D: Document> PartialOrd for Entry<D> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<D: Document> Ord for Entry<D> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The event queue.
pub(super) struct Queue<D: Document> {
    heap: BinaryHeap<Reverse<Entry<D>>>,
    inserted: u64,
}

impl<D: Document> Default for Queue<D> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), inserted: 0 }
    }
}

impl<D: Document> Queue<D> {
    pub(super) fn insert(&mut self, at: Instant, what: Happening<D>) {
        self.inserted += 1;
        self.heap.push(Reverse(Entry { at, number: self.inserted, what }));
    }

    /// Takes the next that happens before `end`.
    pub(super) fn pop_before(&mut self, end: Instant) -> Option<(Instant, Happening<D>)> {
        if self.heap.peek().is_none_or(|Reverse(entry)| entry.at >= end) {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.what))
    }
}
