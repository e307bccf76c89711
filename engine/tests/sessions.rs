//! Which of two streams to one peer stays.

use std::collections::BTreeSet;
use std::time::Duration;

use knot_engine::documents::AutomergeDocument;
use knot_engine::wire::Frame;
use knot_engine::{
    Address, Boot, Config, Engine, Event, Faults, Instant, Limits, NodeKey, Output, Recovered, SessionEvent, SessionId,
    StorageEvent, membership,
};

type Node = Engine<AutomergeDocument>;

/// A node that has started.
fn node(number: u8) -> Node {
    let config = Config {
        node_key: NodeKey::from_bytes([number; 32]),
        name: format!("node-{number}"),
        zone: "au".to_owned(),
        addresses: vec![Address::from("node:3100")],
        version: "0".to_owned(),
        url: String::new(),
        cluster_name: "test".to_owned(),
        cluster_keys: None,
        membership: membership::Config::default(),
        limits: Limits::default(),
    };
    let mut node = Engine::new(config, Recovered::new(false), [number; 32], Faults::default(), Instant::ZERO);
    closed(&mut node, Instant::ZERO);
    node
}

/// The lower of two nodes, which is the one whose streams stay, and the other.
fn pair() -> (Node, Node) {
    let (a, b) = (node(1), node(2));
    if a.identity().node() < b.identity().node() { (a, b) } else { (b, a) }
}

/// What a node did since the last time.
#[derive(Debug, Default)]
struct Done {
    closed: Vec<SessionId>,
    opened: Vec<(SessionId, Address)>,
    sent_by: BTreeSet<SessionId>,
}

fn done(node: &mut Node, now: Instant) -> Done {
    let mut done = Done::default();
    while let Some(output) = node.poll_output() {
        match output {
            Output::Persist { batch, .. } => node.handle_storage(StorageEvent::Persisted(batch), now),
            Output::CloseSession { session, .. } => done.closed.push(session),
            Output::OpenSession { session, address } => done.opened.push((session, address)),
            Output::SendFrame { session, .. } => drop(done.sent_by.insert(session)),
            Output::Event(Event::StorageFailed) => panic!("storage does not fail here"),
            Output::SendDatagram { .. }
            | Output::OpenCircuit { .. }
            | Output::Circuit { .. }
            | Output::Load { .. }
            | Output::Verify(_)
            | Output::Event(_) => {}
        }
    }
    done
}

/// The sessions that a node has closed since the last time.
fn closed(node: &mut Node, now: Instant) -> Vec<SessionId> {
    done(node, now).closed
}

/// The lower node has opened a stream to the other; `later`, one comes from there.
fn second_stream(later: Duration) -> (Vec<SessionId>, SessionId, SessionId) {
    let (mut lower, higher) = pair();
    lower.join(vec![Address::from("higher:3100")], Instant::ZERO);
    lower.handle_timeout(Instant::ZERO);
    let opened = std::iter::from_fn(|| lower.poll_output())
        .find_map(|output| if let Output::OpenSession { session, .. } = output { Some(session) } else { None });
    let (first, second) = (opened.expect("it connects to its seed"), SessionId(1));
    lower.handle_session(first, SessionEvent::Opened(higher.identity()), Instant::ZERO);
    let now = Instant::ZERO + later;
    assert_eq!(closed(&mut lower, now), []);
    lower.handle_session(second, SessionEvent::Opened(higher.identity()), now);
    let mut gone = closed(&mut lower, now);
    if gone.is_empty() {
        lower.handle_session(second, SessionEvent::Frame(Frame::Roots(Vec::new()).encode()), now);
        gone = closed(&mut lower, now);
    }
    (gone, first, second)
}

#[test]
fn of_two_streams_opened_at_once_the_lower_nodes_stays() {
    let (closed, _, second) = second_stream(Duration::from_millis(200));
    assert_eq!(closed, [second]);
}

