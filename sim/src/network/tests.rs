use std::collections::BinaryHeap;
use std::time::Duration;

use bytes::Bytes;
use knot_engine::membership::Closed;
use knot_engine::{Instant, SessionEvent, SessionId};

use super::{CONNECT_TIMEOUT, Delivery, KEEPALIVE, Links, Plan, Process, STREAM_TIMEOUT, Streams};
use crate::scenario::{FaultKind, NetworkSpec, NodeSpec};

const A: Process = Process { node: 0, start: 1 };
const B: Process = Process { node: 1, start: 1 };
const SESSION: SessionId = SessionId(2);
const TAKEN: SessionId = SessionId(1);

/// Two servers with a network between them, and what each process hears.
struct Net {
    links: Links,
    streams: Streams,
    pending: Vec<Option<Delivery>>,
    due: BinaryHeap<std::cmp::Reverse<(Instant, usize)>>,
    now: Instant,
    heard: Vec<(Instant, Process, String)>,
    /// Bytes that wait in the stream of which some left last.
    queued: usize,
}

impl Net {
    fn new(loss_per_mille: u64) -> Self {
        let node = |name: &str| NodeSpec::new(name, "au");
        let spec = NetworkSpec { near_us: 500, jitter_percent: 50, loss_per_mille, ..NetworkSpec::default() };
        let mut links = Links::new(7, &spec, &[node("n0"), node("n1")]);
        links.process_started(A);
        links.process_started(B);
        Self {
            links,
            streams: Streams::default(),
            pending: Vec::new(),
            due: BinaryHeap::new(),
            now: Instant::ZERO,
            heard: Vec::new(),
            queued: 0,
        }
    }

