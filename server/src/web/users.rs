//! Users: searched, made, changed, deleted.

use std::collections::BTreeSet;

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use super::form::Fields;
use super::moment::Moment;
use super::page::{Fault, Problem, Shell, show, show_as};
use super::{Page, page};
use crate::accounts::{
    AccountError, Caller, Directory, NewUser, PASSWORD_CHARS_MIN, Permission, Refusal, User, UserChange,
};
use crate::api::Shared;
use crate::api::operation::Needs;
use crate::api::path::encode;

/// Most users that are listed at once; a search finds the others.
const SHOWN_MAX: usize = 200;

pub(super) fn pages() -> Vec<Page> {
    const USERS: Needs = Needs::OneOf(&[Permission::ManageUsers]);
    vec![
        page("/users", USERS, || get(list).post(create)),
        page("/users/new", USERS, || get(form_new)),
        page("/users/{id}", USERS, || get(form_of).post(change)),
        page("/users/{id}/delete", USERS, || post(remove)),
    ]
}

struct Row {
    id: String,
    username: String,
    email: String,
    roles: String,
    groups: String,
    is_active: bool,
    is_me: bool,
    created: Moment,
}

#[derive(Template)]
#[template(path = "users.html")]
struct List {
    shell: Shell,
    rows: Vec<Row>,
    found: usize,
    query: String,
    text: String,
}

/// A box to tick.
pub(super) struct Choice {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) is_chosen: bool,
}

#[derive(Template)]
#[template(path = "user.html")]
struct Form {
    shell: Shell,
    problem: Option<Problem>,
    /// None for a user who is to be made.
    id: Option<String>,
    user: User,
    roles: Vec<Choice>,
    groups: Vec<Choice>,
    least: usize,
    is_me: bool,
}

fn names<'a>(names: impl Iterator<Item = std::borrow::Cow<'a, str>>) -> String {
    let mut names: Vec<_> = names.collect();
    names.sort();
    names.join(", ")
}

async fn list(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    uri: Uri,
) -> Result<Response, Fault> {
    api.accounts.ready().await?;
    let text = Fields::of(&uri).text("text");
    let wanted = text.to_lowercase();
    let now = api.accounts.now();
    let (rows, found) = {
        let directory = api.accounts.directory();
        let is_found = |user: &&User| {
            user.username.to_lowercase().contains(&wanted) || user.email.to_lowercase().contains(&wanted)
        };
        let mut users: Vec<&User> = directory.users().filter(is_found).collect();
        users.sort_by_cached_key(|user| (user.username.to_lowercase(), user.id.clone()));
        let row = |user: &&User| Row {
            id: user.id.clone(),
            username: directory.username(user).into_owned(),
            email: user.email.clone(),
            roles: names(
                user.roles
                    .iter()
                    .filter_map(|id| directory.role(id).map(|role| directory.role_name(&role).into_owned().into())),
            ),
            groups: names(
                user.groups.iter().filter_map(|id| directory.group(id)).map(|group| directory.group_name(group)),
            ),
            is_active: user.active,
            is_me: by.user() == Some(&user.id),
            created: Moment::of(user.created_at, now),
        };
        (users.iter().take(SHOWN_MAX).map(row).collect(), users.len())
    };
    Ok(show(&List { shell: shell.watching(&[("watch", "accounts")]), rows, found, query: encode(&text), text }))
}

impl Form {
    fn new(directory: &Directory, shell: Shell, id: Option<String>, user: User, is_me: bool) -> Self {
        let role = |role: std::borrow::Cow<'_, crate::accounts::Role>| Choice {
            name: directory.role_name(&role).into_owned(),
            is_chosen: user.roles.contains(&role.id),
            id: role.id.clone(),
        };
        let group = |group: &crate::accounts::Group| Choice {
            name: directory.group_name(group).into_owned(),
            is_chosen: user.groups.contains(&group.id),
            id: group.id.clone(),
        };
        let mut roles: Vec<Choice> = directory.roles().map(role).collect();
        let mut groups: Vec<Choice> = directory.groups().map(group).collect();
        roles.sort_by_cached_key(|choice| choice.name.to_lowercase());
        groups.sort_by_cached_key(|choice| choice.name.to_lowercase());
        Self { shell, problem: None, id, user, roles, groups, least: PASSWORD_CHARS_MIN, is_me }
    }

    /// What there is to say of an error, with what was typed.
    fn refused(self, error: AccountError) -> Response {
        let problem = Problem::of(&error.into());
        show_as(problem.status, &Self { problem: Some(problem), ..self })
    }
}

