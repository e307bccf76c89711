//! What faults do to links.

use std::time::Duration;

use super::{Access, Links};
use crate::scenario::FaultKind;

impl Links {
    /// A fault of the network begins, or ends. Faults of other kinds change nothing here.
    #[expect(clippy::wildcard_enum_match_arm, reason = "processes, disks and clocks are not the network's")]
    pub(crate) fn set(&mut self, kind: &FaultKind, on: bool) {
        match kind {
            FaultKind::Partition { left, right, one_way } => {
                each_pair(left, right, *one_way, |from, to| count(&mut self.link(from, to).blocked, on));
            }
            FaultKind::DatagramsBlocked { left, right } => {
                each_pair(left, right, false, |from, to| count(&mut self.link(from, to).datagrams_blocked, on));
            }
            FaultKind::Gray { left, right, one_way, extra_ms, loss_per_mille } => {
                let extra = Duration::from_millis(*extra_ms);
                each_pair(left, right, *one_way, |from, to| {
                    let link = self.link(from, to);
                    add(&mut link.lag, extra, on);
                    adjust(&mut link.loss, *loss_per_mille, on);
                });
            }
            FaultKind::Loss { per_mille } => adjust(&mut self.loss, *per_mille, on),
            FaultKind::Duplicate { per_mille } => adjust(&mut self.duplicate, *per_mille, on),
            FaultKind::Reorder { per_mille } => adjust(&mut self.reorder, *per_mille, on),
            FaultKind::Corrupt { per_mille } => adjust(&mut self.corrupt, *per_mille, on),
            FaultKind::Lag { node, extra_ms } => {
                add(&mut self.access[*node].lag, Duration::from_millis(*extra_ms), on);
            }
            FaultKind::Throttle { node, bytes_per_s, queue_bytes } => {
                self.access[*node].rates.add(*bytes_per_s, on);
                self.access[*node].queues.add(*queue_bytes, on);
            }
            FaultKind::Mtu { node, bytes } => self.access[*node].mtus.add(*bytes as u64, on),
            FaultKind::StreamsStall { node } => count(&mut self.access[*node].streams_stalled, on),
            FaultKind::SlowReader { node, bytes_per_s } => self.access[*node].reads.add(*bytes_per_s, on),
            _ => {}
        }
    }

    /// Mends all that is wrong with some servers and between them, and what is wrong everywhere.
    pub(crate) fn heal(&mut self, core: &[usize]) {
        (self.loss, self.duplicate, self.reorder, self.corrupt) = (0, 0, 0, 0);
        for &from in core {
            let access = &mut self.access[from];
            *access = Access { busy_until: access.busy_until, ..Access::default() };
            for &to in core {
                if let Some(link) = self.links.get_mut(&(from, to)) {
                    (link.blocked, link.datagrams_blocked, link.lag, link.loss) = (0, 0, Duration::ZERO, 0);
                }
            }
        }
    }
}

fn each_pair(left: &[usize], right: &[usize], one_way: bool, mut set: impl FnMut(usize, usize)) {
    for (&one, &other) in left.iter().flat_map(|one| right.iter().map(move |other| (one, other))) {
        set(one, other);
        if !one_way {
            set(other, one);
        }
    }
}

/// One fault more of a kind, or one fewer.
fn count(number: &mut u32, on: bool) {
    *number = if on { *number + 1 } else { number.saturating_sub(1) };
}

fn adjust(sum: &mut u64, by: u64, on: bool) {
    *sum = if on { *sum + by } else { sum.saturating_sub(by) };
}

fn add(sum: &mut Duration, extra: Duration, on: bool) {
    *sum = if on { *sum + extra } else { sum.saturating_sub(extra) };
}
