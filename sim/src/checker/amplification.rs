//! A write costs the network little more than its bytes once for each other server that holds it.

use knot_engine::Instant;

use super::{Checkers, Invariant};

/// Bytes of frames beside, each time that a change had to be sent: its envelope, its acknowledgement, and the roots that
/// both sides tell each other afterwards. (304 in the dearest of sixty calm runs, 33 in the cheapest.)
pub const ENVELOPE_BYTES_MAX: u64 = 400;

/// Bytes of frames beside, for each server and each other one: their meeting, and what they tell each other of the rest.
pub const MEETING_BYTES_MAX: u64 = 2_000;

/// What a run sent, and what it had to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spending {
    /// Bytes of frames.
    pub(crate) frame_bytes: u64,
    /// Bytes of changes, once for each server that holds one and did not make it.
    pub(crate) needed_bytes: u64,
    /// How many times a change had to be sent.
    pub(crate) needed: u64,
}

impl Checkers {
    /// What a run in which nothing went wrong has sent.
    pub(crate) fn check_amplification(&mut self, spent: Spending, now: Instant) {
        let Spending { frame_bytes, needed_bytes, needed } = spent;
        let servers = self.tap.nodes.len() as u64;
        let most = needed_bytes + ENVELOPE_BYTES_MAX * needed + MEETING_BYTES_MAX * servers * (servers - 1);
        if frame_bytes > most {
            self.report(Invariant::Amplification, now, 0, || {
                format!("{frame_bytes} bytes were sent for {needed} changes of {needed_bytes} bytes, and at most {most} may be")
            });
        }
    }

    /// What had to be sent so far.
    pub(crate) fn needed(&self) -> Spending {
        let mut spending = Spending::default();
        for (node, held) in self.tap.nodes.iter().enumerate() {
            for &number in &held.durable {
                let change = self.tap.change(number);
                if change.author.and_then(|id| self.node_of(id)) != Some(node) {
                    spending.needed += 1;
                    spending.needed_bytes += change.bytes.len() as u64;
                }
            }
        }
        spending
    }
}
