//! Documents: the collections there are, what is in them, and one document.

mod document;
mod versions;

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use knot_engine::documents::{COLLECTION_BYTES_MAX, DocumentId, Edit, Scope, is_label};
use knot_engine::{EditRequest, EtagMatch, Precondition, Summary};

use super::form::Fields;
use super::moment::Moment;
use super::page::{Fault, Problem, Shell, show, show_as};
use super::{Page, page};
use crate::accounts::{Caller, OWN_COLLECTIONS, Permission};
use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::operation::Needs;
use crate::api::path::encode;

/// Documents of one page.
const PAGE: usize = 100;

pub(super) fn pages() -> Vec<Page> {
    const READS: Needs = Needs::OneOf(&[Permission::ReadDocuments]);
    const EDITS: Needs = Needs::OneOf(&[Permission::EditDocuments]);
    vec![
        page("/documents", READS, || get(collections)),
        page("/documents/new", EDITS, || get(form_new).post(create)),
        page("/documents/{scope}/{collection}", READS, || get(list)),
        page("/documents/{scope}/{collection}/{*key}", READS, || get(document::read).post(document::change)),
    ]
}

/// The scope that a part of an address names: `global`, or `zone` for this server's own.
fn scope_of(api: &Shared, name: &str) -> Result<Scope, ApiError> {
    match name {
        "global" => Ok(Scope::Global),
        "zone" => Ok(Scope::Zone((&*api.zone).into())),
        _ => Err(ApiError::NoRoute),
    }
}

/// Refuses a collection that the caller may not read.
fn ensure_readable(by: &Caller, collection: &str) -> Result<(), ApiError> {
    if by.may_read(collection) { Ok(()) } else { Err(ApiError::Forbidden(Needs::Collection)) }
}

/// What a page that shows documents of a scope watches.
fn watching(shell: Shell, api: &Shared, scope: &str, collection: &str, key: &str) -> Shell {
    let zone = if scope == "zone" { &*api.zone } else { "" };
    shell.watching(&[("watch", "documents"), ("zone", zone), ("collection", collection), ("key", key)])
}

struct Collection {
    href: String,
    name: String,
    count: usize,
}

struct Group {
    title: String,
    help: &'static str,
    collections: Vec<Collection>,
}

#[derive(Template)]
#[template(path = "collections.html")]
struct Collections {
    shell: Shell,
    groups: Vec<Group>,
    may_edit: bool,
}

async fn collections(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
) -> Result<Response, Fault> {
    let zone = Scope::Zone((&*api.zone).into());
    let found =
        api.handle.look(move |engine, _| [engine.collections(&Scope::Global), engine.collections(&zone)]).await?;
    let [global, zone] = found;
    let readable = |scope: &str, all: &[(std::sync::Arc<str>, usize)], own: bool| {
        let wanted = all.iter().filter(|(name, _)| name.starts_with(OWN_COLLECTIONS) == own && by.may_read(name));
        let collection = |(name, count): &(std::sync::Arc<str>, usize)| Collection {
            href: format!("/documents/{scope}/{}", encode(name)),
            name: name.to_string(),
            count: *count,
        };
        wanted.map(collection).collect::<Vec<_>>()
    };
    let groups = vec![
        Group {
            title: "Everywhere".to_owned(),
            help: "Held by every server of the cluster.",
            collections: readable("global", &global, false),
        },
        Group {
            title: format!("In zone {}", api.zone),
            help: "Held by the servers of this zone alone.",
            collections: readable("zone", &zone, false),
        },
        Group {
            title: "knot's own".to_owned(),
            help: "Changed by their own pages; here they can be looked at.",
            collections: readable("global", &global, true),
        },
    ];
    let may_edit = by.may(Permission::EditDocuments);
    Ok(show(&Collections { shell: shell.watching(&[("watch", "documents")]), groups, may_edit }))
}

struct Row {
    href: String,
    key: String,
    modified: Moment,
    changes: u32,
    is_revived: bool,
}

#[derive(Template)]
#[template(path = "collection.html")]
struct List {
    shell: Shell,
    scope: String,
    collection: String,
    prefix: String,
    here: String,
    path: String,
    rows: Vec<Row>,
    next: Option<String>,
    is_first: bool,
    may_edit: bool,
}

