//! Template variables: listed without their values, made, changed, deleted.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::json;

use super::form::Fields;
use super::merge::{Said, members};
use super::page::{Fault, Problem, Shell, sentence, show};
use super::record::{self, Draft, Record};
use super::users::SHOWN_MAX;
use super::zones::{Meant, entries};
use super::{Page, page};
use crate::accounts::{AccountError, Accounts, Caller, Directory, Permission, Refusal};
use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::operation::Needs;
use crate::api::path::encode;
use crate::templates::{NAME_BYTES_MAX, TemplateVariable};

pub(super) fn pages() -> Vec<Page> {
    const VARIABLES: Needs = Needs::OneOf(&[Permission::ManageVariables]);
    vec![
        page("/variables", VARIABLES, || get(list).post(record::create::<TemplateVariable>)),
        page("/variables/new", VARIABLES, || get(record::form_new::<TemplateVariable>)),
        page("/variables/{id}", VARIABLES, || {
            get(record::form_of::<TemplateVariable>).post(record::change::<TemplateVariable>)
        }),
        page("/variables/{id}/delete", VARIABLES, || post(record::remove::<TemplateVariable>)),
    ]
}

struct Row {
    id: String,
    name: String,
    zones: String,
    is_protected: bool,
}

#[derive(Template)]
#[template(path = "variables.html")]
struct List {
    shell: Shell,
    rows: Vec<Row>,
    found: usize,
    query: String,
    text: String,
}

#[derive(Template)]
#[template(path = "variable.html")]
struct Form {
    shell: Shell,
    problem: Option<Problem>,
    draft: Draft<TemplateVariable>,
    meant: Meant,
    name_max: usize,
    /// Whether the value that is stored is never shown.
    keeps_value: bool,
}

async fn list(State(api): State<Shared>, Extension(shell): Extension<Shell>, uri: Uri) -> Result<Response, Fault> {
    api.accounts.ready().await?;
    let text = Fields::of(&uri).text("text");
    let (rows, found) = {
        let directory = api.accounts.directory();
        let row = |variable: &TemplateVariable| Row {
            id: variable.id.clone(),
            name: variable.name.clone(),
            zones: variable.zones.join(", "),
            is_protected: variable.protected,
        };
        let is_found = |variable: &&TemplateVariable| variable.name.to_lowercase().contains(&text.to_lowercase());
        let mut variables: Vec<&TemplateVariable> = directory.variables().filter(is_found).collect();
        variables.sort_by_cached_key(|variable| (variable.name.to_lowercase(), variable.id.clone()));
        (variables.iter().take(SHOWN_MAX).copied().map(row).collect(), variables.len())
    };
    Ok(show(&List { shell: shell.watching(&[("watch", "templates")]), rows, found, query: encode(&text), text }))
}

impl Form {
    /// What is wrong with a field.
    fn wrong(&self, field: &str) -> Vec<String> {
        let complaints = self.draft.complaints.iter();
        let here = complaints.filter(|complaint| complaint.field.split('[').next() == Some(field));
        here.map(|complaint| {
            let hint = complaint.hint.as_deref().map(sentence).unwrap_or_default();
            format!("{} {hint}", sentence(&complaint.message))
        })
        .collect()
    }
}

impl Record for TemplateVariable {
    const PATH: &'static str = "/variables";
    const KIND: &'static str = "variable";

    fn find(directory: &Directory, id: &str) -> Option<Self> {
        directory.variable(id).cloned()
    }

    fn filled(fields: &Fields) -> Said {
        members(&json!({
            "name": fields.text("name"),
            "zones": entries(fields.get("zones")),
            "value": fields.get("value").replace('\r', ""),
            "protected": fields.has("protected"),
        }))
    }

    /// The value of a protected one is never shown; an empty field leaves it.
    fn shown(&self) -> Said {
        let value = if self.protected { "" } else { &self.value };
        members(&json!({"name": self.name, "zones": self.zones, "value": value, "protected": self.protected}))
    }

    fn unshown(&self, field: &str) -> Option<&'static str> {
        (field == "value" && self.protected).then_some("a value that is not shown")
    }

    async fn page(api: &Shared, shell: Shell, draft: Draft<Self>) -> Result<impl Template + Send, ApiError> {
        let meant = Meant::new(api, &draft.record.zones).await?;
        let held = draft.id.as_ref().and_then(|id| api.accounts.directory().variable(id).cloned());
        let keeps_value = held.is_some_and(|held| held.protected);
        Ok(Form { shell, problem: draft.problem.clone(), draft, meant, name_max: NAME_BYTES_MAX, keeps_value })
    }

    async fn put(
        accounts: &Accounts,
        by: &Caller,
        id: Option<&str>,
        change: impl FnOnce(Self) -> Result<Self, Refusal> + Send,
    ) -> Result<String, AccountError> {
        accounts.put_variable(by, id, change).await
    }

    async fn delete(accounts: &Accounts, by: &Caller, id: &str) -> Result<(), AccountError> {
        accounts.delete_variable(by, id).await
    }
}
