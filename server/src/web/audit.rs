//! The audit log: who did what, the latest first.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use axum::routing::get;

use super::form::Fields;
use super::moment::Moment;
use super::page::{Fault, Shell, show};
use super::{Page, page};
use crate::accounts::{AuditEntry, AuditFilter, Permission};
use crate::api::Shared;
use crate::api::operation::Needs;
use crate::api::path::encode;

/// Entries of one page.
const LINES: usize = 100;

pub(super) fn pages() -> Vec<Page> {
    vec![page("/audit", Needs::OneOf(&[Permission::ViewAuditLogs]), || get(log))]
}

/// An entry as it is shown.
pub(super) struct Line {
    pub(super) when: Moment,
    pub(super) actor: String,
    actor_type: String,
    event: String,
    pub(super) details: String,
    zone: String,
}

impl Line {
    pub(super) fn of(entry: AuditEntry, now: i64) -> Self {
        let AuditEntry { when, actor, actor_type, event, details, zone, id: _, properties: _ } = entry;
        Self { when: Moment::of(when, now), actor, actor_type, event, details, zone }
    }
}

#[derive(Template)]
#[template(path = "audit.html")]
struct Log {
    shell: Shell,
    lines: Vec<Line>,
    text: String,
    actor: String,
    event: String,
    here: String,
    next: Option<String>,
    is_first: bool,
}

async fn log(State(api): State<Shared>, Extension(shell): Extension<Shell>, uri: Uri) -> Result<Response, Fault> {
    let fields = Fields::of(&uri);
    let wanted = |name: &str| Some(fields.text(name)).filter(|text| !text.is_empty());
    let filter =
        AuditFilter { text: wanted("text"), actor: wanted("actor"), event: wanted("event"), after: wanted("after") };
    let (entries, next) = api.accounts.audit_log(&filter, LINES).await?;
    let now = api.accounts.now();
    let (text, actor, event) = (fields.text("text"), fields.text("actor"), fields.text("event"));
    let query = format!("/audit?text={}&actor={}&event={}", encode(&text), encode(&actor), encode(&event));
    let is_first = filter.after.is_none();
    // Entries are never changed, so that a later page stays as it is.
    let shell = shell.watching(&[("watch", if is_first { "audit" } else { "nothing" })]);
    Ok(show(&Log {
        shell,
        lines: entries.into_iter().map(|entry| Line::of(entry, now)).collect(),
        text,
        actor,
        event,
        here: filter.after.map_or_else(|| query.clone(), |after| format!("{query}&after={}", encode(&after))),
        next: next.map(|after| format!("{query}&after={}", encode(&after))),
        is_first,
    }))
}
