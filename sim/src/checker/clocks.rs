//! How far a server says that the clocks of others are ahead of its own.

use std::time::Duration;

use knot_engine::Instant;
use knot_engine::membership::{ClockOffset, Member};

use super::{Checkers, Invariant};

/// Two roundings to milliseconds, of readings that are told and of those that are compared here.
const ROUNDING: Duration = Duration::from_millis(2);

/// What two servers' wall clocks show, as only the simulator sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    /// How far the member's is ahead, in milliseconds.
    pub(crate) ahead_ms: i64,
    /// How far the two may have drifted apart since it was compared.
    pub(crate) drift: Duration,
}

impl Checkers {
    /// At the end: neither clock was set since a server last compared them, and it found what they show.
    pub(crate) fn check_clocks(
        &mut self,
        node: usize,
        member: &Member,
        seen: ClockOffset,
        shown: Clocks,
        now: Instant,
    ) {
        let apart = Duration::from_millis(seen.ahead_ms.abs_diff(shown.ahead_ms));
        if apart > seen.within + shown.drift + ROUNDING {
            self.report(Invariant::ClocksCompared, now, node, || {
                let (name, within) = (&member.record.name, seen.within);
                let (said, is) = (seen.ahead_ms, shown.ahead_ms);
                format!("it has the clock of {name} {said} ms ahead, to {within:?}, and that is {is} ms ahead")
            });
        }
    }
}
