//! Circuits through third members: those that this node is an end of, and those that it carries for others.
//!
//! Where none of a live member's addresses leads to it, the members that a stream is open with are asked in turn for a way
//! to it, the nearest first. A circuit goes over streams alone, never over another circuit, so its two halves are known to
//! be there, and nothing goes round in a ring. It is tied to these two streams: what takes the place of one may be ahead
//! of what is still under way on it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::api::Output;
use crate::circuit::{
    CIRCUIT_PIECE_BYTES, CIRCUIT_ROOM_BYTES, CIRCUIT_WINDOW_BYTES, CIRCUITS_MAX, CIRCUITS_OF_ONE_MAX, CircuitId, Step,
};
use crate::documents::Document;
use crate::engine::Engine;
use crate::faults::Fault;
use crate::identity::{NodeId, SessionId};
use crate::sometimes;
use crate::time::Instant;
use crate::wire::Frame;

/// How long one that is asked for a circuit may take to answer, the way to its target and back included, and how long the
/// handshake through it.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// What is carried for others leaves this share of a peer's queue to what this node itself has to say.
const QUEUE_SHARE: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Circuits {
    /// Those that this node is an end of, by their sessions.
    ends: BTreeMap<SessionId, End>,
    /// The sessions of these, by the stream to the carrier: what one carrier says of a circuit is nothing to another.
    sessions: BTreeMap<(SessionId, CircuitId), SessionId>,
    carried: BTreeMap<CircuitId, Carried>,
    /// Those that are asked for, by whom they are to lead to.
    searches: BTreeMap<NodeId, Search>,
    asked: u64,
}

/// This node's end of a circuit.
#[derive(Debug)]
struct End {
    id: CircuitId,
    /// The stream to its carrier.
    via: SessionId,
    /// What its session wrote and the other end has not taken.
    unanswered: usize,
    /// What its session has yet to take.
    unread: usize,
    /// What it has taken and the other end is to be told of.
    taken: usize,
}

/// A circuit between two others.
#[derive(Debug)]
struct Carried {
    /// The streams to its opener and its target.
    sides: [SessionId; 2],
    /// Whether the target has said that it is there.
    answered: bool,
    /// What is under way from either.
    under_way: [usize; 2],
}

/// It goes on until a session with its target is open, or all have been asked.
#[derive(Debug)]
struct Search {
    /// Who has yet to answer.
    asked: Option<(CircuitId, SessionId)>,
    tried: BTreeSet<NodeId>,
    deadline: Instant,
}

impl Circuits {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.searches.values().map(|search| search.deadline).min()
    }

    pub(super) fn carried(&self) -> usize {
        self.carried.len()
    }

    pub(super) fn ends(&self) -> usize {
        self.ends.len()
    }

    /// Forgets an end of which nothing more is to be heard.
    fn remove_end(&mut self, session: SessionId) -> Option<End> {
        let end = self.ends.remove(&session)?;
        self.sessions.remove(&(end.via, end.id));
        Some(end)
    }

    /// The search in which this peer was asked for this circuit.
    fn search_for(&mut self, id: &CircuitId, via: SessionId) -> Option<&mut Search> {
        self.searches.get_mut(&id.target).filter(|search| search.asked == Some((*id, via)))
    }
}

impl<D: Document> Engine<D> {
    /// Looks for a way to a member through others. Its own addresses go on being tried meanwhile.
    pub(super) fn seek_circuit(&mut self, target: NodeId, now: Instant) {
        if self.circuits.searches.contains_key(&target) || self.faults.has(Fault::CircuitUnsought) {
            return;
        }
        let search = Search { asked: None, tried: BTreeSet::new(), deadline: now };
        self.circuits.searches.insert(target, search);
        self.ask_for_circuit(target, now);
    }

