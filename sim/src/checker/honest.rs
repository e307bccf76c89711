//! No server makes claims that their subject does not own up to.

use knot_engine::{Instant, Stats};

use super::{Checkers, Invariant};

/// The engine's names for what no honest server says ...
const DISHONEST: [&str; 2] = ["claim that its subject disowns", "malformed datagram"];
/// ... and for what a hostile one does say.
const MALFORMED: &str = "malformed frame";

impl Checkers {
    /// Looks at what a server has dropped: whoever is said to have spoken has.
    pub(crate) fn check_honest(&mut self, node: usize, stats: &Stats, all_honest: bool, now: Instant) {
        for what in DISHONEST.into_iter().chain(all_honest.then_some(MALFORMED)) {
            let heard = stats.drops.get(what).copied().unwrap_or_default();
            if heard > 0 {
                let detail = || format!("{heard} times it took what an honest server said for a {what}");
                self.report(Invariant::HonestBelieved, now, node, detail);
            }
        }
    }
}
