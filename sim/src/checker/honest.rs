//! No server makes claims that their subject does not own up to.

use knot_engine::{Instant, Stats};

use super::{Checkers, Invariant};

/// The engine's names for what no honest server says.
const DISHONEST: [&str; 3] = ["claim that its subject disowns", "malformed frame", "malformed datagram"];

impl Checkers {
    /// Looks at what a server has dropped. All servers here are honest, so whoever is said to have spoken has.
    pub(crate) fn check_honest(&mut self, node: usize, stats: &Stats, now: Instant) {
        for what in DISHONEST {
            let heard = stats.drops.get(what).copied().unwrap_or_default();
            if heard > 0 {
                let detail = || format!("{heard} times it took what an honest server said for a {what}");
                self.report(Invariant::HonestBelieved, now, node, detail);
            }
        }
    }
}
