//! Spaces.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get as on_get, post as on_post};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::operation::{Needs, Operation, delete, get, post, put};
use super::query::{self, SpacesQuery, UnshareQuery};
use super::users::{DONE, Done};
use super::{Shared, body};
use crate::accounts::{Caller, Permission};
use crate::spaces::record::CustomValue;
use crate::spaces::{Away, NewSpace, Shown, SpaceChange, Start, View};

const USES: Needs = Needs::OneOf(&[Permission::UseSpaces, Permission::ManageSpaces]);
const TAG: &str = "Spaces";

pub(super) fn operations() -> Vec<Operation> {
    vec![
        get(
            "/api/spaces",
            TAG,
            "List spaces: one's own and those shared with one, or all to who manages them",
            USES,
            || on_get(list),
        )
        .query::<SpacesQuery>()
        .gives::<SpaceList>(),
        post("/api/spaces", TAG, "Make a space from a template", USES, || on_post(create))
            .takes::<NewSpaceBody>()
            .gives::<SpaceCreated>()
            .status(201),
        get("/api/spaces/{space_id}", TAG, "Read a space", USES, || on_get(read)).gives::<SpaceInfo>(),
        put("/api/spaces/{space_id}", TAG, "Change a space: what is not sent stays", USES, || {
            axum::routing::put(change)
        })
        .takes::<ChangeBody>()
        .gives::<Done>(),
        delete("/api/spaces/{space_id}", TAG, "Delete a space and its volumes", USES, || axum::routing::delete(remove))
            .gives::<Done>(),
        post("/api/spaces/{space_id}/start", TAG, "Start a space; one that runs goes on", USES, || on_post(start))
            .takes::<StartBody>()
            .gives::<Done>(),
        post("/api/spaces/{space_id}/restart", TAG, "Start a space anew", USES, || on_post(restart)).gives::<Done>(),
        post("/api/spaces/{space_id}/stop", TAG, "Stop a space; its volumes stay", USES, || on_post(stop))
            .gives::<Done>(),
        post("/api/spaces/{space_id}/transfer", TAG, "Give a space to another user", USES, || on_post(transfer))
            .takes::<Who>()
            .gives::<Done>(),
        post("/api/spaces/{space_id}/share", TAG, "Share a space with another user", USES, || on_post(share))
            .takes::<Who>()
            .gives::<Done>(),
        delete("/api/spaces/{space_id}/share", TAG, "Share a space no more", USES, || axum::routing::delete(unshare))
            .query::<UnshareQuery>()
            .gives::<Done>(),
    ]
}

#[derive(Debug, Serialize, JsonSchema)]
struct SpaceList {
    count: usize,
    spaces: Vec<SpaceInfo>,
    /// Spaces whose documents stay on the servers of another zone.
    elsewhere: Vec<Elsewhere>,
}

/// All that this server knows of a space that is resident in another zone.
#[derive(Debug, Serialize, JsonSchema)]
struct Elsewhere {
    space_id: String,
    user_id: String,
    username: String,
    zone: String,
    /// Servers that know the rest.
    urls: Vec<String>,
}

