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
            self.hold(*write, *node, now);
        } else if let Observed::Answered { write, answer: Answer::Acknowledged { changed: true } } = what {
            self.acknowledged.insert(*write, now);
        }
    }

    /// A server came to hold a write.
    pub(crate) fn hold(&mut self, write: u32, node: usize, now: Instant) {
        self.held.entry(write).or_default().entry(node).or_insert(now);
    }

    /// How long after `since` `count` of `nodes` had come to hold a write, in microseconds; none while fewer do.
    pub(crate) fn took_us_since(&self, since: Instant, write: u32, nodes: &[usize], count: usize) -> Option<u64> {
        let held = self.held.get(&write)?;
        let mut times: Vec<Instant> = nodes.iter().filter_map(|node| held.get(node).copied()).collect();
        times.sort_unstable();
        let reached = *times.get(count.checked_sub(1)?)?;
        Some(reached.max(since).as_micros() - since.as_micros())
    }

    /// How long after its acknowledgement `count` of `nodes` had come to hold a write, in microseconds; none
    /// while fewer hold it, or where nothing was acknowledged.
    pub(crate) fn took_us(&self, write: u32, nodes: &[usize], count: usize) -> Option<u64> {
        self.took_us_since(*self.acknowledged.get(&write)?, write, nodes, count)
    }

    /// The writes that were acknowledged and took a change.
    pub(crate) fn writes(&self) -> impl Iterator<Item = u32> + '_ {
        self.acknowledged.keys().copied()
    }
}
