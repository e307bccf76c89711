//! Tenants: people who make, start, move, stop and delete spaces on servers that may not hear of each other. What runs on
//! every machine is held against what they asked for, and in the end against what all servers show.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::clients::Told;
use super::request::{Answer, Request};
use super::yard::Yard;
use super::{Findings, Reach, joined, living};
use crate::checker::Invariant;
use crate::draw::Draw;
use crate::scenario::{Fault, FaultKind, Scenario};
use crate::shared::Shared;

/// What they do in a run.
const DEEDS: usize = 60;
/// How often of a thousand a space is resident.
const RESIDENT_PERMILLE: u64 = 250;
/// How often what is needed first is tried while servers start, and what is shown in the end is looked at.
const AGAIN: Duration = Duration::from_millis(500);
/// How long servers may take to bring all to what is wanted once they hold the same: some looks, stops and images.
const SETTLE_WITHIN: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Create,
    Start,
    Stop,
    Delete,
    RemoveContainer,
}

/// Weighted: many starts.
const KINDS: [Kind; 12] = [
    Kind::Create,
    Kind::Create,
    Kind::Start,
    Kind::Start,
    Kind::Start,
    Kind::Start,
    Kind::Start,
    Kind::Stop,
    Kind::Stop,
    Kind::Delete,
    Kind::RemoveContainer,
    Kind::RemoveContainer,
];

/// A space that somebody was told is made.
#[derive(Clone, Debug)]
struct Made {
    zone: String,
    resident: bool,
    told: Told,
}

#[derive(Debug, Default)]
struct Memory {
    spaces: BTreeMap<String, Made>,
    deleted: BTreeMap<String, Told>,
    /// Those that somebody tried to delete.
    ends: BTreeSet<String>,
}

/// What tenants do while the run lasts; gives what they remember of it.
pub(super) struct Tenants<R> {
    reach: R,
    scenario: Arc<Scenario>,
    findings: Shared<Findings>,
    yard: Shared<Yard>,
    memory: Shared<Memory>,
}

impl<R: Reach> Clone for Tenants<R> {
    fn clone(&self) -> Self {
        Self {
            reach: self.reach.clone(),
            scenario: self.scenario.clone(),
            findings: self.findings.clone(),
            yard: self.yard.clone(),
            memory: self.memory.clone(),
        }
    }
}

/// What spaces are made with.
#[derive(Clone, Debug)]
struct Things {
    owner: String,
    template: String,
}

impl<R: Reach> Tenants<R> {
    pub(super) fn new(reach: &R, scenario: &Arc<Scenario>, findings: &Shared<Findings>, yard: &Shared<Yard>) -> Self {
        let (reach, scenario) = (reach.clone(), scenario.clone());
        let (findings, yard) = (findings.clone(), yard.clone());
        Self { reach, scenario, findings, yard, memory: Shared::new(Memory::default()) }
    }

    fn accuse(&self, node: usize, detail: String) {
        self.findings.get().accuse(Invariant::Spaces, self.reach.now(), node, detail);
    }

    fn told(&self, node: usize) -> Told {
        Told { node, at: self.reach.now() }
    }

    async fn ask(&self, node: usize, request: Request) -> Option<Answer> {
        request.ask(&self.reach, node).await.ok()
    }

    /// Does all that they do.
    pub(super) async fn work(&self) {
        let mut draw = Draw::new(self.scenario.seed, "tenants");
        let node = draw.index(self.scenario.nodes.len());
        let Some(things) = self.begin(node).await else { return };
        let (begin, quiet) = (self.reach.now(), self.scenario.quiet_at());
        let left_us = u64::try_from(quiet.since(begin).as_micros()).unwrap_or(u64::MAX);
        let mut times: Vec<u64> = (0..DEEDS).map(|_| draw.between(0, left_us)).collect();
        times.sort_unstable();
        let mut doing = JoinSet::new();
        for (index, time_us) in times.into_iter().enumerate() {
            tokio::time::sleep((begin + Duration::from_micros(time_us)).since(self.reach.now())).await;
            let (node, kind) = (draw.index(self.scenario.nodes.len()), *draw.pick(&KINDS));
            let draw = Draw::new(self.scenario.seed, &format!("tenants' deed {index}"));
            let (one, things) = (self.clone(), things.clone());
            doing.spawn(async move { one.deed(kind, node, index, &things, draw).await });
        }
        while let Some(done) = doing.join_next().await {
            joined(done);
        }
    }

