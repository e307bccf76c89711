//! Streams to members and seeds: who opens them, and when again.

use std::time::Duration;

use super::action::{Action, Closed};
use super::machine::{Membership, Timer};
use super::route::Route;
use super::table::Entry;
use super::{Record, Status};
use crate::faults::Fault;
use crate::identity::{Address, NodeId};
use crate::sometimes;
use crate::time::Instant;

/// Most seeds.
pub const SEEDS_MAX: usize = 64;
/// Attempts under way at once.
const ATTEMPTS_MAX: usize = 64;
/// A session that ends sooner counts as a failed attempt, so that two hosts that refuse each other's frames back off.
const SHORT_SESSION: Duration = Duration::from_secs(5);
/// Doublings of the wait between attempts.
const DOUBLINGS_MAX: u32 = 8;

#[derive(Clone, Debug)]
pub(super) struct Seeds {
    addresses: Vec<Address>,
    isolated_since: Instant,
}

impl Seeds {
    pub(super) const fn new(now: Instant) -> Self {
        Self { addresses: Vec::new(), isolated_since: now }
    }
}

impl Membership {
    /// Joins through `seeds`, at most [`SEEDS_MAX`] of them: at once, then every few seconds while isolated, then seldom.
    pub fn join(&mut self, seeds: Vec<Address>, now: Instant) {
        self.seeds.addresses = seeds;
        self.seeds.addresses.truncate(SEEDS_MAX);
        if self.is_running() && !self.seeds.addresses.is_empty() {
            self.timers.arm(Timer::Seeds, now);
        }
    }

    pub(super) fn on_seeds_due(&mut self, now: Instant) {
        let wait = if self.isolated() {
            sometimes!("isolated");
            for address in self.seeds.addresses.clone() {
                self.act(Action::Connect { address, peer: None });
            }
            let patient = now.since(self.seeds.isolated_since) < self.config.seed_patience;
            if patient { self.config.seed_retry } else { self.config.seed_retry_slow }
        } else {
            self.refresh_one_seed();
            self.config.seed_refresh * self.share()
        };
        let early = self.jitter(wait / 8);
        self.timers.arm(Timer::Seeds, now + wait.saturating_sub(early));
    }

    /// A seed that no connected member answers for may lead to servers that were cut off when they joined.
    fn refresh_one_seed(&mut self) {
        let known = |address: &Address| {
            let open = self.table.iter().filter(|entry| entry.is_open());
            self.me.record.addresses.contains(address)
                || open.into_iter().any(|entry| entry.record().addresses.contains(address))
        };
        let unknown: Vec<_> = self.seeds.addresses.iter().filter(|address| !known(address)).cloned().collect();
        let pick = self.random.index(unknown.len());
        if let Some(address) = unknown.get(pick) {
            sometimes!("seed asked again");
            self.act(Action::Connect { address: address.clone(), peer: None });
        }
    }

    /// A stream session with `peer` is open. Its record follows in its first message. Where that names better addresses than
    /// the session goes to, these go on being tried.
    pub fn on_session_opened(&mut self, peer: NodeId, route: Route, now: Instant) {
        // A seed may resolve to this node itself.
        if peer == self.me.record.node {
            return;
        }
        let known = self.table.get_mut(&peer).map(|entry| {
            let link = entry.link_mut();
            link.refused = false;
            link.shown = None;
            link.route = route.clone();
            link.better_failures = 0;
            link.open.replace(now).is_some()
        });
        match known {
            Some(was_open) => self.sessions += usize::from(!was_open),
            None if self.strangers.contains_key(&peer) => self.greet_stranger(peer, route),
            None => {
                self.greet_stranger(peer, route);
                self.sessions += usize::from(self.strangers.contains_key(&peer));
            }
        }
        self.timers.disarm(&Timer::Connect(peer));
        self.look_for_better(peer, now);
        self.answer_call(&peer);
        self.attempts.retain(|_, (node, _)| *node != peer);
        if self.is_running() {
            let answer = self.me.record.node < peer;
            self.send_digest(peer, answer, now);
            self.ask_by_stream(peer, now);
        }
    }

