//! Two processes of one server, on copies of one folder, as somebody sees them who asks all servers again and again
//! whether they take writes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use knot_engine::Instant;
use tokio::task::JoinSet;

use super::request::{Answer, Request};
use super::{Findings, Reach, joined};
use crate::checker::{FENCED_WITHIN, Invariant, LOSS_ENVELOPE};
use crate::scenario::{Fault, FaultKind, RESTART_AFTER, Scenario};
use crate::shared::Shared;

/// How often they are asked.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How long an answer is waited for: they are compared with each other.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a process takes to start, and whoever asks to learn of what has happened.
const SLACK: Duration = Duration::from_secs(3);

/// A time in which a process said each time that it had stepped back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fenced {
    pub(super) node: usize,
    pub(super) from: Instant,
    pub(super) until: Instant,
}

/// See the module.
pub(super) struct Watcher<R> {
    reach: R,
    scenario: Arc<Scenario>,
    findings: Shared<Findings>,
    /// Who has stepped back, by what was said last.
    fenced: BTreeMap<usize, Fenced>,
}

impl<R: Reach> Watcher<R> {
    pub(super) fn new(reach: &R, scenario: &Arc<Scenario>, findings: &Shared<Findings>) -> Self {
        let (reach, scenario, findings) = (reach.clone(), scenario.clone(), findings.clone());
        Self { reach, scenario, findings, fenced: BTreeMap::new() }
    }

    /// Asks for as long as the run lasts.
    pub(super) async fn work(mut self) -> Infallible {
        if !self.scenario.faults.iter().any(|fault| doubled(fault).is_some()) {
            return std::future::pending().await;
        }
        loop {
            let answers = self.ask_all().await;
            self.judge(&answers);
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Whether each server has stepped back; none where it does not answer.
    async fn ask_all(&mut self) -> Vec<Option<bool>> {
        let mut asking = JoinSet::new();
        for node in 0..self.scenario.nodes.len() {
            let reach = self.reach.clone();
            asking.spawn(async move { (node, reach.now(), has_left(&reach, node).await, reach.now()) });
        }
        let mut answers = vec![None; self.scenario.nodes.len()];
        while let Some(asked) = asking.join_next().await {
            let (node, asked, has_left, answered) = joined(asked);
            self.note(node, [asked, answered], has_left == Some(true));
            answers[node] = has_left;
        }
        answers
    }

    /// What a server said that was asked and answered then. A process that has ended since says no more of it.
    fn note(&mut self, node: usize, [asked, answered]: [Instant; 2], has_left: bool) {
        let mut findings = self.findings.get();
        let goes_on = has_left && !findings.stepped_back.insert(node);
        if !has_left {
            findings.stepped_back.remove(&node);
        }
        if !goes_on {
            findings.fenced.extend(self.fenced.remove(&node));
        }
        if has_left {
            let fenced = self.fenced.entry(node).or_insert(Fenced { node, from: answered, until: answered });
            fenced.until = fenced.from.max(asked);
        }
    }

    fn judge(&self, answers: &[Option<bool>]) {
        let now = self.reach.now();
        let began = |fault: &&Fault| Instant::from_micros(fault.at_ms * 1_000) <= now;
        for &node in self.fenced.keys() {
            let is_of = |fault: &Fault| doubled(fault).is_some_and(|both| both.contains(&node));
            if !self.scenario.faults.iter().filter(began).any(is_of) {
                self.accuse(Invariant::NotFenced, node, "it is the only process of its server".to_owned());
            }
        }
        for fault in &self.scenario.faults {
            let (Some([node, to]), Some(since)) = (doubled(fault), lasts(fault, now)) else { continue };
            let fenced = [node, to].map(|node| answers[node]);
            let well = self.calm_since(since, now).map(|since| now.since(since)).unwrap_or_default();
            let is_late = fenced == [Some(false); 2] && well >= FENCED_WITHIN + SLACK;
            if fenced == [Some(true); 2] || is_late {
                let count = fenced.iter().filter(|fenced| **fenced == Some(true)).count();
                let said = format!("n{to} is the same server; after {well:?} {count} of the two have stepped back");
                self.accuse(Invariant::OneStepsBack, node, said);
            }
        }
    }

    /// Since when nothing has been wrong but that there are two, from that moment on.
    fn calm_since(&self, since: Instant, now: Instant) -> Option<Instant> {
        if self.scenario.network.loss_per_mille_most() > LOSS_ENVELOPE {
            return None;
        }
        let mut since = since + RESTART_AFTER;
        for fault in self.scenario.faults.iter().filter(|fault| doubled(fault).is_none()) {
            let down_ms = if let FaultKind::Restore { down_ms, .. } = fault.kind { down_ms } else { 0 };
            for begins_ms in fault.begins_at_ms().filter(|at_ms| Instant::from_micros(at_ms * 1_000) <= now) {
                let ends_ms = begins_ms + fault.for_ms? + down_ms;
                since = since.max(Instant::from_micros(ends_ms * 1_000));
            }
        }
        for node in &self.scenario.nodes {
            since = since.max(Instant::from_micros(node.start_at_ms * 1_000));
        }
        (since <= now).then_some(since)
    }

    fn accuse(&self, invariant: Invariant, node: usize, detail: String) {
        let mut findings = self.findings.get();
        if !findings.is_over {
            findings.end_with(invariant, self.reach.now(), node, detail);
        }
    }
}

async fn has_left<R: Reach>(reach: &R, node: usize) -> Option<bool> {
    const LEFT: &str = "this server has left the cluster";
    let answer = tokio::time::timeout(PATIENCE, Request::get("/readyz").ask(reach, node)).await.ok()?.ok()?;
    let Answer { status, body, .. } = answer;
    Some(status == 503 && body["error"] == LEFT)
}

/// Whose folder is copied, and where to.
fn doubled(fault: &Fault) -> Option<[usize; 2]> {
    if let FaultKind::Clone { node, to } = fault.kind { Some([node, to]) } else { None }
}

/// When a fault began that lasts.
fn lasts(fault: &Fault, now: Instant) -> Option<Instant> {
    let times = fault.begins_at_ms().map(|at_ms| {
        let ends_ms = at_ms.saturating_add(fault.for_ms.unwrap_or(u64::MAX));
        [at_ms, ends_ms].map(|at_ms| Instant::from_micros(at_ms.saturating_mul(1_000)))
    });
    times.filter(|[begins, ends]| *begins <= now && now < *ends).map(|[begins, _]| begins).last()
}
