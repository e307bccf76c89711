//! One space: how it is, and what can be done with it.

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};

use super::{FIELD, Field, Row, fields_of, has_runtime, is_web};
use crate::accounts::{AccountError, Caller, Permission};
use crate::api::Shared;
use crate::api::error::ApiError;
use crate::spaces::record::{CustomValue, DESCRIPTION_BYTES_MAX};
use crate::spaces::{NAME_BYTES_MAX, SpaceChange, Start};
use crate::templates::Template as SpaceTemplate;
use crate::web::form::Fields;
use crate::web::moment::Moment;
use crate::web::page::{Fault, Problem, Shell, show, show_as};

#[derive(Template)]
#[template(path = "space.html")]
struct One {
    shell: Shell,
    problem: Option<Problem>,
    row: Row,
    created: Moment,
    fields: Vec<Field>,
    /// Servers of its zone that could run it.
    nodes: Vec<String>,
    may_share: bool,
    may_transfer: bool,
    name_max: usize,
    text_max: usize,
}

/// A space of which this server knows only that it is.
#[derive(Template)]
#[template(path = "space_away.html")]
struct Away {
    shell: Shell,
    id: String,
    zone: String,
    urls: Vec<String>,
}

impl One {
    async fn new(api: &Shared, shell: Shell, by: &Caller, id: &str) -> Result<Self, AccountError> {
        let view = api.spaces.read(by, id).await?;
        let places = api.spaces.places().await?;
        let able =
            places.values().filter(|place| place.zone == view.record.zone && place.is_alive && has_runtime(place));
        let nodes = able.map(|place| place.name.clone()).collect();
        let template = api.accounts.directory().template(&view.record.template_id).cloned().unwrap_or_default();
        let filled = |name: &str| {
            let given = view.record.custom_fields.iter().find(|field| field.name == name);
            given.map(|field| field.value.clone()).unwrap_or_default()
        };
        let fields = fields_of(&template, filled);
        let now = api.accounts.now();
        let may = |permission| view.may_change && (by.may(permission) || by.may(Permission::ManageSpaces));
        Ok(Self {
            shell: shell.watching(&[("watch", "spaces")]),
            problem: None,
            created: Moment::of(view.record.created_at, now),
            fields,
            nodes,
            may_share: may(Permission::ShareSpaces),
            may_transfer: may(Permission::TransferSpaces),
            name_max: NAME_BYTES_MAX,
            text_max: DESCRIPTION_BYTES_MAX,
            row: Row::of(view, by, now),
        })
    }

    /// Whether a start is what it needs.
    fn may_start(&self) -> bool {
        matches!(self.row.state, "stopped" | "failed" | "stopping" | "unreachable")
    }
}

pub(super) async fn show_one(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    match One::new(&api, shell.clone(), &by, &id).await {
        Ok(page) => Ok(show(&page)),
        Err(AccountError::Elsewhere { zone, mut urls }) => {
            urls.retain(|url| is_web(url));
            Ok(show_as(StatusCode::MISDIRECTED_REQUEST, &Away { shell, id, zone, urls }))
        }
        Err(error) => Err(error.into()),
    }
}

/// The space's page with what is wrong.
pub(super) async fn refuse(
    api: &Shared,
    shell: Shell,
    by: &Caller,
    id: &str,
    error: &ApiError,
) -> Result<Response, Fault> {
    let problem = Problem::of(error);
    let page = One::new(api, shell, by, id).await.map_err(|_| error.clone())?;
    Ok(show_as(problem.status, &One { problem: Some(problem), ..page }))
}

/// The page after something was done, or with why it was not.
async fn done(
    api: &Shared,
    shell: Shell,
    by: &Caller,
    id: &str,
    word: &str,
    outcome: Result<(), AccountError>,
) -> Result<Response, Fault> {
    match outcome {
        Ok(()) => Ok(Redirect::to(&format!("/spaces/{id}?done={word}")).into_response()),
        Err(error) => refuse(api, shell, by, id, &error.into()).await,
    }
}

pub(super) async fn change(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let fields = Fields::read(&api, &headers, body).await?;
    let record = api.spaces.read(&by, &id).await?.record;
    let template: SpaceTemplate = api.accounts.directory().template(&record.template_id).cloned().unwrap_or_default();
    // What is as the form was filled with was changed by nobody here.
    let changed = |name: &str| {
        let value = fields.get(name).replace("\r\n", "\n");
        (value != fields.get(&format!("was:{name}")).replace("\r\n", "\n")).then_some(value)
    };
    let custom = template.custom_fields.iter().filter_map(|field| {
        let value = changed(&format!("{FIELD}{}", field.name))?;
        Some(CustomValue { name: field.name.clone(), value })
    });
    let change = SpaceChange {
        name: changed("name").map(|name| name.trim().to_owned()),
        description: changed("description"),
        note: changed("note"),
        custom_fields: Some(custom.collect()),
    };
    let outcome = api.spaces.change(&by, &id, change).await;
    done(&api, shell, &by, &id, "space-changed", outcome).await
}

pub(super) async fn start(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let node = Fields::read(&api, &headers, body).await?.text("node");
    let start = if node.is_empty() { Start::Somewhere } else { Start::On(&node) };
    let outcome = api.spaces.start(&by, &id, start).await;
    done(&api, shell, &by, &id, "space-started", outcome).await
}

pub(super) async fn restart(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let outcome = api.spaces.start(&by, &id, Start::Again).await;
    done(&api, shell, &by, &id, "space-started", outcome).await
}

pub(super) async fn stop(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let outcome = api.spaces.stop(&by, &id).await;
    done(&api, shell, &by, &id, "space-stopped", outcome).await
}

pub(super) async fn share(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let user = Fields::read(&api, &headers, body).await?.text("user");
    let outcome = api.spaces.share(&by, &id, &user).await;
    done(&api, shell, &by, &id, "space-shared", outcome).await
}

pub(super) async fn unshare(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let user = Fields::read(&api, &headers, body).await?.text("user");
    let outcome = api.spaces.unshare(&by, &id, Some(&user)).await;
    done(&api, shell, &by, &id, "space-shared", outcome).await
}

pub(super) async fn transfer(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let user = Fields::read(&api, &headers, body).await?.text("user");
    match api.spaces.transfer(&by, &id, &user).await {
        // Who gave it away may not see it any more.
        Ok(()) => Ok(Redirect::to("/spaces?done=space-given").into_response()),
        Err(error) => refuse(&api, shell, &by, &id, &error.into()).await,
    }
}

pub(super) async fn remove(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    match api.spaces.delete(&by, &id).await {
        Ok(()) => Ok(Redirect::to("/spaces?done=space-deleted").into_response()),
        Err(error) => refuse(&api, shell, &by, &id, &error.into()).await,
    }
}
