//! What members say to each other. Layouts are postcard's; nothing is recursive, and every list has a limit.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ADDRESSES_MAX, LABEL_BYTES_MAX, Record, STARTS_MAX, Status};
use crate::identity::{Boot, Incarnation, NodeId};
use crate::time::Wall;

/// Largest encoded message that is sent as a datagram, in bytes, before the engine adds roots to probes.
/// With them and the seal it stays below 1,200 bytes.
pub const DATAGRAM_BYTES_MAX: usize = 900;
/// Most updates in one message other than [`Message::Sync`].
pub const UPDATES_MAX: usize = 64;
/// Most updates in one [`Message::Sync`].
pub const SYNC_UPDATES_MAX: usize = 8_192;
/// Largest encoded [`Message::Sync`], in bytes.
pub const SYNC_BYTES_MAX: usize = 512 << 10;
/// Parts into which tables are split for comparison, by the first byte of the node id.
pub const BUCKETS: usize = 64;

/// The pipe a message goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A sealed datagram: may be lost.
    Datagram,
    /// The stream session with that peer: kept in order, or lost with the session.
    Stream,
}

/// One message between two members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Are you there?
    Ping {
        /// Names the probe; chosen by the one that asks.
        seq: u32,
        /// Little-endian [`Membership::view_hash`](super::Membership::view_hash) of the sender.
        view: [u8; 8],
        /// News.
        updates: Vec<Update>,
    },
    /// I am.
    Ack {
        /// Of the ping.
        seq: u32,
        /// As in a ping.
        view: [u8; 8],
        /// What the sender's wall clock shows, where it knows.
        clock: Option<Wall>,
        /// News.
        updates: Vec<Update>,
    },
    /// Probe `target` for me.
    PingReq {
        /// Names the probe; chosen by the one that asks.
        seq: u32,
        /// Whom.
        target: NodeId,
    },
    /// The target of that request answered me.
    Vouch {
        /// Of the request.
        seq: u32,
    },
    /// I am well, but the target of that request did not answer me.
    Nack {
        /// Of the request.
        seq: u32,
    },
    /// News on its own.
    Gossip {
        /// The news.
        updates: Vec<Update>,
    },
    /// Opens a comparison of tables; by stream.
    SyncDigest {
        /// The sender, as of now.
        record: Arc<Record>,
        /// Whether the receiver is to send what differs. Otherwise the sender awaits the receiver's own digest.
        answer: bool,
        /// A sum over each bucket, [`BUCKETS`] of them.
        buckets: Vec<u64>,
    },
    /// All that the sender knows of some buckets, or one of several parts of it; by stream.
    Sync {
        /// A bit for each bucket.
        mask: u64,
        /// Whether the receiver is to send its own entries of these buckets; set on the last part only.
        answer: bool,
        /// The entries.
        updates: Vec<Update>,
    },
    /// The sender says goodbye.
    Leave {
        /// Of the sender.
        boot: Boot,
        /// Of the sender.
        incarnation: Incarnation,
        /// Whether it stops being one that must hold every change.
        retired: bool,
    },
}

/// One statement about one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Update {
    /// For those who may not know the member, or not this start of it.
    Full {
        /// What the member says of itself.
        record: Arc<Record>,
        /// What is believed of it.
        standing: Standing,
    },
    /// For those who know it.
    Brief {
        /// Who.
        node: NodeId,
        /// Which of its starts.
        boot: Boot,
        /// Which of its own statements this is about.
        incarnation: Incarnation,
        /// What is believed of it.
        standing: Standing,
    },
}

/// What is believed of a member, and on whose word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The belief.
    pub status: Status,
    /// With [`Status::Left`]: whether it left the durable set too.
    pub retired: bool,
    /// Whether the accuser's connection was refused by the member's own host.
    pub refused: bool,
    /// Who suspected it or declared it failed; none for what a member says of itself.
    pub accuser: Option<NodeId>,
    /// For how long it has been failed or left, in seconds; so that the retention ends everywhere at once.
    pub age_s: u32,
}

impl Standing {
    /// Nothing is held against the member.
    pub const ALIVE: Self = Self { status: Status::Alive, retired: false, refused: false, accuser: None, age_s: 0 };
}

impl Message {
    /// Whether the engine attaches the roots of its documents.
    #[must_use]
    pub const fn carries_roots(&self) -> bool {
        matches!(self, Self::Ping { .. } | Self::Ack { .. })
    }

    /// Whether every list, label and number is within its limit. A message that is not is dropped and counted.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let all = |updates: &[Update], max: usize| updates.len() <= max && updates.iter().all(Update::is_valid);
        match self {
            Self::Ping { updates, .. } | Self::Ack { updates, .. } | Self::Gossip { updates } => {
                all(updates, UPDATES_MAX)
            }
            Self::SyncDigest { record, buckets, .. } => record.is_valid() && buckets.len() == BUCKETS,
            Self::Sync { updates, .. } => all(updates, SYNC_UPDATES_MAX),
            Self::Leave { incarnation, .. } => incarnation.starts <= STARTS_MAX,
            Self::PingReq { .. } | Self::Vouch { .. } | Self::Nack { .. } => true,
        }
    }

    /// Length of the encoding, in bytes.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        encoded_bytes(self)
    }
}

impl Update {
    /// Whom it is about.
    #[must_use]
    pub fn node(&self) -> NodeId {
        match self {
            Self::Full { record, .. } => record.node,
            Self::Brief { node, .. } => *node,
        }
    }

    /// What it says.
    #[must_use]
    pub const fn standing(&self) -> &Standing {
        match self {
            Self::Full { standing, .. } | Self::Brief { standing, .. } => standing,
        }
    }

    /// The statement of the member's own that it refers to.
    #[must_use]
    pub fn version(&self) -> (Incarnation, Boot) {
        match self {
            Self::Full { record, .. } => (record.incarnation, record.boot),
            Self::Brief { boot, incarnation, .. } => (*incarnation, *boot),
        }
    }

    fn is_valid(&self) -> bool {
        let standing = self.standing();
        let coherent = !standing.retired || standing.status == Status::Left;
        let labels = match self {
            Self::Full { record, .. } => record.is_valid(),
            Self::Brief { incarnation, .. } => incarnation.starts <= STARTS_MAX,
        };
        coherent && labels
    }
}

impl Record {
    /// Whether every number, label and list is within its limit.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.incarnation.starts <= STARTS_MAX
            && [&self.name, &self.zone, &self.version, &self.url].iter().all(|label| label.len() <= LABEL_BYTES_MAX)
            && self.addresses.len() <= ADDRESSES_MAX
            && self.addresses.iter().all(|address| address.0.len() <= LABEL_BYTES_MAX)
    }
}

/// Length of postcard's encoding of `value`, in bytes.
pub(super) fn encoded_bytes<T: Serialize>(value: &T) -> usize {
    postcard::experimental::serialized_size(value).unwrap_or(usize::MAX)
}
