//! Which of two streams to one peer stays.

use std::time::Duration;

use knot_engine::documents::AutomergeDocument;
use knot_engine::{
    Address, Config, Engine, Event, Faults, Instant, Limits, NodeKey, Output, Recovered, SessionEvent, SessionId,
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
        cluster_key: None,
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

/// The sessions that a node has closed since the last time.
fn closed(node: &mut Node, now: Instant) -> Vec<SessionId> {
    let mut closed = Vec::new();
    while let Some(output) = node.poll_output() {
        match output {
            Output::Persist { batch, .. } => node.handle_storage(StorageEvent::Persisted(batch), now),
            Output::CloseSession { session, .. } => closed.push(session),
            Output::Event(Event::StorageFailed) => panic!("storage does not fail here"),
            Output::SendDatagram { .. }
            | Output::OpenSession { .. }
            | Output::SendFrame { .. }
            | Output::Load { .. }
            | Output::Verify(_)
            | Output::Event(_) => {}
        }
    }
    closed
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
    (closed(&mut lower, now), first, second)
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
