//! Streams between processes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use knot_engine::membership::Closed;
use knot_engine::{Instant, SessionEvent, SessionId};

use super::{Attempt, CONNECT_TIMEOUT, Delivery, KEEPALIVE, Links, Plan, Process, RETRANSMIT, STREAM_TIMEOUT};

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
    /// Until when this end is busy with what has arrived.
    reads_until: Instant,
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
            reads_until: now,
        }
    }
}

#[derive(Debug)]
struct Stream {
    ends: [End; 2],
    stalled_since: Option<Instant>,
    /// What stands between the ends has forgotten it.
    forgotten: bool,
}

impl Stream {
    fn nodes(&self) -> [usize; 2] {
        [0, 1].map(|side: usize| self.ends[side].process.node)
    }

    fn is_blocked(&self, links: &Links) -> bool {
        let [one, other] = self.nodes();
        self.forgotten || links.stalls(one, other)
    }

    /// Whether an end has sent what the other has not acknowledged.
    fn has_unacknowledged(&self, side: usize) -> bool {
        !self.ends[side].held.is_empty() || !self.ends[1 - side].undelivered.is_empty()
    }
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

    /// Opens a stream between two processes and returns its number. The opener, side 0, hears first.
    pub(crate) fn open(
        &mut self,
        links: &mut Links,
        opener: (Process, SessionId),
        taker: (Process, SessionId),
        now: Instant,
        plan: &mut Plan,
    ) -> u64 {
        let opener_hears = now + links.stream_latency(taker.0.node, opener.0.node);
        let taker_hears = opener_hears + links.stream_latency(opener.0.node, taker.0.node);
        self.opened += 1;
        let number = self.opened;
        let mut ends = [End::new(opener.0, opener.1, now), End::new(taker.0, taker.1, now)];
        ends[0].arrives_last = taker_hears;
        ends[1].arrives_last = opener_hears;
        self.streams.insert(number, Stream { ends, stalled_since: None, forgotten: false });
        self.by_session.insert(opener, (number, 0));
        self.by_session.insert(taker, (number, 1));
        plan.push((opener_hears, Delivery::Opened { stream: number, side: 0 }));
        plan.push((taker_hears, Delivery::Opened { stream: number, side: 1 }));
        number
    }