    /// Makes an owner and a template, under new names where an answer was lost.
    async fn begin(&self, node: usize) -> Option<Things> {
        let mut things = [None, None];
        for attempt in 0.. {
            if self.reach.now() >= self.scenario.quiet_at() {
                return None;
            }
            let owner = json!({"username": format!("tenant{attempt}"), "password": "correct horse battery"});
            let template = json!({"name": format!("box{attempt}"), "platform": "container", "job": "image: box:1\n"});
            let wanted = [("/api/users", owner, "user_id"), ("/api/templates", template, "template_id")];
            for (thing, (path, body, id)) in things.iter_mut().zip(wanted) {
                if thing.is_none()
                    && let Some(answer) = self.ask(node, Request::json("POST", path, &body)).await
                {
                    *thing = answer.body[id].as_str().map(str::to_owned);
                }
            }
            if let [Some(owner), Some(template)] = &things {
                return Some(Things { owner: owner.clone(), template: template.clone() });
            }
            tokio::time::sleep(AGAIN).await;
        }
        None
    }

    async fn deed(&self, kind: Kind, node: usize, index: usize, things: &Things, mut draw: Draw) {
        if let Kind::Create = kind {
            return self.create(node, index, things, draw).await;
        }
        let Some((id, made)) = self.some_space(&mut draw) else { return };
        match kind {
            Kind::Create => {}
            Kind::Start => {
                let is_there = |node: &usize| self.scenario.nodes[*node].zone == made.zone;
                let places: Vec<usize> = (0..self.scenario.nodes.len()).filter(is_there).collect();
                let place = *draw.pick(&places);
                self.yard.get().ask(&id, place);
                let body = json!({"node": self.scenario.nodes[place].name});
                self.ask(node, Request::json("POST", &format!("/api/spaces/{id}/start"), &body)).await;
            }
            Kind::Stop => {
                self.ask(node, Request::json("POST", &format!("/api/spaces/{id}/stop"), &json!({}))).await;
            }
            Kind::Delete => {
                self.memory.get().ends.insert(id.clone());
                let answer = self.ask(node, Request::json("DELETE", &format!("/api/spaces/{id}"), &json!({}))).await;
                if answer.is_some_and(|answer| answer.status == 200) {
                    self.yard.get().delete(&id, node);
                    let told = self.told(node);
                    self.memory.get().deleted.entry(id).or_insert(told);
                }
            }
            Kind::RemoveContainer => {
                let Some(answer) = self.ask(node, Request::get(&format!("/api/spaces/{id}"))).await else { return };
                let is_its_own = answer.body["node_hostname"] == self.scenario.nodes[node].name;
                if answer.body["state"] == "running" && is_its_own {
                    let generation = answer.body["generation"].as_u64().unwrap_or_default();
                    self.yard.get().remove_behind(&id, node, generation);
                }
            }
        }
    }

    async fn create(&self, node: usize, index: usize, things: &Things, mut draw: Draw) {
        let zone = self.scenario.nodes[draw.index(self.scenario.nodes.len())].zone.clone();
        let resident = draw.chance(RESIDENT_PERMILLE);
        let Things { owner, template } = things;
        let body = json!({
            "name": format!("s{index}"), "template_id": template, "user_id": owner, "zone": zone, "resident": resident,
        });
        let Some(answer) = self.ask(node, Request::json("POST", "/api/spaces", &body)).await else { return };
        if let (201, Some(id)) = (answer.status, answer.body["space_id"].as_str()) {
            let told = self.told(node);
            self.memory.get().spaces.insert(id.to_owned(), Made { zone, resident, told });
        }
    }

