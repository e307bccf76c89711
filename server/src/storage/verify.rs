//! Whether a data file holds what was written to it.
//!
//! After an unclean stop redb reads the whole file and holds it against its checksums; after a clean one it trusts the
//! file, and would serve what a disk has damaged meanwhile. Its check mends what it can, from an older state and without
//! what was acknowledged since, so it is let loose on a [`Scratch`] only.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{Builder, StorageBackend};

use super::StorageError;
use super::backend::{Fault, Watched};
use super::redb::{CACHE_BYTES, plain, senseless};

const BLOCK_BYTES: usize = 4 << 10;

/// Reads the whole file of a store that was closed, and changes nothing in it.
///
/// # Errors
/// When it is damaged, or cannot be read.
pub(super) fn verify(backend: &Watched) -> Result<(), StorageError> {
    let end = backend.len().map_err(StorageError::Failed)?;
    if end == 0 {
        return Ok(());
    }
    let scratch =
        Scratch { backend: backend.clone(), changed: Mutex::new(Changed { end, kept: end, blocks: BTreeMap::new() }) };
    let holds = catch_unwind(AssertUnwindSafe(|| {
        let mut database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(scratch)?;
        Ok::<_, redb::Error>(database.check_integrity()?)
    }));
    match holds {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(StorageError::Corrupt("its checksums do not hold".to_owned())),
        Ok(Err(error)) => Err(match backend.take_fault() {
            Some(Fault::Failed(error)) => StorageError::Failed(error),
            Some(Fault::Full) | None => plain(error),
        }),
        Err(_) => Err(senseless()),
    }
}

/// A file whose changes are kept in memory.
#[derive(Debug)]
struct Scratch {
    backend: Watched,
    changed: Mutex<Changed>,
}

#[derive(Debug)]
struct Changed {
    end: u64,
    /// How much of the file itself still counts: what was once cut off is gone.
    kept: u64,
    blocks: BTreeMap<u64, Box<[u8; BLOCK_BYTES]>>,
}

impl Scratch {
    fn changed(&self) -> MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block as the file has it, of which so much counts, with zeros beyond.
    fn block(&self, number: u64, kept: u64) -> io::Result<Box<[u8; BLOCK_BYTES]>> {
        let mut block = Box::new([0; BLOCK_BYTES]);
        let begin = number * BLOCK_BYTES as u64;
        let there = usize::try_from(kept.saturating_sub(begin)).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
        self.backend.read(begin, block.get_mut(..there).unwrap_or_default())?;
        Ok(block)
    }
}

/// The blocks that `len` bytes at `offset` touch: of each its number, where in it they begin, and how many there are.
fn pieces(mut offset: u64, mut len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    std::iter::from_fn(move || {
        let (number, at) = (offset / BLOCK_BYTES as u64, usize::try_from(offset % BLOCK_BYTES as u64).unwrap_or(0));
        let piece = len.min(BLOCK_BYTES - at);
        (offset, len) = (offset + piece as u64, len - piece);
        (piece > 0).then_some((number, at, piece))
    })
}

impl StorageBackend for Scratch {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changed().end)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changed = self.changed();
        if offset + out.len() as u64 > changed.end {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let len = out.len();
        let touched = offset / BLOCK_BYTES as u64..=(offset + len as u64) / BLOCK_BYTES as u64;
        if changed.blocks.range(touched).next().is_none() && offset + len as u64 <= changed.kept {
            return self.backend.read(offset, out);
        }
        let mut rest = out;
        for (number, at, piece) in pieces(offset, len) {
            let (into, left) = rest.split_at_mut(piece);
            match changed.blocks.get(&number) {
                Some(block) => into.copy_from_slice(block.get(at..at + piece).unwrap_or_default()),
                None => into.copy_from_slice(self.block(number, changed.kept)?.get(at..at + piece).unwrap_or_default()),
            }
            rest = left;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut changed = self.changed();
        if len < changed.end {
            changed.kept = changed.kept.min(len);
            let (last, within) = (len / BLOCK_BYTES as u64, usize::try_from(len % BLOCK_BYTES as u64).unwrap_or(0));
            changed.blocks.retain(|number, _| *number <= last);
            if let Some(block) = changed.blocks.get_mut(&last) {
                block.get_mut(within..).unwrap_or_default().fill(0);
            }
        }
        changed.end = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changed = self.changed();
        let kept = changed.kept;
        let mut rest = data;
        for (number, at, piece) in pieces(offset, data.len()) {
            let (from, left) = rest.split_at(piece);
            let block = match changed.blocks.entry(number) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(self.block(number, kept)?),
            };
            block.get_mut(at..at + piece).unwrap_or_default().copy_from_slice(from);
            rest = left;
        }
        changed.end = changed.end.max(offset + data.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use redb::backends::InMemoryBackend;

    use super::*;

    fn scratch(content: &[u8]) -> Scratch {
        let file = InMemoryBackend::new();
        file.set_len(content.len() as u64).unwrap();
        file.write(0, content).unwrap();
        let end = content.len() as u64;
        let changed = Mutex::new(Changed { end, kept: end, blocks: BTreeMap::new() });
        Scratch { backend: Watched::new(Arc::new(file)), changed }
    }

    fn all(scratch: &Scratch) -> Vec<u8> {
        let mut out = vec![9; usize::try_from(scratch.len().unwrap()).unwrap()];
        scratch.read(0, &mut out).unwrap();
        out
    }

    #[test]
    fn what_is_cut_off_is_gone_and_what_is_added_is_zeros() {
        const TWO_BLOCKS: usize = 2 * BLOCK_BYTES;
        for written in [false, true] {
            let scratch = scratch(&[1; TWO_BLOCKS]);
            if written {
                scratch.write(0, &[1; TWO_BLOCKS]).unwrap();
            }
            scratch.set_len(10).unwrap();
            assert_eq!(all(&scratch), [1; 10]);
            scratch.set_len(TWO_BLOCKS as u64 + 5).unwrap();
            let whole = all(&scratch);
            assert_eq!(whole.len(), TWO_BLOCKS + 5);
            assert!(whole[..10] == [1; 10] && whole[10..].iter().all(|byte| *byte == 0), "written: {written}");
            scratch.write(12, &[2; 2]).unwrap();
            assert_eq!(all(&scratch)[8..16], [1, 1, 0, 0, 2, 2, 0, 0]);
        }
    }

    #[test]
    fn the_file_itself_is_as_it_was() {
        let scratch = scratch(&[1; 20]);
        scratch.write(5, &[2; 30]).unwrap();
        assert_eq!(scratch.len().unwrap(), 35);
        assert_eq!(all(&scratch), [&[1; 5][..], &[2; 30]].concat());
        scratch.set_len(0).unwrap();
        let mut file = [0; 20];
        scratch.backend.read(0, &mut file).unwrap();
        assert_eq!(file, [1; 20]);
    }
}
