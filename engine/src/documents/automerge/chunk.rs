//! Reads a change chunk's metadata without trusting a byte of it.
//!
//! The columns are walked run by run before Automerge sees them, since Automerge expands runs: a change of 100 bytes can
//! claim a million operations, or one operation with 2^60 predecessors. What honest authors never write is refused here:
//! unknown columns, marks, text objects, bytes and timestamps, author footers, overlong integers. The layout is that of
//! <https://automerge.org/automerge-binary-format-spec/>.

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::Change;
use bytes::Bytes;

use super::DELETE_MESSAGE;
use crate::documents::{Actor, CHANGE_BYTES_MAX, CHANGE_OPS_MAX, ChangeHeader, ChangeKind, Malformed};
use crate::identity::ChangeHash;
use crate::time::Wall;

pub(super) const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
pub(super) const CHUNK_CHANGE: u8 = 1;
/// Most predecessors that the operations of one change may name, over all of them.
const CHANGE_PREDECESSORS_MAX: u64 = 4 * CHANGE_OPS_MAX;

pub(super) const OBJECT_ACTOR: u64 = 0x01;
pub(super) const OBJECT_COUNTER: u64 = 0x02;
pub(super) const KEY_ACTOR: u64 = 0x11;
pub(super) const KEY_COUNTER: u64 = 0x13;
pub(super) const KEY_TEXT: u64 = 0x15;
pub(super) const INSERT: u64 = 0x34;
pub(super) const ACTION: u64 = 0x42;
pub(super) const VALUE_META: u64 = 0x56;
pub(super) const VALUE: u64 = 0x57;
pub(super) const PREDECESSOR_COUNT: u64 = 0x70;
const PREDECESSOR_ACTOR: u64 = 0x71;
const PREDECESSOR_COUNTER: u64 = 0x73;
const COLUMNS: [u64; 12] = [
    OBJECT_ACTOR,
    OBJECT_COUNTER,
    KEY_ACTOR,
    KEY_COUNTER,
    KEY_TEXT,
    INSERT,
    ACTION,
    VALUE_META,
    VALUE,
    PREDECESSOR_COUNT,
    PREDECESSOR_ACTOR,
    PREDECESSOR_COUNTER,
];

/// Make a map, set, make a list, delete, increment.
const ACTIONS: [u64; 5] = [0, 1, 2, 3, 5];
/// Null, false, true, unsigned, signed, double, string, counter.
const VALUE_TYPES: [u64; 8] = [0, 1, 2, 3, 4, 5, 6, 8];

/// Reads a change and its header, which agree in all that both say.
///
/// # Errors
/// When the bytes are not one well-formed change that fits the limits of this module.
pub(super) fn parse(bytes: &[u8]) -> Result<(Change, ChangeHeader), Malformed> {
    let mut header = read_checked(bytes)?;
    let change = catch_unwind(AssertUnwindSafe(|| Change::try_from(bytes)))
        .map_err(|_panic| Malformed::Columns)?
        .map_err(|_error| Malformed::Columns)?;
    let hash = change.hash().0;
    if hash.get(..4) != bytes.get(4..8) {
        return Err(Malformed::Checksum);
    }
    if change.len() as u64 != header.columns.ops {
        return Err(Malformed::Columns);
    }
    header.fields.hash = ChangeHash(hash);
    header.fields.ops = header.columns.ops;
    let is_delete = header.columns.ops == 0 && change.message() == Some(DELETE_MESSAGE);
    if is_delete {
        header.fields.kind = ChangeKind::Delete;
    }
    Ok((change, header.fields))
}

/// The header of a change that Automerge has just made as `hash`, and which it need not be made to read again.
///
/// # Errors
/// When the change does not fit the limits of this module.
pub(super) fn own_header(bytes: &[u8], hash: ChangeHash, kind: ChangeKind) -> Result<ChangeHeader, Malformed> {
    let header = read_checked(bytes)?;
    Ok(ChangeHeader { hash, ops: header.columns.ops, kind, ..header.fields })
}

fn read_checked(bytes: &[u8]) -> Result<Header<'_>, Malformed> {
    if bytes.len() > CHANGE_BYTES_MAX {
        return Err(Malformed::TooLong);
    }
    let header = read_header(bytes).ok_or(Malformed::NotAChange)?;
    header.columns.check(&header)?;
    Ok(header)
}

