//! Clients: they ask for what the scenario says, wait until all servers are alike, and compare what each shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use knot_engine::{Etag, Instant};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::client::{Answer, Request, path};
use super::wires::Network;
use super::{RESTART_AFTER, Shared};
use crate::checker::{Checkers, Invariant, Seen, Violation, settle_bound, written_fields};
use crate::ledger::Outcome;
use crate::report::{Counts, Report};
use crate::scenario::{Action, Fault, FaultKind, Scenario, Target};
use crate::tap::Tap;

/// How often it is seen whether the cluster has settled.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long after the last fault a server may take to start again.
const STARTS_WITHIN: Duration = Duration::from_secs(3);
/// Requests under way at once when all is compared.
const REQUESTS_AT_ONCE: usize = 64;

/// What is known of a run from outside.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// By the operation's place: when it was asked, and the answer, if one came.
    answers: BTreeMap<usize, (Instant, Option<(Instant, Answer)>)>,
    /// How long after the faults all were alike; else how they still differed.
    settled: Option<Result<Duration, String>>,
    /// What each server shows of each document.
    seen: BTreeMap<Target, Vec<(usize, Seen)>>,
    /// What went wrong on a machine.
    accusations: Vec<Violation>,
}

impl Findings {
    /// Something is wrong on a server's machine.
    pub(super) fn accuse(&mut self, invariant: Invariant, at: Instant, node: usize, detail: String) {
        self.accusations.push(Violation { invariant, at_us: at.as_micros(), node, detail });
    }
}

fn now() -> Instant {
    Instant::ZERO + turmoil::sim_elapsed().unwrap_or_default()
}

/// Does all that clients do in a run.
pub(super) async fn clients(scenario: Arc<Scenario>, findings: Shared<Findings>) -> turmoil::Result {
    let mut asking = JoinSet::new();
    for (index, operation) in scenario.operations.iter().enumerate() {
        let at = Instant::from_micros(operation.at_us);
        tokio::time::sleep(at.since(now())).await;
        let server = scenario.nodes[operation.node].name.clone();
        let request = Request::of(operation);
        let findings = findings.clone();
        findings.get().answers.insert(index, (now(), None));
        asking.spawn(async move {
            if let Ok(answer) = request.ask(&server).await
                && let Some((_, reply)) = findings.get().answers.get_mut(&index)
            {
                *reply = Some((now(), answer));
            }
        });
    }
    while asking.join_next().await.is_some() {}
    let quiet = Instant::from_micros(scenario.quiet_at_ms * 1_000);
    tokio::time::sleep((quiet + STARTS_WITHIN).since(now())).await;
    let settled = settle(&scenario, quiet).await;
    let is_settled = settled.is_ok();
    findings.get().settled = Some(settled);
    if is_settled {
        let seen = look(&scenario, &findings).await;
        findings.get().seen = seen;
    }
    Ok(())
}

/// Servers that have to come right in the end.
fn living(scenario: &Scenario) -> Vec<usize> {
    if !scenario.core.is_empty() {
        return scenario.core.clone();
    }
    let dead = |node: &usize| {
        let ends = |kind: &FaultKind| matches!(kind, FaultKind::Crash { node: of, .. } if of == node);
        scenario.faults.iter().any(|fault| fault.for_ms.is_none() && ends(&fault.kind))
    };
    (0..scenario.nodes.len()).filter(|node| !dead(node)).collect()
}