    /// The last session with `peer` is gone.
    pub fn on_session_closed(&mut self, peer: NodeId, why: Closed, now: Instant) {
        if self.strangers.remove(&peer).is_some() {
            self.note_session_gone(now);
            return;
        }
        let Some(entry) = self.table.get_mut(&peer) else {
            return;
        };
        let Some(opened) = entry.link_mut().open.take() else {
            return;
        };
        let short = now.since(opened) < SHORT_SESSION;
        entry.link_mut().failures = if short { entry.link().failures.saturating_add(1) } else { 0 };
        let live = entry.is_live();
        self.note_session_gone(now);
        if !self.is_running() {
            return;
        }
        let broken = match why {
            Closed::Eof | Closed::Reset | Closed::Refused | Closed::Timeout => true,
            Closed::Local => false,
        };
        if live && broken {
            sometimes!("probed at once");
            self.probe(peer, true, None, now);
        }
        self.plan_connect(peer, broken && !short, now);
    }

    fn note_session_gone(&mut self, now: Instant) {
        self.sessions = self.sessions.saturating_sub(1);
        if self.isolated() && !self.seeds.addresses.is_empty() && self.is_running() {
            self.seeds.isolated_since = now;
            self.timers.arm_by(Timer::Seeds, now + self.config.seed_retry);
        }
    }

    /// An attempt that [`Action::Connect`] asked for came to nothing.
    pub fn on_connect_failed(&mut self, address: &Address, why: Closed, now: Instant) {
        let Some((node, _)) = self.attempts.remove(address) else {
            return;
        };
        self.connect_failed(node, why == Closed::Refused, now);
    }

    fn connect_failed(&mut self, node: NodeId, refused: bool, now: Instant) {
        let Some(entry) = self.table.get_mut(&node) else {
            return;
        };
        if entry.is_open() {
            entry.link_mut().better_failures = entry.link().better_failures.saturating_add(1);
            self.look_for_better(node, now);
            return;
        }
        entry.link_mut().failures = entry.link().failures.saturating_add(1);
        entry.link_mut().refused = refused;
        let live = entry.is_live() && !entry.restored;
        let failures = usize::try_from(entry.link().failures).unwrap_or(usize::MAX);
        let all_tried = failures >= entry.record().addresses.len();
        self.answer_call(&node);
        self.plan_connect(node, false, now);
        if live && all_tried && self.is_running() && self.is_neighbour(&node) {
            self.act(Action::Detour { peer: node });
        }
        if refused && live {
            sometimes!("connection refused");
            self.on_refused(node, now);
        }
    }

    /// Datagrams between the present boots of this node and `peer` verify.
    pub fn on_datagram_verified(&mut self, peer: NodeId, _now: Instant) {
        self.note_datagram();
        if let Some(entry) = self.table.get_mut(&peer) {
            entry.link_mut().datagrams = true;
        }
    }

    /// Sets the next attempt at a better way to `node`, where there may be one: soon at first, since what failed may only
    /// have failed once.
    pub(super) fn look_for_better(&mut self, node: NodeId, now: Instant) {
        let Some(entry) = self.table.get(&node).filter(|entry| entry.is_open() && entry.better_addresses() > 0) else {
            return;
        };
        if self.is_running() && !self.faults.has(Fault::BetterUnsought) {
            let doubled = self.config.connect_retry_max * (1 << entry.link().better_failures.min(DOUBLINGS_MAX));
            let wait = doubled.min(self.config.better_retry);
            let early = self.jitter(wait / 2);
            self.timers.arm(Timer::Connect(node), now + wait.saturating_sub(early));
        }
    }

