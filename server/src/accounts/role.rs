//! Roles and groups: what a user may do, and with whom a user belongs.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::fields::{self, number, set, text, time};
use super::permission::{Permission, Permissions};
use super::refusal::Refusal;

/// The role that allows everything. It is no document, so nobody can change or delete it.
pub const ADMINISTRATOR: &str = "00000000000000000000000000000000";

/// Longest name of a role or group, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// A role, as the document `knot.roles/{id}` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// 32 hexadecimal digits.
    pub id: String,
    /// The name that was asked for.
    pub name: String,
    /// When it was.
    pub name_at: i64,
    /// Numbers of permissions; those that this version does not know are kept.
    pub permissions: BTreeSet<String>,
}

impl Role {
    /// The role of administrators.
    #[must_use]
    pub fn administrator() -> Self {
        let permissions = Permission::ALL.iter().map(|permission| permission.id().to_string()).collect();
        Self { id: ADMINISTRATOR.to_owned(), name: "Administrator".to_owned(), name_at: i64::MIN, permissions }
    }

    /// What the document says; none where the role was deleted.
    #[must_use]
    pub fn read(id: &str, value: &Value) -> Option<Self> {
        (!fields::is_deleted(value)).then(|| Self {
            id: id.to_owned(),
            name: text(value, "name"),
            name_at: time(value, "name_at").unwrap_or(i64::MAX),
            permissions: set(value, "permissions"),
        })
    }

    /// What it allows.
    #[must_use]
    pub fn allows(&self) -> Permissions {
        self.permissions.iter().filter_map(|id| Permission::of(id.parse().ok()?)).collect()
    }

    /// The document of a role that is new.
    #[must_use]
    pub fn document(&self) -> Value {
        json!({"name": self.name, "name_at": self.name_at, "permissions": fields::set_value(&self.permissions)})
    }

    /// The merge patch that makes this role `wanted`, of what differs and nothing else.
    #[must_use]
    pub fn patch(&self, wanted: &Self) -> Option<Value> {
        let mut patch = Map::new();
        if self.name != wanted.name {
            patch.insert("name".to_owned(), wanted.name.as_str().into());
            patch.insert("name_at".to_owned(), wanted.name_at.into());
        }
        let permissions = fields::set_patch(&self.permissions, &wanted.permissions);
        patch.extend(permissions.map(|permissions| ("permissions".to_owned(), permissions)));
        (!patch.is_empty()).then_some(patch.into())
    }
}

/// A group, as the document `knot.groups/{id}` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// 32 hexadecimal digits.
    pub id: String,
    /// The name that was asked for.
    pub name: String,
    /// When it was.
    pub name_at: i64,
    /// What each member may have besides its own; zero for nothing.
    pub max_spaces: u32,
    /// The same of compute units.
    pub compute_units: u32,
    /// The same of storage units.
    pub storage_units: u32,
}

impl Group {
    /// What the document says; none where the group was deleted.
    #[must_use]
    pub fn read(id: &str, value: &Value) -> Option<Self> {
        (!fields::is_deleted(value)).then(|| Self {
            id: id.to_owned(),
            name: text(value, "name"),
            name_at: time(value, "name_at").unwrap_or(i64::MAX),
            max_spaces: number(value, "max_spaces"),
            compute_units: number(value, "compute_units"),
            storage_units: number(value, "storage_units"),
        })
    }

    /// The document of a group that is new.
    #[must_use]
    pub fn document(&self) -> Value {
        Self::default().patch(self).unwrap_or_else(|| json!({}))
    }

    /// The merge patch that makes this group `wanted`, of what differs and nothing else.
    #[must_use]
    pub fn patch(&self, wanted: &Self) -> Option<Value> {
        let mut patch = Map::new();
        if self.name != wanted.name {
            patch.insert("name".to_owned(), wanted.name.as_str().into());
            patch.insert("name_at".to_owned(), wanted.name_at.into());
        }
        let numbers = [
            ("max_spaces", self.max_spaces, wanted.max_spaces),
            ("compute_units", self.compute_units, wanted.compute_units),
            ("storage_units", self.storage_units, wanted.storage_units),
        ];
        let differs = numbers.into_iter().filter(|(_, old, new)| old != new);
        patch.extend(differs.map(|(name, _, new)| (name.to_owned(), new.into())));
        (!patch.is_empty()).then_some(patch.into())
    }
}

/// The merge patch of a role or group that goes for good.
#[must_use]
pub(super) fn deletion(at: i64) -> Value {
    json!({"deleted_at": at})
}

/// Whether a role or group may be called so.
///
/// # Errors
/// When it may not.
pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    let is_good = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.trim() == name
        && !name.chars().any(|c| c.is_control() || c == '~');
    if is_good {
        return Ok(());
    }
    Err(Refusal::invalid("name", format!("1 to {NAME_BYTES_MAX} bytes, no ~, no control characters, no space around")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let role =
            Role { id: "1".to_owned(), name: "Ops".to_owned(), name_at: 3, permissions: ["12".to_owned()].into() };
        assert_eq!(Role::read("1", &role.document()), Some(role.clone()));
        assert!(role.allows().has(Permission::ClusterInfo));
        assert_eq!(Role::administrator().allows(), Permissions::all());
        let group = Group { id: "2".to_owned(), name: "Web".to_owned(), name_at: 4, max_spaces: 5, ..Group::default() };
        assert_eq!(Group::read("2", &group.document()), Some(group));
        assert_eq!(Role::read("1", &json!({"name": "Ops", "deleted_at": 1})), None);
    }

    #[test]
    fn permissions_that_are_not_known_stay() {
        let value = json!({"name": "Ops", "name_at": 1, "permissions": {"12": true, "4711": true}});
        let role = Role::read("1", &value).unwrap();
        let mut wanted = role.clone();
        wanted.permissions.insert("0".to_owned());
        assert_eq!(role.patch(&wanted), Some(json!({"permissions": {"0": true}})));
        assert_eq!(role.allows().iter().count(), 1);
    }
}
