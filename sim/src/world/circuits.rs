//! Circuits much as the server's driver runs them: real sessions, handshake, seals and all, over bytes that engines carry.
//! But what has no room when a session closes is dropped at once.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, Bytes};
use knot_engine::documents::Document;
use knot_engine::membership::Closed;
use knot_engine::seal::ClusterKey;
use knot_engine::session::{self, Role, Session};
use knot_engine::{
    CIRCUIT_PIECE_BYTES, CIRCUIT_STEP_BYTES_MIN, CIRCUIT_WINDOW_BYTES, NodeId, SessionEvent, SessionId, Step,
};

use super::World;
use super::queue::Happening;
use crate::draw::Draw;
use crate::network::Process;
use crate::node::CLUSTER_KEY;

/// The ends of circuits that processes run.
#[derive(Debug)]
pub(super) struct Circuits {
    ends: BTreeMap<(Process, SessionId), End>,
    randoms: Draw,
}

#[derive(Debug)]
struct End {
    session: Session,
    far: Option<NodeId>,
    /// What the session wrote and there is no room for yet.
    waiting: VecDeque<Bytes>,
    /// What may go out.
    room: usize,
}

impl End {
    /// What goes out next.
    fn next_piece(&mut self) -> Option<Step> {
        if let Some(bytes) = self.session.poll_transmit() {
            self.waiting.push_back(bytes);
        }
        let first = self.waiting.front_mut()?;
        if self.room < CIRCUIT_STEP_BYTES_MIN {
            return None;
        }
        let piece = Step::Bytes(first.split_to(first.len().min(self.room).min(CIRCUIT_PIECE_BYTES)));
        self.room -= piece.weight();
        if !first.has_remaining() {
            self.waiting.pop_front();
        }
        Some(piece)
    }

    fn queued(&self) -> usize {
        self.waiting.iter().map(Bytes::len).sum()
    }
}

impl Circuits {
    pub(super) fn new(seed: u64) -> Self {
        Self { ends: BTreeMap::new(), randoms: Draw::new(seed, "circuits") }
    }

    pub(super) fn has(&self, process: Process, session: SessionId) -> bool {
        self.ends.contains_key(&(process, session))
    }

    /// Who has proved to be at the other end.
    pub(super) fn far(&self, process: Process, session: SessionId) -> Option<NodeId> {
        self.ends.get(&(process, session))?.far
    }

    pub(super) fn process_died(&mut self, process: Process) {
        self.ends.retain(|(of, _), _| *of != process);
    }
}

impl<D: Document> World<D> {
    pub(super) fn open_circuit(&mut self, process: Process, session: SessionId, opens: bool) {
        let node = &self.nodes[process.node];
        let Some(running) = &node.running else { return };
        let config = session::Config {
            keys: ClusterKey::new(CLUSTER_KEY).expect("a key of its length").into(),
            cluster: "sim".to_owned(),
            identity: running.engine.identity(),
            node_key: node.key.clone(),
            compression: true,
        };
        let role = if opens { Role::Initiator } else { Role::Responder };
        let machine = Session::new(role, config, self.circuits.randoms.bytes());
        let end = End { session: machine, far: None, waiting: VecDeque::new(), room: CIRCUIT_WINDOW_BYTES };
        self.circuits.ends.insert((process, session), end);
        self.flow(process, session);
    }

    /// Something happens to the stream below.
    pub(super) fn on_circuit(&mut self, process: Process, session: SessionId, step: Step) {
        let Some(end) = self.circuits.ends.get_mut(&(process, session)) else { return };
        match step {
            Step::Bytes(ref bytes) => {
                if end.session.handle_bytes(bytes).is_err() {
                    self.end_circuit(process, session, Closed::Local);
                    return;
                }
                self.tell_of(process, session, SessionEvent::Circuit(step.room_of()));
            }
            Step::Room(_) => end.room += step.weight(),
            Step::End => {
                self.end_circuit(process, session, Closed::Eof);
                return;
            }
            Step::Open => {}
        }
        self.flow(process, session);
    }

    pub(super) fn send_by_circuit(&mut self, process: Process, session: SessionId, frame: &[u8]) {
        let Some(end) = self.circuits.ends.get_mut(&(process, session)) else { return };
        if end.session.send_frame(frame).is_err() {
            self.end_circuit(process, session, Closed::Local);
            return;
        }
        self.flow(process, session);
        let queued = self.circuits.ends.get(&(process, session)).map_or(0, End::queued);
        self.tell_of(process, session, SessionEvent::Writable { queued });
    }

    /// The engine has no more use for the session.
    pub(super) fn close_circuit(&mut self, process: Process, session: SessionId) {
        self.flow(process, session);
        if self.circuits.ends.remove(&(process, session)).is_some() {
            self.tell_of(process, session, SessionEvent::Circuit(Step::End));
        }
    }

    /// The session is over.
    fn end_circuit(&mut self, process: Process, session: SessionId, why: Closed) {
        self.circuits.ends.remove(&(process, session));
        self.tell_of(process, session, SessionEvent::Closed(why));
        self.tell_of(process, session, SessionEvent::Circuit(Step::End));
    }

    /// Passes on what the session has to tell and to send.
    fn flow(&mut self, process: Process, session: SessionId) {
        let mut reports = Vec::new();
        if let Some(end) = self.circuits.ends.get_mut(&(process, session)) {
            while let Some(event) = end.session.poll_event() {
                reports.push(match event {
                    session::SessionEvent::Established(peer) => {
                        end.far = Some(peer.node());
                        SessionEvent::Opened(peer)
                    }
                    session::SessionEvent::Frame(frame) => SessionEvent::Frame(frame),
                });
            }
            let before = reports.len();
            while let Some(piece) = end.next_piece() {
                reports.push(SessionEvent::Circuit(piece));
            }
            if reports.len() > before {
                reports.push(SessionEvent::Writable { queued: end.queued() });
            }
        }
        reports.into_iter().for_each(|event| self.tell_of(process, session, event));
    }

    /// What a process tells its engine, as soon as that has said what else it wants.
    fn tell_of(&mut self, process: Process, session: SessionId, event: SessionEvent) {
        self.insert(self.now, Happening::Circuit(process, session, event));
    }

    /// It tells it. What a session had to say that was closed meanwhile is for nobody.
    pub(super) fn on_circuit_event(&mut self, process: Process, session: SessionId, event: SessionEvent) {
        let is_of_session =
            matches!(event, SessionEvent::Opened(_) | SessionEvent::Frame(_) | SessionEvent::Writable { .. });
        if !is_of_session || self.circuits.has(process, session) {
            self.on_session(process, session, event);
        }
    }
}
