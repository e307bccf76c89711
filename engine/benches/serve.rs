//! What it takes a server to send a peer one document with a long history.
//!
//! `cargo bench -p knot-engine --bench serve`. Nothing is asserted.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![expect(clippy::print_stdout, reason = "a table on stdout is the product")]

use std::collections::{BTreeMap, VecDeque};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use knot_engine::documents::{DocumentId, Edit, ModelDocument, Scope};
use knot_engine::{
    Address, Config, EditRequest, Engine, Event, Faults, Instant, Limits, NodeKey, Output, Query, Recovered,
    SessionEvent, SessionId, StorageEvent, Table, Wall, membership,
};
use serde_json::json;

type Node = Engine<ModelDocument>;

fn main() -> ExitCode {
    // `cargo test --all-targets` runs benches too, without this flag: it wants to know that they start, no more.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    println!("{:>9} {:>8} {:>10} {:>12} {:>14}", "changes", "windows", "server ms", "bytes read", "largest load");
    for changes in [1_000, 10_000, 100_000] {
        run(changes);
    }
    ExitCode::SUCCESS
}

/// A disk, and how much is read from it.
#[derive(Default)]
struct Disk {
    entries: BTreeMap<(Table, Bytes), Bytes>,
    read: usize,
    largest: usize,
}

impl Disk {
    fn load(&mut self, query: &Query) -> (Vec<(Bytes, Bytes)>, bool) {
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut complete = true;
        let range = self.entries.range((query.table, query.start.clone())..(query.table, query.end.clone()));
        for ((_, key), value) in range {
            if bytes >= query.bytes_max {
                complete = false;
                break;
            }
            bytes += key.len() + value.len();
            found.push((key.clone(), value.clone()));
        }
        self.read += bytes;
        self.largest = self.largest.max(bytes);
        (found, complete)
    }
}

fn node(number: u8) -> Node {
    let config = Config {
        node_key: NodeKey::from_bytes([number; 32]),
        name: format!("node-{number}"),
        zone: "au".to_owned(),
        addresses: vec![Address::from(format!("node-{number}:3100").as_str())],
        version: "0".to_owned(),
        url: String::new(),
        cluster_name: "bench".to_owned(),
        cluster_keys: None,
        membership: membership::Config::default(),
        limits: Limits::default(),
    };
    Engine::new(config, Recovered::new(false), [number; 32], Faults::default(), Instant::ZERO)
}

/// Does what a node wants of its disk, and hands back the frames that it sends.
fn drain(node: &mut Node, disk: &mut Disk, now: Instant) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while let Some(output) = node.poll_output() {
        match output {
            Output::Persist { batch, writes, .. } => {
                for write in writes {
                    let Some(value) = write.value else { continue };
                    disk.entries.insert((write.table, write.key), value);
                }
                node.handle_storage(StorageEvent::Persisted(batch), now);
            }
            Output::Load { load, query } => {
                let (entries, complete) = disk.load(&query);
                node.handle_storage(StorageEvent::Loaded { load, entries, complete }, now);
            }
            Output::Verify(job) => node.handle_verdict(job.run(), now),
            Output::SendFrame { frame, .. } => frames.push(frame),
            Output::Event(Event::StorageFailed) => unreachable!("memory does not fail"),
            Output::SendDatagram { .. }
            | Output::OpenSession { .. }
            | Output::OpenCircuit { .. }
            | Output::Circuit { .. }
            | Output::CloseSession { .. }
            | Output::Event(_) => {}
        }
    }
    frames
}

fn run(changes: u32) {
    let now = Instant::ZERO;
    let (mut server, mut asker) = (node(1), node(2));
    let (mut disk, mut empty) = (Disk::default(), Disk::default());
    drain(&mut server, &mut disk, now);
    drain(&mut asker, &mut empty, now);
    let id = DocumentId::new(Scope::Global, "users", "ada").expect("a valid name");
    for count in 0..changes {
        let edit = Edit::MergePatch(json!({ "count": count }));
        server.edit(EditRequest::new(id.clone(), edit), Wall(1), now);
        drain(&mut server, &mut disk, now);
    }
    (disk.read, disk.largest) = (0, 0);
    let session = SessionId(1);
    server.handle_session(session, SessionEvent::Opened(asker.identity()), now);
    asker.handle_session(session, SessionEvent::Opened(server.identity()), now);
    let mut now = now;
    let (mut took, mut windows) = (Duration::ZERO, 0);
    let mut to_server: VecDeque<Bytes> = VecDeque::new();
    while asker.summary(&id).is_none_or(|summary| summary.changes < changes) {
        now = now + Duration::from_millis(1);
        asker.handle_timeout(now);
        to_server.extend(drain(&mut asker, &mut empty, now));
        let started = std::time::Instant::now();
        for frame in to_server.drain(..) {
            server.handle_session(session, SessionEvent::Frame(frame), now);
        }
        server.handle_session(session, SessionEvent::Writable { queued: 0 }, now);
        let frames = drain(&mut server, &mut disk, now);
        took += started.elapsed();
        for frame in frames {
            // Kind 8 is a window.
            windows += u32::from(frame.first() == Some(&8));
            asker.handle_session(session, SessionEvent::Frame(frame), now);
        }
    }
    let (read, largest) = (disk.read, disk.largest);
    println!("{changes:>9} {windows:>8} {:>10} {read:>12} {largest:>14}", took.as_millis());
}
