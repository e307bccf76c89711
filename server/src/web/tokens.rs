//! API tokens of one's own: listed, made, revoked.

use std::collections::BTreeSet;

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::form::Fields;
use super::moment::Moment;
use super::page::{Fault, Problem, Shell, show, show_as};
use super::record::unfit;
use super::{Page, page};
use crate::accounts::{Caller, Permission, TOKEN_NAME_BYTES_MAX, Token};
use crate::api::Shared;
use crate::api::auth::login_from;
use crate::api::error::ApiError;
use crate::api::guard::Peer;
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
        page("/api-tokens/{id}/reveal", TOKENS, || post(reveal)),
    ]
}

struct Row {
    id: String,
    name: String,
    scopes: Vec<String>,
    created: Moment,
    expires: Option<Moment>,
    used: Option<Moment>,
    /// Whether it can be shown again.
    revealable: bool,
}

/// A token that is shown.
struct Shown {
    name: String,
    secret: String,
    /// Whether it was kept, and can be shown again.
    is_kept: bool,
}

#[derive(Template)]
#[template(path = "tokens.html")]
struct List {
    shell: Shell,
    problem: Option<Problem>,
    shown: Option<Shown>,
    /// Whether any can be shown again here.
    reveals: bool,
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
    /// Whether it can be kept, to be shown again.
    reveals: bool,
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
        api.accounts.caught_up().await?;
        let user = by.user().unwrap_or_default();
        let mut tokens: Vec<Token> = api.accounts.directory().tokens_of(user).cloned().collect();
        tokens.sort_by_cached_key(|token| (token.name.to_lowercase(), token.id.clone()));
        let revealable = api.accounts.revealable(user, &tokens).await?;
        let now = api.accounts.now();
        let mut rows = Vec::new();
        for token in tokens {
            let used = api.accounts.last_use(&token.id).await?.map(|at| used(at, now));
            rows.push(Row {
                used,
                revealable: revealable.contains(&token.id),
                id: token.id,
                name: token.name,
                scopes: token.scopes.into_iter().collect(),
                created: Moment::of(token.created_at, now),
                expires: token.expires_at.map(|at| Moment::of(at, now)),
            });
        }
        let (shell, reveals) = (shell.watching(&[("watch", "own")]), api.accounts.reveals_tokens());
        Ok(Self { shell, problem: None, shown: None, reveals, rows })
    }
}

/// When a token was last used, which is kept to the hour.
fn used(at: i64, now: i64) -> Moment {
    let moment = Moment::of(at, now);
    if now.saturating_sub(at) < HOUR_MS { Moment { ago: "within the hour".to_owned(), ..moment } } else { moment }
}

async fn form(State(api): State<Shared>, Extension(shell): Extension<Shell>) -> Response {
    show(&Form::new(&api, shell))
}

impl Form {
    fn new(api: &Shared, shell: Shell) -> Self {
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
            reveals: api.accounts.reveals_tokens(),
        }
    }
}

async fn create(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let from = login_from(&api, peer.as_deref(), &headers);
    let fields = Fields::read(&api, &headers, body).await?;
    let form = Form {
        name: fields.text("name"),
        reads: fields.has("read"),
        leaf: fields.has("leaf"),
        collections: fields.text("collections"),
        expiry: u32::deserialize(fields.count("expiry")).map_err(unfit)?,
        ..Form::new(&api, shell.clone())
    };
    let now = api.accounts.now();
    let expires_at = (form.expiry > 0).then(|| now.saturating_add(i64::from(form.expiry) * 1_000));
    let (password, name, scopes) = (fields.secret("password"), form.name.clone(), form.scopes());
    let is_kept = !password.is_empty();
    let made = if is_kept {
        api.accounts.create_revealable_token(&by, (name, scopes, expires_at), &password, &from).await
    } else {
        api.accounts.create_token(&by, name, scopes, expires_at).await
    };
    match made {
        Ok((token, secret)) => {
            let list = List::new(&api, shell, &by).await?;
            let shown = Some(Shown { name: token.name, secret: secret.reveal().to_owned(), is_kept });
            Ok(show_as(StatusCode::CREATED, &List { shown, ..list }))
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

async fn reveal(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let from = login_from(&api, peer.as_deref(), &headers);
    let password = Fields::read(&api, &headers, body).await?.secret("password");
    let revealed = api.accounts.reveal_token(&by, &id, &password, &from).await;
    let list = List::new(&api, shell, &by).await?;
    Ok(match revealed {
        Ok((token, secret)) => {
            let shown = Some(Shown { name: token.name, secret: secret.reveal().to_owned(), is_kept: true });
            show(&List { shown, ..list })
        }
        Err(error) => {
            let problem = Problem::of(&error.into());
            show_as(problem.status, &List { problem: Some(problem), ..list })
        }
    })
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
