//! Changes that are kept and not applied: which, by whom, and why; having them judged again, and putting them aside.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use knot_engine::documents::{DocumentId, Scope};
use knot_engine::{ChangeHash, HistoryEntry, Review, ReviewError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::{ApiError, Form};
use super::query::{self, NoQuery};
use super::{Shared, body};

/// Most documents whose changes are listed.
const DOCUMENTS_MAX: usize = 100;

/// The list.
#[derive(Serialize)]
struct Quarantine {
    data: Vec<Row>,
    /// All there are, in documents that are not listed too.
    total: u64,
}

/// One change.
#[derive(Serialize)]
struct Row {
    document: String,
    /// What its author is called, where that is a member.
    by: Option<String>,
    #[serde(flatten)]
    change: HistoryEntry,
}

pub(super) async fn list(State(api): State<Shared>, uri: Uri) -> Result<Response, ApiError> {
    let NoQuery {} = query::parse(&uri)?;
    let (documents, total, names): (Vec<DocumentId>, u64, BTreeMap<String, String>) = api
        .handle
        .look(|engine, _| {
            let documents =
                engine.quarantined().into_iter().take(DOCUMENTS_MAX).map(|(document, _)| document).collect();
            let names = engine.members().map(|member| (member.record.node.to_string(), member.record.name.clone()));
            (documents, engine.quarantined_changes(), names.collect())
        })
        .await?;
    let mut data = Vec::new();
    for document in documents {
        let history = api.handle.history(document.clone()).await??;
        let refused = history.into_iter().filter(is_counted);
        data.extend(refused.map(|change| Row {
            document: document.to_string(),
            by: names.get(&change.node).cloned(),
            change,
        }));
    }
    Ok(axum::Json(Quarantine { data, total }).into_response())
}

/// Which change, or which document's.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    document: String,
    change: Option<String>,
}

/// What became of a change that was judged again.
#[derive(Serialize)]
struct Outcome {
    hash: String,
    quarantine: Option<String>,
}

const FORM: Form = Form::BadBody(
    "send {\"document\": \"global/users/ann\", \"change\": \"<its hash, or how that begins>\"}, named as the list names them; a release of all that the document has takes no \"change\"",
);
/// Digits of a hash that are the least to name a change by.
const PREFIX_DIGITS_MIN: usize = 4;
const SHORT: Form = Form::BadBody("name the change by its hash, or at least by the first four digits of it");
const SEVERAL: Form = Form::BadBody("several changes of the document have a hash that begins so: send more of it");

pub(super) async fn release(
    State(api): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (document, change) = asked(&api, &uri, &headers, body).await?;
    let outcome = |reviewed: knot_engine::Reviewed| Outcome {
        hash: reviewed.change.to_string(),
        quarantine: reviewed.quarantine.map(|why| why.to_string()),
    };
    let data: Vec<Outcome> =
        api.handle.review(document.clone(), Review::Release(change)).await??.into_iter().map(outcome).collect();
    Ok(axum::Json(json!({"document": document.to_string(), "data": data})).into_response())
}

pub(super) async fn drop(
    State(api): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (document, change) = asked(&api, &uri, &headers, body).await?;
    let change = change.ok_or(FORM)?;
    api.handle.review(document.clone(), Review::Drop(change)).await??;
    let dropped = json!({"document": document.to_string(), "hash": change.to_string(), "status": "dropped"});
    Ok(axum::Json(dropped).into_response())
}

/// Whether a change is in quarantine and an operator has not said that this is known.
fn is_counted(change: &HistoryEntry) -> bool {
    change.quarantine.is_some() && !change.dropped
}

/// The document, and the one change of it in quarantine that is named.
async fn asked(
    api: &Shared,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Result<(DocumentId, Option<ChangeHash>), ApiError> {
    let NoQuery {} = query::parse(uri)?;
    let Asked { document, change } = serde_json::from_value(body::json(api, headers, body).await?).map_err(|_| FORM)?;
    let document = named(&document)?;
    let Some(change) = change else { return Ok((document, None)) };
    let change = change.to_ascii_lowercase();
    if change.len() < PREFIX_DIGITS_MIN {
        return Err(SHORT.into());
    }
    let history = match api.handle.history(document.clone()).await? {
        Err(knot_engine::ReadError::NotFound) => return Err(ReviewError::NotFound.into()),
        history => history?,
    };
    let meant: Vec<HistoryEntry> =
        history.into_iter().filter(|known| known.quarantine.is_some() && known.hash.starts_with(&change)).collect();
    match &meant[..] {
        [] => Err(ReviewError::NotQuarantined.into()),
        [one] => Ok((document, Some(one.hash.parse().map_err(|_| FORM)?))),
        _ => Err(SEVERAL.into()),
    }
}

/// A document by the name that it is listed under, `global/users/ann` or `zone:au/users/ann`. One of the global scope may
/// go without that.
fn named(text: &str) -> Result<DocumentId, ApiError> {
    let parts = |text: &str| text.split_once('/').map(|(first, rest)| (first.to_owned(), rest.to_owned()));
    let (first, rest) = parts(text).ok_or(FORM)?;
    let scope = match first.strip_prefix("zone:") {
        Some(zone) => Scope::Zone(zone.into()),
        None if first == "global" && rest.contains('/') => Scope::Global,
        None => return Ok(DocumentId::new(Scope::Global, &first, &rest)?),
    };
    let (collection, key) = parts(&rest).ok_or(FORM)?;
    Ok(DocumentId::new(scope, &collection, &key)?)
}
