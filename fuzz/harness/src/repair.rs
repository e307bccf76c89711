//! A node among members that mean harm: they hold the key, have streams and say what they like, in the order and at the
//! moments that they like.
//!
//! An input is what they do, step by step: frames of rubbish, answers to what the node asked, sums and heads that fit
//! nothing, records of others, changes with altered bytes, silence. The node must want a bounded number of things at each
//! step, keep every queue within its bound, and serve its own client when they are done.

use std::time::Duration;

use bytes::Bytes;
use knot_engine::documents::{Actor, Document, DocumentId, Edit, ModelDocument, Scope};
use knot_engine::membership::{BUCKETS, Closed, Message, Record, STARTS_MAX, Standing, Status, Update};
use knot_engine::seal::Datagrams;
use knot_engine::wire::{Differences, DocumentChanges, DocumentHeads, Frame, Packet, Root, Wanted};
use knot_engine::{
    Address, Boot, CIRCUIT_PIECE_BYTES, ChangeHash, CircuitId, EditRequest, Incarnation, Limits, NodeId, NodeKey,
    PeerIdentity, SessionEvent, SessionId, Span, Step, Sum, Wall,
};
use serde_json::json;

use crate::hand::{Hand, id};
use crate::{Script, Target};

/// What the limits that the node is given allow, several times over.
pub const TARGET: Target = Target { name: "repair", run, memory_bytes_max: 48 << 20, memory_bytes_per_byte: 1_024 };

/// Most steps in an input.
const STEPS_MAX: usize = 48;
/// Sums in a comparison.
const SUMS: usize = 256;
/// Numbers of the hostile members' keys.
const PEERS: std::ops::Range<u8> = 2..5;

/// How many frames the node said about what it lacks, or what others lack.
fn run(input: &[u8]) -> usize {
    let mut script = Script::new(input);
    let mut play = Play::new();
    for _ in 0..STEPS_MAX {
        if script.is_over() {
            break;
        }
        play.step(&mut script);
        play.check();
    }
    play.end()
}

struct Play {
    hand: Hand,
    /// The streams of the hostile members, oldest first.
    streams: Vec<(SessionId, u8)>,
    /// What the node asked and nobody has answered.
    asked: Vec<(SessionId, Frame)>,
    changes: Vec<DocumentChanges>,
    edits: u64,
    /// Frames of repairs that the node sent.
    said: usize,
}

fn limits() -> Limits {
    Limits {
        persist_bytes: 1 << 20,
        waiters: 64,
        versions: 2,
        incoming_bytes: 1 << 20,
        orphans: 64,
        orphan_bytes: 256 << 10,
        document_cache_bytes: 256 << 10,
        log_cache_bytes: 256 << 10,
        peer_queue_bytes: 1 << 20,
        replica_waits: 16,
        window_bytes: 4 << 10,
        serves_per_peer: 2,
        sessions: 8,
    }
}

impl Play {
    fn new() -> Self {
        let mut hand = Hand::new(limits());
        for key in ["ada", "bob"] {
            hand.write(&id(Scope::Global, key), 2);
        }
        hand.write(&id(Scope::Zone("au".into()), "eve"), 2);
        let streams = PEERS.map(|number| (hand.meet(number, "au"), number)).collect();
        Self { hand, streams, asked: Vec::new(), changes: theirs(), edits: 0, said: 0 }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let at = script.index(self.streams.len());
        let Some(&(stream, number)) = self.streams.get(at) else {
            let number = PEERS.start + script.byte() % 3;
            let stream = self.hand.meet(number, "au");
            self.streams.push((stream, number));
            return;
        };
        match script.byte() % 16 {
            0 => self.say(stream, script.bytes().to_vec().into()),
            1 | 2 => {
                let which = script.index(self.asked.len());
                if which < self.asked.len() {
                    let (stream, asked) = self.asked.remove(which);
                    let answer = self.answer(script, &asked);
                    self.say(stream, answer.encode());
                }
            }
            3 => {
                let frame = Frame::Roots(roots(script));
                self.say(stream, frame.encode());
            }
            4 => {
                let (scope, prefix) = (scope(script), script.bytes().to_vec());
                let frame = Frame::Compare { request: script.byte().into(), scope, prefix, sums: sums(script) };
                self.say(stream, frame.encode());
            }
            5 => {
                let wanted = self.wanted(script);
                self.say(stream, Frame::Want { request: script.byte().into(), wanted }.encode());
            }
            6 => {
                let (seq, ack) = (script.number(), script.byte() & 1 == 1);
                let changes = self.some_changes(script);
                self.say(stream, Frame::Push { seq, ack, changes }.encode());
            }
            7 => {
                let (seq, span) = (script.number(), Span { from: self.node(script), to: self.node(script) });
                let changes = self.some_changes(script);
                self.say(stream, Frame::Relay { seq, ack: seq & 1 == 1, span, changes }.encode());
            }
            8 => {
                let message = self.message(script);
                self.say(stream, Frame::Membership(message, roots(script)).encode());
            }
            9 => {
                let packet = Packet { message: self.message(script), roots: roots(script) };
                self.datagram(number, &packet.encode());
            }
            10 => self.datagram(number, script.bytes()),
            11 => self.pass(Duration::from_millis(u64::from(script.byte()) * 40)),
            12 => self.ask(script),
            14 => {
                let circuit =
                    CircuitId { opener: self.node(script), target: self.node(script), number: script.byte().into() };
                let step = circuit_step(script);
                self.say(stream, Frame::Circuit { circuit, step }.encode());
            }
            15 => self.go_on(script),
            _ => {
                let closed = [Closed::Eof, Closed::Reset, Closed::Timeout][script.index(3)];
                self.streams.remove(at);
                self.hand.engine.handle_session(stream, SessionEvent::Closed(closed), self.hand.now);
                self.hand.settle();
            }
        }
        self.listen();
    }

