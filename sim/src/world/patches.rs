//! Clients that read a document and edit what they have read.

use knot_engine::documents::Document;
use knot_engine::{DocumentView, ReadError};

use super::World;
use crate::checker::{Shown, is_crowded};
use crate::edits::{self, Base};
use crate::network::Process;
use crate::node::ReadFor;
use crate::scenario::Target;

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
        let document = self.scenario.document;
        let drawn = edits::of_operation(&self.scenario, &operation, &base, document);
        self.trace.log(self.now, process.node, || {
            let edit: String = format!("{:?}", drawn.edit).chars().take(1_000).collect();
            format!("asked w{}: {edit}", operation.id)
        });
        let clock = &self.nodes[process.node].clock;
        let (local, wall) = (clock.read(self.now), clock.wall_of(operation.id));
        self.checkers.ledger.ask(&operation, self.now);
        let request = drawn.request(&operation);
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
