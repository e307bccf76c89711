//! What goes wrong, and for how long.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::is_default;

/// How soon a supervisor starts a process again that stopped by itself.
pub(crate) const RESTART_AFTER: Duration = Duration::from_millis(500);

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When it begins, in milliseconds.
    pub at_ms: u64,
    /// How long it lasts; none for a server that never comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// Once more each time this long has passed, in milliseconds; zero for once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub every_ms: u64,
    /// How often in all, where it recurs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub times: u64,
    /// What.
    #[serde(flatten)]
    pub kind: FaultKind,
}

/// What goes wrong. Those without an end of their own last as long as the fault says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FaultKind {
    /// Nothing passes from `left` to `right`, nor back unless `one_way`.
    Partition {
        /// One side.
        left: Vec<usize>,
        /// The other.
        right: Vec<usize>,
        /// Whether packets from right to left still pass.
        #[serde(default)]
        one_way: bool,
    },
    /// As a partition, but of datagrams alone: a firewall that knows no UDP.
    DatagramsBlocked {
        /// One side.
        left: Vec<usize>,
        /// The other.
        right: Vec<usize>,
    },
    /// The link between two sides is slow and lossy, and alive.
    Gray {
        /// One side.
        left: Vec<usize>,
        /// The other.
        right: Vec<usize>,
        /// Whether packets from right to left are as usual.
        #[serde(default)]
        one_way: bool,
        /// How much longer each packet takes, in milliseconds.
        extra_ms: u64,
        /// Packets lost of a thousand.
        loss_per_mille: u64,
    },
    /// More packets are lost.
    Loss {
        /// Of a thousand.
        per_mille: u64,
    },
    /// More datagrams arrive twice.
    Duplicate {
        /// Of a thousand.
        per_mille: u64,
    },
    /// More datagrams are overtaken.
    Reorder {
        /// Of a thousand.
        per_mille: u64,
    },
    /// Datagrams arrive with a bit that is not what it was. Only where the scenario is sealed.
    Corrupt {
        /// Of a thousand.
        per_mille: u64,
    },
    /// All packets to and from a server take longer.
    Lag {
        /// Whose.
        node: usize,
        /// How much, in milliseconds.
        extra_ms: u64,
    },
    /// What a server sends goes through a narrow line; datagrams that find its queue full are lost.
    Throttle {
        /// Whose.
        node: usize,
        /// How narrow.
        bytes_per_s: u64,
        /// How long its queue.
        queue_bytes: u64,
    },
    /// Longer datagrams of a server's vanish.
    Mtu {
        /// Whose.
        node: usize,
        /// Longest that pass.
        bytes: usize,
    },
    /// Every stream of a server is reset.
    Reset {
        /// Whose.
        node: usize,
    },
    /// Every stream of a server is forgotten by what stands between: neither end is told, and nothing passes.
    HalfOpen {
        /// Whose.
        node: usize,
    },
    /// The streams of a server make no progress; datagrams pass.
    StreamsStall {
        /// Whose.
        node: usize,
    },
    /// A server takes what comes on streams slowly.
    SlowReader {
        /// Whose.
        node: usize,
        /// How slowly, on each stream.
        bytes_per_s: u64,
    },
    /// The process dies and is started again.
    Crash {
        /// Whose.
        node: usize,
        /// True when the machine loses power: what was not synced is gone, and nothing refuses connections meanwhile.
        power: bool,
        /// Whether it comes back at another address.
        #[serde(default)]
        moves: bool,
    },
    /// The process dies at a certain one of its storage operations: as it asks for a commit, or before it hears of one
    /// that is done.
    CrashAtStorage {
        /// Whose.
        node: usize,
        /// At which, from when the fault begins; the first is 1.
        operation: u64,
        /// Whether the machine loses power.
        power: bool,
    },
    /// The process leaves, stops and is started again.
    Stop {
        /// Whose.
        node: usize,
        /// Whether it comes back at another address.
        #[serde(default)]
        moves: bool,
    },
    /// The disk is copied at the beginning; at the end the machine loses power and starts from the copy.
    Restore {
        /// Whose.
        node: usize,
        /// How long it stays down, in milliseconds.
        down_ms: u64,
    },
    /// The machine is lost with its disk. At the end one with the same name and address starts empty, as another server.
    DiskLost {
        /// Whose.
        node: usize,
    },
    /// Somebody copies the data folder of `node`, key and all, to the machine of `to` and starts it there: one server, and
    /// two processes. At the end the copy is deleted, and that machine has its own folder again.
    Clone {
        /// Whose folder is copied.
        node: usize,
        /// Where it is started too.
        to: usize,
    },
    /// An operator shuts a server out of the cluster, by way of another, and at the end lets it in again.
    Evict {
        /// Who is shut out.
        node: usize,
        /// Which server is asked; where that does not run, the first that does.
        by: usize,
    },
    /// The process is not scheduled.
    Pause {
        /// Whose.
        node: usize,
    },
    /// All that the process does takes time.
    SlowCpu {
        /// Whose.
        node: usize,
        /// How much an event, in microseconds.
        event_us: u64,
    },
    /// The wall clock is off.
    Clock {
        /// Whose.
        node: usize,
        /// How far, in seconds; less than zero is the past.
        offset_s: i64,
    },
    /// A sync fails: what it covered can be read but is not durable. The process stops and is started again.
    FsyncFails {
        /// Whose.
        node: usize,
        /// Whether the machine loses power at the end.
        power: bool,
    },
    /// Reads fail.
    ReadFails {
        /// Whose.
        node: usize,
    },
    /// No room for writes.
    DiskFull {
        /// Whose.
        node: usize,
    },
    /// Commits take longer.
    SlowDisk {
        /// Whose.
        node: usize,
        /// How long, in milliseconds.
        commit_ms: u64,
    },
    /// The machine loses power, and while it is off bits of its files flip. Only where whole servers run.
    BitRot {
        /// Whose.
        node: usize,
        /// How many.
        bits: u64,
    },
    /// A write goes to another place of its file than was asked for, and what was there is gone. At the end the machine
    /// loses power. Only where whole servers run.
    MisdirectedWrite {
        /// Whose.
        node: usize,
    },
}

