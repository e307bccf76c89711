//! One server: what it says of itself, how it has done, and taking it out.

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use knot_engine::NodeId;

use super::{Row, path_to};
use crate::accounts::{Caller, Permission};
use crate::api::Shared;
use crate::api::cluster::{EVICTED, Who, status_name, take_out};
use crate::api::error::{ApiError, MemberError};
use crate::api::eviction;
use crate::transitions::Transition;
use crate::web::form::Fields;
use crate::web::moment::{Moment, milliseconds, spoken};
use crate::web::page::{Fault, Problem, Shell, show_as};

/// What is known of a server.
struct Known {
    row: Row,
    url: String,
    addresses: Vec<String>,
    incarnation: String,
    path: String,
    last_seen: Option<std::time::Duration>,
    is_durable: bool,
}

impl Known {
    /// One that is shut out and of which nothing else is known.
    fn stranger(node: &NodeId) -> Self {
        Self {
            row: Row::of_stranger(node),
            url: String::new(),
            addresses: Vec::new(),
            incarnation: String::new(),
            path: String::new(),
            last_seen: None,
            is_durable: false,
        }
    }
}

/// A step from one status to another.
struct Step {
    from: &'static str,
    to: &'static str,
    at: Moment,
    why: String,
}

#[derive(Template)]
#[template(path = "server.html")]
struct One {
    shell: Shell,
    problem: Option<Problem>,
    known: Known,
    steps: Vec<Step>,
    uptime: String,
    documents: u64,
    may_manage: bool,
    /// Why it is shut out, where that was said.
    reason: Option<String>,
}

impl One {
    async fn new(api: &Shared, shell: Shell, by: &Caller, id: &str) -> Result<Self, ApiError> {
        let node: NodeId = id.parse().map_err(|_| MemberError::Unknown)?;
        let links = api.handle.links().clone();
        let looked = api.handle.look(move |engine, now| {
            let documents = engine.scopes().iter().map(|scope| scope.documents).sum();
            let Some(member) = engine.member(&node) else {
                let is_evicted = engine.evicted().contains(&node);
                return is_evicted.then(|| (Known::stranger(&node), documents)).ok_or(MemberError::Unknown);
            };
            let known = Known {
                row: Row::of(engine, &member, &links, now),
                url: member.record.url.clone(),
                addresses: member.record.addresses.iter().map(ToString::to_string).collect(),
                incarnation: member.record.incarnation.to_string(),
                path: path_to(engine, &member, &links),
                last_seen: member.last_seen.map(|seen| now.since(seen)),
                is_durable: member.durable,
            };
            Ok((known, documents))
        });
        let (mut known, documents) = looked.await??;
        known.row = known.row.with(&api.spaces.places().await?, (api.wall)().0);
        let mut reason = None;
        if known.row.state == EVICTED {
            reason = eviction::reason_of(api, &node).await?;
        }
        if known.row.name.is_empty() {
            known.row.name = eviction::name_of(api, &node).await?.unwrap_or_else(|| known.row.id.clone());
        }
        let now = (api.wall)().0;
        let step = |transition: Transition| Step {
            from: transition.from.map_or("not known", status_name),
            to: status_name(transition.to),
            at: Moment::of(transition.at.0, now),
            why: transition.why(),
        };
        Ok(Self {
            shell: shell.watching(&[("watch", "cluster")]),
            problem: None,
            known,
            steps: api.handle.transitions().of(node).into_iter().map(step).collect(),
            uptime: spoken(api.started.elapsed()),
            documents,
            may_manage: by.may(Permission::ManageCluster),
            reason,
        })
    }

    fn rtt(&self) -> String {
        self.known.row.rtt.map(milliseconds).unwrap_or_default()
    }

    fn last_seen(&self) -> String {
        self.known.last_seen.map(|long| format!("{} ago", spoken(long))).unwrap_or_default()
    }
}

pub(super) async fn show_one(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    Ok(show_as(StatusCode::OK, &One::new(&api, shell, &by, &id).await?))
}

/// What takes the server's name to be typed.
#[derive(Clone, Copy, Debug)]
enum Act {
    Leave,
    Evict,
    Readmit,
}

impl Act {
    /// The one that an address names.
    fn named(name: &str) -> Option<Self> {
        match name {
            "leave" => Some(Self::Leave),
            "evict" => Some(Self::Evict),
            "readmit" => Some(Self::Readmit),
            _ => None,
        }
    }

    /// Does it, and gives the word that says so.
    async fn carry_out(self, api: &Shared, node: NodeId, fields: &Fields) -> Result<&'static str, ApiError> {
        match self {
            Self::Leave => {
                let force = fields.has("force");
                api.handle.look(move |engine, now| take_out(engine, &Who::Id(node), force, now)).await??;
                Ok("server-left")
            }
            Self::Evict => {
                let reason = Some(fields.text("reason")).filter(|reason| !reason.is_empty());
                eviction::shut_out(api, Who::Id(node), reason).await?;
                Ok("server-evicted")
            }
            Self::Readmit => {
                eviction::let_in(api, node).await?;
                Ok("server-readmitted")
            }
        }
    }
}

/// Does what a form asks for, if the server's name was typed into it.
pub(super) async fn act(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path((id, act)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let act = Act::named(&act).ok_or(ApiError::NoRoute)?;
    let fields = Fields::read(&api, &headers, body).await?;
    let page = One::new(&api, shell, &by, &id).await?;
    let node: NodeId = id.parse().map_err(|_| MemberError::Unknown)?;
    let problem = if fields.text("name") == page.known.row.name {
        match act.carry_out(&api, node, &fields).await {
            Ok(done) => return Ok(Redirect::to(&format!("/cluster-info?done={done}")).into_response()),
            Err(error) => Problem::of(&error),
        }
    } else {
        Problem::new("That is not the server's name.", "Nothing was done. Type the name as it is written below.")
    };
    Ok(show_as(problem.status, &One { problem: Some(problem), ..page }))
}
