//! An operator, who shuts servers out over HTTP and lets them in again, and sees meanwhile to it that they are out.
//!
//! Evictions are documents, so servers hear of one when they can, and a machine whose disk is set back may have to hear
//! of it again: the operator lets a server in wherever it is still shut out when its time is over. Once all others hold
//! an eviction, what is written at one of them does not come to who is shut out, and nothing comes from there.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use knot_engine::Instant;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::request::{Answer, Request};
use super::{Findings, Reach, joined};
use crate::checker::Invariant;
use crate::scenario::{FaultKind, Scenario};
use crate::shared::Shared;

/// How often the operator looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Operator<R> {
    reach: R,
    scenario: Arc<Scenario>,
    findings: Shared<Findings>,
    turns: Vec<Turn>,
}

/// One time that a server is to be shut out.
#[derive(Debug)]
struct Turn {
    node: usize,
    by: usize,
    from: Instant,
    until: Instant,
    /// The server's id, once somebody was asked to shut it out.
    id: Option<String>,
    /// Whether somebody has said that it is done.
    is_done: bool,
    trial: Option<Trial>,
}

/// What was written once all others held the eviction.
#[derive(Debug)]
struct Trial {
    /// Documents that may not show on these servers.
    hidden: Vec<(String, Vec<usize>)>,
    /// How often a disk had lost something by then: one that has since may have lost the eviction.
    losses: usize,
}

/// What a server says of who is shut out.
#[derive(Clone, Debug, PartialEq)]
struct Stand {
    id: String,
    evicted: BTreeSet<String>,
    /// Whom it counts among those that are there.
    counted: BTreeSet<String>,
}

impl<R: Reach> Operator<R> {
    pub(super) fn new(reach: &R, scenario: &Arc<Scenario>, findings: &Shared<Findings>) -> Self {
        let mut turns = Vec::new();
        for fault in &scenario.faults {
            let FaultKind::Evict { node, by } = fault.kind else { continue };
            turns.extend(fault.begins_at_ms().map(|begins_ms| Turn {
                node,
                by,
                from: Instant::from_micros(begins_ms * 1_000),
                until: Instant::from_micros((begins_ms + fault.for_ms.unwrap_or_default()) * 1_000),
                id: None,
                is_done: false,
                trial: None,
            }));
        }
        Self { reach: reach.clone(), scenario: scenario.clone(), findings: findings.clone(), turns }
    }

