//! Writes the change that creates a document straight into Automerge's columns.
//!
//! A first change needs no document to be made: nothing precedes its operations, and they follow from the JSON alone, one
//! level after the other, the members of an object in the order of their keys. The bytes are those that Automerge 0.12
//! makes of the same object, so that nobody can tell which of the two wrote a change; a test holds one against the other.
//! The layout is that of <https://automerge.org/automerge-binary-format-spec/>.

use std::collections::VecDeque;

use automerge::Change;
use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};

use super::chunk::{
    ACTION, CHUNK_CHANGE, INSERT, KEY_ACTOR, KEY_COUNTER, KEY_TEXT, MAGIC, OBJECT_ACTOR, OBJECT_COUNTER,
    PREDECESSOR_COUNT, VALUE, VALUE_META,
};
use crate::documents::{Actor, Authored, CHANGE_BYTES_MAX, CHANGE_OPS_MAX, ChangeHeader, ChangeKind, EditRefused};
use crate::identity::ChangeHash;
use crate::time::Wall;

/// The first operation after a genesis, which has none.
const START_OP: u64 = 1;
/// An author's first change.
const SEQ: u64 = 1;
/// Where a change's author stands among the actors that its operations refer to.
const AUTHOR: u64 = 0;
/// What the first element of a list comes after.
const LIST_HEAD: u64 = 0;
const NO_PREDECESSORS: u64 = 0;
/// What a body takes besides its columns, and a chunk besides its body, at most.
const PRELUDE_BYTES: usize = 128;
const CHUNK_HEADER_BYTES: usize = 16;

const MAKE_MAP: u64 = 0;
const SET: u64 = 1;
const MAKE_LIST: u64 = 2;

const NULL: u64 = 0;
const FALSE: u64 = 1;
const TRUE: u64 = 2;
const UNSIGNED: u64 = 3;
const SIGNED: u64 = 4;
const DOUBLE: u64 = 5;
const TEXT: u64 = 6;

/// The change by which `actor` makes a document, which has nothing but its genesis, read as `members`.
///
/// # Errors
/// When a number cannot be held, or the change would be over a limit.
pub(super) fn creation(
    genesis: ChangeHash,
    actor: &Actor,
    members: &Map<String, Value>,
    wall: Wall,
) -> Result<Authored, EditRefused> {
    let operations = Operations::of(members)?;
    let ops = operations.rows.len() as u64;
    if ops > CHANGE_OPS_MAX {
        return Err(EditRefused::TooLarge);
    }
    let columns = Columns::of(&operations);

    let mut body = Vec::with_capacity(PRELUDE_BYTES + columns.data.len());
    unsigned(&mut body, 1);
    body.extend(genesis.0);
    prefixed(&mut body, &actor.0);
    unsigned(&mut body, SEQ);
    unsigned(&mut body, START_OP);
    signed(&mut body, wall.0);
    let (message, other_actors) = (0, 0);
    body.extend([message, other_actors]);
    unsigned(&mut body, columns.lengths.len() as u64);
    for (column, length) in columns.lengths {
        unsigned(&mut body, column);
        unsigned(&mut body, length as u64);
    }
    body.extend(columns.data);
    // What is too long already need not be hashed.
    if body.len() > CHANGE_BYTES_MAX {
        return Err(EditRefused::TooLarge);
    }

    let (chunk, hash) = seal(&body);
    if chunk.len() > CHANGE_BYTES_MAX {
        return Err(EditRefused::TooLarge);
    }
    let header = ChangeHeader {
        hash,
        deps: vec![genesis],
        actor: actor.clone(),
        seq: SEQ,
        start_op: START_OP,
        ops,
        wall,
        kind: ChangeKind::Edit,
        refers_to: Vec::new(),
    };
    Ok(Authored { chunk: chunk.into(), header })
}

/// The change chunk with this body, and its hash.
pub(super) fn seal(body: &[u8]) -> (Vec<u8>, ChangeHash) {
    const CHECKSUM_BYTES: usize = 4;
    const HASHED_AT: usize = MAGIC.len() + CHECKSUM_BYTES;
    let mut chunk = Vec::with_capacity(CHUNK_HEADER_BYTES + body.len());
    chunk.extend(MAGIC);
    chunk.extend([0; CHECKSUM_BYTES]);
    chunk.push(CHUNK_CHANGE);
    unsigned(&mut chunk, body.len() as u64);
    chunk.extend_from_slice(body);
    let hash: [u8; 32] = Sha256::digest(chunk.get(HASHED_AT..).unwrap_or_default()).into();
    for (byte, hashed) in chunk.iter_mut().skip(MAGIC.len()).zip(hash).take(CHECKSUM_BYTES) {
        *byte = hashed;
    }
    debug_assert_eq!(Change::try_from(&chunk[..]).ok().map(|change| change.hash().0), Some(hash));
    (chunk, ChangeHash(hash))
}

