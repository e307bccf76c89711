//! Clients that read a document and edit what they have read, over HTTP, and what must come of it.
//!
//! They do as those of engines alone, and what they find goes to the same checkers: an answer becomes what an engine
//! would have said, and histories tell in the end which state each change was made of.

use std::sync::Arc;

use knot_engine::documents::{Conflict, ConflictValue, EditRefused};
use knot_engine::{ChangeHash, EditError, Edited, Etag, Instant};
use serde_json::Value;

use super::Reach;
use super::clients::{Findings, shown};
use super::report::set_back;
use super::request::{Answer, Request, path};
use crate::checker::{Checkers, Invariant, Past, Seen, Shown};
use crate::edits::{self, Base, Drawn};
use crate::ledger::Outcome;
use crate::scenario::{DocumentKind, Scenario, Target};
use crate::shared::Shared;

/// A document's history: each change with what it says of those before it.
pub(super) type History = Vec<(ChangeHash, Past)>;

/// What a client asked for who had read this.
#[derive(Clone, Debug)]
pub(super) struct Patch {
    base: Base,
    drawn: Drawn,
}

/// What a server showed of a document that is edited so.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    node: usize,
    target: Target,
    asked: Instant,
    at: Instant,
    seen: Seen,
}

/// Does one operation: reads, edits what was read, and reads again. A server that does not say what the document is, is
/// asked for nothing more.
pub(super) async fn edit<R: Reach>(reach: R, scenario: Arc<Scenario>, findings: Shared<Findings>, index: usize) {
    let operation = &scenario.operations[index];
    let (node, target) = (operation.node, &operation.target);
    let base = match look(&reach, node, target, &findings).await {
        Some(Seen { etag: Some(etag), value: Some(value), .. }) => Base::Present(etag, value),
        Some(Seen { etag: Some(etag), .. }) => Base::Deleted(etag),
        Some(_) => Base::Nothing,
        None => return,
    };
    let drawn = edits::of_operation(&scenario, operation, &base, DocumentKind::Automerge);
    let request = Request::edit(target, drawn.request(operation));
    {
        let mut findings = findings.get();
        findings.answers.insert(index, (reach.now(), None));
        findings.patches.insert(index, Patch { base, drawn });
    }
    if let Ok(answer) = request.ask(&reach, node).await
        && let Some((_, reply)) = findings.get().answers.get_mut(&index)
    {
        *reply = Some((reach.now(), answer));
    }
    // What has just been edited is read at once.
    look(&reach, node, target, &findings).await;
}

async fn look<R: Reach>(reach: &R, node: usize, target: &Target, findings: &Shared<Findings>) -> Option<Seen> {
    let asked = reach.now();
    let seen = see(reach, node, target).await.ok()?;
    let sight = Sight { node, target: target.clone(), asked, at: reach.now(), seen: seen.clone() };
    findings.get().sights.push(sight);
    Some(seen)
}

/// What a server shows of a document, its conflicts too.
pub(super) async fn see<R: Reach>(reach: &R, node: usize, target: &Target) -> Result<Seen, String> {
    let request = Request::get(&format!("{}?conflicts=true", path(target)));
    let answer = request.ask(reach, node).await.map_err(|error| error.to_string())?;
    if answer.status != 200 {
        return shown(answer);
    }
    let body = answer.body.clone();
    let (Some(conflicts), Some(revived)) = (conflicts(&body["conflicts"]), body["revived"].as_bool()) else {
        return Err(format!("{body} is no value with its conflicts"));
    };
    Ok(Seen { conflicts, revived, ..shown(Answer { body: body["value"].clone(), ..answer })? })
}

fn conflicts(said: &Value) -> Option<Vec<Conflict>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let held = |held: &Value| Some(ConflictValue { value: held.get("value")?.clone(), node: text(&held["node"])? });
    let one = |one: &Value| {
        let values = one["values"].as_array()?.iter().map(held).collect::<Option<_>>()?;
        Some(Conflict { pointer: text(&one["pointer"])?, values })
    };
    said.as_array()?.iter().map(one).collect()
}

