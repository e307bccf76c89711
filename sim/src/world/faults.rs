//! What goes wrong, and how it ends.

use std::time::Duration;

use knot_engine::Instant;
use knot_engine::documents::Document;

use super::{Happening, World};
use crate::checker::LOSS_ENVELOPE;
use crate::ledger::Outcome;
use crate::network::{Delivery, Plan, Process};
use crate::scenario::{Fault, FaultKind};
use crate::watch::{Answer, Observed};

/// How soon a supervisor starts a process again that stopped by itself.
const RESTART_AFTER: Duration = Duration::from_millis(500);
/// How long a process that was told to leave may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Datagrams that wait in the socket of a process that is not scheduled.
const SOCKET_DATAGRAMS_MAX: usize = 256;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By itself, after it has said goodbye.
    Clean,
    /// Killed, or stopped since its storage failed; the machine goes on.
    Killed,
    /// The machine lost power.
    Power,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Killed => "killed",
            Self::Power => "power",
        }
    }
}

impl<D: Document> World<D> {
    pub(super) fn on_fault_begins(&mut self, index: usize) {
        let fault = self.scenario.faults[index].clone();
        self.trace.add(self.now, 0, "fault", &(index as u64).to_le_bytes());
        self.trace.log(self.now, 0, || format!("FAULT {fault:?}"));
        self.trace.observe(self.now, || Observed::FaultBegins(index));
        self.counts.faults += 1;
        if disturbs(&fault) {
            self.disturbances += 1;
        }
        match &fault.kind {
            FaultKind::Crash { node, power, .. } => {
                self.hold_down(*node);
                self.end_process(*node, if *power { End::Power } else { End::Killed });
            }
            FaultKind::Stop { node, .. } => {
                self.hold_down(*node);
                self.leave(*node);
            }
            FaultKind::Restore { node, .. } => self.nodes[*node].disk.back_up(),
            FaultKind::FsyncFails { node, .. } => self.nodes[*node].disk.fails_next = true,
            FaultKind::Reset { node } => {
                let mut plan = Plan::new();
                self.streams.reset_all(*node, self.now, &mut plan);
                self.insert_plan(plan);
            }
            FaultKind::Pause { node } => {
                self.nodes[*node].paused += 1;
                self.trace.observe(self.now, || Observed::Pauses { node: *node, on: true });
            }
            FaultKind::DiskFull { node } => self.nodes[*node].disk.full = true,
            FaultKind::SlowDisk { node, commit_ms } => {
                self.nodes[*node].disk.slow = Some(Duration::from_millis(*commit_ms));
            }
            FaultKind::Partition { .. }
            | FaultKind::Loss { .. }
            | FaultKind::Duplicate { .. }
            | FaultKind::Reorder { .. }
            | FaultKind::Lag { .. } => self.set_links(&fault.kind, true),
        }
    }

    pub(super) fn on_fault_ends(&mut self, index: usize) {
        let fault = self.scenario.faults[index].clone();
        self.trace.log(self.now, 0, || format!("END {fault:?}"));
        self.trace.observe(self.now, || Observed::FaultEnds(index));
        match &fault.kind {
            FaultKind::Crash { node, moves, .. } | FaultKind::Stop { node, moves } => {
                self.nodes[*node].moves += u32::from(*moves && self.nodes[*node].running.is_none());
                self.release(*node, Duration::ZERO);
            }
            FaultKind::Restore { node, down_ms } => self.restore(*node, Duration::from_millis(*down_ms)),
            FaultKind::FsyncFails { node, power } => {
                self.nodes[*node].disk.fails_next = false;
                if *power {
                    self.hold_down(*node);
                    self.end_process(*node, End::Power);
                    self.release(*node, RESTART_AFTER);
                }
            }
            FaultKind::Pause { node } => self.resume(*node),
            FaultKind::DiskFull { node } => self.nodes[*node].disk.full = false,
            FaultKind::SlowDisk { node, .. } => self.nodes[*node].disk.slow = None,
            FaultKind::Reset { .. } => {}
            FaultKind::Partition { .. }
            | FaultKind::Loss { .. }
            | FaultKind::Duplicate { .. }
            | FaultKind::Reorder { .. }
            | FaultKind::Lag { .. } => self.set_links(&fault.kind, false),
        }
        if disturbs(&fault) {
            self.disturbances = self.disturbances.saturating_sub(1);
            self.calm_since = self.now;
        }
    }