    fn some_space(&self, draw: &mut Draw) -> Option<(String, Made)> {
        let memory = self.memory.get();
        let spaces: Vec<_> = memory.spaces.iter().collect();
        (!spaces.is_empty()).then(|| *draw.pick(&spaces)).map(|(id, made)| (id.clone(), made.clone()))
    }

    /// Holds what all servers show in the end, and what runs, against what was done.
    pub(super) async fn look(&self) {
        let end = self.reach.now() + SETTLE_WITHIN;
        let spaces = self.memory.get().spaces.clone();
        let mut open: Vec<(String, Made)> = spaces.into_iter().collect();
        loop {
            let mut wrong = Vec::new();
            for (id, made) in std::mem::take(&mut open) {
                if let Some(detail) = self.judge(&id, &made).await {
                    open.push((id, made));
                    wrong.push(detail);
                }
            }
            if wrong.is_empty() {
                return;
            }
            if self.reach.now() >= end {
                wrong.into_iter().for_each(|(node, detail)| self.accuse(node, detail));
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// What is wrong with a space, and with which server; nothing once all is as it should be.
    async fn judge(&self, id: &str, made: &Made) -> Option<(usize, String)> {
        let living = living(&self.scenario);
        let mut shown: BTreeMap<String, usize> = BTreeMap::new();
        for &node in &living {
            if made.resident && self.scenario.nodes[node].zone != made.zone {
                continue;
            }
            let Some(answer) = self.ask(node, Request::get(&format!("/api/spaces/{id}"))).await else {
                return Some((node, format!("does not say how the space {id} is")));
            };
            let said = match answer.status {
                404 => Value::Null,
                _ => json!([answer.body["state"], answer.body["node_hostname"], answer.body["generation"]]),
            };
            shown.insert(said.to_string(), node);
        }
        let (said, node) = shown.pop_first()?;
        if let Some((other, _)) = shown.pop_first() {
            return Some((node, format!("shows the space {id} as {said}, and another shows it as {other}")));
        }
        let said: Value = serde_json::from_str(&said).unwrap_or_default();
        self.judge_alike(id, made, node, &said, &living).map(|detail| (node, detail))
    }

    /// The same where all show it alike.
    fn judge_alike(&self, id: &str, made: &Made, node: usize, said: &Value, living: &[usize]) -> Option<String> {
        let losses = self.findings.get().losses().to_vec();
        let (is_ended, deleted) = {
            let memory = self.memory.get();
            (memory.ends.contains(id), memory.deleted.get(id).copied())
        };
        let yard = self.yard.get();
        if said.is_null() {
            if !is_ended && !made.told.is_excused(&losses) {
                return Some(format!("does not show the space {id}, which was made"));
            }
            let left = living.iter().find(|node| is_ended && yard.has(**node, id));
            return left.map(|left| format!("does not show the space {id}, and server {left} holds some of it"));
        }
        let state = said[0].as_str().unwrap_or_default();
        if state != "deleting" && deleted.is_some_and(|told| !told.is_excused(&losses)) {
            return Some(format!("shows the space {id} as {state}, and it was deleted"));
        }
        let place = self.scenario.nodes.iter().position(|node| said[1] == node.name);
        // Another machine may have its name.
        let was_replaced = |place: usize| {
            let replaces = |fault: &Fault| matches!(fault.kind, FaultKind::DiskLost { node } if node == place);
            self.scenario.faults.iter().any(replaces)
        };
        let waits_for_the_dead = place.is_none_or(|place| !living.contains(&place) || was_replaced(place));
        if matches!(state, "pending" | "starting" | "stopping" | "deleting") && !waits_for_the_dead {
            return Some(format!("shows the space {id} as {state} for long"));
        }
        let runs: Vec<(usize, u64)> =
            living.iter().flat_map(|node| yard.running(*node, id).into_iter().map(|run| (*node, run))).collect();
        let should: Vec<(usize, u64)> = match (state, place, said[2].as_u64()) {
            ("running", Some(place), Some(generation)) if living.contains(&place) => vec![(place, generation)],
            _ => Vec::new(),
        };
        (runs != should).then(|| format!("shows the space {id} as {said} for server {node}, and it runs as {runs:?}"))
    }
}
