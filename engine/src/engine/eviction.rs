//! Who is shut out although it holds the cluster's key.
//!
//! An eviction is a document like any other: it is there on every server, while partitioned too, and outlives all of
//! them. Its key is the evicted node's id; that it exists is what it says, so of an eviction and a readmission that knew
//! nothing of each other the eviction stands. What a node that is shut out writes reaches nobody; that it comes back
//! under another identity is up to who has the key.

use std::collections::BTreeSet;

use crate::api::{Event, Summary};
use crate::documents::{Document, DocumentId, Scope};
use crate::engine::Engine;
use crate::identity::{NodeId, SessionId};
use crate::membership::{Closed, MEMBERS_MAX};
use crate::sometimes;
use crate::time::Instant;
use crate::wire::Frame;

/// The collection of evictions.
pub const EVICTED: &str = "knot.evicted";
/// Documents of the collection that are looked at in one step at the start.
const PAGE: usize = 1_024;

/// The document by which a node is evicted while it exists.
#[must_use]
pub fn eviction_of(node: &NodeId) -> DocumentId {
    DocumentId::from_parts(Scope::Global, EVICTED.into(), node.to_string().into())
}

/// Whom a document of that name evicts; nobody where it is spelt otherwise than [`eviction_of`] does.
fn evicted_by(document: &DocumentId) -> Option<NodeId> {
    let node = document.key().parse().ok()?;
    (*document == eviction_of(&node)).then_some(node)
}

impl<D: Document> Engine<D> {
    /// Who is shut out.
    #[must_use]
    pub fn evicted(&self) -> &BTreeSet<NodeId> {
        self.membership.evicted()
    }

    /// Reads who was shut out before this start.
    pub(super) fn recall_evictions(&mut self, now: Instant) {
        let mut after: Option<String> = None;
        loop {
            let page = self.replica.index().list(&Scope::Global, EVICTED, "", after.as_deref(), PAGE);
            for summary in &page {
                self.follow_eviction(summary, now);
            }
            match page.last() {
                Some(last) => after = Some(last.id.key().to_owned()),
                None => return,
            }
        }
    }

    /// A document has changed. Where it is an eviction, the streams to whom it is about are closed; at most as many are
    /// heeded as there may be members.
    pub(super) fn follow_eviction(&mut self, summary: &Summary, now: Instant) {
        let Some(node) = evicted_by(&summary.id) else { return };
        let evicted = self.membership.evicted();
        if evicted.contains(&node) != summary.deleted || !summary.deleted && evicted.len() >= MEMBERS_MAX {
            return;
        }
        if summary.deleted {
            sometimes!("readmitted");
            self.membership.readmit(&node);
            return;
        }
        if node == self.node {
            self.emit(Event::Evicted { by: None });
        }
        let open = self.sessions.all_of(node);
        self.membership.evict(node, now);
        for session in open {
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