    /// Sets the next attempt at `node`, unless a session is open: at once, or by courtesy and what failed before.
    pub(super) fn plan_connect(&mut self, node: NodeId, hurry: bool, now: Instant) {
        let me = self.me.record.node;
        let Some(entry) = self.table.get(&node) else {
            return;
        };
        let is_possible = !entry.is_open() && entry.status != Status::Left && self.is_running();
        if !is_possible || !self.is_neighbour(&node) {
            return;
        }
        let failed_for = now.since(entry.since);
        let given_up = entry.status == Status::Failed && failed_for > self.config.failed_patience;
        let failures = entry.link().failures;
        if self.faults.has(Fault::ConnectGivesUp) && failures > DOUBLINGS_MAX {
            self.timers.disarm(&Timer::Connect(node));
            return;
        }
        let wait = if given_up {
            self.config.failed_retry
        } else if hurry {
            Duration::ZERO
        } else if failures > 0 {
            let doubled = self.config.connect_retry_min * (1 << failures.min(DOUBLINGS_MAX));
            doubled.min(self.config.connect_retry_max)
        } else if me < node || !self.is_full_mesh() {
            Duration::ZERO
        } else {
            self.config.connect_courtesy
        };
        let early = self.jitter(wait / 2);
        self.timers.arm(Timer::Connect(node), now + wait.saturating_sub(early));
    }

    pub(super) fn on_connect_due(&mut self, node: NodeId, now: Instant) {
        let is_possible =
            |entry: &&Entry| entry.status != Status::Left && (!entry.is_open() || entry.better_addresses() > 0);
        let wanted = self.is_running() && self.wants_stream(&node);
        let Some(entry) = self.table.get(&node).filter(is_possible).filter(|_| wanted) else {
            self.answer_call(&node);
            return;
        };
        let Record { addresses, .. } = &**entry.record();
        let (ways, failures) = if entry.is_open() {
            (entry.better_addresses(), entry.link().better_failures)
        } else {
            (addresses.len(), entry.link().failures)
        };
        let turn = usize::try_from(failures).unwrap_or(0).checked_rem(ways).unwrap_or(0);
        let address = addresses.get(turn).cloned();
        let guard = self.config.connect_timeout;
        let expired = |since: &Instant| now.since(*since) >= guard;
        let unanswered = self.attempts.values().any(|(other, since)| *other == node && expired(since));
        self.attempts.retain(|_, (_, since)| !expired(since));
        if unanswered {
            sometimes!("attempt unanswered");
            self.connect_failed(node, false, now);
            return;
        }
        let under_way = self.is_connecting(&node);
        let is_open = entry.is_open();
        let Some(address) = address.filter(|_| !under_way && self.attempts.len() < ATTEMPTS_MAX) else {
            if is_open {
                self.look_for_better(node, now);
                return;
            }
            // Where more wait than can be tried at once, they do not all look again and again.
            let crowded = self.table.len() > ATTEMPTS_MAX;
            let wait = if crowded { self.config.connect_retry_max } else { self.config.connect_retry_min };
            self.timers.arm(Timer::Connect(node), now + wait);
            return;
        };
        self.attempts.insert(address.clone(), (node, now));
        self.act(Action::Connect { address, peer: Some(node) });
        // Should the driver never answer, the attempt is made again.
        self.timers.arm(Timer::Connect(node), now + guard);
    }

    /// A member is elsewhere. A host that is gone leaves an attempt without an answer for as long as attempts may take,
    /// so what is tried where the member was holds up nothing.
    pub(super) fn follow_move(&mut self, node: NodeId, now: Instant) {
        let Some(entry) = self.table.get(&node) else { return };
        let Record { addresses, .. } = &**entry.record();
        let tried = self.attempts.len();
        self.attempts.retain(|address, (of, _)| *of != node || addresses.contains(address));
        if self.attempts.len() < tried {
            self.timers.arm(Timer::Connect(node), now);
        }
    }

    pub(super) fn is_connecting(&self, node: &NodeId) -> bool {
        self.attempts.values().any(|(other, _)| other == node)
    }
}
