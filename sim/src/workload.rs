//! What clients ask for.
//!
//! Each write carries its number in the value it writes and as the change's time, so that a checker finds it again in any
//! value and in any history.

use std::ops::Range;
use std::time::Duration;

use knot_engine::documents::Edit;
use knot_engine::{EditRequest, EtagMatch, Precondition, Wall};
use serde_json::{Value, json};

use crate::draw::Draw;
use crate::edits::{LARGE, LISTS};
use crate::scenario::{Action, DocumentKind, GROWING, NodeSpec, Operation, Target, ZONE_MARK, zones};

/// The wall-clock time of write number zero, in milliseconds since the Unix epoch.
pub(crate) const WALL_ORIGIN_MS: i64 = 1_800_000_000_000;
/// How long a client waits for peers to hold its write.
pub const REPLICAS_TIMEOUT: Duration = Duration::from_secs(2);
/// Clients start when the servers have had a moment to meet.
pub(crate) const BEGIN_MS: u64 = 800;
/// A load of many documents writes this many.
const BULK_MIN: u64 = 200;
const BULK_MAX: u64 = 500;

/// Of a thousand seeds, those whose clients ask seldom, and how long they wait at the least on average.
const SPARSE_PER_MILLE: u64 = 120;
const SPARSE_US: u64 = 1_500_000;

/// Other requests for one edit of what was read, or a few at once.
const PATCH_ONE_IN: u64 = 24;
/// How long one document of that kind comes up, besides one that always does.
const PATCHED_AGE_US: u64 = 1_500_000;
/// Of a thousand documents that come up so, those that are as large as they may be.
const PATCHED_LARGE_PER_MILLE: u64 = 8;

/// What a clock that is off is off by a multiple of, in milliseconds: as many as a scenario has operations at most, so
/// that a write's number fits below it.
const WALL_STEP_MS: i64 = 1 << 20;

/// The time that names write `id` on a clock that is this far off.
#[must_use]
pub(crate) fn wall(id: u32, offset_s: i64) -> Wall {
    let steps = (offset_s * 1_000).div_euclid(WALL_STEP_MS);
    Wall(WALL_ORIGIN_MS + steps * WALL_STEP_MS + i64::from(id))
}

/// The write that a change's time names, if it is one that a simulator could have asked for.
#[must_use]
pub(crate) fn write_of(wall: Wall) -> Option<u32> {
    u32::try_from(wall.0.checked_sub(WALL_ORIGIN_MS)?.rem_euclid(WALL_STEP_MS)).ok()
}

/// The field that write `id` alone writes.
#[must_use]
pub(crate) fn field(id: u32) -> String {
    format!("w{id}")
}

/// What write `id` adds to a counter.
#[must_use]
pub(crate) fn increment_of(id: u32) -> i64 {
    1 + i64::from(id % 7)
}

/// The edit that `operation` stands for; none for a read.
#[must_use]
pub(crate) fn request(operation: &Operation) -> Option<EditRequest> {
    let own = json!({ field(operation.id): operation.id });
    let nested = json!({ "nest": own });
    let mark = operation.target.zone.as_ref().map(|zone| zone_mark(zone));
    let edit = match operation.action {
        Action::Create => Edit::Put(own),
        Action::CreateNested => Edit::Put(nested),
        Action::Put => Edit::Put(put_value(operation.id, own, mark)),
        Action::Merge => Edit::MergePatch(own),
        Action::Nest => Edit::MergePatch(nested),
        Action::Increment => Edit::Increment { pointer: "/count".to_owned(), by: increment_of(operation.id) },
        Action::Delete => Edit::Delete,
        Action::Patch | Action::Read | Action::Own => return None,
    };
    let mut request = EditRequest::new(operation.target.id(), edit);
    if matches!(operation.action, Action::Create | Action::CreateNested) {
        request.precondition = Precondition { if_match: None, if_none_match: Some(EtagMatch::Any) };
    }
    request.replicas = operation.replicas;
    request.timeout = REPLICAS_TIMEOUT;
    Some(request)
}

