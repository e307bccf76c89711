//! Which counters of a peer were seen.

/// Counters behind the highest one, itself included, that are told apart; all older ones count as seen.
pub const REPLAY_WINDOW: u64 = 2_048;

const WORD_BITS: u64 = 64;
const WORDS: usize = 32;
const _: () = assert!(WORDS as u64 * WORD_BITS == REPLAY_WINDOW);

/// The counters of one sender under one key that have been accepted.
///
/// A counter's bit sits at its value modulo the width, so the window moves by clearing the bits it passes over.
#[derive(Clone, Debug, Default)]
pub struct ReplayWindow {
    /// None until the first counter is accepted.
    highest: Option<u64>,
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// A window that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// True when `counter` was neither accepted before nor is too old to tell.
    #[must_use]
    pub fn is_fresh(&self, counter: u64) -> bool {
        match self.highest {
            None => true,
            Some(highest) if counter > highest => true,
            Some(highest) => {
                let (word, bit) = place(counter);
                highest - counter < REPLAY_WINDOW && self.seen.get(word).is_some_and(|bits| bits & bit == 0)
            }
        }
    }

    /// Marks `counter` as seen; false when it was not fresh.
    pub fn accept(&mut self, counter: u64) -> bool {
        if !self.is_fresh(counter) {
            return false;
        }
        match self.highest {
            None => self.highest = Some(counter),
            Some(highest) if counter > highest => {
                self.pass_over(highest, counter);
                self.highest = Some(counter);
            }
            Some(_) => {}
        }
        let (word, bit) = place(counter);
        if let Some(bits) = self.seen.get_mut(word) {
            *bits |= bit;
        }
        true
    }

    fn pass_over(&mut self, highest: u64, counter: u64) {
        if counter - highest >= REPLAY_WINDOW {
            self.seen = [0; WORDS];
            return;
        }
        for passed in highest + 1..=counter {
            let (word, bit) = place(passed);
            if let Some(bits) = self.seen.get_mut(word) {
                *bits &= !bit;
            }
        }
    }
}

fn place(counter: u64) -> (usize, u64) {
    let slot = counter % REPLAY_WINDOW;
    let word = usize::try_from(slot / WORD_BITS).unwrap_or(0);
    (word, 1 << (slot % WORD_BITS))
}
