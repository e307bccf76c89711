//! Inputs that nobody wrote, from those that somebody did: what a test run tries where there is no fuzzer to learn from.

use knot_engine::Random;

/// Longest input that is made, as the fuzzer has it too.
const BYTES_MAX: usize = 8_192;
/// Alterations of one input.
const STEPS_MAX: u64 = 6;
/// Bytes that formats count, end or escape with.
const TELLING: [u8; 12] = [0x00, 0x01, 0x7f, 0x80, 0x81, 0xfe, 0xff, b'"', b'{', b'}', b'\\', b'\n'];

/// Alters inputs by chance; the same seed gives the same.
#[derive(Debug)]
pub struct Alterer {
    random: Random,
}

impl Alterer {
    /// For one target.
    pub fn new(target: &str) -> Self {
        Self { random: Random::new(&[0x5a; 32], target) }
    }

    /// One of `inputs`, altered in a few places; nothing of none.
    pub fn alter(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.pick(inputs).to_vec();
        for _ in 0..=self.random.below(STEPS_MAX) {
            self.step(&mut input, inputs);
        }
        input.truncate(BYTES_MAX);
        input
    }

    fn pick<'a>(&mut self, inputs: &'a [Vec<u8>]) -> &'a [u8] {
        inputs.get(self.random.index(inputs.len())).map_or(&[], Vec::as_slice)
    }

    fn step(&mut self, input: &mut Vec<u8>, inputs: &[Vec<u8>]) {
        let (from, to) = self.range(input.len());
        match self.random.below(7) {
            0 => {
                let bit = self.random.index(8);
                if let Some(byte) = input.get_mut(from) {
                    *byte ^= 1 << bit;
                }
            }
            1 => {
                let telling = TELLING.get(self.random.index(TELLING.len())).copied().unwrap_or_default();
                if let Some(byte) = input.get_mut(from) {
                    *byte = telling;
                }
            }
            2 => {
                let [any, ..] = self.random.bytes();
                input.insert(from, any);
            }
            3 => drop(input.drain(from..to)),
            4 => {
                let again = input.get(from..to).unwrap_or_default().to_vec();
                input.splice(from..from, again);
            }
            5 => input.truncate(from),
            _ => {
                let other = self.pick(inputs).to_vec();
                let (start, end) = self.range(other.len());
                input.splice(from..to, other.get(start..end).unwrap_or_default().iter().copied());
            }
        }
    }

    /// Two places in something of `len` bytes, in order; more often near each other than not.
    fn range(&mut self, len: usize) -> (usize, usize) {
        let from = self.random.index(len + 1);
        let most = if self.random.below(4) == 0 { len } else { len.min(from + 16) };
        (from, from + self.random.index(most - from + 1))
    }
}
