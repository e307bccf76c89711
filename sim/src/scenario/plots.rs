//! Plots: faults that follow from each other, as they do where machines go bad.
//!
//! Faults that know nothing of each other seldom meet. Here a machine ails before it dies, a process dies again as soon as
//! it is back, one comes back to a network that is only half there, a disk is always all but full, two servers are parted
//! for longer than anybody keeps a count, and a copied folder makes two processes of one server.

use super::{Bounds, Fault, FaultKind, NodeSpec};
use crate::draw::Draw;
use crate::node::SEEDS;

/// Of a thousand seeds, those that have each plot.
const AILS_PER_MILLE: u64 = 200;
const CRASHES_AGAIN_PER_MILLE: u64 = 100;
const HALF_CUT_PER_MILLE: u64 = 60;
const UNHEARD_PER_MILLE: u64 = 60;
const BRIMS_PER_MILLE: u64 = 60;
const PARTED_PER_MILLE: u64 = 300;
const COPIED_PER_MILLE: u64 = 150;
const EVICTED_PER_MILLE: u64 = 120;
/// Least time for which somebody is shut out, and how long before the end it is let in again, in units.
const EVICTED_MIN: u64 = 4;
const READMITTED: u64 = 20;
/// Least time for which two are parted: streams break after half a minute, and an attempt takes five seconds and a wait.
const PARTED_MIN_MS: u64 = 95_000;
/// Fewest servers among which two are of one id: of three, too few would be left to tell them of each other.
const COPIED_AMONG: usize = 4;
/// Of a thousand plots, those in which nothing else is wrong from where they begin.
const ALONE_PER_MILLE: u64 = 700;

/// Of a thousand seeds, those in which servers end one by one.
const ALONE_SEEDS_PER_MILLE: u64 = 120;
/// Least time for that, and between two of them.
const ALONE_MIN_MS: u64 = 30_000;
const ONE_EVERY_MS: u64 = 24_000;

/// Of a thousand seeds, those in which a server is filled from nothing.
const REFILLS_PER_MILLE: u64 = 15;
/// Least time for that.
const REFILL_MIN_MS: u64 = 14_000;

/// The time of a scenario, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// When faults begin.
    pub(super) begin_ms: u64,
    /// When they have ended.
    pub(super) quiet_at_ms: u64,
    /// How long a probe and what follows from it takes, roughly.
    pub(super) unit_ms: u64,
}

/// Draws what happens to these servers.
type Plot = fn(&mut Draw, &[NodeSpec], Times) -> Vec<Fault>;

/// Whether in `seed` nothing goes wrong but that servers end and come back, one after the other, on a network that is well:
/// then all that follows has to follow in time.
pub(super) fn are_alone(seed: u64, times: Times) -> bool {
    Draw::new(seed, "alone").chance(ALONE_SEEDS_PER_MILLE) && times.quiet_at_ms - times.begin_ms >= ALONE_MIN_MS
}

/// One server after another ends, with time enough between them for all to be quiet.
pub(super) fn one_by_one(seed: u64, nodes: &[NodeSpec], times: Times) -> Vec<Fault> {
    let mut draw = Draw::new(seed, "one by one");
    let Times { begin_ms, quiet_at_ms, .. } = times;
    let mut faults = Vec::new();
    let mut at_ms = begin_ms + draw.between(ONE_EVERY_MS, ONE_EVERY_MS + 5_000);
    while at_ms < quiet_at_ms {
        let node = draw.index(nodes.len());
        let moves = draw.chance(300);
        let kind = match draw.between(0, 4) {
            0 => FaultKind::Stop { node, moves },
            1 => FaultKind::Crash { node, power: false, moves },
            _ => FaultKind::Crash { node, power: true, moves },
        };
        let lasting_ms = *draw.pick(&[500, 3_000, ONE_EVERY_MS, 2 * ONE_EVERY_MS]);
        let is_last = at_ms + lasting_ms >= quiet_at_ms;
        faults.push(Fault::new(at_ms, (!is_last).then_some(lasting_ms), kind));
        at_ms += lasting_ms + draw.between(ONE_EVERY_MS, 2 * ONE_EVERY_MS);
    }
    faults
}

