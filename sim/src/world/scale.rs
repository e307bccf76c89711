//! What measuring large clusters asks of a world beside letting it go on.

use std::time::Duration;

use knot_engine::documents::Document;
use knot_engine::membership::{Member, Status};
use knot_engine::{Engine, Instant};

use super::{Happening, World};
use crate::network::Process;

impl<D: Document> World<D> {
    /// Lets it go on for `time`. False when a promise broke.
    pub(crate) fn let_pass(&mut self, time: Duration) -> bool {
        let end = self.now + time;
        self.run_until(end);
        self.checkers.violations.is_empty()
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// What broke, if anything did.
    pub(crate) fn broken(&self) -> Option<String> {
        self.checkers.violations.first().map(ToString::to_string)
    }

    /// Times a server was declared failed that ran and could be reached.
    pub(crate) fn false_failures(&self) -> u64 {
        self.false_failures
    }

    pub(crate) fn engines(&self) -> impl Iterator<Item = (usize, &Engine<D>)> {
        self.nodes.iter().filter_map(|node| Some((node.index, &node.running.as_ref()?.engine)))
    }

    /// Starts a server's process.
    pub(crate) fn begin(&mut self, node: usize) {
        self.insert(self.now, Happening::Start(node));
    }

    /// Kills a server's process; its host refuses connections.
    pub(crate) fn kill(&mut self, node: usize) {
        self.kill_process(node);
    }

    /// Where the server will be from its next start on.
    pub(crate) fn move_away(&mut self, node: usize) {
        self.nodes[node].moves += 1;
    }

    /// Every server that runs knows every other from here on, as if they had met long ago.
    pub(crate) fn introduce_all(&mut self) {
        let mut records: Vec<_> = self.engines().map(|(_, engine)| engine.me().record.clone()).collect();
        records.sort_by_key(|record| record.node);
        for node in 0..self.nodes.len() {
            if let Some(running) = &mut self.nodes[node].running {
                running.engine.introduce(&records, self.now);
                let process = Process { node, start: running.start };
                self.drain(process);
            }
        }
    }

    /// Lets the scenario's only operation happen now.
    pub(crate) fn operate(&mut self) {
        self.on_operation(0);
    }

    /// How a server sees another.
    pub(crate) fn seen(&self, observer: &Engine<D>, node: usize) -> Option<(Status, Member)> {
        let member = observer.member(&self.nodes[node].key.node_id())?;
        Some((member.status, member))
    }
}
