//! A cluster of membership machines on a virtual clock and a network that delays, loses and divides.
#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use knot_engine::membership::{Action, Closed, Config, Evidence, Membership, Message, Record, Route, Status, Via};
use knot_engine::{Address, Boot, Faults, Incarnation, Instant, NodeId, Random};

/// IPv4 and UDP headers, and the seal.
const OVERHEAD_BYTES: usize = 60;

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) address: Address,
    pub(crate) starts: u32,
    pub(crate) boot: Boot,
    pub(crate) machine: Option<Membership>,
    pub(crate) host_up: bool,
    pub(crate) side: u8,
    pub(crate) sent_bytes: usize,
    pub(crate) left_done: bool,
    pub(crate) fenced: bool,
}

#[derive(Debug)]
enum Event {
    Deliver { from: usize, boot: Boot, to: usize, via: Via, session: u64, message: Box<Message> },
    Connected { from: usize, to: usize },
    ConnectFailed { from: usize, address: Address, why: Closed },
    Closed { at: usize, peer: usize, session: u64, why: Closed },
}

#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) observer: usize,
    pub(crate) node: usize,
    pub(crate) to: Status,
    pub(crate) evidence: Evidence,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) nodes: Vec<Node>,
    pub(crate) changes: Vec<Change>,
    pub(crate) names_taken: usize,
    pub(crate) moves: usize,
    pub(crate) loss_permille: u64,
    pub(crate) lossy_streams: bool,
    /// From whom nothing comes to whom.
    pub(crate) mute: Vec<(usize, usize)>,
    pub(crate) latency: Duration,
    pub(crate) config: Config,
    pub(crate) faults: Faults,
    pub(crate) trace: blake3::Hasher,
    zones: u8,
    events: BTreeMap<(Instant, u64), Event>,
    serial: u64,
    /// The side of `.0` of its session with `.1`.
    sessions: BTreeMap<(usize, usize), u64>,
    /// Directions of sessions in which something was lost: when it is sent again, and after how long.
    stalls: BTreeMap<(usize, usize, u64), (Instant, Duration)>,
    random: Random,
}

impl World {
    pub(crate) fn new(seed: u8, count: usize, zones: u8) -> Self {
        let random = Random::new(&[seed; 32], "world");
        let mut world = Self {
            now: Instant::from_micros(1_000_000_000_000),
            nodes: Vec::new(),
            changes: Vec::new(),
            names_taken: 0,
            moves: 0,
            loss_permille: 0,
            lossy_streams: false,
            mute: Vec::new(),
            latency: Duration::from_millis(1),
            config: Config::default(),
            faults: Faults::default(),
            trace: blake3::Hasher::new(),
            zones,
            events: BTreeMap::new(),
            serial: 0,
            sessions: BTreeMap::new(),
            stalls: BTreeMap::new(),
            random,
        };
        for index in 0..count {
            let id = NodeId(world.random.bytes16());
            world.nodes.push(Node {
                id,
                address: Address::from(format!("host{index}:7946").as_str()),
                starts: 0,
                boot: Boot([0; 16]),
                machine: None,
                host_up: true,
                side: 0,
                sent_bytes: 0,
                left_done: false,
                fenced: false,
            });
        }
        world
    }

    pub(crate) fn record(&self, index: usize) -> Record {
        let node = &self.nodes[index];
        Record {
            node: node.id,
            boot: node.boot,
            incarnation: Incarnation { starts: node.starts, refutations: 0 },
            name: format!("server-{index}"),
            zone: format!("z{}", index % usize::from(self.zones)),
            addresses: vec![node.address.clone()],
            version: "0.1.0".to_owned(),
            url: format!("http://host{index}:3000"),
        }
    }

    pub(crate) fn start(&mut self, index: usize, seeds: &[usize]) {
        self.nodes[index].starts += 1;
        self.nodes[index].boot = Boot(self.random.bytes16());
        let me = self.record(index);
        let random = Random::new(&self.random.bytes(), "membership");
        let mut machine = Membership::new(self.config.clone(), me, random, self.faults, self.now);
        let seeds = seeds.iter().map(|seed| self.nodes[*seed].address.clone()).collect();
        machine.join(seeds, self.now);
        self.nodes[index].machine = Some(machine);
        self.nodes[index].host_up = true;
        self.drain(index);
    }

    /// All of them, the first as the seed of all.
    pub(crate) fn start_all(&mut self) {
        for index in 0..self.nodes.len() {
            self.start(index, &[0]);
        }
    }

    /// Ends a process; where its host goes too, nobody is told.
    pub(crate) fn crash(&mut self, index: usize, host_too: bool) {
        self.nodes[index].machine = None;
        self.nodes[index].host_up = !host_too;
        for peer in 0..self.nodes.len() {
            self.sessions.remove(&(index, peer));
            if let (Some(session), false) = (self.sessions.get(&(peer, index)).copied(), host_too) {
                let event = Event::Closed { at: peer, peer: index, session, why: Closed::Eof };
                self.schedule(self.latency, event);
            }
        }
    }

