//! Streams between processes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use knot_engine::membership::Closed;
use knot_engine::{Instant, PeerIdentity, SessionEvent, SessionId};

use super::{Attempt, CONNECT_TIMEOUT, Delivery, Links, Plan, Process, RETRANSMIT, STREAM_TIMEOUT};

/// Bytes that a stream moves in a microsecond.
const BYTES_PER_MICRO: u64 = 50;

#[derive(Debug)]
struct End {
    process: Process,
    session: SessionId,
    /// Whether the process still has it.
    open: bool,
    /// Frames given to this end that could not leave it.
    held: VecDeque<Bytes>,
    /// Frames that were under way to this end when the stream stalled.
    undelivered: VecDeque<Bytes>,
    queued_bytes: usize,
    busy_until: Instant,
    /// When the last packet under way from this end arrives.
    arrives_last: Instant,
}

impl End {
    fn new(process: Process, session: SessionId, now: Instant) -> Self {
        Self {
            process,
            session,
            open: true,
            held: VecDeque::new(),
            undelivered: VecDeque::new(),
            queued_bytes: 0,
            busy_until: now,
            arrives_last: now,
        }
    }
}

#[derive(Debug)]
struct Stream {
    ends: [End; 2],
    stalled_since: Option<Instant>,
}

/// All streams of a run.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    streams: BTreeMap<u64, Stream>,
    by_session: BTreeMap<(Process, SessionId), (u64, usize)>,
    opened: u64,
}

impl Streams {
    /// A process connects to a server; none when nobody has that address.
    pub(crate) fn connect(
        &mut self,
        links: &mut Links,
        (from, session): (Process, SessionId),
        to: Option<usize>,
        now: Instant,
        plan: &mut Plan,
    ) {
        links.counts.connects += 1;
        let Some(to) = to else {
            fail(from, session, Closed::Timeout, now + CONNECT_TIMEOUT, plan);
            return;
        };
        let attempt = Attempt { from, session, to, begun: now };
        let arrives = now + links.stream_latency(from.node, to);
        plan.push((arrives, Delivery::Connect(attempt)));
    }

    /// A connection attempt arrives; returns the process that takes it, if one does.
    pub(crate) fn on_connect(links: &mut Links, attempt: &Attempt, now: Instant, plan: &mut Plan) -> Option<Process> {
        let Attempt { from, session, to, .. } = *attempt;
        let host = links.hosts[to];
        if links.stalls(from.node, to) || !host.up {
            let at = (attempt.begun + CONNECT_TIMEOUT).max(now);
            fail(from, session, Closed::Timeout, at, plan);
            return None;
        }
        let Some(start) = host.process else {
            let at = now + links.stream_latency(to, from.node);
            fail(from, session, Closed::Refused, at, plan);
            return None;
        };
        links.runs(from).then_some(Process { node: to, start })
    }

    /// Opens a stream between two processes that have said who they are. The opener hears first.
    pub(crate) fn open(
        &mut self,
        links: &mut Links,
        opener: (Process, SessionId, PeerIdentity),
        taker: (Process, SessionId, PeerIdentity),
        now: Instant,
        plan: &mut Plan,
    ) {
        let opener_hears = now + links.stream_latency(taker.0.node, opener.0.node);
        let taker_hears = opener_hears + links.stream_latency(opener.0.node, taker.0.node);
        self.opened += 1;
        let number = self.opened;
        let mut ends = [End::new(opener.0, opener.1, now), End::new(taker.0, taker.1, now)];
        ends[0].arrives_last = taker_hears;
        ends[1].arrives_last = opener_hears;
        let stalled_since = None;
        self.streams.insert(number, Stream { ends, stalled_since });
        self.by_session.insert((opener.0, opener.1), (number, 0));
        self.by_session.insert((taker.0, taker.1), (number, 1));
        let opened = |side, peer: &PeerIdentity| Delivery::Opened { stream: number, side, peer: peer.clone() };
        plan.push((opener_hears, opened(0, &taker.2)));
        plan.push((taker_hears, opened(1, &opener.2)));
    }

    /// An end learns who is at the other; returns who is told. A stream may break before it is open.
    pub(crate) fn on_opened(&self, number: u64, side: usize) -> Option<(Process, SessionId)> {
        let end = &self.streams.get(&number)?.ends[side];
        end.open.then_some((end.process, end.session))
    }

