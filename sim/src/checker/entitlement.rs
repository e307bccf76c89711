//! A zone's documents never leave it.

use bytes::Bytes;
use knot_engine::Instant;

use super::durability::contains;
use super::{Checkers, Invariant};
use crate::scenario::ZONE_MARK;

impl Checkers {
    /// A server sends a frame to another: it names no document of a zone that the other is not in.
    pub(crate) fn check_entitled(&mut self, (from, to): (usize, usize), frame: &Bytes, now: Instant) {
        if self.zones[from] == self.zones[to] || !contains(frame, ZONE_MARK.as_bytes()) {
            return;
        }
        let allowed = format!("{ZONE_MARK}{}.", self.zones[to]);
        let mark = ZONE_MARK.as_bytes();
        let foreign =
            frame.windows(allowed.len()).find(|window| window.starts_with(mark) && *window != allowed.as_bytes());
        if let Some(foreign) = foreign {
            let name = String::from_utf8_lossy(foreign).into_owned();
            let zone = self.zones[to].clone();
            self.report(Invariant::ScopeEntitlement, now, from, || {
                format!("a frame to n{to} in zone {zone} holds {name:?}")
            });
        }
    }
}