/// Operations in the order of their counters, the first of which is [`START_OP`].
struct Operations<'a> {
    rows: Vec<Operation<'a>>,
    /// The values of all of them, one after the other.
    values: Vec<u8>,
    /// Objects and arrays that were made and not filled yet.
    unfilled: VecDeque<(u64, &'a Value)>,
    /// The last `before` of a [`Place::After`].
    before: u64,
}

struct Operation<'a> {
    /// The operation that made the container; none for the root.
    container: Option<u64>,
    place: Place<'a>,
    action: u64,
    /// The value's type, and its length in bytes shifted left by 4.
    value_meta: u64,
}

enum Place<'a> {
    Member(&'a str),
    /// An element of a list, by the operation that made the one before it. The column of these holds differences.
    After {
        before: u64,
        difference: i64,
    },
}

impl<'a> Operations<'a> {
    fn of(members: &'a Map<String, Value>) -> Result<Self, EditRefused> {
        let mut operations =
            Self { rows: Vec::new(), values: Vec::new(), unfilled: VecDeque::new(), before: LIST_HEAD };
        operations.fill_map(None, members)?;
        while let Some((made, container)) = operations.unfilled.pop_front() {
            match container {
                Value::Object(members) => operations.fill_map(Some(made), members)?,
                Value::Array(elements) => operations.fill_list(made, elements)?,
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        Ok(operations)
    }

    fn fill_map(&mut self, container: Option<u64>, members: &'a Map<String, Value>) -> Result<(), EditRefused> {
        self.rows.reserve(members.len());
        let mut members: Vec<_> = members.iter().collect();
        // They are in this order already, unless some crate of the build has serde_json keep the order of insertion.
        members.sort_unstable_by_key(|(key, _)| *key);
        for (key, value) in members {
            self.push(container, Place::Member(key), value)?;
        }
        Ok(())
    }

    fn fill_list(&mut self, container: u64, elements: &'a [Value]) -> Result<(), EditRefused> {
        self.rows.reserve(elements.len());
        let mut before = LIST_HEAD;
        for value in elements {
            let difference = before.cast_signed() - self.before.cast_signed();
            self.before = before;
            before = self.push(Some(container), Place::After { before, difference }, value)?;
        }
        Ok(())
    }

    /// Adds the operation that writes `value`, and returns its counter.
    fn push(&mut self, container: Option<u64>, place: Place<'a>, value: &'a Value) -> Result<u64, EditRefused> {
        let counter = START_OP + self.rows.len() as u64;
        let start = self.values.len();
        let (action, value_type) = match value {
            Value::Object(_) => (MAKE_MAP, NULL),
            Value::Array(_) => (MAKE_LIST, NULL),
            Value::Null => (SET, NULL),
            Value::Bool(false) => (SET, FALSE),
            Value::Bool(true) => (SET, TRUE),
            Value::Number(number) => (SET, self.push_number(number).ok_or_else(|| EditRefused::Number(String::new()))?),
            Value::String(text) => {
                self.values.extend_from_slice(text.as_bytes());
                (SET, TEXT)
            }
        };
        if action != SET {
            self.unfilled.push_back((counter, value));
        }
        let value_meta = (((self.values.len() - start) as u64) << 4) | value_type;
        self.rows.push(Operation { container, place, action, value_meta });
        Ok(counter)
    }

    fn push_number(&mut self, number: &Number) -> Option<u64> {
        if let Some(n) = number.as_i64() {
            signed(&mut self.values, n);
            Some(SIGNED)
        } else if let Some(n) = number.as_u64() {
            unsigned(&mut self.values, n);
            Some(UNSIGNED)
        } else {
            let n = number.as_f64().filter(|n| n.is_finite())?;
            self.values.extend_from_slice(&n.to_le_bytes());
            Some(DOUBLE)
        }
    }
}

impl<'a> Operation<'a> {
    fn container_actor(&self) -> Option<u64> {
        self.container.map(|_| AUTHOR)
    }

    fn key_actor(&self) -> Option<u64> {
        match self.place {
            Place::Member(_) | Place::After { before: LIST_HEAD, .. } => None,
            Place::After { .. } => Some(AUTHOR),
        }
    }

    fn key_difference(&self) -> Option<i64> {
        match self.place {
            Place::Member(_) => None,
            Place::After { difference, .. } => Some(difference),
        }
    }

    fn key_text(&self) -> Option<&'a str> {
        match self.place {
            Place::Member(key) => Some(key),
            Place::After { .. } => None,
        }
    }

    fn inserts(&self) -> bool {
        matches!(self.place, Place::After { .. })
    }
}

/// The columns that are not empty, in the order of their numbers.
struct Columns {
    /// Each column's number and length in bytes.
    lengths: Vec<(u64, usize)>,
    data: Vec<u8>,
}

impl Columns {
    fn of(operations: &Operations<'_>) -> Self {
        let Operations { rows, values, .. } = operations;
        let mut columns =
            Self { lengths: Vec::with_capacity(10), data: Vec::with_capacity(values.len() + 16 * rows.len()) };
        columns.add(OBJECT_ACTOR, |out| runs(out, rows, Operation::container_actor, unsigned));
        columns.add(OBJECT_COUNTER, |out| runs(out, rows, |row| row.container, unsigned));
        columns.add(KEY_ACTOR, |out| runs(out, rows, Operation::key_actor, unsigned));
        columns.add(KEY_COUNTER, |out| runs(out, rows, Operation::key_difference, signed));
        columns.add(KEY_TEXT, |out| runs(out, rows, Operation::key_text, |out, key| prefixed(out, key.as_bytes())));
        columns.add(INSERT, |out| booleans(out, rows, Operation::inserts));
        columns.add(ACTION, |out| runs(out, rows, |row| Some(row.action), unsigned));
        columns.add(VALUE_META, |out| runs(out, rows, |row| Some(row.value_meta), unsigned));
        columns.add(VALUE, |out| out.extend_from_slice(values));
        columns.add(PREDECESSOR_COUNT, |out| runs(out, rows, |_| Some(NO_PREDECESSORS), unsigned));
        columns
    }

