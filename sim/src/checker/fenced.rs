//! Of two processes of one server, which a copied folder makes, one steps back and takes no writes; nobody else does.

use std::time::Duration;

use knot_engine::Instant;

use super::{Checkers, Invariant};

/// How often one process of a server has to hear that the other has risen above it before it takes that for alive.
const RISES: u32 = 4;
/// Others take the stream of either for that of a new start and hang up on the one before, so that it has to connect again:
/// the membership's longest wait before that, a handshake and a comparison of tables.
const HEARS_AGAIN: Duration = Duration::from_secs(5 + 1);

/// How long two processes of one server may go on beside each other where nothing else is wrong.
pub const FENCED_WITHIN: Duration = HEARS_AGAIN.saturating_mul(RISES);

impl Checkers {
    /// A process has stepped back though no other of its server has lived while it did.
    pub(crate) fn report_lone(&mut self, node: usize, now: Instant) {
        self.report(Invariant::NotFenced, now, node, || "it is the only process of its server".to_owned());
    }

    /// Two processes of one server have both stepped back.
    pub(crate) fn report_both_fenced(&mut self, [node, double]: [usize; 2], now: Instant) {
        self.report(Invariant::OneStepsBack, now, node, || {
            format!("n{double}, the other process of its server, has stepped back already")
        });
    }

    /// Two processes of one server have been reachable, with nothing else wrong, for `well`, and so many have stepped back.
    pub(crate) fn check_doubles(&mut self, [node, double]: [usize; 2], fenced: usize, well: Duration, now: Instant) {
        if fenced != 1 && well >= FENCED_WITHIN {
            self.report(Invariant::OneStepsBack, now, node, || {
                format!("n{double} is the same server; after {well:?} {fenced} of the two have stepped back")
            });
        }
    }

    /// A server acknowledges a write. It has not stepped back before that was asked for.
    pub(crate) fn check_not_fenced(&mut self, node: usize, id: u32, fenced: Option<Instant>, now: Instant) {
        let is_late = |fenced: Instant| self.ledger.get(id).is_some_and(|write| write.asked > fenced);
        if let Some(fenced) = fenced.filter(|fenced| is_late(*fenced)) {
            let write = self.describe(id);
            self.report(Invariant::FencedTakesNone, now, node, || {
                format!("it stepped back at {fenced}, and acknowledges {write}")
            });
        }
    }
}
