//! Traffic falls back to idle once nothing is left to repair.

use std::time::Duration;

use knot_engine::Instant;

use super::{Checkers, Invariant};

/// How long a cluster that has settled is left alone before its traffic is measured.
pub const IDLE_AFTER: Duration = Duration::from_secs(10);
/// How long it is measured.
pub const IDLE_FOR: Duration = Duration::from_secs(10);
/// The same where streams are opened for a need, and closed when they have not been needed for a minute.
pub(crate) const IDLE_AFTER_LARGE: Duration = Duration::from_secs(90);
/// Where there are many servers, some are probed more often than others for a while, and each asks a seed once a minute.
pub(crate) const IDLE_FOR_LARGE: Duration = Duration::from_secs(60);
/// Bytes of datagrams that an idle server that has peers sends in a second at the least: it probes somebody.
pub const IDLE_DATAGRAM_BYTES_MIN: u64 = 40;
/// Bytes of datagrams that an idle server sends in a second, at any size of the cluster.
pub const IDLE_DATAGRAM_BYTES_MAX: u64 = 300;
/// Bytes of datagrams more while some member is failed, at which it knocks in vain.
pub const KNOCKS_BYTES_MAX: u64 = 200;
/// Bytes of frames that an idle server sends in a second.
pub const IDLE_FRAME_BYTES_MAX: u64 = 300;

/// What a server sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) datagram_bytes: u64,
    pub(crate) frame_bytes: u64,
    pub(crate) repairs: u64,
}

impl Sent {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            datagram_bytes: self.datagram_bytes - before.datagram_bytes,
            frame_bytes: self.frame_bytes - before.frame_bytes,
            repairs: self.repairs - before.repairs,
        }
    }
}

impl Checkers {
    /// A server sent this in so much time while nobody wanted anything. Some may have failed, and so many are at work.
    pub(crate) fn check_idle(
        &mut self,
        node: usize,
        sent: Sent,
        lasting: Duration,
        (some_failed, at_work): (bool, usize),
        now: Instant,
    ) {
        let seconds = lasting.as_secs();
        let (datagrams, frames) = (sent.datagram_bytes / seconds, sent.frame_bytes / seconds);
        let datagrams_max = IDLE_DATAGRAM_BYTES_MAX + if some_failed { KNOCKS_BYTES_MAX } else { 0 };
        if at_work > 1 && datagrams < IDLE_DATAGRAM_BYTES_MIN {
            self.report(Invariant::HeardInTime, now, node, || {
                format!("sends {datagrams} B/s of datagrams, which is not enough to probe anybody")
            });
        }
        if datagrams > datagrams_max || frames > IDLE_FRAME_BYTES_MAX || sent.repairs > 0 {
            let repairs = sent.repairs;
            self.report(Invariant::Idle, now, node, || {
                format!("sends {datagrams} B/s of datagrams and {frames} B/s of frames, and began {repairs} repairs")
            });
        }
    }
}
