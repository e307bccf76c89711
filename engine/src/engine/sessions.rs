//! Streams: one to each peer, whoever opened it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::{Event, Output};
use crate::documents::{Document, Scope};
use crate::engine::Engine;
use crate::faults::Fault;
use crate::identity::{Address, NodeId, PeerIdentity, SessionId};
use crate::membership::{Closed, Route, Via};
use crate::replication::{Origin, Ticket};
use crate::sometimes;
use crate::time::Instant;
use crate::wire::Frame;

/// Two streams that were opened at once are both there after this long: the time to connect and to shake hands.
const AT_ONCE: Duration = Duration::from_secs(7);

/// A stream that is open, or being opened.
#[derive(Debug, Default)]
struct Session {
    route: Route,
    /// Whether this node opened it, or asked for it.
    mine: bool,
    /// Who has to be there, where others say who is.
    far: Option<NodeId>,
    /// Who is there, once that is proved.
    peer: Option<PeerIdentity>,
    /// The peer's data is another cluster's, and it has yet to hand us, or take from us, an identity.
    foreign: bool,
    /// Bytes that the driver has not sent yet.
    queued: usize,
    /// Since when it is the one to its peer.
    since: Option<Instant>,
    /// When something other than roots last went through it.
    used: Option<Instant>,
}

impl Session {
    /// Where this node opened it to, if it did and not through another.
    fn to(&self) -> Option<&Address> {
        match &self.route {
            Route::To(address) => Some(address),
            Route::Accepted | Route::Circuit => None,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Sessions {
    sessions: BTreeMap<SessionId, Session>,
    by_peer: BTreeMap<NodeId, SessionId>,
    opened: u64,
}

impl Sessions {
    pub(super) fn of(&self, peer: NodeId) -> Option<SessionId> {
        self.by_peer.get(&peer).copied()
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = (NodeId, SessionId)> {
        self.by_peer.iter().map(|(peer, session)| (*peer, *session))
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn queued_max(&self) -> usize {
        self.sessions.values().map(|session| session.queued).max().unwrap_or(0)
    }

    pub(super) fn queued(&self, session: SessionId) -> usize {
        self.sessions.get(&session).map_or(0, |session| session.queued)
    }

    pub(super) fn queue(&mut self, session: SessionId, bytes: usize) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.queued += bytes;
        }
    }

    pub(super) fn drained(&mut self, session: SessionId, queued: usize) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.queued = queued;
        }
    }

    /// When it last carried anything that is not said to every neighbour anyway.
    pub(super) fn used(&self, session: SessionId) -> Option<Instant> {
        self.sessions.get(&session).and_then(|session| session.used)
    }

    /// Whether this node opened it.
    pub(super) fn is_mine(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.mine)
    }

