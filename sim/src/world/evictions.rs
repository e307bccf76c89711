//! A server that is shut out for a while, and what those who shut it out send it nonetheless.

use std::collections::BTreeSet;

use knot_engine::documents::Document;
use knot_engine::wire::Frame;
use knot_engine::{EVICTED, NodeId, Summary, eviction_of};

use super::World;
use crate::scenario::{Action, Operation, Target};
use crate::workload;

/// Who is shut out, by whom.
#[derive(Debug, Default)]
pub(super) struct Evictions {
    /// Servers that hold the eviction of a node, and have said so.
    shut: BTreeSet<(usize, NodeId)>,
    /// Nodes whose time outside is over.
    over: BTreeSet<NodeId>,
    /// Writes that the operator has asked for.
    asked: u32,
}

impl<D: Document> World<D> {
    /// An operator shuts `node` out, by way of `by` or, where that does not run, of the first that does.
    pub(super) fn evict(&mut self, node: usize, by: usize) {
        let runs = |other: &usize| *other != node && self.at_work(*other).is_some();
        let Some(by) = std::iter::once(by).chain(0..self.nodes.len()).find(runs) else { return };
        let id = self.id_of(node);
        self.evictions.over.remove(&id);
        self.change_eviction(by, id, Action::Put);
    }

    /// The operator lets it in again, and sees to it that this is done.
    pub(super) fn readmit(&mut self, node: usize) {
        let id = self.id_of(node);
        self.evictions.over.insert(id);
        self.see_to_readmissions();
    }

    pub(super) fn see_to_readmissions(&mut self) {
        for id in self.evictions.over.clone() {
            let holds = |other: &usize| {
                let engine = self.at_work(*other).map(|running| &running.engine);
                engine.is_some_and(|engine| engine.evicted().contains(&id) && engine.me().record.node != id)
            };
            if let Some(by) = (0..self.nodes.len()).find(holds) {
                self.change_eviction(by, id, Action::Delete);
            }
        }
    }

    fn change_eviction(&mut self, node: usize, id: NodeId, action: Action) {
        let document = eviction_of(&id);
        self.checkers.expect_document(D::genesis_hash(&document));
        let target =
            Target { zone: None, collection: document.collection().to_owned(), key: document.key().to_owned() };
        let last = self.scenario.operations.iter().map(|operation| operation.id).max().unwrap_or(0);
        self.evictions.asked += 1;
        let operation = Operation {
            id: last + self.evictions.asked,
            at_us: self.now.as_micros(),
            node,
            action,
            replicas: 0,
            target,
        };
        if let (Some(process), Some(request)) = (self.process_of(node), workload::request(&operation)) {
            self.ask_for_edit(&operation, request);
            self.drain(process);
        }
    }

    /// A process has started, with what its disk says.
    pub(super) fn note_evictions(&mut self, node: usize) {
        self.evictions.shut.retain(|(by, _)| *by != node);
        if let Some(running) = &self.nodes[node].running {
            self.evictions.shut.extend(running.engine.evicted().iter().map(|evicted| (node, *evicted)));
        }
    }

    /// A server says that an eviction has come or gone.
    pub(super) fn on_eviction(&mut self, node: usize, summary: &Summary) {
        if summary.id.collection() != EVICTED {
            return;
        }
        let Ok(evicted) = summary.id.key().parse() else { return };
        if summary.deleted {
            self.evictions.shut.remove(&(node, evicted));
        } else {
            self.evictions.shut.insert((node, evicted));
        }
    }

    /// A server sends another something: a datagram, or a frame of a kind.
    pub(super) fn look_at_shut_out(&mut self, from: usize, to: usize, frame: Option<&[u8]>) {
        let is_farewell = frame.is_some_and(|frame| frame == Frame::Evicted.encode());
        let to_id = self.id_of(to);
        if !is_farewell && self.evictions.shut.contains(&(from, to_id)) {
            self.checkers.check_shut_out(from, to, frame.map_or("a datagram", |_| "a frame"), self.now);
        }
    }
}
