//! What a server's log says is what the server shows: an engine that starts from the disk alone has the same roots.

use knot_engine::{Instant, ScopeStatus};

use super::{Checkers, Invariant};

impl Checkers {
    /// A running server's scopes, and those of an engine that has just read its disk.
    pub(crate) fn check_replay(&mut self, node: usize, shown: &[ScopeStatus], replayed: &[ScopeStatus], now: Instant) {
        for scope in shown {
            let again = replayed.iter().find(|other| other.scope == scope.scope);
            if again != Some(scope) {
                self.report(Invariant::ReplayEqual, now, node, || {
                    format!("the server shows {scope:?}, and its disk holds {again:?}")
                });
            }
        }
    }
}
