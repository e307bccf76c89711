//! Randomness that is a pure function of a seed, a stream and a counter.
//!
//! Each part of the engine forks its own stream, so that one more draw in one part moves no draw in another. That keeps
//! a simulated failure the same when an unrelated event is removed from its scenario.

/// The seed an engine is started with. A driver draws it from the operating system, a simulator from its scenario.
pub type Seed = [u8; 32];

/// A deterministic stream of draws.
#[derive(Clone, Debug)]
pub struct Random {
    key: Seed,
    counter: u64,
}

impl Random {
    /// The stream that `seed` and `part` name.
    #[must_use]
    pub fn new(seed: &Seed, part: &str) -> Self {
        Self { key: *blake3::keyed_hash(seed, part.as_bytes()).as_bytes(), counter: 0 }
    }

    /// A stream of its own for `part`, independent of how much was drawn here.
    #[must_use]
    pub fn fork(&self, part: &str) -> Self {
        Self::new(&self.key, part)
    }

    /// Thirty-two fresh bytes.
    pub fn bytes(&mut self) -> [u8; 32] {
        self.counter += 1;
        *blake3::keyed_hash(&self.key, &self.counter.to_le_bytes()).as_bytes()
    }

    /// Sixteen fresh bytes.
    pub fn bytes16(&mut self) -> [u8; 16] {
        let [bytes @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = self.bytes();
        bytes
    }

    /// Sixty-four fresh bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// A number below `bound`, or zero when `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// An index below `len`, or zero when `len` is zero.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// Puts `items` into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.index(last + 1);
            items.swap(last, other);
        }
    }
}
