//! What differs between two versions of a document, member by member.

use askama::Template;
use axum::response::Response;
use knot_engine::documents::DocumentId;
use serde_json::{Value, json};

use super::document::{Place, pretty};
use super::{ensure_readable, scope_of};
use crate::accounts::Caller;
use crate::api::Shared;
use crate::api::documents::heads;
use crate::api::error::ApiError;
use crate::api::path::encode;
use crate::differences::{Difference, Differences};
use crate::web::page::{Fault, Shell, show};

struct Row {
    pointer: String,
    kind: &'static str,
    before: Option<String>,
    after: Option<String>,
}

#[derive(Template)]
#[template(path = "versions.html")]
struct Versions {
    shell: Shell,
    collection: String,
    collection_href: String,
    key: String,
    path: String,
    from: String,
    to: String,
    /// What is to be said of either: that there was nothing, or no more.
    was: Option<&'static str>,
    is: Option<&'static str>,
    rows: Vec<Row>,
    more: usize,
}

/// The page that compares the version `from` with `to`, each named by changes; the document before its first is `start`.
pub(super) async fn compare(
    api: &Shared,
    shell: Shell,
    by: &Caller,
    (scope, collection, key): Place,
    (from, to): (String, String),
) -> Result<Response, Fault> {
    ensure_readable(by, &collection)?;
    let id = DocumentId::new(scope_of(api, &scope)?, &collection, &key).map_err(ApiError::from)?;
    let (before, was) = version(api, &id, &from).await?;
    let (after, is) = version(api, &id, &to).await?;
    let found = Differences::between(&before, &after);
    let row = |Difference { pointer, kind, before, after }: Difference| Row {
        pointer: if pointer.is_empty() { "the whole document".to_owned() } else { pointer },
        kind: kind.word(),
        before: before.as_ref().map(pretty),
        after: after.as_ref().map(pretty),
    };
    Ok(show(&Versions {
        shell,
        collection_href: format!("/documents/{scope}/{}", encode(&collection)),
        path: format!("/documents/{scope}/{}/{}", encode(&collection), encode(&key)),
        collection,
        key,
        from: short(&from),
        to: short(&to),
        was,
        is,
        more: found.more,
        rows: found.shown.into_iter().map(row).collect(),
    }))
}

/// How the start of a document is named, before any change.
pub(super) const START: &str = "start";

/// What a document was, and what else is to be said of that.
async fn version(api: &Shared, id: &DocumentId, name: &str) -> Result<(Value, Option<&'static str>), ApiError> {
    if name == START {
        return Ok((json!({}), Some("There was no document yet.")));
    }
    let heads = heads(api, id, name).await?;
    let view = api.handle.version(id.clone(), heads).await??;
    Ok(if view.deleted { (json!({}), Some("The document was deleted.")) } else { (view.value, None) })
}

fn short(name: &str) -> String {
    let each = name.split(',').map(|hash| hash.chars().take(12).collect::<String>());
    each.collect::<Vec<_>>().join(", ")
}
