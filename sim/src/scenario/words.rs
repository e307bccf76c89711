//! A scenario in words.

use serde_json::Value;

use super::{Action, Fault, FaultKind, NodeSpec};

/// What goes wrong, in words: what is so while it lasts.
#[must_use]
pub(crate) fn fault(fault: &Fault, nodes: &[NodeSpec]) -> String {
    let words = Words(nodes);
    let text = words.kind(&fault.kind);
    match (fault.every_ms, fault.times) {
        (0, _) => text,
        (every, times) => format!("{text}; {times} times, every {}", millis(every)),
    }
}

/// As a file spells a kind of faults.
#[must_use]
pub(crate) fn kind(kind: &FaultKind) -> String {
    let value = serde_json::to_value(kind).unwrap_or_default();
    value.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// As a file spells it.
#[must_use]
pub(crate) fn action(action: Action) -> String {
    let value = serde_json::to_value(action).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// The servers that are spoken of.
struct Words<'a>(&'a [NodeSpec]);

impl Words<'_> {
    fn kind(&self, kind: &FaultKind) -> String {
        let back = |moves: bool| if moves { ", and comes back at another address" } else { "" };
        match kind {
            FaultKind::Partition { left, right, one_way: true } => {
                format!("nothing passes from {} to {}", self.side(left), self.side(right))
            }
            FaultKind::Partition { left, right, one_way: false } => {
                format!("nothing passes between {}", self.between(left, right))
            }
            FaultKind::DatagramsBlocked { left, right } => {
                format!("no datagram passes between {}", self.between(left, right))
            }
            FaultKind::Gray { left, right, one_way, extra_ms, loss_per_mille } => {
                let between = if *one_way {
                    format!("from {} to {}", self.side(left), self.side(right))
                } else {
                    format!("between {}", self.between(left, right))
                };
                let (extra, lost) = (millis(*extra_ms), percent(*loss_per_mille));
                format!("packets {between} take {extra} longer, and {lost} of them are lost")
            }
            FaultKind::Loss { per_mille } => format!("{} more of all packets are lost", percent(*per_mille)),
            FaultKind::Duplicate { per_mille } => format!("{} more of all datagrams arrive twice", percent(*per_mille)),
            FaultKind::Reorder { per_mille } => format!("{} more of all datagrams are overtaken", percent(*per_mille)),
            FaultKind::Corrupt { per_mille } => {
                format!("{} of all datagrams arrive with a bit turned over", percent(*per_mille))
            }
            FaultKind::Lag { node, extra_ms } => {
                format!("packets to and from {} take {} longer", self.name(*node), millis(*extra_ms))
            }
            FaultKind::Throttle { node, bytes_per_s, .. } => {
                format!("{} can send no more than {bytes_per_s} B/s", self.name(*node))
            }
            FaultKind::Mtu { node, bytes } => {
                format!("datagrams of {} longer than {bytes} B vanish", self.name(*node))
            }
            FaultKind::Reset { node } => format!("every stream of {} is reset", self.name(*node)),
            FaultKind::HalfOpen { node } => {
                format!("every stream of {} is forgotten on its way, and neither end is told", self.name(*node))
            }
            FaultKind::StreamsStall { node } => {
                format!("the streams of {} make no progress; its datagrams pass", self.name(*node))
            }
            FaultKind::SlowReader { node, bytes_per_s } => {
                format!("{} reads its streams at {bytes_per_s} B/s", self.name(*node))
            }
            FaultKind::Crash { node, power: true, moves } => {
                format!("{} is without power, and lost what it had not synced{}", self.name(*node), back(*moves))
            }
            FaultKind::Crash { node, power: false, moves } => {
                format!("{} is killed{}", self.name(*node), back(*moves))
            }
            FaultKind::CrashAtStorage { node, operation, .. } => {
                format!("{} dies at its storage operation number {operation}", self.name(*node))
            }
            FaultKind::Stop { node, moves } => format!("{} says goodbye and stops{}", self.name(*node), back(*moves)),
            FaultKind::Restore { node, down_ms } => format!(
                "the disk of {} is copied; at the end it is down for {} and starts from that copy",
                self.name(*node),
                millis(*down_ms)
            ),
            FaultKind::DiskLost { node } => {
                format!("{} is lost with its disk; another starts empty in its place", self.name(*node))
            }
            FaultKind::Clone { node, to } => format!(
                "the data folder of {} is copied, key and all, and runs on the machine of {} too; then that copy is deleted",
                self.name(*node),
                self.name(*to)
            ),
            FaultKind::Evict { node, by } => {
                format!("{} is evicted by way of {}, and readmitted at the end", self.name(*node), self.name(*by))
            }
            FaultKind::Pause { node } => format!("{} is not scheduled", self.name(*node)),
            FaultKind::SlowCpu { node, event_us } => format!("each event takes {} {event_us} us", self.name(*node)),
            FaultKind::Clock { node, offset_s } => {
                format!("the wall clock of {} is off by {offset_s} s", self.name(*node))
            }
            FaultKind::FsyncFails { node, power } => {
                let after = if *power { "; at the end it loses power" } else { "" };
                format!("a sync of {} fails, and it starts again{after}", self.name(*node))
            }
            FaultKind::ReadFails { node } => format!("{} cannot read its disk", self.name(*node)),
            FaultKind::DiskFull { node } => format!("the disk of {} is full", self.name(*node)),
            FaultKind::SlowDisk { node, commit_ms } => {
                format!("a commit of {} takes {}", self.name(*node), millis(*commit_ms))
            }
            FaultKind::BitRot { node, bits } => {
                format!("{} is without power, and {bits} bits of its files flip", self.name(*node))
            }
            FaultKind::MisdirectedWrite { node } => {
                format!("a write of {} goes to another place of its file; at the end it loses power", self.name(*node))
            }
        }
    }

    fn name(&self, node: usize) -> String {
        self.0.get(node).map_or_else(|| format!("n{node}"), |spec| spec.name.clone())
    }

    /// A side by its zone where it is one, by its servers otherwise.
    fn side(&self, side: &[usize]) -> String {
        let zone = side.first().and_then(|node| self.0.get(*node)).map(|node| node.zone.as_str());
        let of_zone = |(index, node): (usize, &NodeSpec)| (Some(node.zone.as_str()) == zone).then_some(index);
        let whole: Vec<usize> = self.0.iter().enumerate().filter_map(of_zone).collect();
        let mut sorted = side.to_vec();
        sorted.sort_unstable();
        match zone {
            Some(zone) if sorted == whole => format!("zone {zone}"),
            Some(_) | None => side.iter().map(|node| self.name(*node)).collect::<Vec<String>>().join(", "),
        }
    }

    fn between(&self, left: &[usize], right: &[usize]) -> String {
        format!("{} and {}", self.side(left), self.side(right))
    }
}

