//! What a person may be allowed to do. The numbers are part of the API and of stored roles, and never change their
//! meaning; those below 1,000 are the ones that other software of this kind uses too.

use std::fmt;

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $group:literal, $title:literal, $help:literal;)+) => {
        /// One thing that a role allows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Permission {
            $(#[doc = $help] $name,)+
        }

        impl Permission {
            /// All there are, in the order in which people are shown them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its number in the API and in roles.
            #[must_use]
            pub const fn id(self) -> u16 {
                match self { $(Self::$name => $id),+ }
            }

            /// Under which heading it is shown.
            #[must_use]
            pub const fn group(self) -> &'static str {
                match self { $(Self::$name => $group),+ }
            }

            /// What it is called.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title),+ }
            }

            /// One line for people.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$name => $help),+ }
            }
        }
    };
}

permissions! {
    ManageUsers = 0, "People", "Manage Users", "Create, edit and delete users.";
    ManageGroups = 4, "People", "Manage Groups", "Create, edit and delete groups.";
    ManageRoles = 5, "People", "Manage Roles", "Create, edit and delete roles.";
    UseTokens = 1003, "People", "Use API Tokens", "Make API tokens of one's own.";
    UseSpaces = 7, "Spaces", "Use Spaces", "Create and run spaces of one's own.";
    TransferSpaces = 10, "Spaces", "Transfer Spaces", "Give a space of one's own to another user.";
    ShareSpaces = 11, "Spaces", "Share Spaces", "Share a space of one's own with other users.";
    ManageSpaces = 2, "Spaces", "Manage Spaces", "Manage any space, whoever owns it.";
    ManageTemplates = 1, "Spaces", "Manage Templates", "Create, edit and delete templates.";
    ManageVariables = 6, "Spaces", "Manage Variables", "Create, edit and delete template variables.";
    ReadDocuments = 1001, "Documents", "Read Documents", "Read all documents but those that knot keeps for itself.";
    EditDocuments = 1002, "Documents", "Edit Documents", "Create, edit and delete documents.";
    ViewAuditLogs = 9, "System", "View Audit Logs", "See who did what.";
    ClusterInfo = 12, "System", "View Cluster Info", "See the servers of the cluster and how they are.";
    ManageCluster = 1000, "System", "Manage Cluster", "Take servers out, shut them out and let them in again.";
}

impl Permission {
    /// The one of this number.
    #[must_use]
    pub fn of(id: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|permission| permission.id() == id)
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// A set of permissions.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Permissions(u32);

impl Permissions {
    /// Every one there is.
    #[must_use]
    pub fn all() -> Self {
        Permission::ALL.iter().copied().collect()
    }

    /// Whether it holds this one.
    #[must_use]
    pub fn has(self, permission: Permission) -> bool {
        self.0 & permission.bit() != 0
    }

    /// Whether it holds all that `other` does.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// What either holds.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those it holds, in order.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.iter().copied().filter(move |permission| self.has(*permission))
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<T: IntoIterator<Item = Permission>>(permissions: T) -> Self {
        Self(permissions.into_iter().fold(0, |bits, permission| bits | permission.bit()))
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_name_one_permission_each_and_stay() {
        for permission in Permission::ALL {
            assert_eq!(Permission::of(permission.id()), Some(*permission));
        }
        assert_eq!(Permission::of(12), Some(Permission::ClusterInfo));
        assert_eq!(Permission::of(999), None);
    }

    #[test]
    fn a_set_covers_what_it_holds() {
        let some: Permissions = [Permission::UseSpaces, Permission::ClusterInfo].into_iter().collect();
        assert!(Permissions::all().covers(some) && !some.covers(Permissions::all()));
        assert!(some.has(Permission::UseSpaces) && !some.has(Permission::ManageUsers));
        assert_eq!(some.iter().count(), 2);
    }
}
