//! What is still to be told: one slot a member, told a limited number of times, least told first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::message::{UPDATES_MAX, Update, encoded_bytes};
use crate::identity::NodeId;

/// A piece of news is told at most this often times log10 of the cluster's size.
const RETRANSMIT_FACTOR: u32 = 4;
/// Fewest times it is told.
const RETRANSMIT_MIN: u32 = 8;
/// Slots looked at for one message, so that a few that do not fit cost little.
const LOOKED_AT_MAX: usize = 2 * UPDATES_MAX;

#[derive(Clone, Copy, Debug)]
struct Slot {
    told: u32,
    serial: u64,
    full: bool,
}

/// Bounded by the member table, of which it holds names alone.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    slots: BTreeMap<NodeId, Slot>,
    order: BTreeSet<(u32, Reverse<u64>, NodeId)>,
    serial: u64,
}

impl Queue {
    /// Begins to tell of `node` anew; `full` for those who do not know it yet.
    pub(super) fn push(&mut self, node: NodeId, full: bool) {
        let full = full || self.remove(&node).is_some_and(|old| old.full);
        self.serial += 1;
        self.put(node, Slot { told: 0, serial: self.serial, full });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes what fits into `budget` bytes, counting it as told once. `update` renders a slot, or says that it is void.
    pub(super) fn take(
        &mut self,
        mut budget: usize,
        live: usize,
        mut update: impl FnMut(&NodeId, bool) -> Option<Update>,
    ) -> Vec<Update> {
        let limit = (RETRANSMIT_FACTOR * (live.max(1).ilog10() + 1)).max(RETRANSMIT_MIN);
        let mut taken = Vec::new();
        let mut touched = Vec::new();
        for (_, _, node) in self.order.iter().take(LOOKED_AT_MAX) {
            if taken.len() >= UPDATES_MAX / 2 {
                break;
            }
            let Some(slot) = self.slots.get(node) else {
                continue;
            };
            let Some(update) = update(node, slot.full) else {
                touched.push((*node, None));
                continue;
            };
            let bytes = encoded_bytes(&update);
            if bytes <= budget {
                budget -= bytes;
                taken.push(update);
                let told = slot.told + 1;
                touched.push((*node, (told < limit).then_some(Slot { told, ..*slot })));
            }
        }
        for (node, slot) in touched {
            self.remove(&node);
            if let Some(slot) = slot {
                self.put(node, slot);
            }
        }
        taken
    }

    fn put(&mut self, node: NodeId, slot: Slot) {
        self.order.insert((slot.told, Reverse(slot.serial), node));
        self.slots.insert(node, slot);
    }

    fn remove(&mut self, node: &NodeId) -> Option<Slot> {
        let slot = self.slots.remove(node)?;
        self.order.remove(&(slot.told, Reverse(slot.serial), *node));
        Some(slot)
    }
}
