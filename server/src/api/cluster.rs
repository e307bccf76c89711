//! The cluster: its members, and taking one out.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete as on_delete, get as on_get, post as on_post};
use knot_engine::membership::{ForceLeaveError, Member, Status};
use knot_engine::{Instant, NodeId, Wall};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::{ApiError, Form, MemberError};
use super::operation::{self as op, Needs, Operation, get, post};
use super::query::{self, MembersQuery, NoQuery, TimelineQuery};
use super::{Shared, body, eviction, quarantine, status, timeline, timestamp};
use crate::accounts::Permission;
use crate::handle::ServerEngine;
use crate::links::{Link, Pipe, Trouble};
use crate::websocket;

const TAG: &str = "Cluster";
const SEES: Needs = Needs::OneOf(&[Permission::ClusterInfo, Permission::ManageCluster]);
const MANAGES: Needs = Needs::OneOf(&[Permission::ManageCluster]);

pub(super) fn operations() -> Vec<Operation> {
    vec![
        get("/api/cluster", TAG, "List servers", SEES, || on_get(members)).query::<MembersQuery>().gives::<Members>(),
        op::delete("/api/cluster", TAG, "Take a server out", MANAGES, || on_delete(force_leave))
            .takes::<ForceLeave>()
            .gives::<Value>(),
        get("/api/cluster-info", TAG, "List servers, in short", SEES, || on_get(info)).gives::<Vec<Info>>(),
        get("/api/cluster/status", TAG, "Say how this server is", SEES, || on_get(status::status)).gives::<Value>(),
        get("/api/cluster/timeline", TAG, "Tell what became of servers, and why", SEES, || on_get(timeline::timeline))
            .query::<TimelineQuery>()
            .gives::<timeline::Timeline>(),
        post("/api/cluster/evict", TAG, "Shut a server out", MANAGES, || on_post(eviction::evict))
            .takes::<eviction::Asked>()
            .gives::<Value>(),
        post("/api/cluster/readmit", TAG, "Let a server in again", MANAGES, || on_post(eviction::readmit))
            .takes::<eviction::Asked>()
            .gives::<Value>(),
        get("/api/cluster/quarantine", TAG, "List changes in quarantine", SEES, || on_get(quarantine::list))
            .gives::<Value>(),
        post("/api/cluster/quarantine/release", TAG, "Judge changes anew", MANAGES, || on_post(quarantine::release))
            .takes::<quarantine::Asked>()
            .gives::<Value>(),
        post("/api/cluster/quarantine/drop", TAG, "Put a change aside here", MANAGES, || on_post(quarantine::drop))
            .takes::<quarantine::Asked>()
            .gives::<Value>(),
        post("/api/cluster/leave", TAG, "Retire and stop this server", MANAGES, || on_post(leave))
            .gives::<Value>()
            .status(202),
        post("/api/reload", TAG, "Read the configuration again", MANAGES, || on_post(status::reload)).gives::<Value>(),
    ]
}

/// A server, as other software of this kind lists them.
#[derive(Serialize, JsonSchema)]
struct Info {
    id: String,
    address: String,
    state: &'static str,
    metadata: BTreeMap<&'static str, String>,
}

async fn info(State(api): State<Shared>) -> Result<axum::Json<Vec<Info>>, ApiError> {
    let places = api.spaces.places().await?;
    let info = move |member: Member| {
        let record = &member.record;
        let place = places.get(&record.node.to_string()).cloned().unwrap_or_default();
        let metadata = [
            ("running_spaces", place.running.to_string()),
            ("allocated_spaces", place.placed.to_string()),
            ("runtimes", place.facts.map(|facts| facts.runtime).unwrap_or_default()),
            ("hostname", record.name.clone()),
            ("zone", record.zone.clone()),
            ("api_endpoint", record.url.clone()),
            ("version", record.version.clone()),
        ];
        Info {
            id: record.node.to_string(),
            address: record.addresses.first().map(ToString::to_string).unwrap_or_default(),
            state: status_name(member.status),
            metadata: metadata.into(),
        }
    };
    Ok(axum::Json(api.handle.look(move |engine, _| engine.members().map(info).collect()).await?))
}

/// The member list.
#[derive(Serialize, JsonSchema)]
struct Members {
    data: Vec<Row>,
    total: usize,
    /// What stands in the way of streams.
    troubles: Vec<TroubleRow>,
}

#[derive(Serialize, JsonSchema)]
struct TroubleRow {
    address: String,
    error: String,
    since: String,
}

