//! Lets time pass, and what goes wrong begin and end at its times.

use std::collections::BTreeMap;
use std::time::Duration;

use knot_engine::Instant;
use turmoil::Sim;

use super::Host;
use super::wires::Wires;
use crate::scenario::{FaultKind, RESTART_AFTER, Scenario};
use crate::servers::{Cue, Cues};

/// What goes wrong with a run.
pub(super) struct Stage<'a> {
    scenario: &'a Scenario,
    hosts: &'a [Host],
    wires: &'a Wires,
    cues: Cues,
    /// Faults that keep a server down.
    held_down: Vec<u32>,
    /// By the fault: servers that are to die at a storage operation, and whether they lose power.
    fuses: BTreeMap<usize, (usize, bool)>,
    /// By the fault: when a disk was copied that is to be set back, or to run elsewhere.
    copied: BTreeMap<usize, Instant>,
    /// Whether only the core has been healed, and all else stays as it is.
    is_healed: bool,
    pub(super) crashes: u64,
}

impl<'a> Stage<'a> {
    pub(super) fn new(scenario: &'a Scenario, hosts: &'a [Host], wires: &'a Wires) -> Self {
        let cues = Cues::new(scenario);
        let held_down = vec![0; hosts.len()];
        let (fuses, copied) = (BTreeMap::new(), BTreeMap::new());
        Self { scenario, hosts, wires, cues, held_down, fuses, copied, is_healed: false, crashes: 0 }
    }

