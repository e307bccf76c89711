//! With whom a stream is held.
//!
//! In a small cluster everybody holds one with everybody: pushes, acknowledgements and broken pipes take the straight way.
//! The square of a large cluster is too much, so there each member holds streams with a few neighbours that it picks by
//! itself, and opens others when something needs one; the engine closes those again when they have been idle.
//!
//! Ids are hashes, so members in the order of their ids are in random order. A member's neighbours are who comes next
//! after it, in its zone and of all, which joins all members of a zone, and all zones, in a ring; and who comes next after
//! a few points that a hash of its own id names, which makes of the rings a graph in which everybody is a few steps from
//! everybody. A member that comes or goes changes the neighbours of those few whose points lie just before it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Status;
use super::machine::{Membership, Timer};
use super::table::Entry;
use crate::identity::{NodeId, Span};
use crate::time::Instant;

/// Points in the zone, and among all, after each of which one neighbour is picked, beside the one after the member.
const ZONE_POINTS: u8 = 2;
const FAR_POINTS: u8 = 1;
/// Most streams asked for at one time that no neighbour is at the end of.
const CALLS_MAX: usize = 256;
/// Between a change of the cluster and a look at what it means for the neighbours.
const LOOK_AFTER: Duration = Duration::from_millis(500);
/// Live members up to which each does its share of what is done once a member; beyond, what the share adds up to stays.
const SHARES_MAX: usize = 64;
/// One knock of so many in a large cluster is by stream, for those whom no datagram reaches.
const KNOCKS_BY_STREAM: u64 = 8;
/// For how long everybody's view has to differ from this node's before tables are compared, and between two comparisons.
const DIFFERS_FOR: Duration = Duration::from_secs(3);
const COMPARES_EVERY: Duration = Duration::from_secs(5);

/// With whom this node holds streams.
#[derive(Clone, Debug, Default)]
pub(super) struct Mesh {
    /// Whether the cluster is too large for a stream with everybody.
    partial: bool,
    neighbours: BTreeSet<NodeId>,
    /// Others of whom something needs a stream.
    called: BTreeSet<NodeId>,
    knocks: u64,
    /// Datagrams reach this node, so it takes them for a way to others too.
    datagrams: bool,
    /// Since when every view that was shown differed.
    differs: Option<Instant>,
    compared: Option<Instant>,
}

impl Membership {
    /// Whether this node holds a stream with every live member that it can reach, rather than with some.
    #[must_use]
    pub const fn is_full_mesh(&self) -> bool {
        !self.mesh.partial
    }

    /// Whether a stream with `node` is held even when nothing goes through it.
    #[must_use]
    pub fn is_neighbour(&self, node: &NodeId) -> bool {
        self.is_full_mesh() || self.mesh.neighbours.contains(node)
    }

    /// Live members of a zone in a span, other than this node, from its beginning.
    pub fn live_in_span<'a>(&'a self, span: &Span, zone: &'a str) -> impl Iterator<Item = NodeId> + 'a {
        let span = *span;
        let of_zone = move |entry: &&Entry| entry.is_live() && entry.record().zone == zone;
        let within = self.table.iter_from(span.from).take_while(move |entry| span.holds(&entry.node()));
        within.filter(of_zone).map(Entry::node)
    }

    /// Each zone in which others are live, and how many.
    pub fn zones(&self) -> impl Iterator<Item = (&str, usize)> {
        self.table.zones()
    }

    /// Whether nothing is held against a member.
    #[must_use]
    pub fn is_alive(&self, node: &NodeId) -> bool {
        self.table.get(node).is_some_and(|entry| entry.status == Status::Alive)
    }

    /// Opens a stream with a member, unless one is open or being opened. One attempt is made.
    pub fn call(&mut self, node: NodeId, now: Instant) {
        let Some(entry) = self.table.get(&node) else { return };
        let is_possible = !entry.is_open() && entry.status != Status::Left && self.is_running();
        if is_possible && !self.is_connecting(&node) && self.mesh.called.len() < CALLS_MAX {
            self.mesh.called.insert(node);
            self.timers.arm_by(Timer::Connect(node), now);
        }
    }

    /// Whether an attempt at `node` may be made now, or again later.
    pub(super) fn wants_stream(&self, node: &NodeId) -> bool {
        self.is_neighbour(node) || self.mesh.called.contains(node)
    }

    /// The stream that was asked for is there, or will not be.
    pub(super) fn answer_call(&mut self, node: &NodeId) {
        self.mesh.called.remove(node);
    }

