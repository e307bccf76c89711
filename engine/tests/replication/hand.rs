//! One engine driven by hand: a disk in memory, and peers that say what a test has them say.

use std::collections::BTreeMap;

use bytes::Bytes;
use knot_engine::documents::{Document, DocumentId, Edit, ModelDocument, Scope};
use knot_engine::membership::{self, BUCKETS, Message, Record};
use knot_engine::wire::Frame;
use knot_engine::{
    Address, BatchId, Boot, Config, EditId, EditRequest, Edited, Engine, Event, Faults, Incarnation, Instant, Limits,
    NodeKey, Output, PeerIdentity, Query, Recovered, SessionEvent, SessionId, Step, StorageEvent, Table, Wall, Write,
};
use serde_json::{Value, json};

/// More than an engine has any reason to want at once.
const OUTPUTS_MAX: usize = 100_000;

pub(crate) type Disk = BTreeMap<(Table, Bytes), Bytes>;

pub(crate) struct Hand<D = ModelDocument> {
    pub(crate) engine: Engine<D>,
    pub(crate) now: Instant,
    pub(crate) disk: Disk,
    /// While set, storage keeps what it is given waiting.
    pub(crate) stalled: bool,
    /// While set, storage has no room.
    pub(crate) full: bool,
    /// While set, no trial comes to an end.
    pub(crate) busy: bool,
    waiting: Vec<(BatchId, Vec<Write>)>,
    pub(crate) frames: Vec<(SessionId, Frame)>,
    /// Of every frame sent.
    pub(crate) frame_bytes: Vec<usize>,
    pub(crate) events: Vec<Event>,
    pub(crate) closed: Vec<SessionId>,
    /// Sessions that go through others, and what happened to the streams below them.
    pub(crate) circuits: Vec<(SessionId, Step)>,
    /// Bytes of every load.
    pub(crate) loads: Vec<usize>,
    /// Outputs so far.
    pub(crate) outputs: usize,
    sessions: u64,
}

impl Hand {
    /// A node that has started.
    pub(crate) fn new(limits: Limits) -> Self {
        let mut hand = Self::recovered("au", Disk::new(), limits);
        hand.settle();
        hand
    }

    /// A node in `zone` that begins to start with what is on `disk`.
    pub(crate) fn recovered(zone: &str, disk: Disk, limits: Limits) -> Self {
        Self::recovered_as(zone, disk, limits)
    }
}

impl<D: Document> Hand<D> {
    /// The same with documents of any kind.
    pub(crate) fn recovered_as(zone: &str, disk: Disk, limits: Limits) -> Self {
        let config = Config {
            node_key: NodeKey::from_bytes([1; 32]),
            name: "node-1".to_owned(),
            zone: zone.to_owned(),
            addresses: vec![Address::from("node-1:3100")],
            version: "0".to_owned(),
            url: String::new(),
            cluster_name: "test".to_owned(),
            cluster_keys: None,
            membership: membership::Config::default(),
            limits,
        };
        let mut recovered = Recovered::new(true);
        for ((table, key), value) in disk.iter().filter(|((table, _), _)| *table != Table::Changes) {
            recovered.push(*table, key, value).unwrap();
        }
        Self {
            engine: Engine::new(config, recovered, [1; 32], Faults::default(), Instant::ZERO),
            now: Instant::ZERO,
            disk,
            stalled: false,
            full: false,
            busy: false,
            waiting: Vec::new(),
            frames: Vec::new(),
            frame_bytes: Vec::new(),
            events: Vec::new(),
            closed: Vec::new(),
            circuits: Vec::new(),
            loads: Vec::new(),
            outputs: 0,
            sessions: 0,
        }
    }

    /// Does all that the engine wants.
    pub(crate) fn settle(&mut self) {
        if !self.stalled {
            for (batch, writes) in std::mem::take(&mut self.waiting) {
                self.commit(batch, writes);
            }
        }
        for _ in 0..OUTPUTS_MAX {
            let Some(output) = self.engine.poll_output() else { return };
            self.outputs += 1;
            match output {
                Output::Persist { batch, writes, .. } if self.stalled => self.waiting.push((batch, writes)),
                Output::Persist { batch, .. } if self.full => {
                    self.engine.handle_storage(StorageEvent::Full(batch), self.now);
                }
                Output::Persist { batch, writes, .. } => self.commit(batch, writes),
                Output::Load { load, query } => {
                    let (entries, complete) = self.scan(&query);
                    self.engine.handle_storage(StorageEvent::Loaded { load, entries, complete }, self.now);
                }
                Output::Verify(_) if self.busy => {}
                Output::Verify(job) => self.engine.handle_verdict(job.run(), self.now),
                Output::SendFrame { session, frame } => {
                    self.frame_bytes.push(frame.len());
                    self.frames.push((session, Frame::decode(&frame).unwrap().unwrap()));
                    self.engine.handle_session(session, SessionEvent::Writable { queued: 0 }, self.now);
                }
                Output::CloseSession { session, .. } => self.closed.push(session),
                Output::Event(event) => self.events.push(event),
                Output::OpenCircuit { session, .. } => self.circuits.push((session, Step::Open)),
                Output::Circuit { session, step } => self.circuits.push((session, step)),
                Output::SendDatagram { .. } | Output::OpenSession { .. } => {}
            }
        }
        panic!("the engine wants more and more");
    }

