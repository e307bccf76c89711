//! Who asks, and what they may: the one place where that is decided for requests, pages and feeds.

use super::permission::{Permission, Permissions};
use super::token::TokenScope;
use super::{AUDIT, OWN_COLLECTIONS, PASSWORDS, ROLES, SEALED, SESSIONS, TOKENS, USERS};
use crate::spaces::{SERVERS, SPACE_STATES, SPACE_STUBS, SPACES};
use crate::templates::{TEMPLATE_VARIABLES, TEMPLATES};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Whoever can read the machine's admin token.
    Machine,
    /// A user.
    User {
        /// Its id.
        id: String,
        /// What it is called.
        username: String,
        /// By which session, where it is one.
        session: Option<String>,
    },
}

/// Who asks, with what they may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who.
    pub who: Who,
    /// What their roles allow.
    pub permissions: Permissions,
    /// What their token is limited to; none where it is not, or where there is no token.
    pub limits: Option<Vec<TokenScope>>,
}

impl Caller {
    /// Whoever can read the machine's admin token.
    #[must_use]
    pub fn machine() -> Self {
        Self { who: Who::Machine, permissions: Permissions::all(), limits: None }
    }

    /// Whether they may do this.
    #[must_use]
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.has(permission)
    }

    /// The user's id; none for the machine.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match &self.who {
            Who::Machine => None,
            Who::User { id, .. } => Some(id),
        }
    }

    /// The session they came by.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        match &self.who {
            Who::Machine => None,
            Who::User { session, .. } => session.as_deref(),
        }
    }

    /// How the audit log names them, and their kind.
    #[must_use]
    pub fn actor(&self) -> (&str, &'static str) {
        match &self.who {
            Who::Machine => ("admin.token", "machine"),
            Who::User { username, .. } => (username, "user"),
        }
    }

    /// Whether the token allows a request at all: one that only reads, or not, of documents of a collection or of
    /// something else.
    #[must_use]
    pub fn is_within_limits(&self, reads: bool, collection: Option<&str>) -> bool {
        let Some(limits) = &self.limits else { return true };
        limits.iter().any(|limit| match limit {
            TokenScope::Read => reads,
            TokenScope::Collection(only) => collection == Some(only),
            TokenScope::Leaf | TokenScope::Nothing => false,
        })
    }

    /// Whether documents of this collection may be read as documents.
    #[must_use]
    pub fn may_read(&self, collection: &str) -> bool {
        let permission = match collection {
            // Not even the machine: there is nothing in them that helps anybody.
            PASSWORDS | SEALED => return false,
            USERS | SESSIONS | TOKENS => Permission::ManageUsers,
            ROLES => Permission::ManageRoles,
            AUDIT => Permission::ViewAuditLogs,
            TEMPLATES => Permission::ManageTemplates,
            SPACES | SPACE_STATES | SPACE_STUBS => Permission::ManageSpaces,
            SERVERS => Permission::ClusterInfo,
            // The values of those that are protected are shown to nobody.
            TEMPLATE_VARIABLES => return false,
            own if own.starts_with(OWN_COLLECTIONS) => Permission::ManageCluster,
            _ => Permission::ReadDocuments,
        };
        self.may(permission) && self.is_within_limits(true, Some(collection))
    }

    /// Whether documents of this collection may be written as documents. Those that knot keeps for itself are written by
    /// requests of their own.
    #[must_use]
    pub fn may_edit(&self, collection: &str) -> bool {
        !collection.starts_with(OWN_COLLECTIONS)
            && self.may(Permission::EditDocuments)
            && self.is_within_limits(false, Some(collection))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(limits: &[TokenScope]) -> Caller {
        Caller { limits: Some(limits.to_vec()), ..Caller::machine() }
    }

    #[test]
    fn passwords_are_read_by_nobody_and_own_collections_edited_by_nobody() {
        let machine = Caller::machine();
        assert!(!machine.may_read(PASSWORDS) && !machine.may_read(SEALED));
        assert!(machine.may_read(USERS) && !machine.may_edit(USERS));
        assert!(machine.may_read("things") && machine.may_edit("things"));
    }

    #[test]
    fn a_token_never_allows_more_than_its_scopes() {
        let reader = limited(&[TokenScope::Read]);
        assert!(reader.may_read("things") && !reader.may_edit("things"));
        let one = limited(&[TokenScope::Collection("things".to_owned())]);
        assert!(one.may_read("things") && one.may_edit("things"));
        assert!(!one.may_read("others") && !one.is_within_limits(true, None));
        for none in [limited(&[]), limited(&[TokenScope::Leaf]), limited(&[TokenScope::Nothing])] {
            assert!(!none.may_read("things") && !none.is_within_limits(true, None));
        }
    }

    #[test]
    fn without_the_permission_nothing_is_read() {
        let nobody = Caller { permissions: Permissions::default(), ..Caller::machine() };
        for collection in [USERS, ROLES, "knot.evicted", "things"] {
            assert!(!nobody.may_read(collection) && !nobody.may_edit(collection), "{collection}");
        }
    }
}
