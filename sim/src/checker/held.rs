//! Who says that it holds a push does so durably.

use std::collections::BTreeMap;

use bytes::Bytes;
use knot_engine::Instant;
use knot_engine::wire::Frame;

use super::{Checkers, Invariant};

/// Pushes whose senders want to know when they are durable: what each holds, by sender, receiver and the sender's count.
#[derive(Debug, Default)]
pub(super) struct Asked(BTreeMap<(usize, usize, u64), Vec<Bytes>>);

impl Checkers {
    /// A server sends a frame to another: if it says that a push is durable, every change of it is durable there.
    pub(crate) fn check_held(&mut self, (from, to): (usize, usize), frame: &Bytes, now: Instant) {
        match Frame::decode(frame) {
            Ok(Some(Frame::Push { seq, ack: true, changes } | Frame::Relay { seq, ack: true, changes, .. })) => {
                let changes = changes.into_iter().flat_map(|document| document.changes).collect();
                self.asked.0.insert((from, to, seq), changes);
            }
            Ok(Some(Frame::Held { seq })) => {
                let changes = self.asked.0.remove(&(to, from, seq)).unwrap_or_default();
                let durable = &self.tap.nodes[from].durable;
                let numbers = changes.iter().filter_map(|bytes| self.tap.number_of_bytes(bytes));
                let early = numbers.filter(|number| !durable.contains(number)).count();
                if early > 0 {
                    self.report(Invariant::DurableBeforeAcknowledged, now, from, || {
                        format!("it tells n{to} that it holds {early} changes that are not durable here")
                    });
                }
            }
            _ => {}
        }
    }
}
