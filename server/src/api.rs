//! The HTTP API: JSON over HTTP/1.1, for applications, the command line and load balancers.
//!
//! `docs/http-api.md` is its reference. What can be asked, and who may, is declared by each part as operations, from which
//! routes, permissions and the OpenAPI document are made; who asks is found out in one place, `api/guard.rs`. Errors are
//! `{"error", "hint"}` and are made in one place, `api/error.rs`. Handlers hold no state: they ask the driver through a
//! [`Handle`] and wait. Paths of documents are parsed from the raw request path, since an encoded slash is part of a key.

mod audit;
pub(crate) mod auth;
pub(crate) mod body;
mod changes;
pub(crate) mod cluster;
pub(crate) mod documents;
pub(crate) mod error;
mod etag;
pub(crate) mod eviction;
pub(crate) mod guard;
mod list;
mod openapi;
pub(crate) mod operation;
pub(crate) mod path;
mod quarantine;
mod query;
mod roles;
mod spaces;
mod status;
mod templates;
mod timeline;
mod timestamp;
mod users;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::middleware::from_fn_with_state;
use ipnet::IpNet;
use knot_engine::Wall;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use self::error::{ApiError, Form};
use self::guard::admit;
use self::operation::{Needs, Operation, get};
use crate::accounts::Accounts;
use crate::handle::Handle;
use crate::metrics::Metrics;
use crate::run::Reload;
use crate::spaces::Spaces;
use crate::tls::Certificate;
use crate::{web, websocket};

pub(crate) use self::cluster::status_name;
pub(crate) use self::guard::Peer;
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
    /// Who may do what.
    pub accounts: Arc<Accounts>,
    /// Spaces.
    pub spaces: Arc<Spaces>,
    /// Proxies whose word counts on where a request comes from.
    pub trusted_proxies: Arc<[IpNet]>,
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
    /// Whether it is one of a cluster.
    pub is_clustered: bool,
    /// Waits.
    pub limits: Limits,
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState").field("name", &self.name).field("zone", &self.zone).finish_non_exhaustive()
    }
}

/// The state as handlers see it.
pub(crate) struct Api {
    state: ApiState,
    /// The hash of the machine's admin token.
    token: blake3::Hash,
    /// What the API can be asked.
    pub(crate) openapi: Value,
}

impl std::ops::Deref for Api {
    type Target = ApiState;

    fn deref(&self) -> &ApiState {
        &self.state
    }
}

pub(crate) type Shared = Arc<Api>;

/// All that the API can be asked.
fn operations() -> Vec<Operation> {
    let mut operations = vec![
        get("/api/openapi.json", "Server", "Describe this API", Needs::Nothing, || axum::routing::get(describe))
            .gives::<Value>(),
    ];
    operations.extend(status::operations());
    operations.extend(auth::operations());
    operations.extend(users::operations());
    operations.extend(roles::operations());
    operations.extend(templates::operations());
    operations.extend(spaces::operations());
    operations.extend(documents::operations());
    operations.extend(cluster::operations());
    operations.extend(audit::operations());
    operations
}

async fn describe(State(api): State<Shared>) -> axum::Json<Value> {
    axum::Json(api.openapi.clone())
}

/// The API's routes.
pub fn router(state: ApiState) -> Router {
    let operations: Vec<Arc<Operation>> = operations().into_iter().map(Arc::new).collect();
    let openapi = openapi::document(&operations, &state.version);
    let streams: BTreeSet<String> =
        state.stream_prefixes.iter().map(|prefix| format!("{prefix}{}", websocket::PATH)).collect();
    let api: Shared = Arc::new(Api { token: blake3::hash(state.token.as_bytes()), openapi, state });
    // A stream's two ends prove to each other who they are.
    let router =
        streams.iter().fold(Router::new(), |router, path| router.route(path, axum::routing::get(cluster::stream)));
    let router = operations.into_iter().fold(router, |router, operation| {
        let guarded =
            (operation.handler)().layer(from_fn_with_state((Arc::clone(&api), Arc::clone(&operation)), admit));
        // Keys may hold slashes.
        router.route(&operation.path.replace("{key}", "{*key}"), guarded)
    });
    router
        .merge(web::router(&api))
        .fallback(guard::nothing)
        .method_not_allowed_fallback(async || ApiError::WrongMethod)
        .layer(from_fn_with_state(Arc::clone(&api), guard::count))
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
