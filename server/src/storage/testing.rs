//! What the tests of several stores share: short writes and reads, and a disk that can fail in all the ways of disks.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use rustix::io::Errno;

use super::{Query, Storage, Table, Write};

/// What a power cut keeps or loses as one.
const BLOCK_BYTES: usize = 4 << 10;

pub(super) fn put(table: Table, key: &str, value: &str) -> Write {
    Write { table, key: Bytes::copy_from_slice(key.as_bytes()), value: Some(Bytes::copy_from_slice(value.as_bytes())) }
}

pub(super) fn remove(table: Table, key: &str) -> Write {
    Write { table, key: Bytes::copy_from_slice(key.as_bytes()), value: None }
}

pub(super) fn read(store: &impl Storage, table: Table, start: &str, end: &str, bytes_max: usize) -> (String, bool) {
    let scan = store
        .scan(&Query {
            table,
            start: Bytes::copy_from_slice(start.as_bytes()),
            end: Bytes::copy_from_slice(end.as_bytes()),
            bytes_max,
        })
        .expect("readable");
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let entries: Vec<_> = scan.entries.iter().map(|(k, v)| format!("{}={}", text(k), text(v))).collect();
    (entries.join(" "), scan.complete)
}

pub(super) fn all(store: &impl Storage, table: Table) -> String {
    read(store, table, "", "", usize::MAX).0
}

/// A disk with a page cache, which can run out of space, fail its syncs and lose power.
#[derive(Debug, Default)]
pub(super) struct Disk {
    cache: InMemoryBackend,
    state: Mutex<DiskState>,
}

#[derive(Debug, Default)]
pub(super) struct DiskState {
    stable: Vec<u8>,
    dirty: Vec<(u64, Vec<u8>)>,
    pub(super) full: bool,
    /// Writes that find no space before others do.
    pub(super) full_for: usize,
    pub(super) syncs_fail: bool,
    /// Syncs that succeed before one fails, and what it was to bring to the disk stays in the page cache only.
    pub(super) sync_fuse: Option<usize>,
    /// A sync panics, as redb does where it cannot make sense of what it reads.
    pub(super) syncs_panic: bool,
    syncs: usize,
    /// Writes and syncs that succeed before the power is cut.
    pub(super) fuse: Option<usize>,
    pub(super) sync_takes: Duration,
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, DiskState> {
        self.state.lock().expect("unpoisoned")
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut DiskState)) {
        change(&mut self.state());
    }

    pub(super) fn is_full(&self) -> bool {
        self.state().full
    }

    pub(super) fn syncs(&self) -> usize {
        self.state().syncs
    }

    /// The disk as a power cut would leave it.
    pub(super) fn after_power_cut(&self) -> Arc<Self> {
        self.after_torn_power_cut(|| false)
    }

    /// The disk as a power cut would leave it that let these of the blocks through that were not synced.
    pub(super) fn after_torn_power_cut(&self, mut survives: impl FnMut() -> bool) -> Arc<Self> {
        let state = self.state();
        let mut stable = state.stable.clone();
        if survives() {
            stable.resize(usize::try_from(self.cache.len().expect("memory")).expect("it fits"), 0);
        }
        for (offset, data) in &state.dirty {
            let offset = usize::try_from(*offset).expect("it fits");
            for (at, block) in data.chunks(BLOCK_BYTES).enumerate() {
                let start = offset + at * BLOCK_BYTES;
                if survives()
                    && let Some(stored) = stable.get_mut(start..start + block.len())
                {
                    stored.copy_from_slice(block);
                }
            }
        }
        drop(state);
        let disk = Self::default();
        disk.cache.set_len(stable.len() as u64).expect("memory");
        disk.cache.write(0, &stable).expect("memory");
        disk.set(|state| state.stable = stable);
        Arc::new(disk)
    }

    /// Flips a bit of what is stored.
    pub(super) fn rot(&self, offset: usize) {
        let mut byte = [0];
        self.cache.read(offset as u64, &mut byte).expect("memory");
        self.cache.write(offset as u64, &[byte[0] ^ 1]).expect("memory");
        self.set(|state| state.stable[offset] ^= 1);
    }

    /// One more write or sync, unless the power is gone.
    fn power(&self) -> io::Result<()> {
        match &mut self.state().fuse {
            Some(0) => Err(Errno::IO.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn no_space(&self) -> io::Result<()> {
        let mut state = self.state();
        let full = state.full || state.full_for > 0;
        state.full_for = state.full_for.saturating_sub(1);
        if full { Err(Errno::NOSPC.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.cache.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.cache.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.power()?;
        self.no_space()?;
        self.cache.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.power()?;
        let takes = self.state().sync_takes;
        let panics = self.state().syncs_panic;
        assert!(!panics, "as the test wants it");
        std::thread::sleep(takes);
        let mut state = self.state();
        state.syncs += 1;
        let dirty = std::mem::take(&mut state.dirty);
        state.stable.resize(usize::try_from(self.cache.len()?).expect("it fits"), 0);
        let blown = state.sync_fuse == Some(0);
        state.sync_fuse = state.sync_fuse.and_then(|left| left.checked_sub(1));
        if state.syncs_fail || blown {
            return Err(Errno::IO.into());
        }
        for (offset, data) in dirty {
            let start = usize::try_from(offset).expect("it fits");
            if let Some(stored) = state.stable.get_mut(start..start + data.len()) {
                stored.copy_from_slice(&data);
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Err(full) = self.no_space() {
            // Space may end in the middle of a write.
            if let Some((first, [_, ..])) = data.split_at_checked(BLOCK_BYTES) {
                self.cache.write(offset, first)?;
                self.set(|state| state.dirty.push((offset, first.to_vec())));
            }
            return Err(full);
        }
        // What was under way when the power went may have reached the disk in part.
        let powered = self.power();
        self.cache.write(offset, data)?;
        self.set(|state| state.dirty.push((offset, data.to_vec())));
        powered
    }
}
