//! One document: what it says, who has written it, what is in conflict, and changing it.

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use knot_engine::documents::{Conflict, DocumentId, Edit};
use knot_engine::{EditError, EditRequest, Etag, EtagMatch, HistoryEntry, NodeId, Precondition, ReadError};
use serde_json::{Value, json};

use super::{ensure_readable, scope_of, versions, watching};
use crate::accounts::Caller;
use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::path::encode;
use crate::web::form::Fields;
use crate::web::moment::Moment;
use crate::web::page::{Fault, Problem, Shell, show_as};

/// Changes of a history that are shown, the latest.
const SHOWN_MAX: usize = 100;
/// Digits of a hash that people are shown, and that name a change among those of its document.
const SHORT: usize = 12;

/// Where a document is.
pub(super) type Place = (String, String, String);

/// One of several values at one place.
struct Side {
    index: usize,
    text: String,
    by: String,
}

/// A place that holds more than one value.
struct Dispute {
    pointer: String,
    sides: Vec<Side>,
}

/// A change of the document's history.
struct Line {
    at: Moment,
    by: String,
    kind: &'static str,
    bytes: usize,
    /// How it begins.
    short: String,
    hash: String,
    /// The version before, by which changes its author saw.
    before: String,
    quarantine: Option<String>,
}

#[derive(Template)]
#[template(path = "document.html")]
struct Document {
    shell: Shell,
    problem: Option<Problem>,
    scope: String,
    collection: String,
    collection_href: String,
    key: String,
    path: String,
    /// None where it is deleted.
    text: Option<String>,
    /// What is in the editor.
    draft: String,
    /// The state that the editor was opened with.
    opened: String,
    etag: String,
    is_revived: bool,
    changes: u32,
    modified: Moment,
    disputes: Vec<Dispute>,
    lines: Vec<Line>,
    more: usize,
    may_edit: bool,
    is_open: bool,
}

/// Reads what was typed as JSON.
pub(super) fn parse(text: &str) -> Result<Value, Problem> {
    serde_json::from_str(text).map_err(|error| {
        let why = error.to_string();
        Problem::new(&format!("This is not JSON: {why}."), "Nothing was saved; what you have typed is still here.")
    })
}

pub(super) fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

