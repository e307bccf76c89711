//! How writes spread: which servers hold which write, and since when.

use std::collections::BTreeMap;

use knot_engine::Instant;

use crate::watch::{Answer, Observed};

/// All writes of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spread {
    /// When each was, of those that took a change.
    acknowledged: BTreeMap<u32, Instant>,
    held: BTreeMap<u32, BTreeMap<usize, Instant>>,
}

impl Spread {
    pub(crate) fn observe(&mut self, now: Instant, what: &Observed) {
        if let Observed::Holds { node, write } = what {
            self.held.entry(*write).or_default().entry(*node).or_insert(now);
        } else if let Observed::Answered { write, answer: Answer::Acknowledged { changed: true } } = what {
            self.acknowledged.insert(*write, now);
        }
    }

    /// How long after its acknowledgement the last of `nodes` came to hold a write, in microseconds; none while one of
    /// them lacks it, or where nothing was acknowledged.
    pub(crate) fn took_us(&self, write: u32, mut nodes: impl Iterator<Item = usize>) -> Option<u64> {
        let acknowledged = *self.acknowledged.get(&write)?;
        let held = self.held.get(&write)?;
        let last = nodes.try_fold(acknowledged, |last, node| held.get(&node).map(|at| last.max(*at)))?;
        Some(last.as_micros() - acknowledged.as_micros())
    }

    /// The writes that were acknowledged and took a change.
    pub(crate) fn writes(&self) -> impl Iterator<Item = u32> + '_ {
        self.acknowledged.keys().copied()
    }
}