/// What a form says of a user, on top of what is known.
fn filled(fields: &Fields, user: &User) -> User {
    let number = |name: &str| fields.number(name).unwrap_or(0);
    User {
        username: fields.text("username"),
        email: fields.text("email"),
        active: fields.has("active"),
        roles: fields.all("role"),
        groups: fields.all("group"),
        max_spaces: number("max_spaces"),
        compute_units: number("compute_units"),
        storage_units: number("storage_units"),
        zone: fields.text("zone"),
        timezone: fields.text("timezone"),
        ..user.clone()
    }
}

async fn form_new(State(api): State<Shared>, Extension(shell): Extension<Shell>) -> Result<Response, Fault> {
    api.accounts.ready().await?;
    let user = User { active: true, ..User::default() };
    let form = Form::new(&api.accounts.directory(), shell, None, user, false);
    Ok(show(&form))
}

async fn form_of(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    api.accounts.ready().await?;
    let directory = api.accounts.directory();
    let user = directory.user(&id).ok_or(Refusal::Unknown("user"))?.clone();
    let is_me = by.user() == Some(&id);
    let form = Form::new(&directory, shell, Some(id), user, is_me);
    drop(directory);
    Ok(show(&form))
}

async fn create(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let fields = Fields::read(&api, &headers, body).await?;
    let user = filled(&fields, &User::default());
    let new = NewUser {
        username: user.username.clone(),
        email: user.email.clone(),
        password: fields.secret("password"),
        roles: user.roles.clone(),
        active: user.active,
        rest: rest(&user),
    };
    match api.accounts.create_user(&by, new).await {
        Ok(_) => Ok(Redirect::to("/users?done=user-created").into_response()),
        Err(error) => {
            let form = Form::new(&api.accounts.directory(), shell, None, user, false);
            Ok(form.refused(error))
        }
    }
}

/// What else there is to a user.
fn rest(user: &User) -> UserChange {
    UserChange {
        groups: Some(user.groups.clone()),
        max_spaces: Some(user.max_spaces),
        compute_units: Some(user.compute_units),
        storage_units: Some(user.storage_units),
        zone: Some(user.zone.clone()),
        timezone: Some(user.timezone.clone()),
        ..UserChange::default()
    }
}

async fn change(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let fields = Fields::read(&api, &headers, body).await?;
    api.accounts.ready().await?;
    let old = api.accounts.directory().user(&id).ok_or(Refusal::Unknown("user"))?.clone();
    let user = filled(&fields, &old);
    // Roles and groups that this server does not know are not on the form, and not its to take.
    let keep = |old: &BTreeSet<String>, new: &BTreeSet<String>, is_known: &dyn Fn(&str) -> bool| {
        new.iter().chain(old.iter().filter(|id| !is_known(id))).cloned().collect::<BTreeSet<String>>()
    };
    let (roles, groups) = {
        let directory = api.accounts.directory();
        (
            keep(&old.roles, &user.roles, &|id| directory.role(id).is_some()),
            keep(&old.groups, &user.groups, &|id| directory.group(id).is_some()),
        )
    };
    let change = UserChange {
        username: Some(user.username.clone()),
        email: Some(user.email.clone()),
        password: Some(fields.secret("password")).filter(|password| !password.is_empty()),
        active: Some(user.active),
        roles: Some(roles),
        groups: Some(groups),
        ..rest(&user)
    };
    let own = by.user() == Some(&id);
    match api.accounts.change_user(&by, &id, change).await {
        Ok(()) => Ok(Redirect::to("/users?done=user-changed").into_response()),
        Err(error) => {
            let form = Form::new(&api.accounts.directory(), shell, Some(id), user, own);
            Ok(form.refused(error))
        }
    }
}

async fn remove(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let own = by.user() == Some(&id);
    match api.accounts.delete_user(&by, &id).await {
        Ok(()) => Ok(Redirect::to("/users?done=user-deleted").into_response()),
        Err(error) => {
            let known = api.accounts.directory().user(&id).cloned();
            let Some(user) = known else { return Err(error.into()) };
            let form = Form::new(&api.accounts.directory(), shell, Some(id), user, own);
            Ok(form.refused(error))
        }
    }
}
