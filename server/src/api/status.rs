//! How this server is: for load balancers, for people and for Prometheus.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get as on_get;
use knot_engine::Wall;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::error::ApiError;
use super::operation::{Needs, Operation, get};
use super::query::{self, NoQuery};
use super::{Api, Shared, cluster, timestamp};
use crate::handle::ServerEngine;
use crate::metrics::EngineSample;
use crate::run::Reloaded;
use crate::tls::{Certificate, Identity};

const TAG: &str = "Server";
/// How long the driver may take to answer before this server counts as not ready.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// Most documents with changes in quarantine that are named.
const QUARANTINED_MAX: usize = 100;

pub(super) fn operations() -> Vec<Operation> {
    const OPEN: Needs = Needs::Nothing;
    vec![
        get("/health", TAG, "Say how this server is, to people", OPEN, || on_get(health)).gives::<Value>(),
        get("/livez", TAG, "Say that the process answers", OPEN, || on_get(livez)).gives::<Value>(),
        get("/readyz", TAG, "Say whether it can serve", OPEN, || on_get(readyz)).gives::<Value>(),
        get("/metrics", TAG, "Say what it counts", OPEN, || on_get(metrics))
            .gives_as::<String>("application/openmetrics-text"),
        get("/api/ping", TAG, "Say that a server is here", OPEN, || on_get(ping)).gives::<Value>(),
    ]
}

pub(super) async fn ping(State(api): State<Shared>) -> Response {
    axum::Json(json!({"status": "ok", "version": *api.version, "zone": *api.zone})).into_response()
}

/// Alive: the process answers.
pub(super) async fn livez() -> Response {
    axum::Json(json!({"status": "ok"})).into_response()
}

/// Ready: this server can serve. It stays so when it is cut off from its peers, and when its disk is full, since reads
/// go on.
pub(super) async fn readyz(State(api): State<Shared>) -> Result<Response, ApiError> {
    ensure_ready(&api).await?;
    Ok(axum::Json(json!({"status": "ready"})).into_response())
}

pub(super) async fn health(State(api): State<Shared>) -> Response {
    let problem = match ensure_ready(&api).await {
        Ok(()) => None,
        Err(ApiError::NotReady(why)) => Some(why),
        Err(_) => Some("the server is shutting down"),
    };
    let status = if problem.is_none() { "ok" } else { "failing" };
    axum::Json(json!({
        "status": status,
        "problem": problem,
        "name": *api.name,
        "zone": *api.zone,
        "version": *api.version,
        "uptime_s": api.started.elapsed().as_secs(),
    }))
    .into_response()
}

async fn ensure_ready(api: &Api) -> Result<(), ApiError> {
    if *api.stopping.borrow() {
        return Err(ApiError::Stopping);
    }
    let state = api.handle.look(|engine, _| (engine.is_storage_failed(), engine.has_left()));
    match tokio::time::timeout(READY_TIMEOUT, state).await {
        Ok(state) => match state? {
            (true, _) => Err(ApiError::NotReady("this server's storage has failed")),
            (_, true) => Err(ApiError::NotReady("this server has left the cluster")),
            (false, false) => Ok(()),
        },
        Err(_) => Err(ApiError::NotReady("the server does not answer within 2 s: it is overloaded")),
    }
}

pub(super) async fn status(State(api): State<Shared>, uri: Uri) -> Result<Response, ApiError> {
    let NoQuery {} = query::parse(&uri)?;
    let mut status = api.handle.look(|engine, _| describe(engine)).await?;
    if let Some(status) = status.as_object_mut() {
        status.insert("uptime_s".to_owned(), api.started.elapsed().as_secs().into());
        status.insert("tls".to_owned(), api.certificate.as_deref().map(certificate).into());
    }
    Ok(axum::Json(status).into_response())
}

/// Reads the configuration again, as SIGHUP does.
pub(super) async fn reload(State(api): State<Shared>, uri: Uri) -> Result<Response, ApiError> {
    let NoQuery {} = query::parse(&uri)?;
    let (answer, answered) = oneshot::channel();
    let reload = api.reload.as_ref().ok_or(ApiError::NoRoute)?;
    reload.send(answer).await.map_err(|_| ApiError::Stopping)?;
    let reloaded = answered.await.map_err(|_| ApiError::Stopping)?.map_err(ApiError::BadConfig)?;
    let keys = api.handle.look(|engine, _| key_ids(engine)).await?;
    Ok(axum::Json(json!({"keys": keys, "needs_restart": reloaded == Reloaded::Keys})).into_response())
}

fn key_ids(engine: &ServerEngine) -> Vec<String> {
    engine.key_ids().iter().map(ToString::to_string).collect()
}

fn certificate(certificate: &Certificate) -> Value {
    let Identity { fingerprint, expires_s } = certificate.identity();
    let expires =
        expires_s.and_then(|s| i64::try_from(s).ok()).map(|s| timestamp::rfc3339(Wall(s.saturating_mul(1_000))));
    json!({"file": certificate.file(), "fingerprint": fingerprint, "expires": expires})
}

fn describe(engine: &ServerEngine) -> Value {
    let me = &engine.me().record;
    let mut members = BTreeMap::from([("alive", 0), ("suspect", 0), ("failed", 0), ("left", 0)]);
    for member in engine.members() {
        *members.entry(cluster::status_name(member.status)).or_insert(0) += 1;
    }
    let queues: Vec<Value> = engine
        .queues()
        .iter()
        .map(|queue| json!({"name": queue.name, "depth": queue.depth, "limit": queue.limit}))
        .collect();
    let quarantined: Vec<Value> = engine
        .quarantined()
        .iter()
        .take(QUARANTINED_MAX)
        .map(|(id, changes)| json!({"document": id.to_string(), "changes": changes}))
        .collect();
    json!({
        "id": me.node.to_string(),
        "name": me.name,
        "zone": me.zone,
        "cluster": engine.cluster().to_string(),
        "keys": key_ids(engine),
        "version": me.version,
        "scopes": engine.scopes(),
        "members": members,
        "queues": queues,
        "sequence": engine.sequence(),
        "evicted": engine.evicted().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "quarantined": quarantined,
        "disk_full": engine.is_disk_full(),
    })
}

pub(super) async fn metrics(State(api): State<Shared>) -> Result<Response, ApiError> {
    let sample = api.handle.look(|engine, _| EngineSample::of(engine)).await?;
    let expires_s = api.certificate.as_ref().and_then(|certificate| certificate.identity().expires_s);
    let text = api.metrics.encode(sample, expires_s);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
