//! Shutting a server out of the cluster, and letting it in again.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use knot_engine::documents::Edit;
use knot_engine::{EditRequest, NodeId, Precondition, eviction_of};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::cluster::{Who, find};
use super::error::{ApiError, Form, MemberError};
use super::query::{self, NoQuery};
use super::{REPLICAS_TIMEOUT_DEFAULT, Shared, body};

/// Whom, and why for those who read it later.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    name: Option<String>,
    id: Option<String>,
    reason: Option<String>,
}

const FORM: Form = Form::BadBody(
    "send {\"name\": \"n1\"} or {\"id\": \"<32 hexadecimal digits>\"}, and a \"reason\" where there is one",
);

pub(super) async fn evict(
    State(api): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (who, reason) = asked(&api, &uri, &headers, body).await?;
    let (node, name) = shut_out(&api, who, reason).await?;
    Ok(axum::Json(json!({"id": node.to_string(), "name": name, "status": "evicted"})).into_response())
}

/// Shuts a server out; gives its id, and its name where it has one.
pub(crate) async fn shut_out(
    api: &Shared,
    who: Who,
    reason: Option<String>,
) -> Result<(NodeId, Option<String>), ApiError> {
    let (node, name) = api
        .handle
        .look(move |engine, _| {
            let found = match (find(engine, &who), &who) {
                // Who is not known, or no more, can be kept from ever coming.
                (Err(MemberError::Unknown), Who::Id(id)) => (*id, None),
                (found, _) => found.map(|(node, name)| (node, Some(name)))?,
            };
            if found.0 == engine.me().record.node { Err(MemberError::ThisServer) } else { Ok(found) }
        })
        .await??;
    let facts = [("name", name.clone()), ("reason", reason)];
    let value: Map<String, Value> =
        facts.into_iter().filter_map(|(key, fact)| Some((key.to_owned(), fact?.into()))).collect();
    change(api, node, Edit::Put(value.into())).await?;
    Ok((node, name))
}

pub(super) async fn readmit(
    State(api): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (who, _) = asked(&api, &uri, &headers, body).await?;
    let evicted: Vec<NodeId> = api.handle.look(|engine, _| engine.evicted().iter().copied().collect()).await?;
    let mut found = Vec::new();
    for node in evicted {
        let name = name_of(&api, &node).await?;
        let is_meant = match &who {
            Who::Name(meant) => name.as_ref() == Some(meant),
            Who::Id(id) => *id == node,
        };
        if is_meant {
            found.push((node, name));
        }
    }
    let (node, name) = match &found[..] {
        [] => return Err(MemberError::NotEvicted.into()),
        [one] => one.clone(),
        several => {
            return Err(MemberError::Ambiguous(several.iter().map(|(node, _)| node.to_string()).collect()).into());
        }
    };
    let_in(&api, node).await?;
    Ok(axum::Json(json!({"id": node.to_string(), "name": name, "status": "readmitted"})).into_response())
}

/// Lets a server in again that is shut out.
pub(crate) async fn let_in(api: &Shared, node: NodeId) -> Result<(), ApiError> {
    change(api, node, Edit::Delete).await
}

/// What a server that is shut out was called by who did that; none where it had no name either.
pub(crate) async fn name_of(api: &Shared, node: &NodeId) -> Result<Option<String>, ApiError> {
    fact_of(api, node, "name").await
}

/// Why a server was shut out, where that was said.
pub(crate) async fn reason_of(api: &Shared, node: &NodeId) -> Result<Option<String>, ApiError> {
    fact_of(api, node, "reason").await
}

async fn fact_of(api: &Shared, node: &NodeId, fact: &str) -> Result<Option<String>, ApiError> {
    let view = api.handle.read(eviction_of(node), false).await?.ok();
    Ok(view.and_then(|view| view.value.get(fact).and_then(Value::as_str).map(str::to_owned)))
}

async fn asked(api: &Shared, uri: &Uri, headers: &HeaderMap, body: Body) -> Result<(Who, Option<String>), ApiError> {
    let NoQuery {} = query::parse(uri)?;
    let Asked { name, id, reason } = serde_json::from_value(body::json(api, headers, body).await?).map_err(|_| FORM)?;
    Ok((Who::of(name, id).ok_or(FORM)?, reason))
}

async fn change(api: &Shared, node: NodeId, edit: Edit) -> Result<(), ApiError> {
    let (document, precondition) = (eviction_of(&node), Precondition::default());
    let request = EditRequest { document, edit, precondition, replicas: 0, timeout: REPLICAS_TIMEOUT_DEFAULT };
    api.handle.edit(request).await??;
    Ok(())
}