    fn add(&mut self, column: u64, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.data.len();
        write(&mut self.data);
        if self.data.len() > start {
            self.lengths.push((column, self.data.len() - start));
        }
    }
}

/// Writes a column of values: a count before a value that repeats, a negative count before values of which no two
/// neighbours are equal, 0 and a count for nulls. A column of nulls alone is left empty.
fn runs<'a, T: Copy + PartialEq>(
    out: &mut Vec<u8>,
    rows: &[Operation<'a>],
    value: impl Fn(&Operation<'a>) -> Option<T>,
    write: impl Fn(&mut Vec<u8>, T),
) {
    let mut left = rows;
    while let Some(first) = left.first().map(&value) {
        let run = left.iter().take_while(|row| value(row) == first).count();
        let taken = match first {
            None if run == rows.len() => return,
            None => {
                signed(out, 0);
                unsigned(out, run as u64);
                run
            }
            Some(repeated) if run > 1 => {
                signed(out, count(run));
                write(out, repeated);
                run
            }
            Some(_) => {
                let differ = literals(left, &value);
                signed(out, -count(differ));
                left.iter().take(differ).filter_map(&value).for_each(|literal| write(out, literal));
                differ
            }
        };
        left = left.get(taken..).unwrap_or_default();
    }
}

/// How many values `rows` begin with of which none is null, or equal to the one after it.
fn literals<'a, T: PartialEq>(rows: &[Operation<'a>], value: impl Fn(&Operation<'a>) -> Option<T>) -> usize {
    let mut values = rows.iter().map(value).peekable();
    let mut count = 0;
    while let Some(Some(literal)) = values.next() {
        if values.peek().is_some_and(|next| next.as_ref() == Some(&literal)) {
            break;
        }
        count += 1;
    }
    count
}

/// Writes a column of booleans: how many are false, how many after them true, and so on.
fn booleans<'a>(out: &mut Vec<u8>, rows: &[Operation<'a>], value: impl Fn(&Operation<'a>) -> bool) {
    let mut left = rows;
    let mut expected = false;
    while !left.is_empty() {
        let run = left.iter().take_while(|row| value(row) == expected).count();
        unsigned(out, run as u64);
        left = left.get(run..).unwrap_or_default();
        expected = !expected;
    }
}

/// A count of rows, of which there are far fewer than 2^63.
fn count(rows: usize) -> i64 {
    (rows as u64).cast_signed()
}

fn prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    unsigned(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A LEB128 without a sign.
fn unsigned(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [byte, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(byte & 0x7f);
            return;
        }
        out.push(byte | 0x80);
    }
}

/// A LEB128 with a sign: the last byte's second bit extends upwards.
fn signed(out: &mut Vec<u8>, mut value: i64) {
    loop {
        let [byte, ..] = value.to_le_bytes();
        let sign = value >> 6;
        value >>= 7;
        if sign == 0 || sign == -1 {
            out.push(byte & 0x7f);
            return;
        }
        out.push(byte | 0x80);
    }
}
