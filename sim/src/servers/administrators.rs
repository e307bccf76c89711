//! Administrators: people who make, change and delete users on servers that may not hear of each other, want one name for
//! two, revoke what is in use, and take away each other's roles. What they were told is done is held against what all
//! servers show in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::clients::{Loss, Told};
use super::request::{Answer, Request};
use super::{Findings, Reach, joined, living};
use crate::checker::Invariant;
use crate::draw::Draw;
use crate::scenario::Scenario;
use crate::shared::Shared;

/// What they do in a run.
const DEEDS: usize = 40;
/// Few names, so that two are wanted at once.
const NAMES: [&str; 4] = ["ann", "bob", "eve", "zoe"];
/// What is changed of a user, each by itself.
const FIELDS: [&str; 3] = ["zone", "timezone", "preferred_shell"];
const PASSWORD: &str = "correct horse battery";
const ADMINISTRATOR: &str = "00000000000000000000000000000000";
/// The first administrators, by name.
const FIRST: [&str; 2] = ["root0", "root1"];
/// How often the first of all is tried while servers start.
const AGAIN: Duration = Duration::from_millis(500);
/// How long servers may take to agree on users once they hold the same: the longest that a name waits to be given anew.
const AGREE_WITHIN: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Create,
    Change,
    Delete,
    Demote,
    MakeToken,
    UseToken,
    RevokeToken,
}

/// Weighted: many names and uses, few ends.
const KINDS: [Kind; 14] = [
    Kind::Create,
    Kind::Create,
    Kind::Create,
    Kind::Create,
    Kind::Change,
    Kind::Change,
    Kind::Change,
    Kind::Delete,
    Kind::Demote,
    Kind::MakeToken,
    Kind::MakeToken,
    Kind::UseToken,
    Kind::UseToken,
    Kind::RevokeToken,
];

/// What administrators know of a run.
#[derive(Debug, Default)]
struct Memory {
    /// By id: the name that was asked for, and who said that it is made, and when.
    users: BTreeMap<String, (String, Told)>,
    deleted: BTreeMap<String, Told>,
    /// Those that somebody tried to delete.
    ends: BTreeSet<String>,
    /// By user and field: every value that was sent, and whether it is known to be stored.
    changes: BTreeMap<(String, &'static str), Vec<Sent>>,
    /// By token id: its text.
    tokens: BTreeMap<String, (String, Told)>,
    revoked: BTreeMap<String, Told>,
    /// The first administrators, by id.
    first: Vec<String>,
    demoted: BTreeMap<String, Told>,
    /// Whether some request broke off, so that more may have been done than is known.
    uncertain: bool,
}

/// A value that was sent, and who has said that it is stored.
type Sent = (String, Option<Told>);

/// What administrators do while the run lasts; gives what they remember of it.
pub(super) struct Administrators<R> {
    reach: R,
    scenario: Arc<Scenario>,
    memory: Shared<Memory>,
    findings: Shared<Findings>,
}

impl<R: Reach> Administrators<R> {
    pub(super) fn new(reach: &R, scenario: &Arc<Scenario>, findings: &Shared<Findings>) -> Self {
        let (reach, scenario, findings) = (reach.clone(), scenario.clone(), findings.clone());
        Self { reach, scenario, memory: Shared::new(Memory::default()), findings }
    }

    fn accuse(&self, node: usize, detail: String) {
        self.findings.get().accuse(Invariant::Accounts, self.reach.now(), node, detail);
    }

