//! The rule by which beliefs merge, and the table of members that it is applied to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::clock::ClockOffset;
use super::message::{BUCKETS, Standing, Update};
use super::route::Route;
use super::{Member, Record, Status};
use crate::identity::{Boot, Incarnation, NodeId};
use crate::time::Instant;

/// A belief about one member: the element of the lattice that gossip climbs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fact {
    pub(super) record: Arc<Record>,
    pub(super) status: Status,
    pub(super) retired: bool,
}

impl Fact {
    pub(super) fn version(&self) -> (Incarnation, Boot) {
        (self.record.incarnation, self.record.boot)
    }

    /// Takes what `heard` adds; true when that was anything. The member's later statement about itself wins; about one
    /// statement the worse belief does. Commutative, associative and idempotent, so any order of gossip ends alike.
    pub(super) fn merge(&mut self, heard: Self) -> bool {
        let before = (self.version(), self.status, self.retired);
        if heard.version() > before.0 {
            *self = heard;
            return true;
        }
        if heard.version() < before.0 {
            return false;
        }
        // Honest records of one statement are equal; the order only keeps dishonest ones from dividing the cluster.
        let changed = label(&heard.record) > label(&self.record);
        if changed {
            self.record = heard.record;
        }
        if (heard.status, heard.retired) > (before.1, before.2) {
            (self.status, self.retired) = (heard.status, heard.retired);
            return true;
        }
        changed
    }
}

fn label(record: &Record) -> impl Ord {
    (&record.name, &record.zone, &record.addresses, &record.version, &record.url)
}

/// A member in the table. Of most members of a large cluster a node never sees more than their records, which it shares
/// with others in its process (`Records`), so what comes of dealing with a member lies in a box of its own.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The record's, kept beside it for the search.
    node: NodeId,
    record: Arc<Record>,
    /// When `status` last changed.
    pub(super) since: Instant,
    contact: Option<Box<Contact>>,
    /// Of the name, so that namesakes are found without looking at every record.
    name: u32,
    pub(super) status: Status,
    pub(super) durable: bool,
    /// Known from before a restart and not heard of since: nothing is told of it, and any word of it wins.
    pub(super) restored: bool,
    /// What the restored status was, for the next restart.
    pub(super) restored_from: Status,
}

const _: () = assert!(size_of::<Entry>() <= 48, "ten thousand nodes have ten thousand of them each");

/// What this node keeps of a member that it has dealt with, or that is accused.
#[derive(Clone, Debug)]
pub(super) struct Contact {
    pub(super) accuser: Option<NodeId>,
    /// Whether the accuser was refused.
    pub(super) refused: bool,
    pub(super) last_seen: Option<Instant>,
    pub(super) rtt: Option<Duration>,
    pub(super) clock: Option<ClockOffset>,
    /// The start of which it has told its record itself.
    pub(super) own_word: Option<Boot>,
    /// A statement that was held to be the member's own until it said otherwise.
    pub(super) disowned: Option<(Incarnation, Boot)>,
    pub(super) link: Link,
}

/// How this node and a member reach each other.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// A stream session is open, since then.
    pub(super) open: Option<Instant>,
    /// What that goes through.
    pub(super) route: Route,
    /// Attempts at a better route that failed since it is open.
    pub(super) better_failures: u32,
    /// When a stream session last brought a message of the member's.
    pub(super) heard: Option<Instant>,
    /// Datagrams between the two present boots have verified.
    pub(super) datagrams: bool,
    /// Probes in a row that only the stream answered.
    pub(super) datagrams_missed: u8,
    /// Attempts to connect that failed in a row.
    pub(super) failures: u32,
    /// Its host refused a connection, and nothing was heard of it since.
    pub(super) refused: bool,
    /// When it was last told what is held against it.
    pub(super) told: Option<Instant>,
    /// Probes in a row in which its view differed from ours.
    pub(super) differs: u8,
    /// When tables were last compared.
    pub(super) synced: Option<Instant>,
    /// What it was told, by the stream that is open, to be its own latest statement.
    pub(super) shown: Option<(Incarnation, Boot)>,
    /// When it was last told again what this node says of itself, against what it holds.
    pub(super) denied: Option<Instant>,
}

static NO_CONTACT: Contact = Contact::NONE;

impl Contact {
    const NONE: Self = Self {
        accuser: None,
        refused: false,
        last_seen: None,
        rtt: None,
        clock: None,
        own_word: None,
        disowned: None,
        link: Link::NONE,
    };
}

