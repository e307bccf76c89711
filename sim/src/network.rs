//! The network: datagrams that may be lost, doubled or overtaken, and streams that are reliable and ordered until they
//! break.
//!
//! A link is one direction between two servers. While it is blocked datagrams vanish and streams stall. What waits in a
//! stream is sent again less and less often, so it goes on some time after its link does; an end whose data has been on
//! its way for [`STREAM_TIMEOUT`] gives it up, and one that has nothing on its way hears of that later.

mod stream;
#[cfg(test)]
mod tests;
mod weather;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use knot_engine::membership::Closed;
use knot_engine::{Address, Instant, SessionEvent, SessionId};

pub(crate) use self::stream::Streams;
use crate::draw::Draw;
use crate::scenario::{NetworkSpec, NodeSpec, Spread};

/// How long a connection is tried for.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long data of a stream may be on its way before its sender gives up, as the server sets it.
pub const STREAM_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an end that sends nothing takes to learn that the other is gone, as the server sets it.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(30);
/// What a lost packet costs a stream; each loss in a row costs twice the one before.
pub const RETRANSMIT: Duration = Duration::from_millis(200);
/// Bytes of datagrams that wait before a narrow line.
const LINK_QUEUE_BYTES: u64 = 64 << 10;
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
    /// The end `side` of a stream learns that it is open.
    Opened { stream: u64, side: usize },
    /// A frame reaches the end `side` of a stream.
    Arrive { stream: u64, side: usize, frame: Bytes },
    /// A frame left the end `side` of a stream.
    Departed { stream: u64, side: usize, bytes: usize },
    /// An end learns that its stream is over.
    Break { stream: u64, side: usize, why: Closed },
    /// What waits in a stream that began to stall then is sent again.
    Retry { stream: u64, since: Instant },
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

/// One direction between two servers.
#[derive(Debug)]
struct Link {
    /// Faults that let nothing through.
    blocked: u32,
    /// Faults that let no datagrams through.
    datagrams_blocked: u32,
    lag: Duration,
    loss: u64,
    datagrams: Draw,
    streams: Box<Draw>,
    /// Until when what was sent before occupies it, where its rate is limited.
    busy_until: Instant,
}

/// Limits that are in force at once; the least counts.
#[derive(Clone, Debug, Default)]
struct Limits(Vec<u64>);

impl Limits {
    fn add(&mut self, limit: u64, on: bool) {
        if on {
            self.0.push(limit);
        } else if let Some(at) = self.0.iter().position(|known| *known == limit) {
            self.0.remove(at);
        }
    }

    fn least(&self) -> Option<u64> {
        self.0.iter().min().copied()
    }
}

/// What is wrong with one server's access to the network.
#[derive(Clone, Debug, Default)]
struct Access {
    lag: Duration,
    rates: Limits,
    queues: Limits,
    mtus: Limits,
    reads: Limits,
    /// Faults under which its streams make no progress.
    streams_stalled: u32,
    busy_until: Instant,
}

/// What lies between two zones.
#[derive(Clone, Copy, Debug)]
struct Path {
    latency: Duration,
    loss: u64,
    bytes_per_s: Option<u64>,
}

/// All links between the servers of a run.
#[derive(Debug)]
pub(crate) struct Links {
    spec: NetworkSpec,
    zones: Vec<usize>,
    /// By the zone of the sender, then that of the receiver.
    paths: Vec<Vec<Path>>,
    hosts: Vec<Host>,
    /// Those over which something went, or with which something is wrong.
    links: BTreeMap<(usize, usize), Link>,
    seed: u64,
    access: Vec<Access>,
    loss: u64,
    duplicate: u64,
    reorder: u64,
    corrupt: u64,
    pub(crate) counts: Counts,
}

impl Links {
    pub(crate) fn new(seed: u64, spec: &NetworkSpec, nodes: &[NodeSpec]) -> Self {
        let names = crate::scenario::zones(nodes);
        let zone_of: BTreeMap<&str, usize> = names.iter().zip(0..).map(|(name, zone)| (*name, zone)).collect();
        Self {
            spec: spec.clone(),
            zones: nodes.iter().filter_map(|node| zone_of.get(node.zone.as_str()).copied()).collect(),
            paths: paths(spec, &names),
            hosts: vec![Host::default(); nodes.len()],
            links: BTreeMap::new(),
            seed,
            access: vec![Access::default(); nodes.len()],
            loss: 0,
            duplicate: 0,
            reorder: 0,
            corrupt: 0,
            counts: Counts::default(),
        }
    }

