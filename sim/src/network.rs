//! The network: datagrams that may be lost, doubled or overtaken, and streams that are reliable and ordered until they
//! break.
//!
//! A link is one direction between two servers. While it is blocked datagrams vanish and streams stall; a stream that
//! has stalled for [`STREAM_TIMEOUT`] is over on both ends.

mod stream;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use knot_engine::membership::Closed;
use knot_engine::{Address, Instant, PeerIdentity, SessionEvent, SessionId};

pub(crate) use self::stream::Streams;
use crate::draw::Draw;
use crate::scenario::{NetworkSpec, NodeSpec};

/// How long a connection is tried for.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stream stalls before it is given up.
pub const STREAM_TIMEOUT: Duration = Duration::from_secs(10);
/// What a lost packet costs a stream.
pub const RETRANSMIT: Duration = Duration::from_millis(200);
/// One way through the loopback interface.
const LOOPBACK: Duration = Duration::from_micros(20);
/// Most datagrams lost of a thousand, however many faults add up.
const LOSS_MAX: u64 = 950;

/// One start of one server's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) node: usize,
    pub(crate) start: u32,
}

/// What arrives, or is due, somewhere on the network.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// A datagram arrives at a server.
    Datagram { to: usize, bytes: Bytes },
    /// A process learns of a stream.
    Session { to: Process, session: SessionId, event: SessionEvent },
    /// A connection attempt reaches the host it is for.
    Connect(Attempt),
    /// The end `side` of a stream learns who is at the other.
    Opened { stream: u64, side: usize, peer: PeerIdentity },
    /// A frame reaches the end `side` of a stream.
    Arrive { stream: u64, side: usize, frame: Bytes },
    /// A frame left the end `side` of a stream.
    Departed { stream: u64, side: usize, bytes: usize },
    /// An end learns that its stream is over.
    Break { stream: u64, side: usize, why: Closed },
    /// A stream that began to stall then is given up, if it stalls still.
    GiveUp { stream: u64, since: Instant },
}

/// A connection attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) from: Process,
    pub(crate) session: SessionId,
    pub(crate) to: usize,
    pub(crate) begun: Instant,
}

/// What to put into the event queue.
pub(crate) type Plan = Vec<(Instant, Delivery)>;

#[derive(Clone, Copy, Debug, Default)]
struct Host {
    up: bool,
    process: Option<u32>,
}

/// Datagrams by what became of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) datagrams: u64,
    pub(crate) lost: u64,
    pub(crate) frames: u64,
    pub(crate) connects: u64,
}

/// All links between the servers of a run.
#[derive(Debug)]
pub(crate) struct Links {
    spec: NetworkSpec,
    zones: Vec<usize>,
    hosts: Vec<Host>,
    blocked: Vec<u32>,
    datagram_draws: Vec<Draw>,
    stream_draws: Vec<Draw>,
    lag: Vec<Duration>,
    loss: u64,
    duplicate: u64,
    reorder: u64,
    pub(crate) counts: Counts,
}

impl Links {
    pub(crate) fn new(seed: u64, spec: &NetworkSpec, nodes: &[NodeSpec]) -> Self {
        let names = crate::scenario::zones(nodes);
        let zone_of = |node: &NodeSpec| names.iter().position(|name| *name == node.zone);
        let pairs = nodes.len() * nodes.len();
        let draws = |kind: &str| (0..pairs).map(|pair| Draw::new(seed, &format!("{kind} {pair}"))).collect();
        Self {
            spec: spec.clone(),
            zones: nodes.iter().filter_map(zone_of).collect(),
            hosts: vec![Host::default(); nodes.len()],
            blocked: vec![0; pairs],
            datagram_draws: draws("datagrams"),
            stream_draws: draws("streams"),
            lag: vec![Duration::ZERO; nodes.len()],
            loss: 0,
            duplicate: 0,
            reorder: 0,
            counts: Counts::default(),
        }
    }

    fn pair(&self, from: usize, to: usize) -> usize {
        from * self.hosts.len() + to
    }

    /// Blocks a link, or takes one block off it.
    pub(crate) fn block(&mut self, from: usize, to: usize, on: bool) {
        let pair = self.pair(from, to);
        let count = &mut self.blocked[pair];
        *count = if on { *count + 1 } else { count.saturating_sub(1) };
    }