/// One row of it. Of a server that is shut out there may be nothing to know but that.
#[derive(Default, Serialize, JsonSchema)]
struct Row {
    id: String,
    name: Option<String>,
    zone: Option<String>,
    address: Option<String>,
    addresses: Vec<String>,
    via: Option<&'static str>,
    through: Option<String>,
    key: Option<String>,
    url: Option<String>,
    status: &'static str,
    incarnation: Option<String>,
    version: Option<String>,
    rtt_ms: Option<f64>,
    clock_ahead_ms: Option<i64>,
    clock_within_ms: Option<f64>,
    last_seen: Option<String>,
}

/// Whom to force out.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ForceLeave {
    name: Option<String>,
    id: Option<String>,
    #[serde(default)]
    force: bool,
}

pub(super) async fn members(State(api): State<Shared>, uri: Uri) -> Result<Response, ApiError> {
    let MembersQuery { status } = query::parse(&uri)?;
    let wanted = status.as_deref().map(parse_status).transpose()?;
    let wall = (api.wall)();
    let links = api.handle.links().clone();
    let (mut data, connected): (Vec<Row>, BTreeSet<String>) = api
        .handle
        .look(move |engine, now| {
            let me = engine.me().record.node;
            let row = |member: Member| {
                let link = engine.stream_to(member.record.node).and_then(|session| links.get(session));
                let through = match link.map(|link| link.pipe) {
                    Some(Pipe::Circuit { carrier }) => engine.member(&carrier).map(|member| member.record.name.clone()),
                    _ => None,
                };
                let row = Row { through, ..row(&member, me, link, now, wall) };
                let is_evicted = engine.evicted().contains(&member.record.node);
                if is_evicted { Row { status: EVICTED, via: None, through: None, ..row } } else { row }
            };
            let is_connected = |member: &Member| engine.is_direct_to(member.record.node);
            let connected = engine.members().filter(is_connected).flat_map(|member| member.record.addresses.clone());
            let connected = connected.map(|address| address.to_string()).collect();
            let is_unknown = |node: &&NodeId| engine.member(node).is_none();
            let unknown = engine.evicted().iter().filter(is_unknown);
            let unknown = unknown.map(|node| Row { id: node.to_string(), status: EVICTED, ..Row::default() });
            let rows = engine.members().map(row).chain(unknown);
            (rows.filter(|row| wanted.is_none_or(|wanted| row.status == wanted)).collect(), connected)
        })
        .await?;
    for row in data.iter_mut().filter(|row| row.name.is_none()) {
        if let Ok(node) = row.id.parse() {
            row.name = eviction::name_of(&api, &node).await?;
        }
    }
    let trouble =
        |Trouble { address, error, since, .. }| TroubleRow { address, error, since: timestamp::rfc3339(since) };
    // Whom one way leads to needs no other.
    let troubles =
        api.handle.links().troubles(wall).into_iter().filter(|trouble| !connected.contains(&trouble.address));
    let troubles = troubles.map(trouble).collect();
    Ok(axum::Json(Members { total: data.len(), data, troubles }).into_response())
}

pub(super) async fn force_leave(
    State(api): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    const FORM: Form = Form::BadBody(
        "send {\"name\": \"n1\"} or {\"id\": \"<32 hexadecimal digits>\"}, and \"force\": true where meant",
    );
    let NoQuery {} = query::parse(&uri)?;
    let asked: ForceLeave = serde_json::from_value(body::json(&api, &headers, body).await?).map_err(|_| FORM)?;
    let who = Who::of(asked.name, asked.id).ok_or(FORM)?;
    let left = api
        .handle
        .look(move |engine, now| {
            let (node, name) = take_out(engine, &who, asked.force, now)?;
            Ok::<_, MemberError>(json!({"id": node.to_string(), "name": name, "status": status_name(Status::Left)}))
        })
        .await??;
    Ok(axum::Json(left).into_response())
}

/// Makes a member leave.
pub(crate) fn take_out(
    engine: &mut ServerEngine,
    who: &Who,
    force: bool,
    now: Instant,
) -> Result<(NodeId, String), MemberError> {
    let (node, name) = find(engine, who)?;
    engine.force_leave(&node, force, now).map_err(|error| match error {
        ForceLeaveError::Unknown => MemberError::Unknown,
        ForceLeaveError::Alive => MemberError::Alive,
        ForceLeaveError::Myself => MemberError::ThisServer,
    })?;
    Ok((node, name))
}

pub(super) async fn leave(State(api): State<Shared>, uri: Uri) -> Result<Response, ApiError> {
    let NoQuery {} = query::parse(&uri)?;
    api.handle.leave(true).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(json!({"status": "leaving"}))).into_response())
}

