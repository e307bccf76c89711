//! Two nodes in one process, without sockets, disks or a clock: one writes a document, the other reads it.
//!
//! `cargo run -p knot-engine --example two_nodes`. `docs/embedding.md` walks through it.

use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::time::Duration;

use bytes::Bytes;
use knot_engine::documents::{AutomergeDocument, DocumentId, Edit, NameError, Scope};
use knot_engine::membership::{self, Closed};
use knot_engine::{
    Address, Config, DocumentView, EditRequest, Engine, Event, Faults, Instant, Limits, NodeKey, Output, Query,
    Recovered, SessionEvent, SessionId, StorageEvent, Table, Wall,
};
use serde_json::{Value, json};

/// How long anything takes from one node to the other.
const LATENCY: Duration = Duration::from_millis(5);

/// A node and its disk: an ordered map a table.
struct Node {
    engine: Engine<AutomergeDocument>,
    address: Address,
    disk: BTreeMap<(Table, Bytes), Bytes>,
    events: Vec<Event>,
}

/// What is on its way to a node.
enum Delivery {
    Datagram(Bytes),
    Session(SessionId, SessionEvent),
}

/// All nodes, what travels between them, and the time.
struct World {
    nodes: Vec<Node>,
    now: Instant,
    /// By arrival, then by departure.
    travelling: BTreeMap<(Instant, u64), (usize, Delivery)>,
    departures: u64,
    /// The two ends of each stream.
    streams: BTreeMap<(usize, SessionId), (usize, SessionId)>,
}

impl World {
    fn new(nodes: usize) -> Self {
        let nodes = (0..nodes).map(Node::new).collect();
        let (travelling, streams) = (BTreeMap::new(), BTreeMap::new());
        Self { nodes, now: Instant::ZERO, travelling, departures: 0, streams }
    }

    /// The driver's loop: do what the engine wants, deliver what arrives, wake it when it asks to be.
    fn run_until(&mut self, done: impl Fn(&Self) -> bool, limit: Duration) -> bool {
        let end = self.now + limit;
        loop {
            self.perform();
            if done(self) {
                return true;
            }
            let arrival = self.travelling.keys().next().map(|(at, _)| *at);
            let timeouts = self.nodes.iter().filter_map(|node| node.engine.poll_timeout()).map(|(at, _)| at);
            let Some(next) = timeouts.chain(arrival).min().filter(|next| *next <= end) else { return false };
            self.now = self.now.max(next);
            while let Some(entry) = self.travelling.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (to, delivery) = entry.remove();
                self.deliver(to, delivery);
            }
            for node in &mut self.nodes {
                node.engine.handle_timeout(self.now);
            }
        }
    }

    fn deliver(&mut self, to: usize, delivery: Delivery) {
        let Some(node) = self.nodes.get_mut(to) else { return };
        match delivery {
            Delivery::Datagram(bytes) => node.engine.handle_datagram(bytes, self.now),
            Delivery::Session(session, event) => node.engine.handle_session(session, event, self.now),
        }
    }

    /// Drains every engine's outputs; doing one may lead to more.
    fn perform(&mut self) {
        for at in 0..self.nodes.len() {
            while let Some(output) = self.nodes.get_mut(at).and_then(|node| node.engine.poll_output()) {
                self.on_output(at, output);
            }
        }
    }

    fn on_output(&mut self, at: usize, output: Output<AutomergeDocument>) {
        match output {
            Output::SendDatagram { to, bytes } => {
                if let Some(to) = self.at(&to) {
                    self.send(to, Delivery::Datagram(bytes));
                }
            }
            Output::OpenSession { session, address } => self.open(at, session, &address),
            // Two nodes have no third that could carry a stream for them.
            Output::OpenCircuit { .. } | Output::Circuit { .. } => {}
            Output::SendFrame { session, frame } => {
                if let Some((to, theirs)) = self.streams.get(&(at, session)).copied() {
                    self.send(to, Delivery::Session(theirs, SessionEvent::Frame(frame)));
                    self.send(at, Delivery::Session(session, SessionEvent::Writable { queued: 0 }));
                }
            }
            Output::CloseSession { session, .. } => {
                if let Some((to, theirs)) = self.streams.remove(&(at, session)) {
                    self.streams.remove(&(to, theirs));
                    self.send(to, Delivery::Session(theirs, SessionEvent::Closed(Closed::Eof)));
                }
            }
            Output::Persist { .. } | Output::Load { .. } | Output::Verify(_) | Output::Event(_) => {
                let now = self.now;
                if let Some(node) = self.nodes.get_mut(at) {
                    node.on_output(output, now);
                }
            }
        }
    }

    /// A real driver connects and shakes hands with `knot_engine::session`; here everybody is believed.
    fn open(&mut self, from: usize, session: SessionId, address: &Address) {
        let theirs = SessionId(session.0 * 2 + 1);
        let Some(to) = self.at(address) else {
            self.send(from, Delivery::Session(session, SessionEvent::Closed(Closed::Refused)));
            return;
        };
        self.streams.insert((from, session), (to, theirs));
        self.streams.insert((to, theirs), (from, session));
        for (end, number, other) in [(from, session, to), (to, theirs, from)] {
            let identity = self.nodes.get(other).map(|node| node.engine.identity());
            if let Some(identity) = identity {
                self.send(end, Delivery::Session(number, SessionEvent::Opened(identity)));
            }
        }
    }

    fn send(&mut self, to: usize, delivery: Delivery) {
        self.departures += 1;
        self.travelling.insert((self.now + LATENCY, self.departures), (to, delivery));
    }

    fn at(&self, address: &Address) -> Option<usize> {
        self.nodes.iter().position(|node| node.address == *address)
    }
}

