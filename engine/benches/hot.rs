//! Nanoseconds of what an engine does most, each against a floor: the part of it that nobody could leave out.
//!
//! `cargo bench -p knot-engine --bench hot`. Nothing is asserted.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![expect(clippy::print_stdout, reason = "a table on stdout is the product")]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ROOT};
use bytes::Bytes;
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit, XChaCha20Poly1305};
use knot_engine::documents::{Actor, AutomergeDocument, Document, DocumentId, Edit, Log, ModelDocument, Scope, judge};
use knot_engine::seal::{ClusterKey, Datagrams};
use knot_engine::session::{self, Role, Session};
use knot_engine::{
    Boot, ClusterId, Config, EditRequest, Engine, Event, Faults, Limits, NodeId, NodeKey, Output, PeerIdentity,
    Recovered, StorageEvent, Wall, membership,
};
use serde_json::{Value, json};

const KEY: &str = "NDJuIFxrRbWLp6tKhVzyqNs5H5fCK1Cl";
/// Operations timed in one go.
const BATCH: usize = 200;
/// Of so many goes the fastest counts: the others were disturbed.
const GOES: usize = 50;
/// Bytes of a datagram's body and of a frame: a probe with its roots, and a push of one change.
const DATAGRAM_BYTES: usize = 200;
const FRAME_BYTES: usize = 500;
const LOG_CHANGES: usize = 1_000;

fn main() -> ExitCode {
    // `cargo test --all-targets` runs benches too, without this flag: it wants to know that they start, no more.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    println!("{:<44} {:>9}  {:<38} {:>9}  times the floor", "operation", "ns", "floor", "ns");
    documents();
    change_log();
    datagrams();
    frames();
    engine();
    ExitCode::SUCCESS
}

/// Nanoseconds of one operation; `prepare` is not timed.
fn time<T>(mut prepare: impl FnMut() -> T, mut operation: impl FnMut(&mut T)) -> f64 {
    let mut go = || {
        let mut inputs: Vec<T> = (0..BATCH).map(|_| prepare()).collect();
        let start = Instant::now();
        inputs.iter_mut().for_each(&mut operation);
        let took = start.elapsed();
        drop(inputs);
        took.as_secs_f64() * 1e9 / BATCH as f64
    };
    (0..GOES).map(|_| go()).fold(f64::INFINITY, f64::min)
}

/// Has a result made and then forgotten.
fn keep<T>(result: T) {
    let _forgotten = black_box(result);
}

fn row(operation: &str, ns: f64, floor: &str, floor_ns: f64) {
    println!("{operation:<44} {ns:>9.0}  {floor:<38} {floor_ns:>9.0}  {:.2}", ns / floor_ns);
}

fn id() -> DocumentId {
    DocumentId::new(Scope::Global, "users", "0000001").expect("a valid name")
}

fn actor() -> Actor {
    Actor::new(NodeId([1; 16]), &Boot([2; 16]), &id(), 0)
}

/// A user of 12 fields.
fn user() -> Value {
    json!({
        "name": "Ann Example", "email": "ann@example.org", "phone": "+44 20 7946 0000", "active": true, "admin": false,
        "quota": 5, "hours": 40, "shell": "/bin/bash", "timezone": "Europe/London", "created": "2026-11-21T10:00:00Z",
        "theme": "dark", "note": "a person who writes three hundred bytes of notes about nothing in particular, day by day"
    })
}

fn create(document: &mut AutomergeDocument) -> Bytes {
    let made = document.edit(&actor(), &Edit::Put(user()), false, Wall(0)).expect("a valid edit");
    made.expect("a new document changes").chunk
}

/// A new document that Automerge holds already, and will write.
fn opened() -> AutomergeDocument {
    let mut document = AutomergeDocument::new(&id());
    keep(document.value());
    document
}

