//! Roles, groups, and the permissions there are.

use std::collections::BTreeSet;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get as on_get, post as on_post, put as on_put};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::{ApiError, Form};
use super::operation::{Needs, Operation, get, post, put};
use super::users::{DONE, Done};
use super::{Shared, body, operation};
use crate::accounts::{Caller, Directory, Group, Permission, Refusal, Role};

pub(super) fn operations() -> Vec<Operation> {
    const ROLES: Needs = Needs::OneOf(&[Permission::ManageRoles]);
    const GROUPS: Needs = Needs::OneOf(&[Permission::ManageGroups]);
    vec![
        get("/api/permissions", "Roles", "List the permissions there are", Needs::Login, || on_get(permissions))
            .gives::<PermissionList>(),
        get("/api/roles", "Roles", "List roles", Needs::Login, || on_get(list_roles)).gives::<RoleList>(),
        post("/api/roles", "Roles", "Make a role", ROLES, || on_post(create_role))
            .takes::<RoleRequest>()
            .requires(&["name"])
            .gives::<RoleCreated>()
            .status(201),
        get("/api/roles/{role_id}", "Roles", "Read a role", ROLES, || on_get(read_role)).gives::<RoleDetails>(),
        put("/api/roles/{role_id}", "Roles", "Change a role: what is not sent stays", ROLES, || on_put(update_role))
            .takes::<RoleRequest>()
            .gives::<Done>(),
        operation::delete("/api/roles/{role_id}", "Roles", "Delete a role", ROLES, || delete(remove_role))
            .gives::<Done>(),
        get("/api/groups", "Groups", "List groups", Needs::Login, || on_get(list_groups)).gives::<GroupList>(),
        post("/api/groups", "Groups", "Make a group", GROUPS, || on_post(create_group))
            .takes::<GroupRequest>()
            .requires(&["name"])
            .gives::<GroupCreated>()
            .status(201),
        get("/api/groups/{group_id}", "Groups", "Read a group", GROUPS, || on_get(read_group)).gives::<GroupInfo>(),
        put("/api/groups/{group_id}", "Groups", "Change a group: what is not sent stays", GROUPS, || {
            on_put(update_group)
        })
        .takes::<GroupRequest>()
        .gives::<Done>(),
        operation::delete("/api/groups/{group_id}", "Groups", "Delete a group", GROUPS, || delete(remove_group))
            .gives::<Done>(),
    ]
}

#[derive(Debug, Serialize, JsonSchema)]
struct PermissionInfo {
    id: u16,
    name: &'static str,
    group: &'static str,
    description: &'static str,
}