impl Link {
    const NONE: Self = Self {
        open: None,
        route: Route::Accepted,
        better_failures: 0,
        heard: None,
        datagrams: false,
        datagrams_missed: 0,
        failures: 0,
        refused: false,
        told: None,
        differs: 0,
        synced: None,
        shown: None,
        denied: None,
    };
}

impl Entry {
    /// A member of which nothing but a belief is known.
    pub(super) fn new(fact: Fact, since: Instant) -> Self {
        Self {
            node: fact.record.node,
            name: name_tag(&fact.record.name),
            record: fact.record,
            since,
            contact: None,
            status: fact.status,
            durable: !fact.retired,
            restored: false,
            restored_from: fact.status,
        }
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// Takes a later record of the same member.
    pub(super) fn set_record(&mut self, record: Arc<Record>) {
        self.name = name_tag(&record.name);
        self.record = record;
    }

    pub(super) fn contact(&self) -> &Contact {
        self.contact.as_deref().unwrap_or(&NO_CONTACT)
    }

    pub(super) fn contact_mut(&mut self) -> &mut Contact {
        self.contact.get_or_insert_with(|| Box::new(Contact::NONE))
    }

    pub(super) fn link(&self) -> &Link {
        &self.contact().link
    }

    pub(super) fn link_mut(&mut self) -> &mut Link {
        &mut self.contact_mut().link
    }

    /// How many of its addresses, from the first, would be better than what its stream goes through.
    pub(super) fn better_addresses(&self) -> usize {
        let addresses = &self.record().addresses;
        self.link().route.better(addresses).min(addresses.len())
    }

    /// Another start of the member: what is known of ways to the earlier one is void, but for a stream that is open.
    pub(super) fn forget_ways(&mut self) {
        if let Some(contact) = &mut self.contact {
            let route = std::mem::take(&mut contact.link.route);
            contact.link = Link { open: contact.link.open, route, ..Link::NONE };
        }
    }

    /// Notes on whose word it has its standing.
    pub(super) fn accuse(&mut self, accuser: Option<NodeId>, refused: bool) {
        if accuser.is_some() || refused || self.contact.is_some() {
            let contact = self.contact_mut();
            (contact.accuser, contact.refused) = (accuser, refused);
        }
    }

    /// Whether the stream has been silent throughout a suspicion, during which every probe goes through it as well. What
    /// waits in it is sent again less and less often, and so may come long after the network is whole.
    pub(super) fn is_stream_stuck(&self, patience: Duration, now: Instant) -> bool {
        let since = self.since;
        let before = |at: Option<Instant>| at.is_none_or(|at| at < since);
        let link = self.link();
        self.status == Status::Suspect
            && link.open.is_some_and(|opened| opened < since)
            && before(link.heard)
            && now.since(since) > patience
    }

    pub(super) fn fact(&self) -> Fact {
        Fact { record: Arc::clone(&self.record), status: self.status, retired: !self.durable }
    }

    pub(super) fn version(&self) -> (Incarnation, Boot) {
        (self.record.incarnation, self.record.boot)
    }

    pub(super) fn is_live(&self) -> bool {
        self.status <= Status::Suspect
    }

    pub(super) fn is_open(&self) -> bool {
        self.link().open.is_some()
    }

    pub(super) fn is_reachable(&self) -> bool {
        let link = self.link();
        link.open.is_some() || link.datagrams
    }

    /// The member as others are shown it.
    pub(super) fn member(&self) -> Member {
        let Contact { last_seen, rtt, clock, .. } = *self.contact();
        let record = Arc::clone(&self.record);
        let (status, since, datagrams, durable) = (self.status, self.since, self.link().datagrams, self.durable);
        Member { record, status, since, last_seen, rtt, clock, datagrams, durable }
    }

    pub(super) fn update(&self, full: bool, now: Instant) -> Update {
        let Contact { accuser, refused, .. } = *self.contact();
        let age = if self.is_live() { Duration::ZERO } else { now.since(self.since) };
        let standing = Standing {
            status: self.status,
            retired: !self.durable,
            refused,
            accuser,
            age_s: u32::try_from(age.as_secs()).unwrap_or(u32::MAX),
        };
        render(&self.record, standing, full)
    }
}

/// FNV-1a. Two names of one tag are compared in full.
pub(super) fn name_tag(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

pub(super) fn render(record: &Arc<Record>, standing: Standing, full: bool) -> Update {
    if full {
        Update::Full { record: Arc::clone(record), standing }
    } else {
        Update::Brief { node: record.node, boot: record.boot, incarnation: record.incarnation, standing }
    }
}

/// Parts of the table, by the first byte of the id. Ids are hashes, so the parts are of one size.
const RUNS: usize = 256;

/// How many live members a zone has.
#[derive(Clone, Copy, Debug, Default)]
struct Zone {
    live: usize,
    suspect: usize,
}

/// Every other member, in the order of ids. Counts and hashes are kept current, so that asking for them costs nothing.
///
/// Sorted runs rather than a map: an entry costs its own size and a tenth, and any place in it is found by its number.
#[derive(Clone, Debug)]
pub(super) struct Table {
    runs: Vec<Vec<Entry>>,
    len: usize,
    buckets: Vec<u64>,
    view: u64,
    live: usize,
    zones: BTreeMap<String, Zone>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            runs: vec![Vec::new(); RUNS],
            len: 0,
            buckets: vec![0; BUCKETS],
            view: 0,
            live: 0,
            zones: BTreeMap::new(),
        }
    }