fn documents() {
    let change = create(&mut AutomergeDocument::new(&id()));
    let hash = time(|| (), |()| keep(blake3::hash(&change)));
    let header = time(|| (), |()| keep(AutomergeDocument::header(&change)));
    row(&format!("header of a change of {} B", change.len()), header, "BLAKE3 of it", hash);

    let new = time(|| (), |()| keep(opened()));
    let floor = time(|| (), |()| keep(AutoCommit::new()));
    row("a document with its genesis, made and dropped", new, "Automerge alone, empty", floor);

    let put = Edit::Put(user());
    let whole = |mut document: AutomergeDocument| keep(document.edit(&actor(), &put, true, Wall(0)));
    let encoded = time(|| (), |()| whole(AutomergeDocument::new(&id())));
    let written = time(|| (), |()| whole(opened()));
    row("a document created and dropped, 12 fields", encoded, "the same, written by Automerge", written);

    let fields = user();
    let plain = |document: &mut AutoCommit, note: &str| {
        for (key, value) in fields.as_object().into_iter().flatten() {
            let text = if note.is_empty() { value.to_string() } else { note.to_owned() };
            document.put(ROOT, key.as_str(), text).expect("the root takes members");
            if !note.is_empty() {
                break;
            }
        }
        document.get_last_local_change().map(|change| change.raw_bytes().to_vec())
    };
    let new = || AutoCommit::new().with_actor(ActorId::from(&[7; 24]));
    let floor = time(new, |document| keep(plain(document, "")));
    row(
        "edit: create, 12 fields",
        time(|| AutomergeDocument::new(&id()), |document| drop(create(document))),
        "Automerge alone",
        floor,
    );

    let created = || {
        let mut document = opened();
        create(&mut document);
        document
    };
    let written = || {
        let mut document = new();
        plain(&mut document, "");
        document
    };
    let floor = time(written, |document| keep(plain(document, "changed")));
    let patch = Edit::MergePatch(json!({"active": "changed"}));
    let edit = |document: &mut AutomergeDocument| keep(document.edit(&actor(), &patch, false, Wall(0)));
    row("edit: one field of 12", time(created, edit), "Automerge alone", floor);
    let mut replaced = user();
    replaced["active"] = json!("changed");
    let put = Edit::Put(replaced);
    let edit = |document: &mut AutomergeDocument| keep(document.edit(&actor(), &put, false, Wall(0)));
    row("edit: put that differs in one field", time(created, edit), "Automerge alone", floor);
    let trial = |document: &mut Option<AutomergeDocument>| {
        keep(document.take().map(|document| document.trial(std::slice::from_ref(&change))));
    };
    let apply = |document: &mut AutomergeDocument| keep(document.apply(std::slice::from_ref(&change)));
    let floor = time(opened, apply);
    row("trial of that change", time(|| Some(opened()), trial), "apply it", floor);
}

fn change_log() {
    let mut document = ModelDocument::new(&id());
    let mut log = Log::new(&ModelDocument::genesis_hash(&id()));
    let mut next = |number: usize| {
        let edit = Edit::Put(json!({"field": number}));
        let made = document.edit(&actor(), &edit, false, Wall(0)).expect("a valid edit").expect("a difference");
        (made.header, made.chunk)
    };
    for number in 0..LOG_CHANGES {
        log.push(&next(number).0, None);
    }
    let (header, change) = next(LOG_CHANGES);
    let hash = time(|| (), |()| keep(blake3::hash(&change)));
    row("judge on a log of 1,000 changes", time(|| (), |()| keep(judge(&log, &header))), "BLAKE3 of the change", hash);
}

fn datagrams() {
    let key = || Some(ClusterKey::new(KEY).expect("a valid key").into());
    let ends = [(NodeId([1; 16]), Boot([1; 16])), (NodeId([2; 16]), Boot([2; 16]))];
    let mut sender = Datagrams::new(key(), ends[0].0, ends[0].1);
    let mut receiver = Datagrams::new(key(), ends[1].0, ends[1].1);
    let body = [7; DATAGRAM_BYTES];
    let cipher = XChaCha20Poly1305::new(&[9; 32].into());
    let raw =
        time(|| body, |body| keep(cipher.encrypt_inout_detached(&[0; 24].into(), &[], body.as_mut_slice().into())));
    let seal = time(|| (), |()| keep(sender.seal(ends[1].0, ends[1].1, &body)));
    row(&format!("seal a datagram of {DATAGRAM_BYTES} B"), seal, "XChaCha20-Poly1305 of it", raw);
    let open = time(
        || sender.seal(ends[1].0, ends[1].1, &body).expect("it fits"),
        |datagram| keep(receiver.open(datagram, |_| Some(ends[0].1))),
    );
    row(&format!("open a datagram of {DATAGRAM_BYTES} B"), open, "XChaCha20-Poly1305 of it", raw);
}

