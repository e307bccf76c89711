//! Cluster Info: all servers as this one sees them, and one server by itself.

mod server;
mod sight;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use knot_engine::membership::{ClockOffset, Member};
use knot_engine::{InStep, Instant, NodeId};

pub(super) use self::sight::{Tally, cut_off, sights};
use super::moment::{Moment, milliseconds, spoken};
use super::page::{Fault, LOGIN, Shell, show};
use super::zone_map::{Map, Zone};
use super::{Page, page};
use crate::accounts::{Caller, Permission};
use crate::api::Shared;
use crate::api::cluster::{EVICTED, status_name, via};
use crate::api::error::ApiError;
use crate::api::eviction;
use crate::api::operation::Needs;
use crate::handle::ServerEngine;
use crate::links::{Links, Pipe};
use crate::spaces::Place;

/// What differs for so short is being sent just now.
const BEHIND_AFTER: Duration = Duration::from_secs(2);
/// By how much clocks may differ before that is worth a look.
const CLOCK_OFF: Duration = Duration::from_secs(60);

pub(super) fn pages() -> Vec<Page> {
    const SEES: Needs = Needs::OneOf(&[Permission::ClusterInfo, Permission::ManageCluster]);
    const MANAGES: Needs = Needs::OneOf(&[Permission::ManageCluster]);
    vec![
        page("/banner", LOGIN, || get(banner)),
        page("/cluster-info", SEES, || get(overview)),
        page("/cluster-info/{id}", SEES, || get(server::show_one)),
        page("/cluster-info/{id}/{act}", MANAGES, || post(server::act)),
    ]
}

#[derive(Template)]
#[template(path = "banner.html")]
struct Banner {
    shell: Shell,
}

async fn banner(Extension(shell): Extension<Shell>) -> Response {
    show(&Banner { shell })
}

/// A server as it is listed.
struct Row {
    id: String,
    name: String,
    zone: String,
    state: &'static str,
    since: Option<Duration>,
    address: String,
    /// Where this server meets it, by the stream they have.
    observed: String,
    via: String,
    rtt: Option<Duration>,
    clock: Option<ClockOffset>,
    version: String,
    is_me: bool,
    step: Option<InStep>,
    differs_for: Option<Duration>,
    /// What it has said of itself, and which spaces it has.
    place: Place,
    /// When this is shown, in milliseconds since 1970.
    now: i64,
}

impl Row {
    fn of(engine: &ServerEngine, member: &Member, links: &Links, now: Instant) -> Self {
        let record = &member.record;
        let is_me = record.node == engine.me().record.node;
        let state = if engine.evicted().contains(&record.node) { EVICTED } else { status_name(member.status) };
        let step = engine.step_with(record.node).filter(|_| !is_me && state == "alive");
        Self {
            id: record.node.to_string(),
            name: record.name.clone(),
            zone: record.zone.clone(),
            state,
            since: Some(now.since(member.since)),
            address: record.addresses.first().map(ToString::to_string).unwrap_or_default(),
            observed: engine.stream_to(record.node).and_then(|session| links.address(session)).unwrap_or_default(),
            via: path_to(engine, member, links),
            rtt: member.rtt,
            clock: member.clock,
            version: record.version.clone(),
            is_me,
            step,
            differs_for: match step {
                Some(InStep::No { since }) => Some(now.since(since)).filter(|long| *long >= BEHIND_AFTER),
                Some(InStep::Yes) | None => None,
            },
            place: Place::default(),
            now: 0,
        }
    }

    /// The same with what it has said of itself.
    fn with(self, places: &BTreeMap<String, Place>, now: i64) -> Self {
        let place = places.get(&self.id).cloned().unwrap_or_default();
        Self { place, now, ..self }
    }

    /// How long it has been up; nothing where it is not, or has not said.
    fn uptime_text(&self) -> String {
        let facts = self.place.facts.as_ref().filter(|_| self.state == "alive");
        facts.map(|facts| spoken(Duration::from_millis(self.now.abs_diff(facts.started_at)))).unwrap_or_default()
    }

    /// How much its data takes, as it said last.
    fn size_text(&self) -> String {
        self.place.facts.as_ref().map(|facts| sized(facts.bytes)).unwrap_or_default()
    }