    fn plan(&mut self, act: impl FnOnce(&mut Streams, &mut Links, Instant, &mut Plan)) {
        let mut plan = Plan::new();
        act(&mut self.streams, &mut self.links, self.now, &mut plan);
        for (at, delivery) in plan {
            self.due.push(std::cmp::Reverse((at, self.pending.len())));
            self.pending.push(Some(delivery));
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(&std::cmp::Reverse((at, index))) = self.due.peek()
            && at <= end
        {
            self.due.pop();
            self.now = at;
            let delivery = self.pending[index].take().unwrap();
            self.plan_delivery(delivery);
        }
        self.now = end;
    }

    fn plan_delivery(&mut self, delivery: Delivery) {
        let now = self.now;
        match delivery {
            Delivery::Datagram { to, bytes } => {
                let to = [A, B][to];
                self.heard.push((now, to, format!("datagram {bytes:?}")));
            }
            Delivery::Session { to, event, .. } => self.heard.push((now, to, said(&event))),
            Delivery::Connect(attempt) => self.plan(|streams, links, now, plan| {
                if let Some(taker) = Streams::on_connect(links, &attempt, now, plan) {
                    streams.open(links, (attempt.from, attempt.session), (taker, TAKEN), now, plan);
                }
            }),
            Delivery::Opened { stream, side } => {
                if let Some((to, _)) = self.streams.on_opened(stream, side) {
                    self.heard.push((now, to, "opened".to_owned()));
                }
            }
            Delivery::Arrive { stream, side, frame } => {
                let mut plan = Plan::new();
                let arrived = self.streams.on_arrive(&self.links, (stream, side), frame, now, &mut plan);
                self.plan(|_, _, _, into| into.append(&mut plan));
                if let Some((to, _, frame)) = arrived {
                    self.heard.push((now, to, format!("frame {frame:?}")));
                }
            }
            Delivery::Departed { stream, side, bytes } => {
                if let Some((_, _, queued)) = self.streams.on_departed(stream, side, bytes) {
                    self.queued = queued;
                }
            }
            Delivery::Break { stream, side, why } => {
                if let Some((to, _)) = self.streams.on_break(stream, side) {
                    self.heard.push((now, to, format!("{why:?}")));
                }
            }
            Delivery::Retry { stream, since } => {
                self.plan(|streams, links, now, plan| streams.on_retry(links, (stream, since), now, plan));
            }
            Delivery::GiveUp { stream, since } => {
                self.plan(|streams, _, now, plan| streams.on_give_up(stream, since, now, plan));
            }
        }
    }

    fn connect(&mut self) {
        self.plan(|streams, links, now, plan| streams.connect(links, (A, SESSION), Some(1), now, plan));
    }

    fn send(&mut self, frame: &str) {
        let frame = Bytes::from(frame.to_owned());
        self.plan(|streams, links, now, plan| streams.send(links, (A, SESSION), frame, now, plan));
    }

    fn cut(&mut self, from: usize, to: usize, on: bool) {
        let cut = FaultKind::Partition { left: vec![from], right: vec![to], one_way: true };
        self.links.set(&cut, on);
        self.plan(|streams, links, now, plan| streams.on_links_changed(links, now, plan));
    }

    fn heard_by(&mut self, process: Process) -> Vec<String> {
        let theirs = self.heard.iter().filter(|(_, to, _)| *to == process);
        let heard = theirs.map(|(_, _, what)| what.clone()).collect();
        self.heard.retain(|(_, to, _)| *to != process);
        heard
    }
}

fn said(event: &SessionEvent) -> String {
    match event {
        SessionEvent::Opened(_) => "opened".to_owned(),
        SessionEvent::Frame(_) => "frame".to_owned(),
        SessionEvent::Writable { .. } => "writable".to_owned(),
        SessionEvent::Closed(why) => format!("{why:?}"),
        SessionEvent::Circuit(step) => format!("{step:?}"),
    }
}

const MOMENT: Duration = Duration::from_millis(50);

fn connected(loss_per_mille: u64) -> Net {
    let mut net = Net::new(loss_per_mille);
    net.connect();
    net.run_for(Duration::from_secs(3));
    assert_eq!(net.heard_by(A), ["opened"]);
    assert_eq!(net.heard_by(B), ["opened"]);
    net
}

#[test]
fn frames_arrive_once_and_in_order_whatever_is_lost() {
    let mut net = connected(300);
    let sent: Vec<String> = (0..50).map(|number| format!("f{number}")).collect();
    for frame in &sent {
        net.send(frame);
    }
    net.run_for(Duration::from_secs(60));
    let expected: Vec<String> = sent.iter().map(|frame| format!("frame b{frame:?}")).collect();
    assert_eq!(net.heard_by(B), expected);
}

#[test]
fn a_stream_outlives_a_short_partition() {
    let mut net = connected(0);
    net.cut(0, 1, true);
    net.send("late");
    net.run_for(Duration::from_secs(5));
    assert!(net.heard_by(B).is_empty());
    net.cut(0, 1, false);
    // Sent again after 0.2, 0.6, 1.4, 3.0 and 6.2 s.
    net.run_for(Duration::from_secs(1));
    assert!(net.heard_by(B).is_empty(), "nothing is sent again before it is due");
    net.run_for(Duration::from_millis(300));
    assert_eq!(net.heard_by(B), ["frame b\"late\""]);
}

#[test]
fn an_end_gives_up_what_it_sent_and_the_other_hears_later() {
    let mut net = connected(0);
    net.cut(1, 0, true);
    net.send("lost");
    net.run_for(STREAM_TIMEOUT + MOMENT);
    assert_eq!(net.heard_by(A), [format!("{:?}", Closed::Timeout)]);
    assert!(net.heard_by(B).is_empty());
    net.run_for(KEEPALIVE);
    assert_eq!(net.heard_by(B), [format!("{:?}", Closed::Timeout)]);
}

#[test]
fn nobody_is_told_of_a_stream_that_is_forgotten() {
    let mut net = connected(0);
    net.plan(|streams, _, now, plan| streams.forget_all(1, now, plan));
    net.send("into the void");
    net.run_for(STREAM_TIMEOUT - MOMENT);
    assert!(net.heard_by(A).is_empty());
    net.run_for(KEEPALIVE);
    assert_eq!(net.heard_by(A), [format!("{:?}", Closed::Timeout)]);
    assert_eq!(net.heard_by(B), [format!("{:?}", Closed::Timeout)]);
}

#[test]
fn a_slow_reader_keeps_its_peers_queue_full() {
    let mut net = connected(0);
    net.links.set(&FaultKind::SlowReader { node: 1, bytes_per_s: 100 }, true);
    for _ in 0..3 {
        net.send(&"x".repeat(100));
    }
    net.run_for(Duration::from_millis(1_500));
    assert_eq!((net.heard_by(B).len(), net.queued), (1, 200));
    net.run_for(Duration::from_secs(2));
    assert_eq!((net.heard_by(B).len(), net.queued), (2, 0));
}

/// How many of `sizes` arrive, and when the last does.
fn arrived(net: &mut Net, sizes: &[usize]) -> (usize, Duration) {
    let began = net.now;
    for size in sizes {
        let bytes = Bytes::from(vec![b'x'; *size]);
        net.plan(|_, links, now, plan| links.send_datagram((0, 1), &bytes, now, plan));
    }
    net.run_for(Duration::from_secs(10));
    let last = net.heard.last().map_or(began, |(at, ..)| *at);
    let took = last.since(began);
    (net.heard_by(B).len(), took)
}

#[test]
fn a_narrow_line_delays_and_drops_what_its_queue_has_no_room_for() {
    let mut net = Net::new(0);
    let narrow = FaultKind::Throttle { node: 0, bytes_per_s: 1_000, queue_bytes: 3_000 };
    net.links.set(&narrow, true);
    let (count, took) = arrived(&mut net, &[1_000; 5]);
    assert_eq!(count, 3);
    assert!(took >= Duration::from_secs(3), "{took:?}");
    net.links.set(&narrow, false);
    assert_eq!(arrived(&mut net, &[1_000; 5]).0, 5);
}

#[test]
fn long_datagrams_vanish_and_streams_pass_where_packets_must_be_short() {
    let mut net = connected(0);
    net.links.set(&FaultKind::Mtu { node: 1, bytes: 500 }, true);
    assert_eq!(arrived(&mut net, &[500, 501]).0, 1);
    net.send(&"x".repeat(5_000));
    net.run_for(MOMENT);
    assert_eq!(net.heard_by(B).len(), 1);
}

#[test]
fn a_corrupt_datagram_differs_in_one_bit() {
    let mut net = Net::new(0);
    net.links.set(&FaultKind::Corrupt { per_mille: 1_000 }, true);
    let bytes = Bytes::from_static(&[0; 40]);
    let mut plan = Plan::new();
    net.links.send_datagram((0, 1), &bytes, net.now, &mut plan);
    let [(_, Delivery::Datagram { bytes, .. })] = &plan[..] else { panic!("{plan:?}") };
    assert_eq!(bytes.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
}

#[test]
fn a_dead_process_is_refused_and_a_dead_host_is_not_heard_of() {
    let mut net = Net::new(0);
    net.links.process_died(1, true);
    net.connect();
    net.run_for(MOMENT);
    assert_eq!(net.heard_by(A), [format!("{:?}", Closed::Refused)]);
    net.links.process_died(1, false);
    net.connect();
    net.run_for(CONNECT_TIMEOUT - MOMENT);
    assert!(net.heard_by(A).is_empty());
    net.run_for(2 * MOMENT);
    assert_eq!(net.heard_by(A), [format!("{:?}", Closed::Timeout)]);
}

#[test]
fn what_a_process_sent_arrives_before_word_of_its_death() {
    let mut net = connected(0);
    net.send("last words");
    net.links.process_died(0, true);
    net.plan(|streams, links, now, plan| streams.process_died(links, A, now, plan));
    net.run_for(MOMENT);
    assert_eq!(net.heard_by(B), ["frame b\"last words\"".to_owned(), format!("{:?}", Closed::Reset)]);
}

#[test]
fn a_partition_may_be_one_way() {
    let mut net = Net::new(0);
    net.cut(0, 1, true);
    let bytes = Bytes::from_static(b"x");
    for pair in [(0, 1), (1, 0)] {
        let bytes = bytes.clone();
        net.plan(|_, links, now, plan| links.send_datagram(pair, &bytes, now, plan));
    }
    net.run_for(MOMENT);
    assert!(net.heard_by(B).is_empty());
    assert_eq!(net.heard_by(A).len(), 1);
}

#[test]
fn a_stream_that_breaks_before_it_is_open_never_opens() {
    let mut net = Net::new(0);
    net.connect();
    net.run_for(Duration::from_micros(900));
    net.plan(|streams, _, now, plan| streams.reset_all(0, now, plan));
    net.run_for(MOMENT);
    assert_eq!(net.heard_by(A), [format!("{:?}", Closed::Reset)]);
}