/// A document's history on a server.
pub(super) async fn history<R: Reach>(reach: &R, node: usize, target: &Target) -> Result<History, String> {
    let request = Request::get(&format!("{}/history", path(target)));
    let answer = request.ask(reach, node).await.map_err(|error| error.to_string())?;
    match answer.status {
        200 => changes(&answer.body).ok_or_else(|| format!("{} is no history", answer.body)),
        404 => Ok(History::new()),
        status => Err(format!("{status} {}", answer.body)),
    }
}

fn changes(history: &Value) -> Option<History> {
    let hash = |value: &Value| value.as_str()?.parse().ok();
    let change = |change: &Value| {
        let deps = change["deps"].as_array()?.iter().map(hash).collect::<Option<_>>()?;
        Some((hash(&change["hash"])?, Past { deps, is_delete: change["kind"] == "delete" }))
    };
    history["data"].as_array()?.iter().map(change).collect()
}

/// Holds what came of all edits against what had to.
pub(super) fn check(scenario: &Scenario, findings: &Findings, checkers: &mut Checkers) {
    for (index, patch) in &findings.patches {
        let Some((asked, reply)) = findings.answers.get(index) else { continue };
        let operation = &scenario.operations[*index];
        let (node, id) = (operation.node, operation.id);
        checkers.watch_edits(&operation.target);
        checkers.ask_edit(id, patch.base.clone(), patch.drawn.clone(), DocumentKind::Automerge);
        let Some((at, answer)) = reply else { continue };
        match answered(answer) {
            Ok(Some(said)) => {
                checkers.check_edit(node, id, &said, *at);
                if let (Ok(Edited { changed: true, .. }), Base::Present(etag, _)) = (said, &patch.base) {
                    check_gone(findings, checkers, (node, *etag), (*asked, *at));
                }
            }
            Ok(None) => {}
            Err(why) => checkers.report(Invariant::EditedAsAsked, *at, node, || why),
        }
    }
    for Sight { node, target, at, seen, .. } in &findings.sights {
        let Some(etag) = seen.etag else { continue };
        let value = seen.value.as_ref();
        let conflicts = value.is_some().then_some(&seen.conflicts[..]);
        checkers.check_state(
            *node,
            target,
            Shown { etag, value, revived: value.map(|_| seen.revived), conflicts },
            *at,
        );
    }
}

/// The state that an edit was made of is not what its server shows from then on, unless its disk was set back.
fn check_gone(
    findings: &Findings,
    checkers: &mut Checkers,
    (node, etag): (usize, Etag),
    (asked, done): (Instant, Instant),
) {
    let again = findings.sights.iter().find(|sight| {
        let is_later = sight.node == node && sight.asked >= done && set_back(&findings.losses, node, sight.at) < asked;
        is_later && sight.seen.etag == Some(etag)
    });
    if let Some(Sight { target, at, .. }) = again {
        checkers.report(Invariant::ReadsOwnWrites, *at, node, || {
            format!("{} is at {etag} again, of which an edit was made until {done}", target.id())
        });
    }
}

/// Tells of every write that made a change to a document that is edited so, and of the changes that servers show.
pub(super) fn tell(scenario: &Scenario, findings: &Findings, checkers: &mut Checkers) {
    for (target, histories) in &findings.histories {
        histories.iter().for_each(|(_, history)| checkers.tell_of_changes(target, history));
    }
    for (index, (_, reply)) in &findings.answers {
        let operation = &scenario.operations[*index];
        if let Some((at, answer)) = reply
            && let Outcome::Acknowledged { changed: true, .. } = outcome(*at, answer)
            && let Some(Ok(etag)) = answer.body["etag"].as_str().map(str::parse)
        {
            checkers.tell_of_write(operation.id, etag);
        }
    }
}

/// What an answer to a write says of it.
pub(super) fn outcome(at: Instant, answer: &Answer) -> Outcome {
    match answer.status {
        200..300 => Outcome::Acknowledged { at, changed: answer.body["changed"] != false },
        status if says_not_made(status) => Outcome::Refused(format!("{status} {}", answer.body["error"])),
        // A server that stops, or whose storage has failed, does not know.
        _ => Outcome::Unknown,
    }
}

