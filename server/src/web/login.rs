//! Logging in and out.

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use super::form::Fields;
use super::guard::local_path;
use super::page::{Fault, LOGIN, Problem, Shell, show, show_as};
use super::{Page, page};
use crate::accounts::{Caller, SessionKey};
use crate::api::Shared;
use crate::api::auth::{cookie, login_from, no_cookie};
use crate::api::guard::Peer;
use crate::api::operation::Needs;

pub(super) fn pages() -> Vec<Page> {
    vec![page("/login", Needs::Nothing, || get(form).post(log_in)), page("/logout", LOGIN, || post(log_out))]
}

#[derive(Template)]
#[template(path = "login.html")]
struct Form {
    shell: Shell,
    problem: Option<Problem>,
    email: String,
    next: String,
}

async fn form(Extension(shell): Extension<Shell>, uri: Uri) -> Response {
    let next = Fields::of(&uri).text("next");
    if shell.who.is_some() {
        return Redirect::to(local_path(&next).unwrap_or("/")).into_response();
    }
    show(&Form { shell, problem: None, email: String::new(), next })
}

async fn log_in(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let fields = Fields::read(&api, &headers, body).await?;
    let (email, next) = (fields.text("email"), fields.text("next"));
    let from = login_from(&api, peer.as_deref(), &headers);
    match api.accounts.login(&email, &fields.secret("password"), from).await {
        Ok(key) => Ok(logged_in(&key, local_path(&next).unwrap_or("/"))),
        Err(error) => {
            let problem = Problem::of(&error.into());
            let shell = Shell { who: None, ..shell };
            Ok(show_as(problem.status, &Form { shell, problem: Some(problem), email, next }))
        }
    }
}

/// Goes on as whoever has just logged in.
pub(super) fn logged_in(key: &SessionKey, to: &str) -> Response {
    ([(header::SET_COOKIE, cookie(key))], Redirect::to(to)).into_response()
}

async fn log_out(State(api): State<Shared>, Extension(by): Extension<Caller>) -> Result<Response, Fault> {
    api.accounts.logout(&by).await?;
    Ok(([(header::SET_COOKIE, no_cookie())], Redirect::to("/login")).into_response())
}