    pub(super) fn get(&self, node: &NodeId) -> Option<&Entry> {
        let run = self.runs.get(run_of(node))?;
        run.get(place(run, node).ok()?)
    }

    /// For what is not counted: what is known of ways to the member, and of accusations.
    pub(super) fn get_mut(&mut self, node: &NodeId) -> Option<&mut Entry> {
        let run = self.runs.get_mut(run_of(node))?;
        let at = place(run, node).ok()?;
        run.get_mut(at)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.runs.iter().flatten()
    }

    /// All, from the one with so many before it, going round. A random id would not do to pick one at random: it leads to
    /// some members far more often than to others.
    pub(super) fn iter_from_place(&self, place: usize) -> impl Iterator<Item = &Entry> {
        let mut left = place;
        let run_at = self.runs.iter().position(|run| {
            let is_here = left < run.len();
            left -= if is_here { 0 } else { run.len() };
            is_here
        });
        let start = run_at.and_then(|at| self.runs.get(at)?.get(left)).map_or(NodeId([0; 16]), Entry::node);
        self.iter_from(start)
    }

    /// All, from `node` itself if it is there, going round.
    pub(super) fn iter_from(&self, node: NodeId) -> impl Iterator<Item = &Entry> {
        self.iter_after(NodeId(u128::from_be_bytes(node.0).wrapping_sub(1).to_be_bytes()))
    }

    /// All, from the first after `node`, going round.
    pub(super) fn iter_after(&self, node: NodeId) -> impl Iterator<Item = &Entry> {
        let (before, from) = self.runs.split_at_checked(run_of(&node)).unwrap_or_default();
        let (run, behind) = from.split_first().map_or((&[][..], from), |(run, behind)| (run.as_slice(), behind));
        let at = run.partition_point(|entry| entry.node <= node);
        let (low, high) = run.split_at_checked(at).unwrap_or_default();
        high.iter().chain(behind.iter().flatten()).chain(before.iter().flatten()).chain(low)
    }

