//! What a watch is told of that takes more than a line. Nothing here is done in a run that nobody observes.

use bytes::Bytes;
use knot_engine::SessionId;
use knot_engine::documents::Document;

use super::World;
use crate::disk::Batch;
use crate::network::{Delivery, Plan, Process};
use crate::state::{NodeState, ProcessState};
use crate::tap::ChangeNo;
use crate::watch::Observed;

impl<D: Document> World<D> {
    pub(super) fn observe_start(&mut self, node: usize) {
        if !self.trace.is_observed() {
            return;
        }
        self.trace.observe(self.now, || Observed::Starts { node });
        let held: Vec<ChangeNo> = self.checkers.tap.nodes[node].asked.iter().copied().collect();
        self.observe_held(node, &held);
        self.observe_scopes(node);
    }

    pub(super) fn observe_durable(&mut self, node: usize, batches: &[Batch]) {
        if self.trace.is_observed() {
            let held: Vec<ChangeNo> = batches.iter().flat_map(|batch| self.checkers.tap.read(&batch.writes)).collect();
            self.observe_held(node, &held);
        }
    }

    fn observe_held(&mut self, node: usize, changes: &[ChangeNo]) {
        for write in changes.iter().filter_map(|&number| self.checkers.tap.change(number).write) {
            self.trace.observe(self.now, || Observed::Holds { node, write });
        }
    }

    pub(super) fn observe_scopes(&mut self, node: usize) {
        if let Some(running) = &self.nodes[node].running {
            self.trace.observe(self.now, || Observed::Scopes { node, scopes: running.engine.scopes() });
        }
    }

    /// `plan` holds what became of the datagram, and nothing else.
    pub(super) fn observe_datagram(&mut self, (from, to): (usize, usize), bytes: &Bytes, plan: &Plan) {
        let links = &self.links;
        self.trace.observe(self.now, || {
            let copies = plan.iter().filter(|(_, delivery)| matches!(delivery, Delivery::Datagram { .. }));
            let arrives = copies.map(|(at, _)| *at).collect();
            let blocked = from != to && links.is_blocked(from, to);
            Observed::Datagram { from, to, bytes: bytes.clone(), arrives, blocked }
        });
    }

    pub(super) fn observe_frame(&mut self, (process, session): (Process, SessionId), to: usize, frame: &Bytes) {
        let from = process.node;
        if let Some(end) = self.streams.far_end(process, session) {
            self.trace.observe(self.now, || Observed::Frame { end, from, to, bytes: frame.clone() });
        }
    }

    pub(super) fn observe_state(&mut self) {
        if self.trace.is_observed() {
            let state = self.state();
            self.trace.observe(self.now, || Observed::State(state));
        }
    }

    fn state(&self) -> Vec<NodeState> {
        let nodes = self.nodes.iter().map(|node| {
            let mut state = NodeState::down(node.index, &node.spec.name, &node.spec.zone);
            if let Some(running) = &node.running {
                state.process = if node.paused > 0 { ProcessState::Paused } else { ProcessState::Running };
                state.look_into(&running.engine, self.now);
            }
            state
        });
        nodes.collect()
    }
}
