//! What people are shown of servers that came and went, as this one saw it since its start.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use knot_engine::membership::Status;
use knot_engine::{MemberChange, NodeId, Wall};
use tokio::sync::watch;

/// Transitions that are kept; the oldest makes room.
const KEPT_MAX: usize = 1_024;

/// One server's step from one status to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Whose.
    pub node: NodeId,
    /// What was believed; none when it was new.
    pub from: Option<Status>,
    /// What is believed since.
    pub to: Status,
    /// When, by this server's clock.
    pub at: Wall,
}

/// Kept by the driver, read by pages.
#[derive(Clone, Debug, Default)]
pub struct Transitions(Arc<State>);

#[derive(Debug, Default)]
struct State {
    kept: Mutex<VecDeque<Transition>>,
    /// How many there were.
    count: watch::Sender<u64>,
}

impl Transitions {
    /// Those of one server, the latest first.
    #[must_use]
    pub fn of(&self, node: NodeId) -> Vec<Transition> {
        self.kept().iter().rev().filter(|transition| transition.node == node).copied().collect()
    }

    /// How many there were, now and whenever one more comes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.count.subscribe()
    }

    pub(crate) fn note(&self, change: MemberChange, at: Wall) {
        let MemberChange { node, from, to, name: _, zone: _, at: _ } = change;
        {
            let mut kept = self.kept();
            if kept.len() >= KEPT_MAX {
                kept.pop_front();
            }
            kept.push_back(Transition { node, from, to, at });
        }
        self.0.count.send_modify(|count| *count += 1);
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Transition>> {
        // Nothing in here can be half done.
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use knot_engine::Instant;

    use super::*;

    fn change(node: u8, to: Status) -> MemberChange {
        let node = NodeId([node; 16]);
        MemberChange { node, name: String::new(), zone: String::new(), from: None, to, at: Instant::ZERO }
    }

    #[test]
    fn the_latest_come_first_and_only_so_many_are_kept() {
        let transitions = Transitions::default();
        let watched = transitions.watch();
        transitions.note(change(1, Status::Alive), Wall(1));
        transitions.note(change(2, Status::Alive), Wall(2));
        transitions.note(change(1, Status::Failed), Wall(3));
        let seen: Vec<_> = transitions.of(NodeId([1; 16])).iter().map(|one| (one.to, one.at)).collect();
        assert_eq!(seen, [(Status::Failed, Wall(3)), (Status::Alive, Wall(1))]);
        assert_eq!(*watched.borrow(), 3);
        for at in 0..2_000 {
            transitions.note(change(3, Status::Alive), Wall(at));
        }
        assert_eq!(transitions.of(NodeId([3; 16])).len(), KEPT_MAX);
        assert!(transitions.of(NodeId([1; 16])).is_empty());
    }
}