    fn set_links(&mut self, kind: &FaultKind, on: bool) {
        match kind {
            FaultKind::Partition { left, right, one_way } => {
                for (&one, &other) in left.iter().flat_map(|one| right.iter().map(move |other| (one, other))) {
                    self.links.block(one, other, on);
                    if !one_way {
                        self.links.block(other, one, on);
                    }
                }
            }
            FaultKind::Loss { per_mille } => self.links.add_loss(*per_mille, on),
            FaultKind::Duplicate { per_mille } => self.links.add_duplicates(*per_mille, on),
            FaultKind::Reorder { per_mille } => self.links.add_reorder(*per_mille, on),
            FaultKind::Lag { node, extra_ms } => {
                self.links.add_lag(*node, Duration::from_millis(*extra_ms), on);
            }
            FaultKind::Crash { .. }
            | FaultKind::Stop { .. }
            | FaultKind::Restore { .. }
            | FaultKind::Pause { .. }
            | FaultKind::FsyncFails { .. }
            | FaultKind::DiskFull { .. }
            | FaultKind::SlowDisk { .. }
            | FaultKind::Reset { .. } => {}
        }
        self.links_changed();
    }

    fn links_changed(&mut self) {
        let mut plan = Plan::new();
        self.streams.on_links_changed(&mut self.links, self.now, &mut plan);
        self.insert_plan(plan);
    }

    fn hold_down(&mut self, node: usize) {
        self.nodes[node].held_down += 1;
    }

    /// One fault fewer keeps the server down; the last starts it.
    fn release(&mut self, node: usize, wait: Duration) {
        let held = &mut self.nodes[node].held_down;
        *held = held.saturating_sub(1);
        if *held == 0 {
            self.insert(self.now + wait, Happening::Start(node));
        }
    }

    fn leave(&mut self, node: usize) {
        if let Some(process) = self.process_of(node) {
            self.insert(self.now + LEAVE_TIMEOUT, Happening::Exit(process));
            self.tell(process, |engine, now| engine.leave(false, now));
        }
    }

    fn restore(&mut self, node: usize, down: Duration) {
        self.hold_down(node);
        self.end_process(node, End::Power);
        let before = self.checkers.tap.nodes[node].durable.clone();
        if self.nodes[node].disk.restore() {
            self.nodes[node].restored = self.now;
            let disk = &self.nodes[node].disk;
            let image = disk.durable();
            self.checkers.tap.on_disk_read(node, image, image);
            let kept = &self.checkers.tap.nodes[node].durable;
            let lost: Vec<_> = before.difference(kept).copied().collect();
            let others: Vec<usize> = (0..self.nodes.len()).filter(|&other| other != node).collect();
            self.checkers.excuse(lost, &others);
        }
        self.release(node, down);
    }

    fn end_process(&mut self, node: usize, end: End) {
        let Some(running) = self.nodes[node].stop(end == End::Clean) else {
            return;
        };
        self.counts.crashes += 1;
        self.counts.add_drops(running.engine.stats());
        self.calm_since = self.now;
        self.trace.add(self.now, node, "ends", &[]);
        self.trace.log(self.now, node, || format!("ENDS {end:?}"));
        self.trace.observe(self.now, || Observed::Ends { node, how: end.name() });
        let process = Process { node, start: running.start };
        for id in running.edits.into_values() {
            self.trace.observe(self.now, || Observed::Answered { write: id, answer: Answer::Unknown });
            self.checkers.ledger.settle(id, Outcome::Unknown);
        }
        self.nodes[node].disk.crash(end == End::Power);
        self.backlogs[node].clear();
        self.links.process_died(node, end != End::Power);
        let mut plan = Plan::new();
        self.streams.process_died(&mut self.links, process, self.now, &mut plan);
        self.insert_plan(plan);
    }