#[test]
fn a_stream_that_comes_later_takes_the_place_of_one_that_only_looks_open() {
    let (closed, first, _) = second_stream(Duration::from_secs(30));
    assert_eq!(closed, [first]);
}

/// A minute after it has connected to a seed, a node looks again at one that nobody connected answers for.
#[test]
fn a_stream_is_not_replaced_because_a_seed_is_another_name_of_its_peer() {
    for swapped in [false, true] {
        let (lower, higher) = pair();
        let (mut node, peer) = if swapped { (higher, lower) } else { (lower, higher) };
        let seeds: Vec<Address> = ["one-name:3100", "another-name:3100"].map(Address::from).into();
        node.join(seeds, Instant::ZERO);
        node.handle_timeout(Instant::ZERO);
        // Alone, it tries both at once.
        let opened = done(&mut node, Instant::ZERO).opened;
        let [(first, _), (second, _)] = &opened[..] else { panic!("both seeds are tried: {opened:?}") };
        node.handle_session(*first, SessionEvent::Opened(peer.identity()), Instant::ZERO);
        assert_eq!(closed(&mut node, Instant::ZERO), []);
        node.handle_session(*second, SessionEvent::Opened(peer.identity()), Instant::ZERO);
        assert_eq!(closed(&mut node, Instant::ZERO), [*second]);
        let (mut now, mut tried) = (Instant::ZERO, 0);
        while tried < 3 {
            now = node.poll_timeout().map_or(now, |(at, _)| at).max(now + Duration::from_millis(1));
            assert!(now < Instant::ZERO + Duration::from_secs(600), "seeds are looked at again");
            node.handle_timeout(now);
            for (session, _) in done(&mut node, now).opened {
                tried += 1;
                node.handle_session(session, SessionEvent::Opened(peer.identity()), now);
                let Done { closed, sent_by, .. } = done(&mut node, now);
                assert_eq!(closed, [session], "the new one goes");
                assert!(!sent_by.contains(&session), "and nothing was said by it");
            }
        }
    }
}

#[test]
fn a_peer_that_finds_us_by_another_name_leaves_its_stream_as_it_is() {
    for swapped in [false, true] {
        let (lower, higher) = pair();
        let (mut node, peer) = if swapped { (higher, lower) } else { (lower, higher) };
        let (first, second, third) = (SessionId(1), SessionId(3), SessionId(5));
        node.handle_session(first, SessionEvent::Opened(peer.identity()), Instant::ZERO);
        for later in [0, 60, 120] {
            let now = Instant::ZERO + Duration::from_secs(later);
            node.handle_session(second, SessionEvent::Opened(peer.identity()), now);
            assert_eq!(closed(&mut node, now), []);
            node.handle_session(second, SessionEvent::Closed(membership::Closed::Eof), now);
            assert_eq!(closed(&mut node, now), []);
        }
        let now = Instant::ZERO + Duration::from_secs(180);
        node.handle_session(second, SessionEvent::Opened(peer.identity()), now);
        node.handle_session(third, SessionEvent::Opened(peer.identity()), now);
        assert_eq!(closed(&mut node, now), [second], "one may wait");
        node.handle_session(first, SessionEvent::Closed(membership::Closed::Reset), now);
        assert!(done(&mut node, now).sent_by.contains(&third), "what waits takes the place of what is gone");
    }
}

#[test]
fn a_peer_that_started_anew_is_believed_at_once() {
    let (mut node, peer) = pair();
    let (first, second) = (SessionId(1), SessionId(3));
    node.handle_session(first, SessionEvent::Opened(peer.identity()), Instant::ZERO);
    let mut anew = peer.identity();
    anew.boot = Boot([9; 16]);
    node.handle_session(second, SessionEvent::Opened(anew), Instant::ZERO);
    assert_eq!(closed(&mut node, Instant::ZERO), [first]);
}
