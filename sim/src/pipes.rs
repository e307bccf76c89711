//! What lies between engines that level 1 leaves out: datagrams that are sealed, and streams that are, on a network that
//! loses, repeats, delays, misleads and alters what passes through it.
//!
//! Every run draws what happens and keeps its own account of it, which says what the other end has to make of it.

mod datagrams;
mod streams;

use bytes::Bytes;
use knot_engine::NodeKey;
use knot_engine::seal::ClusterKey;

use crate::draw::Draw;

/// What was promised and not kept, in words.
type Kept = Result<(), String>;

/// One run of each kind.
///
/// # Errors
/// What went otherwise than it has to.
pub fn run(seed: u64) -> Kept {
    datagrams::run(&mut Draw::new(seed, "sealed datagrams"), seed)?;
    streams::run(&mut Draw::new(seed, "sealed streams"), seed)
}

fn hold(holds: bool, broken: impl FnOnce() -> String) -> Kept {
    if holds { Ok(()) } else { Err(broken()) }
}

fn cluster_key(number: u8) -> ClusterKey {
    let text = format!("{number:03}-a-cluster-key-of-32-characters");
    ClusterKey::new(text.get(..32).unwrap_or_default()).expect("it is printable, and as long as it has to be")
}

fn node_key(draw: &mut Draw) -> NodeKey {
    NodeKey::from_bytes(draw.bytes())
}

/// Bytes in which nothing repeats.
fn noise(draw: &mut Draw, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new_keyed(&draw.bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// The same with one bit of it changed.
fn altered(draw: &mut Draw, bytes: &Bytes) -> Bytes {
    let mut other = bytes.to_vec();
    let (at, bit) = (draw.index(other.len()), draw.index(8));
    if let Some(byte) = other.get_mut(at) {
        *byte ^= 1 << bit;
    }
    other.into()
}

/// Whether somebody who reads along finds this in it.
fn shows(bytes: &[u8], secret: &[u8]) -> bool {
    const TELLING: usize = 12;
    secret.len() >= TELLING && bytes.windows(TELLING).any(|window| Some(window) == secret.get(..TELLING))
}

#[cfg(test)]
mod tests {
    #[test]
    fn pipes_keep_what_they_promise() {
        for seed in 0..40 {
            assert_eq!(super::run(seed), Ok(()), "seed {seed}");
        }
    }
}
