//! One file: what is durable, what reads show, and what lies between.

use crate::draw::Draw;

/// What a power cut keeps or loses as one, in bytes: a page of the cache.
pub(super) const BLOCK_BYTES: usize = 4 << 10;

/// What may be lost.
#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

/// A file that survives its server's processes.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    /// What a power cut leaves for sure.
    durable: Vec<u8>,
    /// What a read shows.
    cache: Vec<u8>,
    /// What was done since the last sync, in order.
    pending: Vec<Change>,
}

impl Image {
    pub(super) fn len(&self) -> usize {
        self.cache.len()
    }

    pub(super) fn read(&self, offset: usize, len: usize) -> Option<&[u8]> {
        self.cache.get(offset..offset.checked_add(len)?)
    }

    pub(super) fn set_len(&mut self, len: usize) {
        if len != self.cache.len() {
            self.cache.resize(len, 0);
            self.pending.push(Change::SetLen(len));
        }
    }

    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        if self.cache.len() < end {
            self.set_len(end);
        }
        if self.changes_nothing(offset, data) {
            return;
        }
        self.cache[offset..end].copy_from_slice(data);
        self.pending.push(Change::Write(offset, data.to_vec()));
    }

    /// Whether a write can be forgotten whatever comes: files are made of megabytes of zeros.
    fn changes_nothing(&self, offset: usize, data: &[u8]) -> bool {
        let is_there = |image: &[u8]| {
            let (there, beyond) = data.split_at(image.len().saturating_sub(offset).min(data.len()));
            image.get(offset..offset + there.len()).unwrap_or_default() == there && beyond.iter().all(|byte| *byte == 0)
        };
        let is_write = |change: &Change| matches!(change, Change::Write(..));
        !self.pending.iter().any(is_write) && is_there(&self.cache) && is_there(&self.durable)
    }

    /// Writes `data` to another block than was asked for; the cache shows it where it was to be.
    pub(super) fn write_elsewhere(&mut self, offset: usize, data: &[u8], draw: &mut Draw) {
        let end = offset + data.len();
        if self.cache.len() < end {
            self.set_len(end);
        }
        self.cache[offset..end].copy_from_slice(data);
        let blocks = (self.cache.len() - data.len()) / BLOCK_BYTES + 1;
        self.pending.push(Change::Write(draw.index(blocks) * BLOCK_BYTES, data.to_vec()));
    }

    pub(super) fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            self.settle(change);
        }
    }

    fn settle(&mut self, change: Change) {
        match change {
            Change::SetLen(len) => self.durable.resize(len, 0),
            Change::Write(offset, data) => {
                let end = (offset + data.len()).min(self.durable.len());
                if offset < end {
                    self.durable[offset..end].copy_from_slice(&data[..end - offset]);
                }
            }
        }
    }

    /// What a failed sync leaves: all in the cache, and none of it on its way.
    pub(super) fn forget_pending(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            // Its length is a file system's business, which keeps it in a journal of its own.
            if matches!(change, Change::SetLen(_)) {
                self.settle(change);
            }
        }
    }

    /// What is left after a power cut: of what was not synced, any part, in any order. Only lengths come in theirs, and
    /// what one cuts off is not written after it.
    pub(super) fn cut(&mut self, draw: &mut Draw) {
        let pending = std::mem::take(&mut self.pending);
        let lengths = pending.iter().filter(|change| matches!(change, Change::SetLen(_))).count();
        let mut kept = draw.index(lengths + 1);
        let mut writes: Vec<(usize, Vec<u8>)> = Vec::new();
        for change in pending {
            match change {
                Change::Write(offset, data) => writes.push((offset, data)),
                Change::SetLen(len) if kept > 0 => {
                    kept -= 1;
                    writes.retain_mut(|(offset, data)| {
                        data.truncate(len.saturating_sub(*offset));
                        !data.is_empty()
                    });
                    self.settle(Change::SetLen(len));
                }
                Change::SetLen(_) => {}
            }
        }
        draw.shuffle(&mut writes);
        for (offset, data) in writes {
            for (at, block) in data.chunks(BLOCK_BYTES).enumerate() {
                if draw.chance(500) {
                    self.settle(Change::Write(offset + at * BLOCK_BYTES, block.to_vec()));
                }
            }
        }
        self.forget();
    }

    /// Nothing is left but what is durable.
    pub(super) fn forget(&mut self) {
        self.pending.clear();
        self.cache.clone_from(&self.durable);
    }

    pub(super) fn has_content(&self) -> bool {
        self.durable.iter().any(|byte| *byte != 0)
    }

    /// Flips a bit of a block that holds something.
    pub(super) fn rot(&mut self, draw: &mut Draw) {
        let blocks = self.durable.chunks(BLOCK_BYTES).enumerate();
        let used: Vec<usize> =
            blocks.filter(|(_, block)| block.iter().any(|byte| *byte != 0)).map(|(at, _)| at).collect();
        let at = *draw.pick(&used) * BLOCK_BYTES;
        let len = BLOCK_BYTES.min(self.durable.len() - at);
        self.durable[at + draw.index(len)] ^= 1 << draw.index(8);
        self.forget();
    }
}
