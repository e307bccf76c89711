//! What each disk holds, by change: a tap on all batches, independent of the engine's own index.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use knot_engine::documents::{ChangeHeader, ChangeKind};
use knot_engine::{ChangeHash, NodeId, Table, Write};

use crate::disk::{Batch, Image};
use crate::workload;

/// Numbers the distinct changes of a run in the order in which they first reached a disk.
pub(crate) type ChangeNo = u32;

/// What a checker wants to know of a change.
#[derive(Debug)]
pub(crate) struct ChangeInfo {
    pub(crate) hash: ChangeHash,
    pub(crate) deps: Vec<ChangeHash>,
    pub(crate) author: Option<NodeId>,
    pub(crate) actor: Bytes,
    pub(crate) seq: u64,
    /// The write that its time names.
    pub(crate) write: Option<u32>,
    /// Whether a hostile member made it, and not an engine.
    pub(crate) is_forged: bool,
    pub(crate) is_delete: bool,
    pub(crate) bytes: Bytes,
}

/// Which changes one server has.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Given to the disk, or read from it at the last start.
    pub(crate) asked: BTreeSet<ChangeNo>,
    /// Durable now.
    pub(crate) durable: BTreeSet<ChangeNo>,
    /// Durable at some time, even if the disk was set back since.
    pub(crate) ever_durable: BTreeSet<ChangeNo>,
    /// Given to the disk and not durable yet.
    pub(crate) in_flight: BTreeSet<ChangeNo>,
}

/// Reads a change's header, as the replicated document type does.
pub(crate) type ReadHeader = fn(&Bytes) -> Option<ChangeHeader>;

/// All changes of a run, and who has which.
#[derive(Debug)]
pub(crate) struct Tap {
    read: ReadHeader,
    by_bytes: BTreeMap<Bytes, ChangeNo>,
    by_hash: BTreeMap<ChangeHash, ChangeNo>,
    by_write: BTreeMap<u32, ChangeNo>,
    changes: Vec<ChangeInfo>,
    forged: BTreeSet<ChangeHash>,
    pub(crate) nodes: Vec<Held>,
}

impl Tap {
    pub(crate) fn new(read: ReadHeader, nodes: usize) -> Self {
        Self {
            read,
            by_bytes: BTreeMap::new(),
            by_hash: BTreeMap::new(),
            by_write: BTreeMap::new(),
            changes: Vec::new(),
            forged: BTreeSet::new(),
            nodes: (0..nodes).map(|_| Held::default()).collect(),
        }
    }

    pub(crate) fn change(&self, number: ChangeNo) -> &ChangeInfo {
        &self.changes[number as usize]
    }

    pub(crate) fn number_of_bytes(&self, bytes: &[u8]) -> Option<ChangeNo> {
        self.by_bytes.get(bytes).copied()
    }

    pub(crate) fn number_of(&self, hash: &ChangeHash) -> Option<ChangeNo> {
        self.by_hash.get(hash).copied()
    }

    /// The change that a write made; the first, should it have made several.
    pub(crate) fn number_of_write(&self, id: u32) -> Option<ChangeNo> {
        self.by_write.get(&id).copied()
    }

