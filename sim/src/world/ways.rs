//! By which way servers speak, where it is known which there are.

use std::collections::BTreeMap;

use knot_engine::Instant;
use knot_engine::documents::Document;
use knot_engine::membership::Status;

use super::World;

/// What was seen of servers between which no way leads.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// Since when a server lacks a stream to another that a third reaches.
    lacks: BTreeMap<(usize, usize), Instant>,
}

impl<D: Document> World<D> {
    /// Looks by which way each speaks with each.
    pub(super) fn look_at_ways(&mut self) {
        let straight = self.all_is_well();
        for node in 0..self.nodes.len() {
            for other in (0..self.nodes.len()).filter(|other| *other != node) {
                self.look_for_detour(node, other);
                if straight {
                    self.look_for_straight(node, other);
                }
            }
        }
    }

    /// Whether somebody has yet to leave a way through others.
    pub(super) fn speaks_through_others(&self) -> bool {
        let is_detour = |node: usize, other: usize| {
            let (engine, peer) = (self.at_work(node).map(|here| &here.engine), self.id_of(other));
            engine.is_some_and(|engine| engine.stream_to(peer).is_some() && !engine.is_direct_to(peer))
        };
        (0..self.nodes.len()).any(|node| (0..self.nodes.len()).any(|other| is_detour(node, other)))
    }

    /// Where a third reaches both, they speak through it, unless queues are too short to carry anything.
    fn look_for_detour(&mut self, node: usize, other: usize) {
        let pair = (node, other);
        let cut = self.links.is_blocked(node, other) && self.links.is_blocked(other, node);
        let lacks = || {
            let (here, _) = self.at_work(node).zip(self.at_work(other))?;
            let theirs = here.engine.member(&self.id_of(other))?;
            let is_live = theirs.status <= Status::Suspect;
            (is_live && here.engine.stream_to(theirs.record.node).is_none()).then_some(())
        };
        let joined = if cut && self.scenario.bounds.takes_all() { self.joined_for(node, other) } else { None };
        let Some(joined) = joined.filter(|_| lacks().is_some()) else {
            self.ways.lacks.remove(&pair);
            return;
        };
        let since = *self.ways.lacks.entry(pair).or_insert(self.now);
        if !self.scenario.nodes.iter().any(|node| node.hostile) {
            self.checkers.check_detour(node, other, self.now.since(since).min(joined), self.now);
        }
    }

    /// Where nothing is in the way, they speak without a third.
    fn look_for_straight(&mut self, node: usize, other: usize) {
        let Some((here, there)) = self.at_work(node).zip(self.at_work(other)) else { return };
        let peer = self.id_of(other);
        if here.engine.stream_to(peer).is_some() && !here.engine.is_direct_to(peer) {
            let well = self.both_well_for(here, there);
            let retry = self.nodes[node].membership().better_retry;
            self.checkers.check_straight(node, other, retry, well, self.now);
        }
    }
}
