//! Streams that were opened for a need are closed when they have been idle.
//!
//! Only who opened one closes it: it knows that it was not opened for good. Where each holds a stream with each, nothing
//! is closed at all.

use std::time::Duration;

use crate::documents::Document;
use crate::engine::Engine;
use crate::identity::{NodeId, SessionId};
use crate::membership::Closed;
use crate::time::Instant;

/// Between two looks for idle streams.
const SWEEP: Duration = Duration::from_secs(10);
/// A stream that nothing went through for this long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// The same while there are more than [`STREAMS_MAX`].
const IDLE_CROWDED: Duration = Duration::from_secs(5);
/// Streams at which those that are idle are closed sooner.
const STREAMS_MAX: usize = 128;

impl<D: Document> Engine<D> {
    /// Looks for idle streams later, unless that is planned, or there are none to be closed.
    pub(super) fn plan_sweep(&mut self, now: Instant) {
        if self.sweep.is_none() && !self.membership.is_full_mesh() {
            self.sweep = Some(now + SWEEP);
        }
    }

    pub(super) fn sweep(&mut self, now: Instant) {
        if self.sweep.is_none_or(|at| at > now) {
            return;
        }
        self.sweep = None;
        if self.membership.is_full_mesh() {
            return;
        }
        let idle = if self.sessions.len() > STREAMS_MAX { IDLE_CROWDED } else { IDLE };
        let held = |(peer, session): &(NodeId, SessionId)| {
            let used = self.sessions.used(*session).is_none_or(|used| now.since(used) < idle);
            used || self.membership.is_neighbour(peer) || !self.sessions.is_mine(*session)
        };
        let (held, spare): (Vec<_>, Vec<_>) = self.sessions.peers().partition(held);
        for (peer, session) in spare {
            self.hang_up(session, "nothing needs it");
            self.membership.on_session_closed(peer, Closed::Local, now);
        }
        let more =
            held.iter().any(|(peer, session)| self.sessions.is_mine(*session) && !self.membership.is_neighbour(peer));
        if more {
            self.plan_sweep(now);
        }
    }
}
