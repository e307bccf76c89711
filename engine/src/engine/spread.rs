//! Push: each new change goes at once to every member that holds its scope and has a session open; in a large cluster
//! along a tree ([`relay`](super::relay)).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::api::Event;
use crate::documents::{Document, DocumentId, Scope};
use crate::engine::Engine;
use crate::faults::{Fault, Faults};
use crate::identity::{NodeId, SessionId};
use crate::replication::push::Waits;
use crate::replication::{DurableEdit, Ticket};
use crate::sometimes;
use crate::time::Instant;
use crate::wire::{DocumentChanges, Frame, Root};

/// Bytes of changes in one push; a single larger change goes alone.
const PUSH_BYTES: usize = 256 << 10;
/// Pushes of peers that wait for storage and ask to be told; one beyond is not told.
const EXPECTED_MAX: usize = 65_536;

#[derive(Debug)]
pub(super) struct Spread {
    pub(super) seq: u64,
    pub(super) waits: Waits,
    tickets: u64,
    /// Pushes of peers that asked to be told when they are durable here.
    expected: BTreeMap<Ticket, (SessionId, u64)>,
}

impl Spread {
    pub(super) fn new(faults: Faults) -> Self {
        Self { seq: 0, waits: Waits::new(faults), tickets: 0, expected: BTreeMap::new() }
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    pub(super) fn expect(&mut self, session: SessionId, seq: u64) -> Ticket {
        let ticket = self.ticket();
        if self.expected.len() < EXPECTED_MAX {
            self.expected.insert(ticket, (session, seq));
        }
        ticket
    }

    pub(super) fn expected(&mut self, ticket: Ticket) -> Option<(SessionId, u64)> {
        self.expected.remove(&ticket)
    }
}

impl<D: Document> Engine<D> {
    /// Sends changes that are durable here, and answers the edits that made them.
    pub(super) fn spread(&mut self, authored: Vec<(DocumentId, Bytes)>, edits: Vec<DurableEdit>, now: Instant) {
        let mut by_scope: BTreeMap<Scope, Vec<(DocumentId, Bytes)>> = BTreeMap::new();
        for (id, chunk) in authored {
            by_scope.entry(id.scope().clone()).or_default().push((id, chunk));
        }
        let mut waiting: BTreeMap<Scope, Vec<DurableEdit>> = BTreeMap::new();
        for edit in edits {
            let has_room = self.spread.waits.len() < self.config.limits.replica_waits;
            if edit.replicas > 0 && edit.edited.changed && has_room && !self.left {
                waiting.entry(edit.scope.clone()).or_default().push(edit);
            } else {
                self.answer(edit);
            }
        }
        for (scope, changes) in by_scope {
            let edits = waiting.remove(&scope).unwrap_or_default();
            self.push(&scope, changes, edits, now);
        }
        // Their changes were not durable just now, but before; a planted bug can do that.
        waiting.into_values().flatten().for_each(|edit| self.answer(edit));
    }

    /// Answers an edit that waits for no peer. One that changed nothing counts the peers that hold all that we do.
    fn answer(&mut self, edit: DurableEdit) {
        let mut edited = edit.edited;
        if edit.replicas > 0 && !edited.changed {
            edited.held_by = self.repairs.in_step(&edit.scope, self.replica.index().root(&edit.scope));
            edited.replicated = edited.held_by >= edit.replicas;
        }
        self.emit(Event::Edited(edit.id, Ok(edited)));
    }

    fn push(&mut self, scope: &Scope, changes: Vec<(DocumentId, Bytes)>, edits: Vec<DurableEdit>, now: Instant) {
        let ack = !edits.is_empty();
        let mut frames = BTreeMap::new();
        if !self.membership.is_full_mesh() {
            let needed = edits.iter().map(|edit| edit.replicas).max().unwrap_or(0);
            for changes in split(changes) {
                self.spread.seq += 1;
                let seq = self.spread.seq;
                frames.insert(seq, self.send_along(scope, seq, needed, &changes, now));
            }
            if ack {
                self.spread.waits.add(scope, frames, edits, now);
            }
            return;
        }
        let peers = self.holders(scope);
        sometimes!("pushed to some", peers.len() < self.sessions.len());
        sometimes!("pushed to nobody", peers.is_empty());
        for changes in split(changes) {
            self.spread.seq += 1;
            let seq = self.spread.seq;
            let mut sent = BTreeSet::new();
            let frame = Frame::Push { seq, ack, changes };
            let bytes = frame.encode();
            for (_, session) in &peers {
                if self.sessions.queued(*session) > self.config.limits.peer_queue_bytes {
                    sometimes!("push without room");
                    self.stats.dropped("push without room");
                } else {
                    self.send_encoded(*session, frame.kind(), bytes.clone());
                    sent.insert(*session);
                }
            }
            frames.insert(seq, sent);
        }
        if !ack {
            return;
        }
        let seqs: Vec<u64> = frames.keys().copied().collect();
        self.spread.waits.add(scope, frames, edits, now);
        if self.faults.has(Fault::HeldOnSend) {
            for (peer, session) in peers {
                seqs.iter().for_each(|seq| self.on_held(*seq, session, peer));
            }
        }
    }

    /// A peer says that a push is durable there.
    pub(super) fn on_held(&mut self, seq: u64, session: SessionId, peer: NodeId) {
        for (edit, edited) in self.spread.waits.held(seq, session, peer) {
            self.emit(Event::Edited(edit, Ok(edited)));
        }
    }

    /// A peer says by stream what it holds. By datagram others could say it in its name.
    pub(super) fn on_stream_roots(&mut self, peer: NodeId, roots: Vec<Root>, now: Instant) {
        if self.spread.waits.len() > 0 {
            for Root { scope, sum } in &roots {
                let is_in_step = *sum == self.replica.index().root(scope) || self.faults.has(Fault::InStepUnseen);
                if is_in_step && self.shared_scopes(peer).contains(scope) {
                    for (edit, edited) in self.spread.waits.in_step(scope, peer) {
                        self.emit(Event::Edited(edit, Ok(edited)));
                    }
                }
            }
        }
        self.on_roots(peer, roots, now);
    }

    /// Peers that hold a scope and can be reached.
    fn holders(&self, scope: &Scope) -> Vec<(NodeId, SessionId)> {
        let holds = |peer: &NodeId| {
            self.faults.has(Fault::ScopeIgnored)
                || self.membership.record(peer).is_some_and(|record| scope.is_held_in(&record.zone))
        };
        self.sessions.peers().filter(|(peer, _)| holds(peer)).collect()
    }
}

/// Groups changes by document into pushes of bounded size, keeping each document's order.
fn split(changes: Vec<(DocumentId, Bytes)>) -> Vec<Vec<DocumentChanges>> {
    let mut pushes: Vec<Vec<DocumentChanges>> = Vec::new();
    let mut room = 0;
    for (document, chunk) in changes {
        if pushes.is_empty() || chunk.len() > room {
            pushes.push(Vec::new());
            room = PUSH_BYTES;
        }
        room = room.saturating_sub(chunk.len());
        let Some(push) = pushes.last_mut() else { continue };
        match push.last_mut() {
            Some(last) if last.document == document => last.changes.push(chunk),
            _ => push.push(DocumentChanges { document, changes: vec![chunk] }),
        }
    }
    pushes
}