    fn commit(&mut self, batch: BatchId, writes: Vec<Write>) {
        for Write { table, key, value } in writes {
            match value {
                Some(value) => self.disk.insert((table, key), value),
                None => self.disk.remove(&(table, key)),
            };
        }
        self.engine.handle_storage(StorageEvent::Persisted(batch), self.now);
    }

    fn scan(&mut self, query: &Query) -> (Vec<(Bytes, Bytes)>, bool) {
        let (mut found, mut bytes, mut complete) = (Vec::new(), 0, true);
        let end = if query.end.is_empty() { Bytes::from_static(&[0xff; 32]) } else { query.end.clone() };
        if query.start > end {
            return (found, complete);
        }
        for ((_, key), value) in self.disk.range((query.table, query.start.clone())..(query.table, end)) {
            if bytes >= query.bytes_max {
                complete = false;
                break;
            }
            bytes += key.len() + value.len();
            found.push((key.clone(), value.clone()));
        }
        self.loads.push(bytes);
        (found, complete)
    }

    /// A peer in `zone` opens a stream and introduces itself.
    pub(crate) fn meet(&mut self, number: u8, zone: &str) -> SessionId {
        let key = NodeKey::from_bytes([number; 32]);
        let boot = Boot([number; 16]);
        let (cluster, public) = (self.engine.cluster(), key.public());
        self.sessions += 1;
        let session = SessionId(2 * self.sessions - 1);
        let identity = PeerIdentity { public, boot, cluster, empty: false, wire: 1 };
        self.engine.handle_session(session, SessionEvent::Opened(identity), self.now);
        let record = Record {
            node: key.node_id(),
            boot,
            incarnation: Incarnation { starts: 1, refutations: 0 },
            name: format!("node-{number}"),
            zone: zone.to_owned(),
            addresses: vec![Address::from(format!("node-{number}:3100").as_str())],
            version: String::new(),
            url: String::new(),
        };
        let digest = Message::SyncDigest { record: record.into(), answer: false, buckets: vec![0; BUCKETS] };
        self.say(session, &Frame::Membership(digest, Vec::new()));
        session
    }

    /// The peer of a session sends a frame.
    pub(crate) fn say(&mut self, session: SessionId, frame: &Frame) {
        self.engine.handle_session(session, SessionEvent::Frame(frame.encode()), self.now);
        self.settle();
    }

    pub(crate) fn edit(&mut self, request: EditRequest) -> EditId {
        let id = self.engine.edit(request, Wall(1), self.now);
        self.settle();
        id
    }

    pub(crate) fn put(&mut self, id: &DocumentId, value: Value) {
        let edit = self.edit(EditRequest::new(id.clone(), Edit::Put(value)));
        assert!(self.edited(edit).is_some(), "it is written");
    }

    /// Puts `count` changes into one document.
    pub(crate) fn write(&mut self, id: &DocumentId, count: u32) {
        (0..count).for_each(|count| self.put(id, json!({ "count": count })));
    }

    /// The answer to an edit, if there is one yet.
    pub(crate) fn edited(&self, edit: EditId) -> Option<Edited> {
        let is_its = |event: &&Event| matches!(event, Event::Edited(id, _) if *id == edit);
        let event = self.events.iter().find(is_its)?;
        if let Event::Edited(_, answer) = event { Some(answer.clone().unwrap()) } else { None }
    }

    /// The frames that `wanted` picks of those sent since the last time.
    pub(crate) fn take<T>(&mut self, wanted: impl Fn(SessionId, Frame) -> Option<T>) -> Vec<T> {
        std::mem::take(&mut self.frames).into_iter().filter_map(|(session, frame)| wanted(session, frame)).collect()
    }
}

pub(crate) fn id(scope: Scope, key: &str) -> DocumentId {
    DocumentId::new(scope, "users", key).unwrap()
}
