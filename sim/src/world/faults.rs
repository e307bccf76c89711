//! What goes wrong, and how it ends.

use std::collections::BTreeSet;
use std::time::Duration;

use knot_engine::Instant;
use knot_engine::documents::Document;

use super::{Happening, World};
use crate::checker::LOSS_ENVELOPE;
use crate::ledger::Outcome;
use crate::network::{Delivery, Plan, Process};
use crate::scenario::{Fault, FaultKind, RESTART_AFTER};
use crate::tap::ChangeNo;
use crate::watch::{Answer, Observed};

/// How long a process that was told to leave may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Datagrams that wait in the socket of a process that is not scheduled.
const SOCKET_DATAGRAMS_MAX: usize = 256;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
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
    #[expect(clippy::wildcard_enum_match_arm, reason = "each half of the kinds has its own match")]
    pub(super) fn on_fault_begins(&mut self, index: usize) {
        if self.is_past_healing() {
            return;
        }
        let fault = self.scenario.faults[index].clone();
        self.trace.add(self.now, 0, "fault", &(index as u64).to_le_bytes());
        self.trace.log(self.now, 0, || format!("FAULT {fault:?}"));
        self.trace.observe(self.now, || Observed::FaultBegins(index));
        self.counts.faults += 1;
        self.pairs.fault_begins(index, fault.for_ms.is_some(), self.now);
        self.known.happens(self.now);
        if disturbs(&fault) {
            self.disturbances += 1;
        }
        match &fault.kind {
            FaultKind::Crash { node, power, .. } => {
                self.hold_down(*node);
                self.end_process(*node, if *power { End::Power } else { End::Killed });
            }
            FaultKind::CrashAtStorage { node, operation, power } => {
                self.nodes[*node].fuse = Some((*operation, *power));
            }
            FaultKind::Stop { node, .. } => {
                self.hold_down(*node);
                self.leave(*node);
            }
            FaultKind::Restore { node, .. } => self.nodes[*node].disk.back_up(),
            FaultKind::DiskLost { node } => self.lose_disk(*node),
            FaultKind::Clone { node, to } => self.begin_clone(*node, *to),
            FaultKind::Evict { node, by } => self.evict(*node, *by),
            FaultKind::FsyncFails { node, .. } => self.nodes[*node].disk.fails_next = true,
            FaultKind::ReadFails { node } => self.nodes[*node].disk.reads_fail = true,
            FaultKind::Reset { node } => {
                let mut plan = Plan::new();
                self.streams.reset_all(*node, self.now, &mut plan);
                self.insert_plan(plan);
            }
            FaultKind::HalfOpen { node } => {
                let mut plan = Plan::new();
                self.streams.forget_all(*node, self.now, &mut plan);
                self.insert_plan(plan);
            }
            FaultKind::Pause { node } => {
                self.nodes[*node].paused += 1;
                self.trace.observe(self.now, || Observed::Pauses { node: *node, on: true });
            }
            FaultKind::SlowCpu { node, event_us } => self.nodes[*node].slow.push(Duration::from_micros(*event_us)),
            FaultKind::Clock { node, offset_s } => self.nodes[*node].set_clock(*offset_s, self.now),
            FaultKind::DiskFull { node } => self.nodes[*node].disk.full = true,
            FaultKind::SlowDisk { node, commit_ms } => {
                self.nodes[*node].disk.slow = Some(Duration::from_millis(*commit_ms));
            }
            FaultKind::BitRot { .. } | FaultKind::MisdirectedWrite { .. } => {
                panic!("level 1 does not play {}: its disks hold keys, and no bytes", fault.kind.name());
            }
            kind => {
                self.links.set(kind, true);
                self.links_changed();
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "each half of the kinds has its own match")]
    pub(super) fn on_fault_ends(&mut self, index: usize) {
        if self.is_past_healing() {
            return;
        }
        let fault = self.scenario.faults[index].clone();
        self.trace.log(self.now, 0, || format!("END {fault:?}"));
        self.trace.observe(self.now, || Observed::FaultEnds(index));
        self.pairs.fault_ends(index, self.now);
        self.known.happens(self.now);
        match &fault.kind {
            FaultKind::Crash { node, moves, .. } | FaultKind::Stop { node, moves } => {
                if *moves && self.nodes[*node].running.is_none() {
                    self.nodes[*node].moves += 1;
                    self.nodes[*node].moved_at = self.now;
                }
                self.release(*node, Duration::ZERO);
            }
            FaultKind::CrashAtStorage { node, .. } => {
                let blown = &mut self.nodes[*node].blown;
                if *blown > 0 {
                    *blown -= 1;
                    self.release(*node, Duration::ZERO);
                } else {
                    self.nodes[*node].fuse = None;
                }
            }
            FaultKind::Restore { node, down_ms } => self.restore(*node, Duration::from_millis(*down_ms)),
            FaultKind::DiskLost { node } => self.release(*node, Duration::ZERO),
            FaultKind::Clone { node, to } => self.end_clone(*node, *to),
            FaultKind::Evict { node, .. } => self.readmit(*node),
            FaultKind::FsyncFails { node, power } => {
                self.nodes[*node].disk.fails_next = false;
                if *power {
                    self.hold_down(*node);
                    self.end_process(*node, End::Power);
                    self.release(*node, RESTART_AFTER);
                }
            }
            FaultKind::ReadFails { node } => self.nodes[*node].disk.reads_fail = false,
            FaultKind::Pause { node } => {
                let paused = &mut self.nodes[*node].paused;
                *paused = paused.saturating_sub(1);
                if *paused == 0 {
                    self.trace.observe(self.now, || Observed::Pauses { node: *node, on: false });
                }
                self.go_on(*node);
            }
            FaultKind::SlowCpu { node, event_us } => {
                let slow = &mut self.nodes[*node].slow;
                if let Some(at) = slow.iter().position(|takes| *takes == Duration::from_micros(*event_us)) {
                    slow.remove(at);
                }
                self.go_on(*node);
            }
            FaultKind::Clock { node, offset_s } => self.nodes[*node].set_clock(-offset_s, self.now),
            FaultKind::DiskFull { node } => self.nodes[*node].disk.full = false,
            FaultKind::SlowDisk { node, .. } => self.nodes[*node].disk.slow = None,
            FaultKind::Reset { .. } | FaultKind::HalfOpen { .. } => {}
            kind => {
                self.links.set(kind, false);
                self.links_changed();
            }
        }
        if disturbs(&fault) {
            self.disturbances = self.disturbances.saturating_sub(1);
            self.calm_since = self.now;
        }
    }

    fn links_changed(&mut self) {
        let mut plan = Plan::new();
        self.streams.on_links_changed(&self.links, self.now, &mut plan);
        self.insert_plan(plan);
    }

    /// Whether only the core has been healed, and all else stays as it is.
    fn is_past_healing(&self) -> bool {
        !self.scenario.core.is_empty() && self.now >= self.scenario.quiet_at()
    }

    /// Mends what is wrong with the core and within it; what is wrong with the others stays wrong.
    pub(super) fn heal_core(&mut self) {
        let core = self.scenario.core.clone();
        self.trace.log(self.now, 0, || format!("HEALS {core:?}"));
        self.links.heal(&core);
        for &node in &core {
            let mended = &mut self.nodes[node];
            (mended.paused, mended.fuse, mended.blown) = (0, None, 0);
            mended.slow.clear();
            mended.disk.mend();
            self.go_on(node);
            if self.nodes[node].held_down > 0 {
                self.nodes[node].held_down = 1;
                self.release(node, Duration::ZERO);
            }
        }
        // From now on somebody may always be half reachable.
        self.disturbances += 1;
        self.calm_since = self.now;
        self.checkers.outside = (0..self.nodes.len()).filter(|node| !core.contains(node)).collect();
        self.links_changed();
    }

    pub(super) fn hold_down(&mut self, node: usize) {
        self.nodes[node].held_down += 1;
    }

    /// One fault fewer keeps the server down; the last starts it.
    pub(super) fn release(&mut self, node: usize, wait: Duration) {
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
            self.disk_changed(node, &before);
        }
        self.release(node, down);
    }

    fn lose_disk(&mut self, node: usize) {
        self.hold_down(node);
        self.end_process(node, End::Power);
        let before = self.checkers.tap.nodes[node].durable.clone();
        self.nodes[node].replace();
        let id = self.nodes[node].key.node_id();
        self.checkers.replace(node, id);
        self.disk_changed(node, &before);
    }

    /// Another disk is in a server's place: what nobody else has is nobody's fault.
    pub(super) fn disk_changed(&mut self, node: usize, before: &BTreeSet<ChangeNo>) {
        self.take_stock(node);
        let kept = &self.checkers.tap.nodes[node].durable;
        let lost: Vec<_> = before.difference(kept).copied().collect();
        let others: Vec<usize> = (0..self.nodes.len()).filter(|&other| other != node).collect();
        self.checkers.excuse(lost, &others);
    }

    /// What a server has is what is on the disk that it has now.
    pub(super) fn take_stock(&mut self, node: usize) {
        self.nodes[node].restored = self.now;
        let image = self.nodes[node].disk.durable();
        self.checkers.tap.on_disk_read(node, image, image);
    }

    /// Counts a storage operation of a server; true when its process dies at it.
    pub(super) fn burns(&mut self, node: usize) -> bool {
        let Some(power) = self.nodes[node].burn() else {
            return false;
        };
        self.nodes[node].blown += 1;
        self.hold_down(node);
        self.end_process(node, if power { End::Power } else { End::Killed });
        true
    }

    /// A process is killed; its host goes on.
    pub(super) fn kill_process(&mut self, node: usize) {
        self.end_process(node, End::Killed);
    }

    pub(super) fn end_process(&mut self, node: usize, end: End) {
        let Some(running) = self.nodes[node].stop(end == End::Clean) else {
            return;
        };
        self.leave_double(node);
        self.known.ends(node, running.engine.has_left() && running.fenced.is_none(), end, self.now);
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
        self.circuits.process_died(process);
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
        self.known.happens(now);
        self.calm_since = now;
        self.trace.add(now, node, "starts", &[]);
        self.trace.log(now, node, || "STARTS".to_owned());
        self.upgrade(node);
        let visible = self.nodes[node].start(count, self.planted, now);
        let durable = self.nodes[node].disk.durable();
        self.checkers.tap.on_disk_read(node, &visible, durable);
        self.observe_start(node);
        self.note_evictions(node);
        if let Some(process) = self.process_of(node) {
            self.links.process_started(process);
            self.links_changed();
            self.drain(process);
        }
    }

    /// The server whose process takes part in this.
    pub(super) fn node_of(&self, what: &Happening<D>) -> Option<usize> {
        match what {
            Happening::Network(delivery) => match delivery {
                Delivery::Datagram { to, .. } => Some(*to),
                Delivery::Session { to, .. } => Some(to.node),
                Delivery::Opened { stream, side, .. }
                | Delivery::Arrive { stream, side, .. }
                | Delivery::Departed { stream, side, .. }
                | Delivery::Break { stream, side, .. } => self.streams.node_of(*stream, *side),
                Delivery::Connect(attempt) => Some(attempt.to),
                Delivery::Retry { .. } | Delivery::GiveUp { .. } => None,
            },
            Happening::Wake(process, _)
            | Happening::Circuit(process, ..)
            | Happening::CommitDone(process)
            | Happening::Load(process, ..)
            | Happening::Verdict(process, _)
            | Happening::Exit(process) => Some(process.node),
            Happening::Operation(index) => Some(self.scenario.operations[*index].node),
            Happening::Passing(node, _) => Some(*node),
            Happening::FaultBegins(_)
            | Happening::FaultEnds(_)
            | Happening::Start(_)
            | Happening::Turn(_)
            | Happening::Spread(_)
            | Happening::Look
            | Happening::Glance => None,
        }
    }

    /// Whether a server's process is not scheduled now, or busy; if not, it is from now on for as long as this takes.
    pub(super) fn is_held_up(&mut self, node: usize) -> bool {
        let (now, waits) = (self.now, !self.backlogs[node].is_empty());
        let node = &mut self.nodes[node];
        let busy = !node.slow.is_empty() && (waits || now < node.busy_until);
        if node.paused == 0 && !busy {
            node.busy_until = now + node.slow.iter().sum();
        }
        node.paused > 0 || busy
    }

    pub(super) fn set_aside(&mut self, node: usize, what: Happening<D>) {
        let backlog = &mut self.backlogs[node];
        let is_datagram = |what: &Happening<D>| matches!(what, Happening::Network(Delivery::Datagram { .. }));
        let full =
            is_datagram(&what) && backlog.iter().filter(|what| is_datagram(what)).count() >= SOCKET_DATAGRAMS_MAX;
        if full {
            return;
        }
        backlog.push_back(what);
        if self.nodes[node].paused == 0 {
            self.schedule_turn(node, self.nodes[node].busy_until);
        }
    }

    /// A busy process has one next turn, whatever it waits for.
    fn schedule_turn(&mut self, node: usize, at: Instant) {
        if !std::mem::replace(&mut self.nodes[node].has_turn, true) {
            self.insert(at, Happening::Turn(node));
        }
    }

    /// A busy process turns to what has waited longest.
    pub(super) fn on_turn(&mut self, node: usize) {
        self.nodes[node].has_turn = false;
        if self.nodes[node].paused > 0 {
            return;
        }
        let Some(what) = self.backlogs[node].pop_front() else {
            return;
        };
        let free = self.now + self.nodes[node].slow.iter().sum();
        self.nodes[node].busy_until = free;
        if !self.backlogs[node].is_empty() {
            self.schedule_turn(node, free);
        }
        self.perform_now(what);
    }

    /// A process that is scheduled again, at its usual speed unless something else slows it down, finds what waits.
    fn go_on(&mut self, node: usize) {
        if self.nodes[node].paused > 0 || !self.nodes[node].slow.is_empty() {
            // A slow one goes on as before.
            if self.nodes[node].paused == 0 && !self.backlogs[node].is_empty() {
                self.schedule_turn(node, self.now);
            }
            return;
        }
        for what in std::mem::take(&mut self.backlogs[node]) {
            self.insert(self.now, what);
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
        FaultKind::Loss { per_mille } | FaultKind::Corrupt { per_mille } => *per_mille > LOSS_ENVELOPE,
        FaultKind::Duplicate { .. }
        | FaultKind::Reorder { .. }
        | FaultKind::Clock { .. }
        | FaultKind::DiskFull { .. }
        | FaultKind::SlowDisk { .. } => false,
        FaultKind::Partition { .. }
        | FaultKind::DatagramsBlocked { .. }
        | FaultKind::Gray { .. }
        | FaultKind::Lag { .. }
        | FaultKind::Throttle { .. }
        | FaultKind::Mtu { .. }
        | FaultKind::Reset { .. }
        | FaultKind::HalfOpen { .. }
        | FaultKind::StreamsStall { .. }
        | FaultKind::SlowReader { .. }
        | FaultKind::Crash { .. }
        | FaultKind::CrashAtStorage { .. }
        | FaultKind::Stop { .. }
        | FaultKind::Restore { .. }
        | FaultKind::DiskLost { .. }
        | FaultKind::Clone { .. }
        | FaultKind::Evict { .. }
        | FaultKind::Pause { .. }
        | FaultKind::SlowCpu { .. }
        | FaultKind::FsyncFails { .. }
        | FaultKind::ReadFails { .. }
        | FaultKind::BitRot { .. }
        | FaultKind::MisdirectedWrite { .. } => fault.for_ms.is_some(),
    }
}