    /// Asks the nearest member that was not asked yet.
    pub(super) fn ask_for_circuit(&mut self, target: NodeId, now: Instant) {
        let Some(search) = self.circuits.searches.get(&target) else { return };
        let is_possible = |(peer, session): &(NodeId, SessionId)| {
            *peer != target && !search.tried.contains(peer) && self.sessions.is_direct(*session)
        };
        let distance = |(peer, _): &(NodeId, SessionId)| {
            let rtt = self.membership.member(peer).and_then(|member| member.rtt);
            (rtt.unwrap_or(Duration::MAX), *peer)
        };
        let is_needed = self.sessions.of(target).is_none() && self.has_room_for_circuit();
        let nearest = self.sessions.peers().filter(is_possible).min_by_key(distance);
        let Some((peer, session)) = nearest.filter(|_| is_needed) else {
            self.circuits.searches.remove(&target);
            return;
        };
        let [a, b, c, d, e, f, g, h, ..] = self.boot.0;
        let number = u64::from_le_bytes([a, b, c, d, e, f, g, h]).wrapping_add(self.circuits.asked);
        self.circuits.asked += 1;
        let id = CircuitId { opener: self.node, target, number };
        if let Some(search) = self.circuits.searches.get_mut(&target) {
            search.asked = Some((id, session));
            search.tried.insert(peer);
            search.deadline = now + ANSWER_WITHIN;
        }
        self.send_step(session, id, Step::Open);
    }

    /// Asks others where one has not answered in time.
    pub(super) fn give_up_searches(&mut self, now: Instant) {
        let late = |search: &Search| search.deadline <= now;
        let targets: Vec<NodeId> =
            self.circuits.searches.iter().filter(|(_, search)| late(search)).map(|(target, _)| *target).collect();
        for target in targets {
            let asked = self.circuits.searches.get_mut(&target).and_then(|search| search.asked.take());
            if let Some((id, session)) = asked {
                sometimes!("circuit unanswered");
                self.send_step(session, id, Step::End);
            }
            self.ask_for_circuit(target, now);
        }
    }

    fn has_room_for_circuit(&self) -> bool {
        self.circuits.ends.len() < CIRCUITS_MAX && self.sessions.len() < self.config.limits.sessions && !self.left
    }

    /// A peer tells of a circuit.
    pub(super) fn on_circuit(&mut self, via: SessionId, peer: NodeId, id: CircuitId, step: Step, now: Instant) {
        if !self.sessions.is_direct(via) {
            self.refuse_circuit(via, id, &step);
        } else if let Some(session) = self.circuits.sessions.get(&(via, id)).copied() {
            self.on_own_circuit(session, step);
        } else if self.circuits.search_for(&id, via).is_some() {
            self.on_search(via, peer, id, &step, now);
        } else if self.circuits.carried.contains_key(&id) {
            self.carry(via, id, step);
        } else if step != Step::Open || id.opener == id.target || id.opener == self.node {
            self.refuse_circuit(via, id, &step);
        } else if id.target == self.node && id.opener != peer {
            self.take_circuit(via, peer, id);
        } else if id.target != self.node && id.opener == peer {
            self.begin_to_carry(via, id);
        } else {
            self.refuse_circuit(via, id, &step);
        }
    }

    /// Where there is no circuit, or no longer. Of the end of one that has ended here nobody needs to hear.
    fn refuse_circuit(&mut self, via: SessionId, id: CircuitId, step: &Step) {
        if *step != Step::End {
            sometimes!("circuit refused", *step == Step::Open);
            self.send_step(via, id, Step::End);
        }
    }

    /// Somebody asks for a circuit with this node, its carrier says; who that is the handshake proves. Of two through one
    /// carrier the later counts.
    fn take_circuit(&mut self, via: SessionId, carrier: NodeId, id: CircuitId) {
        let of_carrier = self.circuits.ends.iter().filter(|(_, end)| end.via == via && end.id.target == self.node);
        let ends = of_carrier.map(|(session, end)| (*session, end.id.opener));
        let (former, others): (Vec<_>, Vec<_>) = ends.partition(|(_, opener)| *opener == id.opener);
        former.into_iter().for_each(|(session, _)| self.end_circuit(session));
        let is_known = self.membership.let_in(&id.opener).is_some();
        if !is_known || others.len() >= CIRCUITS_OF_ONE_MAX || !self.has_room_for_circuit() {
            self.refuse_circuit(via, id, &Step::Open);
            return;
        }
        self.send_step(via, id, Step::Open);
        self.begin_circuit(via, carrier, id);
    }