#[derive(Debug, Serialize, JsonSchema)]
struct PermissionList {
    count: usize,
    permissions: Vec<PermissionInfo>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RoleInfo {
    role_id: String,
    name: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RoleList {
    count: usize,
    roles: Vec<RoleInfo>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RoleDetails {
    role_id: String,
    name: String,
    /// Numbers, as `/api/permissions` lists them.
    permissions: Vec<u16>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RoleRequest {
    name: Option<String>,
    /// Numbers, as `/api/permissions` lists them.
    permissions: Option<BTreeSet<u16>>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RoleCreated {
    status: bool,
    role_id: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct GroupInfo {
    group_id: String,
    name: String,
    max_spaces: u32,
    compute_units: u32,
    storage_units: u32,
}

#[derive(Debug, Serialize, JsonSchema)]
struct GroupList {
    count: usize,
    groups: Vec<GroupInfo>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GroupRequest {
    name: Option<String>,
    max_spaces: Option<u32>,
    compute_units: Option<u32>,
    storage_units: Option<u32>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct GroupCreated {
    status: bool,
    group_id: String,
}

async fn permissions() -> axum::Json<PermissionList> {
    let info = |permission: &Permission| PermissionInfo {
        id: permission.id(),
        name: permission.title(),
        group: permission.group(),
        description: permission.help(),
    };
    let permissions: Vec<_> = Permission::ALL.iter().map(info).collect();
    axum::Json(PermissionList { count: permissions.len(), permissions })
}

async fn list_roles(State(api): State<Shared>) -> Result<axum::Json<RoleList>, ApiError> {
    api.accounts.ready().await?;
    let directory = api.accounts.directory();
    let info = |role: &Role| RoleInfo { role_id: role.id.clone(), name: directory.role_name(role).into_owned() };
    let mut roles: Vec<_> = directory.roles().map(|role| info(&role)).collect();
    roles.sort_by_cached_key(|role| (role.name.to_lowercase(), role.role_id.clone()));
    Ok(axum::Json(RoleList { count: roles.len(), roles }))
}

async fn read_role(State(api): State<Shared>, Path(id): Path<String>) -> Result<axum::Json<RoleDetails>, ApiError> {
    api.accounts.ready().await?;
    let directory = api.accounts.directory();
    let role = directory.role(&id).ok_or(Refusal::Unknown("role"))?;
    let permissions = role.permissions.iter().filter_map(|id| id.parse().ok()).collect();
    Ok(axum::Json(RoleDetails { role_id: id, name: directory.role_name(&role).into_owned(), permissions }))
}

async fn create_role(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let asked: RoleRequest = body::form(&api, &headers, body).await?;
    let name = asked.name.ok_or(Form::BadBody("a role has at least a \"name\""))?;
    let permissions = numbered(asked.permissions.unwrap_or_default())?;
    let role_id = api.accounts.put_role(&by, None, |new| Ok(Role { name, permissions, ..new })).await?;
    Ok((StatusCode::CREATED, axum::Json(RoleCreated { status: true, role_id })).into_response())
}

async fn update_role(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<axum::Json<Done>, ApiError> {
    let asked: RoleRequest = body::form(&api, &headers, body).await?;
    let permissions = asked.permissions.map(numbered).transpose()?;
    let change = |old: Role| {
        let mut role = Role { name: asked.name.unwrap_or_else(|| old.name.clone()), ..old };
        if let Some(permissions) = permissions {
            // Those that this version does not know are not its to take.
            role.permissions.retain(|id| id.parse().ok().and_then(Permission::of).is_none());
            role.permissions.extend(permissions);
        }
        Ok(role)
    };
    api.accounts.put_role(&by, Some(&id), change).await?;
    Ok(DONE)
}

async fn remove_role(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<axum::Json<Done>, ApiError> {
    api.accounts.delete_role(&by, &id).await?;
    Ok(DONE)
}

fn numbered(permissions: BTreeSet<u16>) -> Result<BTreeSet<String>, ApiError> {
    if permissions.iter().any(|id| Permission::of(*id).is_none()) {
        return Err(Form::BadBody("`permissions` are numbers that /api/permissions lists").into());
    }
    Ok(permissions.into_iter().map(|id| id.to_string()).collect())
}

impl GroupInfo {
    fn of(directory: &Directory, group: &Group) -> Self {
        Self {
            group_id: group.id.clone(),
            name: directory.group_name(group).into_owned(),
            max_spaces: group.max_spaces,
            compute_units: group.compute_units,
            storage_units: group.storage_units,
        }
    }
}

async fn list_groups(State(api): State<Shared>) -> Result<axum::Json<GroupList>, ApiError> {
    api.accounts.ready().await?;
    let directory = api.accounts.directory();
    let mut groups: Vec<_> = directory.groups().map(|group| GroupInfo::of(&directory, group)).collect();
    groups.sort_by_cached_key(|group| (group.name.to_lowercase(), group.group_id.clone()));
    Ok(axum::Json(GroupList { count: groups.len(), groups }))
}

async fn read_group(State(api): State<Shared>, Path(id): Path<String>) -> Result<axum::Json<GroupInfo>, ApiError> {
    api.accounts.ready().await?;
    let directory = api.accounts.directory();
    let group = directory.group(&id).ok_or(Refusal::Unknown("group"))?;
    Ok(axum::Json(GroupInfo::of(&directory, group)))
}

async fn create_group(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let asked: GroupRequest = body::form(&api, &headers, body).await?;
    if asked.name.is_none() {
        return Err(Form::BadBody("a group has at least a \"name\"").into());
    }
    let group_id = api.accounts.put_group(&by, None, |new| Ok(asked.onto(new))).await?;
    Ok((StatusCode::CREATED, axum::Json(GroupCreated { status: true, group_id })).into_response())
}

async fn update_group(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<axum::Json<Done>, ApiError> {
    let asked: GroupRequest = body::form(&api, &headers, body).await?;
    api.accounts.put_group(&by, Some(&id), |old| Ok(asked.onto(old))).await?;
    Ok(DONE)
}

async fn remove_group(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<axum::Json<Done>, ApiError> {
    api.accounts.delete_group(&by, &id).await?;
    Ok(DONE)
}

impl GroupRequest {
    fn onto(self, old: Group) -> Group {
        Group {
            name: self.name.unwrap_or(old.name),
            max_spaces: self.max_spaces.unwrap_or(old.max_spaces),
            compute_units: self.compute_units.unwrap_or(old.compute_units),
            storage_units: self.storage_units.unwrap_or(old.storage_units),
            ..old
        }
    }
}