async fn list(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path((scope_name, collection)): Path<(String, String)>,
    uri: Uri,
) -> Result<Response, Fault> {
    let scope = scope_of(&api, &scope_name)?;
    ensure_readable(&by, &collection)?;
    let fields = Fields::of(&uri);
    let prefix = fields.get("prefix").to_owned();
    let after = Some(fields.get("after").to_owned()).filter(|after| !after.is_empty());
    let (name, begin, from) = (collection.clone(), prefix.clone(), after.clone());
    // One more than is shown tells whether there is a next page.
    let mut found =
        api.handle.look(move |engine, _| engine.list(&scope, &name, &begin, from.as_deref(), PAGE + 1)).await?;
    let has_more = found.len() > PAGE;
    found.truncate(PAGE);
    let now = api.accounts.now();
    let path = format!("/documents/{scope_name}/{}", encode(&collection));
    let row = |summary: &Summary| Row {
        href: format!("{path}/{}", encode(summary.id.key())),
        key: summary.id.key().to_owned(),
        modified: Moment::of(summary.modified.0, now),
        changes: summary.changes,
        is_revived: summary.revived,
    };
    let rows: Vec<Row> = found.iter().map(row).collect();
    let begun = format!("{path}?prefix={}", encode(&prefix));
    let next = rows.last().filter(|_| has_more).map(|last| format!("{begun}&after={}", encode(&last.key)));
    let is_first = after.is_none();
    Ok(show(&List {
        shell: watching(shell, &api, &scope_name, &collection, ""),
        here: after.map_or_else(|| begun.clone(), |after| format!("{begun}&after={}", encode(&after))),
        may_edit: by.may_edit(&collection),
        scope: scope_name,
        collection,
        prefix,
        path,
        rows,
        next,
        is_first,
    }))
}

#[derive(Template)]
#[template(path = "document_new.html")]
struct Form {
    shell: Shell,
    problem: Option<Problem>,
    zone: String,
    scope: String,
    collection: String,
    key: String,
    text: String,
}

async fn form_new(State(api): State<Shared>, Extension(shell): Extension<Shell>, uri: Uri) -> Response {
    let fields = Fields::of(&uri);
    let (scope, collection) = (fields.text("scope"), fields.text("collection"));
    let zone = api.zone.to_string();
    show(&Form { shell, problem: None, zone, scope, collection, key: String::new(), text: "{\n  \n}".to_owned() })
}

async fn create(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let fields = Fields::read(&api, &headers, body).await?;
    let form = Form {
        shell,
        problem: None,
        zone: api.zone.to_string(),
        scope: fields.text("scope"),
        collection: fields.text("collection"),
        key: fields.get("key").to_owned(),
        text: fields.get("text").replace('\r', ""),
    };
    let problem = match put_new(&api, &by, &form).await {
        Ok(()) => {
            let (collection, key) = (encode(&form.collection), encode(&form.key));
            let to = format!("/documents/{}/{collection}/{key}?done=document-saved", form.scope);
            return Ok(Redirect::to(&to).into_response());
        }
        Err(problem) => problem,
    };
    Ok(show_as(problem.status, &Form { problem: Some(problem), ..form }))
}

async fn put_new(api: &Shared, by: &Caller, form: &Form) -> Result<(), Problem> {
    let refuse = |error: ApiError| Problem::of(&error);
    let scope = scope_of(api, &form.scope).map_err(refuse)?;
    if is_label(&form.collection, COLLECTION_BYTES_MAX) && !by.may_edit(&form.collection) {
        return Err(refuse(ApiError::Forbidden(Needs::Collection)));
    }
    let id = DocumentId::new(scope, &form.collection, &form.key).map_err(|error| refuse(error.into()))?;
    let value = document::parse(&form.text)?;
    let precondition = Precondition { if_none_match: Some(EtagMatch::Any), ..Precondition::default() };
    let request = EditRequest { precondition, ..EditRequest::new(id, Edit::Put(value)) };
    match api.handle.edit(request).await.map_err(|error| refuse(error.into()))? {
        Ok(_) => Ok(()),
        Err(knot_engine::EditError::Precondition { .. }) => {
            Err(Problem::new("There is a document of this name already.", "Choose another key, or edit that one."))
        }
        Err(error) => Err(refuse(error.into())),
    }
}
