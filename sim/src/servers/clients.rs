//! Clients: they ask for what the scenario says, wait until all servers are alike, and compare what each shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use knot_engine::{Etag, Instant};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::administrators::Administrators;
use super::doubles::{Fenced, Watcher};
use super::operator::Operator;
use super::patches::{self, History, Patch, Sight};
use super::request::{Answer, Request, path};
use super::tenants::Tenants;
use super::yard::Yard;
use super::{Reach, joined, living};
use crate::checker::{Invariant, Seen, Violation, settle_bound};
use crate::scenario::{Action, Scenario, Target};
use crate::shared::Shared;

/// How often it is seen whether the cluster has settled.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long after the last fault a server may take to start again.
const STARTS_WITHIN: Duration = Duration::from_secs(3);
/// Requests under way at once when all is compared.
const REQUESTS_AT_ONCE: usize = 64;
/// How often a document is asked for then, of a server that is well.
const TRIES: u32 = 5;
/// Between two of these.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// What is known of a run from outside.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// By the operation's place: when it was asked, and the answer, if one came.
    pub(super) answers: BTreeMap<usize, (Instant, Option<(Instant, Answer)>)>,
    /// How long after the faults all were alike; else how they still differed.
    pub(super) settled: Option<Result<Duration, String>>,
    /// What each server shows of each document.
    pub(super) seen: BTreeMap<Target, Vec<(usize, Seen)>>,
    /// Edits of what was read, by the operation's place.
    pub(super) patches: BTreeMap<usize, Patch>,
    /// What servers showed of documents that are edited so.
    pub(super) sights: Vec<Sight>,
    /// The histories of these documents in the end, by server.
    pub(super) histories: BTreeMap<Target, Vec<(usize, History)>>,
    /// What went wrong on a machine.
    pub(super) accusations: Vec<Violation>,
    /// What was taken from disks.
    pub(super) losses: Vec<Loss>,
    /// Who says now that it has stepped back.
    pub(crate) stepped_back: BTreeSet<usize>,
    /// Who has said so, and when.
    pub(super) fenced: Vec<Fenced>,
    /// Nothing more is to be learned.
    pub(crate) is_over: bool,
}

/// A disk has lost what was acknowledged from one moment until another: its server may show that no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) node: usize,
    pub(crate) since: Instant,
    pub(crate) until: Instant,
}

/// Who said that something is done, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) node: usize,
    pub(super) at: Instant,
}

impl Told {
    /// Whether its disk has lost it since, by a fault.
    pub(super) fn is_excused(self, losses: &[Loss]) -> bool {
        losses.iter().any(|loss| loss.node == self.node && loss.since <= self.at && self.at <= loss.until)
    }
}

impl Findings {
    /// What was taken from disks until now.
    pub(crate) fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// A disk has lost something, by a fault.
    pub(crate) fn lose(&mut self, loss: Loss) {
        self.losses.push(loss);
    }

    /// Something is wrong on a server's machine.
    pub(crate) fn accuse(&mut self, invariant: Invariant, at: Instant, node: usize, detail: String) {
        self.accusations.push(Violation { invariant, at_us: at.as_micros(), node, detail });
    }

    /// The same where that would be done again and again: the run ends with it.
    pub(crate) fn end_with(&mut self, invariant: Invariant, at: Instant, node: usize, detail: String) {
        self.accuse(invariant, at, node, detail);
        self.is_over = true;
    }
}

/// Does all that clients do in a run, and those beside them who look after servers. Spaces there are where there is a yard for them to run
/// in.
pub(crate) async fn clients<R: Reach>(
    reach: R,
    scenario: Arc<Scenario>,
    findings: Shared<Findings>,
    yard: Option<Shared<Yard>>,
) {
    // What only those hold who never come back is in nobody's hands.
    let living = living(&scenario);
    for node in (0..scenario.nodes.len()).filter(|node| !living.contains(node)) {
        findings.get().lose(Loss { node, since: Instant::ZERO, until: Instant::from_micros(u64::MAX) });
    }
    let operator = Operator::new(&reach, &scenario, &findings);
    let watcher = Watcher::new(&reach, &scenario, &findings);
    tokio::select! {
        biased;
        never = operator.work() => match never {},
        never = watcher.work() => match never {},
        () = ask_and_look(reach, scenario, findings, yard) => {}
    }
}