    /// Does all that they do.
    pub(super) async fn work(&self) {
        let mut draw = Draw::new(self.scenario.seed, "administrators");
        let node = draw.index(self.scenario.nodes.len());
        for name in FIRST {
            if !self.begin(node, name).await {
                return;
            }
        }
        let (begin, quiet) = (self.reach.now(), self.scenario.quiet_at());
        let left_us = u64::try_from(quiet.since(begin).as_micros()).unwrap_or(u64::MAX);
        let mut times: Vec<u64> = (0..DEEDS).map(|_| draw.between(0, left_us)).collect();
        times.sort_unstable();
        let mut doing = JoinSet::new();
        for (index, time_us) in times.into_iter().enumerate() {
            tokio::time::sleep((begin + Duration::from_micros(time_us)).since(self.reach.now())).await;
            let (node, kind) = (draw.index(self.scenario.nodes.len()), *draw.pick(&KINDS));
            let draw = Draw::new(self.scenario.seed, &format!("administrators' deed {index}"));
            let one = Self {
                reach: self.reach.clone(),
                scenario: self.scenario.clone(),
                memory: self.memory.clone(),
                findings: self.findings.clone(),
            };
            doing.spawn(async move { one.deed(kind, node, draw).await });
        }
        while let Some(done) = doing.join_next().await {
            joined(done);
        }
    }

