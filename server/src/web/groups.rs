//! Groups: listed, made, changed, deleted.

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use super::form::Fields;
use super::page::{Fault, Problem, Shell, show, show_as};
use super::{Page, page};
use crate::accounts::{Caller, Group, NAME_BYTES_MAX, Permission, Refusal};
use crate::api::Shared;
use crate::api::operation::Needs;
use crate::api::path::encode;

pub(super) fn pages() -> Vec<Page> {
    const GROUPS: Needs = Needs::OneOf(&[Permission::ManageGroups]);
    vec![
        page("/groups", GROUPS, || get(list).post(create)),
        page("/groups/new", GROUPS, || get(form_new)),
        page("/groups/{id}", GROUPS, || get(form_of).post(change)),
        page("/groups/{id}/delete", GROUPS, || post(remove)),
    ]
}

struct Row {
    group: Group,
    name: String,
    users: usize,
}

#[derive(Template)]
#[template(path = "groups.html")]
struct List {
    shell: Shell,
    rows: Vec<Row>,
    query: String,
    text: String,
}

#[derive(Template)]
#[template(path = "group.html")]
struct Form {
    shell: Shell,
    problem: Option<Problem>,
    group: Group,
    name_max: usize,
}

async fn list(State(api): State<Shared>, Extension(shell): Extension<Shell>, uri: Uri) -> Result<Response, Fault> {
    api.accounts.ready().await?;
    let text = Fields::of(&uri).text("text");
    let rows = {
        let directory = api.accounts.directory();
        let row = |group: &Group| Row {
            name: directory.group_name(group).into_owned(),
            users: directory.users().filter(|user| user.groups.contains(&group.id)).count(),
            group: group.clone(),
        };
        let is_found = |group: &&Group| group.name.to_lowercase().contains(&text.to_lowercase());
        let mut rows: Vec<Row> = directory.groups().filter(is_found).map(row).collect();
        rows.sort_by_cached_key(|row| (row.name.to_lowercase(), row.group.id.clone()));
        rows
    };
    Ok(show(&List { shell: shell.watching(&[("watch", "accounts")]), rows, query: encode(&text), text }))
}

impl Form {
    fn new(shell: Shell, group: Group) -> Self {
        Self { shell, problem: None, group, name_max: NAME_BYTES_MAX }
    }
}

async fn form_new(Extension(shell): Extension<Shell>) -> Response {
    show(&Form::new(shell, Group::default()))
}

async fn known(api: &Shared, id: &str) -> Result<Group, Fault> {
    api.accounts.ready().await?;
    Ok(api.accounts.directory().group(id).ok_or(Refusal::Unknown("group"))?.clone())
}

async fn form_of(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    Ok(show(&Form::new(shell, known(&api, &id).await?)))
}

fn filled(fields: &Fields, group: Group) -> Group {
    let number = |name: &str| fields.number(name).unwrap_or(0);
    Group {
        name: fields.text("name"),
        max_spaces: number("max_spaces"),
        compute_units: number("compute_units"),
        storage_units: number("storage_units"),
        ..group
    }
}

async fn put(api: &Shared, shell: Shell, by: &Caller, group: Group) -> Result<Response, Fault> {
    let id = (!group.id.is_empty()).then_some(group.id.as_str());
    let done = if id.is_none() { "group-created" } else { "group-changed" };
    match api.accounts.put_group(by, id, |_| group.clone()).await {
        Ok(_) => Ok(Redirect::to(&format!("/groups?done={done}")).into_response()),
        Err(error) => {
            let problem = Problem::of(&error.into());
            Ok(show_as(problem.status, &Form { problem: Some(problem), ..Form::new(shell, group) }))
        }
    }
}

async fn create(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let fields = Fields::read(&api, &headers, body).await?;
    put(&api, shell, &by, filled(&fields, Group::default())).await
}

async fn change(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let fields = Fields::read(&api, &headers, body).await?;
    let old = known(&api, &id).await?;
    put(&api, shell, &by, filled(&fields, old)).await
}

async fn remove(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    api.accounts.delete_group(&by, &id).await?;
    Ok(Redirect::to("/groups?done=group-deleted").into_response())
}
