//! Draws of a simulated run: named streams, so that taking one event out of a scenario moves no other draw.

use knot_engine::{Random, Seed};

/// The 32 bytes that a seed's number stands for.
#[must_use]
pub fn seed_bytes(seed: u64) -> Seed {
    blake3::derive_key("knot 2026 simulator seed", &seed.to_le_bytes())
}

/// One stream of draws.
#[derive(Clone, Debug)]
pub(crate) struct Draw(Random);

impl Draw {
    /// The stream of `seed` that `name` names.
    #[must_use]
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        Self(Random::new(&seed_bytes(seed), name))
    }

    /// True `per_mille` times in a thousand. Draws nothing when it is never true.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.0.below(1_000) < per_mille
    }

    /// A number from `low` up to but not including `high`; `low` when the range is empty.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.below(high.saturating_sub(low))
    }

    /// A number whose mean is `mean`, spread as the times between events that know nothing of each other, to the nearest
    /// of 64 steps. At most eight times the mean.
    pub(crate) fn exponential(&mut self, mean: u64) -> u64 {
        // The number of fair coins that fall alike is geometric; between two powers of two it is all but exponential.
        let mut halvings = 0;
        while halvings < 11 && self.chance(500) {
            halvings += 1;
        }
        let within = self.between(0, 64);
        // A halving is worth ln 2 of the mean.
        (mean * (halvings * 64 + within) * 693 / 64_000).min(8 * mean)
    }

    /// An index below `len`.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.0.index(len)
    }

    /// One of `items`.
    ///
    /// # Panics
    /// When there are none.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.0.index(items.len())]
    }

    /// Puts `items` into a random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        self.0.shuffle(items);
    }

    /// Thirty-two fresh bytes.
    pub(crate) fn bytes(&mut self) -> Seed {
        self.0.bytes()
    }
}