    /// Makes one of the first administrators, however often it takes.
    async fn begin(&self, node: usize, name: &str) -> bool {
        let body = json!({"username": name, "password": PASSWORD, "roles": [ADMINISTRATOR]});
        while self.reach.now() < self.scenario.quiet_at() {
            match Request::json("POST", "/api/users", &body).ask(&self.reach, node).await {
                Ok(Answer { status: 201, body, .. }) => {
                    let id = body["user_id"].as_str().unwrap_or_default().to_owned();
                    let mut memory = self.memory.get();
                    let told = Told { node, at: self.reach.now() };
                    memory.users.insert(id.clone(), (name.to_owned(), told));
                    memory.first.push(id);
                    return true;
                }
                // It was made, and the answer was lost.
                Ok(Answer { status: 409, .. }) => self.memory.get().uncertain = true,
                Ok(_) | Err(_) => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
        false
    }

    async fn deed(&self, kind: Kind, node: usize, mut draw: Draw) {
        match kind {
            Kind::Create => self.create(node, draw.pick::<&str>(&NAMES)).await,
            Kind::Change => {
                let Some(id) = self.some_user(&mut draw) else { return };
                let field = *draw.pick(&FIELDS);
                self.change(node, &id, field, &format!("v{}", draw.between(0, 1_000_000))).await;
            }
            Kind::Delete => {
                let Some(id) = self.some_user(&mut draw) else { return };
                self.memory.get().ends.insert(id.clone());
                let told = self.ask(node, Request::json("DELETE", &format!("/api/users/{id}"), &json!({}))).await;
                if told.is_some_and(|answer| answer.status == 200) {
                    self.memory.get().deleted.insert(id, Told { node, at: self.reach.now() });
                }
            }
            Kind::Demote => {
                let first = self.memory.get().first.clone();
                let id = draw.pick(&first).clone();
                let request = Request::json("PUT", &format!("/api/users/{id}"), &json!({"roles": []}));
                if self.ask(node, request).await.is_some_and(|answer| answer.status == 200) {
                    // Who is none any more can be demoted again, by anybody.
                    self.memory.get().demoted.entry(id).or_insert(Told { node, at: self.reach.now() });
                }
            }
            Kind::MakeToken => self.make_token(node).await,
            Kind::UseToken => {
                let Some((id, text)) = self.some_token(&mut draw) else { return };
                let known = self.memory.get().revoked.get(&id).copied();
                let Some(answer) = self.ask(node, Request::get("/api/users/whoami").by(&text)).await else { return };
                let is_known_here = known.filter(|told| told.node == node);
                if answer.status == 200
                    && let Some(told) = is_known_here
                    && !told.is_excused(self.findings.get().losses())
                {
                    self.accuse(node, format!("takes the token {id}, which it has said is revoked"));
                }
            }
            Kind::RevokeToken => {
                let Some((id, _)) = self.some_token(&mut draw) else { return };
                let told = self.ask(node, Request::json("DELETE", &format!("/api/tokens/{id}"), &json!({}))).await;
                if told.is_some_and(|answer| answer.status == 200) {
                    self.memory.get().revoked.insert(id, Told { node, at: self.reach.now() });
                }
            }
        }
    }

    async fn create(&self, node: usize, name: &str) {
        let body = json!({"username": name, "password": PASSWORD});
        let Some(answer) = self.ask(node, Request::json("POST", "/api/users", &body)).await else { return };
        if answer.status == 201 {
            let id = answer.body["user_id"].as_str().unwrap_or_default().to_owned();
            self.memory.get().users.insert(id, (name.to_owned(), Told { node, at: self.reach.now() }));
        }
    }

    async fn change(&self, node: usize, id: &str, field: &'static str, value: &str) {
        let place = {
            let mut memory = self.memory.get();
            let values = memory.changes.entry((id.to_owned(), field)).or_default();
            values.push((value.to_owned(), None));
            values.len() - 1
        };
        let told = self.ask(node, Request::json("PUT", &format!("/api/users/{id}"), &json!({field: value}))).await;
        if told.is_some_and(|answer| answer.status == 200)
            && let Some(values) = self.memory.get().changes.get_mut(&(id.to_owned(), field))
        {
            values[place].1 = Some(Told { node, at: self.reach.now() });
        }
    }

    async fn make_token(&self, node: usize) {
        let login = json!({"email": FIRST[0], "password": PASSWORD});
        let Some(answer) = self.ask(node, Request::json("POST", "/api/auth", &login)).await else { return };
        let Some(session) = answer.body["token"].as_str() else { return };
        let request = Request::json("POST", "/api/tokens", &json!({"name": "t"})).by(session);
        let Some(answer) = self.ask(node, request).await else { return };
        if let (Some(id), Some(text)) = (answer.body["token_id"].as_str(), answer.body["token"].as_str()) {
            let told = Told { node, at: self.reach.now() };
            self.memory.get().tokens.insert(id.to_owned(), (text.to_owned(), told));
        }
    }

    async fn ask(&self, node: usize, request: Request) -> Option<Answer> {
        let answer = request.ask(&self.reach, node).await.ok();
        if answer.as_ref().is_none_or(|answer| answer.status >= 500) {
            self.memory.get().uncertain = true;
        }
        answer
    }

    fn some_user(&self, draw: &mut Draw) -> Option<String> {
        let memory = self.memory.get();
        let ids: Vec<&String> = memory.users.keys().filter(|id| !memory.first.contains(id)).collect();
        (!ids.is_empty()).then(|| (*draw.pick(&ids)).clone())
    }

    fn some_token(&self, draw: &mut Draw) -> Option<(String, String)> {
        let memory = self.memory.get();
        let tokens: Vec<_> = memory.tokens.iter().collect();
        (!tokens.is_empty()).then(|| *draw.pick(&tokens)).map(|(id, (text, _))| (id.clone(), text.clone()))
    }

    /// Holds what all servers show in the end against what was done.
    pub(super) async fn look(&self) {
        let living = living(&self.scenario);
        let Some(shown) = self.agreed(&living).await else { return };
        let losses = self.findings.get().losses().to_vec();
        self.check_users(living[0], &shown, &losses);
        let (tokens, revoked) = {
            let memory = self.memory.get();
            (memory.tokens.clone(), memory.revoked.clone())
        };
        for node in living {
            for (id, (text, _)) in &tokens {
                let Some(told) = revoked.get(id).filter(|told| !told.is_excused(&losses)) else { continue };
                let answer = self.ask(node, Request::get("/api/users/whoami").by(text)).await;
                if answer.is_some_and(|answer| answer.status == 200) {
                    let by = &self.scenario.nodes[told.node].name;
                    self.accuse(node, format!("takes the token {id}, which {by} has said is revoked"));
                }
            }
        }
    }

    /// The users that all servers show, once they show the same.
    async fn agreed(&self, living: &[usize]) -> Option<Vec<Value>> {
        let end = self.reach.now() + AGREE_WITHIN;
        loop {
            let mut shown = BTreeSet::new();
            for node in living {
                let answer = self.ask(*node, Request::get("/api/users")).await;
                let mut users = answer.map(|answer| answer.body["users"].clone()).unwrap_or_default();
                let users = users.as_array_mut().map(std::mem::take).unwrap_or_default();
                shown.insert(Value::Array(users).to_string());
            }
            let users: Option<Vec<Value>> = shown.first().and_then(|shown| serde_json::from_str(shown).ok());
            let named = |users: &Vec<Value>| users.iter().all(|user| !is_waiting(user, users));
            if shown.len() == 1 && users.as_ref().is_some_and(named) {
                return users;
            }
            if self.reach.now() >= end {
                let shown: Vec<String> = shown.into_iter().collect();
                self.accuse(living[0], format!("servers do not agree on users: {}", shown.join(" or ")));
                return None;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn check_users(&self, node: usize, shown: &[Value], losses: &[Loss]) {
        let by_id: BTreeMap<&str, &Value> =
            shown.iter().filter_map(|user| Some((user["user_id"].as_str()?, user))).collect();
        let mut names = BTreeSet::new();
        for user in shown {
            let name = user["username"].as_str().unwrap_or_default().to_lowercase();
            if !names.insert(name.clone()) {
                self.accuse(node, format!("two users are called {name}"));
            }
        }
        let memory = self.memory.get();
        let mut wrong = Vec::new();
        for (id, told) in &memory.deleted {
            if by_id.contains_key(id.as_str()) && !told.is_excused(losses) {
                wrong.push(format!("the user {id} is there, and was deleted"));
            }
        }
        for (id, (name, told)) in &memory.users {
            if memory.deleted.contains_key(id) || told.is_excused(losses) || memory.uncertain {
                continue;
            }
            match by_id.get(id.as_str()).map(|user| user["username"].as_str().unwrap_or_default()) {
                None => wrong.push(format!("the user {name} ({id}) was made, and is not there")),
                Some(called) if called == name || called.starts_with(&format!("{name}~")) => {}
                Some(called) => wrong.push(format!("the user {name} ({id}) is called {called}")),
            }
        }
        for name in NAMES {
            let mut wanted = memory.users.iter().filter(|(_, (asked_for, _))| asked_for == name).peekable();
            // Who had it may have been deleted after another was given another.
            let is_known = wanted.peek().is_some()
                && !wanted.any(|(id, (_, told))| memory.ends.contains(id) || told.is_excused(losses));
            if is_known && !memory.uncertain && !names.contains(name) {
                wrong.push(format!("nobody is called {name}, and some wanted to be"));
            }
        }
        for ((id, field), values) in &memory.changes {
            let Some(user) = by_id.get(id.as_str()) else { continue };
            let value = user[field].as_str().unwrap_or_default();
            if !value.is_empty() && !values.iter().any(|(sent, _)| sent == value) {
                wrong.push(format!("{field} of {id} is {value:?}, which nobody wrote"));
            }
            let kept = |(_, told): &Sent| told.is_some_and(|told| !told.is_excused(losses));
            if value.is_empty() && values.iter().any(kept) {
                wrong.push(format!("{field} of {id} was set, and is not"));
            }
        }
        let administers = |user: &&Value| {
            let roles = user["roles"].as_array().into_iter().flatten();
            user["active"] == true && roles.into_iter().any(|role| role == ADMINISTRATOR)
        };
        let taken: BTreeSet<usize> = memory.demoted.values().map(|told| told.node).collect();
        let is_known = memory.first.len() == FIRST.len() && !memory.uncertain && losses.is_empty();
        // Each of two servers may let one go, where they do not hear of each other; one alone never lets the last go.
        if is_known && taken.len() < 2 && !shown.iter().any(|user| administers(&user)) {
            wrong.push("no administrator is left, and one server alone has let them go".to_owned());
        }
        drop(memory);
        wrong.into_iter().for_each(|detail| self.accuse(node, detail));
    }
}

/// Whether a user's name is one that another has too, so that it is soon given anew.
fn is_waiting(user: &Value, users: &[Value]) -> bool {
    users.iter().filter(|other| other["username"] == user["username"]).count() > 1
}
