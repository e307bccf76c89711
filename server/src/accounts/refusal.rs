//! Why something was not done about accounts: the asker's to mend.

use super::permission::Permission;
use crate::spaces::Unplaceable;
use crate::templates::Complaint;

/// Why an operation on accounts was not carried out. Nothing of it remains.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is none of this kind and id.
    #[error("no such {0}")]
    Unknown(&'static str),
    /// Another has the name.
    #[error("the {kind} {name:?} is taken")]
    Taken {
        /// What it would name.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A field does not hold what it must.
    #[error("`{field}` is not valid: {why}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// What it has to be.
        why: String,
    },
    /// Nobody would be left who can manage everything.
    #[error("this is the last administrator who can log in")]
    LastAdministrator,
    /// The asker would give, or take over, more than is theirs.
    #[error("that would take permissions that you do not have: {}", titles(.0))]
    AboveYou(Vec<Permission>),
    /// The role of administrators is as it is.
    #[error("the role of administrators cannot be changed or deleted")]
    BuiltIn,
    /// Name or password is wrong, or the user may not log in. Which one is not said.
    #[error("wrong name or password")]
    WrongPassword,
    /// So often that it is slowed.
    #[error("too many failed logins")]
    TooManyTries {
        /// How long until the next is looked at, in seconds.
        wait_s: u64,
    },
    /// The link was used, is too old, or was never given; or there are users already.
    #[error("this setup link is not valid any more")]
    SetupOver,
    /// What is sent is no such record.
    #[error("the body is JSON, but not of the form that is asked for: {0}")]
    Unfit(String),
    /// Somebody else changed the same since the asker looked, to something else.
    #[error("somebody else has changed {} meanwhile", .0.join(", "))]
    Disputed(Vec<String>),
    /// A template, or what belongs to it, is wrong in these places.
    #[error("{}", listed(.0))]
    Complaints(Vec<Complaint>),
    /// No server will do for a space.
    #[error(transparent)]
    Unplaceable(Unplaceable),
    /// The space runs on another server than was asked for.
    #[error("the space runs on {0}")]
    RunsElsewhere(String),
    /// The space was placed on a server that does not answer.
    #[error("{0}, which has the space, does not answer, so whether it still runs there is not known")]
    Silent(String),
    /// A server that does not answer has the space's volumes.
    #[error("{0}, which has the space's volumes, does not answer")]
    VolumesAway(String),
    /// More than the owner may have.
    #[error("that would be {wanted} {kind}, and the owner may have {max}")]
    OverLimit {
        /// Of what.
        kind: &'static str,
        /// How many may be.
        max: u64,
        /// How many it would be.
        wanted: u64,
    },
    /// Tokens are not kept here.
    #[error("this server keeps no tokens that could be shown again")]
    RevealsNone,
    /// The token was not kept, or under another password.
    #[error("this token cannot be shown again: it was not kept, or with an earlier password")]
    NotSealed,
    /// There are as many as may be.
    #[error("there are {max} {kind} already")]
    TooMany {
        /// Of what.
        kind: &'static str,
        /// How many may be.
        max: usize,
    },
}

impl Refusal {
    pub(crate) fn invalid(field: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid { field, why: why.into() }
    }
}

fn listed(complaints: &[Complaint]) -> String {
    complaints.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn titles(permissions: &[Permission]) -> String {
    permissions.iter().map(|permission| permission.title()).collect::<Vec<_>>().join(", ")
}
