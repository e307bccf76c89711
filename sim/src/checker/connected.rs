//! Servers that can reach each other hold a stream, be it through a third.

use std::time::Duration;

use knot_engine::Instant;

use super::{Checkers, Invariant};
use crate::network::CONNECT_TIMEOUT;

/// How long a server that starts again may take until it holds a stream with each that runs, where nothing is wrong:
/// its start on disk, an attempt at each that it remembers or is told of, and a lost packet or two. Attempts of the
/// other do not count: one that was begun while something was wrong may go unanswered for longer. So the time begins
/// when somebody knows where the other is, and anew when a stream of an earlier process opens late, in place of theirs.
pub const RECONNECT_WITHIN: Duration = Duration::from_secs(3);

/// How long a server may be without a stream to another that it cannot reach, while a third has long reached both: as long
/// as an attempt goes unanswered, the longest wait before the next and its own time, by when a suspicion is denied; and
/// the time of a third that does not answer.
const DETOUR_WITHIN: Duration = Duration::from_secs(25);

impl Checkers {
    /// A server holds no stream with another that it cannot reach itself, while a third reaches both.
    pub(crate) fn check_detour(&mut self, node: usize, other: usize, lacking: Duration, now: Instant) {
        if lacking >= DETOUR_WITHIN {
            self.report(Invariant::Connected, now, node, || {
                format!("it has no stream with n{other} for {lacking:?}, and others reach both")
            });
        }
    }

    /// A server speaks with another through a third, when it could have tried a straight way twice.
    pub(crate) fn check_straight(&mut self, node: usize, other: usize, retry: Duration, well: Duration, now: Instant) {
        if well >= (retry + CONNECT_TIMEOUT) * 2 {
            self.report(Invariant::Connected, now, node, || {
                format!("it still speaks with n{other} through a third, {well:?} after a straight way was there again")
            });
        }
    }

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
