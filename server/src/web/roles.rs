//! Roles: listed, made, changed, deleted.

use std::borrow::Cow;
use std::collections::BTreeSet;

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use super::form::Fields;
use super::home::{Allowed, grouped};
use super::page::{Fault, Problem, Shell, show, show_as};
use super::{Page, page};
use crate::accounts::{ADMINISTRATOR, Caller, NAME_BYTES_MAX, Permission, Permissions, Refusal, Role};
use crate::api::Shared;
use crate::api::operation::Needs;
use crate::api::path::encode;

pub(super) fn pages() -> Vec<Page> {
    const ROLES: Needs = Needs::OneOf(&[Permission::ManageRoles]);
    vec![
        page("/roles", ROLES, || get(list).post(create)),
        page("/roles/new", ROLES, || get(form_new)),
        page("/roles/{id}", ROLES, || get(form_of).post(change)),
        page("/roles/{id}/delete", ROLES, || post(remove)),
    ]
}

struct Row {
    id: String,
    name: String,
    users: usize,
    titles: String,
}

#[derive(Template)]
#[template(path = "roles.html")]
struct List {
    shell: Shell,
    rows: Vec<Row>,
    query: String,
    text: String,
}

#[derive(Template)]
#[template(path = "role.html")]
struct Form {
    shell: Shell,
    problem: Option<Problem>,
    role: Role,
    allows: Permissions,
    groups: Vec<Allowed>,
    name_max: usize,
    is_built_in: bool,
}

async fn list(State(api): State<Shared>, Extension(shell): Extension<Shell>, uri: Uri) -> Result<Response, Fault> {
    api.accounts.ready().await?;
    let text = Fields::of(&uri).text("text");
    let rows = {
        let directory = api.accounts.directory();
        let row = |role: Cow<'_, Role>| Row {
            name: directory.role_name(&role).into_owned(),
            users: directory.users().filter(|user| user.roles.contains(&role.id)).count(),
            titles: match role.id == ADMINISTRATOR {
                true => "Everything".to_owned(),
                false => role.allows().iter().map(Permission::title).collect::<Vec<_>>().join(", "),
            },
            id: role.id.clone(),
        };
        let is_found = |role: &Cow<'_, Role>| role.name.to_lowercase().contains(&text.to_lowercase());
        let mut rows: Vec<Row> = directory.roles().filter(is_found).map(row).collect();
        rows.sort_by_cached_key(|row| (row.name.to_lowercase(), row.id.clone()));
        rows
    };
    Ok(show(&List { shell: shell.watching(&[("watch", "accounts")]), rows, query: encode(&text), text }))
}

impl Form {
    fn new(shell: Shell, role: Role) -> Self {
        Self {
            shell,
            problem: None,
            allows: role.allows(),
            is_built_in: role.id == ADMINISTRATOR,
            role,
            groups: grouped(Permission::ALL.iter().copied()),
            name_max: NAME_BYTES_MAX,
        }
    }
}

impl Form {
    /// Whether the box of a permission is ticked.
    fn has(&self, permission: &Permission) -> bool {
        self.allows.has(*permission)
    }
}

async fn form_new(Extension(shell): Extension<Shell>) -> Response {
    show(&Form::new(shell, Role::default()))
}

async fn known(api: &Shared, id: &str) -> Result<Role, Fault> {
    api.accounts.ready().await?;
    Ok(api.accounts.directory().role(id).ok_or(Refusal::Unknown("role"))?.into_owned())
}

async fn form_of(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    Ok(show(&Form::new(shell, known(&api, &id).await?)))
}

/// What a form says of a role. Permissions that this version does not know are not its to take.
fn filled(fields: &Fields, role: Role) -> Role {
    let is_known = |id: &str| id.parse().ok().and_then(Permission::of).is_some();
    let chosen = fields.all("permission").into_iter().filter(|id| is_known(id));
    let unknown = role.permissions.iter().filter(|id| !is_known(id)).cloned();
    let permissions: BTreeSet<String> = chosen.chain(unknown).collect();
    Role { name: fields.text("name"), permissions, ..role }
}

async fn put(api: &Shared, shell: Shell, by: &Caller, role: Role) -> Result<Response, Fault> {
    let id = (!role.id.is_empty()).then_some(role.id.as_str());
    let done = if id.is_none() { "role-created" } else { "role-changed" };
    match api.accounts.put_role(by, id, |_| role.clone()).await {
        Ok(_) => Ok(Redirect::to(&format!("/roles?done={done}")).into_response()),
        Err(error) => {
            let problem = Problem::of(&error.into());
            Ok(show_as(problem.status, &Form { problem: Some(problem), ..Form::new(shell, role) }))
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
    put(&api, shell, &by, filled(&fields, Role::default())).await
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
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    match api.accounts.delete_role(&by, &id).await {
        Ok(()) => Ok(Redirect::to("/roles?done=role-deleted").into_response()),
        Err(error) => {
            let problem = Problem::of(&error.into());
            let form = Form::new(shell, known(&api, &id).await?);
            Ok(show_as(problem.status, &Form { problem: Some(problem), ..form }))
        }
    }
}
