//! Watching a run: what a log, a recording or a measurement is told of it. A watch changes nothing that happens.

mod kind;

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;
use knot_engine::membership::Status;
use knot_engine::{Instant, ScopeStatus};

pub use self::kind::{DATAGRAM_OVERHEAD_BYTES, Kind};
use crate::ledger::Outcome;
use crate::scenario::Operation;
use crate::state::NodeState;
use crate::trace::Sink;

/// Who watches a run, and how far.
#[derive(Default)]
pub struct Watch {
    /// Is given a line for each event that people follow.
    pub log: Option<Sink>,
    /// Whether the log also has a line for each event of the trace's hash.
    pub every_event: bool,
    /// Is told what happens, as data.
    pub observer: Option<Box<dyn Observer>>,
    /// The run ends here, if no promise breaks before.
    pub until: Option<Instant>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("until", &self.until).finish_non_exhaustive()
    }
}

/// Is told what happens in a run, in order.
pub trait Observer {
    /// Something happens.
    fn observe(&mut self, now: Instant, what: Observed);
}

/// Whoever started the run keeps the other half.
impl<T: Observer> Observer for Rc<RefCell<T>> {
    fn observe(&mut self, now: Instant, what: Observed) {
        self.borrow_mut().observe(now, what);
    }
}

/// What happens in a run. Servers are numbered as in the scenario.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Observed {
    /// A process starts.
    Starts {
        /// On this server.
        node: usize,
    },
    /// A process ends.
    Ends {
        /// On this server.
        node: usize,
        /// `clean`, `killed` or `power`.
        how: &'static str,
    },
    /// A process is no longer scheduled, or is again.
    Pauses {
        /// On this server.
        node: usize,
        /// Whether it is no longer scheduled.
        on: bool,
    },
    /// An entry of the scenario's faults begins.
    FaultBegins(usize),
    /// It ends.
    FaultEnds(usize),
    /// A client's operation reaches its server.
    Asked(Operation),
    /// A write has its answer, or will never have one.
    Answered {
        /// The operation's number.
        write: u32,
        /// What the client knows.
        answer: Answer,
    },
    /// A server holds a write, durably.
    Holds {
        /// Which server.
        node: usize,
        /// The operation's number.
        write: u32,
    },
    /// A datagram is sent.
    Datagram {
        /// By this server.
        from: usize,
        /// To this one.
        to: usize,
        /// Its content.
        bytes: Bytes,
        /// When each of its copies arrives; none when it is lost.
        arrives: Vec<Instant>,
        /// Whether the link is cut.
        blocked: bool,
    },
    /// A frame is given to a stream.
    Frame {
        /// Which stream, and which end of it will get the frame.
        end: (u64, usize),
        /// By this server.
        from: usize,
        /// To this one.
        to: usize,
        /// Its content.
        bytes: Bytes,
    },
    /// The oldest frame under way to this end of a stream arrives.
    FrameArrives {
        /// Which stream and end.
        end: (u64, usize),
    },
    /// This end of a stream is over: frames under way to it are lost.
    StreamEnds {
        /// Which stream and end.
        end: (u64, usize),
    },
    /// A server's belief about another changes.
    Member {
        /// Who believes.
        observer: usize,
        /// Of whom.
        subject: usize,
        /// What.
        status: Status,
    },
    /// What a server holds of each scope, when it starts and when that changes.
    Scopes {
        /// Which server.
        node: usize,
        /// Its scopes.
        scopes: Vec<ScopeStatus>,
    },
    /// A server begins a repair.
    Repairs {
        /// Which server.
        node: usize,
        /// Of which scope.
        scope: String,
    },
    /// How every server stands when the run ends.
    State(Vec<NodeState>),
}

/// What the client of a write knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was made, and is durable.
    Acknowledged {
        /// Whether that took a change.
        changed: bool,
    },
    /// It was not made, and why.
    Refused(String),
    /// The server died first, or said that its storage failed.
    Unknown,
}

impl From<&Outcome> for Answer {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Acknowledged { changed, .. } => Self::Acknowledged { changed: *changed },
            Outcome::Refused(why) => Self::Refused(why.clone()),
            Outcome::Unknown | Outcome::Pending => Self::Unknown,
        }
    }
}
