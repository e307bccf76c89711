//! Changes that are kept and never applied: which, by whom, and why.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use knot_engine::HistoryEntry;
use knot_engine::documents::DocumentId;
use serde::Serialize;

use super::Shared;
use super::error::ApiError;
use super::query::{self, NoQuery};

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
        let refused = history.into_iter().filter(|change| change.quarantine.is_some());
        data.extend(refused.map(|change| Row {
            document: document.to_string(),
            by: names.get(&change.node).cloned(),
            change,
        }));
    }
    Ok(axum::Json(Quarantine { data, total }).into_response())
}