impl Fault {
    /// Once, from `at_ms` on for `for_ms`.
    #[must_use]
    pub fn new(at_ms: u64, for_ms: Option<u64>, kind: FaultKind) -> Self {
        Self { at_ms, for_ms, every_ms: 0, times: 0, kind }
    }

    /// When it ends, in milliseconds, the last time; none when it does not.
    #[must_use]
    pub fn ends_at_ms(&self) -> Option<u64> {
        self.for_ms.map(|lasting| self.begins_last_ms().saturating_add(lasting))
    }

    /// Whether one of them copies a folder while the other has a hand on the same disk.
    #[must_use]
    pub(crate) fn contends_with(&self, other: &Self) -> bool {
        let is_clone = |fault: &Self| matches!(fault.kind, FaultKind::Clone { .. });
        let takes_disk = |fault: &Self| {
            is_clone(fault) || matches!(fault.kind, FaultKind::Restore { .. } | FaultKind::DiskLost { .. })
        };
        let ends_ms = |fault: &Self| fault.ends_at_ms().unwrap_or(u64::MAX);
        let (ours, theirs) = (self.kind.nodes(), other.kind.nodes());
        (is_clone(self) || is_clone(other))
            && takes_disk(self)
            && takes_disk(other)
            && ours.iter().any(|node| theirs.contains(node))
            && self.at_ms <= ends_ms(other)
            && other.at_ms <= ends_ms(self)
    }

    fn begins_last_ms(&self) -> u64 {
        self.at_ms.saturating_add(self.every_ms.saturating_mul(self.times.saturating_sub(1)))
    }

    /// When it begins, each time, in milliseconds.
    pub fn begins_at_ms(&self) -> impl Iterator<Item = u64> + '_ {
        let times = if self.every_ms == 0 { 1 } else { self.times.max(1) };
        (0..times).map(|time| self.at_ms + time * self.every_ms)
    }
}