async fn settle(scenario: &Scenario, quiet: Instant) -> Result<Duration, String> {
    let end = quiet + settle_bound(scenario.nodes.len());
    loop {
        let Some(difference) = difference(scenario).await else {
            return Ok(now().since(quiet));
        };
        if now() >= end {
            return Err(difference);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Why the servers are not alike yet; none when they are.
async fn difference(scenario: &Scenario) -> Option<String> {
    let living = living(scenario);
    let names: BTreeSet<&str> = living.iter().map(|node| scenario.nodes[*node].name.as_str()).collect();
    let mut first: BTreeMap<String, (String, Value)> = BTreeMap::new();
    for &name in &names {
        let Ok(Answer { status: 200, body: members, .. }) = Request::get("/api/cluster?status=alive").ask(name).await
        else {
            return Some(format!("{name} does not answer"));
        };
        let alive = members["data"].as_array().into_iter().flatten().filter_map(|member| member["name"].as_str());
        let alive: BTreeSet<&str> = alive.collect();
        // Nobody says how the others are to be seen, where only a core is healed.
        if if scenario.core.is_empty() { alive != names } else { !names.is_subset(&alive) } {
            return Some(format!("{name} sees {alive:?} alive"));
        }
        let Ok(Answer { status: 200, body, .. }) = Request::get("/api/cluster/status").ask(name).await else {
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
async fn look(scenario: &Scenario, findings: &Shared<Findings>) -> BTreeMap<Target, Vec<(usize, Seen)>> {
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
        let (room, target, name) = (room.clone(), target.clone(), scenario.nodes[node].name.clone());
        looking.spawn(async move {
            let _room = room.acquire().await;
            let answer = Request::get(&path(&target)).ask(&name).await;
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

/// Holds what clients saw against what was promised.
pub(super) fn report(
    scenario: &Scenario,
    findings: Findings,
    (ended, elapsed): (Result<(), String>, Duration),
) -> Report {
    let zones: Vec<String> = scenario.nodes.iter().map(|node| node.zone.clone()).collect();
    let tap = Tap::new(|_| None, zones.len());
    let mut checkers = Checkers::new(tap, BTreeSet::new(), Vec::new(), zones);
    checkers.violations = findings.accusations;
    let end = Instant::ZERO + elapsed;
    let began = |fault: &Fault| fault.begins_at_ms().count() as u64;
    let faults = scenario.faults.iter().map(began).sum();
    let mut counts = Counts { faults, ..Counts::default() };
    let mut reads = Vec::new();
    for (index, (asked, reply)) in findings.answers {
        let operation = &scenario.operations[index];
        if operation.action == Action::Read {
            reads.extend(reply.filter(|(_, answer)| answer.status == 200).map(|reply| (index, asked, reply)));
            continue;
        }
        checkers.ledger.ask(operation, asked);
        checkers.ledger.settle(operation.id, outcome(reply.as_ref(), &mut counts));
    }
    excuse(scenario, &mut checkers);
    for (index, asked, (at, answer)) in reads {
        let operation = &scenario.operations[index];
        let (node, target) = (operation.node, &operation.target);
        checkers.check_fields(node, target, &answer.body, at);
        if target.only_grows() {
            let shown = written_fields(&answer.body).into_iter().collect();
            checkers.count_read(target, &shown, asked);
            checkers.check_own_writes((node, damaged(scenario, node, at)), target, &shown, asked, at);
        }
    }
    let settled_us = match (ended, findings.settled) {
        (Err(why), _) => {
            checkers.report(Invariant::Progress, end, 0, || why);
            None
        }
        (Ok(()), Some(Ok(settled))) => Some(u64::try_from(settled.as_micros()).unwrap_or(u64::MAX)),
        (Ok(()), Some(Err(difference))) => {
            checkers.report(Invariant::Convergence, end, 0, || difference);
            None
        }
        (Ok(()), None) => None,
    };
    checkers.audit_shown(&findings.seen, end);
    for (target, replicas) in findings.seen.iter().filter(|(target, _)| target.only_grows()) {
        let shown = |seen: &Seen| seen.value.iter().flat_map(written_fields).collect::<BTreeSet<u32>>();
        let by_all = replicas.iter().map(|(_, seen)| shown(seen)).reduce(|one, other| &one & &other);
        checkers.count_read(target, &by_all.unwrap_or_default(), end);
    }
    if scenario.canary {
        checkers.report(Invariant::Canary, end, 0, || "this run was to fail".to_owned());
    }
    Report {
        seed: scenario.seed,
        nodes: scenario.nodes.len(),
        trace: String::new(),
        simulated_us: end.as_micros(),
        settled_us,
        counts,
        account: checkers.account(),
        violations: checkers.violations,
        marks: Vec::new(),
    }
}

fn outcome(reply: Option<&(Instant, Answer)>, counts: &mut Counts) -> Outcome {
    match reply {
        Some((at, answer)) if (200..300).contains(&answer.status) => {
            counts.acknowledged += 1;
            Outcome::Acknowledged { at: *at, changed: true }
        }
        Some(_) => {
            counts.refused += 1;
            Outcome::Unknown
        }
        None => {
            counts.unknown += 1;
            Outcome::Unknown
        }
    }
}

/// Adds what passed between the servers.
pub(super) fn add_network(report: &mut Report, network: &Network) {
    if let Some((node, canary)) = network.leak() {
        let detail = format!("what it sends holds {canary:?} in the clear");
        report.violations.push(Violation {
            invariant: Invariant::NoPlaintext,
            at_us: report.simulated_us,
            node,
            detail,
        });
    }
    let counts = network.counts();
    report.trace = network.trace();
    report.counts.datagrams = counts.datagrams;
    report.counts.datagrams_lost = counts.lost;
    report.counts.frames = counts.frames;
    report.counts.connects = counts.connects;
}

/// From when until when a fault may take away what a server alone holds.
#[expect(clippy::wildcard_enum_match_arm, reason = "no other takes anything away")]
fn damage(fault: &Fault) -> Option<(usize, Instant, Instant)> {
    let ends_ms = fault.ends_at_ms().unwrap_or(fault.at_ms);
    let (begins, ends) = (Instant::from_micros(fault.at_ms * 1_000), Instant::from_micros(ends_ms * 1_000));
    match fault.kind {
        FaultKind::Restore { node, .. } => Some((node, begins, ends)),
        FaultKind::DiskLost { node } => Some((node, Instant::ZERO, begins)),
        // Found when the server is next started, and then everything goes.
        FaultKind::BitRot { node, .. } | FaultKind::MisdirectedWrite { node } => {
            Some((node, Instant::ZERO, ends + RESTART_AFTER))
        }
        _ => None,
    }
}

/// What only one disk held that was lost or set back, or whose server never came back, nobody could keep.
fn excuse(scenario: &Scenario, checkers: &mut Checkers) {
    let living = living(scenario);
    let dead = (0..scenario.nodes.len()).filter(|node| !living.contains(node));
    let dead = dead.map(|node| (node, Instant::ZERO, Instant::from_micros(u64::MAX)));
    for (node, since, until) in scenario.faults.iter().filter_map(damage).chain(dead) {
        let asked = checkers.ledger.writes().filter(|write| write.operation.node == node);
        let lost: Vec<u32> =
            asked.filter(|write| (since..=until).contains(&write.asked)).map(|write| write.operation.id).collect();
        lost.into_iter().for_each(|id| checkers.ledger.excuse(id));
    }
}

/// When a server's disk was last lost or set back before then.
fn damaged(scenario: &Scenario, node: usize, before: Instant) -> Instant {
    let began = |fault: &&Fault| Instant::from_micros(fault.at_ms * 1_000) <= before;
    let ends = scenario.faults.iter().filter(began).filter_map(damage).filter(|(of, ..)| *of == node);
    ends.map(|(.., ends)| ends).max().unwrap_or(Instant::ZERO)
}