    /// A process sends a frame. A session that has closed swallows it.
    pub(crate) fn send(
        &mut self,
        links: &mut Links,
        (from, session): (Process, SessionId),
        frame: Bytes,
        now: Instant,
        plan: &mut Plan,
    ) {
        let Some(&(number, side)) = self.by_session.get(&(from, session)) else {
            return;
        };
        let Some(stream) = self.streams.get_mut(&number) else {
            return;
        };
        links.counts.frames += 1;
        stream.ends[side].queued_bytes += frame.len();
        let [one, other] = &stream.ends;
        let blocked = links.stalls(one.process.node, other.process.node);
        let peer_gone = !stream.ends[1 - side].open;
        if peer_gone && !blocked && links.hosts[stream.ends[1 - side].process.node].up {
            let back = links.stream_latency(stream.ends[1 - side].process.node, from.node);
            break_at(number, side, Closed::Reset, now + back * 2, plan);
        } else if blocked || peer_gone || !stream.ends[side].held.is_empty() {
            stream.ends[side].held.push_back(frame);
            stall(number, stream, now, plan);
        } else {
            depart(links, number, stream, side, frame, (now, Duration::ZERO), plan);
        }
    }

    /// The server that an end of a stream is on.
    pub(crate) fn node_of(&self, number: u64, side: usize) -> Option<usize> {
        Some(self.streams.get(&number)?.ends[side].process.node)
    }

    /// The server at the other end of a process's session.
    pub(crate) fn peer_of(&self, process: Process, session: SessionId) -> Option<usize> {
        let &(number, side) = self.by_session.get(&(process, session))?;
        self.node_of(number, 1 - side)
    }

    /// The end of a stream that a process's session sends to.
    pub(crate) fn far_end(&self, process: Process, session: SessionId) -> Option<(u64, usize)> {
        let &(number, side) = self.by_session.get(&(process, session))?;
        Some((number, 1 - side))
    }

    /// A frame arrives at an end; returns who gets it.
    pub(crate) fn on_arrive(
        &mut self,
        links: &Links,
        (number, side): (u64, usize),
        frame: Bytes,
        now: Instant,
        plan: &mut Plan,
    ) -> Option<(Process, SessionId, Bytes)> {
        let stream = self.streams.get_mut(&number)?;
        if !stream.ends[side].open {
            return None;
        }
        let [one, other] = &stream.ends;
        let blocked = links.stalls(one.process.node, other.process.node);
        if blocked || !stream.ends[side].undelivered.is_empty() {
            stream.ends[side].undelivered.push_back(frame);
            stall(number, stream, now, plan);
            return None;
        }
        let end = &stream.ends[side];
        Some((end.process, end.session, frame))
    }

    /// A frame left an end; returns who is told, and how much is still queued.
    pub(crate) fn on_departed(
        &mut self,
        number: u64,
        side: usize,
        bytes: usize,
    ) -> Option<(Process, SessionId, usize)> {
        let end = &mut self.streams.get_mut(&number)?.ends[side];
        end.queued_bytes = end.queued_bytes.saturating_sub(bytes);
        end.open.then_some((end.process, end.session, end.queued_bytes))
    }

    /// Gives up a stream that has stalled since then.
    pub(crate) fn on_give_up(&self, number: u64, since: Instant, now: Instant, plan: &mut Plan) {
        let Some(stream) = self.streams.get(&number) else {
            return;
        };
        if stream.stalled_since == Some(since) {
            for side in [0, 1] {
                break_at(number, side, Closed::Timeout, now, plan);
            }
        }
    }

    /// A process closes a stream; the peer hears after what was sent before.
    pub(crate) fn close(
        &mut self,
        links: &mut Links,
        (from, session): (Process, SessionId),
        now: Instant,
        plan: &mut Plan,
    ) {
        let Some((number, side)) = self.by_session.remove(&(from, session)) else {
            return;
        };
        self.part(links, (number, side), Closed::Eof, now, plan);
    }

    /// A process died: its peers hear, where packets still pass.
    pub(crate) fn process_died(&mut self, links: &mut Links, process: Process, now: Instant, plan: &mut Plan) {
        let (first, last) = (SessionId(0), SessionId(u64::MAX));
        let theirs: Vec<_> =
            self.by_session.range((process, first)..=(process, last)).map(|(key, end)| (*key, *end)).collect();
        for (key, end) in theirs {
            self.by_session.remove(&key);
            self.part(links, end, Closed::Reset, now, plan);
        }
    }