fn frames() {
    let (mut near, mut far) = (end(Role::Initiator, 1), end(Role::Responder, 2));
    while !(near.is_established() && far.is_established()) {
        carry(&mut near, &mut far);
        carry(&mut far, &mut near);
    }
    while near.poll_event().is_some() || far.poll_event().is_some() {}
    let frame = [7; FRAME_BYTES];
    let cipher = ChaCha20Poly1305::new(&[9; 32].into());
    let raw = time(
        || frame,
        |frame| {
            let sealed = cipher.encrypt_inout_detached(&[0; 12].into(), &[], frame.as_mut_slice().into());
            let tag = sealed.expect("short enough");
            keep(cipher.decrypt_inout_detached(&[0; 12].into(), &[], frame.as_mut_slice().into(), &tag));
        },
    );
    let through = time(
        || (),
        |()| {
            near.send_frame(&frame).expect("it fits");
            carry(&mut near, &mut far);
            keep(far.poll_event());
        },
    );
    row(&format!("a frame of {FRAME_BYTES} B through a session"), through, "ChaCha20-Poly1305 both ways", raw);
}

fn carry(from: &mut Session, to: &mut Session) {
    while let Some(bytes) = from.poll_transmit() {
        to.handle_bytes(&bytes).expect("an honest peer");
    }
}

fn end(role: Role, secret: u8) -> Session {
    let node_key = NodeKey::from_bytes([secret; 32]);
    let identity = PeerIdentity {
        public: node_key.public(),
        boot: Boot([secret; 16]),
        cluster: ClusterId([3; 16]),
        empty: false,
        wire: 1,
    };
    let keys = ClusterKey::new(KEY).expect("a valid key").into();
    let config = session::Config { keys, cluster: "bench".to_owned(), identity, node_key, compression: false };
    Session::new(role, config, [secret; 32])
}

/// A write from the request to its answer, through an engine whose storage takes no time: judging, index, batch.
fn engine() {
    let model = time(
        || ModelDocument::new(&id()),
        |document| {
            keep(document.edit(&actor(), &Edit::Put(user()), false, Wall(0)));
        },
    );
    row("engine: one new document, last-writer map", writes::<ModelDocument>(), "the edit alone", model);
    let automerge = time(|| AutomergeDocument::new(&id()), |document| drop(create(document)));
    row("engine: one new document, Automerge", writes::<AutomergeDocument>(), "the edit alone", automerge);
}

fn writes<D: Document>() -> f64 {
    let config = Config {
        node_key: NodeKey::from_bytes([1; 32]),
        name: "bench".to_owned(),
        zone: "au".to_owned(),
        addresses: Vec::new(),
        version: String::new(),
        url: String::new(),
        cluster_name: "bench".to_owned(),
        cluster_keys: None,
        membership: membership::Config::default(),
        limits: Limits::default(),
    };
    let now = knot_engine::Instant::ZERO;
    let mut engine: Engine<D> = Engine::new(config, Recovered::new(false), [5; 32], Faults::default(), now);
    drain(&mut engine);
    let mut number = 0;
    time(
        || {
            number += 1;
            let id = DocumentId::new(Scope::Global, "users", &format!("{number:07}")).expect("a valid name");
            Some(EditRequest::new(id, Edit::Put(user())))
        },
        |request| {
            let Some(request) = request.take() else { return };
            engine.edit(request, Wall(0), now);
            assert!(drain(&mut engine), "the edit is answered");
        },
    )
}

/// Does what the engine wants done; whether an edit was answered.
fn drain<D: Document>(engine: &mut Engine<D>) -> bool {
    let mut answered = false;
    while let Some(output) = engine.poll_output() {
        let event = match output {
            Output::Persist { batch, .. } => StorageEvent::Persisted(batch),
            Output::Load { load, .. } => StorageEvent::Loaded { load, entries: Vec::new(), complete: true },
            Output::Event(Event::Edited(_, result)) => {
                answered |= result.is_ok();
                continue;
            }
            Output::SendDatagram { .. }
            | Output::OpenSession { .. }
            | Output::OpenCircuit { .. }
            | Output::Circuit { .. }
            | Output::SendFrame { .. }
            | Output::CloseSession { .. }
            | Output::Verify(_)
            | Output::Event(_) => continue,
        };
        engine.handle_storage(event, knot_engine::Instant::ZERO);
    }
    answered
}
