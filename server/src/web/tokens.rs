//! API tokens of one's own: listed, made, revoked.

use std::collections::BTreeSet;

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use super::form::Fields;
use super::moment::Moment;
use super::page::{Fault, Problem, Shell, show, show_as};
use super::{Page, page};
use crate::accounts::{Caller, Permission, TOKEN_NAME_BYTES_MAX, Token};
use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::operation::Needs;

const DAY_S: u32 = 86_400;
const HOUR_MS: i64 = 3_600_000;
/// How long a new token may be good, as the form offers it.
const EXPIRIES: [(u32, &str); 5] = [
    (0, "Never, as long as it is used"),
    (7 * DAY_S, "7 days"),
    (30 * DAY_S, "30 days"),
    (90 * DAY_S, "90 days"),
    (365 * DAY_S, "1 year"),
];

pub(super) fn pages() -> Vec<Page> {
    const TOKENS: Needs = Needs::OneOf(&[Permission::UseTokens]);
    vec![
        page("/api-tokens", TOKENS, || get(list).post(create)),
        page("/api-tokens/new", TOKENS, || get(form)),
        page("/api-tokens/{id}/revoke", TOKENS, || post(revoke)),
    ]
}

struct Row {
    id: String,
    name: String,
    scopes: Vec<String>,
    created: Moment,
    expires: Option<Moment>,
    used: Option<Moment>,
}

#[derive(Template)]
#[template(path = "tokens.html")]
struct List {
    shell: Shell,
    problem: Option<Problem>,
    /// Shown this once.
    fresh: Option<(String, String)>,
    rows: Vec<Row>,
}

#[derive(Template)]
#[template(path = "token_new.html")]
struct Form {
    shell: Shell,
    problem: Option<Problem>,
    name: String,
    name_max: usize,
    reads: bool,
    leaf: bool,
    collections: String,
    expiry: u32,
    expiries: [(u32, &'static str); 5],
}

async fn list(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
) -> Result<Response, Fault> {
    Ok(show(&List::new(&api, shell, &by).await?))
}

impl List {
    async fn new(api: &Shared, shell: Shell, by: &Caller) -> Result<Self, ApiError> {
        api.accounts.ready().await?;
        let user = by.user().unwrap_or_default();
        let mut tokens: Vec<Token> = api.accounts.directory().tokens_of(user).cloned().collect();
        tokens.sort_by_cached_key(|token| (token.name.to_lowercase(), token.id.clone()));
        let now = api.accounts.now();
        let mut rows = Vec::new();
        for token in tokens {
            let used = api.accounts.last_use(&token.id).await?.map(|at| used(at, now));
            rows.push(Row {
                used,
                id: token.id,
                name: token.name,
                scopes: token.scopes.into_iter().collect(),
                created: Moment::of(token.created_at, now),
                expires: token.expires_at.map(|at| Moment::of(at, now)),
            });
        }
        Ok(Self { shell: shell.watching(&[("watch", "own")]), problem: None, fresh: None, rows })
    }
}

/// When a token was last used, which is kept to the hour.
fn used(at: i64, now: i64) -> Moment {
    let moment = Moment::of(at, now);
    if now.saturating_sub(at) < HOUR_MS { Moment { ago: "within the hour".to_owned(), ..moment } } else { moment }
}

async fn form(Extension(shell): Extension<Shell>) -> Response {
    show(&Form::new(shell))
}

impl Form {
    fn new(shell: Shell) -> Self {
        Self {
            shell,
            problem: None,
            name: String::new(),
            name_max: TOKEN_NAME_BYTES_MAX,
            reads: false,
            leaf: false,
            collections: String::new(),
            expiry: 0,
            expiries: EXPIRIES,
        }
    }
}

async fn create(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let fields = Fields::read(&api, &headers, body).await?;
    let form = Form {
        name: fields.text("name"),
        reads: fields.has("read"),
        leaf: fields.has("leaf"),
        collections: fields.text("collections"),
        expiry: fields.number("expiry").unwrap_or(0),
        ..Form::new(shell.clone())
    };
    let now = api.accounts.now();
    let expires_at = (form.expiry > 0).then(|| now.saturating_add(i64::from(form.expiry) * 1_000));
    match api.accounts.create_token(&by, form.name.clone(), form.scopes(), expires_at).await {
        Ok((token, secret)) => {
            let list = List::new(&api, shell, &by).await?;
            let fresh = Some((token.name, secret.reveal().to_owned()));
            Ok(show_as(StatusCode::CREATED, &List { fresh, ..list }))
        }
        Err(error) => {
            let problem = Problem::of(&error.into());
            Ok(show_as(problem.status, &Form { problem: Some(problem), ..form }))
        }
    }
}

impl Form {
    fn scopes(&self) -> BTreeSet<String> {
        let marked = [(self.reads, "read"), (self.leaf, "leaf")];
        let marked = marked.into_iter().filter(|(is_marked, _)| *is_marked).map(|(_, scope)| scope.to_owned());
        let names = self.collections.split([' ', ',']).filter(|name| !name.is_empty());
        marked.chain(names.map(|name| format!("documents:{name}"))).collect()
    }
}

async fn revoke(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    match api.accounts.revoke_token(&by, &id).await {
        Ok(()) => Ok(Redirect::to("/api-tokens?done=token-revoked").into_response()),
        Err(error) => {
            let problem = Problem::of(&error.into());
            let list = List::new(&api, shell, &by).await?;
            Ok(show_as(problem.status, &List { problem: Some(problem), ..list }))
        }
    }
}