    /// Does what is to be done for as long as the run lasts.
    pub(super) async fn work(mut self) -> Infallible {
        if self.turns.is_empty() {
            return std::future::pending().await;
        }
        loop {
            self.shut_out().await;
            if self.turns.iter().any(|turn| turn.id.is_some()) {
                self.look().await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Has those shut out whose time it is.
    async fn shut_out(&mut self) {
        let now = self.reach.now();
        let is_due = |turn: &&mut Turn| !turn.is_done && turn.from <= now && now < turn.until;
        for turn in self.turns.iter_mut().filter(is_due) {
            if turn.id.is_none() {
                turn.id = stand(&self.reach, turn.node).await.map(|stand| stand.id);
            }
            let Some(id) = &turn.id else { continue };
            let others = (0..self.scenario.nodes.len()).filter(|node| *node != turn.by);
            for by in std::iter::once(turn.by).chain(others).filter(|node| *node != turn.node) {
                turn.is_done = change(&self.reach, by, "evict", id).await;
                if turn.is_done {
                    break;
                }
            }
        }
    }

    /// Looks who is shut out where, lets those in again whose time is over, and tries those who are out.
    async fn look(&mut self) {
        let losses = self.losses();
        let stands = self.stands().await;
        let now = self.reach.now();
        let wanted = |id: &String| self.turns.iter().any(|turn| turn.id.as_ref() == Some(id) && now < turn.until);
        for (node, stand) in stands.iter().enumerate() {
            let Some(Stand { id, evicted, counted }) = stand else { continue };
            if let Some(there) = evicted.intersection(counted).find(|there| *there != id) {
                self.accuse(node, format!("it counts {there} as a member, which it knows to be evicted"));
            }
            for id in evicted.iter().filter(|evicted| *evicted != id && !wanted(evicted)) {
                change(&self.reach, node, "readmit", id).await;
            }
        }
        for place in 0..self.turns.len() {
            let turn = &self.turns[place];
            if turn.is_done && now < turn.until {
                match turn.trial.as_ref().filter(|trial| trial.losses == losses) {
                    None => self.turns[place].trial = self.begin_trial(place, &stands, losses).await,
                    Some(trial) => self.look_at(turn, trial).await,
                }
            }
        }
    }

    /// Writes on both sides, where all others hold the eviction.
    async fn begin_trial(&self, place: usize, stands: &[Option<Stand>], losses: usize) -> Option<Trial> {
        // A copied folder is one server at two places.
        if self.scenario.faults.iter().any(|fault| matches!(fault.kind, FaultKind::Clone { .. })) {
            return None;
        }
        let Turn { node, id, .. } = &self.turns[place];
        let id = id.as_ref()?;
        let others: Vec<usize> = (0..stands.len()).filter(|other| other != node).collect();
        let holds = |other: &usize| stands[*other].as_ref().is_some_and(|stand| stand.evicted.contains(id));
        // A machine that has replaced it is another server.
        let is_there = stands[*node].as_ref().is_some_and(|stand| stand.id == *id);
        if !is_there || !others.iter().all(holds) {
            return None;
        }
        let mut hidden = Vec::new();
        for (at, name, from) in [(others[0], "without", vec![*node]), (*node, "within", others.clone())] {
            let path = format!("/api/documents/shut-out/{place}-{losses}-{name}");
            let put = Request::json("PUT", &path, &json!({})).ask(&self.reach, at).await;
            if put.is_ok_and(|answer| (200..300).contains(&answer.status)) {
                hidden.push((path, from));
            }
        }
        Some(Trial { hidden, losses })
    }

    async fn look_at(&self, turn: &Turn, trial: &Trial) {
        for (path, nodes) in &trial.hidden {
            for node in nodes {
                let answer = Request::get(path).ask(&self.reach, *node).await;
                if answer.is_ok_and(|answer| answer.status == 200) && self.losses() == trial.losses {
                    let name = &self.scenario.nodes[turn.node].name;
                    self.accuse(*node, format!("it shows {path}, and {name} is evicted everywhere"));
                }
            }
        }
    }

    async fn stands(&self) -> Vec<Option<Stand>> {
        let mut asking = JoinSet::new();
        for node in 0..self.scenario.nodes.len() {
            let reach = self.reach.clone();
            asking.spawn(async move { (node, stand(&reach, node).await) });
        }
        let mut stands = vec![None; self.scenario.nodes.len()];
        while let Some(asked) = asking.join_next().await {
            let (node, stand) = joined(asked);
            stands[node] = stand;
        }
        stands
    }

    fn losses(&self) -> usize {
        self.findings.get().losses().len()
    }

    fn accuse(&self, node: usize, detail: String) {
        let mut findings = self.findings.get();
        if !findings.is_over {
            findings.end_with(Invariant::ShutOut, self.reach.now(), node, detail);
        }
    }
}

/// What a server says; who came to be shut out, or was let in, while it was asked is left out.
async fn stand<R: Reach>(reach: &R, node: usize) -> Option<Stand> {
    let (id, before) = evicted(ask(reach, node, "/api/cluster/status").await?)?;
    let members = ask(reach, node, "/api/cluster-info").await?;
    let (_, after) = evicted(ask(reach, node, "/api/cluster/status").await?)?;
    let is_there = |member: &&Value| member["state"] == "alive" || member["state"] == "suspect";
    let counted = members.as_array()?.iter().filter(is_there).map(|member| text(&member["id"]));
    Some(Stand { id, evicted: &before & &after, counted: counted.collect::<Option<_>>()? })
}

async fn ask<R: Reach>(reach: &R, node: usize, path: &str) -> Option<Value> {
    match Request::get(path).ask(reach, node).await {
        Ok(Answer { status: 200, body, .. }) => Some(body),
        Ok(_) | Err(_) => None,
    }
}

/// A server's own id, and those it shuts out.
fn evicted(status: Value) -> Option<(String, BTreeSet<String>)> {
    let evicted = status["evicted"].as_array()?.iter().map(text).collect::<Option<_>>()?;
    Some((text(&status["id"])?, evicted))
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// Has a server shut another out, or let it in; whether it says that it is done.
async fn change<R: Reach>(reach: &R, node: usize, what: &str, id: &str) -> bool {
    let request = Request::json("POST", &format!("/api/cluster/{what}"), &json!({ "id": id }));
    request.ask(reach, node).await.is_ok_and(|answer| answer.status == 200)
}