impl Document {
    async fn new(api: &Shared, shell: Shell, by: &Caller, (scope, collection, key): Place) -> Result<Self, ApiError> {
        ensure_readable(by, &collection)?;
        let id = DocumentId::new(scope_of(api, &scope)?, &collection, &key)?;
        let read = match api.handle.read(id.clone(), true).await? {
            Ok(view) => Some(view),
            Err(ReadError::Gone { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let looked = id.clone();
        let summary = api.handle.look(move |engine, _| engine.summary(&looked)).await?;
        let summary = read.as_ref().map(|view| view.summary.clone()).or(summary);
        let summary = summary.ok_or(ReadError::NotFound)?;
        let history = api.handle.history(id).await??;
        let more = history.len().saturating_sub(SHOWN_MAX);
        let names = api.handle.look(|engine, _| {
            engine.members().map(|member| (member.record.node, member.record.name.clone())).collect::<Vec<_>>()
        });
        let names = names.await?;
        let name = |node: &str| {
            let found = node.parse::<NodeId>().ok().and_then(|node| names.iter().find(|(known, _)| *known == node));
            found.map_or_else(|| node.chars().take(8).collect(), |(_, name)| name.clone())
        };
        let now = api.accounts.now();
        let line = |entry: HistoryEntry| Line {
            at: Moment::of(entry.time, now),
            by: name(&entry.node),
            kind: entry.kind,
            bytes: entry.bytes,
            short: entry.hash.chars().take(SHORT).collect(),
            hash: entry.hash,
            before: before(&entry.deps),
            quarantine: entry.quarantine,
        };
        let text = read.as_ref().map(|view| pretty(&view.value));
        let disputes = read.map(|view| view.conflicts).unwrap_or_default();
        let etag = summary.etag.to_string();
        let path = format!("/documents/{scope}/{}/{}", encode(&collection), encode(&key));
        Ok(Self {
            shell: watching(shell, api, &scope, &collection, &key),
            problem: None,
            collection_href: format!("/documents/{scope}/{}", encode(&collection)),
            path,
            draft: text.clone().unwrap_or_else(|| "{\n  \n}".to_owned()),
            text,
            opened: etag.clone(),
            etag,
            is_revived: summary.revived,
            changes: summary.changes,
            modified: Moment::of(summary.modified.0, now),
            disputes: disputes.into_iter().map(|conflict| dispute(conflict, &name)).collect(),
            lines: history.into_iter().rev().take(SHOWN_MAX).map(line).collect(),
            more,
            may_edit: by.may_edit(&collection),
            is_open: false,
            scope,
            collection,
            key,
        })
    }

    /// Whether the document has changed since the editor was opened.
    fn is_stale(&self) -> bool {
        self.opened != self.etag
    }
}

fn dispute(conflict: Conflict, name: &impl Fn(&str) -> String) -> Dispute {
    let side = |(index, value): (usize, knot_engine::documents::ConflictValue)| Side {
        index,
        text: pretty(&value.value),
        by: name(&value.node),
    };
    Dispute { pointer: conflict.pointer, sides: conflict.values.into_iter().enumerate().map(side).collect() }
}

pub(super) async fn read(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(place): Path<Place>,
    uri: Uri,
) -> Result<Response, Fault> {
    let fields = Fields::of(&uri);
    if fields.has("from") && fields.has("to") {
        return versions::compare(&api, shell, &by, place, (fields.text("from"), fields.text("to"))).await;
    }
    let mut page = Document::new(&api, shell, &by, place).await?;
    // An open page tells what its editor was opened with.
    let opened = fields.text("etag");
    if !opened.is_empty() {
        page.opened = opened;
    }
    Ok(show_as(StatusCode::OK, &page))
}

pub(super) async fn change(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(place): Path<Place>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let fields = Fields::read(&api, &headers, body).await?;
    let (scope, collection, key) = place.clone();
    if !by.may_edit(&collection) {
        return Err(ApiError::Forbidden(crate::api::operation::Needs::Collection).into());
    }
    let id = DocumentId::new(scope_of(&api, &scope)?, &collection, &key).map_err(ApiError::from)?;
    let changed = match fields.get("action") {
        "delete" => edit(&api, &id, Edit::Delete, fields.get("etag")).await.map(|_| "document-deleted"),
        "pick" => pick(&api, &id, &fields).await.map(|()| "document-saved"),
        _ => match parse(fields.get("text")) {
            Ok(value) => edit(&api, &id, Edit::Put(value), fields.get("etag")).await.map(|_| "document-saved"),
            Err(problem) => Err(problem),
        },
    };
    match changed {
        Ok(done @ "document-deleted") => {
            Ok(Redirect::to(&format!("/documents/{scope}/{}?done={done}", encode(&collection))).into_response())
        }
        Ok(done) => {
            let to = format!("/documents/{scope}/{}/{}?done={done}", encode(&collection), encode(&key));
            Ok(Redirect::to(&to).into_response())
        }
        Err(problem) => {
            let page = Document::new(&api, shell, &by, place).await?;
            let draft = if fields.has("text") { fields.get("text").replace('\r', "") } else { page.draft.clone() };
            let is_open = fields.has("text");
            Ok(show_as(problem.status, &Document { problem: Some(problem), draft, is_open, ..page }))
        }
    }
}

/// Makes an edit of the document as it was when the page was made.
async fn edit(api: &Shared, id: &DocumentId, edit: Edit, etag: &str) -> Result<Etag, Problem> {
    let expected: Etag = etag.parse().map_err(|_| changed())?;
    let precondition = Precondition { if_match: Some(EtagMatch::OneOf(vec![expected])), ..Precondition::default() };
    let request = EditRequest { precondition, ..EditRequest::new(id.clone(), edit) };
    match api.handle.edit(request).await.map_err(|error| Problem::of(&error.into()))? {
        Ok(edited) => Ok(edited.etag),
        Err(EditError::Precondition { .. }) => Err(changed()),
        Err(error) => Err(Problem::of(&error.into())),
    }
}

fn changed() -> Problem {
    Problem {
        status: StatusCode::PRECONDITION_FAILED,
        error: "The document has changed meanwhile.".to_owned(),
        hint: "Nothing was saved. Look at what it says now; save again to put yours in its place.".to_owned(),
    }
}

/// Ends a conflict. A document that reads as asked already is not written again, so that the value which is shown has to
/// give way for a moment before it can be chosen.
async fn pick(api: &Shared, id: &DocumentId, fields: &Fields) -> Result<(), Problem> {
    let view = api.handle.read(id.clone(), true).await.map_err(|error| Problem::of(&error.into()))?;
    let view = view.map_err(|error| Problem::of(&error.into()))?;
    let conflict = view.conflicts.iter().find(|conflict| conflict.pointer == fields.get("pointer"));
    let index = fields.get("index").parse::<usize>().ok();
    let chosen = conflict.zip(index).and_then(|(conflict, index)| conflict.values.get(index));
    let (Some(conflict), Some(chosen)) = (conflict, chosen) else { return Err(changed()) };
    let replace = |value: &Value| Edit::JsonPatch(json!([{"op": "replace", "path": conflict.pointer, "value": value}]));
    let mut etag = fields.get("etag").to_owned();
    let is_shown = index == Some(0);
    if let Some(other) = conflict.values.iter().find(|other| other.value != chosen.value).filter(|_| is_shown) {
        etag = edit(api, id, replace(&other.value), &etag).await?.to_string();
    }
    edit(api, id, replace(&chosen.value), &etag).await?;
    Ok(())
}

/// The version before a change, as addresses name it: many changes by how their hashes begin, since an address has its
/// bound.
fn before(deps: &[String]) -> String {
    match deps {
        [] => versions::START.to_owned(),
        [one] => one.clone(),
        several => several.iter().map(|hash| hash.get(..SHORT).unwrap_or(hash)).collect::<Vec<_>>().join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_json_is_said_with_its_line() {
        let problem = parse("{\n  \"a\": 1,\n}").unwrap_err();
        assert!(problem.error.contains("line 3"), "{}", problem.error);
        assert_eq!(parse("{\"a\": 1}").unwrap(), json!({"a": 1}));
    }
}
