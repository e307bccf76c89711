//! The network between servers: level 1's links and streams, with sockets at their ends.
//!
//! turmoil's own network would lose a link instead of a packet, know no asymmetry, and leave streams for dead after a
//! cut. Level 1's does what links and kernels do, so a fault is the same thing at both levels. What arrives is handed
//! over between two ticks of turmoil's clock.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use knot_engine::membership::Closed;
use knot_engine::{Instant, SessionEvent, SessionId};

use crate::checker::leak_in;
use crate::draw::Draw;
use crate::network::{Delivery, Links, Plan, Process, Streams};
use crate::scenario::{FaultKind, Scenario};
use crate::servers::CLUSTER_PORT;
use crate::shared::Shared;

/// Datagrams that a kernel keeps for a process that does not take them.
const DATAGRAMS_MAX: usize = 1_024;
/// Bytes that a kernel takes of a stream before the first of them has left.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// Writes and reads of a thousand that are cut short although there is more.
const SHORT_PER_MILLE: u64 = 50;

/// An end of a stream, as its process knows it.
pub(super) type End = (Process, SessionId);

/// The network of a run, shared by all its servers.
pub(super) type Wires = Shared<Network>;

/// See the module.
#[derive(Debug)]
pub(super) struct Network {
    links: Links,
    streams: Streams,
    due: BTreeMap<(Instant, u64), Delivery>,
    /// Deliveries planned so far.
    planned: u64,
    now: Instant,
    hosts: Vec<Host>,
    sockets: BTreeMap<End, Socket>,
    short: Draw,
    trace: blake3::Hasher,
    /// What was read in the clear, if anything was.
    leak: Option<(usize, &'static str)>,
}

/// What a machine's kernel has.
#[derive(Debug, Default)]
struct Host {
    /// Processes started so far.
    starts: u32,
    running: bool,
    /// How often its address has changed.
    moves: u32,
    /// Streams of the present process, the accepted ones too.
    streams: u64,
    datagrams: VecDeque<Bytes>,
    /// Streams that wait to be accepted.
    arrivals: VecDeque<SessionId>,
    waits_for_datagrams: Option<Waker>,
    waits_for_arrivals: Option<Waker>,
}

/// What a kernel has of one end of a stream.
#[derive(Debug)]
struct Socket {
    peer: usize,
    open: bool,
    arrived: BytesMut,
    /// Bytes that were taken and have not left.
    queued: usize,
    ended: Option<Closed>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Socket {
    fn new(peer: usize) -> Self {
        Self { peer, open: false, arrived: BytesMut::new(), queued: 0, ended: None, reader: None, writer: None }
    }

    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

impl Network {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            links: Links::new(scenario.seed, &scenario.network, &scenario.nodes),
            streams: Streams::default(),
            due: BTreeMap::new(),
            planned: 0,
            now: Instant::ZERO,
            hosts: scenario.nodes.iter().map(|_| Host::default()).collect(),
            sockets: BTreeMap::new(),
            short: Draw::new(scenario.seed, "short reads and writes"),
            trace: blake3::Hasher::new(),
            leak: None,
        }
    }

    /// The hash of all that was sent, and when.
    pub(super) fn trace(&self) -> String {
        self.trace.finalize().to_hex().to_string()
    }

    /// What was read in the clear, and who said it.
    pub(super) fn leak(&self) -> Option<(usize, &'static str)> {
        self.leak
    }

    pub(super) fn counts(&self) -> crate::network::Counts {
        self.links.counts
    }

