//! Counts what a run costs: what is sent, stored, loaded and waited for, and for how long servers do not know better.

use std::time::Duration;

use knot_engine::documents::Document;
use knot_engine::membership::Status;
use knot_engine::{EditError, Edited, Instant, MemberChange, Output};

use super::World;
use crate::costs::WEIGHED;
use crate::tap::ChangeNo;

/// Where the message begins in a datagram that is not sealed: after what it is sealed with, and its kind.
const MESSAGE_AT: usize = 30;
/// Names of what members say to each other, in the order of their numbers.
const MESSAGES: [&str; 9] = ["ping", "ack", "ping request", "vouch", "nack", "gossip", "digest", "table", "goodbye"];
/// Names of frames, in the order of their numbers, of which the first is that of membership.
const FRAMES: [&str; 12] = [
    "membership",
    "push",
    "held",
    "roots",
    "compare",
    "differences",
    "want",
    "window",
    "adopt",
    "relay",
    "evicted",
    "circuit",
];

impl<D: Document> World<D> {
    /// An engine asks for something.
    pub(super) fn weigh(&mut self, output: &Output<D>) {
        if !WEIGHED {
            return;
        }
        let sealed = self.scenario.sealed;
        let costs = &mut self.counts.costs;
        match output {
            Output::SendDatagram { bytes, .. } => {
                costs.add("bytes of datagrams", bytes.len() as u64);
                let kind = bytes.get(MESSAGE_AT).filter(|_| !sealed).and_then(|kind| MESSAGES.get(usize::from(*kind)));
                costs.add(&format!("datagrams: {}", kind.unwrap_or(&"sealed")), 1);
            }
            Output::SendFrame { frame, .. } => {
                let (kind, message) = (frame.first().copied().unwrap_or(0), frame.get(1).copied().unwrap_or(0));
                let name = FRAMES.get(usize::from(kind).wrapping_sub(1)).unwrap_or(&"unknown");
                let what = MESSAGES.get(usize::from(message)).filter(|_| kind == 1).unwrap_or(name);
                costs.add(&format!("frames: {what}"), 1);
                costs.add(&format!("bytes of frames: {what}"), frame.len() as u64);
            }
            Output::OpenSession { .. } => costs.add("streams asked for", 1),
            Output::OpenCircuit { .. } => costs.add("circuits begun", 1),
            Output::Circuit { .. } => costs.add("steps of circuits", 1),
            Output::CloseSession { why, .. } => costs.add(&format!("streams closed: {why}"), 1),
            Output::Persist { writes, rewrite_tail, .. } => {
                costs.add("batches", 1);
                costs.add("tails rewritten", u64::from(*rewrite_tail));
                let bytes = |write: &knot_engine::Write| write.value.as_ref().map_or(0, bytes::Bytes::len);
                for write in writes {
                    costs.add(&format!("writes: {:?}", write.table), 1);
                    costs.add(&format!("bytes written: {:?}", write.table), bytes(write) as u64);
                }
            }
            Output::Load { query, .. } => costs.add(&format!("loads: {:?}", query.table), 1),
            Output::Verify(_) => costs.add("trials", 1),
            Output::Event(event) => {
                let text = format!("{event:?}");
                let name = text.split(['(', ' ']).next().unwrap_or_default();
                costs.add(&format!("events: {name}"), 1);
            }
        }
    }

    /// A server sees a member change.
    pub(super) fn weigh_change(&mut self, subject: Option<usize>, change: &MemberChange) {
        if !WEIGHED {
            return;
        }
        let (now, costs) = (self.now, &mut self.counts.costs);
        costs.add(&format!("seen: {:?} to {:?}", change.from, change.to), 1);
        let Some(subject) = subject else { return };
        let since = match (&self.nodes[subject].running, change.to) {
            (Some(running), Status::Alive) => running.since,
            (None, Status::Failed | Status::Left) => self.known.changed_at(),
            _ => return,
        };
        costs.add(&format!("milliseconds until seen as {:?}", change.to), millis(since, now));
    }

    /// An edit that was asked for then is answered.
    pub(super) fn weigh_answer(&mut self, id: u32, answer: &Result<Edited, EditError>) {
        if !WEIGHED {
            return;
        }
        let (now, costs) = (self.now, &mut self.counts.costs);
        let Some(write) = self.checkers.ledger.get(id) else { return };
        match answer {
            Ok(edited) => {
                let asked = write.operation.replicas;
                let name = if asked > 0 { "microseconds until held by peers" } else { "microseconds until edited" };
                costs.add(name, micros(now.since(write.asked)));
                costs.add("edits not held by peers", u64::from(asked > 0 && !edited.replicated));
                costs.add("peers that hold too few", asked.saturating_sub(edited.held_by) as u64);
            }
            Err(_) => costs.add("edits refused", 1),
        }
    }

    /// A read that was asked for then is answered.
    pub(super) fn weigh_read(&mut self, asked: Instant) {
        if !WEIGHED {
            return;
        }
        self.counts.costs.add("microseconds until read", micros(self.now.since(asked)));
    }

    /// How servers stand at a moment: what they hold, and do not know.
    pub(super) fn weigh_moment(&mut self) {
        if !WEIGHED {
            return;
        }
        if self.nodes.len() > super::SERVERS_MAX {
            return;
        }
        let full_mesh = 2 * self.nodes.len() <= self.scenario.bounds.full_mesh;
        for node in 0..self.nodes.len() {
            let Some(here) = &self.nodes[node].running else { continue };
            let costs = &mut self.counts.costs;
            costs.add("streams held", here.engine.streams() as u64);
            for queue in here.engine.queues() {
                costs.peak(&format!("most of {}", queue.name), queue.depth as u64);
                costs.add(&format!("held of {}", queue.name), queue.depth as u64);
            }
            for other in (0..self.nodes.len()).filter(|other| *other != node) {
                let id = self.nodes[other].key.node_id();
                let (seen, there) = (here.engine.member(&id), &self.nodes[other].running);
                let status = seen.as_ref().map(|member| member.status);
                match there {
                    Some(_) => {
                        costs.add("seconds not seen as alive", u64::from(status != Some(Status::Alive)));
                        let apart = full_mesh && here.engine.stream_to(id).is_none();
                        costs.add("seconds without a stream", u64::from(apart));
                    }
                    None => costs.add("seconds seen as alive", u64::from(status == Some(Status::Alive))),
                }
                if let Some(rtt) = seen.and_then(|member| member.rtt) {
                    costs.add("round trips", micros(rtt));
                }
            }
        }
    }

    /// Changes are durable on a server.
    pub(super) fn weigh_held(&mut self, changes: &[ChangeNo]) {
        if !WEIGHED {
            return;
        }
        for &number in changes {
            let change = self.checkers.tap.change(number);
            if let Some(write) = change.write.and_then(|id| self.checkers.ledger.get(id)) {
                let waited = micros(self.now.since(write.asked));
                self.counts.costs.add("microseconds until on a disk", waited);
            }
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn millis(since: Instant, now: Instant) -> u64 {
    u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX)
}
