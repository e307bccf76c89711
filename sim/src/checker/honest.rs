//! No server makes claims that their subject does not own up to.

use knot_engine::{Instant, Stats};

use super::{Checkers, Invariant};

/// The engine's name for such claims.
const DISOWNED: &str = "claim that its subject disowns";

impl Checkers {
    /// Looks at what a server has dropped. All servers here are honest, so whoever is said to have spoken has.
    pub(crate) fn check_honest(&mut self, node: usize, stats: &Stats, now: Instant) {
        let disowned = stats.drops.get(DISOWNED).copied().unwrap_or_default();
        if disowned > 0 {
            self.report(Invariant::HonestBelieved, now, node, || {
                format!("{disowned} claims of honest servers counted as nobody's")
            });
        }
    }
}