    /// How many documents it had, as it said last.
    fn documents_text(&self) -> String {
        self.place.facts.as_ref().map(|facts| facts.documents.to_string()).unwrap_or_default()
    }

    /// What it runs spaces on.
    fn runtime_text(&self) -> String {
        self.place.facts.as_ref().map(|facts| facts.runtime.clone()).unwrap_or_default()
    }

    /// One that is shut out and of which nothing else is known.
    fn of_stranger(node: &NodeId) -> Self {
        Self {
            id: node.to_string(),
            name: String::new(),
            zone: String::new(),
            state: EVICTED,
            since: None,
            address: String::new(),
            observed: String::new(),
            via: String::new(),
            rtt: None,
            clock: None,
            version: String::new(),
            is_me: false,
            step: None,
            differs_for: None,
            place: Place::default(),
            now: 0,
        }
    }

    fn since_text(&self) -> String {
        self.since.map(spoken).unwrap_or_default()
    }

    fn rtt_text(&self) -> String {
        self.rtt.map(milliseconds).unwrap_or_default()
    }

    /// How far its clock is ahead of this server's or behind it; where that cannot be told, how much it may be.
    fn clock_text(&self) -> String {
        let Some(ClockOffset { ahead_ms, within, .. }) = self.clock else {
            return String::new();
        };
        let apart = Duration::from_millis(ahead_ms.unsigned_abs());
        if apart <= within {
            return format!("± {}", milliseconds(within));
        }
        let apart = if apart < Duration::from_secs(1) { milliseconds(apart) } else { spoken(apart) };
        format!("{apart} {}", if ahead_ms > 0 { "ahead" } else { "behind" })
    }

    /// Whether that is enough to puzzle people, or to end what ends by the clock at other times than elsewhere.
    fn is_clock_off(&self) -> bool {
        let apart = |clock: ClockOffset| Duration::from_millis(clock.ahead_ms.unsigned_abs());
        self.clock.is_some_and(|clock| apart(clock) > CLOCK_OFF + clock.within)
    }

    fn step_text(&self) -> String {
        match (self.is_me, self.step, self.differs_for) {
            (true, _, _) | (_, None, _) => String::new(),
            (_, Some(_), Some(long)) => format!("differs for {}", spoken(long)),
            (_, Some(_), None) => "yes".to_owned(),
        }
    }
}

/// An amount of data in its greatest unit that fits.
fn sized(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    let fits = UNITS.into_iter().find(|(unit, _)| bytes >= *unit);
    fits.map_or_else(
        || format!("{bytes} B"),
        |(unit, name)| format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
    )
}

/// By what this server and a member speak with each other.
fn path_to(engine: &ServerEngine, member: &Member, links: &Links) -> String {
    let link = engine.stream_to(member.record.node).and_then(|session| links.get(session));
    let path = via(link.map(|link| link.pipe), member.datagrams).unwrap_or_default();
    match link.map(|link| link.pipe) {
        Some(Pipe::Circuit { carrier }) => {
            let carrier = engine.member(&carrier).map(|member| member.record.name.clone()).unwrap_or_default();
            format!("{path} through {carrier}")
        }
        Some(Pipe::Tcp | Pipe::WebSocket) | None => path.to_owned(),
    }
}

/// How far the servers that are alive hold the same.
struct Sync {
    same: usize,
    behind: usize,
    longest: Option<String>,
    unknown: usize,
}

impl Sync {
    fn of(rows: &[Row]) -> Self {
        let others = || rows.iter().filter(|row| !row.is_me && row.state == "alive");
        let behind = others().filter(|row| row.differs_for.is_some()).count();
        let unknown = others().filter(|row| row.step.is_none()).count();
        let longest = others().filter_map(|row| row.differs_for).max().map(spoken);
        Self { same: others().count() - behind - unknown, behind, longest, unknown }
    }
}

