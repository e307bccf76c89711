//! The rule by which beliefs merge, and the table of members that it is applied to.

use std::collections::BTreeMap;
use std::time::Duration;

use super::message::{BUCKETS, Standing, Update};
use super::{Member, Record, Status};
use crate::identity::{Boot, Incarnation, NodeId};
use crate::time::Instant;

/// A belief about one member: the element of the lattice that gossip climbs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fact {
    pub(super) record: Record,
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

/// What else this node keeps of a member.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) member: Member,
    pub(super) accuser: Option<NodeId>,
    pub(super) refused: bool,
    /// Known from before a restart and not heard of since: nothing is told of it, and any word of it wins.
    pub(super) restored: bool,
    /// What the restored status was, for the next restart.
    pub(super) restored_from: Status,
    /// The start of which it has told its record itself.
    pub(super) own_word: Option<Boot>,
    /// A statement that was held to be the member's own until it said otherwise.
    pub(super) disowned: Option<(Incarnation, Boot)>,
    pub(super) link: Link,
}

/// How this node and a member reach each other.
#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    /// A stream session is open, since then.
    pub(super) open: Option<Instant>,
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

impl Entry {
    /// Whether the stream has been silent throughout a suspicion, during which every probe goes through it as well. What
    /// waits in it is sent again less and less often, and so may come long after the network is whole.
    pub(super) fn is_stream_stuck(&self, patience: Duration, now: Instant) -> bool {
        let since = self.member.since;
        let before = |at: Option<Instant>| at.is_none_or(|at| at < since);
        self.member.status == Status::Suspect
            && self.link.open.is_some_and(|opened| opened < since)
            && before(self.link.heard)
            && now.since(since) > patience
    }

    pub(super) fn fact(&self) -> Fact {
        Fact { record: self.member.record.clone(), status: self.member.status, retired: !self.member.durable }
    }

    pub(super) fn version(&self) -> (Incarnation, Boot) {
        (self.member.record.incarnation, self.member.record.boot)
    }

    pub(super) fn is_live(&self) -> bool {
        self.member.status <= Status::Suspect
    }

    pub(super) fn is_reachable(&self) -> bool {
        self.link.open.is_some() || self.link.datagrams
    }

    pub(super) fn update(&self, full: bool, now: Instant) -> Update {
        let standing = Standing {
            status: self.member.status,
            retired: !self.member.durable,
            refused: self.refused,
            accuser: self.accuser,
            age_s: if self.is_live() {
                0
            } else {
                u32::try_from(now.since(self.member.since).as_secs()).unwrap_or(u32::MAX)
            },
        };
        render(&self.member.record, standing, full)
    }
}

pub(super) fn render(record: &Record, standing: Standing, full: bool) -> Update {
    if full {
        Update::Full { record: record.clone(), standing }
    } else {
        Update::Brief { node: record.node, boot: record.boot, incarnation: record.incarnation, standing }
    }
}

/// Every other member. Counts and hashes are kept current, so that asking for them costs nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    entries: BTreeMap<NodeId, Entry>,
    buckets: Vec<u64>,
    live: usize,
    zones: BTreeMap<String, usize>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { buckets: vec![0; BUCKETS], ..Self::default() }
    }

    pub(super) fn get(&self, node: &NodeId) -> Option<&Entry> {
        self.entries.get(node)
    }

    /// For what is not counted: the link, and when it was heard.
    pub(super) fn get_mut(&mut self, node: &NodeId) -> Option<&mut Entry> {
        self.entries.get_mut(node)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&NodeId, &Entry)> {
        self.entries.iter()
    }

    /// The first that `wanted` picks after `node`, going round.
    pub(super) fn next_after(&self, node: &NodeId, wanted: impl Fn(&Entry) -> bool) -> Option<NodeId> {
        let after = self.entries.range((std::ops::Bound::Excluded(*node), std::ops::Bound::Unbounded));
        after.chain(self.entries.range(..=*node)).find(|(_, entry)| wanted(entry)).map(|(id, _)| *id)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Members alive or suspect.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Members alive or suspect in `zone`.
    pub(super) fn live_in(&self, zone: &str) -> usize {
        self.zones.get(zone).copied().unwrap_or(0)
    }

    pub(super) fn zones(&self) -> impl Iterator<Item = (&String, &usize)> {
        self.zones.iter()
    }

    pub(super) fn buckets(&self) -> &[u64] {
        &self.buckets
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        let node = entry.member.record.node;
        self.remove(&node);
        self.count(&entry);
        self.entries.insert(node, entry);
    }

    pub(super) fn remove(&mut self, node: &NodeId) -> Option<Entry> {
        let entry = self.entries.remove(node)?;
        self.hash(&entry, u64::wrapping_sub);
        if entry.is_live() {
            self.live -= 1;
            if let Some(count) = self.zones.get_mut(&entry.member.record.zone) {
                *count -= 1;
                if *count == 0 {
                    self.zones.remove(&entry.member.record.zone);
                }
            }
        }
        Some(entry)
    }

    fn count(&mut self, entry: &Entry) {
        self.hash(entry, u64::wrapping_add);
        if entry.is_live() {
            self.live += 1;
            *self.zones.entry(entry.member.record.zone.clone()).or_default() += 1;
        }
    }

    fn hash(&mut self, entry: &Entry, add: fn(u64, u64) -> u64) {
        if entry.restored {
            return;
        }
        if let Some(bucket) = self.buckets.get_mut(bucket(&entry.member.record.node)) {
            *bucket = add(*bucket, belief_hash(&entry.member));
        }
    }
}

/// The bucket that `node` is compared in.
pub(super) fn bucket(node: &NodeId) -> usize {
    usize::from(node.0.first().copied().unwrap_or(0)) % BUCKETS
}

/// Suspect counts as alive: a suspicion ends by itself, so missing one is no difference worth a comparison.
pub(super) fn belief_hash(member: &Member) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&member.record.node.0);
    hasher.update(&member.record.boot.0);
    hasher.update(&member.record.incarnation.starts.to_le_bytes());
    hasher.update(&member.record.incarnation.refutations.to_le_bytes());
    let status = match member.status {
        Status::Alive | Status::Suspect => 0,
        Status::Failed => 1,
        Status::Left => 2,
    };
    hasher.update(&[status, u8::from(member.durable)]);
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
                record: Record {
                    node: NodeId([7; 16]),
                    boot: Boot([u8::try_from(pick(g, 2)).unwrap(); 16]),
                    incarnation: Incarnation { starts: pick(g, 2), refutations: pick(g, 2) },
                    name: ["a", "b"][pick(g, 2) as usize].to_owned(),
                    zone: "z".to_owned(),
                    addresses: Vec::new(),
                    version: String::new(),
                    url: String::new(),
                },
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
