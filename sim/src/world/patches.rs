//! Clients that read a document and edit what they have read.

use knot_engine::documents::Document;
use knot_engine::{DocumentView, EditRequest, ReadError};

use super::World;
use crate::checker::{Shown, is_crowded};
use crate::draw::Draw;
use crate::edits::{self, Base};
use crate::network::Process;
use crate::node::ReadFor;
use crate::scenario::{Bounds, Scenario, Target};
use crate::workload;

/// A link that is narrower takes long over the largest changes.
const ROOMY_BYTES_PER_S: u64 = 10_000_000;

/// Whether servers and links have room for the largest changes.
fn is_roomy(scenario: &Scenario) -> bool {
    let usual = Bounds::default();
    let narrow = |bytes_per_s: Option<u64>| bytes_per_s.is_some_and(|bytes| bytes < ROOMY_BYTES_PER_S);
    scenario.bounds.takes_all()
        && scenario.bounds.window_bytes == usual.window_bytes
        && scenario.bounds.orphan_bytes == usual.orphan_bytes
        && !scenario.network.links.iter().any(|link| narrow(link.bytes_per_s))
}

impl<D: Document> World<D> {
    /// A client has read a document, and edits it. A server that could not say what it is, is asked for nothing more.
    pub(super) fn on_patch_read(&mut self, process: Process, index: usize, answer: &Result<DocumentView, ReadError>) {
        let operation = self.scenario.operations[index].clone();
        let base = match answer {
            Ok(view) => Base::Present(view.summary.etag, view.value.clone()),
            Err(ReadError::Gone { etag }) => Base::Deleted(*etag),
            Err(ReadError::NotFound) => Base::Nothing,
            Err(_) => return,
        };
        self.checkers.watch_edits(&operation.target);
        self.check_shown(process, &operation.target, answer, true);
        let mut draw = Draw::new(self.scenario.seed, &format!("patch {}", operation.id));
        let document = self.scenario.document;
        let large = operation.target.key.starts_with(edits::LARGE) && is_roomy(&self.scenario);
        let drawn = edits::draw(&mut draw, &base, document, large);
        self.trace.log(self.now, process.node, || {
            let edit: String = format!("{:?}", drawn.edit).chars().take(1_000).collect();
            format!("asked w{}: {edit}", operation.id)
        });
        let clock = &self.nodes[process.node].clock;
        let (local, wall) = (clock.read(self.now), clock.wall_of(operation.id));
        self.checkers.ledger.ask(&operation, self.now);
        let request = EditRequest {
            precondition: drawn.precondition.clone(),
            replicas: operation.replicas,
            timeout: workload::REPLICAS_TIMEOUT,
            ..EditRequest::new(operation.target.id(), drawn.edit.clone())
        };
        self.checkers.ask_edit(operation.id, base, drawn, document);
        if let Some(running) = &mut self.nodes[process.node].running {
            let crowded = is_crowded(&running.engine.queues());
            let edit = running.engine.edit(request, wall, local);
            running.edits.insert(edit, operation.id);
            running.crowded.extend(crowded.then_some(edit));
        }
    }

    /// What has just been edited is read at once.
    pub(super) fn read_edited(&mut self, process: Process, target: Target) {
        let node = &mut self.nodes[process.node];
        let local = node.clock.read(self.now);
        if let Some(running) = &mut node.running {
            let read = running.engine.read(&target.id(), true, local);
            running.reads.insert(read, ReadFor::Edited(target));
        }
    }

    /// A read of a document whose states are known.
    pub(super) fn check_shown(
        &mut self,
        process: Process,
        target: &Target,
        answer: &Result<DocumentView, ReadError>,
        with_conflicts: bool,
    ) {
        let shown = match answer {
            Ok(view) => Shown::view(view, with_conflicts),
            Err(ReadError::Gone { etag }) => Shown::deleted(*etag),
            Err(_) => return,
        };
        self.checkers.check_state(process.node, target, shown, self.now);
    }
}
