//! Every queue stays under its named limit.

use knot_engine::{Instant, Queue};

use super::{Checkers, Invariant};

/// Bytes by which a queue may pass its limit: there was room when what was added last was let in.
const OVERSHOOT_BYTES: usize = 64 << 10;
/// The same of what waits for a peer: a push, the answers that are being put together, and all that is not held back.
const OVERSHOOT_PEER_BYTES: usize = 4 << 20;

/// The queue of what waits for storage.
const PERSIST: &str = "persist_bytes";

/// What nothing is left in once all has come right and all that was asked is answered. Streams, circuits and changes that
/// wait for others may stay, and so may a repair whose peer has ended, until its time is up.
const EMPTY_IN_THE_END: [&str; 6] =
    [PERSIST, "waiters", "versions", "incoming_bytes", "replica_waits", "repair_answers"];

/// Whether so much waits for storage that an edit is to be refused.
pub(crate) fn is_crowded(queues: &[Queue]) -> bool {
    queues.iter().any(|queue| queue.name == PERSIST && queue.depth >= queue.limit)
}

impl Checkers {
    /// A server took an edit while it had no room for what waits for storage.
    pub(crate) fn report_crowded(&mut self, node: usize, id: u32, now: Instant) {
        let write = self.describe(id);
        self.report(Invariant::QueuesBounded, now, node, || format!("{write} was taken with no room in {PERSIST}"));
    }

    /// The least that was in each of a server's queues at several moments after all has come right was left there.
    pub(crate) fn check_emptied(&mut self, node: usize, least: &[Queue], now: Instant) {
        for queue in least.iter().filter(|queue| EMPTY_IN_THE_END.contains(&queue.name) && queue.depth > 0) {
            self.report(Invariant::QueuesBounded, now, node, || {
                format!("{} holds {} when there is nothing to do", queue.name, queue.depth)
            });
        }
    }

    /// Looks at a server's queues.
    pub(crate) fn check_queues(&mut self, node: usize, queues: &[Queue], now: Instant) {
        let overshoot = |queue: &Queue| match queue.name {
            "orphan_bytes" => 0,
            "peer_queue_bytes" => OVERSHOOT_PEER_BYTES,
            name if name.ends_with("_bytes") => OVERSHOOT_BYTES,
            _ => 0,
        };
        let most = |queue: &Queue| queue.limit + overshoot(queue);
        for queue in queues.iter().filter(|queue| queue.depth > most(queue)) {
            self.report(Invariant::QueuesBounded, now, node, || {
                format!("{} holds {} of at most {}", queue.name, queue.depth, queue.limit)
            });
        }
    }
}
