//! Every queue stays under its named limit.

use knot_engine::{Instant, Queue};

use super::{Checkers, Invariant};

/// Bytes by which a queue may pass its limit: there was room when what was added last was let in.
const OVERSHOOT_BYTES: usize = 64 << 10;

impl Checkers {
    /// Looks at a server's queues.
    pub(crate) fn check_queues(&mut self, node: usize, queues: &[Queue], now: Instant) {
        let lets_in = |queue: &Queue| queue.name.ends_with("_bytes") && queue.name != "orphan_bytes";
        let most = |queue: &Queue| queue.limit + if lets_in(queue) { OVERSHOOT_BYTES } else { 0 };
        for queue in queues.iter().filter(|queue| queue.depth > most(queue)) {
            self.report(Invariant::QueuesBounded, now, node, || {
                format!("{} holds {} of at most {}", queue.name, queue.depth, queue.limit)
            });
        }
    }
}
