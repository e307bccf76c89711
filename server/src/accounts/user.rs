//! A user, as the document `knot.users/{id}` says. The password is kept in a document of its own, `knot.passwords/{id}`,
//! which no request ever reads.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::fields::{self, flag, number, set, text, time};
use super::refusal::Refusal;

/// Longest user name, in characters.
pub const USERNAME_CHARS_MAX: usize = 64;
/// Longest e-mail address, in bytes (RFC 5321).
pub const EMAIL_BYTES_MAX: usize = 254;
/// Longest of a user's other texts, in bytes. An SSH key of 16,384 bits takes 2.8 kB.
pub const TEXT_BYTES_MAX: usize = 8 << 10;
/// Most roles or groups a user is in.
pub const MEMBERSHIPS_MAX: usize = 256;

/// A user. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// 32 hexadecimal digits; never used anew.
    pub id: String,
    /// The name that was asked for; see [`Directory::username`](super::Directory::username) for the one in force.
    pub username: String,
    /// When it was.
    pub username_at: i64,
    /// The e-mail address, or nothing.
    pub email: String,
    /// When it was given.
    pub email_at: i64,
    /// Whether the user may log in.
    pub active: bool,
    /// Ids of roles.
    pub roles: BTreeSet<String>,
    /// Ids of groups.
    pub groups: BTreeSet<String>,
    /// Most spaces; zero for no limit.
    pub max_spaces: u32,
    /// Compute units of all running spaces together; zero for no limit.
    pub compute_units: u32,
    /// Storage units of all spaces together; zero for no limit.
    pub storage_units: u32,
    /// The zone in which the user's spaces are created where nothing else is said.
    pub zone: String,
    /// For times that are shown.
    pub timezone: String,
    /// The shell in spaces.
    pub preferred_shell: String,
    /// Put into spaces.
    pub ssh_public_key: String,
    /// Whose public keys are put into spaces too.
    pub github_username: String,
    /// When the user was made.
    pub created_at: i64,
    /// When the user was last changed, by the changing server's clock.
    pub updated_at: i64,
}

impl User {
    /// What the document says; none where the user was deleted.
    #[must_use]
    pub fn read(id: &str, value: &Value) -> Option<Self> {
        if fields::is_deleted(value) {
            return None;
        }
        Some(Self {
            id: id.to_owned(),
            username: text(value, "username"),
            username_at: time(value, "username_at").unwrap_or(i64::MAX),
            email: text(value, "email"),
            email_at: time(value, "email_at").unwrap_or(i64::MAX),
            active: flag(value, "active"),
            roles: set(value, "roles"),
            groups: set(value, "groups"),
            max_spaces: number(value, "max_spaces"),
            compute_units: number(value, "compute_units"),
            storage_units: number(value, "storage_units"),
            zone: text(value, "zone"),
            timezone: text(value, "timezone"),
            preferred_shell: text(value, "preferred_shell"),
            ssh_public_key: text(value, "ssh_public_key"),
            github_username: text(value, "github_username"),
            created_at: time(value, "created_at").unwrap_or_default(),
            updated_at: time(value, "updated_at").unwrap_or_default(),
        })
    }

    /// The document of a user that is new.
    #[must_use]
    pub fn document(&self) -> Value {
        let mut value = json!({
            "active": self.active,
            "roles": fields::set_value(&self.roles),
            "groups": fields::set_value(&self.groups),
            "max_spaces": self.max_spaces,
            "compute_units": self.compute_units,
            "storage_units": self.storage_units,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        });
        if let Some(object) = value.as_object_mut() {
            for (name, text) in self.texts() {
                object.insert(name.to_owned(), text.into());
            }
            object.insert("username_at".to_owned(), self.username_at.into());
            object.insert("email_at".to_owned(), self.email_at.into());
        }
        value
    }

    /// The merge patch that makes this user `wanted`, of what differs and nothing else; none where nothing does. Members
    /// that another changes at the same time keep both changes.
    #[must_use]
    pub fn patch(&self, wanted: &Self) -> Option<Value> {
        let mut patch = Map::new();
        for ((name, old), (_, new)) in self.texts().into_iter().zip(wanted.texts()) {
            if old != new {
                patch.insert(name.to_owned(), new.into());
            }
        }
        let numbers = |user: &Self| {
            [
                ("max_spaces", user.max_spaces),
                ("compute_units", user.compute_units),
                ("storage_units", user.storage_units),
            ]
        };
        for ((name, old), (_, new)) in numbers(self).into_iter().zip(numbers(wanted)) {
            if old != new {
                patch.insert(name.to_owned(), new.into());
            }
        }
        if self.active != wanted.active {
            patch.insert("active".to_owned(), wanted.active.into());
        }
        for (name, old, new) in [("roles", &self.roles, &wanted.roles), ("groups", &self.groups, &wanted.groups)] {
            patch.extend(fields::set_patch(old, new).map(|patch| (name.to_owned(), patch)));
        }
        if patch.is_empty() {
            return None;
        }
        for (name, at) in [("username", wanted.username_at), ("email", wanted.email_at)] {
            if patch.contains_key(name) {
                patch.insert(format!("{name}_at"), at.into());
            }
        }
        patch.insert("updated_at".to_owned(), wanted.updated_at.into());
        Some(patch.into())
    }

