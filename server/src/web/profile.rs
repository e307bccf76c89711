//! One's own data, password and sessions.

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use super::form::Fields;
use super::merge::{Marks, Merged, Said, members, with};
use super::moment::Moment;
use super::page::{Fault, LOGIN, Problem, Shell, show_as};
use super::record::unfit;
use super::setup::unequal;
use super::users::change_of;
use super::{Page, page};
use crate::accounts::{Caller, Directory, PASSWORD_CHARS_MIN, Refusal, Session, User, UserChange};
use crate::api::Shared;
use crate::api::auth::login_from;
use crate::api::error::{self, ApiError};
use crate::api::guard::Peer;

pub(super) fn pages() -> Vec<Page> {
    vec![
        page("/profile", LOGIN, || get(profile).post(change)),
        page("/profile/password", LOGIN, || post(change_password)),
        page("/profile/sessions/{id}/end", LOGIN, || post(end_session)),
    ]
}

struct Row {
    id: String,
    address: String,
    agent: String,
    began: Moment,
    ends: Moment,
    is_this: bool,
}

#[derive(Template)]
#[template(path = "profile.html")]
struct Profile {
    shell: Shell,
    problem: Option<Problem>,
    username: String,
    user: User,
    roles: Vec<String>,
    rows: Vec<Row>,
    least: usize,
    /// What its form was filled from.
    was: String,
}

impl Profile {
    async fn new(api: &Shared, shell: Shell, by: &Caller) -> Result<Self, ApiError> {
        api.accounts.ready().await?;
        let id = by.user().ok_or(Refusal::Unknown("user"))?;
        let (username, user, roles) = {
            let directory = api.accounts.directory();
            let user = directory.user(id).ok_or(Refusal::Unknown("user"))?.clone();
            let roles = user.roles.iter().filter_map(|id| directory.role(id));
            let roles = roles.map(|role| directory.role_name(&role).into_owned()).collect();
            (directory.username(&user).into_owned(), user, roles)
        };
        let now = api.accounts.now();
        let row = |session: Session| Row {
            is_this: by.session() == Some(&session.id),
            id: session.id,
            address: session.address,
            agent: browser(&session.agent).to_owned(),
            began: Moment::of(session.created_at, now),
            ends: Moment::of(session.expires_at, now),
        };
        let rows = api.accounts.sessions(id).await?.into_iter().map(row).collect();
        let shell = shell.watching(&[("watch", "own")]);
        let was = Marks::of(&shown(&user)).text();
        Ok(Self { shell, problem: None, username, user, roles, rows, least: PASSWORD_CHARS_MIN, was })
    }

    fn refused(self, problem: Problem) -> Response {
        show_as(problem.status, &Self { problem: Some(problem), ..self })
    }
}

/// A browser's name, from what it says of itself: most say the names of others too.
fn browser(agent: &str) -> &str {
    const NAMES: [(&str, &str); 6] = [
        ("Edg/", "Edge"),
        ("Firefox/", "Firefox"),
        ("HeadlessChrome/", "Chrome without a window"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
    ];
    NAMES.into_iter().find(|(mark, _)| agent.contains(mark)).map_or(agent, |(_, name)| name)
}

async fn profile(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
) -> Result<Response, Fault> {
    Ok(show_as(StatusCode::OK, &Profile::new(&api, shell, &by).await?))
}

async fn change(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let fields = Fields::read(&api, &headers, body).await?;
    let was = Marks::read(&fields).ok_or(error::Form::NoMarks)?;
    let mine = filled(&fields);
    let merged = |held: &User| Merged::new(&was, &mine, &shown(held), &members(held));
    let id = by.user().ok_or(Refusal::Unknown("user"))?;
    let change = |_: &Directory, held: &User| change_of(merged(held).undisputed()?);
    let Err(error) = api.accounts.change_user_by(&by, id, change).await else {
        return Ok(Redirect::to("/profile?done=profile-changed").into_response());
    };
    let page = Profile::new(&api, shell, &by).await?;
    let user = with(&page.user, merged(&page.user).changed).map_err(unfit)?;
    Ok(Profile { user, ..page }.refused(Problem::of(&error.into())))
}

/// What the form says of its user.
fn filled(fields: &Fields) -> Said {
    const NAMES: [&str; 5] = ["email", "timezone", "preferred_shell", "github_username", "ssh_public_key"];
    NAMES.map(|name| (name.to_owned(), fields.text(name).replace('\r', "").into())).into_iter().collect()
}

/// What it shows.
fn shown(user: &User) -> Said {
    let on_form = filled(&Fields::default());
    members(user).into_iter().filter(|(name, _)| on_form.contains_key(name)).collect()
}

async fn change_password(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let fields = Fields::read(&api, &headers, body).await?;
    let page = Profile::new(&api, shell, &by).await?;
    let password = fields.secret("password");
    if password != fields.secret("again") {
        return Ok(page.refused(unequal()));
    }
    // Whoever finds a browser open knows no password.
    let from = login_from(&api, peer.as_deref(), &headers);
    if let Err(error) = api.accounts.authenticate(&page.username, &fields.secret("present"), &from).await {
        return Ok(page.refused(Problem::of(&error.into())));
    }
    let change = UserChange { password: Some(password), ..UserChange::default() };
    match api.accounts.change_user(&by, &page.user.id, change).await {
        Ok(()) => Ok(Redirect::to("/profile?done=password-changed").into_response()),
        Err(error) => Ok(page.refused(Problem::of(&error.into()))),
    }
}

async fn end_session(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let user = by.user().ok_or(Refusal::Unknown("user"))?;
    match api.accounts.revoke_session(&by, user, &id).await {
        Ok(()) => Ok(Redirect::to("/profile?done=session-ended").into_response()),
        Err(error) => Ok(Profile::new(&api, shell, &by).await?.refused(Problem::of(&error.into()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_told_apart() {
        let chrome =
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36";
        assert_eq!(browser(chrome), "Chrome");
        assert_eq!(browser(&format!("{chrome} Edg/140.0")), "Edge");
        assert_eq!(browser("knot/0.1"), "knot/0.1");
    }
}
