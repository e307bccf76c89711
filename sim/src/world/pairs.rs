//! What holds between two servers while nothing is wrong, looked at now and then.

use std::collections::BTreeMap;
use std::time::Duration;

use knot_engine::documents::Document;
use knot_engine::membership::{Record, Status};
use knot_engine::{Engine, Instant, NodeId, SessionId};

use super::{SERVERS_MAX, World};
use crate::checker::{Invariant, NEEDLESS_AFTER, REST, root_gap};
use crate::network::Process;
use crate::node::Running;
use crate::scenario::FaultKind;

/// Members whom a server asks for help when a probe is not answered: in a cluster of so many more, it asks all others.
const HELPERS: usize = 3;

/// How long the one end of a stream may be open before the other, on a network that is well.
const OPENING: Duration = Duration::from_secs(1);

/// What is wrong now, and what was seen of pairs since.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// Faults under way, by their places.
    active: Vec<usize>,
    /// When one last began or ended.
    changed_at: Instant,
    /// When each server last stored a change, or began a repair.
    moved_at: BTreeMap<usize, Instant>,
    /// When each server last stored a change.
    stored_at: BTreeMap<usize, Instant>,
    /// The stream of which a process is being told that it is open.
    opening: Option<(Process, SessionId)>,
    /// Since when somebody else has known where each member is.
    met_at: BTreeMap<NodeId, Instant>,
    /// When a stream of an ended process last opened late, by the two servers.
    late_at: BTreeMap<[usize; 2], Instant>,
    /// When a stream last opened at either end, by the two servers.
    opened_at: BTreeMap<[usize; 2], Instant>,
    /// Since when a server accuses another that has denied it, and how many it has accused at once since.
    accused: BTreeMap<(usize, usize), (Instant, usize)>,
}

impl Pairs {
    /// What lasts for ever is not under way: it is how things are from then on.
    pub(super) fn fault_begins(&mut self, index: usize, ends: bool, now: Instant) {
        self.active.extend(ends.then_some(index));
        self.changed_at = now;
    }

    pub(super) fn fault_ends(&mut self, index: usize, now: Instant) {
        if let Some(at) = self.active.iter().position(|active| *active == index) {
            self.active.remove(at);
        }
        self.changed_at = now;
    }

    /// When one last began or ended.
    pub(super) fn changed_at(&self) -> Instant {
        self.changed_at
    }

    pub(super) fn opens(&mut self, opening: Option<(Process, SessionId)>) {
        self.opening = opening;
    }

    /// A server stores a change.
    pub(super) fn stores(&mut self, node: usize, now: Instant) {
        self.stored_at.insert(node, now);
        self.moved_at.insert(node, now);
    }
}

impl<D: Document> World<D> {
    /// The server's process, unless it is about to stop.
    pub(super) fn at_work(&self, node: usize) -> Option<&Running<D>> {
        self.nodes[node].running.as_ref().filter(|running| !running.engine.has_left())
    }

    pub(super) fn id_of(&self, node: usize) -> NodeId {
        self.nodes[node].key.node_id()
    }

    /// How long both have run with no fault beginning, ending or being under way.
    pub(super) fn both_well_for(&self, one: &Running<D>, other: &Running<D>) -> Duration {
        self.now.since(one.since.max(other.since).max(self.pairs.changed_at))
    }

    /// Whether nothing is wrong but what is of such a kind.
    pub(super) fn nothing_but(&self, is_such: impl Fn(&FaultKind) -> bool) -> bool {
        self.pairs.active.iter().all(|index| is_such(&self.scenario.faults[*index].kind))
    }

    /// Whether nothing is wrong but with streams, and no packet is lost, late or held up by others.
    fn datagrams_pass(&self) -> bool {
        let usual = &self.scenario.network;
        let narrow = usual.links.iter().any(|link| link.bytes_per_s.is_some());
        self.nothing_but(|kind| matches!(kind, FaultKind::StreamsStall { .. }))
            && self.scenario.core.is_empty()
            && usual.loss_per_mille_most() == 0
            && !narrow
            && self.is_full_mesh()
    }

    /// Whether nothing is wrong at all.
    pub(super) fn all_is_well(&self) -> bool {
        self.pairs.active.is_empty() && self.datagrams_pass()
    }

    /// Whether every server holds a stream with each, however many machines were replaced.
    fn is_full_mesh(&self) -> bool {
        2 * self.nodes.len() <= self.scenario.bounds.full_mesh
    }

    /// Looks at all pairs, where they are not so many that looking would cost more than what happens.
    pub(super) fn look_at_pairs(&mut self) {
        if self.nodes.len() > SERVERS_MAX {
            return;
        }
        self.look_for_rest();
        self.look_who_is_met();
        self.look_at_ways();
        if !self.datagrams_pass() {
            self.pairs.accused.clear();
            return;
        }
        for node in 0..self.nodes.len() {
            if self.pairs.active.is_empty() {
                (0..self.nodes.len()).filter(|other| *other != node).for_each(|other| self.look_at_stream(node, other));
            }
            self.look_at_accusations(node);
        }
    }

