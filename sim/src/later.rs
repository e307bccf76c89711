//! What servers of a later version say besides: kinds of frames and datagrams that this version has never heard of.
//!
//! A cluster is upgraded server by server, so for a while both versions talk. A receiver skips a kind that it does not
//! know, and nothing else changes.

use bytes::Bytes;
use knot_engine::membership;

use crate::draw::Draw;

/// Of a thousand frames or datagrams, those after which something unknown is said.
const SAYS_PER_MILLE: u64 = 100;
/// The first kind that is still free; later versions count on from here.
const KIND_MIN: u8 = 100;
/// Longest such frame, in bytes.
const FRAME_BYTES_MAX: usize = 2_000;

/// Draws what they say.
#[derive(Debug)]
pub(crate) struct Later(Draw);

impl Later {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Draw::new(seed, "later version"))
    }

    /// A frame that no engine of this version knows, now and then.
    pub(crate) fn frame(&mut self) -> Option<Bytes> {
        self.says(FRAME_BYTES_MAX)
    }

    /// The same as a datagram.
    pub(crate) fn datagram(&mut self) -> Option<Bytes> {
        self.says(membership::DATAGRAM_BYTES_MAX)
    }

    fn says(&mut self, bytes_max: usize) -> Option<Bytes> {
        if !self.0.chance(SAYS_PER_MILLE) {
            return None;
        }
        let bytes = 1 + self.0.index(bytes_max - 1);
        let drawn = self.0.bytes();
        let kind = KIND_MIN + drawn[0] % (u8::MAX - KIND_MIN);
        Some(std::iter::once(kind).chain(drawn.into_iter().cycle()).take(bytes).collect())
    }
}
