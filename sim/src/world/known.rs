//! Looks whether who has started, died or left is known everywhere in time, where nothing else has happened since.

use std::collections::BTreeMap;
use std::time::Duration;

use knot_engine::documents::Document;
use knot_engine::membership::{Member, Status};
use knot_engine::{Engine, Instant};

use super::faults::End;
use super::{SERVERS_MAX, World};
use crate::checker::{Due, Pace};
use crate::node::{Running, SEEDS};
use crate::scenario::{FaultKind, Spread};

/// What happens within this time of each other counts as one: a process that says goodbye ends a moment later.
const AT_ONCE: Duration = Duration::from_secs(3);
/// For so long nothing has to have happened before a death for it to be noticed as fast as it can be.
const SETTLED: Duration = Duration::from_secs(20);
/// For so long after something was wrong with the network its streams may not have recovered.
const STREAMS_RECOVER: Duration = Duration::from_secs(60);
/// How exactly servers tell each other since when a member has been gone.
const AGE_STEP: Duration = Duration::from_secs(1);
/// Deaths at once of which the living may think that they are cut off themselves.
const MANY: usize = 3;

/// What has happened last, and how each process ended.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// When something last began, ended, started or stopped.
    changed_at: Instant,
    /// For how long nothing had before that.
    quiet_before: Duration,
    /// When something was last wrong that is neither a death nor a goodbye.
    wrong_at: Option<Instant>,
    /// How each server's process last ended, and when.
    ended: BTreeMap<usize, (Due, End, Instant)>,
}

impl Known {
    pub(super) fn happens(&mut self, now: Instant) {
        let quiet = now.since(self.changed_at);
        if quiet > AT_ONCE {
            self.quiet_before = quiet;
        }
        self.changed_at = now;
    }

    pub(super) fn changed_at(&self) -> Instant {
        self.changed_at
    }

    /// Whether nothing was ever wrong but that servers were down.
    pub(super) fn is_untroubled(&self) -> bool {
        self.wrong_at.is_none()
    }

    pub(super) fn ends(&mut self, node: usize, left: bool, end: End, now: Instant) {
        self.ended.insert(node, (if left { Due::Left } else { Due::Failed }, end, now));
        self.happens(now);
    }
}

impl<D: Document> World<D> {
    /// Whether the network is one on which times are promised, and nobody lies.
    fn is_punctual(&self) -> bool {
        let usual = &self.scenario.network;
        let is_odd = |node: &crate::scenario::NodeSpec| node.hostile || node.clock_drift_ppm != 0;
        usual.loss_per_mille_most() == 0
            && usual.reorder_per_mille == 0
            && !usual.links.iter().any(|link| link.bytes_per_s.is_some())
            && matches!(usual.spread, Spread::Even)
            && self.scenario.core.is_empty()
            && self.nodes.len() <= SERVERS_MAX
            && !self.scenario.nodes.iter().any(is_odd)
    }

    fn pace(&self) -> Pace {
        let zones = self.scenario.zones();
        let of = |zone: &&str| self.nodes.iter().filter(|node| node.spec.zone == **zone).count();
        let most = zones.iter().map(of).max().unwrap_or(0);
        let in_small: usize = zones.iter().map(of).filter(|count| *count < 4).sum();
        let config = self.nodes[0].membership();
        let usual = &self.scenario.network;
        let way = usual.links.iter().flat_map(|link| [Some(link.one_way_us), link.back_us]).flatten();
        let zoned = if zones.len() > 1 { usual.far_us } else { 0 };
        let way_us = way.chain([usual.near_us, zoned]).max().unwrap_or(0);
        let micros = 2 * way_us * (100 + usual.jitter_percent) / 100 + self.scenario.disk.commit_max_us;
        Pace { config, nodes: self.nodes.len(), watched: most.max(in_small), round_trip: Duration::from_micros(micros) }
    }

    /// How long nothing has happened but what the times of a cluster of that pace allow for; none where more is wrong.
    pub(super) fn quiet(&self) -> Option<(Duration, Pace)> {
        let recovered = self.known.wrong_at.is_none_or(|at| self.now.since(at) >= STREAMS_RECOVER);
        let quiet = self.is_punctual() && recovered && !self.is_wrong();
        quiet.then(|| (self.now.since(self.known.changed_at), self.pace()))
    }

