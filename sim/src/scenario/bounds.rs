//! How much a server may keep and send.

use knot_engine::{Limits, membership};
use serde::{Deserialize, Serialize};

use crate::draw::Draw;

/// Servers of which each holds a stream with each, where that is drawn small.
const FULL_MESH_SMALL: usize = 4;

/// Bounds of a server that are made small in some runs, so that what happens at them happens often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// Bytes of changes in one answer to a repair.
    pub window_bytes: usize,
    /// Bytes of materialised documents.
    pub document_cache_bytes: usize,
    /// Bytes of document logs.
    pub log_cache_bytes: usize,
    /// Changes whose dependencies are missing.
    pub orphans: usize,
    /// Bytes of those.
    pub orphan_bytes: usize,
    /// Bytes that wait for storage.
    pub persist_bytes: usize,
    /// Requests that wait for documents.
    pub waiters: usize,
    /// Bytes of changes from peers that wait for documents.
    pub incoming_bytes: usize,
    /// Bytes that may wait to be sent to one peer.
    pub peer_queue_bytes: usize,
    /// Repair requests of one peer that are being answered.
    pub serves_per_peer: usize,
    /// Servers of which each holds a stream with each.
    pub full_mesh: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        let own = Limits::default();
        Self {
            window_bytes: own.window_bytes,
            document_cache_bytes: own.document_cache_bytes,
            log_cache_bytes: own.log_cache_bytes,
            orphans: own.orphans,
            orphan_bytes: own.orphan_bytes,
            persist_bytes: own.persist_bytes,
            waiters: own.waiters,
            incoming_bytes: own.incoming_bytes,
            peer_queue_bytes: own.peer_queue_bytes,
            serves_per_peer: own.serves_per_peer,
            full_mesh: membership::Config::default().full_mesh,
        }
    }
}

impl Bounds {
    /// Of `seed`: each is as in a server, or so small that it is reached all the time.
    pub(super) fn generate(seed: u64) -> Self {
        let mut draw = Draw::new(seed, "bounds");
        let narrow = Draw::new(seed, "peer queue").chance(100);
        let own = Self::default();
        let mut pick = |usual: usize, small: usize| if draw.chance(500) { usual } else { small };
        let window_bytes = pick(own.window_bytes, 1_500);
        let document_cache_bytes = pick(own.document_cache_bytes, 20_000);
        let log_cache_bytes = pick(own.log_cache_bytes, 20_000);
        let orphans = pick(own.orphans, 4);
        // What refuses a good part of what clients ask for is small in fewer.
        let mut pick = |usual: usize, small: usize| if draw.chance(750) { usual } else { small };
        Self {
            window_bytes,
            document_cache_bytes,
            log_cache_bytes,
            orphans,
            orphan_bytes: pick(own.orphan_bytes, 1_500),
            persist_bytes: pick(own.persist_bytes, 4_000),
            waiters: pick(own.waiters, 24),
            incoming_bytes: pick(own.incoming_bytes, 16_000),
            serves_per_peer: pick(own.serves_per_peer, 2),
            peer_queue_bytes: if narrow { 600 } else { own.peer_queue_bytes },
            full_mesh: full_mesh(seed),
        }
    }

    /// As many documents as go from one server to another in half a minute.
    pub(super) fn bulk(&self) -> Option<u64> {
        let own = Self::default();
        let takes = self.takes_all() && self.serves_per_peer == own.serves_per_peer;
        let count = if self.window_bytes == own.window_bytes { 4_500 } else { 2_500 };
        takes.then_some(count)
    }

    /// Whether there is room for whatever peers send.
    pub(crate) fn takes_all(&self) -> bool {
        let own = Self::default();
        self.incoming_bytes == own.incoming_bytes
            && self.persist_bytes == own.persist_bytes
            && self.peer_queue_bytes == own.peer_queue_bytes
    }

    /// As the engine takes them.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            window_bytes: self.window_bytes,
            document_cache_bytes: self.document_cache_bytes,
            log_cache_bytes: self.log_cache_bytes,
            orphans: self.orphans,
            orphan_bytes: self.orphan_bytes,
            persist_bytes: self.persist_bytes,
            waiters: self.waiters,
            incoming_bytes: self.incoming_bytes,
            peer_queue_bytes: self.peer_queue_bytes,
            serves_per_peer: self.serves_per_peer,
            ..Limits::default()
        }
    }
}

/// One run in four takes the ways of a large cluster in a small one.
fn full_mesh(seed: u64) -> usize {
    let mut draw = Draw::new(seed, "mesh");
    if draw.chance(250) { FULL_MESH_SMALL } else { membership::Config::default().full_mesh }
}
