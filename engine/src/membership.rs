//! Who is in the cluster, and who of them answers.
//!
//! SWIM (Das, Gupta, Motivala, 2002) with suspicion and the local-health ideas of Lifeguard (Dadgar, Phillips, Currey,
//! arXiv 1707.00788), one pool with failure detection scoped by zone.
//!
//! A machine of its own: messages, session openings and timers go in, [`Action`]s come out. It never reads a clock, never
//! resolves a name, never touches documents; the engine seals what it sends and attaches the roots that repair compares.
//!
//! - Beliefs merge by a lattice (`table`): only its owner raises an incarnation, so a false belief ends with a denial.
//! - A suspicion that runs out looks at the member's present state before it declares anything (`accuse`).
//! - Word of a failure of a member whose stream is open here is checked by a probe before it is believed.
//! - Durability ends with a retirement or a force-leave, never with a failure.

mod accuse;
mod action;
mod clock;
mod config;
mod evidence;
mod gossip;
mod install;
mod machine;
mod mesh;
mod message;
mod probe;
mod records;
mod route;
mod rumours;
mod seeds;
mod suspicion;
mod table;
mod timers;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::action::{Action, Closed, ForceLeaveError, TimerKind};
pub use self::clock::ClockOffset;
pub use self::config::Config;
pub use self::evidence::{Accusation, Evidence};
pub use self::machine::{ACTIONS_MAX, Membership, Stats};
pub use self::message::{
    BUCKETS, DATAGRAM_BYTES_MAX, Message, SYNC_BYTES_MAX, SYNC_UPDATES_MAX, Standing, UPDATES_MAX, Update, Via,
};
pub use self::records::Records;
pub use self::route::Route;
pub use self::seeds::SEEDS_MAX;
use crate::identity::{Address, Boot, Incarnation, NodeId};
use crate::time::Instant;

/// What a node says of itself, and others repeat.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Record {
    /// Who.
    pub node: NodeId,
    /// Which of its starts.
    pub boot: Boot,
    /// Orders records of one node; only the node itself raises it.
    pub incarnation: Incarnation,
    /// A label for people; at most [`LABEL_BYTES_MAX`] bytes.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Where it listens for streams and datagrams, best first; at most [`ADDRESSES_MAX`].
    pub addresses: Vec<Address>,
    /// The version of its software.
    pub version: String,
    /// Where its HTTP API is.
    pub url: String,
}

/// Longest label in a record (name, zone, version, URL, address), in bytes.
pub const LABEL_BYTES_MAX: usize = 256;
/// Most addresses in a record.
pub const ADDRESSES_MAX: usize = 4;
/// Highest start count: the last number is nobody's, so that above every count there is one.
pub const STARTS_MAX: u32 = u32::MAX - 1;
/// How many starts others may make a node skip while it runs: what a restored backup can have forgotten of them. To be
/// driven to [`STARTS_MAX`], a node would have to be lied about through 65,000 starts.
pub const STARTS_SKIPPED_MAX: u32 = 1 << 16;
/// Most members in the table; a record beyond it is dropped and counted.
pub const MEMBERS_MAX: usize = 16_384;

/// What is believed of a member. At equal incarnations the later in this order wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Status {
    /// It answers.
    Alive,
    /// It missed a probe and its helpers; it has until a deadline to deny it.
    Suspect,
    /// It did not answer in time.
    Failed,
    /// It said goodbye, or was made to leave.
    Left,
}

/// A member as this node sees it.
#[derive(Clone, Debug)]
pub struct Member {
    /// What it says of itself.
    pub record: Arc<Record>,
    /// What is believed of it.
    pub status: Status,
    /// When `status` last changed.
    pub since: Instant,
    /// When it was last heard from directly; never for one known only from others.
    pub last_seen: Option<Instant>,
    /// Smoothed round trip of probes.
    pub rtt: Option<Duration>,
    /// How far its wall clock is ahead; none before it has answered a probe of this node.
    pub clock: Option<ClockOffset>,
    /// Whether datagrams have verified between its present start and this node's, and still arrive.
    pub datagrams: bool,
    /// Whether it counts as one that must hold every change of its scopes. Only a retirement or a force-leave ends that,
    /// never a failure or a stop by signal.
    pub durable: bool,
}