    fn say(&mut self, stream: SessionId, frame: Bytes) {
        self.hand.engine.handle_session(stream, SessionEvent::Frame(frame), self.hand.now);
        self.hand.settle();
    }

    /// The session of a circuit does something.
    fn go_on(&mut self, script: &mut Script<'_>) {
        let which = script.index(self.hand.circuits.len());
        let Some(session) = self.hand.circuits.get(which).map(|(session, _)| *session) else { return };
        let event = match script.byte() % 4 {
            0 => SessionEvent::Closed(Closed::Eof),
            1 => {
                let key = NodeKey::from_bytes([PEERS.start + script.byte() % 3; 32]);
                let (public, cluster) = (key.public(), self.hand.engine.cluster());
                SessionEvent::Opened(PeerIdentity { public, boot: Boot([2; 16]), cluster, empty: false, wire: 1 })
            }
            _ => SessionEvent::Circuit(circuit_step(script)),
        };
        self.hand.engine.handle_session(session, event, self.hand.now);
        self.hand.settle();
    }

    fn datagram(&mut self, number: u8, body: &[u8]) {
        let key = NodeKey::from_bytes([number; 32]);
        let me = self.hand.engine.me().record.clone();
        let mut sender = Datagrams::new(None, key.node_id(), Boot([number; 16]));
        if let Some(bytes) = sender.seal(me.node, me.boot, body) {
            self.hand.engine.handle_datagram(bytes, self.hand.now);
            self.hand.settle();
        }
    }

    /// Time passes, and the node does what it does by itself.
    fn pass(&mut self, wait: Duration) {
        let until = self.hand.now + wait;
        // A node that is woken without end has a timer that does not move on.
        for _ in 0..10_000 {
            let next = self.hand.engine.poll_timeout().map(|(at, _)| at).filter(|at| *at <= until);
            self.hand.now = next.unwrap_or(until).max(self.hand.now);
            self.hand.engine.handle_timeout(self.hand.now);
            self.hand.settle();
            if next.is_none() {
                return;
            }
        }
        panic!("the node is woken again and again");
    }

    /// Notes what the node asked, and which streams it closed.
    fn listen(&mut self) {
        for (stream, frame) in std::mem::take(&mut self.hand.frames) {
            let asks = matches!(frame, Frame::Compare { .. } | Frame::Want { .. });
            let answers = matches!(frame, Frame::Differences { .. } | Frame::Window { .. });
            self.said += usize::from(asks || answers);
            if asks {
                self.asked.push((stream, frame));
            }
        }
        let closed = std::mem::take(&mut self.hand.closed);
        self.streams.retain(|(stream, _)| !closed.contains(stream));
        let open = &self.streams;
        self.asked.retain(|(stream, _)| open.iter().any(|(known, _)| known == stream));
        self.hand.events.clear();
        self.hand.loads.clear();
        self.hand.circuits.retain(|(_, step)| *step == Step::Open);
    }

