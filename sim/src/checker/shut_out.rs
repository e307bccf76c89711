//! Who is evicted gets nothing from a server that knows it, but word that it is evicted.

use knot_engine::Instant;

use super::{Checkers, Invariant};

impl Checkers {
    /// A server that holds another's eviction sends it something.
    pub(crate) fn check_shut_out(&mut self, node: usize, to: usize, what: &str, now: Instant) {
        self.report(Invariant::ShutOut, now, node, || {
            format!("it sends {what} to n{to}, which it knows to be evicted")
        });
    }
}