/// Adds the plots of `seed` to its faults.
pub(super) fn add(seed: u64, nodes: &[NodeSpec], times: Times, faults: &mut Vec<Fault>) {
    let mut draw = Draw::new(seed, "plots");
    // Few seeds are long enough for this one.
    let plots = [
        (PARTED_PER_MILLE, parted as Plot),
        (AILS_PER_MILLE, ails),
        (CRASHES_AGAIN_PER_MILLE, crashes_again),
        (HALF_CUT_PER_MILLE, half_cut),
        (UNHEARD_PER_MILLE, unheard),
        (BRIMS_PER_MILLE, brims),
        (COPIED_PER_MILLE, copied),
        (EVICTED_PER_MILLE, evicted),
    ];
    for (per_mille, plot) in plots {
        if !draw.chance(per_mille) {
            continue;
        }
        let plot = plot(&mut draw, nodes, times);
        let Some(begins_ms) = plot.iter().map(|fault| fault.at_ms).min() else { continue };
        if draw.chance(ALONE_PER_MILLE) {
            faults.retain(|fault| fault.ends_at_ms().is_some_and(|ends_ms| ends_ms <= begins_ms));
        }
        faults.retain(|fault| !plot.iter().any(|other| fault.contends_with(other)));
        faults.extend(plot);
        return;
    }
}

/// Whether in `seed` a server is to be filled from nothing; then clients write many documents at the beginning.
pub(super) fn refills(seed: u64, bounds: &Bounds, times: Times) -> bool {
    let long = times.quiet_at_ms - times.begin_ms >= REFILL_MIN_MS;
    Draw::new(seed, "refill").chance(REFILLS_PER_MILLE) && bounds.bulk().is_some() && long
}

/// A server's disk is replaced where there are many documents, and the new one is full now and then while they come.
pub(super) fn refill(seed: u64, times: Times, faults: &mut Vec<Fault>) {
    let mut draw = Draw::new(seed, "refill");
    let node = 1;
    let at_ms = times.begin_ms + draw.between(3_000, 5_000);
    let every_ms = draw.between(150, 600);
    let brims = Fault {
        at_ms: at_ms + 1_000,
        for_ms: Some(draw.between(5, 60)),
        every_ms,
        times: (times.quiet_at_ms - at_ms - 1_000) / every_ms,
        kind: FaultKind::DiskFull { node },
    };
    *faults = vec![Fault::new(at_ms, Some(500), FaultKind::DiskLost { node }), brims];
}

/// A machine stands still and comes back, or hears nobody and is still heard, and only then is gone for good. Somebody may
/// be cut off just when it comes back, and not hear that it did.
fn ails(draw: &mut Draw, nodes: &[NodeSpec], times: Times) -> Vec<Fault> {
    let count = nodes.len();
    let Times { begin_ms, quiet_at_ms, unit_ms } = times;
    let tenths = |draw: &mut Draw, from: u64, to: u64| draw.between(from, to) * unit_ms / 10;
    let is_deaf = draw.chance(400);
    let ails_ms = if is_deaf { tenths(draw, 60, 200) } else { tenths(draw, 15, 90) };
    let well_ms = if is_deaf { 0 } else { tenths(draw, 3, 40) };
    let dies_ms = quiet_at_ms.saturating_sub(1 + tenths(draw, 0, 60));
    let Some(at_ms) = dies_ms.checked_sub(ails_ms + well_ms).filter(|at_ms| *at_ms > begin_ms) else {
        return Vec::new();
    };
    let node = draw.index(count);
    let others: Vec<usize> = (0..count).filter(|other| *other != node).collect();
    let ailing = if is_deaf {
        FaultKind::Partition { left: others.clone(), right: vec![node], one_way: true }
    } else {
        FaultKind::Pause { node }
    };
    // Nobody hears of the end of whoever was deaf but by silence.
    let end = match draw.between(0, 10) {
        _ if is_deaf => FaultKind::Crash { node, power: true, moves: false },
        0 => FaultKind::Crash { node, power: false, moves: false },
        1..4 => FaultKind::Stop { node, moves: false },
        _ => FaultKind::Crash { node, power: true, moves: false },
    };
    // Whoever is deaf is so to the end.
    let until_ms = if is_deaf { quiet_at_ms - at_ms } else { ails_ms };
    let mut plot = vec![Fault::new(at_ms, Some(until_ms), ailing), Fault::new(dies_ms, None, end)];
    let back_ms = at_ms + ails_ms;
    let lasting_ms = tenths(draw, 10, 160).min(quiet_at_ms - back_ms);
    if !is_deaf && draw.chance(500) && lasting_ms > 0 {
        let cut = *draw.pick(&others);
        let right = (0..count).filter(|other| *other != cut).collect();
        let kind = FaultKind::Partition { left: vec![cut], right, one_way: false };
        plot.push(Fault::new(back_ms - unit_ms / 4, Some(lasting_ms), kind));
    }
    plot
}