/// A part of a thousand as people write it.
#[must_use]
pub(crate) fn percent(per_mille: u64) -> String {
    match (per_mille / 10, per_mille % 10) {
        (whole, 0) => format!("{whole} %"),
        (whole, tenth) => format!("{whole}.{tenth} %"),
    }
}

/// A time as people write it.
#[must_use]
pub(crate) fn millis(millis: u64) -> String {
    if millis < 1_000 {
        return format!("{millis} ms");
    }
    let seconds = format!("{}.{:03}", millis / 1_000, millis % 1_000);
    format!("{} s", seconds.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(kind: FaultKind) -> String {
        let nodes = [NodeSpec::new("a", "gb"), NodeSpec::new("b", "gb"), NodeSpec::new("c", "us")];
        fault(&Fault::new(0, Some(1), kind), &nodes)
    }

    #[test]
    fn a_side_that_is_a_zone_is_called_so() {
        let cut = |left: Vec<usize>, one_way| say(FaultKind::Partition { left, right: vec![2], one_way });
        assert_eq!(cut(vec![1, 0], false), "nothing passes between zone gb and zone us");
        assert_eq!(cut(vec![0], true), "nothing passes from a to zone us");
    }

    #[test]
    fn a_copy_names_both_machines() {
        let text = say(FaultKind::Clone { node: 0, to: 1 });
        assert!(
            text.starts_with("the data folder of a is copied, key and all, and runs on the machine of b"),
            "{text}"
        );
    }

    #[test]
    fn numbers_have_the_units_that_people_use() {
        assert_eq!(say(FaultKind::Lag { node: 1, extra_ms: 1_250 }), "packets to and from b take 1.25 s longer");
        assert_eq!(say(FaultKind::Loss { per_mille: 305 }), "30.5 % more of all packets are lost");
        assert_eq!([millis(900), millis(60_000), millis(1_001)], ["900 ms", "60 s", "1.001 s"]);
    }
}
