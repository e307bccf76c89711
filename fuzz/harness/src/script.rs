//! An input as a description: numbers and bytes in the order in which a target asks for them.

/// What is left of an input. At its end every number is 0 and every run of bytes empty, so that any input means something.
#[derive(Clone, Copy, Debug)]
pub struct Script<'a>(&'a [u8]);

/// Numbers at which code is wrong by one.
const TELLING: [u64; 16] = [
    0,
    1,
    2,
    0x3f,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    0x1_0000_0000,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

impl<'a> Script<'a> {
    /// Begins at the front of `input`.
    pub fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let (byte, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *byte
    }

    /// A place in something of `len` entries; 0 where it has none.
    pub fn index(&mut self, len: usize) -> usize {
        usize::from(self.byte()).checked_rem(len).unwrap_or(0)
    }

    /// A number: telling, small, or any.
    pub fn number(&mut self) -> u64 {
        let how = self.byte();
        match how >> 6 {
            0 => TELLING[usize::from(how) % TELLING.len()],
            1 => u64::from(how & 0x3f),
            2 => TELLING[usize::from(how) % TELLING.len()].wrapping_add(u64::from(self.byte())),
            _ => (0..how & 7).fold(u64::from(self.byte()), |number, _| number << 8 | u64::from(self.byte())),
        }
    }

    /// A run of bytes behind its length, which takes two bytes.
    pub fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(u16::from_le_bytes([self.byte(), self.byte()]));
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// `bytes` as [`Script::bytes`] reads them.
///
/// # Panics
/// When they are more than two bytes can count.
pub fn written(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("a run of an input is short");
    [&len.to_le_bytes()[..], bytes].concat()
}