    /// Whether it goes through nobody else.
    pub(super) fn is_direct(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.route != Route::Circuit)
    }

    /// One that goes through a third to `far`, which this node or that has asked for.
    pub(super) fn add_circuit(&mut self, far: NodeId, mine: bool) -> SessionId {
        self.add(Session { route: Route::Circuit, mine, far: Some(far), ..Session::default() })
    }

    fn add(&mut self, session: Session) -> SessionId {
        self.opened += 1;
        let id = SessionId(self.opened * 2);
        self.sessions.insert(id, session);
        id
    }

    fn to(&self, session: SessionId) -> Option<Address> {
        self.sessions.get(&session)?.to().cloned()
    }

    fn note_use(&mut self, session: SessionId, now: Instant) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.used = Some(now);
        }
    }

    /// Every session that a node is at the other end of, whatever it is used for.
    pub(super) fn all_of(&self, node: NodeId) -> Vec<SessionId> {
        let is_its = |session: &Session| session.peer.as_ref().is_some_and(|peer| peer.node() == node);
        self.sessions.iter().filter(|(_, session)| is_its(session)).map(|(id, _)| *id).collect()
    }

    /// The proved peer of a session that may carry data.
    fn peer(&self, session: SessionId) -> Option<NodeId> {
        let session = self.sessions.get(&session).filter(|session| !session.foreign)?;
        session.peer.as_ref().map(PeerIdentity::node)
    }

    /// A session other than `id` that `peer` opened beside the one to it, and has sent nothing by.
    fn waiting(&self, peer: NodeId, id: SessionId) -> Option<SessionId> {
        let open = self.of(peer);
        let is_peers = |session: &Session| {
            !session.foreign && session.peer.as_ref().is_some_and(|identity| identity.node() == peer)
        };
        let waits = |of: SessionId, session: &Session| of != id && Some(of) != open && is_peers(session);
        self.sessions.iter().find(|(of, session)| waits(**of, session)).map(|(of, _)| *of)
    }

    /// Whether the session is so young that another may have been opened at the same time.
    fn is_fresh(&self, session: SessionId, now: Instant) -> bool {
        let since = self.sessions.get(&session).and_then(|session| session.since);
        since.is_some_and(|since| now.since(since) < AT_ONCE)
    }

    /// Whether `node` opened the session.
    fn is_from(&self, session: SessionId, node: NodeId, me: NodeId) -> bool {
        self.is_mine(session) == (node == me)
    }
}

impl<D: Document> Engine<D> {
    pub(super) fn connect(&mut self, address: Address, peer: Option<NodeId>, now: Instant) {
        let connecting = |session: &Session| session.peer.is_none() && session.to() == Some(&address);
        if self.sessions.len() >= self.config.limits.sessions || self.sessions.sessions.values().any(connecting) {
            return;
        }
        let open = peer.and_then(|peer| Some((peer, self.sessions.of(peer)?)));
        if open.is_some_and(|(peer, open)| self.better_addresses(open, peer) == 0) {
            return;
        }
        let session =
            self.sessions.add(Session { route: Route::To(address.clone()), mine: true, ..Session::default() });
        self.outputs.push_back(Output::OpenSession { session, address });
        self.repairs.arm(now);
    }

    pub(super) fn on_opened(&mut self, id: SessionId, identity: PeerIdentity, now: Instant) {
        if !self.started {
            self.hang_up(id, "not started");
            return;
        }
        if !self.sessions.sessions.contains_key(&id) {
            if self.sessions.len() >= self.config.limits.sessions {
                self.hang_up(id, "too many sessions");
                return;
            }
            self.sessions.sessions.insert(id, Session::default());
        }
        let peer = identity.node();
        if self.sessions.sessions.get(&id).and_then(|session| session.far).is_some_and(|far| far != peer) {
            self.stats.dropped("circuit to another than was asked for");
            self.hang_up(id, "another is at the end of the circuit");
            return;
        }
        if peer == self.node {
            sometimes!("connected to itself");
            let address = self.sessions.to(id);
            self.hang_up(id, "connected to itself");
            if let Some(address) = address {
                self.membership.on_connect_failed(&address, Closed::Local, now);
            }
            return;
        }
        if self.membership.evicted().contains(&peer) && !self.faults.has(Fault::EvictedLetIn) {
            sometimes!("evicted node refused");
            let address = self.sessions.to(id);
            self.shut_out(id, peer, now);
            self.emit(Event::EvictedCame { node: peer });
            if let Some(address) = address {
                self.membership.on_connect_failed(&address, Closed::Local, now);
            }
            return;
        }
        let foreign = identity.cluster != self.record.cluster;
        let (theirs, they_are_empty) = (identity.cluster, identity.empty);
        if let Some(session) = self.sessions.sessions.get_mut(&id) {
            session.peer = Some(identity);
            session.foreign = foreign;
        }
        if !foreign {
            self.establish(id, peer, now);
            return;
        }
        // Of two empty servers the one with the greater cluster id gives way.
        let we_are_empty = self.is_empty();
        if they_are_empty && (!we_are_empty || self.record.cluster < theirs) {
            self.send(id, &Frame::Adopt { cluster: self.record.cluster, secret: self.record.secret });
            if let Some(session) = self.sessions.sessions.get_mut(&id) {
                session.foreign = false;
            }
            self.establish(id, peer, now);
        } else if !we_are_empty {
            self.emit(Event::ForeignCluster { node: peer, theirs, ours: self.record.cluster });
            self.hang_up(id, "another cluster's data");
        }
    }