    /// Every stream of a server breaks.
    pub(crate) fn reset_all(&self, node: usize, now: Instant, plan: &mut Plan) {
        let theirs: Vec<u64> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.ends.iter().any(|end| end.process.node == node))
            .map(|(number, _)| *number)
            .collect();
        for number in theirs {
            for side in [0, 1] {
                break_at(number, side, Closed::Reset, now, plan);
            }
        }
    }

    /// Links changed: what stalled and no longer does goes on.
    pub(crate) fn on_links_changed(&mut self, links: &mut Links, now: Instant, plan: &mut Plan) {
        let stalled: Vec<u64> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.stalled_since.is_some())
            .map(|(number, _)| *number)
            .collect();
        for number in stalled {
            self.go_on(links, number, now, plan);
        }
    }

    fn go_on(&mut self, links: &mut Links, number: u64, now: Instant, plan: &mut Plan) {
        let Some(stream) = self.streams.get_mut(&number) else {
            return;
        };
        let nodes = [0, 1].map(|side: usize| stream.ends[side].process.node);
        if links.stalls(nodes[0], nodes[1]) || nodes.iter().any(|&node| !links.hosts[node].up) {
            return;
        }
        if let Some(gone) = stream.ends.iter().position(|end| !end.open) {
            let back = links.stream_latency(nodes[gone], nodes[1 - gone]) + RETRANSMIT;
            break_at(number, 1 - gone, Closed::Reset, now + back, plan);
            return;
        }
        stream.stalled_since = None;
        for side in [0, 1] {
            let again = std::mem::take(&mut stream.ends[side].undelivered);
            let sender = 1 - side;
            for frame in again {
                arrive(links, number, stream, sender, frame, now + RETRANSMIT, plan);
            }
        }
        for side in [0, 1] {
            let held = std::mem::take(&mut stream.ends[side].held);
            for frame in held {
                depart(links, number, stream, side, frame, (now, RETRANSMIT), plan);
            }
        }
    }

    /// One end goes of itself.
    fn part(&mut self, links: &mut Links, (number, side): (u64, usize), why: Closed, now: Instant, plan: &mut Plan) {
        let Some(stream) = self.streams.get_mut(&number) else {
            return;
        };
        let (here, there) = (stream.ends[side].process.node, stream.ends[1 - side].process.node);
        stream.ends[side].open = false;
        if !stream.ends[1 - side].open {
            self.streams.remove(&number);
            return;
        }
        if !links.stalls(here, there) && links.hosts[here].up {
            let at = (now + links.stream_latency(here, there)).max(stream.ends[side].arrives_last);
            break_at(number, 1 - side, why, at, plan);
        } else if !stream.ends[1 - side].held.is_empty() {
            stall(number, stream, now, plan);
        }
    }

    /// One end learns that the stream is over; returns who is told.
    pub(crate) fn on_break(&mut self, number: u64, side: usize) -> Option<(Process, SessionId)> {
        let stream = self.streams.get_mut(&number)?;
        let end = &mut stream.ends[side];
        let told = end.open.then_some((end.process, end.session));
        end.open = false;
        if stream.ends.iter().all(|end| !end.open) {
            self.streams.remove(&number);
        }
        if let Some(key) = told {
            self.by_session.remove(&key);
        }
        told
    }
}

fn break_at(stream: u64, side: usize, why: Closed, at: Instant, plan: &mut Plan) {
    plan.push((at, Delivery::Break { stream, side, why }));
}

fn fail(to: Process, session: SessionId, why: Closed, at: Instant, plan: &mut Plan) {
    let event = SessionEvent::Closed(why);
    plan.push((at, Delivery::Session { to, session, event }));
}

fn stall(number: u64, stream: &mut Stream, now: Instant, plan: &mut Plan) {
    if stream.stalled_since.is_none() {
        stream.stalled_since = Some(now);
        let since = now;
        plan.push((now + STREAM_TIMEOUT, Delivery::GiveUp { stream: number, since }));
    }
}

fn depart(
    links: &mut Links,
    number: u64,
    stream: &mut Stream,
    side: usize,
    frame: Bytes,
    (now, penalty): (Instant, Duration),
    plan: &mut Plan,
) {
    let bytes = frame.len();
    let takes = Duration::from_micros(1 + bytes as u64 / BYTES_PER_MICRO);
    let end = &mut stream.ends[side];
    let departs = end.busy_until.max(now) + takes;
    end.busy_until = departs;
    plan.push((departs, Delivery::Departed { stream: number, side, bytes }));
    arrive(links, number, stream, side, frame, departs + penalty, plan);
}

fn arrive(
    links: &mut Links,
    number: u64,
    stream: &mut Stream,
    sender: usize,
    frame: Bytes,
    departs: Instant,
    plan: &mut Plan,
) {
    let nodes = [0, 1].map(|side: usize| stream.ends[side].process.node);
    let end = &mut stream.ends[sender];
    let at = (departs + links.stream_latency(nodes[sender], nodes[1 - sender])).max(end.arrives_last);
    end.arrives_last = at;
    let side = 1 - sender;
    plan.push((at, Delivery::Arrive { stream: number, side, frame }));
}
