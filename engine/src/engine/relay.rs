//! Push in a large cluster: a change goes along a tree.
//!
//! Members of a zone stand in the ring of their ids. Who sends a change to many of them cuts that ring into spans, sends
//! the change to one member of each, and makes it that member's task to reach the others of its span, which does the same
//! as soon as the change is durable there. Another zone is one span, whose head is its gateway. Heads are members to whom
//! a stream is open, where there is one; else one is opened.
//!
//! A span names ids, not members, so those who see the cluster differently still agree on whose task a member is, and
//! since each span lies within the one before it, without the member that cuts it, no change goes round in circles. What
//! a span's head does not do, because it is gone or lacks what the change depends on, repair does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::documents::{Document, Scope};
use crate::engine::Engine;
use crate::faults::Fault;
use crate::identity::{NodeId, SessionId, Span};
use crate::replication::Ticket;
use crate::time::Instant;
use crate::wire::{DocumentChanges, Frame};

/// Spans that a sender cuts a zone into, where it has more members than are told straight.
const FANOUT: usize = 6;
/// The same where an edit waits for peers: they have to be sent it by this node itself, and one may be slow.
const FANOUT_MAX: usize = 64;
const SPARE: usize = 2;
/// Changes that are to be passed on and wait for storage; one beyond is left to repair.
const RELAYS_MAX: usize = 4_096;
/// Sends that wait for a stream to open.
const CALLS_MAX: usize = 1_024;
/// How long for, before another member of the span is tried.
const PATIENCE: Duration = Duration::from_secs(1);
/// Members of a span that are tried before it is left to repair.
const TRIES_MAX: usize = 3;

/// What passes on through this node, or waits for a stream.
#[derive(Debug, Default)]
pub(super) struct Relays {
    /// Changes to be passed on when they are durable.
    landing: BTreeMap<Ticket, (Span, Vec<DocumentChanges>)>,
    /// Sends that wait for a stream, by whom it leads to.
    calls: BTreeMap<NodeId, Vec<Send>>,
    waiting: usize,
}

/// Changes on their way to one span of a zone.
#[derive(Clone, Debug)]
struct Send {
    seq: u64,
    ack: bool,
    zone: String,
    span: Span,
    /// Whether others than the one it is sent to are in the span.
    shared: bool,
    changes: Vec<DocumentChanges>,
    deadline: Instant,
    tried: Vec<NodeId>,
}

impl Relays {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.calls.values().flatten().map(|send| send.deadline).min()
    }

    pub(super) fn depth(&self) -> (usize, usize) {
        (self.landing.len() + self.waiting, RELAYS_MAX + CALLS_MAX)
    }

    fn take_call(&mut self, peer: NodeId) -> Vec<Send> {
        let sends = self.calls.remove(&peer).unwrap_or_default();
        self.waiting -= sends.len();
        sends
    }

    fn take_late(&mut self, now: Instant) -> Vec<Send> {
        let mut late = Vec::new();
        self.calls.retain(|_, sends| {
            late.extend(sends.extract_if(.., |send| send.deadline <= now));
            !sends.is_empty()
        });
        self.waiting -= late.len();
        late
    }
}

impl<D: Document> Engine<D> {
    /// Sends a change of this node's own to all who hold its scope, `needed` of whom are waited for. Returns by which
    /// sessions it has gone out so far.
    pub(super) fn send_along(
        &mut self,
        scope: &Scope,
        seq: u64,
        needed: usize,
        changes: &[DocumentChanges],
        now: Instant,
    ) -> BTreeSet<SessionId> {
        let me = self.node;
        let whole = Span { from: me, to: me };
        let ack = needed > 0;
        let zones: Vec<(String, usize)> = self.membership.zones().map(|(zone, n)| (zone.to_owned(), n)).collect();
        // Who is waited for has to be told by this node: others would confirm to those who told them.
        let asked = (needed + SPARE).min(FANOUT_MAX);
        let far = if ack { asked.div_ceil(zones.len().max(1)) } else { 1 };
        let near = if ack { FANOUT.max(asked) } else { FANOUT };
        let mut sent = BTreeSet::new();
        for (zone, members) in zones {
            let is_near = zone == self.config.zone;
            let spans = if is_near {
                self.cut(whole, &zone, near)
            } else if !scope.is_held_in(&zone) && !self.faults.has(Fault::ScopeIgnored) {
                Vec::new()
            } else if far > 1 {
                self.cut(whole, &zone, far)
            } else {
                vec![(whole, members > 1)]
            };
            for (span, shared) in spans {
                let (zone, changes, deadline) = (zone.clone(), changes.to_vec(), now + PATIENCE);
                let send = Send { seq, ack, zone, span, shared, changes, deadline, tried: Vec::new() };
                sent.extend(self.send_to_span(send, now));
            }
        }
        sent
    }

    /// A peer makes it this node's task to pass changes on, once they are durable here.
    pub(super) fn take_relay(&mut self, ticket: Ticket, span: Span, changes: &[DocumentChanges], now: Instant) {
        if self.faults.has(Fault::RelayBeforePersist) {
            self.pass_on(span, changes, now);
        } else if self.relays.landing.len() < RELAYS_MAX {
            let changes = if self.faults.has(Fault::RelayNotTaken) { Vec::new() } else { changes.to_vec() };
            self.relays.landing.insert(ticket, (span, changes));
        } else {
            self.stats.dropped("relay without room");
        }
    }

