//! Log lines that a stranger can cause, at a bounded rate.

use std::time::Duration;

use tokio::time::Instant;

/// One line in this long, however often its cause comes back.
const INTERVAL: Duration = Duration::from_secs(10);

/// Lets one report through an interval, and counts the rest.
#[derive(Debug, Default)]
pub(super) struct RateLimited {
    last: Option<Instant>,
    suppressed: u64,
}

impl RateLimited {
    /// Calls `report` with how many were suppressed since the last one, unless that was just now.
    pub(super) fn report(&mut self, report: impl FnOnce(u64)) {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            self.suppressed += 1;
            return;
        }
        self.last = Some(now);
        report(std::mem::take(&mut self.suppressed));
    }
}