    /// Whether something is wrong besides that servers are down.
    fn is_wrong(&self) -> bool {
        let is_end = |kind: &FaultKind| matches!(kind, FaultKind::Crash { .. } | FaultKind::Stop { .. });
        !self.nothing_but(is_end) || self.nodes.iter().any(|node| node.double.is_some())
    }

    /// Looks at what each server knows of each other.
    pub(super) fn look_who_is_known(&mut self) {
        if self.is_wrong() {
            self.known.wrong_at = Some(self.now);
        }
        let Some((quiet, pace)) = self.quiet() else { return };
        if quiet < pace.goodbye() {
            return;
        }
        let mut late = Vec::new();
        for observer in 0..self.nodes.len() {
            let Some(here) = self.at_work(observer) else { continue };
            let subjects = (0..self.nodes.len()).filter(|subject| *subject != observer);
            late.extend(subjects.filter_map(|subject| {
                let (due, known) = self.unknown(here, subject, quiet, &pace)?;
                Some(((observer, subject), due, known))
            }));
        }
        if late.is_empty() && quiet >= pace.start() + pace.silence() {
            let views: Vec<(usize, u64)> =
                (0..self.nodes.len()).filter_map(|node| Some((node, self.at_work(node)?.engine.view_hash()))).collect();
            self.checkers.check_views(&views, quiet, self.now);
        }
        for (pair, due, known) in late {
            self.checkers.report_unknown(pair, due, &known, quiet, self.now);
        }
    }

    /// What a server should know of another and does not.
    fn unknown(&self, here: &Running<D>, subject: usize, quiet: Duration, pace: &Pace) -> Option<(Due, String)> {
        let member = here.engine.member(&self.id_of(subject));
        let (due, is_known) = match &self.nodes[subject].running {
            Some(there) if !there.engine.has_left() => {
                let met = self.known.quiet_before >= SETTLED && self.has_old_seed(here.since.max(there.since));
                let bound = if met { pace.start_among_others() } else { pace.start() };
                let can_meet = self.seeds_at_work() > 1;
                if quiet < bound || !can_meet {
                    return None;
                }
                let is_told = |member: &Member| {
                    let met = met && self.nodes[subject].moved_at.since(here.since) >= SETTLED;
                    let moved = here.moved.get(&member.record.node);
                    !met || moved == Some(&member.record.addresses)
                };
                let is_known = |member: &Member| is_up_to_date(member, &there.engine) && is_told(member);
                (Due::Runs, member.as_ref().is_some_and(is_known))
            }
            Some(_) => return None,
            None => self.is_known_gone(member.as_ref()?, subject, quiet, pace)?,
        };
        let known = || member.as_ref().map_or_else(|| "not known".to_owned(), describe);
        (!is_known).then(|| (due, known()))
    }

    fn is_known_gone(&self, member: &Member, subject: usize, quiet: Duration, pace: &Pace) -> Option<(Due, bool)> {
        let (due, end, at) = *self.known.ended.get(&subject)?;
        let settled = self.known.quiet_before >= SETTLED;
        let dead = self.nodes.iter().filter(|node| node.running.is_none()).count();
        let bound = match (due, end) {
            (Due::Left, _) => pace.goodbye(),
            _ if !settled || dead >= MANY => return None,
            (_, End::Power) => pace.silence(),
            (_, End::Clean | End::Killed) => pace.refusal(),
        };
        if quiet < bound || !settled {
            return None;
        }
        let is_known = match due {
            Due::Left => member.status == Status::Left,
            Due::Failed | Due::Runs => member.status == Status::Failed,
        };
        // Told on, its age is in whole seconds.
        Some((due, is_known && member.since + AGE_STEP >= at))
    }

    /// Whether a seed had long been at work by then.
    fn has_old_seed(&self, by: Instant) -> bool {
        let is_old = |seed: usize| self.at_work(seed).is_some_and(|seed| by.since(seed.since) >= SETTLED);
        (0..self.nodes.len().min(SEEDS)).any(is_old)
    }

    pub(super) fn seeds_at_work(&self) -> usize {
        (0..self.nodes.len().min(SEEDS)).filter(|seed| self.at_work(*seed).is_some()).count()
    }
}

fn is_up_to_date<D: Document>(member: &Member, there: &Engine<D>) -> bool {
    let theirs = &there.me().record;
    member.status == Status::Alive && member.record.boot == theirs.boot && member.record.addresses == theirs.addresses
}

fn describe(member: &Member) -> String {
    let record = &member.record;
    format!("{:?} since {}, at {:?}, {}", member.status, member.since, record.addresses, record.incarnation)
}
