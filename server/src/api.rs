//! The HTTP API: JSON over HTTP/1.1, for applications, the command line and load balancers.
//!
//! `docs/http-api.md` is its reference. Everything under `/api` but `/api/ping` takes the admin token; errors are
//! `{"error", "hint"}` and are made in one place, `api/error.rs`. Handlers hold no state: they ask the driver through a
//! [`Handle`] and wait. Paths of documents are parsed from the raw request path, since an encoded slash is part of a key.

mod body;
mod changes;
mod cluster;
mod documents;
mod error;
mod etag;
mod eviction;
mod list;
mod path;
mod quarantine;
mod query;
mod status;
mod timestamp;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use knot_engine::Wall;
use tokio::sync::watch;
use tokio::time::Instant;

use self::error::{ApiError, Form};
use crate::handle::Handle;
use crate::metrics::{Metrics, Route};
use crate::run::Reload;
use crate::tls::Certificate;
use crate::websocket;

pub(crate) use self::cluster::status_name;
pub(crate) use self::timestamp::rfc3339;

/// Longest request body, in bytes.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Longest path and query, in bytes. A key of 512 bytes takes 1,536 when every byte is percent-encoded.
pub const URI_BYTES_MAX: usize = 8 << 10;
/// Most header fields in a request.
pub const HEADERS_MAX: usize = 64;
/// Longest header fields of a request, names and values counted together, in bytes.
pub const HEADER_BYTES_MAX: usize = 32 << 10;
/// Longest wait for other servers that `?timeout=` may ask for.
pub const REPLICAS_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// The wait for other servers where `?timeout=` does not say.
pub const REPLICAS_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// How long a body may take to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a change feed says that it is still there.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// Waits that tests shorten. No configuration reaches them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How often a change feed says that it is still there.
    pub heartbeat: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body_timeout: BODY_TIMEOUT, heartbeat: HEARTBEAT }
    }
}

/// What the API answers from.
#[derive(Clone)]
pub struct ApiState {
    /// The way to the driver.
    pub handle: Handle,
    /// The admin token.
    pub token: Arc<str>,
    /// This server's label.
    pub name: Arc<str>,
    /// Its zone.
    pub zone: Arc<str>,
    /// The version of its software.
    pub version: Arc<str>,
    /// When it started.
    pub started: Instant,
    /// The wall clock, for showing times to people.
    pub wall: Arc<dyn Fn() -> Wall + Send + Sync>,
    /// Counts of requests.
    pub metrics: Arc<Metrics>,
    /// What the API shows for a certificate; none where it runs without TLS.
    pub certificate: Option<Arc<Certificate>>,
    /// Turns true when the server begins to stop; change feeds end then.
    pub stopping: watch::Receiver<bool>,
    /// Who reads the configuration again.
    pub reload: Option<Reload>,
    /// What stands before the path at which other servers open WebSockets, as this one's addresses have it; none where
    /// they do not come.
    pub stream_prefixes: Vec<String>,
    /// Waits.
    pub limits: Limits,
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState").field("name", &self.name).field("zone", &self.zone).finish_non_exhaustive()
    }
}

/// The state as handlers see it.
struct Api {
    state: ApiState,
    /// Tokens are compared by their hashes, whose comparison takes the same time wherever they differ.
    token: blake3::Hash,
    /// The paths at which other servers open WebSockets.
    streams: BTreeSet<String>,
}

impl std::ops::Deref for Api {
    type Target = ApiState;

    fn deref(&self) -> &ApiState {
        &self.state
    }
}

type Shared = Arc<Api>;

/// The API's routes.
pub fn router(state: ApiState) -> Router {
    let streams = state.stream_prefixes.iter().map(|prefix| format!("{prefix}{}", websocket::PATH)).collect();
    let api: Shared = Arc::new(Api { token: blake3::hash(state.token.as_bytes()), streams, state });
    let document = || get(documents::get).put(documents::put).patch(documents::patch).delete(documents::delete);
    let router = api.streams.iter().fold(Router::new(), |router, path| router.route(path, get(cluster::stream)));
    router
        .route("/health", get(status::health))
        .route("/livez", get(status::livez))
        .route("/readyz", get(status::readyz))
        .route("/metrics", get(status::metrics))
        .route("/api/ping", get(status::ping))
        .route("/api/documents/{collection}", get(list::list))
        .route("/api/documents/{collection}/{*key}", document())
        .route("/api/zones/{zone}/documents/{collection}", get(list::list))
        .route("/api/zones/{zone}/documents/{collection}/{*key}", document())
        .route("/api/changes", get(changes::changes))
        .route("/api/cluster", get(cluster::members).delete(cluster::force_leave))
        .route("/api/cluster/evict", post(eviction::evict))
        .route("/api/cluster/quarantine", get(quarantine::list))
        .route("/api/cluster/quarantine/drop", post(quarantine::drop))
        .route("/api/cluster/quarantine/release", post(quarantine::release))
        .route("/api/cluster/readmit", post(eviction::readmit))
        .route("/api/cluster/leave", post(cluster::leave))
        .route("/api/cluster/status", get(status::status))
        .route("/api/reload", post(status::reload))
        .fallback(async || ApiError::NoRoute)
        .method_not_allowed_fallback(async || ApiError::WrongMethod)
        .layer(from_fn_with_state(Arc::clone(&api), guard))
        .with_state(api)
}

/// What is sent to a peer whose request's head does not arrive in time.
pub(crate) fn head_timeout(limit: Duration) -> Vec<u8> {
    ApiError::Form(Form::HeadTimeout(limit)).raw()
}

/// What is sent to a peer that connects while `limit` others are connected.
pub(crate) fn too_many_connections(limit: usize) -> Vec<u8> {
    ApiError::TooManyConnections(limit).raw()
}

/// What is sent to a peer that connects while `limit` others from its host are connected.
pub(crate) fn too_many_of_one_host(limit: usize) -> Vec<u8> {
    ApiError::TooManyOfOneHost(limit).raw()
}

/// Checks what every request has to pass, and counts it.
async fn guard(State(api): State<Shared>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = Route::of(request.method(), request.uri().path());
    let response = match check(&api, request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    api.metrics.on_response(route, response.status(), began.elapsed());
    response
}

fn check(api: &Api, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    if uri.path_and_query().is_some_and(|text| text.as_str().len() > URI_BYTES_MAX) {
        return Err(Form::UriTooLong.into());
    }
    if headers.len() > HEADERS_MAX {
        return Err(Form::TooManyHeaders.into());
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > HEADER_BYTES_MAX {
        return Err(Form::HeadersTooLong.into());
    }
    let path = uri.path();
    // A stream's two ends prove to each other who they are.
    let open = path == "/api/ping" || api.streams.contains(path) || !(path == "/api" || path.starts_with("/api/"));
    if open || is_authorized(api, headers) { Ok(()) } else { Err(ApiError::Unauthorized) }
}

fn is_authorized(api: &Api, headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()) else {
        return false;
    };
    let Some((scheme, token)) = value.split_at_checked("Bearer ".len()) else {
        return false;
    };
    scheme.eq_ignore_ascii_case(b"Bearer ") && blake3::hash(token.trim_ascii()) == api.token
}
