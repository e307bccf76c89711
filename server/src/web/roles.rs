//! Roles: listed, made, changed, deleted.

use std::borrow::Cow;

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::json;

use super::form::Fields;
use super::home::{Allowed, grouped};
use super::merge::{Said, members};
use super::page::{Fault, Problem, Shell, show};
use super::record::{self, Draft, Record};
use super::{Page, page};
use crate::accounts::{
    ADMINISTRATOR, AccountError, Accounts, Caller, Directory, NAME_BYTES_MAX, Permission, Permissions, Refusal, Role,
};
use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::operation::Needs;
use crate::api::path::encode;

pub(super) fn pages() -> Vec<Page> {
    const ROLES: Needs = Needs::OneOf(&[Permission::ManageRoles]);
    vec![
        page("/roles", ROLES, || get(list).post(record::create::<Role>)),
        page("/roles/new", ROLES, || get(record::form_new::<Role>)),
        page("/roles/{id}", ROLES, || get(record::form_of::<Role>).post(record::change::<Role>)),
        page("/roles/{id}/delete", ROLES, || post(record::remove::<Role>)),
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
    draft: Draft<Role>,
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
    /// Whether the box of a permission is ticked.
    fn has(&self, permission: &Permission) -> bool {
        self.allows.has(*permission)
    }
}

impl Record for Role {
    const PATH: &'static str = "/roles";
    const KIND: &'static str = "role";

    fn find(directory: &Directory, id: &str) -> Option<Self> {
        directory.role(id).map(Cow::into_owned)
    }

    fn filled(fields: &Fields) -> Said {
        let chosen: Vec<String> = fields.all("permission").into_iter().filter(|id| is_known(id)).collect();
        members(&json!({"name": fields.text("name"), "permissions": chosen}))
    }

    /// Permissions that this version does not know are not on its form.
    fn shown(&self) -> Said {
        let permissions: Vec<&String> = self.permissions.iter().filter(|id| is_known(id)).collect();
        members(&json!({"name": self.name, "permissions": permissions}))
    }

    async fn page(_: &Shared, shell: Shell, draft: Draft<Self>) -> Result<impl Template + Send, ApiError> {
        Ok(Form {
            shell,
            problem: draft.problem.clone(),
            allows: draft.record.allows(),
            is_built_in: draft.id.as_deref() == Some(ADMINISTRATOR),
            draft,
            groups: grouped(Permission::ALL.iter().copied()),
            name_max: NAME_BYTES_MAX,
        })
    }

    async fn put(
        accounts: &Accounts,
        by: &Caller,
        id: Option<&str>,
        change: impl FnOnce(Self) -> Result<Self, Refusal> + Send,
    ) -> Result<String, AccountError> {
        accounts.put_role(by, id, change).await
    }

    async fn delete(accounts: &Accounts, by: &Caller, id: &str) -> Result<(), AccountError> {
        accounts.delete_role(by, id).await
    }
}

fn is_known(id: &str) -> bool {
    id.parse().ok().and_then(Permission::of).is_some()
}