impl FaultKind {
    /// As files spell it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Partition { .. } => "partition",
            Self::DatagramsBlocked { .. } => "datagrams_blocked",
            Self::Gray { .. } => "gray",
            Self::Loss { .. } => "loss",
            Self::Duplicate { .. } => "duplicate",
            Self::Reorder { .. } => "reorder",
            Self::Corrupt { .. } => "corrupt",
            Self::Lag { .. } => "lag",
            Self::Throttle { .. } => "throttle",
            Self::Mtu { .. } => "mtu",
            Self::Reset { .. } => "reset",
            Self::HalfOpen { .. } => "half_open",
            Self::StreamsStall { .. } => "streams_stall",
            Self::SlowReader { .. } => "slow_reader",
            Self::Crash { .. } => "crash",
            Self::CrashAtStorage { .. } => "crash_at_storage",
            Self::Stop { .. } => "stop",
            Self::Restore { .. } => "restore",
            Self::DiskLost { .. } => "disk_lost",
            Self::Clone { .. } => "clone",
            Self::Evict { .. } => "evict",
            Self::Pause { .. } => "pause",
            Self::SlowCpu { .. } => "slow_cpu",
            Self::Clock { .. } => "clock",
            Self::FsyncFails { .. } => "fsync_fails",
            Self::ReadFails { .. } => "read_fails",
            Self::DiskFull { .. } => "disk_full",
            Self::SlowDisk { .. } => "slow_disk",
            Self::BitRot { .. } => "bit_rot",
            Self::MisdirectedWrite { .. } => "misdirected_write",
        }
    }

    /// The servers that it names.
    #[must_use]
    pub fn nodes(&self) -> Vec<usize> {
        match self.clone().place() {
            Place::Everywhere => Vec::new(),
            Place::Server(node) => vec![*node],
            Place::Servers(nodes) => nodes.into_iter().map(|node| *node).collect(),
            Place::Between([left, right]) => left.iter().chain(right.iter()).copied().collect(),
        }
    }

    /// The sides between which it stands, if it does.
    #[must_use]
    pub(crate) fn sides(&self) -> Option<[Vec<usize>; 2]> {
        match self.clone().place() {
            Place::Between(sides) => Some(sides.map(std::mem::take)),
            Place::Everywhere | Place::Server(_) | Place::Servers(_) => None,
        }
    }

    /// Takes the server `gone` out and closes the gap in the numbers; false when nothing is left to go wrong.
    #[must_use]
    pub(crate) fn without(&mut self, gone: usize) -> bool {
        let renumber = |node: &mut usize| *node -= usize::from(*node > gone);
        match self.place() {
            Place::Everywhere => true,
            Place::Server(node) => {
                let stays = *node != gone;
                renumber(node);
                stays
            }
            Place::Servers(nodes) => nodes.into_iter().fold(true, |stays, node| {
                let is_other = *node != gone;
                renumber(node);
                stays && is_other
            }),
            Place::Between(sides) => sides.into_iter().all(|side| {
                side.retain(|node| *node != gone);
                side.iter_mut().for_each(renumber);
                !side.is_empty()
            }),
        }
    }

    fn place(&mut self) -> Place<'_> {
        match self {
            Self::Partition { left, right, .. }
            | Self::DatagramsBlocked { left, right }
            | Self::Gray { left, right, .. } => Place::Between([left, right]),
            Self::Loss { .. } | Self::Duplicate { .. } | Self::Reorder { .. } | Self::Corrupt { .. } => {
                Place::Everywhere
            }
            Self::Lag { node, .. }
            | Self::Throttle { node, .. }
            | Self::Mtu { node, .. }
            | Self::Reset { node }
            | Self::HalfOpen { node }
            | Self::StreamsStall { node }
            | Self::SlowReader { node, .. }
            | Self::Crash { node, .. }
            | Self::CrashAtStorage { node, .. }
            | Self::Stop { node, .. }
            | Self::Restore { node, .. }
            | Self::DiskLost { node }
            | Self::Pause { node }
            | Self::SlowCpu { node, .. }
            | Self::Clock { node, .. }
            | Self::FsyncFails { node, .. }
            | Self::ReadFails { node }
            | Self::DiskFull { node }
            | Self::SlowDisk { node, .. }
            | Self::BitRot { node, .. }
            | Self::MisdirectedWrite { node } => Place::Server(node),
            Self::Clone { node, to } | Self::Evict { node, by: to } => Place::Servers([node, to]),
        }
    }
}

/// Where something goes wrong.
enum Place<'a> {
    Everywhere,
    Server(&'a mut usize),
    Servers([&'a mut usize; 2]),
    Between([&'a mut Vec<usize>; 2]),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_either_machine_nobody_is_there_twice() {
        let without = |gone| {
            let mut kind = FaultKind::Clone { node: 3, to: 1 };
            (kind.without(gone), kind.nodes())
        };
        assert_eq!(without(2), (true, vec![2, 1]));
        assert!(!without(3).0 && !without(1).0);
    }
}
