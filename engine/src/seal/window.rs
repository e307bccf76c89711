//! Which counters of a peer were seen.

/// Counters behind the highest one, itself included, that are told apart; all older ones count as seen.
pub const REPLAY_WINDOW: u64 = 2_048;

const WORD_BITS: u64 = 64;
const WORDS: usize = 32;
const _: () = assert!(WORDS as u64 * WORD_BITS == REPLAY_WINDOW);

/// The counters of one sender under one key that have been accepted.
///
/// A counter's bit sits at its value modulo the width, so the window moves by clearing the bits it passes over. Of most
/// members of a large cluster no more than a few datagrams ever come, whose counters fit one word.
#[derive(Clone, Debug, Default)]
pub struct ReplayWindow {
    /// None until the first counter is accepted.
    highest: Option<u64>,
    seen: Seen,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    /// Counters below [`WORD_BITS`], while there are no others.
    few: u64,
    many: Option<Box<[u64; WORDS]>>,
}

impl Seen {
    fn word(&self, word: usize) -> u64 {
        match &self.many {
            Some(words) => words.get(word).copied().unwrap_or(u64::MAX),
            None if word == 0 => self.few,
            None => 0,
        }
    }

    /// All words, which one counter beyond the first of them needs.
    fn words(&mut self) -> &mut [u64; WORDS] {
        let few = self.few;
        self.many.get_or_insert_with(|| {
            let mut words = Box::new([0; WORDS]);
            words.iter_mut().take(1).for_each(|first| *first = few);
            words
        })
    }

    fn mark(&mut self, counter: u64) {
        let (word, bit) = place(counter);
        if self.many.is_none() && counter < WORD_BITS {
            self.few |= bit;
        } else if let Some(bits) = self.words().get_mut(word) {
            *bits |= bit;
        }
    }
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
                highest - counter < REPLAY_WINDOW && self.seen.word(word) & bit == 0
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
        self.seen.mark(counter);
        true
    }

    fn pass_over(&mut self, highest: u64, counter: u64) {
        if counter < WORD_BITS {
            // Nothing in the only word is that of a counter a window before.
            return;
        }
        let words = self.seen.words();
        if counter - highest >= REPLAY_WINDOW {
            *words = [0; WORDS];
            return;
        }
        for passed in highest + 1..=counter {
            let (word, bit) = place(passed);
            if let Some(bits) = words.get_mut(word) {
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