/// A space.
#[derive(Debug, Serialize, JsonSchema)]
struct SpaceInfo {
    space_id: String,
    name: String,
    description: String,
    note: String,
    user_id: String,
    username: String,
    template_id: String,
    template_name: String,
    zone: String,
    resident: bool,
    shares: Vec<User>,
    custom_fields: Vec<Filled>,
    /// pending, starting, running, stopping, stopped, failed, unreachable or deleting.
    state: &'static str,
    /// Why it failed.
    failure: Option<String>,
    /// How far its start is, as the server says that makes it.
    progress: Option<String>,
    /// Since when its server does not answer, where it does not, in milliseconds since 1970.
    unreachable_since: Option<i64>,
    /// When its container was started, in milliseconds since 1970.
    started_at: Option<i64>,
    /// The server that has it; empty before its first start.
    node_id: String,
    node_hostname: String,
    /// How often it was started.
    generation: u64,
    is_deployed: bool,
    is_pending: bool,
    is_deleting: bool,
    /// In milliseconds since 1970.
    created_at: i64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct User {
    user_id: String,
    username: String,
}

/// A field of the template with what is filled in for it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Filled {
    name: String,
    value: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct SpaceCreated {
    status: bool,
    space_id: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewSpaceBody {
    name: String,
    template_id: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    note: String,
    /// The owner's home zone if it is not said, else this server's.
    zone: Option<String>,
    /// Whether its documents stay on the servers of its zone.
    #[serde(default)]
    resident: bool,
    /// Whose it is to be; one's own if it is not said.
    user_id: Option<String>,
    #[serde(default)]
    custom_fields: Vec<Filled>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    name: Option<String>,
    description: Option<String>,
    note: Option<String>,
    custom_fields: Option<Vec<Filled>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StartBody {
    /// The server to start it on, by id or name. If it is not said: the one that has its volumes, or for a first start
    /// the one of its zone that carries least.
    node: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Who {
    /// A user, by id or name.
    user_id: String,
}

impl From<View> for SpaceInfo {
    fn from(view: View) -> Self {
        let state = view.state();
        let (failure, unreachable_since, started_at) =
            (view.error().map(str::to_owned), view.silent_since(), view.started_at());
        let is_pending = matches!(view.shown, Shown::Pending | Shown::Starting | Shown::Stopping);
        let shares = view.shares.into_iter().map(|(user_id, username)| User { user_id, username });
        let record = view.record;
        let fields = record.custom_fields.into_iter().map(|CustomValue { name, value }| Filled { name, value });
        Self {
            state,
            failure,
            progress: view.progress,
            unreachable_since,
            started_at,
            is_deployed: view.shown == Shown::Running,
            is_pending,
            is_deleting: view.shown == Shown::Deleting,
            space_id: record.id,
            name: record.name,
            description: record.description,
            note: record.note,
            user_id: record.user_id,
            username: view.owner,
            template_id: record.template_id,
            template_name: view.template,
            zone: record.zone,
            resident: record.resident,
            shares: shares.collect(),
            custom_fields: fields.collect(),
            node_id: record.node_id,
            node_hostname: view.server,
            generation: record.generation,
            created_at: record.created_at,
        }
    }
}

impl From<Away> for Elsewhere {
    fn from(away: Away) -> Self {
        let Away { stub, owner, urls } = away;
        Self { space_id: stub.space_id, user_id: stub.user_id, username: owner, zone: stub.zone, urls }
    }
}

fn filled(fields: Vec<Filled>) -> Vec<CustomValue> {
    fields.into_iter().map(|Filled { name, value }| CustomValue { name, value }).collect()
}

async fn list(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    uri: Uri,
) -> Result<axum::Json<SpaceList>, ApiError> {
    let SpacesQuery { user_id, template_id, zone } = query::parse(&uri)?;
    let is_meant = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
    let seen = api.spaces.list(&by).await?;
    let here = seen.here.into_iter().filter(|view| {
        is_meant(&user_id, &view.record.user_id)
            && is_meant(&template_id, &view.record.template_id)
            && is_meant(&zone, &view.record.zone)
    });
    let away = seen.away.into_iter().filter(|away| {
        template_id.is_none() && is_meant(&user_id, &away.stub.user_id) && is_meant(&zone, &away.stub.zone)
    });
    let spaces: Vec<SpaceInfo> = here.map(SpaceInfo::from).collect();
    Ok(axum::Json(SpaceList { count: spaces.len(), spaces, elsewhere: away.map(Elsewhere::from).collect() }))
}

async fn read(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<axum::Json<SpaceInfo>, ApiError> {
    Ok(axum::Json(api.spaces.read(&by, &id).await?.into()))
}

async fn create(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let NewSpaceBody { name, template_id, description, note, zone, resident, user_id, custom_fields } =
        body::form(&api, &headers, body).await?;
    let custom_fields = filled(custom_fields);
    let new = NewSpace { name, template_id, description, note, zone, resident, user_id, custom_fields };
    let space_id = api.spaces.create(&by, new).await?;
    Ok((StatusCode::CREATED, axum::Json(SpaceCreated { status: true, space_id })).into_response())
}

async fn change(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<axum::Json<Done>, ApiError> {
    let ChangeBody { name, description, note, custom_fields } = body::form(&api, &headers, body).await?;
    let change = SpaceChange { name, description, note, custom_fields: custom_fields.map(filled) };
    api.spaces.change(&by, &id, change).await?;
    Ok(DONE)
}

async fn remove(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<axum::Json<Done>, ApiError> {
    api.spaces.delete(&by, &id).await?;
    Ok(DONE)
}

async fn start(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<axum::Json<Done>, ApiError> {
    let StartBody { node } = body::form_or_default(&api, &headers, body).await?;
    api.spaces.start(&by, &id, node.as_deref().map_or(Start::Somewhere, Start::On)).await?;
    Ok(DONE)
}

async fn restart(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<axum::Json<Done>, ApiError> {
    api.spaces.start(&by, &id, Start::Again).await?;
    Ok(DONE)
}

async fn stop(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<axum::Json<Done>, ApiError> {
    api.spaces.stop(&by, &id).await?;
    Ok(DONE)
}

async fn transfer(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<axum::Json<Done>, ApiError> {
    let Who { user_id } = body::form(&api, &headers, body).await?;
    api.spaces.transfer(&by, &id, &user_id).await?;
    Ok(DONE)
}

async fn share(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<axum::Json<Done>, ApiError> {
    let Who { user_id } = body::form(&api, &headers, body).await?;
    api.spaces.share(&by, &id, &user_id).await?;
    Ok(DONE)
}

async fn unshare(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<axum::Json<Done>, ApiError> {
    let UnshareQuery { user_id } = query::parse(&uri)?;
    api.spaces.unshare(&by, &id, user_id.as_deref()).await?;
    Ok(DONE)
}