/// A process dies as soon as it is back, again and again. Somebody may put back a copy of its disk from before then.
fn crashes_again(draw: &mut Draw, nodes: &[NodeSpec], times: Times) -> Vec<Fault> {
    let count = nodes.len();
    let Times { begin_ms, quiet_at_ms, .. } = times;
    let every_ms = draw.between(600, 4_000);
    let for_ms = draw.between(50, every_ms.min(1_000));
    let room = quiet_at_ms.saturating_sub(begin_ms + for_ms) / every_ms;
    if room == 0 {
        return Vec::new();
    }
    let times = 1 + draw.between(0, room.min(8));
    let at_ms = draw.between(begin_ms, quiet_at_ms - for_ms - (times - 1) * every_ms);
    let node = draw.index(count);
    let kind = FaultKind::Crash { node, power: draw.chance(600), moves: false };
    let mut plot = vec![Fault { at_ms, for_ms: Some(for_ms), every_ms, times, kind }];
    // Whose streams were reset just before has been connected to by others.
    if draw.chance(400) {
        plot.push(Fault::new(at_ms - draw.between(300, 3_000).min(at_ms), Some(1), FaultKind::Reset { node }));
    }
    if draw.chance(400) {
        let restore = FaultKind::Restore { node, down_ms: draw.between(50, 1_000) };
        let ends_ms = (at_ms + (times - 1) * every_ms + for_ms + draw.between(100, 2_000)).min(quiet_at_ms);
        plot.push(Fault::new(at_ms, Some(ends_ms - at_ms), restore));
    }
    plot
}

/// A process dies and comes back, and by then two others no longer reach it, whom those between reach as before.
fn half_cut(draw: &mut Draw, nodes: &[NodeSpec], times: Times) -> Vec<Fault> {
    let count = nodes.len();
    let Times { begin_ms, quiet_at_ms, unit_ms } = times;
    let down_ms = draw.between(800, 3_000);
    let cut_ms = draw.between(5, 25) * unit_ms;
    let Some(latest_ms) = quiet_at_ms.checked_sub(down_ms + cut_ms).filter(|latest_ms| *latest_ms > begin_ms) else {
        return Vec::new();
    };
    if count < 4 {
        return Vec::new();
    }
    let at_ms = draw.between(begin_ms, latest_ms);
    let mut order: Vec<usize> = (0..count).collect();
    draw.shuffle(&mut order);
    let (node, left) = (order[0], order[1..3].to_vec());
    let crash = FaultKind::Crash { node, power: false, moves: false };
    let cut = FaultKind::Partition { left, right: vec![node], one_way: false };
    // Time enough for the last refusal to arrive.
    let cut_at_ms = at_ms + down_ms - draw.between(500, down_ms);
    vec![Fault::new(at_ms, Some(down_ms), crash), Fault::new(cut_at_ms, Some(cut_ms), cut)]
}

