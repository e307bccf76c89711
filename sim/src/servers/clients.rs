//! Clients: they ask for what the scenario says, wait until all servers are alike, and compare what each shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use knot_engine::{Etag, Instant};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::request::{Answer, Request, path};
use super::{Reach, living};
use crate::checker::{Invariant, Seen, Violation, settle_bound};
use crate::scenario::{Scenario, Target};
use crate::shared::Shared;

/// How often it is seen whether the cluster has settled.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long after the last fault a server may take to start again.
const STARTS_WITHIN: Duration = Duration::from_secs(3);
/// Requests under way at once when all is compared.
const REQUESTS_AT_ONCE: usize = 64;

/// What is known of a run from outside.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// By the operation's place: when it was asked, and the answer, if one came.
    pub(super) answers: BTreeMap<usize, (Instant, Option<(Instant, Answer)>)>,
    /// How long after the faults all were alike; else how they still differed.
    pub(super) settled: Option<Result<Duration, String>>,
    /// What each server shows of each document.
    pub(super) seen: BTreeMap<Target, Vec<(usize, Seen)>>,
    /// What went wrong on a machine.
    pub(super) accusations: Vec<Violation>,
}

impl Findings {
    /// Something is wrong on a server's machine.
    pub(crate) fn accuse(&mut self, invariant: Invariant, at: Instant, node: usize, detail: String) {
        self.accusations.push(Violation { invariant, at_us: at.as_micros(), node, detail });
    }
}

/// Does all that clients do in a run.
pub(crate) async fn clients<R: Reach>(reach: R, scenario: Arc<Scenario>, findings: Shared<Findings>) {
    let mut asking = JoinSet::new();
    for (index, operation) in scenario.operations.iter().enumerate() {
        let at = Instant::from_micros(operation.at_us);
        tokio::time::sleep(at.since(reach.now())).await;
        let (node, request) = (operation.node, Request::of(operation));
        let (reach, findings) = (reach.clone(), findings.clone());
        findings.get().answers.insert(index, (reach.now(), None));
        asking.spawn(async move {
            if let Ok(answer) = request.ask(&reach, node).await
                && let Some((_, reply)) = findings.get().answers.get_mut(&index)
            {
                *reply = Some((reach.now(), answer));
            }
        });
    }
    while asking.join_next().await.is_some() {}
    let quiet = Instant::from_micros(scenario.quiet_at_ms * 1_000);
    tokio::time::sleep((quiet + STARTS_WITHIN).since(reach.now())).await;
    let settled = settle(&reach, &scenario, quiet).await;
    let is_settled = settled.is_ok();
    findings.get().settled = Some(settled);
    if is_settled {
        let seen = look(&reach, &scenario, &findings).await;
        findings.get().seen = seen;
    }
}

async fn settle<R: Reach>(reach: &R, scenario: &Scenario, quiet: Instant) -> Result<Duration, String> {
    let end = quiet + settle_bound(scenario.nodes.len());
    loop {
        let Some(difference) = difference(reach, scenario).await else {
            return Ok(reach.now().since(quiet));
        };
        if reach.now() >= end {
            return Err(difference);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Why the servers are not alike yet; none when they are.
async fn difference<R: Reach>(reach: &R, scenario: &Scenario) -> Option<String> {
    let living = living(scenario);
    let names: BTreeSet<&str> = living.iter().map(|node| scenario.nodes[*node].name.as_str()).collect();
    let mut first: BTreeMap<String, (String, Value)> = BTreeMap::new();
    for (node, name) in living.into_iter().map(|node| (node, scenario.nodes[node].name.as_str())) {
        let members = Request::get("/api/cluster?status=alive").ask(reach, node).await;
        let Ok(Answer { status: 200, body: members, .. }) = members else {
            return Some(format!("{name} does not answer"));
        };
        let alive = members["data"].as_array().into_iter().flatten().filter_map(|member| member["name"].as_str());
        let alive: BTreeSet<&str> = alive.collect();
        // Nobody says how the others are to be seen, where only a core is healed.
        if if scenario.core.is_empty() { alive != names } else { !names.is_subset(&alive) } {
            return Some(format!("{name} sees {alive:?} alive"));
        }
        let Ok(Answer { status: 200, body, .. }) = Request::get("/api/cluster/status").ask(reach, node).await else {
            return Some(format!("{name} does not answer"));
        };
        for scope in body["scopes"].as_array().into_iter().flatten() {
            let label = scope["scope"].as_str().unwrap_or_default().to_owned();
            let (other, known) = first.entry(label).or_insert_with(|| (name.to_owned(), scope.clone()));
            if known != scope {
                return Some(format!("{name} has {scope} and {other} has {known}"));
            }
        }
    }
    None
}

/// Reads every document that was asked for on every server that holds it.
async fn look<R: Reach>(
    reach: &R,
    scenario: &Scenario,
    findings: &Shared<Findings>,
) -> BTreeMap<Target, Vec<(usize, Seen)>> {
    let asked: BTreeSet<Target> = {
        let findings = findings.get();
        findings.answers.keys().map(|index| scenario.operations[*index].target.clone()).collect()
    };
    let living = living(scenario);
    let room = Arc::new(Semaphore::new(REQUESTS_AT_ONCE));
    let mut looking = JoinSet::new();
    for (target, node) in asked.iter().flat_map(|target| living.iter().map(move |node| (target, *node))) {
        if !target.is_held_in(&scenario.nodes[node].zone) {
            continue;
        }
        let (room, target, reach) = (room.clone(), target.clone(), reach.clone());
        looking.spawn(async move {
            let _room = room.acquire().await;
            let answer = Request::get(&path(&target)).ask(&reach, node).await;
            (target, node, shown(answer.ok()))
        });
    }
    let mut seen: BTreeMap<Target, Vec<(usize, Seen)>> = BTreeMap::new();
    while let Some(looked) = looking.join_next().await {
        if let Ok((target, node, shown)) = looked {
            seen.entry(target).or_default().push((node, shown));
        }
    }
    seen.values_mut().for_each(|replicas| replicas.sort_by_key(|(node, _)| *node));
    seen
}

fn shown(answer: Option<Answer>) -> Seen {
    match answer.filter(|answer| answer.status == 200) {
        Some(answer) => {
            Seen { etag: answer.etag.as_deref().and_then(etag), value: Some(answer.body), history: Vec::new() }
        }
        None => Seen::default(),
    }
}

fn etag(text: &str) -> Option<Etag> {
    let hex = text.trim_matches('"');
    let digits = |at: usize| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..16).map(digits).collect();
    Some(Etag(bytes?.try_into().ok()?))
}
