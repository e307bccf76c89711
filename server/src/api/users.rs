//! Users: made, listed, changed, deleted.

use std::collections::BTreeSet;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get as on_get, post as on_post, put as on_put};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::{ApiError, Form};
use super::operation::{Needs, Operation, get, post, put};
use super::query::{self, NoQuery, UsersQuery};
use super::{Shared, body, operation, timestamp};
use crate::accounts::{Caller, Directory, NewUser, Permission, Refusal, Secret, User, UserChange};

const TAG: &str = "Users";

pub(super) fn operations() -> Vec<Operation> {
    const SEES: Needs = Needs::OneOf(&[Permission::ManageUsers, Permission::ManageSpaces]);
    const OWN: Needs = Needs::OwnOr(Permission::ManageUsers);
    vec![
        get("/api/users", TAG, "List users", SEES, || on_get(list)).query::<UsersQuery>().gives::<UserList>(),
        post("/api/users", TAG, "Make a user", Needs::OneOf(&[Permission::ManageUsers]), || on_post(create))
            .takes::<UserRequest>()
            .requires(&["username", "password"])
            .gives::<UserCreated>()
            .status(201),
        get("/api/users/whoami", TAG, "Say who asks", Needs::Login, || on_get(whoami)).gives::<WhoAmI>(),
        get("/api/users/{user_id}", TAG, "Read a user", OWN, || on_get(read)).gives::<UserInfo>(),
        put("/api/users/{user_id}", TAG, "Change a user: what is not sent stays", OWN, || on_put(update))
            .takes::<UserRequest>()
            .gives::<Done>(),
        operation::delete(
            "/api/users/{user_id}",
            TAG,
            "Delete a user",
            Needs::OneOf(&[Permission::ManageUsers]),
            || delete(remove),
        )
        .gives::<Done>(),
        get("/api/users/{user_id}/permissions", TAG, "List what a user may do", OWN, || on_get(permissions))
            .gives::<UserPermissions>(),
    ]
}

/// Something was done.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Done {
    status: bool,
}

pub(super) const DONE: axum::Json<Done> = axum::Json(Done { status: true });

/// A user as people are shown it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct UserInfo {
    user_id: String,
    /// The name in force; another than was asked for where somebody else has that.
    username: String,
    email: String,
    active: bool,
    /// Ids.
    roles: BTreeSet<String>,
    /// Ids.
    groups: BTreeSet<String>,
    /// Zero for no limit.
    max_spaces: u32,
    compute_units: u32,
    storage_units: u32,
    /// The zone in which the user's spaces are made where nothing else is said.
    zone: String,
    timezone: String,
    preferred_shell: String,
    ssh_public_key: String,
    github_username: String,
    /// Whether it is the user who asks.
    current: bool,
    created_at: String,
    updated_at: String,
}

/// Users, in the order of their names.
#[derive(Debug, Serialize, JsonSchema)]
struct UserList {
    /// How many there are that match.
    count: usize,
    users: Vec<UserInfo>,
}

/// What a user is to be.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UserRequest {
    username: Option<String>,
    email: Option<String>,
    /// At least 8 characters.
    #[schemars(with = "Option<String>")]
    password: Option<Secret>,
    active: Option<bool>,
    roles: Option<BTreeSet<String>>,
    groups: Option<BTreeSet<String>>,
    max_spaces: Option<u32>,
    compute_units: Option<u32>,
    storage_units: Option<u32>,
    zone: Option<String>,
    timezone: Option<String>,
    preferred_shell: Option<String>,
    ssh_public_key: Option<String>,
    github_username: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct UserCreated {
    status: bool,
    user_id: String,
}