    /// Where others reach a server now.
    pub(super) fn address(&self, node: usize) -> SocketAddr {
        let [moves, number] = [self.hosts[node].moves as usize, node].map(|part| u8::try_from(part % 256).unwrap_or(0));
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, moves, 0, number)), CLUSTER_PORT)
    }

    /// The server that has an address now.
    fn at(&self, address: SocketAddr) -> Option<usize> {
        (0..self.hosts.len()).find(|node| self.address(*node) == address)
    }

    /// From now on a server has another address.
    pub(super) fn moves(&mut self, node: usize) {
        self.hosts[node].moves += 1;
    }

    /// A process takes the place of whatever ran on the machine.
    pub(super) fn process_started(&mut self, node: usize) -> Process {
        let host = &mut self.hosts[node];
        *host = Host { starts: host.starts + 1, running: true, moves: host.moves, ..Host::default() };
        let process = Process { node, start: host.starts };
        self.links.process_started(process);
        self.links_changed();
        process
    }

    /// A process is gone, and what it still does, as its memory is cleared away, comes to nothing.
    pub(super) fn process_died(&mut self, node: usize, machine_stays: bool) {
        let host = &mut self.hosts[node];
        self.links.process_died(node, machine_stays);
        if std::mem::take(&mut host.running) {
            let process = Process { node, start: host.starts };
            let mut plan = Plan::new();
            self.streams.process_died(&mut self.links, process, self.now, &mut plan);
            self.plan(plan);
            self.sockets.retain(|(owner, _), _| *owner != process);
        }
    }

    /// A fault of the network begins or ends.
    pub(super) fn set(&mut self, kind: &FaultKind, on: bool) {
        self.links.set(kind, on);
        self.links_changed();
    }

    /// Mends all that is wrong with some servers and between them.
    pub(super) fn heal(&mut self, core: &[usize]) {
        self.links.heal(core);
        self.links_changed();
    }

    /// Every stream of a server is reset.
    pub(super) fn reset(&mut self, node: usize) {
        let mut plan = Plan::new();
        self.streams.reset_all(node, self.now, &mut plan);
        self.plan(plan);
    }

    /// What stands between forgets every stream of a server.
    pub(super) fn forget(&mut self, node: usize) {
        let mut plan = Plan::new();
        self.streams.forget_all(node, self.now, &mut plan);
        self.plan(plan);
    }

    fn links_changed(&mut self) {
        let mut plan = Plan::new();
        self.streams.on_links_changed(&self.links, self.now, &mut plan);
        self.plan(plan);
    }

    fn plan(&mut self, plan: Plan) {
        for (at, delivery) in plan {
            self.planned += 1;
            self.due.insert((at, self.planned), delivery);
        }
    }

    /// Lets arrive what arrives until then.
    pub(super) fn advance(&mut self, until: Duration) {
        let until = Instant::ZERO + until;
        while let Some(next) = self.due.first_entry()
            && next.key().0 <= until
        {
            let ((at, _), delivery) = next.remove_entry();
            self.now = self.now.max(at);
            self.deliver(delivery);
        }
        self.now = until;
    }

    fn deliver(&mut self, delivery: Delivery) {
        let now = self.now;
        let mut plan = Plan::new();
        match delivery {
            Delivery::Datagram { to, bytes } => {
                let host = &mut self.hosts[to];
                if host.running && host.datagrams.len() < DATAGRAMS_MAX {
                    host.datagrams.push_back(bytes);
                    host.waits_for_datagrams.take().into_iter().for_each(Waker::wake);
                }
            }
            Delivery::Session { to, session, event } => {
                if let SessionEvent::Closed(why) = event {
                    self.end((to, session), why);
                }
            }
            Delivery::Connect(attempt) => {
                if self.sockets.contains_key(&(attempt.from, attempt.session))
                    && let Some(taker) = Streams::on_connect(&mut self.links, &attempt, now, &mut plan)
                {
                    let end = (taker, self.next_stream(taker.node));
                    self.sockets.insert(end, Socket::new(attempt.from.node));
                    self.streams.open(&mut self.links, (attempt.from, attempt.session), end, now, &mut plan);
                }
            }
            Delivery::Opened { stream, side } => {
                if let Some(end) = self.streams.on_opened(stream, side) {
                    self.opened(end, side);
                }
            }
            Delivery::Arrive { stream, side, frame } => {
                let arrived = self.streams.on_arrive(&self.links, (stream, side), frame, now, &mut plan);
                if let Some((process, session, bytes)) = arrived
                    && let Some(socket) = self.sockets.get_mut(&(process, session))
                {
                    socket.arrived.extend_from_slice(&bytes);
                    socket.reader.take().into_iter().for_each(Waker::wake);
                }
            }
            Delivery::Departed { stream, side, bytes } => {
                if let Some((process, session, queued)) = self.streams.on_departed(stream, side, bytes)
                    && let Some(socket) = self.sockets.get_mut(&(process, session))
                {
                    socket.queued = queued;
                    socket.writer.take().into_iter().for_each(Waker::wake);
                }
            }
            Delivery::Break { stream, side, why } => {
                if let Some(end) = self.streams.on_break(stream, side) {
                    self.end(end, why);
                }
            }
            Delivery::Retry { stream, since } => {
                self.streams.on_retry(&mut self.links, (stream, since), now, &mut plan);
            }
            Delivery::GiveUp { stream, since } => self.streams.on_give_up(stream, since, now, &mut plan),
        }
        self.plan(plan);
    }

    fn next_stream(&mut self, node: usize) -> SessionId {
        self.hosts[node].streams += 1;
        SessionId(self.hosts[node].streams)
    }

    fn opened(&mut self, end: End, side: usize) {
        let Some(socket) = self.sockets.get_mut(&end) else { return };
        socket.open = true;
        socket.wake();
        if side == 1 {
            let host = &mut self.hosts[end.0.node];
            host.arrivals.push_back(end.1);
            host.waits_for_arrivals.take().into_iter().for_each(Waker::wake);
        }
    }

    fn end(&mut self, end: End, why: Closed) {
        if let Some(socket) = self.sockets.get_mut(&end) {
            socket.ended = Some(why);
            socket.wake();
        }
    }

    /// The clock of whoever calls, which is ahead of what has been delivered by less than a tick.
    fn local_now(&self) -> Instant {
        turmoil::sim_elapsed().map_or(self.now, |elapsed| Instant::ZERO + elapsed)
    }

    fn tap(&mut self, from: usize, bytes: &[u8]) {
        self.trace.update(&self.local_now().as_micros().to_le_bytes());
        self.trace.update(&(from as u64).to_le_bytes());
        self.trace.update(bytes);
        if self.leak.is_none() {
            self.leak = leak_in(bytes).map(|canary| (from, canary));
        }
    }

    pub(super) fn send_datagram(&mut self, from: Process, bytes: &[u8], to: SocketAddr) {
        if !self.runs(from) {
            return;
        }
        self.tap(from.node, bytes);
        let Some(to) = self.at(to) else { return };
        let mut plan = Plan::new();
        let now = self.local_now();
        self.links.send_datagram((from.node, to), &Bytes::copy_from_slice(bytes), now, &mut plan);
        self.plan(plan);
    }

    pub(super) fn poll_datagram(
        &mut self,
        process: Process,
        into: &mut [u8],
        context: &mut Context<'_>,
    ) -> Poll<usize> {
        let host = &mut self.hosts[process.node];
        match host.datagrams.pop_front() {
            Some(bytes) => {
                let len = bytes.len().min(into.len());
                into[..len].copy_from_slice(&bytes[..len]);
                Poll::Ready(len)
            }
            None => {
                host.waits_for_datagrams = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(super) fn poll_accept(&mut self, process: Process, context: &mut Context<'_>) -> Poll<(End, SocketAddr)> {
        let host = &mut self.hosts[process.node];
        let Some(session) = host.arrivals.pop_front() else {
            host.waits_for_arrivals = Some(context.waker().clone());
            return Poll::Pending;
        };
        let end = (process, session);
        let peer = self.sockets.get(&end).map_or(process.node, |socket| socket.peer);
        Poll::Ready((end, self.address(peer)))
    }

    /// Begins to connect.
    pub(super) fn connect(&mut self, process: Process, to: SocketAddr) -> End {
        let end = (process, self.next_stream(process.node));
        let to = self.at(to);
        self.sockets.insert(end, Socket::new(to.unwrap_or(process.node)));
        let mut plan = Plan::new();
        let now = self.local_now();
        self.streams.connect(&mut self.links, end, to, now, &mut plan);
        self.plan(plan);
        end
    }

    pub(super) fn poll_connected(&mut self, end: End, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(socket) = self.sockets.get_mut(&end) else { return Poll::Ready(Err(gone())) };
        match socket.ended {
            Some(why) => Poll::Ready(Err(error(why))),
            None if socket.open => Poll::Ready(Ok(())),
            None => {
                socket.writer = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Takes what has arrived; nothing at the end.
    pub(super) fn poll_read(&mut self, end: End, most: usize, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let Some(socket) = self.sockets.get_mut(&end) else { return Poll::Ready(Err(gone())) };
        if !socket.arrived.is_empty() {
            let len = shortened(socket.arrived.len().min(most), &mut self.short);
            return Poll::Ready(Ok(socket.arrived.split_to(len).freeze()));
        }
        match socket.ended {
            Some(Closed::Eof) => Poll::Ready(Ok(Bytes::new())),
            Some(why) => Poll::Ready(Err(error(why))),
            None => {
                socket.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(super) fn poll_write(&mut self, end: End, bytes: &[u8], context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(socket) = self.sockets.get_mut(&end) else { return Poll::Ready(Err(gone())) };
        if socket.ended.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = SEND_BUFFER_BYTES.saturating_sub(socket.queued);
        if room == 0 {
            socket.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let len = shortened(bytes.len().min(room), &mut self.short);
        socket.queued += len;
        let taken = Bytes::copy_from_slice(&bytes[..len]);
        self.tap(end.0.node, &taken);
        let mut plan = Plan::new();
        let now = self.local_now();
        self.streams.send(&mut self.links, end, taken, now, &mut plan);
        self.plan(plan);
        Poll::Ready(Ok(len))
    }

    /// The process has no more use for its end.
    pub(super) fn close(&mut self, end: End) {
        if self.sockets.remove(&end).is_some() {
            let mut plan = Plan::new();
            let now = self.local_now();
            self.streams.close(&mut self.links, end, now, &mut plan);
            self.plan(plan);
        }
    }

    fn runs(&self, process: Process) -> bool {
        let host = &self.hosts[process.node];
        host.running && host.starts == process.start
    }
}

/// A kernel may take or give less than there is.
fn shortened(len: usize, draw: &mut Draw) -> usize {
    if len > 1 && draw.chance(SHORT_PER_MILLE) { 1 + draw.index(len - 1) } else { len }
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

fn error(why: Closed) -> io::Error {
    match why {
        Closed::Refused => io::ErrorKind::ConnectionRefused,
        Closed::Timeout => io::ErrorKind::TimedOut,
        Closed::Eof => io::ErrorKind::UnexpectedEof,
        Closed::Reset | Closed::Local => io::ErrorKind::ConnectionReset,
    }
    .into()
}
