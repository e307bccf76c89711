//! How servers stand at one moment of a run, for people.

use std::collections::BTreeMap;

use knot_engine::documents::Document;
use knot_engine::membership::{Member, Status};
use knot_engine::{Engine, Queue, ScopeStatus};
use serde::Serialize;

/// Documents of a server that are listed.
const DOCUMENTS_MAX: usize = 10_000;

/// What a server's process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessState {
    /// It runs.
    Running,
    /// It is not scheduled.
    Paused,
    /// There is none.
    Down,
}

/// One server.
#[derive(Clone, Debug, Serialize)]
pub struct NodeState {
    /// Its number.
    pub node: usize,
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Its process.
    pub process: ProcessState,
    /// The members as it sees them, by name.
    pub members: Vec<MemberState>,
    /// What it holds of each scope.
    pub scopes: Vec<ScopeStatus>,
    /// The state of each document that it knows, deleted ones included: `scope/collection/key` and etag.
    pub documents: BTreeMap<String, String>,
    /// Its queues, those that are empty left out.
    pub queues: Vec<Queue>,
}

/// A member as a server sees it.
#[derive(Clone, Debug, Serialize)]
pub struct MemberState {
    /// Its name.
    pub name: String,
    /// What is believed of it.
    pub status: &'static str,
    /// `starts.refutations`.
    pub incarnation: String,
    /// For how long, in milliseconds.
    pub for_ms: u64,
}

/// As a person reads it.
#[must_use]
pub fn status_name(status: Status) -> &'static str {
    match status {
        Status::Alive => "alive",
        Status::Suspect => "suspect",
        Status::Failed => "failed",
        Status::Left => "left",
    }
}

impl NodeState {
    /// A server without a process.
    pub(crate) fn down(node: usize, name: &str, zone: &str) -> Self {
        Self {
            node,
            name: name.to_owned(),
            zone: zone.to_owned(),
            process: ProcessState::Down,
            members: Vec::new(),
            scopes: Vec::new(),
            documents: BTreeMap::new(),
            queues: Vec::new(),
        }
    }

    /// Adds what its engine shows.
    pub(crate) fn look_into<D: Document>(&mut self, engine: &Engine<D>, now: knot_engine::Instant) {
        let member = |member: Member| MemberState {
            name: member.record.name.clone(),
            status: status_name(member.status),
            incarnation: member.record.incarnation.to_string(),
            for_ms: u64::try_from(now.since(member.since).as_millis()).unwrap_or(u64::MAX),
        };
        self.members = engine.members().map(member).collect();
        self.members.sort_by(|one, other| one.name.cmp(&other.name));
        self.scopes = engine.scopes();
        let documents = engine.changes_since(0, DOCUMENTS_MAX);
        self.documents = documents.iter().map(|summary| (summary.id.to_string(), summary.etag.to_string())).collect();
        self.queues = engine.queues().into_iter().filter(|queue| queue.depth > 0).collect();
    }
}

/// One document where servers do not agree: each state, and the servers that show it.
pub type Disagreement = BTreeMap<String, Vec<String>>;

/// Documents that two servers show in different states. One that a server lacks is not among them: its zone may not hold
/// it, or the server may not have it yet, and the counts of its scope say which.
#[must_use]
pub fn disagreements(nodes: &[NodeState]) -> BTreeMap<String, Disagreement> {
    let mut all: BTreeMap<String, Disagreement> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.process != ProcessState::Down) {
        for (document, etag) in &node.documents {
            let states = all.entry(document.clone()).or_default();
            states.entry(etag.clone()).or_default().push(node.name.clone());
        }
    }
    all.retain(|_, states| states.len() > 1);
    all
}
