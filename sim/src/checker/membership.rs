//! A healthy reachable member is not declared failed. (That a dead one is noticed is checked where views settle.)

use std::time::Duration;

use knot_engine::Instant;
use knot_engine::membership::Status;

use super::{Checkers, Invariant};

/// How long all must have been well before a failure that is declared counts as wrong: long enough for a suspicion that
/// is denied to have reached the one it is about and come back.
pub const ACCURACY_GRACE: Duration = Duration::from_secs(6);
/// Datagrams lost of a thousand up to which all is well. An envelope, not a limit: at more, failures are allowed.
pub const LOSS_ENVELOPE: u64 = 20;

/// A transition that one server reports about another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observation {
    pub(crate) observer: usize,
    pub(crate) subject: usize,
    pub(crate) to: Status,
    /// How long no packet, process or machine has been disturbed; none while one is.
    pub(crate) calm_for: Option<Duration>,
    /// How long the subject's process has run; none when it does not.
    pub(crate) up_for: Option<Duration>,
    /// Whether another server believed it before: then this is its echo.
    pub(crate) is_echo: bool,
}

impl Checkers {
    /// A server's belief about another changed.
    pub(crate) fn check_accuracy(&mut self, seen: &Observation, now: Instant) {
        let lasted = |time: Option<Duration>| time.is_some_and(|time| time >= ACCURACY_GRACE);
        let gone = matches!(seen.to, Status::Failed | Status::Left);
        if gone && !seen.is_echo && lasted(seen.calm_for) && lasted(seen.up_for) {
            let (subject, to) = (seen.subject, seen.to);
            let calm = seen.calm_for.unwrap_or_default();
            self.report(Invariant::MembershipAccurate, now, seen.observer, || {
                format!("n{subject} is declared {to:?}; it is well, and nothing was wrong for {calm:?}")
            });
        }
    }
}