    pub(crate) fn with<T>(&mut self, index: usize, act: impl FnOnce(&mut Membership, Instant) -> T) -> T {
        let now = self.now;
        let out = act(self.nodes[index].machine.as_mut().unwrap(), now);
        self.drain(index);
        out
    }

    pub(crate) fn machine(&self, index: usize) -> &Membership {
        self.nodes[index].machine.as_ref().unwrap()
    }

    /// How many members the machine sees so.
    pub(crate) fn count(&self, observer: usize, status: Status) -> usize {
        self.machine(observer).members().filter(|member| member.status == status).count()
    }

    pub(crate) fn status(&self, observer: usize, node: usize) -> Option<Status> {
        self.machine(observer).member(&self.nodes[node].id).map(|member| member.status)
    }

    /// The number of the session of `a` with `b`.
    pub(crate) fn session(&self, a: usize, b: usize) -> Option<u64> {
        self.sessions.get(&(a, b)).copied()
    }

    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| self.nodes[*index].machine.is_some()).collect()
    }

    /// Whether every running node sees exactly the running nodes as alive.
    pub(crate) fn is_agreed(&self) -> bool {
        let running = self.running();
        running.iter().all(|observer| {
            (0..self.nodes.len()).all(|node| {
                let alive = self.status(*observer, node) == Some(Status::Alive);
                alive == running.contains(&node)
            })
        })
    }

    pub(crate) fn everyone_sees(&self, node: usize, status: Status) -> bool {
        self.running().iter().filter(|o| **o != node).all(|o| self.status(*o, node) == Some(status))
    }

    pub(crate) fn run(&mut self, wait: Duration) {
        let end = self.now + wait;
        while self.step(end) {}
    }

    /// Runs until `done`, and says how long that took.
    pub(crate) fn run_until(&mut self, most: Duration, mut done: impl FnMut(&Self) -> bool) -> Option<Duration> {
        let begin = self.now;
        while self.now.since(begin) < most {
            if done(self) {
                return Some(self.now.since(begin));
            }
            self.run(Duration::from_millis(20));
        }
        None
    }

    fn step(&mut self, end: Instant) -> bool {
        let event_at = self.events.first_key_value().map(|((at, _), _)| *at);
        let timer = self
            .running()
            .into_iter()
            .filter_map(|index| self.machine(index).poll_timeout().map(|(at, _)| (at, index)))
            .min();
        let next = event_at.into_iter().chain(timer.map(|(at, _)| at)).min();
        let Some(at) = next.filter(|at| *at <= end) else {
            self.now = end;
            return false;
        };
        self.now = self.now.max(at);
        if event_at == Some(at) {
            let (_, event) = self.events.pop_first().unwrap();
            self.handle(event);
        } else if let Some((_, index)) = timer {
            self.with(index, Membership::handle_timeout);
        }
        true
    }

    fn schedule(&mut self, wait: Duration, event: Event) {
        self.serial += 1;
        self.events.insert((self.now + wait, self.serial), event);
    }

    fn cut(&self, a: usize, b: usize) -> bool {
        self.nodes[a].side != self.nodes[b].side || !self.nodes[a].host_up || !self.nodes[b].host_up
    }

    fn is_mute(&self, from: usize, to: usize) -> bool {
        self.cut(from, to) || self.mute.contains(&(from, to))
    }

    fn lost(&mut self) -> bool {
        self.random.below(1000) < self.loss_permille
    }

    fn index_of(&self, id: &NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == *id)
    }

    fn drain(&mut self, index: usize) {
        while let Some(action) = self.nodes[index].machine.as_mut().and_then(Membership::poll_action) {
            self.trace.update(format!("{} {index} {action:?}\n", self.now).as_bytes());
            self.perform(index, action);
        }
    }

    fn perform(&mut self, from: usize, action: Action) {
        match action {
            Action::Send { to, via, message } => self.post(from, &to, via, message),
            Action::Connect { address, .. } => self.connect(from, address),
            Action::Disconnect { peer } => {
                let Some(to) = self.index_of(&peer) else {
                    return;
                };
                self.sessions.remove(&(from, to));
                if let Some(session) = self.sessions.get(&(to, from)).copied().filter(|_| !self.is_mute(from, to)) {
                    self.schedule(self.latency, Event::Closed { at: to, peer: from, session, why: Closed::Eof });
                }
                self.with(from, |machine, now| machine.on_session_closed(peer, Closed::Local, now));
            }
            Action::Changed { node, to, evidence, .. } => {
                let node = self.index_of(&node);
                self.changes.extend(node.map(|node| Change { observer: from, node, to, evidence }));
            }
            Action::AddressMoved { .. } => self.moves += 1,
            Action::NameTaken { .. } => self.names_taken += 1,
            Action::LeftDone => self.nodes[from].left_done = true,
            Action::Fenced { .. } => self.nodes[from].fenced = true,
            Action::Detour { .. } | Action::Reaped { .. } | Action::Refuted { .. } => {}
        }
    }

    fn post(&mut self, from: usize, to: &NodeId, via: Via, message: Message) {
        assert!(message.is_valid(), "sent an invalid {message:?}");
        let Some(to) = self.index_of(to) else { return };
        let boot = self.nodes[from].boot;
        let session = self.sessions.get(&(from, to)).copied().unwrap_or(0);
        let mut wait = self.latency + Duration::from_micros(self.random.below(500));
        match via {
            Via::Datagram => {
                let bytes = message.encoded_bytes();
                assert!(bytes <= 1_100, "a datagram of {bytes} bytes");
                let theirs = self.machine(from).member(&self.nodes[to].id);
                if theirs.is_none_or(|member| member.record.boot != self.nodes[to].boot) {
                    return;
                }
                self.nodes[from].sent_bytes += bytes + OVERHEAD_BYTES;
                if self.lost() {
                    return;
                }
            }
            Via::Stream if session == 0 => return,
            Via::Stream if self.lossy_streams => {
                if self.lost() {
                    return;
                }
            }
            Via::Stream => {
                for round in 0..4 {
                    if self.lost() {
                        wait += Duration::from_millis(200 << round);
                    }
                }
            }
        }
        self.schedule(wait, Event::Deliver { from, boot, to, via, session, message: Box::new(message) });
    }

    fn connect(&mut self, from: usize, address: Address) {
        let to = self.nodes.iter().position(|node| node.address == address);
        let failed = |why| Event::ConnectFailed { from, address: address.clone(), why };
        let silent = |to: usize| self.is_mute(from, to) || self.is_mute(to, from);
        match to {
            Some(to) if !silent(to) && self.nodes[to].machine.is_some() => {
                self.schedule(self.latency * 2, Event::Connected { from, to });
            }
            Some(to) if !silent(to) => self.schedule(self.latency * 2, failed(Closed::Refused)),
            _ => self.schedule(Duration::from_secs(2), failed(Closed::Timeout)),
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { from, boot, to, via, session, message } => {
                self.deliver(from, boot, to, via, session, message);
            }
            Event::Connected { from, to } => {
                let both = self.nodes[from].machine.is_some() && self.nodes[to].machine.is_some();
                let open = self.sessions.contains_key(&(from, to)) && self.sessions.contains_key(&(to, from));
                if !both || self.is_mute(from, to) || self.is_mute(to, from) || open {
                    return;
                }
                self.serial += 1;
                let (a, b) = (self.nodes[from].id, self.nodes[to].id);
                if from != to {
                    self.sessions.insert((from, to), self.serial);
                    self.sessions.insert((to, from), self.serial);
                    self.with(to, |machine, now| machine.on_session_opened(a, Route::Accepted, now));
                }
                self.with(from, |machine, now| machine.on_session_opened(b, Route::Accepted, now));
            }
            Event::ConnectFailed { from, address, why } => {
                if self.nodes[from].machine.is_some() {
                    self.with(from, |machine, now| machine.on_connect_failed(&address, why, now));
                }
            }
            Event::Closed { at, peer, session, why } => {
                if self.nodes[at].machine.is_none() || self.sessions.get(&(at, peer)) != Some(&session) {
                    return;
                }
                self.sessions.remove(&(at, peer));
                let id = self.nodes[peer].id;
                self.with(at, |machine, now| machine.on_session_closed(id, why, now));
            }
        }
    }

    /// How long what `from` sends to `to` by stream has to wait: for what was lost before it, and that comes again after
    /// twice as long each time, as in TCP.
    fn stalled(&mut self, from: usize, to: usize, session: u64) -> Option<Duration> {
        const FIRST: Duration = Duration::from_millis(200);
        let direction = (from, to, session);
        let stall = self.stalls.get(&direction).copied();
        if let Some((until, _)) = stall.filter(|(until, _)| *until > self.now) {
            return Some(until.since(self.now));
        }
        if !self.is_mute(from, to) {
            self.stalls.remove(&direction);
            return None;
        }
        let wait = stall.map_or(FIRST, |(_, wait)| wait * 2);
        self.stalls.insert(direction, (self.now + wait, wait));
        Some(wait)
    }

    fn deliver(&mut self, from: usize, boot: Boot, to: usize, via: Via, session: u64, message: Box<Message>) {
        if self.nodes[to].machine.is_none() {
            return;
        }
        let id = self.nodes[from].id;
        if via == Via::Stream {
            if self.sessions.get(&(to, from)) != Some(&session) {
                return;
            }
            if let Some(wait) = self.stalled(from, to, session) {
                self.schedule(wait, Event::Deliver { from, boot, to, via, session, message });
                return;
            }
        } else {
            let known = self.machine(to).member(&id).is_some_and(|member| member.record.boot == boot);
            if self.is_mute(from, to) || !known {
                return;
            }
            self.with(to, |machine, now| machine.on_datagram_verified(id, now));
        }
        self.with(to, |machine, now| machine.handle_message(id, via, *message, now));
    }
}
