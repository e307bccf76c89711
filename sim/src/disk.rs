//! A disk that forgets what was not synced.
//!
//! Two images: what is durable, and on top of it what a start would read but a power cut would take (`tail`). Batches
//! that wait are committed together, each whole or not at all, in order.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use knot_engine::{BatchId, LoadId, Query, StorageEvent, Table, Write};

use crate::draw::Draw;
use crate::scenario::DiskSpec;

/// A batch as the engine asked for it.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) id: BatchId,
    pub(crate) epoch: u32,
    pub(crate) rewrite_tail: bool,
    pub(crate) writes: Vec<Write>,
}

/// What became of a commit.
#[derive(Debug)]
pub(crate) struct Commit {
    /// For the engine, in order.
    pub(crate) events: Vec<StorageEvent>,
    /// Batches that are durable now.
    pub(crate) durable: Vec<Batch>,
    /// Batches that will never be.
    pub(crate) refused: Vec<Batch>,
    /// Whether the commit also made the tail durable.
    pub(crate) tail_written: bool,
}

/// Where a stored change says why it is in quarantine, 0 when it is not, and what it says where it does not apply. The
/// change itself is behind that.
const REASON: usize = 1;
const DOES_NOT_APPLY: u8 = 7;

/// A key, with its table.
pub(crate) type Key = (Table, Bytes);
/// All that a disk holds.
pub(crate) type Image = BTreeMap<Key, Bytes>;

/// What is on a disk, and may be moved to another.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    durable: Image,
    tail: BTreeMap<Key, Option<Bytes>>,
    backup: Option<Image>,
}

/// One server's disk.
#[derive(Debug)]
pub(crate) struct Disk {
    spec: DiskSpec,
    draw: Draw,
    durable: Image,
    tail: BTreeMap<Key, Option<Bytes>>,
    waiting: VecDeque<Batch>,
    in_flight: Vec<Batch>,
    refused_epoch: Option<u32>,
    backup: Option<Image>,
    /// How long commits take at least, while it is slow.
    pub(crate) slow: Option<Duration>,
    /// While there is no room.
    pub(crate) full: bool,
    /// While reads fail.
    pub(crate) reads_fail: bool,
    /// Whether the next sync fails.
    pub(crate) fails_next: bool,
    /// Whether one has failed under this process: then nothing is written any more.
    failed: bool,
}

impl Disk {
    pub(crate) fn new(spec: DiskSpec, draw: Draw) -> Self {
        Self {
            spec,
            draw,
            durable: Image::new(),
            tail: BTreeMap::new(),
            waiting: VecDeque::new(),
            in_flight: Vec::new(),
            refused_epoch: None,
            backup: None,
            slow: None,
            full: false,
            reads_fail: false,
            fails_next: false,
            failed: false,
        }
    }

    /// Takes a batch in; returns how long the commit takes that this starts, if the disk was idle.
    pub(crate) fn persist(&mut self, batch: Batch) -> Option<Duration> {
        self.waiting.push_back(batch);
        self.begin_commit()
    }

    fn begin_commit(&mut self) -> Option<Duration> {
        if self.waiting.is_empty() || !self.in_flight.is_empty() {
            return None;
        }
        self.in_flight = self.waiting.drain(..).collect();
        Some(self.latency())
    }

    /// How long one commit or read takes.
    fn latency(&mut self) -> Duration {
        let DiskSpec { commit_min_us, commit_max_us } = self.spec;
        let drawn = Duration::from_micros(self.draw.between(commit_min_us, commit_max_us + 1));
        self.slow.map_or(drawn, |slow| drawn + slow)
    }

    /// Ends the commit under way; also returns how long the next one takes, if batches wait.
    pub(crate) fn finish_commit(&mut self) -> (Commit, Option<Duration>) {
        let mut commit = Commit { events: Vec::new(), durable: Vec::new(), refused: Vec::new(), tail_written: false };
        let fails = std::mem::take(&mut self.fails_next);
        for batch in std::mem::take(&mut self.in_flight) {
            if self.failed {
                commit.events.push(StorageEvent::Failed(batch.id));
            } else if self.refuses(batch.epoch) {
                commit.events.push(StorageEvent::Full(batch.id));
                commit.refused.push(batch);
            } else if fails {
                commit.events.push(StorageEvent::Failed(batch.id));
                self.keep_in_tail(batch);
            } else {
                commit.tail_written |= batch.rewrite_tail;
                self.make_durable(&batch);
                commit.events.push(StorageEvent::Persisted(batch.id));
                commit.durable.push(batch);
            }
        }
        self.failed |= fails;
        let next = self.begin_commit();
        (commit, next)
    }

    fn refuses(&mut self, epoch: u32) -> bool {
        if self.full {
            self.refused_epoch = self.refused_epoch.max(Some(epoch));
        }
        self.refused_epoch.is_some_and(|refused| epoch <= refused)
    }

    fn make_durable(&mut self, batch: &Batch) {
        if batch.rewrite_tail {
            for (key, value) in std::mem::take(&mut self.tail) {
                set(&mut self.durable, key, value);
            }
        }
        for write in &batch.writes {
            let key = (write.table, write.key.clone());
            self.tail.remove(&key);
            set(&mut self.durable, key, write.value.clone());
        }
    }