    fn adopt(&mut self, id: SessionId, cluster: crate::identity::ClusterId, secret: [u8; 32], now: Instant) {
        let Some(session) = self.sessions.sessions.get_mut(&id) else { return };
        if !session.foreign {
            // Both sides took the other for empty: begin anew, now that one has moved.
            self.hang_up(id, "both sides offered their cluster");
            return;
        }
        let Some(peer) = session.peer.as_ref().map(PeerIdentity::node) else { return };
        session.foreign = false;
        // What other sessions agreed on is about another cluster.
        let others: Vec<(NodeId, SessionId)> = self.sessions.peers().filter(|(_, other)| *other != id).collect();
        if !self.is_empty() {
            self.hang_up(id, "another cluster's data");
            return;
        }
        self.record.cluster = cluster;
        self.record.secret = secret;
        self.replica.adopt(secret);
        self.replica.save_node(&self.record);
        self.emit(Event::Adopted(cluster));
        for (other, session) in others {
            self.hang_up(session, "this node has joined another cluster");
            self.membership.on_session_closed(other, Closed::Local, now);
        }
        self.establish(id, peer, now);
    }

    /// Makes a session the one to its peer, where there is none yet or the peer has started anew.
    ///
    /// Of two that were opened at once, the one stays that goes through nobody else, or that the lower node opened.
    /// Otherwise who opened the second decides: it knows whether the first is gone, or worse, or whether it has only found
    /// the peer by another name. So the one that this node opened takes the place of a worse one or is closed, and the one
    /// that the peer opened waits for a frame.
    fn establish(&mut self, id: SessionId, peer: NodeId, now: Instant) {
        let Some(old) = self.sessions.of(peer).filter(|old| self.same_boot(*old, id)) else {
            self.take_place(id, peer, now);
            return;
        };
        let merit = |id| (self.sessions.is_direct(id), self.sessions.is_from(id, self.node.min(peer), self.node));
        let at_once = self.sessions.is_fresh(old, now) && merit(old) != merit(id);
        sometimes!("sessions collided", at_once);
        let is_mine = self.sessions.is_mine(id);
        let is_better = self.better_addresses(id, peer) < self.better_addresses(old, peer);
        if at_once && merit(old) > merit(id) {
            self.hang_up(id, "one session is enough");
        } else if is_mine && (at_once || is_better) {
            sometimes!("better way found", is_better && !at_once);
            self.take_place(id, peer, now);
        } else if is_mine {
            sometimes!("peer by another name");
            let address = self.sessions.to(id);
            self.hang_up(id, "another name of a peer that is connected");
            if let Some(address) = address {
                self.membership.on_connect_failed(&address, Closed::Local, now);
            }
        } else if let Some(other) = self.sessions.waiting(peer, id) {
            sometimes!("session may not wait");
            self.hang_up(other, "one session may wait");
        }
    }

    /// Makes a session the one to its peer, whatever was.
    fn take_place(&mut self, id: SessionId, peer: NodeId, now: Instant) {
        if let Some(old) = self.sessions.of(peer) {
            sometimes!("session replaced");
            self.hang_up(old, "a newer session took its place");
        }
        self.sessions.by_peer.insert(peer, id);
        if let Some(session) = self.sessions.sessions.get_mut(&id) {
            session.since = Some(now);
            session.used = Some(now);
        }
        self.plan_sweep(now);
        let route = self.sessions.sessions.get(&id).map(|session| session.route.clone()).unwrap_or_default();
        self.membership.on_session_opened(peer, route, now);
        self.repairs.opened(peer);
        let roots = self.roots_for(peer);
        self.send(id, &Frame::Roots(roots));
        self.answer_calls(peer, id);
        self.repairs.arm(now);
    }

