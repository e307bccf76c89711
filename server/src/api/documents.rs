//! One document: PUT, GET, PATCH, DELETE, and its history.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete as on_delete, get as on_get, patch as on_patch, put as on_put};
use knot_engine::documents::{CHANGE_DEPS_MAX, DocumentId, Edit, Scope};
use knot_engine::membership::{MEMBERS_MAX, Status};
use knot_engine::{ChangeHash, EditRequest, Edited, Etag, HistoryEntry, Precondition, ReadError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::{ApiError, Form};
use super::operation::{self as op, Needs, Operation};
use super::path::{Resource, resource};
use super::query::{self, ChangesQuery, EditQuery, ListQuery, NoQuery, ReadQuery};
use super::{Api, REPLICAS_TIMEOUT_DEFAULT, REPLICAS_TIMEOUT_MAX, Shared, body, changes, etag, list};
use crate::accounts::Permission;
use crate::simulated::Defect;

const TAG: &str = "Documents";

pub(super) fn operations() -> Vec<Operation> {
    const C: Needs = Needs::Collection;
    let mut operations = vec![
        op::get("/api/changes", TAG, "Follow changes, as server-sent events", READS, || on_get(changes::changes))
            .query::<ChangesQuery>()
            .gives_as::<String>("text/event-stream"),
    ];
    let paths = [
        ("/api/documents/{collection}", "/api/documents/{collection}/{key}"),
        ("/api/zones/{zone}/documents/{collection}", "/api/zones/{zone}/documents/{collection}/{key}"),
    ];
    for (collection, document) in paths {
        operations.extend([
            op::get(collection, TAG, "List a collection", C, || on_get(list::list))
                .query::<ListQuery>()
                .gives::<list::Listed>(),
            op::get(document, TAG, "Read a document, or its history", C, || on_get(get))
                .query::<ReadQuery>()
                .gives::<Map<String, Value>>()
                .also(304),
            op::put(document, TAG, "Make a document equal this", C, || on_put(put))
                .query::<EditQuery>()
                .takes::<Map<String, Value>>()
                .gives::<EditAnswer>()
                .also(201)
                .also(202),
            op::patch(document, TAG, "Change a document", C, || on_patch(patch))
                .query::<EditQuery>()
                .takes_as::<Map<String, Value>>("application/merge-patch+json")
                .takes_as::<Vec<Map<String, Value>>>("application/json-patch+json")
                .takes_as::<Increment>("application/vnd.knot.increment+json")
                .gives::<EditAnswer>()
                .also(201)
                .also(202),
            op::delete(document, TAG, "Delete a document", C, || on_delete(delete))
                .query::<EditQuery>()
                .gives::<EditAnswer>()
                .also(202),
        ]);
    }
    operations
}

/// Who may follow changes at all: of what, is asked of each.
const READS: Needs = Needs::OneOf(&[Permission::ReadDocuments, Permission::ManageCluster]);

/// The body of an increment.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Increment {
    pointer: String,
    by: i64,
}

/// An edit's answer.
#[derive(Serialize, JsonSchema)]
struct EditAnswer {
    etag: String,
    created: bool,
    changed: bool,
    held_by: usize,
}

/// A document's history.
#[derive(Serialize)]
struct History {
    data: Vec<HistoryEntry>,
}

pub(super) async fn put(State(api): State<Shared>, request: Request) -> Result<Response, ApiError> {
    edit(&api, request, async |api, headers, body| Ok(Edit::Put(body::json(api, headers, body).await?))).await
}

pub(super) async fn patch(State(api): State<Shared>, request: Request) -> Result<Response, ApiError> {
    edit(&api, request, async |api, headers, body| {
        let kind = Patch::of(headers).ok_or(Form::PatchType)?;
        let value = body::json(api, headers, body).await?;
        Ok(match kind {
            Patch::Merge => Edit::MergePatch(value),
            Patch::Json => Edit::JsonPatch(value),
            Patch::Increment => {
                let Ok(Increment { pointer, by }) = serde_json::from_value(value) else {
                    return Err(Form::BadBody("send {\"pointer\": \"/visits\", \"by\": 1}, with a whole number").into());
                };
                Edit::Increment { pointer, by }
            }
        })
    })
    .await
}

pub(super) async fn delete(State(api): State<Shared>, request: Request) -> Result<Response, ApiError> {
    edit(&api, request, async |_, _, _| Ok(Edit::Delete)).await
}

pub(super) async fn get(State(api): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    match resource(uri.path())? {
        Resource::Document(id) => read(&api, id, &uri, &headers).await,
        Resource::History(id) => history(&api, id, &uri).await,
    }
}

async fn edit(
    api: &Api,
    request: Request,
    form: impl AsyncFnOnce(&Api, &HeaderMap, Body) -> Result<Edit, ApiError>,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let Resource::Document(document) = resource(parts.uri.path())? else {
        return Err(ApiError::HistoryIsReadOnly);
    };
    ensure_held(api, document.scope()).await?;
    let (replicas, timeout) = durability(query::parse(&parts.uri)?)?;
    let precondition = match etag::precondition(&parts.headers)? {
        _ if parts.method == Method::PATCH && api.accounts.has(Defect::ConditionUnchecked) => Precondition::default(),
        precondition => precondition,
    };
    let edit = form(api, &parts.headers, body).await?;
    let request = EditRequest { document, edit, precondition, replicas, timeout };
    Ok(edited(api.handle.edit(request).await??))
}

