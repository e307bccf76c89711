//! What a driver may look at between calls.

use std::sync::Arc;

use crate::api::{InStep, ScopeStatus, Summary};
use crate::circuit::CIRCUITS_MAX;
use crate::documents::{Document, DocumentId, Scope};
use crate::engine::Engine;
use crate::identity::{ClusterId, NodeId, PeerIdentity, SessionId};
use crate::membership::Member;
use crate::seal::{ClusterKey, KeyId, KeyRing};
use crate::stats::{Queue, Stats};
use crate::wire::WIRE_VERSION;

impl<D: Document> Engine<D> {
    /// This node.
    #[must_use]
    pub fn me(&self) -> &Member {
        self.membership.me()
    }

    /// Every member known, this node among them.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        self.membership.members()
    }

    /// One member.
    #[must_use]
    pub fn member(&self, node: &NodeId) -> Option<Member> {
        self.membership.member(node)
    }

    /// Equal on nodes that believe the same of the same members; suspicion aside.
    #[must_use]
    pub fn view_hash(&self) -> u64 {
        self.membership.view_hash()
    }

    /// Peers to whom a stream is open.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.sessions.peers().count()
    }

    /// The stream to a peer that is in use.
    #[must_use]
    pub fn stream_to(&self, peer: NodeId) -> Option<SessionId> {
        self.sessions.of(peer)
    }

    /// Whether the stream to a peer that is in use goes through nobody else.
    #[must_use]
    pub fn is_direct_to(&self, peer: NodeId) -> bool {
        self.sessions.of(peer).is_some_and(|session| self.sessions.is_direct(session))
    }

    /// On whose word a member has its standing, and whether its host had refused them.
    #[must_use]
    pub fn accusation(&self, node: &NodeId) -> (Option<NodeId>, bool) {
        self.membership.accusation(node)
    }

    /// What a handshake tells peers of this node.
    #[must_use]
    pub fn identity(&self) -> PeerIdentity {
        PeerIdentity {
            public: self.config.node_key.public(),
            boot: self.boot,
            cluster: self.record.cluster,
            empty: self.replica.is_empty(),
            wire: WIRE_VERSION,
        }
    }

    /// The cluster its data belongs to.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.record.cluster
    }

    /// The ids of the cluster keys that it holds, the one it begins with first.
    #[must_use]
    pub fn key_ids(&self) -> Vec<KeyId> {
        self.config.cluster_keys.iter().flat_map(KeyRing::iter).map(ClusterKey::id).collect()
    }

    /// The index's entry for a document, deleted or not.
    #[must_use]
    pub fn summary(&self, id: &DocumentId) -> Option<Summary> {
        let index = self.replica.index();
        index.summary(&index.key(id))
    }

    /// Documents of a collection whose keys begin with `prefix` and come after `after`, in key order, at most `limit`;
    /// deleted ones are left out.
    #[must_use]
    pub fn list(
        &self,
        scope: &Scope,
        collection: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<Summary> {
        self.replica.index().list(scope, collection, prefix, after, limit)
    }

    /// The collections of a scope in order of their names, with how many documents exist in each; those without any are
    /// left out.
    #[must_use]
    pub fn collections(&self, scope: &Scope) -> Vec<(Arc<str>, usize)> {
        self.replica.index().collections(scope)
    }

    /// How what a peer holds compares with what this node does, of all that both hold; none where it has not said yet.
    #[must_use]
    pub fn step_with(&self, peer: NodeId) -> Option<InStep> {
        let steps = self.shared_scopes(peer).into_iter().map(|scope| self.repairs.step_with(peer, &scope));
        let steps: Option<Vec<InStep>> = steps.collect();
        steps.and_then(|steps| steps.into_iter().min())
    }

    /// The latest state of each document that changed here after `sequence`, in sequence order, deleted ones included.
    #[must_use]
    pub fn changes_since(&self, sequence: u64, limit: usize) -> Vec<Summary> {
        self.replica.index().changes_since(sequence, limit)
    }

    /// The sequence number of the last durable update.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.replica.index().sequence()
    }

    /// The scopes held here.
    #[must_use]
    pub fn scopes(&self) -> Vec<ScopeStatus> {
        self.replica.index().scopes()
    }

    /// Whether another server is known to hold all that this one does, or nobody else is there to.
    #[must_use]
    pub fn is_held_elsewhere(&self) -> bool {
        let index = self.replica.index();
        let alone = self.membership.members().filter(|member| member.durable).count() <= 1;
        let held = |scope: &Scope| {
            let root = index.root(scope);
            root.count == 0 || self.repairs.in_step(scope, root) > 0
        };
        alone || (held(&Scope::Global) && held(&Scope::Zone(self.config.zone.as_str().into())))
    }

    /// Whether every other server that is to hold what all hold is known to hold just that.
    #[must_use]
    pub fn is_held_by_all(&self) -> bool {
        let others = self.membership.members().filter(|member| member.durable).count().saturating_sub(1);
        self.repairs.in_step(&Scope::Global, self.replica.index().root(&Scope::Global)) >= others
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Every queue and its bound.
    #[must_use]
    pub fn queues(&self) -> Vec<Queue> {
        let limits = &self.config.limits;
        let (repairs, repairs_max) = self.repairs.under_way();
        let (relays, relays_max) = self.relays.depth();
        let mut queues = self.replica.queues();
        queues.extend([
            Queue { name: "peer_queue_bytes", depth: self.sessions.queued_max(), limit: limits.peer_queue_bytes },
            Queue { name: "replica_waits", depth: self.spread.waits.len(), limit: limits.replica_waits },
            Queue { name: "sessions", depth: self.sessions.len(), limit: limits.sessions },
            Queue { name: "repairs", depth: repairs, limit: repairs_max },
            Queue { name: "relays", depth: relays, limit: relays_max },
            Queue { name: "circuits_carried", depth: self.circuits.carried(), limit: CIRCUITS_MAX },
            Queue { name: "circuits_own", depth: self.circuits.ends(), limit: CIRCUITS_MAX },
            Queue {
                name: "repair_answers",
                depth: self.replica.serving(),
                limit: limits.serves_per_peer * limits.sessions,
            },
        ]);
        queues
    }

    /// How many changes are in quarantine.
    #[must_use]
    pub fn quarantined_changes(&self) -> u64 {
        self.replica.index().quarantined()
    }

    /// Documents that have changes in quarantine, and how many; their histories say which, and why.
    #[must_use]
    pub fn quarantined(&self) -> Vec<(DocumentId, u32)> {
        let index = self.replica.index();
        if index.quarantined() == 0 {
            return Vec::new();
        }
        index.with_quarantined().collect()
    }

    /// Whether storage has failed, so that nothing more is acknowledged.
    #[must_use]
    pub fn is_storage_failed(&self) -> bool {
        self.replica.is_failed()
    }

    /// Whether storage had no room when it was last asked.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        self.replica.is_full()
    }

    /// Whether this node has left, or is fenced.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.left
    }
}