    /// The first that `wanted` picks after `node`, going round.
    pub(super) fn next_after(&self, node: &NodeId, wanted: impl Fn(&Entry) -> bool) -> Option<NodeId> {
        self.iter_after(*node).find(|entry| wanted(entry)).map(Entry::node)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Members alive or suspect.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Members alive or suspect in `zone`.
    pub(super) fn live_in(&self, zone: &str) -> usize {
        self.zones.get(zone).map_or(0, |zone| zone.live)
    }

    /// Suspect members in `zone`.
    pub(super) fn suspect_in(&self, zone: &str) -> usize {
        self.zones.get(zone).map_or(0, |zone| zone.suspect)
    }

    /// Each zone that has live members, and how many.
    pub(super) fn zones(&self) -> impl Iterator<Item = (&str, usize)> {
        self.zones.iter().map(|(zone, counts)| (zone.as_str(), counts.live))
    }

    pub(super) fn buckets(&self) -> &[u64] {
        &self.buckets
    }

    /// The sum of all buckets.
    pub(super) fn view(&self) -> u64 {
        self.view
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        self.remove(&entry.node);
        self.count(&entry);
        self.len += 1;
        if let Some(run) = self.runs.get_mut(run_of(&entry.node)) {
            let at = place(run, &entry.node).unwrap_or_else(|at| at);
            if run.len() == run.capacity() {
                // An eighth more, not twice as much: most of what a large cluster costs is here.
                run.reserve_exact(1 + run.len() / 8);
            }
            run.insert(at, entry);
        }
    }

    pub(super) fn remove(&mut self, node: &NodeId) -> Option<Entry> {
        let run = self.runs.get_mut(run_of(node))?;
        let at = place(run, node).ok()?;
        let entry = run.remove(at);
        self.len -= 1;
        self.hash(&entry, u64::wrapping_sub);
        if entry.is_live() {
            self.live -= 1;
            if let Some(zone) = self.zones.get_mut(&entry.record.zone) {
                zone.live -= 1;
                zone.suspect -= usize::from(entry.status == Status::Suspect);
                if zone.live == 0 {
                    self.zones.remove(&entry.record.zone);
                }
            }
        }
        Some(entry)
    }

    fn count(&mut self, entry: &Entry) {
        self.hash(entry, u64::wrapping_add);
        if entry.is_live() {
            self.live += 1;
            if !self.zones.contains_key(&entry.record.zone) {
                self.zones.insert(entry.record.zone.clone(), Zone::default());
            }
            if let Some(zone) = self.zones.get_mut(&entry.record.zone) {
                zone.live += 1;
                zone.suspect += usize::from(entry.status == Status::Suspect);
            }
        }
    }

    fn hash(&mut self, entry: &Entry, add: fn(u64, u64) -> u64) {
        if entry.restored {
            return;
        }
        if let Some(bucket) = self.buckets.get_mut(bucket(&entry.node)) {
            let hash = belief_hash(&entry.record, entry.status, entry.durable);
            *bucket = add(*bucket, hash);
            self.view = add(self.view, hash);
        }
    }

    /// The live members that bear `name`.
    pub(super) fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = NodeId> + 'a {
        let tag = name_tag(name);
        let bears = move |entry: &&Entry| entry.name == tag && entry.is_live() && entry.record.name == name;
        self.iter().filter(bears).map(Entry::node)
    }
}

fn run_of(node: &NodeId) -> usize {
    usize::from(node.0.first().copied().unwrap_or(0))
}

fn place(run: &[Entry], node: &NodeId) -> Result<usize, usize> {
    run.binary_search_by(|entry| entry.node.cmp(node))
}

/// The bucket that `node` is compared in.
pub(super) fn bucket(node: &NodeId) -> usize {
    usize::from(node.0.first().copied().unwrap_or(0)) % BUCKETS
}

/// Suspect counts as alive: a suspicion ends by itself, so missing one is no difference worth a comparison.
pub(super) fn belief_hash(record: &Record, status: Status, durable: bool) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&record.node.0);
    hasher.update(&record.boot.0);
    hasher.update(&record.incarnation.starts.to_le_bytes());
    hasher.update(&record.incarnation.refutations.to_le_bytes());
    let status = match status {
        Status::Alive | Status::Suspect => 0,
        Status::Failed => 1,
        Status::Left => 2,
    };
    hasher.update(&[status, u8::from(durable)]);
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use quickcheck::{Arbitrary, Gen, QuickCheck};

    use super::*;

    impl Arbitrary for Fact {
        fn arbitrary(g: &mut Gen) -> Self {
            let pick = |g: &mut Gen, n: u32| u32::arbitrary(g) % n;
            let status = [Status::Alive, Status::Suspect, Status::Failed, Status::Left][pick(g, 4) as usize];
            Self {
                record: Arc::new(Record {
                    node: NodeId([7; 16]),
                    boot: Boot([u8::try_from(pick(g, 2)).unwrap(); 16]),
                    incarnation: Incarnation { starts: pick(g, 2), refutations: pick(g, 2) },
                    name: ["a", "b"][pick(g, 2) as usize].to_owned(),
                    zone: "z".to_owned(),
                    addresses: Vec::new(),
                    version: String::new(),
                    url: String::new(),
                }),
                status,
                retired: status == Status::Left && bool::arbitrary(g),
            }
        }
    }

    fn join(mut a: Fact, b: &Fact) -> Fact {
        a.merge(b.clone());
        a
    }

    #[test]
    fn merging_is_commutative_associative_and_idempotent() {
        fn holds(a: Fact, b: Fact, c: Fact) -> bool {
            let ab = join(a.clone(), &b);
            ab == join(b.clone(), &a)
                && join(ab.clone(), &c) == join(a.clone(), &join(b.clone(), &c))
                && join(a.clone(), &a) == a
                && join(ab.clone(), &b) == ab
        }
        QuickCheck::new().tests(5_000).quickcheck(holds as fn(Fact, Fact, Fact) -> bool);
    }
}