    /// The answer of one that was asked for a circuit.
    fn on_search(&mut self, via: SessionId, carrier: NodeId, id: CircuitId, step: &Step, now: Instant) {
        if *step != Step::Open {
            if self.faults.has(Fault::CircuitAskedOnce) {
                self.circuits.searches.remove(&id.target);
            }
            self.ask_for_circuit(id.target, now);
            return;
        }
        if self.sessions.of(id.target).is_some() || !self.has_room_for_circuit() {
            sometimes!("circuit no longer needed");
            self.circuits.searches.remove(&id.target);
            self.send_step(via, id, Step::End);
            return;
        }
        if let Some(search) = self.circuits.searches.get_mut(&id.target) {
            search.asked = None;
            // The handshake fails before, if it does.
            search.deadline = now + 2 * ANSWER_WITHIN;
        }
        self.begin_circuit(via, carrier, id);
    }

    fn begin_circuit(&mut self, via: SessionId, carrier: NodeId, id: CircuitId) {
        let opens = id.opener == self.node;
        let session = self.sessions.add_circuit(if opens { id.target } else { id.opener }, opens);
        self.circuits.sessions.insert((via, id), session);
        self.circuits.ends.insert(session, End { id, via, unanswered: 0, unread: 0, taken: 0 });
        sometimes!("circuit");
        self.outputs.push_back(Output::OpenCircuit { session, carrier, opens });
    }

    /// What the other end of a circuit sends to this one.
    fn on_own_circuit(&mut self, session: SessionId, step: Step) {
        let Some(end) = self.circuits.ends.get_mut(&session) else { return };
        let weight = step.weight();
        let within = match &step {
            Step::Bytes(_) => {
                end.unread += weight;
                end.unread + end.taken <= CIRCUIT_WINDOW_BYTES
            }
            Step::Room(_) => {
                let rest = end.unanswered.checked_sub(weight);
                end.unanswered = rest.unwrap_or_default();
                rest.is_some()
            }
            Step::End => {
                self.circuits.remove_end(session);
                true
            }
            Step::Open => false,
        };
        if within {
            self.outputs.push_back(Output::Circuit { session, step });
        } else {
            self.stats.dropped("circuit beyond its window");
            self.end_circuit(session);
        }
    }

    /// Ends a circuit at this end, which has not asked for that.
    fn end_circuit(&mut self, session: SessionId) {
        if let Some(end) = self.circuits.remove_end(session) {
            self.send_step(end.via, end.id, Step::End);
            self.outputs.push_back(Output::Circuit { session, step: Step::End });
        }
    }

    /// What the session at this end of a circuit has done.
    pub(super) fn on_circuit_step(&mut self, session: SessionId, step: Step) {
        let Some(end) = self.circuits.ends.get_mut(&session) else { return };
        let (via, id) = (end.via, end.id);
        match step {
            Step::Bytes(mut bytes) => {
                while !bytes.is_empty() {
                    let piece = Step::Bytes(bytes.split_to(bytes.len().min(CIRCUIT_PIECE_BYTES)));
                    if let Some(end) = self.circuits.ends.get_mut(&session) {
                        end.unanswered += piece.weight();
                    }
                    self.send_step(via, id, piece);
                }
            }
            Step::Room(_) => {
                let taken = step.weight().min(end.unread);
                end.unread -= taken;
                end.taken += taken;
                if end.taken >= CIRCUIT_ROOM_BYTES {
                    let room = u32::try_from(std::mem::take(&mut end.taken)).unwrap_or(u32::MAX);
                    self.send_step(via, id, Step::Room(room));
                }
            }
            Step::End => {
                self.circuits.remove_end(session);
                self.send_step(via, id, Step::End);
            }
            Step::Open => {}
        }
    }

