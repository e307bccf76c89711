//! SHA-256 (FIPS 180-4), by which Automerge names changes.
//!
//! For changes encoded here. Automerge has no way to ask for a hash but to have it read the whole change again, which for
//! a document of usual size takes several times as long as the hash.

/// Fractional parts of the cube roots of the first 64 primes.
#[rustfmt::skip]
const ROUNDS: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
];
/// Fractional parts of the square roots of the first 8 primes.
#[rustfmt::skip]
const INITIAL: [u32; 8] = [
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
];
const BLOCK_BYTES: usize = 64;
const WORD_BYTES: usize = 4;
const LENGTH_BYTES: usize = 8;

/// The digest of `message`.
pub(super) fn digest(message: &[u8]) -> [u8; 32] {
    let mut state = INITIAL;
    let (blocks, rest) = message.as_chunks::<BLOCK_BYTES>();
    blocks.iter().for_each(|block| compress(&mut state, block));

    let bits = (message.len() as u64) << 3;
    let mut padded = Vec::with_capacity(2 * BLOCK_BYTES);
    padded.extend_from_slice(rest);
    padded.push(0x80);
    let blocks = (padded.len() + LENGTH_BYTES).div_ceil(BLOCK_BYTES);
    padded.resize(blocks * BLOCK_BYTES - LENGTH_BYTES, 0);
    padded.extend_from_slice(&bits.to_be_bytes());
    padded.as_chunks::<BLOCK_BYTES>().0.iter().for_each(|block| compress(&mut state, block));

    let mut digest = [0; 32];
    for (bytes, word) in digest.as_chunks_mut::<WORD_BYTES>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    digest
}

fn compress(state: &mut [u32; 8], block: &[u8; BLOCK_BYTES]) {
    let mut schedule = [0; ROUNDS.len()];
    for (word, bytes) in schedule.iter_mut().zip(block.as_chunks::<WORD_BYTES>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    for at in 16..ROUNDS.len() {
        let (near, far) = (schedule[at - 2], schedule[at - 15]);
        let near = near.rotate_right(17) ^ near.rotate_right(19) ^ (near >> 10);
        let far = far.rotate_right(7) ^ far.rotate_right(18) ^ (far >> 3);
        schedule[at] = schedule[at - 16].wrapping_add(far).wrapping_add(schedule[at - 7]).wrapping_add(near);
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for (constant, word) in ROUNDS.into_iter().zip(schedule) {
        let sum = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let choice = (e & f) ^ (!e & g);
        let first = h.wrapping_add(sum).wrapping_add(choice).wrapping_add(constant).wrapping_add(word);
        let sum = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        let second = sum.wrapping_add(majority);
        (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(first), c, b, a, first.wrapping_add(second));
    }
    for (word, mixed) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = word.wrapping_add(mixed);
    }
}

#[cfg(test)]
mod tests {
    use automerge::transaction::CommitOptions;
    use automerge::{ActorId, Automerge, ReadDoc};

    use super::*;

    fn hex(message: &[u8]) -> String {
        digest(message).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_examples_of_nist_hold() {
        let cases = [
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            ),
        ];
        for (message, expected) in cases {
            assert_eq!(hex(message.as_bytes()), expected);
        }
        let million = "a".repeat(1_000_000);
        assert_eq!(hex(million.as_bytes()), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }

    #[test]
    fn every_length_of_the_last_block_is_hashed_as_automerge_hashes_it() {
        for length in 0..2 * BLOCK_BYTES {
            let message = "m".repeat(length);
            let mut doc = Automerge::new();
            doc.set_actor(ActorId::from(&[1; 24][..]));
            let hash = doc.empty_commit(CommitOptions::default().with_message(message));
            let change = doc.get_change_by_hash(&hash).expect("it was just committed");
            assert_eq!(digest(&change.raw_bytes()[8..]), hash.0, "{length}");
        }
    }
}
