//! On what a change of a member's standing rests.

use std::time::Duration;

use super::Status;
use super::machine::Membership;
use super::message::Standing;
use super::table::Entry;
use crate::identity::NodeId;
use crate::time::Instant;

/// On what a change of a member's standing rests, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It is new to this node.
    Met,
    /// It was known from before this node's start, and was heard of.
    HeardAgain,
    /// It started anew.
    Started,
    /// It denied what was held against it.
    Denied,
    /// Somebody could not reach it.
    Accused(Accusation),
    /// It was known from before this node's start, and was not heard of in time.
    Unheard,
    /// It said goodbye.
    Goodbye,
    /// A member was told to take it out.
    TakenOut {
        /// Which.
        by: NodeId,
    },
    /// It is shut out.
    ShutOut,
}

/// Who could not reach a member, and how that showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accusation {
    /// Whose word this is: for a suspect, its accuser; for a failed member, whoever declared that, who need not have tried
    /// to reach it. None where it came without a name.
    pub by: Option<NodeId>,
    /// Whom the member's host refused, so that nothing listens there any more; in the order of ids, at most 17.
    pub refused: Vec<NodeId>,
    /// Whom it did not answer; in the order of ids, at most 17.
    pub unanswered: Vec<NodeId>,
    /// For how long this node had heard nothing of the member; none where it never heard it.
    pub unheard_for: Option<Duration>,
}

impl Evidence {
    /// Whose doing it is: who accused the member, gave it up, or took it out.
    #[must_use]
    pub const fn by(&self) -> Option<NodeId> {
        match self {
            Self::Accused(accusation) => accusation.by,
            Self::TakenOut { by } => Some(*by),
            Self::Met
            | Self::HeardAgain
            | Self::Started
            | Self::Denied
            | Self::Unheard
            | Self::Goodbye
            | Self::ShutOut => None,
        }
    }

    /// Who could not reach it, where that is the reason.
    #[must_use]
    pub const fn accusation(&self) -> Option<&Accusation> {
        if let Self::Accused(accusation) = self { Some(accusation) } else { None }
    }

    /// The members that it names.
    pub fn witnesses(&self) -> impl Iterator<Item = NodeId> {
        let tried = self.accusation().into_iter();
        self.by().into_iter().chain(tried.flat_map(|told| told.refused.iter().chain(&told.unanswered).copied()))
    }
}

/// What was known of a member before its standing changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    /// None where it was not known.
    pub(super) status: Option<Status>,
    /// Whether it was known from before this node's start alone.
    pub(super) restored: bool,
    /// Whether what is believed now is about another of its starts.
    pub(super) new_boot: bool,
}

impl Membership {
    /// Why `node` has its new standing.
    pub(super) fn evidence(&self, node: &NodeId, before: Before, standing: &Standing, now: Instant) -> Evidence {
        let Some(entry) = self.table.get(node) else {
            return Evidence::Met;
        };
        match entry.status {
            Status::Alive if before.status.is_none() => Evidence::Met,
            Status::Alive if before.new_boot => Evidence::Started,
            Status::Alive if before.restored => Evidence::HeardAgain,
            Status::Alive => Evidence::Denied,
            Status::Suspect | Status::Failed => Evidence::Accused(self.accusation_of(entry, standing, now)),
            Status::Left if self.evicted().contains(node) => Evidence::ShutOut,
            Status::Left => standing.accuser.map_or(Evidence::Goodbye, |by| Evidence::TakenOut { by }),
        }
    }

    fn accusation_of(&self, entry: &Entry, standing: &Standing, now: Instant) -> Accusation {
        let suspicion = self.suspicions.get(&entry.node()).filter(|suspicion| suspicion.version == entry.version());
        let (mut refused, mut accusers) =
            suspicion.map(|suspicion| (suspicion.refused.clone(), suspicion.accusers.clone())).unwrap_or_default();
        // Who declares a failure need not have tried; whoever accuses, or was refused, has.
        if standing.refused {
            refused.extend(standing.accuser);
        } else if entry.status == Status::Suspect {
            accusers.extend(standing.accuser);
        }
        Accusation {
            by: standing.accuser,
            unanswered: accusers.difference(&refused).copied().collect(),
            refused: refused.into_iter().collect(),
            unheard_for: entry.contact().last_seen.map(|seen| now.since(seen)),
        }
    }
}
