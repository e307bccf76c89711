//! What a simulator asks of a server that nobody else may.
//!
//! It comes as a value to [`run`](crate::run()); no configuration, environment variable or feature reaches it, and the
//! binary passes none.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use knot_engine::Faults;

use crate::spaces::Containers;

/// A server of a simulator's. It keeps to the tasks of its runtime, whose time is simulated.
#[derive(Clone)]
pub struct Simulated {
    /// How long the next commit takes.
    pub commit_takes: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// Changes the engine's configuration, such as its limits.
    pub tune: Arc<dyn Fn(&mut knot_engine::Config) + Send + Sync>,
    /// Bugs planted in the engine.
    pub faults: Faults,
    /// A bug planted around it.
    pub defect: Option<Defect>,
    /// What runs spaces; none where there are none to run.
    pub containers: Option<Arc<dyn Containers>>,
}

/// A bug on purpose in what surrounds the engine, to prove that a simulator of whole servers would find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Defect {
    /// The committer reports a batch as durable before it writes it.
    AnsweredUnwritten,
    /// The journal does not sync its records.
    JournalUnsynced,
    /// The committer panics at its first batch, on a task that nobody waits for.
    CommitterPanics,
    /// A PATCH is made whatever state its `If-Match` names.
    ConditionUnchecked,
    /// Who has a name is decided by when a server heard of it, and never for good.
    NamesByArrival,
    /// A deleted user is a deleted document, which an edit that had not seen the delete brings back.
    DeletedUserReturns,
    /// A token is good that was used after it was revoked.
    UseUnrevokes,
    /// The last administrator may be let go.
    LastAdministratorGoes,
    /// A start that had not seen a space's deletion takes it back.
    DeletedSpaceReturns,
    /// A server takes over the spaces of one that is silent.
    SilentIsTakenOver,
    /// What was reported of a start is forgotten, so a container that is gone is made again.
    StartIsRepeated,
}

impl Defect {
    /// Those in what servers do with accounts.
    pub const IN_ACCOUNTS: [Self; 4] =
        [Self::NamesByArrival, Self::DeletedUserReturns, Self::UseUnrevokes, Self::LastAdministratorGoes];
    /// Those in what servers do with spaces.
    pub const IN_SPACES: [Self; 3] = [Self::DeletedSpaceReturns, Self::SilentIsTakenOver, Self::StartIsRepeated];
}

impl Simulated {
    pub(crate) fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }
}

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulated").field("faults", &self.faults).field("defect", &self.defect).finish_non_exhaustive()
    }
}
