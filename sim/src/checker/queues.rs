//! Every queue stays under its named limit.

use knot_engine::{Instant, Queue};

use super::{Checkers, Invariant};

impl Checkers {
    /// Looks at a server's queues.
    pub(crate) fn check_queues(&mut self, node: usize, queues: &[Queue], now: Instant) {
        for queue in queues.iter().filter(|queue| queue.depth > queue.limit) {
            self.report(Invariant::QueuesBounded, now, node, || {
                format!("{} holds {} of at most {}", queue.name, queue.depth, queue.limit)
            });
        }
    }
}