    fn link(&mut self, from: usize, to: usize) -> &mut Link {
        let (seed, hosts) = (self.seed, self.hosts.len());
        self.links.entry((from, to)).or_insert_with(|| {
            let pair = from * hosts + to;
            Link {
                blocked: 0,
                datagrams_blocked: 0,
                lag: Duration::ZERO,
                loss: 0,
                datagrams: Draw::new(seed, &format!("datagrams {pair}")),
                streams: Box::new(Draw::new(seed, &format!("streams {pair}"))),
                busy_until: Instant::ZERO,
            }
        })
    }

    fn has(&self, from: usize, to: usize) -> Option<&Link> {
        self.links.get(&(from, to))
    }

    fn path(&self, from: usize, to: usize) -> Path {
        self.paths[self.zones[from]][self.zones[to]]
    }

    pub(crate) fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.has(from, to).is_some_and(|link| link.blocked > 0)
    }

    /// Whether a stream between these makes no progress.
    fn stalls(&self, one: usize, other: usize) -> bool {
        let stalled = |node: usize| self.access[node].streams_stalled > 0;
        self.is_blocked(one, other) || self.is_blocked(other, one) || stalled(one) || stalled(other)
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

    /// One way from one server to another, without jitter.
    pub(crate) fn base_latency(&self, from: usize, to: usize) -> Duration {
        let lag = self.has(from, to).map_or(Duration::ZERO, |link| link.lag);
        self.path(from, to).latency + self.access[from].lag + self.access[to].lag + lag
    }

    fn loss_between(&self, from: usize, to: usize) -> u64 {
        let own = self.has(from, to).map_or(0, |link| link.loss);
        (self.spec.loss_per_mille + self.path(from, to).loss + self.loss + own).min(LOSS_MAX)
    }

    fn stretch(&self, base: Duration, draw: &mut Draw) -> Duration {
        let micros = u64::try_from(base.as_micros()).unwrap_or(u64::MAX);
        let jitter = micros * self.spec.jitter_percent / 100;
        base + Duration::from_micros(match self.spec.spread {
            Spread::Even => draw.between(0, jitter + 1),
            Spread::Tail => draw.exponential(jitter),
        })
    }

    /// When the last byte of a packet leaves, where rates are limited.
    fn departs(&mut self, from: usize, to: usize, bytes: usize, now: Instant) -> Instant {
        let takes = |rate: u64| Duration::from_micros((bytes as u64).saturating_mul(1_000_000) / rate.max(1));
        let mut at = now;
        let access = &mut self.access[from];
        if let Some(rate) = access.rates.least() {
            at = access.busy_until.max(at) + takes(rate);
            access.busy_until = at;
        }
        if let Some(rate) = self.path(from, to).bytes_per_s {
            let link = self.link(from, to);
            at = link.busy_until.max(at) + takes(rate);
            link.busy_until = at;
        }
        at
    }

    /// Whether the queue before a narrow line has no room.
    fn is_queue_full(&self, from: usize, to: usize, bytes: usize, now: Instant) -> bool {
        let waits = |busy_until: Instant, rate: u64| {
            let micros = u64::try_from(busy_until.since(now).as_micros()).unwrap_or(u64::MAX);
            micros.saturating_mul(rate) / 1_000_000 + bytes as u64
        };
        let access = &self.access[from];
        let own = access.rates.least().map(|rate| waits(access.busy_until, rate));
        let busy_until = self.has(from, to).map_or(Instant::ZERO, |link| link.busy_until);
        let shared = self.path(from, to).bytes_per_s.map(|rate| waits(busy_until, rate));
        own.is_some_and(|waiting| waiting > access.queues.least().unwrap_or(LINK_QUEUE_BYTES))
            || shared.is_some_and(|waiting| waiting > LINK_QUEUE_BYTES)
    }

    /// Whether a datagram gets no further than its sender's line.
    fn swallows(&self, from: usize, to: usize, bytes: usize, now: Instant) -> bool {
        let is_blocked = |link: &Link| link.blocked > 0 || link.datagrams_blocked > 0;
        let too_long = |node: usize| self.access[node].mtus.least().is_some_and(|most| bytes as u64 > most);
        self.has(from, to).is_some_and(is_blocked)
            || too_long(from)
            || too_long(to)
            || self.is_queue_full(from, to, bytes, now)
    }

    /// Sends a datagram from one server to another, into `plan`.
    pub(crate) fn send_datagram(&mut self, (from, to): (usize, usize), bytes: &Bytes, now: Instant, plan: &mut Plan) {
        self.counts.datagrams += 1;
        if from == to {
            let bytes = bytes.clone();
            plan.push((now + LOOPBACK, Delivery::Datagram { to, bytes }));
            return;
        }
        let mut draw = self.link(from, to).datagrams.clone();
        let lost = draw.chance(self.loss_between(from, to));
        if lost || self.swallows(from, to, bytes.len(), now) {
            self.counts.lost += 1;
        } else {
            let departs = self.departs(from, to, bytes.len(), now);
            let base = self.base_latency(from, to);
            let copies = 1 + usize::from(draw.chance(self.spec.duplicate_per_mille + self.duplicate));
            for _ in 0..copies {
                let mut wait = self.stretch(base, &mut draw);
                if draw.chance(self.spec.reorder_per_mille + self.reorder) {
                    wait += Duration::from_micros(draw.between(1_000, 60_000));
                }
                let bytes = if draw.chance(self.corrupt) { corrupted(bytes, &mut draw) } else { bytes.clone() };
                plan.push((departs + wait, Delivery::Datagram { to, bytes }));
            }
        }
        self.link(from, to).datagrams = draw;
    }

    /// When a segment of a stream arrives that a kernel sends itself, and again where it is lost; none where it is.
    #[cfg(feature = "l3")]
    pub(crate) fn carry_segment(&mut self, (from, to): (usize, usize), bytes: usize, now: Instant) -> Option<Instant> {
        let stalled = |node: usize| self.access[node].streams_stalled > 0;
        let swallowed = self.is_blocked(from, to) || stalled(from) || stalled(to);
        let mut draw = Draw::clone(&self.link(from, to).streams);
        let lost = draw.chance(self.loss_between(from, to));
        let arrives = (!lost && !swallowed && !self.is_queue_full(from, to, bytes, now)).then(|| {
            let departs = self.departs(from, to, bytes, now);
            departs + self.stretch(self.base_latency(from, to), &mut draw)
        });
        *self.link(from, to).streams = draw;
        arrives
    }

    /// How long a packet of a stream takes, retransmissions included.
    fn stream_latency(&mut self, from: usize, to: usize) -> Duration {
        if from == to {
            return LOOPBACK;
        }
        let mut draw = Draw::clone(&self.link(from, to).streams);
        let mut wait = self.stretch(self.base_latency(from, to), &mut draw);
        let loss = self.loss_between(from, to);
        let mut penalty = RETRANSMIT;
        while draw.chance(loss) && penalty < STREAM_TIMEOUT {
            wait += penalty;
            penalty *= 2;
        }
        *self.link(from, to).streams = draw;
        wait
    }
}