    /// How many of a peer's addresses are better than what a session goes through.
    fn better_addresses(&self, id: SessionId, peer: NodeId) -> usize {
        let addresses = self.membership.record(&peer).map_or(&[][..], |record| &record.addresses);
        self.sessions.sessions.get(&id).map_or(0, |session| session.route.better(addresses))
    }

    fn same_boot(&self, one: SessionId, other: SessionId) -> bool {
        let boot = |id: &SessionId| self.sessions.sessions.get(id)?.peer.as_ref().map(|peer| peer.boot);
        boot(&one) == boot(&other) || self.faults.has(Fault::RestartUnnoticed)
    }

    pub(super) fn on_closed(&mut self, id: SessionId, why: Closed, now: Instant) {
        let Some(session) = self.sessions.sessions.remove(&id) else {
            // One that was opened to this node, and did not come as far as a handshake's end.
            self.stats.dropped("stream that did not verify");
            return;
        };
        self.lose_circuits(id);
        self.replica.forget_session(id);
        let Some(peer) = &session.peer else {
            let (to, far) = (session.to().cloned(), session.far.filter(|_| session.mine));
            if self.faults.has(Fault::AttemptsLeak) {
                self.sessions.sessions.insert(id, session);
            }
            if let Some(address) = to {
                self.membership.on_connect_failed(&address, why, now);
            }
            if let Some(far) = far {
                self.ask_for_circuit(far, now);
            }
            return;
        };
        let peer = peer.node();
        if self.sessions.of(peer) == Some(id) {
            self.sessions.by_peer.remove(&peer);
            self.repairs.closed(peer);
            match self.sessions.waiting(peer, id) {
                Some(next) => {
                    sometimes!("waiting session used");
                    self.take_place(next, peer, now);
                }
                None => self.membership.on_session_closed(peer, why, now),
            }
        }
    }

    /// Closes a session from this side; the driver reports nothing more about it.
    pub(super) fn hang_up(&mut self, id: SessionId, why: &'static str) {
        self.outputs.push_back(Output::CloseSession { session: id, why });
        self.lose_circuits(id);
        self.replica.forget_session(id);
        let Some(session) = self.sessions.sessions.remove(&id) else { return };
        if let Some(peer) = session.peer.as_ref().map(PeerIdentity::node)
            && self.sessions.of(peer) == Some(id)
        {
            self.sessions.by_peer.remove(&peer);
            self.repairs.closed(peer);
        }
    }

    pub(super) fn on_frame(&mut self, id: SessionId, bytes: &[u8], now: Instant) {
        let frame = match Frame::decode(bytes) {
            Ok(Some(frame)) => frame,
            Ok(None) if !self.faults.has(Fault::UnknownRefused) => {
                sometimes!("later version spoke");
                self.stats.dropped("unknown frame kind");
                return;
            }
            Ok(None) | Err(_) => {
                self.stats.dropped("malformed frame");
                self.misbehaved(id, now);
                return;
            }
        };
        self.stats.received(frame.kind(), bytes.len());
        if let Frame::Adopt { cluster, secret } = frame {
            self.adopt(id, cluster, secret, now);
            return;
        }
        if let Frame::Evicted = frame {
            if let Some(session @ Session { peer: Some(peer), .. }) = self.sessions.sessions.get(&id) {
                let by = Some((peer.node(), session.to().cloned()));
                self.emit(Event::Evicted { by });
            }
            // It has closed the stream, or says this for no reason.
            self.misbehaved(id, now);
            return;
        }
        let Some(peer) = self.sessions.peer(id) else {
            self.stats.dropped("frame before the session was established");
            return;
        };
        if self.sessions.of(peer) != Some(id) {
            sometimes!("waiting session spoken on");
            self.take_place(id, peer, now);
        }
        if !matches!(frame, Frame::Roots(_)) {
            self.sessions.note_use(id, now);
        }
        self.on_peer_frame(id, peer, frame, now);
    }