    /// A delivery is over. Where it is whole and others wait for it, it goes on to them. False where it was no relay.
    pub(super) fn relay(&mut self, ticket: Ticket, complete: bool, now: Instant) -> bool {
        let Some((span, changes)) = self.relays.landing.remove(&ticket) else { return false };
        if complete {
            self.pass_on(span, &changes, now);
        } else {
            self.stats.dropped("relay of what is not whole here");
        }
        true
    }

    fn pass_on(&mut self, span: Span, changes: &[DocumentChanges], now: Instant) {
        if self.left {
            return;
        }
        let zone = self.config.zone.clone();
        for (span, shared) in self.cut(span, &zone, FANOUT) {
            self.spread.seq += 1;
            let (seq, changes) = (self.spread.seq, changes.to_vec());
            let (zone, deadline) = (zone.clone(), now + PATIENCE);
            let send = Send { seq, ack: false, zone, span, shared, changes, deadline, tried: Vec::new() };
            self.send_to_span(send, now);
        }
    }

    /// Cuts what lies in a span of a zone into spans without this node, each with whether it holds several.
    fn cut(&self, span: Span, zone: &str, fanout: usize) -> Vec<(Span, bool)> {
        let me = self.node;
        // Nothing is cut across this node, or it would be told of its own.
        let parts = if span.holds(&me) && span.from != me {
            vec![Span { from: me, ..span }, Span { to: me, ..span }]
        } else {
            vec![span]
        };
        let members: Vec<(Span, Vec<NodeId>)> =
            parts.into_iter().map(|part| (part, self.membership.live_in_span(&part, zone).collect())).collect();
        let count: usize = members.iter().map(|(_, members)| members.len()).sum();
        let straight = self.config.membership.full_mesh / 2;
        let size = if count <= straight { 1 } else { count.div_ceil(fanout.max(1)) };
        let mut cuts = Vec::new();
        for (part, members) in members {
            let mut chunks = members.chunks(size).peekable();
            while let Some(chunk) = chunks.next() {
                let next = chunks.peek().and_then(|next| next.first());
                let from = chunk.first().copied().unwrap_or(part.from);
                cuts.push((Span { from, to: next.copied().unwrap_or(part.to) }, chunk.len() > 1));
            }
        }
        cuts
    }

    /// Sends to the head of a span, or calls it. Returns by which session, if it has gone out.
    fn send_to_span(&mut self, mut send: Send, now: Instant) -> Option<SessionId> {
        let head = self.head(&send)?;
        if let Some(session) = self.sessions.of(head) {
            return self.send_relay(session, &send).then_some(session);
        }
        if self.relays.waiting >= CALLS_MAX {
            self.stats.dropped("push without room");
            return None;
        }
        send.tried.push(head);
        send.deadline = now + PATIENCE;
        self.relays.waiting += 1;
        self.relays.calls.entry(head).or_default().push(send);
        self.membership.call(head, now);
        None
    }

    /// The member of a span to send to: one that a stream is open with, else the first that answers.
    fn head(&self, send: &Send) -> Option<NodeId> {
        let untried = |node: &NodeId| *node != self.node && !send.tried.contains(node);
        let is_member = |node: &NodeId| self.membership.record(node).is_some_and(|record| record.zone == send.zone);
        let open = self
            .sessions
            .peers()
            .filter(|(_, session)| self.sessions.queued(*session) <= self.config.limits.peer_queue_bytes);
        let mut open = open.map(|(peer, _)| peer).filter(|peer| send.span.holds(peer) && is_member(peer));
        open.find(untried).or_else(|| {
            let mut members = self.membership.live_in_span(&send.span, &send.zone).filter(untried);
            let first = members.next()?;
            let alive = std::iter::once(first).chain(members).find(|node| self.membership.is_alive(node));
            alive.or(Some(first))
        })
    }

    fn send_relay(&mut self, session: SessionId, send: &Send) -> bool {
        if self.sessions.queued(session) > self.config.limits.peer_queue_bytes {
            self.stats.dropped("push without room");
            return false;
        }
        let Send { seq, ack, span, shared, .. } = *send;
        let changes = send.changes.clone();
        let frame = if shared { Frame::Relay { seq, ack, span, changes } } else { Frame::Push { seq, ack, changes } };
        self.send(session, &frame);
        true
    }

    /// A stream is open that something may have waited for.
    pub(super) fn answer_calls(&mut self, peer: NodeId, session: SessionId) {
        for send in self.relays.take_call(peer) {
            if self.send_relay(session, &send) && send.ack {
                self.spread.waits.sent(send.seq, session);
            }
        }
    }

    /// Tries others where a stream was not opened in time.
    pub(super) fn give_up_calls(&mut self, now: Instant) {
        if self.relays.next_deadline().is_none_or(|at| at > now) {
            return;
        }
        for send in self.relays.take_late(now) {
            let (seq, ack) = (send.seq, send.ack);
            if send.tried.len() >= TRIES_MAX {
                self.stats.dropped("push that reached nobody");
            } else if let Some(session) = self.send_to_span(send, now)
                && ack
            {
                self.spread.waits.sent(seq, session);
            }
        }
    }
}
