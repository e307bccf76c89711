//! A data folder that is copied, key and all: one server, and two processes.

use knot_engine::documents::Document;

use super::World;
use super::faults::End;
use crate::checker::LOSS_ENVELOPE;
use crate::scenario::{FaultKind, RESTART_AFTER};

impl<D: Document> World<D> {
    /// The machine of `to` loses power, and starts again on a copy of `node`'s folder.
    pub(super) fn begin_clone(&mut self, node: usize, to: usize) {
        self.hold_down(to);
        self.end_process(to, End::Power);
        let (folder, key) = (self.nodes[node].disk.copy(), self.nodes[node].key.clone());
        self.checkers.wears(to, Some(key.node_id()));
        self.nodes[to].wear(folder, key);
        self.take_stock(to);
        (self.nodes[node].double, self.nodes[to].double) = (Some(to), Some(node));
        self.release(to, RESTART_AFTER);
    }

    /// Somebody has found out. The copy is deleted, and a process that has stepped back is started again.
    pub(super) fn end_clone(&mut self, node: usize, to: usize) {
        self.hold_down(to);
        self.end_process(to, End::Power);
        (self.nodes[node].double, self.nodes[to].double) = (None, None);
        let before = self.checkers.tap.nodes[to].durable.clone();
        self.checkers.wears(to, None);
        self.nodes[to].take_off();
        self.disk_changed(to, &before);
        self.release(to, RESTART_AFTER);
        if self.is_fenced(node) {
            self.start_again(node);
        }
    }

    fn is_fenced(&self, node: usize) -> bool {
        self.nodes[node].running.as_ref().is_some_and(|running| running.fenced.is_some())
    }

    fn start_again(&mut self, node: usize) {
        self.hold_down(node);
        self.end_process(node, End::Killed);
        self.release(node, RESTART_AFTER);
    }

    /// A process ends: the other of its server, should there be one, is alone from now on.
    pub(super) fn leave_double(&mut self, node: usize) {
        if let Some(double) = self.nodes[node].double {
            self.nodes[double].double_ended = Some(self.now);
        }
    }

    /// A process steps back.
    pub(super) fn on_fenced(&mut self, node: usize) {
        let now = self.now;
        let double = self.nodes[node].double;
        let double_ended = self.nodes[node].double_ended;
        let Some(running) = &mut self.nodes[node].running else { return };
        running.fenced = Some(now);
        let had_double = double_ended.is_some_and(|ended| ended >= running.since);
        let runs = |double: &usize| self.nodes[*double].running.is_some();
        if double.filter(runs).is_none() && !had_double {
            self.checkers.report_lone(node, now);
        }
        match double {
            Some(double) if self.is_fenced(double) => self.checkers.report_both_fenced([node, double], now),
            Some(_) => {}
            // The copy has been found and deleted, and that this one was about to step back shows only now.
            None => self.start_again(node),
        }
    }

    /// Of two processes of one server that the others reach, one has stepped back.
    pub(super) fn look_at_doubles(&mut self) {
        let is_calm = self.nothing_but(|kind| matches!(kind, FaultKind::Clone { .. }));
        if !is_calm || self.scenario.network.loss_per_mille_most() > LOSS_ENVELOPE {
            return;
        }
        for node in 0..self.nodes.len() {
            let Some(double) = self.nodes[node].double.filter(|double| *double > node) else { continue };
            let (Some(one), Some(other)) = (&self.nodes[node].running, &self.nodes[double].running) else { continue };
            let since = self.calm_since.max(self.pairs.changed_at()).max(one.since).max(other.since);
            let fenced = [one, other].into_iter().filter(|running| running.fenced.is_some()).count();
            self.checkers.check_doubles([node, double], fenced, self.now.since(since), self.now);
        }
    }
}