    /// All changes so far.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (ChangeNo, &ChangeInfo)> {
        (0..).zip(&self.changes)
    }

    /// A hostile member has made these changes.
    pub(crate) fn on_forged(&mut self, hashes: impl IntoIterator<Item = ChangeHash>) {
        self.forged.extend(hashes);
    }

    pub(crate) fn is_forged(&self, hash: &ChangeHash) -> bool {
        self.forged.contains(hash)
    }

    /// Reads a change's header, as engines do.
    pub(crate) fn header(&self, bytes: &Bytes) -> Option<ChangeHeader> {
        (self.read)(bytes)
    }

    /// The changes of a batch, numbered.
    pub(crate) fn read(&mut self, writes: &[Write]) -> Vec<ChangeNo> {
        let entries = writes.iter().filter(|write| write.table == Table::Changes);
        entries.filter_map(|write| self.number(write.value.as_ref()?)).collect()
    }

    fn number(&mut self, stored: &Bytes) -> Option<ChangeNo> {
        let bytes = change_in(stored);
        if let Some(&number) = self.by_bytes.get(&bytes) {
            return Some(number);
        }
        let header = (self.read)(&bytes)?;
        let number = ChangeNo::try_from(self.changes.len()).ok()?;
        self.by_bytes.insert(bytes.clone(), number);
        self.by_hash.insert(header.hash, number);
        let is_forged = self.forged.contains(&header.hash);
        let write = workload::write_of(header.wall).filter(|_| !is_forged);
        if let Some(write) = write {
            self.by_write.entry(write).or_insert(number);
        }
        self.changes.push(ChangeInfo {
            hash: header.hash,
            deps: header.deps,
            author: header.actor.node(),
            actor: header.actor.0,
            seq: header.seq,
            write,
            is_forged,
            is_delete: header.kind == ChangeKind::Delete,
            bytes,
        });
        Some(number)
    }

    /// A batch went to the disk.
    pub(crate) fn on_persist(&mut self, node: usize, changes: &[ChangeNo]) {
        let held = &mut self.nodes[node];
        held.asked.extend(changes);
        // What is written again, since something else is noted with it, has long been there.
        held.in_flight.extend(changes.iter().filter(|number| !held.durable.contains(number)));
    }

    /// Batches are durable. Returns their changes.
    pub(crate) fn on_durable(&mut self, node: usize, batches: &[Batch]) -> Vec<ChangeNo> {
        let changes: Vec<ChangeNo> = batches.iter().flat_map(|batch| self.read(&batch.writes)).collect();
        let held = &mut self.nodes[node];
        for number in &changes {
            held.in_flight.remove(number);
            held.durable.insert(*number);
            held.ever_durable.insert(*number);
        }
        changes
    }

    /// Batches were refused.
    pub(crate) fn on_refused(&mut self, node: usize, batches: &[Batch]) {
        for batch in batches {
            for number in self.read(&batch.writes) {
                let held = &mut self.nodes[node];
                held.in_flight.remove(&number);
                if !held.durable.contains(&number) {
                    held.asked.remove(&number);
                }
            }
        }
    }

    /// A process starts: takes stock of its disk.
    pub(crate) fn on_disk_read(&mut self, node: usize, visible: &Image, durable: &Image) {
        let asked = self.numbers_in(visible);
        let durable = self.numbers_in(durable);
        let held = &mut self.nodes[node];
        held.in_flight = asked.difference(&durable).copied().collect();
        held.ever_durable.extend(&durable);
        held.asked = asked;
        held.durable = durable;
    }

    /// What only a power cut would have taken is durable now. Returns it.
    pub(crate) fn on_tail_written(&mut self, node: usize, durable: &Image) -> Vec<ChangeNo> {
        let durable = self.numbers_in(durable);
        let held = &mut self.nodes[node];
        held.in_flight.retain(|number| !durable.contains(number));
        held.ever_durable.extend(&durable);
        let tail = durable.difference(&held.durable).copied().collect();
        held.durable = durable;
        tail
    }

    fn numbers_in(&mut self, image: &Image) -> BTreeSet<ChangeNo> {
        let entries = image.iter().filter(|((table, _), _)| *table == Table::Changes);
        entries.filter_map(|(_, value)| self.number(value)).collect()
    }
}

/// Bytes before the change in an entry of the log: its layout and whether it is in quarantine.
const ENTRY_HEADER_BYTES: usize = 2;

/// The change within an entry of the log.
fn change_in(stored: &Bytes) -> Bytes {
    stored.slice(ENTRY_HEADER_BYTES.min(stored.len())..)
}