/// Whether an answer promises that a write was not made, as docs/http-api.md has it.
fn says_not_made(status: u16) -> bool {
    const NO_ROOM: u16 = 507;
    (400..500).contains(&status) || status == NO_ROOM
}

/// What an engine would have said; none where it is not about the edit.
fn answered(answer: &Answer) -> Result<Option<Result<Edited, EditError>>, String> {
    let Answer { status, body, .. } = answer;
    let error = match status {
        200..300 => return made(answer).map(|edited| Some(Ok(edited))).ok_or_else(|| format!("{status} {body}")),
        404 => EditError::NotFound,
        410 => EditError::Gone,
        412 => {
            let current = body["etag"].as_str().map(str::parse).transpose();
            EditError::Precondition { current: current.map_err(|_| format!("{status} {body}"))? }
        }
        400 | 409 => EditError::Refused(
            refusal(body["error"].as_str().unwrap_or_default())
                .ok_or_else(|| format!("an edit is refused for what it cannot be: {status} {body}"))?,
        ),
        _ => return Ok(None),
    };
    Ok(Some(Err(error)))
}

fn made(answer: &Answer) -> Option<Edited> {
    let Answer { status, etag, body } = answer;
    let said = body["etag"].as_str()?;
    let edited = Edited {
        etag: said.parse().ok()?,
        created: body["created"].as_bool()?,
        changed: body["changed"].as_bool()?,
        held_by: usize::try_from(body["held_by"].as_u64()?).ok()?,
        replicated: *status != 202,
    };
    let is_alike =
        etag.as_deref() == Some(&format!("\"{said}\"")) && (*status == 202 || edited.created == (*status == 201));
    is_alike.then_some(edited)
}

/// The refusal that an engine words so.
fn refusal(text: &str) -> Option<EditRefused> {
    let begins = |with: &str| text.strip_prefix(with).map(str::to_owned);
    let same = |refused: &EditRefused| refused.to_string() == text;
    let tested = || {
        let operation = text.strip_prefix("JSON Patch: the test at operation ")?.strip_suffix(" failed")?;
        operation.parse().ok().map(EditRefused::PatchTest)
    };
    [EditRefused::TooDeep, EditRefused::TooManyNodes, EditRefused::TooLarge]
        .into_iter()
        .find(same)
        .or_else(tested)
        .or_else(|| begins("JSON Patch: ").map(EditRefused::Patch))
        .or_else(|| begins("cannot increment: ").map(EditRefused::Increment))
        .or_else(|| begins("number out of range at ").map(EditRefused::Number))
        .or_else(|| begins("a document is a JSON object, not ").map(|_| EditRefused::NotAnObject("this")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_engine_words_is_understood() {
        let all = [
            EditRefused::NotAnObject("this"),
            EditRefused::TooDeep,
            EditRefused::TooManyNodes,
            EditRefused::TooLarge,
            EditRefused::Patch("no such path".to_owned()),
            EditRefused::PatchTest(3),
            EditRefused::Increment("it is no number".to_owned()),
            EditRefused::Number("/a".to_owned()),
        ];
        for refused in all {
            assert_eq!(refusal(&refused.to_string()), Some(refused));
        }
        assert_eq!(refusal("the body is not JSON"), None);
    }

    #[test]
    fn an_answer_says_the_same_in_its_status_its_header_and_its_body() {
        let etag = Etag([0xab; 16]);
        let body = json!({ "etag": etag.to_string(), "created": true, "changed": true, "held_by": 0 });
        let answer = |status, tag: Etag| Answer { status, etag: Some(format!("\"{tag}\"")), body: body.clone() };
        assert!(answered(&answer(201, etag)).unwrap().unwrap().is_ok());
        assert!(answered(&answer(202, etag)).unwrap().unwrap().is_ok());
        assert!(answered(&answer(200, etag)).is_err(), "it was created");
        assert!(answered(&answer(201, Etag([0; 16]))).is_err(), "it is in another state");
    }
}
