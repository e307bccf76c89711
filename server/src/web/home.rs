//! The dashboard: who one is, what one may do, how this server and its cluster are.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::audit::Line;
use super::cluster::{self, Tally};
use super::moment::spoken;
use super::page::{Fault, LOGIN, Shell, show};
use super::{Page, page};
use crate::accounts::{AuditFilter, Caller, Permission, Permissions};
use crate::api::Shared;
use crate::api::error::ApiError;

/// Entries of the audit log that are shown.
const LAST: usize = 8;

pub(super) fn pages() -> Vec<Page> {
    vec![page("/", LOGIN, || get(home))]
}

/// What one may do under one heading.
pub(super) struct Allowed {
    pub(super) group: &'static str,
    pub(super) permissions: Vec<Permission>,
}

#[derive(Template)]
#[template(path = "home.html")]
struct Home {
    shell: Shell,
    allowed: Vec<Allowed>,
    may_all: bool,
    uptime: String,
    documents: u64,
    is_disk_full: bool,
    quarantined: u64,
    tally: Option<Tally>,
    audit: Option<Vec<Line>>,
}

/// These permissions under their headings.
pub(super) fn grouped(permissions: impl Iterator<Item = Permission>) -> Vec<Allowed> {
    let mut groups: Vec<Allowed> = Vec::new();
    for permission in permissions {
        match groups.last_mut() {
            Some(last) if last.group == permission.group() => last.permissions.push(permission),
            Some(_) | None => groups.push(Allowed { group: permission.group(), permissions: vec![permission] }),
        }
    }
    groups
}

async fn home(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
) -> Result<Response, Fault> {
    let (documents, is_disk_full, quarantined, sights) = api
        .handle
        .look(|engine, _| {
            let documents = engine.scopes().iter().map(|scope| scope.documents).sum();
            (documents, engine.is_disk_full(), engine.quarantined_changes(), cluster::sights(engine))
        })
        .await?;
    let may_see = by.may(Permission::ClusterInfo) || by.may(Permission::ManageCluster);
    let audit = if by.may(Permission::ViewAuditLogs) {
        let (entries, _) = api.accounts.audit_log(&AuditFilter::default(), LAST).await.map_err(ApiError::from)?;
        let now = api.accounts.now();
        Some(entries.into_iter().map(|entry| Line::of(entry, now)).collect())
    } else {
        None
    };
    let shell = shell.watching(&[("watch", if audit.is_some() { "audit" } else { "nothing" })]);
    Ok(show(&Home {
        shell,
        allowed: grouped(by.permissions.iter()),
        may_all: by.permissions == Permissions::all(),
        uptime: spoken(api.started.elapsed()),
        documents,
        is_disk_full,
        quarantined,
        tally: (api.is_clustered && may_see).then(|| Tally::of(&sights)),
        audit,
    }))
}

/// What is shown where there is nothing.
pub(crate) async fn nothing(api: &Shared, uri: &Uri, headers: &HeaderMap, error: ApiError) -> Response {
    let caller = crate::api::guard::identify(api, &axum::http::Method::GET, headers).await.ok().flatten();
    match Shell::new(api, caller.as_ref(), headers, uri).await {
        Ok(shell) => super::guard::secured(shell.refuse(&error)),
        Err(error) => error.into_response(),
    }
}
