//! (actor, seq) names one change, for ever.

use std::collections::BTreeMap;

use bytes::Bytes;
use knot_engine::Instant;

use super::{Checkers, Invariant};
use crate::tap::ChangeNo;

/// The change that each (actor, seq) named first.
#[derive(Debug, Default)]
pub(super) struct Identity {
    named: BTreeMap<(Bytes, u64), ChangeNo>,
}

impl Checkers {
    pub(super) fn check_identity(&mut self, node: usize, number: ChangeNo, now: Instant) {
        let change = self.tap.change(number);
        if change.is_forged {
            return;
        }
        let key = (change.actor.clone(), change.seq);
        let first = *self.identity.named.entry(key).or_insert(number);
        if first != number {
            let (one, other) = (self.tap.change(first).hash, change.hash);
            let seq = change.seq;
            self.report(Invariant::ActorSeqUnique, now, node, || format!("seq {seq} names both {one} and {other}"));
        }
    }
}