    /// Somebody came or went.
    pub(super) fn look_at_mesh(&mut self, now: Instant) {
        // A large cluster that shrinks becomes a full mesh somewhat later, so that one member more or less changes nothing.
        let full = self.config.full_mesh;
        let most = if self.mesh.partial { full - full / 4 } else { full };
        let partial = self.live() > most;
        let was_partial = std::mem::replace(&mut self.mesh.partial, partial);
        if self.mesh.partial || was_partial {
            self.timers.arm_by(Timer::Mesh, now + LOOK_AFTER);
        }
    }

    pub(super) fn on_mesh_due(&mut self, now: Instant) {
        let wanted: Vec<NodeId> = if self.mesh.partial {
            self.mesh.neighbours = self.pick_neighbours();
            self.mesh.neighbours.iter().copied().collect()
        } else {
            self.mesh.neighbours.clear();
            self.table.iter().filter(|entry| entry.status != Status::Left).map(Entry::node).collect()
        };
        for node in wanted {
            if !self.timers.is_armed(&Timer::Connect(node)) {
                self.look_for_better(node, now);
                self.plan_connect(node, false, now);
            }
        }
    }

    fn pick_neighbours(&self) -> BTreeSet<NodeId> {
        let (me, zone) = (self.me.record.node, &self.me.record.zone);
        let of_zone = |entry: &Entry| entry.is_live() && entry.record().zone == *zone;
        let mut picked = BTreeSet::new();
        let of_mine = self.table.live_in(zone);
        if of_mine > self.config.full_mesh / 4 {
            picked.extend((0..=ZONE_POINTS).filter_map(|at| self.table.next_after(&point(&me, at), of_zone)));
        } else if of_mine > 0 {
            picked.extend(self.table.iter().filter(|entry| of_zone(entry)).map(Entry::node));
        }
        let far = (0..=FAR_POINTS).map(|at| point(&me, if at == 0 { 0 } else { ZONE_POINTS + at }));
        picked.extend(far.filter_map(|point| self.table.next_after(&point, Entry::is_live)));
        picked
    }

    pub(super) fn note_datagram(&mut self) {
        self.mesh.datagrams = true;
    }

    /// Whom to tell news. A few are picked at random without looking at all; one of them at least by a way that is known.
    pub(super) fn pick_listeners(&mut self, count: usize) -> BTreeSet<NodeId> {
        let datagrams = self.mesh.datagrams;
        let places: Vec<usize> = (0..count).map(|_| self.random.index(self.table.len())).collect();
        let pick = |(at, place): (usize, usize)| {
            let fits = |entry: &&Entry| entry.is_live() && (datagrams && at > 0 || entry.is_reachable());
            self.table.iter_from_place(place).find(fits).map(Entry::node)
        };
        places.into_iter().enumerate().filter_map(pick).collect()
    }

    /// A member has shown its view. Probes meet another each time, so what counts is that all of them differ.
    pub(super) fn compare_among_many(&mut self, from: NodeId, differs: bool, now: Instant) {
        if !differs {
            self.mesh.differs = None;
            return;
        }
        let since = *self.mesh.differs.get_or_insert(now);
        let pause = self.mesh.compared.is_some_and(|compared| now.since(compared) < COMPARES_EVERY);
        if now.since(since) < DIFFERS_FOR || pause || !self.is_running() {
            return;
        }
        self.mesh.compared = Some(now);
        self.mesh.differs = None;
        if self.table.get(&from).is_some_and(Entry::is_open) {
            self.send_digest(from, true, now);
        } else {
            // Who opens a stream compares.
            self.call(from, now);
        }
    }

    /// Something was heard that only a comparison makes sense of.
    pub(super) fn lacks_a_record(&mut self) {
        self.mesh.differs = Some(Instant::ZERO);
    }

    /// How many times longer than alone this node waits between two steps of what many do together.
    pub(super) fn share(&self) -> u32 {
        u32::try_from(self.live() / SHARES_MAX).unwrap_or(u32::MAX).max(1)
    }

    /// Whether this knock at a failed member is to be by stream too.
    pub(super) fn knocks_by_stream(&mut self) -> bool {
        self.mesh.knocks += 1;
        self.mesh.partial && self.mesh.knocks.is_multiple_of(KNOCKS_BY_STREAM)
    }
}

/// A point on the ring of ids: the member's own, then hashes of it.
fn point(node: &NodeId, at: u8) -> NodeId {
    if at == 0 {
        return *node;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&node.0).update(&[at]);
    let [id @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *hasher.finalize().as_bytes();
    NodeId(id)
}
