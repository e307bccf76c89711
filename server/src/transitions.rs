//! What people are shown of servers that came and went, and why, as this one saw it since its start.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use knot_engine::membership::{Accusation, Evidence, Status};
use knot_engine::{MemberChange, NodeId, Wall};
use tokio::sync::watch;

/// Transitions that are kept of one server, and of all; the oldest make room.
const KEPT_OF_ONE_MAX: usize = 64;
const KEPT_MAX: usize = 1_024;

/// One server's step from one status to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Whose.
    pub node: NodeId,
    /// What it was called.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// What was believed; none when it was new.
    pub from: Option<Status>,
    /// What is believed since.
    pub to: Status,
    /// When, by this server's clock.
    pub at: Wall,
    /// Why.
    pub evidence: Evidence,
    /// What those were called that the evidence names.
    names: BTreeMap<NodeId, String>,
}

impl Transition {
    fn new(change: MemberChange, at: Wall, name_of: impl Fn(NodeId) -> Option<String>) -> Self {
        let MemberChange { node, name, zone, from, to, evidence, at: _ } = change;
        let names = evidence.witnesses().filter_map(|witness| Some((witness, name_of(witness)?))).collect();
        Self { node, name, zone, from, to, at, evidence, names }
    }

    /// What a server was called that the evidence names; its id where nobody knew.
    #[must_use]
    pub fn name_of(&self, node: &NodeId) -> String {
        self.names.get(node).cloned().unwrap_or_else(|| node.to_string())
    }

    /// The evidence, in words.
    #[must_use]
    pub fn why(&self) -> String {
        let why = match &self.evidence {
            Evidence::Met => "met".to_owned(),
            Evidence::HeardAgain => "known from before this server started, and heard of again".to_owned(),
            Evidence::Started => "started anew".to_owned(),
            Evidence::Denied if self.from == Some(Status::Left) => "came back".to_owned(),
            Evidence::Denied => "denied what was held against it".to_owned(),
            Evidence::Accused(accusation) => self.tell(accusation),
            Evidence::Unheard => "known from before this server started, and not heard of since".to_owned(),
            Evidence::Goodbye => "said goodbye".to_owned(),
            Evidence::TakenOut { by } => format!("taken out by {}", self.name_of(by)),
            Evidence::ShutOut => "shut out of the cluster".to_owned(),
        };
        let is_old_news = self.from.is_none() && self.to != Status::Alive;
        if is_old_news { format!("met as such: {why}") } else { why }
    }

    fn tell(&self, accusation: &Accusation) -> String {
        let Accusation { by, refused, unanswered, unheard_for } = accusation;
        let mut told = Vec::new();
        if !refused.is_empty() {
            told.push(format!("its host refused {}", self.names_of(refused)));
        }
        if !unanswered.is_empty() {
            told.push(format!("did not answer {}", self.names_of(unanswered)));
        }
        match by {
            Some(by) if refused.contains(by) || unanswered.contains(by) => {}
            Some(by) => told.push(format!("given up by {}", self.name_of(by))),
            None => told.push("nobody was named who said so".to_owned()),
        }
        told.extend(unheard_for.map(|long| format!("last heard here {} before", spoken(long))));
        told.join("; ")
    }

    fn names_of(&self, nodes: &[NodeId]) -> String {
        let names: Vec<String> = nodes.iter().map(|node| self.name_of(node)).collect();
        match names.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} and {last}", others.join(", ")),
            None => String::new(),
        }
    }
}

