//! What the machine asks of the engine, and why it may refuse.

use std::sync::Arc;

use super::message::{Message, Via};
use super::{Evidence, Record, Status};
use crate::identity::{Address, Boot, Incarnation, NodeId};

/// What the engine is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a message. Where the pipe is gone by now, drop it.
    Send {
        /// To whom.
        to: NodeId,
        /// By which pipe.
        via: Via,
        /// What.
        message: Message,
    },
    /// Open a stream. Answer with [`on_session_opened`](super::Membership::on_session_opened) or
    /// [`on_connect_failed`](super::Membership::on_connect_failed).
    Connect {
        /// Where.
        address: Address,
        /// Who should answer; none for a seed.
        peer: Option<NodeId>,
    },
    /// None of a live member's addresses leads to it. Look for another member that has a stream with it; attempts at its
    /// addresses go on.
    Detour {
        /// To whom.
        peer: NodeId,
    },
    /// Close the session with a member that has failed, or was long silent on it: its pipe may hang for minutes after the
    /// network has healed.
    Disconnect {
        /// With whom.
        peer: NodeId,
    },
    /// A member is believed to be in another state.
    Changed {
        /// Who.
        node: NodeId,
        /// Before; none for a new member.
        from: Option<Status>,
        /// Now.
        to: Status,
        /// The statement of its own that this is about.
        incarnation: Incarnation,
        /// Why.
        evidence: Evidence,
    },
    /// A member started again elsewhere.
    AddressMoved {
        /// Who.
        node: NodeId,
        /// Before.
        from: Vec<Address>,
        /// Now.
        to: Vec<Address>,
    },
    /// Several live members bear one name.
    NameTaken {
        /// The name.
        name: String,
        /// Who bears it.
        nodes: Vec<NodeId>,
    },
    /// A failed or departed member is no longer listed. That does not take it out of the durable set.
    Reaped {
        /// Its last record.
        record: Arc<Record>,
        /// Whether it counted as durable.
        durable: bool,
    },
    /// This node raised its own incarnation; `starts` has to be persisted where it rose.
    Refuted {
        /// What it is now.
        incarnation: Incarnation,
    },
    /// Another live boot of this node's own id exists, and it is the higher one. This machine has fallen silent.
    Fenced {
        /// The other.
        boot: Boot,
    },
    /// The goodbye has been said.
    LeftDone,
}

/// Why the next timeout is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerKind {
    /// The next probe.
    Probe,
    /// A probe was not answered.
    ProbeTimeout,
    /// A probe for another member was not answered.
    Relay,
    /// A suspicion ends.
    Suspicion,
    /// A round of gossip.
    Gossip,
    /// Connect to a member.
    Connect,
    /// Try the seeds.
    SeedRetry,
    /// Knock at a failed member.
    FailedRetry,
    /// See with whom streams are to be held.
    Mesh,
    /// A member has been listed long enough.
    Reap,
    /// The goodbye ends.
    Leave,
}

/// Why a session or an attempt at one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The peer's host closed it in order.
    Eof,
    /// The peer's host broke it.
    Reset,
    /// The peer's host is there, and nothing listens.
    Refused,
    /// No answer in time, or no way there.
    Timeout,
    /// This node closed it.
    Local,
}

/// Why a member cannot be made to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForceLeaveError {
    /// No such member is known.
    #[error("no such member is known")]
    Unknown,
    /// It answers, and force was not asked for.
    #[error("the member is alive")]
    Alive,
    /// A node leaves by [`Membership::leave`](super::Membership::leave).
    #[error("a node cannot force itself to leave")]
    Myself,
}
