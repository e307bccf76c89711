//! A write-ahead journal of fixed size: two halves of blocks, into which records are appended and synced one at a time.
//!
//! A tree pays for each commit by copying every page on the way to what changed; a journal pays for one write and one
//! sync in a place that the file system has allocated long ago. While one half takes records, what the other holds is
//! brought into the tree; then they change places. Each turn is a generation, counted from 1, and the tree remembers the
//! last generation that it has all of.
//!
//! A record begins at a block, so that no write touches a block that another record needs. Its checksum is keyed with a
//! secret of the tree's, so that nothing that users store can pass for a record. Each is synced before the next is
//! written, and they are numbered throughout a run: only the last can be torn, and one that is missing before another is
//! damage.

use std::ops::Range;

use bytes::Bytes;
use redb::StorageBackend;

use super::backend::{Watched, full_or_failed};
use super::{StorageError, Table, Write};
use crate::simulated::Defect;

/// What file systems and disks write whole, or close to it.
const BLOCK_BYTES: usize = 4 << 10;
/// Blocks of a half.
const HALF_BLOCKS: usize = 512;
const HALF_BYTES: usize = HALF_BLOCKS * BLOCK_BYTES;
/// Bytes of the journal.
pub(super) const JOURNAL_BYTES: usize = 2 * HALF_BYTES;

const MAGIC: [u8; 8] = *b"knot-jrn";
const CHECKSUM_BYTES: usize = 16;
/// `magic (8) | checksum (16) | generation (8) | number (4) | bytes of payload (4)`, numbers little-endian. The checksum
/// is over all that follows it.
const HEADER_BYTES: usize = MAGIC.len() + CHECKSUM_BYTES + 8 + 4 + 4;
/// `table (1) | bytes of key (4) | bytes of value (4)`, before the key and the value of each write.
const WRITE_HEADER_BYTES: usize = 1 + 4 + 4;
/// What stands for a value's length where the key is removed.
const REMOVED: u32 = u32::MAX;

/// Keys the checksums of one tree's journal.
pub(super) type JournalKey = [u8; 32];

/// The journal, and where its next record goes.
#[derive(Debug)]
pub(super) struct Journal {
    backend: Watched,
    key: JournalKey,
    generation: u64,
    half: usize,
    /// The next free block of the half.
    block: usize,
    /// The next record's number in this run.
    number: u32,
    record: Vec<u8>,
    /// A bug that a simulator planted.
    defect: Option<Defect>,
}

impl Journal {
    /// Opens the journal, making it where there is none, and reads the writes of the generations after `applied`, oldest
    /// first: what was acknowledged and may not be in the tree.
    ///
    /// # Errors
    /// When there is no space, the disk fails, or a record between the tree and the journal's end is missing.
    pub(super) fn open(backend: Watched, key: JournalKey, applied: u64) -> Result<(Self, Vec<Write>), StorageError> {
        let corrupt = |why: &str| StorageError::Corrupt(why.to_owned());
        let mut bytes = vec![0; JOURNAL_BYTES];
        let len = usize::try_from(backend.len().map_err(StorageError::Failed)?).unwrap_or(usize::MAX);
        let there = bytes.get_mut(..len.min(JOURNAL_BYTES)).unwrap_or_default();
        backend.read(0, there).map_err(StorageError::Failed)?;
        let halves: Vec<Half> = bytes.chunks_exact(HALF_BYTES).map(|half| Half::read(half, &key)).collect();
        let newest = halves.iter().map(|half| half.generation).max().unwrap_or_default();
        let lost = |half: &Half| half.stray > applied && (half.stray == half.generation || half.stray > newest);
        let mut live: Vec<(&Half, &[u8])> = halves.iter().zip(bytes.chunks_exact(HALF_BYTES)).collect();
        live.retain(|(half, _)| half.generation > applied);
        live.sort_by_key(|(half, _)| half.generation);
        if live.iter().zip(applied + 1..).any(|((half, _), expected)| half.generation != expected) {
            return Err(corrupt("the journal does not go on where the data ends; both files belong together"));
        }
        // Nothing is appended before what another run left is in the tree, so all that is live is of one run.
        let whole = live.is_sorted_by(|(half, _), (next, _)| half.next == next.first);
        if !whole || halves.iter().any(lost) {
            return Err(corrupt("a record in the middle of the journal does not verify"));
        }
        let mut writes = Vec::new();
        for (half, bytes) in &live {
            for payload in half.payloads.iter().map(|range| bytes.get(range.clone()).unwrap_or_default()) {
                decode(payload, &mut writes).ok_or_else(|| corrupt("a record of the journal does not decode"))?;
            }
        }
        if len < JOURNAL_BYTES && !live.is_empty() {
            return Err(corrupt("the journal has been cut short"));
        }
        // Where no record ever was, making it may have ended before its blocks were allocated.
        if len < JOURNAL_BYTES || newest == 0 {
            make(&backend)?;
        }
        let half = halves.iter().position(|half| half.generation == newest).unwrap_or_default();
        // No generation goes on in another run: the half is full from the start.
        let (generation, block) = (newest.max(applied), HALF_BLOCKS);
        Ok((Self { backend, key, generation, half, block, number: 0, record: Vec::new(), defect: None }, writes))
    }