fn paths(spec: &NetworkSpec, zones: &[&str]) -> Vec<Vec<Path>> {
    let path = |from: &str, to: &str| {
        let usual = if from == to { spec.near_us } else { spec.far_us };
        let mut path = Path { latency: Duration::from_micros(usual), loss: 0, bytes_per_s: None };
        for link in &spec.links {
            let [one, other] = &link.between;
            let forth = one == from && other == to;
            if forth || (one == to && other == from) {
                let micros = if forth { link.one_way_us } else { link.back_us.unwrap_or(link.one_way_us) };
                path = Path {
                    latency: Duration::from_micros(micros),
                    loss: link.loss_per_mille,
                    bytes_per_s: link.bytes_per_s,
                };
            }
        }
        path
    };
    zones.iter().map(|from| zones.iter().map(|to| path(from, to)).collect()).collect()
}

/// With one bit that is not what it was.
fn corrupted(bytes: &Bytes, draw: &mut Draw) -> Bytes {
    let mut changed = bytes.to_vec();
    if !changed.is_empty() {
        let at = draw.index(changed.len());
        changed[at] ^= 1 << draw.index(8);
    }
    changed.into()
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

/// The server that an address names, and after how many moves; none for the name that follows it wherever it goes.
pub(crate) fn named_by(address: &Address) -> Option<(usize, Option<u32>)> {
    let host = address.0.strip_suffix(":7000")?;
    if let Some(node) = host.strip_prefix('n').and_then(|host| host.strip_suffix(".sim")) {
        return Some((node.parse().ok()?, None));
    }
    let (moves, node) = host.strip_prefix("10.")?.split_once(".0.")?;
    Some((node.parse().ok()?, Some(moves.parse().ok()?)))
}
