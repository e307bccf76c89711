//! How far the wall clocks of members are apart, as answers to probes show it. It is for people; nothing rests on it.

use std::time::Duration;

use super::machine::Membership;
use crate::faults::Fault;
use crate::identity::NodeId;
use crate::sometimes;
use crate::time::{Instant, Wall};

/// What two clocks may drift apart: a thousandth, ten times what quartz does.
const DRIFT: u32 = 1_000;

/// What this node's own wall clock showed, and when it was told so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    shown: Wall,
    at: Instant,
}

/// How far the wall clock of a member is ahead of this node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// In milliseconds; negative where it is behind.
    pub ahead_ms: i64,
    /// How far that may be off either way: half the round trip that showed it, and a millisecond.
    pub within: Duration,
    /// When it was seen.
    pub at: Instant,
}

impl ClockOffset {
    /// What an answer shows that arrived at `now`, after a round trip of `rtt`, when the own clock showed `ours`: it was
    /// given at any moment of that.
    fn of(theirs: Wall, ours: Wall, rtt: Duration, now: Instant) -> Self {
        let half = rtt / 2;
        let half_ms = i64::try_from(half.as_millis()).unwrap_or(i64::MAX);
        let ahead_ms = theirs.0.saturating_sub(ours.0.saturating_sub(half_ms));
        Self { ahead_ms, within: half + Duration::from_millis(1), at: now }
    }

    /// How far it may be off at a later moment, where nobody has set a clock.
    fn within_at(&self, now: Instant) -> Duration {
        self.within + now.since(self.at) / DRIFT
    }

    fn agrees_with(&self, later: &Self) -> bool {
        let apart = Duration::from_millis(self.ahead_ms.abs_diff(later.ahead_ms));
        apart <= self.within_at(later.at) + later.within
    }
}

impl Membership {
    /// What this node's wall clock shows; from here on it is taken to run as the driver's monotonic clock does.
    pub fn set_wall(&mut self, shown: Wall, now: Instant) {
        self.reading = Some(Reading { shown, at: now });
    }

    /// What it shows at `now`; none where the driver has not said.
    pub(super) fn wall(&self, now: Instant) -> Option<Wall> {
        let Reading { shown, at } = self.reading?;
        let since = if self.faults.has(Fault::ClockStandsStill) { Duration::ZERO } else { now.since(at) };
        Some(Wall(shown.0.saturating_add(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))))
    }

    /// A member has answered with what its clock showed. The sharpest of what was seen stands, until it is old or a clock
    /// was set.
    pub(super) fn compare_clocks(&mut self, member: &NodeId, theirs: Option<Wall>, rtt: Duration, now: Instant) {
        let (Some(theirs), Some(ours)) = (theirs, self.wall(now)) else {
            return;
        };
        let Some(entry) = self.table.get_mut(member) else {
            return;
        };
        let seen = ClockOffset::of(theirs, ours, rtt, now);
        let held = &mut entry.contact_mut().clock;
        let stands = held.is_some_and(|held| held.agrees_with(&seen) && held.within_at(now) < seen.within);
        sometimes!("clock seen to be set", held.is_some_and(|held| !held.agrees_with(&seen)));
        if !stands {
            *held = Some(seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn an_answer_was_given_at_some_moment_of_its_round_trip() {
        let offset = ClockOffset::of(Wall(10_500), Wall(10_000), Duration::from_millis(100), at(1));
        assert_eq!((offset.ahead_ms, offset.within), (550, Duration::from_millis(51)));
        let behind = ClockOffset::of(Wall(9_000), Wall(10_000), Duration::ZERO, at(1));
        assert_eq!((behind.ahead_ms, behind.within), (-1_000, Duration::from_millis(1)));
        let absurd = ClockOffset::of(Wall(i64::MAX), Wall(i64::MIN), Duration::MAX, at(1));
        assert_eq!(absurd.ahead_ms, i64::MAX);
    }

    #[test]
    fn clocks_drift_and_are_set() {
        let offset = |ms, rtt, s| ClockOffset::of(Wall(ms), Wall(0), Duration::from_millis(rtt), at(s));
        let held = offset(0, 10, 0);
        assert!(held.agrees_with(&offset(0, 200, 1)), "less sharp, but the same");
        assert!(!held.agrees_with(&offset(500, 10, 1)), "half a second cannot come of drift so soon");
        assert!(held.agrees_with(&offset(500, 10, 1_000)), "but in a quarter of an hour");
        assert!(
            held.within_at(at(100)) > offset(0, 20, 100).within,
            "what is old gives way to what is nearly as sharp"
        );
    }
}