fn durability(query: EditQuery) -> Result<(usize, Duration), ApiError> {
    let replicas = query.w.unwrap_or(0);
    if replicas > MEMBERS_MAX {
        return Err(Form::BadQuery(format!("w is over {MEMBERS_MAX}")).into());
    }
    let timeout = query.timeout.map_or(REPLICAS_TIMEOUT_DEFAULT, Duration::from_millis);
    if timeout > REPLICAS_TIMEOUT_MAX {
        return Err(Form::BadQuery(format!("timeout is over {} ms", REPLICAS_TIMEOUT_MAX.as_millis())).into());
    }
    Ok((replicas, timeout))
}

fn edited(edited: Edited) -> Response {
    let status = if !edited.replicated {
        StatusCode::ACCEPTED
    } else if edited.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let answer = EditAnswer {
        etag: edited.etag.to_string(),
        created: edited.created,
        changed: edited.changed,
        held_by: edited.held_by,
    };
    (status, [(header::ETAG, etag::header(edited.etag))], axum::Json(answer)).into_response()
}

async fn read(api: &Api, id: DocumentId, uri: &Uri, headers: &HeaderMap) -> Result<Response, ApiError> {
    let ReadQuery { conflicts, at } = query::parse(uri)?;
    ensure_held(api, id.scope()).await?;
    if let Some(at) = at {
        if conflicts {
            return Err(Form::BadQuery("of an earlier version no conflicts are told".to_owned()).into());
        }
        let heads = heads(api, &id, &at).await?;
        let view = api.handle.version(id, heads).await??;
        return if view.deleted { Err(ApiError::GoneThen) } else { Ok(axum::Json(view.value).into_response()) };
    }
    let condition = etag::precondition(headers)?;
    if condition.if_none_match.is_some()
        && let Some(present) = present_state(api, &id).await?
        && let Some(response) = not_modified(&condition, present)
    {
        return Ok(response);
    }
    let view = match api.handle.read(id, conflicts).await? {
        Err(ReadError::NotFound) if condition.if_match.is_some() => {
            return Err(ApiError::Edit(knot_engine::EditError::Precondition { current: None }));
        }
        answer => answer?,
    };
    let present = view.summary.etag;
    if condition.if_match.as_ref().is_some_and(|tags| !etag::matches(tags, present)) {
        return Err(ApiError::NotAsExpected(present));
    }
    if let Some(response) = not_modified(&condition, present) {
        return Ok(response);
    }
    let body = if conflicts {
        json!({"value": view.value, "conflicts": view.conflicts, "revived": view.summary.revived})
    } else {
        view.value
    };
    Ok(([(header::ETAG, etag::header(present))], axum::Json(body)).into_response())
}

/// The changes that `at` names by their hashes, or by how those begin.
pub(crate) async fn heads(api: &Api, id: &DocumentId, at: &str) -> Result<Vec<ChangeHash>, ApiError> {
    const FORM: Form = Form::BadAt("a version is named by its hash, or by at least the first four digits of that");
    const SEVERAL: Form = Form::BadAt("several changes of the document have a hash that begins so: send more of it");
    let names: Vec<String> = at.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    let is_name = |name: &String| name.len() >= 4 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if names.len() > CHANGE_DEPS_MAX || !names.iter().all(is_name) {
        return Err(FORM.into());
    }
    if let Ok(heads) = names.iter().map(|name| name.parse()).collect::<Result<Vec<ChangeHash>, _>>() {
        return Ok(heads);
    }
    let history = api.handle.history(id.clone()).await??;
    let meant = |name: &String| {
        let mut found = history.iter().filter(|change| change.hash.starts_with(name));
        match (found.next(), found.next()) {
            (Some(one), None) => one.hash.parse().map_err(|_| FORM.into()),
            (None, _) => Err(ReadError::NoVersion.into()),
            (Some(_), Some(_)) => Err(SEVERAL.into()),
        }
    };
    names.iter().map(meant).collect()
}

/// The state of an existing document, from the index: an answer of 304 need not open the document.
async fn present_state(api: &Api, id: &DocumentId) -> Result<Option<Etag>, ApiError> {
    let id = id.clone();
    let summary = api.handle.look(move |engine, _| engine.summary(&id)).await?;
    Ok(summary.filter(|summary| !summary.deleted).map(|summary| summary.etag))
}

fn not_modified(condition: &Precondition, present: Etag) -> Option<Response> {
    let tags = condition.if_none_match.as_ref()?;
    let same = etag::matches(tags, present);
    same.then(|| (StatusCode::NOT_MODIFIED, [(header::ETAG, etag::header(present))]).into_response())
}

async fn history(api: &Api, id: DocumentId, uri: &Uri) -> Result<Response, ApiError> {
    let NoQuery {} = query::parse(uri)?;
    ensure_held(api, id.scope()).await?;
    let data = api.handle.history(id).await??;
    Ok(axum::Json(History { data }).into_response())
}

/// Refuses a scope that this server does not hold, naming servers that do.
pub(crate) async fn ensure_held(api: &Api, scope: &Scope) -> Result<(), ApiError> {
    if scope.is_held_in(&api.zone) {
        return Ok(());
    }
    let Scope::Zone(zone) = scope else { return Ok(()) };
    let zone = zone.to_string();
    let inside = zone.clone();
    let urls = api
        .handle
        .look(move |engine, _| {
            engine
                .members()
                .filter(|member| member.status == Status::Alive && member.record.zone == inside)
                .map(|member| member.record.url.clone())
                .filter(|url| !url.is_empty())
                .collect()
        })
        .await?;
    Err(ApiError::Misdirected { zone, urls })
}

/// What a PATCH body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patch {
    Merge,
    Json,
    Increment,
}

impl Patch {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str)?.ok()?;
        let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/merge-patch+json" => Some(Self::Merge),
            "application/json-patch+json" => Some(Self::Json),
            "application/vnd.knot.increment+json" => Some(Self::Increment),
            _ => None,
        }
    }
}