/// A server whose streams are stuck is cut off just when another, which stood still, denies that it is dead: that it is
/// told again by datagram is all that it can hear of it.
fn unheard(draw: &mut Draw, nodes: &[NodeSpec], times: Times) -> Vec<Fault> {
    let count = nodes.len();
    let Times { begin_ms, quiet_at_ms, unit_ms } = times;
    let still_ms = draw.between(25, 70) * unit_ms / 10;
    let cut_ms = draw.between(5, 25) * unit_ms / 10;
    let stuck_ms = draw.between(10, 150) * unit_ms / 10;
    let before_ms = draw.between(0, 20) * unit_ms / 10;
    let whole_ms = before_ms + still_ms + cut_ms + stuck_ms;
    let Some(latest_ms) = quiet_at_ms.checked_sub(whole_ms).filter(|latest_ms| *latest_ms > begin_ms) else {
        return Vec::new();
    };
    let at_ms = draw.between(begin_ms, latest_ms);
    let mut order: Vec<usize> = (0..count).collect();
    draw.shuffle(&mut order);
    let (node, cut) = (order[0], order[1]);
    let right = (0..count).filter(|other| *other != cut).collect();
    let back_ms = at_ms + before_ms + still_ms;
    vec![
        Fault::new(at_ms, Some(whole_ms), FaultKind::StreamsStall { node: cut }),
        Fault::new(at_ms + before_ms, Some(still_ms), FaultKind::Pause { node }),
        Fault::new(
            back_ms - unit_ms / 10,
            Some(cut_ms),
            FaultKind::Partition { left: vec![cut], right, one_way: false },
        ),
    ]
}

/// A disk has no room, and then a little, and none again, from the beginning to the end.
fn brims(draw: &mut Draw, nodes: &[NodeSpec], times: Times) -> Vec<Fault> {
    let count = nodes.len();
    let Times { begin_ms, quiet_at_ms, .. } = times;
    let node = draw.index(count);
    let every_ms = draw.between(100, 800);
    let for_ms = draw.between(5, every_ms / 2);
    let times = (quiet_at_ms - begin_ms) / every_ms;
    if times == 0 {
        return Vec::new();
    }
    vec![Fault { at_ms: begin_ms, for_ms: Some(for_ms), every_ms, times, kind: FaultKind::DiskFull { node } }]
}

/// Two servers that are nobody's seeds have nothing to do with each other until each has tried for minutes.
fn parted(draw: &mut Draw, nodes: &[NodeSpec], times: Times) -> Vec<Fault> {
    let count = nodes.len();
    let Times { begin_ms, quiet_at_ms, .. } = times;
    let most_ms = quiet_at_ms - begin_ms;
    if count < SEEDS + 2 || most_ms < PARTED_MIN_MS {
        return Vec::new();
    }
    let lasting_ms = draw.between(PARTED_MIN_MS, most_ms + 1);
    let one = SEEDS + draw.index(count - SEEDS - 1);
    let other = one + 1 + draw.index(count - one - 1);
    let kind = FaultKind::Partition { left: vec![one], right: vec![other], one_way: false };
    vec![Fault::new(quiet_at_ms - lasting_ms, Some(lasting_ms), kind)]
}

/// A server is shut out, and let in again with time enough to hear of it and to come back.
fn evicted(draw: &mut Draw, nodes: &[NodeSpec], times: Times) -> Vec<Fault> {
    let Times { begin_ms, quiet_at_ms, unit_ms } = times;
    let most_ms = (quiet_at_ms - begin_ms).saturating_sub(READMITTED * unit_ms);
    if nodes.len() < 3 || most_ms < EVICTED_MIN * unit_ms {
        return Vec::new();
    }
    let lasting_ms = draw.between(EVICTED_MIN * unit_ms, most_ms + 1);
    let at_ms = draw.between(begin_ms, begin_ms + most_ms - lasting_ms + 1);
    let node = draw.index(nodes.len());
    let by = (node + 1 + draw.index(nodes.len() - 1)) % nodes.len();
    vec![Fault::new(at_ms, Some(lasting_ms), FaultKind::Evict { node, by })]
}

