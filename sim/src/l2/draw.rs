//! Scenarios from seeds, as whole servers can play them.

use crate::draw::Draw;
use crate::level::Level;
use crate::scenario::{Action, DocumentKind, Fault, FaultKind, Profile, Scenario, Shape};

/// Of a thousand seeds with faults, those in which a disk also damages what it holds.
const DAMAGED_PER_MILLE: u64 = 400;

/// Operations in a second, on average: each write is work for every server, and level 1 tries many at once.
const PER_SECOND_MAX: u64 = 10;

/// The scenario of `seed` for level 2: that of level 1 without what this level cannot play, with fewer operations where
/// there are many, and with disks that damage what they hold.
pub(crate) fn generate(seed: u64, shape: &Shape) -> Scenario {
    let drawn = Scenario::generate(seed, &Shape { document: DocumentKind::Automerge, ..*shape });
    let mut scenario = Level::Servers.cut_to_size(drawn);
    let kept_per_mille = PER_SECOND_MAX * scenario.quiet_at_ms / scenario.operations.len().max(1) as u64;
    let mut kept = Draw::new(seed, "kept operations");
    // Clients that edit what they read are few, and mostly two at once.
    scenario.operations.retain(|operation| kept.chance(kept_per_mille) || operation.action == Action::Patch);
    let mut draw = Draw::new(seed, "damage");
    if shape.profile != Profile::Calm && draw.chance(DAMAGED_PER_MILLE) {
        let damage = damage(&mut draw, &scenario);
        scenario.faults.push(damage);
    }
    scenario
}

fn damage(draw: &mut Draw, scenario: &Scenario) -> Fault {
    let begins_ms = draw.between(scenario.quiet_at_ms / 4, scenario.quiet_at_ms * 3 / 4);
    let lasts_ms = draw.between(100, scenario.quiet_at_ms - begins_ms);
    let node = draw.index(scenario.nodes.len());
    let kind = if draw.chance(500) {
        FaultKind::BitRot { node, bits: *draw.pick(&[1, 4, 64]) }
    } else {
        FaultKind::MisdirectedWrite { node }
    };
    Fault::new(begins_ms, Some(lasts_ms), kind)
}
