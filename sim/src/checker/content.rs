//! Datagrams hold nothing of documents, whoever may read them: content travels in streams alone.

use bytes::Bytes;
use knot_engine::Instant;

use super::durability::contains;
use super::{Checkers, Invariant};
use crate::scenario::ZONE_MARK;

/// What a server says of itself, and so what a datagram holds in the clear where it is not sealed.
const SAID_OF_ITSELF: &str = "http://";

/// What bytes between servers that are sealed give away, if they do.
#[cfg(any(feature = "l2", feature = "l3"))]
pub(crate) fn leak_in(bytes: &[u8]) -> Option<&'static str> {
    [ZONE_MARK, SAID_OF_ITSELF].into_iter().find(|canary| contains(bytes, canary.as_bytes()))
}

impl Checkers {
    /// A server sends a datagram.
    pub(crate) fn check_datagram(&mut self, node: usize, bytes: &Bytes, sealed: bool, now: Instant) {
        let canary = if sealed { SAID_OF_ITSELF } else { ZONE_MARK };
        if contains(bytes, canary.as_bytes()) {
            self.report(Invariant::NoPlaintext, now, node, || format!("a datagram holds {canary:?} in the clear"));
        }
    }
}
