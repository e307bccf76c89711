//! A change taken apart and put together again, for the fuzzer and for tests with forged changes.
//!
//! `magic 4 | checksum 4 | 1 | length | deps | actor | seq | start_op | time | message | other actors | columns | extra`,
//! as <https://automerge.org/automerge-binary-format-spec/> has it.

use bytes::Bytes;
use sha2::{Digest, Sha256};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHUNK_CHANGE: u8 = 1;
/// Length of a hash.
pub const HASH_BYTES: usize = 32;
const HEAD_BYTES: usize = 9;

/// The fields of a change.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Hashes of the changes that it depends on.
    pub deps: Vec<[u8; HASH_BYTES]>,
    /// Its author.
    pub actor: Vec<u8>,
    /// The author's count.
    pub seq: u64,
    /// The counter of its first operation.
    pub start_op: u64,
    /// When it was made.
    pub time: i64,
    /// `delete`, or nothing.
    pub message: Vec<u8>,
    /// Authors that its operations refer to.
    pub actors: Vec<Vec<u8>>,
    /// The operations, by column.
    pub columns: Vec<(u64, Vec<u8>)>,
    /// What is behind the columns.
    pub extra: Vec<u8>,
    /// Whether the dependencies are to be in the order that every author keeps.
    pub ordered: bool,
    /// What is wrong with the checksum.
    pub checksum_flip: u8,
}

impl Parts {
    /// Takes a change apart; none when it is not one.
    pub fn read(change: &[u8]) -> Option<Self> {
        let mut reader = Reader(change.get(HEAD_BYTES..)?);
        reader.unsigned()?;
        let count = reader.count()?;
        let deps = (0..count).map(|_| reader.take(HASH_BYTES)?.first_chunk().copied()).collect::<Option<_>>()?;
        let actor = reader.prefixed()?;
        let (seq, start_op, time) = (reader.unsigned()?, reader.unsigned()?, reader.signed()?);
        let message = reader.prefixed()?;
        let count = reader.count()?;
        let actors = (0..count).map(|_| reader.prefixed()).collect::<Option<_>>()?;
        let count = reader.count()?;
        let lengths: Vec<_> = (0..count).map(|_| Some((reader.unsigned()?, reader.count()?))).collect::<Option<_>>()?;
        let columns = lengths
            .into_iter()
            .map(|(column, len)| Some((column, reader.take(len)?.to_vec())))
            .collect::<Option<_>>()?;
        let extra = reader.0.to_vec();
        Some(Self {
            deps,
            actor,
            seq,
            start_op,
            time,
            message,
            actors,
            columns,
            extra,
            ordered: true,
            checksum_flip: 0,
        })
    }

    /// The change, whose length and checksum are right.
    pub fn chunk(mut self) -> Bytes {
        if self.ordered {
            self.deps.sort_unstable();
            self.deps.dedup();
        }
        let mut body = Vec::new();
        unsigned(&mut body, self.deps.len() as u64);
        body.extend(self.deps.as_flattened());
        prefixed(&mut body, &self.actor);
        unsigned(&mut body, self.seq);
        unsigned(&mut body, self.start_op);
        signed(&mut body, self.time);
        prefixed(&mut body, &self.message);
        unsigned(&mut body, self.actors.len() as u64);
        self.actors.iter().for_each(|actor| prefixed(&mut body, actor));
        unsigned(&mut body, self.columns.len() as u64);
        for (column, data) in &self.columns {
            unsigned(&mut body, *column);
            unsigned(&mut body, data.len() as u64);
        }
        self.columns.iter().for_each(|(_, data)| body.extend(data));
        body.extend(&self.extra);
        let mut chunk = [&MAGIC[..], &[0; 4], &[CHUNK_CHANGE]].concat();
        unsigned(&mut chunk, body.len() as u64);
        chunk.extend(body);
        let [a, b, c, d, ..] = hash(&chunk);
        chunk[4..8].copy_from_slice(&[a ^ self.checksum_flip, b, c, d]);
        chunk.into()
    }
}

/// SHA-256 of a chunk from its type on, which begins its checksum.
pub fn hash(chunk: &[u8]) -> [u8; HASH_BYTES] {
    Sha256::digest(&chunk[8..]).into()
}

fn prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    unsigned(out, bytes.len() as u64);
    out.extend(bytes);
}

/// Writes an unsigned LEB128.
pub fn unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Writes a signed LEB128.
pub fn signed(out: &mut Vec<u8>, mut value: i64) {
    loop {
        let byte = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if (value == 0 && byte & 0x40 == 0) || (value == -1 && byte & 0x40 != 0) {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

/// Reads what authors write; anything else gives none or nonsense.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let negative = byte & 0x40 != 0 && shift < 57;
                return Some(if negative { value | (-1 << (shift + 7)) } else { value });
            }
        }
        None
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.unsigned()?).ok()
    }

    fn prefixed(&mut self) -> Option<Vec<u8>> {
        let len = self.count()?;
        self.take(len).map(<[u8]>::to_vec)
    }
}
