//! Logging in and out, the first administrator, sessions and tokens.

use std::collections::BTreeSet;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get as on_get, post as on_post, put as on_put};
use knot_engine::Wall;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::{ApiError, Form};
use super::guard::{self, Peer, SESSION_COOKIE};
use super::operation::{Needs, Operation, get, post, put};
use super::users::{DONE, Done};
use super::{Api, Shared, body, operation, timestamp};
use crate::accounts::{
    Caller, LoginFrom, NewUser, Permission, Refusal, SESSION_MS, Secret, Session, SessionKey, Token, TokenChange,
};

pub(super) fn operations() -> Vec<Operation> {
    const TOKENS: Needs = Needs::OneOf(&[Permission::UseTokens]);
    vec![
        post("/api/auth", "Login", "Log in", Needs::Nothing, || on_post(login)).takes::<Login>().gives::<LoggedIn>(),
        post("/api/auth/setup", "Login", "Make the first administrator", Needs::Nothing, || on_post(set_up))
            .takes::<SetUp>()
            .gives::<LoggedIn>(),
        post("/api/auth/logout", "Login", "Log out", Needs::Login, || on_post(logout)).gives::<Done>(),
        get("/api/sessions", "Login", "List one's own sessions", Needs::Login, || on_get(sessions))
            .gives::<Vec<SessionInfo>>(),
        operation::delete("/api/sessions/{session_id}", "Login", "End a session of one's own", Needs::Login, || {
            delete(end_session)
        })
        .gives::<Done>(),
        get("/api/tokens", "Tokens", "List one's own tokens", TOKENS, || on_get(tokens)).gives::<Vec<TokenInfo>>(),
        post("/api/tokens", "Tokens", "Make a token: it is shown this once", TOKENS, || on_post(create_token))
            .takes::<TokenRequest>()
            .gives::<TokenCreated>()
            .status(201),
        put("/api/tokens/{token_id}", "Tokens", "Change a token: what is not sent stays", TOKENS, || {
            on_put(update_token)
        })
        .takes::<TokenUpdate>()
        .gives::<Done>(),
        post(
            "/api/tokens/{token_id}/reveal",
            "Tokens",
            "Show a token again, to who knows the password",
            TOKENS,
            || on_post(reveal_token),
        )
        .takes::<Reveal>()
        .gives::<TokenRevealed>(),
        operation::delete("/api/tokens/{token_id}", "Tokens", "Revoke a token for good", TOKENS, || {
            delete(revoke_token)
        })
        .gives::<Done>(),
    ]
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Login {
    /// The e-mail address, or the user name.
    email: String,
    #[schemars(with = "String")]
    password: Secret,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SetUp {
    /// From the link that the server printed at its start.
    #[schemars(with = "String")]
    code: Secret,
    username: String,
    #[serde(default)]
    email: String,
    #[schemars(with = "String")]
    password: Secret,
}

#[derive(Debug, Serialize, JsonSchema)]
struct LoggedIn {
    status: bool,
    /// To be sent as `Authorization: Bearer`; browsers get it as a cookie.
    token: String,
    user_id: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct SessionInfo {
    session_id: String,
    ip: String,
    user_agent: String,
    /// Whether it is the one that asks.
    current: bool,
    created_at: String,
    expires_at: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TokenInfo {
    /// The digest of the token: it names it and is no use otherwise.
    token_id: String,
    name: String,
    scopes: BTreeSet<String>,
    created_at: String,
    /// When it ceases to be good by itself; none for when it has not been used for two weeks.
    expires_after: Option<String>,
    /// To the hour.
    last_used: Option<String>,
    /// Whether it can be shown again to who knows the present password.
    revealable: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    name: String,
    /// `read`, `leaf`, `documents:<collection>`; none for all that the user may do.
    #[serde(default)]
    scopes: BTreeSet<String>,
    /// After how many seconds it ceases to be good; none for never.
    expires_in_s: Option<u32>,
    /// Where the server has `reveal_tokens` on: the user's password, to have the token kept sealed with it and shown again.
    #[schemars(with = "Option<String>")]
    password: Option<Secret>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Reveal {
    /// The user's.
    #[schemars(with = "String")]
    password: Secret,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TokenRevealed {
    token_id: String,
    token: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TokenUpdate {
    name: Option<String>,
    scopes: Option<BTreeSet<String>>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TokenCreated {
    status: bool,
    token_id: String,
    /// Shown this once.
    token: String,
}

/// What a login is told by its request.
pub(crate) fn login_from(api: &Api, peer: Option<&Peer>, headers: &HeaderMap) -> LoginFrom {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    LoginFrom {
        address: guard::origin(api, peer, headers),
        agent: agent.to_owned(),
        session: guard::shown_session(headers),
    }
}

/// The cookie that a browser is to keep. It goes to no script, to no other host, and over TLS or loopback alone.
pub(crate) fn cookie(key: &SessionKey) -> HeaderValue {
    let seconds = SESSION_MS / 1_000;
    set_cookie(key.text().reveal(), seconds)
}

/// The cookie that has a browser forget its session.
pub(crate) fn no_cookie() -> HeaderValue {
    set_cookie("", 0)
}

fn set_cookie(value: &str, seconds: i64) -> HeaderValue {
    let text = format!("{SESSION_COOKIE}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}");
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

async fn login(
    State(api): State<Shared>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let Login { email, password } = body::form(&api, &headers, body).await?;
    let from = login_from(&api, peer.as_deref(), &headers);
    let key = api.accounts.login(&email, &password, from).await?;
    Ok(logged_in(&key))
}

async fn set_up(
    State(api): State<Shared>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let SetUp { code, username, email, password } = body::form(&api, &headers, body).await?;
    let new = NewUser { username, email, password, ..NewUser::default() };
    let key = api.accounts.set_up(&code, new, login_from(&api, peer.as_deref(), &headers)).await?;
    Ok(logged_in(&key))
}

fn logged_in(key: &SessionKey) -> Response {
    let answer = LoggedIn { status: true, token: key.text().reveal().to_owned(), user_id: key.user.clone() };
    (
        [(header::SET_COOKIE, cookie(key)), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))],
        axum::Json(answer),
    )
        .into_response()
}

async fn logout(State(api): State<Shared>, Extension(by): Extension<Caller>) -> Result<Response, ApiError> {
    api.accounts.logout(&by).await?;
    Ok(([(header::SET_COOKIE, no_cookie())], DONE).into_response())
}

async fn sessions(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
) -> Result<axum::Json<Vec<SessionInfo>>, ApiError> {
    let user = by.user().ok_or(Refusal::Unknown("user"))?;
    let info = |session: Session| SessionInfo {
        current: by.session() == Some(&session.id),
        session_id: session.id,
        ip: session.address,
        user_agent: session.agent,
        created_at: timestamp::rfc3339(Wall(session.created_at)),
        expires_at: timestamp::rfc3339(Wall(session.expires_at)),
    };
    Ok(axum::Json(api.accounts.sessions(user).await?.into_iter().map(info).collect()))
}

async fn end_session(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<axum::Json<Done>, ApiError> {
    let user = by.user().ok_or(Refusal::Unknown("user"))?;
    api.accounts.revoke_session(&by, user, &id).await?;
    Ok(DONE)
}

async fn tokens(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
) -> Result<axum::Json<Vec<TokenInfo>>, ApiError> {
    api.accounts.caught_up().await?;
    let user = by.user().ok_or(Refusal::Unknown("user"))?;
    let mut tokens: Vec<Token> = api.accounts.directory().tokens_of(user).cloned().collect();
    tokens.sort_by_cached_key(|token| (token.name.to_lowercase(), token.id.clone()));
    let revealable = api.accounts.revealable(user, &tokens).await?;
    let mut infos = Vec::new();
    for token in tokens {
        let last_used = api.accounts.last_use(&token.id).await?.map(|at| timestamp::rfc3339(Wall(at)));
        infos.push(TokenInfo {
            revealable: revealable.contains(&token.id),
            token_id: token.id,
            name: token.name,
            scopes: token.scopes,
            created_at: timestamp::rfc3339(Wall(token.created_at)),
            expires_after: token.expires_at.map(|at| timestamp::rfc3339(Wall(at))),
            last_used,
        });
    }
    Ok(axum::Json(infos))
}

async fn create_token(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let TokenRequest { name, scopes, expires_in_s, password } = body::form(&api, &headers, body).await?;
    if by.user().is_none() {
        return Err(Form::BadBody("the machine's admin token is no user: log in as one to make a token").into());
    }
    let expires_at = expires_in_s.map(|seconds| api.accounts.now().saturating_add(i64::from(seconds) * 1_000));
    let (token, secret) = match password {
        None => api.accounts.create_token(&by, name, scopes, expires_at).await?,
        Some(password) => {
            let from = login_from(&api, peer.as_deref(), &headers);
            api.accounts.create_revealable_token(&by, (name, scopes, expires_at), &password, &from).await?
        }
    };
    let answer = TokenCreated { status: true, token_id: token.id, token: secret.reveal().to_owned() };
    let headers = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((StatusCode::CREATED, headers, axum::Json(answer)).into_response())
}

async fn reveal_token(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let Reveal { password } = body::form(&api, &headers, body).await?;
    let from = login_from(&api, peer.as_deref(), &headers);
    let (token, secret) = api.accounts.reveal_token(&by, &id, &password, &from).await?;
    let answer = TokenRevealed { token_id: token.id, token: secret.reveal().to_owned() };
    Ok(([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], axum::Json(answer)).into_response())
}

async fn update_token(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<axum::Json<Done>, ApiError> {
    let TokenUpdate { name, scopes } = body::form(&api, &headers, body).await?;
    api.accounts.change_token(&by, &id, TokenChange { name, scopes }).await?;
    Ok(DONE)
}

async fn revoke_token(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<axum::Json<Done>, ApiError> {
    api.accounts.revoke_token(&by, &id).await?;
    Ok(DONE)
}
