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
use crate::api::cluster::{Who, status_name, take_out};
use crate::api::error::{ApiError, MemberError};
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

/// A step from one status to another.
struct Step {
    from: &'static str,
    to: &'static str,
    at: Moment,
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
    typed: String,
}

impl One {
    async fn new(api: &Shared, shell: Shell, by: &Caller, id: &str) -> Result<Self, ApiError> {
        let node: NodeId = id.parse().map_err(|_| MemberError::Unknown)?;
        let links = api.handle.links().clone();
        let looked = api.handle.look(move |engine, now| {
            let member = engine.member(&node).ok_or(MemberError::Unknown)?;
            let known = Known {
                row: Row::of(engine, &member, &links, now),
                url: member.record.url.clone(),
                addresses: member.record.addresses.iter().map(ToString::to_string).collect(),
                incarnation: member.record.incarnation.to_string(),
                path: path_to(engine, &member, &links),
                last_seen: member.last_seen.map(|seen| now.since(seen)),
                is_durable: member.durable,
            };
            Ok::<_, MemberError>((known, engine.scopes().iter().map(|scope| scope.documents).sum()))
        });
        let (known, documents) = looked.await??;
        let now = (api.wall)().0;
        let step = |Transition { from, to, at, node: _ }: Transition| Step {
            from: from.map_or("not known", status_name),
            to: status_name(to),
            at: Moment::of(at.0, now),
        };
        Ok(Self {
            shell: shell.watching(&[("watch", "cluster")]),
            problem: None,
            known,
            steps: api.handle.transitions().of(node).into_iter().map(step).collect(),
            uptime: spoken(api.started.elapsed()),
            documents,
            may_manage: by.may(Permission::ManageCluster),
            typed: String::new(),
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

pub(super) async fn force_leave(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let fields = Fields::read(&api, &headers, body).await?;
    let (typed, force) = (fields.text("name"), fields.has("force"));
    let page = One::new(&api, shell, &by, &id).await?;
    let problem = if typed == page.known.row.name {
        let node: NodeId = id.parse().map_err(|_| MemberError::Unknown)?;
        let taken = api.handle.look(move |engine, now| take_out(engine, &Who::Id(node), force, now)).await?;
        match taken {
            Ok(_) => return Ok(Redirect::to("/cluster-info?done=server-left").into_response()),
            Err(error) => Problem::of(&error.into()),
        }
    } else {
        Problem::new("That is not the server's name.", "Nothing was done. Type the name as it is written above.")
    };
    Ok(show_as(problem.status, &One { problem: Some(problem), typed, ..page }))
}
