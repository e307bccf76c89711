//! The network between the namespaces: every packet comes here, and goes on as the scenario's links have it.
//!
//! Links are those of level 1. Here they carry packets of IP, so streams get over what is lost as the kernel's do.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use bytes::Bytes;
use knot_engine::Instant;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tun_rs::AsyncDevice;

use super::namespaces::place_of;
use super::packet::{Carries, Flow, Packet, Segment};
use super::unready::{At, Unready};
use crate::checker::leak_in;
use crate::network::{Delivery, Links, Plan};
use crate::scenario::{FaultKind, Scenario};
use crate::servers::joined;
use crate::shared::Shared;

/// The longest packet that a line carries.
const PACKET_BYTES_MAX: usize = 1 << 16;
/// Packets under way at most; what comes on top is lost, as in any router.
const UNDER_WAY_MAX: usize = 1 << 16;

/// What the network is like now, and what has passed.
#[derive(Debug)]
pub(super) struct Weather {
    links: Links,
    servers: usize,
    begun: tokio::time::Instant,
    /// Streams between servers.
    flows: BTreeSet<Flow>,
    /// Of these, those that are reset as soon as one of their ends says something.
    doomed: BTreeSet<Flow>,
    /// And those of which nothing passes any more.
    forgotten: BTreeSet<Flow>,
    /// When the last segment from one server to another arrives: a line does not reorder what is in a stream.
    last: BTreeMap<(usize, usize), Instant>,
    /// The first packet between servers that held what none may: its sender, and what it held.
    leak: Option<(usize, &'static str)>,
    packets: u64,
    lost: u64,
    drops: BTreeMap<&'static str, u64>,
}

/// The weather, for all that share it.
pub(super) type Sky = Shared<Weather>;

/// A packet and where it is going, in the order of times and, where those are equal, of their coming here.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    at: Instant,
    number: u64,
    to: usize,
    bytes: Bytes,
}

impl Weather {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            links: Links::new(scenario.seed, &scenario.network, &scenario.nodes),
            servers: scenario.nodes.len(),
            begun: tokio::time::Instant::now(),
            flows: BTreeSet::new(),
            doomed: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            last: BTreeMap::new(),
            leak: None,
            packets: 0,
            lost: 0,
            drops: BTreeMap::new(),
        }
    }

    pub(super) fn now(&self) -> Instant {
        Instant::ZERO + self.begun.elapsed()
    }

    /// A fault begins, or ends.
    pub(super) fn set(&mut self, kind: &FaultKind, on: bool) {
        self.links.set(kind, on);
        let of = |flows: &BTreeSet<Flow>, node: usize| -> Vec<Flow> {
            flows.iter().filter(|flow| flow.iter().any(|end| place_of(*end.ip()) == Some(node))).copied().collect()
        };
        if !on {
            return;
        }
        if let FaultKind::Reset { node } = kind {
            self.doomed.extend(of(&self.flows, *node));
        } else if let FaultKind::HalfOpen { node } = kind {
            self.forgotten.extend(of(&self.flows, *node));
        }
    }

    /// Who sent what could be read, if anybody did.
    pub(super) fn leak(&self) -> Option<(usize, &'static str)> {
        self.leak
    }

    /// How many packets passed between servers, and how many of them were lost.
    pub(super) fn counts(&self) -> [u64; 2] {
        [self.packets, self.lost]
    }

    /// What was lost for reasons that no scenario has, and how often.
    pub(super) fn drops(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.drops.iter().map(|(why, count)| (*why, *count))
    }

    fn drop_for(&mut self, why: &'static str) {
        *self.drops.entry(why).or_default() += 1;
    }

    /// What becomes of a packet: when it, or what answers it, arrives where.
    fn route(&mut self, bytes: &Bytes) -> Vec<(Instant, usize, Bytes)> {
        let now = self.now();
        let Some(packet) = Packet::read(bytes) else { return Vec::new() };
        let (Some(from), Some(to)) = (place_of(packet.from), place_of(packet.to)) else { return Vec::new() };
        if from.max(to) >= self.servers {
            // A client is not on the cluster's network.
            return if from.max(to) == self.servers { vec![(now, to, bytes.clone())] } else { Vec::new() };
        }
        self.packets += 1;
        self.look_into(from, bytes);
        let arrives = match packet.carries {
            Carries::Segment(segment) => self.route_segment((from, to), &segment, bytes, now),
            // As at the other levels, what is sent is what counts, without headers.
            Carries::Datagram(datagram) => {
                let arrivals = self.send((from, to), &datagram.payload, now).into_iter();
                let whole = |payload: Bytes| match payload == datagram.payload {
                    true => bytes.clone(),
                    false => datagram.with(&payload).into(),
                };
                arrivals.map(|(at, to, payload)| (at, to, whole(payload))).collect()
            }
            Carries::Other => self.send((from, to), bytes, now),
        };
        self.lost += u64::from(arrives.is_empty());
        arrives
    }

    fn send(&mut self, pair: (usize, usize), bytes: &Bytes, now: Instant) -> Vec<(Instant, usize, Bytes)> {
        let mut plan = Plan::new();
        self.links.send_datagram(pair, bytes, now, &mut plan);
        plan.into_iter().filter_map(datagram).collect()
    }

    fn route_segment(
        &mut self,
        (from, to): (usize, usize),
        segment: &Segment,
        bytes: &Bytes,
        now: Instant,
    ) -> Vec<(Instant, usize, Bytes)> {
        let flow = segment.flow();
        if segment.opens {
            // The same ports again are another stream.
            self.doomed.remove(&flow);
            self.forgotten.remove(&flow);
        }
        self.flows.insert(flow);
        if self.forgotten.contains(&flow) {
            return Vec::new();
        }
        if self.doomed.remove(&flow) {
            let [ahead, back] = segment.resets();
            // Behind what is under way, or the receiver would take it for an attack.
            let behind = |pair| self.last.get(&pair).map_or(now, |last| now.max(*last));
            return vec![(behind((from, to)), to, ahead.into()), (behind((to, from)), from, back.into())];
        }
        let Some(arrives) = self.links.carry_segment((from, to), bytes.len(), now) else { return Vec::new() };
        let last = self.last.entry((from, to)).or_insert(arrives);
        *last = arrives.max(*last);
        vec![(*last, to, bytes.clone())]
    }

    fn look_into(&mut self, from: usize, bytes: &[u8]) {
        if self.leak.is_none() {
            self.leak = leak_in(bytes).map(|canary| (from, canary));
        }
    }
}