/// Who asks.
#[derive(Debug, Serialize, JsonSchema)]
struct WhoAmI {
    /// None for the machine's admin token.
    user: Option<UserInfo>,
    /// Numbers, as `/api/permissions` lists them.
    permissions: Vec<u16>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct UserPermissions {
    permissions: Vec<u16>,
}

impl UserInfo {
    fn of(directory: &Directory, user: &User, by: &Caller) -> Self {
        Self {
            user_id: user.id.clone(),
            username: directory.username(user).into_owned(),
            email: user.email.clone(),
            active: user.active,
            roles: user.roles.clone(),
            groups: user.groups.clone(),
            max_spaces: user.max_spaces,
            compute_units: user.compute_units,
            storage_units: user.storage_units,
            zone: user.zone.clone(),
            timezone: user.timezone.clone(),
            preferred_shell: user.preferred_shell.clone(),
            ssh_public_key: user.ssh_public_key.clone(),
            github_username: user.github_username.clone(),
            current: by.user() == Some(&user.id),
            created_at: timestamp::rfc3339(knot_engine::Wall(user.created_at)),
            updated_at: timestamp::rfc3339(knot_engine::Wall(user.updated_at)),
        }
    }
}

impl UserRequest {
    fn change(self) -> UserChange {
        UserChange {
            username: self.username,
            email: self.email,
            password: self.password,
            active: self.active,
            roles: self.roles,
            groups: self.groups,
            max_spaces: self.max_spaces,
            compute_units: self.compute_units,
            storage_units: self.storage_units,
            zone: self.zone,
            timezone: self.timezone,
            preferred_shell: self.preferred_shell,
            ssh_public_key: self.ssh_public_key,
            github_username: self.github_username,
        }
    }
}

async fn list(State(api): State<Shared>, Extension(by): Extension<Caller>, uri: Uri) -> Result<Response, ApiError> {
    let UsersQuery { q, limit, offset } = query::parse(&uri)?;
    api.accounts.ready().await?;
    let wanted = q.unwrap_or_default().to_lowercase();
    let answer = {
        let directory = api.accounts.directory();
        let matches = |user: &&User| {
            wanted.is_empty()
                || user.username.to_lowercase().contains(&wanted)
                || user.email.to_lowercase().contains(&wanted)
        };
        let mut users: Vec<&User> = directory.users().filter(matches).collect();
        users.sort_by_cached_key(|user| (user.username.to_lowercase(), user.id.clone()));
        let shown = users.iter().skip(offset.unwrap_or(0)).take(limit.unwrap_or(usize::MAX));
        let shown = shown.map(|user| UserInfo::of(&directory, user, &by)).collect();
        UserList { count: users.len(), users: shown }
    };
    Ok(axum::Json(answer).into_response())
}

async fn create(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let NoQuery {} = query::parse(&uri)?;
    let asked: UserRequest = body::form(&api, &headers, body).await?;
    let mut rest = asked.change();
    let (Some(username), Some(password)) = (rest.username.take(), rest.password.take()) else {
        return Err(Form::BadBody("a user has at least a \"username\" and a \"password\"").into());
    };
    let new = NewUser {
        username,
        password,
        email: rest.email.take().unwrap_or_default(),
        roles: rest.roles.take().unwrap_or_default(),
        active: rest.active.take().unwrap_or(true),
        rest,
    };
    let user_id = api.accounts.create_user(&by, new).await?;
    Ok((StatusCode::CREATED, axum::Json(UserCreated { status: true, user_id })).into_response())
}

async fn whoami(State(api): State<Shared>, Extension(by): Extension<Caller>) -> Result<axum::Json<WhoAmI>, ApiError> {
    let directory = api.accounts.directory();
    let user = by.user().and_then(|id| directory.user(id)).map(|user| UserInfo::of(&directory, user, &by));
    Ok(axum::Json(WhoAmI { user, permissions: by.permissions.iter().map(Permission::id).collect() }))
}

async fn read(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<axum::Json<UserInfo>, ApiError> {
    api.accounts.ready().await?;
    let directory = api.accounts.directory();
    let user = directory.user(&id).ok_or(Refusal::Unknown("user"))?;
    Ok(axum::Json(UserInfo::of(&directory, user, &by)))
}

async fn update(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<axum::Json<Done>, ApiError> {
    let asked: UserRequest = body::form(&api, &headers, body).await?;
    api.accounts.change_user(&by, &id, asked.change()).await?;
    Ok(DONE)
}

async fn remove(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<axum::Json<Done>, ApiError> {
    api.accounts.delete_user(&by, &id).await?;
    Ok(DONE)
}

async fn permissions(
    State(api): State<Shared>,
    Path(id): Path<String>,
) -> Result<axum::Json<UserPermissions>, ApiError> {
    api.accounts.ready().await?;
    let directory = api.accounts.directory();
    let user = directory.user(&id).ok_or(Refusal::Unknown("user"))?;
    let permissions = directory.permissions(user).iter().map(Permission::id).collect();
    Ok(axum::Json(UserPermissions { permissions }))
}