    /// A process stops by itself, and is started again.
    pub(super) fn on_exit(&mut self, process: Process) {
        if !self.runs(process) {
            return;
        }
        let running = self.nodes[process.node].running.as_ref();
        let left = running.is_some_and(|running| running.engine.has_left());
        let failed = running.is_some_and(|running| running.engine.is_storage_failed());
        let clean = left && !failed && self.nodes[process.node].disk.is_idle();
        self.hold_down(process.node);
        self.end_process(process.node, if clean { End::Clean } else { End::Killed });
        self.release(process.node, RESTART_AFTER);
    }

    pub(super) fn start(&mut self, node: usize) {
        if self.nodes[node].running.is_some() || self.nodes[node].held_down > 0 {
            return;
        }
        let now = self.now;
        let count = self.nodes.len();
        self.calm_since = now;
        self.trace.add(now, node, "starts", &[]);
        self.trace.log(now, node, || "STARTS".to_owned());
        let visible = self.nodes[node].start(count, self.planted, now);
        let durable = self.nodes[node].disk.durable();
        self.checkers.tap.on_disk_read(node, &visible, durable);
        self.observe_start(node);
        if let Some(process) = self.process_of(node) {
            self.links.process_started(process);
            self.links_changed();
            self.drain(process);
        }
    }

    /// The server whose process would take part in this, if it is not scheduled now.
    pub(super) fn paused_node(&self, what: &Happening<D>) -> Option<usize> {
        let node = match what {
            Happening::Network(delivery) => match delivery {
                Delivery::Datagram { to, .. } => *to,
                Delivery::Session { to, .. } => to.node,
                Delivery::Opened { stream, side, .. }
                | Delivery::Arrive { stream, side, .. }
                | Delivery::Departed { stream, side, .. }
                | Delivery::Break { stream, side, .. } => self.streams.node_of(*stream, *side)?,
                Delivery::Connect(attempt) => attempt.to,
                Delivery::GiveUp { .. } => return None,
            },
            Happening::Wake(process, _)
            | Happening::CommitDone(process)
            | Happening::Load(process, ..)
            | Happening::Verdict(process, _)
            | Happening::Exit(process) => process.node,
            Happening::Operation(index) => self.scenario.operations[*index].node,
            Happening::FaultBegins(_) | Happening::FaultEnds(_) | Happening::Start(_) | Happening::Look => return None,
        };
        (self.nodes[node].paused > 0).then_some(node)
    }

    pub(super) fn set_aside(&mut self, node: usize, what: Happening<D>) {
        let backlog = &mut self.backlogs[node];
        let is_datagram = |what: &Happening<D>| matches!(what, Happening::Network(Delivery::Datagram { .. }));
        let full =
            is_datagram(&what) && backlog.iter().filter(|what| is_datagram(what)).count() >= SOCKET_DATAGRAMS_MAX;
        if !full {
            backlog.push(what);
        }
    }

    fn resume(&mut self, node: usize) {
        let paused = &mut self.nodes[node].paused;
        *paused = paused.saturating_sub(1);
        if *paused == 0 {
            self.trace.observe(self.now, || Observed::Pauses { node, on: false });
            for what in std::mem::take(&mut self.backlogs[node]) {
                self.insert(self.now, what);
            }
        }
    }

    /// When the last disturbance ended.
    pub(super) fn last_disturbance(&self) -> Instant {
        self.calm_since
    }
}

/// Whether membership may rightly falter because of it. A server that never comes back is itself the only one it excuses.
fn disturbs(fault: &Fault) -> bool {
    match &fault.kind {
        FaultKind::Loss { per_mille } => *per_mille > LOSS_ENVELOPE,
        FaultKind::Duplicate { .. }
        | FaultKind::Reorder { .. }
        | FaultKind::DiskFull { .. }
        | FaultKind::SlowDisk { .. } => false,
        FaultKind::Partition { .. }
        | FaultKind::Crash { .. }
        | FaultKind::Stop { .. }
        | FaultKind::Restore { .. }
        | FaultKind::Pause { .. }
        | FaultKind::Lag { .. }
        | FaultKind::FsyncFails { .. }
        | FaultKind::Reset { .. } => fault.for_ms.is_some(),
    }
}