/// A server's folder is copied to another machine of its zone and runs there too, for shorter or longer than it takes the
/// two to find out. They may be cut off from each other at first, and take writes that the other does not have; and either
/// may die meanwhile.
fn copied(draw: &mut Draw, nodes: &[NodeSpec], times: Times) -> Vec<Fault> {
    let Times { begin_ms, quiet_at_ms, unit_ms } = times;
    let count = nodes.len();
    let zone_of = |node: usize| nodes[node].zone.as_str();
    let pairs: Vec<(usize, usize)> = (0..count)
        .flat_map(|node| (0..count).map(move |to| (node, to)))
        .filter(|(node, to)| node != to && zone_of(*node) == zone_of(*to))
        .collect();
    let most_ms = (quiet_at_ms - begin_ms) * 9 / 10;
    let lasting_ms = if draw.chance(600) { most_ms } else { most_ms.min(draw.between(10, 100) * unit_ms / 10) };
    if count < COPIED_AMONG || pairs.is_empty() {
        return Vec::new();
    }
    let at_ms = draw.between(begin_ms, quiet_at_ms - lasting_ms);
    let (node, to) = *draw.pick(&pairs);
    let mut plot = vec![Fault::new(at_ms, Some(lasting_ms), FaultKind::Clone { node, to })];
    if draw.chance(200) {
        let right = (0..count).filter(|other| *other != to).collect();
        let kind = FaultKind::Partition { left: vec![to], right, one_way: false };
        plot.push(Fault::new(at_ms, Some(1 + draw.between(0, lasting_ms / 2)), kind));
    }
    if draw.chance(200) {
        let after_ms = draw.between(0, lasting_ms);
        let node = if draw.chance(500) { node } else { to };
        let kind = FaultKind::Crash { node, power: draw.chance(500), moves: false };
        plot.push(Fault::new(at_ms + after_ms, Some(1 + draw.between(0, lasting_ms - after_ms)), kind));
    }
    plot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_end_in_time_and_each_comes_up() {
        let nodes: Vec<NodeSpec> = (0..6).map(|index| NodeSpec::new(&format!("n{index}"), "gb")).collect();
        let times = Times { begin_ms: 3_000, quiet_at_ms: 120_000, unit_ms: 1_000 };
        let plot = |seed| {
            let mut faults = Vec::new();
            add(seed, &nodes, times, &mut faults);
            faults
        };
        let faults: Vec<Fault> = (0..500).flat_map(plot).collect();
        for fault in &faults {
            assert!(fault.ends_at_ms().unwrap_or(fault.at_ms) <= times.quiet_at_ms, "{fault:?}");
            assert!(fault.every_ms == 0 || fault.for_ms.is_some_and(|lasting| lasting <= fault.every_ms), "{fault:?}");
        }
        let has = |wanted: fn(&Fault) -> bool| faults.iter().any(wanted);
        assert!(has(|fault| matches!(fault.kind, FaultKind::Partition { one_way: true, .. })), "somebody is deaf");
        assert!(has(|fault| matches!(fault.kind, FaultKind::Stop { .. }) && fault.for_ms.is_none()), "somebody leaves");
        assert!(
            has(|fault| matches!(fault.kind, FaultKind::Crash { .. }) && fault.times > 1),
            "somebody crashes again"
        );
        assert!(has(|fault| matches!(fault.kind, FaultKind::Restore { .. })), "somebody is restored");
        assert!(has(|fault| matches!(fault.kind, FaultKind::StreamsStall { .. })), "somebody does not hear a denial");
        assert!(has(|fault| matches!(fault.kind, FaultKind::Clone { .. })), "somebody is there twice");
        assert!(has(|fault| matches!(fault.kind, FaultKind::Evict { .. })), "somebody is shut out");
        assert!(has(|fault| matches!(fault.kind, FaultKind::DiskFull { .. })), "a disk is full to the brim");
        assert!(has(|fault| fault.for_ms.is_some_and(|lasting| lasting >= PARTED_MIN_MS)), "two are parted");
    }
}
