//! A collection, page by page in key order.

use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use knot_engine::{DocumentView, ReadError, Summary};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinSet;

use super::documents::ensure_held;
use super::error::{ApiError, Form};
use super::query::{self, ListQuery};
use super::{Api, Shared, path, timestamp};

/// Documents in a page where `?limit=` does not say.
pub(super) const LIMIT_DEFAULT: usize = 100;
/// Most documents in a page.
pub(super) const LIMIT_MAX: usize = 1_000;
/// A page ends early with the document that brings it to this many bytes.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// Documents of a page that are read at a time.
const READS_MAX: usize = 16;

/// The answer, which is written piece by piece.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only described")]
pub(super) struct Listed {
    data: Vec<Entry<'static>>,
    /// What to send as `after` for the next page; none at the end.
    next: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Entry<'a> {
    key: &'a str,
    etag: String,
    modified: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
}

pub(super) async fn list(State(api): State<Shared>, uri: Uri) -> Result<Response, ApiError> {
    let (scope, collection) = path::collection(uri.path())?;
    ensure_held(&api, &scope).await?;
    let ListQuery { prefix, after, limit, values } = query::parse(&uri)?;
    let limit = limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Form::BadQuery(format!("limit is 1 to {LIMIT_MAX}")).into());
    }
    // One more than asked for tells whether there is a next page.
    let mut found = api
        .handle
        .look(move |engine, _| engine.list(&scope, &collection, &prefix, after.as_deref(), limit + 1))
        .await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let mut page = Page::default();
    let complete = if values.unwrap_or(true) { page.add_values(&api, &found).await? } else { page.add_names(&found)? };
    let next = if complete && !more { None } else { page.last };
    page.json.extend_from_slice(b"],\"next\":");
    write(&mut page.json, &next)?;
    page.json.push(b'}');
    Ok(([(header::CONTENT_TYPE, "application/json")], page.json).into_response())
}

/// The answer as it grows.
struct Page {
    json: Vec<u8>,
    empty: bool,
    /// Where the next page begins.
    last: Option<String>,
}

impl Default for Page {
    fn default() -> Self {
        Self { json: b"{\"data\":[".to_vec(), empty: true, last: None }
    }
}

impl Page {
    fn add_names(&mut self, found: &[Summary]) -> Result<bool, ApiError> {
        for summary in found {
            self.add(summary, None)?;
        }
        Ok(true)
    }

    /// Adds documents in order until they are all there, or the page is full; false in the latter case.
    async fn add_values(&mut self, api: &Api, found: &[Summary]) -> Result<bool, ApiError> {
        let mut chunks = found.chunks(READS_MAX).peekable();
        while let Some(chunk) = chunks.next() {
            for (place, (summary, view)) in chunk.iter().zip(read(api, chunk).await?).enumerate() {
                match view {
                    Some(view) => self.add(&view.summary, Some(view.value))?,
                    None => self.last = Some(summary.id.key().to_owned()),
                }
                if self.json.len() >= PAGE_BYTES_MAX {
                    return Ok(place + 1 == chunk.len() && chunks.peek().is_none());
                }
            }
        }
        Ok(true)
    }

    fn add(&mut self, summary: &Summary, value: Option<Value>) -> Result<(), ApiError> {
        if !std::mem::replace(&mut self.empty, false) {
            self.json.push(b',');
        }
        let key = summary.id.key();
        let entry =
            Entry { key, etag: summary.etag.to_string(), modified: timestamp::rfc3339(summary.modified), value };
        self.last = Some(key.to_owned());
        write(&mut self.json, &entry)
    }
}

/// Reads documents at once; none where one was deleted meanwhile.
async fn read(api: &Api, chunk: &[Summary]) -> Result<Vec<Option<DocumentView>>, ApiError> {
    let mut reads = JoinSet::new();
    for (place, summary) in chunk.iter().enumerate() {
        let (handle, id) = (api.handle.clone(), summary.id.clone());
        reads.spawn(async move { (place, handle.read(id, false).await) });
    }
    let mut views: Vec<Option<DocumentView>> = Vec::new();
    views.resize_with(chunk.len(), || None);
    for (place, answer) in reads.join_all().await {
        let view = match answer? {
            Ok(view) => Some(view),
            Err(ReadError::NotFound | ReadError::Gone { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(slot) = views.get_mut(place) {
            *slot = view;
        }
    }
    Ok(views)
}

fn write(json: &mut Vec<u8>, value: &impl Serialize) -> Result<(), ApiError> {
    serde_json::to_writer(json, value).map_err(|_| ReadError::Unreadable.into())
}
