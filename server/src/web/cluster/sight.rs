//! How the cluster stands as seen from here: in one line, and whether this server is cut off.

use std::collections::BTreeSet;

use crate::api::cluster::{EVICTED, status_name};
use crate::handle::ServerEngine;

/// A server as this one sees it, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    pub(super) zone: String,
    pub(super) state: &'static str,
    pub(super) is_me: bool,
}

/// All servers, this one among them.
pub(crate) fn sights(engine: &ServerEngine) -> Vec<Sight> {
    let me = engine.me().record.node;
    let sight = |member: knot_engine::membership::Member| {
        let node = member.record.node;
        let state = if engine.evicted().contains(&node) { EVICTED } else { status_name(member.status) };
        Sight { zone: member.record.zone.clone(), state, is_me: node == me }
    };
    engine.members().map(sight).collect()
}

/// How many servers there are, and how they do. Who has left or is shut out belongs no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) known: usize,
    pub(crate) alive: usize,
    pub(crate) zones: usize,
}

impl Tally {
    pub(crate) fn of(sights: &[Sight]) -> Self {
        let here = || sights.iter().filter(|sight| !matches!(sight.state, "left" | EVICTED));
        let alive = here().filter(|sight| sight.state == "alive").count();
        Self { known: here().count(), alive, zones: here().map(|sight| &sight.zone).collect::<BTreeSet<_>>().len() }
    }

    pub(crate) fn all_alive(&self) -> bool {
        self.alive == self.known
    }
}

/// What to say where this server does not see the greater part of the others; none where it does.
pub(crate) fn cut_off(sights: &[Sight]) -> Option<String> {
    let others: Vec<&Sight> =
        sights.iter().filter(|sight| !sight.is_me && !matches!(sight.state, "left" | EVICTED)).collect();
    // Who is suspected may still deny it.
    let seen = others.iter().filter(|sight| matches!(sight.state, "alive" | "suspect")).count();
    let who = match (seen, others.len()) {
        (_, 0) => return None,
        (0, 1) => "This server does not reach the other server".to_owned(),
        (0, all) => format!("This server reaches none of the {all} other servers"),
        (seen, all) if (seen + 1) * 2 <= all + 1 => {
            format!("This server reaches only {seen} of the {all} other servers")
        }
        _ => return None,
    };
    Some(format!("{who}. Work goes on: what is written here is kept, and both sides have it all when they meet again."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(states: &[&'static str]) -> Vec<Sight> {
        let sight = |(index, state): (usize, &&'static str)| Sight { zone: "z".to_owned(), state, is_me: index == 0 };
        states.iter().enumerate().map(sight).collect()
    }

    #[test]
    fn who_does_not_see_the_greater_part_is_cut_off() {
        for states in [
            &["alive"][..],
            &["alive", "alive"],
            &["alive", "alive", "failed"],
            &["alive", "suspect", "failed"],
            &["alive", "left", "evicted"],
            &["alive", "alive", "alive", "failed", "failed"],
        ] {
            assert_eq!(cut_off(&seen(states)), None, "{states:?}");
        }
        for (states, words) in [
            (&["alive", "failed"][..], "does not reach the other"),
            (&["alive", "failed", "failed"], "none of the 2"),
            (&["alive", "alive", "failed", "failed"], "only 1 of the 3"),
        ] {
            assert!(cut_off(&seen(states)).unwrap().contains(words), "{states:?}");
        }
    }

    #[test]
    fn those_who_left_do_not_count() {
        let tally = Tally::of(&seen(&["alive", "alive", "failed", "left", "evicted"]));
        assert_eq!(tally, Tally { known: 3, alive: 2, zones: 1 });
        assert!(!tally.all_alive());
    }
}