    pub(crate) fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked[self.pair(from, to)] > 0
    }

    /// Whether a stream between these makes no progress.
    fn stalls(&self, one: usize, other: usize) -> bool {
        self.is_blocked(one, other) || self.is_blocked(other, one)
    }

    /// Packets to and from `node` take this much longer, or no more.
    pub(crate) fn add_lag(&mut self, node: usize, extra: Duration, on: bool) {
        let lag = &mut self.lag[node];
        *lag = if on { *lag + extra } else { lag.saturating_sub(extra) };
    }

    pub(crate) fn add_loss(&mut self, per_mille: u64, on: bool) {
        adjust(&mut self.loss, per_mille, on);
    }

    pub(crate) fn add_duplicates(&mut self, per_mille: u64, on: bool) {
        adjust(&mut self.duplicate, per_mille, on);
    }

    pub(crate) fn add_reorder(&mut self, per_mille: u64, on: bool) {
        adjust(&mut self.reorder, per_mille, on);
    }

    pub(crate) fn process_started(&mut self, process: Process) {
        self.hosts[process.node] = Host { up: true, process: Some(process.start) };
    }

    pub(crate) fn process_died(&mut self, node: usize, host_stays_up: bool) {
        self.hosts[node] = Host { up: host_stays_up, process: None };
    }

    fn runs(&self, process: Process) -> bool {
        self.hosts[process.node].process == Some(process.start)
    }

    fn base_latency(&self, from: usize, to: usize) -> Duration {
        let (one, other) = (self.zones[from], self.zones[to]);
        let micros = if one == other { self.spec.near_us } else { self.spec.far_us[one.max(other)][one.min(other)] };
        Duration::from_micros(micros) + self.lag[from] + self.lag[to]
    }

    fn stretch(&self, base: Duration, draw: &mut Draw) -> Duration {
        let micros = u64::try_from(base.as_micros()).unwrap_or(u64::MAX);
        base + Duration::from_micros(draw.between(0, micros * self.spec.jitter_percent / 100 + 1))
    }

    /// Sends a datagram from one server to another, into `plan`.
    pub(crate) fn send_datagram(&mut self, (from, to): (usize, usize), bytes: &Bytes, now: Instant, plan: &mut Plan) {
        self.counts.datagrams += 1;
        if from == to {
            let bytes = bytes.clone();
            plan.push((now + LOOPBACK, Delivery::Datagram { to, bytes }));
            return;
        }
        let pair = self.pair(from, to);
        let mut draw = self.datagram_draws[pair].clone();
        let lost = draw.chance((self.spec.loss_per_mille + self.loss).min(LOSS_MAX));
        if lost || self.blocked[pair] > 0 {
            self.counts.lost += 1;
        } else {
            let base = self.base_latency(from, to);
            let copies = 1 + usize::from(draw.chance(self.spec.duplicate_per_mille + self.duplicate));
            for _ in 0..copies {
                let mut wait = self.stretch(base, &mut draw);
                if draw.chance(self.spec.reorder_per_mille + self.reorder) {
                    wait += Duration::from_micros(draw.between(1_000, 60_000));
                }
                let bytes = bytes.clone();
                plan.push((now + wait, Delivery::Datagram { to, bytes }));
            }
        }
        self.datagram_draws[pair] = draw;
    }

    /// How long a packet of a stream takes, retransmissions included.
    fn stream_latency(&mut self, from: usize, to: usize) -> Duration {
        if from == to {
            return LOOPBACK;
        }
        let pair = self.pair(from, to);
        let mut draw = self.stream_draws[pair].clone();
        let mut wait = self.stretch(self.base_latency(from, to), &mut draw);
        let loss = (self.spec.loss_per_mille + self.loss).min(LOSS_MAX);
        let mut penalty = RETRANSMIT;
        while draw.chance(loss) && penalty < STREAM_TIMEOUT {
            wait += penalty;
            penalty *= 2;
        }
        self.stream_draws[pair] = draw;
        wait
    }
}

fn adjust(sum: &mut u64, by: u64, on: bool) {
    *sum = if on { *sum + by } else { sum.saturating_sub(by) };
}

/// The address that names a server's present process, wherever it runs: what a name server would answer.
#[must_use]
pub(crate) fn seed_address(node: usize) -> Address {
    Address(format!("n{node}.sim:7000").into())
}

/// The address that a server has after it moved `moves` times. It dies with the next move.
#[must_use]
pub(crate) fn own_address(node: usize, moves: u32) -> Address {
    Address(format!("10.{moves}.0.{node}:7000").into())
}
