//! Users: searched, made, changed, deleted.

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::form::Fields;
use super::merge::{Marks, Merged, Said, members, with};
use super::moment::Moment;
use super::page::{Fault, Problem, Shell, show, show_as};
use super::record::{Draft, unfit};
use super::{Page, page};
use crate::accounts::{Caller, Directory, NewUser, PASSWORD_CHARS_MIN, Permission, Refusal, User, UserChange};
use crate::api::Shared;
use crate::api::error;
use crate::api::operation::Needs;
use crate::api::path::encode;

/// Most users that are listed at once; a search finds the others.
pub(super) const SHOWN_MAX: usize = 200;

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
    draft: Draft<User>,
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
    fn new(directory: &Directory, shell: Shell, draft: Draft<User>, is_me: bool) -> Self {
        let user = &draft.record;
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
        Self { shell, problem: draft.problem.clone(), draft, roles, groups, least: PASSWORD_CHARS_MIN, is_me }
    }

    fn show(&self) -> Response {
        show_as(self.problem.as_ref().map_or(StatusCode::OK, |problem| problem.status), self)
    }
}

/// What a form says of a user.
fn filled(fields: &Fields) -> Said {
    members(&json!({
        "username": fields.text("username"),
        "email": fields.text("email"),
        "active": fields.has("active"),
        "roles": fields.all("role"),
        "groups": fields.all("group"),
        "max_spaces": fields.count("max_spaces"),
        "compute_units": fields.count("compute_units"),
        "storage_units": fields.count("storage_units"),
        "zone": fields.text("zone"),
        "timezone": fields.text("timezone"),
    }))
}

/// What a form shows of a user. Roles and groups that this server does not know are not on it.
fn shown(directory: &Directory, user: &User) -> Said {
    let on_form = filled(&Fields::default());
    let known = User {
        roles: user.roles.iter().filter(|id| directory.role(id).is_some()).cloned().collect(),
        groups: user.groups.iter().filter(|id| directory.group(id).is_some()).cloned().collect(),
        ..user.clone()
    };
    members(&known).into_iter().filter(|(name, _)| on_form.contains_key(name)).collect()
}

/// A form that is filled from what is known of a user.
fn draft(directory: &Directory, id: Option<String>, user: User) -> Draft<User> {
    let was = Marks::of(&shown(directory, &user)).text();
    Draft { id, record: user, was, problem: None, theirs: Said::new(), complaints: Vec::new() }
}

async fn form_new(State(api): State<Shared>, Extension(shell): Extension<Shell>) -> Result<Response, Fault> {
    api.accounts.ready().await?;
    let directory = api.accounts.directory();
    let user = User { active: true, ..User::default() };
    Ok(Form::new(&directory, shell, draft(&directory, None, user), false).show())
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
    Ok(Form::new(&directory, shell, draft(&directory, Some(id), user), is_me).show())
}

async fn create(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let fields = Fields::read(&api, &headers, body).await?;
    let said = filled(&fields);
    let user = with(&User::default(), said.clone()).map_err(unfit)?;
    let rest = UserChange { username: None, email: None, active: None, roles: None, ..change_of(said)? };
    let new = NewUser {
        username: user.username.clone(),
        email: user.email.clone(),
        password: fields.secret("password"),
        roles: user.roles.clone(),
        active: user.active,
        rest,
    };
    match api.accounts.create_user(&by, new).await {
        Ok(_) => Ok(Redirect::to("/users?done=user-created").into_response()),
        Err(error) => {
            let directory = api.accounts.directory();
            let draft = Draft { problem: Some(Problem::of(&error.into())), ..draft(&directory, None, user) };
            Ok(Form::new(&directory, shell, draft, false).show())
        }
    }
}

pub(super) fn change_of(said: Said) -> Result<UserChange, Refusal> {
    UserChange::deserialize(Value::from(said)).map_err(unfit)
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
    let was = Marks::read(&fields).ok_or(error::Form::NoMarks)?;
    let mine = filled(&fields);
    let merged = |directory: &Directory, held: &User| Merged::new(&was, &mine, &shown(directory, held), &members(held));
    let password = Some(fields.secret("password")).filter(|password| !password.is_empty());
    let change = |directory: &Directory, held: &User| {
        Ok(UserChange { password, ..change_of(merged(directory, held).undisputed()?)? })
    };
    let Err(error) = api.accounts.change_user_by(&by, &id, change).await else {
        return Ok(Redirect::to("/users?done=user-changed").into_response());
    };
    let directory = api.accounts.directory();
    let held = directory.user(&id).ok_or(Refusal::Unknown("user"))?.clone();
    let Merged { changed, disputed } = merged(&directory, &held);
    let theirs = shown(&directory, &held).into_iter().filter(|(name, _)| disputed.contains(name)).collect();
    let (record, is_me) = (with(&held, changed).map_err(unfit)?, by.user() == Some(&id));
    let problem = Some(Problem::of(&error.into()));
    let draft = Draft { record, problem, theirs, ..draft(&directory, Some(id), held) };
    Ok(Form::new(&directory, shell, draft, is_me).show())
}

async fn remove(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let is_me = by.user() == Some(&id);
    let Err(error) = api.accounts.delete_user(&by, &id).await else {
        return Ok(Redirect::to("/users?done=user-deleted").into_response());
    };
    let directory = api.accounts.directory();
    let Some(user) = directory.user(&id).cloned() else { return Err(error.into()) };
    let draft = Draft { problem: Some(Problem::of(&error.into())), ..draft(&directory, Some(id), user) };
    Ok(Form::new(&directory, shell, draft, is_me).show())
}
