//! The page at which the first administrator is made.

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use axum::routing::get;

use super::form::Fields;
use super::login::logged_in;
use super::page::{Fault, Problem, Shell, show_as};
use super::{Page, page};
use crate::accounts::{NewUser, PASSWORD_CHARS_MIN, Secret};
use crate::api::Shared;
use crate::api::auth::login_from;
use crate::api::error::ApiError;
use crate::api::guard::Peer;
use crate::api::operation::Needs;

pub(super) fn pages() -> Vec<Page> {
    vec![page("/setup", Needs::Nothing, || get(form).post(set_up))]
}

#[derive(Template)]
#[template(path = "setup.html")]
struct Form {
    shell: Shell,
    problem: Option<Problem>,
    is_open: bool,
    code: String,
    username: String,
    email: String,
    least: usize,
}

impl Form {
    fn new(api: &Shared, shell: Shell, code: &Secret) -> Self {
        let is_open = api.accounts.is_setup_open(code);
        let code = if is_open { code.reveal().to_owned() } else { String::new() };
        let (username, email) = (String::new(), String::new());
        Self { shell, problem: None, is_open, code, username, email, least: PASSWORD_CHARS_MIN }
    }

    fn show(&self) -> Response {
        let status = match &self.problem {
            Some(problem) => problem.status,
            None if self.is_open => StatusCode::OK,
            None => StatusCode::FORBIDDEN,
        };
        show_as(status, self)
    }
}

async fn form(State(api): State<Shared>, Extension(shell): Extension<Shell>, uri: Uri) -> Result<Response, Fault> {
    api.accounts.ready().await?;
    Ok(Form::new(&api, shell, &Fields::of(&uri).secret("code")).show())
}

async fn set_up(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let fields = Fields::read(&api, &headers, body).await?;
    let (code, password) = (fields.secret("code"), fields.secret("password"));
    let (username, email) = (fields.text("username"), fields.text("email"));
    let answer = if password == fields.secret("again") {
        let new = NewUser { username: username.clone(), email: email.clone(), password, ..NewUser::default() };
        let from = login_from(&api, peer.as_deref(), &headers);
        api.accounts.set_up(&code, new, from).await.map_err(|error| Problem::of(&ApiError::from(error)))
    } else {
        Err(unequal())
    };
    match answer {
        Ok(key) => Ok(logged_in(&key, "/?done=welcome")),
        Err(problem) => {
            let form = Form::new(&api, shell, &code);
            let problem = Some(problem).filter(|_| form.is_open);
            Ok(Form { problem, username, email, ..form }.show())
        }
    }
}

/// The two passwords differ.
pub(super) fn unequal() -> Problem {
    Problem::new("The two passwords are not the same.", "Write the same one twice.")
}