impl Node {
    fn new(number: usize) -> Self {
        let byte = u8::try_from(number).unwrap_or(u8::MAX);
        let address = Address::from(format!("node-{number}:3100").as_str());
        let config = Config {
            node_key: NodeKey::from_bytes([byte + 1; 32]),
            name: format!("node-{number}"),
            zone: "au".to_owned(),
            addresses: vec![address.clone()],
            version: "0".to_owned(),
            url: String::new(),
            cluster_name: "example".to_owned(),
            cluster_keys: None,
            membership: membership::Config::default(),
            limits: Limits::default(),
        };
        // What a disk holds goes into `Recovered` here; this one is new.
        let engine = Engine::new(config, Recovered::new(false), [byte; 32], Faults::default(), Instant::ZERO);
        Self { engine, address, disk: BTreeMap::new(), events: Vec::new() }
    }

    fn on_output(&mut self, output: Output<AutomergeDocument>, now: Instant) {
        match output {
            Output::Persist { batch, writes, .. } => {
                for write in writes {
                    let place = (write.table, write.key);
                    match write.value {
                        Some(value) => self.disk.insert(place, value),
                        None => self.disk.remove(&place),
                    };
                }
                self.engine.handle_storage(StorageEvent::Persisted(batch), now);
            }
            Output::Load { load, query } => {
                let found = self.range(&query).map(|((_, key), value)| (key.clone(), value.clone()));
                let loaded = StorageEvent::Loaded { load, entries: found.collect(), complete: true };
                self.engine.handle_storage(loaded, now);
            }
            Output::Verify(job) => self.engine.handle_verdict(job.run(), now),
            Output::Event(event) => self.events.push(event),
            Output::SendDatagram { .. }
            | Output::OpenSession { .. }
            | Output::OpenCircuit { .. }
            | Output::Circuit { .. }
            | Output::SendFrame { .. }
            | Output::CloseSession { .. } => {}
        }
    }

    fn range(&self, query: &Query) -> Range<'_, (Table, Bytes), Bytes> {
        self.disk.range((query.table, query.start.clone())..(query.table, query.end.clone()))
    }

    fn view(&self) -> Option<&DocumentView> {
        self.events.iter().find_map(|event| if let Event::Read(_, Ok(view)) = event { Some(view) } else { None })
    }
}

/// What was read on the second node, and how long after it was written on the first.
pub(crate) fn replicate() -> Result<(Value, Duration), NameError> {
    let document = DocumentId::new(Scope::Global, "users", "ann")?;
    let mut world = World::new(2);
    let [writer, reader] = &mut world.nodes[..] else { return Ok((Value::Null, Duration::ZERO)) };
    // One knows the other; that is enough.
    writer.engine.join(vec![reader.address.clone()], Instant::ZERO);
    world.run_until(|world| world.nodes.iter().all(|node| node.engine.members().count() == 2), Duration::from_secs(10));

    let written = world.now;
    let put = EditRequest::new(document.clone(), Edit::Put(json!({"name": "Ann", "visits": 1})));
    if let Some(writer) = world.nodes.first_mut() {
        writer.engine.edit(put, Wall(1_790_000_000_000), written);
    }
    let arrived = |world: &World| world.nodes.iter().all(|node| node.engine.summary(&document).is_some());
    world.run_until(arrived, Duration::from_secs(10));
    let took = world.now.since(written);

    if let Some(reader) = world.nodes.last_mut() {
        reader.engine.read(&document, false, world.now);
    }
    let read = |world: &World| world.nodes.last().is_some_and(|node| node.view().is_some());
    world.run_until(read, Duration::from_secs(10));
    let value = world.nodes.last().and_then(Node::view).map(|view| view.value.clone());
    Ok((value.unwrap_or_default(), took))
}

fn main() -> Result<(), NameError> {
    let (value, took) = replicate()?;
    println!("the other node reads {value}, {} ms after it was written", took.as_millis());
    Ok(())
}
