//! Lets time pass, and what goes wrong with real processes begin and end at its times.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use knot_engine::Instant;
use tokio::task::JoinHandle;

use super::LOOK_EVERY;
use super::machine::Machine;
use super::router::Sky;
use super::unready::Unready;
use crate::checker::Invariant;
use crate::scenario::{FaultKind, RESTART_AFTER, Scenario};
use crate::servers::{Cue, Cues, Findings, Loss, joined};
use crate::shared::Shared;

/// The machines, the network between them, and what goes wrong.
#[derive(Debug)]
pub(super) struct Stage {
    scenario: Arc<Scenario>,
    machines: Vec<Machine>,
    sky: Sky,
    cues: Cues,
    findings: Shared<Findings>,
    /// By the fault: when a disk was copied that is to be set back.
    copied: BTreeMap<usize, Instant>,
    pub(super) crashes: u64,
}

impl Stage {
    pub(super) fn new(scenario: &Arc<Scenario>, machines: Vec<Machine>, sky: Sky, findings: Shared<Findings>) -> Self {
        let mut cues = Cues::new(scenario);
        for (node, spec) in scenario.nodes.iter().enumerate() {
            cues.add(Duration::from_millis(spec.start_at_ms), Cue::Start(node));
        }
        Self { scenario: scenario.clone(), machines, sky, cues, findings, copied: BTreeMap::new(), crashes: 0 }
    }

    /// Runs until the clients are done.
    ///
    /// # Errors
    /// When a process or its files cannot be handled.
    ///
    /// # Panics
    /// When the clients do.
    pub(super) async fn play(&mut self, mut clients: JoinHandle<()>) -> Result<(), Unready> {
        loop {
            while let Some(cue) = self.cues.due(self.elapsed()) {
                self.happen(cue).await?;
            }
            self.look_after()?;
            let next = self.cues.next().map_or(LOOK_EVERY, |at| at.saturating_sub(self.elapsed()));
            tokio::select! {
                ended = &mut clients => {
                    joined(ended);
                    return Ok(());
                }
                () = tokio::time::sleep(next.min(LOOK_EVERY)) => {}
            }
        }
    }

    /// Ends all processes, all at once.
    pub(super) async fn stop_all(&mut self) -> Result<(), Unready> {
        self.machines.iter_mut().for_each(Machine::stop);
        while self.machines.iter().any(Machine::is_running) {
            self.look_after()?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn now(&self) -> Instant {
        self.sky.get().now()
    }

    fn elapsed(&self) -> Duration {
        self.now().since(Instant::ZERO)
    }

    /// Starts processes again that ended by themselves, as a supervisor does.
    fn look_after(&mut self) -> Result<(), Unready> {
        let now = self.elapsed();
        for (node, machine) in self.machines.iter_mut().enumerate() {
            if let Some(how) = machine.look_after()? {
                // Nothing that is played here makes a server end by itself.
                let detail = format!("the process ended, and not as it was told to: {how}");
                self.findings.get().accuse(Invariant::NoPanic, Instant::ZERO + now, node, detail);
                machine.hold_down();
                self.cues.add(now + RESTART_AFTER, Cue::Start(node));
            }
        }
        Ok(())
    }

    async fn happen(&mut self, cue: Cue) -> Result<(), Unready> {
        match cue {
            Cue::Start(node) => self.machines[node].release(),
            Cue::Begins(index) => self.begin(index).await,
            Cue::Ends(index) => self.end(index).await,
            // No scenario of this level has a core.
            Cue::Heal => Ok(()),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are switched on and off")]
    async fn begin(&mut self, index: usize) -> Result<(), Unready> {
        let scenario = self.scenario.clone();
        let kind = &scenario.faults[index].kind;
        match *kind {
            FaultKind::Crash { node, power, .. } => {
                self.silence(node, power, true);
                self.kill(node).await
            }
            FaultKind::Stop { node, .. } => {
                self.machines[node].stop();
                Ok(())
            }
            FaultKind::Restore { node, .. } => {
                self.copied.insert(index, self.now());
                self.machines[node].back_up().await
            }
            FaultKind::DiskLost { node } => {
                self.silence(node, true, true);
                self.kill(node).await?;
                self.has_lost(node, Instant::ZERO);
                self.machines[node].lose_disk()
            }
            _ => {
                self.set(kind, true);
                Ok(())
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are switched on and off")]
    async fn end(&mut self, index: usize) -> Result<(), Unready> {
        let scenario = self.scenario.clone();
        let kind = &scenario.faults[index].kind;
        match *kind {
            FaultKind::Crash { node, power, .. } => {
                self.silence(node, power, false);
                self.machines[node].release()
            }
            FaultKind::Stop { node, .. } => self.machines[node].release(),
            FaultKind::Restore { node, down_ms } => {
                self.kill(node).await?;
                let copied = self.copied.remove(&index).unwrap_or(Instant::ZERO);
                self.has_lost(node, copied);
                self.machines[node].restore()?;
                self.cues.add(self.elapsed() + Duration::from_millis(down_ms), Cue::Start(node));
                Ok(())
            }
            FaultKind::DiskLost { node } => {
                self.silence(node, true, false);
                self.machines[node].release()
            }
            _ => {
                self.set(kind, false);
                Ok(())
            }
        }
    }

    /// What is on while a fault lasts, and off otherwise.
    fn set(&mut self, kind: &FaultKind, on: bool) {
        if let FaultKind::Pause { node } = *kind {
            self.machines[node].pause(on);
        } else {
            self.sky.get().set(kind, on);
        }
    }

    async fn kill(&mut self, node: usize) -> Result<(), Unready> {
        self.crashes += 1;
        self.machines[node].kill().await
    }

    /// What was acknowledged from then on until now is not on its disk any more.
    fn has_lost(&self, node: usize, since: Instant) {
        self.findings.get().lose(Loss { node, since, until: self.now() });
    }

    /// A machine without power answers nobody, not even with a refusal.
    fn silence(&self, node: usize, power: bool, on: bool) {
        if power {
            let right = (0..self.machines.len()).filter(|other| *other != node).collect();
            self.sky.get().set(&FaultKind::Partition { left: vec![node], right, one_way: false }, on);
        }
    }
}