    fn keep_in_tail(&mut self, batch: Batch) {
        for write in batch.writes {
            self.tail.insert((write.table, write.key), write.value);
        }
    }

    /// The process dies. Of the commit under way a prefix of whole batches may have reached the disk's cache; of what
    /// waited, nothing. A power cut takes the cache as well, or leaves it synced by chance.
    pub(crate) fn crash(&mut self, power: bool) {
        self.waiting.clear();
        let mut in_flight = std::mem::take(&mut self.in_flight);
        if std::mem::take(&mut self.failed) {
            in_flight.clear();
        }
        let kept = self.draw.index(in_flight.len() + 1);
        let synced = self.draw.chance(500);
        if power {
            self.tail.clear();
        }
        for batch in in_flight.into_iter().take(kept) {
            if self.refuses(batch.epoch) {
                continue;
            }
            if synced {
                self.make_durable(&batch);
            } else if !power {
                self.keep_in_tail(batch);
            }
        }
        self.refused_epoch = None;
    }

    /// Copies what is durable, for [`Disk::restore`].
    pub(crate) fn back_up(&mut self) {
        self.backup = Some(self.durable.clone());
    }

    /// Notes of changes that `is_refused` says, of those that count, that they do not apply; returns of how many.
    pub(crate) fn refuse(&mut self, mut is_refused: impl FnMut(&Bytes) -> bool) -> usize {
        let tail = &self.tail;
        let changes = self.durable.iter_mut().filter(|(key, _)| key.0 == Table::Changes && !tail.contains_key(key));
        let mut refused = 0;
        for (_, stored) in changes {
            if stored.get(REASON) == Some(&0) && is_refused(&stored.slice(REASON + 1..)) {
                let mut bytes = stored.to_vec();
                bytes[REASON] = DOES_NOT_APPLY;
                *stored = bytes.into();
                refused += 1;
            }
        }
        refused
    }

    /// Nothing more goes wrong with it.
    pub(crate) fn mend(&mut self) {
        (self.slow, self.full, self.reads_fail, self.fails_next) = (None, false, false, false);
    }

    /// Another disk is in its place, with nothing on it.
    pub(crate) fn lose(&mut self) {
        self.durable.clear();
        self.tail.clear();
    }

    /// Puts the copy in the disk's place; false when there is none.
    pub(crate) fn restore(&mut self) -> bool {
        let Some(backup) = self.backup.take() else {
            return false;
        };
        self.durable = backup;
        self.tail.clear();
        true
    }

    /// A copy of what a start would read.
    pub(crate) fn copy(&self) -> Folder {
        Folder { durable: self.visible(), ..Folder::default() }
    }

    /// Puts a folder on the disk, and takes out what was there. The disk is as slow, full or faulty as before.
    pub(crate) fn exchange(&mut self, folder: Folder) -> Folder {
        let Folder { durable, tail, backup } = folder;
        Folder {
            durable: std::mem::replace(&mut self.durable, durable),
            tail: std::mem::replace(&mut self.tail, tail),
            backup: std::mem::replace(&mut self.backup, backup),
        }
    }

    /// Whether all that was asked for is done.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty() && self.tail.is_empty()
    }

    /// What is durable.
    pub(crate) fn durable(&self) -> &Image {
        &self.durable
    }

    /// What a start reads.
    pub(crate) fn visible(&self) -> Image {
        let mut image = self.durable.clone();
        for (key, value) in &self.tail {
            set(&mut image, key.clone(), value.clone());
        }
        image
    }

    /// How long a read takes.
    pub(crate) fn read_latency(&mut self) -> Duration {
        self.latency()
    }

    /// Reads a range of what has been committed.
    pub(crate) fn load(&self, load: LoadId, query: &Query) -> StorageEvent {
        if self.reads_fail {
            return StorageEvent::LoadFailed(load);
        }
        let start = (query.table, query.start.clone());
        let within = |key: &Key| key.0 == query.table && (query.end.is_empty() || key.1 < query.end);
        let mut bytes = 0;
        let mut complete = true;
        let mut entries = Vec::new();
        let mut durable = self.durable.range(start.clone()..).peekable();
        let mut tail = self.tail.range(start..).peekable();
        loop {
            let next_durable = durable.peek().map(|(key, _)| *key);
            let next_tail = tail.peek().map(|(key, _)| *key);
            let (key, value) = match (next_durable, next_tail) {
                (None, None) => break,
                (Some(key), other) if other.is_none_or(|other| key < other) => {
                    let value = durable.next().map(|(_, value)| value.clone());
                    (key, value)
                }
                (under, Some(key)) => {
                    if under == Some(key) {
                        durable.next();
                    }
                    (key, tail.next().and_then(|(_, value)| value.clone()))
                }
                (Some(_), None) => break,
            };
            if !within(key) {
                break;
            }
            let Some(value) = value else { continue };
            if bytes >= query.bytes_max {
                complete = false;
                break;
            }
            bytes += key.1.len() + value.len();
            entries.push((key.1.clone(), value));
        }
        StorageEvent::Loaded { load, entries, complete }
    }
}

fn set(image: &mut Image, key: Key, value: Option<Bytes>) {
    match value {
        Some(value) => image.insert(key, value),
        None => image.remove(&key),
    };
}
