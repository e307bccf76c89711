//! A repair as the side that lacks something runs it: compare, narrow down, ask for what is missing.
//!
//! The side that is asked keeps no state between requests. Both sides pull for themselves when both lack something.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::replica::Ticket;
use crate::config::{PULL_MAX, PULL_STALLED, PULL_TIMEOUT};
use crate::documents::Scope;
use crate::identity::{NodeId, SessionId};
use crate::sometimes;
use crate::time::Instant;
use crate::wire::{Differences, DocumentHeads, PREFIX_BYTES_MAX, heads_bytes};

/// Requests of one pull that may be unanswered.
const OUTSTANDING_MAX: usize = 3;
/// Bytes of names and heads in one request.
const DOCUMENTS_BYTES: usize = 32 << 10;
/// Tasks that one pull may have to do; what is beyond is found again by the next.
const TASKS_MAX: usize = 65_536;

/// One thing to ask.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Task {
    /// How do we differ below this prefix?
    Compare(Vec<u8>),
    /// All that is below this prefix.
    Range { prefix: Vec<u8>, after: Option<Bytes> },
    /// What we lack of these, of which the peer has these heads.
    Documents { documents: Vec<DocumentHeads>, after: Option<Bytes> },
}

impl Task {
    pub(crate) fn documents(documents: Vec<DocumentHeads>) -> Self {
        Self::Documents { documents, after: None }
    }
}

/// One repair of one scope from one peer.
#[derive(Debug)]
pub(crate) struct Pull {
    pub(crate) peer: NodeId,
    pub(crate) session: SessionId,
    pub(crate) scope: Scope,
    tasks: VecDeque<Task>,
    asked: BTreeMap<u32, Task>,
    /// Windows received and not durable yet, with what to do next when they are.
    landing: BTreeMap<Ticket, Option<Task>>,
    pub(crate) deadline: Instant,
    /// Whether it brought anything.
    pub(crate) fruitful: bool,
    /// Whether it began by comparing, and not by a single document.
    pub(crate) compares: bool,
    /// When it is given up, however much the peer still has to say.
    ends: Instant,
}

impl Pull {
    pub(crate) fn new(peer: NodeId, session: SessionId, scope: Scope, first: Task, now: Instant) -> Self {
        Self {
            peer,
            session,
            scope,
            compares: matches!(first, Task::Compare(_)),
            tasks: VecDeque::from([first]),
            asked: BTreeMap::new(),
            landing: BTreeMap::new(),
            deadline: now + PULL_TIMEOUT,
            ends: now + PULL_MAX,
            fruitful: false,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.tasks.is_empty() && self.asked.is_empty() && self.landing.is_empty()
    }

    pub(crate) fn is_comparing(&self) -> bool {
        let compares = |task: &Task| matches!(task, Task::Compare(_) | Task::Range { .. });
        self.tasks.iter().any(compares) || self.asked.values().any(compares)
    }

    /// Whether the peer has been silent for so long that nobody else should wait for it: a stream that is dead in one
    /// direction looks open.
    pub(crate) fn is_stalled(&self, now: Instant) -> bool {
        self.ends <= now || self.deadline <= now + (PULL_TIMEOUT - PULL_STALLED)
    }

    /// The next request to send.
    pub(crate) fn next(&mut self) -> Option<Task> {
        if self.asked.len() + self.landing.len() >= OUTSTANDING_MAX {
            return None;
        }
        self.tasks.pop_front()
    }

    pub(crate) fn asked(&mut self, request: u32, task: Task) {
        self.asked.insert(request, task);
    }

    pub(crate) fn awaits(&self, request: u32) -> bool {
        self.asked.contains_key(&request)
    }

    /// Whether a document is about to be asked for.
    pub(crate) fn covers(&self, document: &crate::documents::DocumentId) -> bool {
        let names = |task: &Task| match task {
            Task::Documents { documents, .. } => documents.iter().any(|(id, _)| id == document),
            Task::Compare(_) | Task::Range { .. } => false,
        };
        self.tasks.iter().any(names) || self.asked.values().any(names)
    }

    pub(crate) fn add(&mut self, task: Task) {
        if self.tasks.len() < TASKS_MAX {
            self.tasks.push_back(task);
        }
    }

    /// The peer has said how it differs; `lacks` are the listed documents of which it has something that we do not.
    pub(crate) fn differences(
        &mut self,
        request: u32,
        differences: Differences,
        lacks: Vec<DocumentHeads>,
        now: Instant,
    ) {
        let Some(Task::Compare(prefix)) = self.asked.remove(&request) else { return };
        self.deadline = now + PULL_TIMEOUT;
        let child = |byte: u8| [&prefix[..], &[byte]].concat();
        if prefix.len() + 1 >= PREFIX_BYTES_MAX {
            return;
        }
        // A set: a child that is named twice is asked for once.
        for byte in differences.whole.into_iter().collect::<BTreeSet<u8>>() {
            self.add(Task::Range { prefix: child(byte), after: None });
        }
        for byte in differences.deeper.into_iter().collect::<BTreeSet<u8>>() {
            self.add(Task::Compare(child(byte)));
        }
        let mut documents = Vec::new();
        let mut bytes = 0;
        for document in lacks {
            bytes += heads_bytes(&document);
            documents.push(document);
            if bytes >= DOCUMENTS_BYTES {
                bytes = 0;
                self.add(Task::documents(std::mem::take(&mut documents)));
            }
        }
        if !documents.is_empty() {
            self.add(Task::documents(documents));
        }
    }

    /// A window has arrived and goes to storage under `ticket`.
    pub(crate) fn window(&mut self, request: u32, ticket: Ticket, next: Option<Bytes>, now: Instant) {
        let Some(task) = self.asked.remove(&request) else { return };
        self.deadline = now + PULL_TIMEOUT;
        let then = match (task, next) {
            (_, None) | (Task::Compare(_), Some(_)) => None,
            (Task::Range { prefix, .. }, Some(after)) => Some(Task::Range { prefix, after: Some(after) }),
            (Task::Documents { documents, .. }, Some(after)) => Some(Task::Documents { documents, after: Some(after) }),
        };
        self.landing.insert(ticket, then);
    }

    /// A window is durable, or could not be taken whole; then asking on would bring no more.
    pub(crate) fn delivered(&mut self, ticket: Ticket, complete: bool, now: Instant) -> bool {
        let Some(then) = self.landing.remove(&ticket) else { return false };
        self.deadline = now + PULL_TIMEOUT;
        match then {
            // A range goes on past what was refused; documents would be sent again as they were.
            Some(task @ Task::Range { .. }) => {
                sometimes!("range past a refusal", !complete);
                self.tasks.push_front(task);
            }
            Some(task) if complete => {
                sometimes!("next window asked for");
                self.tasks.push_front(task);
            }
            Some(_) | None => {}
        }
        true
    }
}