    /// Closes a session whose peer sent what no engine sends.
    fn misbehaved(&mut self, id: SessionId, now: Instant) {
        let peer = self.sessions.peer(id).filter(|peer| self.sessions.of(*peer) == Some(id));
        self.hang_up(id, "the peer sent what it should not");
        if let Some(peer) = peer {
            self.membership.on_session_closed(peer, Closed::Local, now);
        }
    }

    fn on_peer_frame(&mut self, id: SessionId, peer: NodeId, frame: Frame, now: Instant) {
        match frame {
            Frame::Membership(message, roots) => {
                self.on_stream_roots(peer, roots, now);
                self.membership.handle_message(peer, Via::Stream, message, now);
            }
            Frame::Push { seq, ack, changes } => {
                let ticket = ack.then(|| self.spread.expect(id, seq));
                self.replica.receive(peer, Origin::Push, changes, ticket, now, &mut self.stats);
            }
            Frame::Relay { seq, ack, span, changes } => {
                let ticket = if ack { self.spread.expect(id, seq) } else { self.spread.ticket() };
                self.take_relay(ticket, span, &changes, now);
                self.replica.receive(peer, Origin::Push, changes, Some(ticket), now, &mut self.stats);
            }
            Frame::Held { seq } => self.on_held(seq, id, peer),
            Frame::Roots(roots) => self.on_stream_roots(peer, roots, now),
            Frame::Compare { .. } | Frame::Want { .. }
                if self.sessions.queued(id) > self.config.limits.peer_queue_bytes =>
            {
                self.stats.dropped("request of a peer that does not read");
            }
            Frame::Compare { request, scope, prefix, sums } => {
                if self.is_entitled(peer, &scope) {
                    // A root that was overtaken on its way, by datagram, is believed until the next one.
                    let overtaken = sums == self.replica.index().split(&scope, &prefix);
                    sometimes!("overtaken root", overtaken);
                    if overtaken && !self.faults.has(Fault::OvertakenRootKept) {
                        let roots = self.roots_for(peer);
                        self.send(id, &Frame::Roots(roots));
                    }
                    let differences = self.differences(&scope, &prefix, &sums, now);
                    self.send(id, &Frame::Differences { request, differences });
                }
            }
            Frame::Differences { request, differences } => self.on_differences(peer, request, differences, now),
            Frame::Want { request, wanted } => {
                if let Some(wanted) = self.entitled(peer, wanted) {
                    self.replica.serve(id, request, wanted, &mut self.stats);
                }
            }
            Frame::Window { request, changes, next } => self.on_window(peer, request, changes, next, now),
            Frame::Circuit { circuit, step } => self.on_circuit(id, peer, circuit, step, now),
            Frame::Adopt { .. } | Frame::Evicted => {}
        }
    }

    /// A delivery is over: the push is answered, or the repair goes on.
    pub(super) fn on_delivered(&mut self, ticket: Ticket, complete: bool, now: Instant) {
        let relayed = self.relay(ticket, complete, now);
        match self.spread.expected(ticket) {
            Some((session, seq)) if complete && !self.faults.has(Fault::HeldUnsaid) => {
                self.send(session, &Frame::Held { seq })
            }
            None if !relayed => self.on_landed(ticket, complete, now),
            Some(_) | None => {}
        }
    }

    /// Whether a peer may have documents of a scope.
    pub(super) fn is_entitled(&mut self, peer: NodeId, scope: &Scope) -> bool {
        let zone = self.membership.record(&peer).map(|record| record.zone.as_str());
        let entitled = zone.is_some_and(|zone| scope.is_held_in(zone)) && scope.is_held_in(&self.config.zone);
        if !entitled {
            self.stats.dropped("request for a scope that the peer does not hold");
        }
        entitled
    }

    fn is_empty(&self) -> bool {
        self.replica.is_empty()
    }
}
