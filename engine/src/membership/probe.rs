//! Who is probed when, and what a missing answer leads to.

use std::time::Duration;

use super::Status;
use super::machine::{Membership, Timer};
use super::message::{Message, Standing, Via};
use super::table::Entry;
use crate::faults::Fault;
use crate::identity::{Boot, Incarnation, NodeId};
use crate::sometimes;
use crate::time::{Instant, Wall};

/// A zone with fewer live servers is watched from other zones too.
pub(super) const ZONE_MIN: usize = 3;
/// Members that watch a server of a small zone, at the least.
const WATCHERS_MIN: usize = 3;
/// One probe in so many goes to a member anywhere.
const CROSS_EVERY: u64 = 10;
/// Probes that wait for an answer at once.
const PROBES_MAX: usize = 1_024;
/// Requests of others that are being served at once.
const RELAYS_MAX: usize = 256;
/// Highest score of local health; the factor on intervals is one more.
const SICK_MAX: u32 = 8;
/// Probes that only the stream answered before datagrams count as unproven again.
const DATAGRAMS_MISSED_MAX: u8 = 5;
/// Recent outcomes kept to tell whether this node is the one cut off, and for how long.
const OUTCOMES_MAX: usize = 16;
const OUTCOMES_AGE: Duration = Duration::from_secs(15);
/// Members that must have missed before this node doubts itself: fewer may simply have crashed together.
const CUT_OFF_TARGETS_MIN: usize = 3;

#[derive(Clone, Debug)]
pub(super) struct Probe {
    target: NodeId,
    sent: Instant,
    /// The wait for the direct answer.
    timeout: Duration,
    /// Began because a stream broke or someone else declared the member failed: local health does not stretch it.
    urgent: bool,
    /// Someone declared the member failed that we see ourselves.
    contested: Option<Contested>,
    helpers: u32,
    nacks: u32,
    indirect: bool,
}

/// Word that a member failed, which is believed if the member stays silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contested {
    pub(super) standing: Standing,
    /// The statement of the member that it is about. Of a later one it says nothing.
    pub(super) version: (Incarnation, Boot),
}

#[derive(Clone, Debug)]
pub(super) struct Relay {
    origin: NodeId,
    via: Via,
    seq: u32,
    target: NodeId,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    at: Instant,
    target: NodeId,
    answered: bool,
}

impl Membership {
    pub(super) fn on_probe_due(&mut self, now: Instant) {
        self.timers.arm(Timer::Probe, now + self.config.probe_interval * (self.sick + 1));
        self.probe_count += 1;
        let across = self.probe_count.is_multiple_of(CROSS_EVERY);
        let target = if across { self.any_live() } else { self.next_in_rotation() };
        if let Some(target) = target {
            self.probe(target, false, None, now);
        }
    }

    fn any_live(&mut self) -> Option<NodeId> {
        let place = self.random.index(self.table.len());
        self.table.iter_from_place(place).find(|entry| entry.is_live()).map(Entry::node)
    }

    fn next_in_rotation(&mut self) -> Option<NodeId> {
        for _ in 0..2 {
            while let Some(node) = self.rotation.pop() {
                if self.table.get(&node).is_some_and(|entry| entry.is_live() && self.watches(entry)) {
                    return Some(node);
                }
            }
            let watched = self.table.iter().filter(|entry| entry.is_live() && self.watches(entry));
            let mut round: Vec<_> = watched.map(Entry::node).collect();
            round.truncate(round.len() - usize::from(self.faults.has(Fault::RoundCutShort) && round.len() > 1));
            self.random.shuffle(&mut round);
            self.rotation = round;
        }
        None
    }

    /// A newcomer waits half a round on average, as everyone does.
    pub(super) fn enter_rotation(&mut self, node: NodeId) {
        let zone = self.table.get(&node).map(|entry| &entry.record().zone);
        let mine = &self.me.record.zone;
        let watched = |zone: &String| zone == mine || self.is_small(zone) || self.is_small(mine);
        let may_watch = self.is_full_mesh() || zone.is_some_and(watched);
        if may_watch && !self.rotation.contains(&node) {
            let place = self.random.index(self.rotation.len() + 1);
            self.rotation.insert(place, node);
        }
    }

