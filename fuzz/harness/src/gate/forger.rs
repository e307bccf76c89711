//! How a forger alters a change, as an input describes it.

use bytes::Bytes;

use super::parts::{HASH_BYTES, Parts, hash, signed, unsigned};
use crate::Script;

/// Columns that there are, and some that there are not.
const COLUMNS: [u64; 16] =
    [0x01, 0x02, 0x11, 0x13, 0x15, 0x34, 0x42, 0x56, 0x57, 0x70, 0x71, 0x73, 0x00, 0x61, 0x94, 0xa5];

/// What a forger has seen: changes to begin with, and hashes and authors to refer to.
#[derive(Debug)]
pub struct Pool {
    changes: Vec<Parts>,
    hashes: Vec<[u8; HASH_BYTES]>,
    actors: Vec<Vec<u8>>,
}

impl Pool {
    /// Changes that were seen on the wire.
    pub fn of(changes: &[Bytes]) -> Self {
        let mut pool =
            Self { changes: Vec::new(), hashes: vec![[0; HASH_BYTES], [0xff; HASH_BYTES]], actors: Vec::new() };
        changes.iter().for_each(|change| pool.add(change));
        pool.actors.extend([vec![], vec![7; 16], vec![7; 24], vec![7; 25]]);
        pool
    }

    /// One more, which is a well-formed change.
    pub fn add(&mut self, change: &Bytes) {
        let parts = Parts::read(change).expect("what passed as a change has its fields");
        self.hashes.push(hash(change));
        self.hashes.extend(parts.deps.iter().copied());
        self.actors.push(parts.actor.clone());
        self.changes.push(parts);
    }

    /// How many changes it has.
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// One of them.
    pub fn parts(&self, index: usize) -> Parts {
        self.changes[index].clone()
    }

    fn hash(&self, script: &mut Script<'_>) -> [u8; HASH_BYTES] {
        self.hashes[script.index(self.hashes.len())]
    }

    fn actor(&self, script: &mut Script<'_>) -> Vec<u8> {
        self.actors[script.index(self.actors.len())].clone()
    }
}

impl Parts {
    /// Alters a field.
    pub fn alter(&mut self, script: &mut Script<'_>, pool: &Pool) {
        match script.byte() % 20 {
            0 => self.seq = script.number(),
            1 => self.start_op = script.number(),
            2 => self.time = script.number().cast_signed(),
            3 => self.message = script.bytes().to_vec(),
            4 => self.actor = pool.actor(script),
            5 => self.actor = script.bytes().to_vec(),
            6 => self.deps.push(pool.hash(script)),
            7 => {
                let at = script.index(self.deps.len());
                if let Some(dep) = self.deps.get_mut(at) {
                    *dep = pool.hash(script);
                }
            }
            8 => drop(remove(&mut self.deps, script)),
            9 => self.ordered = false,
            10 => self.actors.push(pool.actor(script)),
            11 => drop(remove(&mut self.actors, script)),
            12 => self.extra = script.bytes().to_vec(),
            13 => self.checksum_flip = script.byte(),
            14 => drop(remove(&mut self.columns, script)),
            15 => {
                let column = COLUMNS[script.index(COLUMNS.len())];
                self.columns.push((column, script.bytes().to_vec()));
                self.columns.sort_by_key(|(column, _)| *column);
            }
            16 => self.alter_column(script, |script, data| *data = script.bytes().to_vec()),
            17 => self.alter_column(script, |script, data| {
                let at = script.index(data.len() + 1);
                let end = data.len().min(at + usize::from(script.byte() & 3));
                data.splice(at..end, script.bytes().iter().copied());
            }),
            18 => self.alter_column(script, |script, data| {
                let at = script.index(data.len());
                if let Some(byte) = data.get_mut(at) {
                    *byte ^= script.byte();
                }
            }),
            _ => self.alter_column(script, |script, data| {
                // Runs: a count, and what is there so often.
                data.clear();
                for _ in 0..=script.byte() & 3 {
                    signed(data, script.number().cast_signed());
                    unsigned(data, script.number());
                }
            }),
        }
    }

    fn alter_column(&mut self, script: &mut Script<'_>, alter: impl FnOnce(&mut Script<'_>, &mut Vec<u8>)) {
        let at = script.index(self.columns.len());
        if let Some((_, data)) = self.columns.get_mut(at) {
            alter(script, data);
        }
    }
}

fn remove<T>(list: &mut Vec<T>, script: &mut Script<'_>) -> Option<T> {
    let at = script.index(list.len());
    (at < list.len()).then(|| list.remove(at))
}