async fn ask_and_look<R: Reach>(
    reach: R,
    scenario: Arc<Scenario>,
    findings: Shared<Findings>,
    yard: Option<Shared<Yard>>,
) {
    let yard = yard.filter(|_| scenario.tenants);
    let tenants = yard.map(|yard| Tenants::new(&reach, &scenario, &findings, &yard));
    let administrators = scenario.administrators.then(|| Arc::new(Administrators::new(&reach, &scenario, &findings)));
    let mut asking = JoinSet::new();
    if let Some(administrators) = administrators.clone() {
        asking.spawn(async move { administrators.work().await });
    }
    if let Some(tenants) = tenants.clone() {
        asking.spawn(async move { tenants.work().await });
    }
    for (index, operation) in scenario.operations.iter().enumerate() {
        let at = Instant::from_micros(operation.at_us);
        tokio::time::sleep(at.since(reach.now())).await;
        let (reach, findings) = (reach.clone(), findings.clone());
        if operation.action == Action::Patch {
            asking.spawn(patches::edit(reach, scenario.clone(), findings, index));
            continue;
        }
        let (node, request) = (operation.node, Request::of(operation));
        findings.get().answers.insert(index, (reach.now(), None));
        asking.spawn(async move {
            if let Ok(answer) = request.ask(&reach, node).await
                && let Some((_, reply)) = findings.get().answers.get_mut(&index)
            {
                *reply = Some((reach.now(), answer));
            }
        });
    }
    while let Some(asked) = asking.join_next().await {
        joined(asked);
    }
    let quiet = scenario.quiet_at();
    tokio::time::sleep((quiet + STARTS_WITHIN).since(reach.now())).await;
    let settled = settle(&reach, &scenario, quiet).await;
    let is_settled = settled.is_ok();
    findings.get().settled = Some(settled);
    if is_settled {
        let seen = look(&reach, &scenario, &findings).await;
        findings.get().seen = seen;
        if let Some(administrators) = administrators {
            administrators.look().await;
        }
        if let Some(tenants) = tenants {
            tenants.look().await;
        }
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
    let mut scopes = Vec::new();
    for node in living {
        let name = scenario.nodes[node].name.as_str();
        let one = match stand(reach, node).await {
            Ok(stand) => stand,
            Err(why) => return Some(format!("{name} {why}")),
        };
        let alive: BTreeSet<&str> = one.alive.iter().map(String::as_str).collect();
        // Nobody says how the others are to be seen, where only a core is healed.
        if if scenario.core.is_empty() { alive != names } else { !names.is_subset(&alive) } {
            return Some(format!("{name} sees {alive:?} alive"));
        }
        scopes.push((node, one.scopes));
    }
    let labels: BTreeSet<&String> = scopes.iter().flat_map(|(_, scopes)| scopes.keys()).collect();
    labels.into_iter().find_map(|label| {
        let zone = label.strip_prefix("zone:");
        let holders = scopes.iter().filter(|(node, _)| zone.is_none_or(|zone| scenario.nodes[*node].zone == zone));
        let mut held = holders.map(|(node, scopes)| (&scenario.nodes[*node].name, scopes.get(label)));
        let (first, known) = held.next()?;
        let (name, other) = held.find(|(_, other)| *other != known)?;
        let said = |scope: Option<&Value>| scope.map_or_else(|| format!("nothing in {label}"), Value::to_string);
        Some(format!("{name} has {} and {first} has {}", said(other), said(known)))
    })
}

/// What a server says of its cluster and of itself.
#[derive(Debug, PartialEq)]
struct Stand {
    /// Names of those that it sees alive.
    alive: Vec<String>,
    /// What it holds, by scope. Where it holds nothing, a server may name the scope or not.
    scopes: BTreeMap<String, Value>,
}

async fn stand<R: Reach>(reach: &R, node: usize) -> Result<Stand, String> {
    let ask = async |path| match Request::get(path).ask(reach, node).await {
        Ok(Answer { status: 200, body, .. }) => Ok(body),
        Ok(Answer { status, body, .. }) => Err(format!("answers {path} with {status} {body}")),
        Err(error) => Err(format!("does not answer {path}: {error}")),
    };
    let (members, status) = (ask("/api/cluster?status=alive").await?, ask("/api/cluster/status").await?);
    let without = |what: &str, body: &Value| format!("says {body}, without {what}");
    Ok(Stand {
        alive: alive(&members).ok_or_else(|| without("the names of members", &members))?,
        scopes: scopes(&status).ok_or_else(|| without("what it holds", &status))?,
    })
}

fn alive(members: &Value) -> Option<Vec<String>> {
    members["data"].as_array()?.iter().map(|member| Some(member["name"].as_str()?.to_owned())).collect()
}

fn scopes(status: &Value) -> Option<BTreeMap<String, Value>> {
    let mut held = BTreeMap::new();
    for scope in status["scopes"].as_array()? {
        if scope["documents"].as_u64()? + scope["deleted"].as_u64()? > 0 {
            held.insert(scope["scope"].as_str()?.to_owned(), scope.clone());
        }
    }
    Some(held)
}

/// Reads every document that was asked for on every server that holds it, with its history where clients edited what they
/// had read. What cannot be read breaks a promise: all has settled, so that a server that does not answer now is not well.
async fn look<R: Reach>(
    reach: &R,
    scenario: &Scenario,
    findings: &Shared<Findings>,
) -> BTreeMap<Target, Vec<(usize, Seen)>> {
    let target = |index: &usize| scenario.operations[*index].target.clone();
    let (asked, edited): (BTreeSet<Target>, BTreeSet<Target>) = {
        let findings = findings.get();
        (findings.answers.keys().map(target).collect(), findings.patches.keys().map(target).collect())
    };
    let living = living(scenario);
    let room = Arc::new(Semaphore::new(REQUESTS_AT_ONCE));
    let mut looking = JoinSet::new();
    for (target, node) in asked.iter().flat_map(|target| living.iter().map(move |node| (target, *node))) {
        if !target.is_held_in(&scenario.nodes[node].zone) {
            continue;
        }
        let (room, target, reach) = (room.clone(), target.clone(), reach.clone());
        let is_edited = edited.contains(&target);
        looking.spawn(async move {
            let _room = room.acquire().await;
            let shown = show(&reach, node, &target, is_edited).await;
            (target, node, shown)
        });
    }
    let mut seen: BTreeMap<Target, Vec<(usize, Seen)>> = BTreeMap::new();
    while let Some(looked) = looking.join_next().await {
        match joined(looked) {
            (target, node, Ok((shown, history))) => {
                if let Some(history) = history {
                    findings.get().histories.entry(target.clone()).or_default().push((node, history));
                }
                seen.entry(target).or_default().push((node, shown));
            }
            (target, node, Err(why)) => {
                let detail = format!("{} cannot be read, in {TRIES} tries: {why}", target.id());
                findings.get().accuse(Invariant::Answered, reach.now(), node, detail);
            }
        }
    }
    seen.values_mut().for_each(|replicas| replicas.sort_by_key(|(node, _)| *node));
    findings.get().histories.values_mut().for_each(|replicas| replicas.sort_by_key(|(node, _)| *node));
    seen
}

/// What a server shows of a document, with its history where it is one that clients edited.
async fn show<R: Reach>(
    reach: &R,
    node: usize,
    target: &Target,
    is_edited: bool,
) -> Result<(Seen, Option<History>), String> {
    let mut tries = 0;
    loop {
        let shown = show_once(reach, node, target, is_edited).await;
        tries += 1;
        if shown.is_ok() || tries == TRIES {
            return shown;
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

async fn show_once<R: Reach>(
    reach: &R,
    node: usize,
    target: &Target,
    is_edited: bool,
) -> Result<(Seen, Option<History>), String> {
    if is_edited {
        let seen = patches::see(reach, node, target).await?;
        return Ok((seen, Some(patches::history(reach, node, target).await?)));
    }
    let answer = Request::get(&path(target)).ask(reach, node).await;
    Ok((answer.map_err(|error| error.to_string()).and_then(shown)?, None))
}

/// What an answer says of a document; else that it is none.
pub(super) fn shown(answer: Answer) -> Result<Seen, String> {
    let Answer { status, etag: tag, body } = answer;
    let known = tag.as_deref().and_then(etag);
    match status {
        200 if known.is_some() && body.is_object() => Ok(Seen { etag: known, value: Some(body), ..Seen::default() }),
        410 if known.is_some() => Ok(Seen { etag: known, ..Seen::default() }),
        404 => Ok(Seen::default()),
        _ => Err(format!("{status} {body}, its ETag {tag:?}")),
    }
}

fn etag(text: &str) -> Option<Etag> {
    let hex = text.trim_matches('"');
    let digits = |at: usize| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..16).map(digits).collect();
    Some(Etag(bytes?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(status: u16, etag: Option<&str>, body: Value) -> Answer {
        Answer { status, etag: etag.map(str::to_owned), body }
    }

    #[test]
    fn only_a_server_that_says_so_has_no_document() {
        let tag = format!("\"{}\"", "ab".repeat(16));
        let state = Some(Etag([0xab; 16]));
        let value = json!({ "w1": 1 });
        let here = shown(answer(200, Some(&tag), value.clone())).unwrap();
        assert_eq!((here.etag, here.value), (state, Some(value.clone())));
        assert_eq!(shown(answer(404, None, Value::Null)).unwrap(), Seen::default());
        let deleted = shown(answer(410, Some(&tag), Value::Null)).unwrap();
        assert_eq!((deleted.etag, deleted.value), (state, None));
        for not_read in [
            answer(503, None, Value::Null),
            answer(500, None, Value::Null),
            answer(200, None, value),
            answer(200, Some(&tag), Value::Null),
            answer(410, None, Value::Null),
        ] {
            assert!(shown(not_read.clone()).is_err(), "{not_read:?}");
        }
    }

    #[test]
    fn a_server_says_who_is_alive_and_what_it_holds() {
        assert_eq!(alive(&json!({ "data": [{ "name": "a" }] })), Some(vec!["a".to_owned()]));
        for none in [json!({}), json!({ "data": {} }), json!({ "data": [{}] }), Value::Null] {
            assert_eq!(alive(&none), None, "{none}");
        }
        let scope = |documents: u64| json!({ "scope": "global", "documents": documents, "deleted": 0, "root": "00" });
        let held = scopes(&json!({ "scopes": [scope(1)] })).unwrap();
        assert_eq!(held, BTreeMap::from([("global".to_owned(), scope(1))]));
        assert_eq!(scopes(&json!({ "scopes": [scope(0)] })), Some(BTreeMap::new()), "as if it were not named");
        for none in [json!({}), json!({ "scopes": null }), json!({ "scopes": [{ "scope": "global" }] })] {
            assert_eq!(scopes(&none), None, "{none}");
        }
    }
}