    /// Carries a circuit from now on, where there is a stream with its target and room. Of two between the same the later
    /// counts.
    fn begin_to_carry(&mut self, opener: SessionId, id: CircuitId) {
        let of_opener = self.circuits.carried.iter().filter(|(known, _)| known.opener == id.opener);
        let of_opener = of_opener.map(|(known, carried)| (*known, carried.sides));
        let (former, others): (Vec<_>, Vec<_>) = of_opener.partition(|(known, _)| known.target == id.target);
        for (former, sides) in former {
            self.circuits.carried.remove(&former);
            sides.into_iter().for_each(|side| self.send_step(side, former, Step::End));
        }
        let target = self.sessions.of(id.target).filter(|session| self.sessions.is_direct(*session));
        let has_place = self.circuits.carried.len() < CIRCUITS_MAX && others.len() < CIRCUITS_OF_ONE_MAX;
        let Some(target) = target.filter(|_| has_place && !self.left) else {
            self.refuse_circuit(opener, id, &Step::Open);
            return;
        };
        let carried = Carried { sides: [opener, target], answered: false, under_way: [0, 0] };
        self.circuits.carried.insert(id, carried);
        self.send_step(target, id, Step::Open);
    }

    /// Passes a step on to the other side.
    fn carry(&mut self, from: SessionId, id: CircuitId, step: Step) {
        let Some(Carried { sides, answered, under_way }) = self.circuits.carried.get_mut(&id) else { return };
        let [from_opener, from_target] = under_way;
        let (to, mine, theirs) = match *sides {
            [opener, target] if from == opener => (target, from_opener, from_target),
            [opener, target] if from == target => (opener, from_target, from_opener),
            _ => return,
        };
        let weight = step.weight();
        let within = match &step {
            Step::Bytes(_) => {
                *mine += weight;
                *mine <= CIRCUIT_WINDOW_BYTES
            }
            Step::Room(_) => {
                let rest = theirs.checked_sub(weight);
                *theirs = rest.unwrap_or_default();
                rest.is_some()
            }
            // The target says so once.
            Step::Open => from != sides[0] && !std::mem::replace(answered, true),
            Step::End => true,
        };
        let has_room = self.sessions.queued(to) <= self.config.limits.peer_queue_bytes / QUEUE_SHARE;
        if !within || !has_room {
            self.stats.dropped(if within { "circuit without room" } else { "circuit beyond its window" });
            self.circuits.carried.remove(&id);
            [from, to].into_iter().for_each(|side| self.send_step(side, id, Step::End));
            return;
        }
        if step == Step::End {
            self.circuits.carried.remove(&id);
        }
        self.send_step(to, id, step);
    }

    /// A stream is gone, and with it all circuits that went over it.
    pub(super) fn lose_circuits(&mut self, lost: SessionId) {
        if self.faults.has(Fault::CircuitKept) {
            return;
        }
        let gone = self.circuits.carried.iter().filter(|(_, carried)| carried.sides.contains(&lost));
        let gone: Vec<(CircuitId, [SessionId; 2])> = gone.map(|(id, carried)| (*id, carried.sides)).collect();
        for (id, sides) in gone {
            sometimes!("circuit lost its carrier's stream");
            self.circuits.carried.remove(&id);
            sides.into_iter().filter(|side| *side != lost).for_each(|side| self.send_step(side, id, Step::End));
        }
        let ends = self.circuits.ends.iter().filter(|(_, end)| end.via == lost);
        let ends: Vec<SessionId> = ends.map(|(session, _)| *session).collect();
        for session in ends {
            self.circuits.remove_end(session);
            self.outputs.push_back(Output::Circuit { session, step: Step::End });
        }
        for search in self.circuits.searches.values_mut() {
            if search.asked.take_if(|(_, session)| *session == lost).is_some() {
                search.deadline = Instant::ZERO;
            }
        }
    }

    fn send_step(&mut self, session: SessionId, circuit: CircuitId, step: Step) {
        self.send(session, &Frame::Circuit { circuit, step });
    }
}
