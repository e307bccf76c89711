//! Lets time pass, and what goes wrong with real processes begin and end at its times.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use knot_engine::Instant;
use tokio::task::JoinHandle;

use super::LOOK_EVERY;
use super::machine::Machine;
use super::router::Sky;
use crate::checker::Invariant;
use crate::scenario::{FaultKind, RESTART_AFTER, Scenario};
use crate::servers::{Cue, Cues, Findings};
use crate::shared::Shared;

/// The machines, the network between them, and what goes wrong.
#[derive(Debug)]
pub(super) struct Stage {
    scenario: Arc<Scenario>,
    machines: Vec<Machine>,
    sky: Sky,
    cues: Cues,
    findings: Shared<Findings>,
    pub(super) crashes: u64,
}

impl Stage {
    pub(super) fn new(scenario: &Arc<Scenario>, machines: Vec<Machine>, sky: Sky, findings: Shared<Findings>) -> Self {
        let mut cues = Cues::new(scenario);
        for (node, spec) in scenario.nodes.iter().enumerate() {
            cues.add(Duration::from_millis(spec.start_at_ms), Cue::Start(node));
        }
        Self { scenario: scenario.clone(), machines, sky, cues, findings, crashes: 0 }
    }

    /// Runs until the clients are done.
    ///
    /// # Errors
    /// When they fail, or a process or its files cannot be handled.
    pub(super) async fn play(&mut self, mut clients: JoinHandle<()>) -> Result<(), String> {
        loop {
            while let Some(cue) = self.cues.due(self.elapsed()) {
                self.happen(cue).await.map_err(|error| format!("{cue:?}: {error}"))?;
            }
            self.look_after();
            let next = self.cues.next().map_or(LOOK_EVERY, |at| at.saturating_sub(self.elapsed()));
            tokio::select! {
                ended = &mut clients => return ended.map_err(|error| error.to_string()),
                () = tokio::time::sleep(next.min(LOOK_EVERY)) => {}
            }
        }
    }

    /// Ends all processes.
    pub(super) async fn stop_all(&mut self) -> io::Result<()> {
        for machine in &mut self.machines {
            machine.stop().await?;
        }
        Ok(())
    }

    fn elapsed(&self) -> Duration {
        self.sky.get().now().since(Instant::ZERO)
    }

    /// Starts processes again that ended by themselves, as a supervisor does.
    fn look_after(&mut self) {
        let now = self.elapsed();
        for (node, machine) in self.machines.iter_mut().enumerate() {
            if let Some(how) = machine.ended() {
                // Nothing that is played here makes a server end by itself.
                let detail = format!("the process ended by itself: {how}");
                self.findings.get().accuse(Invariant::NoPanic, Instant::ZERO + now, node, detail);
                machine.hold_down();
                self.cues.add(now + RESTART_AFTER, Cue::Start(node));
            }
        }
    }

    async fn happen(&mut self, cue: Cue) -> io::Result<()> {
        let scenario = self.scenario.clone();
        match cue {
            Cue::Start(node) => self.machines[node].release(),
            Cue::Begins(index) => self.begin(&scenario.faults[index].kind).await,
            Cue::Ends(index) => self.end(&scenario.faults[index].kind).await,
            // No scenario of this level has a core.
            Cue::Heal => Ok(()),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are switched on and off")]
    async fn begin(&mut self, kind: &FaultKind) -> io::Result<()> {
        match *kind {
            FaultKind::Crash { node, power, .. } => {
                self.silence(node, power, true);
                self.kill(node).await
            }
            FaultKind::Stop { node, .. } => self.machines[node].stop().await,
            FaultKind::Restore { node, .. } => self.machines[node].back_up(),
            FaultKind::DiskLost { node } => {
                self.silence(node, true, true);
                self.kill(node).await?;
                self.machines[node].lose_disk()
            }
            _ => {
                self.set(kind, true);
                Ok(())
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are switched on and off")]
    async fn end(&mut self, kind: &FaultKind) -> io::Result<()> {
        match *kind {
            FaultKind::Crash { node, power, .. } => {
                self.silence(node, power, false);
                self.machines[node].release()
            }
            FaultKind::Stop { node, .. } => self.machines[node].release(),
            FaultKind::Restore { node, down_ms } => {
                self.kill(node).await?;
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

    async fn kill(&mut self, node: usize) -> io::Result<()> {
        self.crashes += 1;
        self.machines[node].kill().await
    }

    /// A machine without power answers nobody, not even with a refusal.
    fn silence(&self, node: usize, power: bool, on: bool) {
        if power {
            let right = (0..self.machines.len()).filter(|other| *other != node).collect();
            self.sky.get().set(&FaultKind::Partition { left: vec![node], right, one_way: false }, on);
        }
    }
}