fn datagram((at, delivery): (Instant, Delivery)) -> Option<(Instant, usize, Bytes)> {
    if let Delivery::Datagram { to, bytes } = delivery { Some((at, to, bytes)) } else { None }
}

/// Takes packets from all lines and brings them where they go, until it is dropped.
#[derive(Debug)]
pub(super) struct Router {
    tasks: JoinSet<Unready>,
}

impl Router {
    /// Needs a runtime.
    pub(super) fn start(lines: Vec<AsyncDevice>, sky: &Sky) -> Self {
        let lines: Arc<[AsyncDevice]> = lines.into();
        let (post, arrivals) = mpsc::channel(UNDER_WAY_MAX);
        let mut tasks = JoinSet::new();
        for place in 0..lines.len() {
            tasks.spawn(take(lines.clone(), place, sky.clone(), post.clone()));
        }
        tasks.spawn(bring(lines, sky.clone(), arrivals));
        Self { tasks }
    }

    /// Waits until it cannot go on, which it should always.
    pub(super) async fn broken(&mut self) -> Unready {
        match self.tasks.join_next().await {
            Some(broken) => joined(broken),
            None => std::future::pending().await,
        }
    }
}

/// Why a packet was lost for which there was no room.
const NO_ROOM: &str = "packets over what the router holds";
/// Why one was lost that had arrived.
const NOT_TAKEN: &str = "packets that a server's line did not take";

async fn take(
    lines: Arc<[AsyncDevice]>,
    place: usize,
    sky: Sky,
    post: mpsc::Sender<(Instant, usize, Bytes)>,
) -> Unready {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    loop {
        let length = match lines[place].recv(&mut buffer).await.at(format!("the line of server {place}")) {
            Ok(length) => length,
            Err(broken) => return broken,
        };
        let packet = Bytes::copy_from_slice(&buffer[..length]);
        let arrivals = sky.get().route(&packet);
        for arrival in arrivals {
            if post.try_send(arrival).is_err() {
                sky.get().drop_for(NO_ROOM);
            }
        }
    }
}

async fn bring(lines: Arc<[AsyncDevice]>, sky: Sky, mut arrivals: mpsc::Receiver<(Instant, usize, Bytes)>) -> Unready {
    let begun = sky.get().begun;
    let mut under_way: BinaryHeap<std::cmp::Reverse<UnderWay>> = BinaryHeap::new();
    let mut number = 0;
    loop {
        let next = under_way.peek().map(|first| begun + first.0.at.since(Instant::ZERO));
        let due = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = due => {
                if let Some(std::cmp::Reverse(packet)) = under_way.pop()
                    && lines[packet.to].send(&packet.bytes).await.is_err()
                {
                    sky.get().drop_for(NOT_TAKEN);
                }
            }
            arrival = arrivals.recv() => {
                // Whoever posts does so for ever, or breaks first.
                let Some((at, to, bytes)) = arrival else { return std::future::pending().await };
                number += 1;
                if under_way.len() < UNDER_WAY_MAX {
                    under_way.push(std::cmp::Reverse(UnderWay { at, number, to, bytes }));
                } else {
                    sky.get().drop_for(NO_ROOM);
                }
            }
        }
    }
}
