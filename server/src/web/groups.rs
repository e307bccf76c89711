//! Groups: listed, made, changed, deleted.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::json;

use super::form::Fields;
use super::merge::{Said, members};
use super::page::{Fault, Problem, Shell, show};
use super::record::{self, Draft, Record};
use super::{Page, page};
use crate::accounts::{AccountError, Accounts, Caller, Directory, Group, NAME_BYTES_MAX, Permission, Refusal};
use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::operation::Needs;
use crate::api::path::encode;

pub(super) fn pages() -> Vec<Page> {
    const GROUPS: Needs = Needs::OneOf(&[Permission::ManageGroups]);
    vec![
        page("/groups", GROUPS, || get(list).post(record::create::<Group>)),
        page("/groups/new", GROUPS, || get(record::form_new::<Group>)),
        page("/groups/{id}", GROUPS, || get(record::form_of::<Group>).post(record::change::<Group>)),
        page("/groups/{id}/delete", GROUPS, || post(record::remove::<Group>)),
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
    draft: Draft<Group>,
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

impl Record for Group {
    const PATH: &'static str = "/groups";
    const KIND: &'static str = "group";

    fn find(directory: &Directory, id: &str) -> Option<Self> {
        directory.group(id).cloned()
    }

    fn filled(fields: &Fields) -> Said {
        members(&json!({
            "name": fields.text("name"),
            "max_spaces": fields.count("max_spaces"),
            "compute_units": fields.count("compute_units"),
            "storage_units": fields.count("storage_units"),
        }))
    }

    async fn page(_: &Shared, shell: Shell, draft: Draft<Self>) -> Result<impl Template + Send, ApiError> {
        Ok(Form { shell, problem: draft.problem.clone(), draft, name_max: NAME_BYTES_MAX })
    }

    async fn put(
        accounts: &Accounts,
        by: &Caller,
        id: Option<&str>,
        change: impl FnOnce(Self) -> Result<Self, Refusal> + Send,
    ) -> Result<String, AccountError> {
        accounts.put_group(by, id, change).await
    }

    async fn delete(accounts: &Accounts, by: &Caller, id: &str) -> Result<(), AccountError> {
        accounts.delete_group(by, id).await
    }
}