    /// An end learns that it is open; returns who is told. A stream may break before it is open.
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
        let blocked = stream.is_blocked(links);
        let peer_gone = !stream.ends[1 - side].open;
        if peer_gone && !blocked && links.hosts[stream.ends[1 - side].process.node].up {
            let back = links.stream_latency(stream.ends[1 - side].process.node, from.node);
            break_at(number, side, Closed::Reset, now + back * 2, plan);
        } else if blocked || peer_gone || stream.stalled_since.is_some() {
            stream.ends[side].held.push_back(frame);
            stall(number, stream, now, plan);
        } else {
            depart(links, number, stream, side, frame, now, plan);
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

    /// The process at the other end of a process's session.
    pub(crate) fn peer_process(&self, process: Process, session: SessionId) -> Option<Process> {
        let &(number, side) = self.by_session.get(&(process, session))?;
        Some(self.streams.get(&number)?.ends[1 - side].process)
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
        if stream.is_blocked(links) || !stream.ends[side].undelivered.is_empty() {
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

    /// Ends give up what they sent on a stream that has stalled since then; an end that sent nothing has yet to learn.
    pub(crate) fn on_give_up(&mut self, number: u64, since: Instant, now: Instant, plan: &mut Plan) {
        let Some(stream) = self.streams.get_mut(&number) else {
            return;
        };
        if stream.stalled_since == Some(since) {
            stream.stalled_since = None;
            for side in [0, 1] {
                let patience = if stream.has_unacknowledged(side) { Duration::ZERO } else { KEEPALIVE };
                break_at(number, side, Closed::Timeout, now + patience, plan);
            }
        }
    }

    /// What stands between forgets every stream of a server.
    pub(crate) fn forget_all(&mut self, node: usize, now: Instant, plan: &mut Plan) {
        for (number, stream) in self.streams.iter_mut().filter(|(_, stream)| stream.nodes().contains(&node)) {
            stream.forgotten = true;
            for side in [0, 1] {
                // Whoever sends nothing until then asks whether the other is still there.
                break_at(*number, side, Closed::Timeout, now + KEEPALIVE, plan);
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

    /// Whether something is wrong with a stream still, or on its way for longer than `usual` from when something was.
    pub(crate) fn are_disturbed(&self, usual: Duration, now: Instant) -> bool {
        let is_late = |end: &End| end.arrives_last > now + usual;
        let disturbed =
            |stream: &Stream| stream.forgotten || stream.stalled_since.is_some() || stream.ends.iter().any(is_late);
        self.streams.values().any(disturbed)
    }

    /// Links changed: what stalled and no longer does goes on when it is next sent again.
    pub(crate) fn on_links_changed(&self, links: &Links, now: Instant, plan: &mut Plan) {
        for (&number, stream) in &self.streams {
            if let Some(since) = stream.stalled_since
                && !stream.is_blocked(links)
            {
                plan.push((next_retry(since, now), Delivery::Retry { stream: number, since }));
            }
        }
    }

    /// What waits in a stalled stream is sent again.
    pub(crate) fn on_retry(
        &mut self,
        links: &mut Links,
        (number, since): (u64, Instant),
        now: Instant,
        plan: &mut Plan,
    ) {
        let Some(stream) = self.streams.get_mut(&number).filter(|stream| stream.stalled_since == Some(since)) else {
            return;
        };
        let nodes = stream.nodes();
        if stream.is_blocked(links) || nodes.iter().any(|&node| !links.hosts[node].up) {
            return;
        }
        if let Some(gone) = stream.ends.iter().position(|end| !end.open) {
            let back = links.stream_latency(nodes[gone], nodes[1 - gone]);
            break_at(number, 1 - gone, Closed::Reset, now + back, plan);
            return;
        }
        stream.stalled_since = None;
        for side in [0, 1] {
            let again = std::mem::take(&mut stream.ends[side].undelivered);
            let sender = 1 - side;
            for frame in again {
                arrive(links, number, stream, sender, frame, now, plan);
            }
        }
        for side in [0, 1] {
            let held = std::mem::take(&mut stream.ends[side].held);
            for frame in held {
                depart(links, number, stream, side, frame, now, plan);
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
        if !stream.is_blocked(links) && links.hosts[here].up {
            let at = (now + links.stream_latency(here, there)).max(stream.ends[side].arrives_last);
            break_at(number, 1 - side, why, at, plan);
            return;
        }
        break_at(number, 1 - side, Closed::Timeout, now + KEEPALIVE, plan);
        if !stream.ends[1 - side].held.is_empty() {
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

/// When what has stalled since `since` is next sent again after `now`: after the least wait, then twice that, and so on.
fn next_retry(since: Instant, now: Instant) -> Instant {
    let mut wait = RETRANSMIT;
    let mut at = since + wait;
    while at <= now {
        wait *= 2;
        at = at + wait;
    }
    at
}

fn depart(
    links: &mut Links,
    number: u64,
    stream: &mut Stream,
    side: usize,
    frame: Bytes,
    now: Instant,
    plan: &mut Plan,
) {
    let bytes = frame.len();
    let [here, there] = [side, 1 - side].map(|side| stream.ends[side].process.node);
    let takes = Duration::from_micros(1 + bytes as u64 / BYTES_PER_MICRO);
    let departs = links.departs(here, there, bytes, stream.ends[side].busy_until.max(now) + takes);
    stream.ends[side].busy_until = departs;
    let arrives = arrive(links, number, stream, side, frame, departs, plan);
    // A reader that falls behind makes no room, and so keeps its peer's queue full.
    let leaves = if links.access[there].reads.least().is_some() { arrives } else { departs };
    plan.push((leaves, Delivery::Departed { stream: number, side, bytes }));
}

fn arrive(
    links: &mut Links,
    number: u64,
    stream: &mut Stream,
    sender: usize,
    frame: Bytes,
    departs: Instant,
    plan: &mut Plan,
) -> Instant {
    let [here, there] = [sender, 1 - sender].map(|side| stream.ends[side].process.node);
    let mut at = (departs + links.stream_latency(here, there)).max(stream.ends[sender].arrives_last);
    stream.ends[sender].arrives_last = at;
    let side = 1 - sender;
    if let Some(rate) = links.access[there].reads.least() {
        let takes = Duration::from_micros(frame.len() as u64 * 1_000_000 / rate.max(1));
        at = stream.ends[side].reads_until.max(at) + takes;
        stream.ends[side].reads_until = at;
        stream.ends[sender].arrives_last = at;
    }
    plan.push((at, Delivery::Arrive { stream: number, side, frame }));
    at
}