struct Header<'a> {
    fields: ChangeHeader,
    columns: Columns<'a>,
}

fn read_header(bytes: &[u8]) -> Option<Header<'_>> {
    let mut reader = Reader(bytes);
    if reader.take(4)? != MAGIC {
        return None;
    }
    reader.take(4)?;
    if reader.take(1)? != [CHUNK_CHANGE] {
        return None;
    }
    if reader.unsigned()? != reader.0.len() as u64 {
        return None;
    }
    let deps = read_deps(&mut reader)?;
    let actor = read_actor(&mut reader)?;
    let seq = reader.unsigned()?;
    let start_op = reader.unsigned()?;
    let wall = Wall(reader.signed()?);
    reader.prefixed()?;
    let refers_to = (0..reader.count()?).map(|_| read_actor(&mut reader)).collect::<Option<Vec<_>>>()?;
    let columns = Columns::read(&mut reader)?;
    if !reader.0.is_empty() {
        return None;
    }
    Some(Header {
        fields: ChangeHeader {
            hash: ChangeHash([0; 32]),
            deps,
            actor,
            seq,
            start_op,
            ops: 0,
            wall,
            kind: ChangeKind::Edit,
            refers_to,
        },
        columns,
    })
}

/// At least one, ascending: as every author but the genesis writes them.
fn read_deps(reader: &mut Reader<'_>) -> Option<Vec<ChangeHash>> {
    let deps = (0..reader.count()?)
        .map(|_| reader.take(32)?.first_chunk().copied().map(ChangeHash))
        .collect::<Option<Vec<_>>>()?;
    let ascending = deps.iter().zip(deps.iter().skip(1)).all(|(a, b)| a < b);
    (ascending && !deps.is_empty()).then_some(deps)
}

fn read_actor(reader: &mut Reader<'_>) -> Option<Actor> {
    Some(Actor(Bytes::copy_from_slice(reader.prefixed()?)))
}

/// The columns of a change, as slices in the order of [`COLUMNS`].
struct Columns<'a> {
    slices: [&'a [u8]; COLUMNS.len()],
    ops: u64,
}

impl<'a> Columns<'a> {
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let mut lengths = [0; COLUMNS.len()];
        let mut previous = None;
        for _ in 0..reader.count()? {
            let column = reader.unsigned()?;
            if previous >= Some(column) {
                return None;
            }
            previous = Some(column);
            let slot = COLUMNS.iter().position(|known| *known == column)?;
            *lengths.get_mut(slot)? = reader.count()?;
        }
        let mut slices: [&[u8]; COLUMNS.len()] = [&[]; COLUMNS.len()];
        for (slice, length) in slices.iter_mut().zip(lengths) {
            *slice = reader.take(length)?;
        }
        let mut ops = 0_u64;
        for_runs(Self::of(&slices, ACTION), CHANGE_OPS_MAX, Reader::unsigned, |action, run| {
            ops += run;
            ACTIONS.contains(&action?).then_some(())
        })?;
        Some(Self { slices, ops })
    }

    fn of(slices: &[&'a [u8]; COLUMNS.len()], column: u64) -> &'a [u8] {
        COLUMNS.iter().zip(slices).find_map(|(known, slice)| (*known == column).then_some(*slice)).unwrap_or_default()
    }

    fn get(&self, column: u64) -> &'a [u8] {
        Self::of(&self.slices, column)
    }

    fn check(&self, header: &Header<'_>) -> Result<(), Malformed> {
        self.check_runs(header.fields.refers_to.len() as u64).ok_or(Malformed::Columns)
    }

    fn check_runs(&self, other_actors: u64) -> Option<()> {
        let ops = self.ops;
        let known_actor = |actor: Option<u64>, _| (actor.unwrap_or(0) <= other_actors).then_some(());
        for_runs(self.get(OBJECT_ACTOR), ops, Reader::unsigned, known_actor)?;
        for_runs(self.get(OBJECT_COUNTER), ops, Reader::unsigned, |counter, _| {
            u32::try_from(counter.unwrap_or(0)).ok().map(drop)
        })?;
        for_runs(self.get(KEY_ACTOR), ops, Reader::unsigned, known_actor)?;
        check_counters(self.get(KEY_COUNTER), ops)?;
        for_runs(self.get(KEY_TEXT), ops, Reader::text, |_, _| Some(()))?;
        check_booleans(self.get(INSERT), ops)?;
        self.check_values()?;

        let mut predecessors = 0_u64;
        for_runs(self.get(PREDECESSOR_COUNT), ops, Reader::unsigned, |count, run| {
            predecessors = predecessors.checked_add(count?.checked_mul(run)?)?;
            (predecessors <= CHANGE_PREDECESSORS_MAX).then_some(())
        })?;
        for_runs(self.get(PREDECESSOR_ACTOR), predecessors, Reader::unsigned, known_actor)?;
        check_counters(self.get(PREDECESSOR_COUNTER), predecessors)
    }

    fn check_values(&self) -> Option<()> {
        let mut value_bytes = 0_u64;
        for_runs(self.get(VALUE_META), self.ops, Reader::unsigned, |meta, run| {
            let meta = meta?;
            value_bytes = value_bytes.checked_add((meta >> 4).checked_mul(run)?)?;
            VALUE_TYPES.contains(&(meta & 0xf)).then_some(())
        })?;
        (value_bytes == self.get(VALUE).len() as u64).then_some(())
    }
}

