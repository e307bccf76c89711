//! Servers that can reach each other hold a stream.

use std::time::Duration;

use knot_engine::Instant;

use super::{Checkers, Invariant};

/// How long a server that starts again may take until it holds a stream with each that runs, where nothing is wrong:
/// its start on disk, an attempt at each that it remembers or is told of, and a lost packet or two. Attempts of the
/// other do not count: one that was begun while something was wrong may go unanswered for longer. So the time begins
/// when somebody knows where the other is, and anew when a stream of an earlier process opens late, in place of theirs.
pub const RECONNECT_WITHIN: Duration = Duration::from_secs(3);

impl Checkers {
    /// A server that has started again, with nothing wrong since, holds no stream with another after `waited`.
    pub(crate) fn check_reconnected(&mut self, node: usize, other: usize, waited: Duration, now: Instant) {
        if waited >= RECONNECT_WITHIN {
            self.report(Invariant::Connected, now, node, || {
                format!(
                    "it started again {waited:?} ago, and has no stream with n{other}, which runs and can be reached"
                )
            });
        }
    }
}