    fn check(&self) {
        for queue in self.hand.engine.queues() {
            assert!(queue.depth <= queue.limit, "{} is over its bound: {queue:?}", queue.name);
        }
        assert!(!self.hand.engine.has_left(), "what others say of it made the node leave");
        assert!(!self.hand.engine.is_storage_failed());
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only two kinds of frame ask")]
    fn answer(&self, script: &mut Script<'_>, asked: &Frame) -> Frame {
        match asked {
            Frame::Want { request, .. } => {
                let next = (script.byte() & 1 == 1).then(|| Bytes::copy_from_slice(script.bytes()));
                Frame::Window { request: *request, changes: self.some_changes(script), next }
            }
            Frame::Compare { request, .. } => Frame::Differences {
                request: *request,
                differences: Differences {
                    documents: self.heads(script),
                    deeper: script.bytes().to_vec(),
                    whole: script.bytes().to_vec(),
                },
            },
            _ => unreachable!("only these are noted"),
        }
    }

    fn wanted(&self, script: &mut Script<'_>) -> Wanted {
        let after = (script.byte() & 1 == 1).then(|| Bytes::copy_from_slice(script.bytes()));
        if script.byte() & 1 == 1 {
            Wanted::Range { scope: scope(script), prefix: script.bytes().to_vec(), after }
        } else {
            Wanted::Documents { documents: self.heads(script), after }
        }
    }

    fn heads(&self, script: &mut Script<'_>) -> Vec<DocumentHeads> {
        let one = |script: &mut Script<'_>| {
            let heads = (0..script.byte() % 4).map(|_| self.hash(script)).collect();
            (document(script), heads)
        };
        (0..script.byte() % 8).map(|_| one(script)).collect()
    }

    /// The hash of one of their changes, or of nothing.
    fn hash(&self, script: &mut Script<'_>) -> ChangeHash {
        let all: Vec<&Bytes> = self.changes.iter().flat_map(|changes| &changes.changes).collect();
        let at = usize::from(script.byte());
        let hash = |chunk: &&Bytes| ModelDocument::header(chunk).ok().map(|header| header.hash);
        all.get(at).and_then(hash).unwrap_or(ChangeHash([script.byte(); 32]))
    }

    /// Changes of theirs, some with altered bytes, under their own document or another.
    fn some_changes(&self, script: &mut Script<'_>) -> Vec<DocumentChanges> {
        let one = |script: &mut Script<'_>| {
            let all = &self.changes[script.index(self.changes.len())];
            let document = if script.byte() & 7 == 7 { document(script) } else { all.document.clone() };
            let changes = (0..1 + script.byte() % 4).map(|_| {
                let chunk = &all.changes[script.index(all.changes.len())];
                match script.byte() % 4 {
                    0 => script.bytes().to_vec().into(),
                    1 => {
                        let mut chunk = chunk.to_vec();
                        let at = script.index(chunk.len());
                        let end = chunk.len().min(at + usize::from(script.byte() & 3));
                        chunk.splice(at..end, script.bytes().iter().copied());
                        chunk.into()
                    }
                    _ => chunk.clone(),
                }
            });
            DocumentChanges { document, changes: changes.collect() }
        };
        (0..script.byte() % 4).map(|_| one(script)).collect()
    }

    /// The node itself, one of the hostile, or one that nobody has met.
    fn node(&self, script: &mut Script<'_>) -> NodeId {
        let number = script.byte() % 8;
        if number == 0 { self.hand.engine.me().record.node } else { NodeKey::from_bytes([number; 32]).node_id() }
    }

    fn message(&self, script: &mut Script<'_>) -> Message {
        let clock = |script: &mut Script<'_>| Some(Wall(script.number().cast_signed()));
        let updates = |script: &mut Script<'_>| (0..script.byte() % 6).map(|_| self.update(script)).collect();
        let seq = u32::from(script.byte());
        match script.byte() % 9 {
            0 => Message::Ping { seq, view: [script.byte(); 8], updates: updates(script) },
            1 => Message::Ack { seq, view: [script.byte(); 8], clock: clock(script), updates: updates(script) },
            2 => Message::PingReq { seq, target: self.node(script) },
            3 => Message::Vouch { seq },
            4 => Message::Nack { seq },
            5 => Message::Gossip { updates: updates(script) },
            6 => Message::SyncDigest {
                record: self.record(script).into(),
                answer: script.byte() & 1 == 1,
                buckets: (0..BUCKETS).map(|_| script.number()).collect(),
            },
            7 => Message::Sync { mask: script.number(), answer: script.byte() & 1 == 1, updates: updates(script) },
            _ => Message::Leave { boot: self.boot(script), incarnation: incarnation(script), retired: seq & 1 == 1 },
        }
    }

    fn update(&self, script: &mut Script<'_>) -> Update {
        let standing = Standing {
            status: [Status::Alive, Status::Suspect, Status::Failed, Status::Left][script.index(4)],
            retired: script.byte() & 3 == 3,
            refused: script.byte() & 1 == 1,
            accuser: (script.byte() & 1 == 1).then(|| self.node(script)),
            age_s: u32::try_from(script.number()).unwrap_or(u32::MAX),
        };
        if script.byte() & 1 == 1 {
            Update::Full { record: self.record(script).into(), standing }
        } else {
            let (node, boot) = (self.node(script), self.boot(script));
            Update::Brief { node, boot, incarnation: incarnation(script), standing }
        }
    }

    fn record(&self, script: &mut Script<'_>) -> Record {
        Record {
            node: self.node(script),
            boot: self.boot(script),
            incarnation: incarnation(script),
            name: label(script),
            zone: ["au", "gb", ""][script.index(3)].to_owned(),
            addresses: (0..script.byte() % 3).map(|_| Address::from(label(script).as_str())).collect(),
            version: label(script),
            url: label(script),
        }
    }

    fn boot(&self, script: &mut Script<'_>) -> Boot {
        let number = script.byte() % 8;
        if number == 0 { self.hand.engine.me().record.boot } else { Boot([number; 16]) }
    }

    /// The node's own client.
    fn ask(&mut self, script: &mut Script<'_>) {
        let document = document(script);
        match script.byte() % 4 {
            0 => {
                self.hand.engine.read(&document, true, self.hand.now);
            }
            1 => {
                self.hand.engine.history(&document, self.hand.now);
            }
            2 => {
                let edit = Edit::Delete;
                self.hand.engine.edit(EditRequest::new(document, edit), Wall(1), self.hand.now);
            }
            _ => {
                self.edits += 1;
                let edit = Edit::MergePatch(json!({ "own": self.edits }));
                self.hand.engine.edit(EditRequest::new(document, edit), Wall(1), self.hand.now);
            }
        }
        self.hand.settle();
    }

    /// They fall silent. The node's client writes and reads.
    fn end(mut self) -> usize {
        self.pass(Duration::from_secs(60));
        self.check();
        self.listen();
        let own = id(Scope::Global, "its-own");
        self.hand.put(&own, json!({"still": "here"}));
        assert!(self.hand.engine.summary(&own).is_some_and(|summary| !summary.deleted));
        let members = self.hand.engine.members().count();
        assert!(members <= 9, "{members} members, of nine that anybody spoke of");
        self.said
    }
}

