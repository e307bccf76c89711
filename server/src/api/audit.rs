//! The audit log, the latest first.

use axum::extract::State;
use axum::http::Uri;
use axum::routing::get as on_get;
use knot_engine::Wall;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::{ApiError, Form};
use super::operation::{Needs, Operation, get};
use super::query::{self, AuditQuery};
use super::{Shared, timestamp};
use crate::accounts::{AuditEntry, AuditFilter, Permission};

/// Entries in a page where `max-items` does not say.
const LIMIT_DEFAULT: usize = 100;
/// Most entries in a page.
pub(super) const LIMIT_MAX: usize = 1_000;

pub(super) fn operations() -> Vec<Operation> {
    const SEES: Needs = Needs::OneOf(&[Permission::ViewAuditLogs]);
    let list = get("/api/audit-logs", "Audit", "Read the audit log, the latest first", SEES, || on_get(list));
    vec![list.query::<AuditQuery>().gives::<AuditLogs>()]
}

#[derive(Debug, Serialize, JsonSchema)]
struct AuditLogs {
    /// How many are in this page.
    count: usize,
    items: Vec<Entry>,
    /// What to send as `after` for the next page; none at the end.
    next: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Entry {
    audit_log_id: String,
    zone: String,
    actor: String,
    /// `user`, `machine` or `system`.
    actor_type: String,
    event: String,
    when: String,
    details: String,
    properties: Map<String, Value>,
}

impl From<AuditEntry> for Entry {
    fn from(entry: AuditEntry) -> Self {
        Self {
            audit_log_id: entry.id,
            zone: entry.zone,
            actor: entry.actor,
            actor_type: entry.actor_type,
            event: entry.event,
            when: timestamp::rfc3339(Wall(entry.when)),
            details: entry.details,
            properties: entry.properties,
        }
    }
}

async fn list(State(api): State<Shared>, uri: Uri) -> Result<axum::Json<AuditLogs>, ApiError> {
    let query: AuditQuery = query::parse(&uri)?;
    let limit = query.max_items.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Form::BadQuery(format!("max-items is 1 to {LIMIT_MAX}")).into());
    }
    let filter = AuditFilter { text: query.q, actor: query.actor, event: query.event, after: query.after };
    let (entries, next) = api.accounts.audit_log(&filter, limit).await?;
    let items: Vec<Entry> = entries.into_iter().map(Entry::from).collect();
    Ok(axum::Json(AuditLogs { count: items.len(), items, next }))
}
