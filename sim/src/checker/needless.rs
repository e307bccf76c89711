//! Replicas that hold the same are not repaired again and again.

use std::collections::BTreeMap;
use std::time::Duration;

use knot_engine::Instant;

use super::{Checkers, Invariant};

/// How long nothing may have been wrong, and the peer may have stored nothing, before a needless repair counts: what
/// was late on its way has arrived by then, and so has what the peer said before it stored that. Two streams that are
/// opened at once bring two such words, and at the first word of a stream a repair begins without delay.
pub(crate) const NEEDLESS_AFTER: Duration = Duration::from_secs(5);
/// Needless repairs in a row that may be. One root may be overtaken by an older one on its way; the repair that follows
/// from it puts that right.
const NEEDLESS_MAX: u32 = 1;

/// Needless repairs in a row, with the root that both sides had: by server, peer and scope.
pub(super) type Needless = BTreeMap<(usize, usize, String), (String, u32)>;

impl Checkers {
    /// A server begins a repair with a peer that holds what it does itself, where nothing was wrong, and
    /// the peer stored nothing, of late.
    pub(crate) fn check_needless(&mut self, (node, peer): (usize, usize), scope: &str, root: &str, now: Instant) {
        let entry = self.needless.entry((node, peer, scope.to_owned())).or_default();
        let again = if entry.0 == root { entry.1 + 1 } else { 1 };
        *entry = (root.to_owned(), again);
        if again > NEEDLESS_MAX {
            self.report(Invariant::RepairsNeeded, now, node, || {
                format!("it repairs {scope} with n{peer}, which holds the same, {again} times in a row")
            });
        }
    }
}