/// What members wrote in documents of the node's and in their own.
fn theirs() -> Vec<DocumentChanges> {
    let write = |(number, document): (u8, DocumentId)| {
        let actor = Actor::new(NodeKey::from_bytes([number; 32]).node_id(), &Boot([number; 16]), &document, 0);
        let mut content = ModelDocument::new(&document);
        let changes = (0..4).map(|count| {
            let edit = if count == 3 { Edit::Delete } else { Edit::MergePatch(json!({ "theirs": count })) };
            content.edit(&actor, &edit, false, Wall(2)).expect("a valid edit").expect("a difference").chunk
        });
        DocumentChanges { changes: changes.collect(), document }
    };
    let of = [(2, Scope::Global, "ada"), (3, Scope::Global, "theirs"), (2, Scope::Zone("au".into()), "eve")];
    of.into_iter().map(|(number, scope, key)| write((number, id(scope, key)))).collect()
}

fn circuit_step(script: &mut Script<'_>) -> Step {
    match script.byte() % 4 {
        0 => Step::Open,
        1 => Step::Bytes(Bytes::from(vec![0; CIRCUIT_PIECE_BYTES >> (script.byte() % 16)])),
        2 => Step::Room(u32::try_from(script.number()).unwrap_or(u32::MAX)),
        _ => Step::End,
    }
}

fn document(script: &mut Script<'_>) -> DocumentId {
    id(scope(script), ["ada", "bob", "eve", "theirs"][script.index(4)])
}

fn scope(script: &mut Script<'_>) -> Scope {
    [Scope::Global, Scope::Zone("au".into()), Scope::Zone("gb".into())][script.index(3)].clone()
}

fn roots(script: &mut Script<'_>) -> Vec<Root> {
    (0..script.byte() % 3).map(|_| Root { scope: scope(script), sum: sum(script) }).collect()
}

/// Most are empty.
fn sums(script: &mut Script<'_>) -> Vec<Sum> {
    let mut sums = vec![Sum::default(); SUMS];
    for _ in 0..script.byte() % 8 {
        sums[script.index(SUMS)] = sum(script);
    }
    sums
}

fn sum(script: &mut Script<'_>) -> Sum {
    Sum { count: script.number(), sum: u128::from(script.number()) << 64 | u128::from(script.number()) }
}

fn incarnation(script: &mut Script<'_>) -> Incarnation {
    let number = |script: &mut Script<'_>| u32::try_from(script.number()).unwrap_or(STARTS_MAX);
    Incarnation { starts: number(script), refutations: number(script) }
}

fn label(script: &mut Script<'_>) -> String {
    String::from_utf8_lossy(script.bytes()).into_owned()
}
