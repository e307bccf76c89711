//! Who starts, dies or leaves is known everywhere in time, and so is by which streams they reach each other.
//!
//! All times begin when something last began, ended, started or stopped anywhere, on a network with which nothing is
//! wrong, and follow from the membership's configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use knot_engine::membership::{Config, Status};
use knot_engine::{Instant, NodeId};

use super::{Checkers, Invariant};

/// What a process does besides waiting for others: it may be in the middle of a look, or a commit.
const OWN: Duration = Duration::from_millis(300);
/// Round trips in which two that have never met know each other: a connection, a handshake, and a comparison of tables.
const MEET_ROUND_TRIPS: u32 = 6;
/// Rounds of gossip in which those are told whom chance has left out.
const LAST_ROUNDS: u32 = 6;
/// Datagrams that somebody sends in a row before an answer is due: to the member, and to its helpers.
const PROBE_STEPS: u32 = 2;
/// Once in so many turns a probe goes anywhere, instead of to the next of the round.
const ANYWHERE_EVERY: u32 = 10;

/// A cluster, as far as times depend on it.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    /// The membership's configuration.
    pub(crate) config: Config,
    /// Servers.
    pub(crate) nodes: usize,
    /// Members that one server watches, at most.
    pub(crate) watched: usize,
    /// The longest way there and back, and one commit.
    pub(crate) round_trip: Duration,
}

impl Pace {
    /// How long news take from one to all: each round of gossip doubles those who know at the least, but for the last few.
    pub(crate) fn spread(&self) -> Duration {
        let rounds = self.nodes.max(2).ilog2() + 1 + LAST_ROUNDS;
        (self.config.gossip_interval + self.round_trip / 2) * rounds
    }

    /// How long a start takes until all know it: by a seed or a member that it remembers, which may themselves have looked
    /// a moment too early, so that an attempt goes unanswered, and wait until they look again.
    pub(crate) fn start(&self) -> Duration {
        self.config.seed_retry + self.config.connect_timeout + self.start_among_others()
    }

    /// The same where a seed has been there before.
    pub(crate) fn start_among_others(&self) -> Duration {
        self.round_trip * MEET_ROUND_TRIPS + self.spread() + OWN
    }

    /// How long a goodbye takes until all know it.
    pub(crate) fn goodbye(&self) -> Duration {
        self.round_trip + self.spread() + OWN
    }

    /// How long the end of a process takes until all know it, where its host refuses connections: streams break, the next
    /// attempts are refused, and two who were refused tell each other.
    pub(crate) fn refusal(&self) -> Duration {
        self.config.connect_retry_min * 2 + self.round_trip * MEET_ROUND_TRIPS + self.spread() + OWN
    }

    /// How long the end of a machine takes until all know it: somebody's turn comes to probe it, neither it nor helpers
    /// answer, others who are told look for themselves, and the suspicion that enough of them confirm runs out.
    pub(crate) fn silence(&self) -> Duration {
        let suspicion = self.config.suspicion_min * (1 + self.nodes.max(10).ilog10());
        self.round() + self.config.cross_zone_timeout_max * PROBE_STEPS + suspicion + self.spread() + OWN
    }

    /// How long two take until they hold a stream: an attempt that was begun too early, one more, and the courtesy of one
    /// to the other.
    pub(crate) fn stream(&self) -> Duration {
        let Config { connect_timeout, connect_retry_max, connect_courtesy, .. } = self.config;
        connect_timeout + connect_retry_max + connect_courtesy + self.start()
    }

    /// How long it takes until somebody has probed each that it watches.
    pub(crate) fn round(&self) -> Duration {
        let turns = 2 * u32::try_from(self.watched).unwrap_or(u32::MAX) + 1;
        self.config.probe_interval * turns * (ANYWHERE_EVERY + 1) / ANYWHERE_EVERY
    }
}

/// What a server should know of another by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// That it runs, with this start, at this place.
    Runs,
    /// That it said goodbye.
    Left,
    /// That it is dead.
    Failed,
}

impl fmt::Display for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Runs => "runs",
            Self::Left => "has said goodbye",
            Self::Failed => "is dead",
        })
    }
}

impl Checkers {
    /// After `quiet` all believe the same of all members.
    pub(crate) fn check_views(&mut self, views: &[(usize, u64)], quiet: Duration, now: Instant) {
        let Some(((first, view), others)) = views.split_first() else { return };
        if let Some((node, other)) = others.iter().find(|(_, other)| other != view) {
            self.report(Invariant::KnownInTime, now, *node, || {
                format!("nothing has happened for {quiet:?}, and its view is {other:x}, and that of n{first} {view:x}")
            });
        }
    }

    /// What a server has told its driver of members is what it shows of them.
    pub(crate) fn check_told(
        &mut self,
        node: usize,
        told: &BTreeMap<NodeId, Status>,
        members: impl Iterator<Item = (NodeId, Status)>,
        now: Instant,
    ) {
        for (member, status) in members {
            if told.get(&member) != Some(&status) {
                self.report(Invariant::ViewsAgree, now, node, || {
                    format!("it shows {member} as {status:?}, and last told of it {:?}", told.get(&member))
                });
                return;
            }
        }
    }

    /// After `quiet` a server knows another to be so, and not as it should.
    pub(crate) fn report_unknown(
        &mut self,
        (node, subject): (usize, usize),
        due: Due,
        knows: &str,
        quiet: Duration,
        now: Instant,
    ) {
        self.report(Invariant::KnownInTime, now, node, || {
            format!("n{subject} {due}, nothing has happened for {quiet:?}, and here it is {knows}")
        });
    }
}