fn put_value(id: u32, own: Value, mark: Option<String>) -> Value {
    let mut value = own;
    value["v"] = id.into();
    if let Some(mark) = mark {
        value["mark"] = mark.into();
    }
    value
}

fn zone_mark(zone: &str) -> String {
    format!("{ZONE_MARK}{zone}.")
}

/// How many documents are written at one time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bulk {
    /// Some hundreds at most.
    Small,
    /// In a few seeds as many as this, so that a child of the split holds more than is listed.
    Now(u64),
    /// As many as this, at the beginning.
    First(u64),
}

/// The operations of `seed` in this time, in milliseconds.
#[must_use]
pub(crate) fn generate(
    seed: u64,
    document: DocumentKind,
    nodes: &[NodeSpec],
    time_ms: Range<u64>,
    bulk: Option<Bulk>,
) -> Vec<Operation> {
    let draw = Draw::new(seed, "workload");
    let sparse = Draw::new(seed, "sparse").chance(SPARSE_PER_MILLE);
    let mut generator = Generator { draw, document, nodes, zones: zones(nodes), sparse, operations: Vec::new() };
    let (begin_us, until_us) = (time_ms.start * 1_000, time_ms.end * 1_000);
    let gap_us = generator.steady(begin_us, until_us);
    let loads = generator.draw.chance(250);
    if let Some(bulk) = bulk.filter(|bulk| loads || matches!(bulk, Bulk::First(_))) {
        generator.bulk(begin_us, until_us, bulk);
    }
    if !sparse {
        generator.patches(Draw::new(seed, "patches"), begin_us, until_us, PATCH_ONE_IN * gap_us);
    }
    let mut operations = generator.operations;
    operations.sort_by_key(|operation| operation.at_us);
    operations
}

struct Generator<'a> {
    draw: Draw,
    document: DocumentKind,
    nodes: &'a [NodeSpec],
    zones: Vec<&'a str>,
    /// Whether clients ask so seldom that all falls asleep between two writes: what wakes it is found here.
    sparse: bool,
    operations: Vec<Operation>,
}

