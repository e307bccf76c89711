//! What a server has denied is held against it no longer.

use std::time::Duration;

use knot_engine::Instant;

use super::{Checkers, Invariant};

/// Between two knocks at members of whom something is held against, at most; they take turns.
const KNOCK: Duration = Duration::from_millis(1_500);
/// A knock's way, and that of the answer.
const ROUND_TRIP: Duration = Duration::from_secs(1);

/// How long somebody may go on with an accusation that was denied where datagrams pass and none is lost: until it has
/// knocked at each of those that it accuses.
fn heard_within(accused: usize) -> Duration {
    KNOCK * u32::try_from(accused).unwrap_or(u32::MAX) + ROUND_TRIP
}

impl Checkers {
    /// For `lasting` a server has held something against another, among `accused` at most, that the other has denied.
    pub(crate) fn check_denial(
        &mut self,
        (node, subject): (usize, usize),
        lasting: Duration,
        accused: usize,
        now: Instant,
    ) {
        if lasting > heard_within(accused) {
            self.report(Invariant::DenialHeard, now, node, || {
                format!("it accuses n{subject}, which has denied that, and for {lasting:?} could have said so")
            });
        }
    }
}