    /// Whether probing this member is this node's duty: those of one zone watch each other, and those of small zones
    /// everyone in small zones. Where that makes too few, a hash picks watchers among all.
    fn watches(&self, entry: &Entry) -> bool {
        let (mine, its) = (&self.me.record.zone, &entry.record().zone);
        if mine == its {
            return true;
        }
        if !self.is_small(its) {
            return self.is_small(mine) && self.in_small_zones() <= WATCHERS_MIN;
        }
        if self.is_small(mine) {
            return true;
        }
        if self.in_small_zones() > WATCHERS_MIN {
            return false;
        }
        let weight = |prober: &NodeId| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&entry.node().0).update(&prober.0);
            *hasher.finalize().as_bytes()
        };
        let me = weight(&self.me.record.node);
        let is_before = |other: &&Entry| other.is_live() && other.node() != entry.node() && weight(&other.node()) < me;
        let before = self.table.iter().filter(is_before);
        before.take(WATCHERS_MIN).count() < WATCHERS_MIN
    }

    fn in_small_zones(&self) -> usize {
        let mine = &self.me.record.zone;
        sometimes!("watched across zones");
        let own = usize::from(self.is_small(mine));
        own + self.table.zones().filter(|(zone, _)| self.is_small(zone)).map(|(_, count)| count).sum::<usize>()
    }

    /// Sends a ping, unless one to that member is under way.
    pub(super) fn probe(&mut self, target: NodeId, urgent: bool, contested: Option<Contested>, now: Instant) {
        let running = self.probes.iter_mut().find(|(_, probe)| probe.target == target);
        if let Some((_, probe)) = running
            && (contested.is_none() || probe.contested.is_some())
        {
            probe.urgent |= urgent;
            return;
        }
        if self.probes.len() >= PROBES_MAX || !self.is_running() {
            return;
        }
        let Some(entry) = self.table.get(&target) else {
            return;
        };
        let (datagrams, stream) = (entry.link().datagrams, entry.is_open());
        let mut timeout = self.timeout_of(entry);
        if !urgent {
            timeout *= self.sick + 1;
        }
        let seq = self.next_seq();
        // A datagram goes even where none has verified yet: it is how the first one gets the chance.
        self.ping(target, Via::Datagram, seq, now);
        if stream && (!datagrams || urgent) {
            self.ping(target, Via::Stream, seq, now);
        }
        let probe = Probe { target, sent: now, timeout, urgent, contested, helpers: 0, nacks: 0, indirect: false };
        self.probes.insert(seq, probe);
        self.timers.arm(Timer::ProbeDirect(seq), now + timeout);
    }

    fn ping(&mut self, to: NodeId, via: Via, seq: u32, now: Instant) {
        let updates = self.news(&to, via, now);
        let view = self.view();
        self.send(to, via, Message::Ping { seq, view, updates });
    }

    /// A stream has opened to a member that has not answered a datagram: the probe goes on by it.
    pub(super) fn ask_by_stream(&mut self, peer: NodeId, now: Instant) {
        if self.is_full_mesh() {
            return;
        }
        let waiting = self.probes.iter().find(|(_, probe)| probe.target == peer && probe.indirect);
        if let Some(seq) = waiting.map(|(seq, _)| *seq) {
            self.ping(peer, Via::Stream, seq, now);
        }
    }

    fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    /// Four round trips, within the limits of its zone.
    fn timeout_of(&self, entry: &Entry) -> Duration {
        let most = self.timeout_max(entry);
        entry.contact().rtt.map_or(most, |rtt| (rtt * 4).clamp(self.config.probe_timeout_min, most))
    }

    fn timeout_max(&self, entry: &Entry) -> Duration {
        if entry.record().zone == self.me.record.zone {
            self.config.probe_timeout_max
        } else {
            self.config.cross_zone_timeout_max
        }
    }

    pub(super) fn on_probe_direct(&mut self, seq: u32, now: Instant) {
        let Some(probe) = self.probes.get(&seq) else {
            return;
        };
        let (target, contested, sent) = (probe.target, probe.contested, probe.sent);
        let Some(entry) = self.table.get(&target).filter(|entry| entry.is_live()) else {
            self.probes.remove(&seq);
            return;
        };
        if let Some(Contested { standing, version }) = contested {
            let silent = entry.contact().last_seen.is_none_or(|seen| seen < sent);
            let stands = entry.version() == version || self.faults.has(Fault::ContestOutlivesBoot);
            self.probes.remove(&seq);
            sometimes!("contest overtaken", silent && !stands);
            if silent && stands {
                sometimes!("contest lost");
                self.believe_failed(target, &standing, now);
            }
            return;
        }
        let refused = entry.link().refused && entry.link().open.is_none();
        let stream = entry.is_open();
        let wait = self.timeout_max(entry) + probe.timeout;
        if refused {
            sometimes!("probe refused");
            self.probes.remove(&seq);
            self.note_outcome(target, false, now);
            self.suspect(target, true, now);
            return;
        }
        if stream {
            self.ping(target, Via::Stream, seq, now);
        } else if !self.is_full_mesh() {
            self.call(target, now);
        }
        let helpers = self.helpers(&target);
        let count = u32::try_from(helpers.len()).unwrap_or(u32::MAX);
        for (helper, via) in helpers {
            self.send(helper, via, Message::PingReq { seq, target });
        }
        if let Some(probe) = self.probes.get_mut(&seq) {
            probe.indirect = true;
            probe.helpers = count;
        }
        self.timers.arm(Timer::ProbeEnd(seq), now + wait);
    }

    fn helpers(&mut self, target: &NodeId) -> Vec<(NodeId, Via)> {
        let fit = |entry: &&Entry| entry.node() != *target && entry.status == Status::Alive && entry.is_reachable();
        let via = |entry: &Entry| {
            if entry.link().datagrams { Via::Datagram } else { Via::Stream }
        };
        let mut found: Vec<_> = self.table.iter().filter(fit).map(|entry| (entry.node(), via(entry))).collect();
        self.random.shuffle(&mut found);
        found.truncate(self.config.indirect_probes);
        found
    }

    pub(super) fn on_probe_end(&mut self, seq: u32, now: Instant) {
        let Some(probe) = self.probes.remove(&seq) else {
            return;
        };
        if self.faults.has(Fault::ProbeKept) {
            self.probes.insert(seq, probe.clone());
        }
        if probe.nacks < probe.helpers || probe.helpers == 0 {
            self.worsen();
        }
        self.note_outcome(probe.target, false, now);
        let Some(entry) = self.table.get(&probe.target) else {
            return;
        };
        let heard = entry.contact().last_seen.is_some_and(|seen| seen > probe.sent + probe.timeout);
        if heard && !self.faults.has(Fault::SilenceUnexcused) {
            sometimes!("silence excused");
            return;
        }
        // A member that nothing ever reached is not accused of silence. In a large cluster that is most of them, and what
        // three others and a stream do not reach either is.
        let tried = !self.is_full_mesh() && probe.helpers > 0;
        if entry.is_reachable() || entry.link().failures > 0 || tried {
            let refused = entry.link().refused && entry.link().open.is_none();
            self.suspect(probe.target, refused, now);
        }
    }

    /// The host of `node` refused a connection. Where the direct wait is over, that settles the probe.
    pub(super) fn on_refused(&mut self, node: NodeId, now: Instant) {
        let settled = self.probes.iter().find(|(_, probe)| probe.target == node && probe.indirect).map(|(seq, _)| *seq);
        if let Some(seq) = settled {
            sometimes!("probe settled by refusal");
            self.probes.remove(&seq);
            self.timers.disarm(&Timer::ProbeEnd(seq));
            self.note_outcome(node, false, now);
            self.suspect(node, true, now);
        } else {
            self.probe(node, true, None, now);
        }
    }

    fn note_outcome(&mut self, target: NodeId, answered: bool, now: Instant) {
        if self.outcomes.len() >= OUTCOMES_MAX {
            self.outcomes.pop_front();
        }
        self.outcomes.push_back(Outcome { at: now, target, answered });
    }

    /// Whether most of this node's own recent probes failed, of several members.
    pub(super) fn seems_cut_off(&self, now: Instant) -> bool {
        let recent = || self.outcomes.iter().filter(|outcome| now.since(outcome.at) <= OUTCOMES_AGE);
        let missed: std::collections::BTreeSet<_> =
            recent().filter(|outcome| !outcome.answered).map(|outcome| outcome.target).collect();
        let answered = recent().filter(|outcome| outcome.answered).count();
        missed.len() >= CUT_OFF_TARGETS_MIN && missed.len() > answered
    }

    pub(super) fn worsen(&mut self) {
        self.sick = (self.sick + 1).min(SICK_MAX);
        sometimes!("sick as can be", self.sick == SICK_MAX);
    }

    pub(super) fn on_ping(&mut self, from: NodeId, via: Via, seq: u32, now: Instant) {
        let updates = self.news(&from, via, now);
        let (view, clock) = (self.view(), self.wall(now));
        self.send(from, via, Message::Ack { seq, view, clock, updates });
    }

    pub(super) fn on_ack(&mut self, from: NodeId, via: Via, seq: u32, clock: Option<Wall>, now: Instant) {
        if self.relays.get(&seq).is_some_and(|relay| relay.target == from) {
            self.timers.disarm(&Timer::Relay(seq));
            if let Some(relay) = self.relays.remove(&seq) {
                self.send(relay.origin, relay.via, Message::Vouch { seq: relay.seq });
            }
            return;
        }
        if self.probes.get(&seq).is_none_or(|probe| probe.target != from) {
            return;
        }
        let Some(probe) = self.finish(seq, now) else {
            return;
        };
        sometimes!("contest won", probe.contested.is_some());
        sometimes!("saved by its stream", via == Via::Stream && probe.indirect);
        let Some(entry) = self.table.get_mut(&from) else {
            return;
        };
        if via == Via::Datagram {
            entry.link_mut().datagrams_missed = 0;
        } else if entry.link().datagrams && !probe.urgent {
            entry.link_mut().datagrams_missed += 1;
            if entry.link().datagrams_missed >= DATAGRAMS_MISSED_MAX {
                sometimes!("datagrams given up");
                entry.link_mut().datagrams = false;
                entry.link_mut().datagrams_missed = 0;
            }
        }
        if !probe.indirect {
            let sample = now.since(probe.sent);
            entry.contact_mut().rtt = Some(entry.contact().rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
            self.compare_clocks(&from, clock, sample, now);
        }
    }

    fn finish(&mut self, seq: u32, now: Instant) -> Option<Probe> {
        let probe = self.probes.remove(&seq)?;
        self.timers.disarm(&Timer::ProbeDirect(seq));
        self.timers.disarm(&Timer::ProbeEnd(seq));
        self.sick = self.sick.saturating_sub(1);
        self.note_outcome(probe.target, true, now);
        Some(probe)
    }

    pub(super) fn on_ping_req(&mut self, origin: NodeId, via: Via, seq: u32, target: NodeId, now: Instant) {
        if target == self.me.record.node {
            self.send(origin, via, Message::Vouch { seq });
            return;
        }
        let full = self.is_full_mesh();
        let reachable = self.table.get(&target).filter(|entry| entry.is_reachable() || !full && entry.is_live());
        let Some(entry) = reachable.filter(|_| self.relays.len() < RELAYS_MAX && self.is_running()) else {
            self.send(origin, via, Message::Nack { seq });
            return;
        };
        let timeout = self.timeout_of(entry);
        let pipe = if entry.link().datagrams || !entry.is_open() { Via::Datagram } else { Via::Stream };
        let own = self.next_seq();
        self.relays.insert(own, Relay { origin, via, seq, target });
        self.ping(target, pipe, own, now);
        self.timers.arm(Timer::Relay(own), now + timeout);
    }

    pub(super) fn on_relay_missed(&mut self, seq: u32) {
        if let Some(relay) = self.relays.remove(&seq) {
            sometimes!("helper in vain");
            self.send(relay.origin, relay.via, Message::Nack { seq: relay.seq });
        }
    }

    pub(super) fn on_vouch(&mut self, from: NodeId, seq: u32, now: Instant) {
        if self.probes.get(&seq).is_some_and(|probe| probe.indirect && probe.target != from) {
            sometimes!("saved by a helper");
            self.finish(seq, now);
        }
    }

    pub(super) fn on_nack(&mut self, from: NodeId, seq: u32) {
        if let Some(probe) = self.probes.get_mut(&seq).filter(|probe| probe.target != from) {
            probe.nacks = probe.nacks.saturating_add(1).min(probe.helpers);
        }
    }

    /// Knocks at one suspect or failed member after the other, so that a healed partition is noticed within a moment: a
    /// node that was cut off takes itself for sick, and probes seldom.
    pub(super) fn on_failed_due(&mut self, now: Instant) {
        let missed = |entry: &Entry| matches!(entry.status, Status::Suspect | Status::Failed);
        let Some(node) = self.table.next_after(&self.failed_cursor, missed) else {
            return;
        };
        sometimes!("knocked");
        self.failed_cursor = node;
        let seq = self.next_seq();
        self.ping(node, Via::Datagram, seq, now);
        if self.knocks_by_stream() {
            self.call(node, now);
        }
        let turn = self.config.failed_probe * self.share();
        let wait = turn / 2;
        let spread = self.jitter(turn);
        self.timers.arm(Timer::Failed, now + wait + spread);
    }
}