impl Generator<'_> {
    /// Clients that ask all the time; says at what intervals, on average.
    fn steady(&mut self, begin_us: u64, until_us: u64) -> u64 {
        let busy_us = *self.draw.pick(&[20_000, 60_000, 150_000]);
        let gap_us = if self.sparse { SPARSE_US } else { busy_us };
        let keys = 2 + self.draw.index(5);
        let mut at_us = begin_us;
        while at_us < until_us {
            let target = self.target(keys, at_us);
            match self.draw.between(0, 10) {
                // Many servers at once: what concurrency breaks is found here.
                0 => self.burst(at_us, &target),
                _ => self.one(at_us, target),
            }
            at_us += self.draw.between(1_000, 2 * gap_us);
        }
        gap_us
    }

    fn one(&mut self, at_us: u64, target: Target) {
        let node = self.server_of(&target);
        let action = self.action(&target);
        self.push(at_us, node, target, action);
    }

    fn burst(&mut self, at_us: u64, target: &Target) {
        for _ in 0..self.draw.between(2, 5) {
            let node = self.server_of(target);
            let action = self.action(target);
            let at_us = at_us + self.draw.between(0, 3_000);
            self.push(at_us, node, target.clone(), action);
        }
    }

    /// Many documents through one server.
    fn bulk(&mut self, begin_us: u64, until_us: u64, bulk: Bulk) {
        let drawn = self.draw.index(self.nodes.len());
        let at_us = self.draw.between(begin_us, until_us.max(begin_us + 1));
        let few = self.draw.between(BULK_MIN, BULK_MAX);
        let (node, mut at_us, count, gap_us) = match bulk {
            Bulk::First(many) => (0, begin_us, many, 400),
            Bulk::Now(many) if self.draw.chance(60) => (drawn, at_us, many, 400),
            Bulk::Now(_) | Bulk::Small => (drawn, at_us, few, 2_000),
        };
        for index in 0..count {
            let target = Target { zone: None, collection: "bulk".to_owned(), key: format!("b{index}") };
            self.push(at_us, node, target, Action::Put);
            at_us += self.draw.between(10, gap_us);
        }
    }

    /// Clients that edit what they read, mostly two at once: what becomes of two edits together is known.
    fn patches(&mut self, mut draw: Draw, begin_us: u64, until_us: u64, every_us: u64) {
        std::mem::swap(&mut self.draw, &mut draw);
        let mut at_us = begin_us + self.draw.between(0, every_us);
        while at_us < until_us {
            let target = self.patched(at_us);
            let count = *self.draw.pick(&[1, 1, 1, 2, 2, 3]);
            for _ in 0..count {
                let node = self.server_of(&target);
                let at_us = at_us + self.draw.between(0, 3_000);
                self.push(at_us, node, target.clone(), Action::Patch);
            }
            at_us += self.draw.between(1_000, 2 * every_us);
        }
        std::mem::swap(&mut self.draw, &mut draw);
    }

    /// One of few documents, so that edits meet, or one that is new.
    fn patched(&mut self, at_us: u64) -> Target {
        let zone = self.draw.chance(250).then(|| *self.draw.pick(&self.zones));
        let age = at_us / PATCHED_AGE_US;
        let key = match self.draw.between(0, 1_000) {
            0..PATCHED_LARGE_PER_MILLE => format!("{LARGE}{age}"),
            PATCHED_LARGE_PER_MILLE..500 => format!("l{age}"),
            _ => "l".to_owned(),
        };
        let collection = zone.map_or_else(|| LISTS.to_owned(), |zone| format!("{}{LISTS}", zone_mark(zone)));
        Target { zone: zone.map(str::to_owned), collection, key }
    }

    fn push(&mut self, at_us: u64, node: usize, target: Target, action: Action) {
        let id = u32::try_from(self.operations.len()).unwrap_or(u32::MAX);
        let waits = action != Action::Read && self.draw.chance(150);
        let replicas = if waits { 1 + self.draw.index(2) } else { 0 };
        self.operations.push(Operation { id, at_us, node, target, action, replicas });
    }

    fn target(&mut self, keys: usize, at_us: u64) -> Target {
        let zone = self.draw.chance(350).then(|| *self.draw.pick(&self.zones));
        let kind = if self.draw.chance(500) { GROWING } else { "users" };
        // Keys come up anew, so that documents are created all along.
        let age = at_us / 4_000_000;
        let key = if self.draw.chance(400) {
            format!("k{age}-{}", self.draw.index(keys))
        } else {
            format!("k{}", self.draw.index(keys))
        };
        Target {
            zone: zone.map(str::to_owned),
            collection: match zone {
                Some(zone) => format!("{}{kind}", zone_mark(zone)),
                None => kind.to_owned(),
            },
            key,
        }
    }

    /// Mostly a server that holds the document; now and then one that must refuse.
    fn server_of(&mut self, target: &Target) -> usize {
        let holders: Vec<usize> =
            (0..self.nodes.len()).filter(|&index| target.is_held_in(&self.nodes[index].zone)).collect();
        if holders.is_empty() || self.draw.chance(20) {
            self.draw.index(self.nodes.len())
        } else {
            *self.draw.pick(&holders)
        }
    }

    fn action(&mut self, target: &Target) -> Action {
        let drawn = self.draw.between(0, 100);
        if target.only_grows() {
            return self.growing_action(drawn);
        }
        match drawn {
            0..30 => Action::Put,
            30..50 => Action::Merge,
            50..60 => Action::Create,
            60..88 => Action::Delete,
            _ => Action::Read,
        }
    }

    /// Only Automerge merges below the top level; the model's last writer takes a member whole.
    fn growing_action(&self, drawn: u64) -> Action {
        let merges_deeply = self.document == DocumentKind::Automerge;
        match drawn {
            0..35 if merges_deeply => Action::CreateNested,
            0..35 => Action::Create,
            35..75 if merges_deeply => Action::Nest,
            35..75 => Action::Merge,
            75..90 => Action::Increment,
            _ => Action::Read,
        }
    }
}