fn spoken(long: Duration) -> String {
    if long < Duration::from_secs(100) {
        format!("{:.1} s", long.as_secs_f64())
    } else {
        format!("{} s", long.as_secs())
    }
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
    /// Those that `wanted` picks, the latest first.
    #[must_use]
    pub fn pick(&self, wanted: impl Fn(&Transition) -> bool) -> Vec<Transition> {
        self.kept().iter().rev().filter(|transition| wanted(transition)).cloned().collect()
    }

    /// Those of one server, the latest first.
    #[must_use]
    pub fn of(&self, node: NodeId) -> Vec<Transition> {
        self.pick(|transition| transition.node == node)
    }

    /// How many there were, now and whenever one more comes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.count.subscribe()
    }

    /// Keeps one, and says why it was.
    pub(crate) fn note(&self, change: MemberChange, at: Wall, name_of: impl Fn(NodeId) -> Option<String>) -> String {
        let transition = Transition::new(change, at, name_of);
        let why = transition.why();
        {
            let mut kept = self.kept();
            let of_it = |other: &Transition| other.node == transition.node;
            if kept.iter().filter(|other| of_it(other)).count() >= KEPT_OF_ONE_MAX {
                let oldest = kept.iter().position(of_it);
                oldest.and_then(|oldest| kept.remove(oldest));
            } else if kept.len() >= KEPT_MAX {
                kept.pop_front();
            }
            kept.push_back(transition);
        }
        self.0.count.send_modify(|count| *count += 1);
        why
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

    fn node(number: u16) -> NodeId {
        NodeId((1_u128 << 64 | u128::from(number)).to_be_bytes())
    }

    fn change(number: u16, to: Status, evidence: Evidence) -> MemberChange {
        let (name, zone) = (format!("n{number}"), "fra".to_owned());
        MemberChange { node: node(number), name, zone, from: None, to, evidence, at: Instant::ZERO }
    }

    fn named(id: NodeId) -> Option<String> {
        (1..5).find(|number| node(*number) == id).map(|number| format!("n{number}"))
    }

    #[test]
    fn the_latest_come_first_and_only_so_many_are_kept() {
        let transitions = Transitions::default();
        let watched = transitions.watch();
        transitions.note(change(1, Status::Alive, Evidence::Met), Wall(1), named);
        transitions.note(change(2, Status::Alive, Evidence::Met), Wall(2), named);
        transitions.note(change(1, Status::Left, Evidence::Goodbye), Wall(3), named);
        let seen: Vec<_> = transitions.of(node(1)).iter().map(|one| (one.to, one.at)).collect();
        assert_eq!(seen, [(Status::Left, Wall(3)), (Status::Alive, Wall(1))]);
        assert_eq!(*watched.borrow(), 3);
        for at in 0..2_000 {
            transitions.note(change(3, Status::Alive, Evidence::Denied), Wall(at), named);
        }
        let of_three: Vec<_> = transitions.of(node(3)).iter().map(|one| one.at.0).collect();
        assert_eq!(of_three, (1_936..2_000).rev().collect::<Vec<_>>());
        assert_eq!(transitions.of(node(1)).len(), 2, "one that comes and goes does not push out others");
        for number in 10..2_010 {
            transitions.note(change(number, Status::Alive, Evidence::Met), Wall(0), named);
        }
        assert_eq!(transitions.pick(|_| true).len(), KEPT_MAX);
        assert!(transitions.of(node(1)).is_empty());
    }

    #[test]
    fn the_evidence_is_told_in_words() {
        let step = |from, to, evidence| {
            let change = MemberChange { from, ..change(1, to, evidence) };
            Transition::new(change, Wall(0), named).why()
        };
        let accused = |by: Option<u16>, refused: &[u16], unanswered: &[u16], unheard_for| {
            let [refused, unanswered] =
                [refused, unanswered].map(|numbers| numbers.iter().map(|number| node(*number)).collect());
            let accusation = Accusation { by: by.map(node), refused, unanswered, unheard_for };
            step(Some(Status::Suspect), Status::Failed, Evidence::Accused(accusation))
        };
        assert_eq!(
            accused(Some(2), &[], &[2, 3, 4], Some(Duration::from_millis(3_240))),
            "did not answer n2, n3 and n4; last heard here 3.2 s before",
        );
        assert_eq!(accused(Some(2), &[2, 3], &[4], None), "its host refused n2 and n3; did not answer n4");
        assert_eq!(accused(Some(1), &[], &[3], None), "did not answer n3; given up by n1");
        assert_eq!(accused(Some(9), &[], &[9], None), format!("did not answer {}", node(9)));
        assert_eq!(
            accused(None, &[], &[], Some(Duration::from_secs(200))),
            "nobody was named who said so; last heard here 200 s before",
        );
        assert_eq!(step(Some(Status::Alive), Status::Left, Evidence::TakenOut { by: node(3) }), "taken out by n3");
        assert_eq!(step(None, Status::Left, Evidence::Goodbye), "met as such: said goodbye");
        assert_eq!(step(Some(Status::Left), Status::Alive, Evidence::Denied), "came back");
    }
}
