//! Looks whether a write that is acknowledged while nothing is wrong is soon everywhere.

use std::time::Duration;

use knot_engine::documents::Document;
use knot_engine::{Edited, Instant};

use super::{Happening, World};
use crate::checker::spread_within;
use crate::tap::ChangeNo;

/// Where changes go along a tree, one may overtake another that it depends on, and repair does the rest. So a write counts
/// there if nobody has written to its document for this long.
const ALONE: Duration = Duration::from_secs(3);

/// A write on its way.
#[derive(Debug)]
pub(super) struct Spreading {
    number: ChangeNo,
    asked: Instant,
}

impl<D: Document> World<D> {
    /// A write is acknowledged.
    pub(super) fn on_acknowledged(&mut self, node: usize, id: u32, edited: &Edited) {
        let Some((quiet, pace)) = self.quiet() else { return };
        if quiet < pace.stream() || !edited.changed || !self.scenario.bounds.takes_all() || self.seeds_at_work() < 2 {
            return;
        }
        let Some(number) = self.checkers.tap.number_of_write(id) else { return };
        let takers = self.takers(id).into_iter().filter(|taker| *taker != node).count();
        self.checkers.check_replicated(node, id, edited, takers, self.now);
        let full_mesh = 2 * self.nodes.len() <= self.scenario.bounds.full_mesh;
        let Some(write) = self.checkers.ledger.get(id) else { return };
        let same = |other: &crate::ledger::Write| {
            other.operation.target == write.operation.target
                && other.operation.id != id
                && self.now.since(other.asked) < ALONE
        };
        if !full_mesh && self.checkers.ledger.writes().any(same) {
            return;
        }
        let commit = Duration::from_micros(self.scenario.disk.commit_max_us);
        let due = self.now + spread_within(&pace, commit, full_mesh);
        self.insert(due, Happening::Spread(Spreading { number, asked: self.now }));
    }

    pub(super) fn on_spread_due(&mut self, spreading: &Spreading) {
        let &Spreading { number, asked } = spreading;
        if self.known.changed_at() >= asked || self.quiet().is_none() {
            return;
        }
        let Some(id) = self.checkers.tap.change(number).write else { return };
        for taker in self.takers(id) {
            self.checkers.check_spread(taker, number, self.now.since(asked), self.now);
        }
    }

    /// The servers at work that are to have a write.
    fn takers(&self, id: u32) -> Vec<usize> {
        let Some(write) = self.checkers.ledger.get(id) else { return Vec::new() };
        let target = &write.operation.target;
        let takes = |node: &usize| target.is_held_in(&self.nodes[*node].spec.zone) && self.at_work(*node).is_some();
        (0..self.nodes.len()).filter(takes).collect()
    }
}