/// Where other servers open WebSockets. Who they are they prove inside.
pub(super) async fn stream(request: Request) -> Result<Response, ApiError> {
    websocket::switch(&request).map_err(ApiError::NoWebSocket)
}

/// A member as people name it.
pub(crate) enum Who {
    Name(String),
    Id(NodeId),
}

impl Who {
    /// From one of the two; none where it is both, neither, or no id.
    pub(super) fn of(name: Option<String>, id: Option<String>) -> Option<Self> {
        match (name, id) {
            (Some(name), None) => Some(Self::Name(name)),
            (None, Some(id)) => id.parse().ok().map(Self::Id),
            (Some(_), Some(_)) | (None, None) => None,
        }
    }

    pub(super) fn is(&self, node: &NodeId, name: &str) -> bool {
        match self {
            Self::Name(meant) => meant == name,
            Self::Id(meant) => meant == node,
        }
    }
}

/// The one member that is meant. A name is first looked for among those that have not left: who comes back without its
/// folder has the name of who left.
pub(crate) fn find(engine: &ServerEngine, who: &Who) -> Result<(NodeId, String), MemberError> {
    let is_meant = |member: &Member| who.is(&member.record.node, &member.record.name);
    let (left, here): (Vec<Member>, Vec<Member>) =
        engine.members().filter(is_meant).partition(|member| member.status == Status::Left);
    match if here.is_empty() { &left[..] } else { &here } {
        [] => Err(MemberError::Unknown),
        [member] => Ok((member.record.node, member.record.name.clone())),
        several => Err(MemberError::Ambiguous(several.iter().map(|member| member.record.node.to_string()).collect())),
    }
}

/// How this server speaks with a member: by what its stream goes through, and by datagram where those arrive. None where
/// it is others that do.
pub(crate) fn via(pipe: Option<Pipe>, datagrams: bool) -> Option<&'static str> {
    match (pipe, datagrams) {
        (Some(Pipe::Tcp), true) => Some("tcp+udp"),
        (Some(Pipe::WebSocket), true) => Some("wss+udp"),
        (Some(Pipe::Circuit { .. }), true) => Some("circuit+udp"),
        (Some(pipe), false) => Some(pipe.name()),
        (None, true) => Some("udp"),
        (None, false) => None,
    }
}

fn row(member: &Member, me: NodeId, link: Option<Link>, now: Instant, wall: Wall) -> Row {
    let seen = if member.record.node == me { Some(now) } else { member.last_seen };
    let record = &member.record;
    Row {
        id: record.node.to_string(),
        name: Some(record.name.clone()),
        zone: Some(record.zone.clone()),
        address: record.addresses.first().map(ToString::to_string),
        addresses: record.addresses.iter().map(ToString::to_string).collect(),
        via: via(link.map(|link| link.pipe), member.datagrams),
        through: None,
        key: link.and_then(|link| link.key).map(|key| key.to_string()),
        url: Some(record.url.clone()),
        status: status_name(member.status),
        incarnation: Some(record.incarnation.to_string()),
        version: Some(record.version.clone()),
        rtt_ms: member.rtt.map(|rtt| rtt.as_secs_f64() * 1_000.0),
        clock_ahead_ms: member.clock.map(|clock| clock.ahead_ms),
        clock_within_ms: member.clock.map(|clock| clock.within.as_secs_f64() * 1_000.0),
        last_seen: seen.map(|seen| timestamp::rfc3339(before(wall, now.since(seen)))),
    }
}

fn before(wall: Wall, elapsed: std::time::Duration) -> Wall {
    Wall(wall.0.saturating_sub(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)))
}

/// What the status of a member is called that is shut out.
pub(crate) const EVICTED: &str = "evicted";
const STATUSES: [Status; 4] = [Status::Alive, Status::Suspect, Status::Failed, Status::Left];

/// What a status is called.
pub(crate) fn status_name(status: Status) -> &'static str {
    match status {
        Status::Alive => "alive",
        Status::Suspect => "suspect",
        Status::Failed => "failed",
        Status::Left => "left",
    }
}

/// The one of the names that rows have for a status.
fn parse_status(text: &str) -> Result<&'static str, ApiError> {
    let names = || STATUSES.map(status_name).into_iter().chain([EVICTED]);
    let unknown = || Form::BadQuery(format!("status is one of {}", names().collect::<Vec<_>>().join(", ")));
    names().find(|name| *name == text).ok_or_else(|| unknown().into())
}