    /// A server that lacks something does not rest.
    fn look_for_rest(&mut self) {
        let since = self.pairs.changed_at.max(self.calm_since);
        if self.disturbances > 0 || !self.pairs.active.is_empty() || self.now.since(since) < REST {
            return;
        }
        let moved = |node: &usize| self.pairs.moved_at.get(node).copied().unwrap_or_default();
        let rests = |node: &usize| self.at_work(*node).is_some() && self.now.since(moved(node)) >= REST;
        let resting: Vec<usize> = (0..self.nodes.len()).filter(rests).collect();
        if resting.is_empty() || root_gap(&self.replicas(), !self.hostile.has_forged()).is_none() {
            return;
        }
        let running: Vec<usize> = (0..self.nodes.len()).filter(|node| self.at_work(*node).is_some()).collect();
        for node in resting {
            self.checkers.check_rest(node, &running, self.now);
        }
    }

    /// Whoever has not met anybody can be told of by nobody. Nor can a process that has yet to say where it is, while
    /// others know its server elsewhere: it has moved, or a copy of it ran on another machine and was the later one.
    fn look_who_is_met(&mut self) {
        for node in 0..self.nodes.len() {
            let Some(there) = self.at_work(node) else { continue };
            let (id, theirs) = (self.id_of(node), &there.engine.me().record);
            let others = self.nodes.iter().filter(|other| other.key.node_id() != id);
            let others = others.filter_map(|other| other.running.as_ref()?.engine.member(&id));
            let is_found = |known: &Record| known.boot == theirs.boot || known.addresses == theirs.addresses;
            let known: Vec<bool> = others.map(|member| is_found(&member.record)).collect();
            if known.contains(&true) {
                self.pairs.met_at.entry(id).or_insert(self.now);
            } else if !known.is_empty() {
                self.pairs.met_at.remove(&id);
            }
        }
    }

    /// A server that has started again holds a stream with another that ran before. Who is hostile loses its streams over
    /// what it says.
    fn look_at_stream(&mut self, node: usize, other: usize) {
        if self.scenario.nodes[node].hostile || self.scenario.nodes[other].hostile {
            return;
        }
        let (Some(here), Some(there)) = (self.at_work(node), self.at_work(other)) else { return };
        let Some(met_at) = self.pairs.met_at.get(&self.id_of(other)) else { return };
        let again = here.start > 1 && there.since <= here.since && self.pairs.changed_at <= here.since;
        if again && here.engine.stream_to(self.id_of(other)).is_none() && !self.is_opening(node, other) {
            let late_at = self.pairs.late_at.get(&pair(node, other)).copied().unwrap_or_default();
            let waited = self.now.since(here.since.max(*met_at).max(late_at));
            self.checkers.check_reconnected(node, other, waited, self.now);
        }
    }

    /// Another has just opened a stream to the process that runs here, in place of an older one maybe, which it has closed.
    fn is_opening(&self, node: usize, other: usize) -> bool {
        let opened_at = self.pairs.opened_at.get(&pair(node, other));
        let Some(there) = self.at_work(other).filter(|_| opened_at.is_some_and(|at| self.now.since(*at) < OPENING))
        else {
            return false;
        };
        let theirs = there.engine.stream_to(self.id_of(node)).zip(self.process_of(other));
        let peer = theirs.and_then(|(session, process)| self.streams.peer_process(process, session));
        peer.is_some_and(|peer| peer.node == node && self.runs(peer))
    }

    /// A process is about to be told that a stream is open. One of a process that has ended takes the place of a later
    /// one, and the two servers have to connect again.
    pub(super) fn on_opening(&mut self, to: Process, session: SessionId) {
        let Some(peer) = self.streams.peer_process(to, session) else { return };
        let pair = pair(to.node, peer.node);
        self.pairs.opened_at.insert(pair, self.now);
        if !self.runs(peer) {
            self.pairs.late_at.insert(pair, self.now);
        }
    }

    /// A server accuses nobody of what is denied.
    fn look_at_accusations(&mut self, node: usize) {
        let now = self.now;
        let Some(here) = self.at_work(node) else { return };
        let accused = here.engine.members().filter(|member| is_accused(member.status)).count();
        let denied: Vec<usize> = (0..self.nodes.len()).filter(|other| self.is_denied(here, *other)).collect();
        let well: BTreeMap<usize, Duration> =
            denied.iter().filter_map(|other| Some((*other, self.both_well_for(here, self.at_work(*other)?)))).collect();
        self.pairs.accused.retain(|(of, other), _| *of != node || denied.contains(other));
        for (other, well) in well {
            let (since, most) = self.pairs.accused.entry((node, other)).or_insert((now, accused));
            *most = accused.max(*most);
            let (lasting, most) = (now.since(*since).min(well), *most);
            self.checkers.check_denial((node, other), lasting, most, now);
        }
    }

