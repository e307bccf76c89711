//! Who is shut out although it holds the cluster's key.
//!
//! An eviction is a document like any other: it is there on every server, while partitioned too, and outlives all of
//! them. Its key is the evicted node's id; that it exists is what it says, so of an eviction and a readmission that knew
//! nothing of each other the eviction stands. What a node that is shut out writes reaches nobody; that it comes back
//! under another identity is up to who has the key.

use std::collections::BTreeSet;

use crate::api::Event;
use crate::documents::{Document, DocumentId, Scope};
use crate::engine::Engine;
use crate::identity::{NodeId, SessionId};
use crate::membership::Closed;
use crate::sometimes;
use crate::time::Instant;
use crate::wire::Frame;

/// The collection of evictions.
pub const EVICTED: &str = "knot.evicted";
/// Evictions that are heeded, by the order of ids. As many as members that are known.
const EVICTED_MAX: usize = crate::membership::MEMBERS_MAX;

/// The document by which a node is evicted while it exists.
#[must_use]
pub fn eviction_of(node: &NodeId) -> DocumentId {
    DocumentId::from_parts(Scope::Global, EVICTED.into(), node.to_string().into())
}

impl<D: Document> Engine<D> {
    /// Who is shut out.
    #[must_use]
    pub fn evicted(&self) -> &BTreeSet<NodeId> {
        self.membership.evicted()
    }

    /// Reads who is shut out from the documents that say so, and closes the streams to those who were not before.
    pub(super) fn follow_evictions(&mut self, now: Instant) {
        let documents = self.replica.index().list(&Scope::Global, EVICTED, "", None, EVICTED_MAX);
        let evicted: BTreeSet<NodeId> = documents.iter().filter_map(|summary| summary.id.key().parse().ok()).collect();
        if evicted == *self.membership.evicted() {
            return;
        }
        sometimes!("readmitted", !self.membership.evicted().is_subset(&evicted));
        let me = self.node;
        if evicted.contains(&me) && !self.membership.evicted().contains(&me) {
            self.emit(Event::Evicted { by: None });
        }
        let open = self.sessions.all_of(&evicted);
        self.membership.set_evicted(evicted, now);
        for (session, node) in open {
            sometimes!("evicted while connected");
            self.shut_out(session, node, now);
        }
    }

    /// Closes a stream to a node that is shut out, and lets it know.
    pub(super) fn shut_out(&mut self, session: SessionId, node: NodeId, now: Instant) {
        self.stats.dropped("stream of an evicted node");
        let in_use = self.sessions.of(node) == Some(session);
        self.send(session, &Frame::Evicted);
        self.hang_up(session, "the node is evicted");
        if in_use {
            self.membership.on_session_closed(node, Closed::Local, now);
        }
    }
}
