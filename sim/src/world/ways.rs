//! By which way servers speak, where it is known which there are.

use std::collections::BTreeMap;

use knot_engine::Instant;
use knot_engine::documents::Document;
use knot_engine::membership::Status;

use super::World;
use crate::node::Running;

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
        let goes_round = |node: usize| {
            let others = 0..self.nodes.len();
            self.at_work(node)
                .is_some_and(|here| others.into_iter().any(|other| self.speaks_through_another(here, other)))
        };
        (0..self.nodes.len()).any(goes_round)
    }

    fn speaks_through_another(&self, here: &Running<D>, other: usize) -> bool {
        let peer = self.id_of(other);
        here.engine.stream_to(peer).is_some() && !here.engine.is_direct_to(peer)
    }

    /// Where a third reaches both, they speak through it, unless queues are too short to carry anything.
    fn look_for_detour(&mut self, node: usize, other: usize) {
        let pair = (node, other);
        let cut = self.links.is_blocked(node, other) && self.links.is_blocked(other, node);
        let peer = self.id_of(other);
        let lacks = |here: &Running<D>| {
            let is_live = here.engine.member(&peer).is_some_and(|member| member.status <= Status::Suspect);
            is_live && here.engine.stream_to(peer).is_none()
        };
        let both = self.at_work(node).zip(self.at_work(other));
        let may_speak = cut && self.scenario.bounds.takes_all() && both.is_some_and(|(here, _)| lacks(here));
        let joined = may_speak.then(|| self.joined_for(node, other)).flatten();
        let Some(joined) = joined else {
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
        if self.speaks_through_another(here, other) {
            let well = self.both_well_for(here, there);
            let retry = self.nodes[node].membership().better_retry;
            self.checkers.check_straight(node, other, retry, well, self.now);
        }
    }
}