#[derive(Template)]
#[template(path = "cluster.html")]
struct Overview {
    shell: Shell,
    counts: Vec<(&'static str, usize)>,
    zones: usize,
    sync: Sync,
    versions: Vec<String>,
    rows: Vec<Row>,
    map: Map,
    uptime: String,
    documents: u64,
    troubles: Vec<(String, String, Moment)>,
    /// Who is shut out, and why: id, name, reason.
    evicted: Vec<(String, String, String)>,
    may_manage: bool,
}

async fn overview(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
) -> Result<Response, Fault> {
    if !api.is_clustered {
        return Err(ApiError::NoRoute.into());
    }
    let links = api.handle.links().clone();
    let (mut rows, documents, connected) = api
        .handle
        .look(move |engine, now| {
            let rows = engine.members().map(|member| Row::of(engine, &member, &links, now));
            let is_unknown = |node: &&NodeId| engine.member(node).is_none();
            let strangers = engine.evicted().iter().filter(is_unknown).map(Row::of_stranger);
            let rows: Vec<Row> = rows.chain(strangers).collect();
            let is_connected = |member: &Member| engine.is_direct_to(member.record.node);
            let connected = engine.members().filter(is_connected).flat_map(|member| member.record.addresses.clone());
            let connected: BTreeSet<String> = connected.map(|address| address.to_string()).collect();
            (rows, engine.scopes().iter().map(|scope| scope.documents).sum(), connected)
        })
        .await?;
    for row in rows.iter_mut().filter(|row| row.name.is_empty()) {
        if let Ok(node) = row.id.parse() {
            row.name = eviction::name_of(&api, &node).await?.unwrap_or_else(|| row.id.clone());
        }
    }
    let mut evicted = Vec::new();
    for row in rows.iter().filter(|row| row.state == EVICTED) {
        if let Ok(node) = row.id.parse() {
            let reason = eviction::reason_of(&api, &node).await?.unwrap_or_default();
            evicted.push((row.id.clone(), row.name.clone(), reason));
        }
    }
    let places = api.spaces.places().await?;
    let wall = (api.wall)().0;
    let mut rows: Vec<Row> = rows.into_iter().map(|row| row.with(&places, wall)).collect();
    rows.sort_by_cached_key(|row| (row.zone.clone(), row.name.to_lowercase(), row.id.clone()));
    let now = (api.wall)();
    // Whom one way leads to needs no other.
    let troubles = api.handle.links().troubles(now).into_iter().filter(|one| !connected.contains(&one.address));
    let troubles = troubles.map(|one| (one.address, one.error, Moment::of(one.since.0, now.0))).collect();
    Ok(show(&Overview {
        shell: shell.watching(&[("watch", "cluster")]),
        counts: counts(&rows),
        zones: rows.iter().map(|row| &row.zone).filter(|zone| !zone.is_empty()).collect::<BTreeSet<_>>().len(),
        sync: Sync::of(&rows),
        versions: versions(&rows),
        map: map(&api.zone, &rows),
        rows,
        uptime: spoken(api.started.elapsed()),
        documents,
        troubles,
        evicted,
        may_manage: by.may(Permission::ManageCluster),
    }))
}

fn counts(rows: &[Row]) -> Vec<(&'static str, usize)> {
    let states = ["alive", "suspect", "failed", "left", EVICTED];
    states.map(|state| (state, rows.iter().filter(|row| row.state == state).count())).to_vec()
}

/// The versions of those that belong to the cluster.
fn versions(rows: &[Row]) -> Vec<String> {
    let here = rows.iter().filter(|row| !matches!(row.state, "left" | EVICTED) && !row.version.is_empty());
    here.map(|row| row.version.clone()).collect::<BTreeSet<_>>().into_iter().collect()
}

fn map(own: &str, rows: &[Row]) -> Map {
    let mut zones: BTreeMap<&str, Zone> = BTreeMap::new();
    for row in rows.iter().filter(|row| !matches!(row.state, "left" | EVICTED)) {
        let new = || Zone { name: row.zone.clone(), servers: 0, alive: 0, rtt: None };
        let zone = zones.entry(&row.zone).or_insert_with(new);
        zone.servers += 1;
        if row.state == "alive" {
            zone.alive += 1;
            zone.rtt = zone.rtt.into_iter().chain(row.rtt).min();
        }
    }
    let none = || Zone { name: own.to_owned(), servers: 0, alive: 0, rtt: None };
    let centre = zones.remove(own).unwrap_or_else(none);
    Map::draw(centre, zones.into_values().collect())
}
