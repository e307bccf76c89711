//! Looks whether servers probe each other and hold streams, where nothing has happened for a while.

use std::collections::BTreeSet;

use knot_engine::documents::Document;

use super::World;
use crate::node::Running;

/// Servers in a zone that watches over itself.
const ZONE_MIN: usize = 3;
/// How many rounds of probes it takes at most until local health is as it should be, and all have been probed since.
const ROUNDS: u32 = 3;

impl<D: Document> World<D> {
    pub(super) fn look_who_is_heard(&mut self) {
        self.weigh_moment();
        let Some((quiet, pace)) = self.quiet() else { return };
        if quiet >= pace.stream() && self.seeds_at_work() > 1 {
            self.look_at_streams();
        }
        let round = pace.round() + pace.config.cross_zone_timeout_max;
        if quiet >= round * ROUNDS {
            for node in 0..self.nodes.len() {
                self.look_at_probes(node, round);
            }
        }
    }

    /// Each holds a stream with each, or, where they are too many, they are joined by some.
    fn look_at_streams(&mut self) {
        let at_work: Vec<usize> = (0..self.nodes.len()).filter(|node| self.at_work(*node).is_some()).collect();
        let most = self.scenario.bounds.full_mesh;
        let known = self.nodes.len();
        let with = |node: usize| -> Vec<usize> {
            let Some(here) = self.at_work(node) else { return Vec::new() };
            let open = |other: &usize| *other != node && here.engine.stream_to(self.id_of(*other)).is_some();
            at_work.iter().copied().filter(open).collect()
        };
        let streams: Vec<(usize, Vec<usize>, usize)> = at_work
            .iter()
            .filter_map(|node| Some((*node, with(*node), self.at_work(*node)?.engine.streams())))
            .collect();
        let (quiet, now) = (self.now.since(self.known.changed_at()), self.now);
        if 2 * known <= most {
            for (node, with, says) in &streams {
                if let Some(other) = at_work.iter().find(|other| *other != node && !with.contains(other)) {
                    self.checkers.report_unconnected((*node, *other), quiet, now);
                }
                if at_work.len() > ZONE_MIN {
                    self.checkers.check_streams(*node, with, *says, now);
                }
            }
        } else if at_work.len() > most {
            for (node, with, says) in &streams {
                self.checkers.check_streams(*node, with, *says, now);
            }
            if let Some(apart) = apart(&streams) {
                self.checkers.report_apart(apart, now);
            }
        }
    }

    /// A server has heard each of its zone within a round of probes, and knows how far away it is.
    fn look_at_probes(&mut self, node: usize, round: std::time::Duration) {
        let Some(here) = self.at_work(node) else { return };
        let zone = &self.nodes[node].spec.zone;
        let in_zone: Vec<usize> = (0..self.nodes.len())
            .filter(|other| self.nodes[*other].spec.zone == *zone && self.at_work(*other).is_some())
            .collect();
        if in_zone.len() < ZONE_MIN {
            return;
        }
        let now = self.now;
        let heard: Vec<_> =
            in_zone.into_iter().filter(|other| *other != node).map(|other| self.heard(here, other)).collect();
        for (other, ago, rtt) in heard {
            if ago.is_none_or(|ago| ago > round) {
                self.checkers.report_unheard((node, other), ago, now);
            }
            if self.known.is_untroubled() {
                let base = self.links.base_latency(node, other) + self.links.base_latency(other, node);
                let jitter = u32::try_from(self.scenario.network.jitter_percent).unwrap_or(100);
                let most = base * (100 + jitter) / 100 + std::time::Duration::from_millis(1);
                self.checkers.check_round_trip((node, other), rtt, (base, most), now);
            }
        }
    }

    fn heard(
        &self,
        here: &Running<D>,
        other: usize,
    ) -> (usize, Option<std::time::Duration>, Option<std::time::Duration>) {
        let member = here.engine.member(&self.id_of(other));
        let ago = member.as_ref().and_then(|member| Some(self.now.since(member.last_seen?)));
        (other, ago, member.and_then(|member| member.rtt))
    }
}

/// A server that no way by streams leads to from the first; none where all are joined.
fn apart(streams: &[(usize, Vec<usize>, usize)]) -> Option<usize> {
    let (first, ..) = streams.first()?;
    let mut reached = BTreeSet::from([*first]);
    let mut next = vec![*first];
    while let Some(node) = next.pop() {
        let with = streams.iter().filter(|(at, ..)| *at == node).flat_map(|(_, with, _)| with);
        next.extend(with.copied().filter(|other| reached.insert(*other)));
    }
    streams.iter().map(|(node, ..)| *node).find(|node| !reached.contains(node))
}