    /// The merge patch of a user that goes for good: what is personal goes with it, but for the name, which the audit log
    /// still speaks of.
    #[must_use]
    pub fn deletion(at: i64) -> Value {
        json!({
            "deleted_at": at, "active": false, "email": null, "ssh_public_key": null, "github_username": null,
            "roles": null, "groups": null,
        })
    }

    /// Whether a record may be stored.
    ///
    /// # Errors
    /// The first field that may not.
    pub fn check(&self) -> Result<(), Refusal> {
        check_email(&self.email)?;
        let memberships = self.roles.len().max(self.groups.len());
        if memberships > MEMBERSHIPS_MAX {
            return Err(Refusal::invalid("roles", format!("at most {MEMBERSHIPS_MAX} roles and as many groups")));
        }
        for (name, text) in self.texts() {
            if text.len() > TEXT_BYTES_MAX {
                return Err(Refusal::invalid(name, format!("at most {TEXT_BYTES_MAX} bytes")));
            }
            if text.chars().any(|c| c.is_control() && c != '\n') {
                return Err(Refusal::invalid(name, "no control characters"));
            }
        }
        Ok(())
    }

    fn texts(&self) -> [(&'static str, &str); 7] {
        [
            ("username", &self.username),
            ("email", &self.email),
            ("zone", &self.zone),
            ("timezone", &self.timezone),
            ("preferred_shell", &self.preferred_shell),
            ("ssh_public_key", &self.ssh_public_key),
            ("github_username", &self.github_username),
        ]
    }
}

/// Names are compared without regard to case.
#[must_use]
pub(super) fn folded(name: &str) -> String {
    name.trim().to_lowercase()
}

/// Whether somebody may ask for a name.
pub(super) fn check_username(name: &str) -> Result<(), Refusal> {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_good = (1..=USERNAME_CHARS_MAX).contains(&name.len())
        && name.chars().all(is_fit)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if is_good {
        return Ok(());
    }
    let why = format!("1 to {USERNAME_CHARS_MAX} letters, digits, dots, dashes or underscores, the first no mark");
    Err(Refusal::invalid("username", why))
}

fn check_email(email: &str) -> Result<(), Refusal> {
    if email.is_empty() {
        return Ok(());
    }
    let is_good = email.len() <= EMAIL_BYTES_MAX
        && !email.chars().any(|c| c.is_whitespace() || c.is_control())
        && email
            .split_once('@')
            .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !host.contains('@'));
    if is_good { Ok(()) } else { Err(Refusal::invalid("email", "an address such as ann@example.org, or nothing")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> User {
        User {
            id: "1".to_owned(),
            username: "ann".to_owned(),
            email: "ann@example.org".to_owned(),
            active: true,
            roles: ["a".to_owned(), "b".to_owned()].into(),
            ..User::default()
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(User::read("1", &ann().document()), Some(ann()));
        assert_eq!(User::read("1", &json!({"deleted_at": 5, "username": "ann"})), None);
        assert_eq!(User::read("1", &json!({"username": 5, "roles": [1]})).unwrap().username, "");
    }

    #[test]
    fn a_patch_names_only_what_differs() {
        let wanted = User {
            email: "ann@example.net".to_owned(),
            email_at: 7,
            roles: ["b".to_owned(), "c".to_owned()].into(),
            updated_at: 7,
            ..ann()
        };
        let patch = json!({
            "email": "ann@example.net", "email_at": 7, "roles": {"a": null, "c": true}, "updated_at": 7,
        });
        assert_eq!(ann().patch(&wanted), Some(patch));
        assert_eq!(ann().patch(&User { updated_at: 9, ..ann() }), None);
    }

    #[test]
    fn names_that_could_be_mistaken_are_refused() {
        for name in ["", "-ann", "an n", "ann~1", "\u{e4}nn", &"a".repeat(65)] {
            assert!(check_username(name).is_err(), "{name}");
        }
        for email in ["ann", "@example.org", "ann@", "a@b@c", "a b@c", &format!("{}@c", "a".repeat(254))] {
            assert!(User { email: email.to_owned(), ..ann() }.check().is_err(), "{email}");
        }
        assert_eq!(ann().check(), Ok(()));
        assert_eq!(User { email: String::new(), ..ann() }.check(), Ok(()));
        assert_eq!(check_username("A.n-n_1"), Ok(()));
        assert!(User { timezone: "a\0".to_owned(), ..ann() }.check().is_err());
    }
}