/// Calls `each` with every run of a run-length-encoded column: its value, none for null, and its length.
/// Refuses more than `rows_max` rows in all, however few bytes claim them.
fn for_runs<'a, T>(
    column: &'a [u8],
    rows_max: u64,
    value: impl Fn(&mut Reader<'a>) -> Option<T>,
    mut each: impl FnMut(Option<T>, u64) -> Option<()>,
) -> Option<()> {
    let mut reader = Reader(column);
    let mut rows_left = rows_max;
    while !reader.0.is_empty() {
        let count = reader.signed()?;
        let run = match count {
            0 => reader.unsigned()?,
            _ => count.unsigned_abs(),
        };
        rows_left = rows_left.checked_sub(run)?;
        match count {
            0 => each(None, run)?,
            1.. => each(Some(value(&mut reader)?), run)?,
            _ => {
                for _ in 0..run {
                    each(Some(value(&mut reader)?), 1)?;
                }
            }
        }
    }
    Some(())
}

/// Checks a column of differences whose sums are operation counters.
fn check_counters(column: &[u8], rows_max: u64) -> Option<()> {
    let mut counter = 0_i64;
    for_runs(column, rows_max, Reader::signed, |difference, run| {
        let run = i64::try_from(run).ok()?;
        counter = counter.checked_add(difference.unwrap_or(0).checked_mul(run)?)?;
        u32::try_from(counter).ok().map(drop)
    })
}

fn check_booleans(column: &[u8], rows_max: u64) -> Option<()> {
    let mut reader = Reader(column);
    let mut rows_left = rows_max;
    while !reader.0.is_empty() {
        rows_left = rows_left.checked_sub(reader.unsigned()?)?;
    }
    Some(())
}

/// What is left to read. All methods give none at the end of the bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// A count of things that take a byte or more each.
    fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.unsigned()?).ok()?;
        (count <= self.0.len()).then_some(count)
    }

    fn prefixed(&mut self) -> Option<&'a [u8]> {
        let len = self.count()?;
        self.take(len)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.prefixed()?).ok()
    }

    /// An unsigned LEB128, no longer than it must be.
    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return (byte != 0 || shift == 0).then_some(value);
            }
        }
        None
    }

    /// A signed LEB128, no longer than it must be.
    fn signed(&mut self) -> Option<i64> {
        let mut value = 0_i64;
        let mut previous = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte != 0 && byte != 0x7f {
                return None;
            }
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let overlong =
                    shift > 0 && ((byte == 0 && previous & 0x40 == 0) || (byte == 0x7f && previous & 0x40 != 0));
                if byte & 0x40 != 0 && shift < 57 {
                    value |= -1 << (shift + 7);
                }
                return (!overlong).then_some(value);
            }
            previous = byte;
        }
        None
    }
}