    /// Runs until the clients are done, or there is no more to be learned.
    ///
    /// # Errors
    /// When turmoil ends first.
    pub(super) fn play(&mut self, sim: &mut Sim<'_>, is_over: impl Fn() -> bool) -> Result<(), String> {
        loop {
            while let Some(cue) = self.cues.due(sim.elapsed()) {
                self.happen(sim, cue);
            }
            self.watch_fuses(sim);
            self.start_stepped_back(sim);
            self.wires.get().advance(sim.elapsed());
            let stepped = sim.step();
            if is_over() {
                return Ok(());
            }
            match stepped {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn happen(&mut self, sim: &mut Sim<'_>, cue: Cue) {
        match cue {
            Cue::Begins(_) | Cue::Ends(_) if self.is_healed => {}
            Cue::Begins(index) => self.begin(sim, index),
            Cue::Ends(index) => self.end(sim, index),
            Cue::Start(node) => self.release(sim, node),
            Cue::Heal => self.heal(sim),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are the network's")]
    fn begin(&mut self, sim: &mut Sim<'_>, index: usize) {
        match &self.scenario.faults[index].kind {
            FaultKind::Reset { node } => self.wires.get().reset(*node),
            FaultKind::HalfOpen { node } => self.wires.get().forget(*node),
            FaultKind::Crash { node, power, .. } => self.crash(sim, *node, *power),
            FaultKind::CrashAtStorage { node, operation, power } => {
                self.hosts[*node].disk.set_fuse(Some(*operation));
                self.fuses.insert(index, (*node, *power));
            }
            FaultKind::Stop { node, .. } => {
                self.held_down[*node] += 1;
                self.hosts[*node].stop();
            }
            FaultKind::Restore { node, .. } => {
                self.hosts[*node].disk.back_up();
                self.copied.insert(index, now(sim));
            }
            FaultKind::DiskLost { node } => {
                self.crash(sim, *node, true);
                self.hosts[*node].replace();
                self.hosts[*node].has_lost(Instant::ZERO, now(sim));
            }
            FaultKind::Clone { node, to } => {
                self.crash(sim, *to, true);
                self.hosts[*to].wear(&self.hosts[*node]);
                // It shows no more what it acknowledged until now, and will when it has its own folder again.
                self.hosts[*to].has_lost(now(sim), now(sim));
                self.copied.insert(index, now(sim));
                self.start_after(sim, *to, RESTART_AFTER);
            }
            FaultKind::BitRot { node, bits } => {
                self.crash(sim, *node, true);
                self.hosts[*node].disk.rot(*bits);
                self.hosts[*node].has_lost(Instant::ZERO, now(sim));
            }
            FaultKind::MisdirectedWrite { node } => self.hosts[*node].disk.set_misdirects(true),
            FaultKind::FsyncFails { node, .. } => self.hosts[*node].disk.set_sync_fails(true),
            FaultKind::ReadFails { node } => self.hosts[*node].disk.set_reads_fail(true),
            FaultKind::DiskFull { node } => self.hosts[*node].disk.set_full(true),
            FaultKind::SlowDisk { node, commit_ms } => self.hosts[*node].set_slow(Duration::from_millis(*commit_ms)),
            FaultKind::Clock { node, offset_s } => self.hosts[*node].set_clock(*offset_s),
            kind => self.wires.get().set(kind, true),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are the network's")]
    fn end(&mut self, sim: &mut Sim<'_>, index: usize) {
        match &self.scenario.faults[index].kind {
            FaultKind::Reset { .. } | FaultKind::HalfOpen { .. } => {}
            FaultKind::Crash { node, moves, .. } | FaultKind::Stop { node, moves } => {
                if *moves && !sim.is_host_running(self.name(*node)) {
                    self.wires.get().moves(*node);
                }
                self.release(sim, *node);
            }
            FaultKind::CrashAtStorage { node, .. } => match self.fuses.remove(&index) {
                Some(_) => self.hosts[*node].disk.set_fuse(None),
                None => self.release(sim, *node),
            },
            FaultKind::DiskLost { node } | FaultKind::BitRot { node, .. } => self.release(sim, *node),
            FaultKind::Clone { to, .. } => {
                self.crash(sim, *to, true);
                self.hosts[*to].take_off();
                self.hosts[*to].has_lost(self.copied.remove(&index).unwrap_or(Instant::ZERO), now(sim));
                self.start_after(sim, *to, RESTART_AFTER);
            }
            FaultKind::Restore { node, down_ms } => {
                self.crash(sim, *node, true);
                self.hosts[*node].disk.restore();
                self.hosts[*node].has_lost(self.copied.remove(&index).unwrap_or(Instant::ZERO), now(sim));
                self.start_after(sim, *node, Duration::from_millis(*down_ms));
            }
            FaultKind::MisdirectedWrite { node } => {
                self.hosts[*node].disk.set_misdirects(false);
                self.crash(sim, *node, true);
                self.hosts[*node].has_lost(Instant::ZERO, now(sim));
                self.start_after(sim, *node, RESTART_AFTER);
            }
            FaultKind::FsyncFails { node, power } => {
                self.hosts[*node].disk.set_sync_fails(false);
                if *power {
                    self.crash(sim, *node, true);
                    self.start_after(sim, *node, RESTART_AFTER);
                }
            }
            FaultKind::ReadFails { node } => self.hosts[*node].disk.set_reads_fail(false),
            FaultKind::DiskFull { node } => self.hosts[*node].disk.set_full(false),
            FaultKind::SlowDisk { node, .. } => self.hosts[*node].set_slow(Duration::ZERO),
            FaultKind::Clock { node, offset_s } => self.hosts[*node].set_clock(-*offset_s),
            kind => self.wires.get().set(kind, false),
        }
    }

    /// Mends what is wrong with the core and within it; what is wrong with the others stays wrong.
    fn heal(&mut self, sim: &mut Sim<'_>) {
        self.is_healed = true;
        self.wires.get().heal(&self.scenario.core);
        for &node in &self.scenario.core {
            self.fuses.retain(|_, (of, _)| *of != node);
            self.hosts[node].disk.mend();
            self.hosts[node].set_slow(Duration::ZERO);
            if self.held_down[node] > 0 {
                self.held_down[node] = 1;
                self.release(sim, node);
            }
        }
    }

    fn name(&self, node: usize) -> &str {
        self.hosts[node].name()
    }

    fn crash(&mut self, sim: &mut Sim<'_>, node: usize, power: bool) {
        self.held_down[node] += 1;
        self.crashes += 1;
        // turmoil drops the process's futures, whose destructors would still write, and say goodbye.
        self.hosts[node].disk.end(power);
        if power {
            self.hosts[node].lose_power();
        }
        self.wires.get().process_died(node, !power);
        self.hosts[node].is_over();
        sim.crash(self.name(node));
    }

    /// One fault fewer keeps the server down; the last starts it.
    fn release(&mut self, sim: &mut Sim<'_>, node: usize) {
        let held = &mut self.held_down[node];
        *held = held.saturating_sub(1);
        if *held > 0 {
            return;
        }
        self.hosts[node].may_start();
        if !sim.is_host_running(self.hosts[node].name()) {
            sim.bounce(self.hosts[node].name());
        }
    }

    fn start_after(&mut self, sim: &Sim<'_>, node: usize, wait: Duration) {
        self.cues.add(sim.elapsed() + wait, Cue::Start(node));
    }

    /// A process that has stepped back is started again once the copy is deleted.
    fn start_stepped_back(&mut self, sim: &mut Sim<'_>) {
        let is_double = |node: usize| {
            let mut copied = self.copied.keys().map(|index| &self.scenario.faults[*index].kind);
            copied.any(|kind| matches!(kind, FaultKind::Clone { node: of, to } if [*of, *to].contains(&node)))
        };
        let over = |node: &usize| self.hosts[*node].has_stepped_back() && !is_double(*node);
        let over: Vec<usize> = (0..self.hosts.len()).filter(|node| self.held_down[*node] == 0).filter(over).collect();
        for node in over {
            self.crash(sim, node, false);
            self.start_after(sim, node, RESTART_AFTER);
        }
    }

    /// A process that has come to its last storage operation dies.
    fn watch_fuses(&mut self, sim: &mut Sim<'_>) {
        let is_blown = |(_, (node, _)): &(&usize, &(usize, bool))| self.hosts[*node].disk.is_fuse_blown();
        let blown: Vec<usize> = self.fuses.iter().filter(is_blown).map(|(index, _)| *index).collect();
        for index in blown {
            if let Some((node, power)) = self.fuses.remove(&index) {
                self.crash(sim, node, power);
            }
        }
    }
}

fn now(sim: &Sim<'_>) -> Instant {
    Instant::ZERO + sim.elapsed()
}
