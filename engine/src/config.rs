//! What a node is told at its start.

use std::time::Duration;

use crate::identity::{Address, NodeKey};
use crate::membership;
use crate::seal::KeyRing;

/// A node's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its long-lived key.
    pub node_key: NodeKey,
    /// Its label.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Where it listens, best first.
    pub addresses: Vec<Address>,
    /// The version of its software.
    pub version: String,
    /// Where its HTTP API is.
    pub url: String,
    /// The cluster's label, from which with the key its id is derived at the first start.
    pub cluster_name: String,
    /// The cluster's keys; none turns sealing off, which is for simulators and for a server that has no peers.
    pub cluster_keys: Option<KeyRing>,
    /// Membership's intervals.
    pub membership: membership::Config,
    /// Bounds on memory and messages.
    pub limits: Limits,
}

/// A named bound for every queue and cache. All are per node.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of writes that may wait for storage; edits beyond are refused as busy, changes from peers are dropped.
    pub persist_bytes: usize,
    /// Requests that may wait for documents to be loaded.
    pub waiters: usize,
    /// Earlier versions of documents that are being made, each of the document's whole log.
    pub versions: usize,
    /// Bytes of changes from peers that may wait for their document's log to be loaded.
    pub incoming_bytes: usize,
    /// Changes whose dependencies are missing.
    pub orphans: usize,
    /// Bytes of those changes.
    pub orphan_bytes: usize,
    /// Heap bytes of materialised documents, roughly.
    pub document_cache_bytes: usize,
    /// Heap bytes of document logs, roughly.
    pub log_cache_bytes: usize,
    /// Bytes that may wait to be sent to one peer; a push beyond is dropped, and repair makes up for it.
    pub peer_queue_bytes: usize,
    /// Edits that wait for replicas.
    pub replica_waits: usize,
    /// Bytes of changes in one answer to a repair; at most half a frame.
    pub window_bytes: usize,
    /// Repair requests of one peer that are being answered.
    pub serves_per_peer: usize,
    /// Most open sessions.
    pub sessions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            persist_bytes: 32 << 20,
            waiters: 16_384,
            versions: 4,
            incoming_bytes: 16 << 20,
            orphans: 4_096,
            orphan_bytes: 4 << 20,
            document_cache_bytes: 12 << 20,
            log_cache_bytes: 4 << 20,
            peer_queue_bytes: 16 << 20,
            replica_waits: 16_384,
            window_bytes: 256 << 10,
            serves_per_peer: 8,
            sessions: 4_096,
        }
    }
}

/// How often roots are compared and announced while they change.
pub(crate) const ROOT_TICK: Duration = Duration::from_millis(500);
/// Comparisons in a row that must differ before a repair starts; pushes under way settle meanwhile.
pub(crate) const ROOT_MISMATCHES: u32 = 3;
/// Documents changed this recently are left to push when a repair lists what differs.
pub(crate) const RECENT: Duration = Duration::from_secs(1);
/// A repair that hears nothing for this long is given up; another starts when roots still differ.
pub(crate) const PULL_TIMEOUT: Duration = Duration::from_secs(4);
/// One that hears nothing for this long does not keep others from starting.
pub(crate) const PULL_STALLED: Duration = Duration::from_secs(1);
/// How long one repair may keep others of its scope waiting, while it makes progress.
pub(crate) const PULL_MAX: Duration = Duration::from_secs(120);
/// Edits are refused at once for this long after storage said that it is full.
pub(crate) const FULL_BACKOFF: Duration = Duration::from_millis(250);
/// How often the member table is saved while it changes, for every [`MEMBERS_SAVED_AT_ONCE`] members in it: it is written
/// whole.
pub(crate) const MEMBERS_SAVE: Duration = Duration::from_secs(1);
/// See [`MEMBERS_SAVE`].
pub(crate) const MEMBERS_SAVED_AT_ONCE: usize = 32;