    /// Plants a bug.
    pub(super) fn plant(&mut self, defect: Option<Defect>) {
        self.defect = defect;
    }

    /// Whether a record with so many bytes of payload fits into what is left of this half.
    pub(super) fn has_room(&self, payload_bytes: usize) -> bool {
        self.block + (HEADER_BYTES + payload_bytes).div_ceil(BLOCK_BYTES) <= HALF_BLOCKS
    }

    /// The generation of the records written now.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The generation and number of the next record.
    pub(super) fn place(&self) -> (u64, u32) {
        (self.generation, self.number)
    }

    /// Goes on in the other half, whose records must all be in the tree.
    pub(super) fn turn(&mut self) {
        self.generation += 1;
        self.half = 1 - self.half;
        self.block = 0;
    }

    /// Writes one record, for which there must be room, and syncs it.
    ///
    /// # Errors
    /// When the disk fails, or has no space: a file system that copies on write needs some even where blocks are
    /// allocated. Then the next record takes this one's place.
    pub(super) fn append(&mut self, batches: &[&[Write]]) -> Result<(), StorageError> {
        let payload_bytes = payload_bytes(batches);
        self.record.clear();
        self.record.extend(MAGIC);
        self.record.extend([0; CHECKSUM_BYTES]);
        self.record.extend(self.generation.to_le_bytes());
        self.record.extend(self.number.to_le_bytes());
        self.record.extend(length(payload_bytes).to_le_bytes());
        batches.iter().flat_map(|batch| batch.iter()).for_each(|write| encode(write, &mut self.record));
        let (head, covered) = self.record.split_at_mut(MAGIC.len() + CHECKSUM_BYTES);
        let checksum = checksum(&self.key, covered);
        head.iter_mut().skip(MAGIC.len()).zip(checksum).for_each(|(to, from)| *to = from);
        let blocks = self.record.len().div_ceil(BLOCK_BYTES);
        self.record.resize(blocks * BLOCK_BYTES, 0);
        let offset = (self.half * HALF_BLOCKS + self.block) * BLOCK_BYTES;
        // The header's block last, so that what finds no space half way is no record, whatever was there before.
        let (first, rest) = self.record.split_at(BLOCK_BYTES);
        let written = match rest {
            [] => Ok(()),
            rest => self.backend.write((offset + BLOCK_BYTES) as u64, rest),
        };
        written.and_then(|()| self.backend.write(offset as u64, first)).map_err(full_or_failed)?;
        if self.defect != Some(Defect::JournalUnsynced) {
            self.backend.sync_data().map_err(StorageError::Failed)?;
        }
        self.block += blocks;
        self.number = self.number.wrapping_add(1);
        Ok(())
    }
}

/// Bytes that `batches` take in a record.
pub(super) fn payload_bytes(batches: &[&[Write]]) -> usize {
    let bytes = |write: &Write| WRITE_HEADER_BYTES + write.key.len() + write.value.as_ref().map_or(0, Bytes::len);
    batches.iter().flat_map(|batch| batch.iter()).map(bytes).sum()
}

