//! What clients ask of servers, over HTTP.

use std::io;
use std::time::Duration;

use knot_engine::documents::Edit;
use knot_engine::{EditRequest, EtagMatch, Precondition};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Reach;
use crate::scenario::{Operation, Target};
use crate::workload;

/// The port of every server's API.
pub(crate) const HTTP_PORT: u16 = 3_000;
/// The token that all servers of a run share.
pub(crate) const TOKEN: &str = "a-token-of-more-than-thirty-two-characters";
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) etag: Option<String>,
    pub(super) body: Value,
}

/// A request.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    method: &'static str,
    path: String,
    headers: String,
    body: String,
    /// Who asks, where it is not the machine.
    token: Option<String>,
}

impl Request {
    pub(super) fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), ..Self::default() }
    }

    pub(super) fn json(method: &'static str, path: &str, body: &Value) -> Self {
        Self { method, path: path.to_owned(), body: body.to_string(), ..Self::default() }
    }

    /// The same of somebody with this token.
    pub(super) fn by(self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self }
    }

    /// The request that an operation stands for; a read, where it edits nothing.
    pub(super) fn of(operation: &Operation) -> Self {
        match workload::request(operation) {
            Some(request) => Self::edit(&operation.target, request),
            None => Self::get(&path(&operation.target)),
        }
    }

    /// The request for an edit.
    pub(super) fn edit(target: &Target, request: EditRequest) -> Self {
        let mut path = path(target);
        let Precondition { if_match, if_none_match } = &request.precondition;
        let mut headers = [("if-match", if_match), ("if-none-match", if_none_match)]
            .into_iter()
            .filter_map(|(name, states)| Some(format!("{name}: {}\r\n", listed(states.as_ref()?))))
            .collect::<String>();
        if request.replicas > 0 {
            path.push_str(&format!("?w={}&timeout={}", request.replicas, request.timeout.as_millis()));
        }
        let (method, kind, body) = match request.edit {
            Edit::Put(value) => ("PUT", "application/json", value.to_string()),
            Edit::MergePatch(value) => ("PATCH", "application/merge-patch+json", value.to_string()),
            Edit::JsonPatch(value) => ("PATCH", "application/json-patch+json", value.to_string()),
            Edit::Increment { pointer, by } => {
                let body = json!({ "pointer": pointer, "by": by }).to_string();
                ("PATCH", "application/vnd.knot.increment+json", body)
            }
            Edit::Delete => ("DELETE", "application/json", String::new()),
        };
        headers.push_str(&format!("content-type: {kind}\r\n"));
        Self { method, path, headers, body, token: None }
    }

    /// Asks a server, on a connection of its own.
    pub(super) async fn ask<R: Reach>(&self, reach: &R, node: usize) -> io::Result<Answer> {
        let answer = tokio::time::timeout(PATIENCE, self.ask_patiently(reach, node)).await;
        answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn ask_patiently<R: Reach>(&self, reach: &R, node: usize) -> io::Result<Answer> {
        let Self { method, path, headers, body, token } = self;
        let token = token.as_deref().unwrap_or(TOKEN);
        let mut stream = reach.connect(node).await?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: knot\r\nauthorization: Bearer {token}\r\nconnection: close\r\n{headers}\
             content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await?;
        let (head, body) = reply.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("etag").then(|| value.trim().to_owned())
        };
        Ok(Answer {
            status,
            etag: head.lines().find_map(header),
            body: serde_json::from_str(body).unwrap_or(Value::Null),
        })
    }
}

/// States, as a condition names them.
fn listed(states: &EtagMatch) -> String {
    match states {
        EtagMatch::Any => "*".to_owned(),
        EtagMatch::OneOf(etags) => etags.iter().map(|etag| format!("\"{etag}\"")).collect::<Vec<_>>().join(", "),
    }
}

/// Where a document is.
pub(super) fn path(target: &Target) -> String {
    let Target { zone, collection, key } = target;
    match zone {
        Some(zone) => format!("/api/zones/{zone}/documents/{collection}/{key}"),
        None => format!("/api/documents/{collection}/{key}"),
    }
}