    /// Whether a server holds something against another that the other has risen above.
    fn is_denied(&self, here: &Running<D>, other: usize) -> bool {
        let Some(there) = self.at_work(other) else { return false };
        let Some(member) = here.engine.member(&self.id_of(other)) else { return false };
        let theirs = &there.engine.me().record;
        is_accused(member.status) && member.record.boot == theirs.boot && member.record.incarnation < theirs.incarnation
    }

    /// A server closes a stream. It has not just been opened by a process that runs, while one to an earlier is kept. (One
    /// that an earlier process had opened, and that opens late, takes the place of a later one until that connects again.)
    pub(super) fn on_close(&mut self, from: Process, session: SessionId) {
        if self.pairs.opening != Some((from, session)) {
            return;
        }
        let Some(closed) = self.streams.peer_process(from, session).filter(|closed| self.runs(*closed)) else { return };
        let Some(running) = self.nodes[from.node].running.as_ref() else { return };
        let kept = running.engine.stream_to(self.id_of(closed.node));
        let kept = kept.and_then(|kept| self.streams.peer_process(from, kept));
        if let Some(kept) = kept.filter(|kept| kept.node == closed.node && kept.start < closed.start) {
            self.checkers.report(Invariant::Connected, self.now, from.node, || {
                let Process { node, start } = closed;
                format!(
                    "it closes a stream to start {start} of n{node}, which runs, and keeps that to start {}",
                    kept.start
                )
            });
        }
    }

    /// A server begins a repair.
    pub(super) fn on_repair(&mut self, node: usize, peer: NodeId, scope: &str) {
        self.pairs.moved_at.insert(node, self.now);
        let calm = self.disturbances == 0 && self.now.since(self.calm_since) >= NEEDLESS_AFTER;
        let Some(peer) = self.checkers.present(peer).filter(|_| calm) else { return };
        let stored_at = self.pairs.stored_at.get(&peer).copied().unwrap_or_default();
        if self.now.since(stored_at) < NEEDLESS_AFTER {
            return;
        }
        let root = |node: usize| {
            let scopes = self.nodes[node].running.as_ref()?.engine.scopes();
            scopes.into_iter().find(|known| known.scope == scope).map(|known| known.root)
        };
        if let (Some(here), Some(there)) = (root(node), root(peer))
            && here == there
        {
            self.checkers.check_needless((node, peer), scope, &here, self.now);
        }
    }

    /// How long a third has reached both, where the way between two is cut and nothing else is wrong, and each that is asked
    /// for help is asked; none otherwise.
    pub(super) fn reached_for(&self, observer: usize, subject: usize) -> Option<Duration> {
        let all_help = self.nodes.len() <= HELPERS + 2;
        self.joined_for(observer, subject).filter(|_| all_help)
    }

    /// How long a third has reached both, where the way between two is cut and nothing else is wrong; none otherwise.
    pub(super) fn joined_for(&self, observer: usize, subject: usize) -> Option<Duration> {
        let cuts_alone = self.nothing_but(|kind| matches!(kind, FaultKind::Partition { one_way: false, .. }));
        if !cuts_alone || !self.is_full_mesh() || !self.scenario.core.is_empty() {
            return None;
        }
        let helps = |helper: &usize| {
            let reaches = |node: usize| !self.links.is_blocked(*helper, node) && !self.links.is_blocked(node, *helper);
            *helper != observer && *helper != subject && reaches(observer) && reaches(subject)
        };
        let ran = |helper: usize| Some(self.at_work(helper)?.since);
        let helped = (0..self.nodes.len()).filter(helps).filter_map(ran).min()?;
        Some(self.now.since(helped.max(self.pairs.changed_at)))
    }

    /// Why not every server holds a stream with each; none when they do.
    pub(super) fn stream_gap(&self) -> Option<(Invariant, usize, String)> {
        if !self.is_full_mesh() {
            return None;
        }
        let inside: Vec<usize> = (0..self.nodes.len()).filter(|node| !self.checkers.outside.contains(node)).collect();
        let lacks = |engine: &Engine<D>, other: usize| {
            self.at_work(other).is_some() && engine.stream_to(self.id_of(other)).is_none()
        };
        inside.iter().find_map(|&node| {
            let engine = &self.at_work(node)?.engine;
            let other = inside.iter().copied().find(|&other| other != node && lacks(engine, other))?;
            Some((Invariant::Connected, node, format!("it has no stream with n{other}")))
        })
    }
}

fn pair(one: usize, other: usize) -> [usize; 2] {
    [one.min(other), one.max(other)]
}

fn is_accused(status: Status) -> bool {
    matches!(status, Status::Suspect | Status::Failed)
}