/// What is in one half.
#[derive(Debug, Default)]
struct Half {
    /// Of its leading records; 0 when there is none.
    generation: u64,
    /// The number of the first of them, and the one that is to follow the last.
    first: u32,
    next: u32,
    /// Where their payloads are in the half.
    payloads: Vec<Range<usize>>,
    /// The newest generation of records that verify behind one that does not; 0 when there is none.
    stray: u64,
}

impl Half {
    fn read(bytes: &[u8], key: &JournalKey) -> Self {
        let record_at = |block: usize| Record::read(bytes.get(block * BLOCK_BYTES..)?, key);
        let mut half = Self::default();
        let mut block = 0;
        while let Some(record) = record_at(block)
            && (block == 0 || (record.generation, record.number) == (half.generation, half.next))
        {
            if block == 0 {
                (half.generation, half.first) = (record.generation, record.number);
            }
            half.next = record.number.wrapping_add(1);
            let start = block * BLOCK_BYTES + HEADER_BYTES;
            half.payloads.push(start..start + record.payload_bytes);
            block += (HEADER_BYTES + record.payload_bytes).div_ceil(BLOCK_BYTES);
        }
        let strays = (block..HALF_BLOCKS).filter_map(record_at);
        half.stray = strays.map(|record| record.generation).max().unwrap_or_default();
        half
    }
}

/// The header of a record that verifies.
struct Record {
    generation: u64,
    number: u32,
    payload_bytes: usize,
}

impl Record {
    fn read(bytes: &[u8], key: &JournalKey) -> Option<Self> {
        let (found, after) = bytes.strip_prefix(&MAGIC)?.split_first_chunk::<CHECKSUM_BYTES>()?;
        let (generation, rest) = after.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let payload_bytes = usize::try_from(u32::from_le_bytes(*rest.first_chunk()?)).ok()?;
        let covered = after.get(..8 + 4 + 4 + payload_bytes)?;
        let (generation, number) = (u64::from_le_bytes(*generation), u32::from_le_bytes(*number));
        (checksum(key, covered) == *found).then_some(Self { generation, number, payload_bytes })
    }
}

/// Writes zeros over the whole journal, so that its blocks are allocated and later syncs have no metadata to write.
fn make(backend: &Watched) -> Result<(), StorageError> {
    let zeros = vec![0; HALF_BYTES];
    let made = backend
        .set_len(JOURNAL_BYTES as u64)
        .and_then(|()| backend.write(0, &zeros))
        .and_then(|()| backend.write(HALF_BYTES as u64, &zeros));
    made.map_err(full_or_failed)?;
    backend.sync_data().map_err(StorageError::Failed)
}

fn checksum(key: &JournalKey, covered: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.iter_mut().zip(blake3::keyed_hash(key, covered).as_bytes()).for_each(|(to, from)| *to = *from);
    checksum
}

fn encode(write: &Write, record: &mut Vec<u8>) {
    record.push(match write.table {
        Table::Meta => 0,
        Table::Documents => 1,
        Table::Changes => 2,
    });
    record.extend(length(write.key.len()).to_le_bytes());
    record.extend(write.value.as_ref().map_or(REMOVED, |value| length(value.len())).to_le_bytes());
    record.extend(&*write.key);
    record.extend(write.value.iter().flat_map(|value| value.iter()));
}

/// Appends the writes of a payload to `writes`; none when it is not one.
fn decode(mut payload: &[u8], writes: &mut Vec<Write>) -> Option<()> {
    while let Some((table, rest)) = payload.split_first() {
        let table = match table {
            0 => Table::Meta,
            1 => Table::Documents,
            2 => Table::Changes,
            _ => return None,
        };
        let (key_bytes, rest) = rest.split_first_chunk()?;
        let (value_bytes, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key_bytes) as usize)?;
        let (value, rest) = match u32::from_le_bytes(*value_bytes) {
            REMOVED => (None, rest),
            bytes => rest.split_at_checked(bytes as usize).map(|(value, rest)| (Some(value), rest))?,
        };
        let (key, value) = (Bytes::copy_from_slice(key), value.map(Bytes::copy_from_slice));
        writes.push(Write { table, key, value });
        payload = rest;
    }
    Some(())
}

/// A length as records hold it. Whoever writes a record has seen that it fits into a half.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(REMOVED)
}
