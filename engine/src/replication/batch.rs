//! What waits for storage, and what follows once it is durable.

use std::collections::VecDeque;

use bytes::Bytes;

use super::open::Origin;
use super::records::{DocKey, DocumentRecord};
use super::replica::{DurableEdit, Ticket};
use crate::api::{BatchId, DocumentView, ReadError, ReadId, Reviewed};
use crate::sometimes;
use crate::storage::Write;

/// What to do when a batch is durable, or was refused.
#[derive(Debug)]
pub(crate) enum Done {
    /// The node's own record.
    Node,
    /// A document's new state; `authored` is the change if it was made here.
    Update { key: DocKey, record: Box<DocumentRecord>, authored: Option<Bytes>, origin: Origin },
    /// An edit's answer.
    Edit(DurableEdit),
    /// A read of state that this batch makes durable.
    Read { id: ReadId, key: DocKey, conflicts: bool, answer: Box<Result<DocumentView, ReadError>> },
    /// What became of changes that were looked at again.
    Review { id: ReadId, answer: Vec<Reviewed> },
    /// A peer's changes are in this batch, or in one before.
    Ticket(Ticket),
}

#[derive(Debug)]
struct Batch {
    id: BatchId,
    bytes: usize,
    done: Vec<Done>,
}

/// Batches that storage may have at once; what comes meanwhile is gathered into the next.
const UNDER_WAY_MAX: usize = 64;

/// Writes gathered since the last flush, and the batches under way, oldest first.
#[derive(Debug)]
pub(crate) struct Batches {
    next: u64,
    epoch: u32,
    writes: Vec<Write>,
    bytes: usize,
    done: Vec<Done>,
    under_way: VecDeque<Batch>,
    under_way_bytes: usize,
}

/// A batch to hand to storage.
#[derive(Debug)]
pub(crate) struct Flush {
    pub(crate) batch: BatchId,
    pub(crate) epoch: u32,
    pub(crate) writes: Vec<Write>,
}

impl Batches {
    pub(crate) fn new() -> Self {
        Self {
            next: 1,
            epoch: 0,
            writes: Vec::new(),
            bytes: 0,
            done: Vec::new(),
            under_way: VecDeque::new(),
            under_way_bytes: 0,
        }
    }

    /// Adds a write to the batch being gathered and returns that batch's number.
    pub(crate) fn write(&mut self, write: Write) -> BatchId {
        self.bytes += write.key.len() + write.value.as_ref().map_or(0, Bytes::len);
        self.writes.push(write);
        BatchId(self.next)
    }

    pub(crate) fn then(&mut self, done: Done) {
        self.done.push(done);
    }

    /// Whether a batch is neither durable nor refused yet.
    pub(crate) fn is_pending(&self, batch: BatchId) -> bool {
        batch.0 >= self.under_way.front().map_or(self.next, |oldest| oldest.id.0)
    }

    /// Runs `done` when `batch`, which is pending, is durable.
    pub(crate) fn after(&mut self, batch: BatchId, done: Done) {
        match self.under_way.iter_mut().find(|known| known.id == batch) {
            Some(known) => {
                sometimes!("joined a batch under way");
                known.done.push(done);
            }
            None => self.done.push(done),
        }
    }

    pub(crate) fn bytes_waiting(&self) -> usize {
        self.bytes + self.under_way_bytes
    }

    /// Closes the batch being gathered; none when it is empty.
    pub(crate) fn flush(&mut self) -> Option<Flush> {
        sometimes!("batches waiting", self.under_way.len() >= 3);
        if self.writes.is_empty() || self.under_way.len() >= UNDER_WAY_MAX {
            return None;
        }
        let batch = BatchId(self.next);
        self.next += 1;
        let bytes = std::mem::take(&mut self.bytes);
        self.under_way_bytes += bytes;
        self.under_way.push_back(Batch { id: batch, bytes, done: std::mem::take(&mut self.done) });
        Some(Flush { batch, epoch: self.epoch, writes: std::mem::take(&mut self.writes) })
    }

    /// What follows from `batch`, and all before it, being durable.
    pub(crate) fn persisted(&mut self, batch: BatchId) -> Vec<Done> {
        let mut done = Vec::new();
        while self.under_way.front().is_some_and(|oldest| oldest.id <= batch) {
            if let Some(oldest) = self.under_way.pop_front() {
                self.under_way_bytes -= oldest.bytes;
                done.extend(oldest.done);
            }
        }
        done
    }

    /// What was to follow from everything that waits; none of it was written. A new epoch begins.
    pub(crate) fn refused(&mut self) -> Vec<Done> {
        self.epoch += 1;
        self.writes.clear();
        self.bytes = 0;
        self.under_way_bytes = 0;
        let mut done: Vec<Done> = self.under_way.drain(..).flat_map(|batch| batch.done).collect();
        done.append(&mut self.done);
        // Numbers go on, so that a late word about a refused batch is not taken for a new one.
        self.next += 1;
        done
    }
}
